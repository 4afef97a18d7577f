"""Finds the model of the `volume` annotator: a shipped card, or a folder or file of a known format."""

from typing import TYPE_CHECKING

from pydantic import Field

from ...readers.errors import ModelError
from ..checkpoints.cards import shipped_cards
from ..options import CheckpointOptions, Names

if TYPE_CHECKING:
    from .volume import VolumeModel


class VolumeOptions(CheckpointOptions):
    """Options of the annotator `volume`."""

    folds: Names = Field(
        default=(), description="The folds whose answers are averaged; by default those that the model names."
    )
    flips: bool = Field(default=False, description="Average the answers to a volume and to its mirror images.")


def find_model(options: VolumeOptions) -> "VolumeModel":
    """The model that a checkpoint names. Raises `ModelError`."""
    name = options.checkpoint
    if name in shipped_cards() or name.endswith((".yaml", ".yml")):
        from .cards import find_volume_model

        return find_volume_model(name, fetch=options.fetch, folds=options.folds, flips=options.flips)
    rule = "must be a card or folder of a volume model"
    raise ModelError(f"model {options.checkpoint!r}", rule, remedy="`limner models` lists cards")
