"""The metadata of a DICOM file that leaves the sandboxed process: a whitelist of plain values.

It holds no name or free text. UIDs and times are there for grouping: UIDs become pseudonyms, and times differences,
before anything else sees them. Attributes that distinguish frames beyond geometry are numbers or digests.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Vector = tuple[float, float, float]

SPLIT_ATTRIBUTES: Mapping[str, str] = {
    "stack": "",
    "echo time": "ms",
    "inversion time": "ms",
    "b-value": "s/mm²",
    "time offset": "s",
    "temporal position": "",
    "trigger time": "ms",
    "cardiac phase": "%",
    "frame reference time": "ms",
    "energy window": "",
    "R-R interval": "",
    "time slot": "",
    "acquisition": "",
    "image type": "",
    "acquisition time": "s",
    "content time": "s",
}
"""Attributes that may distinguish frames at the same position, in the order in which they are tried → their units."""

MOSAIC_NOTES: Mapping[str, str] = {
    "": "",
    "stated": "",
    "assumed": "its mosaic does not state in which direction its slices follow: they were placed along row × column",
    "unplaced": "its mosaic does not state the distance between its slices or their pixel size, so that they are not"
    " placed in the patient",
    "unlike": "it states that it is a mosaic of slices, but its image type does not: it was read as one slice",
}
"""What a file states of a mosaic → a note for the user."""

SUV = "SUVbw"
"""The quantity of standardised uptake values by body weight, in g/ml."""

SUV_NOTES: Mapping[str, str] = {
    "same-day": "the day of the injection is not stated: it was taken to be that of the scan",
    "day-before": "the day of the injection is not stated, and its time is after the scan's: the day before was taken",
    "series": "the scan was taken to begin at the series time, to which START corrects for decay",
    "frames": "the series time is after the acquisition, so that the scan's begin was computed from the frame reference"
    " time",
    "ge": "the series time is after the acquisition, so that the scan's begin is GE's own (0009,xx0D)",
    "stated": "the file states SUV (units GML), which were used as they are",
}
"""What was assumed for them → a note for the user."""


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
    unusable_window: bool = False
    """Whether it states a window that is none: without a width above 0."""
    voi: str = "LINEAR"
    """VOI LUT Function of `windows`: LINEAR, LINEAR_EXACT or SIGMOID."""
    splits: tuple[float | str, ...] = ()
    """Values of `SPLIT_ATTRIBUTES`: numbers, digests of other values, "" where the frame has none. Those by the clock
    count from no fixed day, and only differences of them are shown."""
    tables: tuple[str, ...] = ()
    """Digests of its VOI lookup tables."""
    flat: bool = False
    """Whether its rescale slope is 0, so that all its values are the same."""


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
    body_part_source: str
    """What states it: body part examined, anatomic region or procedure."""
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
    mosaic: str
    """A key of `MOSAIC_NOTES`."""
    scaled: bool
    """Whether it has a real-world value mapping."""
    suv: str
    """Of PET, why its values cannot become SUV: attributes, without their values; "" where they can, or of others."""
    suv_notes: tuple[str, ...]
    """Of PET, keys of `SUV_NOTES`."""
    frames: tuple[FrameMetadata, ...]

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> "FileMetadata":
        """Validate an answer of the sandboxed process: the fields, and the `count` of frames if one stands for all.

        Raises `KeyError` or `ValueError`.
        """
        found = _adapter().validate_python(dict(record))
        count = int(record["count"])
        if len(found.frames) == 1 < count:
            return replace(found, frames=found.frames * count)
        return found


@cache
def _adapter() -> "TypeAdapter[FileMetadata]":
    from pydantic import TypeAdapter

    return TypeAdapter(FileMetadata)
