"""The integral of a smooth density over polygons, by Green's theorem around their rings. Pure numpy: no maps here.

The density is a Legendre series over each polygon's bounding box, sampled at the Gauss–Legendre nodes (Abramowitz &
Stegun 1964, 25.4.29) and made longer until its next term would vanish, as terms of an analytic function do: like a
geometric series. ∬ f dx dy = ∮ (∫ f dx) dy is then exact, since
along a straight edge the integrand is a polynomial.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import shapely
from numpy.polynomial.legendre import leggauss, legvander

from .geometry import Points

Values = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]
Geometries = npt.NDArray[Any]
Density = Callable[[Points], Values]

_DEGREES: Final = (2, 4, 9, 19, 39, 79)  # of the series, tried in turn
_SETTLED: Final = 1e-8  # of the mean: a series whose next term would be below it is complete
_NUMBERS: Final = 1 << 20  # numbers in memory at once
_POLYGON: Final = 3  # shapely's type number; those above it have parts


@dataclass(frozen=True, slots=True)
class Edges:
    """Directed edges of many geometries' rings: outer rings one way round, holes the other.

    `owner` (E,) is the place of the geometry in the array they were taken from; `start` and `end` are (E, 2).
    """

    owner: Index
    start: Points
    end: Points

    @classmethod
    def of(cls, geometries: Geometries) -> Self:
        """The edges of all polygons in shapely geometries (N,), however nested; points and lines have none."""
        parts, owner = geometries, np.arange(len(geometries))
        while (shapely.get_type_id(parts) > _POLYGON).any():
            parts, index = shapely.get_parts(parts, return_index=True)
            owner = owner[index]
        solid = shapely.get_type_id(parts) == _POLYGON
        rings, index = shapely.get_rings(shapely.orient_polygons(parts[solid]), return_index=True)
        points, ring = shapely.get_coordinates(rings, return_index=True)
        inside = np.flatnonzero(ring[1:] == ring[:-1])
        return cls(owner[solid][index][ring[inside]], points[inside], points[inside + 1])

    def among(self, chosen: Index, count: int) -> Self:
        """The edges of the `chosen` ones of `count` geometries, whose owners are now their places in `chosen`."""
        place = np.full(count, -1, dtype=np.intp)
        place[chosen] = np.arange(len(chosen))
        keep = place[self.owner] >= 0
        return type(self)(place[self.owner[keep]], self.start[keep], self.end[keep])


def integrate(geometries: Geometries, density: Density) -> Values:
    """∬ density over shapely geometries (N,) that have an area → (N,).

    `density` takes points (M, 2) to values (M,). Relative error about 1e-8 where it is smooth over the bounding box;
    NaN where it is not finite there or too rough for a series of degree 79. The number for a geometry does not depend
    on the others of the call, bit for bit.
    """
    bounds = np.asarray(shapely.bounds(geometries), dtype=np.float64)
    edges = Edges.of(geometries)
    result = np.full(len(geometries), np.nan)
    pending = np.arange(len(geometries))
    for degree in _DEGREES:
        rough: list[Index] = [pending[:0]]
        block = max(1, _NUMBERS // (degree + 1) ** 2)
        for first in range(0, len(pending), block):
            some = pending[first : first + block]
            series = _series(bounds[some], density, degree)
            tail = _next_term(series)
            done = tail <= _SETTLED
            chosen = some[done]
            result[chosen] = _around(series[done], bounds[chosen], edges.among(chosen, len(geometries)))
            rough.append(some[~done & np.isfinite(tail)])
        pending = np.concatenate(rough)
    return result


def _frame(bounds: Values) -> tuple[Points, Points]:
    """Middles and half sides (N, 2) of boxes (N, 4): the frame in which a box is [-1, 1] × [-1, 1]."""
    return (bounds[:, :2] + bounds[:, 2:]) / 2.0, (bounds[:, 2:] - bounds[:, :2]) / 2.0


def _basis(at: Values, degree: int) -> Values:
    """Legendre polynomials 0 … degree: (…,) → (…, degree + 1)."""
    return np.asarray(legvander(at, degree), dtype=np.float64)


def _gauss(points: int) -> tuple[Values, Values]:
    nodes, weights = leggauss(points)
    return np.asarray(nodes, dtype=np.float64), np.asarray(weights, dtype=np.float64)


def _series(bounds: Values, density: Density, degree: int) -> Values:
    """Legendre coefficients (N, degree + 1, degree + 1) of the density over boxes (N, 4)."""
    nodes, weights = _gauss(degree + 1)
    project = (_basis(nodes, degree) * weights[:, None]).T * (np.arange(degree + 1) + 0.5)[:, None]
    middle, half = _frame(bounds)
    x, y = (middle[:, None, :] + half[:, None, :] * nodes[None, :, None]).transpose(2, 0, 1)
    grid = np.stack(np.broadcast_arrays(x[:, :, None], y[:, None, :]), axis=-1)
    values = density(grid.reshape(-1, 2)).reshape(grid.shape[:3])
    return project @ values @ project.T


def _next_term(series: Values) -> Values:
    """About how large the terms after the last are (N,), of the mean; two are looked at, since every other may be 0."""
    degree = series.shape[1] - 1
    guesses: list[Values] = []
    with np.errstate(invalid="ignore", divide="ignore"):  # a density of 0
        for order in (degree - 1, degree):
            across, down = np.abs(series[:, order]).max(axis=1), np.abs(series[:, :, order]).max(axis=1)
            guesses.append((np.maximum(across, down) / np.abs(series[:, 0, 0])) ** ((degree + 1) / order))
    return np.maximum(guesses[0], guesses[1])


def _around(series: Values, bounds: Values, edges: Edges) -> Values:
    """The integral (N,) of each series over the polygons of its edges."""
    degree = series.shape[1] - 1
    middle, half = _frame(bounds)
    rising = edges.start[:, 1] != edges.end[:, 1]
    owner = edges.owner[rising]
    start, end = ((points[rising] - middle[owner]) / half[owner] for points in (edges.start, edges.end))
    nodes, weights = _gauss(degree + 1)
    order = 2.0 * np.arange(1, degree + 1, dtype=np.float64) + 1.0
    parts = np.zeros(len(owner))
    block = max(1, _NUMBERS // (degree + 1) ** 2)
    for first in range(0, len(owner), block):
        part = slice(first, first + block)
        along = end[part] - start[part]
        u, v = (start[part, None] + along[:, None] * (nodes[:, None] + 1.0) / 2.0).transpose(2, 0, 1)
        p = _basis(u, degree + 1)
        primitive = np.concatenate([p[..., 1:2], (p[..., 2:] - p[..., :-2]) / order], axis=-1)
        inner = ((primitive @ series[owner[part]]) * _basis(v, degree)).sum(axis=-1)
        parts[part] = (inner * weights).sum(axis=1) / 2.0 * along[:, 1]
    result = np.bincount(owner, weights=parts, minlength=len(series))
    return np.abs(result * half[:, 0] * half[:, 1])
