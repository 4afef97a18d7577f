"""The question that a run asks of every region, and the words in which a model reads it.

Only what the person wrote, and the size of the picture, enter a prompt: nothing that a file says of itself.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, cast

from pydantic import Field

from ...readers.errors import RequestError, excerpt
from ...readers.options import invalid_option
from ..annotator import UNDECIDED
from ..options import Names, NetworkOptions
from .box_format import BoxFormat
from .special_tokens import refuse_marks
from .strict_json import parse_json

AnswerKind = Literal["describe", "classify", "locate", "extract"]

UNPLACED = "unplaced"  # the label of boxes that cannot be where the model says
DESCRIPTION = "description"  # the label of a text
RECORD = "record"  # the label of extracted values

MOST_LABELS = 256
LONGEST_SCHEMA = 65536  # characters

_ASKED = {
    "describe": "Describe this image in detail.",
    "classify": "What does this image show?",
    "locate": "",
    "extract": "What does this image show?",
}
_RESERVED = {UNDECIDED, UNPLACED}
_VALID = "valid"  # a number that every answer about a region has


class QuestionOptions(NetworkOptions):
    """Options of every annotator that is asked a question."""

    question: str = Field(default="", description="What is asked of each region; `--ask` sets it.")
    answer: Literal["", "describe", "classify", "locate", "extract"] = Field(
        default="",
        description="The kind of answer; by default extract where there is a schema, classify where there are labels, "
        "else describe.",
    )
    labels: Names = Field(default=(), description="What to choose from, or to look for.")
    json_schema: str = Field(default="", description="A JSON schema of the values to extract; `--schema-file` sets it.")
    margin: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Probability by which a label must lead the next to be given.",
    )
    orders: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Orders in which labels are listed; 0 is one for each label, at most four.",
    )
    max_tokens: int = Field(default=512, ge=1, le=32768, description="The most tokens of a text.")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of each region, and what kind of answer is wanted.

    `labels` is a closed set: what "classify" chooses from, at least two, or what "locate" looks for, at least one.
    `schema` is the JSON schema, as canonical text, that an "extract" obeys. A label is given only where its
    probability is `margin` ahead of the next. Options are listed in `orders` different orders, whose answers are
    averaged; 0 is one for each label, at most four. A text may have `max_tokens` tokens.
    """

    text: str
    answer: AnswerKind = "describe"
    labels: tuple[str, ...] = ()
    schema: str = ""
    margin: float = 0.1
    orders: int = 0
    max_tokens: int = 512

    @classmethod
    def of(cls, options: QuestionOptions, owner: str) -> Self:
        """A question from the options of the annotator `owner`. Raises `RequestError` that names the option."""
        labels = options.labels
        written = {"question": options.question, "labels": ",".join(labels), "json_schema": options.json_schema}
        refuse_marks(written, of=owner)
        answer = options.answer or ("extract" if options.json_schema else "classify" if labels else "describe")
        text = " ".join(options.question.split()) or _ASKED[answer]
        _check_labels(labels, answer, owner)
        schema = _read_schema(options.json_schema, answer, owner)
        return cls(text, answer, labels, schema, options.margin, options.orders, options.max_tokens)

    def check_grammar(self, owner: str) -> Self:
        """Raise `RequestError` where no grammar can hold the answers of the annotator `owner` to its schema."""
        if self.schema:
            from .grammar import check_schema

            check_schema(self.schema, subject=f"option 'json_schema' of {owner}")
        return self

    @property
    def findings(self) -> tuple[str, ...]:
        """Every label that a finding of this question can have, in the order in which reports list them."""
        if self.answer == "classify":
            return (*self.labels, UNDECIDED)
        if self.answer == "locate":
            return (*self.labels, UNPLACED)
        return (DESCRIPTION,) if self.answer == "describe" else (RECORD,)

    @property
    def identity(self) -> dict[str, str]:
        """The parts that decide an answer, for the manifest."""
        parts = {"question": self.text, "answer": self.answer}
        if self.labels:
            parts["labels"] = ", ".join(self.labels)
        if self.answer == "classify":
            parts |= {"margin": f"{self.margin:g}", "orders": str(len(self.label_orders()))}
        else:
            parts["max_tokens"] = str(self.max_tokens)
        return parts | ({"schema": self.schema} if self.schema else {})

    @property
    def texts(self) -> dict[str, str]:
        """What the person wrote, by option."""
        return {"question": self.text, "labels": ", ".join(self.labels), "json_schema": self.schema}

    def prompts(self) -> list[str]:
        """Every prompt that is put to a region, as long as they come with coordinates of three figures."""
        if self.answer == "classify":
            return self.classify_prompts()
        if self.answer == "locate":
            ruler = BoxFormat.of("pixels", (0.0, 0.0, 1.0, 1.0), (1000, 1000)).words
            return [self.locate_prompt(label, ruler) for label in self.labels]
        return [self.prompt()]

    def label_orders(self) -> list[tuple[int, ...]]:
        """The orders in which the labels are listed: places of `labels`, rotated evenly, so that none is favoured."""
        count = len(self.labels)
        wanted = min(self.orders or 4, count)
        shifts = [round(i * count / wanted) for i in range(wanted)]
        return [tuple((place + shift) % count for place in range(count)) for shift in shifts]

    def classify_prompts(self) -> list[str]:
        """A prompt for each of `label_orders`; they differ only after the question."""
        return [
            f"{self.text}\nOptions: {'; '.join(self.labels[place] for place in order)}.\n"
            "Answer with one of the options and nothing else."
            for order in self.label_orders()
        ]

    def locate_prompt(self, label: str, ruler: str) -> str:
        """The prompt that looks for a label; `ruler` says what coordinates mean."""
        asked = f"{self.text}\n" if self.text else ""
        return (
            f"{asked}Locate every instance of: {label}.\nAnswer with a JSON list of boxes [x0, y0, x1, y1], {ruler}, "
            "and with [] where there is none."
        )

    def prompt(self) -> str:
        """The prompt of a description, or of values to extract."""
        if self.answer == "extract":
            return f"{self.text}\nAnswer with JSON that obeys this schema: {self.schema}"
        return self.text


def _check_labels(labels: Sequence[str], answer: str, of: str) -> None:
    unseen = [label for label in labels if not label.isprintable()]
    if unseen:
        raise _wrong("labels", of, "each is one line of what can be seen", excerpt(unseen[0]), "Correct it")
    if len(labels) > MOST_LABELS:
        rule = f"there may be at most {MOST_LABELS}, since all are read with every question"
        raise _wrong("labels", of, rule, str(len(labels)), "Use --model zero-shot for more, or ask in several runs")
    if _RESERVED & set(labels):
        raise _wrong("labels", of, f"{' and '.join(sorted(_RESERVED))} are limner's own words", "", "Choose another")
    needed = {"classify": 2, "locate": 1}.get(answer, 0)
    if len(labels) < needed:
        raise _wrong(
            "labels", of, f"{answer} needs at least {needed}", ", ".join(labels), 'Add --labels "ship,quay,crane"'
        )
    if labels and not needed:
        raise _wrong("labels", of, f"{answer} takes none", ", ".join(labels), "Leave them out, or ask to classify")


def _read_schema(text: str, answer: str, of: str) -> str:
    """The schema as canonical JSON; "" where none is needed."""
    if bool(text) != (answer == "extract"):
        rule = "extract needs a JSON schema" if answer == "extract" else f"{answer} takes none"
        raise _wrong("json_schema", of, rule, text[:80], "Leave it out" if text else "Add --schema-file FILE.json")
    if not text:
        return ""
    if len(text) > LONGEST_SCHEMA:
        rule = f"it may have at most {LONGEST_SCHEMA} characters, since it is read with every question"
        raise _wrong("json_schema", of, rule, str(len(text)), "Ask for less at a time")
    try:
        content: object = parse_json(text)
        json.dumps(content, ensure_ascii=False).encode()  # halves of characters are no text
    except (ValueError, RecursionError) as error:
        raise _wrong("json_schema", of, "it must be JSON", excerpt(str(error)), "Correct the file") from error
    if not isinstance(content, dict) or cast("dict[str, object]", content).get("type") != "object":
        rule = 'it must describe an object: "type": "object" at the top'
        raise _wrong("json_schema", of, rule, text[:80], "Put the values into its properties")
    properties: object = cast("dict[str, object]", content).get("properties", {})
    if isinstance(properties, dict) and _VALID in properties:
        rule = f"{_VALID} is limner's own word for how much of a region counts"
        raise _wrong("json_schema", of, rule, "", "Rename it")
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _wrong(name: str, of: str, rule: str, value: str, remedy: str) -> RequestError:
    return invalid_option(name, of, rule, value=value, remedy=remedy)
