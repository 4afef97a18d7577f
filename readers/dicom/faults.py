"""What can be wrong with a DICOM file, in words that hold nothing of its content.

A parser's own message may quote a patient's name, so messages stay in the process that parses; what leaves it is one
of these codes and, at most, numbers.
"""

from ..errors import ReadError
from ..sandbox import SandboxError

_WHOLE = "Get an undamaged copy of the file"
_LARGE = "Split the file, or convert it to smaller frames"

FAULTS: dict[str, tuple[str, str]] = {
    "not-dicom": ("it must be a DICOM file", "Leave it out"),
    "damaged": ("its header must be readable", _WHOLE),
    "nested": ("sequences may be nested only so deep as Python can follow", _WHOLE),
    "no-pixels": ("it must hold pixels", "Nothing can be looked at in it: leave it out"),
    "no-size": ("it must state rows, columns and bits of its pixels", _WHOLE),
    "short": ("its pixel data must be as long as its header says", _WHOLE),
    "too-large": ("a frame must fit the budget for decoding", _LARGE),
    "too-many-frames": ("it may hold so many frames as the budget allows", _LARGE),
    "inflated": ("what is deflated may grow only to the budget", "Treat it with suspicion: it may be a deflate bomb"),
    "ratio": ("compressed pixels may grow only as far as their coding can", "Treat it with suspicion"),
    "codec": (
        "its transfer syntax must be one that an installed codec reads",
        "Decompress it with dcmdjpeg or gdcmconv",
    ),
    "decode": ("its pixels must be decodable", _WHOLE),
    "memory": ("reading it must fit the memory limit", _LARGE),
    "palette": ("its colour palette must be complete", _WHOLE),
    "unsafe-name": ("names in an archive must stay inside it", "Treat the archive with suspicion"),
    "archive": ("the archive must be readable", _WHOLE),
    "archive-size": ("an archive may hold so much as the budget allows", "Unpack it and give the folder"),
    "nested-archive": ("archives inside archives are not opened", "Unpack it and give the folder"),
    "encrypted": ("members of an archive must not be encrypted", "Unpack it and give the folder"),
    "listed": ("every file that a DICOMDIR lists must be there", "Copy the whole medium again"),
    "missing": ("it must still be there", "Check the path and rights"),
    "died": ("reading it must not bring its process down", "Treat it with suspicion"),
    "time": ("reading it must end in time", "Treat it with suspicion"),
}
"""Code → the rule that is broken and what to do."""


class FaultError(SandboxError):
    """A fault by its code; `value` says numbers only."""


def as_error(subject: str, fault: FaultError) -> ReadError:
    """A fault of `subject` (a name that may be shown) as an error for a person."""
    rule, remedy = FAULTS.get(fault.code, FAULTS["damaged"])
    return ReadError(subject, rule, value=fault.value, remedy=remedy)


def reason(fault: FaultError) -> str:
    """A fault as a ledger's reason, without the thing."""
    rule, remedy = FAULTS.get(fault.code, FAULTS["damaged"])
    return f"{rule}{f' (found: {fault.value})' if fault.value else ''}. {remedy}"
