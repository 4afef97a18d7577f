"""What a TIFF's directories say of its pages, read with bounds: a few numbers and texts, and what is wrong with them.

It reads no pixels and believes nothing: a directory that loops, lies beyond the file's end or counts more than a file
can hold is a fault, found in time and memory that the bounds below set.
"""

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final, Self

MAGIC: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
DESCRIPTION, MAKE, PAGE_NAME, SOFTWARE, XMP = 270, 271, 285, 305, 700
SUBFILE, WIDTH, HEIGHT, PHOTOMETRIC, SUBIFDS = 254, 256, 257, 262, 330
TILE_WIDTH, TILE_HEIGHT = 322, 323

MOST_PAGES: Final = 10_000  # directories of one file, those of reduced pictures among them
MOST_ENTRIES: Final = 1_024  # tags of one directory
MOST_BYTES: Final = 256 << 20  # bytes of all tags' values
PIECES: Final = 1 << 22  # tiles or strips of one page, four times as many of all pages
TILE: Final = 256 << 20  # samples of one tile
_TEXT: Final = 4_096  # bytes of a text that are kept
_WALK: Final = 1_024  # SubIFDs of one page

_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WHOLE: Final = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_TEXTS: Final = frozenset({DESCRIPTION, MAKE, PAGE_NAME, SOFTWARE, XMP})
_PLACES: Final = frozenset({273, 279, 324, 325})  # where tiles and strips lie, and how long they are
_LENGTHS: Final = frozenset({279, 325})
_SINGLE: Final = frozenset({SUBFILE, WIDTH, HEIGHT, 259, PHOTOMETRIC, 277, 278, 284, 317, TILE_WIDTH, TILE_HEIGHT})


@dataclass(frozen=True, slots=True)
class Page:
    """One directory: the first number of each tag that holds whole numbers, its `texts`, and all its `tags`.

    `long` is the length in bytes of its description, `reduced` says that it hangs below another page (a SubIFD).
    """

    numbers: Mapping[int, int]
    texts: Mapping[int, str]
    tags: frozenset[int]
    long: int
    reduced: bool

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels; 0 where the directory does not say."""
        return self.numbers.get(WIDTH, 0), self.numbers.get(HEIGHT, 0)

    def text(self, tag: int) -> str:
        """The beginning of a text, "" where there is none."""
        return self.texts.get(tag, "")


@dataclass(frozen=True, slots=True)
class Directories:
    """The pages of a TIFF as far as they can be read, and the first `fault` met, "" where there is none.

    `cut` says that the fault is a place beyond the file's end, `unsafe` that to follow the file takes no end of time or
    memory.
    """

    pages: tuple[Page, ...]
    fault: str = ""
    cut: bool = False
    unsafe: bool = False

    @classmethod
    def read(cls, path: str, most: int = MOST_PAGES) -> Self | None:
        """The first `most` pages of a file, None where it is no TIFF. Raises `OSError` where it cannot be read."""
        with open(path, "rb") as file:
            head = file.read(16)
            if head[:4] not in MAGIC:
                return None
            walk = _Walk(file, head, os.fstat(file.fileno()).st_size)
            pages: list[Page] = []
            try:
                for page in walk.pages(most):
                    pages.append(page)  # noqa: PERF402 - what was read before a fault counts
            except _FaultError as fault:
                walk.note(fault)
        if not pages and walk.fault is None:
            return cls((), "it has no page")
        fault = walk.fault
        return cls(tuple(pages)) if fault is None else cls(tuple(pages), str(fault), fault.cut, fault.unsafe)


class _FaultError(Exception):
    def __init__(self, text: str, *, cut: bool = False, unsafe: bool = False) -> None:
        super().__init__(text)
        self.cut = cut
        self.unsafe = unsafe


class _Walk:
    """Goes from directory to directory of one file; a bad tag is noted as the `fault` and does not stop it."""

    def __init__(self, file: BinaryIO, head: bytes, length: int) -> None:
        self._file = file
        self._length = length
        self._order = "<" if head[:2] == b"II" else ">"
        self._big = head[2:4] in {b"+\0", b"\0+"}
        self._head = head
        self._seen: set[int] = set()
        self._bytes = self._pieces = 0
        self.fault: _FaultError | None = None

    def note(self, fault: _FaultError) -> None:
        """Keep the first fault, or the first that is unsafe."""
        if self.fault is None or (fault.unsafe and not self.fault.unsafe):
            self.fault = fault

    def pages(self, most: int) -> Iterator[Page]:
        """The pages in order, each followed by those that hang below it. Raises `_FaultError`."""
        offset = self._unpack("Q", self._head[8:16]) if self._big else self._unpack("I", self._head[4:8])
        while offset:
            page, below, following = self._directory(offset, reduced=False)
            yield page
            if len(below) > _WALK:
                raise _FaultError(f"more than {_WALK} reduced pictures hang below one page", unsafe=True)
            for place in below:
                yield self._directory(place, reduced=True)[0]
            if len(self._seen) >= most:
                if following and most == MOST_PAGES:
                    raise _FaultError(f"it has more than {most} directories", unsafe=True)
                return
            offset = following

    def _directory(self, offset: int, *, reduced: bool) -> tuple[Page, list[int], int]:
        if offset in self._seen:
            raise _FaultError(f"its directories run in a circle, back to byte {offset}", unsafe=True)
        self._seen.add(offset)
        wide = 8 if self._big else 2
        entries = self._unpack("Q" if self._big else "H", self._at(offset, wide, "a directory"))
        if not 0 < entries <= MOST_ENTRIES:
            raise _FaultError(f"a directory has {entries} tags, 1 to {MOST_ENTRIES} are taken")
        step = 20 if self._big else 12
        table = self._at(offset + wide, entries * step + (8 if self._big else 4), "a directory")
        following = self._unpack("Q" if self._big else "I", table[entries * step :])
        numbers: dict[int, int] = {}
        texts: dict[int, str] = {}
        below: list[int] = []
        tags: set[int] = set()
        long = 0
        for start in range(0, entries * step, step):
            tag, kind, count, value = self._entry(table[start : start + step])
            tags.add(tag)
            try:
                place = self._place(tag, kind, count, value)
                size = _SIZES.get(kind, 0) * count
                if tag in _TEXTS:
                    long = size if tag == DESCRIPTION else long
                    texts[tag] = self._value(value, place, min(size, _TEXT)).split(b"\0")[0].decode("utf-8", "replace")
                elif tag == SUBIFDS and kind in _WHOLE:
                    below = [at for at in self._numbers(kind, self._value(value, place, size)) if at]
                elif tag in _LENGTHS and kind in _WHOLE:
                    self._check_lengths(self._numbers(kind, self._value(value, place, size)))
                elif kind in _WHOLE and count:
                    numbers[tag] = self._numbers(kind, self._value(value, place, _SIZES[kind]))[0]
            except _FaultError as fault:
                self.note(fault)
        self._check_tile(numbers)
        return Page(numbers, texts, frozenset(tags), long, reduced), below[: _WALK + 1], following

    def _place(self, tag: int, kind: int, count: int, value: bytes) -> int | None:
        """Where a tag's value lies, None where it lies in its entry. Raises `_FaultError`."""
        size = _SIZES.get(kind, 0) * count
        if tag in _SINGLE and (count != 1 or kind not in _WHOLE):
            raise _FaultError(f"tag {tag} must hold one whole number, and holds {count} of type {kind}")
        self._bytes += size
        self._pieces += count if tag in _PLACES else 0
        if self._bytes > MOST_BYTES or self._pieces > 8 * PIECES or (tag in _PLACES and count > PIECES):
            why = f"tag {tag} holds {count} values, {size} bytes, or all tags do, and that is too much"
            raise _FaultError(why, unsafe=True)
        if size <= len(value):
            return None
        place = self._unpack("Q" if self._big else "I", value)
        if place + size > self._length:
            raise _FaultError(f"tag {tag} lies at byte {place}, and the file ends at {self._length}", cut=True)
        return place

    def _check_tile(self, numbers: Mapping[int, int]) -> None:
        """Note a tile that is too large."""
        width, height = numbers.get(TILE_WIDTH, 0), numbers.get(TILE_HEIGHT, 0)
        if width * height * numbers.get(277, 1) > TILE:
            self.note(_FaultError(f"a tile of {width} × {height} px is too large", unsafe=True))

    def _check_lengths(self, lengths: list[int]) -> None:
        """Note a tile or strip that is longer than the file."""
        longest = max(lengths, default=0)
        if not 0 <= longest <= self._length:
            why = f"a tile of {longest} bytes, and the file ends at {self._length}"
            self.note(_FaultError(why, cut=True, unsafe=True))

    def _entry(self, entry: bytes) -> tuple[int, int, int, bytes]:
        tag, kind = struct.unpack(f"{self._order}HH", entry[:4])
        if self._big:
            return tag, kind, self._unpack("Q", entry[4:12]), entry[12:]
        return tag, kind, self._unpack("I", entry[4:8]), entry[8:]

    def _value(self, value: bytes, place: int | None, size: int) -> bytes:
        return value[:size] if place is None else self._at(place, size, "a tag")

    def _numbers(self, kind: int, data: bytes) -> list[int]:
        count = len(data) // _SIZES[kind]
        return list(struct.unpack(f"{self._order}{count}{_WHOLE[kind]}", data[: count * _SIZES[kind]]))

    def _unpack(self, form: str, data: bytes) -> int:
        size = struct.calcsize(f"<{form}")
        if len(data) < size:
            raise _FaultError("it ends within its header", cut=True)
        (number,) = struct.unpack(f"{self._order}{form}", data[:size])
        return number

    def _at(self, place: int, size: int, what: str) -> bytes:
        if not 0 <= place <= self._length - size:
            raise _FaultError(f"{what} lies at byte {place}, and the file ends at {self._length}", cut=True)
        self._file.seek(place)
        return self._file.read(size)
