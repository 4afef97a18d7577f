"""Coded concepts of labels: those of the model card, else private codes that say so."""
# highdicom's data sets have the type of their tag:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import base64
import hashlib
from typing import TYPE_CHECKING, Final

from ..csv_safety import clean_text
from ..writer import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from highdicom.sr import CodedConcept

PRIVATE: Final = "99LIMNER"
"""Coding scheme designator of codes without a meaning outside of limner."""

LONGEST: Final = 64  # characters of a code meaning, and of any text of VR LO


def concept(record: Record, label: str) -> "CodedConcept":
    """The coded concept of a label: the model's, else a private code made from the label."""
    from highdicom.sr import CodedConcept

    if found := record.concepts.get(label):
        return CodedConcept(*found)
    return private_code(label)


def private_code(label: str) -> "CodedConcept":
    """A code of the scheme 99LIMNER: its value, of 16 characters, follows from the label, its meaning is the label."""
    from highdicom.sr import CodedConcept

    digest = hashlib.sha256(label.encode("utf-8", "surrogatepass")).digest()
    return CodedConcept(base64.b32encode(digest)[:16].decode(), PRIVATE, long_string(label) or "no label")


def coding_schemes() -> "Sequence[CodingSchemeIdentificationItem]":
    """What new objects state of the private scheme."""
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    return [CodingSchemeIdentificationItem(PRIVATE, name="Labels of limner's models, not coded elsewhere")]


def long_string(text: str, limit: int = LONGEST) -> str:
    """A text as VR LO holds it: one line of at most `limit` characters, without backslashes."""
    line = " ".join(clean_text(text).replace("\\", "/").split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."
