"""Verdicts: which of several labels fits a tile or a region best, told the same way by every annotator that says so."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from shapely.geometry.base import BaseGeometry

from .annotator import Answer
from .finding import Kind

DIGITS = 4  # of scores: what differs between machines and numbers of threads lies below
MANY = 20  # labels up to which each one's score is told; of more, the best five

Chances = npt.NDArray[np.float64]


def top_label(
    labels: Sequence[str],
    chances: Chances,
    kind: Kind,
    valid: float,
    *,
    geometry: BaseGeometry | None = None,
    made_of: str = "",
) -> Answer:
    """The label with the highest score, with `p.LABEL` for each, or the best five of many; of equals the first.

    Of labels with the same name `p.LABEL` is the highest.
    """
    rounded = [round(float(chance), DIGITS) for chance in chances]
    best = rounded.index(max(rounded))
    told = range(len(labels)) if len(labels) <= MANY else sorted(range(len(labels)), key=lambda i: (-rounded[i], i))[:5]
    scores: dict[str, float] = {}
    for i in told:  # names may be the same: both cranes of ImageNet are
        scores[labels[i]] = max(rounded[i], scores.get(labels[i], 0.0))
    return Answer(
        label=labels[best],
        geometry=geometry,
        kind=kind,
        score=rounded[best],
        numbers={**{f"p.{label}": score for label, score in scores.items()}, "valid": round(valid, 6)},
        notes={"made_of": made_of} if made_of else {},
    )
