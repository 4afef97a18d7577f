"""Where a slide holds tissue, judged on an overview: so that glass, ink and dust are not analysed.

Bright field (stained tissue on lit glass) and dark field (fluorescence) are told apart by the background. A mask that
a person drew in QuPath takes this one's place.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from ..annotations import read_polygons
from ..errors import RequestError
from ..geometry import Points
from ..image import ImageInfo, Mask, Pixels
from ..overview import box_mean, dilate, fill_holes, keep_components

Light = Literal["bright", "dark"]
Values = npt.NDArray[np.float64]
_Signal = tuple[Values, Values, Mask, tuple[float, float], str]  # sharp, averaged, ink, bounds of the threshold, words

MICRONS: Final = 8.0
"""µm a pixel of the overview on which tissue is looked for: cells vanish, and the smallest biopsy is many pixels."""

_LIMIT: Final = 4096  # pixels on the long side of an overview
_BLUR: Final = 12.0  # µm either side over which stain is averaged: nuclei and fibres become tissue
_SPECK: Final = 0.005  # mm²: smaller patches are dust
_HOLE: Final = 0.25  # mm²: smaller holes are lumens and vessels, which belong to the tissue
_SPECK_PX, _HOLE_PX = 25, 400  # the same in overview pixels where their size is not known
_BRIGHT: Final = 0.35  # of white: a darker background is dark field
_STAIN: Final = (0.015, 0.03)  # optical density: bounds of the threshold, for pictures that are all glass or all tissue
_BINS: Final = 512


@dataclass(frozen=True, slots=True)
class Tissue:
    """A tissue mask (H, W) of an overview. `ink` (H, W) is what looks like a pen's, and is no tissue.

    `light` is the kind of picture, `threshold` the number that parts tissue from background, `method` how, in words.
    """

    mask: Mask
    ink: Mask
    light: Light
    threshold: float
    method: str


def overview_limit(info: ImageInfo, microns: float = MICRONS) -> int:
    """Pixels on the long side of an overview at `microns` µm a pixel, at most 4096; 2048 where spacing is unknown."""
    if info.placement.unit != "um":
        return 2048
    (x, *_), (_, y, _) = info.placement.matrix[:2]
    return max(1, min(_LIMIT, math.ceil(max(info.size[0] * x, info.size[1] * y) / microns)))


def find_tissue(pixels: Pixels, valid: Mask, *, microns: tuple[float, float] | None) -> Tissue:
    """Tissue on an overview: native pixels (H, W, C), where they are valid, and µm an overview pixel (x, y).

    Dark field where the median background is darker than 35 % of white. `microns` None means unknown: then sizes are
    counted in overview pixels, and `method` says so.
    """
    values = pixels.astype(np.float64)
    if not valid.any():
        nothing = np.zeros(valid.shape, dtype=bool)
        return Tissue(nothing, nothing, "bright", math.nan, "no valid pixel")
    light = _light(values, valid, pixels.dtype)
    colour = pixels.dtype == np.uint8 and pixels.shape[2] == 3
    radius = (1, 1) if microns is None else (round(_BLUR / microns[0]), round(_BLUR / microns[1]))
    sharp, signal, ink, floor, what = (
        _stain(values, valid, radius) if light == "bright" and colour else _glow(values, valid, radius, light)
    )
    threshold = float(np.clip(otsu(signal[valid]), *floor))
    mask = (signal > threshold) & valid & ~ink
    speck, hole, sizes = _SPECK_PX, _HOLE_PX, f"{_SPECK_PX} and {_HOLE_PX} overview pixels, since its size is unknown"
    if microns is not None:
        area = microns[0] * microns[1] * 1e-6
        speck, hole = math.ceil(_SPECK / area), math.ceil(_HOLE / area)
        sizes = f"{_SPECK:g} and {_HOLE:g} mm²"
    mask = fill_holes(keep_components(mask, mask, speck), hole) & valid & ~ink
    mask &= ~_rim(mask, sharp <= threshold, radius)
    method = (
        f"{what} above {threshold:.3g} (Otsu 1979, kept between {floor[0]:.3g} and {floor[1]:.3g}), without patches "
    )
    return Tissue(mask, ink, light, threshold, method + f"and holes smaller than {sizes}")


def _rim(mask: Mask, glass: Mask, radius: tuple[int, int]) -> Mask:
    """The glass that averaging has drawn into a mask: no further in than that, and connected with the outside."""
    near = dilate(~mask, (radius[0] + 1, radius[1] + 1))
    return mask & keep_components(~mask | (glass & near), ~mask)


def otsu(values: npt.NDArray[np.floating]) -> float:
    """The threshold that parts values into two groups with the greatest variance between them (Otsu 1979)."""
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return low
    counts, edges = np.histogram(values, bins=_BINS, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = below[-1] + counts[-1] - below
    sums = np.cumsum(counts * centres)
    mean_below = sums[:-1] / np.maximum(below, 1)
    mean_above = (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    return float(edges[1 + int(np.argmax(below * above * (mean_below - mean_above) ** 2))])


def _light(values: Values, valid: Mask, dtype: np.dtype[Any]) -> Light:
    """Bright or dark, by the median brightness of all valid pixels, tissue or not: stain dims glass, but not so much.

    White is 255 where samples have 8 bits, else the 99.9th percentile, since cameras seldom fill their bits.
    """
    brightness = values.max(axis=2)
    white = 255.0 if dtype == np.uint8 else float(np.percentile(brightness[valid], 99.9))
    return "dark" if float(np.median(brightness[valid])) < _BRIGHT * white else "bright"


def _smooth(values: Values, valid: Mask, radius: tuple[int, int]) -> Values:
    """The mean of valid values round each pixel, 0 where it is invalid itself."""
    weight = box_mean(valid, radius)
    total = box_mean(np.where(valid, values, 0.0), radius)
    return np.divide(total, weight, out=np.zeros_like(weight), where=valid)


def _stain(values: Values, valid: Mask, radius: tuple[int, int]) -> _Signal:
    """How much stain: the spread of optical density over red, green and blue; grey shadows and dust have none."""
    white = np.maximum(np.percentile(values[valid], 99, axis=0), 200.0)
    density = np.maximum(-np.log10((values + 1) / (white + 1)), 0.0)
    smooth = np.stack([_smooth(density[..., i], valid, radius) for i in range(3)], axis=2)
    colour = np.ptp(density, axis=2)  # before averaging, in which brown and blue nuclei would cancel
    return colour, _smooth(colour, valid, radius), _ink(smooth) & valid, _STAIN, "colour in optical density"


def _ink(density: Values) -> Mask:
    """Pen marks by their colour: no stain of tissue absorbs in these proportions.

    Haematoxylin, eosin and DAB absorb green or blue most (Ruifrok & Johnston 2001); on slides without pen marks red
    was never more than 0.18 over green. Blue and green ink absorb red most, up to 0.6 over green; red ink absorbs blue
    as much as green, and red hardly. A mark is all that is coloured like ink and connected with what clearly is. Black
    ink cannot be told from pigment and counts as tissue.
    """
    red, green, blue = (density[..., i] for i in range(3))
    share = red / (density.sum(axis=2) + 1e-9)
    clear = ((red - green > 0.15) & (red > 0.25)) | ((share < 0.12) & (green > 0.5) & (blue > 0.85 * green))
    like = ((red - green > 0.02) & (red > 0.1)) | ((share < 0.15) & (green > 0.1) & (blue > 0.9 * green))
    return keep_components(clear | like, clear, 9)


def _glow(values: Values, valid: Mask, radius: tuple[int, int], light: Light) -> _Signal:
    """How much light, or how much less in bright pictures that are not 8-bit colour: in doublings of the background.

    The background is the 5th percentile, its noise the spread of the darker (or brighter) half round that.
    """
    seen = _strongest(values, valid) if light == "dark" else -np.log2(np.maximum(values, 0.0) + 1.0).mean(axis=2)
    level = float(np.percentile(seen[valid], 5))
    noise = 1.4826 * float(np.median(np.abs(seen[valid][seen[valid] <= np.median(seen[valid])] - level)))
    rise = np.maximum(seen - level, 0.0)
    what = "light over the background in doublings" if light == "dark" else "light lost in halvings"
    bounds = (min(0.3, max(0.05, 3 * noise)), 3.0)
    return rise, _smooth(rise, valid, radius), np.zeros(valid.shape, dtype=bool), bounds, what


def _strongest(values: Values, valid: Mask) -> Values:
    """The channel that rises most over its own background, pixel by pixel, in doublings."""
    base = np.percentile(values[valid], 5, axis=0)
    return np.log2((np.maximum(values, 0.0) + 4.0) / (base + 4.0)).max(axis=2)


def read_drawn(path: str, info: ImageInfo) -> BaseGeometry:
    """The union of the polygons that a person drew in QuPath, in level-0 pixels of a slide, cut to the picture.

    In pixels that count from the slide's scanned part: `info.origin` is added. Raises `RequestError` as
    `read_polygons` does, and where nothing drawn lies on the picture.
    """
    subject = f"tissue of {path}"
    drawn = [shape.geometry for shape in read_polygons(path, subject, "pixels")]

    def shift(xy: Points) -> Points:
        return xy + np.asarray(info.origin, dtype=np.float64)

    whole = shapely.transform(shapely.union_all(drawn), shift)
    area = whole.intersection(shapely.box(0, 0, *info.size))
    if area.area <= 0:
        raise RequestError(
            f"{subject} on {info.id or info.uri}",
            "it must cover a part of the picture",
            value=f"{len(drawn)} polygons within {whole.bounds}",
            remedy="Check that it was drawn on this slide, in pixels",
        )
    return area


def drawn_mask(area: BaseGeometry, shape: tuple[int, int], scale: tuple[float, float]) -> Mask:
    """Where the centres of an overview's pixels (H, W), `scale` level-0 pixels (x, y) each, lie in an area."""
    shapely.prepare(area)
    x, y = (np.arange(shape[1]) + 0.5) * scale[0], (np.arange(shape[0]) + 0.5) * scale[1]
    mesh_x, mesh_y = np.meshgrid(x, y)
    return np.asarray(shapely.contains_xy(area, mesh_x, mesh_y), dtype=bool)
