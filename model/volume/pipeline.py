"""Segment a volume with a network in patches: steps before it, sliding window, and its answers back on the slices.

The steps work row by row of the first of the network's axes, and start again where one measures the whole.
"""

# torch's types do not cover arrays:
# pyright: reportUnknownMemberType=false

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol

import numpy as np
import torch

from ...readers.scratch import scratch_array
from ..probabilities import LabelProbabilities
from .answers import Decision, label_rows
from .intensity import hold
from .orientation import AxesTriple, Turn, closest_axes, stacked_upwards
from .resampling import Orders, Resampler, Resampling, RowCache, Rows, new_shape
from .sliding import Network, Patches, even_starts, fixed_starts, monai_importance, slide
from .volume import LabelMap, Volume

Span = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First voxel of a box along each axis, and the one behind its last."""

_ROWS: Final = 16  # that are measured at a time


@dataclass(frozen=True, slots=True)
class Stage:
    """A volume on the network's axes, which can be read from its first row on as often as needed."""

    shape: AxesTriple
    spacing: tuple[float, float, float]
    start: Callable[[], Rows]

    def blocks(self) -> Iterator[torch.Tensor]:
        """All rows, some at a time."""
        rows = self.start()
        for first in range(0, self.shape[0], _ROWS):
            yield rows(first, min(first + _ROWS, self.shape[0]))

    def changed(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Stage":
        """With the values of each row changed by themselves."""

        def start() -> Rows:
            rows = self.start()
            return lambda first, last: change(rows(first, last))

        return replace(self, start=start)


class Step(Protocol):
    """A step from the values of a stack to those of a network, which leaves its voxels where they are."""

    def apply(self, stage: Stage) -> Stage:
        """The stage after the step."""
        ...


@dataclass(frozen=True, slots=True)
class Window:
    """From `low` and `high` to the ends of `to`."""

    low: float
    high: float
    to: tuple[float, float] = (0.0, 1.0)
    clip: bool = True

    def apply(self, stage: Stage) -> Stage:
        """See `Step`."""
        return stage.changed(self._scale)

    def _scale(self, values: torch.Tensor) -> torch.Tensor:
        scaled = (values - self.low) / (self.high - self.low) * (self.to[1] - self.to[0]) + self.to[0]
        return scaled.clamp(*self.to) if self.clip else scaled


@dataclass(frozen=True, slots=True)
class Percentiles:
    """From two percentiles of the volume to the ends of `to`."""

    low: float
    high: float
    to: tuple[float, float] = (0.0, 1.0)
    clip: bool = True

    def apply(self, stage: Stage) -> Stage:
        """See `Step`: the whole volume is on disk while they are found."""
        values = scratch_array((math.prod(stage.shape),), dtype=np.float32)
        at = 0
        for block in stage.blocks():
            values[at : at + block.numel()] = block.to(torch.float32).ravel().numpy()
            at += block.numel()
        low, high = (float(one) for one in np.percentile(values, [self.low, self.high], overwrite_input=True))
        return Window(low, high if high > low else low + 1, self.to, self.clip).apply(stage)


@dataclass(frozen=True, slots=True)
class ZScore:
    """Less the mean, by the standard deviation; those of the volume where they are not given."""

    mean: float | None = None
    std: float | None = None
    nonzero: bool = False
    """Whether only values that are not 0 are measured and changed."""

    def apply(self, stage: Stage) -> Stage:
        """See `Step`."""
        mean, std = self.mean, self.std
        if mean is None or std is None:
            count, total, squares = 0, 0.0, 0.0
            for block in stage.blocks():
                values = block[block != 0] if self.nonzero else block
                count, total = count + values.numel(), total + float(values.sum(dtype=torch.float64))
            centre = total / max(count, 1)
            for block in stage.blocks():
                values = block[block != 0] if self.nonzero else block
                squares += float(((values.to(torch.float64) - centre) ** 2).sum())
            mean = centre if mean is None else mean
            std = (squares / max(count, 1)) ** 0.5 or 1.0 if std is None else std
        chosen = mean, std
        return stage.changed(lambda values: self._scale(values, *chosen))

    def _scale(self, values: torch.Tensor, mean: float, std: float) -> torch.Tensor:
        scaled = (values - mean) / std
        return torch.where(values != 0, scaled, values) if self.nonzero else scaled


@dataclass(frozen=True, slots=True)
class Resample:
    """To another spacing, linearly."""

    spacing: tuple[float | None, float | None, float | None]
    """Of the network's axes, in mm; None to leave one as it is."""
    cells: bool = True
    """Whether voxels are cells of one box, as for nnU-Net; else first voxels coincide, as for MONAI."""

    def plan(self, stage: Stage) -> tuple[Resampling, tuple[float, float, float]]:
        """How a stage is resampled, and its new spacing."""
        first, second, third = (new or old for new, old in zip(self.spacing, stage.spacing, strict=True))
        spacing = first, second, third
        if self.cells:
            return Resampling.plan(stage.shape, new_shape(stage.shape, stage.spacing, spacing), Orders(1)), spacing
        ratios = [new / old for new, old in zip(spacing, stage.spacing, strict=True)]
        sides = [round((side - 1) / ratio + 1.0) for side, ratio in zip(stage.shape, ratios, strict=True)]
        target = sides[0], sides[1], sides[2]
        return Resampling(stage.shape, target, (1, 1, 1), None, (ratios[0], ratios[1], ratios[2])), spacing

    def apply(self, stage: Stage) -> Stage:
        """See `Step`, but for the place of the voxels."""
        plan, spacing = self.plan(stage)
        resampler = Resampler(plan)
        return Stage(plan.target, spacing, lambda: RowCache(resampler, stage.start()).read)


@dataclass(frozen=True, slots=True)
class Crop:
    """To the box of what is above 0, with a margin; what is outside is not scored."""

    margin: int = 0
    over_edge: bool = False
    """Whether the margin reaches beyond the volume, where it is 0."""

    def apply(self, stage: Stage) -> tuple[Stage, Span]:
        """The stage within the box, and the box; the whole where nothing is above 0."""
        used = [np.zeros(side, dtype=np.bool_) for side in stage.shape]
        for number, block in enumerate(stage.blocks()):
            above = (block > 0).numpy()
            used[0][number * _ROWS : number * _ROWS + len(above)] = above.any(axis=(1, 2))
            used[1] |= above.any(axis=(0, 2))
            used[2] |= above.any(axis=(0, 1))
        first, down, along = (self._side(line) for line in used)
        inside = [
            (max(low, 0), min(high, side)) for (low, high), side in zip((first, down, along), stage.shape, strict=True)
        ]
        around = [inside[2][0] - along[0], along[1] - inside[2][1], inside[1][0] - down[0], down[1] - inside[1][1]]

        def start() -> Rows:
            rows = stage.start()

            def read(a: int, b: int) -> torch.Tensor:
                low, high = (min(max(place + first[0], inside[0][0]), inside[0][1]) for place in (a, b))
                part = rows(low, high)[:, slice(*inside[1]), slice(*inside[2])]
                return torch.nn.functional.pad(part, (*around, low - a - first[0], b + first[0] - high))

            return read

        shape = first[1] - first[0], down[1] - down[0], along[1] - along[0]
        return replace(stage, shape=shape, start=start), (first, down, along)

    def _side(self, used: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[int, int]:
        places = np.flatnonzero(used)
        if not len(places):
            return 0, len(used)
        low, high = int(places[0]) - self.margin, int(places[-1]) + 1 + self.margin
        return (low, high) if self.over_edge else (max(low, 0), min(high, len(used)))


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What happens to a volume before and after a network."""

    steps: tuple[Step | Resample | Crop, ...]
    """At most one `Resample`, and at most one `Crop`, after it."""
    orientation: str
    """Directions of the network's axes; "" for those of the series, slices stacked along their normal."""
    patch: AxesTriple
    overlap: float
    even: bool
    """Whether patches lie evenly from edge to edge, as for nnU-Net; else at equal steps, as for MONAI."""
    gaussian: bool
    """Whether the middle of a patch counts more than its edge."""
    activation: Literal["softmax", "sigmoid", ""]
    """What makes the blended scores probabilities, before they are resampled."""
    decision: Decision
    fill: float = 0.0
    """Of voxels that are not valid."""
    sigma: float = 0.125
    """Of the Gaussian, as a share of a patch."""
    back: int = 1
    """Order of the splines that bring probabilities back: linear, or 0 for those of the nearest voxel."""

    def turn(self, volume: Volume) -> Turn:
        """The turn to the network's axes."""
        return closest_axes(volume.affine, self.orientation) if self.orientation else stacked_upwards(volume.affine)

    def patches(self, shape: AxesTriple) -> Patches:
        """Where the patches lie in a volume of that shape."""
        sides = zip(shape, self.patch, strict=True)
        starts = [
            even_starts(*pair, 1 - self.overlap) if self.even else fixed_starts(*pair, self.overlap) for pair in sides
        ]
        importance = monai_importance(self.patch, self.sigma) if self.gaussian else torch.ones(self.patch)
        return Patches(self.patch, (starts[0], starts[1], starts[2]), importance)

    def segment(self, volume: Volume, network: Network, source: str) -> Iterator[LabelMap]:
        """The label map of each slice: see `VolumeModel.segment`. Errors name the source."""
        turn = self.turn(volume)
        voxels = turn.apply(hold(volume, fill=self.fill).voxels)
        labels = scratch_array(volume.shape)
        answers = turn.apply(labels)
        kept = volume.probabilities and volume.probabilities.turned(turn)
        for number, row in enumerate(self._label_rows(voxels, turn.values(volume.spacing), network, source, kept)):
            answers[number] = row
        yield from labels

    @torch.inference_mode()
    def prepare(self, voxels: Any, spacing: tuple[float, float, float]) -> tuple[Stage, Resampler, Span | None]:
        """The volume before the network, what resamples its answers back, and the box of the former that it is."""
        shape = voxels.shape

        def read(first: int, last: int) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(voxels[first:last], dtype=np.float32))

        stage = Stage(shape, spacing, lambda: read)
        plan, box = Resampling(shape, shape, (1, 1, 1)), None
        for step in self.steps:
            if isinstance(step, Resample):
                plan, _ = step.plan(stage)
            if isinstance(step, Crop):
                stage, box = step.apply(stage)
            else:
                stage = step.apply(stage)
        steps = plan.steps and (1 / plan.steps[0], 1 / plan.steps[1], 1 / plan.steps[2])
        orders = self.back, self.back, self.back
        return stage, Resampler(replace(plan, source=plan.target, target=plan.source, orders=orders, steps=steps)), box

    def _label_rows(
        self,
        voxels: Any,
        spacing: tuple[float, float, float],
        network: Network,
        source: str,
        probabilities: LabelProbabilities | None,
    ) -> Iterator[Any]:
        stage, back, box = self.prepare(voxels, spacing)
        rows = slide(stage.start(), stage.shape, self.patches(stage.shape), network)
        scores = (self._activate(row) for row in rows)
        if box is not None:
            scores = _uncropped(scores, box, back.source)
        return label_rows(scores, back, self.decision, source, probabilities)

    def _activate(self, row: torch.Tensor) -> torch.Tensor:
        if self.activation == "softmax":
            return row.softmax(dim=0)
        return row.sigmoid() if self.activation == "sigmoid" else row


def _uncropped(rows: Iterator[torch.Tensor], box: Span, shape: AxesTriple) -> Iterator[torch.Tensor]:
    """Rows of scores of a box in the whole, where the rest is 0."""
    (first, last), *sides = box
    into, of = zip(
        *(
            (slice(max(low, 0), min(high, side)), slice(max(-low, 0), min(high, side) - low))
            for (low, high), side in zip(sides, shape[1:], strict=True)
        ),
        strict=True,
    )
    empty = torch.empty(0)
    for number, row in enumerate(rows, start=first):
        empty = torch.zeros((len(row), shape[1], shape[2]), dtype=row.dtype)
        yield from (empty for _ in range(first if number == first else 0))
        if 0 <= number < shape[0]:
            whole = empty.clone()
            whole[:, *into] = row[:, *of]
            yield whole
    yield from (empty for _ in range(shape[0] - last))
