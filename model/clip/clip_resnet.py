"""CLIP's modified ResNet, the vision encoder of OpenCLIP's RN50 to RN50x64. Imports torch and transformers.

Sources: CLIP, arXiv 2103.00020, section 2.4 (a stem of three convolutions, anti-aliased strides, attention pooling);
mlfoundations/open_clip, `modified_resnet.py` (names of weights, heads).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .openclip import STAGES, STRIDE

EXPANSION = 4
"""A bottleneck's output channels as a multiple of its inner ones."""


class Bottleneck(nn.Module):
    """Three convolutions with a shortcut; a `stride` is average pooling in both."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = EXPANSION * width
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.pool = nn.AvgPool2d(stride)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, channels, height, width) → (n, 4 · width, height / stride, width / stride)."""
        out = self.bn1(self.conv1(x)).relu()
        out = self.bn2(self.conv2(out)).relu()
        out = self.bn3(self.conv3(self.pool(out)))
        return (out + self.downsample(self.pool(x))).relu()


class AttentionPool(nn.Module):
    """Attention from the mean of a feature map to all its positions."""

    def __init__(self, positions: int, width: int, heads: int, out: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.zeros(positions + 1, width))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, width, side, side) → (n, out)."""
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.positional_embedding
        projected = (self.q_proj(x[:, :1]), self.k_proj(x), self.v_proj(x))
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in projected)
        pooled = functional.scaled_dot_product_attention(query, key, value)
        return self.c_proj(pooled.transpose(1, 2).flatten(1))


class ClipResNet(nn.Module):
    """Replaces the vision model of transformers' CLIP, its projection included.

    `side` is that of its images in pixels, `width` that of the first stage, `layers` the numbers of blocks of the four
    stages, `out` the dimensions of the features.
    """

    def __init__(self, *, side: int, width: int, layers: Sequence[int], heads: int, out: int) -> None:
        super().__init__()
        half = width // 2
        self.conv1, self.bn1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv2, self.bn2 = nn.Conv2d(half, half, 3, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = nn.Conv2d(half, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        channels = width
        for stage, count in enumerate(layers):
            inner = width << stage
            first = Bottleneck(channels, inner, 2 if stage else 1)
            channels = EXPANSION * inner
            blocks = (Bottleneck(channels, inner, 1) for _ in range(1, count))
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, *blocks))
        self.attnpool = AttentionPool((side // STRIDE) ** 2, channels, heads, out)

    def forward(self, pixel_values: torch.Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """Normalised images (n, 3, side, side) → features (n, out) as `pooler_output`."""
        x = self.bn1(self.conv1(pixel_values)).relu()
        x = self.bn2(self.conv2(x)).relu()
        x = functional.avg_pool2d(self.bn3(self.conv3(x)).relu(), 2)
        for stage in range(1, STAGES + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return BaseModelOutputWithPooling(pooler_output=self.attnpool(x))
