"""The U-Nets of nnU-Net v2: a plain encoder, or one of residual blocks, with a plain decoder.

The names of the parameters are those of dynamic-network-architectures' `PlainConvUNet` and `ResidualEncoderUNet`, which
list a parameter under each module that holds it, so that its checkpoints load strictly.

Isensee et al., "nnU-Net", Nature Methods 2021; and "nnU-Net Revisited", MICCAI 2024, for the residual encoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

Triple = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class UNetConfig:
    """A U-Net by the arguments of its class in dynamic-network-architectures; the stages begin at full resolution."""

    kind: Literal["PlainConvUNet", "ResidualEncoderUNet"]
    features: tuple[int, ...]
    """Channels of each stage."""
    kernels: tuple[Triple, ...]
    strides: tuple[Triple, ...]
    depths: tuple[int, ...]
    """Convolutions of each stage of the encoder, or its residual blocks."""
    decoder: tuple[int, ...]
    """Convolutions of each stage of the decoder, from the lowest resolution upwards."""
    bias: bool
    norm: Literal["InstanceNorm3d", "BatchNorm3d", ""]
    eps: float
    affine: bool
    activation: Literal["LeakyReLU", "ReLU"]
    slope: float
    """Of LeakyReLU, for negative values."""
    activation_first: bool = False
    """Whether the normalisation follows the activation."""
    dropout: bool = False
    """Whether the training dropped channels, which leaves a module without an effect in inference."""

    def normalisation(self, channels: int) -> nn.Module:
        """A new normalisation of so many channels."""
        kind = {"InstanceNorm3d": nn.InstanceNorm3d, "BatchNorm3d": nn.BatchNorm3d}[self.norm]
        return kind(channels, eps=self.eps, affine=self.affine)

    def nonlinearity(self) -> nn.Module:
        """A new activation."""
        return nn.LeakyReLU(self.slope, inplace=True) if self.activation == "LeakyReLU" else nn.ReLU(inplace=True)


class UNet(nn.Module):
    """(n, channels, depth, height, width) → logits (n, classes, depth, height, width)."""

    def __init__(self, config: UNetConfig, channels: int, classes: int) -> None:
        super().__init__()
        self.encoder = _Encoder(config, channels)
        self.decoder = _Decoder(config, self.encoder, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits of a patch whose sides the strides divide."""
        return self.decoder(self.encoder(x))


class _Convolution(nn.Module):
    """A convolution, its normalisation and its activation; the last two may be missing."""

    def __init__(
        self, config: UNetConfig, inputs: int, outputs: int, kernel: Triple, stride: Triple, *, plain: bool = False
    ) -> None:
        """`plain` is one without an activation and without dropout."""
        super().__init__()
        padding = ((kernel[0] - 1) // 2, (kernel[1] - 1) // 2, (kernel[2] - 1) // 2)
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=config.bias)
        parts: list[nn.Module] = [self.conv]
        if config.dropout and not plain:
            self.dropout = nn.Identity()
            parts.append(self.dropout)
        if config.norm:
            self.norm = config.normalisation(outputs)
            parts.append(self.norm)
        if not plain:
            self.nonlin = config.nonlinearity()
            parts.append(self.nonlin)
            if config.activation_first and config.norm:
                parts[-2:] = parts[:-3:-1]
        self.all_modules = nn.Sequential(*parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.all_modules(x)


class _Convolutions(nn.Module):
    """Several in a row, of which the first may have a stride."""

    def __init__(
        self, config: UNetConfig, inputs: int, outputs: int, kernel: Triple, stride: Triple, depth: int
    ) -> None:
        super().__init__()
        steps = [(inputs, stride)] + [(outputs, (1, 1, 1))] * (depth - 1)
        self.convs = nn.Sequential(*(_Convolution(config, before, outputs, kernel, each) for before, each in steps))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convs(x)


class _ResidualBlock(nn.Module):
    """Two convolutions beside a skip, which is pooled and projected where its shape changes (ResNet-D)."""

    def __init__(self, config: UNetConfig, inputs: int, outputs: int, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.conv1 = _Convolution(config, inputs, outputs, kernel, stride)
        self.conv2 = _Convolution(config, outputs, outputs, kernel, (1, 1, 1), plain=True)
        self.nonlin2 = config.nonlinearity()
        skip: list[nn.Module] = []
        if stride != (1, 1, 1):
            skip.append(nn.AvgPool3d(stride, stride))
        if inputs != outputs:
            unbiased = replace(config, bias=False)
            skip.append(_Convolution(unbiased, inputs, outputs, (1, 1, 1), (1, 1, 1), plain=True))
        self.skip = nn.Sequential(*skip)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.nonlin2(self.conv2(self.conv1(x)) + self.skip(x))


class _ResidualBlocks(nn.Module):
    """Several in a row, of which the first may have a stride."""

    def __init__(
        self, config: UNetConfig, inputs: int, outputs: int, kernel: Triple, stride: Triple, depth: int
    ) -> None:
        super().__init__()
        steps = [(inputs, stride)] + [(outputs, (1, 1, 1))] * (depth - 1)
        self.blocks = nn.Sequential(*(_ResidualBlock(config, before, outputs, kernel, each) for before, each in steps))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


class _Encoder(nn.Module):
    """The features of every stage, from full resolution downwards."""

    def __init__(self, config: UNetConfig, channels: int) -> None:
        super().__init__()
        residual = config.kind == "ResidualEncoderUNet"
        if residual:
            self.stem = _Convolutions(config, channels, config.features[0], config.kernels[0], (1, 1, 1), 1)
            channels = config.features[0]
        stages: list[nn.Module] = []
        for features, kernel, stride, depth in zip(
            config.features, config.kernels, config.strides, config.depths, strict=True
        ):
            if residual:
                stages.append(_ResidualBlocks(config, channels, features, kernel, stride, depth))
            else:
                stages.append(nn.Sequential(_Convolutions(config, channels, features, kernel, stride, depth)))
            channels = features
        self.stages = nn.Sequential(*stages)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.stem(x) if hasattr(self, "stem") else x
        found: list[torch.Tensor] = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


class _Decoder(nn.Module):
    """Logits at full resolution; the layers that trained the lower resolutions are there for their names."""

    def __init__(self, config: UNetConfig, encoder: _Encoder, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        stages: list[nn.Module] = []
        upwards: list[nn.Module] = []
        heads: list[nn.Module] = []
        for below, depth in zip(range(len(config.features) - 1, 0, -1), config.decoder, strict=True):
            inputs, outputs, stride = config.features[below], config.features[below - 1], config.strides[below]
            upwards.append(nn.ConvTranspose3d(inputs, outputs, stride, stride, bias=config.bias))
            kernel = config.kernels[below - 1]
            stages.append(_Convolutions(config, 2 * outputs, outputs, kernel, (1, 1, 1), depth))
            heads.append(nn.Conv3d(outputs, classes, 1))
        self.stages = nn.ModuleList(stages)
        self.transpconvs = nn.ModuleList(upwards)
        self.seg_layers = nn.ModuleList(heads)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        remaining = list(features)
        x = remaining.pop()
        for upwards, stage in zip(self.transpconvs, self.stages, strict=True):
            x = stage(torch.cat((upwards(x), remaining.pop()), dim=1))
        return self.seg_layers[-1](x)
