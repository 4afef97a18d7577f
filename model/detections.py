"""Detections: run a detector on every tile of a view, and decode the outputs of YOLO networks.

Box format: (x0, y0, x1, y1), corners of pixels, not centres. `merging` makes one box of the boxes that several tiles
have of one object.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely

from ..readers.errors import ModelError
from ..readers.image import Mask, Pixels
from .annotator import Answer, View
from .scores import require_finite, require_probabilities, round_scores

SUBPIXELS = 16  # corners are rounded to 1/16 pixel: differences between machines and thread counts are smaller
CORNERS = 4
_COMPARED: Final = 2**18  # pairs of boxes that are compared at once

Boxes = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Detection:
    """One detected object, in pixels of its tile."""

    label: str
    score: float
    """From 0 to 1."""
    box: tuple[float, float, float, float]


Detector = Callable[[Pixels, Mask], Iterable[Detection]]
"""A tile (H, W, C) and its valid mask (H, W) → detections, which depend on nothing else."""


def tile_detections(view: View, detector: Detector, *, threshold: float, of: str = "detector") -> list[Answer]:
    """Run a detector on each tile whose core has a kept pixel; each box keeps its tile as its window.

    The same tiles are therefore run however many tiles a region has, as long as regions overlap by the halo. Boxes are
    clipped to the tile and the picture. Boxes without a valid pixel or an area, and those with a rounded score below
    `threshold`, are dropped. `of` names the detector in errors. Raises `ModelError` for a box with a negative side and
    a score outside 0 to 1: the numbers then have another meaning.
    """
    picture = _picture_bounds(view)
    answers: list[Answer] = []
    for tile, valid, (left, top, right, bottom), (x0, y0, x1, y1) in zip(
        view.tiles, view.valid, view.grid.boxes(), view.grid.core_boxes(), strict=True
    ):
        if not view.keep_mask[y0:y1, x0:x1].any():
            continue
        window = (float(left), float(top), float(right), float(bottom))
        low, high = np.clip(picture, window[:2], window[2:]) - window[:2]
        found = list(detector(tile, valid))
        scores = round_scores(np.array([one.score for one in found], dtype=np.float64))
        found = [one for one, score in zip(found, scores.tolist(), strict=True) if not score < threshold]
        scores = scores[~(scores < threshold)]
        if not found:
            continue
        boxes = _checked(found, scores, of)
        corners = np.clip(np.rint(boxes * SUBPIXELS) / SUBPIXELS, [*low, *low], [*high, *high])
        usable = np.all(corners[:, :2] < corners[:, 2:], axis=1)
        if not valid.all():
            for place in np.flatnonzero(usable).tolist():
                west, north, east, south = corners[place].tolist()
                covered = valid[int(north) : int(np.ceil(south)), int(west) : int(np.ceil(east))]
                usable[place] = covered.any()
        shapes = np.asarray(shapely.box(*np.add(corners, (left, top, left, top)).T), dtype=object)
        answers += [
            Answer(found[place].label, shapes[place], "box", float(scores[place]), window=window)
            for place in np.flatnonzero(usable).tolist()
        ]
    return answers


def _picture_bounds(view: View) -> Boxes:
    """The picture's first and last corner on a view's canvas, (2, 2)."""
    grid, start = view.region.grid, (view.region.columns.start, view.region.rows.start)
    return np.array([(0.0, 0.0), np.divide(grid.upright_size, grid.upright_scale)]) - start


def _checked(found: Sequence[Detection], scores: npt.NDArray[np.float64], of: str) -> Boxes:
    """The boxes (n, 4) of detections. Raises `ModelError` for the first whose score or box cannot be one."""
    boxes = np.array([one.box for one in found], dtype=np.float64)
    usual = np.all(np.isfinite(boxes), axis=1) & np.all(boxes[:, :2] <= boxes[:, 2:], axis=1)
    for place in np.flatnonzero(~(usual & (scores >= 0) & (scores <= 1))).tolist():
        require_probabilities(np.array([found[place].score]), of=of)
        x0, y0, x1, y1 = require_finite(boxes[place], "boxes", of=of).tolist()
        if x1 < x0 or y1 < y0:
            size = f"{x1 - x0:g} × {y1 - y0:g} px"
            remedy = "Check the box format of the detector: it must return corners, not a centre and a size"
            raise ModelError(of, "must return boxes of non-negative width and height", value=size, remedy=remedy)
    return boxes


@dataclass(frozen=True, slots=True)
class YoloLayout:
    """The layout of a YOLO network's output: per candidate a centre, a size, maybe an objectness, and class scores."""

    objectness: bool
    """Whether an objectness stands between the size and the class scores."""
    transposed: bool
    """Whether the candidates are columns, (1, numbers, candidates), instead of rows."""
    objectness_is_score: bool
    """Whether the objectness is the score of a candidate, instead of its best class score."""


YOLO_LAYOUTS: Final[Mapping[str, YoloLayout]] = {
    "YOLO_v5_or_v7_default": YoloLayout(objectness=True, transposed=False, objectness_is_score=True),
    "YOLO_v6": YoloLayout(objectness=True, transposed=False, objectness_is_score=False),
    "YOLO_v9": YoloLayout(objectness=False, transposed=True, objectness_is_score=False),
    "YOLO_Ultralytics": YoloLayout(objectness=False, transposed=True, objectness_is_score=False),
}
"""`det_type` of the Deepness plugin → layout. YOLO_Ultralytics is the export of YOLOv8 and later.

Source: `DetectorType` of PUTvision/qgis-plugin-deepness and its post-processing, from which scores, classes and the
suppression across classes are taken. It truncates boxes to whole pixels; `decode_yolo` does not.
"""


def decode_yolo(
    output: npt.NDArray[np.float32],
    layout: YoloLayout,
    labels: Sequence[str],
    *,
    threshold: float,
    overlap: float,
    network: str,
) -> list[Detection]:
    """Decode one tile's output (1, candidates, numbers), or transposed, with non-maximum suppression.

    Candidates with a score below `threshold` are dropped, and those whose intersection over union with a better one is
    above `overlap`. Raises `ModelError` for another shape than the layout's, and for numbers that are not finite.
    """
    first = CORNERS + layout.objectness
    numbers = first + len(labels)
    if output.ndim != 3 or len(output) != 1 or output.shape[1 if layout.transposed else 2] != numbers:
        raise ModelError(
            f"network {network}",
            f"must return (1, {f'{numbers}, candidates' if layout.transposed else f'candidates, {numbers}'}) numbers "
            f"for its {len(labels)} classes",
            value=str(output.shape),
            remedy=f"Set --set model_options.det_type=… to one of {', '.join(YOLO_LAYOUTS)}, or correct class_names",
        )
    rows = require_finite(output[0].T if layout.transposed else output[0], "candidates", of=f"network {network}")
    classes = rows[:, first:].argmax(axis=1)
    best = rows[:, first:].max(axis=1).astype(np.float64)
    objectness = rows[:, CORNERS].astype(np.float64) if layout.objectness else best
    scores = objectness if layout.objectness_is_score else best
    likely = np.flatnonzero(scores >= threshold)
    centre, half = rows[likely, :2].astype(np.float64), rows[likely, 2:CORNERS].astype(np.float64) / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    kept = suppress_overlaps(boxes, objectness[likely], overlap)
    return [
        Detection(labels[int(classes[i])], float(scores[i]), (float(x0), float(y0), float(x1), float(y1)))
        for i, (x0, y0, x1, y1) in zip(likely[kept], boxes[kept], strict=True)
    ]


def suppress_overlaps(boxes: Boxes, scores: npt.NDArray[np.float64], overlap: float) -> npt.NDArray[np.intp]:
    """Greedy non-maximum suppression of boxes (n, 4): the indices of those that are kept, best first.

    A box is dropped where its intersection over union with a better one is above `overlap`; the first of equal scores
    is the better one.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, free = boxes[order], np.ones(len(order), dtype=np.bool_)
    step = max(1, _COMPARED // max(1, len(order)))
    for start in range(0, len(order), step):
        others = start + np.flatnonzero(free[start:])
        rows = others[: np.searchsorted(others, start + step), None]
        area, (x0, y0, x1, y1) = box_areas(boxes[others]), boxes[others].T[..., None]
        wide, high = (
            np.minimum(end.T, end[: len(rows)]) - np.maximum(begin.T, begin[: len(rows)])
            for begin, end in ((x0, x1), (y0, y1))
        )
        common = np.maximum(wide, 0.0) * np.maximum(high, 0.0)
        covered = ~(common <= overlap * (area[: len(rows), None] + area - common)) & (others > rows)
        for place in np.flatnonzero(covered.any(axis=1)).tolist():
            if free[rows[place]]:
                free[others[covered[place]]] = False
    return order[free]


def intersect_boxes(a: Boxes, b: Boxes) -> Boxes:
    """The intersections (n, 4) of boxes, pair by pair; inverted where there is none."""
    return np.concatenate([np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])], axis=1)


def box_areas(boxes: Boxes) -> npt.NDArray[np.float64]:
    """The areas (n,) of boxes; 0 for inverted ones."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
    return sides[:, 0] * sides[:, 1]
