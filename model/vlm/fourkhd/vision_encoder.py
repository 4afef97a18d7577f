"""A vision tower for a new model: taken from another checkpoint, or made anew.

As the released model's was made from OpenAI's CLIP: the layers as they are, without the norm after the last and what
follows it. Sources: CLIP, arXiv 2103.00020; SigLIP, arXiv 2303.15343; ViT, arXiv 2010.11929.
"""

# transformers' and torch's types do not say what some of their functions return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from transformers import CLIPVisionConfig, SiglipVisionConfig, ViTConfig

from ....readers.errors import ModelError
from ...checkpoints.files import normalisation
from ...checkpoints.tensors import check_config_integers, count_elements
from ...checkpoints.untrusted import UntrustedDict, wrap_errors
from .files import Files
from .model_config import NEW, check_heads, check_tile, vision_sizes
from .sizes import VISION, Activation, VisionSizes, vision_tensors

Tensors = dict[str, torch.Tensor]
Draw = Callable[[str, tuple[int, ...]], torch.Tensor]

_EMBEDDED = "embeddings.patch_embedding.weight"
_POSITIONS, _CLASS = "embeddings.position_embedding.weight", "embeddings.class_embedding"
_ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
}
_AFTER = re.compile(r"post_layernorm\..*|head\..*|layernorm\..*|pooler\..*|embeddings\.position_ids|.*mask_token")
"""What follows a tower's last layer, or is no weight."""

_VIT: Final = (
    (r"embeddings\.cls_token", _CLASS),
    (r"embeddings\.position_embeddings", _POSITIONS),
    (r"embeddings\.patch_embeddings\.projection\.(.*)", r"embeddings.patch_embedding.\1"),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(.*)", r"encoder.layers.\1.self_attn.\2.\3"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(.*)", r"encoder.layers.\1.self_attn.out_proj.\2"),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.(.*)", r"encoder.layers.\1.mlp.fc1.\2"),
    (r"encoder\.layer\.(\d+)\.output\.dense\.(.*)", r"encoder.layers.\1.mlp.fc2.\2"),
    (r"encoder\.layer\.(\d+)\.layernorm_before\.(.*)", r"encoder.layers.\1.layer_norm1.\2"),
    (r"encoder\.layer\.(\d+)\.layernorm_after\.(.*)", r"encoder.layers.\1.layer_norm2.\2"),
)
_TAUGHT_CLASSES: Final = (
    "The vision encoder is a ViT, which was taught classes and not to agree with text: its features hold what tells "
    "those classes apart, and the projector finds little else in them. Prefer a CLIP or SigLIP encoder."
)
_ALONE: Final = (
    "The vision encoder comes without its text encoder, so that nothing shows that it was trained to agree with text: "
    "make sure that it is the image half of a CLIP or SigLIP model."
)
_SHORT: Final = {".query.": ".q_proj.", ".key.": ".k_proj.", ".value.": ".v_proj."}


@dataclass(frozen=True, slots=True)
class Tower:
    """A vision tower: its sizes, and its tensors by transformers' names, float32.

    `concerns` are reasons to expect a poor alignment, as sentences.
    """

    sizes: VisionSizes
    tensors: Tensors
    concerns: tuple[str, ...] = ()


def find_tower(source: str, *, tile: int = 0, seed: int = 0) -> Tower:
    """The tower of a folder (see `from_clip`), or a new one of sizes as `blueprint` reads them, for tiles of `tile` px.

    Raises `ModelError`, `RequestError`.
    """
    if not source.startswith(NEW):
        return from_clip(source, tile=tile)
    sizes = vision_sizes(source)
    sizes = replace(sizes, image=tile or sizes.image)
    check_tile(sizes.image, sizes.patch)
    draw = draws(seed)
    tensors = {name: draw(VISION + name, shape) for name, shape in vision_tensors(sizes).items()}
    new = "The vision encoder is new, and knows nothing: train it too, with many pictures (--train encoder)."
    return Tower(sizes, tensors, (new,))


def from_clip(source: str, *, tile: int = 0) -> Tower:
    """The vision tower of a checkpoint in transformers' format: CLIP, SigLIP, another 4KHD, or a ViT with a concern.

    `source` is a folder. Where `tile` pixels, 0 for the encoder's own, make another grid of patches, its position
    embeddings are interpolated bicubically; the class token's stays. Raises `ModelError` where the folder holds no such
    encoder or does not state its colours, `RequestError` where the tile cannot be cut into pairs of patches.
    """
    files = Files.find(source)
    shapes = files.shapes()
    if "plora_glb_GN" in shapes:
        sizes, kind = files.sizes().vision, "4khd"
    else:
        sizes, kind = _stated(files)
    tensors = _rename(_part(files), kind)
    _check(tensors, sizes, source)
    tensors = {name: tensors[name] for name in vision_tensors(sizes)}
    wanted = tile or sizes.image // sizes.patch * sizes.patch
    check_tile(wanted, sizes.patch)
    tensors[_POSITIONS] = interpolate(tensors[_POSITIONS], wanted // sizes.patch, class_token=sizes.class_token)
    alone = kind in {"clip", "siglip"} and not any("text_model." in name for name in shapes)
    return Tower(replace(sizes, image=wanted), tensors, _concerns(kind, alone=alone))


def interpolate(positions: torch.Tensor, side: int, *, class_token: bool) -> torch.Tensor:
    """Position embeddings (n, width) of a square grid → those of side × side patches, the class token's kept apart.

    Bicubic, corners not aligned, without antialiasing, as transformers does it.
    """
    first, grid = positions[: int(class_token)], positions[int(class_token) :]
    before = math.isqrt(len(grid))
    if before == side:
        return positions
    square = grid.reshape(1, before, before, -1).permute(0, 3, 1, 2)
    wider = torch.nn.functional.interpolate(square, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([first, wider.permute(0, 2, 3, 1).reshape(side * side, -1)])


def draws(seed: int) -> Draw:
    """How new tensors are filled: each from the seed and its own name, so that their order does not matter.

    Norms are 1, biases 0, `Plora_B` 0, so that Partial LoRA changes nothing at first; position and class embeddings and
    the separators have a deviation of 0.02, and maps that of "small" initialisation, sqrt(2 / (5 inputs)) (arXiv
    1910.05895).
    """

    def draw(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "pre_layrnorm.weight")):
            return torch.ones(shape)
        if name.endswith((".bias", "Plora_B.weight")):
            return torch.zeros(shape)
        random = torch.Generator().manual_seed(int(hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()[:12], 16))
        table = "_GN" in name or "embedding.weight" in name or name.endswith((_CLASS, "tok_embeddings.weight"))
        deviation = 0.02 if table and _EMBEDDED not in name else math.sqrt(0.4 / math.prod(shape[1:]))
        return torch.randn(shape, generator=random) * deviation

    return draw


def _stated(files: Files) -> tuple[VisionSizes, str]:
    """(sizes, kind) from a transformers folder's settings, whose own defaults stand for what they leave out."""
    kind = files.config.text("model_type").removesuffix("_vision_model")
    makers: dict[str, Any] = {"clip": CLIPVisionConfig, "siglip": SiglipVisionConfig, "vit": ViTConfig}
    if kind not in makers:
        raise ModelError(
            f"checkpoint {files.source}",
            "its model_type must be clip, siglip or vit, or it must be a 4KHD: of others the layers are not known",
            value=kind or "none is stated",
            remedy="Name the folder of a CLIP or SigLIP checkpoint in transformers' format",
        )
    inner: Any = files.config.part("vision_config") or files.config
    shapes = files.shapes()
    subject = f"checkpoint {files.source}"
    check_config_integers(inner, tensors=len(shapes), numbers=count_elements(shapes), subject=subject)
    with wrap_errors(subject, "transformers must understand its config.json", remedy="Check that the file is whole"):
        stated = makers[kind](**inner)
        check_heads(subject, stated.hidden_size, stated.num_attention_heads)
        for side in (stated.patch_size, stated.image_size):
            if side < 1 or stated.num_hidden_layers < 1:
                raise ValueError(side)
    activation = _ACTIVATIONS.get(str(stated.hidden_act))
    if activation is None or stated.num_channels != 3:
        raise ModelError(
            f"checkpoint {files.source}",
            f"it must see three colours, and its activation must be {', '.join(_ACTIVATIONS)}",
            value=f"{stated.num_channels} and {stated.hidden_act}",
            remedy="Name another checkpoint",
        )
    mean, std = _colours(files)
    sizes = VisionSizes(
        hidden=stated.hidden_size,
        layers=stated.num_hidden_layers,
        heads=stated.num_attention_heads,
        mlp=stated.intermediate_size,
        patch=stated.patch_size,
        image=stated.image_size,
        activation=activation,
        eps=float(stated.layer_norm_eps),
        class_token=kind != "siglip",
        pre_norm=kind == "clip",
        patch_bias=kind != "clip",
        mean=mean,
        std=std,
    )
    return sizes, kind


def _part(files: Files) -> Tensors:
    """The tensors of the tower alone, without what stands before their names, float32."""
    found: Tensors = {}
    prefix = ""
    for name in files.shapes():
        for last in (_EMBEDDED, "embeddings.patch_embeddings.projection.weight"):
            if name.endswith(last):
                prefix = name.removesuffix(last)
    for _, tensors in files.tensors():
        for name, tensor in tensors.items():
            inner = name.removeprefix(prefix)
            if name.startswith(prefix) and inner.startswith(("embeddings.", "encoder.", "pre_layrnorm.")):
                found[inner] = tensor.to(torch.float32, copy=True)
    return found


def _rename(tensors: Tensors, kind: str) -> Tensors:
    """A ViT's tensors by CLIP's names; others as they are."""
    if kind != "vit":
        return tensors
    found: Tensors = {}
    for name, tensor in tensors.items():
        ours = name
        for pattern, to in _VIT:
            ours = re.sub(f"^{pattern}$", to, ours)
        for long, short in _SHORT.items():
            ours = ours.replace(long, short)
        found[ours] = tensor.flatten() if ours == _CLASS else tensor[0] if ours == _POSITIONS else tensor
    return found


def _check(tensors: Tensors, sizes: VisionSizes, source: str) -> None:
    """Raise `ModelError` where the tensors are not exactly those of such a tower."""
    expected = vision_tensors(sizes)
    wrong = [f"no {name}" for name in expected if name not in tensors]
    wrong += [f"{name}, which is unknown" for name in tensors if name not in expected and not _AFTER.fullmatch(name)]
    wrong += [
        f"{name} of {tuple(tensors[name].shape)}, not {shape}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if wrong:
        raise ModelError(
            f"checkpoint {source}",
            "its vision encoder must have the layers that its config.json states, and no others",
            value=wrong[0],
            remedy="Check that the files belong together, or name another checkpoint",
        )


def _colours(files: Files) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """(mean, std) of red, green and blue from 0 to 1, as the checkpoint's processor states them."""
    stated = any((files.folder / name).is_file() for name in ("processor_config.json", "preprocessor_config.json"))
    nothing = UntrustedDict({}, "preprocessor_config.json")
    rescale, mean, std = normalisation(files.held.preprocessing() if stated else nothing, files.source)
    if rescale <= 0:
        raise ModelError(
            f"checkpoint {files.source}",
            "its processor must multiply what it shows by a number above 0",
            value=f"{rescale:g}",
            remedy="Correct rescale_factor in preprocessor_config.json",
        )
    whole = 255 * rescale  # what the processor makes of white, before it takes the mean away
    red, green, blue = ((m / whole, s / whole) for m, s in zip(mean, std, strict=True))
    return (red[0], green[0], blue[0]), (red[1], green[1], blue[1])


def _concerns(kind: str, *, alone: bool) -> tuple[str, ...]:
    if kind == "vit":
        return (_TAUGHT_CLASSES,)
    return (_ALONE,) if alone else ()
