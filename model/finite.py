"""The one check that what a network says is made of finite numbers, before anything is made of it.

A network with damaged weights, or one that overflows in half precision, answers NaN or infinity. A softmax, an argmax
or a grammar would turn these into an answer like any other: so the check is on the network's own output, before those.
-inf is refused too: no network that limner runs says it of a token or a class (those that bar some use the most
negative finite number), while one that overflows does. Imports no torch: a tensor is known by what it can do. The
softmax of arrays is here too.
"""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..readers.errors import ModelError

REMEDY = "Check its files against their source, or compute in numbers that hold more, such as float32 or bfloat16"
SLACK = 1e-3  # beyond 0 and 1: what sums in half precision make of a score

Values = TypeVar("Values")  # an array, or a tensor on any device
Number = TypeVar("Number", np.float32, np.float64)


def require_finite(values: Values, what: str, *, of: str, at: str = "", remedy: str = REMEDY) -> Values:
    """The values (array or tensor, any shape), once it is sure that each is finite.

    `what` they are, such as "logits"; `of` which network, and `at` where in its work, as errors name them. One
    reduction; only a failure counts. Raises `ModelError`.
    """
    tensor: Any = values
    finite: Any = tensor.isfinite() if hasattr(tensor, "isfinite") else np.isfinite(tensor)
    if bool(finite.all()):
        return values
    nan = int((tensor != tensor).sum())  # noqa: PLR0124 - NaN differs from itself
    counted = {"NaN": nan, "infinity": int((~finite).sum()) - nan}
    found = " and ".join(f"{name} in {count}" for name, count in counted.items() if count)
    place = f" {at}" if at else ""
    size = int(np.prod(tuple(finite.shape)))
    raise ModelError(of, f"its {what} must be finite numbers", value=f"{found} of {size}{place}", remedy=remedy)


def require_choice(scores: Values, *, of: str) -> Values:
    """Scores over classes (…, classes), before a softmax or sigmoid, once it is sure that they are finite and differ.

    Where all are equal the first class would win everywhere. Raises `ModelError`.
    """
    found: Any = require_finite(scores, "scores of classes", of=of)
    if found.shape[-1] > 1 and bool((found == found[..., :1]).all()):
        raise ModelError(
            of,
            "its scores must tell the classes apart",
            value=f"all {found.shape[-1]} are {float(found.reshape(-1)[0]):g}",
            remedy="Check its files: a layer of zeros answers like this",
        )
    return scores


def require_shares(values: Values, *, of: str) -> Values:
    """Scores (any shape), once it is sure that they are finite and from 0 to 1 within `SLACK`. Raises `ModelError`."""
    found: Any = require_finite(values, "scores", of=of)
    low, high = (float(found.min()), float(found.max())) if len(found) else (0.0, 0.0)
    if low < -SLACK or high > 1 + SLACK:
        raise ModelError(
            of,
            "its scores must be from 0 to 1",
            value=f"{low:g} to {high:g}",
            remedy="Export it with its last softmax or sigmoid, or write a model card, which can take logits",
        )
    return values


def softmax(logits: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """Probabilities of classes (…, classes), of which one holds, from logits of which one at least is finite.

    In the logits' own type; large ones do not overflow, and -inf is a probability of 0.
    """
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
