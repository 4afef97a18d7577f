"""The domain of a model: the images that it was made for, and their comparison with an image."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field

from ..readers.kinds import DOUBTFUL, Kind

if TYPE_CHECKING:
    from ..readers.image import ImageInfo

Texts = tuple[Annotated[str, Field(min_length=1)], ...]

_PROPERTIES: Final[Mapping[str, tuple[str, Kind]]] = {
    "stains": ("stain", "slide"),
    "organs": ("organ", "slide"),
    "sensors": ("sensor", "map"),
    "modalities": ("modality", "study"),
    "body_parts": ("body part", "study"),
}
"""Field of a `Domain` → name of the property, and the kind of image that has it."""

_SENSOR_VARIANT: Final = "-n0400"  # the same sensor with an offset in its numbers
_PER_METRE: Final[Mapping[Kind, tuple[float, str]]] = {"map": (1.0, "m"), "slide": (1e6, "µm"), "study": (1e3, "mm")}


class Domain(BaseModel):
    """Images of one kind that a model was made for; a property without values may be any."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    kind: Kind
    """The kind of image."""
    stains: Texts = ()
    """Of a slide: "H&E" or "IHC"."""
    organs: Texts = ()
    """Of a slide, in lower case."""
    sensors: Texts = ()
    """Of a map, as `--sensor` names them."""
    modalities: Texts = ()
    """Of a study, by their DICOM codes."""
    body_parts: Texts = ()
    """Of a study, by their DICOM codes."""
    pixel_size: tuple[float, float] | None = None
    """Smallest and largest pixel size in the analysis: m of a map, µm of a slide, mm of a study."""
    whole: Annotated[int, Field(ge=0)] = 0
    """Tiles in which the model was made to see a whole image; 0 where it was made to see parts of images."""

    @classmethod
    def of_images(cls, infos: "Sequence[ImageInfo]") -> tuple[Self, ...]:
        """The domain of training images: of each kind, the values of each property that all images state.

        Empty where the kind of an image is not known.
        """
        described = [(image_properties(info), info) for info in infos]
        if not all("kind" in known for known, _ in described):
            return ()
        found: list[Self] = []
        for kind in sorted({info.kind for _, info in described}):
            here = [known for known, info in described if info.kind == kind]
            values = {
                field: tuple(sorted({known[name] for known in here}))
                for field, (name, _) in _PROPERTIES.items()
                if all(known.get(name, "") not in {"", DOUBTFUL} for known in here)
            }
            found.append(cls.model_validate({"kind": kind, **values}))
        return tuple(found)

    def __str__(self) -> str:
        parts = [" or ".join(getattr(self, field)) for field in _PROPERTIES if getattr(self, field)]
        if self.pixel_size is not None:
            parts.append(f"pixels of {self.pixel_size[0]:g} to {self.pixel_size[1]:g} {_PER_METRE[self.kind][1]}")
        return f"{self.kind} ({', '.join(parts)})" if parts else self.kind


@dataclass(frozen=True, slots=True)
class Comparison:
    """How an image compares with the domain of a model."""

    mismatches: tuple[str, ...] = ()
    """What the image is and the model was not made for, as phrases."""
    unknown: tuple[str, ...] = ()
    """What one side does not state, as clauses."""
    doubts: tuple[str, ...] = ()
    """What is doubtful, as sentences."""


def image_properties(info: "ImageInfo") -> dict[str, str]:
    """What is known of an image: kind, stain, organ, sensor, modality, body part.

    The kind of a picture without georeference or scale is not known. Where the header of a slide and its overview name
    different stains, the stain is `DOUBTFUL`.
    """
    facts = dict(info.facts)
    known: dict[str, str] = {}
    if info.kind != "map" or info.placement.unit != "px":
        known["kind"] = info.kind
    stated, measured = facts.get("stain", ""), facts.get("stain_measured", "")
    clear = {one for one in (stated, measured) if one not in {"", DOUBTFUL}}
    known["stain"] = clear.pop() if len(clear) == 1 else DOUBTFUL if clear or measured else ""
    known["organ"] = facts.get("organ", "")
    known["sensor"] = info.sensor.removesuffix(_SENSOR_VARIANT)
    known["modality"], known["body part"] = facts.get("modality", ""), facts.get("body_part", "")
    return {name: value for name, value in known.items() if value}


def compare_domain(
    domain: Sequence[Domain], info: "ImageInfo", scale: tuple[float, float] = (1.0, 1.0), *, stain_known: bool = True
) -> Comparison:
    """Compare an image with the domain of a model, of which one part is enough.

    scale: level-0 pixels (x, y) per pixel in the analysis.
    stain_known: whether the stain has been measured; before that only headers are compared.
    """
    known = image_properties(info)
    if not stain_known:
        known.pop("stain", None)
    if not domain:
        return Comparison(unknown=("the model does not state its domain",))
    if "kind" not in known:
        return Comparison(unknown=("the file does not state whether it is a map, a slide or a study",))
    parts = [part for part in domain if part.kind == info.kind]
    if not parts:
        return Comparison((f"it is a {info.kind}, and the model was made for {_alternatives(domain)}",))
    return min((_compare(part, known, info, scale) for part in parts), key=lambda one: len(one.mismatches))


def whole_tiles(domain: Sequence[Domain], info: "ImageInfo") -> int:
    """Tiles in which the model was made to see the whole of such an image; 0 for parts of it, or where not stated."""
    known = image_properties(info)
    fit = (
        one for one in domain if one.kind == known.get("kind") and not _compare(one, known, info, (1.0, 1.0)).mismatches
    )
    return max((one.whole for one in fit), default=0)


def _compare(part: Domain, known: Mapping[str, str], info: "ImageInfo", scale: tuple[float, float]) -> Comparison:
    mismatches: list[str] = []
    unknown: list[str] = []
    doubts: list[str] = []
    for field, (name, _) in _PROPERTIES.items():
        accepted: Texts = getattr(part, field)
        value = known.get(name, "")
        made_for = f"the model was made for {' or '.join(accepted)}"
        if not accepted:
            continue
        if not value:
            unknown.append(f"the {name} is not known, and {made_for}")
        elif value == DOUBTFUL:
            doubts.append(f"The {name} of the slide is doubtful, and {made_for}: {_stain_evidence(info)}.")
        elif value not in accepted:
            evidence = f" ({_stain_evidence(info)})" if name == "stain" else ""
            mismatches.append(f"its {name} is {value}{evidence}, and {made_for}")
    if part.pixel_size is not None:
        from ..readers.geodesy import metres_per_pixel  # which loads pyproj

        metres = metres_per_pixel(info.placement, (info.size[0] / 2, info.size[1] / 2))
        factor, unit = _PER_METRE[info.kind]
        low, high = part.pixel_size
        if metres is None:
            unknown.append(f"the pixel size is not known, and the model was made for {low:g} to {high:g} {unit}")
        else:
            size = factor * float((metres[0] * scale[0] * metres[1] * scale[1]) ** 0.5)
            if not low * (1 - 1e-6) <= size <= high * (1 + 1e-6):
                mismatches.append(
                    f"its pixels are {size:.4g} {unit}, and the model was made for {low:g} to {high:g} {unit}"
                )
    return Comparison(tuple(mismatches), tuple(unknown), tuple(doubts))


def _alternatives(domain: Iterable[Domain]) -> str:
    return " or ".join(f"a {part}" for part in domain)


def _stain_evidence(info: "ImageInfo") -> str:
    facts = dict(info.facts)
    parts = [f"the header says {facts['stain']}"] if "stain" in facts else []
    if "stain_measured" in facts:
        parts.append(
            f"the overview looks like {facts['stain_measured']}, where {facts['stain_evidence']}".replace(
                "looks like doubtful", "is between H&E and IHC"
            )
        )
    return "; ".join(parts)
