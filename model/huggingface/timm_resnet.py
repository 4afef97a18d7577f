"""Convert detectors with timm's ResNets to transformers' own ResNet, the same network under other names.

No torch. Sources: timm's `ResNet` (He et al., arXiv 1512.03385, with the stride in a block's 3 x 3 convolution) for
depths and names of tensors; transformers 5 for the timm backbone of a detector whose `config.json` leaves it open; DC5,
the last stage dilated instead of strided, arXiv 2005.12872.
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
"""timm's name → its type of block, and the number of blocks in each of its four stages."""

WIDTHS = {"basic": (64, 128, 256, 512), "bottleneck": (256, 512, 1024, 2048)}
STAGES, CONVOLUTIONS = 4, 3  # stages of a network, and the most convolutions of a block
DILATED: Final[Mapping[int | None, bool]] = {None: False, 32: False, 16: True}  # by output stride
BACKBONE_KEYS = (
    "backbone",
    "backbone_config",
    "backbone_kwargs",
    "dilation",
    "use_pretrained_backbone",
    "use_timm_backbone",
)

_INSIDE = r"conv_encoder\.model\.(?:_backbone\.)?"
_BLOCK = r"(conv_encoder\.model\.encoder\.stages\.\d\.layers\.\d+)"
_PARTS = (("conv", "convolution"), ("bn", "normalization"))
NAMES: Final[Mapping[str, str]] = {
    **{rf"{_INSIDE}{old}1\.": f"conv_encoder.model.embedder.embedder.{new}." for old, new in _PARTS},
    **{
        rf"{_INSIDE}layer{stage + 1}\.(\d+)\.": rf"conv_encoder.model.encoder.stages.{stage}.layers.\1."
        for stage in range(STAGES)
    },
    **{
        rf"{_BLOCK}\.{old}{place + 1}\.": rf"\1.layer.{place}.{new}."
        for place in range(CONVOLUTIONS)
        for old, new in _PARTS
    },
    **{rf"{_BLOCK}\.downsample\.{place}\.": rf"\1.shortcut.{new}." for place, (_, new) in enumerate(_PARTS)},
}
"""Patterns in timm's names of tensors → their replacement in transformers' names, applied one after the other."""


@dataclass(frozen=True, slots=True)
class ResNet:
    """A detector's configuration with transformers' own ResNet in place of timm's."""

    settings: Mapping[str, Any]
    dilated: bool
    """Whether the last stage is dilated instead of strided, for which transformers has no setting."""


def timm_resnet(config: UntrustedDict) -> ResNet | None:
    """Convert a detector's `config.json` whose backbone is a plain ResNet of timm's; None for any other.

    transformers then loads it unchanged, which for other networks of timm's needs that package.
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
    known = name in LAYERS and any(stride == one for one in DILATED)
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
    kept = {key: value for key, value in config.items() if key not in BACKBONE_KEYS}
    return ResNet({**kept, "backbone_config": backbone}, dilated=DILATED[stride])
