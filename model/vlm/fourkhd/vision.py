"""The vision encoder: the ViT of CLIP or SigLIP up to its last layer, without the norm after it.

Source: CLIP, arXiv 2103.00020. Modules have transformers' names, so that its checkpoints fit. Each tile is encoded by
itself: there is no attention between tiles.
"""

# torch's types do not state what recomputing returns:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from typing import cast

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from .attention import attend
from .model_config import Kernel, VisionSizes


class VisionEmbeddings(nn.Module):
    """Patch and position embeddings of a tile."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        if sizes.class_token:
            self.class_embedding = nn.Parameter(torch.empty(sizes.hidden))
        self.patch_embedding = nn.Conv2d(3, sizes.hidden, sizes.patch, stride=sizes.patch, bias=sizes.patch_bias)
        self.position_embedding = nn.Embedding(sizes.positions, sizes.hidden)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """(n, 3, image, image) → (n, positions, hidden)."""
        patches = self.patch_embedding(tiles).flatten(2).transpose(1, 2)
        if hasattr(self, "class_embedding"):
            first = self.class_embedding.expand(len(patches), 1, -1)
            patches = torch.cat([first, patches], dim=1)
        return patches + self.position_embedding.weight


class VisionAttention(nn.Module):
    """Attention among all patches of a tile."""

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
        return self.out_proj(attend(self, query, key, value, None, kernel=kernel, causal=False))


class Mlp(nn.Module):
    """Two linear maps with an activation between them."""

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


class VisionLayer(nn.Module):
    """Attention and MLP, each with a norm before it and a residual connection."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.self_attn = VisionAttention(sizes)
        self.layer_norm1 = nn.LayerNorm(sizes.hidden, eps=sizes.eps)
        self.mlp = Mlp(sizes)
        self.layer_norm2 = nn.LayerNorm(sizes.hidden, eps=sizes.eps)

    def forward(self, hidden: torch.Tensor, kernel: Kernel) -> torch.Tensor:
        """(n, positions, hidden) → the same."""
        hidden = hidden + self.self_attn(self.layer_norm1(hidden), kernel)
        return hidden + self.mlp(self.layer_norm2(hidden))


class VisionModel(nn.Module):
    """A vision encoder without a final norm."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(sizes)
        if sizes.pre_norm:
            self.pre_layrnorm = nn.LayerNorm(sizes.hidden, eps=sizes.eps)
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(VisionLayer(sizes) for _ in range(sizes.layers))})
        self.recompute = False
        """Training only: keep no activations of the layers, recompute them (gradient checkpointing)."""

    def forward(self, tiles: torch.Tensor, kernel: Kernel) -> torch.Tensor:
        """Normalized tiles (n, 3, image, image) → (n, positions, hidden), any class token first."""
        hidden = self.embeddings(tiles)
        if hasattr(self, "pre_layrnorm"):
            hidden = self.pre_layrnorm(hidden)
        for layer in cast("nn.ModuleList", self.encoder["layers"]):
            if self.recompute and self.training and torch.is_grad_enabled():
                hidden = cast("torch.Tensor", checkpoint(layer, hidden, kernel, use_reentrant=False))
            else:
                hidden = layer(hidden, kernel)
        return hidden


def merge_patches(patches: torch.Tensor) -> torch.Tensor:
    """Patches (n, side, side, C) → (n, side / 2, side / 2, 4 C): each 2 × 2 block becomes one vector.

    ::

        a b | …
        c d | …   →   [a, b, c, d] | …
    """
    n, side, _, width = patches.shape
    blocks = patches.reshape(n, side // 2, 2, side // 2, 2, width).permute(0, 1, 3, 2, 4, 5)
    return blocks.reshape(n, side // 2, side // 2, 4 * width)
