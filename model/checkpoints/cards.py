"""Model cards: a model's weights, input, classes, licence and limitations, in YAML.

A card of the annotator `segment` describes a segmentation network (`ModelCard`), one of the annotator `volume` a method
that labels the voxels of a stack (`VolumeCard`), or a user's network that does so in patches (`PatchCard`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...readers.errors import ModelError, did_you_mean, excerpt
from ..domain import Domain
from .untrusted import MAX_TILE, UntrustedDict
from .untrusted_yaml import parse_yaml, read_yaml
from .weights import is_path

Text = Annotated[str, Field(min_length=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class CardPart(BaseModel):
    """A strict, frozen part of a card: unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class CardConcept(CardPart):
    """What a class is in a coding scheme, for DICOM objects."""

    value: Annotated[str, Field(pattern=r"^[!-\[\]-~]{1,16}$")]
    """The code: printable characters without blanks and backslashes, as VR SH has them."""
    scheme: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{2,16}$")]
    """The designator of the coding scheme: SCT for SNOMED CT, RADLEX, and those of PS3.16 section 8."""
    meaning: Annotated[str, Field(pattern=r"^[^\\\x00-\x1f\x7f]{1,64}$")]


class CardClass(CardPart):
    """A class of a network."""

    name: Text
    colour: Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]
    background: bool = False
    """Whether it gives no findings."""
    concept: CardConcept | None = None
    """Its code; without one, DICOM objects have a private code that says so."""


class PixelSize(CardPart):
    """The pixel size that a network was made for."""

    value: Annotated[float, Field(gt=0)]
    unit: Literal["m", "um"]
    tolerates: Annotated[float, Field(ge=1)] = 2.0
    """The factor by which it may differ either way."""


class CardFile(CardPart):
    """A file with weights."""

    name: Text
    """Unique in the card."""
    weights: Text
    """The source of the file: see `weights.locate`."""
    sha256: Sha256


class Companion(CardFile):
    """A file with weights outside the network's own, as ONNX allows; its name is that in the network's file."""


class CardVariant(CardFile):
    """One network of a card. Bands reach it as (value - mean) / std."""

    bands: Annotated[tuple[Text | Annotated[tuple[Text, ...], Field(min_length=1)], ...], Field(min_length=1)]
    """STAC common names in the network's order, or a list of names for a band with several, best first."""
    quantity: Text
    """The physical quantity of the bands."""
    valid_range: tuple[float, float]
    """The range of the quantity's values: most values outside mean that the stated quantity is wrong."""
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    input: Literal["bands", "macenko-ehod"] = "bands"
    """With "macenko-ehod", red, green and blue of 8 bits become eosin, haematoxylin and optical density from 0 to 1
    first (see `stain`)."""
    companions: tuple[Companion, ...] = ()
    tile_mib: Annotated[float, Field(ge=0)] = 0.0
    """MiB that running it on one tile takes beside the loaded network, measured; 0 where it was not."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        msg = ""
        if not len(self.bands) == len(self.mean) == len(self.std):
            msg = f"bands, mean and std must have one value each: {len(self.bands)}, {len(self.mean)}, {len(self.std)}"
        elif self.valid_range[0] >= self.valid_range[1]:
            msg = "valid_range must be ordered"
        elif self.input == "macenko-ehod" and self.bands != ("red", "green", "blue"):
            msg = "stains are separated from the bands red, green, blue"
        if msg:
            raise ValueError(msg)
        return self


class CardTiling(CardPart):
    """How far answers depend on where tiles lie, on one image, as `limner check seams` measures it."""

    image: Text
    changed_percent: Annotated[float, Field(ge=0, le=100)]
    """The largest share of labelled pixels that change when the grid of tiles is shifted by 1 to 256 pixels."""
    changed_in_step_percent: Annotated[float, Field(ge=0, le=100)]
    """That over shifts by multiples of 32 pixels, in step with what networks pool, as tiles of a run lie."""
    outline_ratio: Annotated[float, Field(ge=0)] | None = None
    """Outline where tiles meet, as a multiple of that on other lines; None where no two tiles meet."""
    outline_interval: tuple[float, float] | None = None
    """Its 95 % interval."""
    halo: Annotated[int, Field(ge=0)]
    """The halo with which it was measured."""
    met: bool
    """Whether the targets were met: 0.5 % at every shift, and 1.2 times chance."""


class CardMeasurement(CardPart):
    """A figure that was measured, and on what."""

    what: Text
    value: float
    unit: str = ""


class Card(CardPart):
    """What cards of all annotators have."""

    name: Text
    annotator: str
    summary: Text
    licence: Text
    citation: Text
    homepage: Text
    not_for: Annotated[tuple[Text, ...], Field(min_length=1)]
    known_mistakes: tuple[Text, ...] = ()
    classes: Annotated[tuple[CardClass, ...], Field(min_length=2, max_length=255)]
    """In the order of the network's outputs."""

    sources: ClassVar[Any] = {}
    """The parts that decide neither answers nor texts, as pydantic's `exclude`."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that become findings, in order."""
        return tuple(c.name for c in self.classes if not c.background)

    @property
    def concepts(self) -> Mapping[str, tuple[str, str, str]]:
        """Label → (code value, coding scheme, meaning), of the classes that have a code."""
        return {
            one.name: (one.concept.value, one.concept.scheme, one.concept.meaning)
            for one in self.classes
            if one.concept is not None and not one.background
        }

    @property
    def weight_files(self) -> Mapping[str, tuple[CardFile, ...]]:
        """Name of a network → its files."""
        return {}

    @property
    def digest(self) -> str:
        """The sha256 of everything that decides answers and texts, without codes and the sources of the weights."""
        parts: Any = {**self.sources, "classes": {"__all__": {"concept"}}}
        return hashlib.sha256(self.model_dump_json(exclude=parts).encode()).hexdigest()

    def _faults(self, *named: tuple[str, Sequence[str]]) -> str:
        """What is wrong with the classes, or with further names that must be unique; "" for nothing."""
        for what, names in (("class", [c.name for c in self.classes]), *named):
            if len(set(names)) < len(names):
                return f"two {what} names are the same"
        return "at least one class must not be background" if not self.labels else ""


class ModelCard(Card):
    """A card of the annotator `segment`."""

    annotator: Literal["segment"]  # pyright: ignore[reportIncompatibleVariableOverride] - frozen
    resolution: PixelSize
    domain: tuple[Domain, ...] = ()
    """The images that the network was made for; empty where that is not known."""
    tile: Annotated[int, Field(gt=0, le=MAX_TILE)]
    halo: Annotated[int, Field(ge=0)]
    """Pixels at each border of a tile whose answers are dropped."""
    layout: Literal["NHWC", "NCHW"]
    output: Literal["logits", "probabilities", "sigmoid"]
    """Of the network: "sigmoid" stands for logits of independent classes."""
    fill: Literal["nearest", "mean"] = "nearest"
    """The value of an invalid pixel: the "nearest" valid pixel of its tile, or the "mean"."""
    tiling: tuple[CardTiling, ...] = ()
    """What was measured of the tiling, image by image."""
    variants: Annotated[tuple[CardVariant, ...], Field(min_length=1)]
    """In order of preference."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        msg = self._faults(("variant", [v.name for v in self.variants]))
        if self.tile <= 2 * self.halo:
            msg = msg or "a tile must be wider than its two halos"
        if msg:
            raise ValueError(msg)
        return self

    sources: ClassVar[Any] = {
        "variants": {"__all__": {"weights": True, "companions": {"__all__": {"weights"}}, "tile_mib": True}}
    }

    @property
    def weight_files(self) -> Mapping[str, tuple[CardFile, ...]]:
        """Name of a variant → its network and companions."""
        return {one.name: (one, *one.companions) for one in self.variants}

    @property
    def tiling_note(self) -> str:
        """A sentence for pictures where the targets of the tiling are missed; "" where they are met or not measured."""
        missed = [one for one in self.tiling if not one.met]
        if not missed:
            return ""
        worst, in_step = (max(shares) for shares in zip(*map(_shares, missed), strict=True))
        return (
            f"up to {worst:.2g} % of labelled pixels change with the place of the grid "
            f"({in_step:.2g} % between tiles of a run), by its card"
        )


class VolumeCard(Card):
    """A card of the annotator `volume`: weights for a method that limner implements."""

    annotator: Literal["volume"]  # pyright: ignore[reportIncompatibleVariableOverride] - frozen
    domain: tuple[Domain, ...] = ()
    """The studies that the method was made for; empty where that is not known."""
    method: Literal["deepbet", "hd-bet"]
    """From voxels to labels: see `limner.model.volume.deepbet` and `limner.model.volume.hd_bet`."""
    extent_mm: tuple[float, float]
    """The least and greatest extent of a stack along each of its axes."""
    files: Annotated[tuple[CardFile, ...], Field(min_length=1)]
    """In the order in which the method takes them."""
    measured: tuple[CardMeasurement, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        msg = self._faults(("file", [one.name for one in self.files]))
        if not 0 < self.extent_mm[0] < self.extent_mm[1]:
            msg = msg or "extent_mm must be ordered and above 0"
        if msg:
            raise ValueError(msg)
        return self

    sources: ClassVar[Any] = {"files": {"__all__": {"weights"}}, "measured": True}

    @property
    def weight_files(self) -> Mapping[str, tuple[CardFile, ...]]:
        """Name of a file → that file."""
        return {one.name: (one,) for one in self.files}


class CardIntensity(CardPart):
    """A step from the values of a stack to those of a network."""

    kind: Literal["window", "z-score", "percentiles"]
    """From `low` to `high`; less the mean, by the deviation; from the percentile `low` to the percentile `high`."""
    low: float = 0.5
    high: float = 99.5
    to: tuple[float, float] = (0.0, 1.0)
    """What `low` and `high` become."""
    clip: bool = True
    """Whether values outside become those of the ends."""
    mean: float | None = None
    std: Annotated[float, Field(gt=0)] | None = None
    """Of a z-score; those of the stack by default."""
    nonzero: bool = False
    """Whether a z-score is of the voxels only that are not 0, and leaves the others."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.low >= self.high or self.to[0] >= self.to[1]:
            msg = "low must be below high, and the first of to below the second"
            raise ValueError(msg)
        if self.kind == "percentiles" and not 0 <= self.low < self.high <= 100:
            msg = "percentiles must lie from 0 to 100"
            raise ValueError(msg)
        if self.kind == "window" and not {"low", "high"} <= self.model_fields_set:
            msg = "a window must state low and high"
            raise ValueError(msg)
        return self


class PatchCard(Card):
    """A card of the annotator `volume`: a network of any origin that labels a stack in patches."""

    annotator: Literal["volume"]  # pyright: ignore[reportIncompatibleVariableOverride] - frozen
    domain: tuple[Domain, ...] = ()
    """The studies that the network was made for; empty where that is not known."""
    format: Literal["onnx", "torchscript"]
    files: Annotated[tuple[CardFile, ...], Field(min_length=1, max_length=1)]
    """The network."""
    orientation: Annotated[str, Field(pattern="^[LRAPSI]{3}$")]
    """Directions of the network's axes, depth first: "SAR" for z, y, x of a NIfTI file in "RAS"."""
    spacing: tuple[Annotated[float, Field(gt=0)] | None, ...]
    """Of these axes, in mm; null for that of the stack."""
    intensity: tuple[CardIntensity, ...] = ()
    fill: float = 0.0
    """The value of voxels that are not valid, in the stack's own."""
    patch: tuple[Annotated[int, Field(ge=1, le=1024)], ...]
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Of neighbouring patches, as a share of a patch."""
    blend: Literal["gaussian", "constant"] = "gaussian"
    """How much the voxels of a patch count where patches overlap."""
    layout: Literal["NCDHW", "NDHWC"] = "NCDHW"
    output: Literal["logits", "probabilities", "sigmoid"]
    """Of the network: "sigmoid" stands for logits of independent classes, of which later ones count first."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The least probability of an independent class."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        msg = self._faults()
        if len(self.spacing) != 3 or len(self.patch) != 3:
            msg = msg or "spacing and patch must have three values"
        if {*self.orientation} not in [{a, b, c} for a in "LR" for b in "AP" for c in "SI"]:
            msg = msg or "orientation must have one each of L or R, A or P, S or I"
        if msg:
            raise ValueError(msg)
        return self

    sources: ClassVar[Any] = {"files": {"__all__": {"weights"}}}

    @property
    def weight_files(self) -> Mapping[str, tuple[CardFile, ...]]:
        """Name of a file → that file."""
        return {one.name: (one,) for one in self.files}


AnyCard = ModelCard | VolumeCard | PatchCard


def _shares(one: CardTiling) -> tuple[float, float]:
    return one.changed_percent, one.changed_in_step_percent


def shipped_cards() -> tuple[str, ...]:
    """Names of the cards that come with limner, sorted."""
    files = (entry.name for entry in (resources.files(__package__ or "") / "cards").iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml")))


def shipped_model_cards() -> list[ModelCard]:
    """The cards of segmentation networks that come with limner."""
    return [card for name in shipped_cards() if isinstance(card := find_any_card(name), ModelCard)]


@cache
def shipped_digests() -> frozenset[str]:
    """The sha256 of every weight file that a shipped card names."""
    networks = [files for name in shipped_cards() for files in find_any_card(name).weight_files.values()]
    return frozenset(file.sha256 for files in networks for file in files)


def find_card(name_or_path: str) -> ModelCard:
    """`find_any_card`, of the annotator `segment`. Raises `ModelError` for a card of another one, too."""
    return _require(find_any_card(name_or_path), ModelCard, f"model {name_or_path!r}")


def find_volume_card(name_or_path: str) -> VolumeCard:
    """`find_any_card`, of the annotator `volume`. Raises `ModelError` for a card of another one, too."""
    return _require(find_any_card(name_or_path), VolumeCard, f"model {name_or_path!r}")


def find_any_card(name_or_path: str) -> AnyCard:
    """A shipped card by name, or a YAML file by path, from whose folder relative paths of weights count.

    Raises `ModelError`: no such card, not YAML, unknown or missing keys, invalid values.
    """
    shipped = shipped_cards()
    if name_or_path in shipped:
        return _shipped_card(name_or_path)
    path, known = Path(name_or_path), ", ".join(shipped)
    if path.suffix not in {".yaml", ".yml"}:
        rule = "must be the name of a shipped card or the path of a card's .yaml file"
        remedy = f"{did_you_mean(name_or_path, shipped)}Known: {known}"
        raise ModelError(f"model {name_or_path!r}", rule, remedy=remedy)
    if not path.is_file():
        remedy = f"Check the path, or name a shipped card: {known}"
        raise ModelError(f"card {name_or_path}", "must be a readable text file", remedy=remedy)
    card = _validate(read_yaml(path, f"card {name_or_path}"))
    if not isinstance(card, ModelCard):
        return card.model_copy(update={"files": tuple(_in_folder(one, path) for one in card.files)})
    variants = [
        _in_folder(variant, path).model_copy(
            update={"companions": tuple(_in_folder(c, path) for c in variant.companions)}
        )
        for variant in card.variants
    ]
    return card.model_copy(update={"variants": tuple(variants)})


@cache
def _shipped_card(name: str) -> AnyCard:
    text = (resources.files(__package__ or "") / "cards" / f"{name}.yaml").read_text(encoding="utf-8")
    return _validate(parse_yaml(text, f"card {name}", shipped=True))


WithWeights = TypeVar("WithWeights", bound=CardFile)


def _in_folder(part: WithWeights, path: Path) -> WithWeights:
    """A part of a card at `path`, with the path of its weights from the card's folder."""
    return part.model_copy(update={"weights": str(path.parent / part.weights)}) if is_path(part.weights) else part


def read_card(text: str, *, subject: str) -> ModelCard:
    """A card of the annotator `segment` from YAML text; `subject` names it in errors. Raises `ModelError`."""
    return _require(_validate(parse_yaml(text, subject)), ModelCard, subject)


def read_volume_card(text: str, *, subject: str) -> VolumeCard:
    """A card of the annotator `volume` from YAML text; `subject` names it in errors. Raises `ModelError`."""
    return _require(_validate(parse_yaml(text, subject)), VolumeCard, subject)


Kind = TypeVar("Kind", ModelCard, VolumeCard, PatchCard)


def _require(card: AnyCard, kind: type[Kind], subject: str) -> Kind:
    if not isinstance(card, kind):
        needed = "segment" if kind is ModelCard else "volume"
        remedy = f"Name it with its own annotator: --model {card.annotator}:{card.name}"
        raise ModelError(subject, f"must be a card of the annotator {needed}", value=card.annotator, remedy=remedy)
    return card


_PARTS: Mapping[str, type[BaseModel]] = {
    "classes": CardClass,
    "companions": Companion,
    "domain": Domain,
    "files": CardFile,
    "intensity": CardIntensity,
    "measured": CardMeasurement,
    "resolution": PixelSize,
    "tiling": CardTiling,
    "variants": CardVariant,
}


def _validate(content: UntrustedDict) -> AnyCard:
    kind = ModelCard
    if content.get("annotator") == "volume":
        kind = PatchCard if "patch" in content else VolumeCard
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        if first["type"] == "extra_forbidden":
            part: type[BaseModel] = kind
            for step in first["loc"][:-1]:
                part = _PARTS.get(str(step), part)
            rule, value = "must have known keys only", excerpt(where)
            remedy = f"{did_you_mean(str(first['loc'][-1]), part.model_fields)}Known: {', '.join(part.model_fields)}"
        else:
            rule, value = f"must be valid at {where or 'its top'}: {first['msg']}", excerpt(str(first["input"]), 80)
            remedy = "Correct the file"
        raise ModelError(content.where, rule, value=value, remedy=remedy) from error
