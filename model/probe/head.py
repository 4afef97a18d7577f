"""A probe's head: calibrated class probabilities from an encoder's features. Needs numpy only."""

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ...readers.errors import ModelError
from ...readers.files import write_atomic
from ..checkpoints.untrusted import read_bytes, wrap_errors
from ..scores import require_finite, softmax

LARGEST: Final = 2**28
"""Bytes of a head's file."""

_SMALLEST: Final = 1e-9
"""Standard deviation below which a feature counts as constant."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Head:
    """Standardisation, one or two linear layers with a ReLU between them, and a softmax with a temperature."""

    mean: Values
    """Of the features (dimensions,)."""
    scale: Values
    """Standard deviation of the features (dimensions,)."""
    layers: tuple[tuple[Values, Values], ...]
    """(weights (in, out), bias (out,)); the last has one output for each class."""
    temperature: float = 1.0

    @property
    def dimensions(self) -> int:
        """The number of features."""
        return len(self.mean)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.layers[-1][1])

    def standardise(self, features: npt.ArrayLike) -> Values:
        """Features (n, dimensions) with the training tiles' mean and standard deviation removed; constant ones are 0.

        Raises `ModelError` for another number of features.
        """
        values = np.asarray(features, dtype=np.float64)
        if values.shape[-1] != self.dimensions:
            raise ModelError(
                "features of a tile",
                f"must be {self.dimensions}, as the probe's head takes",
                value=str(values.shape[-1]),
                remedy="Name the encoder that the probe was trained with",
            )
        return np.where(self.scale > _SMALLEST, (values - self.mean) / np.maximum(self.scale, _SMALLEST), 0.0)

    def logits(self, standard: Values) -> Values:
        """Standardised features (n, dimensions) → logits (n, classes), before the temperature."""
        hidden = standard
        for index, (weights, bias) in enumerate(self.layers):
            hidden = (np.maximum(hidden, 0.0) if index else hidden) @ weights + bias
        return hidden

    def probabilities(self, standard: Values) -> Values:
        """Standardised features (n, dimensions) → calibrated probabilities (n, classes). Raises `ModelError`."""
        return softmax(require_finite(self.logits(standard) / self.temperature, "logits", of="head of the probe"))

    def save(self, path: Path) -> str:
        """Write the head as safetensors, float64; returns the file's sha256."""
        from safetensors.numpy import save

        tensors = {"mean": self.mean, "scale": self.scale, "temperature": np.array([self.temperature])}
        for index, (weights, bias) in enumerate(self.layers):
            tensors |= {f"layers.{index}.weight": np.ascontiguousarray(weights), f"layers.{index}.bias": bias}
        content = save(tensors)
        write_atomic(path, content)
        return hashlib.sha256(content).hexdigest()

    @classmethod
    def load(cls, path: Path, sha256: str) -> "Head":
        """Read a head that `save` wrote. Raises `ModelError` where the file is missing, damaged or another."""
        from safetensors.numpy import load

        subject, remedy = f"head {path}", "Train the probe again, or copy its whole folder again"
        content = read_bytes(path, subject, most=LARGEST)
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise ModelError(subject, f"must have the sha256 {sha256}, as its card states", value=found, remedy=remedy)
        with wrap_errors(subject, "must hold a head's tensors", remedy=remedy):
            tensors = {name: np.asarray(tensor, dtype=np.float64) for name, tensor in load(content).items()}
            count = sum(name.endswith(".weight") for name in tensors)
            layers = tuple((tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"]) for i in range(count))
            head = cls(tensors["mean"], tensors["scale"], layers, float(tensors["temperature"].reshape(-1)[0]))
        shapes = [part.shape for part in (head.mean, head.scale, *(bias for _, bias in layers))]
        sizes = [shape[0] for shape in shapes[1:] if len(shape) == 1]
        fits = shapes[0] == shapes[1] and len(sizes) == len(shapes) - 1
        if not layers or not fits or [weights.shape for weights, _ in layers] != list(pairwise(sizes)):
            raise ModelError(subject, "must have layers that fit each other", value=str(sizes), remedy=remedy)
        if not all(np.isfinite(part).all() for part in tensors.values()) or head.temperature <= 0:
            raise ModelError(subject, "must have finite numbers, and a temperature above 0", remedy=remedy)
        return head
