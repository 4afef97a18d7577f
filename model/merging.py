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
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import shapely
from shapely import box
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from ..readers.geometry import Points
from ..readers.image import ImageInfo
from .detections import Boxes, box_areas, intersect_boxes
from .finding import Finding
from .findings_table import Chunk, FindingsTable
from .merged_findings import MergedFindings, Rows, in_normal_form

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
    chunks: Sequence[Chunk], info: ImageInfo | None = None, roi: BaseGeometry | None = None
) -> MergedFindings:
    """Merge one image's areas and boxes across region borders; sort all findings by label, plane and place.

    Areas with `cut` are merged with neighbours of the same plane, label, text and notes that share an edge; those that
    only touch at a corner stay apart, as 4-connected polygons do. The merged score is the mean weighted by "pixels" (by
    area without them), and numbers are added. All areas come out in a normal form: vertices only where the outline
    turns, one canonical order, a rounded score, `cut` false. Boxes are merged by `merge_detections`, which needs `info`
    for the picture's borders, and kept where their centre lies in the `roi` (level-0 pixels). Other findings are
    unchanged. The result depends neither on the order of the input nor, for areas, on how the picture was cut.

    Every chunk is read once here. In memory remain the bounds and the label of each finding, and what was merged.
    """
    rows = Rows.of(chunks)
    pieces, boxes = rows.pieces, rows.boxes
    merged: list[Finding] = []
    for part in rows.neighbours(pieces):
        groups: dict[Hashable, list[Finding]] = defaultdict(list)
        for finding in rows.take(part):
            groups[finding.plane, finding.label, finding.text, tuple(sorted(finding.notes.items()))].append(finding)
        for group in groups.values():
            merged += _merge_areas(group)
    for part in rows.neighbours(boxes):
        planes: dict[int, list[Finding]] = defaultdict(list)
        for finding in rows.take(part):
            planes[finding.plane].append(finding)
        for group in planes.values():
            merged += [one for one in merge_detections(group, info) if in_roi(one, roi)]
    return rows.merged(~(pieces | boxes), in_normal_form(FindingsTable.of(merged)))


def _merge_areas(pieces: Sequence[Finding]) -> list[Finding]:
    """Merge the pieces of areas of one label; the union is per connected set, which is what makes it fast."""
    shapes = np.array([piece.geometry for piece in pieces], dtype=object)
    wholes = shapely.get_parts(shapely.disjoint_subset_union_all(shapes))
    of_piece, of_whole = shapely.STRtree(wholes).query(shapely.point_on_surface(shapes), predicate="within")
    members: dict[int, list[Finding]] = defaultdict(list)
    for piece, whole in zip(of_piece, of_whole, strict=True):
        members[int(whole)].append(pieces[int(piece)])
    return [_merge_area(members[i], whole) for i, whole in enumerate(wholes)]


def _merge_area(pieces: Sequence[Finding], whole: Polygon) -> Finding:
    """Merge the pieces of one area; sums are exact, so that their order does not matter."""
    weights = [piece.numbers.get("pixels", piece.geometry.area) for piece in pieces]
    scores = [piece.score for piece in pieces if piece.score is not None]
    score = None
    if len(scores) == len(pieces):
        score = math.fsum(s * w for s, w in zip(scores, weights, strict=True)) / math.fsum(weights)
    names = sorted({name for piece in pieces for name in piece.numbers})
    numbers = {name: math.fsum(piece.numbers.get(name, 0.0) for piece in pieces) for name in names}
    rings = [corners(shapely.get_coordinates(ring)) for ring in shapely.get_rings(whole)]
    return replace(pieces[0], geometry=Polygon(rings[0], rings[1:]), score=score, numbers=numbers)


def corners(ring: Points) -> Points:
    """A closed ring (N, 2) → its vertices (M, 2) where it turns, open: a union leaves some on straight edges."""
    here = ring[:-1]
    before, after = np.roll(here, 1, axis=0), np.roll(here, -1, axis=0)
    return here[~((before == here) & (here == after)).any(axis=1)]


def _score(finding: Finding) -> float:
    return -1.0 if finding.score is None else finding.score


def _extras(finding: Finding) -> tuple[object, ...]:
    return tuple(sorted(finding.numbers.items())), tuple(sorted(finding.notes.items()))


def in_roi(finding: Finding, roi: BaseGeometry | None) -> bool:
    """Whether the centre of a finding's bounds lies in the region of interest (level-0 pixels); True without one."""
    x0, y0, x1, y1 = finding.geometry.bounds
    return roi is None or bool(shapely.contains_xy(roi, (x0 + x1) / 2, (y0 + y1) / 2))


def merge_detections(findings: Sequence[Finding], info: ImageInfo | None = None) -> list[Finding]:
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
    by_label: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_label[finding.label].append(finding)
    return [merged for label in sorted(by_label) for merged in _merge_boxes(by_label[label], info)]


def _merge_boxes(findings: Sequence[Finding], info: ImageInfo | None) -> list[Finding]:
    """Merge the boxes of one label."""
    found = [finding for _, finding in sorted({_rank(finding): finding for finding in findings}.items())]
    boxes = np.array([finding.geometry.bounds for finding in found], dtype=np.float64)
    windows = np.array([finding.window or finding.geometry.bounds for finding in found], dtype=np.float64)
    cut = _cut_sides(boxes, windows, info)
    _, window_ids = np.unique(windows, axis=0, return_inverse=True)
    groups = _group(_matches(boxes, windows, cut), window_ids.ravel().tolist())
    return [_merge_box(found, members, boxes, cut) for members in groups]


def _rank(finding: Finding) -> tuple[object, ...]:
    """The order of merging: from the highest score down, then by place; boxes of equal rank are duplicates."""
    x0, y0, x1, y1 = finding.geometry.bounds
    return -_score(finding), y0, x0, y1, x1, finding.window or (), finding.text, _extras(finding)


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


def _merge_box(found: Sequence[Finding], members: list[int], boxes: Boxes, cut: Flags) -> Finding:
    """Merge the boxes of one object; a lower index is a better box."""
    whole = [i for i in members if not cut[i].any()]
    best = min(whole or members)
    bounds, notes = boxes[best], dict(found[best].notes)
    if not whole:
        bounds = np.concatenate([boxes[members][:, :2].min(axis=0), boxes[members][:, 2:].max(axis=0)])
        ends = ((boxes[members] == bounds) & ~cut[members]).any(axis=0)
        notes["cut"] = ", ".join(side for side, end in zip(SIDES, ends, strict=True) if not end)
    return replace(
        found[best],
        geometry=box(*bounds.tolist()),
        score=found[min(members)].score,
        cut=False,
        numbers={**found[best].numbers, "tiles": float(len(members))},
        notes={key: text for key, text in notes.items() if text},
        window=None,
    )
