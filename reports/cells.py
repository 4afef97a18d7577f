"""Rows of tables as bytes, made of whole columns: a matrix has a place for each byte of a row, and unused places are 0.

        1  2  .  5  0  ,  t  r  e  e        Numbers of a column have their points below each other,
        -     4  .  0  0  ,  s  e  a        which costs a few nanoseconds a digit.

Texts that may be long are kept out of the matrix: `_LATER` marks their place.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Cells = npt.NDArray[np.uint8] | list[bytes] | bytes
"""The cells of a column: a matrix (N, W) of bytes, long texts, or one for all. None holds the bytes 0 and 1."""

Ends = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]

_LATER: Final = b"\1"
_LONG: Final = 64  # bytes
_EXACT: Final = 2.0**51


def number_cells(values: npt.NDArray[np.float64], decimals: int, least: int | None = None) -> Cells | None:
    """Numbers (N,) that were rounded to so many decimals, as "%.3f" has them for 3; nothing for NaN.

    With `least`, zeros at the end of the decimals are left out beyond so many. None where a number is too large.
    """
    known = ~np.isnan(values)
    scaled = np.rint(np.where(known, values, 0.0) * 10.0**decimals)
    most = float(np.abs(scaled).max(initial=0.0))
    if not most < _EXACT:
        return None
    left = np.abs(scaled).astype(np.uint32 if most < 2**32 else np.uint64)
    digits = max(decimals + 1, len(str(int(most))))
    places = np.zeros((1 + digits + bool(decimals), len(values)), dtype=np.uint8)
    places[0, scaled < 0] = ord("-")
    row, needed = len(places) - 1, np.zeros(len(values), dtype=np.bool_)
    for digit in range(digits):
        if decimals and digit == decimals:
            places[row] = ord(".")
            if least == 0:
                places[row] *= needed
            row -= 1
        rest = left // 10
        places[row] = left - rest * 10 + ord("0")
        if least is not None and digit < decimals - least:
            needed |= places[row] != ord("0")
            places[row] *= needed
        elif digit > decimals:
            places[row] *= left > 0
        left, row = rest, row - 1
    return (places * known).T


def significant_cells(values: npt.NDArray[np.float64], digits: int, least: int) -> Cells | None:
    """Numbers (N,) that were rounded to so many significant digits, with at least so many decimals; nothing for NaN.

    None where one needs an exponent.
    """
    size = np.nan_to_num(np.abs(values), posinf=np.inf)
    if not ((size == 0) | (size >= 1e-4) & (size < 10.0**digits)).all():
        return None
    decimals = digits - 1 - np.floor(np.log10(np.where(size > 0, size, 10.0 ** (digits - 1)))).astype(np.intp)
    groups = [(np.flatnonzero(decimals == one), max(one, least)) for one in np.unique(decimals).tolist()]
    parts = [(rows, number_cells(values[rows], most, least)) for rows, most in groups]
    places = np.zeros((len(values), digits + 6), dtype=np.uint8)
    for rows, part in parts:
        if not isinstance(part, np.ndarray):
            return None
        places[rows, : part.shape[1]] = part
    return places


def text_cells(texts: Sequence[str]) -> Cells:
    """Texts without control characters."""
    if texts and texts.count(texts[0]) == len(texts):
        return texts[0].encode()
    codes = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    encoded, code = [text.encode() for text in codes], [codes[text] for text in texts]
    if max(map(len, encoded), default=0) > _LONG:
        return [encoded[one] for one in code]
    made = np.array(encoded, dtype=bytes)
    return made.view(np.uint8).reshape(len(encoded), made.itemsize)[code]


def coordinate_texts(xy: npt.NDArray[np.float64], ends: Ends, decimals: int, least: int) -> Sequence[bytes | None]:
    """Coordinates (V, 2) as those of polygons in GeoJSON, from the first bracket of a vertex to the last one.

    `ends` are the number of vertices up to the end of each ring, and of each polygon. None where a number is too large.
    """
    of_ring, of_polygon = ends
    x, y = (number_cells(np.ascontiguousarray(axis), decimals, least) for axis in xy.T)
    if x is None or y is None:
        return [None] * len(of_polygon)
    after = np.zeros((len(xy), 3), dtype=np.uint8)
    after[:, 0] = ord(",")
    after[of_ring - 1] = np.frombuffer(b"],[", np.uint8)
    after[of_polygon - 1] = np.frombuffer(_LATER + b"\0\0", np.uint8)
    return joined([b"[", x, b",", y, b"]", after], len(xy)).split(_LATER)[:-1]


def joined(parts: Sequence[Cells], rows: int) -> bytes:
    """Rows of cells, one after the other."""
    later = [part for part in parts if isinstance(part, list)]
    matrices = [
        np.frombuffer(part, np.uint8)[None] if isinstance(part, bytes) else part
        for part in (_LATER if isinstance(part, list) else part for part in parts)
    ]
    whole = np.empty((rows, sum(part.shape[1] for part in matrices)), dtype=np.uint8)
    start = 0
    for part in matrices:
        whole[:, start : (start := start + part.shape[1])] = part
    made = whole.tobytes().translate(None, b"\0")
    if not later:
        return made
    pieces = made.split(_LATER)
    every = [b""] * (2 * len(pieces) - 1)
    every[::2] = pieces
    for number, texts in enumerate(later):
        every[1 + 2 * number :: 2 * len(later)] = texts
    return b"".join(every)
