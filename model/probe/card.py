"""A probe's card: its encoder, its training data, and its metrics on held-out tiles."""

from pathlib import Path
from typing import Annotated, Final, Literal

import yaml
from pydantic import Field, ValidationError

from ...readers.errors import ModelError, excerpt
from ...readers.files import write_atomic
from ..checkpoints.cards import CardPart, Text
from ..checkpoints.untrusted import MAX_TILE
from ..checkpoints.untrusted_yaml import read_yaml
from ..domain import Domain

CARD: Final = "card.yaml"
HEAD: Final = "head.safetensors"

NOT_FOR: Final = (
    "Diagnosis, treatment, safety, legal decisions, or anything in which a mistake harms people.",
    "Images of another kind than those it was trained on: other sensors, stains, seasons, scanners or resolutions.",
    "Counting, or measuring areas more finely than a tile.",
)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class Interval(CardPart):
    """A metric with its 95 % interval."""

    value: float
    low: float
    high: float


class ProbeClass(CardPart):
    """One class and its training data."""

    name: Text
    tiles: Count
    units: Count
    """Outlines, blocks or images."""


class ProbeInput(CardPart):
    """The tiles that the probe was trained on."""

    tile: Annotated[int, Field(gt=0, le=MAX_TILE)]
    """Side in pixels."""
    metres: Annotated[float, Field(gt=0)] | None
    """Pixel size; None where it is unknown."""
    tolerates: Annotated[float, Field(ge=1)]
    """Factor by which the pixel size may differ."""
    bands: tuple[Text, ...] | None
    """STAC common names of native bands; None for rendered images."""
    quantity: str
    """Of native bands."""
    channels: Annotated[int, Field(gt=0)]
    """1 for grey, 3 for colour, or the number of bands."""
    limits: tuple[float, float] | None = None
    """Native values that are rendered black and white; None where each image had its own."""


class EncoderRecord(CardPart):
    """The encoder."""

    source: Text
    identity: dict[str, str]
    """Everything that decides its features."""


class HeadRecord(CardPart):
    """The head."""

    kind: Literal["linear", "mlp"]
    sha256: Sha256
    dimensions: Annotated[int, Field(gt=0)]
    strength: str
    """Of the regularisation."""
    temperature: Annotated[float, Field(gt=0)]


class ClassMetrics(CardPart):
    """Metrics of one class on held-out tiles."""

    name: Text
    precision: Interval
    recall: Interval
    f1: Interval


class ProbeMetrics(CardPart):
    """Metrics on held-out tiles; the expected calibration error before and after temperature scaling."""

    accuracy: Interval
    balanced_accuracy: Interval
    macro_f1: Interval
    calibration_error_before: Interval
    calibration_error: Interval


class Margin(CardPart):
    """The share of tiles that are decided at a `margin`, and their accuracy."""

    margin: float
    decided: float
    accuracy: float


class Validation(CardPart):
    """How the metrics were estimated."""

    folds: Annotated[int, Field(ge=3)]
    unit: Text
    """What is never in two folds."""
    units: Count
    inside: float
    """Minimum share of a tile inside the outlines of its class."""
    interval: Text
    left_out: dict[str, Count]
    """Tiles and outlines that were not used, by reason."""


class ProbeCard(CardPart):
    """A probe's card, the content of `card.yaml`."""

    format: Literal[1] = 1
    annotator: Literal["probe"] = "probe"
    summary: Text
    licence: Text
    classes: Annotated[tuple[ProbeClass, ...], Field(min_length=2)]
    seen: ProbeInput
    domain: tuple[Domain, ...] = ()
    """The images that it was trained on; empty in the cards of earlier versions."""
    encoder: EncoderRecord
    head: HeadRecord
    validation: Validation
    figures: ProbeMetrics
    by_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[Count, ...], ...]
    """Confusion matrix: rows are true classes, columns predicted ones."""
    margins: tuple[Margin, ...]
    majority: float
    """Accuracy of always predicting the largest class."""
    colour: ProbeMetrics | None
    """Metrics of colour statistics on the same tiles and folds; None where these are the encoder."""
    gain: Interval | None
    """Accuracy that the encoder adds to that of colour statistics."""
    labels_sha256: dict[str, Sha256]
    versions: dict[str, str]
    not_for: Annotated[tuple[Text, ...], Field(min_length=1)]

    @property
    def labels(self) -> tuple[str, ...]:
        """Its classes, in the order of the head's outputs."""
        return tuple(one.name for one in self.classes)


def write_card(card: ProbeCard, folder: Path) -> Path:
    """Write `card.yaml` into a probe's folder; written last, it shows that the probe is complete."""
    content = yaml.safe_dump(card.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
    path = folder / CARD
    write_atomic(path, content.encode())
    return path


def read_card(folder: Path) -> ProbeCard:
    """Read the card in a probe's folder. Raises `ModelError` for a missing or invalid file."""
    subject = f"probe {folder}"
    if not (folder / CARD).is_file():
        raise ModelError(
            subject,
            f"must be a folder with {CARD}",
            remedy="Name the folder that `limner train probe` was given with --out",
        )
    content = read_yaml(folder / CARD, subject)
    try:
        return ProbeCard.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise ModelError(
            f"{CARD} of {subject}",
            f"must have a valid {where}: {first['msg']}",
            value=excerpt(str(first["input"]), 80),
            remedy="Train the probe again",
        ) from error
