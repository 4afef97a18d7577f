"""A probe's card: which encoder it stands on, what it was taught, how well it did on what it had not seen."""

from pathlib import Path
from typing import Annotated, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...readers.errors import ModelError, excerpt
from ...readers.files import write_atomic
from ..checkpoints.untrusted import MAX_TILE, read_yaml

CARD: Final = "card.yaml"
HEAD: Final = "head.safetensors"

NOT_FOR: Final = (
    "Diagnosis, treatment, safety, legal decisions, or anything in which somebody is harmed by a mistake.",
    "Images of another kind than those it was taught on: other sensors, stains, seasons, scanners or resolutions.",
    "Counting, or measuring areas more finely than a tile.",
)

Text = Annotated[str, Field(min_length=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """A strict, frozen part of a card: unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TaughtClass(Part):
    """One class: how many tiles of how many units (outlines, blocks or images) taught it."""

    name: Text
    tiles: Count
    units: Count


class Seen(Part):
    """How images must be seen.

    `tile` pixels; `metres` a pixel and the factor by which that may differ, None where no pixel size was known. `bands`
    are STAC common names of native bands in `quantity`, None for rendered pictures of that many `channels` (1 grey,
    3 colour). `limits` are the native numbers that pictures show black and white, None where each had its own.
    """

    tile: Annotated[int, Field(gt=0, le=MAX_TILE)]
    metres: Annotated[float, Field(gt=0)] | None
    tolerates: Annotated[float, Field(ge=1)]
    bands: tuple[Text, ...] | None
    quantity: str
    channels: Annotated[int, Field(gt=0)]
    limits: tuple[float, float] | None = None


class EncoderPart(Part):
    """The encoder: what it was called, and everything that decides its features."""

    source: Text
    identity: dict[str, str]


class HeadPart(Part):
    """The head: its `kind`, file and sha256; `strength` of the regularisation; the `temperature` of its logits."""

    kind: Literal["linear", "mlp"]
    sha256: Sha256
    dimensions: Annotated[int, Field(gt=0)]
    strength: str
    temperature: Annotated[float, Field(gt=0)]


class Figure(Part):
    """A figure with its interval of 95 %."""

    value: float
    low: float
    high: float


class ClassFigures(Part):
    """How one class fared."""

    name: Text
    precision: Figure
    recall: Figure
    f1: Figure


class Figures(Part):
    """How tiles fared that the head had not seen. `calibration_error` is the expected one, before and after."""

    accuracy: Figure
    balanced_accuracy: Figure
    macro_f1: Figure
    calibration_error_before: Figure
    calibration_error: Figure


class Margin(Part):
    """What abstaining costs: below `margin` a tile is undecided; `decided` of all tiles, and their `accuracy`."""

    margin: float
    decided: float
    accuracy: float


class Validation(Part):
    """How the figures came about: in words, and in numbers that the words are made of."""

    folds: Annotated[int, Field(ge=3)]
    unit: Text
    units: Count
    inside: float
    interval: Text
    left_out: dict[str, Count]


class ProbeCard(Part):
    """A probe's card, as `card.yaml` has it.

    `colour` are the same figures for the colour statistics of the same tiles in the same folds, and `gain` what the
    encoder adds to their accuracy; None where the encoder is those statistics. `majority` is the accuracy of always
    naming the largest class.
    """

    format: Literal[1] = 1
    annotator: Literal["probe"] = "probe"
    summary: Text
    licence: Text
    classes: Annotated[tuple[TaughtClass, ...], Field(min_length=2)]
    seen: Seen
    encoder: EncoderPart
    head: HeadPart
    validation: Validation
    figures: Figures
    by_class: tuple[ClassFigures, ...]
    confusion: tuple[tuple[Count, ...], ...]
    margins: tuple[Margin, ...]
    majority: float
    colour: Figures | None
    gain: Figure | None
    labels_sha256: dict[str, Sha256]
    versions: dict[str, str]
    not_for: Annotated[tuple[Text, ...], Field(min_length=1)]

    @property
    def labels(self) -> tuple[str, ...]:
        """Its classes, in the head's order."""
        return tuple(one.name for one in self.classes)


def write_card(card: ProbeCard, folder: Path) -> Path:
    """Write `card.yaml` into a probe's folder, last of all: its existence means that the probe is complete."""
    content = yaml.safe_dump(card.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
    path = folder / CARD
    write_atomic(path, content.encode())
    return path


def read_card(folder: Path) -> ProbeCard:
    """The card of a probe's folder. Raises `ModelError`: no such file, not YAML, keys or values that cannot be."""
    subject = f"probe {folder}"
    if not (folder / CARD).is_file():
        raise ModelError(
            subject,
            f"its folder must hold {CARD}",
            remedy="Name the folder that `limner train probe` was given with --out",
        )
    content = read_yaml(folder / CARD, subject)
    try:
        return ProbeCard.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise ModelError(
            f"{subject}, {CARD}",
            f"{where}: {first['msg']}",
            value=excerpt(str(first["input"]), 80),
            remedy="Train it again",
        ) from error
