"""Colours of labels: the model's own, else a palette that colour-blind people can tell apart."""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from ..readers.errors import RequestError

# Okabe & Ito 2008 ("Color universal design"), then Tol 2021 (SRON/EPS/TN/09-002, "muted"); darkest ones left out, since
# pictures are dark.
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

_HEX = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True, slots=True)
class Palette:
    """Label → `#rrggbb`, the same in every report of a run."""

    listed: Mapping[str, str]

    @classmethod
    def of(cls, labels: Sequence[str], given: Mapping[str, str]) -> Self:
        """The model's labels get their given colours, else the next of `PALETTE` that is not taken, and again.

        Raises `RequestError` where a given colour is not `#rrggbb`.

        >>> Palette.of(["water", "land"], given={"land": "#4DAF4A"}).listed
        {'water': '#e69f00', 'land': '#4daf4a'}
        """
        for label, colour in given.items():
            if not _HEX.fullmatch(colour):
                raise RequestError(
                    f"colour of {label!r}", "it must be #rrggbb", value=colour, remedy="Correct it in the model's card"
                )
        taken = {colour.lower() for colour in given.values()}
        free = [colour for colour in PALETTE if colour not in taken] or list(PALETTE)
        wanting = [label for label in labels if label not in given]
        chosen = {label: free[place % len(free)] for place, label in enumerate(wanting)}
        return cls(chosen | {label: colour.lower() for label, colour in given.items()})

    def __getitem__(self, label: str) -> str:
        """The colour of any label: one that the model did not list gets the same in every run, by its checksum."""
        return self.listed.get(label) or PALETTE[zlib.crc32(label.encode("utf-8", "replace")) % len(PALETTE)]


def rgb(colour: str) -> tuple[int, int, int]:
    """`#rrggbb` as three numbers 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
