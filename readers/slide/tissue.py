"""Tissue segmentation on an overview of a slide, so that glass, pen marks and dust are not analysed.

Bright field (stained tissue on lit glass) and dark field (fluorescence) are told apart by the background. An annotation
that the user drew in QuPath may replace the mask.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
from dataclasses import dataclass
from functools import reduce
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from ..annotations import check_pixels, read_polygons
from ..errors import RequestError
from ..geometry import Points
from ..image import ImageInfo, Mask, Pixels
from ..overview import across_channels, box_mean, dilate, fill_holes, keep_components, percentiles, strips

Illumination = Literal["bright", "dark"]
Values = npt.NDArray[np.float64]

TISSUE_MPP: Final = 8.0
"""µm/px of the overview on which tissue is segmented: single cells vanish, the smallest biopsy has many pixels."""

_MAX_SIDE: Final = 4096  # px of an overview
_AVERAGE_UM: Final = 12.0  # half width of the box over which stain is averaged: nuclei and fibres become tissue
_MIN_TISSUE_MM2: Final = 0.005  # smaller components are dust
_MAX_HOLE_MM2: Final = 0.25  # smaller holes are lumens and vessels, which belong to the tissue
_MIN_TISSUE_PX, _MAX_HOLE_PX = 25, 400  # the same in overview pixels where the spacing is unknown
_DARK_FIELD: Final = 0.35  # of white: a darker background is dark field
_MAX_STAIN: Final = 0.03  # optical density: the highest threshold, for slides that are mostly tissue
_GREY_LEVELS: Final = 3.0  # of 255, which stain must have over the glass: fewer are noise, compression or shading
_DARKEST: Final = 25.0  # of 255: darker pixels tell no colour
_GREY: Final = (0.15, 0.1)  # optical density, and the share of it below which colour is that of dust or black ink
_BINS: Final = 512
_ROUNDING: Final = 1e-4  # of the largest: bins of float32 values that differ by less cannot be told apart
_DOUBTFUL: Final = (0.25, 0.05)  # shares of dark pixels, and of pixels lit in all channels, that contradict each other
_LIT: Final = 0.6  # of white
_GLASS: Final = 0.9  # of the brightest: pixels that are nearly as bright are glass
_SATURATION: Final = 0.12  # range of the channels over the highest: glass has less
_LEAST_GLASS: Final = 0.05  # share of the pixels
_MARGIN: Final = 0.016  # of white: values that differ by less are one


@dataclass(frozen=True, slots=True)
class Tissue:
    """A tissue mask of an overview."""

    mask: Mask
    """(H, W)."""
    ink: Mask
    """(H, W): pen marks, which are not part of the mask."""
    illumination: Illumination
    threshold: float
    """Of the signal named in `method`."""
    method: str
    """How the mask was found, as a phrase."""
    doubt: str = ""
    """Why the illumination may be wrong, as a phrase; "" where it is clear."""


@dataclass(frozen=True, slots=True)
class _Signal:
    """What is thresholded."""

    sharp: Values
    averaged: Values
    ink: Mask
    bounds: tuple[float, float]
    """Lowest and highest threshold."""
    name: str


def overview_side(info: ImageInfo, microns: float = TISSUE_MPP) -> int:
    """Pixels on the long side of an overview at `microns` µm/px, at most 4096; 2048 where the spacing is unknown."""
    if info.placement.unit != "um":
        return 2048
    (x, *_), (_, y, _) = info.placement.matrix[:2]
    return max(1, min(_MAX_SIDE, math.ceil(max(info.size[0] * x, info.size[1] * y) / microns)))


def find_tissue(pixels: Pixels, valid: Mask, *, microns: tuple[float, float] | None) -> Tissue:
    """The tissue on an overview of native pixels (H, W, C), their validity, and its spacing in µm/px (x, y).

    Dark field where the median pixel is darker than 35 % of white, unless other pixels are lit in all channels, as only
    glass is: then the field is `Tissue.doubt`ful, and dark pixels are left out. The threshold is Otsu's, but at least
    the glass and its noise: stain that is pale all over is found, too. With an unknown spacing (None) sizes are counted
    in overview pixels, and `method` tells so.
    """
    if not valid.any():
        nothing = np.zeros(valid.shape, dtype=bool)
        return Tissue(nothing, nothing, "bright", math.nan, "no valid pixel")
    illumination, dark = _illumination(pixels, valid)
    doubt = ""
    if dark.any():
        doubt = (
            f"{100 * dark.sum() / valid.sum():.0f} % of the overview is black, and the rest is lit as bright field is"
        )
        valid = valid & ~dark
    stained = illumination == "bright" and pixels.dtype == np.uint8 and pixels.shape[2] == 3
    radius = (1, 1) if microns is None else (round(_AVERAGE_UM / microns[0]), round(_AVERAGE_UM / microns[1]))
    signal = _stain(pixels, valid, radius) if stained else _intensity(pixels, valid, radius, illumination)
    low, high = signal.bounds
    plain = signal.averaged[valid & ~signal.ink]
    threshold = float(np.clip(otsu(plain), low, high)) if plain.size else low
    if microns is None:
        min_tissue, max_hole = _MIN_TISSUE_PX, _MAX_HOLE_PX
        sizes = f"{_MIN_TISSUE_PX} and {_MAX_HOLE_PX} overview pixels, since the spacing is unknown"
    else:
        pixel_mm2 = microns[0] * microns[1] * 1e-6
        min_tissue, max_hole = math.ceil(_MIN_TISSUE_MM2 / pixel_mm2), math.ceil(_MAX_HOLE_MM2 / pixel_mm2)
        sizes = f"{_MIN_TISSUE_MM2:g} and {_MAX_HOLE_MM2:g} mm²"
    mask = (signal.averaged > threshold) & valid & ~signal.ink
    mask = fill_holes(keep_components(mask, mask, min_tissue), max_hole) & valid & ~signal.ink
    mask &= ~_blurred_border(mask, signal.sharp <= threshold, radius)
    method = f"{signal.name} above {threshold:.3g} (Otsu 1979, limited to {low:.3g} to {high:.3g}), "
    method += f"without components and holes smaller than {sizes}"
    return Tissue(mask, signal.ink, illumination, threshold, method, doubt)


def background_range(pixels: Pixels, valid: Mask) -> tuple[Values, Values]:
    """Lowest and highest values (channels,) of the background of an overview (H, W, C).

    Bright field: from the median of the glass, which is nearly as bright as the 99th percentiles and grey, to these;
    without glass anything brighter may be glass. Dark field: the 5th percentiles, and six times the noise of the darker
    half around them.
    """
    pixels = pixels if pixels.dtype == np.uint8 else pixels.astype(np.float64)
    values = pixels[valid]
    margin = _MARGIN * (255.0 if pixels.dtype == np.uint8 else float(np.percentile(values, 99.9)))
    if _illumination(pixels, valid)[0] == "bright":
        high = percentiles(values, 99)
        lightest = across_channels(np.maximum, values)
        grey = lightest - across_channels(np.minimum, values) < _SATURATION * lightest
        for channel, bound in enumerate(_GLASS * high):
            grey &= values[:, channel] > bound
        glass = values[grey]
        if len(glass) < _LEAST_GLASS * len(values):
            return high - margin, np.full(len(high), np.inf)
        return percentiles(glass, 50) - margin, high + margin
    level = percentiles(values, 5)
    rise = across_channels(np.maximum, np.abs(values - level))
    margin = max(margin, 6 * 1.4826 * float(np.median(rise[rise <= np.median(rise)])))
    return level - margin, level + margin


def _blurred_border(mask: Mask, glass: Mask, radius: tuple[int, int]) -> Mask:
    """The glass that averaging has added to a mask: within the radius of its border and connected with the outside."""
    near = dilate(~mask, (radius[0] + 1, radius[1] + 1))
    return mask & keep_components(~mask | (glass & near), ~mask)


def otsu(values: npt.NDArray[np.floating]) -> float:
    """The threshold that splits values into two groups with the greatest variance between them (Otsu 1979).

    The lowest value where all differ by rounding only.
    """
    low, high = float(values.min()), float(values.max())
    if not high - low > _ROUNDING * max(abs(low), abs(high)):
        return low
    counts, edges = np.histogram(values, bins=_BINS, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = below[-1] + counts[-1] - below
    sums = np.cumsum(counts * centres)
    mean_below = sums[:-1] / np.maximum(below, 1)
    mean_above = (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    return float(edges[1 + int(np.argmax(below * above * (mean_below - mean_above) ** 2))])


def _illumination(pixels: Pixels, valid: Mask) -> tuple[Illumination, Mask]:
    """Bright or dark field by the median brightness of all valid pixels, since stain dims glass less than dark field.

    White is 255 where samples have 8 bits, else the 99.9th percentile, since cameras seldom use their full range. Also
    returns the dark pixels (H, W) where they contradict pixels that are lit in all of three channels or more.
    """
    dtype = np.uint8 if pixels.dtype == np.uint8 else np.float64
    brightness = across_channels(np.maximum, pixels).astype(dtype, copy=False)
    white = 255.0 if dtype == np.uint8 else float(np.percentile(brightness[valid], 99.9))
    dark = (brightness < _DARK_FIELD * white) & valid
    lit = across_channels(np.minimum, pixels)[valid].astype(dtype, copy=False) > _LIT * white
    if pixels.shape[2] >= 3 and dark.sum() >= _DOUBTFUL[0] * valid.sum() and lit.mean() >= _DOUBTFUL[1]:
        return "bright", dark
    median = float(np.median(brightness[valid]))
    return "dark" if median < _DARK_FIELD * white else "bright", np.zeros_like(dark)


def _smooth(values: Values, valid: Mask, radius: tuple[int, int], weight: Values | None) -> Values:
    """Replace values by the mean of valid ones around each pixel, 0 where the pixel itself is invalid.

    `weight` is that mean of `valid`, None where all pixels are.
    """
    if weight is None:
        return box_mean(values, radius, overwrite=True)
    values[~valid] = 0.0
    box_mean(values, radius, overwrite=True)
    np.divide(values, weight, out=values, where=valid)
    values[~valid] = 0.0
    return values


def _weight(valid: Mask, radius: tuple[int, int]) -> Values | None:
    return None if valid.all() else box_mean(valid, radius)


def _stain(pixels: Pixels, valid: Mask, radius: tuple[int, int]) -> _Signal:
    """Stain as the range of optical density over red, green and blue; grey shadows and dust have none."""
    colours = pixels.reshape(-1, 3) if valid.all() else pixels[valid]  # which takes several times their memory
    white = np.maximum(percentiles(colours, 99), 200.0)
    levels = np.maximum(np.arange(256.0), _DARKEST)[:, None]
    table = np.maximum(-np.log10((levels + 1) / (white + 1)), 0.0)

    def densities(*channels: int) -> Values:
        """Their density, or the range of all, a strip at a time, since an array as large as the overview is large."""
        made = np.empty(valid.shape)
        for rows in strips(valid.shape):
            of = [table[pixels[rows, :, channel], channel] for channel in channels]
            made[rows] = of[0] if len(of) == 1 else reduce(np.maximum, of) - reduce(np.minimum, of)
        return made

    weight = _weight(valid, radius)
    red, green, blue = (_smooth(densities(channel), valid, radius, weight) for channel in range(3))
    ink = _pen_marks(red, green, blue) & valid
    red += green
    red += blue
    red /= 3
    mean = red
    del green, blue
    colour = densities(0, 1, 2)  # averaged later, or brown and blue would cancel
    averaged = _smooth(colour.copy(), valid, radius, weight)
    dark = mean > _GREY[0]
    mean *= _GREY[1]
    averaged[dark & (averaged < mean)] = 0.0
    del mean, red
    np.minimum(averaged, 2 * _MAX_STAIN, out=averaged)  # deeper stain must not raise the threshold
    level, noise = _background(averaged[valid & ~ink])
    grey_level = float(np.log10(1 + 1 / white.min()))
    lowest = min(level + max(_GREY_LEVELS * grey_level, 2 * noise), _MAX_STAIN / 2)
    return _Signal(colour, averaged, ink, (lowest, _MAX_STAIN), "colour in optical density")


def _background(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Level and noise of the lower of two groups of values: its median, and its spread below that."""
    if not values.size:
        return 0.0, 0.0
    lower = values[values <= otsu(values)]
    level = float(np.median(lower, overwrite_input=True))
    below = level - lower[lower <= level]
    return level, 1.4826 * float(np.median(below, overwrite_input=True))


def _pen_marks(red: Values, green: Values, blue: Values) -> Mask:
    """Pen marks, by proportions of absorbance (H, W) that no tissue stain has.

    Haematoxylin, eosin and DAB absorb green or blue most (Ruifrok & Johnston 2001); on slides without pen marks red
    was never more than 0.18 over green. Blue and green ink absorb red most, up to 0.6 over green; red ink absorbs blue
    as much as green, and red hardly. A mark is a component of ink-like pixels that contains clear ones. Black ink
    cannot be told from pigment and counts as tissue.
    """
    clear, like = np.zeros(red.shape, dtype=np.bool_), np.zeros(red.shape, dtype=np.bool_)
    for rows in strips(red.shape):
        r, g, b = red[rows], green[rows], blue[rows]
        share = r / (r + g + b + 1e-9)
        clear[rows] = ((r - g > 0.15) & (r > 0.25)) | ((share < 0.12) & (g > 0.5) & (b > 0.85 * g))
        like[rows] = ((r - g > 0.02) & (r > 0.1)) | ((share < 0.15) & (g > 0.1) & (b > 0.9 * g))
    return keep_components(clear | like, clear, 9)


def _intensity(pixels: Pixels, valid: Mask, radius: tuple[int, int], illumination: Illumination) -> _Signal:
    """Light gained over the background (dark field) or lost (bright field other than 8-bit RGB), in powers of two.

    The background is the 5th percentile, its noise the spread of the darker (or brighter) half around it.
    """
    dark = illumination == "dark"
    light = np.full(valid.shape, -np.inf if dark else 0.0)
    for channel in range(pixels.shape[2]):
        values = np.asarray(pixels[..., channel], dtype=np.float64)
        if dark:  # the channel that rises most over its own background
            base = float(np.percentile(values[valid], 5))
            np.maximum(light, np.log2((np.maximum(values, 0.0) + 4.0) / (base + 4.0)), out=light)
        else:
            light -= np.log2(np.maximum(values, 0.0) + 1.0)
    light /= 1 if dark else pixels.shape[2]
    name = "light over the background in powers of two" if dark else "light lost in powers of two"
    level = float(np.percentile(light[valid], 5))
    noise = 1.4826 * float(np.median(np.abs(light[valid][light[valid] <= np.median(light[valid])] - level)))
    rise = np.maximum(light - level, 0.0)
    bounds = (min(0.3, max(0.05, 3 * noise)), 3.0)
    return _Signal(
        rise,
        _smooth(rise.copy(), valid, radius, _weight(valid, radius)),
        np.zeros(valid.shape, dtype=bool),
        bounds,
        name,
    )


def read_tissue_annotation(path: str, info: ImageInfo) -> tuple[BaseGeometry, str]:
    """As `slide_polygons`, for the area of interest. Raises `RequestError` also where no polygon lies on the slide."""
    subject = f"the area of interest {path}"
    area, doubt = slide_polygons(path, info, subject)
    if area.area <= 0:
        raise RequestError(
            f"{subject} for {info.id or info.uri}",
            "must cover a part of the image",
            value="none of its polygons lies on it",
            remedy="Check that it was drawn on this slide, in pixels",
        )
    return area, doubt


def slide_polygons(path: str, info: ImageInfo, subject: str) -> tuple[BaseGeometry, str]:
    """The union of the polygons of a QuPath annotation in level-0 pixels, cut to the slide, and what to tell of it.

    QuPath counts pixels from the slide's scanned area, so `info.origin` is added. Raises `RequestError` as
    `read_polygons` and `check_pixels` do; `subject` names the file in it.
    """
    polygons = [shape.geometry for shape in read_polygons(path, subject, "pixels")]
    doubt = check_pixels(polygons, info, subject)

    def shift(xy: Points) -> Points:
        return xy + np.asarray(info.origin, dtype=np.float64)

    whole = shapely.transform(shapely.union_all(polygons), shift)
    return whole.intersection(shapely.box(0, 0, *info.size)), doubt


def polygon_mask(area: BaseGeometry, shape: tuple[int, int], scale: tuple[float, float]) -> Mask:
    """Which pixels (H, W) of an overview, `scale` level-0 pixels (x, y) each, have their centres in an area."""
    shapely.prepare(area)
    x, y = (np.arange(shape[1]) + 0.5) * scale[0], (np.arange(shape[0]) + 0.5) * scale[1]
    mesh_x, mesh_y = np.meshgrid(x, y)
    return np.asarray(shapely.contains_xy(area, mesh_x, mesh_y), dtype=bool)
