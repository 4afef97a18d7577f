"""The findings of an image in files, as a server shows them: those in view as outlines and dots, and rows of a table.

A folder has one file for each array, in the order of the findings' numbers, and `layers.json`, which describes them. It
is written batch by batch, so that memory does not grow with the vertices, and read as memory maps. Findings in view are
found by blocks: 512 findings that lie near each other, with the box around them.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Final, Self, cast

import numpy as np
import numpy.typing as npt
import shapely

from ...readers.files import parse_json, read_file
from ..measures import FindingsBatch
from ..palette import Palette
from ..table import Column
from ..writer import ImageRecord, Record
from .embedding import Bytes, Lengths, encode_outlines, packed, take_outlines, take_pieces
from .listed import Values, as_numbers, column_head, label_order, shown_columns, shown_labels
from .page import shorten

SMALL: Final = 4.0
"""Screen pixels of the longer side of a finding from which it is sent as an outline, and not as a dot."""
MOST_OUTLINES: Final = 20_000
"""Outlines that are sent at once: of more, the largest; the others are dots."""

_DOT: Final = 2.0  # screen pixels: findings of a label that are nearer share a dot
_BLOCK: Final = 512
_RICH: Final = 64  # vertices from which an outline is simplified for the scale that it is shown at
_MOST_BYTES: Final = 16 << 20  # of outlines that are sent at once
_LONGEST_TEXT: Final = 2000  # characters
_MOST_HEADER: Final = 64 << 20
_HEADER: Final = "layers.json"
_PLAIN: Final = {"label": "<u4", "plane": "<i4", "area": "|u1", "score": "<f4", "bounds": "<f4", "anchors": "<i4"}
_PLAIN_OUTLINES: Final = {"lengths": "<i8", "rich": "<i4", "rich_lengths": "<i8"}

Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class LayersWriter:
    """Writes the findings of one image into a folder, batch by batch. Use as a context manager."""

    def __init__(self, record: Record, image: ImageRecord, folder: Path) -> None:
        self.image = image
        self._record, self._folder = record, folder
        self._stack = ExitStack()
        self._files: dict[str, BinaryIO] = {}
        self._columns: list[Column[FindingsBatch]] | None = None
        self._texts: dict[int, _Texts] = {}
        self._known: set[int] = set()
        self._labels: dict[str, int] = {}
        self._first = (-2.0, 0.0)
        self.first_plane = len(image.info.planes) // 2
        """The plane of the finding with the highest score, of equal ones or without scores of the largest."""
        self.count = 0
        """How many findings were added."""
        folder.mkdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, batch: FindingsBatch) -> None:
        """Add the next findings of the image."""
        if self._columns is None:
            self._columns = shown_columns(self._record, batch)
        self.count += len(batch)
        if not len(batch):
            return
        table = batch.table
        score = np.where(np.isnan(table.score), -1.0, table.score)
        first = int(np.lexsort((batch.area_px, score))[-1])
        if (rank := (float(score[first]), float(batch.area_px[first]))) > self._first:
            self._first, self.first_plane = rank, int(table.plane[first])
        outlines, lengths, anchors = encode_outlines(batch.geometries, 1.0)
        rich = np.flatnonzero(shapely.get_num_coordinates(batch.geometries) > _RICH)
        encoded = cast("list[bytes]", shapely.to_wkb(batch.geometries[rich]).tolist())
        label = [self._labels.setdefault(one, len(self._labels)) for one in table.label.tolist()]
        arrays: dict[str, Any] = {
            "label": label,
            "plane": table.plane,
            "area": table.is_area,
            "score": score,
            "bounds": batch.bounds,
            "anchors": anchors,
            "lengths": lengths,
            "rich": rich + batch.first - 1,
            "rich_lengths": [len(one) for one in encoded],
        }
        for name, dtype in (_PLAIN | _PLAIN_OUTLINES).items():
            self._write(name, np.asarray(arrays[name]).astype(dtype).tobytes())
        self._write("outlines", outlines.tobytes())
        self._write("rich_wkb", b"".join(encoded))
        for place, column in enumerate(self._columns):
            self._add_column(place, column, column.array(batch))

    def _add_column(self, place: int, column: Column[FindingsBatch], values: Values) -> None:
        name = f"column{place}"
        if column_head(column)["type"] == "number":
            numbers = as_numbers(values)
            if np.isfinite(numbers).any():
                self._known.add(place)
            self._write(name, numbers.astype("<f8").tobytes())
            return
        texts = self._texts.setdefault(place, _Texts())
        shown = [("" if one is None else shorten(str(one), _LONGEST_TEXT, "findings.csv")) for one in values.tolist()]
        codes = []
        for text in shown:
            code, new = texts.code(text)
            codes.append(code)
            if new:
                self._write(f"{name}_texts", text.encode("utf-8", "replace"))
            if text:
                self._known.add(place)
        self._write(name, np.array(codes, "<u4").tobytes())

    def finish(self, palette: Palette) -> None:
        """Write what is known once all were added: labels in order, blocks, and the description."""
        self._stack.close()
        folder, labels = self._folder, label_order(self._record, self._labels)
        code_of = {label: at for at, label in enumerate(labels)}
        back = np.array([code_of[label] for label in self._labels], "<u4")
        (folder / "label.bin").write_bytes(back[_array(folder, "label", "<u4")].tobytes())
        order = _by_place(_array(folder, "bounds", "<f4").reshape(-1, 4), _array(folder, "plane", "<i4"))
        (folder / "order.bin").write_bytes(order.astype("<u4").tobytes())
        columns: list[dict[str, object]] = []
        for place in sorted(self._known):
            head = column_head((self._columns or [])[place])
            if place in self._texts:
                ends = np.cumsum(np.array(self._texts[place].lengths, np.int64), dtype="<i8")
                (folder / f"column{place}_ends.bin").write_bytes(ends.tobytes())
            columns.append({**head, "file": f"column{place}"})
        header = {"count": self.count, "labels": shown_labels(labels, palette), "columns": columns}
        (folder / _HEADER).write_text(json.dumps(header, ensure_ascii=False), encoding="utf-8", errors="replace")

    def _write(self, name: str, content: bytes) -> None:
        if name not in self._files:
            self._files[name] = self._stack.enter_context((self._folder / f"{name}.bin").open("wb"))
        self._files[name].write(content)


@dataclass(slots=True)
class _Texts:
    """The different texts of a column, by a digest of each, so that long ones take no memory."""

    codes: dict[bytes, int] = field(default_factory=dict[bytes, int])
    lengths: list[int] = field(default_factory=list[int])
    """In bytes of UTF-8."""

    def code(self, text: str) -> tuple[int, bool]:
        """The number of a text, and whether it is a new one."""
        content = text.encode("utf-8", "replace")
        key = hashlib.blake2b(content, digest_size=12).digest()
        new = key not in self.codes
        if new:
            self.codes[key] = len(self.codes)
            self.lengths.append(len(content))
        return self.codes[key], new


def _array(folder: Path, name: str, dtype: str) -> npt.NDArray[Any]:
    """An array of a folder; empty where there is no file."""
    path = folder / f"{name}.bin"
    if not path.exists() or not path.stat().st_size:
        return np.zeros(0, dtype)
    return np.memmap(path, dtype, "r")


def _by_place(bounds: npt.NDArray[np.float32], plane: npt.NDArray[np.int32]) -> npt.NDArray[np.intp]:
    """Findings by plane, and on a plane along a Morton curve of their centres: neighbours are near in this order."""
    if not len(bounds):
        return np.zeros(0, np.intp)
    centre = np.nan_to_num((bounds[:, :2] + bounds[:, 2:]) / 2)
    low = centre.min(axis=0)
    scale = 65535.0 / max(float((centre.max(axis=0) - low).max()), 1e-9)
    x, y = ((centre - low) * scale).astype(np.uint64).T
    code = _spread_bits(x) | _spread_bits(y) << np.uint64(1)
    return np.lexsort((code, plane))


def _spread_bits(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """16 bits with a 0 between every two."""
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        values = (values | values << np.uint64(shift)) & np.uint64(mask)
    return values


def _touches(bounds: npt.NDArray[np.float32], box: tuple[float, float, float, float]) -> Flags:
    """(N,): which boxes touch another one."""
    x0, y0, x1, y1 = box
    return (bounds[:, 2] >= x0) & (bounds[:, 3] >= y0) & (bounds[:, 0] <= x1) & (bounds[:, 1] <= y1)


@dataclass(frozen=True, slots=True)
class View:
    """What of an image is on the screen."""

    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in level-0 pixels."""
    step: float
    """Level-0 pixels per screen pixel."""
    plane: int = 0


@dataclass(frozen=True, slots=True)
class Filter:
    """Which findings are shown."""

    hidden: frozenset[int] = frozenset()
    """Labels that are not, by their place."""
    low: float = 0.0
    high: float = 1.0
    """Scores; findings without one are shown where `low` is 0."""
    search: str = ""
    """In labels, numbers and texts, in lower case."""


@dataclass(frozen=True)
class Layers:
    """The findings of an image in a folder that `LayersWriter` wrote. Thread-safe: nothing is changed but caches.

    Raises `ValueError` and `OSError` where the folder is damaged.
    """

    folder: Path
    labels: Sequence[Mapping[str, str]]
    columns: Sequence[Mapping[str, Any]]
    count: int

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a folder."""
        header: Any = parse_json(read_file(folder / _HEADER, max_bytes=_MOST_HEADER))
        return cls(folder, header["labels"], header["columns"], int(header["count"]))

    def _array(self, name: str) -> npt.NDArray[Any]:
        return _array(self.folder, name, (_PLAIN | _PLAIN_OUTLINES)[name])

    @cached_property
    def label(self) -> npt.NDArray[np.uint32]:
        """(N,) the place of each finding's label in `labels`."""
        return self._array("label")

    @cached_property
    def plane(self) -> npt.NDArray[np.int32]:
        """(N,) planes."""
        return self._array("plane")

    @cached_property
    def score(self) -> npt.NDArray[np.float32]:
        """(N,) scores; -1 for none."""
        return self._array("score")

    @cached_property
    def bounds(self) -> npt.NDArray[np.float32]:
        """(N, 4) boxes in level-0 pixels."""
        return self._array("bounds").reshape(-1, 4)

    @cached_property
    def _area(self) -> npt.NDArray[np.uint8]:
        return self._array("area")

    @cached_property
    def _outline_ends(self) -> npt.NDArray[np.int64]:
        return np.cumsum(self._array("lengths"))

    @cached_property
    def _rich(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """The findings whose vertices are kept apart, and where each ends."""
        return self._array("rich"), np.cumsum(self._array("rich_lengths"))

    @cached_property
    def _order(self) -> npt.NDArray[np.uint32]:
        return _array(self.folder, "order", "<u4")

    @cached_property
    def _blocks(self) -> npt.NDArray[np.float32]:
        """(B, 6): the box around each block, and its first and last plane."""
        starts = np.arange(0, self.count, _BLOCK)
        bounds, plane = self.bounds[self._order], self.plane[self._order]
        low, high = np.minimum.reduceat(bounds, starts), np.maximum.reduceat(bounds, starts)
        planes = np.minimum.reduceat(plane, starts), np.maximum.reduceat(plane, starts)
        return np.column_stack([low[:, :2], high[:, 2:], *planes]).astype(np.float32)

    def label_counts(self) -> list[int]:
        """How many findings each label has."""
        return np.bincount(self.label, minlength=len(self.labels)).tolist()

    def plane_counts(self) -> dict[int, int]:
        """How many findings each plane has that has some."""
        planes, counts = np.unique(self.plane, return_counts=True)
        return dict(zip(planes.tolist(), counts.tolist(), strict=True))

    def visible(self, of: Filter) -> Flags:
        """(N,): which findings a filter leaves."""
        shown = ~np.isin(self.label, list(of.hidden)) if of.hidden else np.ones(self.count, np.bool_)
        if of.low > 0 or of.high < 1:
            score = self.score
            shown &= np.where(score < 0, of.low <= 0, (score >= of.low - 1e-6) & (score <= of.high + 1e-6))
        return shown & self._found(of.search) if of.search else shown

    def _found(self, search: str) -> Flags:
        named = np.array([search in one["label"].lower() for one in self.labels], np.bool_)
        found = named[self.label]
        if search.isdecimal() and 0 < int(search) <= self.count:
            found[int(search) - 1] = True
        for column in self.columns:
            if column["type"] == "text":
                hits = np.array([search in text.lower() for text in self._texts(column)], np.bool_)
                found |= hits[self._values(column)]
        return found

    def rows_in(self, view: View, shown: Flags) -> Rows:
        """The findings in view, of those that are shown."""
        if not self.count:
            return np.zeros(0, np.int64)
        block = self._blocks
        near = _touches(block, view.box) & (block[:, 4] <= view.plane) & (block[:, 5] >= view.plane)
        starts = np.flatnonzero(near) * _BLOCK
        places = (starts[:, None] + np.arange(_BLOCK)).ravel()
        rows = self._order[places[places < self.count]].astype(np.int64)
        rows = rows[shown[rows]]
        return rows[_touches(self.bounds[rows], view.box) & (self.plane[rows] == view.plane)]

    def in_view(self, view: View, shown: Flags, extra: int, outcomes: npt.NDArray[np.uint8]) -> bytes:
        """The findings in view as a data block: outlines of the large ones, clipped to it, and dots for the others.

        `extra` is a finding that is always sent as an outline; -1 for none. `outcomes` (N,) are sent with them.
        """
        rows = self.rows_in(view, shown)
        b = self.bounds[rows]
        size = np.maximum(b[:, 2] - b[:, 0], b[:, 3] - b[:, 1])
        large = (size >= SMALL * view.step) | (rows == extra)
        if large.sum() > MOST_OUTLINES:
            least = np.partition(size[large], -MOST_OUTLINES)[-MOST_OUTLINES]
            large &= (size > least) | (rows == extra)
        chosen = rows[large]
        order = np.lexsort((chosen, -size[large]))
        chosen = chosen[order]
        outlines, lengths, anchors = self._outlines(chosen, view)
        kept = np.cumsum(lengths) <= _MOST_BYTES
        if not kept.all():
            outlines, lengths, anchors = outlines[: int(lengths[kept].sum())], lengths[kept], anchors[kept]
            large[np.isin(rows, chosen[~kept])] = False
            chosen = chosen[kept]
        dots, dot_labels = self._dots(rows[~large], view)
        arrays: dict[str, Values] = {
            "row": chosen.astype(np.uint32),
            "label": self.label[chosen].astype(np.uint32),
            "area": self._area[chosen],
            "outcome": outcomes[chosen],
            "bounds": self.bounds[chosen].astype(np.float32).ravel(),
            "anchors": anchors.astype(np.int32).ravel(),
            "outlines": outlines,
            "dots": dots.astype(np.float32).ravel(),
            "dot_label": dot_labels,
        }
        return packed({"listed": len(chosen), "count": len(rows), "step": view.step}, arrays)

    def _dots(self, rows: Rows, view: View) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint32]]:
        """A dot for findings that are nearer than two screen pixels, with the label that most of them have."""
        if not len(rows):
            return np.zeros((0, 2)), np.zeros(0, np.uint32)
        b = self.bounds[rows]
        cell = np.floor(((b[:, :2] + b[:, 2:]) / 2 - view.box[:2]) / (_DOT * view.step)).astype(np.int64) + 1
        width, labels = int(cell[:, 0].max()) + 1, len(self.labels)
        keys, counts = np.unique((cell[:, 1] * width + cell[:, 0]) * labels + self.label[rows], return_counts=True)
        place, label = np.divmod(keys, labels)
        order = np.lexsort((-counts, place))
        first = order[np.diff(place[order], prepend=-1) > 0]
        y, x = np.divmod(place[first], width)
        return (np.stack([x, y], axis=1) - 0.5) * _DOT * view.step + view.box[:2], label[first].astype(np.uint32)

    def _outlines(self, rows: Rows, view: View) -> tuple[Bytes, Lengths, npt.NDArray[np.int32]]:
        """Outlines of findings: those of many vertices clipped to the view, and as fine as the screen."""
        lengths, anchors = self._array("lengths")[rows], self._array("anchors").reshape(-1, 2)[rows]
        names, ends = self._rich
        place = np.minimum(np.searchsorted(names, rows), max(0, len(names) - 1))
        is_rich = names[place] == rows if len(names) else np.zeros(len(rows), np.bool_)
        plain, rich = np.flatnonzero(~is_rich), np.flatnonzero(is_rich)
        stored = _array(self.folder, "outlines", "|u1")
        outlines = take_pieces(stored, self._outline_ends[rows[plain]] - lengths[plain], lengths[plain])
        if not len(rich):
            return outlines, lengths, anchors
        wkb, place = _array(self.folder, "rich_wkb", "|u1"), place[rich]
        starts = ends[place] - self._array("rich_lengths")[place]
        shapes = shapely.from_wkb([wkb[a:b].tobytes() for a, b in zip(starts, ends[place], strict=True)])
        x0, y0, x1, y1 = view.box
        margin = 4 * view.step
        clipped = shapely.clip_by_rect(shapes, x0 - margin, y0 - margin, x1 + margin, y1 + margin)
        shapes = np.where(shapely.is_empty(clipped), shapes, clipped)
        finer, lengths[rich], anchors[rich] = encode_outlines(shapes, 2 * view.step)
        order = np.argsort(np.concatenate([plain, rich]), kind="stable")
        sizes = np.concatenate([lengths[plain], lengths[rich]])
        return take_outlines(np.concatenate([outlines, finer]), sizes, order), lengths, anchors

    def sorted_rows(self, shown: Flags, column: int, *, down: bool) -> Rows:
        """The findings that are shown, by a column: -1 by number, -2 by label. What is not known comes last."""
        rows = np.flatnonzero(shown)
        if column == -1:
            return rows[::-1] if down else rows
        if column == -2:
            keys: npt.NDArray[Any] = self.label[rows].astype(np.int64)
            return rows[np.argsort(-keys if down else keys, kind="stable")]
        head = self.columns[column]
        values = self._values(head)[rows]
        if head["type"] == "text":
            texts = self._texts(head)
            order = sorted(range(len(texts)), key=texts.__getitem__)
            rank = np.empty(len(texts), np.float64)
            rank[order] = np.arange(len(texts))
            rank[[at for at, text in enumerate(texts) if not text]] = np.nan
            values = rank[values]
        return rows[np.argsort(-values if down else values, kind="stable")]  # NaN comes last

    def with_words(self) -> Flags:
        """(N,): which findings have a text of the model's."""
        for column in self.columns:
            if column["name"] == "text":
                said = np.array([bool(text) for text in self._texts(column)], np.bool_)
                return said[self._values(column)]
        return np.zeros(self.count, np.bool_)

    def table(self, rows: Rows) -> list[dict[str, Any]]:
        """Findings as rows of a table."""
        values = [self._cells(column, rows) for column in self.columns]
        return [
            {
                "row": row,
                "label": int(self.label[row]),
                "score": float(self.score[row]),
                "plane": int(self.plane[row]),
                "bounds": self.bounds[row].tolist(),
                "cells": [cells[at] for cells in values],
            }
            for at, row in enumerate(rows.tolist())
        ]

    def _cells(self, column: Mapping[str, Any], rows: Rows) -> list[Any]:
        values = self._values(column)[rows].tolist()
        if column["type"] == "text":
            texts = self._texts(column)
            return [texts[code] for code in values]
        return [value if np.isfinite(value) else None for value in values]

    def _values(self, column: Mapping[str, Any]) -> npt.NDArray[Any]:
        return _array(self.folder, column["file"], "<u4" if column["type"] == "text" else "<f8")

    def _texts(self, column: Mapping[str, Any]) -> Sequence[str]:
        return _StoredTexts(
            _array(self.folder, f"{column['file']}_texts", "|u1"), _array(self.folder, f"{column['file']}_ends", "<i8")
        )


@dataclass(frozen=True, slots=True)
class _StoredTexts(Sequence[str]):
    """The different texts of a column, read when they are asked for."""

    content: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: Any) -> Any:
        start = int(self.ends[index - 1]) if index else 0
        return self.content[start : int(self.ends[index])].tobytes().decode("utf-8", "replace")
