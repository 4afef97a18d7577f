"""The metadata of a DICOM file that leaves the sandboxed process: a whitelist of plain values.

It holds no name, date or free text. UIDs are there for grouping, and become pseudonyms before anything else sees them.
Attributes that distinguish frames beyond geometry are digests.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter

Vector = tuple[float, float, float]

SPLIT_ATTRIBUTES = (
    "stack",
    "acquisition",
    "echo time",
    "temporal position",
    "trigger time",
    "b-value",
    "image type",
    "content time",
)
"""Attributes that may distinguish frames at the same position, in the order in which they are tried."""


@dataclass(frozen=True, slots=True)
class Window:
    """A VOI window as the file states it."""

    centre: float
    width: float
    name: str = ""
    """Its explanation, where that is a usual word."""


@dataclass(frozen=True, slots=True)
class FrameMetadata:
    """One frame."""

    position: Vector | None = None
    """Image Position (Patient): the centre of the first pixel in mm (LPS)."""
    orientation: tuple[Vector, Vector] | None = None
    """Image Orientation (Patient): direction cosines of a row and a column."""
    spacing: tuple[float, float] | None = None
    """Pixel Spacing: mm (between rows, between columns)."""
    windows: tuple[Window, ...] = ()
    voi: str = "LINEAR"
    """VOI LUT Function of `windows`: LINEAR, LINEAR_EXACT or SIGMOID."""
    splits: tuple[str, ...] = ()
    """Digests of `SPLIT_ATTRIBUTES`; "" where the frame has none."""
    tables: tuple[str, ...] = ()
    """Digests of its VOI lookup tables."""


@dataclass(frozen=True, slots=True)
class FileMetadata:
    """One file; empty texts and None where the file does not state a value, or not one that is known."""

    sop_class: str
    sop: str
    study: str
    series: str
    frame_of_reference: str
    identity: str
    """Digest of what distinguishes studies, for files without a Study Instance UID."""
    modality: str
    transfer_syntax: str
    decoder: str
    header: bool
    """Whether it has the preamble and file meta group of a DICOM file."""
    rows: int
    columns: int
    samples: int
    photometric: str
    bits: int
    image_type: tuple[str, ...]
    conversion_type: str
    quantity: str
    """The unit of modality values: HU, …, or number."""
    instance: int | None
    body_part: str
    laterality: str
    view: str
    patient_orientation: str
    patient_position: str
    lossy: str
    burned_in: str
    recognisable: str
    identity_removed: str
    padding: bool
    """Whether it marks padding pixels."""
    pixel_spacing: tuple[float, float] | None
    imager_spacing: tuple[float, float] | None
    magnification: float | None
    calibration: str
    us_region: tuple[float, float] | None
    """mm (between rows, between columns) of an ultrasound's only region."""
    presentation: str
    scaled: bool
    """Whether it has a real-world value mapping."""
    frames: tuple[FrameMetadata, ...]

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> "FileMetadata":
        """Validate an answer of the sandboxed process: the fields, and the `count` of frames if one stands for all.

        Raises `KeyError` or `ValueError`.
        """
        found = _FILE.validate_python(dict(record))
        count = int(record["count"])
        if len(found.frames) == 1 < count:
            return replace(found, frames=found.frames * count)
        return found


_FILE = TypeAdapter(FileMetadata)
