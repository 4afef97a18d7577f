"""Annotates a stack as a volume: a result for each slice, with the outlines of its labels and the label map itself."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from ...model.class_maps import polygonise
from ...model.finding import Coverage, Finding, Result
from ...model.probabilities import NODATA, LabelProbabilities, Steps
from ...model.views import roi_mask
from ...model.volume.volume import LabelMap, SupportsVolumes, Volume, Voxels
from ...readers.areas import box_areas_m2
from ...readers.errors import ModelError
from ...readers.image import Image, Mask
from ...readers.regions import Region
from ...readers.scratch import scratch_array
from .parts import pack_raster
from .plan import ImagePlan

LABEL_MAP: Final = "labels"
"""The name of the label map among a result's rasters; a slice without a label has none."""

PROBABILITIES: Final = "probabilities"
"""The name of the probabilities (labels, H, W) of the kept labels in a region's core: see `model.probabilities`."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels to keep of an annotator, numbered from 1 in its order."""

    names: tuple[str, ...]
    numbers: npt.NDArray[np.uint8]
    """(256,) the annotator's number of a label → the number here, 0 for one that is not kept."""

    @classmethod
    def of(cls, labels: Sequence[str], keep: Sequence[str]) -> Self:
        """Those of `labels` that are to be kept, all for ()."""
        kept = [number for number, name in enumerate(labels, 1) if not keep or name in keep]
        numbers = np.zeros(256, dtype=np.uint8)
        numbers[kept] = np.arange(1, len(kept) + 1)
        return cls(tuple(labels[number - 1] for number in kept), numbers)


def annotate_stack(
    plan: ImagePlan,
    image: Image,
    regions: Sequence[Region],
    annotator: SupportsVolumes,
    labels: Labels,
    *,
    probabilities: bool = False,
) -> list[Result]:
    """Results of the regions of a stack, each a slice, in their order, on request with probabilities.

    A pixel without a value, or outside of the region of interest, has no label. Raises `LimnerError`, `MemoryError`.
    """
    slices = _Slices(image)
    start = time.perf_counter()
    volume = Volume.of(plan.info, slices.read)
    if probabilities:
        volume = replace(volume, probabilities=_room(labels, volume.shape))
    kept = volume.probabilities
    chosen = {region.plane: region for region in regions}
    found: dict[int, Result] = {}
    count = 0
    for plane, label_map in enumerate(annotator.segment(volume)):
        count += 1
        if plane in chosen:
            checked, valid = _checked(plan, plane, label_map), slices.valid(plane)
            here = None if kept is None else kept.values[:, plane]
            found[plane] = _result(plan, chosen[plane], checked, valid, labels, here)
    if count != volume.shape[0]:
        rule, value = f"must return a label map for each of {volume.shape[0]} slices", str(count)
        raise ModelError(plan.info.id, rule, value=value, remedy="Report this to the model's author")
    seconds = (time.perf_counter() - start) / len(regions)
    return [replace(found[region.plane], seconds=seconds) for region in regions]


def _room(labels: Labels, shape: tuple[int, int, int]) -> LabelProbabilities:
    """Room for the probabilities of a volume, on disk. Raises `LimnerError`."""
    places: dict[str | int, int] = {int(number): place for place, number in enumerate(np.flatnonzero(labels.numbers))}
    return LabelProbabilities(places, scratch_array((len(places), *shape)))


class _Slices:
    """Reads slices, and remembers where they are valid in an eighth of a byte a pixel."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._valid: dict[int, npt.NDArray[np.uint8] | None] = {}

    def read(self, plane: int) -> Voxels:
        """See `volume.ReadSlice`."""
        info = self._image.info
        pixels, valid = self._image.read(info.box, info.size, plane)
        self._valid[plane] = None if valid.all() else np.packbits(valid)
        return np.where(valid, pixels[..., 0].astype(np.float32), np.float32(np.nan))

    def valid(self, plane: int) -> Mask:
        """Where a slice (rows, columns) has values."""
        if plane not in self._valid:
            self.read(plane)
        width, height = self._image.info.size
        packed = self._valid[plane]
        if packed is None:
            return np.ones((height, width), dtype=np.bool_)
        return np.unpackbits(packed, count=width * height).reshape(height, width).astype(np.bool_)


def _checked(plan: ImagePlan, plane: int, label_map: LabelMap) -> LabelMap:
    width, height = plan.info.size
    if label_map.shape != (height, width) or label_map.dtype != np.uint8:
        rule, value = f"must return label maps of {height} × {width} bytes", f"{label_map.shape}, {label_map.dtype}"
        subject = f"slice {plane + 1} of {plan.info.id}"
        raise ModelError(subject, rule, value=value, remedy="Report this to the model's author")
    return label_map


def _result(
    plan: ImagePlan, region: Region, label_map: LabelMap, valid: Mask, labels: Labels, probabilities: Steps | None
) -> Result:
    inside = roi_mask(region, plan.area)
    kept = np.where(valid & inside, labels.numbers[label_map], np.uint8(0))
    outlines = polygonise(kept, np.ones(kept.shape, dtype=np.float32), kept > 0)
    findings = [
        Finding(
            labels.names[one.value - 1], one.polygon, "area", numbers={"pixels": float(one.pixels)}, plane=region.plane
        )
        for one in outlines
    ]
    rasters = {LABEL_MAP: pack_raster(kept)} if findings else {}
    if probabilities is not None:
        rasters[PROBABILITIES] = pack_raster(np.where(valid & inside, probabilities, np.uint8(NODATA)))
    coverage = _coverage(plan, region, valid, inside)
    return Result(region.key, region.grid.image, "done", tuple(findings), coverage, rasters=rasters)


def _coverage(plan: ImagePlan, region: Region, valid: Mask, inside: Mask) -> Coverage:
    pixels = [float(np.count_nonzero(part)) for part in (valid & inside, inside & ~valid, ~inside)]
    core = region.core
    whole = box_areas_m2([(core.x0, core.y0, core.x1, core.y1)], plan.info.placement)
    m2 = [None] * 3 if whole is None else [one / valid.size * float(whole[0]) for one in pixels]
    return Coverage(pixels[0], pixels[1], m2[0], m2[1], pixels[2], m2[2])
