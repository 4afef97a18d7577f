"""Training-free fusion of the features of a region's tiles and its global view.

The method is scaled dot-product attention (arXiv 1706.03762) without learnt weights: queries, keys and values are the
features themselves. Tiles with similar features are averaged; a tile that resembles no other keeps its own.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

from ..scores import softmax

Features = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fusion:
    """Attention over the tiles of a region."""

    scale: float = 10.0
    """Factor on the cosine similarities."""
    mix: float = 0.5
    """Share of a tile's features that is replaced by the attention-weighted mean."""

    @classmethod
    def parse(cls, text: str) -> "Fusion | None":
        """Parse the option `fusion`: "off" → None, "attention", or "attention,SCALE,MIX". Raises `ValueError`."""
        if text == "off":
            return None
        name, *numbers = text.split(",")
        found = None
        with suppress(ValueError):
            found = cls(*map(float, numbers)) if name == "attention" and len(numbers) in {0, 2} else None
        if found is None or not (found.scale >= 0 and 0 <= found.mix <= 1):
            msg = "must be off, attention, or attention,SCALE,MIX with SCALE 0 or more and MIX from 0 to 1"
            raise ValueError(msg)
        return found

    def __str__(self) -> str:
        return f"attention, cosines times {self.scale:g}, {self.mix:g} of the features"

    def __call__(self, tiles: Features, overall: Features | None = None) -> Features:
        """Fuse the features (n, dimensions) of a region's tiles with those (dimensions,) of its global view.

        Each tile attends to all tiles, itself included, and to the global view. The result (n, dimensions) does not
        depend on the order of the tiles.
        """
        if not len(tiles):
            return tiles
        features = tiles if overall is None else np.concatenate([tiles, overall[None]])
        directions = normalise(features)
        weights = softmax(self.scale * (directions[: len(tiles)] @ directions.T))
        return (1.0 - self.mix) * tiles + self.mix * (weights @ features)


def normalise(features: Features) -> Features:
    """Features (n, dimensions) scaled to length 1; zero vectors stay."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.divide(features, lengths, out=np.zeros_like(features), where=lengths > 0)


def _checked(text: str) -> str:
    Fusion.parse(text)
    return text


FusionText = Annotated[
    str,
    AfterValidator(_checked),
    Field(description="Fusion across the tiles of a region: off, attention, or attention,SCALE,MIX."),
]
"""The option `fusion` of an annotator."""
