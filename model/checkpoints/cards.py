"""Model cards: what a network is, what it wants, what it answers, and what it must not be used for."""

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...readers.errors import ModelError, did_you_mean, excerpt
from .untrusted import MAX_TILE, UntrustedDict, parse_yaml, read_yaml
from .weights import is_path

Text = Annotated[str, Field(min_length=1)]
Colour = Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]


_SOURCES: Final[Any] = {"variants": {"__all__": {"weights": True, "companions": {"__all__": {"weights"}}}}}


class CardPart(BaseModel):
    """A strict, frozen part of a card: unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CardClass(CardPart):
    """One class. `background` is true where it is not worth a finding."""

    name: Text
    colour: Colour
    background: bool = False


class PixelSize(CardPart):
    """The pixel size that the network was made for, and the factor by which it may differ either way."""

    value: Annotated[float, Field(gt=0)]
    unit: Literal["m", "um"]
    tolerates: Annotated[float, Field(ge=1)] = 2.0


class Companion(CardPart):
    """A file that a network's file refers to by `name`: weights kept outside of it, as ONNX allows."""

    name: Text
    weights: Text
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class CardVariant(CardPart):
    """One network of a card.

    `bands` are STAC common names in the network's order; where a band has several names in use, a list of them, best
    first. Their values are a `quantity`, lie within `valid_range` where they are what they claim to be, and reach the
    network as (value - mean) / std. `weights` says where the file comes from, `sha256` what it must be. With `input`
    "macenko-ehod" the bands are red, green and blue of 8 bits, and become eosin, haematoxylin and optical density from
    0 to 1 (see `stain`) before that.
    """

    name: Text
    weights: Text
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bands: Annotated[tuple[Text | Annotated[tuple[Text, ...], Field(min_length=1)], ...], Field(min_length=1)]
    quantity: Text
    valid_range: tuple[float, float]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    input: Literal["bands", "macenko-ehod"] = "bands"
    companions: tuple[Companion, ...] = ()

    @model_validator(mode="after")
    def _one_value_a_band(self) -> Self:
        if not len(self.bands) == len(self.mean) == len(self.std):
            msg = f"bands, mean and std must have one value each: {len(self.bands)}, {len(self.mean)}, {len(self.std)}"
            raise ValueError(msg)
        if self.valid_range[0] >= self.valid_range[1]:
            msg = "valid_range must be ordered"
            raise ValueError(msg)
        if self.input == "macenko-ehod" and self.bands != ("red", "green", "blue"):
            msg = "stains are told apart from the bands red, green, blue"
            raise ValueError(msg)
        return self


class ModelCard(CardPart):
    """A model card. `classes` are in the network's order of outputs; `variants` in order of preference.

    `halo` is the rim of a tile, in pixels, whose answers are dropped. `fill` is what an invalid pixel becomes for the
    network: the "nearest" valid pixel of its tile, or the "mean". `output` says whether the network gives logits,
    probabilities, or "sigmoid": logits of classes that do not exclude each other.
    """

    name: Text
    annotator: Literal["segment"]
    summary: Text
    licence: Text
    citation: Text
    homepage: Text
    not_for: Annotated[tuple[Text, ...], Field(min_length=1)]
    known_mistakes: tuple[Text, ...] = ()
    classes: Annotated[tuple[CardClass, ...], Field(min_length=2, max_length=255)]
    resolution: PixelSize
    tile: Annotated[int, Field(gt=0, le=MAX_TILE)]
    halo: Annotated[int, Field(ge=0)]
    layout: Literal["NHWC", "NCHW"]
    output: Literal["logits", "probabilities", "sigmoid"]
    fill: Literal["nearest", "mean"] = "nearest"
    variants: Annotated[tuple[CardVariant, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for what, names in (("class", [c.name for c in self.classes]), ("variant", [v.name for v in self.variants])):
            if len(set(names)) < len(names):
                msg = f"two {what} names are the same"
                raise ValueError(msg)
        if self.tile <= 2 * self.halo:
            msg = "a tile must be wider than its two halos"
            raise ValueError(msg)
        if all(c.background for c in self.classes):
            msg = "at least one class must not be background"
            raise ValueError(msg)
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that become findings, in order."""
        return tuple(c.name for c in self.classes if not c.background)

    @property
    def digest(self) -> str:
        """A sha256 of everything that decides the answers and the words; where the weights come from does not."""
        content = self.model_dump_json(exclude=_SOURCES)
        return hashlib.sha256(content.encode()).hexdigest()


def shipped_cards() -> tuple[str, ...]:
    """Names of the cards that come with limner, sorted."""
    files = (entry.name for entry in (resources.files(__package__ or "") / "cards").iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml")))


@cache
def shipped_digests() -> frozenset[str]:
    """The sha256 of every file of weights that a shipped card names."""
    variants = [variant for name in shipped_cards() for variant in find_card(name).variants]
    return frozenset(part.sha256 for variant in variants for part in (variant, *variant.companions))


def find_card(name_or_path: str) -> ModelCard:
    """A shipped card by name, or a YAML file by path; its weights' path counts from the file's folder.

    Raises `ModelError`: no such card, not YAML, unknown or missing keys, values that break a rule.
    """
    shipped = shipped_cards()
    if name_or_path in shipped:
        text = (resources.files(__package__ or "") / "cards" / f"{name_or_path}.yaml").read_text(encoding="utf-8")
        return read_card(text, subject=f"card {name_or_path}")
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        raise ModelError(
            f"model {name_or_path!r}",
            "it must be the name of a shipped card or the path of a card's .yaml file",
            remedy=f"{did_you_mean(name_or_path, shipped)}Known: {', '.join(shipped)}",
        )
    if not path.is_file():
        raise ModelError(
            f"card {name_or_path}",
            "it must be a readable text file",
            remedy=f"Check the path, or name a shipped card: {', '.join(shipped)}",
        )
    card = _card(read_yaml(path, f"card {name_or_path}"))
    variants = tuple(
        v.model_copy(
            update={
                "weights": _beside(path, v.weights),
                "companions": tuple(c.model_copy(update={"weights": _beside(path, c.weights)}) for c in v.companions),
            }
        )
        for v in card.variants
    )
    return card.model_copy(update={"variants": variants})


def _beside(path: Path, source: str) -> str:
    """A source of weights as a card at `path` means it."""
    return str(path.parent / source) if is_path(source) else source


def read_card(text: str, *, subject: str) -> ModelCard:
    """A card from YAML text; `subject` names it in errors. Raises `ModelError`."""
    return _card(parse_yaml(text, subject))


def _card(content: UntrustedDict) -> ModelCard:
    subject = content.where
    try:
        return ModelCard.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        if first["type"] == "extra_forbidden":
            known = list(_keys(first["loc"]))
            raise ModelError(
                subject,
                "it has a key that no card has",
                value=excerpt(where),
                remedy=f"{did_you_mean(str(first['loc'][-1]), known)}Known: {', '.join(known)}",
            ) from error
        raise ModelError(
            subject,
            f"{where or 'card'}: {first['msg']}",
            value=excerpt(str(first["input"]), 80),
            remedy="Correct the file",
        ) from error


def _keys(where: tuple[int | str, ...]) -> Iterable[str]:
    """The keys that may stand at a place in a card."""
    part: type[CardPart] = ModelCard
    for step in where[:-1]:
        part = {"classes": CardClass, "companions": Companion, "resolution": PixelSize, "variants": CardVariant}.get(
            str(step), part
        )
    return part.model_fields
