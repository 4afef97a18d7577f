"""Fit a classification head on frozen features, with nested cross-validation over spatial units.

For each fold the strength of the regularisation is chosen on the other folds, each held out in turn; the head is fitted
with it and predicts the fold. The temperature that calibrates a fold is fitted on the logits of the other folds
(Guo et al. 2017, arXiv 1706.04599). The final head is fitted on all tiles in the same way. Classes are weighted
equally, whatever their numbers of tiles: probabilities assume equal class frequencies.
"""

# scikit-learn has no types:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import warnings
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from importlib import import_module
from math import comb
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ...readers.errors import RequestError
from ...readers.plugins import missing_packages, require_extra
from ..probe.head import Head
from ..scores import softmax
from .metrics import Indices, Values, class_weights

HeadKind = Literal["linear", "mlp"]

STRENGTHS: Final = {
    "linear": (1e2, 1e1, 1.0, 1e-1, 1e-2, 1e-3, 1e-4),
    "mlp": (1e2, 1e1, 1.0, 1e-1),
}
"""L2 regularisation strengths that are tried, strongest first."""

WORSE_STRENGTHS: Final = 2
"""Successive strengths with a larger loss after which weaker ones are not tried."""
HIDDEN: Final = 64
SEED: Final = 20
_NEEDS: Final = ("train", "limner train probe")
_ALTERNATIVE: Final = "running a trained probe needs none of it"
_TEMPERATURES: Final = np.geomspace(0.25, 8.0, 201)  # far from 1 it would fit scale differences between folds


def number_units(members: Sequence[Sequence[Hashable]]) -> Indices:
    """The unit of each tile (n,), numbered from 0 in order of appearance.

    `members` are the groups (outlines, blocks, images) of each tile. Groups that share a tile are one unit.
    """
    parent: dict[Hashable, Hashable] = {}

    def root(group: Hashable) -> Hashable:
        while parent.setdefault(group, group) != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    for groups in members:
        for other in groups[1:]:
            parent[root(other)] = root(groups[0])
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(root(groups[0]), len(numbers)) for groups in members], dtype=np.intp)


def assign_folds(units: Indices, classes: Indices, names: Sequence[str], *, folds: int, unit: str) -> Indices:
    """The fold of each tile (n,), 0 to `folds` - 1; deterministic. All tiles of a unit are in one fold.

    Rare classes are dealt first, large units before small ones, each to the fold that has fewest tiles of its class.
    Raises `RequestError` for a class in fewer units than there are folds: it would be missing from a fold, and two
    folds at a time are held out. `unit` names the units in errors.
    """
    if folds < 3:
        raise RequestError(
            "--folds",
            "must be 3 or more: one fold is held out, one selects the regularisation, the others train",
            value=str(folds),
            remedy="Give --folds 3 or more",
        )
    counts: dict[int, Counter[int]] = defaultdict(Counter)
    for number, one in zip(units.tolist(), classes.tolist(), strict=True):
        counts[number][one] += 1
    per_class = Counter(one for count in counts.values() for one in count)
    for one, name in enumerate(names):
        if per_class[one] < folds:
            fewer = f", or give --folds {per_class[one]}" if per_class[one] >= 3 else ""
            smaller = ", or divide large outlines into blocks, such as --block 500m" if unit == "outline" else ""
            smaller = ", or give a smaller --block" if unit == "block" else smaller
            raise RequestError(
                f"class {name!r}",
                f"must lie in at least as many {unit}s as there are folds, so that each can be held out in turn",
                value=f"{per_class[one]} for {folds} folds",
                remedy=f"Outline it in more places{fewer}{smaller}",
            )
    rarity = {one: (per_class[one], one) for one in per_class}
    order = sorted(counts, key=lambda u: (min(rarity[c] for c in counts[u]), -sum(counts[u].values()), u))
    held = np.zeros((folds, len(names)))
    fold_of: dict[int, int] = {}
    for number in order:
        rarest = min(counts[number], key=lambda c: rarity[c])
        chosen = min(range(folds), key=lambda f: (held[f, rarest], held[f].sum(), f))
        fold_of[number] = chosen
        for one, tiles in counts[number].items():
            held[chosen, one] += tiles
    return np.array([fold_of[number] for number in units.tolist()], dtype=np.intp)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted head and its held-out predictions."""

    head: Head
    """Fitted on all tiles."""
    uncalibrated: Values
    """Held-out probabilities (n, classes) before temperature scaling."""
    probabilities: Values
    """Held-out probabilities (n, classes) after temperature scaling."""
    strength: float
    """Regularisation of `head`."""
    chosen: tuple[float, ...]
    """Regularisation that was chosen for each fold."""


def fit_head(features: npt.NDArray[Any], classes: Indices, folds: Indices, *, count: int, kind: HeadKind) -> Fitted:
    """Fit a head on features (n, dimensions) of tiles of known classes (n,), 0 to `count` - 1, in folds (n,).

    Deterministic: runs on one thread, so that sums are computed in the same order on any number of cores. Each class
    must be in at least three folds (see `assign_folds`). Raises `RequestError` where scikit-learn is not installed.
    """
    with _thread_limit()(1):
        return _cross_validate(np.asarray(features, dtype=np.float64), classes, folds, count, kind)


def check_installed() -> None:
    """Raise `RequestError` where a package that fits heads is not installed, with the command that installs it."""
    require_extra(*_NEEDS, otherwise=_ALTERNATIVE)


def max_fits(folds: int, kind: HeadKind) -> int:
    """The largest number of heads that `fit_head` fits for so many folds."""
    return len(STRENGTHS[kind]) * (folds + comb(folds, 2)) + 1


def temperature(logits: Values, classes: Indices, count: int) -> float:
    """The temperature that maximises the likelihood of logits (n, classes), with classes weighted equally."""
    weights = class_weights(classes, count)
    rows = np.arange(len(classes))

    def loss(one: float) -> float:
        return float((weights * -np.log(np.maximum(softmax(logits / one)[rows, classes], 1e-300))).mean())

    return float(min(_TEMPERATURES, key=lambda one: loss(float(one))))


def _cross_validate(features: Values, classes: Indices, folds: Indices, count: int, kind: HeadKind) -> Fitted:
    number = int(folds.max()) + 1
    heads: dict[tuple[frozenset[int], float], Head] = {}

    def head_without(held_out: frozenset[int], strength: float) -> Head:
        if (held_out, strength) not in heads:
            rows = ~np.isin(folds, list(held_out))
            heads[held_out, strength] = _fit(features[rows], classes[rows], count, kind, strength)
        return heads[held_out, strength]

    def validation_loss(without: set[int], strength: float) -> float:
        """The mean loss over every fold that is not in `without`, each held out in turn."""
        losses: list[float] = []
        for fold in (fold for fold in range(number) if fold not in without):
            head, here = head_without(frozenset({*without, fold}), strength), folds == fold
            losses.append(_loss(head, features[here], classes[here]))
        return float(np.mean(losses))

    def best_strength(without: set[int]) -> float:
        """The strength with the least validation loss, the strongest of equals."""
        losses: dict[float, float] = {}
        for strength in STRENGTHS[kind]:
            losses[strength] = validation_loss(without, strength)
            if min(list(losses.values())[-WORSE_STRENGTHS:]) > min(losses.values()):
                break
        return min(losses, key=lambda strength: (losses[strength], -strength))

    chosen = tuple(best_strength({fold}) for fold in range(number))
    logits = np.empty((len(features), count))
    for fold, strength in enumerate(chosen):
        head = head_without(frozenset({fold}), strength)
        logits[folds == fold] = head.logits(head.standardise(features[folds == fold]))
    probabilities = np.empty_like(logits)
    for fold in range(number):
        others, here = folds != fold, folds == fold
        probabilities[here] = softmax(logits[here] / temperature(logits[others], classes[others], count))
    strength = best_strength(set())
    whole = _fit(features, classes, count, kind, strength)
    head = Head(whole.mean, whole.scale, whole.layers, temperature(logits, classes, count))
    return Fitted(head, softmax(logits), probabilities, strength, chosen)


def _loss(head: Head, features: Values, classes: Indices) -> float:
    """The mean negative log-likelihood, with classes weighted equally."""
    likelihoods = softmax(head.logits(head.standardise(features)))[np.arange(len(classes)), classes]
    return float(np.average(-np.log(np.maximum(likelihoods, 1e-12)), weights=class_weights(classes, head.classes)))


def _fit(features: Values, classes: Indices, count: int, kind: HeadKind, strength: float) -> Head:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    mean, scale = features.mean(axis=0), features.std(axis=0)
    standard = Head(mean, scale, ()).standardise(features)
    basis: Values | None = None
    if kind == "linear" and features.shape[1] > len(features):  # fit in the subspace that the tiles span
        basis = np.linalg.svd(standard, full_matrices=False)[2].T
        standard = standard @ basis
    tiles = len(classes)
    model: Any
    if kind == "linear":
        model = LogisticRegression(C=1.0 / (strength * tiles), max_iter=500, tol=1e-5)
    else:
        settings: dict[str, Any] = {"batch_size": min(64, tiles), "max_iter": 200, "random_state": SEED}
        model = MLPClassifier((HIDDEN,), alpha=strength, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about convergence: validation judges the result
        model.fit(standard, classes, sample_weight=class_weights(classes, count))
    weights, biases = ([model.coef_.T], [model.intercept_]) if kind == "linear" else (model.coefs_, model.intercepts_)
    layers = [
        (np.asarray(weight, dtype=np.float64), np.asarray(bias, dtype=np.float64))
        for weight, bias in zip(weights, biases, strict=True)
    ]
    weight, bias = layers[-1]
    if len(bias) == 1:  # of two classes scikit-learn keeps only the second logit
        layers[-1] = (np.concatenate([0 * weight, weight], axis=1), np.concatenate([0 * bias, bias]))
    return Head(mean, scale, tuple(layers) if basis is None else ((basis @ layers[0][0], layers[0][1]),))


def _thread_limit() -> Any:
    """The limiter of threadpoolctl; the libraries that it limits must be loaded first."""
    try:
        from threadpoolctl import threadpool_limits

        for name in ("sklearn.linear_model", "sklearn.neural_network"):
            import_module(name)
    except ImportError as error:
        raise missing_packages(*_NEEDS, [error.name or "scikit-learn"], otherwise=_ALTERNATIVE) from error
    return threadpool_limits
