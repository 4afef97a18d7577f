"""A probe's head: from an encoder's features to a probability for each class. Needs nothing but numpy."""

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ...readers.errors import ModelError
from ..finite import require_finite

Values = npt.NDArray[np.float64]

_LEAST: Final = 1e-9  # of a standard deviation: a feature that never varies says nothing, and is not divided by 0


@dataclass(frozen=True, slots=True)
class Head:
    """Standardise, then one linear map, or two with max(0, x) between them, then softmax of logits / `temperature`.

    `mean` and `scale` are (dimensions,); `layers` are (weights (in, out), bias (out,)). The last layer has an output a
    class.
    """

    mean: Values
    scale: Values
    layers: tuple[tuple[Values, Values], ...]
    temperature: float = 1.0

    @property
    def dimensions(self) -> int:
        """How many features it takes."""
        return len(self.mean)

    @property
    def classes(self) -> int:
        """How many classes it tells apart."""
        return len(self.layers[-1][1])

    def standard(self, features: npt.ArrayLike) -> Values:
        """Features (n, dimensions) in units of the training tiles' spread; a feature without any becomes 0."""
        centred = np.asarray(features, dtype=np.float64) - self.mean
        return np.where(self.scale > _LEAST, centred / np.maximum(self.scale, _LEAST), 0.0)

    def logits(self, standard: Values) -> Values:
        """Standardised features (n, dimensions) → (n, classes), before the temperature."""
        hidden = standard
        for place, (weights, bias) in enumerate(self.layers):
            hidden = (np.maximum(hidden, 0.0) if place else hidden) @ weights + bias
        return hidden

    def chances(self, standard: Values) -> Values:
        """Standardised features (n, dimensions) → calibrated probabilities (n, classes). Raises `ModelError`."""
        return softmax(require_finite(self.logits(standard) / self.temperature, "logits", of="head of the probe"))

    def save(self, path: Path) -> str:
        """Write it as safetensors, float64; returns the file's sha256."""
        from safetensors.numpy import save  # noqa: PLC0415 - a compiled library, when it is needed

        tensors = {"mean": self.mean, "scale": self.scale, "temperature": np.array([self.temperature])}
        for place, (weights, bias) in enumerate(self.layers):
            tensors |= {f"layers.{place}.weight": np.ascontiguousarray(weights), f"layers.{place}.bias": bias}
        content = save(tensors)
        part = path.with_name(f".part-{path.name}")
        part.write_bytes(content)
        part.replace(path)
        return hashlib.sha256(content).hexdigest()

    @classmethod
    def load(cls, path: Path, sha256: str) -> "Head":
        """Read what `save` wrote. Raises `ModelError` where the file is not here, is another, or is damaged."""
        from safetensors import SafetensorError  # noqa: PLC0415 - as in `save`
        from safetensors.numpy import load  # noqa: PLC0415 - the same

        thing = f"head {path}"
        remedy = "Train the probe again, or get its whole folder from where it was trained"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(thing, "it must be readable", value=str(error), remedy=remedy) from error
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise ModelError(thing, f"its sha256 must be {sha256}, as its card says", value=found, remedy=remedy)
        try:
            tensors = load(content)
            count = sum(name.endswith(".weight") for name in tensors)
            layers = tuple((tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"]) for i in range(count))
            head = cls(tensors["mean"], tensors["scale"], layers, float(tensors["temperature"][0]))
        except (SafetensorError, KeyError, IndexError) as error:
            raise ModelError(thing, "it must hold a head's tensors", value=str(error), remedy=remedy) from error
        sizes = [head.dimensions, *(len(bias) for _, bias in layers)]
        if not layers or [weights.shape for weights, _ in layers] != list(pairwise(sizes)):
            raise ModelError(thing, "its layers must fit each other", value=str(sizes), remedy=remedy)
        return head


def softmax(logits: Values) -> Values:
    """Logits (n, classes) → probabilities (n, classes)."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)
