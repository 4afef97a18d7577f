"""Find out which kind of volume model a path is: a folder of nnU-Net v2, or a MONAI bundle."""

from pathlib import Path

from ...readers.errors import ModelError
from ..checkpoints.untrusted import CHECK_PATH
from .options import FolderOptions
from .volume import VolumeModel


def find_volume_folder(path: str, options: FolderOptions) -> VolumeModel:
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
