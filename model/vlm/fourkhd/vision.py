"""The vision tower: CLIP's ViT, or SigLIP's, up to its last layer, and no norm after it.

Source: CLIP, arXiv 2103.00020. Modules are named as in transformers, so that their checkpoints fit. Each tile is seen
alone: nothing here lets tiles meet.
"""

# torch's types do not say what recomputing returns:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from typing import cast

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from .attention import Kernel, attend
from .sizes import VisionSizes


class Embeddings(nn.Module):
    """Patches of a tile, with their positions."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        if sizes.class_token:
            self.class_embedding = nn.Parameter(torch.empty(sizes.hidden))
        self.patch_embedding = nn.Conv2d(3, sizes.hidden, sizes.patch, stride=sizes.patch, bias=sizes.patch_bias)
        self.position_embedding = nn.Embedding(sizes.positions, sizes.hidden)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """(n, 3, image, image) → (n, positions, hidden)."""
        seen = self.patch_embedding(tiles).flatten(2).transpose(1, 2)
        if hasattr(self, "class_embedding"):
            first = self.class_embedding.expand(len(seen), 1, -1)
            seen = torch.cat([first, seen], dim=1)
        return seen + self.position_embedding.weight


class SelfAttention(nn.Module):
    """Every patch of a tile sees every other."""

    num_key_value_groups = 1

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.k_proj = nn.Linear(sizes.hidden, sizes.hidden)
        self.v_proj = nn.Linear(sizes.hidden, sizes.hidden)
        self.q_proj = nn.Linear(sizes.hidden, sizes.hidden)
        self.out_proj = nn.Linear(sizes.hidden, sizes.hidden)

    def forward(self, hidden: torch.Tensor, kernel: Kernel) -> torch.Tensor:
        """(n, positions, hidden) → the same."""
        query, key, value = (
            projection(hidden).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        scale = query.shape[-1] ** -0.5
        return self.out_proj(attend(self, query, key, value, None, kernel=kernel, causal=False, scale=scale))


class Mlp(nn.Module):
    """Two linear maps."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.activation = sizes.activation
        self.fc1 = nn.Linear(sizes.hidden, sizes.mlp)
        self.fc2 = nn.Linear(sizes.mlp, sizes.hidden)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(n, positions, hidden) → the same."""
        wide = self.fc1(hidden)
        if self.activation == "quick_gelu":
            return self.fc2(wide * torch.sigmoid(1.702 * wide))
        return self.fc2(functional.gelu(wide, approximate="tanh" if self.activation == "gelu_tanh" else "none"))


class Layer(nn.Module):
    """Attention and MLP, each after a norm and beside what was."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.self_attn = SelfAttention(sizes)
        self.layer_norm1 = nn.LayerNorm(sizes.hidden, eps=sizes.eps)
        self.mlp = Mlp(sizes)
        self.layer_norm2 = nn.LayerNorm(sizes.hidden, eps=sizes.eps)

    def forward(self, hidden: torch.Tensor, kernel: Kernel) -> torch.Tensor:
        """(n, positions, hidden) → the same."""
        hidden = hidden + self.self_attn(self.layer_norm1(hidden), kernel)
        return hidden + self.mlp(self.layer_norm2(hidden))


class Encoder(nn.Module):
    """The layers."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.layers))


class VisionModel(nn.Module):
    """A vision tower without a norm at its end."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.embeddings = Embeddings(sizes)
        if sizes.pre_norm:
            self.pre_layrnorm = nn.LayerNorm(sizes.hidden, eps=sizes.eps)
        self.encoder = Encoder(sizes)
        self.recompute = False  # in training: keep no activations of the layers, compute them again

    def forward(self, tiles: torch.Tensor, kernel: Kernel) -> torch.Tensor:
        """Normalised tiles (n, 3, image, image) → (n, positions, hidden), the class token first where there is one."""
        hidden = self.embeddings(tiles)
        if hasattr(self, "pre_layrnorm"):
            hidden = self.pre_layrnorm(hidden)
        for layer in self.encoder.layers:
            if self.recompute and self.training and torch.is_grad_enabled():
                hidden = cast("torch.Tensor", checkpoint(layer, hidden, kernel, use_reentrant=False))
            else:
                hidden = layer(hidden, kernel)
        return hidden


def merge_patches(patches: torch.Tensor) -> torch.Tensor:
    """Patches (n, side, side, C) → (n, side / 2, side / 2, 4 C): 2 × 2 neighbours side by side.

    Upper left, upper right, lower left, lower right. An odd last row or column has no partner: sides are even.
    """
    n, side, _, width = patches.shape
    blocks = patches.reshape(n, side // 2, 2, side // 2, 2, width).permute(0, 1, 3, 2, 4, 5)
    return blocks.reshape(n, side // 2, side // 2, 4 * width)
