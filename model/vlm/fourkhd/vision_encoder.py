"""The vision encoder of a new 4KHD model: taken from another checkpoint, or new.

As the released model's was taken from OpenAI's CLIP: all layers, without the norm after the last and what follows it.
Sources: CLIP, arXiv 2103.00020; SigLIP, arXiv 2303.15343; ViT, arXiv 2010.11929.
"""

# transformers' and torch's types do not state what some of their functions return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import torch
from transformers import CLIPVisionConfig, SiglipVisionConfig, ViTConfig

from ....readers.errors import ModelError
from ...checkpoints.files import normalisation
from ...checkpoints.tensors import check_config_integers, count_elements
from ...checkpoints.untrusted import UntrustedDict, wrap_errors
from .checkpoint import FourKhdFiles
from .model_config import (
    NEW,
    RGB,
    SEPARATOR,
    VISION,
    Activation,
    VisionSizes,
    check_heads,
    check_tile,
    new_vision_sizes,
)

Tensors = dict[str, torch.Tensor]

_PATCHES = "embeddings.patch_embedding.weight"
_POSITIONS, _CLASS = "embeddings.position_embedding.weight", "embeddings.class_embedding"
_ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
}
_CONFIGS: Final[Mapping[str, Any]] = {"clip": CLIPVisionConfig, "siglip": SiglipVisionConfig, "vit": ViTConfig}
_NOISE: Final = 6.0  # standard deviations, which no random network reaches
_UNUSED = re.compile(r"post_layernorm\..*|head\..*|layernorm\..*|pooler\..*|embeddings\.position_ids|.*mask_token")
"""Tensors that follow the last layer, or are no weights."""
_VIT_NAMES: Final = (
    (r"embeddings\.cls_token", _CLASS),
    (r"embeddings\.position_embeddings", _POSITIONS),
    (r"embeddings\.patch_embeddings\.projection\.(.*)", r"embeddings.patch_embedding.\1"),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.([qkv])\w+\.(.*)", r"encoder.layers.\1.self_attn.\2_proj.\3"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(.*)", r"encoder.layers.\1.self_attn.out_proj.\2"),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.(.*)", r"encoder.layers.\1.mlp.fc1.\2"),
    (r"encoder\.layer\.(\d+)\.output\.dense\.(.*)", r"encoder.layers.\1.mlp.fc2.\2"),
    (r"encoder\.layer\.(\d+)\.layernorm_before\.(.*)", r"encoder.layers.\1.layer_norm1.\2"),
    (r"encoder\.layer\.(\d+)\.layernorm_after\.(.*)", r"encoder.layers.\1.layer_norm2.\2"),
)
"""A ViT's names in transformers → CLIP's."""
_CLASSIFIER: Final = (
    "The vision encoder is a ViT that was trained to classify, not to agree with text: its features separate its "
    "classes, and the projector finds little else in them. Prefer a CLIP or SigLIP encoder."
)
_IMAGE_HALF: Final = (
    "The vision encoder comes without its text encoder, so nothing shows that it was trained to agree with text: make "
    "sure that it is the image half of a CLIP or SigLIP model."
)
_UNTRAINED: Final = "The vision encoder is untrained: train it too, on many pictures (--train encoder)."


@dataclass(frozen=True, slots=True)
class VisionEncoder:
    """The weights of a vision encoder."""

    sizes: VisionSizes
    tensors: Tensors
    """float32, by transformers' names."""
    concerns: tuple[str, ...] = ()
    """Reasons to expect a poor alignment, as sentences."""


def make_vision_encoder(source: str, *, tile: int = 0, seed: int = 0) -> VisionEncoder:
    """The encoder of a folder (see `load_vision_encoder`), or a new one from text (see `new_vision_sizes`).

    `tile` is the side of its tiles in pixels, 0 for its own. Raises `ModelError`, `RequestError`.
    """
    if not source.startswith(NEW):
        return load_vision_encoder(source, tile=tile)
    sizes = new_vision_sizes(source)
    sizes = replace(sizes, image=tile or sizes.image)
    check_tile(sizes.image, sizes.patch)
    tensors = {name: initial_tensor(seed, VISION + name, shape) for name, shape in sizes.tensors().items()}
    return VisionEncoder(sizes, tensors, (_UNTRAINED,))


def load_vision_encoder(source: str, *, tile: int = 0) -> VisionEncoder:
    """The vision encoder of a folder in transformers' format: CLIP, SigLIP, another 4KHD, or a ViT with a concern.

    Where `tile` pixels, 0 for the encoder's own, make another grid of patches, the position embeddings are interpolated
    bicubically, without the class token's. Raises `ModelError` where the folder holds no such encoder, one that was not
    trained, or does not state mean and std, `RequestError` where the tile is no even number of patches.
    """
    files = FourKhdFiles.find(source)
    shapes = files.shapes()
    if SEPARATOR in shapes:
        sizes, kind = files.sizes().vision, "4khd"
    else:
        sizes, kind = _read_sizes(files)
    tensors = _read_tensors(files, kind)
    _check_tensors(tensors, sizes, source)
    tensors = {name: tensors[name] for name in sizes.tensors()}
    if kind != "4khd":
        check_trained(tensors, source, class_token=sizes.class_token)
    side = tile or sizes.patches_per_side * sizes.patch
    check_tile(side, sizes.patch)
    tensors[_POSITIONS] = interpolate(tensors[_POSITIONS], side // sizes.patch, class_token=sizes.class_token)
    concern = _CLASSIFIER if kind == "vit" else ""
    if kind in {"clip", "siglip"} and not any("text_model." in name for name in shapes):
        concern = _IMAGE_HALF
    return VisionEncoder(replace(sizes, image=side), tensors, (concern,) if concern else ())


def interpolate(positions: torch.Tensor, side: int, *, class_token: bool) -> torch.Tensor:
    """Position embeddings (n, width) of a square grid → those of side × side patches, the class token's unchanged.

    Bicubic, corners not aligned, without antialiasing, as transformers does it.
    """
    first, grid = positions[: int(class_token)], positions[int(class_token) :]
    before = math.isqrt(len(grid))
    if before == side:
        return positions
    square = grid.reshape(1, before, before, -1).permute(0, 3, 1, 2)
    wider = torch.nn.functional.interpolate(square, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([first, wider.permute(0, 2, 3, 1).reshape(side * side, -1)])


def initial_tensor(seed: int, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A new tensor, random by the seed and its own name, so that the order of tensors does not matter.

    Norms are 1, biases and `Plora_B` 0, so that Partial LoRA changes nothing at first. Position and class embeddings
    and the separators have a standard deviation of 0.02, and linear maps "small" initialization, sqrt(2 / (5 inputs))
    (arXiv 1910.05895).
    """
    if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "pre_layrnorm.weight")):
        return torch.ones(shape)
    if name.endswith((".bias", "Plora_B.weight")):
        return torch.zeros(shape)
    random = torch.Generator().manual_seed(int(hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()[:12], 16))
    table = "_GN" in name or "embedding.weight" in name or name.endswith((_CLASS, "tok_embeddings.weight"))
    deviation = 0.02 if table and _PATCHES not in name else math.sqrt(0.4 / math.prod(shape[1:]))
    return torch.randn(shape, generator=random) * deviation


def _read_sizes(files: FourKhdFiles) -> tuple[VisionSizes, str]:
    """(sizes, model type) from a transformers folder's config.json, with transformers' own defaults."""
    kind = files.config.text("model_type").removesuffix("_vision_model")
    subject = f"checkpoint {files.source}"
    if kind not in _CONFIGS:
        raise ModelError(
            f"model_type of {subject}",
            "must be clip, siglip or vit, or that of a 4KHD",
            value=kind or "none",
            remedy="Name the folder of a CLIP or SigLIP checkpoint in transformers' format",
        )
    inner: Any = files.config.part("vision_config") or files.config
    shapes = files.shapes()
    check_config_integers(inner, tensors=len(shapes), numbers=count_elements(shapes), subject=subject)
    remedy = "Check that the file is complete"
    with wrap_errors(subject, "must have a config.json that transformers can read", remedy=remedy):
        config = _CONFIGS[kind](**inner)
        check_heads(subject, config.hidden_size, config.num_attention_heads)
        if min(config.patch_size, config.image_size, config.num_hidden_layers) < 1:
            raise ValueError(config.image_size)
    activation = _ACTIVATIONS.get(str(config.hidden_act))
    if activation is None or config.num_channels != 3:
        raise ModelError(
            f"vision encoder of {subject}",
            f"must have three channels and one of the activations {', '.join(_ACTIVATIONS)}",
            value=f"{config.num_channels} and {config.hidden_act}",
            remedy="Name another checkpoint",
        )
    mean, std = _mean_and_std(files)
    sizes = VisionSizes(
        hidden=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        mlp=config.intermediate_size,
        patch=config.patch_size,
        image=config.image_size,
        activation=activation,
        eps=float(config.layer_norm_eps),
        class_token=kind != "siglip",
        pre_norm=kind == "clip",
        patch_bias=kind != "clip",
        mean=mean,
        std=std,
    )
    return sizes, kind


def _read_tensors(files: FourKhdFiles, kind: str) -> Tensors:
    """The encoder's tensors by CLIP's names without what precedes them, float32."""
    prefix = ""
    for name in files.shapes():
        for last in (_PATCHES, "embeddings.patch_embeddings.projection.weight"):
            if name.endswith(last):
                prefix = name.removesuffix(last)
    found: Tensors = {}
    for tensors in files.tensors():
        for name, tensor in tensors.items():
            inner = name.removeprefix(prefix)
            if name.startswith(prefix) and inner.startswith(("embeddings.", "encoder.", "pre_layrnorm.")):
                copy = tensor.to(torch.float32, copy=True)
                for pattern, to in _VIT_NAMES if kind == "vit" else ():
                    inner = re.sub(f"^{pattern}$", to, inner)
                if kind == "vit" and inner in {_CLASS, _POSITIONS}:
                    copy = copy.flatten() if inner == _CLASS else copy[0]
                found[inner] = copy
    return found


def _check_tensors(tensors: Tensors, sizes: VisionSizes, source: str) -> None:
    """Raise `ModelError` where the tensors are not exactly those of an encoder of these sizes."""
    expected = sizes.tensors()
    wrong = [f"no {name}" for name in expected if name not in tensors]
    wrong += [f"unknown {name}" for name in tensors if name not in expected and not _UNUSED.fullmatch(name)]
    wrong += [
        f"{name} of {tuple(tensors[name].shape)}, not {shape}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if wrong:
        raise ModelError(
            f"vision encoder of checkpoint {source}",
            "must have the layers that its config.json states, and no others",
            value=wrong[0],
            remedy="Check that the files belong together, or name another checkpoint",
        )


def check_trained(tensors: Tensors, source: str, *, class_token: bool) -> None:
    """Raise `ModelError` for an encoder that was initialized and not trained, whatever its config.json says.

    Training moves norm layers away from 1 and 0. It also makes the filters of the patches smooth, and the position
    embeddings of neighbours alike, unless one of these was held fixed: random numbers have neither.
    """
    norms = [tensor for name, tensor in tensors.items() if "norm" in name or "layrnorm" in name]
    filters, positions = tensors[_PATCHES], tensors[_POSITIONS][int(class_token) :]
    side = math.isqrt(len(positions))
    grid = (positions - positions.mean(dim=0)).T.reshape(-1, side, side)
    smooth, alike = _neighbour_correlation(filters), _neighbour_correlation(grid)
    problem = ""
    if all(bool((tensor == tensor.flatten()[0]).all()) for tensor in norms):
        problem = "all norm layers have their initial values"
    elif max(smooth.deviations, alike.deviations) < _NOISE:
        problem = (
            "patch filters and position embeddings are as random as noise: the correlation of neighbours is "
            f"{smooth.value:.2f} and {alike.value:.2f}"
        )
    if problem:
        raise ModelError(
            f"vision encoder of checkpoint {source}",
            "must be trained",
            value=problem,
            remedy="Name a trained CLIP or SigLIP; to begin with an untrained encoder, write --vision new:…",
        )


class _Correlation(NamedTuple):
    value: float
    deviations: float
    """The same in standard deviations of what independent numbers have."""


def _neighbour_correlation(grids: torch.Tensor) -> _Correlation:
    """The correlation of neighbours along the last two axes of grids (…, rows, columns)."""
    pairs = ((grids[..., 1:], grids[..., :-1]), (grids[..., 1:, :], grids[..., :-1, :]))
    one, other = (torch.cat([pair[i].flatten() for pair in pairs]).double() for i in (0, 1))
    size = math.sqrt(float(one.square().sum()) * float(other.square().sum()))
    value = float(one @ other) / size if size else 0.0
    return _Correlation(value, value * math.sqrt(len(one)))


def _mean_and_std(files: FourKhdFiles) -> tuple[RGB, RGB]:
    """(mean, std) of red, green and blue from 0 to 1, as the checkpoint's image processor states them."""
    stated = any((files.folder / name).is_file() for name in ("processor_config.json", "preprocessor_config.json"))
    nothing = UntrustedDict({}, "preprocessor_config.json")
    rescale, mean, std = normalisation(files.held.preprocessing() if stated else nothing, files.source)
    if rescale <= 0:
        raise ModelError(
            f"rescale_factor of checkpoint {files.source}",
            "must be above 0",
            value=f"{rescale:g}",
            remedy="Correct it in preprocessor_config.json",
        )
    white = 255 * rescale  # before the mean is subtracted
    red, green, blue = ((m / white, s / white) for m, s in zip(mean, std, strict=True))
    return (red[0], green[0], blue[0]), (red[1], green[1], blue[1])
