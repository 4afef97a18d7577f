"""Settings of objects, which are made of a run's areas each time that its reports are written."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Self, cast

from ..readers.errors import RequestError, did_you_mean

if TYPE_CHECKING:
    from ..readers.image import Kind

OBJECTS: Final = ("min_area", "fill_holes", "smooth", "simplify", "instances", "neck", "tissue_edge")
"""Names of the settings."""

_LENGTHS: Final = {"px": math.nan, "m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "km": 1e3}
_AREAS: Final = {"px": math.nan, "m2": 1.0, "cm2": 1e-4, "mm2": 1e-6, "um2": 1e-12, "km2": 1e6, "ha": 1e4}
_OF_KIND: Final["Mapping[Kind, str]"] = {"map": "cm m km ha", "slide": "um mm", "study": "mm cm"}
_EXAMPLES: Final["Mapping[Kind, tuple[str, str]]"] = {
    "map": ("5m", "500m2"),
    "slide": ("2um", "50um2"),
    "study": ("1mm", "20mm2"),
}
_SHOWN: Final = str.maketrans({"u": "µ", "2": "²"})


@dataclass(frozen=True, slots=True)
class Amount:
    """A length or an area with its unit."""

    flag: str
    """The setting's flag, for messages."""
    value: float
    unit: str

    @classmethod
    def parse(cls, name: str, text: str, what: Literal["length", "area"]) -> Self | None:
        """Read "50um2" or "5 m"; None of "" and "off". Raises `RequestError`.

        >>> Amount.parse("min_area", "0.5 ha", "area")
        Amount(flag='--min-area', value=0.5, unit='ha')
        """
        flag = f"--{name.replace('_', '-')}"
        if text in {"", "off"}:
            return None
        units = _AREAS if what == "area" else _LENGTHS
        plain = text.replace("µ", "u").replace("μ", "u").replace("²", "2")
        found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+2?)\s*", plain)
        if not found or found[2] not in units or not 0 < float(found[1]) < math.inf:
            rule = f"must be a positive {what} with one of the units {', '.join(units)}, or off"
            examples = " or ".join(f"{flag} {one[what == 'area']}" for one in _EXAMPLES.values())
            raise RequestError(flag, rule, value=text, remedy=f"For example {examples}")
        return cls(flag, float(found[1]), found[2])

    @property
    def metres(self) -> float:
        """In m or m²; NaN in pixels."""
        return self.value * {**_LENGTHS, **_AREAS}[self.unit]

    def check(self, image: str, kind: "Kind", *, placed: bool) -> None:
        """Raise `RequestError` where the unit does not suit a kind of image, or one whose pixel size is not known."""
        if self.unit == "px":
            return
        subject = f"{self.flag} for {image}"
        example = _EXAMPLES[kind][self.unit.endswith("2") or self.unit == "ha"]
        if self.unit.rstrip("2") not in _OF_KIND[kind].split():
            rule = f"must have a unit of {kind}s"
            raise RequestError(subject, rule, value=str(self), remedy=f"For example {self.flag} {example}")
        if not placed:
            sizes = {"map": " or run again with --metres-per-pixel", "slide": " or run again with --microns-per-pixel"}
            remedy = f"Give it in pixels of the analysis, such as {self.flag} 10px,{sizes.get(kind, '')}"
            rule = "must be in px, since the size of its pixels is not known"
            raise RequestError(subject, rule, value=str(self), remedy=remedy.rstrip(","))

    def __str__(self) -> str:
        return f"{self.value:g} {self.unit.translate(_SHOWN)}"


ALL: Final = "all"
"""Of `fill_holes`: holes of any size; of `instances`: every label."""


@dataclass(frozen=True, slots=True)
class ObjectSettings:
    """What is made of areas once they are joined; the same for all images of a run."""

    min_area: Amount | None = None
    fill_holes: Amount | Literal["all"] | None = None
    smooth: bool = False
    simplify: Amount | None = None
    instances: tuple[str, ...] = ()
    """Labels, or `ALL`."""
    neck: float = 0.75
    tissue_edge: Amount | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """The settings among all of a run, where those of an older one may lack them. Raises `RequestError`."""
        texts = {name: config.get(name, "") for name in ("min_area", "fill_holes", "simplify", "tissue_edge")}
        given: object = config.get("instances", ())
        labels = cast("Sequence[object]", given) if isinstance(given, list | tuple) else (None,)
        neck: object = config.get("neck", 0.75)
        all_texts = all(isinstance(one, str) for one in [*texts.values(), *labels])
        if not all_texts or not isinstance(neck, int | float):
            rule, remedy = "must have the types of their settings", "Restore manifest.json from a backup"
            raise RequestError("the settings of objects", rule, value=str({**texts, "neck": neck})[:80], remedy=remedy)
        holes = texts["fill_holes"]
        return cls(
            Amount.parse("min_area", texts["min_area"], "area"),
            ALL if holes == ALL else Amount.parse("fill_holes", holes, "area"),  # pyright: ignore[reportArgumentType]
            bool(config.get("smooth")),
            Amount.parse("simplify", texts["simplify"], "length"),
            tuple(map(str, labels)),
            float(neck),
            Amount.parse("tissue_edge", texts["tissue_edge"], "length"),
        )

    def check_labels(self, labels: Sequence[str]) -> None:
        """Raise `RequestError` where `instances` names no label of the model, whose labels these are if any."""
        for one in self.instances:
            if one != ALL and labels and one not in labels:
                remedy = f"{did_you_mean(one, labels)}Labels: {', '.join(labels)}, or all"
                raise RequestError("--instances", "must name labels of the model", value=one, remedy=remedy)

    @property
    def chosen(self) -> bool:
        """Whether any is set that is not so by default."""
        return bool(self.min_area or self.fill_holes or self.smooth or self.simplify or self.instances)

    @property
    def text(self) -> str:
        """The settings in words, "" without any."""
        parts = [
            f"areas below {self.min_area} left out" if self.min_area else "",
            f"holes {'' if self.fill_holes == ALL else f'up to {self.fill_holes} '}filled" if self.fill_holes else "",
            f"{' and '.join(self.instances)} split at necks below {self.neck:g} of the width" if self.instances else "",
            "corners of pixels cut" if self.smooth else "",
            f"outlines simplified by {self.simplify}" if self.simplify else "",
        ]
        return ", ".join(filter(None, parts))
