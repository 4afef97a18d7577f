"""Merge findings across the borders of regions and tiles, as if the picture had been analysed in one piece.

Areas: regions cut a class map along their cores, and the pieces share an edge. Boxes: tiles overlap, so most objects
are whole in one tile, and near its borders other tiles have them again, whole or cut:

       tile A                 The boxes a and b are compared only within the common window of
      ┌───────────┬────┐      both tiles (marked #): there, a whole object and its pieces show
      │       ┌───┼─┐b │      the same part. a is cut at A's right border; b crosses that border
      │      a│###│ │  │      and holds the same part of the object: they are one object, and
      │       └───┼─┘  │      its box is b, which no border cuts.
      └───────────┴────┘
              tile B
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from ..readers.image import ImageInfo
from .coverage import union_parts
from .detections import Boxes, box_areas, intersect_boxes
from .finding import Finding
from .findings_table import Chunk, FindingsTable, Floats
from .merged_findings import Arranger, MergedFindings, in_normal_form
from .sorting import DOWNWARD, SortedRecords, neighbours

SAME = 0.5  # the least intersection over union, in the common window, of two boxes of one object
CUT_MARGIN = 0.01  # of a window's side: a box that ends nearer to the window's border counts as cut there
SIDES = ("left", "top", "right", "bottom")

Flags = npt.NDArray[np.bool_]


def merge_across_regions(
    findings: Iterable[Finding], info: ImageInfo | None = None, roi: BaseGeometry | None = None
) -> list[Finding]:
    """Merge one image's findings, as `merge_chunks`."""
    return list(merge_chunks([FindingsTable.of(findings)], info, roi))


def merge_chunks(
    chunks: Sequence[Chunk],
    info: ImageInfo | None = None,
    roi: BaseGeometry | None = None,
    keep: Callable[[FindingsTable], Chunk] = lambda table: table.encoded,
) -> MergedFindings:
    """Merge one image's areas and boxes across region borders; sort all findings by label, plane and place.

    Areas with `cut` are merged with neighbours of the same plane, label, text and notes that share an edge; those that
    only touch at a corner stay apart, as 4-connected polygons do. The merged score is the mean weighted by "pixels" (by
    area without them), and numbers are added. All areas come out in a normal form: vertices only where the outline
    turns, one canonical order, a rounded score, `cut` false. Boxes are merged by `merge_detections`, which needs `info`
    for the picture's borders, and kept where their centre lies in the `roi` (level-0 pixels). Other findings are
    unchanged. The result depends neither on the order of the input nor, for areas, on how the picture was cut.

    Every chunk is read once here. In memory remain a few bytes of each finding, pieces that may still touch the next
    ones, which come from the top of the image to its bottom, and what `keep` keeps of merged findings.
    """
    with Arranger() as result, SortedRecords(DOWNWARD) as pieces, SortedRecords(DOWNWARD) as boxes:
        for chunk in chunks:
            table, records = result.read(chunk)
            piece = table.is_area & table.cut
            box = (table.kind == "box") & ~np.isnan(table.window[:, 0])
            for there, those in ((pieces, piece), (boxes, box), (result, ~(piece | box))):
                there.add(records[those])

        def add(merged: FindingsTable) -> None:
            result.add(result.read(keep(merged), merged)[1])

        for part in neighbours(pieces):
            groups: dict[Hashable, list[Finding]] = defaultdict(list)
            for finding in result.take(part):
                groups[finding.plane, finding.label, finding.text, tuple(sorted(finding.notes.items()))].append(finding)
            merged = [one for group in groups.values() for one in _merge_areas(group)]
            add(in_normal_form(FindingsTable.of(merged)))
        for part in neighbours(boxes):
            for _, group in _by(result.take(part), "plane"):
                found = merge_detections(group, info)
                add(found.take(np.flatnonzero(in_roi(found, roi))))
        return result.arranged()


def _by(table: FindingsTable, column: Literal["plane", "label"]) -> Iterator[tuple[Any, FindingsTable]]:
    """The values of a column, sorted, and the rows that have each."""
    values, places = np.unique(getattr(table, column), return_inverse=True)
    for place, value in enumerate(values.tolist()):
        yield value, table.take(np.flatnonzero(places == place))


def _merge_areas(pieces: Sequence[Finding]) -> list[Finding]:
    """Merge the pieces of areas of one label; the union is per connected set, which is what makes it fast."""
    shapes = np.array([piece.geometry for piece in pieces], dtype=object)
    wholes, places = union_parts(shapes)
    members: list[list[Finding]] = [[] for _ in wholes]
    for piece, place in zip(pieces, places.tolist(), strict=True):
        members[place].append(piece)
    return list(map(_merge_area, members, wholes))


def _merge_area(pieces: Sequence[Finding], whole: Polygon) -> Finding:
    """Merge the pieces of one area; sums are exact, so that their order does not matter."""
    weights = [piece.numbers.get("pixels", piece.geometry.area) for piece in pieces]
    scores = [piece.score for piece in pieces if piece.score is not None]
    score = None
    if len(scores) == len(pieces):
        score = math.fsum(s * w for s, w in zip(scores, weights, strict=True)) / math.fsum(weights)
    names = sorted({name for piece in pieces for name in piece.numbers})
    numbers = {name: math.fsum(piece.numbers.get(name, 0.0) for piece in pieces) for name in names}
    return replace(pieces[0], geometry=whole, score=score, numbers=numbers)


def in_roi(findings: FindingsTable, roi: BaseGeometry | None) -> Flags:
    """(N,): whether the centre of a finding's bounds lies in the region of interest (level-0 pixels); True without."""
    if roi is None:
        return np.ones(len(findings), dtype=np.bool_)
    x0, y0, x1, y1 = findings.bounds.T
    return np.asarray(shapely.contains_xy(roi, (x0 + x1) / 2, (y0 + y1) / 2), dtype=np.bool_)


def merge_detections(findings: Sequence[Finding], info: ImageInfo | None = None) -> FindingsTable:
    """Merge one image's boxes from overlapping tiles: one box for each object, whatever the order of the input.

    A box is cut where it reaches a border of its window that is not the picture's (any border where `info` is None).
    Two boxes of one label from different windows are of one object where their parts in the common window overlap by
    an intersection over union of `SAME`, or where one is cut at a border that the other crosses and the smaller part
    lies in the larger by as much. The merged box is the best box that is not cut, unchanged, otherwise the bounds of
    all; its score is the highest, and the number "tiles" is how many tiles have it. Where no tile shows how far the
    object goes on, the note "cut" names the sides.

    The result is exact where the boxes are, at any size, as long as tiles overlap and two objects of one label do not
    look the same in a whole common window. Method: greedy non-maximum merging per class, from the highest score down,
    as in SAHI (Akyon et al. 2022, arXiv 2202.06934), with two changes: overlap is measured in the common window
    instead of over whole boxes, and each window adds at most one box to an object, the nearest first.
    """
    table = findings if isinstance(findings, FindingsTable) else FindingsTable.of(findings)
    table = replace(table, shapes=table.geometries)
    return FindingsTable.concatenated([_merge_boxes(group, info) for _, group in _by(table, "label")])


def _merge_boxes(table: FindingsTable, info: ImageInfo | None) -> FindingsTable:
    """Merge the boxes of one label, and say of each which sides no tile shows."""
    place_of = {rank: place for place, rank in enumerate(_ranks(table))}
    found = table.take(np.array([place_of[rank] for rank in sorted(place_of)], dtype=np.intp))
    boxes = found.bounds
    windows = np.where(np.isnan(found.window), boxes, found.window)
    cut = _cut_sides(boxes, windows, info)
    _, window_ids = np.unique(windows, axis=0, return_inverse=True)
    groups = _group(_matches(boxes, windows, cut), window_ids.ravel().tolist())
    first = np.array([members[0] for members in groups], dtype=np.intp)
    best, bounds, unseen = first.copy(), boxes[first], dict[int, str]()
    is_cut = np.asarray(cut.any(axis=1))
    tiles = np.array([len(members) for members in groups], dtype=np.float64)
    for place in np.flatnonzero((tiles > 1) | is_cut[first]).tolist():
        best[place], bounds[place], sides = _merge_box(groups[place], boxes, cut)
        if sides is not None:
            unseen[place] = sides
    notes = {name: values[best] for name, values in found.notes.items()}
    if unseen:
        notes["cut"] = notes.get("cut", np.full(len(best), None))
        notes["cut"][list(unseen)] = list(unseen.values())
    for values in notes.values():
        values[values == ""] = None
    return replace(
        found.take(best),
        shapes=np.asarray(shapely.box(*bounds.T), dtype=object),
        score=found.score[first],
        cut=np.zeros(len(best), dtype=np.bool_),
        window=np.full((len(best), 4), np.nan),
        numbers={**{name: values[best] for name, values in found.numbers.items()}, "tiles": tiles},
        notes=notes,
    )


def _ranks(table: FindingsTable) -> Iterator[tuple[object, ...]]:
    """The order of merging: from the highest score down, then by place; boxes of equal rank are duplicates."""
    scores = np.where(np.isnan(table.score), -1.0, table.score)
    columns = [(-scores).tolist(), *table.bounds[:, [1, 0, 3, 2]].T.tolist()]
    windows = [() if math.isnan(window[0]) else tuple(window) for window in table.window.tolist()]
    numbers, notes = ([tuple(sorted(row.items())) for row in rows] for rows in (table.number_rows, table.note_rows))
    return zip(*columns, windows, table.text.tolist(), numbers, notes, strict=True)


def _cut_sides(boxes: Boxes, windows: Boxes, info: ImageInfo | None) -> Flags:
    """(n, 4): whether a box reaches a border of its window that is not the picture's, by side."""
    sides = windows[:, 2:] - windows[:, :2]
    inward = np.concatenate([boxes[:, :2] - windows[:, :2], windows[:, 2:] - boxes[:, 2:]], axis=1)
    reaches = inward <= CUT_MARGIN * np.concatenate([sides, sides], axis=1)
    if info is None:
        return reaches
    return reaches & ~(np.abs(windows - np.array([0.0, 0.0, *info.size])) < 1e-6 * (1.0 + windows))


def _matches(boxes: Boxes, windows: Boxes, cut: Flags) -> Mapping[int, list[tuple[float, float, int]]]:
    """For each box the others of the same object, as (-overlap, -common area, index)."""
    shapes = np.asarray(shapely.box(*boxes.T), dtype=object)
    a, b = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    other = (a < b) & np.any(windows[a] != windows[b], axis=1)
    a, b = a[other], b[other]
    common = intersect_boxes(windows[a], windows[b])
    in_a, in_b = intersect_boxes(boxes[a], common), intersect_boxes(boxes[b], common)
    both, size_a, size_b = box_areas(intersect_boxes(in_a, in_b)), box_areas(in_a), box_areas(in_b)
    union, smaller = size_a + size_b - both, np.minimum(size_a, size_b)
    crossed = _crosses(boxes[a], windows[b], cut[b]) | _crosses(boxes[b], windows[a], cut[a])
    same = (both > 0) & ((both >= SAME * union) | (crossed & (both >= SAME * smaller)))
    matches: dict[int, list[tuple[float, float, int]]] = defaultdict(list)
    overlaps = np.round(both[same] / union[same], 9).tolist()
    for i, j, overlap, area in zip(a[same].tolist(), b[same].tolist(), overlaps, both[same].tolist(), strict=True):
        matches[i].append((-overlap, -area, j))
        matches[j].append((-overlap, -area, i))
    return matches


def _crosses(boxes: Boxes, windows: Boxes, cut: Flags) -> Flags:
    """(n,): whether a box crosses a border of another window at which that window's box is cut."""
    outside = np.concatenate([boxes[:, :2] < windows[:, :2], boxes[:, 2:] > windows[:, 2:]], axis=1)
    return np.any(outside & cut, axis=1)


def _group(matches: Mapping[int, list[tuple[float, float, int]]], window_ids: Sequence[int]) -> list[list[int]]:
    """Group boxes by object: each seed, in order, takes the nearest free box, at most one from each window."""
    groups: list[list[int]] = []
    free = [True] * len(window_ids)
    for seed in range(len(window_ids)):
        if not free[seed]:
            continue
        free[seed] = False
        members, used_windows = [seed], {window_ids[seed]}
        queue = list(matches.get(seed, ()))
        heapq.heapify(queue)
        while queue:
            _, _, i = heapq.heappop(queue)
            if free[i] and window_ids[i] not in used_windows:
                free[i] = False
                members.append(i)
                used_windows.add(window_ids[i])
                for match in matches[i]:
                    heapq.heappush(queue, match)
        groups.append(members)
    return groups


def _merge_box(members: list[int], boxes: Boxes, cut: Flags) -> tuple[int, Floats, str | None]:
    """The best box of one object, its bounds, and the sides that no tile shows, None where a tile has it whole.

    A lower index is a better box.
    """
    whole = [i for i in members if not cut[i].any()]
    best = min(whole or members)
    if whole:
        return best, boxes[best], None
    bounds = np.concatenate([boxes[members][:, :2].min(axis=0), boxes[members][:, 2:].max(axis=0)])
    ends = ((boxes[members] == bounds) & ~cut[members]).any(axis=0)
    return best, bounds, ", ".join(side for side, end in zip(SIDES, ends, strict=True) if not end)
