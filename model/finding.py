"""Findings in level-0 pixels, and the result of each region."""

import json
import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

Kind = Literal["area", "box", "tile", "region"]
Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One object, area or label that a model found in an image."""

    label: str
    geometry: BaseGeometry
    """In level-0 pixels of the image's `plane`."""
    kind: Kind
    """What the geometry is: an "area" traced from a class map, a detection's "box", a whole "tile" or "region"."""
    score: float | None = None
    """From 0 to 1; None where the model gives none."""
    text: str = ""
    text_cut: bool = False
    """Whether the text ended at the model's limit of tokens."""
    cut: bool = False
    """Whether the geometry reaches the border of its region's core and may go on in the neighbour."""
    numbers: Mapping[str, float] = field(default_factory=dict[str, float])
    """Further columns of finite measurements. Those of an area are amounts, so that those of its pieces add up; its
    "pixels" are the analysis pixels that its score is the mean of. "valid" of a tile or region is the share of it that
    is valid and in the region of interest, 1 by default. "tiles" of a box is how many tiles have it."""
    notes: Mapping[str, str] = field(default_factory=dict[str, str])
    """Further columns of texts, which are data, never markup."""
    window: tuple[float, float, float, float] | None = None
    """Of a "box": the tile (x0, y0, x1, y1) that the detector had, in level-0 pixels; None once boxes are merged."""
    plane: int = 0
    """Of a stack: the slice, from 0."""

    def to_json(self) -> dict[str, Any]:
        """Plain values that `json` writes; coordinates keep every bit."""
        geometry = json.loads(shapely.to_geojson(self.geometry))
        record: dict[str, Any] = {"label": self.label, "kind": self.kind, "geometry": geometry, "score": self.score}
        if self.text:
            record["text"] = self.text
        if self.text_cut:
            record["text_cut"] = True
        if self.cut:
            record["cut"] = True
        if self.numbers:
            record["numbers"] = dict(sorted(self.numbers.items()))
        if self.notes:
            record["notes"] = dict(sorted(self.notes.items()))
        if self.window:
            record["seen"] = list(self.window)
        if self.plane:
            record["plane"] = self.plane
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`. Raises where a value has another type than `to_json` writes."""
        numbers, notes, window = record.get("numbers", {}), record.get("notes", {}), record.get("seen")
        found = cls(
            label=record["label"],
            geometry=shapely.geometry.shape(record["geometry"]),
            kind=record["kind"],
            score=record["score"],
            text=record.get("text", ""),
            text_cut=record.get("text_cut", False),
            cut=record.get("cut", False),
            numbers=numbers,
            notes=notes,
            window=None if window is None else tuple(window),
            plane=record.get("plane", 0),
        )
        texts = (found.label, found.text, *notes, *notes.values(), *numbers)
        measured = [*numbers.values(), *(window or ()), *([] if found.score is None else [found.score])]
        if (
            not all(isinstance(text, str) for text in texts)
            or not all(math.isfinite(number) for number in measured)
            or not np.isfinite(shapely.get_coordinates(found.geometry)).all()
            or found.kind not in get_args(Kind)
            or not {found.cut, found.text_cut} <= {False, True}
            or type(found.plane) is not int
            or (window is not None and len(window) != 4)
        ):
            msg = "a value of another type"
            raise TypeError(msg)
        return found


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of a region's core was analysed, has no valid pixel, is outside the region of interest, or is masked.

    In level-0 pixels, and in square metres on the ellipsoid where the placement is known (else None). The four add up
    to the core.
    """

    valid_px: float
    invalid_px: float
    valid_m2: float | None = None
    invalid_m2: float | None = None
    outside_px: float = 0.0
    outside_m2: float | None = None
    masked_px: float = 0.0
    """Under a mask, whether that was analysed or not; not counted as valid."""
    masked_m2: float | None = None


@dataclass(frozen=True, slots=True)
class PackedRaster:
    """A raster that is compressed already."""

    dtype: str
    """As NumPy writes it, little-endian: |u1 for 8 bits."""
    shape: tuple[int, ...]
    content: bytes
    """Its values in C order, compressed with zstd."""


@dataclass(frozen=True, slots=True)
class Result:
    """One region's outcome; a failed region has an `error` and no findings."""

    region: str
    image: str
    status: Status
    findings: tuple[Finding, ...] = ()
    coverage: Coverage | None = None
    error: str = ""
    seconds: float = 0.0
    rasters: Mapping[str, npt.NDArray[Any] | PackedRaster] = field(
        default_factory=dict[str, npt.NDArray[Any] | PackedRaster], compare=False
    )
    """Class maps, probabilities and masks of the region by name, of up to four axes: whole numbers, floats or flags."""

    def to_json(self) -> dict[str, Any]:
        """Plain values that `json` writes, without findings and rasters."""
        cover = self.coverage
        return {
            "region": self.region,
            "image": self.image,
            "status": self.status,
            "error": self.error,
            "seconds": round(self.seconds, 3),
            "coverage": None if cover is None else list(astuple(cover)),
        }
