"""Bounded parser of TIFF directories for untrusted files: a few numbers and texts of each page, and the first fault.

It reads no pixels. A directory that loops, lies beyond the end of the file or counts more than a file can hold is a
fault that is found within the time and memory that the limits below set.
"""

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final, Self

MAGIC: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
DESCRIPTION, MAKE, ORIENTATION, PAGE_NAME, SOFTWARE, XMP = 270, 271, 274, 285, 305, 700
SUBFILE, WIDTH, HEIGHT, PHOTOMETRIC, SUBIFDS = 254, 256, 257, 262, 330
TILE_WIDTH, TILE_HEIGHT = 322, 323

MAX_PAGES: Final = 10_000  # directories of one file, SubIFDs included
MAX_SUBIFDS: Final = 1_024  # of one page
MAX_TAGS: Final = 1_024  # of one directory
MAX_VALUE_BYTES: Final = 256 << 20  # of the values of all tags
MAX_SEGMENTS: Final = 1 << 22  # tiles or strips of one page; four times as many of all pages
MAX_TILE_SAMPLES: Final = 256 << 20
_TEXT_BYTES: Final = 4_096  # of a text that are kept

_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS: Final = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_TEXTS: Final = frozenset({DESCRIPTION, MAKE, PAGE_NAME, SOFTWARE, XMP})
_SEGMENTS: Final = frozenset({273, 279, 324, 325})  # offsets and byte counts of tiles and strips
_BYTE_COUNTS: Final = frozenset({279, 325})
_SINGLE: Final = frozenset({SUBFILE, WIDTH, HEIGHT, 259, PHOTOMETRIC, 277, 278, 284, 317, TILE_WIDTH, TILE_HEIGHT})


@dataclass(frozen=True, slots=True)
class Page:
    """One directory."""

    numbers: Mapping[int, int]
    """Tag → its first value, for tags of integers."""
    texts: Mapping[int, str]
    """Tag → the beginning of its text."""
    tags: frozenset[int]
    description_bytes: int
    """Full length of the description."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, 0 where it is not stated."""
        return self.numbers.get(WIDTH, 0), self.numbers.get(HEIGHT, 0)

    def text(self, tag: int) -> str:
        """The beginning of a text, "" where there is none."""
        return self.texts.get(tag, "")


@dataclass(frozen=True, slots=True)
class Directories:
    """The pages of a TIFF as far as they can be read."""

    pages: tuple[Page, ...]
    fault: str = ""
    """What is wrong first, "" where nothing is."""
    truncated: bool = False
    """Whether the fault is an offset beyond the end of the file."""
    unsafe: bool = False
    """Whether a library that follows the file would need excessive time or memory."""

    @classmethod
    def read(cls, path: str, most: int = MAX_PAGES) -> Self | None:
        """The first `most` pages of a file, None where it is no TIFF. Raises `OSError` where it cannot be read."""
        with open(path, "rb") as file:
            head = file.read(16)
            if head[:4] not in MAGIC:
                return None
            parser = _Parser(file, head, os.fstat(file.fileno()).st_size)
            pages: list[Page] = []
            try:
                for page in parser.pages(most):
                    pages.append(page)  # noqa: PERF402 - pages before a fault count
            except _FaultError as fault:
                parser.record(fault)
        fault = parser.fault
        if fault is None:
            return cls(tuple(pages)) if pages else cls((), "it has no page")
        return cls(tuple(pages), str(fault), fault.truncated, fault.unsafe)


class _FaultError(Exception):
    def __init__(self, text: str, *, truncated: bool = False, unsafe: bool = False) -> None:
        super().__init__(text)
        self.truncated = truncated
        self.unsafe = unsafe


class _Parser:
    """Walks the directories of one file; a bad tag is recorded as the `fault` and does not stop it."""

    def __init__(self, file: BinaryIO, head: bytes, length: int) -> None:
        self._file = file
        self._length = length
        self._order = "<" if head[:2] == b"II" else ">"
        self._big = head[2:4] in {b"+\0", b"\0+"}
        self._offset = "Q" if self._big else "I"  # the type of offsets
        self._head = head
        self._seen: set[int] = set()
        self._bytes = self._segments = 0
        self.fault: _FaultError | None = None

    def record(self, fault: _FaultError) -> None:
        """Keep the first fault, or the first that is unsafe."""
        if self.fault is None or (fault.unsafe and not self.fault.unsafe):
            self.fault = fault

    def pages(self, most: int) -> Iterator[Page]:
        """The pages in order, each followed by its SubIFDs. Raises `_FaultError`."""
        offset = self._unpack(self._offset, self._head[8:16] if self._big else self._head[4:8])
        while offset:
            page, subifds, following = self._directory(offset)
            yield page
            if len(subifds) > MAX_SUBIFDS:
                raise _FaultError(f"a page has more than {MAX_SUBIFDS} SubIFDs", unsafe=True)
            for subifd in subifds:
                yield self._directory(subifd)[0]
            if len(self._seen) >= most:
                if following and most == MAX_PAGES:
                    raise _FaultError(f"it has more than {most} directories", unsafe=True)
                return
            offset = following

    def _directory(self, offset: int) -> tuple[Page, list[int], int]:
        """The page at an offset, the offsets of its SubIFDs, and that of the next directory."""
        if offset in self._seen:
            raise _FaultError(f"its directories form a loop at byte {offset}", unsafe=True)
        self._seen.add(offset)
        head_size, entry_size, link_size = (8, 20, 8) if self._big else (2, 12, 4)
        count = self._unpack("Q" if self._big else "H", self._read(offset, head_size, "a directory"))
        if not 0 < count <= MAX_TAGS:
            raise _FaultError(f"a directory has {count} tags instead of 1 to {MAX_TAGS}")
        end = count * entry_size
        table = self._read(offset + head_size, end + link_size, "a directory")
        numbers: dict[int, int] = {}
        texts: dict[int, str] = {}
        subifds: list[int] = []
        tags: set[int] = set()
        description_bytes = 0
        for start in range(0, end, entry_size):
            tag, kind, values, value = self._entry(table[start : start + entry_size])
            tags.add(tag)
            try:
                place = self._value_offset(tag, kind, values, value)
                size = _SIZES.get(kind, 0) * values
                if tag in _TEXTS:
                    description_bytes = size if tag == DESCRIPTION else description_bytes
                    text = self._value(value, place, min(size, _TEXT_BYTES))
                    texts[tag] = text.split(b"\0")[0].decode("utf-8", "replace")
                elif tag == SUBIFDS and kind in _INTEGERS:
                    subifds = [at for at in self._integers(kind, self._value(value, place, size)) if at]
                elif tag in _BYTE_COUNTS and kind in _INTEGERS:
                    self._check_byte_counts(self._integers(kind, self._value(value, place, size)))
                elif kind in _INTEGERS and values:
                    numbers[tag] = self._integers(kind, self._value(value, place, _SIZES[kind]))[0]
            except _FaultError as fault:
                self.record(fault)
        width, height = numbers.get(TILE_WIDTH, 0), numbers.get(TILE_HEIGHT, 0)
        if width * height * numbers.get(277, 1) > MAX_TILE_SAMPLES:
            self.record(_FaultError(f"a tile of {width} × {height} px is too large", unsafe=True))
        page = Page(numbers, texts, frozenset(tags), description_bytes)
        return page, subifds[: MAX_SUBIFDS + 1], self._unpack(self._offset, table[end:])

    def _entry(self, entry: bytes) -> tuple[int, int, int, bytes]:
        """(tag, type, number of values, the value or its offset)."""
        tag, kind = struct.unpack(f"{self._order}HH", entry[:4])
        split = 12 if self._big else 8
        return tag, kind, self._unpack(self._offset, entry[4:split]), entry[split:]

    def _value_offset(self, tag: int, kind: int, count: int, value: bytes) -> int | None:
        """Where a tag's values lie, None where they lie in the entry. Raises `_FaultError`."""
        size = _SIZES.get(kind, 0) * count
        if tag in _SINGLE and (count != 1 or kind not in _INTEGERS):
            raise _FaultError(f"tag {tag} holds {count} values of type {kind} instead of one integer")
        self._bytes += size
        self._segments += count if tag in _SEGMENTS else 0
        too_many = self._segments > 8 * MAX_SEGMENTS or (tag in _SEGMENTS and count > MAX_SEGMENTS)
        if self._bytes > MAX_VALUE_BYTES or too_many:
            raise _FaultError(f"tag {tag} with {count} values, or all tags, hold too many values", unsafe=True)
        if size <= len(value):
            return None
        place = self._unpack(self._offset, value)
        if place + size > self._length:
            raise _FaultError(f"tag {tag} lies at byte {place}, and the file ends at {self._length}", truncated=True)
        return place

    def _check_byte_counts(self, counts: list[int]) -> None:
        longest = max(counts, default=0)
        if not 0 <= longest <= self._length:
            text = f"a tile has {longest} bytes, and the file ends at {self._length}"
            self.record(_FaultError(text, truncated=True, unsafe=True))

    def _value(self, value: bytes, place: int | None, size: int) -> bytes:
        return value[:size] if place is None else self._read(place, size, "a tag")

    def _integers(self, kind: int, data: bytes) -> list[int]:
        count = len(data) // _SIZES[kind]
        return list(struct.unpack(f"{self._order}{count}{_INTEGERS[kind]}", data[: count * _SIZES[kind]]))

    def _unpack(self, form: str, data: bytes) -> int:
        size = struct.calcsize(f"<{form}")
        if len(data) < size:
            raise _FaultError("it ends within its header", truncated=True)
        (number,) = struct.unpack(f"{self._order}{form}", data[:size])
        return number

    def _read(self, place: int, size: int, what: str) -> bytes:
        if not 0 <= place <= self._length - size:
            raise _FaultError(f"{what} lies at byte {place}, and the file ends at {self._length}", truncated=True)
        self._file.seek(place)
        return self._file.read(size)
