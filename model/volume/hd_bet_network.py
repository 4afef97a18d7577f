"""The network of HD-BET: a 3-D U-Net with residual blocks and instance normalisation, run with little memory.

Isensee, F. et al. Automated brain extraction of multisequence MRI using artificial neural networks. Human Brain
Mapping, 2019, 40, 4952-4964.

At full resolution the activations of one layer are hundreds of megabytes. So layers work in place: normalisation on a
few channels at a time, and convolution on a slab of planes at a time. Tensors that are joined by their channels, such
as a skip connection with what stands beside it, are never copied into one: `Parts` are their list.
"""

# torch's types do not cover what is used here:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

Parts = Sequence[torch.Tensor]
"""Tensors (1, C, D, H, W) joined by their channels."""

_LEVELS = 4
_INNER, _OUTER = 1e-2, 1e-1  # negative slopes in blocks, and after the last context block and the last convolutions
_SLAB = 2**25
"""Bytes of the channels or planes that are worked on at once."""


class HdBetNetwork(nn.Module):
    """Voxels (1, 1, D, H, W), sides multiples of 16 → the probability (D, H, W) of the second class of two."""

    def __init__(self, width: int) -> None:
        """`width`: channels at full resolution."""
        super().__init__()
        widths = [width * 2**level for level in range(_LEVELS + 1)]
        self.init_conv = _conv(1, width)
        for level, channels in enumerate(widths, start=1):
            self.add_module(f"context{level}", _Context(channels))
            if level <= _LEVELS:
                self.add_module(f"down{level}", _Down(channels))
        self.bn_after_context5 = _norm(widths[-1])
        for step, channels in enumerate(widths[-2::-1], start=1):
            self.add_module(f"up{step}", _Up(channels))
            if step < _LEVELS:
                self.add_module(f"loc{step}", _Localisation(channels))
        self.loc2_seg = nn.Conv3d(widths[2], 2, 1, bias=False)  # of training with deep supervision, like the next
        self.loc3_seg = nn.Conv3d(widths[1], 2, 1, bias=False)
        self.end_conv_1, self.end_conv_1_bn = _conv(2 * width, 2 * width), _norm(2 * width)
        self.end_conv_2, self.end_conv_2_bn = _conv(2 * width, 2 * width), _norm(2 * width)
        self.seg_layer = nn.Conv3d(2 * width, 2, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        held: list[torch.Tensor] = []
        first: nn.Conv3d = self.init_conv
        before = x
        for level in range(1, _LEVELS + 2):
            x = _empty(before, first.out_channels, first.stride[0])
            convolve([before], first, [x])
            self.get_submodule(f"context{level}")(x)
            if level <= _LEVELS:
                down = cast("_Down", self.get_submodule(f"down{level}"))
                normalise([x], down.bn, _INNER)
                held.append(x)
                first, before = down.downsample, x
        del before
        normalise([x], self.bn_after_context5, _OUTER)
        parts: list[torch.Tensor] = []
        for step in range(1, _LEVELS + 1):
            parts = [held.pop()]  # frees those of the level below first
            parts.append(self.get_submodule(f"up{step}")(x))
            if step < _LEVELS:
                x = self.get_submodule(f"loc{step}")(parts)
        del x
        for conv, norm in ((self.end_conv_1, self.end_conv_1_bn), (self.end_conv_2, self.end_conv_2_bn)):
            convolve(parts, conv, parts)
            normalise(parts, norm, _OUTER)
        first_class, second_class = self.seg_layer.weight
        return mix(parts, (second_class - first_class)[None], None)[0, 0].sigmoid_()


class _Context(nn.Module):
    """Two convolutions beside a shortcut, normalised before."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn_1, self.conv1 = _norm(channels), _conv(channels, channels)
        self.bn_2, self.conv2 = _norm(channels), _conv(channels, channels)

    def forward(self, x: torch.Tensor) -> None:
        """Changes `x` (1, C, D, H, W)."""
        work = [x.clone()]
        normalise(work, self.bn_1, _INNER)
        convolve(work, self.conv1, work)
        normalise(work, self.bn_2, _INNER)
        convolve(work, self.conv2, [x], add=True)


class _Down(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = _norm(channels)
        self.downsample = _conv(channels, 2 * channels, stride=2)


class _Up(nn.Module):
    """Twice the size, and half the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.upsample_conv, self.bn = _conv(2 * channels, channels), _norm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, 2 C, D, H, W) → (1, C, 2 D, 2 H, 2 W)."""
        out = x.new_empty(1, self.upsample_conv.out_channels, *(2 * side for side in x.shape[2:]))
        convolve([x], self.upsample_conv, [out])
        normalise([out], self.bn, _INNER)
        return out


class _Localisation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn_1 = _conv(2 * channels, 2 * channels), _norm(2 * channels)
        self.conv2, self.bn_2 = nn.Conv3d(2 * channels, channels, 1), _norm(channels)

    def forward(self, parts: Parts) -> torch.Tensor:
        """Of 2 C channels, which are overwritten, → (1, C, D, H, W)."""
        convolve(parts, self.conv1, parts)
        normalise(parts, self.bn_1, _INNER)
        x = mix(parts, self.conv2.weight, self.conv2.bias)
        normalise([x], self.bn_2, _INNER)
        return x


def _conv(before: int, after: int, *, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(before, after, 3, stride, 1)


def _norm(channels: int) -> nn.InstanceNorm3d:
    """Its running statistics are in the files and not used: statistics are those of the volume."""
    return nn.InstanceNorm3d(channels, affine=True, track_running_stats=True)


def _empty(x: torch.Tensor, channels: int, stride: int) -> torch.Tensor:
    return x.new_empty(1, channels, *(side // stride for side in x.shape[2:]))


def mix(parts: Parts, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """A convolution of 1³: (1, C, D, H, W) for weights (C, channels of the parts, 1, 1, 1)."""
    shares = weight.flatten(1).split([part.shape[1] for part in parts], dim=1)
    out = shares[0] @ parts[0][0].flatten(1)
    for share, part in zip(shares[1:], parts[1:], strict=True):
        out.addmm_(share, part[0].flatten(1))
    if bias is not None:
        out += bias[:, None]
    return out.view(1, len(out), *parts[0].shape[2:])


def normalise(parts: Parts, norm: nn.InstanceNorm3d, slope: float) -> None:
    """Instance normalisation with the values' own statistics, and leaky ReLU, in place."""
    step = max(1, _SLAB // (4 * parts[0][0, 0].numel()))
    first = 0
    for part in parts:
        for start in range(0, part.shape[1], step):
            values = part[:, start : start + step]
            own = slice(first + start, first + start + values.shape[1])
            fresh = F.instance_norm(values, weight=norm.weight[own], bias=norm.bias[own], eps=norm.eps)
            values.copy_(F.leaky_relu_(fresh, slope))
        first += part.shape[1]


def convolve(parts: Parts, conv: nn.Conv3d, out: Parts, *, add: bool = False) -> None:
    """A convolution of 3³ with zeros around, into or onto `out`, by slabs of its planes.

    The parts are enlarged first where `out` is larger. `out` may be the parts themselves.
    """
    stride, shape = conv.stride[0], out[0].shape[2:]
    planes = _Planes(parts, shape if shape[0] > parts[0].shape[2] else parts[0].shape[2:], stride)
    width = max(conv.in_channels * stride**2, conv.out_channels) * shape[1] * shape[2]
    step = max(2, _SLAB // (4 * width))
    for start in range(0, shape[0], step):
        stop = min(shape[0], start + step)
        slab = planes.read(stride * start - 1, stride * (stop - 1) + 2)
        fresh = F.conv3d(slab, conv.weight, conv.bias, stride, (0, 1, 1))
        for values, target in zip(fresh.split([one.shape[1] for one in out], dim=1), out, strict=True):
            if add:
                target[:, :, start:stop] += values
            else:
                target[:, :, start:stop] = values


class _Planes:
    """The planes of parts, enlarged to (D, H, W), in order; those that were read may change."""

    def __init__(self, parts: Parts, size: Sequence[int], stride: int) -> None:
        self._parts, self._size, self._stride = parts, size, stride
        channels = sum(part.shape[1] for part in parts)
        self._kept = parts[0].new_zeros(1, channels, 1, *size[1:])

    def read(self, start: int, stop: int) -> torch.Tensor:
        """Planes from `start` to `stop`, of which the first is kept from the read before; zeros outside."""
        inside = slice(start + 1, min(stop, self._size[0]))
        slab = self._kept.new_zeros(1, self._kept.shape[1], stop - start, *self._size[1:])
        slab[:, :, :1] = self._kept
        first = 0
        for part in self._parts:
            values = part[:, :, inside] if self._size == part.shape[2:] else self._enlarged(part, inside)
            slab[:, first : first + part.shape[1], 1 : 1 + values.shape[2]] = values
            first += part.shape[1]
        self._kept = slab[:, :, self._stride - 3 :][:, :, :1].clone()
        return slab

    def _enlarged(self, part: torch.Tensor, planes: slice) -> torch.Tensor:
        """Planes of a part, interpolated linearly with the corners' centres in place."""
        depth = part.shape[2]
        at = torch.arange(planes.start, planes.stop) * ((depth - 1) / (self._size[0] - 1))
        below = at.long().clamp_(max=depth - 2)
        values = torch.lerp(part[:, :, below], part[:, :, below + 1], (at - below).float().view(1, 1, -1, 1, 1))
        return F.interpolate(values, (len(at), *self._size[1:]), mode="trilinear", align_corners=True)
