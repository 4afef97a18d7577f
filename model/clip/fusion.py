"""Fusion across tiles: the tiles of a region and its global view see each other, without training.

The method is scaled dot-product attention (arXiv 1706.03762) with no learnt weights: queries, keys and values are the
features themselves. A tile that resembles its neighbours is drawn towards them; one that resembles nothing stays.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

Features = npt.NDArray[np.float64]

SCALE: Final = 10.0
MIX: Final = 0.5


@dataclass(frozen=True, slots=True)
class Fusion:
    """How much tiles listen: `mix` of a tile's features are replaced by the attended mean, cosines times `scale`."""

    scale: float = SCALE
    mix: float = MIX

    @classmethod
    def parse(cls, text: str) -> "Fusion | None":
        """The option `fusion` of an annotator: "off" → None, "attention", or "attention,SCALE,MIX" for other numbers.

        Raises `ValueError` for anything else.
        """
        if text == "off":
            return None
        name, *numbers = text.split(",")
        found = None
        with suppress(ValueError):
            found = cls(*map(float, numbers)) if name == "attention" and len(numbers) in {0, 2} else None
        if found is None or not (found.scale >= 0 and 0 <= found.mix <= 1):
            msg = "it is off, attention, or attention,SCALE,MIX with SCALE 0 or more and MIX from 0 to 1"
            raise ValueError(msg)
        return found

    def words(self) -> str:
        """What a manifest says of it."""
        return f"attention, cosines times {self.scale:g}, {self.mix:g} of the features"

    def __call__(self, tiles: Features, overall: Features | None = None) -> Features:
        """Features (n, dimensions) of a region's tiles, and (dimensions,) of its global view → the tiles' (n, …).

        Each tile attends to all tiles, itself included, and to the global view where there is one. The result does not
        depend on the tiles' order, and a region of one tile without a global view comes back as it was.
        """
        if not len(tiles):
            return tiles
        seen = tiles if overall is None else np.concatenate([tiles, overall[None]])
        directions = unit(seen)
        logits = self.scale * (directions[: len(tiles)] @ directions.T)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        return (1.0 - self.mix) * tiles + self.mix * (weights @ seen)


def _checked(text: str) -> str:
    Fusion.parse(text)
    return text


FusionText = Annotated[
    str,
    AfterValidator(_checked),
    Field(description="attention lets the tiles of a region see each other; attention,SCALE,MIX says how much."),
]
"""The option `fusion`."""


def unit(features: Features) -> Features:
    """Features (n, dimensions) of length 1 each; what has no length stays."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.divide(features, lengths, out=np.zeros_like(features), where=lengths > 0)
