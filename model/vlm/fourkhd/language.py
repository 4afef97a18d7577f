"""The language model: InternLM2 with Partial LoRA, whose low-rank part counts at image tokens only.

Sources: InternLM2, arXiv 2403.17297; Partial LoRA, arXiv 2401.16420. Layers may lie on different devices; what flows
through them follows.
"""

# transformers' types do not say what its classes return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import Cache

from .attention import Kernel, attend
from .sizes import LINEARS, LanguageSizes, Plora, Sizes

Rotation = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Context:
    """What every layer needs to know of the sequence.

    `image` (B, L, 1) is 1 at image tokens, None where there are none; `mask` and `causal` are `attend`'s; `rotation`
    are the positions' cosines and sines (B, L, head), in float32.
    """

    rotation: Rotation
    mask: torch.Tensor | None
    image: torch.Tensor | None
    cache: Cache | None
    kernel: Kernel
    causal: bool

    def to(self, device: torch.device) -> "Context":
        """The same on another device."""
        if self.rotation[0].device == device:
            return self
        cos, sin = (part.to(device) for part in self.rotation)
        mask, image = (None if part is None else part.to(device) for part in (self.mask, self.image))
        return Context((cos, sin), mask, image, self.cache, self.kernel, self.causal)


class PloraLinear(nn.Module):
    """y = W x + mask · scale · B A x, without biases; dropout before A in training only."""

    def __init__(self, out: int, into: int, plora: Plora) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out, into))
        self.Plora_A = nn.Linear(into, plora.rank, bias=False)
        self.Plora_B = nn.Linear(plora.rank, out, bias=False)
        self.inner: nn.Module | None = None  # W where it is held in fewer bits: see `load.py`
        self.scale = plora.scale
        self.dropout = 0.0

    def whole(self, hidden: torch.Tensor) -> torch.Tensor:
        """W x."""
        return functional.linear(hidden, self.weight) if self.inner is None else self.inner(hidden)

    def forward(self, hidden: torch.Tensor, image: torch.Tensor | None) -> torch.Tensor:
        """(B, L, in) and the mask of image tokens (B, L, 1), None for none → (B, L, out)."""
        seen = self.whole(hidden)
        if image is None:
            return seen
        low = self.Plora_A(functional.dropout(hidden, self.dropout, self.training))
        return seen + self.Plora_B(low * (image * self.scale))


class RmsNorm(nn.Module):
    """Root mean square norm; the square in float32, the weight in the model's own type."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(…, width) → the same."""
        exact = hidden.float()
        exact = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * exact.to(hidden.dtype)


class Attention(nn.Module):
    """Grouped-query attention; `wqkv` packs, for each key-value head, its queries, the key and the value."""

    def __init__(self, sizes: LanguageSizes, ploras: dict[str, Plora], place: int) -> None:
        super().__init__()
        self.place = place
        self.kv_heads = sizes.kv_heads
        self.head = sizes.head
        self.num_key_value_groups = sizes.heads // sizes.kv_heads
        self.wqkv = PloraLinear(*sizes.linear("wqkv"), ploras["wqkv"])
        self.wo = PloraLinear(*sizes.linear("wo"), ploras["wo"])

    def forward(self, hidden: torch.Tensor, context: Context) -> torch.Tensor:
        """(B, L, hidden) → the same."""
        batch, length, _ = hidden.shape
        packed = self.wqkv(hidden, context.image)
        packed = packed.view(batch, length, self.kv_heads, self.num_key_value_groups + 2, self.head)
        query = packed[..., :-2, :].reshape(batch, length, -1, self.head).transpose(1, 2)
        key, value = packed[..., -2, :].transpose(1, 2), packed[..., -1, :].transpose(1, 2)
        query, key = rotate(query, context.rotation), rotate(key, context.rotation)
        if context.cache is not None:
            key, value = cast("Any", context.cache).update(key, value, self.place)
        scale = self.head**-0.5
        seen = attend(self, query, key, value, context.mask, kernel=context.kernel, causal=context.causal, scale=scale)
        return self.wo(seen, context.image)


class FeedForward(nn.Module):
    """w2(silu(w1 x) · w3 x)."""

    def __init__(self, sizes: LanguageSizes, ploras: dict[str, Plora]) -> None:
        super().__init__()
        self.w1 = PloraLinear(*sizes.linear("w1"), ploras["w1"])
        self.w3 = PloraLinear(*sizes.linear("w3"), ploras["w3"])
        self.w2 = PloraLinear(*sizes.linear("w2"), ploras["w2"])

    def forward(self, hidden: torch.Tensor, image: torch.Tensor | None) -> torch.Tensor:
        """(B, L, hidden) → the same."""
        return self.w2(functional.silu(self.w1(hidden, image)) * self.w3(hidden, image), image)


class Layer(nn.Module):
    """Attention and feed-forward, each after a norm and beside what was."""

    def __init__(self, sizes: LanguageSizes, ploras: dict[str, Plora], place: int) -> None:
        super().__init__()
        self.attention = Attention(sizes, ploras, place)
        self.feed_forward = FeedForward(sizes, ploras)
        self.attention_norm = RmsNorm(sizes.hidden, sizes.eps)
        self.ffn_norm = RmsNorm(sizes.hidden, sizes.eps)

    def forward(self, hidden: torch.Tensor, context: Context) -> torch.Tensor:
        """(B, L, hidden) → the same."""
        hidden = hidden + self.attention(self.attention_norm(hidden), context)
        return hidden + self.feed_forward(self.ffn_norm(hidden), context.image)


class LanguageModel(nn.Module):
    """Embeddings, layers and the last norm."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        language, ploras = sizes.language, {name: sizes.plora[name] for name in LINEARS}
        self.theta, self.head = language.rope_theta, language.head
        self.tok_embeddings = nn.Embedding(language.vocab, language.hidden)
        self.layers = nn.ModuleList(Layer(language, ploras, place) for place in range(language.layers))
        self.norm = RmsNorm(language.hidden, language.eps)
        self.recompute = False  # in training: keep no activations of the layers, compute them again

    def rotation(self, positions: torch.Tensor) -> Rotation:
        """Cosines and sines (B, L, head) of positions (B, L), in float32."""
        steps = torch.arange(0, self.head, 2, dtype=torch.float32, device=positions.device) / self.head
        angles = positions[..., None].float() * (self.theta**-steps)
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos(), angles.sin()

    def forward(self, hidden: torch.Tensor, context: Context) -> torch.Tensor:
        """Embedded tokens (B, L, hidden) → (B, L, hidden) after the last norm."""
        for layer in self.layers:
            device = cast("Layer", layer).attention_norm.weight.device
            hidden, context = hidden.to(device), context.to(device)
            if self.recompute and self.training and torch.is_grad_enabled():
                hidden = cast("torch.Tensor", checkpoint(layer, hidden, context, use_reentrant=False))
            else:
                hidden = layer(hidden, context)
        return self.norm(hidden.to(self.norm.weight.device))


def rotate(states: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """Rotary positions on (B, heads, L, head): its two halves are the pairs (arXiv 2104.09864)."""
    cos, sin = (part[:, None].to(states.dtype) for part in rotation)
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat([-second, first], dim=-1) * sin
