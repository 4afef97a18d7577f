"""Class maps: what a segmentation network says of every pixel becomes areas, whatever kind of file it came from."""

from collections.abc import Callable, Collection, Sequence

import numpy as np
import numpy.typing as npt

from ..readers.errors import ModelError
from ..readers.image import Mask, Pixels
from .annotator import Answer, View
from .class_map_polygons import polygonise
from .finite import require_finite, require_shares

Values = npt.NDArray[np.float32]

_REMEDY = "Check the network's file, the region's pixel values, and the mean and std that are stated for the network"

See = Callable[[Pixels, Mask], Values]
"""A tile (H, W, C) and where it is valid (H, W) → the network's values (H, W, classes). Depends on nothing else."""


def class_map_to_polygons(
    view: View,
    see: See,
    squash: Callable[[Values], Values],
    *,
    classes: Sequence[str],
    background: Collection[int] = (),
    least: float = 0.0,
    network: str,
) -> list[Answer]:
    """The areas of a view: 4-connected patches of the class with the highest score, with the mean of that score.

    `squash` makes scores from 0 to 1 of a network's values. Classes whose place is in `background` give no areas, nor
    do pixels whose highest score is below `least`. Tiles are shown one at a time, so that an answer cannot depend on
    what else is in the batch; where nothing of a tile's share is wanted the network is not asked. `network` names it
    in errors. Raises `ModelError` where its answer has another shape, is not finite,
    or is no score from 0 to 1 once squashed.
    """
    found = np.zeros(view.keep_mask.shape, dtype=np.uint8)
    scores = np.zeros(view.keep_mask.shape, dtype=np.float32)
    for tile, valid, (left, top, _, _), (x0, y0, x1, y1) in zip(
        view.tiles, view.valid, view.grid.boxes(), view.grid.shares(), strict=True
    ):
        if not view.keep_mask[y0:y1, x0:x1].any():
            continue
        values = see(tile, valid)
        if values.shape != (*valid.shape, len(classes)):
            raise ModelError(
                f"network {network}",
                f"it must answer {(*valid.shape, len(classes))} values a tile, one per class",
                value=str(values.shape),
                remedy="Correct the classes or the layout that are stated for it",
            )
        share = values[y0 - top : y1 - top, x0 - left : x1 - left]
        require_finite(share, "values of a tile", of=f"network {network}", at=f"on {view.region.key}", remedy=_REMEDY)
        chances = require_shares(squash(share), of=f"network {network}")
        found[y0:y1, x0:x1] = chances.argmax(axis=2)
        scores[y0:y1, x0:x1] = chances.max(axis=2)
    worth = view.keep_mask & ~np.isin(found, list(background)) & (scores >= least)
    return [
        Answer(
            label=classes[patch.value],
            geometry=patch.polygon,
            kind="area",
            score=min(1.0, patch.score),
            numbers={"pixels": float(patch.pixels)},
        )
        for patch in polygonise(found, scores, worth)
    ]


def spread(tile: Pixels, valid: Mask) -> Pixels:
    """A tile (H, W, C) whose invalid pixels repeat the nearest valid one of their row, or of the nearest row with any.

    A constant there makes an edge that networks answer to: at the rim of a scene it changes several times as many
    classes as repeating the rim does.
    """
    row = _nearest(np.any(valid, axis=1, keepdims=True).T)[0]
    return tile[row[:, None], _nearest(valid)[row]]


def sigmoid(logits: Values) -> Values:
    """Scores of classes that do not exclude each other, from logits."""
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def _nearest(valid: Mask) -> npt.NDArray[np.intp]:
    """For each place of each row (H, W) the column of the nearest valid one, the left of two; 0 where none is."""
    width = valid.shape[1]
    here = np.arange(width, dtype=np.intp)
    left = np.maximum.accumulate(np.where(valid, here, -width), axis=1)
    right = np.minimum.accumulate(np.where(valid, here, 2 * width)[:, ::-1], axis=1)[:, ::-1]
    return np.where(here - left <= right - here, left, right) % width
