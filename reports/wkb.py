"""Outlines of findings in the image's own CRS as WKB, of the coordinates of all vertices at once."""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import struct

import numpy as np
import numpy.typing as npt
import shapely

from ..model.findings_table import objects
from ..readers.geometry import Placement
from .measures import FindingsBatch, Numbers, Shapes
from .rfc7946 import pixel_side, round_world, to_crs

_AT_ONCE = 2000  # findings, whose vertices stay in the cache of a core
_POLYGON = 3  # shapely's type number
_HEAD = struct.pack("<BII", 1, _POLYGON, 1)  # little-endian, a polygon, of one ring
_CORNER = 1e-6  # px²: with a smaller triangle there, it is left to GEOS which way a ring turns


def batch_to_wkb(batch: FindingsBatch) -> npt.NDArray[np.object_]:
    """`to_crs` of a batch's findings as little-endian WKB, for all reports that need it."""
    if batch_to_wkb not in batch.shared:
        placement, boxes = batch.image.info.placement, batch_boxes(batch)
        if placement.warp is None:
            spans = [slice(start, start + _AT_ONCE) for start in range(0, max(1, len(batch)), _AT_ONCE)]
            made = [_wkb(batch.geometries[span], boxes[span], placement) for span in spans]
        else:
            made = [objects(shapely.to_wkb(_placed(batch), byte_order=1))]
        batch.shared[batch_to_wkb] = np.concatenate(made)
    return batch.shared[batch_to_wkb]


def batch_boxes(batch: FindingsBatch) -> Numbers:
    """Bounding boxes (N, 4) of the same outlines: least x and y, most x and y; NaN of an empty one."""
    placement = batch.image.info.placement
    if placement.warp is not None:
        return shapely.bounds(_placed(batch)).reshape(-1, 4)
    return round_world(batch.vertex_bounds, placement)


def _placed(batch: FindingsBatch) -> Shapes:
    if to_crs not in batch.shared:
        batch.shared[to_crs] = to_crs(batch.geometries, batch.image.info.placement)
    return batch.shared[to_crs]


def _wkb(shapes: Shapes, boxes: Numbers, placement: Placement) -> Shapes:
    """`to_crs` of shapes as WKB, of which the boxes (N, 4) are known."""
    xy, counts = shapely.get_coordinates(shapes), shapely.get_num_coordinates(shapes)
    xy, ends = round_world(placement.to_world(xy), placement), np.cumsum(counts)
    rings = (shapely.get_type_id(shapes) == _POLYGON) & (counts > 0) & (shapely.get_num_interior_rings(shapes) == 0)
    rows = np.flatnonzero(rings)
    # most are counter-clockwise already: they turn left at a corner that lies on their bounding box
    first, after, before = xy[ends[rows] - counts[rows]], xy[ends[rows] - counts[rows] + 1], xy[ends[rows] - 2]
    (ax, ay), (bx, by) = (after - first).T, (before - first).T
    outside = ((first == boxes[rows, :2]) | (first == boxes[rows, 2:])).any(axis=1)
    rows = rows[outside & (ax * by - ay * bx > _CORNER * pixel_side(placement) ** 2)]
    # before the vertices of each, of 16 bytes, comes one whose last bytes are what WKB begins with
    heads = ends - counts + np.arange(len(shapes))
    head = np.zeros((len(shapes), 16), dtype=np.uint8)
    head[:, 3:12] = np.frombuffer(_HEAD, np.uint8)
    head[:, 12:] = counts.astype("<u4").view(np.uint8).reshape(-1, 4)
    whole, is_vertex = np.empty(len(xy) + len(shapes), dtype=np.complex128), np.ones(len(xy) + len(shapes), np.bool_)
    is_vertex[heads] = False
    whole[is_vertex], whole[heads] = xy.view(np.complex128)[:, 0], head.view(np.complex128)[:, 0]
    content = whole.tobytes()
    starts, stops = 16 * heads[rows] + 3, 16 * (heads + counts + 1)[rows]
    made, others = np.empty(len(shapes), dtype=object), np.ones(len(shapes), dtype=np.bool_)
    made[rows] = [content[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
    others[rows] = False
    made[others] = shapely.to_wkb(to_crs(shapes[others], placement), byte_order=1)
    return made
