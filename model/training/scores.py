"""How well a classifier does on tiles that it has not seen, and how sure one can be of that.

Intervals are percentile bootstraps (Efron & Tibshirani 1993) over units, not tiles: tiles of one place are alike, and
counting each as new would make intervals too narrow. The calibration error is that of Guo et al. 2017 (arXiv
1706.04599) on ten bins of equal width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.intp]

BINS: Final = 10
RESAMPLES: Final = 2000
SEED: Final = 20


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure, and the 2.5th and 97.5th percentile of its bootstrap."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Scores:
    """Figures of one classifier. `by_class` are (precision, recall, F1) in the classes' order.

    `confusion` (classes, classes) counts tiles: rows are what a tile is, columns what was said.
    """

    accuracy: Interval
    balanced_accuracy: Interval
    macro_f1: Interval
    calibration_error: Interval
    by_class: tuple[tuple[Interval, Interval, Interval], ...]
    confusion: npt.NDArray[np.intp]


def score(chances: Values, classes: Numbers, units: Numbers, weights: Values) -> Scores:
    """Figures of probabilities (n, classes) for tiles of known classes (n,) in units (n,).

    Accuracy, precision, recall and F1 count tiles; the calibration error counts a tile by its weight (n,), the same
    with which the probabilities were fitted.
    """
    count = chances.shape[1]
    said = chances.argmax(axis=1)
    draws = _draws(units)
    cells = _by_unit(units, classes * count + said, np.ones(len(classes)), count * count)
    tables = (draws @ cells).reshape(-1, count, count)
    sure = chances.max(axis=1)
    bins = np.minimum((sure * BINS).astype(np.intp), BINS - 1)
    parts = [
        draws @ _by_unit(units, bins, weights * value, BINS)
        for value in (np.ones(len(sure)), sure, (said == classes).astype(np.float64))
    ]
    return Scores(
        accuracy=_interval(_ratio(np.trace(tables, axis1=1, axis2=2), tables.sum(axis=(1, 2)))),
        balanced_accuracy=_interval(_mean(_recalls(tables))),
        macro_f1=_interval(_mean(_f1(tables))),
        calibration_error=_interval(_ratio(np.abs(parts[1] - parts[2]).sum(axis=1), parts[0].sum(axis=1))),
        by_class=tuple(
            (_interval(_precisions(tables)[:, c]), _interval(_recalls(tables)[:, c]), _interval(_f1(tables)[:, c]))
            for c in range(count)
        ),
        confusion=tables[0].astype(np.intp),
    )


def difference(better: Values, other: Values, classes: Numbers, units: Numbers) -> Interval:
    """How much the accuracy of one classifier's probabilities (n, classes) exceeds another's, on the same tiles."""
    won = (better.argmax(axis=1) == classes).astype(np.float64) - (other.argmax(axis=1) == classes)
    draws = _draws(units)
    gained = (draws @ _by_unit(units, np.zeros(len(units), dtype=np.intp), won, 1))[:, 0]
    tiles = (draws @ _by_unit(units, np.zeros(len(units), dtype=np.intp), np.ones(len(units)), 1))[:, 0]
    return _interval(gained / tiles)


def margins(chances: Values, classes: Numbers, at: Sequence[float]) -> list[tuple[float, float, float]]:
    """(margin, share of tiles that is decided, accuracy of those) for each margin between the two likeliest classes."""
    ranked = np.sort(chances, axis=1)
    margin = ranked[:, -1] - ranked[:, -2]
    right = chances.argmax(axis=1) == classes
    found: list[tuple[float, float, float]] = []
    for least in at:
        decided = margin >= least
        found.append((least, float(decided.mean()), float(right[decided].mean()) if decided.any() else 0.0))
    return found


def balance(classes: Numbers, count: int) -> Values:
    """Weights (n,) of mean 1 by which each of `count` classes counts the same."""
    tiles = np.bincount(classes, minlength=count)
    return len(classes) / (np.count_nonzero(tiles) * tiles[classes])


def _draws(units: Numbers) -> Values:
    """(1 + resamples, units): how often each unit counts; the first row is each once."""
    number = int(units.max()) + 1
    random = np.random.Generator(np.random.PCG64(SEED))
    drawn = random.multinomial(number, np.full(number, 1.0 / number), size=RESAMPLES)
    return np.concatenate([np.ones((1, number)), drawn.astype(np.float64)])


def _by_unit(units: Numbers, cells: Numbers, values: Values, count: int) -> Values:
    """Sums of values (n,) by unit and cell: (units, count)."""
    number = int(units.max()) + 1
    sums = np.bincount(units * count + cells, weights=values, minlength=number * count)
    return sums.astype(np.float64).reshape(number, count)


def _ratio(part: Values, whole: Values) -> Values:
    """The part of the whole, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)


def _recalls(tables: Values) -> Values:
    return _ratio(_hits(tables), tables.sum(axis=2))


def _precisions(tables: Values) -> Values:
    """(resamples, classes): 0 where a class that was there was never said."""
    ratio = _ratio(_hits(tables), tables.sum(axis=1))
    return np.where(np.isnan(ratio) & (tables.sum(axis=2) > 0), 0.0, ratio)


def _f1(tables: Values) -> Values:
    return _ratio(2 * _hits(tables), tables.sum(axis=1) + tables.sum(axis=2))


def _hits(tables: Values) -> Values:
    return np.diagonal(tables, axis1=1, axis2=2)


def _mean(values: Values) -> Values:
    """The mean over the classes that a resample holds."""
    present = ~np.isnan(values)
    return np.where(present, values, 0.0).sum(axis=1) / np.maximum(present.sum(axis=1), 1)


def _interval(values: Values) -> Interval:
    """From a figure's values, the first of which is its own."""
    resampled = values[1:][~np.isnan(values[1:])]
    low, high = np.percentile(resampled, (2.5, 97.5)) if len(resampled) else (values[0], values[0])
    return Interval(float(np.nan_to_num(values[0])), float(np.nan_to_num(low)), float(np.nan_to_num(high)))
