"""What a region costs a vision-language checkpoint of transformers: from its settings, its processor and headers."""

# transformers' types do not say what its classes return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import AutoConfig

from ..annotator import Cost
from ..checkpoints.loading import silence_transformers
from ..checkpoints.memory import weight_bytes
from .processor import WHITE, Processor, loading
from .question import Question

ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}
_CACHES = 3  # of choosing: what all prompts share, what one begins, and what an option adds are held beside each other


def reckon(
    processor: Processor, pictures: Sequence[tuple[int, int]], question: Question, *, device: str, dtype: str
) -> Cost:
    """The cost of asking that about pictures of (width, height). `dtype` as of `imagetext.ImageText`.

    Tokens are exact: the processor counts them on white pictures. Activations are the widest moment of a layer, with
    attention computed in blocks. Raises `ModelError`, `RequestError`.
    """
    config = _settings(processor)
    text, vision = config.get_text_config(), getattr(config, "vision_config", None)
    if dtype == "auto":
        dtype = str(getattr(config, "dtype", None) or getattr(text, "dtype", None) or "").removeprefix("torch.")
    itemsize = ITEMSIZE.get(dtype, 0)
    weights = weight_bytes(processor.files, itemsize=itemsize)
    each = itemsize or ITEMSIZE["float32"]
    white = [np.full((height, width, 3), WHITE, dtype=np.uint8) for width, height in pictures]
    prompts = question.prompts()
    inputs = processor.read(white, max(prompts, key=len))
    read = int(inputs["input_ids"].shape[1])
    choosing = question.answer == "classify"
    tokens = read + (0 if choosing else question.max_tokens)
    heads = _number(text, "num_attention_heads")
    hidden, layers = _number(text, "hidden_size"), _number(text, "num_hidden_layers")
    head = _number(text, "head_dim") or (hidden // heads if heads else 0)
    cache = 2 * layers * (_number(text, "num_key_value_heads") or heads) * head * tokens * each
    patches = _patches(inputs, vision)
    seen = patches * (4 * _number(vision, "intermediate_size") + 6 * _number(vision, "hidden_size"))
    told = read * (5 * _number(text, "intermediate_size") + 6 * hidden)
    shown = sum(math.prod(value.shape) for value in inputs.values() if value.is_floating_point())
    asked = len(prompts) if question.answer == "locate" else 1
    return Cost(
        weights=weights,
        dtype=dtype or "their own type",
        work=asked * (2 * weights / each * tokens + 2 * layers * heads * head * tokens**2),
        cache=float(cache * (_CACHES if choosing else 1)),
        activations=float((max(seen, told) + patches * _number(vision, "hidden_size") + shown) * each),
        tokens=tokens,
        device=device,
    )


def _settings(processor: Processor) -> Any:
    with silence_transformers(), loading(processor.files):
        return AutoConfig.from_pretrained(processor.files.folder, local_files_only=True, trust_remote_code=False)


def _number(settings: Any, name: str) -> int:
    """A size that settings state; 0 where they state none: families call some of them otherwise."""
    value = getattr(settings, name, None)
    return value if isinstance(value, int) else 0


def _patches(inputs: dict[str, Any], vision: Any) -> int:
    """Patches that the vision tower sees: rows of them, or pictures that it cuts up itself."""
    pixels = inputs.get("pixel_values")
    if pixels is None:
        return 0
    if pixels.ndim == 2:
        return int(pixels.shape[0])
    *several, height, width = pixels.shape
    patch = _number(vision, "patch_size") or 14
    return math.prod(several[:-1]) * (height // patch) * (width // patch)
