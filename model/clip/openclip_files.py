"""OpenCLIP's checkpoints, read as what they are: CLIP models whose files call their parts otherwise. No torch.

Source of the format: mlfoundations/open_clip, `push_to_hf_hub.py` (files), `model.py` (settings, their defaults, names
of weights). QuiltNet is of this kind; RemoteCLIP and GeoRSCLIP are weights alone, see `bare.py`. What `text_cfg` and
`vision_cfg` ask for beyond a plain CLIP (a text tower of another library, timm's vision towers, other pooling) is
refused.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ...readers.errors import ModelError, excerpt
from ..checkpoints.files import (
    CHANNELS,
    TOKENIZER,
    VOCABULARIES,
    CheckpointFiles,
    as_numbers,
    find_files,
    has_tokenizer,
)
from ..checkpoints.untrusted import MAX_TILE, UntrustedDict
from .checkpoint import ClipCheckpoint, OpenClip

SETTINGS = "open_clip_config.json"
MERGES = "bpe_simple_vocab_16e6.txt.gz"
"""The file of OpenCLIP's package that its own tokenizer reads."""
SAFE, PICKLED = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
TRANSFORMERS = "config.json"
VISION: Final[Mapping[str, Any]] = {"width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16, "layers": 12}
TEXT: Final[Mapping[str, Any]] = {
    "context_length": 77,
    "vocab_size": 49408,
    "width": 512,
    "heads": 8,
    "layers": 12,
    "mlp_ratio": 4.0,
}
MOST = 2**24
"""Of any size."""
STAGES, SHRINKS = 4, 32  # of a residual network, and pixels to a side of a place of its last map
PLAIN: Final[Mapping[str, tuple[Any, ...]]] = {
    "pool_type": ("tok", "argmax"),
    "hf_tokenizer_name": (),
    "patch_dropout": (),
    "text_mask": (),
    "pad_id": (),
    "eos_id": (),
}
"""Settings beyond the sizes that leave a plain CLIP plain: with these values, with any where () stands."""


NO_WEIGHTS: Final = frozenset({"input_resolution", "context_length", "vocab_size"})


def find_openclip(source: str, *, fetch: bool, tokenizer: str = "", words: bool = True) -> ClipCheckpoint | None:
    """The checkpoint of a folder or hub id in OpenCLIP's format, None where it is in transformers' or in none.

    A folder in both formats is read as transformers'. `tokenizer` as for `with_tokenizer`, which is asked where `words`
    are to be read. Raises `ModelError` where its model is not a plain CLIP.
    """
    small = (SETTINGS, TRANSFORMERS, *((MERGES, *TOKENIZER) if words else ()))
    files = find_files(source, fetch=fetch, small=small, kept=(SAFE, PICKLED))
    if not (files.folder / SETTINGS).is_file():
        return None
    if (files.folder / TRANSFORMERS).is_file() and files.read(TRANSFORMERS).get("model_type") in {"clip", "siglip"}:
        return None
    stated = files.read(SETTINGS)
    settings = sizes(stated, source)
    scaling = stated.part("preprocess_cfg")
    mean, std = (as_numbers(scaling.get(key)) for key in ("mean", "std"))
    mean, std = (part * CHANNELS if len(part) == 1 else part for part in (mean, std))
    if len(mean) != CHANNELS or len(std) != CHANNELS or min(std) <= 0:
        raise ModelError(
            f"checkpoint {source}",
            "its preprocess_cfg must state mean and std for red, green and blue",
            value=f"{mean} and {std}",
            remedy=f"Complete {SETTINGS}: the values are never guessed",
        )
    if scaling.get("mode", "RGB") != "RGB":
        raise ModelError(
            f"checkpoint {source}",
            "its preprocess_cfg must ask for pictures in RGB",
            value=excerpt(f"mode: {scaling['mode']}", 60),
            remedy="Name another checkpoint",
        )
    other = bool(stated.part("model_cfg").part("text_cfg").get("hf_tokenizer_name"))
    read_by = None
    if words:
        files, read_by = with_tokenizer(files, tokenizer, merges=not other)
    known = OpenClip(settings, tokenizer=read_by, lower=not other)
    return ClipCheckpoint(files, "clip", settings["vision_config"]["image_size"], 1 / 255, mean, std, known)


def with_tokenizer(files: CheckpointFiles, named: str, *, merges: bool = True) -> tuple[CheckpointFiles, Path]:
    """A checkpoint's files with those of its tokenizer, and what it is: a folder, or OpenCLIP's file of merges.

    `named` is the path of either, "" for what lies beside the weights, where with `merges` OpenCLIP's file comes first.
    Raises `ModelError` where there is none.
    """
    place = Path(named) if named else files.folder
    beside = place / MERGES
    if named and place.is_file():
        found, names = place, (str(place.absolute()),)
    elif merges and beside.is_file():
        found, names = beside, (str(beside.absolute()) if named else MERGES,)
    elif has_tokenizer(place):
        found, names = place, tuple(str(place.absolute() / name) if named else name for name in TOKENIZER)
    else:
        known = (*((MERGES,) if merges else ()), *("+".join(names) for names in VOCABULARIES))
        raise ModelError(
            f"checkpoint {files.source}",
            "it must have its tokenizer, since words are read by it",
            value=f"none of {', '.join(known)} in {place}",
            remedy=f"Put CLIP's tokenizer files there, or {MERGES} of OpenCLIP's package, or name either with "
            "--set model_options.tokenizer=PATH",
        )
    return replace(files, small=(*(name for name in files.small if name not in {MERGES, *TOKENIZER}), *names)), found


def renamed(names: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, str, int | None, bool]]:
    """How OpenCLIP's weights (name → shape) become transformers'.

    Yields (their name, our name, which third of its rows or None for all, whether it is transposed). A name that is not
    known comes out as "", so that nothing is passed over.
    """
    residual = any(name.removeprefix("module.").startswith("visual.attnpool.") for name in names)
    for name in sorted(names):
        plain = name.removeprefix("module.")
        if plain in NO_WEIGHTS or plain.endswith("attn_mask"):
            continue  # sizes that old files carry as weights, and the mask of what comes later
        side = "vision_model" if plain.startswith("visual.") else "text_model"
        part = plain.removeprefix("visual.").removeprefix("text.")
        block = part.split(".")
        if residual and side == "vision_model":
            yield name, f"vision_model.{part}", None, False
        elif part.startswith("transformer.resblocks.") and len(block) > 4:
            inner, kind = ".".join(block[3:-1]), block[-1]
            layer = f"{side}.encoder.layers.{block[2]}"
            if inner == "attn" and kind.startswith("in_proj_"):
                for third, letter in enumerate("qkv"):
                    yield name, f"{layer}.self_attn.{letter}_proj.{kind.removeprefix('in_proj_')}", third, False
            else:
                known = _BLOCK.get(inner, "")
                yield name, f"{layer}.{known}.{kind}" if known else "", None, False
        else:
            known = (_VISION if side == "vision_model" else _TEXT).get(part, "")
            yield name, known, None, part in {"proj", "text_projection"}


_BLOCK: Final = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_VISION: Final = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "ln_post.weight": "vision_model.post_layernorm.weight",
    "ln_post.bias": "vision_model.post_layernorm.bias",
    "proj": "visual_projection.weight",
}
_TEXT: Final = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}


def sizes(settings: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The settings of transformers' CLIP (keyword arguments of `CLIPConfig`) that mean the model of a `model_cfg`.

    Of a residual network, which transformers does not have, `vision_config` says `residual_layers`: see `residual.py`.
    Raises `ModelError` where that is not a plain CLIP.
    """
    model = UntrustedDict(settings, f"{SETTINGS} of checkpoint {source}").part("model_cfg")
    vision, text = model.part("vision_cfg"), model.part("text_cfg")
    for name, part, known in (("vision_cfg", vision, {*VISION, "image_size"}), ("text_cfg", text, {*TEXT})):
        for key, value in part.items():
            allowed = PLAIN.get(key)
            if value and key not in known and (allowed is None or (allowed and all(value != one for one in allowed))):
                raise _refused(source, f"{name}.{key}", value)
    for key in set(model) - {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text"}:
        if model[key]:
            raise _refused(source, key, model[key])
    vision = UntrustedDict({**VISION, **vision}, model.where, "model_cfg.vision_cfg.")
    text = UntrustedDict({**TEXT, **text}, model.where, "model_cfg.text_cfg.")
    if model.get("embed_dim") is None:
        raise _refused(source, "embed_dim", None)
    sides = set(as_numbers(vision.get("image_size", 224)))
    stages = vision.list("layers") if isinstance(vision["layers"], list) else []
    counted = all(type(count) is int and 0 < count <= MOST for count in stages)
    if len(stages) not in {0, STAGES} or len(sides) != 1 or not counted:
        raise _refused(source, "vision_cfg", {key: vision.get(key) for key in ("layers", "image_size")})
    side = UntrustedDict({"image_size": sides.pop()}, model.where, "model_cfg.vision_cfg.").required_integer(
        "image_size", most=MAX_TILE
    )
    joint, width = model.required_integer("embed_dim", most=MOST), vision.required_integer("width", most=MOST)
    head = vision.required_integer("head_width", most=MOST)
    words = text.required_integer("vocab_size", least=3, most=MOST)
    act = {"hidden_act": "quick_gelu" if model.flag("quick_gelu", default=False) else "gelu"}
    residual: dict[str, Any] = {"residual_layers": stages, "num_attention_heads": width * SHRINKS // head}
    transformer: dict[str, Any] = {}
    if not stages:
        transformer = {
            "intermediate_size": int(width * vision.number("mlp_ratio", 4.0, above=0)),
            "num_hidden_layers": vision.required_integer("layers", most=MOST),
            "num_attention_heads": width // head,
            "patch_size": vision.required_integer("patch_size", most=MAX_TILE),
        }
    inner = text.required_integer("width", most=MOST)
    return {
        "projection_dim": joint,
        "vision_config": act | {"hidden_size": width, "image_size": side} | (residual if stages else transformer),
        "text_config": act
        | {
            "hidden_size": inner,
            "intermediate_size": int(inner * text.number("mlp_ratio", 4.0, above=0)),
            "num_hidden_layers": text.required_integer("layers", most=MOST),
            "num_attention_heads": text.required_integer("heads", most=MOST),
            "max_position_embeddings": text.required_integer("context_length", most=MOST),
            "vocab_size": words,
            "bos_token_id": words - 2,
            "eos_token_id": words - 1,  # the highest, whose place OpenCLIP looks for
        },
    }


def _refused(source: str, key: str, value: object) -> ModelError:
    return ModelError(
        f"checkpoint {source}",
        "its model_cfg must describe a plain CLIP: OpenCLIP's own vision transformer or ResNet and text transformer",
        value=excerpt(f"{key}: {value}", 80),
        remedy="Name another checkpoint, or one in transformers' format",
    )
