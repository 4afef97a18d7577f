"""Finds the model of the `volume` annotator: a shipped card, or a folder or file of a known format."""

from typing import TYPE_CHECKING

from ...readers.errors import ModelError
from ..options import CheckpointOptions

if TYPE_CHECKING:
    from .volume import VolumeModel


class VolumeOptions(CheckpointOptions):
    """Options of the annotator `volume`."""


def find_model(options: VolumeOptions) -> "VolumeModel":
    """The model that a checkpoint names. Raises `ModelError`."""
    rule = "must be a card or folder of a volume model"
    raise ModelError(f"model {options.checkpoint!r}", rule, remedy="`limner models` lists cards")
