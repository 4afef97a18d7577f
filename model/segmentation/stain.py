"""Stain separation: convert the colours of an H&E slide to amounts of eosin and haematoxylin.

The two stains' colours are found by the method of Macenko et al. 2009 ("A method for normalizing histology slides for
quantitative analysis", ISBI), once per slide on its overview, so that one gland looks the same in every tile.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from ...readers.errors import ModelError
from ...readers.image import Mask
from ..scores import require_finite

Values = npt.NDArray[np.float64]
Vector = tuple[float, float, float]

_MIN_DENSITY: Final = 0.15  # optical density: fainter pixels tell nothing of a stain's colour
_EXTREMES: Final = (1.0, 99.0)  # percentiles: of angles, and of the values that become 0 and 1
_MIN_PIXELS: Final = 500  # stained pixels from which colours can be estimated
_GLASS: Final = (0.83, 0.12)  # lit glass is brighter than this share of white, and less saturated
_WHITE: Final = 240.0  # where a slide has too little glass
_DARK_FIELD: Final = 0.35  # of white: a picture that is mostly darker is dark field
_PIXELS: Final = 2**20  # that are converted at a time
_MIN_ANGLE: Final = 0.02  # radians between the two colours: closer ones are one stain


@dataclass(frozen=True, slots=True)
class Stain:
    """Converts 8-bit red, green and blue to eosin, haematoxylin and optical density, each 0 to 1.

    Optical density is -log10(value / white), value from 1 to `white`; the third amount is its mean over channels.
    """

    white: float
    """The value, 0 to 255, of light that passes glass."""
    eosin: Vector
    """Weights of the three channels' optical densities."""
    haematoxylin: Vector
    low: Vector
    """The eosin, haematoxylin and optical density that become 0."""
    high: Vector
    """Those that become 1."""
    source: str
    """What it was estimated from."""

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(…, 3) uint8 red, green, blue → (…, 3) float32 eosin, haematoxylin, optical density, 0 to 1."""
        amounts = _density(pixels, self.white) @ _weights(self.eosin, self.haematoxylin)
        low, high = np.asarray(self.low), np.asarray(self.high)
        return np.clip((amounts - low) / (high - low), 0.0, 1.0).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Plain values that `json` writes; numbers keep every bit."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        vectors = {key: _vector(np.asarray(record[key])) for key in ("eosin", "haematoxylin", "low", "high")}
        return cls(white=record["white"], source=record["source"], **vectors)


def fit_stain(pixels: npt.NDArray[np.uint8], tissue: Mask, valid: Mask) -> Stain:
    """Fit the stain of a slide to its overview (H, W, 3) uint8, with the masks of tissue and of valid pixels.

    Raises `ModelError` in dark field, where too little is stained, or with one stain only.
    """
    seen = pixels[valid].reshape(-1, 3)
    brightest, darkest = seen.max(axis=1, initial=0), seen.min(axis=1, initial=255)
    if seen.size and float(np.median(brightest)) < _DARK_FIELD * 255:
        value = f"half of the pixels are darker than {np.median(brightest):.0f} of 255"
        raise _unsuitable("must show stained tissue on bright glass", value, "Choose another model: this is for H&E")
    glass = (brightest > _GLASS[0] * 255) & (brightest - darkest < _GLASS[1] * brightest) & (darkest < 255)
    measured = int(glass.sum()) >= _MIN_PIXELS
    white = float(np.clip(seen[glass].mean(dtype=np.float64), 200.0, 255.0)) if measured else _WHITE
    colours = _stain_colours(pixels[valid & tissue], white)
    inverse = np.linalg.inv(np.stack([*colours, np.cross(*colours)], axis=1))
    haematoxylin, eosin = _vector(inverse[0]), _vector(inverse[1])
    extremes = np.stack([_extremes(seen, white, weight) for weight in _weights(eosin, haematoxylin).T], axis=1)
    low, high = require_finite(extremes, "amounts", of="stain of the slide")
    return Stain(
        white=white,
        eosin=eosin,
        haematoxylin=haematoxylin,
        low=_vector(low),
        high=_vector(np.maximum(high, low + 1e-6)),
        source=f"Macenko 2009 on {int((valid & tissue).sum())} overview pixels of tissue, "
        f"glass {'measured' if measured else 'assumed'} at {white:.1f}",
    )


def _density(pixels: npt.NDArray[np.uint8], white: float) -> Values:
    """Optical density (…, 3)."""
    return (-np.log10(np.clip(np.arange(256.0), 1.0, white) / white))[pixels]


def _extremes(pixels: npt.NDArray[np.uint8], white: float, weight: Values) -> Values:
    """The percentiles `_EXTREMES` of the weighted densities (3,) of pixels (N, 3); some are worked on at a time."""
    amounts = np.empty(len(pixels))
    for start in range(0, len(pixels), _PIXELS):
        amounts[start : start + _PIXELS] = _density(pixels[start : start + _PIXELS], white) @ weight
    return np.percentile(amounts, _EXTREMES, overwrite_input=True)


def _weights(eosin: Vector, haematoxylin: Vector) -> Values:
    """(3 channels, 3 amounts): the weight of each channel's density in an amount."""
    return np.stack([eosin, haematoxylin, (1 / 3, 1 / 3, 1 / 3)], axis=1)


def _stain_colours(pixels: npt.NDArray[np.uint8], white: float) -> tuple[Values, Values]:
    """The unit vectors of haematoxylin and eosin in optical density, from the pixels (N, 3) of tissue.

    The pixels' densities lie near a plane; the stains are its extreme directions. Haematoxylin, which is blue, absorbs
    more red.
    """
    parts = [pixels[start : start + _PIXELS] for start in range(0, len(pixels), _PIXELS)]
    squares = np.zeros((3, 3))
    for part in parts:
        density = _density(part, white)
        squares += density.T @ density
    _, _, axes = np.linalg.svd(squares)
    plane = axes[:2] * np.sign(axes[:2].sum(axis=1, keepdims=True))
    angles: list[Values] = []
    for part in parts:
        flat = _density(part, white) @ plane.T
        flat = flat[np.hypot(flat[:, 0], flat[:, 1]) > _MIN_DENSITY]
        angles.append(np.arctan2(flat[:, 1], flat[:, 0]))
    found = np.concatenate([np.empty(0), *angles])
    if len(found) < _MIN_PIXELS:
        rule = f"must have at least {_MIN_PIXELS} stained overview pixels of tissue"
        raise _unsuitable(rule, str(len(found)), "Check that the slide is H&E, and its tissue mask")
    first, last = np.percentile(found, _EXTREMES)
    if last - first < _MIN_ANGLE:
        value = f"{np.degrees(last - first):.2f}° apart"
        raise _unsuitable("must have two stains of different colour", value, "Choose another model: this is for H&E")
    both = [np.cos(angle) * plane[0] + np.sin(angle) * plane[1] for angle in (first, last)]
    haematoxylin, eosin = sorted(both, key=lambda colour: -float(colour[0]))
    return haematoxylin, eosin


def _unsuitable(rule: str, value: str, remedy: str) -> ModelError:
    return ModelError("slide", rule, value=value, remedy=remedy)


def _vector(values: npt.NDArray[Any]) -> Vector:
    return float(values[0]), float(values[1]), float(values[2])
