"""CLIP's residual network: the image tower of OpenCLIP's RN50 and its kin. Imports torch and transformers.

Sources: CLIP, arXiv 2103.00020, section 2.4 (three convolutions to begin with, means instead of strides, a pool that
attends from the mean to everything); mlfoundations/open_clip, `modified_resnet.py` (names of weights, heads).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .openclip_files import SHRINKS, STAGES

GROWTH = 4  # a block gives so many times the channels that it works in


class Block(nn.Module):
    """Three convolutions beside a short cut; with a `stride` both give the mean of its squares of pixels."""

    def __init__(self, given: int, width: int, stride: int) -> None:
        super().__init__()
        out = GROWTH * width
        self.conv1, self.bn1 = nn.Conv2d(given, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.shrink = nn.AvgPool2d(stride)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or given != out:
            self.downsample = nn.Sequential(nn.Conv2d(given, out, 1, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, given, height, width) → (n, 4 · width, height / stride, width / stride)."""
        seen = self.bn1(self.conv1(x)).relu()
        seen = self.bn2(self.conv2(seen)).relu()
        seen = self.bn3(self.conv3(self.shrink(seen)))
        return (seen + self.downsample(self.shrink(x))).relu()


class AttentionPool(nn.Module):
    """What the mean of a map, and where it lies, sees in it."""

    def __init__(self, places: int, width: int, heads: int, out: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.zeros(places + 1, width))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, width, side, side) → (n, out)."""
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.positional_embedding
        asked = (self.q_proj(x[:, :1]), self.k_proj(x), self.v_proj(x))
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in asked)
        seen = functional.scaled_dot_product_attention(query, key, value)
        return self.c_proj(seen.transpose(1, 2).flatten(1))


class ClipResNet(nn.Module):
    """What stands for the vision model in transformers' CLIP, its projection included.

    `width` is that of the first blocks, `layers` how many blocks each of the four stages has, `out` the length of the
    features that pictures of `side` pixels get.
    """

    def __init__(self, *, side: int, width: int, layers: Sequence[int], heads: int, out: int) -> None:
        super().__init__()
        half = width // 2
        self.conv1, self.bn1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv2, self.bn2 = nn.Conv2d(half, half, 3, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = nn.Conv2d(half, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        given = width
        for stage, count in enumerate(layers):
            inner = width << stage
            first = Block(given, inner, 2 if stage else 1)
            given = GROWTH * inner
            self.add_module(
                f"layer{stage + 1}", nn.Sequential(first, *(Block(given, inner, 1) for _ in range(1, count)))
            )
        self.attnpool = AttentionPool((side // SHRINKS) ** 2, given, heads, out)

    def forward(self, pixel_values: torch.Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """Pictures (n, 3, side, side) as the network sees them → features (n, out) as `pooler_output`."""
        x = self.bn1(self.conv1(pixel_values)).relu()
        x = self.bn2(self.conv2(x)).relu()
        x = functional.avg_pool2d(self.bn3(self.conv3(x)).relu(), 2)
        for stage in range(1, STAGES + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return BaseModelOutputWithPooling(pooler_output=self.attnpool(x))
