"""The annotator of vision-language models: a question goes to a backend, and its texts and scores become answers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt

from ...readers.errors import ModelError, RequestError
from ...readers.image import ImageInfo
from ..annotator import UNDECIDED, UNDECIDED_COLOUR, Answer, Cost, InputSpec, RemoteAnnotator, SupportsDomain, View
from ..domain import Domain
from ..scores import softmax
from ..tiling import WHITE, join_tiles
from ..views import valid_share
from .box_format import BoxFormat, PlacedBox
from .question import DESCRIPTION, FORM, RECORD, THOUGHT, UNPLACED, Question
from .schema import parse_json
from .texts import GeneratedText

Picture = npt.NDArray[np.uint8]
"""RGB (H, W, 3)."""
PictureLayout = Literal["canvas", "tiles"]
"""A region as one picture of the whole canvas, or as its global view and then its tiles, row by row."""

DIGITS = 4  # of probabilities: differences between machines and batches are smaller


class VlmBackend(Protocol):
    """A vision-language model that generates texts and scores options; lives in one worker.

    Making one is cheap and loads neither weights nor network.
    """

    @property
    def identity(self) -> Mapping[str, str]:
        """`name`, `version`, and all else that decides its answers. Raises `ModelError` where a file is absent."""
        ...

    def check(self, question: Question) -> None:
        """Verify its files, and that it can answer this question. Raises `RequestError`, `ModelError`."""
        ...

    def input_spec(self) -> InputSpec:
        """Its views: rendered RGB, the size of a tile, and whether it needs the global view. Raises `ModelError`."""
        ...

    def load(self) -> None:
        """Load its network, where it has one, and keep it. Raises `ModelError`, `RequestError`, `MemoryError`."""
        ...

    def cost(self, tiles: tuple[int, int], question: Question) -> Cost | None:
        """The cost of this question about a region of (columns, rows) tiles; None where it is unknown.

        Raises `ModelError`, `RequestError`.
        """
        ...

    def box_format(self, view: View) -> BoxFormat:
        """The coordinates in which it names boxes on that view."""
        ...

    def generate(
        self,
        views: Sequence[View],
        prompts: Sequence[str],
        *,
        limit: int,
        schema: str = "",
        formats: Sequence[BoxFormat] = (),
    ) -> list[GeneratedText]:
        """A text for each view and its prompt, decoded greedily, so that it is the same every time.

        A text has at most `limit` tokens. With a JSON `schema` it obeys that, or an error is raised; with the `formats`
        of the views it names boxes, in the schema or in another form that the format of its view reads. Raises
        `ModelError`, or `MemoryError` where the batch does not fit into memory.
        """
        ...

    def score_options(self, views: Sequence[View], prompts: Sequence[str], options: Sequence[str]) -> "OptionScores":
        """The scores of each option as the whole answer to each prompt. Raises as `generate` does."""
        ...


@dataclass(frozen=True, slots=True)
class OptionScores:
    """How likely a model finds each of several options."""

    likelihoods: npt.NDArray[np.float64]
    """Natural logarithms (views, prompts, options); -inf where a model only tells which option it chooses."""
    form_by_view: tuple[str, ...] = ()
    """For each view in what form its answers were found, "" as asked for; () where all are as asked for."""


class VlmAnnotator:
    """A question and a backend. Every answer is about a region, except for boxes."""

    def __init__(self, question: Question, backend: VlmBackend) -> None:
        self._question = question
        self._backend = backend

    @property
    def identity(self) -> Mapping[str, str]:
        """The identity of the backend, and the parts of the question. Raises `ModelError` where a file is absent."""
        return {**self._backend.identity, **self._question.identity}

    @property
    def labels(self) -> tuple[str, ...]:
        """The question's labels, and limner's own for answers without one."""
        return self._question.findings

    @property
    def colours(self) -> Mapping[str, str]:
        """Grey for undecided regions; the others get colours from a palette."""
        return {UNDECIDED: UNDECIDED_COLOUR} if UNDECIDED in self.labels else {}

    @property
    def domain(self) -> Sequence[Domain]:
        """The domain of the backend, where it states one. Raises `ModelError`."""
        return self._backend.domain if isinstance(self._backend, SupportsDomain) else ()

    @property
    def host(self) -> str:
        """The host of a remote backend; else ""."""
        return self._backend.host if isinstance(self._backend, RemoteAnnotator) else ""

    def input_spec(self, info: ImageInfo) -> InputSpec:
        """The backend's, for any image. Raises `ModelError`."""
        del info
        return self._backend.input_spec()

    def check(self, specs: Sequence[InputSpec]) -> None:
        """See `VlmBackend.check`."""
        del specs
        self._backend.check(self._question)

    def load(self) -> None:
        """See `VlmBackend.load`."""
        self._backend.load()

    def cost(self, specs: Sequence[InputSpec], tiles: tuple[int, int]) -> Cost | None:
        """See `VlmBackend.cost`."""
        del specs
        return self._backend.cost(tiles, self._question)

    def annotate(self, views: Sequence[View]) -> Sequence[Sequence[Answer]]:
        """The answers of each view. Raises `ModelError`, `MemoryError`."""
        kinds = {"classify": self._classify, "locate": self._locate, "extract": self._extract}
        return kinds.get(self._question.answer, self._describe)(views)

    def _describe(self, views: Sequence[View]) -> list[list[Answer]]:
        texts = [text.check(self._question.max_tokens) for text in self._generate(views, self._question.prompt())]
        return [
            [_region_answer(view, DESCRIPTION, text=text.marked, cut=text.cut, notes=_notes(text))]
            for view, text in zip(views, texts, strict=True)
        ]

    def _extract(self, views: Sequence[View]) -> list[list[Answer]]:
        """Numbers and booleans become columns of numbers, other values texts; nested values stay JSON."""
        texts = self._generate(views, self._question.prompt(), schema=self._question.schema)
        answers: list[list[Answer]] = []
        for view, text in zip(views, texts, strict=True):
            values = _parse_record(text.text, view)
            numbers = {k: float(v) for k, v in values.items() if isinstance(v, (int, float))}
            others = {k: v for k, v in values.items() if k not in numbers}
            notes = {k: v if isinstance(v, str) else _canonical_json(v) for k, v in others.items()} | _notes(text)
            answers.append([_region_answer(view, RECORD, text=_canonical_json(values), numbers=numbers, notes=notes)])
        return answers

    def _classify(self, views: Sequence[View]) -> list[list[Answer]]:
        """Probabilities are softmaxes of the options' log-likelihoods, averaged over the orders of listing them.

        `agreement` is the share of the orders that by themselves put the winner first, `margin` its lead.
        """
        labels = self._question.labels
        scores = self._backend.score_options(views, self._question.classify_prompts(), labels)
        form_by_view = scores.form_by_view or ("",) * len(views)
        answers: list[list[Answer]] = []
        for view, by_order, form in zip(views, softmax(scores.likelihoods), form_by_view, strict=True):
            mean = [round(float(p), DIGITS) for p in by_order.mean(axis=0)]
            best = mean.index(max(mean))  # the first of equals
            lead = round(mean[best] - max(p for i, p in enumerate(mean) if i != best), DIGITS)
            agreement = round(float((by_order.argmax(axis=1) == best).mean()), DIGITS)
            decided = lead >= self._question.margin
            numbers = {f"p.{label}": p for label, p in zip(labels, mean, strict=True)}
            numbers |= {"agreement": agreement, "margin": lead}
            notes = ({} if decided else {"nearest": labels[best]}) | ({FORM: form} if form else {})
            label = labels[best] if decided else UNDECIDED
            answers.append([_region_answer(view, label, score=mean[best], numbers=numbers, notes=notes)])
        return answers

    def _locate(self, views: Sequence[View]) -> list[list[Answer]]:
        """A box for each that the model names; boxes that cannot be placed become one answer about the region."""
        formats = [self._backend.box_format(view) for view in views]
        answers: list[list[Answer]] = [[] for _ in views]
        limit = self._question.max_tokens
        for label in self._question.labels:
            prompts = [self._question.locate_prompt(label, box_format.request) for box_format in formats]
            schemas = {box_format.schema for box_format in formats}
            if len(schemas) == 1:
                texts = self._backend.generate(views, prompts, limit=limit, schema=schemas.pop(), formats=formats)
            else:
                texts = [
                    self._backend.generate([view], [prompt], limit=limit, schema=one.schema, formats=[one])[0]
                    for view, prompt, one in zip(views, prompts, formats, strict=True)
                ]
            for view, box_format, text, found in zip(views, formats, texts, answers, strict=True):
                placed, errors = box_format.read(text.text)
                for one in placed:
                    if self._is_another(one.name, label):
                        errors = "; ".join(filter(None, (errors, f"a box is named {one.name}")))
                    else:
                        found.append(_box_answer(label, one, text.form))
                if errors:
                    notes = {"looked_for": label, "why": errors}
                    found.append(_region_answer(view, UNPLACED, text=text.marked, cut=text.cut, notes=notes))
        return answers

    def _is_another(self, name: str, label: str) -> bool:
        """Whether the name that a model gives a box is another one of the labels than the one that was looked for."""
        others = {one.casefold() for one in self._question.labels} - {label.casefold()}
        return name.casefold() in others

    def _generate(self, views: Sequence[View], prompt: str, *, schema: str = "") -> list[GeneratedText]:
        limit = self._question.max_tokens
        return self._backend.generate(views, [prompt] * len(views), limit=limit, schema=schema)


def view_pictures(view: View, layout: PictureLayout) -> list[Picture]:
    """A view's pictures in the order in which the model gets them."""
    if layout == "canvas":
        return [join_tiles(view.tiles, view.grid)]
    if view.global_view is None:
        msg = f"region {view.region.key}: tiles come after their global view"
        raise ValueError(msg)
    overall = np.clip(np.rint(view.global_view), 0, WHITE).astype(np.uint8)  # bicubic filtering overshoots
    return [overall, *view.tiles]


def check_context(subject: str, tokens: int, context: int, *, written: int) -> None:
    """Raise `RequestError` where a question, its answer and the smallest region exceed a context; 0 is unknown.

    `written` is the most tokens of a generated answer among them, 0 where labels are scored.
    """
    if context and tokens > context:
        raise RequestError(
            subject,
            f"must fit, with its answer and a region of one tile, into the model's {context} tokens",
            value=str(tokens),
            remedy="Shorten the question"
            + (f", or lower --set model_options.max_tokens from {written}" if written else " or the labels"),
        )


def _region_answer(
    view: View,
    label: str,
    *,
    text: str = "",
    cut: bool = False,
    score: float | None = None,
    numbers: Mapping[str, float] | None = None,
    notes: Mapping[str, str] | None = None,
) -> Answer:
    """An answer about a whole region, with the share of its core that is valid and inside the region of interest."""
    numbers = {**(numbers or {}), "valid": round(valid_share(view), 6)}
    notes = notes or {}
    return Answer(label, None, "region", score=score, text=text, text_cut=cut, numbers=numbers, notes=notes)


def _box_answer(label: str, placed: PlacedBox, form: str) -> Answer:
    """A box, with the form in which it was written and its name in the text, where these are not as asked for."""
    form = ", ".join(filter(None, (placed.form, form)))
    named = placed.name if placed.name.casefold() != label.casefold() else ""
    notes = {key: value for key, value in ((FORM, form), ("named", named)) if value}
    return Answer(label=label, geometry=placed.geometry, kind="box", notes=notes)


def _notes(text: GeneratedText) -> dict[str, str]:
    """The thought before a text, and in what form the answer was found, where there is any to tell."""
    return {key: value for key, value in ((THOUGHT, text.thought), (FORM, text.form)) if value}


def _canonical_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _parse_record(text: str, view: View) -> dict[str, Any]:
    """The values of a record, whose numbers JSON does not bound. Raises `ModelError`."""
    try:
        return cast("dict[str, Any]", parse_json(text))
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"answer on {view.region.key}",
            "must be JSON with finite numbers and each name only once",
            value=str(error),
            remedy="Bound numbers with minimum and maximum in the schema",
        ) from None
