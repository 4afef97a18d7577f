"""OpenCLIP's settings and architectures: their configuration in transformers' CLIP, and the shapes of their weights.

Source: mlfoundations/open_clip 3.3, `model.py` (`model_cfg` and its defaults), `model_configs` (architectures). A
`model_cfg` that asks for more than a plain CLIP (another library's text encoder, timm's vision encoders, other pooling)
is refused. No torch.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from ...readers.errors import ModelError, did_you_mean, excerpt
from ..checkpoints.files import as_numbers
from ..checkpoints.untrusted import MAX_TILE, UntrustedDict

if TYPE_CHECKING:
    import torch

NO_WEIGHTS: Final = frozenset({"input_resolution", "context_length", "vocab_size"})
"""Sizes that older files hold among their weights."""

SETTINGS: Final = "open_clip_config.json"

_BOTH: Final[Mapping[str, Any]] = {"layers": 12, "mlp_ratio": 4.0}
VISION_DEFAULTS: Final[Mapping[str, Any]] = {**_BOTH, "width": 768, "head_width": 64, "patch_size": 16}
TEXT_DEFAULTS: Final[Mapping[str, Any]] = {**_BOTH, "context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8}
POOLING: Final = ("tok", "argmax")
"""Values of `pool_type` that are allowed in a plain CLIP."""
IGNORED: Final = frozenset({"hf_tokenizer_name", "patch_dropout", "text_mask", "pad_id", "eos_id"})
"""Settings that do not change the network."""

LARGEST: Final = 2**24
"""Limit on every size."""
STAGES: Final = 4
"""Of CLIP's ResNet."""
STRIDE: Final = 32
"""Total stride of CLIP's ResNet."""
QUICK: Final = "-quickgelu"

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A plain CLIP of OpenCLIP's; every text encoder has 77 tokens, a vocabulary of 49408, and heads of 64."""

    image: int
    """Side of its images in pixels."""
    patch: int
    """Side of a patch in pixels; 0 for a ResNet."""
    width: int
    """Of the vision transformer, or of a ResNet's first stage."""
    layers: int | tuple[int, ...]
    """Of the vision transformer, or blocks of each stage of a ResNet."""
    text_width: int
    text_layers: int
    joint: int
    """Dimensions of the embedding that images and texts share."""
    head: int = 64
    mlp: float = 4.0
    quick: bool = False
    """Whether there is a variant with OpenAI's activation, whose name ends in `-quickgelu`."""

    def settings(self, *, quick: bool) -> dict[str, Any]:
        """The content of OpenCLIP's settings file."""
        vision = {"image_size": self.image, "patch_size": self.patch, "width": self.width, "head_width": self.head}
        layers = list(self.layers) if isinstance(self.layers, tuple) else self.layers
        text = {"width": self.text_width, "layers": self.text_layers, "heads": self.text_width // 64}
        parts = {"vision_cfg": {**vision, "mlp_ratio": self.mlp, "layers": layers}, "text_cfg": text}
        return {"model_cfg": {"embed_dim": self.joint, "quick_gelu": quick, **parts}}


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


def clip_config(settings: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Keyword arguments of transformers' `CLIPConfig` for the `model_cfg` in OpenCLIP's settings.

    For CLIP's ResNet, which transformers does not have, `vision_config` holds `residual_layers` (see `clip_resnet.py`).
    Raises `ModelError` for anything but a plain CLIP.
    """
    model = UntrustedDict(settings, f"{SETTINGS} of checkpoint {source}").part("model_cfg")
    vision, text = model.part("vision_cfg"), model.part("text_cfg")
    for name, part, known in (
        ("vision_cfg", vision, {*VISION_DEFAULTS, "image_size"}),
        ("text_cfg", text, {*TEXT_DEFAULTS}),
    ):
        for key, value in part.items():
            allowed = key in known | IGNORED or (key == "pool_type" and value in POOLING)
            if value and not allowed:
                raise _not_plain(source, f"{name}.{key}", value)
    for key in set(model) - {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text"}:
        if model[key]:
            raise _not_plain(source, key, model[key])
    vision = UntrustedDict({**VISION_DEFAULTS, **vision}, model.where, "model_cfg.vision_cfg.")
    text = UntrustedDict({**TEXT_DEFAULTS, **text}, model.where, "model_cfg.text_cfg.")
    if model.get("embed_dim") is None:
        raise _not_plain(source, "embed_dim", None)
    sides = set(as_numbers(vision.get("image_size", 224)))
    stages = vision.list("layers") if isinstance(vision["layers"], list) else []
    counted = all(type(count) is int and 0 < count <= LARGEST for count in stages)
    if len(stages) not in {0, STAGES} or len(sides) != 1 or not counted:
        raise _not_plain(source, "vision_cfg", {key: vision.get(key) for key in ("layers", "image_size")})
    side = UntrustedDict({"image_size": sides.pop()}, model.where, "model_cfg.vision_cfg.").required_integer(
        "image_size", most=MAX_TILE
    )
    joint, width = model.required_integer("embed_dim", most=LARGEST), vision.required_integer("width", most=LARGEST)
    head = vision.required_integer("head_width", most=LARGEST)
    vocabulary = text.required_integer("vocab_size", least=3, most=LARGEST)
    act = {"hidden_act": "quick_gelu" if model.flag("quick_gelu", default=False) else "gelu"}
    layers: dict[str, Any] = {"residual_layers": stages, "num_attention_heads": width * STRIDE // head}
    if not stages:
        layers = {
            "intermediate_size": int(width * vision.number("mlp_ratio", 4.0, above=0)),
            "num_hidden_layers": vision.required_integer("layers", most=LARGEST),
            "num_attention_heads": width // head,
            "patch_size": vision.required_integer("patch_size", most=MAX_TILE),
        }
    text_width = text.required_integer("width", most=LARGEST)
    return {
        "projection_dim": joint,
        "vision_config": {**act, "hidden_size": width, "image_size": side, **layers},
        "text_config": {
            **act,
            "hidden_size": text_width,
            "intermediate_size": int(text_width * text.number("mlp_ratio", 4.0, above=0)),
            "num_hidden_layers": text.required_integer("layers", most=LARGEST),
            "num_attention_heads": text.required_integer("heads", most=LARGEST),
            "max_position_embeddings": text.required_integer("context_length", most=LARGEST),
            "vocab_size": vocabulary,
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,  # the highest, whose position OpenCLIP pools
        },
    }


def _not_plain(source: str, key: str, value: object) -> ModelError:
    return ModelError(
        f"model_cfg of checkpoint {source}",
        "must describe a plain CLIP: OpenCLIP's own vision transformer or ResNet, and its text transformer",
        value=excerpt(f"{key}: {value}", 80),
        remedy="Name another checkpoint, or one in transformers' format",
    )


def architecture_names() -> list[str]:
    """The names of all architectures, with their variants."""
    return [known for name, one in ARCHITECTURES.items() for known in (name, *([name + QUICK] if one.quick else []))]


def named_config(name: str, source: str) -> dict[str, Any]:
    """`clip_config` of an architecture by its name, for the checkpoint `source`. Raises `ModelError`."""
    names = architecture_names()
    if name not in names:
        raise ModelError(
            f"architecture of checkpoint {source}",
            "must be one of OpenCLIP's plain CLIPs, by OpenCLIP's name",
            value=name,
            remedy=f"{did_you_mean(name, names)}Known: {', '.join(names)}",
        )
    plain = name.removesuffix(QUICK)
    return clip_config(ARCHITECTURES[plain].settings(quick=name != plain), source)


def matching_architectures(shapes: Shapes) -> list[str]:
    """The architectures that fit the shapes of weights (OpenCLIP's name → shape)."""
    found = sizes_in(shapes)
    return [name for name in architecture_names() if _sizes_of(named_config(name, name)) == found]


def check_shapes(shapes: Shapes, name: str, source: str) -> None:
    """Raise `ModelError` where weights do not fit the architecture `name`, or where it is "".

    The architecture is never guessed: shapes tell neither the activation nor the number of heads.
    """
    found, fits = sizes_in(shapes), matching_architectures(shapes)
    if name in fits:
        return
    folder = f"put the file into a folder, as open_clip_pytorch_model.bin or .safetensors, with an {SETTINGS}"
    if not name:
        sizes = ", ".join(f"{key} {value}" for key, value in found.items()) or "no vision encoder of OpenCLIP's"
        option = "add --set model_options.architecture=NAME, or call an encoder openclip:NAME:FILE"
        raise ModelError(
            f"checkpoint {source}",
            "must have its architecture named, since weights tell neither the number of heads nor the activation",
            value=f"shapes of {' and of '.join(fits)}" if fits else f"unknown: {sizes}",
            remedy=f"Look up the name that its authors use with OpenCLIP, and {option if fits else folder}",
        )
    wrong = [
        f"{key} {found.get(key, 'none')} instead of {value}"
        for key, value in _sizes_of(named_config(name, source)).items()
        if found.get(key) != value
    ]
    raise ModelError(
        f"checkpoint {source}",
        f"must have weights with the shapes of {name}",
        value=", ".join(wrong),
        remedy=f"Name the architecture that its authors do: the shapes are those of {' and of '.join(fits)}"
        if fits
        else folder.capitalize(),
    )


_POOL: Final = "visual.attnpool.positional_embedding"
_MLP: Final = "transformer.resblocks.0.mlp.c_fc.weight"
_TEXT_DIMENSIONS: Final = {"token_embedding.weight": 2, "positional_embedding": 2, "text_projection": 2, _MLP: 2}
_VIT_DIMENSIONS: Final = {
    "visual.conv1.weight": 4,
    "visual.positional_embedding": 2,
    "visual.proj": 2,
    f"visual.{_MLP}": 2,
}
_RESNET_DIMENSIONS: Final = {"visual.layer1.0.conv1.weight": 4, _POOL: 2}
"""The weights whose shapes tell sizes, with their numbers of dimensions."""


def sizes_in(shapes: Shapes) -> dict[str, int]:
    """The sizes of a plain CLIP that the shapes of its weights tell; {} for anything else."""
    plain = {re.sub(r"^(module\.)?(text\.)?", "", name): tuple(shape) for name, shape in shapes.items()}
    resnet = _POOL in plain
    needed = (_RESNET_DIMENSIONS if resnet else _VIT_DIMENSIONS) | _TEXT_DIMENSIONS
    if any(len(plain.get(name, ())) != dimensions for name, dimensions in needed.items()):
        return {}
    patch = STRIDE if resnet else plain["visual.conv1.weight"][3]
    positions = plain[_POOL if resnet else "visual.positional_embedding"][0] - 1  # one is the class token's
    vision = {
        "image size": round(positions**0.5) * patch,
        "vision width": plain["visual.layer1.0.conv1.weight" if resnet else "visual.conv1.weight"][0],
    }
    if resnet:
        layers = {f"blocks of stage {i}": _count(plain, f"visual.layer{i}.") for i in range(1, STAGES + 1)}
    else:
        layers = {
            "patch size": patch,
            "vision layers": _count(plain, "visual.transformer.resblocks."),
            "vision MLP width": plain[f"visual.{_MLP}"][0],
        }
    return {
        **vision,
        **layers,
        "text width": plain["token_embedding.weight"][1],
        "text layers": _count(plain, "transformer.resblocks."),
        "text MLP width": plain[_MLP][0],
        "text length": plain["positional_embedding"][0],
        "vocabulary": plain["token_embedding.weight"][0],
        "joint width": plain["text_projection"][1],
    }


def _count(shapes: Shapes, prefix: str) -> int:
    """The number of different indices that follow a prefix in the names of weights."""
    return len({name.removeprefix(prefix).partition(".")[0] for name in shapes if name.startswith(prefix)})


def _sizes_of(config: Mapping[str, Any]) -> dict[str, int]:
    """What `sizes_in` finds in a model of a `clip_config`."""
    vision, text = config["vision_config"], config["text_config"]
    blocks = vision.get("residual_layers")
    layers = {f"blocks of stage {i}": count for i, count in enumerate(blocks or (), 1)} or {
        "patch size": vision["patch_size"],
        "vision layers": vision["num_hidden_layers"],
        "vision MLP width": vision["intermediate_size"],
    }
    return {
        "image size": vision["image_size"],
        "vision width": vision["hidden_size"],
        **layers,
        "text width": text["hidden_size"],
        "text layers": text["num_hidden_layers"],
        "text MLP width": text["intermediate_size"],
        "text length": text["max_position_embeddings"],
        "vocabulary": text["vocab_size"],
        "joint width": config["projection_dim"],
    }


def read_shapes(path: Path, source: str) -> dict[str, tuple[int, ...]]:
    """The shapes of OpenCLIP's weights in a file, by their names. Raises `ModelError`."""
    return {name: tuple(value.shape) for name, value in read_weights(path, source).items()}


def read_weights(path: Path, source: str) -> "dict[str, torch.Tensor]":
    """OpenCLIP's weights in a file by their names; also those of a training checkpoint. Raises `ModelError`."""
    import torch

    from ..checkpoints.tensors import load_weights

    content: Any = load_weights(path, f"checkpoint {source}")
    items = cast("dict[Any, Any]", content) if isinstance(content, dict) else {}
    nested: Any = items.get("state_dict", items)
    items = cast("dict[Any, Any]", nested) if isinstance(nested, dict) else {}
    held = {name: value for name, value in items.items() if name not in NO_WEIGHTS}
    other = [name for name, value in held.items() if not (isinstance(name, str) and isinstance(value, torch.Tensor))]
    if other or not held:
        raise ModelError(
            f"file {path.name} of checkpoint {source}",
            "must hold tensors by their names, at the top level or under state_dict",
            value=f"other values: {', '.join(map(str, other[:5]))}" if other else "none",
            remedy="Save the state_dict of the model alone",
        )
    return held
