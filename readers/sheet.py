"""The sheet: a stack of slices laid out as one picture, so that it is read, cut and looked at like any huge image.

Each slice lies in a square cell, `columns` cells a row, in the stack's order. An annotator whose tile is a cell and
whose regions are `columns` tiles wide and high so sees `columns`² consecutive slices a region, and each tile is one
slice. Cells never mix: an output pixel belongs to the cell in which its centre lies, and sees nothing of the others.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ReadError
from .geometry import Box, Placement, Points
from .image import ImageInfo, Mask, Pixels
from .resample import Edges, Taps, lattice, resample, taps

Rows = Callable[[int, int, int], tuple[Pixels, Mask | None]]
"""(slice, first row, last row) → native rows of all columns, and where they are valid."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """`count` slices of `shape` = (width, height) native pixels, seen `scale` = (x, y) sheet pixels a native pixel.

    The scale makes pixels that are not square in the patient square in the sheet; the finer axis keeps its pixels.
    """

    shape: tuple[int, int]
    count: int
    columns: int
    scale: tuple[float, float] = (1.0, 1.0)

    @classmethod
    def lay(cls, shape: tuple[int, int], count: int, *, columns: int, spacing: tuple[float, float] | None) -> "Sheet":
        """The sheet of `count` slices whose pixels are `spacing` = (y, x) mm, or of unknown size.

        A stack shorter than a row makes the row as long as itself.
        """
        if count < 1 or columns < 1 or min(shape) < 1:
            msg = f"a sheet needs slices and columns: {count} of {shape} in {columns}"
            raise ValueError(msg)
        finest = min(spacing) if spacing else 1.0
        scale = (spacing[1] / finest, spacing[0] / finest) if spacing else (1.0, 1.0)
        return cls(shape, count, min(columns, count), scale)

    @property
    def side(self) -> int:
        """A cell's side in sheet pixels."""
        return math.ceil(max(self.shape[0] * self.scale[0], self.shape[1] * self.scale[1]) - 1e-6)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the sheet in its own pixels."""
        return self.columns * self.side, math.ceil(self.count / self.columns) * self.side

    @property
    def margin(self) -> tuple[int, int]:
        """Sheet pixels left of and above a slice in its cell: slices lie in the middle, on whole pixels."""
        return (
            int(self.side - self.shape[0] * self.scale[0]) // 2,
            int(self.side - self.shape[1] * self.scale[1]) // 2,
        )

    def cell(self, number: int) -> Box:
        """The box of cell `number` (from 0) in sheet pixels."""
        row, column = divmod(number, self.columns)
        x, y = float(column * self.side), float(row * self.side)
        return Box(x, y, x + self.side, y + self.side)

    def place(self, number: int, placement: Placement) -> Placement:
        """The placement of a slice's native pixels as one of the sheet's pixels, for cell `number`."""
        cell = self.cell(number)
        x, y = cell.x0 + self.margin[0], cell.y0 + self.margin[1]
        a, b = 1.0 / self.scale[0], 1.0 / self.scale[1]
        rows = tuple((m[0] * a, m[1] * b, m[2] - m[0] * a * x - m[1] * b * y) for m in placement.matrix)
        return Placement(rows, placement.unit, frame=placement.frame, source=placement.source)

    def to_slice(self, number: int, sheet_xy: npt.ArrayLike) -> Points:
        """Sheet pixels (N, 2) → native pixels (N, 2) of slice `number` (from 0), corners in both."""
        cell = self.cell(number)
        corner = np.array([cell.x0 + self.margin[0], cell.y0 + self.margin[1]])
        return (np.asarray(sheet_xy, dtype=np.float64).reshape(-1, 2) - corner) / np.asarray(self.scale)

    def read(
        self, box: Box, size: tuple[int, int], rows: Rows, channels: int, dtype: np.dtype[Any]
    ) -> tuple[Pixels, Mask]:
        """Pixels of `box` (sheet pixels) seen at `size` = (width, height), and where they are valid.

        `rows` is asked only for slices that are touched. At least half of the part of a pixel that lies in its cell
        must be a valid part of the slice; what is outside the slices is not.
        """
        y, x = lattice(box.y0, box.y1, size[1]), lattice(box.x0, box.x1, size[0])
        pixels = np.zeros((size[1], size[0], channels), dtype=dtype)
        valid = np.zeros((size[1], size[0]), dtype=np.bool_)
        for row, down in self._runs(y):
            for column, across in self._runs(x):
                number = row * self.columns + column
                if column >= self.columns or number >= self.count:
                    continue
                corner = (column * self.side, row * self.side)
                part = self._cell(
                    corner, y[down.start : down.stop + 1], x[across.start : across.stop + 1], (rows, number), pixels
                )
                if part is not None:
                    pixels[down, across], valid[down, across] = part
        return pixels, valid

    def _runs(self, edges: Edges) -> Sequence[tuple[int, slice]]:
        """(row or column of cells, which output pixels have their centre in it), in order, from 0."""
        at = np.floor((edges[:-1] + edges[1:]) / 2 / self.side).astype(np.intp)
        cuts = [0, *(np.flatnonzero(np.diff(at)) + 1).tolist(), len(at)]
        return [(int(at[a]), slice(a, b)) for a, b in pairwise(cuts) if at[a] >= 0]

    def _cell(
        self, corner: tuple[int, int], y: Edges, x: Edges, source: tuple[Rows, int], like: Pixels
    ) -> tuple[Pixels, Mask] | None:
        """The output pixels between edges y and x (sheet pixels) that belong to the cell at `corner`."""
        found: list[Taps | None] = []
        for axis, edges in ((1, y), (0, x)):
            length, scale, start = self.shape[axis], self.scale[axis], corner[axis] + self.margin[axis]
            low, high = (corner[axis] - start) / scale, (corner[axis] + self.side - start) / scale
            found.append(taps((edges - start) / scale, length, low=low, high=high))
        down, across = found
        if down is None or across is None:
            return None
        rows, number = source

        def slice_rows(start: int, stop: int) -> tuple[Pixels, Mask | None]:
            native, usable = rows(number, start, stop)
            window = slice(across.start, across.stop)
            return native[:, window], None if usable is None else usable[:, window]

        return resample(slice_rows, down, across, like.shape[2], like.dtype)


def sheet_of(info: ImageInfo) -> Sheet | None:
    """The sheet that an image is, from its facts; None for a picture that is none. Raises `ReadError`."""
    if len(info.cells) < 2:  # noqa: PLR2004 - one picture is no sheet
        return None
    facts = dict(info.facts)
    shape = (int(facts["columns"]), int(facts["rows"]))
    spacing = (float(facts["row_mm"]), float(facts["col_mm"])) if facts.get("row_mm") else None
    sheet = Sheet.lay(shape, len(info.cells), columns=int(facts["sheet_columns"]), spacing=spacing)
    if sheet.size != info.size:
        raise ReadError(info.id, "its sheet must be the one that was scanned", remedy="Scan again")
    return sheet
