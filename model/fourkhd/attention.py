"""Attention: which of torch's and transformers' kernels computes it, and what is said where the wished one cannot."""

# transformers' types do not say what its functions return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import logging
from typing import Any, Literal

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.utils.import_utils import is_flash_attn_2_available

from ...readers.errors import RequestError

Kernel = Literal["sdpa", "flash_attention_2", "eager"]

KERNELS = ("sdpa", "flash_attention_2", "eager")
_AMPERE = (8, 0)
_INTERFACE = AttentionInterface()
_said: set[str] = set()


def choose_kernel(asked: str, *, device: torch.device, dtype: torch.dtype) -> Kernel:
    """The kernel that is asked for, or "sdpa", with one line on standard error that says why, once.

    Results of all three agree within the precision of `dtype`. Raises `RequestError` for an unknown one.
    """
    if asked not in KERNELS:
        raise RequestError("option 'attention'", f"it is {', '.join(KERNELS)}", value=asked, remedy="Correct it")
    if asked != "flash_attention_2":
        return "sdpa" if asked == "sdpa" else "eager"
    reason = _cannot_flash(device, dtype)
    if not reason:
        return "flash_attention_2"
    if reason not in _said:
        _said.add(reason)
        logging.getLogger("limner").warning("flash_attention_2 cannot run: %s. sdpa is used instead.", reason)
    return "sdpa"


def _cannot_flash(device: torch.device, dtype: torch.dtype) -> str:
    if device.type != "cuda":
        return f"it needs an NVIDIA or AMD GPU, and the model is on {device.type}"
    if dtype not in {torch.float16, torch.bfloat16}:
        return f"it needs 16-bit numbers, and the model has {str(dtype).removeprefix('torch.')}"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < _AMPERE:
        return f"it needs compute capability 8.0, and {torch.cuda.get_device_name(device)} has less"
    if not is_flash_attn_2_available():
        return "the package flash-attn is not installed, or not for this version of CUDA"
    return ""


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    kernel: Kernel,
    causal: bool,
    scale: float,
) -> torch.Tensor:
    """Attention of `query` (B, heads, Q, d) over `key` and `value` (B, kv heads, K, d) → (B, Q, heads · d).

    `mask` is boolean (B, 1, Q, K), true where a query sees a key, or for flash attention (B, K), true where a key is no
    padding; None where all are seen, or all before where `causal`. `module` has `num_key_value_groups`, queries a key.
    """
    if kernel == "eager":
        seen = _eager(query, key, value, mask, causal=causal, scale=scale)
    else:
        further: dict[str, Any] = {"is_causal": causal and mask is None} if kernel == "sdpa" else {"is_causal": causal}
        function: Any = _INTERFACE[kernel]
        seen = function(module, query, key, value, mask, dropout=0.0, scaling=scale, **further)[0]
    return seen.flatten(2)


def _eager(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    causal: bool,
    scale: float,
) -> torch.Tensor:
    """The definition, scores and all, softmax in float32 → (B, Q, heads, d)."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = (query @ key.transpose(2, 3)).float() * scale
    if mask is None and causal:
        queries, keys = query.shape[2], key.shape[2]
        mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(torch.float32).min)
    return (scores.softmax(dim=-1).to(query.dtype) @ value).transpose(1, 2)
