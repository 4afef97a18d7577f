"""What a page's viewer needs to place its picture: level-0 pixels, map coordinates, lengths on the ground, north.

    picture pixels ◀─affine─ level-0 pixels ─affine or polynomial─▶ the image's CRS
                                    └─cubic interpolation of a grid─▶ longitude and latitude (WGS84)

The page computes coordinates under the cursor from these. The grid's error is measured here, between its nodes, and the
grid made finer until it is below `_FINE` pixels; the page states it. Where even the finest grid is worse than
`_COARSEST` pixels, the page gives no longitude and latitude.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ...readers import geodesy
from ...readers.geometry import Placement, Points, crs_name
from ...readers.orientation import Orientation
from ..overview.scale_bar import format_length, north
from ..writer import ImageRecord

_NODES: Final = (9, 17, 33, 65)  # of a grid along each axis
_FINE: Final = 0.01  # pixels
_COARSEST: Final = 1.0
_EARTH_RADIUS: Final = 6_378_137.0  # metres
_SCALES: Final = 9  # nodes of the grid of lengths along each axis

Grid = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DirectionGrid:
    """Longitude and latitude, as directions, at the nodes of a regular grid over an image, from corner to corner.

    Directions have no seam at 180° and none at the poles, so that they can be interpolated everywhere.
    """

    nodes: Grid
    """(K, K, 3) unit vectors, rows along y: cos(lat)·cos(lon), cos(lat)·sin(lon), sin(lat); NaN off the Earth."""
    error_px: float
    """The largest error of the interpolation that was found, in level-0 pixels."""
    error_m: float

    @classmethod
    def of(cls, placement: Placement, size: tuple[int, int]) -> "DirectionGrid | None":
        """The grid of an image of `size` (width, height); None where it has no place on the Earth, or none is exact."""
        if not geodesy.on_earth(placement):
            return None
        metres = geodesy.metres_per_pixel(placement, (size[0] / 2, size[1] / 2))
        if metres is None:
            return None
        for count in _NODES:
            nodes = _directions(geodesy.lonlat_or_nan(placement, _regular(count, size))).reshape(count, count, 3)
            between = _regular(2 * count - 1, size)
            exact = _directions(geodesy.lonlat_or_nan(placement, between))
            found = interpolated(nodes, between / size)
            found /= np.linalg.norm(found, axis=1, keepdims=True)
            off = np.linalg.norm(found - exact, axis=1) * _EARTH_RADIUS
            if not np.isfinite(off).any():
                return None
            worst = float(np.nanmax(off))
            pixels = worst / min(metres)
            if pixels <= _FINE or (count == _NODES[-1] and pixels <= _COARSEST):
                return cls(nodes, pixels, worst)
        return None


def _directions(lonlat: Points) -> Grid:
    """Longitude and latitude (N, 2) in degrees → unit vectors (N, 3)."""
    lon, lat = np.radians(lonlat).T
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def interpolated(nodes: Grid, places: Points) -> Points:
    """Values (N, C) of a grid (K, K, C) at `places` (N, 2) from 0 to 1 along x and y, by cubics through four nodes."""
    last = len(nodes) - 1
    position = np.clip(places, 0.0, 1.0) * last
    first = np.clip(np.floor(position).astype(np.intp) - 1, 0, last - 3)
    weights = _lagrange(position - first)
    result = np.zeros((len(places), nodes.shape[2]))
    for row in range(4):
        for column in range(4):
            weight = weights[:, 1, row] * weights[:, 0, column]
            result += weight[:, None] * nodes[first[:, 1] + row, first[:, 0] + column]
    return result


def _lagrange(t: Points) -> Grid:
    """Weights (N, 2, 4) of nodes at 0, 1, 2 and 3 for a cubic at `t` (N, 2)."""
    a, b, c, d = t, t - 1.0, t - 2.0, t - 3.0
    return np.stack([-b * c * d / 6.0, a * c * d / 2.0, -a * b * d / 2.0, a * b * c / 6.0], axis=2)


def _regular(count: int, size: tuple[int, int]) -> Points:
    """(count², 2) level-0 points from corner to corner, row by row."""
    x, y = (np.linspace(0.0, side, count) for side in size)
    return np.stack(np.meshgrid(x, y), axis=2).reshape(-1, 2)


def placing(
    image: ImageRecord, turned: Orientation, shown: tuple[int, int]
) -> tuple[dict[str, object], dict[str, Grid]]:
    """How a picture of `shown` (width, height) px, `turned` from the image's, lies: values, and arrays by name."""
    info = image.info
    grid = DirectionGrid.of(info.placement, info.size) if info.kind == "map" else None
    vectors = geodesy.tangents(info.placement, _regular(_SCALES, info.size))
    header: dict[str, object] = {
        "size": list(info.size),
        "kind": info.kind,
        "picture": list(shown),
        "affine": _to_picture(info.size, turned, shown),
        "world": _world(info.placement) if info.kind == "map" else None,
        "north": _rounded(north(info.placement, info.size, turned) if info.kind == "map" else None),
        "accuracy": "",
    }
    arrays: dict[str, Grid] = {}
    if vectors is not None:
        arrays["lengths"] = np.linalg.norm(vectors, axis=2).ravel()
    if grid is not None:
        arrays["directions"] = grid.nodes.ravel()
        header["accuracy"] = f"{max(grid.error_px, 1e-4):.1g} px, {format_length(max(grid.error_m, 1e-3))}"
    return header, arrays


def _to_picture(size: tuple[int, int], turned: Orientation, shown: tuple[int, int]) -> list[float]:
    """The affine map (a, b, c, d, e, f) from level-0 pixels to the picture's: a·x + b·y + c and d·x + e·y + f."""
    corners = turned.to_upright(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), size)
    scale = np.array(shown) / turned.swap(size)
    origin, x, y = corners * scale
    return [float(value) for axis in (0, 1) for value in (x[axis] - origin[axis], y[axis] - origin[axis], origin[axis])]


def _world(placement: Placement) -> dict[str, object] | None:
    """The map from level-0 pixels to the image's CRS; None where there is none."""
    if not placement.has_unit or len(placement.matrix) != 2:
        return None
    world: dict[str, object] = {
        "matrix": [list(row) for row in placement.matrix],
        "unit": placement.unit,
        "crs": crs_name(placement.crs),
    }
    if placement.warp is not None:
        warp = placement.warp
        world["warp"] = {
            "terms": [list(term) for term in warp.terms],
            "x": list(warp.x_coefficients),
            "y": list(warp.y_coefficients),
            "centre": list(warp.centre),
            "scale": warp.scale,
        }
    return world


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3) + 0.0
