"""OpenCLIP's architectures by their names, and which of them a file of weights can be. No torch.

Source of the names and numbers: mlfoundations/open_clip 3.3, `model_configs` (those of a plain CLIP with a vision
transformer or CLIP's residual network), and `transform.py` and `constants.py` for the colours that OpenCLIP takes where
only a name is given.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ...readers.errors import ModelError, did_you_mean
from .openclip_files import SETTINGS, SHRINKS, STAGES, sizes

MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
STD: Final = (0.26862954, 0.26130258, 0.27577711)
QUICK: Final = "-quickgelu"

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A plain CLIP. Widths are those of the residual stream, `image` and `patch` sides in pixels.

    A residual network has no patches, several `layers` and the `width` of its first.
    Of its texts everything else is as in all of them: 77 tokens, a vocabulary of 49408, heads of 64. `quick` says that
    OpenCLIP knows it with OpenAI's activation as well, by the name that ends in `-quickgelu`.
    """

    image: int
    patch: int
    width: int
    layers: int | tuple[int, ...]
    text_width: int
    text_layers: int
    joint: int
    head: int = 64
    mlp: float = 4.0
    quick: bool = False

    def settings(self, *, quick: bool) -> dict[str, Any]:
        """As OpenCLIP would state it: `model_cfg`."""
        vision = {"image_size": self.image, "patch_size": self.patch, "width": self.width}
        layers = list(self.layers) if isinstance(self.layers, tuple) else self.layers
        text = {"width": self.text_width, "layers": self.text_layers, "heads": self.text_width // 64}
        shape = {"head_width": self.head, "mlp_ratio": self.mlp, "layers": layers}
        towers = {"vision_cfg": vision | shape, "text_cfg": text}
        return {"model_cfg": {"embed_dim": self.joint, "quick_gelu": quick, **towers}}


ARCHITECTURES: Final[dict[str, Architecture]] = {
    "RN50": Architecture(224, 0, 64, (3, 4, 6, 3), 512, 12, 1024, quick=True),
    "RN50x4": Architecture(288, 0, 80, (4, 6, 10, 6), 640, 12, 640, quick=True),
    "RN50x16": Architecture(384, 0, 96, (6, 8, 18, 8), 768, 12, 768, quick=True),
    "RN50x64": Architecture(448, 0, 128, (3, 15, 36, 10), 1024, 12, 1024, quick=True),
    "RN101": Architecture(224, 0, 64, (3, 4, 23, 3), 512, 12, 512, quick=True),
    "ViT-S-16": Architecture(224, 16, 384, 12, 384, 12, 384),
    "ViT-S-16-alt": Architecture(224, 16, 384, 12, 256, 10, 256),
    "ViT-S-32": Architecture(224, 32, 384, 12, 384, 12, 384),
    "ViT-S-32-alt": Architecture(224, 32, 384, 12, 256, 10, 256),
    "ViT-M-16": Architecture(224, 16, 512, 12, 512, 12, 512),
    "ViT-M-32": Architecture(224, 32, 512, 12, 512, 12, 512),
    "ViT-M-32-alt": Architecture(224, 32, 512, 12, 384, 12, 384),
    "ViT-B-16": Architecture(224, 16, 768, 12, 512, 12, 512, quick=True),
    "ViT-B-16-plus": Architecture(224, 16, 896, 12, 640, 12, 640),
    "ViT-B-16-plus-240": Architecture(240, 16, 896, 12, 640, 12, 640),
    "ViT-B-32": Architecture(224, 32, 768, 12, 512, 12, 512, quick=True),
    "ViT-B-32-256": Architecture(256, 32, 768, 12, 512, 12, 512),
    "ViT-B-32-plus-256": Architecture(256, 32, 896, 12, 640, 12, 640),
    "ViT-L-14": Architecture(224, 14, 1024, 24, 768, 12, 768, quick=True),
    "ViT-L-14-280": Architecture(280, 14, 1024, 24, 768, 12, 768),
    "ViT-L-14-336": Architecture(336, 14, 1024, 24, 768, 12, 768, quick=True),
    "ViT-L-16": Architecture(224, 16, 1024, 24, 768, 12, 768),
    "ViT-L-16-320": Architecture(320, 16, 1024, 24, 768, 12, 768),
    "ViT-H-14": Architecture(224, 14, 1280, 32, 1024, 24, 1024, head=80, quick=True),
    "ViT-H-14-378": Architecture(378, 14, 1280, 32, 1024, 24, 1024, head=80, quick=True),
    "ViT-H-16": Architecture(224, 16, 1280, 32, 1024, 24, 1024, head=80),
    "ViT-g-14": Architecture(224, 14, 1408, 40, 1024, 24, 1024, head=88, mlp=4.3637),
    "ViT-bigG-14": Architecture(224, 14, 1664, 48, 1280, 32, 1280, head=104, mlp=4.9231, quick=True),
    "ViT-e-14": Architecture(224, 14, 1792, 56, 1280, 36, 1280, head=112, mlp=8.5715),
}


def names() -> list[str]:
    """All names that may be given, those with OpenAI's activation too."""
    return [known for name, one in ARCHITECTURES.items() for known in (name, *([name + QUICK] if one.quick else []))]


def named(name: str, source: str) -> dict[str, Any]:
    """The settings of transformers' CLIP for an architecture of that name, for a file `source`. Raises `ModelError`."""
    if name not in names():
        raise ModelError(
            f"checkpoint {source}",
            "its architecture must be one of OpenCLIP's plain CLIPs, by OpenCLIP's name",
            value=name,
            remedy=f"{did_you_mean(name, names())}Known: {', '.join(names())}",
        )
    plain = name.removesuffix(QUICK)
    return sizes(ARCHITECTURES[plain].settings(quick=name != plain), source)


def fitting(shapes: Shapes) -> list[str]:
    """The architectures whose weights have the shapes (OpenCLIP's name → shape) that a file's have."""
    found = measured(shapes)
    return [name for name in names() if _measures(named(name, name)) == found]


def check_shapes(shapes: Shapes, name: str, source: str) -> None:
    """Raise `ModelError` where the shapes of a file are not those of the architecture `name`, or it is "".

    What is not known here is not guessed: an activation and a number of heads leave no trace in a shape.
    """
    found, fits = measured(shapes), fitting(shapes)
    if name in fits:
        return
    seen = ", ".join(f"{key} {value}" for key, value in found.items()) or "no image tower of OpenCLIP's"
    if not name:
        raise ModelError(
            f"checkpoint {source}",
            "its architecture must be named, since weights do not say how many heads and which activation they are for",
            value=f"its shapes are those of {' and of '.join(fits)}" if fits else f"unknown: {seen}",
            remedy="Look up by which name its authors make it with OpenCLIP, and "
            + ("add --set model_options.architecture=NAME, or call an encoder openclip:NAME:FILE" if fits else _SETTLE),
        )
    wanted = _measures(named(name, source))
    wrong = [
        f"{key} {found.get(key, 'none')} instead of {value}" for key, value in wanted.items() if found.get(key) != value
    ]
    raise ModelError(
        f"checkpoint {source}",
        f"its weights must have the shapes of {name}",
        value=", ".join(wrong),
        remedy=f"They are those of {' and of '.join(fits)}: name the one that its authors do" if fits else _SETTLE,
    )


_SETTLE: Final = f"put the file into a folder, as open_clip_pytorch_model.bin or .safetensors, with an {SETTINGS}"


def measured(shapes: Shapes) -> dict[str, int]:
    """The sizes of a plain CLIP that can be seen in the shapes of its weights; {} where they are of something else."""
    plain = {re.sub(r"^(module\.)?(text\.)?", "", name): tuple(shape) for name, shape in shapes.items()}
    tower = _RESIDUAL if _POOL in plain else _TRANSFORMER
    if any(len(plain.get(name, ())) != dimensions for name, dimensions in (tower | _TEXT).items()):
        return {}
    words, length = plain["token_embedding.weight"], plain["positional_embedding"][0]
    return {
        **(_residual(plain) if tower is _RESIDUAL else _transformer(plain)),
        "text width": words[1],
        "text layers": _count(plain, "transformer.resblocks."),
        "text perceptron": plain[_FIRST][0],
        "text length": length,
        "vocabulary": words[0],
        "joint width": plain["text_projection"][1],
    }


_POOL: Final = "visual.attnpool.positional_embedding"
_FIRST: Final = "transformer.resblocks.0.mlp.c_fc.weight"
_TEXT: Final = {"token_embedding.weight": 2, "positional_embedding": 2, "text_projection": 2, _FIRST: 2}
_TRANSFORMER: Final = {
    "visual.conv1.weight": 4,
    "visual.positional_embedding": 2,
    "visual.proj": 2,
    f"visual.{_FIRST}": 2,
}
_RESIDUAL: Final = {"visual.layer1.0.conv1.weight": 4, _POOL: 2}
"""The weights that tell sizes, with their numbers of dimensions."""


def _transformer(shapes: Shapes) -> dict[str, int]:
    width, _, _, patch = shapes["visual.conv1.weight"]
    return {
        "image size": _side(shapes["visual.positional_embedding"]) * patch,
        "patch size": patch,
        "vision width": width,
        "vision layers": _count(shapes, "visual.transformer.resblocks."),
        "vision perceptron": shapes[f"visual.{_FIRST}"][0],
    }


def _residual(shapes: Shapes) -> dict[str, int]:
    return {
        "image size": _side(shapes[_POOL]) * SHRINKS,
        "vision width": shapes["visual.layer1.0.conv1.weight"][0],
        **{f"blocks of stage {i}": _count(shapes, f"visual.layer{i}.") for i in range(1, STAGES + 1)},
    }


def _side(positions: Sequence[int]) -> int:
    """Places along a side of a square, of which one more than there are has a position."""
    return round((positions[0] - 1) ** 0.5)


def _count(shapes: Shapes, before: str) -> int:
    """How many numbers follow some words in the names of weights."""
    return len({name.removeprefix(before).partition(".")[0] for name in shapes if name.startswith(before)})


def _measures(settings: Mapping[str, Any]) -> dict[str, int]:
    """What `measured` would see of a model with these settings of transformers' CLIP."""
    vision, text = settings["vision_config"], settings["text_config"]
    blocks = vision.get("residual_layers")
    tower = (
        {f"blocks of stage {i}": count for i, count in enumerate(blocks, 1)}
        if blocks
        else {
            "patch size": vision["patch_size"],
            "vision layers": vision["num_hidden_layers"],
            "vision perceptron": vision["intermediate_size"],
        }
    )
    return {
        "image size": vision["image_size"],
        "vision width": vision["hidden_size"],
        **tower,
        "text width": text["hidden_size"],
        "text layers": text["num_hidden_layers"],
        "text perceptron": text["intermediate_size"],
        "text length": text["max_position_embeddings"],
        "vocabulary": text["vocab_size"],
        "joint width": settings["projection_dim"],
    }
