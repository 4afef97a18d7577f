"""Stains of a slide: how much eosin and haematoxylin a pixel holds, by what the whole slide's colours say.

The two stains' colours are found with the method of Macenko et al. 2009 ("A method for normalizing histology slides
for quantitative analysis", ISBI), once a slide from its overview, so that one gland looks the same in every tile.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from ...readers.errors import ModelError
from ...readers.image import Mask
from ..scores import require_finite

Values = npt.NDArray[np.float64]
Vector = tuple[float, float, float]

_FAINT: Final = 0.15  # optical density: fainter pixels say nothing of a stain's colour
_EXTREMES: Final = (1.0, 99.0)  # percentiles: of angles, and of what becomes 0 and 1
_LEAST: Final = 500  # stained pixels that colours can be judged from
_GLASS: Final = (0.83, 0.12)  # lit glass is brighter than this share of white, and less saturated
_WHITE: Final = 240.0  # where a slide shows too little glass
_LIT: Final = 0.35  # of white: a picture that is mostly darker is dark field
_APART: Final = 0.02  # radians between the two colours: closer ones are one stain


@dataclass(frozen=True, slots=True)
class Stain:
    """Red, green and blue of 8 bits → eosin, haematoxylin and optical density, each 0 to 1.

    `white` is the light that passes glass, 0 to 255. Optical density is -log10(value / white), value from 1 to `white`;
    `eosin` and `haematoxylin` weigh its three channels into concentrations. `low` and `high` become 0 and 1, in the
    order eosin, haematoxylin, optical density (the mean over channels). `source` says what it was judged from.
    """

    white: float
    eosin: Vector
    haematoxylin: Vector
    low: Vector
    high: Vector
    source: str

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(…, 3) uint8 red, green, blue → (…, 3) float32 eosin, haematoxylin, optical density, 0 to 1."""
        amounts = _density(pixels, self.white) @ _weights(self.eosin, self.haematoxylin)
        low, high = np.asarray(self.low), np.asarray(self.high)
        return np.clip((amounts - low) / (high - low), 0.0, 1.0).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Plain values that `json` writes; numbers keep every bit."""
        vectors = {key: list(getattr(self, key)) for key in ("eosin", "haematoxylin", "low", "high")}
        return {"white": self.white, **vectors, "source": self.source}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        vectors = {key: _vector(np.asarray(record[key])) for key in ("eosin", "haematoxylin", "low", "high")}
        return cls(white=record["white"], source=record["source"], **vectors)


def fit_stain(pixels: npt.NDArray[np.uint8], tissue: Mask, valid: Mask) -> Stain:
    """The stain of a slide from its overview: (H, W, 3) uint8, where there is tissue, and where pixels are valid.

    Raises `ModelError` in dark field, where too little is stained, or with one stain only.
    """
    seen = pixels[valid].reshape(-1, 3)
    brightest = seen.max(axis=1, initial=0)
    if seen.size and float(np.median(brightest)) < _LIT * 255:
        raise ModelError(
            "stain",
            "the slide must be lit from behind: stained tissue on bright glass",
            value=f"half of its pixels are darker than {np.median(brightest):.0f} of 255",
            remedy="This model is for H&E only",
        )
    spread = brightest - seen.min(axis=1, initial=255)
    glass = (brightest > _GLASS[0] * 255) & (spread < _GLASS[1] * brightest) & (seen.min(axis=1, initial=255) < 255)
    enough = int(glass.sum()) >= _LEAST
    white = float(np.clip(seen[glass].mean(dtype=np.float64), 200.0, 255.0)) if enough else _WHITE
    colours = _colours(_density(pixels[valid & tissue], white))
    inverse = np.linalg.inv(np.stack([*colours, np.cross(*colours)], axis=1))
    haematoxylin, eosin = _vector(inverse[0]), _vector(inverse[1])
    amounts = _density(seen, white) @ _weights(eosin, haematoxylin)
    low, high = require_finite(np.percentile(amounts, _EXTREMES, axis=0), "amounts", of="stain")
    return Stain(
        white=white,
        eosin=eosin,
        haematoxylin=haematoxylin,
        low=_vector(low),
        high=_vector(np.maximum(high, low + 1e-6)),
        source=f"Macenko 2009 on {int((valid & tissue).sum())} overview pixels of tissue, "
        f"glass {'measured' if enough else 'assumed'} at {white:.1f}",
    )


def _density(pixels: npt.NDArray[np.uint8], white: float) -> Values:
    """Optical density (…, 3)."""
    return -np.log10(np.clip(pixels.astype(np.float64), 1.0, white) / white)


def _weights(eosin: Vector, haematoxylin: Vector) -> Values:
    """(3 channels, 3 amounts): what an amount takes of each channel's density."""
    return np.stack([eosin, haematoxylin, (1 / 3, 1 / 3, 1 / 3)], axis=1)


def _colours(density: Values) -> tuple[Values, Values]:
    """The unit vectors of haematoxylin and eosin in optical density, from stained pixels (N, 3).

    The pixels' densities lie near a plane; the stains are its extreme directions. Haematoxylin, which is blue, absorbs
    more red.
    """
    _, _, axes = np.linalg.svd(density.T @ density)
    plane = axes[:2] * np.sign(axes[:2].sum(axis=1, keepdims=True))
    flat = density @ plane.T
    flat = flat[np.hypot(flat[:, 0], flat[:, 1]) > _FAINT]
    if len(flat) < _LEAST:
        raise ModelError(
            "stain",
            f"at least {_LEAST} overview pixels of tissue must be stained",
            value=str(len(flat)),
            remedy="Check that the slide is H&E, and its tissue mask",
        )
    first, last = np.percentile(np.arctan2(flat[:, 1], flat[:, 0]), _EXTREMES)
    if last - first < _APART:
        raise ModelError(
            "stain",
            "the slide must hold two stains of different colour",
            value=f"{np.degrees(last - first):.2f}° apart",
            remedy="This model is for H&E only",
        )
    both = [np.cos(angle) * plane[0] + np.sin(angle) * plane[1] for angle in (first, last)]
    haematoxylin, eosin = sorted(both, key=lambda colour: -float(colour[0]))
    return haematoxylin, eosin


def _vector(values: npt.NDArray[Any]) -> Vector:
    return float(values[0]), float(values[1]), float(values[2])
