"""Polygons in longitude and latitude by RFC 7946: densified, counter-clockwise, cut at the antimeridian.

An edge that is straight in the image is not straight in longitude and latitude, so edges are densified before they are
transformed. Shapes that cross the antimeridian or contain a pole are unrolled, ring by ring, onto a plane of unbounded
longitude and cut there every 360 degrees, which is exact however often an edge crosses:

        -180      180      540
    ------|--------|--------|--     a ring around a pole is closed along ±90 degrees of latitude;
          |     [##|###]    |       the part right of 180 is moved back by 360

Within some 20 px of a pole an outline may be off by a few pixels, since short edges are not densified.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math

import numpy as np
import numpy.typing as npt
import shapely
from shapely import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from ..readers import geodesy
from ..readers.densify import densify_all, long_edges
from ..readers.errors import ReadError
from ..readers.geometry import Placement, Points
from ..readers.image import ImageInfo
from .measures import Numbers, Shapes, lonlat

DECIMALS = 7
"""Decimals of a degree in a GeoJSON file: 11 mm."""

_STEP_M = 500_000.0  # longer edges are densified anyway, so that none seems to run the other way around the Earth
_EARTH_M = 40_075_017.0  # around the equator
_POLE = 90.0 - 10.0**-DECIMALS


def to_wgs84(geometries: Shapes, placement: Placement) -> Shapes:
    """Polygons in level-0 pixels → valid polygons in WGS84 degrees by RFC 7946, rounded to `DECIMALS`.

    None where nothing is left: a shape smaller than the rounding, or outside the domain of the CRS. Geometries of other
    types are transformed vertex by vertex. Raises `ReadError` where the placement is not on Earth.
    """
    if not len(geometries):
        return geometries
    points, owner = shapely.get_coordinates(geometries, return_index=True)
    ground = geodesy.metres_per_pixel(placement, [axis.mean() for axis in points.T])
    if ground and max(ground) > _EARTH_M:
        raise ReadError(
            f"placement from {placement.source}",
            "must have pixels smaller than the Earth",
            value=f"{max(ground):g} m",
            remedy="Repair the file's georeference, or remove it to work in pixels",
        )
    dense = geometries.copy()
    if ground:
        step = _STEP_M / max(ground)
        long = np.unique(owner[long_edges(points, owner, step)])
        dense[long] = shapely.segmentize(geometries[long], step)
    dense = densify_all(dense, placement)

    vertices, owner = shapely.get_coordinates(dense, return_index=True)
    degrees = lonlat(placement, vertices)
    digits = np.round(np.nan_to_num(degrees), DECIMALS) + 0.0
    placed = shapely.set_coordinates(dense.copy(), digits)
    lost = np.unique(owner[np.isnan(degrees[:, 0])])
    same = digits[1:] == digits[:-1]
    repeated = owner[1:][same[:, 0] & same[:, 1]]
    # most shapes are valid and far from poles and the antimeridian; the others are looked at without rounding
    west, south, east, north = shapely.bounds(placed).T
    far = (east - west < 179.0) & (north < 89.0) & (south > -89.0) & shapely.is_valid(placed)
    far[lost] = far[repeated] = False
    others = np.flatnonzero(~far)
    shapes = shapely.orient_polygons(dense[others], exterior_cw=_mirrors(placement, points))
    shapes = shapely.set_coordinates(shapes, np.nan_to_num(lonlat(placement, shapely.get_coordinates(shapes))))
    for place in _crossing(shapes):
        shapes[int(place)] = _cut(shapes[int(place)], meridians=placement.unit == "deg")
    shapes[np.isin(others, lost)] = shapely.Polygon()
    placed[others] = _rounded(shapes)
    return shapely.orient_polygons(placed)


def footprint(info: ImageInfo) -> BaseGeometry | None:
    """The outline of an image in WGS84 degrees, as `to_wgs84`: None where that is not known."""
    width, height = info.size
    known = geodesy.on_earth(info.placement)
    outline: BaseGeometry | None = (
        to_wgs84(np.array([shapely.box(0, 0, width, height)]), info.placement)[0] if known else None
    )
    return outline


def to_crs(geometries: Shapes, placement: Placement) -> Shapes:
    """Polygons in level-0 pixels → the same in the image's own CRS, exteriors counter-clockwise.

    On images placed by ground control points edges are densified first.
    """
    if placement.warp is not None and geodesy.on_earth(placement):
        geometries = densify_all(geometries, placement)
    return shapely.orient_polygons(
        shapely.transform(geometries, lambda xy: round_world(placement.to_world(xy), placement))
    )


def round_world(values: Numbers, placement: Placement) -> Numbers:
    """World coordinates without digits below 1e-8 px, which are rounding errors and may vary; never -0."""
    rounded = np.round(values, 8 - math.floor(math.log10(pixel_side(placement))))
    rounded += 0.0
    return rounded


def pixel_side(placement: Placement) -> float:
    """The shorter side of a pixel in world units."""
    return float(np.linalg.norm(np.asarray(placement.matrix)[:, :2], axis=0).min())


def part_boxes(placed: Shapes) -> Numbers:
    """West, south, east, north (M, 4) of every polygon of shapes from `to_wgs84`."""
    return shapely.bounds(shapely.get_parts(placed[~shapely.is_missing(placed)])).reshape(-1, 4)


def merged_boxes(boxes: Numbers) -> Numbers:
    """Boxes of `part_boxes` with those that share longitudes as one, of which `bounding_box` is the same."""
    if not len(boxes):
        return boxes
    west, south, east, north = boxes[np.argsort(boxes[:, 0], kind="stable")].T
    reach = np.maximum.accumulate(east)
    starts = np.flatnonzero(np.concatenate([[True], west[1:] > reach[:-1]]))
    sides = np.minimum.reduceat(south, starts), np.maximum.reduceat(east, starts), np.maximum.reduceat(north, starts)
    return np.stack([west[starts], *sides], axis=1)


def bounding_box(boxes: Numbers) -> tuple[float, float, float, float] | None:
    """West, south, east, north around `part_boxes`; west > east where it crosses the antimeridian. None without any.

    By RFC 7946 §5.2: where parts touch the antimeridian from both sides, the box is the narrowest that holds them all.
    """
    if not len(boxes):
        return None
    west, south, east, north = boxes[:, 0].min(), boxes[:, 1].min(), boxes[:, 2].max(), boxes[:, 3].max()
    if west == -180.0 and east == 180.0:
        order = np.argsort(boxes[:, 0], kind="stable")
        reach = np.maximum.accumulate(boxes[order, 2])
        gaps = boxes[order[1:], 0] - reach[:-1]
        if len(gaps) and gaps.max() > 0:
            widest = int(gaps.argmax())
            west, east = boxes[order[widest + 1], 0], reach[widest]
    return float(west), float(south), float(east), float(north)


def _mirrors(placement: Placement, points: Points) -> bool:
    """Whether orientation is reversed between image and Earth, as it is where y points south.

    Tested at several points, since one of them may be a pole.
    """
    here = points[np.linspace(0, len(points) - 1, 9).astype(np.intp)]
    origin, right, down = (lonlat(placement, here + step) for step in ([0.0, 0.0], [1.0, 0.0], [0.0, 1.0]))
    (ax, ay), (bx, by) = ((_nearest(end - origin)).T for end in (right, down))
    return bool(np.nanmedian(np.sign(ax * by - ay * bx)) < 0)


def _nearest(degrees: Points) -> Points:
    """Differences of longitude and latitude, the short way around the Earth."""
    return degrees - [360.0, 0.0] * np.round(degrees / 360.0)


def _crossing(placed: Shapes) -> npt.NDArray[np.intp]:
    """Indices of shapes with more than 180 degrees of longitude between two vertices, or with a vertex at a pole."""
    west, south, east, north = shapely.bounds(placed).T
    wide = np.flatnonzero((east - west > 180.0) | (north > _POLE) | (south < -_POLE))  # the others need no closer look
    rings, shape = shapely.get_rings(placed[wide], return_index=True)
    degrees, ring = shapely.get_coordinates(rings, return_index=True)
    jumps = (ring[1:] == ring[:-1]) & (np.abs(np.diff(degrees[:, 0])) > 180.0)
    return np.unique(wide[shape[ring[np.flatnonzero(jumps | (np.abs(degrees[1:, 1]) > _POLE)) + 1]]])


def _cut(shape: BaseGeometry, *, meridians: bool) -> BaseGeometry:
    """A polygon whose exterior is counter-clockwise on the Earth, cut at ±180 degrees and closed over the poles.

    `meridians`: the image's columns are meridians, so that a point at a pole has a longitude, too.
    """
    if not isinstance(shape, Polygon | MultiPolygon):
        return shape
    pieces: list[BaseGeometry] = []
    for polygon in shapely.get_parts(shape):
        rings = [shapely.get_coordinates(polygon.exterior)]
        rings += [shapely.get_coordinates(ring)[::-1] for ring in polygon.interiors]
        whole, *holes = (_unrolled(ring if meridians else _around_poles(ring)) for ring in rings)
        pieces.append(_polygonal(whole.difference(shapely.union_all(holes))) if holes else whole)
    return shapely.union_all(pieces)


def _unrolled(ring: Points) -> BaseGeometry:
    """The area left of a closed ring of longitudes and latitudes, between -180 and 180 degrees."""
    turns = -np.round(np.diff(ring[:, 0]) / 360.0)
    strip = ring + [360.0, 0.0] * np.concatenate([[0.0], np.cumsum(turns)])[:, None]
    around = turns.sum()
    if around:  # once around a pole on the left: close the ring along it
        pole = math.copysign(90.0, around)
        strip = np.concatenate([strip, [[strip[-1, 0], pole], [strip[0, 0], pole], strip[0]]])
    area = _polygonal(Polygon(strip))
    first, last = (math.floor((edge + 180.0) / 360.0) for edge in (strip[:, 0].min(), strip[:, 0].max()))
    pieces: list[BaseGeometry] = []
    for turn in range(first, last + 1):
        west = 360.0 * turn - 180.0
        piece = _polygonal(area.intersection(shapely.box(west, -90.0, west + 360.0, 90.0)))
        pieces.append(shapely.transform(piece, lambda xy, west=west: xy - [west + 180.0, 0.0]))
    return shapely.union_all(pieces)


def _around_poles(ring: Points) -> Points:
    """A ring whose vertices at a pole, which have any longitude, are replaced by a path along it to the next longitude.

    With the ring's area on the left, longitude falls along that path at the north pole and rises at the south pole.
    """
    vertices = ring[:-1]
    at_pole = np.abs(vertices[:, 1]) > _POLE
    if not at_pole.any() or at_pole.all():
        return ring
    start = int(np.argmin(at_pole))
    vertices, at_pole = np.roll(vertices, -start, axis=0), np.roll(at_pole, -start)
    path: list[tuple[float, float]] = []
    for (lon, lat), polar, (after, _) in zip(vertices, at_pole, np.roll(vertices, -1, axis=0), strict=True):
        if not polar:
            path.append((lon, lat))
            continue
        before = path[-1][0]
        turn = math.copysign((math.copysign(1.0, -lat) * (after - before)) % 360.0, -lat)
        path += [(before + turn * part, math.copysign(90.0, lat)) for part in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return np.array([*path, path[0]])


def _rounded(placed: Shapes) -> Shapes:
    """Rounded to `DECIMALS` and valid, exteriors counter-clockwise; None where nothing is left."""
    rounded = shapely.transform(placed, lambda xy: np.round(xy, DECIMALS) + 0.0)
    for place in np.flatnonzero(~shapely.is_valid(rounded) | shapely.is_empty(rounded)):
        snapped = shapely.set_precision(_polygonal(placed[place]), 10.0**-DECIMALS)
        snapped = _polygonal(shapely.transform(snapped, lambda xy: np.round(xy, DECIMALS) + 0.0))
        rounded[place] = None if snapped.is_empty else snapped
    return shapely.orient_polygons(shapely.remove_repeated_points(rounded))


def _polygonal(shape: BaseGeometry) -> BaseGeometry:
    """The polygons of `shape`, valid, without lines and points."""
    if not shape.is_valid:
        shape = shapely.make_valid(shape, method="structure", keep_collapsed=False)
    if isinstance(shape, Polygon | MultiPolygon):
        return shape
    return shapely.union_all([part for part in shapely.get_parts(shape) if isinstance(part, Polygon | MultiPolygon)])
