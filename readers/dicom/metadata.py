"""Facts of a DICOM file that leave the process which parses it: a whitelist, and plain values.

No name, date or free text is among them. UIDs are, for grouping; they are turned into pseudonyms before anything else
sees them. What tells frames apart beyond geometry travels as digests.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, cast

Vector = tuple[float, float, float]

SPLITS = (
    "stack",
    "acquisition",
    "echo time",
    "temporal position",
    "trigger time",
    "b-value",
    "image type",
    "content time",
)
"""What may tell apart frames at the same place, in the order in which it is tried."""


@dataclass(frozen=True, slots=True)
class Window:
    """A VOI window as a file states it: `name` only where it is one of the usual words."""

    centre: float
    width: float
    name: str = ""


@dataclass(frozen=True, slots=True)
class FrameMetadata:
    """One frame: patient position (mm, LPS, centre of the first pixel), direction cosines of a row and a column.

    `spacing` is mm (between rows, between columns). `splits` go with `SPLITS`, "" where a frame has none. `voi` is the
    function of its `windows`: LINEAR, LINEAR_EXACT or SIGMOID. `tables` are digests of its VOI lookup tables.
    """

    position: Vector | None = None
    orientation: tuple[Vector, Vector] | None = None
    spacing: tuple[float, float] | None = None
    windows: tuple[Window, ...] = ()
    voi: str = "LINEAR"
    splits: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict` through JSON."""
        position, orientation = record["position"], record["orientation"]
        return cls(
            position=None if position is None else _vector(position),
            orientation=None if orientation is None else (_vector(orientation[0]), _vector(orientation[1])),
            spacing=_pair(record["spacing"]),
            windows=tuple(Window(float(w["centre"]), float(w["width"]), str(w["name"])) for w in record["windows"]),
            voi=str(record["voi"]),
            splits=tuple(str(text) for text in record["splits"]),
            tables=tuple(str(text) for text in record["tables"]),
        )


@dataclass(frozen=True, slots=True)
class FileMetadata:
    """One file. Empty texts and None mean that the file does not say, or says it in words that are not known."""

    sop_class: str
    sop: str
    study: str
    series: str
    frame_of_reference: str
    identity: str  # digest of what tells studies apart, for files without a study UID
    modality: str
    transfer_syntax: str
    decoder: str
    header: bool  # whether it has the preamble and meta group of a DICOM file
    rows: int
    columns: int
    samples: int
    photometric: str
    bits: int
    image_type: tuple[str, ...]
    conversion_type: str
    quantity: str
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
    pixel_spacing: tuple[float, float] | None
    imager_spacing: tuple[float, float] | None
    magnification: float | None
    calibration: str
    us_region: tuple[float, float] | None
    spacing_between: float | None
    presentation: str
    scaled: bool
    frames: tuple[FrameMetadata, ...]

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """From the parsing process's answer. Raises `KeyError`, `TypeError` or `ValueError` where that is not whole."""
        values = {field.name: record[field.name] for field in fields(cls)}
        frames = tuple(FrameMetadata.from_json(one) for one in record["frames"])
        count = int(record["count"])
        if len(frames) == 1 < count:
            frames *= count
        for name in ("pixel_spacing", "imager_spacing", "us_region"):
            values[name] = _pair(record[name])
        values["image_type"] = tuple(str(text) for text in cast("list[object]", record["image_type"]))
        values["frames"] = frames
        return cls(**values)


def _vector(values: Any) -> Vector:
    x, y, z = values
    return float(x), float(y), float(z)


def _pair(values: Any) -> tuple[float, float] | None:
    if values is None:
        return None
    first, second = values
    return float(first), float(second)
