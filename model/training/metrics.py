"""Metrics of a classifier on held-out tiles, with bootstrap intervals.

Intervals are percentile bootstraps (Efron & Tibshirani 1993) over units, not tiles: neighbouring tiles are correlated,
and resampling them one by one would make intervals too narrow. The expected calibration error is that of Guo et al.
2017 (arXiv 1706.04599) with ten bins of equal width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ..probe.card import Interval

Values = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

BINS: Final = 10
RESAMPLES: Final = 2000
SEED: Final = 20


@dataclass(frozen=True, slots=True)
class Metrics:
    """Metrics of one classifier; intervals are the 2.5th and 97.5th percentile of the bootstrap distribution."""

    accuracy: Interval
    balanced_accuracy: Interval
    macro_f1: Interval
    calibration_error: Interval
    by_class: tuple[tuple[Interval, Interval, Interval], ...]
    """(precision, recall, F1) in the order of the classes."""
    confusion: Indices
    """Confusion matrix (classes, classes) of tile counts: rows are true classes, columns predicted ones."""


def compute_metrics(probabilities: Values, classes: Indices, units: Indices, weights: Values) -> Metrics:
    """Metrics of probabilities (n, classes) for tiles of known classes (n,) in units (n,).

    Accuracy, precision, recall and F1 count tiles; the calibration error weights them by `weights` (n,), the weights
    with which the probabilities were fitted.
    """
    count = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    draws = _draws(units)
    cells = _sums_by_unit(units, classes * count + predicted, np.ones(len(classes)), count * count)
    matrices = (draws @ cells).reshape(-1, count, count)
    confidence = probabilities.max(axis=1)
    bins = np.minimum((confidence * BINS).astype(np.intp), BINS - 1)
    weight, confident, correct = (
        draws @ _sums_by_unit(units, bins, weights * value, BINS)
        for value in (np.ones(len(confidence)), confidence, (predicted == classes).astype(np.float64))
    )
    hits, true, called = np.diagonal(matrices, axis1=1, axis2=2), matrices.sum(axis=2), matrices.sum(axis=1)
    recall, f1 = _ratio(hits, true), _ratio(2 * hits, called + true)
    precision = _ratio(hits, called)
    precision = np.where(np.isnan(precision) & (true > 0), 0.0, precision)  # present but never predicted
    by_class = (tuple(_interval(one[:, c]) for one in (precision, recall, f1)) for c in range(count))
    return Metrics(
        accuracy=_interval(_ratio(hits.sum(axis=1), matrices.sum(axis=(1, 2)))),
        balanced_accuracy=_interval(_mean(recall)),
        macro_f1=_interval(_mean(f1)),
        calibration_error=_interval(_ratio(np.abs(confident - correct).sum(axis=1), weight.sum(axis=1))),
        by_class=tuple((p, r, f) for p, r, f in by_class),
        confusion=matrices[0].astype(np.intp),
    )


def accuracy_gain(better: Values, other: Values, classes: Indices, units: Indices) -> Interval:
    """The paired difference in accuracy between two classifiers' probabilities (n, classes) on the same tiles."""
    gained = (better.argmax(axis=1) == classes).astype(np.float64) - (other.argmax(axis=1) == classes)
    draws, single = _draws(units), np.zeros(len(units), dtype=np.intp)
    total, tiles = (draws @ _sums_by_unit(units, single, one, 1)[:, 0] for one in (gained, np.ones(len(units))))
    return _interval(total / tiles)


def margins(probabilities: Values, classes: Indices, at: Sequence[float]) -> list[tuple[float, float, float]]:
    """(margin, share of tiles decided, their accuracy) for each minimum margin between the two most likely classes."""
    ranked = np.sort(probabilities, axis=1)
    margin = ranked[:, -1] - ranked[:, -2]
    correct = probabilities.argmax(axis=1) == classes
    found: list[tuple[float, float, float]] = []
    for least in at:
        decided = margin >= least
        found.append((least, float(decided.mean()), float(correct[decided].mean()) if decided.any() else 0.0))
    return found


def class_weights(classes: Indices, count: int) -> Values:
    """Weights (n,) of mean 1 that give each of `count` classes the same total."""
    tiles = np.bincount(classes, minlength=count)
    return len(classes) / (np.count_nonzero(tiles) * tiles[classes])


def _draws(units: Indices) -> Values:
    """How often each unit is drawn, (1 + resamples, units); the first row is the original sample."""
    number = int(units.max()) + 1
    random = np.random.Generator(np.random.PCG64(SEED))
    resampled = random.multinomial(number, np.full(number, 1.0 / number), size=RESAMPLES)
    return np.concatenate([np.ones((1, number)), resampled.astype(np.float64)])


def _sums_by_unit(units: Indices, cells: Indices, values: Values, count: int) -> Values:
    """Sums of values (n,) by unit and cell: (units, count)."""
    number = int(units.max()) + 1
    sums = np.bincount(units * count + cells, weights=values, minlength=number * count)
    return sums.astype(np.float64).reshape(number, count)


def _ratio(part: Values, whole: Values) -> Values:
    """The ratio, NaN where the denominator is 0."""
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)


def _mean(values: Values) -> Values:
    """The mean over the classes that a resample contains."""
    present = ~np.isnan(values)
    return np.where(present, values, 0.0).sum(axis=1) / np.maximum(present.sum(axis=1), 1)


def _interval(values: Values) -> Interval:
    """The interval of a metric from its values, of which the first is that of the original sample."""
    resampled = values[1:][~np.isnan(values[1:])]
    low, high = np.percentile(resampled, (2.5, 97.5)) if len(resampled) else (values[0], values[0])
    value, low, high = (float(np.nan_to_num(one)) for one in (values[0], low, high))
    return Interval(value=value, low=low, high=high)
