"""The probabilities of a segmentation as rasters: cloud-optimised GeoTIFFs, OME-TIFFs for slides, NIfTI for studies.

They are those that the run kept, in steps of 1/250, on the analysed grid. No pixel is resampled.
"""
# nibabel states too few types:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ..model.probabilities import NODATA, STEPS, Steps
from ..readers.errors import LimnerError, ReadError
from ..readers.files import atomic_path
from ..readers.scratch import scratch_array
from .rasters import Layer, Raster, write_cog, write_ome_tiff
from .structures import nifti_writer, stack_affine
from .writer import ImageRecord, Record, image_file, write_per_image

NOT_KEPT: Final = "the run kept no probabilities: run again into another folder with --probabilities"


@dataclass(frozen=True, slots=True)
class Probabilities:
    """probabilities-<image id>.tif, .ome.tif or -<label>.nii.gz: the probability of each label at each analysed pixel.

    Maps are cloud-optimised GeoTIFFs with a band for each label, slides OME-TIFFs with a channel for each: 250 stands
    for 1, which the bands' scale states, and 255 for what was not analysed or has no data. Studies are NIfTI files of a
    label each, NaN where not analysed. Pixels are those of the analysis, north-up.
    """

    name: str = "probabilities"
    on_request: bool = True
    needs_probabilities: bool = True

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write a file per map and slide, and a file per label of a study, into `folder`."""
        left_out = self.omitted(record)
        chosen = [image for image in record.images if image.info.id not in left_out]

        def write_one(image: ImageRecord) -> Path | Sequence[Path]:
            return (_write_stack if image.info.kind == "study" else _write_flat)(record, image, folder)

        return write_per_image(chosen, write_one)

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images whose run kept none, those placed by control points, and stacks that are no volume."""
        found = {image.info.id: _omission(image) for image in record.images}
        return {name: reason for name, reason in found.items() if reason}


def _omission(image: ImageRecord) -> str:
    if image.probabilities is None or image.grid is None:
        return NOT_KEPT
    if image.info.placement.warp is not None:
        return "it is placed by control points, so its pixels are on no regular grid"
    if image.info.kind == "study":
        try:
            stack_affine(image)
        except LimnerError as error:
            return str(error)
    return ""


def planes_of(image: ImageRecord, count: int, folder: Path) -> Iterator[tuple[int, Steps]]:
    """(plane, probabilities (labels, H, W) of the analysis grid) of each plane that was analysed, in order.

    They lie in a file of `folder` where they are of several regions. Raises `ReadError` where nothing was.
    """
    assert image.probabilities is not None  # noqa: S101 - told to the type checker
    empty = True
    for plane, parts in groupby(image.probabilities(), key=lambda part: part[0].plane):
        whole: Steps | None = None
        for region, values in parts:
            c, r = region.columns, region.rows
            shape = count, region.grid.shape[1], region.grid.shape[0]
            if values.shape == shape:
                whole = values
                break
            if whole is None:
                whole = scratch_array(shape, folder, fill=NODATA)
            whole[:, r.core_start : r.core_stop, c.core_start : c.core_stop] = values
        if whole is not None:
            empty = False
            yield plane, whole
    if empty:
        rule, remedy = "must have regions that were analysed", "Run it again, or leave out this report"
        raise ReadError(image.info.id, rule, remedy=remedy)


def _write_flat(record: Record, image: ImageRecord, folder: Path) -> Path:
    slide = image.info.placement.unit == "um"
    path = image_file(folder, "probabilities-", image.info.id, ".ome.tif" if slide else ".tif")
    assert image.grid is not None  # noqa: S101 - told to the type checker
    values = f"{STEPS} is 1, {NODATA} is not analysed or no data"
    about = {"use": record.use, "model": dict(record.model), "limner": record.version, "values": values}
    ((_, layers),) = planes_of(image, len(record.labels), folder)
    raster = Raster(image.grid, image.info.placement, layers, about, record.labels, 1 / STEPS)
    with atomic_path(path) as part:
        if slide:
            write_ome_tiff(part, raster, "probabilities", mean_of_four)
        else:
            write_cog(part, raster, nodata=NODATA, resampling="AVERAGE")
    return path


def _write_stack(record: Record, image: ImageRecord, folder: Path) -> list[Path]:
    """A file for each label, all in one pass over the slices."""
    assert image.grid is not None  # noqa: S101 - told to the type checker
    paths = [
        image_file(folder, "probabilities-", f"{image.info.id}-{number}-{label}", ".nii.gz")
        for number, label in enumerate(record.labels, 1)
    ]
    width, height = image.grid.shape
    unknown = np.full((height, width), np.nan, dtype=np.float32)
    with ExitStack() as stack:
        files = [
            stack.enter_context(
                nifti_writer(stack.enter_context(atomic_path(path)), record, image, np.float32, (label,))
            )
            for path, label in zip(paths, record.labels, strict=True)
        ]
        at = 0
        for plane, layers in planes_of(image, len(files), folder):
            for file, layer in zip(files, layers, strict=True):
                for _ in range(at, plane):
                    file.write(unknown.tobytes())
                file.write(as_shares(layer).tobytes())
            at = plane + 1
        for file in files:
            for _ in range(at, len(image.info.planes)):
                file.write(unknown.tobytes())
    return paths


def as_shares(layer: Layer) -> npt.NDArray[np.float32]:
    """Steps as probabilities from 0 to 1, NaN without data."""
    return np.where(layer == NODATA, np.float32(np.nan), layer / np.float32(STEPS))


def mean_of_four(layer: Layer) -> Layer:
    """Steps (H, W) at half their size: the mean of those of each 2 × 2 pixels that have data, rounded half up."""
    padded = np.pad(layer, [(0, side % 2) for side in layer.shape], constant_values=NODATA)
    four = np.stack([padded[y::2, x::2] for y in (0, 1) for x in (0, 1)]).astype(np.uint16)
    there = four != NODATA
    count = there.sum(axis=0, dtype=np.uint16)
    total = np.where(there, four, 0).sum(axis=0, dtype=np.uint16)
    mean = (2 * total + count) // np.maximum(2 * count, 1)
    return np.where(count > 0, mean, NODATA).astype(np.uint8)
