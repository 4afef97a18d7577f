"""Statistics over a tile inside torch networks: measured once on tiles of an image, then used for every tile of it.

Group and instance normalisation, and pooling of a whole tile, take the statistics of what a network sees at a time. A
hook on each such layer replaces its output by that with given statistics. Where none are given they are taken of the
layer's input, over all tiles of the batch together, so that a deep layer's are taken behind layers normalised alike.
See `checkpoints.tile_statistics` for ONNX networks.
"""

# torch leaves hooks and buffers untyped:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

LAYERS = (nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.AdaptiveAvgPool2d)


class TileStatistics:
    """The statistics of a network's layers, by the layer's name and the number of its call."""

    def __init__(self, network: nn.Module) -> None:
        self.values: dict[str, torch.Tensor] = {}
        self._calls: Counter[str] = Counter()
        self.layers = find_layers(network)
        if self.layers:
            network.register_forward_pre_hook(self._begin)
        for name, layer in self.layers.items():
            layer.register_forward_hook(partial(self._output, name))

    def use(self, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Use these statistics from now on; {} to take those of the next batch."""
        self.values = {name: torch.from_numpy(np.array(value)) for name, value in values.items()}

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The statistics as arrays."""
        return {name: value.numpy() for name, value in self.values.items()}

    def _begin(self, _network: nn.Module, _inputs: object) -> None:
        self._calls.clear()

    def _output(self, name: str, layer: Any, inputs: tuple[torch.Tensor, ...], _output: object) -> torch.Tensor:
        (given,) = inputs
        key = f"{name}#{self._calls[name]}"
        self._calls[name] += 1
        if isinstance(layer, nn.AdaptiveAvgPool2d):
            mean = self.values.setdefault(key, given.mean(dim=(0, 2, 3), keepdim=True))
            return mean.expand(given.shape[0], -1, -1, -1)
        channels, epsilon, weight, bias = given.shape[1], layer.eps, layer.weight, layer.bias
        groups = layer.num_groups if isinstance(layer, nn.GroupNorm) else channels
        grouped = given.reshape(given.shape[0], groups, -1)
        if key not in self.values:
            variance, mean = torch.var_mean(grouped, dim=(0, 2), correction=0)
            self.values[key] = torch.stack([mean, variance])
        mean, variance = self.values[key][:, None, :, None]
        found = ((grouped - mean) / torch.sqrt(variance + epsilon)).reshape(given.shape)
        if weight is None:
            return found
        shape = (1, channels, *[1] * (given.ndim - 2))
        return found * weight.reshape(shape) + bias.reshape(shape)


def find_layers(network: nn.Module) -> dict[str, nn.Module]:
    """The layers whose output depends on statistics over a tile, by name."""
    return {name: layer for name, layer in network.named_modules() if _over_space(layer)}


def _over_space(layer: nn.Module) -> bool:
    """Whether a layer's output depends on statistics over what it sees at a time."""
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return layer.output_size in {1, (1, 1)}
    return isinstance(layer, LAYERS) and not getattr(layer, "track_running_stats", False)
