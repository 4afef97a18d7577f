"""How fast each part of a model learns, and when. Loads no torch.

Sources: linear warm-up and cosine decay, as in arXiv 2404.06512; layer-wise decay, arXiv 2106.08254.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ..vlm.fourkhd.model_config import VISION

BRIDGE: Final = re.compile(r"plora_(?:glb|sub)_GN|vision_proj\..*|.*\.Plora_[AB]\.weight")
"""What alignment always trains: separators, projector, Partial LoRA."""

_LANGUAGE = re.compile(r"(?:model|output)\..*")
_LAYER = re.compile(re.escape(VISION) + r"encoder\.layers\.(\d+)\..*")


@dataclass(frozen=True, slots=True)
class ParamGroup:
    """How a tensor learns: its rate is the schedule's times `scale`; `decayed` where weight decay pulls it to 0."""

    scale: float
    decayed: bool


def param_groups(
    names: Iterable[tuple[str, int]],
    *,
    encoder: bool,
    language: bool,
    layers: int,
    layer_decay: float,
    language_scale: float,
) -> dict[str, ParamGroup]:
    """The pace of each tensor that is trained, from (name, dimensions) of all, in their order.

    With `encoder` the vision tower's `layers` learn too, each `layer_decay` times as fast as the next one up, the last
    `layer_decay` times as fast as the projector; with `language` the language model, at `language_scale`. Only
    maps decay: norms, biases, embeddings and separators do not.
    """
    found: dict[str, ParamGroup] = {}
    for name, dimensions in names:
        decayed = dimensions == 2 and "embedding" not in name
        if BRIDGE.fullmatch(name):
            found[name] = ParamGroup(1.0, decayed)
        elif name.startswith(VISION) and encoder:
            layer = _LAYER.fullmatch(name)
            below = layers - (int(layer[1]) if layer else -1)
            found[name] = ParamGroup(layer_decay**below, decayed)
        elif _LANGUAGE.fullmatch(name) and language:
            found[name] = ParamGroup(language_scale, decayed)
    return found


def rate(step: int, *, steps: int, warmup: float, peak: float) -> float:
    """The learning rate of a step, from 0: up in a line over the part `warmup` of all steps, then by a cosine to 0.

    The first step already learns, the last one hardly.
    """
    up = math.ceil(steps * warmup)
    if step < up:
        return peak * (step + 1) / (up + 1)
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - up) / max(1, steps - up)))
