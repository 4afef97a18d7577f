"""Exact overlay of many polygons: large ones are cut into pieces of few vertices, so that each overlap costs little."""
# shapely and numpy leave some of their arguments untyped:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely

from ...readers.remap import polygonal
from ..measures import Shapes

Index = npt.NDArray[np.intp]

MOST: Final = 256
"""Vertices of a piece at most, unless they lie closer together than `_SMALLEST`."""

_SMALLEST: Final = 1e-3  # pixels


def subdivided(shapes: Shapes) -> tuple[Shapes, Index]:
    """Polygons (N,), halved until each piece has few vertices: pieces (M,) and the index of each one's polygon."""
    parts: Any
    owner: Any
    parts, owner = shapely.get_parts(shapes, return_index=True)
    solid = shapely.area(parts) > 0
    parts, owner = parts[solid], owner[solid]
    done: list[tuple[Shapes, Index]] = []
    while len(parts):
        x0, y0, x1, y1 = shapely.bounds(parts).T
        large = (shapely.get_num_coordinates(parts) > MOST) & (np.maximum(x1 - x0, y1 - y0) > _SMALLEST)
        done.append((parts[~large], owner[~large]))
        parts, owner, x0, y0, x1, y1 = (values[large] for values in (parts, owner, x0, y0, x1, y1))
        wide = x1 - x0 > y1 - y0
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        first = shapely.box(x0, y0, np.where(wide, x, x1), np.where(wide, y1, y))
        second = shapely.box(np.where(wide, x, x0), np.where(wide, y0, y), x1, y1)
        halves = np.concatenate([shapely.intersection(parts, first), shapely.intersection(parts, second)])
        parts, index = shapely.get_parts(polygonal(halves), return_index=True)
        owner = np.concatenate([owner, owner])[index]
    pieces, owners = zip(*done, strict=True) if done else ((parts,), (owner,))
    return np.concatenate(pieces), np.concatenate(owners)


class Overlay:
    """Polygons (N,) that others are laid on."""

    def __init__(self, shapes: Shapes) -> None:
        self._parts, self._owner = subdivided(shapes)
        shapely.prepare(self._parts)
        self._tree = shapely.STRtree(self._parts)

    def pieces(self, shapes: Shapes) -> tuple[Index, Index, Shapes]:
        """What other polygons (M,) and these have in common, in pieces (P,): the indices of both, and each piece."""
        parts, owner = subdivided(shapes)
        a, b = self._tree.query(parts, predicate="intersects")
        found: Any = parts[a]
        cut = np.flatnonzero(~shapely.covers(self._parts[b], parts[a]))
        found[cut] = polygonal(shapely.intersection(parts[a[cut]], self._parts[b[cut]]))
        real = np.flatnonzero(shapely.area(found) > 0)
        return owner[a[real]], self._owner[b[real]], found[real]
