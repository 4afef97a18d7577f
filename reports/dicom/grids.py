"""The pixels of segmentations: the slices of a study, or tiles of a DICOM slide, as a rule on its finest level.

Those of probabilities are on the analysis grid, whose pixels may be larger than the original ones.

A place is (slice from 0, column, row) of a frame's first pixel in its image.
"""
# pydicom's values have the type of their tag:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt

from .objects import DicomObjectError, Originals
from .planes import Planes, code, decimals, item
from .slides import SlideLevel

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Place = tuple[int, int, int]

Dimension = tuple[int, int, str]
"""The tags of an attribute that tells frames apart, and of its functional group; what it is."""

_POSITION: Final[Dimension] = (0x00200032, 0x00209113, "Position")
_IN_STACK: Final[Dimension] = (0x00209057, 0x00209111, "In-Stack Position Number")
_COLUMN: Final[Dimension] = (0x0048021E, 0x0048021A, "Column Position")
_ROW: Final[Dimension] = (0x0048021F, 0x0048021A, "Row Position")


class Grid(Protocol):
    """The pixels of a segmentation, each the same number of its originals' pixels."""

    @property
    def originals(self) -> Originals:
        """The image."""
        ...

    @property
    def tile(self) -> tuple[int, int]:
        """(width, height) of a frame."""
        ...

    @property
    def dimensions(self) -> Sequence[Dimension]:
        """What tells apart the frames of a segment."""
        ...

    @property
    def frame_of_reference(self) -> str:
        """The original UID; "" without one."""
        ...

    def indices(self, place: Place) -> tuple[int, ...]:
        """Numbers that sort frames along each of the dimensions."""
        ...

    def elements(self) -> "Dataset":
        """Attributes of the object."""
        ...

    def shared(self) -> "Dataset":
        """Functional groups that frames share."""
        ...

    def frame(self, place: Place) -> "Dataset":
        """Functional groups of a frame."""
        ...


@dataclass(frozen=True)
class SliceGrid:
    """The slices of a study."""

    planes: Planes
    size: tuple[int, int]
    """(width, height) in the segmentation's pixels."""

    @property
    def originals(self) -> Originals:
        """The image."""
        return self.planes.originals

    @property
    def tile(self) -> tuple[int, int]:
        """A whole slice."""
        return self.size

    @property
    def frame_of_reference(self) -> str:
        """See `Planes`; "" also where the size of voxels is not known: frames then have the place of their sources."""
        return "" if self._measures is None else self.planes.frame_of_reference

    @property
    def dimensions(self) -> Sequence[Dimension]:
        """The position, or the number in the stack where slices have no place in the patient."""
        return (_POSITION if self.frame_of_reference else _IN_STACK,)

    def indices(self, place: Place) -> tuple[int, ...]:
        """The slice."""
        return (place[0],)

    def elements(self) -> "Dataset":
        """None."""
        return item()

    def shared(self) -> "Dataset":
        """The size of pixels, and the orientation of all slices where they have the same."""
        made = item()
        if self._measures is not None:
            made.PixelMeasuresSequence = [self._measures]
        if self.frame_of_reference and self._one_orientation:
            made.PlaneOrientationSequence = [item(ImageOrientationPatient=self.planes.orientation(0))]
        return made

    def frame(self, place: Place) -> "Dataset":
        """The source, and the position of its slice."""
        source = self.planes.reference(place[0])
        preserved = self.planes.scale == (1.0, 1.0) and self.originals.is_whole_frame(place[0])
        made = item(DerivationImageSequence=[derivation(source, preserved=preserved)])
        made.FrameContentSequence = [item(StackID="1", InStackPositionNumber=place[0] + 1)]
        if self.frame_of_reference:
            made.PlanePositionSequence = [item(ImagePositionPatient=self.planes.position(place[0]))]
            if not self._one_orientation:
                made.PlaneOrientationSequence = [item(ImageOrientationPatient=self.planes.orientation(place[0]))]
        return made

    @cached_property
    def _measures(self) -> "Dataset | None":
        return self.planes.measures()

    @cached_property
    def _one_orientation(self) -> bool:
        matrices = np.array([plane.placement.matrix for plane in self.originals.info.planes])
        return bool(np.ptp(matrices[:, :, :2], axis=0).max() == 0)


def derivation(source: "Dataset", *, preserved: bool) -> "Dataset":
    """The Derivation Image Macro (PS3.3 C.7.6.16.2.6); `preserved`: pixels are those of the source."""
    source.SpatialLocationsPreserved = "YES" if preserved else "NO"
    purpose = code("121322", "DCM", "Source image for image processing operation")
    source.PurposeOfReferenceCodeSequence = [purpose]
    return item(SourceImageSequence=[source], DerivationCodeSequence=[code("113076", "DCM", "Segmentation")])


@dataclass(frozen=True)
class TileGrid:
    """Tiles of the finest level of a DICOM slide: its own tiles, where they have a usual size."""

    level: SlideLevel
    size: tuple[int, int]
    """(width, height) in the segmentation's pixels."""
    scale: tuple[float, float] = (1.0, 1.0)
    """The slide's pixels (x, y) per pixel of the segmentation; tiles of larger ones have a usual size."""

    def __post_init__(self) -> None:
        header = self.level.header
        origin = header.get("TotalPixelMatrixOriginSequence")
        missing = [
            name
            for name, found in (
                ("pixel spacing", self.level.spacing_mm),
                ("origin on the slide", origin),
                ("orientation on the slide", header.get("ImageOrientationSlide")),
                ("frame of reference", header.get("FrameOfReferenceUID")),
            )
            if not found
        ]
        if missing:
            rule, remedy = "must state where its pixels lie, for a segmentation", "Use the report dicom-ann"
            raise DicomObjectError(self.originals.info.id, rule, value=f"no {', '.join(missing)}", remedy=remedy)

    @property
    def originals(self) -> Originals:
        """The slide."""
        return self.level.originals

    @property
    def tile(self) -> tuple[int, int]:
        """(width, height) of a frame."""
        stated = int(self.level.header.get("Columns") or 0), int(self.level.header.get("Rows") or 0)
        usual = self._unchanged and all(_LEAST <= side <= _MOST for side in stated)
        return stated if usual else (_TILE, _TILE)

    @property
    def frame_of_reference(self) -> str:
        """Of the slide."""
        return str(self.level.header.FrameOfReferenceUID)

    @property
    def dimensions(self) -> Sequence[Dimension]:
        """Column and row."""
        return _COLUMN, _ROW

    def indices(self, place: Place) -> tuple[int, ...]:
        """Column and row of the first pixel."""
        return place[1], place[2]

    def elements(self) -> "Dataset":
        """The matrix of all pixels, and its place on the slide."""
        header = self.level.header
        made = item(
            DimensionOrganizationType="TILED_SPARSE",
            ImageOrientationSlide=decimals(header.ImageOrientationSlide),
            TotalPixelMatrixOriginSequence=[item(**dict(zip(_OFFSETS[:2], decimals(self._origin[:2]), strict=True)))],
            TotalPixelMatrixColumns=self.size[0],
            TotalPixelMatrixRows=self.size[1],
            TotalPixelMatrixFocalPlanes=1,
        )
        made.update(self.level.specimen())
        return made

    def shared(self) -> "Dataset":
        """The size of pixels."""
        spacing = self._spacing
        thickness = self.level.thickness_mm
        stated = None if thickness is None else decimals([thickness])[0]
        return item(PixelMeasuresSequence=[item(PixelSpacing=decimals(spacing), SliceThickness=stated)])

    def frame(self, place: Place) -> "Dataset":
        """The source, and the place of the tile's first pixel."""
        _, x, y = place
        source = self.level.reference()
        if (number := self._source_frame(x, y)) is not None:
            source.ReferencedFrameNumber = number
        down, across = self._spacing
        along, below = self._directions
        at = self._origin + along * across * x + below * down * y
        position = item(
            ColumnPositionInTotalImagePixelMatrix=x + 1,
            RowPositionInTotalImagePixelMatrix=y + 1,
            **dict(zip(_OFFSETS, decimals(at), strict=True)),
        )
        return item(
            DerivationImageSequence=[derivation(source, preserved=self._unchanged)],
            FrameContentSequence=[item()],
            PlanePositionSlideSequence=[position],
        )

    @property
    def _origin(self) -> npt.NDArray[np.float64]:
        """Where the centre of the first pixel lies on the slide, in mm."""
        stated = self.level.header.TotalPixelMatrixOriginSequence[0]
        own = np.array([float(stated.get(name) or 0) for name in _OFFSETS])
        down, across = self.level.spacing_mm or (0.0, 0.0)
        (along, below), (x, y) = self._directions, self.scale
        return own + along * across * (x - 1) / 2 + below * down * (y - 1) / 2

    @property
    def _directions(self) -> npt.NDArray[np.float64]:
        """(2, 3) directions of rows and columns on the slide."""
        return np.reshape(np.asarray(self.level.header.ImageOrientationSlide, np.float64), (2, 3))

    @property
    def _spacing(self) -> tuple[float, float]:
        """(between rows, between columns) in mm."""
        down, across = self.level.spacing_mm or (0.0, 0.0)
        return down * self.scale[1], across * self.scale[0]

    @property
    def _unchanged(self) -> bool:
        return self.scale == (1.0, 1.0)

    def _source_frame(self, x: int, y: int) -> int | None:
        """The number of the frame that is this tile; None where frames are not all tiles row by row."""
        header, (width, height) = self.level.header, self.tile
        plain = (
            self._unchanged
            and header.get("DimensionOrganizationType") == "TILED_FULL"
            and len(self.originals.headers) == 1
            and (header.get("Columns"), header.get("Rows")) == (width, height)
        )
        columns, rows = (-(-side // part) for side, part in zip(self.originals.info.size, self.tile, strict=True))
        if not plain or int(header.get("NumberOfFrames") or 0) != columns * rows:
            return None
        return y // height * columns + x // width + 1


_TILE: Final = 512
_LEAST, _MOST = 64, 1024
_OFFSETS: Final = tuple(f"{axis}OffsetInSlideCoordinateSystem" for axis in "XYZ")
