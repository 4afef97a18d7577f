"""The findings of an image that a page holds: as many as it has room for, collected batch by batch.

Memory is flat: of more findings than there is room for, those that cannot be among the first are dropped on the way.
First are those with the highest score, of equal ones or without scores the largest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from ...readers.geometry import Box
from ..columns import findings_columns
from ..csv_safety import clean_text
from ..measures import FindingsBatch
from ..palette import Palette
from ..table import Column
from ..writer import ImageRecord, Record
from .embedding import Bytes, Lengths, data_block, encode_outlines, take_outlines
from .page import shorten
from .thumbnails import MOST_PARTS, Worded

_HEADINGS: Final = {
    "score": "score",
    "area_m2": "area",
    "area_um2": "area",
    "area_mm2": "area",
    "area_px": "area",
    "x_px": "x",
    "y_px": "y",
    "lon": "longitude",
    "lat": "latitude",
    "x_um": "x",
    "y_um": "y",
    "slice": "slice",
    "bbox_w_mm": "width",
    "bbox_h_mm": "height",
    "laterality_geometry": "side",
    "text": "the model's words",
}
"""Columns of findings.csv on the page, and their headings."""
_PIXELS: Final = {"area_px": ("area_m2", "area_um2", "area_mm2"), "x_px": ("lon", "x_um"), "y_px": ("lat", "y_um")}
"""Columns that are shown only where none of the others has values."""
_MOST_OWN: Final = 12  # columns of a model's own
_LONGEST_TEXT: Final = 2000  # characters
_SHORTEST_TEXT: Final = 60
_NOT_KNOWN: Final = -(2**31)

Values = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Room:
    """How much of an image's findings a page holds."""

    findings: int
    outline_bytes: int
    text_characters: int


@dataclass(frozen=True, slots=True)
class _Kept:
    """Findings that are kept: a row each."""

    number: npt.NDArray[np.int64]
    label: Values
    plane: npt.NDArray[np.int64]
    area: npt.NDArray[np.uint8]
    """1 where it was traced from a class map, and is filled."""
    rank: npt.NDArray[np.float64]
    """(N, 2): score, -1 for none, and area in level-0 pixels."""
    bounds: npt.NDArray[np.float32]
    anchors: npt.NDArray[np.int32]
    lengths: Lengths
    outlines: Bytes
    columns: dict[str, Values]

    def take(self, rows: npt.NDArray[np.intp]) -> "_Kept":
        """Some rows, in the given order."""
        plain = {name: getattr(self, name)[rows] for name in _PLAIN}
        outlines = take_outlines(self.outlines, self.lengths, rows)
        return replace(self, **plain, outlines=outlines, columns={k: v[rows] for k, v in self.columns.items()})

    @classmethod
    def joined(cls, parts: Sequence["_Kept"]) -> "_Kept":
        """The rows of several, one after the other."""
        plain = {name: np.concatenate([getattr(part, name) for part in parts]) for name in (*_PLAIN, "outlines")}
        columns = {key: np.concatenate([part.columns[key] for part in parts]) for key in parts[0].columns}
        return cls(**plain, columns=columns)


_PLAIN: Final = ("number", "label", "plane", "area", "rank", "bounds", "anchors", "lengths")


@dataclass(slots=True)
class ListedFindings:
    """The findings of an image on a page."""

    record: Record
    image: ImageRecord
    room: Room
    coarseness: float = 1.0
    """Level-0 pixels per pixel of the picture on the page."""
    count: int = 0
    """How many findings the image has."""
    worded: list[Worded] = field(default_factory=list[Worded])
    """The parts of the image that the first findings with words lie in, once `block` was called."""
    _shown: list[Column[FindingsBatch]] = field(default_factory=list[Column[FindingsBatch]])
    _parts: list[_Kept] = field(default_factory=list[_Kept])
    _held: int = 0
    _characters: int = 0

    def add(self, batch: FindingsBatch) -> None:
        """Add the next findings of the image."""
        if not self._parts:
            self._shown = shown_columns(self.record, batch)
        self.count += len(batch)
        if not (len(batch) and self.room.findings):
            return
        encoded, lengths, anchors = encode_outlines(batch.geometries, self.coarseness)
        score = np.where(np.isnan(batch.table.score), -1.0, batch.table.score)
        columns: dict[str, Values] = {one.name: one.array(batch) for one in self._shown}
        self._parts.append(
            _Kept(
                batch.first + np.arange(len(batch)),
                batch.table.label,
                batch.table.plane,
                batch.table.is_area.astype(np.uint8),
                np.stack([score, batch.area_px], axis=1),
                batch.bounds.astype(np.float32),
                anchors,
                lengths,
                encoded,
                columns,
            )
        )
        self._held += len(batch)
        if self._held > 2 * self.room.findings:
            self._prune()

    def _prune(self) -> None:
        """Keep the first of all, in the order of their numbers."""
        if not self._parts:
            return
        kept = _Kept.joined(self._parts)
        order = np.lexsort((kept.number, -kept.rank[:, 1], -kept.rank[:, 0]))[: self.room.findings]
        within = np.cumsum(kept.lengths[order]) <= self.room.outline_bytes
        self._parts = [kept.take(np.sort(order[within]))]
        self._held = len(self._parts[0].number)

    @property
    def outline_bytes(self) -> int:
        """Bytes of the outlines that the page holds."""
        return sum(len(part.outlines) for part in self._parts)

    @property
    def text_characters(self) -> int:
        """Characters of the texts that the page holds."""
        return self._characters

    def forget(self) -> None:
        """Free what `block` needed."""
        self._parts.clear()

    @property
    def listed(self) -> int:
        """How many findings are held: as many as the page has, once `block` was called."""
        return self._held

    def block(self, header: dict[str, object], palette: Palette) -> str:
        """The data block of the image, once all findings were added: `header`, labels, columns, outlines."""
        self._prune()
        if not self.listed:
            return data_block({**header, "labels": [], "columns": [], "count": self.count, "listed": 0}, {})
        kept = self._parts[0]
        found: list[str] = kept.label.tolist()
        named = label_order(self.record, sorted(set(found)))
        code_of = {label: at for at, label in enumerate(named)}
        arrays: dict[str, Values] = {
            "number": kept.number.astype(np.uint32),
            "label": np.array([code_of[label] for label in found], np.uint32),
            "plane": kept.plane.astype(np.uint32),
            "area": kept.area,
            "score": kept.rank[:, 0].astype(np.float32),
            "bounds": kept.bounds.ravel(),
            "anchors": kept.anchors.ravel(),
            "outlines": kept.outlines,
        }
        self.worded = _worded(kept)
        columns: list[dict[str, object]] = []
        for one in self._shown:
            self._encode(one, kept.columns[one.name], columns, arrays)
        stated = {"labels": shown_labels(named, palette), "columns": columns}
        stated |= {"count": self.count, "listed": len(kept.number)}
        return data_block({**header, **stated}, arrays)

    def _encode(
        self, one: Column[FindingsBatch], values: Values, columns: list[dict[str, object]], arrays: dict[str, Values]
    ) -> None:
        """Add a column's heading and values, unless it is empty."""
        name, head = f"column{len(columns)}", column_head(one)
        if head["type"] == "number":
            numbers, decimals = as_numbers(values), cast("int | None", head["decimals"])
            known = np.isfinite(numbers)
            if not known.any():
                return
            scaled = numbers * 10.0 ** (decimals or 0)
            if decimals is not None and np.abs(scaled[known]).max() < 2**31 - 1:
                arrays[name] = np.where(known, np.rint(scaled), _NOT_KNOWN).astype(np.int32)
            else:
                head["decimals"] = None
                arrays[name] = numbers.astype(np.float32)
        else:
            texts = ["" if value is None else str(value) for value in values.tolist()]
            if not any(texts):
                return
            unique = {text: at for at, text in enumerate(dict.fromkeys(texts))}
            characters = min(_LONGEST_TEXT, max(_SHORTEST_TEXT, self.room.text_characters // len(unique)))
            shown = [shorten(text, characters, "findings.csv") for text in unique]
            self._characters += sum(map(len, shown))
            head["texts"] = shown
            arrays[name] = np.array([unique[text] for text in texts], np.uint32)
        columns.append(head)


def _worded(kept: _Kept) -> list[Worded]:
    """The parts of an image that the first `MOST_PARTS` findings with words lie in."""
    parts: dict[tuple[float, ...], list[int]] = {}
    texts = kept.columns.get("text", np.empty(0, dtype=object))
    for row in np.flatnonzero(texts.astype(bool))[:MOST_PARTS].tolist():
        parts.setdefault((int(kept.plane[row]), *kept.bounds[row].tolist()), []).append(row)
    return [Worded(int(plane), Box(*bounds), tuple(rows)) for (plane, *bounds), rows in parts.items()]


def shown_columns(record: Record, batch: FindingsBatch) -> list[Column[FindingsBatch]]:
    """The columns of findings.csv that the page shows of an image, and the first of the model's own."""
    every = findings_columns(record, batch.image.findings())
    kinds = [one for one in every if batch.kind in one.kinds]
    with_values = {one.name for one in kinds if one.name in _HEADINGS and _known(one, batch)}
    shown = [
        one
        for one in kinds
        if one.name in _HEADINGS and not with_values & set(_PIXELS.get(one.name, ())) and one.name != "score"
    ]
    score = [one for one in kinds if one.name == "score"]
    own = [one for one in kinds if one.name.startswith(("number.", "note."))]
    order = list(_HEADINGS)
    return [*score, *sorted(shown, key=lambda one: order.index(one.name)), *own[:_MOST_OWN]]


def column_head(column: Column[FindingsBatch]) -> dict[str, object]:
    """What the page states of a column: name, heading, unit, type ("number" or "text"), decimals (None: 5 digits)."""
    _, _, own = column.name.partition(".")
    unit = {"world_unit": ""}.get(column.unit, column.unit)
    head: dict[str, object] = {
        "name": column.name,
        "heading": _HEADINGS.get(column.name) or shorten(own, 80),
        "unit": unit,
    }
    if column.dtype not in {"float64", "int64", "Int64"}:
        return {**head, "type": "text"}
    decimals = 0 if column.dtype != "float64" else column.decimals if isinstance(column.decimals, int) else None
    return {**head, "type": "number", "decimals": decimals}


def as_numbers(values: Values) -> npt.NDArray[np.float64]:
    """The values of a column of numbers; NaN where one is not known."""
    if values.dtype != object:
        return values.astype(np.float64)
    return np.array([np.nan if value is None else value for value in values.tolist()], np.float64)


def shown_labels(labels: Sequence[str], palette: Palette) -> list[dict[str, str]]:
    """What the page states of labels."""
    return [{"label": shorten(clean_text(label), 500), "colour": palette[label]} for label in labels]


def label_order(record: Record, labels: Iterable[str]) -> list[str]:
    """Labels in the order of the page: those of the record, then others as they come."""
    found = list(labels)
    place = {label: at for at, label in enumerate(dict.fromkeys([*record.labels, *found]))}
    return sorted(found, key=place.__getitem__)


def _known(column: Column[FindingsBatch], batch: FindingsBatch) -> bool:
    """Whether a column has a value in a batch."""
    values = column.array(batch)
    return bool(np.isfinite(values).any() if column.dtype == "float64" else any(one is not None for one in values))
