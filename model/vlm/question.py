"""The question that a run asks about every region, and the prompts made of it.

A prompt holds only the user's texts and the size of the picture, nothing from the content of a file.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self, cast

from pydantic import Field

from ...readers.errors import RequestError, excerpt
from ...readers.options import invalid_option
from ..annotator import UNDECIDED
from ..options import Names, NetworkOptions
from .box_format import BoxFormat
from .schema import parse_json
from .texts import MAX_TOKENS

AnswerKind = Literal["describe", "classify", "locate", "extract"]

UNPLACED = "unplaced"  # the label of boxes that lie where none can be
DESCRIPTION = "description"  # the label of a text
RECORD = "record"  # the label of extracted values
FORM = "answer_form"  # the note that says in what form an answer was found, where that is not the one asked for
THOUGHT = "answer_thought"  # the note with what the model wrote before its answer

MAX_LABELS = 256
MAX_SCHEMA = 65536  # characters

_DEFAULT_QUESTIONS = {
    "describe": "Describe this image in detail.",
    "classify": "What does this image show?",
    "locate": "",
    "extract": "What does this image show?",
}
_RESERVED = {UNDECIDED, UNPLACED}
_OWN_NAMES = {
    "valid": "limner's own share of valid pixels",
    FORM: "limner's own form of the answer",
    THOUGHT: "limner's own thought before the answer",
}
"""Numbers and notes of an answer about a region that are limner's own."""

_NAMES = (
    "image|img|im_start|im_end|im_patch|video|audio|pad|eos|bos|unk|mask|sep|cls|ctx|box|ref|quad|fim_\\w+|think|SYS"
)
SPECIAL_TOKEN = re.compile(
    r"<[|\uff5c][^<>\n]{1,60}[|\uff5c]>"  # <|im_start|>, <|endoftext|>, <|image_pad|>, DeepSeek's
    r"|\[UNUSED_TOKEN_\d+\]|<ImageHere>"  # InternLM's
    rf"|</?(?:s|{_NAMES})(?:_?\d+)?>|<<?/?SYS>?>"
    r"|</?(?:start|end)_of_\w+>|<(?:\w+_)?(?:image|img|IMG)(?:_\w+)?>"  # Gemma's turns, and places of pictures
    r"|<image_soft_token>|<IMG_CONTEXT>|<extra_id_\d+>|<\uff5c[^<>\n]+>"
    r"|\[/?(?:INST|IMG|IMG_BREAK|IMG_END|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]",
    re.IGNORECASE,
)
"""Special tokens of the families in use; a checkpoint's own come from its tokenizer."""


class QuestionOptions(NetworkOptions):
    """Options of every annotator that answers a question."""

    question: str = Field(default="", description="The question about each region; `--ask` sets it.")
    answer: Literal["", "describe", "classify", "locate", "extract"] = Field(
        default="",
        description="The kind of answer; by default extract with a schema, classify with labels, else describe.",
    )
    labels: Names = Field(default=(), description="The labels to choose from, or to look for.")
    json_schema: str = Field(default="", description="A JSON schema of the values to extract; `--schema-file` sets it.")
    margin: float = Field(
        default=0.1, ge=0, le=1, description="Lead in probability over the next label; with less, it is undecided."
    )
    orders: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Orders in which labels are listed; 0 is one for each label, at most four.",
    )
    max_tokens: int = Field(default=512, ge=1, le=MAX_TOKENS, description="The most tokens of a text.")


class PictureOptions(QuestionOptions):
    """Options of annotators whose models take pictures of any size."""

    views: Literal["canvas", "tiles"] = Field(
        default="canvas",
        description="Whether a region is shown as one picture, or as its global view and then each tile.",
    )
    boxes: Literal["", "pixels", "thousandths", "unit", "thousandths-yx"] = Field(
        default="",
        description="The unit in which the model names boxes, where it is not known; -yx has y first.",
    )


@dataclass(frozen=True, slots=True)
class Question:
    """A question about each region, and the kind of answer."""

    text: str
    answer: AnswerKind = "describe"
    labels: tuple[str, ...] = ()
    """What "classify" chooses from (at least two), or what "locate" looks for (at least one)."""
    schema: str = ""
    """The JSON schema of "extract", as canonical text."""
    margin: float = 0.1
    """Lead in probability over the next label without which a region is undecided."""
    orders: int = 0
    """Orders in which the labels are listed, to average their scores; 0 is one for each label, at most four."""
    max_tokens: int = 512

    @classmethod
    def from_options(cls, options: QuestionOptions, owner: str) -> Self:
        """The question in the options of the annotator `owner`. Raises `RequestError` that names the option."""
        labels = options.labels
        texts = {"question": options.question, "labels": ",".join(labels), "json_schema": options.json_schema}
        refuse_special_tokens(texts, of=owner)
        answer = options.answer or ("extract" if options.json_schema else "classify" if labels else "describe")
        text = " ".join(options.question.split()) or _DEFAULT_QUESTIONS[answer]
        _check_labels(labels, answer, owner)
        schema = _read_schema(options.json_schema, answer, owner)
        return cls(text, answer, labels, schema, options.margin, options.orders, options.max_tokens)

    def check_grammar(self, owner: str) -> Self:
        """Raise `RequestError` where no grammar can keep the answers of the annotator `owner` to the schema."""
        if self.schema:
            from .decoding import check_schema

            check_schema(self.schema, subject=f"option 'json_schema' of {owner}")
        return self

    @property
    def findings(self) -> tuple[str, ...]:
        """Every label that a finding of this question can have, in the order of reports."""
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
        """The user's texts, by option."""
        return {"question": self.text, "labels": ", ".join(self.labels), "json_schema": self.schema}

    def prompts(self) -> list[str]:
        """Every prompt about a region, where a box format enters with coordinates of four figures."""
        if self.answer == "classify":
            return self.classify_prompts()
        if self.answer == "locate":
            boxes = BoxFormat.of("pixels", (0.0, 0.0, 1.0, 1.0), (1000, 1000)).request
            return [self.locate_prompt(label, boxes) for label in self.labels]
        return [self.prompt()]

    def label_orders(self) -> list[tuple[int, ...]]:
        """The orders in which the labels are listed: indices of `labels`, rotated evenly, so that none is favoured."""
        count = len(self.labels)
        orders = min(self.orders or 4, count)
        shifts = [round(i * count / orders) for i in range(orders)]
        return [tuple((place + shift) % count for place in range(count)) for shift in shifts]

    def classify_prompts(self) -> list[str]:
        """A prompt for each of `label_orders`; they differ only after the question."""
        return [
            f"{self.text}\nOptions: {'; '.join(self.labels[place] for place in order)}.\n"
            "Answer with one of the options and nothing else."
            for order in self.label_orders()
        ]

    def locate_prompt(self, label: str, boxes: str) -> str:
        """The prompt that looks for a label; `boxes` asks for a form of boxes."""
        question = f"{self.text}\n" if self.text else ""
        return f"{question}Locate every instance of: {label}.\n{boxes}, and with [] where there is none."

    def prompt(self) -> str:
        """The prompt of a description, or of values to extract."""
        if self.answer == "extract":
            return f"{self.text}\nAnswer with JSON that obeys this schema: {self.schema}"
        return self.text


def refuse_special_tokens(texts: Mapping[str, str], *, of: str, find: Callable[[str], str] | None = None) -> None:
    """Raise `RequestError` for the first text, by the name of its option, that holds a model's special token.

    Models read them as a turn of the chat, a picture or the end of a text. They are refused, not encoded as plain text,
    which many tokenizers cannot do. `of` is the annotator; `find` returns the special token that a checkpoint's
    tokenizer finds in a text, "" for none.
    """
    for name, text in texts.items():
        known = SPECIAL_TOKEN.search(text)
        token = known[0] if known else find(text) if find else ""
        if token:
            raise RequestError(
                f"option {name!r} of {of}",
                "must not hold the special tokens by which models separate pictures and turns of a chat",
                value=excerpt(token),
                remedy="Leave the token out, or write it in other words",
            )


def _check_labels(labels: Sequence[str], answer: str, of: str) -> None:
    def wrong(rule: str, value: str, remedy: str) -> RequestError:
        return invalid_option("labels", of, rule, value=value, remedy=remedy)

    needed = {"classify": 2, "locate": 1}.get(answer, 0)
    for label in labels:
        if not label.isprintable():
            raise wrong("must be printable, on one line each", excerpt(label), "Correct it")
    if len(labels) > MAX_LABELS:
        remedy = "Use --model zero-shot for more, or ask in several runs"
        raise wrong(f"must be at most {MAX_LABELS}, since every prompt lists all", str(len(labels)), remedy)
    if _RESERVED & set(labels):
        rule = f"must not be {' or '.join(sorted(_RESERVED))}, which are limner's own"
        raise wrong(rule, ", ".join(_RESERVED & set(labels)), "Choose another word")
    if len(labels) < needed:
        rule = f"must be at least {needed} to {answer}"
        raise wrong(rule, ", ".join(labels) or "none", 'Add --labels "ship,quay,crane"')
    if labels and not needed:
        raise wrong(f"must be left out to {answer}", ", ".join(labels), "Leave them out, or ask to classify")


def _read_schema(text: str, answer: str, of: str) -> str:
    """The schema as canonical JSON; "" where none is needed."""

    def wrong(rule: str, value: str, remedy: str) -> RequestError:
        return invalid_option("json_schema", of, rule, value=value, remedy=remedy)

    if bool(text) != (answer == "extract"):
        if text:
            raise wrong(f"must be left out to {answer}", text[:80], "Leave it out, or ask to extract")
        raise wrong("must be given to extract", "", "Add --schema-file FILE.json")
    if not text:
        return ""
    if len(text) > MAX_SCHEMA:
        rule = f"must have at most {MAX_SCHEMA} characters, since every prompt holds it"
        raise wrong(rule, str(len(text)), "Ask for less at a time")
    try:
        content: object = parse_json(text)
        json.dumps(content, ensure_ascii=False).encode()  # lone surrogates cannot be encoded
    except (ValueError, RecursionError) as error:
        raise wrong("must be JSON", str(error), "Correct the file") from error
    if not isinstance(content, dict) or cast("dict[str, object]", content).get("type") != "object":
        rule = 'must describe an object, with "type": "object" at the top'
        raise wrong(rule, text[:80], "Put the values into its properties")
    properties: object = cast("dict[str, object]", content).get("properties", {})
    for name, own in _OWN_NAMES.items():
        if isinstance(properties, dict) and name in properties:
            raise wrong(f"must not have the property {name}, {own}", "", "Rename it")
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
