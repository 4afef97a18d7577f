"""The annotator that asks: a question goes to a respondent, and what it says becomes answers on the view."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ...readers.errors import ModelError
from ...readers.image import ImageInfo
from ..annotator import UNDECIDED, UNDECIDED_COLOUR, Answer, Cost, InputSpec, RemoteAnnotator, View
from ..scores import softmax
from ..views import valid_share
from .backend import CUT, VlmBackend
from .question import DESCRIPTION, RECORD, UNPLACED, Question
from .strict_json import parse_json

DIGITS = 4  # of probabilities: what differs between machines and batches lies below


class VlmAnnotator:
    """An annotator made of a question and a respondent. Every answer is about a region, but for boxes."""

    def __init__(self, question: Question, respondent: VlmBackend) -> None:
        self._question = question
        self._respondent = respondent

    @property
    def identity(self) -> Mapping[str, str]:
        """The respondent's, and the question's parts. Raises `ModelError` where the model is not here."""
        return {**self._respondent.identity, **self._question.identity}

    @property
    def labels(self) -> tuple[str, ...]:
        """The question's labels, and limner's word for where none can be given."""
        return self._question.findings

    @property
    def colours(self) -> Mapping[str, str]:
        """Grey for what is undecided; the others get one from a palette."""
        return {UNDECIDED: UNDECIDED_COLOUR} if UNDECIDED in self.labels else {}

    @property
    def host(self) -> str:
        """Where the respondent is, if that is elsewhere; else ""."""
        return self._respondent.host if isinstance(self._respondent, RemoteAnnotator) else ""

    def input_spec(self, info: ImageInfo) -> InputSpec:
        """The respondent's: any picture that can be rendered will do. Raises `ModelError`."""
        del info
        return self._respondent.input_spec()

    def check(self, specs: Sequence[InputSpec]) -> None:
        """Verify that the respondent is here and can be asked this question. Raises `RequestError`, `ModelError`."""
        del specs
        self._respondent.check(self._question)

    def load(self) -> None:
        """See `VlmBackend.load`."""
        self._respondent.load()

    def cost(self, specs: Sequence[InputSpec], tiles: tuple[int, int]) -> Cost | None:
        """What a region of (columns, rows) tiles costs, where the respondent knows. See `Costing`."""
        del specs
        return self._respondent.cost(tiles, self._question)

    def annotate(self, views: Sequence[View]) -> Sequence[Sequence[Answer]]:
        """The answers of each view. Raises `ModelError`, `MemoryError`."""
        ask = {"classify": self._classify, "locate": self._locate, "extract": self._extract}
        return ask.get(self._question.answer, self._describe)(views)

    def _describe(self, views: Sequence[View]) -> list[list[Answer]]:
        texts = self._tell(views, self._question.prompt())
        for text in texts:
            if not text.removesuffix(CUT).strip():
                raise ModelError(
                    "model's answer", "it must hold a text", value="none", remedy="Ask in other words, or another model"
                )
        return [[_about(view, DESCRIPTION, text=text.strip())] for view, text in zip(views, texts, strict=True)]

    def _extract(self, views: Sequence[View]) -> list[list[Answer]]:
        """Numbers and truths become columns of numbers, other values texts; what is nested keeps its JSON."""
        texts = self._tell(views, self._question.prompt(), schema=self._question.schema)
        answers: list[list[Answer]] = []
        for view, text in zip(views, texts, strict=True):
            values = _values(text, view)
            numbers = {k: float(v) for k, v in values.items() if isinstance(v, (int, float))}
            notes = {
                k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False, sort_keys=True)
                for k, v in values.items()
                if k not in numbers
            }
            text = json.dumps(values, ensure_ascii=False, sort_keys=True)  # noqa: PLW2901 - the same, canonical
            answers.append([_about(view, RECORD, text=text, numbers=numbers, notes=notes)])
        return answers

    def _classify(self, views: Sequence[View]) -> list[list[Answer]]:
        """Probabilities are softmaxes of the options' likelihoods, averaged over the orders of listing them.

        `agreement` is the part of the orders that put the winner first by themselves, `margin` how far it is ahead.
        """
        labels = self._question.labels
        weighed = self._respondent.score_options(views, self._question.classify_prompts(), labels)
        answers: list[list[Answer]] = []
        for view, by_order in zip(views, softmax(weighed), strict=True):
            mean = [round(float(p), DIGITS) for p in by_order.mean(axis=0)]
            best = mean.index(max(mean))  # the first of equals
            ahead = round(mean[best] - max(p for i, p in enumerate(mean) if i != best), DIGITS)
            agreement = round(float((by_order.argmax(axis=1) == best).mean()), DIGITS)
            decided = ahead >= self._question.margin
            numbers = {f"p.{label}": p for label, p in zip(labels, mean, strict=True)}
            numbers |= {"agreement": agreement, "margin": ahead}
            notes = {} if decided else {"nearest": labels[best]}
            label = labels[best] if decided else UNDECIDED
            answers.append([_about(view, label, score=mean[best], numbers=numbers, notes=notes)])
        return answers

    def _locate(self, views: Sequence[View]) -> list[list[Answer]]:
        """A box for each that the model names; what cannot be placed is an answer about the region that says why."""
        rulers = [self._respondent.box_format(view) for view in views]
        answers: list[list[Answer]] = [[] for _ in views]
        for label in self._question.labels:
            prompts = [self._question.locate_prompt(label, ruler.words) for ruler in rulers]
            schemas = {ruler.schema for ruler in rulers}
            if len(schemas) == 1:
                limit = self._question.max_tokens
                texts = self._respondent.generate(views, prompts, limit=limit, schema=schemas.pop())
            else:
                texts = [
                    self._respondent.generate([view], [prompt], limit=self._question.max_tokens, schema=ruler.schema)[0]
                    for view, prompt, ruler in zip(views, prompts, rulers, strict=True)
                ]
            for view, ruler, text, kept in zip(views, rulers, texts, answers, strict=True):
                boxes, wrong = ruler.read(text)
                kept += [Answer(label=label, geometry=one, kind="box") for one in boxes]
                if wrong:
                    kept.append(_about(view, UNPLACED, text=text.strip(), notes={"looked_for": label, "why": wrong}))
        return answers

    def _tell(self, views: Sequence[View], prompt: str, *, schema: str = "") -> list[str]:
        limit = self._question.max_tokens
        return self._respondent.generate(views, [prompt] * len(views), limit=limit, schema=schema)


def _about(
    view: View,
    label: str,
    *,
    text: str = "",
    score: float | None = None,
    numbers: Mapping[str, float] | None = None,
    notes: Mapping[str, str] | None = None,
) -> Answer:
    """An answer about a whole region, with how much of its core holds data that was asked for."""
    return Answer(
        label=label,
        geometry=None,
        kind="region",
        score=score,
        text=text,
        numbers={**(numbers or {}), "valid": round(valid_share(view), 6)},
        notes=notes or {},
    )


def _values(text: str, view: View) -> dict[str, Any]:
    """The values of a record, in which JSON lets numbers be as large as one likes. Raises `ModelError`."""
    try:
        return cast("dict[str, Any]", parse_json(text))
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"answer on {view.region.key}",
            "it must be JSON whose numbers are finite and whose names are told once",
            value=str(error),
            remedy="Bound numbers with minimum and maximum in the schema",
        ) from None
