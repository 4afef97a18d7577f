"""Slides that are read from DICOM files: the instance of the finest level, which findings refer to.

Level-0 pixels are counted from the corner of the total pixel matrix, as DICOM's image coordinates are.
"""
# pydicom's values have the type of their tag:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from ...readers.dicom.originals import UIDS, read_headers
from ...readers.errors import LimnerError
from ..writer import ImageRecord, Record
from .objects import DicomObjectError, Originals, completed
from .planes import item

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SPECIMEN: Final = (
    *("ContainerIdentifier", "IssuerOfTheContainerIdentifierSequence", "ContainerTypeCodeSequence"),
    "SpecimenDescriptionSequence",
)


@dataclass(frozen=True)
class SlideLevel:
    """The finest level of a DICOM slide."""

    originals: Originals
    """Whose headers are those of the level's instances."""

    @classmethod
    def of(cls, record: Record, image: ImageRecord) -> Self:
        """The level of a slide. Raises `LimnerError` where its files are gone, have changed, or lack it or UIDs."""
        if image.original is None:
            raise DicomObjectError(image.info.id, "must have its original files", remedy="Restore the input files")
        info = image.original()
        headers = [header for header in read_headers(info.files, info.id, frames=False) if is_level(header, info.size)]
        headers.sort(key=lambda header: int(header.get("InConcatenationNumber") or 1))
        missing = [name for name in UIDS for header in headers if not header.get(name)]
        if missing or not headers:
            rule = f"must have an instance of {info.size[0]} × {info.size[1]} px with UIDs"
            value = f"no {missing[0]}" if missing else "none of this size"
            raise DicomObjectError(info.id, rule, value=value, remedy="Use another report, such as geojson or qupath")
        return cls(Originals(record, image, info, completed(headers)))

    @property
    def header(self) -> "Dataset":
        """The header of the level's first instance."""
        return self.originals.first

    def reference(self) -> "Dataset":
        """The level's first instance."""
        header = self.header
        return item(ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID)

    def specimen(self) -> "Dataset":
        """What the file states of the container and the specimen on it."""
        from pydicom.dataset import Dataset

        made = Dataset()
        for name in _SPECIMEN:
            if name in self.header:
                made[name] = self.header[name]
        return made

    @cached_property
    def _measures(self) -> "list[Dataset]":
        groups = self.header.get("SharedFunctionalGroupsSequence") or ()
        return [measures for group in groups for measures in group.get("PixelMeasuresSequence") or ()]

    @property
    def spacing_mm(self) -> tuple[float, float] | None:
        """(between rows, between columns); None where the file does not state them for all frames."""
        for measures in self._measures:
            if (spacing := measures.get("PixelSpacing")) is not None and len(spacing) == 2 and min(spacing) > 0:
                return float(spacing[0]), float(spacing[1])
        return None

    @property
    def thickness_mm(self) -> float | None:
        """How much of the specimen's depth a frame shows; None where the file does not state it."""
        stated = [float(measures.SliceThickness) for measures in self._measures if measures.get("SliceThickness")]
        depth = self.header.get("ImagedVolumeDepth")  # in µm
        return stated[0] if stated else float(depth) / 1000 if depth else None


def is_level(header: "Dataset", size: tuple[int, int]) -> bool:
    """Whether an instance is of the slide itself, at that size (width, height)."""
    volume = list(header.get("ImageType") or ())[2:3] == ["VOLUME"]
    return volume and (header.get("TotalPixelMatrixColumns"), header.get("TotalPixelMatrixRows")) == size


def other_slides(record: Record) -> Mapping[str, str]:
    """Slides whose files are not DICOM, with the reason."""
    slides = [image for image in record.images if image.info.kind == "slide" and image.original is not None]
    return {image.info.id: "it is a slide whose file is not DICOM" for image in slides if not _is_dicom(image)}


def _is_dicom(image: ImageRecord) -> bool:
    """Whether a slide's file is DICOM; true where it is gone or has changed, which writing then reports."""
    try:
        path = Path(image.original().files[0]) if image.original is not None else Path()
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except (LimnerError, OSError, IndexError):
        return True
