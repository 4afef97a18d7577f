"""A user's own network, described by a card, as a `VolumeModel`."""

import math
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from ...readers.errors import ModelError
from ...readers.image import ImageInfo
from ..annotator import Cost
from ..checkpoints.cards import CardIntensity, PatchCard
from ..checkpoints.memory import file_bytes
from ..checkpoints.weights import locate
from ..domain import Domain
from .answers import Decision
from .options import FolderOptions
from .orientation import AxesTriple
from .pipeline import Percentiles, Pipeline, Resample, Step, Window, ZScore
from .resampling import new_shape
from .runtimes import check_onnx, check_trusted, load_onnx, load_torchscript
from .sliding import Network, even_starts, fixed_starts
from .volume import LabelMap, Volume

_FEATURES = 64  # float32 channels of a patch that a network holds at a time: a guess, since its file does not tell
_LIBRARIES = 0.3 * 2**30  # bytes of torch and of MONAI, beyond those of every process: measured


class PatchModel:
    """The model of a `PatchCard`."""

    def __init__(self, card: PatchCard, options: FolderOptions) -> None:
        self.card = card
        self._options = options
        self._file = card.files[0]
        self._subject = f"network {card.name}"
        self._network: Network | None = None
        given = [name for name in ("folds", "flips", "configuration", "orientation") if getattr(options, name)]
        if given:
            rule, remedy = "must be used without options that it does not have", "Leave them out"
            raise ModelError(f"model {card.name}", rule, value=", ".join(given), remedy=remedy)

    @property
    def identity(self) -> Mapping[str, str]:
        """See `VolumeModel`."""
        runtime = "onnxruntime" if self.card.format == "onnx" else "torch"
        return {
            "name": self.card.name,
            "version": f"card {self.card.digest[:12]}",
            "card_sha256": self.card.digest,
            "licence": self.card.licence,
            "runtime": f"{runtime} {version(runtime)}",
            f"weights_sha256_{self._file.name}": self._file.sha256,
            **({} if self._options.step is None else {"step": f"{self._options.step:g}"}),
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """The card's classes, without background."""
        return self.card.labels

    @property
    def colours(self) -> Mapping[str, str]:
        """The card's."""
        return {one.name: one.colour for one in self.card.classes}

    @property
    def concepts(self) -> Mapping[str, tuple[str, str, str]]:
        """The card's codes."""
        return self.card.concepts

    @property
    def domain(self) -> Sequence[Domain]:
        """The card's."""
        return self.card.domain

    @property
    def gives_probabilities(self) -> bool:
        """See `VolumeModel`: always."""
        return True

    def suits(self, info: ImageInfo) -> None:
        """Any stack that is a volume suits."""

    def check(self) -> None:
        """Verify the network's file; an ONNX network is tried in a sandboxed process. Raises `ModelError`."""
        path = self._path()
        if self.card.format == "onnx":
            check_onnx(path, self._patch, self.card.layout, self._subject)
        else:
            check_trusted(path, self._file.sha256, self._options.trust, self._subject)

    def load(self) -> None:
        """Load the network. Raises `ModelError`."""
        if self._network is not None:
            return
        path, classes, layout = self._path(), len(self.card.classes), self.card.layout
        if self.card.format == "onnx":
            threads = self._options.threads
            self._network = load_onnx(path, classes=classes, layout=layout, threads=threads, subject=self._subject)
        else:
            check_trusted(path, self._file.sha256, self._options.trust, self._subject)
            self._network = load_torchscript(path, classes=classes, layout=layout, subject=self._subject)

    def segment(self, volume: Volume) -> Iterator[LabelMap]:
        """See `VolumeModel`."""
        self.load()
        assert self._network is not None  # noqa: S101 - told to the type checker
        return pipeline_of(self.card, self._options).segment(volume, self._network, self._subject)

    def cost(self, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Cost | None:
        """See `VolumeModel`; as if the slices were axial."""
        weights = file_bytes([self._path()])
        pipeline = pipeline_of(self.card, self._options)
        target = new_shape(shape, spacing, [new or old for new, old in zip(self.card.spacing, spacing, strict=True)])
        return pipeline_cost(pipeline, weights, target, len(self.card.classes))

    @property
    def _patch(self) -> AxesTriple:
        first, second, third = self.card.patch
        return first, second, third

    def _path(self) -> Path:
        return locate(self._file.weights, self._file.sha256, fetch=self._options.fetch, name=self.card.name)


def pipeline_of(card: PatchCard, options: FolderOptions) -> Pipeline:
    """What a card says of the processing."""
    numbers: list[int] = []
    for one in card.classes:
        numbers.append(0 if one.background else 1 + sum(number > 0 for number in numbers))
    spacing, patch = card.spacing, card.patch
    return Pipeline(
        steps=(*map(_step, card.intensity), Resample((spacing[0], spacing[1], spacing[2]))),
        orientation=card.orientation,
        patch=(patch[0], patch[1], patch[2]),
        overlap=card.overlap if options.step is None else 1 - options.step,
        even=True,
        gaussian=card.blend == "gaussian",
        activation={"logits": "softmax", "probabilities": "", "sigmoid": "sigmoid"}[card.output],  # pyright: ignore[reportArgumentType]
        decision=Decision(tuple(numbers), (lambda p: p >= card.threshold) if card.output == "sigmoid" else None),
        fill=card.fill,
    )


def _step(one: CardIntensity) -> Step:
    if one.kind == "z-score":
        return ZScore(one.mean, one.std, one.nonzero)
    return (Window if one.kind == "window" else Percentiles)(one.low, one.high, one.to, one.clip)


def pipeline_cost(pipeline: Pipeline, weights: float, target: AxesTriple, classes: int) -> Cost:
    """What a pipeline takes for a volume that is resampled to `target`."""
    places = [
        len(even_starts(*pair, 1 - pipeline.overlap) if pipeline.even else fixed_starts(*pair, pipeline.overlap))
        for pair in zip(target, pipeline.patch, strict=True)
    ]
    _, height, width = (max(pair) for pair in zip(target, pipeline.patch, strict=True))
    depth, patch = pipeline.patch[0], math.prod(pipeline.patch)
    rows = (4.0 * classes + 20.0) * depth * height * width
    return Cost(
        weights=2 * weights,
        dtype="its own type",
        work=float(math.prod(places) * patch * max(weights, 1.0)),
        activations=rows + 4.0 * patch * (_FEATURES + 3 * classes),
        libraries=_LIBRARIES,
    )
