"""The network of deepbet: a LinkNet of 3-D convolutions with instance normalisation, on cubes of one channel.

Fisch, L. et al. deepbet: Fast brain extraction of T1-weighted MRI using convolutional neural networks. Computers in
Biology and Medicine, 2024, 179, 108845. Chaurasia, A.; Culurciello, E. LinkNet. VCIP, 2017.
"""

import torch
from torch import nn

_LEVELS = 4


class LinkNet(nn.Module):
    """Voxels (1, 1, D, H, W), sides multiples of 32 → the logit (1, 1, D, H, W) of the second class over the first."""

    def __init__(self, width: int, late: int) -> None:
        """`width`: channels of the first level, of `late` after it on the way up."""
        super().__init__()
        self.init = nn.Sequential(
            nn.Conv3d(1, width, 7, 2, 3, bias=False), *_norm(width), nn.MaxPool3d(3, stride=2, padding=1)
        )
        widths = [width * 2**level for level in range(_LEVELS)]
        for level, (before, after) in enumerate(zip([width, *widths[:-1]], widths, strict=True)):
            self.add_module(f"down{level}", _Down(before, after, stride=1 if level == 0 else 2))
        for level, (before, after) in enumerate(zip(widths[::-1], [*widths[-2::-1], width], strict=True)):
            self.add_module(f"up{level}", _Up(before, after, stride=1 if level == _LEVELS - 1 else 2))
        self.tp_conv1 = nn.Sequential(nn.ConvTranspose3d(width, late, 3, 2, 1, output_padding=1), *_norm(late))
        self.conv = nn.Sequential(nn.Conv3d(late, late, 3, padding=1), *_norm(late))
        self.tp_conv2 = nn.ConvTranspose3d(late, 2, 2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        held = [self.init(x)]
        for level in range(_LEVELS):
            held.append(self.get_submodule(f"down{level}")(held[-1]))
        x = held.pop()
        for level in range(_LEVELS):
            x = self.get_submodule(f"up{level}")(x).add_(held.pop())
        x = self.conv(self.tp_conv1(x))
        weight, bias = self.tp_conv2.weight, self.tp_conv2.bias
        difference = weight[:, 1:] - weight[:, :1]  # of two classes the softmax needs only the difference
        offset = None if bias is None else bias[1:] - bias[:1]
        return nn.functional.conv_transpose3d(x, difference, offset, stride=2)


def _norm(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.InstanceNorm3d(channels), nn.ReLU(inplace=True)


class _Down(nn.Module):
    def __init__(self, before: int, after: int, *, stride: int) -> None:
        super().__init__()
        self.block1 = _Block(before, after, stride=stride)
        self.block2 = _Block(after, after, stride=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block2(self.block1(x))


class _Block(nn.Module):
    """Two convolutions beside a shortcut (ResNet's basic block)."""

    def __init__(self, before: int, after: int, *, stride: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv3d(before, after, 3, stride, 1, bias=False),
            *_norm(after),
            nn.Conv3d(after, after, 3, 1, 1, bias=False),
            nn.InstanceNorm3d(after),
        )
        self.downsample = (
            nn.Sequential(nn.Conv3d(before, after, 1, stride, bias=False), nn.InstanceNorm3d(after))
            if stride > 1
            else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.double_conv(x).add_(self.downsample(x)).relu_()


class _Up(nn.Module):
    def __init__(self, before: int, after: int, *, stride: int) -> None:
        super().__init__()
        middle = before // 4
        self.conv1 = nn.Sequential(nn.Conv3d(before, middle, 1, bias=False), *_norm(middle))
        up = nn.ConvTranspose3d(middle, middle, 3, stride, 1, output_padding=stride - 1, bias=False)
        self.tp_conv = nn.Sequential(up, *_norm(middle))
        self.conv2 = nn.Sequential(nn.Conv3d(middle, after, 1, bias=False), *_norm(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv2(self.tp_conv(self.conv1(x)))
