"""Fitting a head on frozen features: regularisation, calibration and figures all from folds that it has not seen.

Folds are nested. For each fold the strength of the regularisation is chosen on the other folds, each held out in turn,
the head fitted with it, and the fold predicted; the temperature of a fold's logits is fitted on the other folds'
(Guo et al. 2017, arXiv 1706.04599). The head that is kept is fitted on all tiles, in the same way. Classes count the
same, whatever their numbers of tiles, so probabilities are those of a place where each class is as frequent.
"""

# scikit-learn has no types:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import warnings
from dataclasses import dataclass
from importlib import import_module
from itertools import combinations
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ...readers.plugins import missing_packages, require_extra
from ..probe.head import Head
from ..scores import softmax
from .scores import balance

Values = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.intp]
HeadKind = Literal["linear", "mlp"]

STRENGTHS: Final = {
    "linear": (1e2, 1e1, 1.0, 1e-1, 1e-2, 1e-3, 1e-4),
    "mlp": (1e2, 1e1, 1.0, 1e-1),
}
"""What is tried, the strongest first: weights of the squared length of a head's weights, as a share of the loss."""

PATIENCE: Final = 2
HIDDEN: Final = 64
SEED: Final = 20
_NEEDS: Final = ("train", "limner train probe")  # the extra, and what needs it
_UNLIKE: Final = "running a trained probe needs none of it"
_TEMPERATURES: Final = np.geomspace(0.25, 8.0, 201)  # far from 1 it would be folds of unlike scale, not sureness


@dataclass(frozen=True, slots=True)
class Fitted:
    """A head, and what it says of tiles that it had not seen.

    `before` and `chances` (n, classes) are the held-out probabilities without and with a temperature, `strength` the
    regularisation of the head that is kept, `chosen` that of each fold.
    """

    head: Head
    before: Values
    chances: Values
    strength: float
    chosen: tuple[float, ...]


def fit(features: npt.NDArray[Any], classes: Numbers, folds: Numbers, *, count: int, kind: HeadKind) -> Fitted:
    """Fit a head on features (n, dimensions) of tiles of known classes (n,), 0 to `count` - 1, in folds (n,).

    Deterministic, and on one thread: sums then come in the same order on any number of cores, and so small ones are
    no quicker on several. Each class must be in at least three folds (see `assign_folds`). Raises `RequestError` where
    the package scikit-learn is not installed.
    """
    limits = _limits()
    with limits(1):
        return _nested(features, classes, folds, count=count, kind=kind)


def _nested(features: npt.NDArray[Any], classes: Numbers, folds: Numbers, *, count: int, kind: HeadKind) -> Fitted:
    values = np.asarray(features, dtype=np.float64)
    number = int(folds.max()) + 1
    heads: dict[tuple[frozenset[int], float], Head] = {}

    def held_out(without: frozenset[int], strength: float) -> Head:
        if (without, strength) not in heads:
            rows = ~np.isin(folds, list(without))
            heads[without, strength] = _fit(values[rows], classes[rows], count, kind, strength)
        return heads[without, strength]

    def loss(of: set[int], strength: float) -> float:
        """The loss of a strength on every fold but `of`, each held out in turn."""
        rest = [fold for fold in range(number) if fold not in of]
        heads = [held_out(frozenset({*of, fold}), strength) for fold in rest]
        seen = [(values[folds == fold], classes[folds == fold]) for fold in rest]
        return float(np.mean([_loss(head, *one) for head, one in zip(heads, seen, strict=True)]))

    def best(of: set[int]) -> float:
        """The strength of the least loss, the strongest of equals; weaker ones are not tried once two were worse."""
        found: dict[float, float] = {}
        for strength in STRENGTHS[kind]:
            found[strength] = loss(of, strength)
            if min(list(found.values())[-PATIENCE:]) > min(found.values()):
                break
        return min(found, key=lambda strength: (found[strength], -strength))

    chosen = tuple(best({fold}) for fold in range(number))
    logits = np.empty((len(values), count))
    for fold, strength in enumerate(chosen):
        head = held_out(frozenset({fold}), strength)
        logits[folds == fold] = head.logits(head.standard(values[folds == fold]))
    chances = np.empty_like(logits)
    for fold in range(number):
        others, here = folds != fold, folds == fold
        chances[here] = softmax(logits[here] / temperature(logits[others], classes[others], count))
    strength = best(set())
    whole = _fit(values, classes, count, kind, strength)
    kept = Head(whole.mean, whole.scale, whole.layers, temperature(logits, classes, count))
    return Fitted(kept, softmax(logits), chances, strength, chosen)


def temperature(logits: Values, classes: Numbers, count: int) -> float:
    """What to divide logits (n, classes) by, so that their probabilities are likeliest; each class counts the same."""
    weights = balance(classes, count)
    rows = np.arange(len(classes))

    def loss(one: float) -> float:
        return float((weights * -np.log(np.maximum(softmax(logits / one)[rows, classes], 1e-300))).mean())

    return float(min(_TEMPERATURES, key=lambda one: loss(float(one))))


def _loss(head: Head, features: Values, classes: Numbers) -> float:
    """The mean over the classes of the mean negative log-likelihood of their tiles; each class counts the same."""
    chances = softmax(head.logits(head.standard(features)))[np.arange(len(classes)), classes]
    return float(np.average(-np.log(np.maximum(chances, 1e-12)), weights=balance(classes, head.classes)))


def _fit(features: Values, classes: Numbers, count: int, kind: HeadKind, strength: float) -> Head:
    mean, scale = features.mean(axis=0), features.std(axis=0)
    standard = Head(mean, scale, ()).standard(features)
    turn: Values | None = None
    if kind == "linear" and features.shape[1] > len(features):  # fewer tiles than features: only what they span counts
        turn = np.linalg.svd(standard, full_matrices=False)[2].T
        standard = standard @ turn
    taught = _learner(kind, strength, len(classes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rounds that ran out: the folds judge the result
        taught.fit(standard, classes, sample_weight=balance(classes, count))
    layers = _layers(taught, kind)
    return Head(mean, scale, layers if turn is None else ((turn @ layers[0][0], layers[0][1]),))


def check_installed() -> None:
    """Raise `RequestError` where a package that fits heads is not installed, with how to install it."""
    require_extra(*_NEEDS, otherwise=_UNLIKE)


def _learner(kind: HeadKind, strength: float, tiles: int) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    if kind == "linear":
        return LogisticRegression(C=1.0 / (strength * tiles), max_iter=500, tol=1e-5)
    settings: dict[str, Any] = {"batch_size": min(64, tiles), "max_iter": 200, "random_state": SEED}
    return MLPClassifier((HIDDEN,), alpha=strength, **settings)


def _limits() -> Any:
    """What limits threads, once the libraries that have some are loaded."""
    try:
        from threadpoolctl import threadpool_limits

        for name in ("sklearn.linear_model", "sklearn.neural_network"):
            import_module(name)
    except ImportError as error:
        raise missing_packages(*_NEEDS, [error.name or "scikit-learn"], otherwise=_UNLIKE) from error
    return threadpool_limits


def _layers(taught: Any, kind: HeadKind) -> tuple[tuple[Values, Values], ...]:
    """Its layers as a head has them: of two classes scikit-learn keeps the second's logit alone."""
    if kind == "linear":
        layers = [(np.asarray(taught.coef_, dtype=np.float64).T, np.asarray(taught.intercept_, dtype=np.float64))]
    else:
        layers = [
            (np.asarray(weights, dtype=np.float64), np.asarray(bias, dtype=np.float64))
            for weights, bias in zip(taught.coefs_, taught.intercepts_, strict=True)
        ]
    weights, bias = layers[-1]
    if len(bias) == 1:
        layers[-1] = (np.concatenate([0 * weights, weights], axis=1), np.concatenate([0 * bias, bias]))
    return tuple(layers)


def fits(folds: int, kind: HeadKind) -> int:
    """How many heads are fitted for so many folds at most: what the wait is made of."""
    return len(STRENGTHS[kind]) * (folds + len(list(combinations(range(folds), 2)))) + 1
