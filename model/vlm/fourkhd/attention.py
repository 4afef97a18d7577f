"""Attention by the kernel that was chosen for the network."""

# transformers' types do not state what its functions return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface

from .model_config import Kernel

_INTERFACE = AttentionInterface()


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    kernel: Kernel,
    causal: bool,
) -> torch.Tensor:
    """Attention of `query` (B, heads, Q, d) over `key` and `value` (B, kv heads, K, d) → (B, Q, heads · d).

    `mask` is boolean: (B, 1, Q, K), true where a query attends to a key, or (B, K) for flash attention, false at
    padding. None attends to all keys, or to all earlier ones where `causal`. `module` has `num_key_value_groups`.
    """
    scale = query.shape[-1] ** -0.5
    if kernel == "eager":
        return _eager(query, key, value, mask, causal=causal, scale=scale).flatten(2)
    causal = causal and (mask is None or kernel == "flash_attention_2")
    function: Any = _INTERFACE[kernel]
    return function(module, query, key, value, mask, dropout=0.0, scaling=scale, is_causal=causal)[0].flatten(2)


def _eager(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    causal: bool,
    scale: float,
) -> torch.Tensor:
    """Attention by its definition, softmax in float32 → (B, Q, heads, d)."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = (query @ key.transpose(2, 3)).float() * scale
    if mask is None and causal:
        queries, keys = query.shape[2], key.shape[2]
        mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(torch.float32).min)
    return (scores.softmax(dim=-1).to(query.dtype) @ value).transpose(1, 2)
