"""Colours of labels: the model's own, else the ones that people expect, else a palette for colour-blind people."""

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from ..readers.errors import RequestError

PALETTE = (
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#f0e442",
    "#d55e00",
    "#cc79a7",
    "#0072b2",
    "#88ccee",
    "#cc6677",
    "#ddcc77",
    "#44aa99",
    "#aa4499",
    "#999933",
)
"""Okabe & Ito 2008 ("Color universal design"), then Tol 2021 (SRON/EPS/TN/09-002, "muted") without its darkest ones,
which would vanish on dark pictures."""

CONVENTIONS: Mapping[str, str] = {
    "cloud clouds": "#c0c0c0",
    "shadow shadows": "#484860",
    "snow ice glacier": "#9be7ff",
    "water sea ocean lake river": "#419bdf",
    "tree trees forest woodland": "#397d49",
    "vegetation grass grassland meadow land": "#88b053",
    "crop crops cropland farmland": "#e49635",
    "shrub shrubland scrub": "#dfc35a",
    "built building buildings urban city": "#c4281b",
    "road roads": "#7f7f7f",
    "bare soil sand beach rock": "#c2a878",
    "tumor tumour cancer carcinoma neoplastic": "#c80000",
    "stroma": "#96c896",
    "lymphocyte lymphocytes immune inflammatory": "#a05aa0",
    "necrosis necrotic": "#323232",
    "epithelium epithelial gland": "#ff7f0e",
    "lumen": "#56b4e9",
}
"""Words of a label → the colour that maps and slides usually give it.

Land cover follows Dynamic World (Brown et al. 2022) and, for clouds, the scene classification of Sentinel-2; tissue
follows the default classes of QuPath and, for epithelium, PanNuke (Gamper et al. 2020).
"""

_HEX = re.compile(r"#[0-9a-fA-F]{6}")
_BY_WORD = {word: colour for words, colour in CONVENTIONS.items() for word in words.split()}


@dataclass(frozen=True, slots=True)
class Palette:
    """Label → `#rrggbb`, the same in every report of a run."""

    listed: Mapping[str, str]

    @classmethod
    def of(cls, labels: Sequence[str], given: Mapping[str, str]) -> Self:
        """The given colours of a model's labels; others get their conventional colour, else the next free of `PALETTE`.

        Raises `RequestError` where a given colour is not `#rrggbb`.

        >>> Palette.of(["open water", "class 2", "land"], given={"land": "#4DAF4A"}).listed
        {'land': '#4daf4a', 'open water': '#419bdf', 'class 2': '#e69f00'}
        """
        for label, colour in given.items():
            if not _HEX.fullmatch(colour):
                remedy = "Correct it in the model's card"
                raise RequestError(f"colour of {label!r}", "must be #rrggbb", value=colour, remedy=remedy)
        listed = {label: colour.lower() for label, colour in given.items()}
        for label in labels:
            colour = conventional(label)
            if label not in listed and colour and colour not in listed.values():
                listed[label] = colour
        free = [colour for colour in PALETTE if colour not in listed.values()] or list(PALETTE)
        others = [label for label in labels if label not in listed]
        return cls(listed | {label: free[place % len(free)] for place, label in enumerate(others)})

    def __getitem__(self, label: str) -> str:
        """The colour of any label; one that the model did not list gets the same in every run, by its checksum."""
        fallback = PALETTE[zlib.crc32(label.encode("utf-8", "replace")) % len(PALETTE)]
        return self.listed.get(label) or conventional(label) or fallback


def conventional(label: str) -> str | None:
    """The colour of `CONVENTIONS` for the first word of a label that has one; None without such a word.

    >>> conventional("built-up"), conventional("AnnualCrop"), conventional("class 3")
    ('#c4281b', '#e49635', None)
    """
    words: Iterable[str] = re.findall(r"[A-Z]?[a-z]+", label)
    return next((_BY_WORD[word.lower()] for word in words if word.lower() in _BY_WORD), None)


def rgb(colour: str) -> tuple[int, int, int]:
    """`#rrggbb` as three numbers 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
