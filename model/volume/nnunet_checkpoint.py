"""Read the checkpoint of a fold of nnU-Net v2 as data, and compare it with the plans beside it.

A checkpoint is a pickle with the weights, the state of the training, and the plans that it was trained with. It is read
by torch's weights-only reader, which is allowed NumPy's scalars besides tensors: nnU-Net logs its losses as those.
"""

# torch's types do not cover what it loads:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import _codecs
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import torch

from ...readers.errors import ModelError, excerpt
from ..checkpoints.tensors import load_weights
from ..checkpoints.untrusted import UntrustedDict, wrap_errors
from .nnunet_plans import PLANS, NnUNetConfig
from .unet import UNet

_RESAMPLING: Final = ("resampling_fn_data", "resampling_fn_probabilities")
_COMPARED: Final = (
    *("spacing", "patch_size", "normalization_schemes", "use_mask_for_norm", "architecture", "UNet_class_name"),
    *("conv_kernel_sizes", "pool_op_kernel_sizes"),
    *(f"{name}{end}" for name in _RESAMPLING for end in ("", "_kwargs")),
)
_COMPARED_PLANS: Final = ("transpose_forward", "image_reader_writer", "foreground_intensity_properties_per_channel")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What inference needs of a fold's checkpoint."""

    weights: Mapping[str, torch.Tensor]
    """Memory-mapped where the file allows."""
    mirrored: tuple[int, ...]
    """Axes of the network along which the training mirrored its patches."""
    trainer: str


def numpy_scalars() -> list[Any]:
    """What a pickled scalar of NumPy asks for, under its names before and since NumPy 2."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"]
    names = [(scalar, f"{module}.multiarray.scalar") for module in ("numpy.core", "numpy._core")]
    return [*names, np.dtype, (_codecs.encode, "_codecs.encode"), *kinds]


def read_checkpoint(config: NnUNetConfig, fold: str) -> Checkpoint:
    """The checkpoint of a fold.

    Raises `ModelError` where it is damaged, holds other objects, or contradicts the plans.
    """
    subject = f"fold {fold} of checkpoint {config.source}"
    path = config.checkpoint(fold)
    with torch.serialization.safe_globals(numpy_scalars()):
        held = load_weights(path, subject)
    if not isinstance(held, dict) or not isinstance(held.get("network_weights"), dict):
        rule, remedy = "must be a checkpoint of nnU-Net v2, with network_weights", "Get the file again"
        raise ModelError(f"{path.name} of {subject}", rule, remedy=remedy)
    content = UntrustedDict(cast("dict[str, Any]", held), f"{path.name} of {subject}")
    with wrap_errors(content.where, "must have plans in init_args as plain data", remedy="Get the file again"):
        _compare(config, content)
    mirrored = content.get("inference_allowed_mirroring_axes")
    axes = list(mirrored) if isinstance(mirrored, (list, tuple)) else []
    if not all(axis in (0, 1, 2) for axis in axes):
        raise content.wrong("inference_allowed_mirroring_axes", "axes from 0 to 2")
    weights = cast("dict[str, Any]", held["network_weights"])
    tensors = {str(name): one for name, one in weights.items() if isinstance(one, torch.Tensor)}
    return Checkpoint(tensors, tuple(sorted({int(axis) for axis in axes})), content.text("trainer_name", "unknown"))


def check_shapes(config: NnUNetConfig, weights: Mapping[str, torch.Tensor], fold: str) -> None:
    """Raise `ModelError` where weights are not exactly those of the network that the plans describe."""
    with torch.device("meta"):
        network = UNet(config.network, 1, config.labels.heads)
    described = {name: tuple(one.shape) for name, one in network.state_dict().items()}
    found = {name: tuple(one.shape) for name, one in weights.items()}
    for name in [*described, *found]:
        if described.get(name) != found.get(name):
            here, there = found.get(name, "absent"), described.get(name, "absent")
            raise ModelError(
                f"fold {fold} of checkpoint {config.source}",
                f"must have the weights of the {config.network.kind} that its plans describe",
                value=f"{excerpt(name)}: {here} in the checkpoint, {there} by the plans",
                remedy="Check that the files belong together",
            )


def _compare(config: NnUNetConfig, content: UntrustedDict) -> None:
    """Raise `ModelError` where the plans in a checkpoint contradict those beside it, naming both."""
    stated = content.part("init_args")
    trained = stated.text("configuration", config.configuration)
    if trained != config.configuration:
        remedy = f"Choose it with --set model_options.configuration={excerpt(trained)}"
        raise _contradiction(content, "configuration", trained, config.configuration, remedy)
    plans = stated.part("plans")
    settings = plans.part("configurations").part(config.configuration)
    for key in _COMPARED:
        if key in settings and _plain(settings[key]) != _plain(config.settings.get(key)):
            raise _contradiction(content, key, settings[key], config.settings.get(key))
    for key in _COMPARED_PLANS:
        if key in plans and key in config.plans and _plain(plans[key]) != _plain(config.plans[key]):
            raise _contradiction(content, key, plans[key], config.plans[key])


def _contradiction(content: UntrustedDict, key: str, trained: Any, planned: Any, remedy: str = "") -> ModelError:
    rule = f"must have been trained with the {key} of {PLANS}"
    value = f"{excerpt(str(trained), 80)} in the checkpoint, {excerpt(str(planned), 80)} in {PLANS}"
    return ModelError(content.where, rule, value=value, remedy=remedy or "Get the files that belong together")


def _plain(value: Any) -> str:
    """A value as JSON has it, where tuples are lists and NumPy's scalars are numbers."""
    return json.dumps(value, sort_keys=True, default=_python)


def _python(value: object) -> object:
    return cast("object", value.item()) if isinstance(value, np.generic) else str(value)
