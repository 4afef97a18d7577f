"""What a DICOMDIR lists. Runs in the limited process."""
# pydicom's values have the type of their tag, which is known only when it is read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import BinaryIO

from .faults import FaultError
from .header import parse

LONGEST = 200_000


def read_listing(file: BinaryIO) -> list[list[str]]:
    """The path, in parts, of every file that a DICOMDIR refers to, sorted (PS3.3 F.3). Raises `FaultError`."""
    dataset, _ = parse(file)
    records = list(dataset.get("DirectoryRecordSequence") or [])
    if len(records) > LONGEST:
        raise FaultError("too-many-frames", f"{len(records)} records")
    found: list[list[str]] = []
    for record in records:
        name = record.get("ReferencedFileID")
        if name:
            found.append([name] if isinstance(name, str) else [str(part) for part in name])
    return sorted(found)
