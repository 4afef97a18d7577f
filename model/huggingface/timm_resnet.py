"""Detectors that were trained on timm's ResNets: transformers' own ResNet is the same network under other names.

No torch. Sources: timm's `ResNet` (He et al., arXiv 1512.03385, with the stride in a block's 3 x 3 convolution), whose
depths and names of tensors are here; transformers 5, which of its detectors has which timm backbone where a
`config.json` leaves it open; DC5, the last stage widened instead of halved, arXiv 2005.12872.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..checkpoints.untrusted import UntrustedDict

FAMILIES = ("conditional_detr", "dab-detr", "deformable_detr", "detr", "table-transformer")
DEFAULT = "resnet50"
LAYERS: Final[Mapping[str, tuple[str, tuple[int, ...]]]] = {
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet26": ("bottleneck", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnet101": ("bottleneck", (3, 4, 23, 3)),
    "resnet152": ("bottleneck", (3, 8, 36, 3)),
}
"""timm's name → its kind of block, and how many there are in each of its four stages."""

WIDTHS = {"basic": (64, 128, 256, 512), "bottleneck": (256, 512, 1024, 2048)}
STAGES, MOST = 4, 3  # stages of a network, and convolutions in a block
STRIDES: Final[Mapping[int | None, bool]] = {None: False, 32: False, 16: True}
STATED = ("backbone", "backbone_config", "backbone_kwargs", "dilation", "use_pretrained_backbone", "use_timm_backbone")

_INSIDE = r"conv_encoder\.model\.(?:_backbone\.)?"
_BLOCK = r"(conv_encoder\.model\.encoder\.stages\.\d\.layers\.\d+)"
_PARTS = (("conv", "convolution"), ("bn", "normalization"))
NAMES: Final[Mapping[str, str]] = {
    **{rf"{_INSIDE}{old}1\.": f"conv_encoder.model.embedder.embedder.{new}." for old, new in _PARTS},
    **{
        rf"{_INSIDE}layer{stage + 1}\.(\d+)\.": rf"conv_encoder.model.encoder.stages.{stage}.layers.\1."
        for stage in range(STAGES)
    },
    **{rf"{_BLOCK}\.{old}{place + 1}\.": rf"\1.layer.{place}.{new}." for place in range(MOST) for old, new in _PARTS},
    **{rf"{_BLOCK}\.downsample\.{place}\.": rf"\1.shortcut.{new}." for place, (_, new) in enumerate(_PARTS)},
}
"""What is in the name of a tensor, as patterns → what transformers' own network has there, one after the other."""


@dataclass(frozen=True, slots=True)
class ResNet:
    """A detector's `settings`, with transformers' own ResNet in place of timm's.

    `widened` says that its last stage is not halved but looks twice as far apart, for which there is no setting.
    """

    settings: Mapping[str, Any]
    widened: bool


def timm_resnet(config: UntrustedDict) -> ResNet | None:
    """What a detector's `config.json` becomes where its backbone is a plain ResNet of timm's; None where it is not.

    Then transformers loads it as it is, which for other networks of timm's needs that package.
    """
    if config.get("model_type") not in FAMILIES:
        return None
    own, more = config.part("backbone_config"), config.part("backbone_kwargs")
    if own.get("model_type", "timm_backbone") != "timm_backbone" or not (own or config.get("use_timm_backbone", True)):
        return None
    name = str(own.get("backbone") or config.get("backbone") or DEFAULT).partition(".")[0]
    levels = config.get("num_feature_levels", STAGES) if config["model_type"] == "deformable_detr" else 0
    default = [4] if levels == 1 else [2, 3, 4] if levels else [1, 2, 3, 4]
    outputs = [STAGES if i == -1 else i for i in own.list("out_indices") or more.list("out_indices") or default]
    stride = own.get("output_stride") or more.get("output_stride") or (16 if config.get("dilation") else None)
    known = name in LAYERS and any(stride == one for one in STRIDES)
    if not known or not all(isinstance(i, int) and 0 < i <= STAGES for i in outputs):
        return None
    kind, depths = LAYERS[name]
    backbone = {
        "model_type": "resnet",
        "num_channels": own.get("num_channels", more.get("in_chans", config.get("num_channels", 3))),
        "layer_type": kind,
        "depths": list(depths),
        "hidden_sizes": list(WIDTHS[kind]),
        "out_features": [f"stage{i}" for i in outputs],
    }
    kept = {key: value for key, value in config.items() if key not in STATED}
    return ResNet({**kept, "backbone_config": backbone}, widened=STRIDES[stride])
