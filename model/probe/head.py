"""A probe's head: from an encoder's features to a probability for each class. Needs nothing but numpy."""

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

MOST: Final = 2**28
"""Bytes of a head's file."""

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
        """Features (n, dimensions) in units of the training tiles' spread; a feature without any becomes 0.

        Raises `ModelError` for another number of features.
        """
        given = np.asarray(features, dtype=np.float64)
        if given.shape[-1] != self.dimensions:
            raise ModelError(
                "features",
                f"the probe's head takes {self.dimensions} of a tile",
                value=str(given.shape[-1]),
                remedy="Name the encoder that the probe was trained with",
            )
        centred = given - self.mean
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
        from safetensors.numpy import save

        tensors = {"mean": self.mean, "scale": self.scale, "temperature": np.array([self.temperature])}
        for place, (weights, bias) in enumerate(self.layers):
            tensors |= {f"layers.{place}.weight": np.ascontiguousarray(weights), f"layers.{place}.bias": bias}
        content = save(tensors)
        write_atomic(path, content)
        return hashlib.sha256(content).hexdigest()

    @classmethod
    def load(cls, path: Path, sha256: str) -> "Head":
        """Read what `save` wrote. Raises `ModelError` where the file is not here, is another, or is damaged."""
        from safetensors.numpy import load

        subject = f"head {path}"
        remedy = "Train the probe again, or get its whole folder from where it was trained"
        content = read_bytes(path, subject, most=MOST)
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise ModelError(subject, f"its sha256 must be {sha256}, as its card says", value=found, remedy=remedy)
        with wrap_errors(subject, "it must hold a head's tensors", remedy=remedy):
            tensors = {name: np.asarray(tensor, dtype=np.float64) for name, tensor in load(content).items()}
            count = sum(name.endswith(".weight") for name in tensors)
            layers = tuple((tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"]) for i in range(count))
            head = cls(tensors["mean"], tensors["scale"], layers, float(tensors["temperature"].reshape(-1)[0]))
        shapes = [part.shape for part in (head.mean, head.scale, *(bias for _, bias in layers))]
        sizes = [part[0] for part in shapes[1:] if len(part) == 1]
        fits = shapes[0] == shapes[1] and len(sizes) == len(shapes) - 1
        if not layers or not fits or [weights.shape for weights, _ in layers] != list(pairwise(sizes)):
            raise ModelError(subject, "its layers must fit each other", value=str(sizes), remedy=remedy)
        if not all(np.isfinite(part).all() for part in tensors.values()) or head.temperature <= 0:
            raise ModelError(subject, "its numbers must be finite, and its temperature above 0", remedy=remedy)
        return head
