"""Finds the model of the `volume` annotator: a shipped card, or a folder or file of a known format."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from ...readers.errors import ModelError
from ...readers.options import invalid_option
from ..checkpoints.cards import PatchCard, find_any_card, shipped_cards
from ..checkpoints.untrusted import CHECK_PATH
from ..options import NetworkOptions
from .options import FolderOptions, VolumeOptions

if TYPE_CHECKING:
    from .volume import VolumeModel


_OF_CARDS: Final = {*NetworkOptions.model_fields, "folds", "flips"}


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


def find_volume_folder(path: str, options: FolderOptions) -> "VolumeModel":
    """The volume model of a path; its small files are read, its weights are not.

    Raises `ModelError` where the path is none, or its files cannot be used.
    """
    from .monai_bundle import MonaiBundle, is_bundle  # these load torch
    from .nnunet import NnUNet
    from .nnunet_plans import is_nnunet, read_nnunet

    place = Path(path)
    if is_nnunet(place):
        return NnUNet(read_nnunet(place, options), options)
    if is_bundle(place):
        return MonaiBundle(path, options)
    kinds = (
        "a folder of nnU-Net v2, with plans.json, dataset.json and fold_*/checkpoint_final.pth, "
        "or a MONAI bundle, with configs/metadata.json and configs/inference.json"
    )
    value = "" if place.exists() else "nothing there"
    raise ModelError(f"volume model {path}", f"must be {kinds}", value=value, remedy=CHECK_PATH)
