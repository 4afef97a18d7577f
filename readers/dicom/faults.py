"""Faults of DICOM files as codes, which hold nothing of the file's content.

A parser's own message may quote a patient's name, so it stays in the sandboxed process, which only codes and numbers
leave.
"""

from ..errors import ReadError
from ..sandbox import SandboxError

_COPY = "Get an undamaged copy of the file"
_SPLIT = "Split the file, or convert it to smaller frames"
_SUSPECT = "Leave the file out unless you trust its source"
_UNPACK = "Unpack the archive and give the folder"

FAULTS: dict[str, tuple[str, str]] = {
    "not-dicom": ("must be a DICOM file", "Leave it out"),
    "damaged": ("must have a readable header", _COPY),
    "nested": ("must not nest sequences deeper than Python's recursion limit", _COPY),
    "no-pixels": ("must have pixel data", "Leave it out"),
    "no-size": ("must state the rows, columns and bits of its pixels", _COPY),
    "short": ("must have pixel data of the length that its header states", _COPY),
    "too-large": ("must have frames within the decoding limit", _SPLIT),
    "too-many-frames": ("must not have more frames than the limit", _SPLIT),
    "inflated": ("must not inflate beyond the limit", _SUSPECT),
    "ratio": ("must not claim more pixels than its compression can hold", _SUSPECT),
    "codec": (
        "must have a transfer syntax that an installed codec supports",
        "Decompress it with dcmdjpeg or gdcmconv",
    ),
    "decode": ("must have decodable pixel data", _COPY),
    "header-size": ("must not have more attributes than the limit for headers", _SUSPECT),
    "memory": ("must be readable within the memory limit", _SPLIT),
    "palette": ("must have a complete colour palette", _COPY),
    "mosaic": (
        "must state in one way how many slices its mosaic has and where they lie",
        "Keep (0019,xx0A) and the CSA header (0029,xx10) when removing private elements, or export single slices",
    ),
    "suv": (
        "must state what SUV by body weight takes",
        "Leave out reader_options.values=suv, which leaves the values in Bq/ml",
    ),
    "grid": ("must not be a grid of slices, which only Siemens mosaics may be", "Export single slices"),
    "unsafe-name": ("must have a name inside its archive", _SUSPECT),
    "archive": ("must be a readable archive", _COPY),
    "archive-size": ("must not hold more than the limit for archives", _UNPACK),
    "nested-archive": ("must not be an archive inside an archive", _UNPACK),
    "encrypted": ("must not be encrypted", _UNPACK),
    "listed": ("must exist, since a DICOMDIR lists it", "Copy the whole medium again"),
    "missing": ("must be readable", "Check the path and permissions"),
    "died": ("must not crash the sandboxed process", _SUSPECT),
    "time": ("must be readable in time", _SUSPECT),
}
"""Code → the rule that is broken, and the remedy."""


class FaultError(SandboxError):
    """A fault by its code; `value` holds numbers only."""


def as_error(subject: str, fault: FaultError) -> ReadError:
    """A fault of `subject` (a name that may be shown) as an error for the user."""
    rule, remedy = FAULTS.get(fault.code, FAULTS["damaged"])
    return ReadError(subject, rule, value=fault.value, remedy=remedy)


def reason(fault: FaultError) -> str:
    """A fault as the reason in files.csv, without its subject."""
    rule, remedy = FAULTS.get(fault.code, FAULTS["damaged"])
    return f"{rule}{f' (found: {fault.value})' if fault.value else ''}. {remedy}"
