"""Detections: what a detector sees in each tile, and how a thing that several tiles saw becomes one.

Tiles overlap, so most things are whole in one of them, and near the borders they are seen again or in part.
`tile_detections` asks a detector tile by tile; every box keeps the window in which it was seen. `merge` compares two
sightings only where both windows look: there a whole thing and its pieces show the same part. This is greedy non-
maximum merging, class by class and from the highest score down, with two changes that keep it exact on perfect boxes:
overlap is measured within the common window instead of over whole boxes, and of each window at most one box joins a
thing, the nearest first.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from ...readers.errors import ModelError
from ...readers.image import ImageInfo, Mask, Pixels
from ..annotator import Answer, View
from ..finding import Finding
from ..finite import require_finite, require_shares

SAME = 0.5  # intersection over union, in the common window, from which two sightings are of one thing
EDGE = 0.01  # of a window's side: a box that ends nearer to its edge is taken to be cut there
FINENESS = 16  # parts of a pixel that a corner is rounded to: what differs between machines and threads lies below
DIGITS = 4  # of scores, likewise
SIDES = ("left", "top", "right", "bottom")

Boxes = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Detection:
    """A box (x0, y0, x1, y1) in the pixels of a tile, corners not centres, with its label and score from 0 to 1."""

    label: str
    score: float
    box: tuple[float, float, float, float]


Detector = Callable[[Pixels, Mask], Iterable[Detection]]
"""A tile (H, W, C) and where it is valid (H, W) → what is in it. Depends on nothing else."""


def tile_detections(view: View, detector: Detector, *, threshold: float, of: str = "detector") -> list[Answer]:
    """What a detector sees in each tile of a view whose share holds something wanted; a box's window is its tile.

    So the same tiles are asked however many make a region, where regions share just the halo. Boxes are kept within
    their tile and the picture; one without any valid pixel is not kept, nor one without an area, nor one whose score,
    rounded, is below `threshold`. `of` names the detector in errors. Raises `ModelError` where a box is inside out or
    a score is not from 0 to 1: its numbers then mean something else.
    """
    width, height = _picture(view)
    answers: list[Answer] = []
    for tile, valid, (left, top, right, bottom), (x0, y0, x1, y1) in zip(
        view.tiles, view.valid, view.grid.boxes(), view.grid.shares(), strict=True
    ):
        if not view.keep_mask[y0:y1, x0:x1].any():
            continue
        window = (float(left), float(top), float(right), float(bottom))
        reach = (0.0, 0.0, min(right, width) - left, min(bottom, height) - top)
        for one in detector(tile, valid):
            score = round(float(one.score), DIGITS)
            if score < threshold:
                continue
            _check(one, of)
            west, north, east, south = _rounded(one.box, reach)
            if east <= west or south <= north:
                continue
            if valid[int(north) : int(np.ceil(south)), int(west) : int(np.ceil(east))].any():
                shape = box(left + west, top + north, left + east, top + south)
                answers.append(Answer(one.label, shape, "box", score, seen=window))
    return answers


def _check(one: Detection, of: str) -> None:
    """Raise `ModelError` for a detection that cannot be one."""
    require_shares(np.array([one.score]), of=of)
    x0, y0, x1, y1 = require_finite(np.asarray(one.box), "boxes", of=of).tolist()
    if x1 < x0 or y1 < y0:
        raise ModelError(
            of,
            "its boxes must have a width and a height of 0 or more",
            value=f"{x1 - x0:g} × {y1 - y0:g} px",
            remedy="Check which numbers its kind of detector answers: corners are not a centre and a size",
        )


def merge(findings: Sequence[Finding], info: ImageInfo | None = None) -> list[Finding]:
    """One image's sightings → its things, each once; depends neither on their order nor on where regions end.

    A box is cut where it reaches an edge of its window that is not the picture's own, or its slice's (every edge is
    inner where `info` is None). Two sightings from different windows are of one thing where their parts in the common
    window overlap by an intersection over union of `SAME`, or where one is cut at an edge that the other crosses and
    the smaller part lies in the larger by as much. A thing seen whole is the best of its whole sightings, unchanged;
    otherwise it is the box around all that was seen of it. Its score is the highest of its sightings', and number
    "sightings" is how many there were. Where no window shows how far it goes on, note "cut" names the sides.

    So a thing is exact where its sightings are, at any size, as long as windows overlap and two things of one label do
    not look the same in a whole common window. Source of the method: greedy non-maximum merging as in SAHI (Akyon et
    al. 2022, arXiv 2202.06934), with the changes that this file's head tells.
    """
    by_label: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_label[finding.label].append(finding)
    return [subject for label in sorted(by_label) for subject in _merge(by_label[label], info)]


def within(finding: Finding, area: BaseGeometry | None) -> bool:
    """Whether a thing counts in an area of interest (level-0 pixels): its middle lies inside."""
    if area is None:
        return True
    x0, y0, x1, y1 = finding.geometry.bounds
    return bool(shapely.contains_xy(area, (x0 + x1) / 2, (y0 + y1) / 2))


def suppress(boxes: Boxes, scores: npt.NDArray[np.float64], overlap: float) -> npt.NDArray[np.intp]:
    """Greedy non-maximum suppression of boxes (n, 4) that one tile shows: which are kept, best first.

    A box goes where its intersection over union with a better one is above `overlap`. Of equal scores the first wins.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order):
        best, others = order[0], order[1:]
        kept.append(int(best))
        common = _size(_common(boxes[best][None], boxes[others]))
        union = _size(boxes[best][None]) + _size(boxes[others]) - common
        order = others[common <= overlap * union]
    return np.array(kept, dtype=np.intp)


def _picture(view: View) -> tuple[float, float]:
    """How far the picture reaches on a view's canvas (x, y)."""
    region = view.region
    (width, height), (sx, sy) = region.grid.size, region.grid.scale
    return width / sx - region.columns.start, height / sy - region.rows.start


def _rounded(corners: Sequence[float], reach: tuple[float, ...]) -> tuple[float, float, float, float]:
    low, high = np.array(reach[:2] * 2), np.array(reach[2:] * 2)
    x0, y0, x1, y1 = np.clip(np.rint(np.asarray(corners, dtype=np.float64) * FINENESS) / FINENESS, low, high).tolist()
    return x0, y0, x1, y1


def _merge(findings: Sequence[Finding], info: ImageInfo | None) -> list[Finding]:
    """The things of one label."""
    ranked = sorted({_rank(finding): finding for finding in findings}.items())
    found = [finding for _, finding in ranked]
    boxes = np.array([finding.geometry.bounds for finding in found], dtype=np.float64)
    windows = np.array([finding.seen or finding.geometry.bounds for finding in found], dtype=np.float64)
    cut = _cut(boxes, windows, info)
    near = _matches(boxes, windows, cut)
    _, window = np.unique(windows, axis=0, return_inverse=True)
    return [_thing(found, members, boxes, cut) for members in _groups(near, window.ravel().tolist())]


def _rank(finding: Finding) -> tuple[object, ...]:
    """From the highest score down, then by place; two with the same rank are the same sighting told twice."""
    x0, y0, x1, y1 = finding.geometry.bounds
    score = -1.0 if finding.score is None else finding.score
    extras = (tuple(sorted(finding.numbers.items())), tuple(sorted(finding.notes.items())))
    return -score, y0, x0, y1, x1, finding.seen or (), finding.text, extras


def _cut(boxes: Boxes, windows: Boxes, info: ImageInfo | None) -> Flags:
    """(n, 4): whether a box reaches an inner edge of its window, by side."""
    sides = windows[:, 2:] - windows[:, :2]
    inward = np.concatenate([boxes[:, :2] - windows[:, :2], windows[:, 2:] - boxes[:, 2:]], axis=1)
    reaches = inward <= EDGE * np.concatenate([sides, sides], axis=1)
    if info is None:
        return reaches
    rims = np.array([0.0, 0.0, *info.size])
    return reaches & ~(np.abs(windows - rims) < 1e-6 * (1.0 + windows))


def _matches(boxes: Boxes, windows: Boxes, cut: Flags) -> dict[int, list[tuple[float, float, int]]]:
    """For each sighting the others of the same thing, as (-overlap, -common area, which)."""
    shapes = np.asarray(shapely.box(*boxes.T), dtype=object)
    a, b = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    other = (a < b) & np.any(windows[a] != windows[b], axis=1)
    a, b = a[other], b[other]
    common = _common(windows[a], windows[b])
    in_a, in_b = _common(boxes[a], common), _common(boxes[b], common)
    both, size_a, size_b = _size(_common(in_a, in_b)), _size(in_a), _size(in_b)
    union, smaller = size_a + size_b - both, np.minimum(size_a, size_b)
    crossed = _crosses(boxes[a], windows[b], cut[b]) | _crosses(boxes[b], windows[a], cut[a])
    one = (both > 0) & ((both >= SAME * union) | (crossed & (both >= SAME * smaller)))
    near: dict[int, list[tuple[float, float, int]]] = defaultdict(list)
    overlap = np.round(both[one] / union[one], 9)
    for i, j, share, area in zip(a[one].tolist(), b[one].tolist(), overlap.tolist(), both[one].tolist(), strict=True):
        near[i].append((-share, -area, j))
        near[j].append((-share, -area, i))
    return near


def _crosses(boxes: Boxes, windows: Boxes, cut: Flags) -> Flags:
    """(n,): whether a box goes on beyond an edge of a window at which the other was cut."""
    beyond = np.concatenate([boxes[:, :2] < windows[:, :2], boxes[:, 2:] > windows[:, 2:]], axis=1)
    return np.any(beyond & cut, axis=1)


def _common(a: Boxes, b: Boxes) -> Boxes:
    """The intersections (n, 4) of boxes; inside out where there is none."""
    return np.concatenate([np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])], axis=1)


def _size(boxes: Boxes) -> Boxes:
    return np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None), axis=1)


def _groups(near: dict[int, list[tuple[float, float, int]]], window: Sequence[int]) -> list[list[int]]:
    """Sightings by thing: each seed, in order, takes the nearest of what is free, and of every window at most one."""
    groups: list[list[int]] = []
    free = [True] * len(window)
    for seed in range(len(window)):
        if not free[seed]:
            continue
        free[seed] = False
        members, looked = [seed], {window[seed]}
        waiting = list(near.get(seed, ()))
        heapq.heapify(waiting)
        while waiting:
            _, _, one = heapq.heappop(waiting)
            if free[one] and window[one] not in looked:
                free[one] = False
                members.append(one)
                looked.add(window[one])
                for further in near[one]:
                    heapq.heappush(waiting, further)
        groups.append(members)
    return groups


def _thing(found: Sequence[Finding], members: list[int], boxes: Boxes, cut: Flags) -> Finding:
    """One thing of its sightings, which are numbered from the best down."""
    whole = [i for i in members if not cut[i].any()]
    best = min(whole or members)
    around, notes = boxes[best], dict(found[best].notes)
    if not whole:
        around = np.concatenate([boxes[members][:, :2].min(axis=0), boxes[members][:, 2:].max(axis=0)])
        ends = (boxes[members] == around) & ~cut[members]
        notes["cut"] = ", ".join(side for side, end in zip(SIDES, ends.any(axis=0), strict=True) if not end)
    return replace(
        found[best],
        geometry=box(*around.tolist()),
        score=found[min(members)].score,
        cut=False,
        numbers={**found[best].numbers, "sightings": float(len(members))},
        notes={key: text for key, text in notes.items() if text},
        seen=None,
    )
