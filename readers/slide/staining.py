"""The stain and the organ of a slide: as its overview shows the stain, and as its header states both."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from ..image import Mask, Pixels
from ..kinds import DOUBTFUL
from ..overview import percentiles

HE, IHC = "H&E", "IHC"

_LEAST_DENSITY: Final = 0.1  # optical density: fainter pixels tell no hue
_LEAST_PIXELS: Final = 50
_BROWN: Final = -0.05  # the excess of green over blue, in mean densities · √3, below which a pixel is brown
_HE_GREEN: Final = 0.10  # share of the light absorbed: eosin and haematoxylin absorb that much more green
_IHC_GREEN: Final = 0.08  # brown slides with less are DAB
_IHC_BROWN: Final = 0.05  # share of the stained pixels
_HE_BROWN: Final = 0.01  # of them, which melanin and haemosiderin may be

_STAINS: Final[Mapping[str, str]] = {
    HE: r"h\s*(?:&|and|\+)\s*e|ha?ematoxylin\W+(?:and|&)?\W*eosin(?: stain)?|he[ -]stain(?:ing)?|hematoxylin-eosin",
    IHC: r"ihc|immuno-?histochem\w*|dab|diaminobenzidine|ki-?67|mib-?1|her-?2(?:/neu)?|p53|pd-?l1|cd\d{1,3}",
}
_ORGANS: Final = frozenset(
    [
        "bladder",
        "bone",
        "bone marrow",
        "brain",
        "breast",
        "cervix",
        "colon",
        "endometrium",
        "esophagus",
        "eye",
        "heart",
        "kidney",
        "liver",
        "lung",
        "lymph node",
        "ovary",
        "pancreas",
        "placenta",
        "prostate",
        "rectum",
        "skin",
        "spleen",
        "stomach",
        "testis",
        "thyroid",
        "tonsil",
        "uterus",
    ]
)


def measure_stain(pixels: Pixels, tissue: Mask, valid: Mask) -> tuple[str, str]:
    """Stain ("H&E", "IHC", "doubtful", or "" where it is not known) of an overview in bright field, and the evidence.

    pixels: (H, W, 3) uint8 RGB. Of the light that stained tissue absorbs, haematoxylin and eosin take more from green
    than from red and blue; haematoxylin and DAB (Ruifrok & Johnston 2001) leave no such excess, and DAB takes most from
    blue, which makes pixels brown. Between the two lies a range in which the stain is doubtful.
    """
    if pixels.dtype != np.uint8 or pixels.shape[2] != 3 or not valid.any():
        return "", ""
    white = np.maximum(percentiles(pixels[valid], 99), 200.0)
    table = np.maximum(-np.log10((np.arange(256.0)[:, None] + 1) / (white + 1)), 0.0)
    density = table[pixels[tissue & valid], np.arange(3)]
    mean = density.mean(axis=1)
    density, mean = density[mean > _LEAST_DENSITY], mean[mean > _LEAST_DENSITY]
    if len(mean) < _LEAST_PIXELS:
        return "", ""
    red, green, blue = (float(share) for share in density.sum(axis=0) / density.sum())
    excess = green - max(red, blue)
    brown = float(((density[:, 1] - density[:, 2]) / (np.sqrt(3) * mean) < _BROWN).mean())
    evidence = f"green has {100 * green:.0f} % of the absorbance, red {100 * red:.0f} %, blue {100 * blue:.0f} %, and "
    evidence += f"{100 * brown:.1f} % of the stained area is brown"
    if excess >= _HE_GREEN and brown < _HE_BROWN:
        return HE, evidence
    return (IHC if excess <= _IHC_GREEN and brown >= _IHC_BROWN else DOUBTFUL), evidence


def stated_specimen(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """The facts "stain" and "organ" that a header's texts about the specimen state; nothing else of them is kept.

    A fact is left out where the texts state none, or several.
    """
    words = {text.strip().lower() for text in texts}
    stains = {name for name, pattern in _STAINS.items() if any(re.fullmatch(pattern, word) for word in words)}
    organs = {name for name in _ORGANS if any(re.fullmatch(rf"{name}(?: structure| tissue)?", word) for word in words)}
    found = (("stain", stains), ("organ", organs))
    return tuple((key, next(iter(values))) for key, values in found if len(values) == 1)
