"""Findings as features of GeoJSON files, made of whole columns: see `cells`."""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import json
from collections.abc import Sequence
from typing import Final, cast

import numpy as np
import numpy.typing as npt
import shapely

from .cells import Cells, coordinate_texts, joined, number_cells, significant_cells, text_cells
from .measures import FindingsBatch, Shapes
from .table import DIGITS, Column, is_constant, plain_text

encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
FIRST: Final = b"\2"
"""Before the members of an object, of which the first loses its comma in `features`."""

_PLAIN: Final = 4  # decimals up to which Python and GEOS write no exponent
_POLYGON: Final = 3  # shapely's type number


def member_cells(column: Column[FindingsBatch], batch: FindingsBatch, *, null: bool, text: bool = False) -> list[Cells]:
    """A column's values as members of JSON objects, each after a comma; with `text`, as texts.

    Where a value is not known, the member is null or, without `null`, left out.
    """
    name, whole = f",{encode(column.name)}:", column.dtype == "int64"
    decimals = 0 if whole else column.decimals
    plain = decimals is None or (isinstance(decimals, int) and decimals <= _PLAIN)
    if column.dtype in {"float64", "int64"} and not text and plain:
        values = column.array(batch).astype(np.float64)
        if isinstance(decimals, int):
            numbers = number_cells(values, decimals, None if whole else 1)
        else:
            numbers = significant_cells(values, DIGITS, 1)
        if numbers is not None:
            known = ~np.isnan(values)
            return [_where(known | null, name), *([_where(~known, "null")] if null else []), numbers]
    rows = column.json_values(batch)
    if is_constant(column.array(batch)):
        rows = rows[:1]
    if column.dtype in {"float64", "int64", "Int64"} and not text:
        written = [name + one for one in encode(rows)[1:-1].split(",")]
        return [text_cells(["" if one is None and not null else it for one, it in zip(rows, written, strict=True)])]
    left_out = () if null else ("", None) if text else (None,)
    texts = {
        one: "" if one in left_out else name + encode(plain_text(one) if text and not isinstance(one, str) else one)
        for one in set(rows)
    }
    return [text_cells([texts[one] for one in rows])]


def _where(mask: npt.NDArray[np.bool_], text: str) -> Cells:
    return text.encode() if mask.all() else mask[:, None] * np.frombuffer(text.encode(), np.uint8)


def row_numbers(first: int, count: int) -> Cells:
    """Whole numbers from the first on."""
    return cast("Cells", number_cells(np.arange(first, first + count, dtype=np.float64), 0))


def polygon_texts(shapes: Shapes, decimals: int) -> list[bytes | None]:
    """Polygons (N,) that were rounded to so many decimals as GeoJSON; None for geometries of other types."""
    texts: list[bytes | None] = [None] * len(shapes)
    places = np.flatnonzero((shapely.get_type_id(shapes) == _POLYGON) & ~shapely.is_empty(shapes))
    rings, polygon = shapely.get_rings(shapes[places], return_index=True)
    of_ring = np.cumsum(shapely.get_num_coordinates(rings), dtype=np.int64)
    last = np.flatnonzero(np.diff(polygon, append=-1))
    made = ring_texts(shapely.get_coordinates(rings), (of_ring, of_ring[last]), decimals, 1)
    for place, text in zip(places.tolist(), made, strict=True):
        texts[place] = text
    return texts


def ring_texts(
    xy: npt.NDArray[np.float64], ends: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]], decimals: int, least: int
) -> list[bytes | None]:
    """Polygons of coordinates as GeoJSON: see `coordinate_texts`; all None where a number needs an exponent."""
    if decimals > _PLAIN and ((np.abs(xy) < 10.0**-_PLAIN) & (xy != 0)).any():
        return [None] * len(ends[1])
    made = coordinate_texts(xy, ends, decimals, least)
    return [None if one is None else b'{"type":"Polygon","coordinates":[[%b]]}' % one for one in made]


def features(parts: Sequence[Cells], rows: int) -> bytes:
    """Features, each after a comma and a line break."""
    return joined([b",\n", *parts], rows).replace(FIRST + b",", b"").replace(FIRST, b"")
