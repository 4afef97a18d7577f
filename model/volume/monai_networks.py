"""Networks of the package `monai` with the weights of a bundle: made by name, from literal arguments."""

# torch's and monai's types do not cover what is used here:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingImports=false
# pyright: reportUnknownArgumentType=false

from pathlib import Path
from typing import Any, Final, cast

import torch

from ...readers.errors import ModelError, excerpt
from ..checkpoints.tensors import check_config_integers, count_elements, load_weights
from ..checkpoints.untrusted import wrap_errors
from .bundle_config import TARGET, BundleConfig
from .runtimes import score_volume
from .sliding import Network

NETWORKS: Final = ("AttentionUnet", "BasicUNet", "DynUNet", "SegResNet", "SwinUNETR", "UNet", "UNETR", "VNet")


def load_monai_network(config: BundleConfig, path: Path, channels: int) -> Network:
    """The network of a bundle with its weights. Raises `ModelError` where it is another, or they do not fit."""
    name, given = config.part("network_def")
    if name not in NETWORKS:
        raise config.refused("network_def", f"must be one of {', '.join(NETWORKS)}", name)
    arguments = {key: config.value(one, f"network_def.{key}") for key, one in given.items()}
    if _has_target(arguments):
        raise config.refused("network_def", "must have literal arguments", TARGET)
    held: Any = load_weights(path, config.subject)
    for key in ("model", "state_dict", "network"):
        held = held[key] if isinstance(held, dict) and isinstance(held.get(key), dict) else held
    weights = {str(key): one for key, one in held.items() if isinstance(one, torch.Tensor)}
    shapes = {key: tuple(one.shape) for key, one in weights.items()}
    check_config_integers(arguments, tensors=len(shapes), numbers=count_elements(shapes), subject=config.subject)
    import monai.networks.nets

    kind = getattr(monai.networks.nets, name)
    remedy = "Check that the files belong together, and that this version of monai is one that its metadata names"
    with wrap_errors(config.subject, f"must describe a {name} of monai that its weights fit", remedy=remedy):
        with torch.device("meta"):
            described = {key: tuple(one.shape) for key, one in kind(**arguments).state_dict().items()}
        for key in [*described, *shapes]:
            if described.get(key) != shapes.get(key):
                value = f"{excerpt(key)}: {shapes.get(key)} in the weights, {described.get(key)} by network_def"
                raise ModelError(config.subject, "must have the weights of its network_def", value=value, remedy=remedy)
        network = kind(**arguments).eval()
        network.load_state_dict(weights, strict=True)

    def run(patch: torch.Tensor) -> torch.Tensor:
        return score_volume(network(patch), patch, channels, "NCDHW", config.subject)

    return run


def _has_target(value: Any) -> bool:
    if isinstance(value, dict):
        given = cast("dict[str, Any]", value)
        return TARGET in given or any(map(_has_target, given.values()))
    return isinstance(value, list) and any(map(_has_target, cast("list[Any]", value)))
