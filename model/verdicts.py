"""Verdicts: which of several labels fits a tile or a region best, told the same way by every annotator that says so."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from shapely.geometry import Polygon, box
from shapely.geometry.base import BaseGeometry

from ..readers.image import Pixels
from .annotator import Answer, View
from .finding import Kind

DIGITS = 4  # of scores: what differs between machines and numbers of threads lies below
MANY = 20  # labels up to which each one's score is told; of more, the best five

Chances = npt.NDArray[np.float64]


def wanted_tiles(view: View) -> Iterator[tuple[Pixels, Polygon, float]]:
    """Each tile of a view whose share holds something wanted, its share of the core (canvas pixels), its valid part."""
    rows, columns = view.region.rows, view.region.columns
    left, right = columns.core_start - columns.start, columns.core_stop - columns.start
    top, bottom = rows.core_start - rows.start, rows.core_stop - rows.start
    for tile, (x0, y0, x1, y1) in zip(view.tiles, view.grid.shares(), strict=True):
        if view.wanted[y0:y1, x0:x1].any():
            x0, y0, x1, y1 = max(x0, left), max(y0, top), min(x1, right), min(y1, bottom)  # noqa: PLW2901 - in core
            yield tile, box(x0, y0, x1, y1), float(view.wanted[y0:y1, x0:x1].mean())


def valid_part(view: View) -> float:
    """The part of a view's core that is wanted."""
    rows, columns = view.region.rows, view.region.columns
    left, right = columns.core_start - columns.start, columns.core_stop - columns.start
    top, bottom = rows.core_start - rows.start, rows.core_stop - rows.start
    return float(view.wanted[top:bottom, left:right].mean())


def verdict(
    labels: Sequence[str],
    chances: Chances,
    kind: Kind,
    valid: float,
    *,
    geometry: BaseGeometry | None = None,
    made_of: str = "",
) -> Answer:
    """The label with the highest score, with `p.LABEL` for each, or the best five of many; of equals the first."""
    rounded = [round(float(chance), DIGITS) for chance in chances]
    best = rounded.index(max(rounded))
    told = range(len(labels)) if len(labels) <= MANY else sorted(range(len(labels)), key=lambda i: (-rounded[i], i))[:5]
    return Answer(
        label=labels[best],
        geometry=geometry,
        kind=kind,
        score=rounded[best],
        numbers={**{f"p.{labels[i]}": rounded[i] for i in told}, "valid": round(valid, 6)},
        notes={"made_of": made_of} if made_of else {},
    )
