"""How far a model's answers depend on where its tiles lie: pixels that change, outline where tiles meet, the halo.

The image is analysed again and again with the grid of tiles shifted, and nothing else. Of a model whose answers do not
depend on its tiles no pixel changes, and where two tiles meet lies as much outline as on any other line.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely

from ...model.annotator import Annotator
from ...model.class_maps import draw_labels
from ...model.views import core_window, read_view
from ...readers.errors import ModelError, RequestError, excerpt
from ...readers.image import Image, Mask
from ...readers.regions import Region, cut_axis
from ...readers.registry import open_image
from .overview_stats import channel_names
from .picture import block_region
from .plan import ImagePlan

SHIFTS: Final = (1, 4, 16, 37, 64, 160, 256)
"""Default shifts of the grid, in analysed pixels along both axes."""

MAX_SHIFT: Final = 256

MAX_CHANGED, MAX_RATIO = 0.005, 1.2
"""Targets: the share of labelled pixels that change, and the outline where tiles meet as a multiple of chance."""

IN_STEP: Final = 32
"""Tiles of a run lie at multiples of this, or of what divides it."""

_STEP = 8  # pixels between the halos that are tried
_BLOCK = 64  # pixels a side of the blocks that the bootstrap draws
_DRAWS = 1000
_INTERVAL = (2.5, 97.5)

Labels = npt.NDArray[np.int16]
"""A map (H, W): 0 no label, above it a label, -1 not analysed."""

Part = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in analysed pixels."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class TilingCheck:
    """What was measured of one image."""

    image: str
    model: str
    tile: int
    halo: int
    part: Part
    """The part of the image that was measured."""
    margin: int
    """Pixels at the picture's edge that do not count: there a grid decides what a tile has beyond the picture."""
    labelled: int
    """Labelled pixels of the part, without the margin."""
    changed: Mapping[int, float]
    """The share of labelled pixels that change, by shift."""
    mean_changed: Measured
    """Over all shifts; the interval is over blocks of 64 px."""
    ratio: Measured | None
    """Outline where tiles meet, as a multiple of that on other lines; the interval is over lines. None without both."""
    changed_in_margin: float
    """The share of labelled pixels that change within the margin, over all shifts."""
    lines: int
    """Lines where tiles meet, over all shifts."""
    by_halo: Mapping[int, float]
    """The share of labelled pixels that change where a tile's outermost pixels up to a halo are dropped."""

    @property
    def worst_changed(self) -> float:
        """The largest share over the shifts."""
        return max(self.changed.values(), default=0.0)

    @property
    def worst_in_step(self) -> float:
        """The largest share over shifts by multiples of 32 px, in step with what networks pool, as in a run."""
        return max((share for shift, share in self.changed.items() if shift % IN_STEP == 0), default=0.0)

    @property
    def proposed_halo(self) -> int | None:
        """The smallest halo from which on the target is met; None where none does."""
        found = None
        for halo, share in sorted(self.by_halo.items(), reverse=True):
            if share > MAX_CHANGED:
                break
            found = halo
        return found

    @property
    def met(self) -> bool:
        """Whether both targets are met: by every shift, and by the ratio or the lower end of its interval.

        False where nothing is labelled.
        """
        return (
            self.labelled > 0
            and self.worst_changed <= MAX_CHANGED
            and (self.ratio is None or self.ratio.low <= MAX_RATIO)
        )

    def to_json(self) -> dict[str, Any]:
        """Values for JSON."""
        return asdict(self) | {
            "worst_changed": self.worst_changed,
            "worst_in_step": self.worst_in_step,
            "proposed_halo": self.proposed_halo,
            "met": self.met,
        }


def parse_shifts(text: str) -> tuple[int, ...]:
    """Shifts from whole numbers separated by commas. Raises `RequestError`."""
    numbers = text.replace(" ", "").split(",")
    if not all(number.isdecimal() and 1 <= int(number) <= MAX_SHIFT for number in numbers):
        rule = f"must be whole numbers from 1 to {MAX_SHIFT}"
        raise RequestError("--shifts", rule, value=excerpt(text), remedy="Give some, such as --shifts 1,16,160")
    return tuple(sorted(set(map(int, numbers))))


def check_tiling(
    plan: ImagePlan, annotator: Annotator, *, shifts: Sequence[int] = SHIFTS, window: int = 1024, seed: int = 0
) -> TilingCheck:
    """Measure one image of a plan with a loaded annotator.

    A larger image is measured in a part of `window` analysed pixels a side, where most of the region of interest is.
    Raises `ModelError` where the annotator gives no areas or boxes.
    """
    names = channel_names(plan.info, plan.spec, plan.stretch)
    with open_image(plan.info, names) as image:
        measure = _Measurement(plan, annotator, image, _choose_part(plan, window))
        everywhere = {shift: measure.labels(shift, plan.spec.halo) for shift in (0, *shifts)}
        halos = measure.changed_by_halo()
    inside = measure.inside
    edges = [_changed(*(np.where(inside, -1, everywhere[at]) for at in (0, shift))) for shift in shifts]
    maps = {shift: np.where(inside, found, -1).astype(np.int16) for shift, found in everywhere.items()}
    reference = maps.pop(0)
    rng = np.random.default_rng(seed)
    changed = {shift: _changed(reference, found) for shift, found in maps.items()}
    cuts = {shift: measure.cuts(shift, plan.spec.halo) for shift in (0, *maps)}
    ratio, lines = _outline_ratio({0: reference, **maps}, cuts, rng)
    return TilingCheck(
        image=plan.info.id,
        model=" ".join(filter(None, map(dict(annotator.identity).get, ("name", "version")))),
        tile=plan.spec.tile,
        halo=plan.spec.halo,
        part=measure.part,
        margin=measure.margin,
        labelled=int((reference > 0).sum()),
        changed={shift: float(_share(*counts)) for shift, counts in changed.items()},
        mean_changed=_over_blocks(list(changed.values()), rng),
        ratio=ratio,
        changed_in_margin=_share(sum(part.sum() for part, _ in edges), sum(whole.sum() for _, whole in edges)),
        lines=lines,
        by_halo=halos,
    )


@dataclass(slots=True)
class _Measurement:
    """Analyses a part of an image with shifted grids."""

    plan: ImagePlan
    annotator: Annotator
    image: Image
    part: Part

    @property
    def margin(self) -> int:
        """See `TilingCheck`."""
        return self.plan.spec.halo or self.plan.spec.tile // 8

    @property
    def inside(self) -> Mask:
        """Where the part (H, W) lies at least the margin from the picture's edge."""
        x0, y0, x1, y1 = self.part
        axes = [
            (np.arange(low, high) >= self.margin) & (np.arange(low, high) < length - self.margin)
            for low, high, length in zip((y0, x0), (y1, x1), self.plan.grid.shape[::-1], strict=True)
        ]
        return np.logical_and.outer(*axes)

    def labels(self, shift: int, halo: int) -> Labels:
        """The part's labels (H, W) with the grid of tiles `shift` pixels further up and left."""
        x0, y0, x1, y1 = self.part
        found = np.full((y1 - y0, x1 - x0), -1, dtype=np.int16)
        for region in self._regions(shift, halo):
            outlined = self._draw(region, halo)
            rows, columns = region.rows, region.columns
            top, bottom = max(rows.core_start, y0), min(rows.core_stop, y1)
            left, right = max(columns.core_start, x0), min(columns.core_stop, x1)
            found[top - y0 : bottom - y0, left - x0 : right - x0] = outlined[
                top - rows.start : bottom - rows.start, left - columns.start : right - columns.start
            ]
        return found

    def changed_by_halo(self) -> dict[int, float]:
        """The share of labelled pixels that change at least so far from a tile's edge, by that distance.

        Compared with what the same pixels are in the middle quarter of a tile.
        """
        tile = self.plan.spec.tile
        widest = 3 * tile // 8
        reference = np.where(self.inside, self.labels(0, widest), -1).astype(np.int16)
        places = np.zeros((tile, 2), dtype=np.int64)
        step = IN_STEP if tile >= 3 * IN_STEP else 1
        for shift in sorted({0, 5 * tile // 16 // step * step, 11 * tile // 16 // step * step}):
            found = self.labels(shift, 0)
            wrong, labelled = _changes(reference, found)
            distance = self._distance(shift)
            places[:, 0] += np.bincount(distance[wrong], minlength=tile)[:tile]
            places[:, 1] += np.bincount(distance[labelled], minlength=tile)[:tile]
        kept = places[::-1].cumsum(axis=0)[::-1]
        return {halo: float(_share(*kept[halo])) for halo in range(0, widest + 1, _STEP)}

    def cuts(self, shift: int, halo: int) -> tuple[list[int], list[int]]:
        """Where tiles meet inside the part: columns, and rows, counted from the part's corner."""
        x0, y0, x1, y1 = self.part
        step, found = self.plan.spec.tile - 2 * halo, (set[int](), set[int]())
        for region in self._regions(shift, halo):
            for span, low, high, lines in ((region.columns, x0, x1, found[0]), (region.rows, y0, y1, found[1])):
                inner = {span.start + k * step + halo for k in range(1, span.tiles)} | {span.core_start}
                lines |= {at - low for at in inner if low < at < high and span.core_start <= at < span.core_stop}
        return sorted(found[0]), sorted(found[1])

    def _distance(self, shift: int) -> npt.NDArray[np.intp]:
        """How far each pixel lies from the edges of its tile that lie inside the picture, for tiles without a halo."""
        x0, y0, x1, y1 = self.part
        tile, far = self.plan.spec.tile, self.plan.spec.tile - 1
        axes: list[npt.NDArray[np.intp]] = []
        for low, high, length in zip((x0, y0), (x1, y1), self.plan.grid.shape, strict=True):
            at = np.arange(low, high)
            first = (at + shift) // tile * tile - shift
            before = np.where(first > 0, at - first, far)
            after = np.where(first + tile < length, first + tile - 1 - at, far)
            axes.append(np.minimum(before, after))
        return np.minimum.outer(axes[1], axes[0])

    def _regions(self, shift: int, halo: int) -> Iterator[Region]:
        """The regions of a shifted grid that have a core in the part."""
        spec, grid = self.plan.spec, self.plan.grid
        wide = spec.overlap and halo == spec.halo  # blended: regions of several tiles, as in the run
        margin = max(halo, (spec.overlap + 1) // 2) if wide else halo
        x0, y0, x1, y1 = self.part
        columns, rows = (
            [
                span
                for span in cut_axis(
                    length, tile=spec.tile, halo=halo, tiles=3 if wide else 1, margin=margin, shift=shift
                )
                if span.core_start < high and span.core_stop > low
            ]
            for length, low, high in zip(grid.shape, (x0, y0), (x1, y1), strict=True)
        )
        plane = self.plan.largest_region.plane
        for row in rows:
            for column in columns:
                yield Region(grid, column, row, plane)

    def _draw(self, region: Region, halo: int) -> Labels:
        """The labels of a region's pixels; -1 where nothing is analysed."""
        spec = replace(self.plan.spec, halo=halo)
        view = read_view(self.image, region, spec, stretch=self.plan.stretch, roi=self.plan.area)
        outlined = np.full(view.keep_mask.shape, -1, dtype=np.int16)
        if not view.keep_mask.any():
            return outlined
        answers = self.annotator.annotate([view])[0]
        labels: Sequence[str] = self.annotator.labels
        other = sorted({answer.kind for answer in answers} - {"area", "box"})
        if other or not labels:
            rule = "must outline areas or boxes, to check where its tiles meet"
            remedy = "Name a model that segments or detects"
            raise ModelError("the model", rule, value=", ".join(other) or "free text", remedy=remedy)
        codes = {label: code for code, label in enumerate(labels, 1)}
        found = draw_labels(answers, codes, (view.grid.size[1], view.grid.size[0]))
        core = core_window(region)
        outlined[core] = np.where(view.keep_mask[core], found[core], -1)
        return outlined


def _choose_part(plan: ImagePlan, window: int) -> Part:
    """The part of an image to look at: all of it, or where most of the region of interest is."""
    width, height = plan.grid.shape
    side_x, side_y = min(width, window), min(height, window)
    best, found = -1.0, (0, 0)
    for y in _starts(height, side_y):
        for x in _starts(width, side_x):
            core = block_region(plan.grid, (0, x, y), (side_x, side_y)).core
            outline = shapely.box(core.x0, core.y0, core.x1, core.y1)
            share = outline.area if plan.area is None else plan.area.intersection(outline).area
            if share > best:
                best, found = share, (x, y)
    return found[0], found[1], found[0] + side_x, found[1] + side_y


def _starts(length: int, side: int) -> list[int]:
    """At most 8 places of a window along an axis."""
    count = min(8, math.ceil(length / side))
    return [i * (length - side) // max(1, count - 1) for i in range(count)]


def _changes(one: Labels, two: Labels) -> tuple[Mask, Mask]:
    """Where two maps have different labels, and where either has one."""
    labelled = ((one > 0) | (two > 0)) & (one >= 0) & (two >= 0)
    return labelled & (one != two), labelled


def _changed(one: Labels, two: Labels) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Changed and labelled pixels, by block of 64 px."""
    wrong, labelled = _changes(one, two)
    blocks = [
        (slice(y, y + _BLOCK), slice(x, x + _BLOCK))
        for y in range(0, one.shape[0], _BLOCK)
        for x in range(0, one.shape[1], _BLOCK)
    ]
    counts = np.array([[wrong[block].sum(), labelled[block].sum()] for block in blocks], dtype=np.int64)
    return counts[:, 0], counts[:, 1]


def _share(part: Any, whole: Any) -> float:
    """The sum of the one as a share of the sum of the other; 0 of nothing."""
    return float(np.sum(part)) / max(1.0, float(np.sum(whole)))


def _over_blocks(
    counts: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]], rng: np.random.Generator
) -> Measured:
    """The share over all shifts; blocks are drawn with their shifts together."""
    part, whole = (np.sum([pair[i] for pair in counts], axis=0) for i in range(2))
    draws = rng.integers(len(part), size=(_DRAWS, len(part)))
    low, high = np.percentile(part[draws].sum(axis=1) / np.maximum(1, whole[draws].sum(axis=1)), _INTERVAL)
    return Measured(_share(part, whole), float(low), float(high))


def _outline_ratio(
    maps: Mapping[int, Labels], cuts: Mapping[int, tuple[list[int], list[int]]], rng: np.random.Generator
) -> tuple[Measured | None, int]:
    """Outline on lines where tiles meet as a multiple of that on all others, and the number of the former."""
    on: list[tuple[int, int]] = []
    off: list[tuple[int, int]] = []
    for shift, found in maps.items():
        for lines, labels in zip(cuts[shift], (found.T, found), strict=True):
            one, two = labels[:-1], labels[1:]  # line i lies between rows i - 1 and i
            known = (one >= 0) & (two >= 0)
            edges, pairs = ((one != two) & known).sum(axis=1), known.sum(axis=1)
            for line in range(1, len(labels)):
                (on if line in lines else off).append((int(edges[line - 1]), int(pairs[line - 1])))
    with_pairs, others = (np.array([pair for pair in pairs if pair[1]]).reshape(-1, 2) for pairs in (on, off))
    chance = _share(*others.T)
    if not len(with_pairs) or not chance:
        return None, len(with_pairs)
    there, elsewhere = (
        np.array([_share(*_resampled(part, rng).T) for _ in range(_DRAWS)]) for part in (with_pairs, others)
    )
    low, high = np.percentile(there / np.maximum(elsewhere, 1e-12), _INTERVAL)
    return Measured(_share(*with_pairs.T) / chance, float(low), float(high)), len(with_pairs)


def _resampled(rows: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """As many rows, drawn with replacement."""
    return rows[rng.integers(len(rows), size=len(rows))]
