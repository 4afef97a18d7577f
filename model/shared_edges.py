"""The rings round areas, once edges that two areas share are gone.

Only edges that come near to another area are looked at, and rings without any stay as they are:

      ┌─────┐┌──┐        ┌────────┐      Edges run one way round an area, and the other way round a hole, or an area
      │  A  ↑↓ B│  ───▶  │        │      that is cut out of another. Two that run both ways cancel each other, and what
      └─────┘└──┘        └────────┘      is left of the rings is linked where they ended. Where two ends meet two
                                         beginnings, rings are linked so that none touches itself.
"""
# shapely leaves its functions' **kwargs and what it makes of coordinates untyped:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import shapely

from .findings_table import Flags, Floats, Objects
from .sorting import connected_pairs

Index = npt.NDArray[np.int64]

_POLYGON: Final = 3  # shapely's type number
_RUN: Final = 64  # edges whose bounds are compared with those of other areas at a time
_BOXES: Final = 1 << 16  # that are looked for at a time
_FACTORS: Final = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], dtype=np.uint64)  # odd, of mixed bits


@dataclass(frozen=True, slots=True)
class Rings:
    """The rings of polygons whose edges run along the axes."""

    xy: Floats
    """(V, 2); each ring ends with its first vertex."""
    ends: Index
    """(R + 1,): where each ring begins, and the last one ends."""
    polygon: Index
    """(R,): that of each ring."""

    @classmethod
    def of(cls, polygons: Objects) -> Self | None:
        """The rings of polygons (N,), of each the outer one first; None where some edge runs along no axis."""
        if not len(polygons) or (shapely.get_type_id(polygons) != _POLYGON).any() or shapely.is_empty(polygons).any():
            return None
        _, xy, (ends, parts) = shapely.to_ragged_array(polygons, include_z=False)
        along = (xy[1:, 0] != xy[:-1, 0]) ^ (xy[1:, 1] != xy[:-1, 1])
        along[ends[1:-1] - 1] = True  # from one ring to the next
        owner = np.repeat(np.arange(len(polygons)), np.diff(parts))
        return cls(xy, ends.astype(np.int64), owner) if along.all() else None

    def assembled(self, part: Index, shell: Flags, chosen: Flags | None = None) -> Objects:
        """The polygons of these parts (R,), of which each has one ring that is its `shell`; the others are holes.

        Holes that are not `chosen` (R,) are left out.
        """
        order = np.lexsort((~shell, part))
        order = order if chosen is None else order[chosen[order]]
        length = np.diff(self.ends)[order]
        xy = self.xy[_ranges(self.ends[:-1][order], length)]
        starts = np.append(np.flatnonzero(shell[order]), len(order))
        return shapely.from_ragged_array(shapely.GeometryType.POLYGON, *turning(xy, _offsets(length), starts))

    def nested(self, shell: Flags) -> Index | None:
        """(R,): for each ring the shell that it is, or in which it is a hole; None where one is in none."""
        shells, holes = np.flatnonzero(shell), np.flatnonzero(~shell)
        low, high = (way.reduceat(self.xy, self.ends[:-1]) for way in (np.minimum, np.maximum))
        boxes: Any = shapely.box(*low.T, *high.T)
        shells = shells[np.argsort(np.abs(_areas(self.xy, self.ends))[shells], kind="stable")]
        hole, of = shapely.STRtree(boxes[shells]).query(boxes[holes], predicate="covered_by")
        part = np.full(len(shell), -1)
        part[shells] = np.arange(len(shells))
        np.maximum.at(part, holes[hole], of)  # the largest, or a smaller one that has it
        unsure = np.flatnonzero(of < part[holes[hole]])
        if len(unsure):
            which, place = np.unique(np.stack([shells[of[unsure]], holes[hole[unsure]]]), return_inverse=True)
            length = np.diff(self.ends)[which]
            xy = self.xy[_ranges(self.ends[which], length)]
            solid: Any = shapely.polygons(shapely.linearrings(xy, indices=np.repeat(np.arange(len(which)), length)))
            outer, inner = solid[place.reshape(2, -1)]
            shapely.prepare(outer)
            within = unsure[shapely.contains(outer, inner)]
            np.minimum.at(part, holes[hole[within]], of[within])
        return part if (part >= 0).all() else None

    def uncovered(self, removed: Flags) -> "Uncovered | None":
        """The rings round all polygons but those that are `removed` (N,), which are cut out of the others.

        None where polygons overlap in a way that is noticed here.
        """
        near, touched = self._near()
        if removed.any():
            near |= self._meeting(touched)
            touched |= np.logical_or.reduceat(near, self.ends[:-1])
        outer = (np.diff(self.polygon, prepend=-1) != 0) != removed[self.polygon]
        length, old = np.diff(self.ends), np.flatnonzero(touched)
        turned = ((_areas(self.xy, self.ends) > 0) != outer)[old]
        take = _ranges(np.where(turned, self.ends[old + 1] - 1, self.ends[old]), length[old], np.where(turned, -1, 1))
        points, near = self.xy[take], near[np.minimum(take[:-1], take[1:])]
        del take
        made = _linked(points, _offsets(length[old]), near)
        del points, near
        if made is None:
            return None
        xy, ends, ring, shared = made
        rings = Rings(
            np.concatenate([xy, self.xy[np.repeat(~touched, length)]]),
            _offsets(np.concatenate([np.diff(ends), length[~touched]])),
            np.concatenate([self.polygon[old[ring]], self.polygon[~touched]]),
        )
        shell = np.concatenate([_areas(xy, ends) > 0, outer[~touched]])
        pairs = self.polygon[old[shared[0]]], self.polygon[old[shared[1]]]
        return Uncovered(rings, shell, np.arange(len(shell)) < len(ring), pairs)

    def _near(self) -> tuple[Flags, Flags]:
        """Which edges (V,), by their first vertex, and which rings (R,) come near to another polygon, by bounds."""
        edges = np.diff(self.ends) - 1
        runs = -(-edges // _RUN)
        start = _ranges(self.ends[:-1], runs, _RUN)
        ring = np.repeat(np.arange(len(edges)), runs)
        last = self.xy[np.minimum(start + _RUN, self.ends[ring + 1] - 1)]
        low = np.minimum(np.minimum.reduceat(self.xy, start), last)
        high = np.maximum(np.maximum.reduceat(self.xy, start), last)
        rings = _offsets(runs)[:-1]
        of_rings = np.minimum.reduceat(low, rings), np.maximum.reduceat(high, rings)
        first = np.flatnonzero(np.diff(self.polygon, prepend=-1))
        tree = shapely.STRtree(shapely.box(*of_rings[0][first].T, *of_rings[1][first].T))
        near = _reaching(tree, low, high, self.polygon[ring])
        return np.repeat(near, np.diff(start, append=len(self.xy))), _reaching(tree, *of_rings, self.polygon)

    def _meeting(self, touched: Flags) -> Flags:
        """(V,): which edges begin where two rings meet, by which an area may hang together once some are `touched`.

        Rings of a valid polygon that meet are a tree: there is no way round by them that would cut something off. Once
        rings that are touched count as one there may be, and what lies on no such way is taken away from its ends.
        """
        x, y = (np.ascontiguousarray(axis).view(np.uint64) for axis in self.xy.T)
        place = (x ^ (x >> np.uint64(32))) * _FACTORS[0]  # the lower bits of whole numbers are all 0
        place ^= (y ^ (y >> np.uint64(32))) * _FACTORS[1]
        place[self.ends[1:] - 1] = np.arange(len(self.polygon))  # a ring ends where it begins
        del x, y
        order = np.argsort(place)
        place = place[order]
        same = np.flatnonzero(place[1:] == place[:-1])
        at = np.unique(np.concatenate([same, same + 1]))
        vertex, spot = order[at], np.cumsum(np.diff(place[at], prepend=place[:1]) != 0)
        del order, place
        ring = np.searchsorted(self.ends, vertex, side="right") - 1
        ends = np.stack([np.where(touched[ring], 0, ring + 1), spot + len(touched) + 1])
        while len(vertex):
            way = (np.bincount(ends.ravel())[ends] > 1).all(axis=0)
            if way.all():
                break
            vertex, ends = vertex[way], ends[:, way]
        found = np.zeros(len(self.xy), dtype=np.bool_)
        found[vertex] = True
        return found


@dataclass(frozen=True, slots=True)
class Uncovered:
    """What is left of the rings of some polygons."""

    rings: Rings
    """In no order; their polygons are those that they were part of."""
    shell: Flags
    """(R,): which go round an area, and not round a hole."""
    changed: Flags
    """(R,): which came near to another polygon; others are as they were."""
    shared: tuple[Index, Index]
    """Pairs of polygons that shared an edge."""


def _reaching(tree: shapely.STRtree, low: Floats, high: Floats, polygon: Index) -> Flags:
    """(N,): which boxes, each part of a polygon, touch that of another one in the tree."""
    found = np.zeros(len(low), dtype=np.bool_)
    for begin in range(0, len(low), _BOXES):
        here = slice(begin, begin + _BOXES)
        box, other = tree.query(shapely.box(*low[here].T, *high[here].T))
        found[begin + box[other != polygon[begin + box]]] = True
    return found


def _linked(points: Floats, ends: Index, near: Flags) -> tuple[Floats, Index, Index, tuple[Index, Index]] | None:
    """Closed rings (V, 2) once edges that run both ways are gone; only those that are `near` (V - 1,) are looked at.

    Returned are the new rings, where each begins and the last one ends, an old ring that each is made of, and the pairs
    of old rings that shared an edge. None where an edge is there twice, or rings cross.
    """
    near[ends[1:-1] - 1] = False  # from one ring to the next
    marked = np.zeros(len(points), dtype=np.bool_)
    marked[:-1] |= near
    marked[1:] |= near
    marked[ends[:-1]] |= marked[ends[1:] - 1]
    nodes = _Nodes.of(points, marked)
    edges = _Edges.of(ends, len(points), *nodes.within(np.flatnonzero(near)))
    out = np.flatnonzero(marked[edges.vertex])  # edges that begin at a node, and those that end there
    into, node = edges.before(out), nodes.number[nodes.slot[edges.vertex[out]]]
    target = np.full(len(edges.vertex), -1)
    target[into] = node
    both = np.flatnonzero(target[out] >= 0)
    a, b = node[both], target[out[both]]
    key, reverse = a * nodes.count + b, b * nodes.count + a
    ordered = np.sort(key)
    if (ordered[1:] == ordered[:-1]).any():
        return None
    _, one, two = np.intersect1d(key[a < b], reverse[a > b], assume_unique=True, return_indices=True)
    one, two = out[both[a < b][one]], out[both[a > b][two]]
    kept = np.ones(len(edges.vertex), dtype=np.bool_)
    kept[one] = kept[two] = False
    degree = np.bincount(node[kept[out]], minlength=nodes.count)
    joint = degree > 1
    joint[node[~kept[out]]] = joint[target[np.concatenate([one, two])]] = True
    # where rings ended, or meet: edges that end at a joint, beside those that begin there
    leaving, arriving = (np.flatnonzero(joint[node] & kept[of]) for of in (out, into))
    leaving, arriving = (at[np.argsort(node[at], kind="stable")] for at in (leaving, arriving))
    if degree.max(initial=0) > 2 or not np.array_equal(node[leaving], node[arriving]):
        return None
    twice = np.flatnonzero(np.diff(node[leaving], append=-1) == 0)
    made = _chained(points, edges, kept, out[leaving], into[arriving], twice)
    return None if made is None else (*made, (edges.ring_of(one), edges.ring_of(two)))


def _chained(
    points: Floats, edges: "_Edges", kept: Flags, leaving: Index, arriving: Index, twice: Index
) -> tuple[Floats, Index, Index] | None:
    """The closed rings of edges that are kept, where each begins and the last one ends, and an old ring of each.

    An edge of those that are `arriving` at a joint goes on with the one beside it that is `leaving`, but at the joints
    with a pair of each, the first of which are at the places `twice`. None where rings cross there.
    """
    head = edges.first & kept
    head[leaving] = True
    heads, every = np.flatnonzero(head), np.flatnonzero(kept)  # of chains of edges from joint to joint, or whole rings
    begins = np.append(np.searchsorted(every, heads), len(every))

    def chain_of(of: Index) -> Index:
        return np.searchsorted(heads, of, side="right") - 1

    following = chain_of(edges.start[edges.ring_of(every[begins[1:] - 1])])
    came, goes, at = chain_of(arriving), chain_of(leaving), points[edges.vertex[leaving[twice]]]
    one = at - points[edges.vertex[arriving[twice]]]
    two = points[edges.vertex[edges.after(leaving[twice])]] - at
    turn = one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]
    if (turn == 0).any():
        return None
    # a ring turns to what is inside of it; but where it comes by twice, that is round a hole which touches it there
    right = twice[turn < 0]
    goes[right], goes[right + 1] = goes[right + 1], goes[right]
    following[came] = goes
    number = connected_pairs(len(heads), np.arange(len(heads)), following)
    again = came[twice[number[came[twice]] == number[came[twice + 1]]]]
    other = came[twice[number[came[twice]] == number[came[twice + 1]]] + 1]
    following[again], following[other] = following[other], following[again]
    order, rings = _cycles(following.tolist())
    lengths = np.diff(begins)[order]
    offsets = _offsets(np.add.reduceat(lengths, rings) + 1 if len(rings) else rings)
    closing = np.zeros(offsets[-1], dtype=np.bool_)
    closing[offsets[1:] - 1] = True
    xy = np.empty((len(closing), 2))
    xy[~closing] = points[edges.vertex[every[_ranges(begins[order], lengths)]]]
    xy[closing] = xy[offsets[:-1]]
    return xy, offsets, edges.ring_of(heads[order[rings]])


@dataclass(frozen=True, slots=True)
class _Nodes:
    """Places of some vertices."""

    vertex: Index
    """(N,): the vertices."""
    slot: Index
    """(V,): the place of each vertex among them, if it is one."""
    number: Index
    """(N,): the node of each."""
    count: int
    code: Index
    """(N, 2): the rank of its x and of its y."""

    @classmethod
    def of(cls, points: Floats, marked: Flags) -> Self:
        """The nodes of the marked ones of points (V, 2)."""
        vertex = np.flatnonzero(marked)
        code = np.stack([np.unique(axis, return_inverse=True)[1] for axis in points[vertex].T], axis=1).astype(np.int64)
        keys, number = np.unique(code[:, 0] * (len(vertex) + 1) + code[:, 1], return_inverse=True)
        return cls(vertex, np.cumsum(marked) - 1, number, len(keys), code)

    def within(self, edge: Index) -> tuple[Index, Index]:
        """The edges, by their first vertex, on which vertices lie, and these, in the order of each edge."""
        first: list[Index] = []
        found: list[Index] = []
        a, b = self.code[self.slot[edge]], self.code[self.slot[edge + 1]]
        size = len(self.code) + 1
        for axis in (0, 1):
            keys, vertex = np.unique(self.code[:, axis] * size + self.code[:, 1 - axis], return_index=True)
            along = np.flatnonzero(a[:, axis] == b[:, axis])
            row, begin, end = a[along, axis] * size, a[along, 1 - axis], b[along, 1 - axis]
            low = np.searchsorted(keys, row + np.minimum(begin, end), side="right")
            count = np.searchsorted(keys, row + np.maximum(begin, end), side="left") - low
            back = begin > end
            place = _ranges(np.where(back, low + count - 1, low), count, np.where(back, -1, 1))
            first.append(np.repeat(edge[along], count))
            found.append(self.vertex[vertex[place]])
        return np.concatenate(first), np.concatenate(found)


@dataclass(frozen=True, slots=True)
class _Edges:
    """The edges of rings in order, of those that are divided each part."""

    vertex: Index
    """(E,): where each begins."""
    first: Flags
    """(E,): whether it is the first of its ring."""
    start: Index
    """(R,): the first of each ring."""

    @classmethod
    def of(cls, ends: Index, count: int, divided: Index, at: Index) -> Self:
        """The edges of closed rings of so many vertices, once some are divided at vertices."""
        first = np.zeros(count, dtype=np.bool_)
        first[ends[:-1]] = True
        vertex = np.delete(np.arange(count), ends[1:] - 1)
        place = np.searchsorted(vertex, divided) + 1
        first = np.insert(first[vertex], place, values=False)
        return cls(np.insert(vertex, place, at), first, np.flatnonzero(first))

    def ring_of(self, edges: Index) -> Index:
        return np.searchsorted(self.start, edges, side="right") - 1

    def after(self, edges: Index) -> Index:
        stops = np.append(self.start[1:], len(self.vertex))[self.ring_of(edges)]
        return np.where(edges + 1 == stops, self.start[self.ring_of(edges)], edges + 1)

    def before(self, edges: Index) -> Index:
        stops = np.append(self.start[1:], len(self.vertex))[self.ring_of(edges)]
        return np.where(self.first[edges], stops, edges) - 1


def turning(xy: Floats, ends: Index, *others: Index) -> tuple[Floats, tuple[Index, ...]]:
    """Closed rings without vertices on straight edges along an axis: coordinates and offsets of a ragged array."""
    stay = np.zeros(len(xy), dtype=np.bool_)
    for axis in (0, 1):
        level = np.empty(len(xy), dtype=np.bool_)  # whether the edge that begins here does not change
        level[:-1] = xy[1:, axis] == xy[:-1, axis]
        level[ends[1:] - 1] = level[ends[:-1]]
        before = np.empty_like(level)
        before[1:] = level[:-1]
        before[ends[:-1]] = level[ends[1:] - 2]
        stay |= level & before
    np.logical_not(stay, out=stay)
    length = np.add.reduceat(stay, ends[:-1], dtype=np.int64)
    made, offsets = xy[stay], _offsets(length)
    moved = np.flatnonzero(~stay[ends[:-1]])
    if len(moved):  # rings that began on a straight edge have to be closed again
        made = np.insert(made, offsets[moved + 1], made[offsets[moved]], axis=0)
        length[moved] += 1
    return made, (_offsets(length), *others)


def _cycles(following: list[int]) -> tuple[Index, Index]:
    """The members of a permutation cycle by cycle, and where each cycle begins among them."""
    order: list[int] = []
    starts: list[int] = []
    seen = [False] * len(following)
    for one in range(len(following)):
        if not seen[one]:
            starts.append(len(order))
        here = one
        while not seen[here]:
            seen[here] = True
            order.append(here)
            here = following[here]
    return np.array(order, dtype=np.int64), np.array(starts, dtype=np.int64)


def _areas(xy: Floats, ends: Index) -> Floats:
    """The signed areas (R,) of closed rings whose edges run along the axes."""
    if not len(xy):
        return np.empty(0)
    strips = np.diff(xy[:, 1])
    strips *= xy[:-1, 0]
    strips[ends[1:-1] - 1] = 0.0
    return np.add.reduceat(strips, ends[:-1])


def _ranges(start: Index, length: Index, step: Index | int = 1) -> Index:
    """Numbers from each start on, so many, one range after the other."""
    found = np.arange(int(length.sum()), dtype=np.int64)
    found -= np.repeat(np.cumsum(length) - length, length)
    found *= step if isinstance(step, int) else np.repeat(step, length)
    found += np.repeat(start, length)
    return found


def _offsets(length: Index) -> Index:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(length, dtype=np.int64)])
