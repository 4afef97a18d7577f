"""What annotators that load a network share: their options, the choice among a model's labels, and a base class."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AfterValidator, Field

from ..readers.errors import ModelError, did_you_mean
from ..readers.options import NEUTRAL, Options
from .annotator import Answer, InputSpec, View
from .class_maps import Averaging


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        msg = f"each may be named once, and {', '.join(repeated)} is named again"
        raise ValueError(msg)
    return names


def _one_line(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        msg = "it is one line of text"
        raise ValueError(msg)
    return text


Names = Annotated[tuple[str, ...], AfterValidator(_unique)]
"""Names separated by commas, each once."""

OneLine = Annotated[str, AfterValidator(_one_line)]
"""Text of one line without spaces around it."""


class NetworkOptions(Options):
    """Options of every annotator that loads a network."""

    fetch: bool = Field(
        default=False, description="Whether weights may be fetched; `--fetch` sets it.", json_schema_extra=NEUTRAL
    )
    threads: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="Threads of the network; 0 is its library's choice.",
        json_schema_extra=NEUTRAL,
    )


class SegmentationOptions(NetworkOptions):
    """Options of every annotator that may run a segmentation network in tiles."""

    normalise: Literal["image", "tile"] = Field(
        default="image",
        description="Where a network normalises by what a tile shows: by the whole image instead, or as it is.",
    )
    blend: bool = Field(
        default=False, description="Average the scores of overlapping tiles, with less weight towards a tile's edge."
    )
    flips: bool = Field(default=False, description="Average the scores of a tile and of its three mirror images.")

    @property
    def averaging(self) -> Averaging:
        """Which scores are averaged."""
        return Averaging(self.blend, self.flips)

    @property
    def identity(self) -> Mapping[str, str]:
        """What of it decides answers, for `Annotator.identity`; {} where it is as by default."""
        stated = {"blend": self.blend, "flips": self.flips, "normalise": self.normalise == "tile" and "tile"}
        return {name: str(value).lower() for name, value in stated.items() if value}


class CheckpointOptions(NetworkOptions):
    """Options of every annotator that is named by a checkpoint."""

    checkpoint: str = Field(min_length=1)


OptionsT = TypeVar("OptionsT", bound=CheckpointOptions)


class CheckpointAnnotator(Generic[OptionsT]):
    """Base of annotators that run the one network of a checkpoint and keep the answers of some of its labels."""

    def __init__(self, options: OptionsT) -> None:
        self._options = options
        self._source = options.checkpoint

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it can give, or those of them that were asked for. Raises `ModelError`."""
        raise NotImplementedError

    @property
    def colours(self) -> Mapping[str, str]:
        """No colours of its own."""
        return {}

    def load(self) -> None:
        """See `Annotator`."""
        raise NotImplementedError

    def check(self, specs: Sequence[InputSpec]) -> None:
        """Read the configuration. Raises `ModelError`."""
        del specs
        _ = self.labels

    def annotate(self, views: Sequence[View]) -> Sequence[Sequence[Answer]]:
        """The answers to each view that have one of `labels`. Raises `ModelError`."""
        self.load()
        kept = frozenset(self.labels)
        return [[answer for answer in self.answer(view) if answer.label in kept] for view in views]

    def answer(self, view: View) -> Sequence[Answer]:
        """The network's answers to a view, for all of its labels. Raises `ModelError`."""
        raise NotImplementedError


def select_labels(asked: Sequence[str], labels: Sequence[str], model: str) -> tuple[str, ...]:
    """The labels that were asked for, in the model's order; all where none was. Raises `ModelError` for another."""
    unknown = [label for label in asked if label not in labels]
    if unknown:
        some = f"{', '.join(labels[:20])}{', …' if len(labels) > 20 else ''}"
        remedy = f"{did_you_mean(unknown[0], labels)}Its labels: {some}"
        raise ModelError(f"label {unknown[0]!r}", f"must be a label of {model}", remedy=remedy)
    return tuple(label for label in dict.fromkeys(labels) if not asked or label in asked)
