"""DICOM segmentations: the masks of labels on the pixels of the original images, or probabilities on those analysed.

Frames of a study have the places of their own slices, so that nothing is resampled, whatever the steps or the tilt of a
stack; those of a slide are tiles, of its finest level where they are masks. Frames without a pixel of a label are left
out.
"""
# pydicom's values have the type of their tag:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from pydantic import Field

from ...model.probabilities import NODATA, STEPS
from ...readers.image import Pixels
from ...readers.options import Options
from ..measures import all_labels
from ..palette import Palette, rgb
from ..probabilities import NOT_KEPT, planes_of
from ..writer import ImageRecord, Record, image_file
from .concepts import concept, long_string
from .grids import Dimension, Grid, Place, SliceGrid, TileGrid
from .instances import (
    CATEGORY,
    FrameFile,
    add_buffered,
    described,
    display_colour,
    new_instance,
    referenced_series,
    without_areas,
    write_objects,
)
from .masks import Patch, patches
from .objects import (
    DicomObjectError,
    Originals,
    algorithm,
    model_name,
    new_uid,
    private_path,
    read_image,
    structure_tracking_uid,
    unsuitable,
)
from .planes import Planes, code, item
from .slides import SlideLevel, other_slides
from .streaming import Item, write_streamed

if TYPE_CHECKING:
    from highdicom.base import SOPClass
    from pydicom.dataset import Dataset

SEGMENTATION: Final = "1.2.840.10008.5.1.4.1.1.66.4"

_SEGMENT: Final[Dimension] = (0x0062000B, 0x0062000A, "Segment Number")


class SegOptions(Options):
    """Options of `DicomSeg`."""

    type: Literal["binary", "fractional"] = Field(
        default="binary",
        description="Masks of the areas, or the probabilities that a run with `--probabilities` keeps.",
    )


@dataclass(frozen=True, slots=True)
class DicomSeg:
    """seg-<image id>.dcm: a segmentation of each study and DICOM slide, with a segment for each label found.

    Fractional ones are called seg-fractional-<image id>.dcm: 250 stands for a probability of 1.
    """

    options: SegOptions = field(default_factory=SegOptions)
    name: str = "dicom-seg"
    on_request: bool = True

    Options = SegOptions

    @property
    def needs_probabilities(self) -> bool:
        """See `Writer`."""
        return self.options.type == "fractional"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write a file per image that has an area into `folder`."""
        return write_objects(record, folder, self, partial(_write, fractional=self.needs_probabilities))

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images of other kinds, and those without any area: boxes, tiles and regions are not masks."""
        kinds = "study", "slide"
        if not self.needs_probabilities:
            return {**without_areas(record, kinds), **other_slides(record)}
        missing = {image.info.id: NOT_KEPT for image in record.images if image.probabilities is None}
        return {**missing, **unsuitable(record, kinds), **other_slides(record)}


def _write(record: Record, image: ImageRecord, folder: Path, *, fractional: bool) -> Path:
    path = image_file(folder, "seg-fractional-" if fractional else "seg-", image.info.id, ".dcm")
    size, scale = image.info.size, (1.0, 1.0)
    if fractional and image.grid is not None:
        size, scale = image.grid.shape, image.grid.scale
    if image.info.kind == "study":
        grid: Grid = SliceGrid(Planes(read_image(record, image), scale), size)
    else:
        grid = TileGrid(SlideLevel.of(record, image), size, scale)
    with FrameFile(folder, image.info.id, bits=8 if fractional else 1) as pixels, private_path(path) as part:
        frames: list[tuple[str, Place]] = []
        found: Iterable[Patch] = patches(image, record.labels, grid.tile)
        for patch in _probable(record, image, grid, folder) if fractional else found:
            pixels.add(_padded(patch.mask, grid.tile))
            frames.append((patch.label, (patch.plane, patch.x, patch.y)))
        if not frames:
            needed = "a probability above 0" if fractional else "areas that cover the centre of a pixel"
            rule = f"must have {needed}, for a segmentation"
            raise DicomObjectError(image.info.id, rule, remedy="Use another report")
        there = {label for label, _ in frames}
        labels = [label for label in all_labels(record, sorted(there)) if label in there]
        whole = _elements(grid, labels, fractional=fractional)
        whole.NumberOfFrames = len(frames)
        add_buffered(whole, "PixelData", "OB", pixels.finish())
        write_streamed(whole, {"PerFrameFunctionalGroupsSequence": _frames(grid, labels, frames)}, part)
    return path


def _probable(record: Record, image: ImageRecord, grid: Grid, folder: Path) -> Iterator[Patch]:
    """The probabilities of an image in patches of a tile, each with one above 0; 0 where it was not analysed."""
    width, height = grid.tile
    for plane, layers in planes_of(image, len(record.labels), folder):
        for label, layer in zip(record.labels, layers, strict=True):
            for y in range(0, layer.shape[0], height):
                for x in range(0, layer.shape[1], width):
                    part = layer[y : y + height, x : x + width]
                    values = np.where(part == NODATA, np.uint8(0), part)
                    if values.any():
                        yield Patch(label, plane, x, y, values)


def _padded(patch: Pixels, tile: tuple[int, int]) -> Pixels:
    """A patch of the size of a tile: those at the border of a slide are smaller."""
    height, width = patch.shape
    return patch if (width, height) == tile else np.pad(patch, ((0, tile[1] - height), (0, tile[0] - width)))


def _elements(grid: Grid, labels: Sequence[str], *, fractional: bool) -> "SOPClass":
    """The object without its frames."""
    originals = grid.originals
    record, header, image = originals.record, originals.first, originals.image
    kind = ("fractional",) if fractional else ()
    made = new_instance(originals, "seg", "probabilities" if fractional else "segmentation", SEGMENTATION, "SEG", *kind)
    made.ImageType = ["DERIVED", "PRIMARY"]
    made.ContentLabel, made.ContentCreatorName = "SEGMENTATION", None
    made.ContentDescription = described("Probabilities by label" if fractional else "Areas by label", image)
    made.Rows, made.Columns = grid.tile[::-1]
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = (8, 8, 7) if fractional else (1, 1, 0)
    made.LossyImageCompression = "01" if header.get("LossyImageCompression") == "01" else "00"
    if made.LossyImageCompression == "01":
        for name in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if header.get(name):
                made[name] = header[name]
    made.SegmentationType = "BINARY"
    made.SegmentsOverlap = "UNDEFINED" if image.label_maps is None or fractional else "NO"
    if fractional:
        made.SegmentationType, made.SegmentationFractionalType = "FRACTIONAL", "PROBABILITY"
        made.MaximumFractionalValue = STEPS
    if grid.frame_of_reference:
        made.FrameOfReferenceUID = grid.frame_of_reference
        made.PositionReferenceIndicator = header.get("PositionReferenceIndicator") or None
    if originals.info.kind == "slide" or not grid.frame_of_reference:
        made.PatientOrientation = header.get("PatientOrientation") or None
    made.update(grid.elements())
    organisation = new_uid(record, "dimensions", "seg", originals.info.id, *kind)
    made.DimensionOrganizationSequence = [item(DimensionOrganizationUID=organisation)]
    made.DimensionIndexSequence = [
        item(
            DimensionOrganizationUID=organisation,
            DimensionIndexPointer=attribute,
            FunctionalGroupPointer=group,
            DimensionDescriptionLabel=name,
        )
        for attribute, group, name in (_SEGMENT, *grid.dimensions)
    ]
    palette = Palette.of(record.labels, record.colours)
    made.SegmentSequence = [
        _segment(originals, number, label, rgb(palette[label])) for number, label in enumerate(labels, 1)
    ]
    made.SharedFunctionalGroupsSequence = [grid.shared()]
    references = {str(one.SOPInstanceUID): one for one in originals.headers}
    made.ReferencedSeriesSequence = referenced_series(references.values())
    return made


def _segment(originals: Originals, number: int, label: str, colour: tuple[int, int, int]) -> "Dataset":
    record, image = originals.record, originals.image
    text = long_string(label) or "no label"
    return item(
        SegmentNumber=number,
        SegmentLabel=text,
        SegmentDescription=long_string(record.use, 1024),
        SegmentedPropertyCategoryCodeSequence=[code(*CATEGORY)],
        SegmentedPropertyTypeCodeSequence=[concept(record, label)],
        SegmentAlgorithmType="AUTOMATIC",
        SegmentAlgorithmName=model_name(record),
        SegmentationAlgorithmIdentificationSequence=algorithm(record, image),
        TrackingID=text,
        TrackingUID=structure_tracking_uid(record, image, label),
        RecommendedDisplayCIELabValue=display_colour(colour),
    )


def _frames(grid: Grid, labels: Sequence[str], frames: Sequence[tuple[str, Place]]) -> Iterator[Item]:
    """The functional groups of each frame."""
    numbers = {label: number for number, label in enumerate(labels, 1)}
    along = zip(*(grid.indices(place) for _, place in frames), strict=True)
    ranks = [{value: rank for rank, value in enumerate(sorted(set(values)), 1)} for values in along]
    for label, place in frames:
        made = grid.frame(place)
        index = [rank[value] for rank, value in zip(ranks, grid.indices(place), strict=True)]
        made.FrameContentSequence[0].DimensionIndexValues = [numbers[label], *index]
        made.SegmentIdentificationSequence = [item(ReferencedSegmentNumber=numbers[label])]
        yield Item(made)
