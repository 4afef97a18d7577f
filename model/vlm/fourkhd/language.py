"""The language model: InternLM2 with Partial LoRA, whose low-rank part applies to image tokens only.

Sources: InternLM2, arXiv 2403.17297; Partial LoRA, arXiv 2401.16420. Layers may be on different devices; hidden states
are moved along.
"""

# transformers' types do not state what its classes return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import Cache

from .attention import attend
from .model_config import LINEARS, Kernel, LanguageSizes, Plora, Sizes

Rotation = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Context:
    """What all layers share about a sequence."""

    rotation: Rotation
    """Cosines and sines of the positions (B, L, head_dim), float32."""
    mask: torch.Tensor | None
    """The mask of `attend`."""
    image_mask: torch.Tensor | None
    """(B, L, 1), 1 at image tokens; None where there are none."""
    cache: Cache | None
    kernel: Kernel
    causal: bool

    def to(self, device: torch.device) -> "Context":
        """The same on another device."""
        if self.rotation[0].device == device:
            return self
        cos, sin = (part.to(device) for part in self.rotation)
        mask, image_mask = (None if part is None else part.to(device) for part in (self.mask, self.image_mask))
        return replace(self, rotation=(cos, sin), mask=mask, image_mask=image_mask)


class PloraLinear(nn.Module):
    """y = W x + mask · scale · B A x, without biases; dropout before A in training only."""

    def __init__(self, out: int, into: int, plora: Plora) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out, into))
        self.Plora_A = nn.Linear(into, plora.rank, bias=False)
        self.Plora_B = nn.Linear(plora.rank, out, bias=False)
        self.quantized: nn.Module | None = None
        """W in 4 or 8 bits, in place of `weight`."""
        self.scale = plora.scale
        self.dropout = 0.0

    def forward(self, hidden: torch.Tensor, image_mask: torch.Tensor | None) -> torch.Tensor:
        """(B, L, in) and the mask of image tokens (B, L, 1), None for none → (B, L, out)."""
        out = functional.linear(hidden, self.weight) if self.quantized is None else self.quantized(hidden)
        if image_mask is None:
            return out
        low = self.Plora_A(functional.dropout(hidden, self.dropout, self.training))
        return out + self.Plora_B(low * (image_mask * self.scale))


class RmsNorm(nn.Module):
    """Root mean square norm: the square in float32, the weight in the model's own type."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(…, width) → the same."""
        exact = hidden.float()
        exact = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * exact.to(hidden.dtype)


class LanguageAttention(nn.Module):
    """Grouped-query attention; `wqkv` packs the queries, the key and the value of each key-value head."""

    def __init__(self, sizes: LanguageSizes, plora: dict[str, Plora], index: int) -> None:
        super().__init__()
        self.index = index
        self.kv_heads = sizes.kv_heads
        self.head_dim = sizes.head_dim
        self.num_key_value_groups = sizes.heads // sizes.kv_heads
        self.wqkv = PloraLinear(*sizes.linear("wqkv"), plora["wqkv"])
        self.wo = PloraLinear(*sizes.linear("wo"), plora["wo"])

    def forward(self, hidden: torch.Tensor, context: Context) -> torch.Tensor:
        """(B, L, hidden) → the same."""
        batch, length, _ = hidden.shape
        packed = self.wqkv(hidden, context.image_mask)
        packed = packed.view(batch, length, self.kv_heads, self.num_key_value_groups + 2, self.head_dim)
        query = packed[..., :-2, :].reshape(batch, length, -1, self.head_dim).transpose(1, 2)
        key, value = packed[..., -2, :].transpose(1, 2), packed[..., -1, :].transpose(1, 2)
        query, key = rotate(query, context.rotation), rotate(key, context.rotation)
        if context.cache is not None:
            key, value = context.cache.update(key, value, self.index)
        out = attend(self, query, key, value, context.mask, kernel=context.kernel, causal=context.causal)
        return self.wo(out, context.image_mask)


class FeedForward(nn.Module):
    """w2(silu(w1 x) · w3 x)."""

    def __init__(self, sizes: LanguageSizes, plora: dict[str, Plora]) -> None:
        super().__init__()
        self.w1 = PloraLinear(*sizes.linear("w1"), plora["w1"])
        self.w3 = PloraLinear(*sizes.linear("w3"), plora["w3"])
        self.w2 = PloraLinear(*sizes.linear("w2"), plora["w2"])

    def forward(self, hidden: torch.Tensor, image_mask: torch.Tensor | None) -> torch.Tensor:
        """(B, L, hidden) → the same."""
        return self.w2(functional.silu(self.w1(hidden, image_mask)) * self.w3(hidden, image_mask), image_mask)


class LanguageLayer(nn.Module):
    """Attention and feed-forward, each with a norm before it and a residual connection."""

    def __init__(self, sizes: LanguageSizes, plora: dict[str, Plora], index: int) -> None:
        super().__init__()
        self.attention = LanguageAttention(sizes, plora, index)
        self.feed_forward = FeedForward(sizes, plora)
        self.attention_norm = RmsNorm(sizes.hidden, sizes.eps)
        self.ffn_norm = RmsNorm(sizes.hidden, sizes.eps)

    def forward(self, hidden: torch.Tensor, context: Context) -> torch.Tensor:
        """(B, L, hidden) → the same."""
        hidden = hidden + self.attention(self.attention_norm(hidden), context)
        return hidden + self.feed_forward(self.ffn_norm(hidden), context.image_mask)


class LanguageModel(nn.Module):
    """Token embeddings, layers and the final norm."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        language, plora = sizes.language, {name: sizes.plora[name] for name in LINEARS}
        self.theta, self.head_dim = language.rope_theta, language.head_dim
        self.tok_embeddings = nn.Embedding(language.vocab, language.hidden)
        self.layers = nn.ModuleList(LanguageLayer(language, plora, index) for index in range(language.layers))
        self.norm = RmsNorm(language.hidden, language.eps)
        self.recompute = False
        """Training only: keep no activations of the layers, recompute them (gradient checkpointing)."""

    def rotation(self, positions: torch.Tensor) -> Rotation:
        """Cosines and sines (B, L, head_dim) of positions (B, L), float32."""
        steps = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=positions.device) / self.head_dim
        angles = positions[..., None].float() * (self.theta**-steps)
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos(), angles.sin()

    def forward(self, hidden: torch.Tensor, context: Context) -> torch.Tensor:
        """Embedded tokens (B, L, hidden) → (B, L, hidden) after the final norm."""
        for layer in self.layers:
            device = cast("LanguageLayer", layer).attention_norm.weight.device
            hidden, context = hidden.to(device), context.to(device)
            if self.recompute and self.training and torch.is_grad_enabled():
                hidden = cast("torch.Tensor", checkpoint(layer, hidden, context, use_reentrant=False))
            else:
                hidden = layer(hidden, context)
        return self.norm(hidden.to(self.norm.weight.device))


def rotate(states: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """Rotary positions on (B, heads, L, head_dim): the two halves are the pairs (arXiv 2104.09864)."""
    cos, sin = (part[:, None].to(states.dtype) for part in rotation)
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat([-second, first], dim=-1) * sin
