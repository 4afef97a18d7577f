"""Scores of networks: check that they are finite and mean something, and make probabilities and labels of them.

A network with damaged weights, or one that overflows in half precision, returns NaN or infinity. A softmax, an argmax
or a grammar would turn these into an answer like any other, so the network's own output is checked before those. -inf
is refused too: networks that mask tokens or classes use the most negative finite number, while one that overflows
returns -inf. Imports no torch: tensors are recognised by their methods.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from shapely.geometry.base import BaseGeometry

from ..readers.errors import ModelError
from .annotator import Answer
from .finding import Kind

SCORE_DIGITS = 4  # differences between machines and numbers of threads are smaller
_HALF, _LARGE = 0.5 - 1e-6, 1e9  # of the last digit: what is nearer to a half, or so large, is rounded one by one
MAX_LISTED = 20  # up to so many labels each one's score is listed; of more, the best five
TOLERANCE = 1e-3  # outside 0 to 1: the error of sums in half precision

Values = TypeVar("Values")  # an array, or a tensor on any device
Number = TypeVar("Number", np.float32, np.float64)
Scores = npt.NDArray[np.float64]


def require_finite(
    values: Values,
    what: str,
    *,
    of: str,
    at: str = "",
    remedy: str = "Check its files against their source, or compute in float32 or bfloat16, which overflow later",
) -> Values:
    """Return an array or tensor of any shape once each value is known to be finite. Raises `ModelError`.

    Errors name the values (`what`, such as "logits"), the network (`of`) and the place in its work (`at`).
    """
    tensor: Any = values
    finite: Any = tensor.isfinite() if hasattr(tensor, "isfinite") else np.isfinite(tensor)
    if bool(finite.all()):
        return values
    nan = int((tensor != tensor).sum())  # noqa: PLR0124 - NaN differs from itself
    counts = {"NaN": nan, "infinity": int((~finite).sum()) - nan}
    found = " and ".join(f"{name} in {count}" for name, count in counts.items() if count)
    value = f"{found} of {int(np.prod(tuple(finite.shape)))}{f' {at}' if at else ''}"
    raise ModelError(of, f"must have finite {what}", value=value, remedy=remedy)


def require_distinct(scores: Values, *, of: str) -> Values:
    """Return scores over classes (…, classes), before softmax or sigmoid, once they are finite and differ.

    Where all are equal the first class would win everywhere. Raises `ModelError`.
    """
    found: Any = require_finite(scores, "scores of classes", of=of)
    if found.shape[-1] > 1 and bool((found == found[..., :1]).all()):
        value = f"all {found.shape[-1]} are {float(found.reshape(-1)[0]):g}"
        remedy = "Check its files: a layer of zeros returns such scores"
        raise ModelError(of, "must tell the classes apart", value=value, remedy=remedy)
    return scores


def require_probabilities(values: Values, *, of: str) -> Values:
    """Return scores (any shape) once they are finite and from 0 to 1 within `TOLERANCE`. Raises `ModelError`."""
    found: Any = values
    low, high = (float(found.min()), float(found.max())) if len(found) else (0.0, 0.0)
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # or there is NaN
        require_finite(values, "scores", of=of)
        remedy = "Export it with its last softmax or sigmoid, or write a model card, which can take logits"
        raise ModelError(of, "must return scores from 0 to 1", value=f"{low:g} to {high:g}", remedy=remedy)
    return values


def softmax(logits: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """Probabilities of exclusive classes from logits (…, classes), of which one at least is finite.

    In the logits' own type; large logits do not overflow, and -inf is a probability of 0.
    """
    powers = np.subtract(logits, logits.max(axis=-1, keepdims=True))
    np.exp(powers, out=powers)
    powers /= powers.sum(axis=-1, keepdims=True)
    return powers


def round_scores(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scores (N,) rounded to `SCORE_DIGITS` exactly as Python's `round` does it, whose results are in files."""
    scaled = scores * 10**SCORE_DIGITS
    whole = np.round(scaled)
    rounded = whole / 10**SCORE_DIGITS
    for place in np.flatnonzero((np.abs(scaled - whole) > _HALF) | (np.abs(scaled) > _LARGE)).tolist():
        rounded[place] = round(float(scores[place]), SCORE_DIGITS)
    return rounded


def sigmoid(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Probabilities of independent classes from logits."""
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def top_label(
    labels: Sequence[str],
    scores: Scores,
    kind: Kind,
    valid: float,
    *,
    geometry: BaseGeometry | None = None,
    made_of: str = "",
) -> Answer:
    """The label with the highest score (the first of equals), with `p.LABEL` for each, or the best five of many.

    `valid` is the share of the tile or region that counts. Of labels with the same name, `p.LABEL` is the highest.
    """
    rounded = [round(float(score), SCORE_DIGITS) for score in scores]
    best = rounded.index(max(rounded))
    order = sorted(range(len(labels)), key=lambda i: (-rounded[i], i))[:5]
    listed: dict[str, float] = {}
    for i in range(len(labels)) if len(labels) <= MAX_LISTED else order:
        listed[labels[i]] = max(rounded[i], listed.get(labels[i], 0.0))  # ImageNet has two classes called crane
    return Answer(
        label=labels[best],
        geometry=geometry,
        kind=kind,
        score=rounded[best],
        numbers={**{f"p.{label}": score for label, score in listed.items()}, "valid": round(valid, 6)},
        notes={"made_of": made_of} if made_of else {},
    )
