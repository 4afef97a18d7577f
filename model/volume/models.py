"""Finds the model of the `volume` annotator: a shipped card, or a folder or file of a known format."""

from typing import TYPE_CHECKING, Final

from ...readers.options import invalid_option
from ..checkpoints.cards import PatchCard, find_any_card, shipped_cards
from ..options import NetworkOptions
from .folders import find_volume_folder
from .options import FolderOptions, VolumeOptions

if TYPE_CHECKING:
    from .volume import VolumeModel


def find_model(options: VolumeOptions) -> "VolumeModel":
    """The model that a checkpoint names. Raises `ModelError`; `RequestError` for options that it does not take."""
    name = options.checkpoint
    if name in shipped_cards() or name.endswith((".yaml", ".yml")):
        card = find_any_card(name)
        if isinstance(card, PatchCard):
            from .patch_model import PatchModel

            return PatchModel(card, options)
        from .cards import find_volume_model

        for option in sorted(set(FolderOptions.model_fields) - _OF_CARDS):
            if getattr(options, option) != FolderOptions.model_fields[option].default:
                remedy = "Leave it out"
                raise invalid_option(option, "volume", f"must not be given for the card {name}", remedy=remedy)
        return find_volume_model(name, fetch=options.fetch, folds=options.folds, flips=options.flips)
    return find_volume_folder(name, options)


_OF_CARDS: Final = {*NetworkOptions.model_fields, "folds", "flips"}
