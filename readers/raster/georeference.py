"""From what a raster says about its place to a `Placement`: a geotransform or control points. No format library."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import ReadError
from ..geometry import Placement, Points, Polynomial, Unit

FIRST_ORDER = ((0, 0), (1, 0), (0, 1))
SECOND_ORDER = (*FIRST_ORDER, (2, 0), (1, 1), (0, 2))
MANY = 6  # control points from which GDAL's default fits a second-order polynomial
HALF_TURN = 180.0
FAR = 1e15  # units of a map beyond which nothing lies, and below whose inverse no pixel is
# a CRS may name files of its shifts: by a plain name they are PROJ's own, by a path anything on this machine
_NAMES_A_FILE = re.compile(r"PARAMETERFILE|PROJ4_GRIDS|(?:grids|file|model|init)\s*=", re.IGNORECASE)
_NAMES_A_GRID = re.compile(
    r"""PARAMETERFILE\s*[\[(]\s*"[^"]*"\s*,\s*"[\w@.,:-]*"|PROJ4_GRIDS"\s*,\s*"[\w@.,:-]*"|"""
    r"""(?:grids|file|model|init)\s*=\s*[\w@.,:-]*(?=[\s"]|$)""",
    re.IGNORECASE,
)
HOW_TO_STATE_A_CRS = "where you know it, state it with --crs, such as --crs EPSG:32618"


@dataclass(frozen=True, slots=True)
class Crs:
    """A map's coordinate system: WKT, and the unit of its axes ("crs" where it is neither the metre nor the degree)."""

    wkt: str
    unit: Unit
    name: str


@dataclass(frozen=True, slots=True)
class ControlPoint:
    """A ground control point: level-0 pixel (corners) ↔ world (x = east or longitude, y = north or latitude)."""

    pixel: tuple[float, float]
    world: tuple[float, float]


def leads_to_files(crs: str) -> bool:
    """Whether a coordinate system, as WKT or for PROJ, names a file by a path: PROJ would open it."""
    return len(_NAMES_A_FILE.findall(crs)) != len(_NAMES_A_GRID.findall(crs))


def affine_placement(matrix: tuple[tuple[float, float, float], ...], crs: Crs | None) -> tuple[Placement, list[str]]:
    """The placement of a geotransform, and notes. Without a CRS its axes have the unit "crs", which is not known yet.

    Raises `ReadError` where its numbers are not finite or do not span a plane.
    """
    _finite("geotransform", [number for row in matrix for number in row])
    sides = [math.hypot(matrix[0][axis], matrix[1][axis]) for axis in (0, 1)]
    if min(sides) < 1 / FAR:
        raise ReadError(
            "geotransform",
            f"a pixel must have sides above {1 / FAR:g}",
            value=" × ".join(map(str, sides)),
            remedy="Repair the file's georeference, or remove it to work in pixels",
        )
    unit, wkt = ("crs", None) if crs is None else (crs.unit, crs.wkt)
    return Placement(matrix, unit, wkt, source="geotransform"), []


def control_placement(points: Sequence[ControlPoint], crs: Crs | None) -> tuple[Placement, list[str]]:
    """The placement of control points, and notes: a least-squares polynomial of the order that GDAL takes by default.

    Second order from six points on, else first. Longitudes that jump at the antimeridian are unwrapped to 0…360. Raises
    `ReadError` where the points are not finite or do not span a plane.
    """
    notes: list[str] = []
    _finite("control points", [number for point in points for number in (*point.pixel, *point.world)])
    pixel = np.array([point.pixel for point in points], dtype=np.float64)
    world = np.array([point.world for point in points], dtype=np.float64)
    if crs is not None and crs.unit == "deg" and float(np.ptp(world[:, 0])) > HALF_TURN:
        world[:, 0] = np.where(world[:, 0] < 0, world[:, 0] + 2 * HALF_TURN, world[:, 0])
        notes.append("The control points lie on both sides of the antimeridian; longitudes run on beyond 180 degrees.")
    plane = _fit(pixel, world, FIRST_ORDER)
    warp = plane if len(points) < MANY else _fit(pixel, world, SECOND_ORDER)
    slope = plane.jacobian(np.zeros((1, 2)))[0]
    origin = plane(np.zeros((1, 2)))[0]
    matrix = tuple((float(slope[i, 0]), float(slope[i, 1]), float(origin[i])) for i in range(2))
    miss = np.linalg.solve(warp.jacobian(pixel), (warp(pixel) - world)[:, :, None])[:, :, 0]
    warp = replace(warp, residual_px=float(np.sqrt((miss**2).sum(axis=1).mean())))
    unit, wkt = ("crs", None) if crs is None else (crs.unit, crs.wkt)
    placement = Placement(matrix, unit, wkt, source=f"{len(points)} control points", warp=warp)
    return placement, [*notes, *([] if crs is None else polynomial_note(placement))]


def polynomial_note(placement: Placement) -> list[str]:
    """What control points are worth; nothing of other placements."""
    if placement.warp is None:
        return []
    order = "first" if placement.warp.terms == FIRST_ORDER else "second"
    miss = f"{placement.warp.residual_px:.3g} px (root mean square)"
    return [f"Placed by a {order}-order polynomial through {placement.source}, which it meets within {miss}."]


def _finite(subject: str, numbers: Sequence[float]) -> None:
    odd = [number for number in numbers if not abs(number) < FAR]
    if odd:
        raise ReadError(
            subject,
            f"all its numbers must be finite, and below {FAR:g}",
            value=", ".join(map(str, odd[:3])),
            remedy="Repair the file's georeference, or remove it to work in pixels",
        )


def _fit(pixel: Points, world: Points, terms: tuple[tuple[int, int], ...]) -> Polynomial:
    centre = (pixel.min(axis=0) + pixel.max(axis=0)) / 2
    scale = float(np.ptp(pixel, axis=0).max()) / 2 or 1.0
    u = (pixel - centre) / scale
    basis = np.stack([u[:, 0] ** p * u[:, 1] ** q for p, q in terms], axis=1)
    middle = world.mean(axis=0)
    rank = int(np.linalg.matrix_rank(basis))
    if rank < len(terms):
        raise ReadError(
            "control points",
            f"a polynomial of {len(terms)} terms needs as many points that do not lie on a line or a conic",
            value=f"{len(pixel)} points of rank {rank}",
            remedy="Give the file more control points, or remove them to work in pixels",
        )
    solution = np.asarray(np.linalg.lstsq(basis, world - middle, rcond=None)[0], dtype=np.float64)
    solution[0] += middle
    x, y = (tuple(map(float, column)) for column in solution.T)
    return Polynomial(terms, x, y, (float(centre[0]), float(centre[1])), scale, 0.0)
