"""What detectors of the YOLO kind answer, before any suppression, becomes boxes.

Sources of the layouts: the detector types of the Deepness plugin (PUTvision/qgis-plugin-deepness, `DetectorType`) and
their post-processing: scores, classes, and suppression across classes are as it has them. Its boxes are cut to whole
pixels; these are not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ...readers.errors import ModelError
from ..finite import require_finite
from .tile_detections import Detection, suppress

CORNERS = 4


@dataclass(frozen=True, slots=True)
class Layout:
    """A row for each candidate: centre, size, how sure it is that anything is there where `objectness`, classes.

    `upright` says that rows are columns. `sure` says that this first number is a candidate's score, else its best class
    is.
    """

    objectness: bool
    upright: bool
    sure: bool


LAYOUTS: Final[Mapping[str, Layout]] = {
    "YOLO_v5_or_v7_default": Layout(objectness=True, upright=False, sure=True),
    "YOLO_v6": Layout(objectness=True, upright=False, sure=False),
    "YOLO_v9": Layout(objectness=False, upright=True, sure=False),
    "YOLO_Ultralytics": Layout(objectness=False, upright=True, sure=False),
}
"""`det_type` → layout. YOLO_Ultralytics is what YOLOv8 and its successors export."""


def read_boxes(
    output: npt.NDArray[np.float32],
    layout: Layout,
    labels: Sequence[str],
    *,
    threshold: float,
    overlap: float,
    network: str,
) -> list[Detection]:
    """One tile's output (1, candidates, numbers), or upright, → its boxes with scores of at least `threshold`.

    Of boxes that overlap by an intersection over union above `overlap`, the one with the highest score stays. Raises
    `ModelError` where the shape is not this layout's for that many labels, or a number is not finite.
    """
    first = CORNERS + layout.objectness
    numbered = output.shape[1:2] if layout.upright else output.shape[2:3]
    if len(output.shape) != 3 or len(output) != 1 or numbered != (first + len(labels),):
        numbers = f"{first + len(labels)} numbers a candidate: {first} and one for each of {len(labels)} classes"
        raise ModelError(
            f"network {network}",
            f"it must answer (1, {'numbers, candidates' if layout.upright else 'candidates, numbers'}), {numbers}",
            value=str(output.shape),
            remedy=f"State its kind with --set model_options.det_type=…: {', '.join(LAYOUTS)}; or correct class_names",
        )
    rows = output[0].T if layout.upright else output[0]
    require_finite(rows, "candidates", of=f"network {network}")
    classes = rows[:, first:].argmax(axis=1)
    scores = (rows[:, CORNERS] if layout.sure else rows[:, first:].max(axis=1)).astype(np.float64)
    ranks = (rows[:, CORNERS] if layout.objectness else scores).astype(np.float64)
    likely = scores >= threshold
    centre, half = rows[likely, :2].astype(np.float64), rows[likely, 2:CORNERS].astype(np.float64) / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    kept = suppress(boxes, ranks[likely], overlap)
    return [
        Detection(labels[int(label)], float(score), (float(x0), float(y0), float(x1), float(y1)))
        for label, score, (x0, y0, x1, y1) in zip(classes[likely][kept], scores[likely][kept], boxes[kept], strict=True)
    ]
