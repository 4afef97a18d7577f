"""Tiny detectors on a ResNet with timm's names of tensors, and that ResNet by itself, written from its description.

He et al., arXiv 1512.03385; the stride is in a block's 3 x 3 convolution, as timm has it. `widened` is DETR's DC5: the
last stage keeps its size, and all of its 3 x 3 convolutions but the first look two pixels away.
"""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.modeling_outputs import BackboneOutput

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet26": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
DEPTHS |= {"resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
BASIC = {"resnet18", "resnet34"}
NAMES = {0: "field", 1: "water", 2: "town"}
TILE = 64


class Block(nn.Module):
    """Two convolutions of 3 x 3, or one between two of 1 x 1 that make it four times as wide; and a way past them."""

    def __init__(self, inside: int, width: int, stride: int, reach: tuple[int, int], *, basic: bool) -> None:
        super().__init__()
        outside = width if basic else 4 * width
        first, later = reach
        if basic:
            self.conv1 = nn.Conv2d(inside, width, 3, stride, padding=first, dilation=first, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, padding=later, dilation=later, bias=False)
        else:
            self.conv1 = nn.Conv2d(inside, width, 1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, stride, padding=first, dilation=first, bias=False)
            self.conv3 = nn.Conv2d(width, outside, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.bn3 = None if basic else nn.BatchNorm2d(outside)
        past = [nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)]
        self.downsample = nn.Sequential(*past) if stride > 1 or inside != outside else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, inside, h, w) → (n, outside, h / stride, w / stride)."""
        observed = torch.relu(self.bn1(self.conv1(x)))
        observed = self.bn2(self.conv2(observed))
        if self.bn3 is not None:
            observed = self.bn3(self.conv3(torch.relu(observed)))
        return torch.relu(observed + (x if self.downsample is None else self.downsample(x)))


class Reference(nn.Module):
    """A ResNet that gives what its stages see, those of `outputs`."""

    def __init__(self, name: str, outputs: tuple[int, ...], *, widened: bool = False) -> None:
        super().__init__()
        self.outputs = outputs
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64)
        inside, basic = 64, name in BASIC
        for stage, depth in enumerate(DEPTHS[name], start=1):
            width, wide = 64 * 2 ** (stage - 1), widened and stage == 4
            blocks: list[nn.Module] = []
            for place in range(depth):
                stride = 2 if place == 0 and stage > 1 and not wide else 1
                reach = (1 if place == 0 or not wide else 2, 2 if wide else 1)
                blocks.append(Block(inside, width, stride, reach, basic=basic))
                inside = width if basic else 4 * width
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))

    def forward(self, pictures: torch.Tensor) -> BackboneOutput:
        """(n, 3, h, w) → maps (n, channels, h / 4 … h / 32, w / …)."""
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(pictures))), 3, 2, padding=1)
        maps = []
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
            maps += [x] if stage in self.outputs else []
        return BackboneOutput(feature_maps=tuple(maps))


class Inner(nn.Module):
    """A network under the name that transformers gave timm's in some of its detectors."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._backbone = inner

    def forward(self, pictures: torch.Tensor) -> BackboneOutput:
        """As the inner one."""
        return self._backbone(pictures)


def detector(folder: Path, kind: str, name: str, *, inner: bool = False, **stated: Any) -> nn.Module:
    """A detector of transformers on a `Reference`, saved to a folder with the names and settings of the hub's."""
    widened, levels = bool(stated.get("dilation")), stated.get("num_feature_levels", 4)
    outputs = (1, 2, 3, 4) if kind != "DeformableDetr" else (2, 3, 4) if levels > 1 else (4,)
    size = {"hidden_size": 16} if kind == "DabDetr" else {"d_model": 32 if kind == "DeformableDetr" else 16}
    small = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 9, "encoder_ffn_dim": 16}
    small |= {"decoder_ffn_dim": 16, "encoder_layers": 1, "decoder_layers": 2, "id2label": NAMES}
    basic = name in BASIC
    stages: dict[str, Any] = {"out_features": [f"stage{i}" for i in outputs]}
    own = transformers.ResNetConfig(
        hidden_sizes=[64 * 2**stage * (1 if basic else 4) for stage in range(4)],
        depths=[1, 1, 1, 1],
        layer_type="basic" if basic else "bottleneck",
        **stages,
    )
    config = getattr(transformers, f"{kind}Config")(backbone_config=own, **small, **size, **stated)
    model = getattr(transformers, f"{kind}ForObjectDetection")(config).eval()
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.3, generator=random)
    reference = Reference(name, outputs, widened=widened).eval()
    with torch.no_grad():
        for part in reference.modules():
            if isinstance(part, nn.BatchNorm2d):
                for values, least, most in ((part.weight, 0.2, 0.8), (part.bias, -0.3, 0.3)):
                    values.uniform_(least, most, generator=random)
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.uniform_(-0.3, 0.3, generator=random)
                part.running_var.uniform_(0.5, 2.0, generator=random)
            elif isinstance(part, nn.Conv2d):
                part.weight.normal_(0.0, (2 / part.weight[0].numel()) ** 0.5, generator=random)
    encoder = next(part for part in model.modules() if type(part).__name__.endswith("ConvEncoder"))
    encoder.model = Inner(reference) if inner else reference
    model.save_pretrained(folder)
    path = folder / "config.json"
    old = {"backbone": name, "backbone_config": None, "use_timm_backbone": True, "use_pretrained_backbone": True}
    old |= {"classifier_dropout": 0.0, "max_position_embeddings": 1024, "scale_embedding": False}
    path.write_text(json.dumps(json.loads(path.read_text()) | old | {"torch_dtype": "float32"}))
    shown = {"feature_extractor_type": "DetrFeatureExtractor", "do_normalize": True, "do_resize": True}
    shown |= {"format": "coco_detection", "size": TILE, "max_size": 2 * TILE}
    shown |= {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (folder / "preprocessor_config.json").write_text(json.dumps(shown))
    return model
