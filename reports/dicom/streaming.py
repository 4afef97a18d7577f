"""DICOM files that are written in parts: sequences whose items are made one by one, and long values from files.

Such a sequence has no stated length (PS3.5 7.5.2), and never is in memory as a whole.
"""
# pydicom's writers state few types:
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from highdicom.base import SOPClass
    from pydicom.dataset import Dataset
    from pydicom.filebase import DicomIO

_UNDEFINED: Final = 0xFFFFFFFF  # a length
_ITEM: Final = struct.pack("<HHI", 0xFFFE, 0xE000, _UNDEFINED)
_ITEM_END: Final = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
_SEQUENCE_END: Final = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a sequence: its elements, and sequences whose items are made when they are written."""

    elements: "Dataset"
    sequences: Mapping[str, "Iterable[Item]"] = field(default_factory=dict[str, "Iterable[Item]"])
    """Keyword → items."""


def write_streamed(whole: "SOPClass", sequences: "Mapping[str, Iterable[Item]]", path: Path) -> None:
    """Write a DICOM file of a data set and of `sequences`, in the little endian syntax that its `file_meta` states.

    Elements whose value is a file are copied from it.
    """
    from pydicom.filebase import DicomFileLike
    from pydicom.filewriter import write_file_meta_info
    from pydicom.uid import ImplicitVRLittleEndian

    with path.open("wb") as plain:
        plain.write(b"\0" * 128 + b"DICM")
        file = DicomFileLike(plain)
        file.is_little_endian = True
        file.is_implicit_VR = False
        write_file_meta_info(file, whole.file_meta, enforce_standard=True)
        file.is_implicit_VR = whole.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
        _write(file, Item(whole, sequences), str(whole.SpecificCharacterSet))


def _write(file: "DicomIO", item: Item, encoding: str | list[str]) -> None:
    """Write the elements of an item and its sequences, sorted by tag."""
    from pydicom.datadict import tag_for_keyword
    from pydicom.filewriter import write_dataset

    made = sorted((tag_for_keyword(name) or 0, items) for name, items in item.sequences.items())
    done = 0
    for tag, items in made:
        write_dataset(file, item.elements[done:tag], encoding)
        done = tag
        _begin(file, tag)
        for one in items:
            file.write(_ITEM)
            _write(file, one, encoding)
            file.write(_ITEM_END)
        file.write(_SEQUENCE_END)
    write_dataset(file, item.elements[done:], encoding)


def _begin(file: "DicomIO", tag: int) -> None:
    file.write(struct.pack("<HH", tag >> 16, tag & 0xFFFF))
    file.write(b"" if file.is_implicit_VR else b"SQ\0\0")
    file.write(struct.pack("<I", _UNDEFINED))
