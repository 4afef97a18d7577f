"""A checkpoint's card, beside its weights: what it is, where it comes from, and what it must not be used for."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from ....readers.errors import ModelError, excerpt
from ...checkpoints.cards import CardPart, Text
from ...checkpoints.untrusted import read_yaml

CARD = "card.yaml"


class Source(CardPart):
    """Data that the checkpoint was trained on: its name, licence, whom to cite, and which part of it was used."""

    name: Text
    licence: Text
    citation: Text
    used: Text


class Measured(CardPart):
    """A figure: of what, how much, its 95 % interval, and how many examples it rests on."""

    what: Text
    value: float
    low: float
    high: float
    count: Annotated[int, Field(gt=0)]


class CheckpointCard(CardPart):
    """A card. `use` is the sentence that every report of the model repeats."""

    name: Text
    summary: Text
    licence: Text
    use: Text
    not_for: Annotated[tuple[Text, ...], Field(min_length=1)]
    known_mistakes: tuple[Text, ...] = ()
    asked: Text
    data: tuple[Source, ...] = ()
    measured: tuple[Measured, ...] = ()


def read_card(path: Path, source: str) -> CheckpointCard:
    """The card in a file. Raises `ModelError`: not YAML, unknown or missing keys, values that break a rule."""
    try:
        return CheckpointCard.model_validate(read_yaml(path, f"checkpoint {source}"))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        value = excerpt(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        raise ModelError(
            f"checkpoint {source}",
            f"its {CARD} must be a card",
            value=value,
            remedy="Correct the card, or take it away",
        ) from error
