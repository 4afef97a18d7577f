"""The sizes of a 4KHD model: read off its tensors and its config.json, and what follows from them. Loads no torch.

Nothing about vision or Partial LoRA stands in the released config.json, so ranks, widths and layers come from the
tensors' shapes; what shapes cannot say (heads, the scale of Partial LoRA) comes from the file, or is what the release
is known to have.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self, cast, get_args

from ....readers.errors import ModelError
from ...checkpoints.untrusted import MAX_TILE, UntrustedDict

Shapes = Mapping[str, tuple[int, ...]]
Activation = Literal["quick_gelu", "gelu", "gelu_tanh"]

MOST = 2**24
"""Heads or positions of a model."""
LINEARS = ("wqkv", "wo", "w1", "w2", "w3")
RELEASED_ALPHAS = {8: 16.0, 256: 256.0}  # rank → alpha, of the released 7B checkpoint
CLIP_HEAD = 64  # width of a head in every CLIP vision tower that was released
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # red, green, blue, of values 0 to 1
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
VISION = "vit.vision_tower.vision_model."
_GLOBAL, _ROW = "plora_glb_GN", "plora_sub_GN"


@dataclass(frozen=True, slots=True)
class VisionSizes:
    """A vision tower: a transformer over square patches of a square tile of `image` pixels.

    CLIP's has a `class_token` and a norm before the layers (`pre_norm`), and no `patch_bias`; SigLIP's the opposite.
    It sees (value - mean) / std of red, green and blue from 0 to 1.
    """

    hidden: int
    layers: int
    heads: int
    mlp: int
    patch: int = 14
    image: int = 336
    activation: Activation = "quick_gelu"
    eps: float = 1e-5
    class_token: bool = True
    pre_norm: bool = True
    patch_bias: bool = False
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    @property
    def side(self) -> int:
        """Patches along a tile's side."""
        return self.image // self.patch

    @property
    def positions(self) -> int:
        """Position embeddings: one for each patch, and the class token's."""
        return self.side**2 + self.class_token


@dataclass(frozen=True, slots=True)
class LanguageSizes:
    """An InternLM2 language model; `positions` is the longest sequence that it was made for."""

    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    eps: float = 1e-5
    rope_theta: float = 1e6
    positions: int = 32768

    @classmethod
    def of(cls, shapes: Shapes, config: Mapping[str, Any], source: str) -> Self:
        """The sizes of an InternLM2 with those tensors and that config.json. Raises `ModelError`."""
        vocab, width = _shape(shapes, "model.tok_embeddings.weight", 2, source)
        config = UntrustedDict(config, f"config.json of checkpoint {source}")
        _check_rope(config, source)
        return cls(
            vocab=vocab,
            hidden=width,
            layers=_count(shapes, "model.layers"),
            heads=_whole(config, "num_attention_heads", source),
            kv_heads=_whole(config, "num_key_value_heads", source),
            mlp=_shape(shapes, "model.layers.0.feed_forward.w1.weight", 2, source)[0],
            eps=config.number("rms_norm_eps", 1e-5, above=0),
            rope_theta=config.number("rope_theta", 1e6, above=0),
            positions=_whole(config, "max_position_embeddings", source),
        )

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.hidden // self.heads

    @property
    def packed(self) -> int:
        """Rows of `wqkv`: for each key-value head its query heads, a key and a value."""
        return (self.heads + 2 * self.kv_heads) * self.head

    def linear(self, name: str) -> tuple[int, int]:
        """(out, in) of one of the five linear maps of a layer."""
        return {
            "wqkv": (self.packed, self.hidden),
            "wo": (self.hidden, self.hidden),
            "w1": (self.mlp, self.hidden),
            "w2": (self.hidden, self.mlp),
            "w3": (self.mlp, self.hidden),
        }[name]


@dataclass(frozen=True, slots=True)
class Plora:
    """Partial LoRA of one linear map: y = W x + mask · (alpha / rank) · B A x (arXiv 2401.16420)."""

    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        """What B A x is multiplied by: alpha / rank."""
        return self.alpha / self.rank


@dataclass(frozen=True, slots=True)
class Sizes:
    """A whole 4KHD model. `projector` is the width between the projector's two maps."""

    vision: VisionSizes
    language: LanguageSizes
    projector: int
    plora: Mapping[str, Plora] = field(default_factory=dict[str, Plora])

    @property
    def merged(self) -> int:
        """Width of a visual token before the projector: four patches side by side."""
        return 4 * self.vision.hidden

    def to_json(self) -> dict[str, Any]:
        """Plain values, as they stand in a config.json: InternLM2's own keys, and `vision`, `projector`, `plora`."""
        language = self.language
        return {
            "vocab_size": language.vocab,
            "hidden_size": language.hidden,
            "num_hidden_layers": language.layers,
            "num_attention_heads": language.heads,
            "num_key_value_heads": language.kv_heads,
            "intermediate_size": language.mlp,
            "rms_norm_eps": language.eps,
            "rope_theta": language.rope_theta,
            "max_position_embeddings": language.positions,
            "projector": self.projector,
            "vision": asdict(self.vision),
            "plora": {name: asdict(plora) for name, plora in self.plora.items()},
        }

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        language = LanguageSizes(
            vocab=config["vocab_size"],
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            kv_heads=config["num_key_value_heads"],
            mlp=config["intermediate_size"],
            eps=config["rms_norm_eps"],
            rope_theta=float(config["rope_theta"]),
            positions=config["max_position_embeddings"],
        )
        plora = {name: Plora(**part) for name, part in config["plora"].items()}
        vision = dict(cast("Mapping[str, Any]", config["vision"]))
        colours: dict[str, Any] = {key: _three(vision.pop(key)) for key in ("mean", "std")}
        return cls(VisionSizes(**vision, **colours), language, config["projector"], plora)

    @classmethod
    def of(cls, shapes: Shapes, config: Mapping[str, Any], source: str) -> Self:
        """The sizes of a checkpoint with those tensors and that config.json; `source` names it in errors.

        Raises `ModelError` for a sibling model, which it names, and for what cannot be told.
        """
        refuse_sibling(shapes, source)
        config = UntrustedDict(config, f"config.json of checkpoint {source}")
        stated = config.part("vision")
        hidden, _, patch, _ = _shape(shapes, VISION + "embeddings.patch_embedding.weight", 4, source)
        positions = _shape(shapes, VISION + "embeddings.position_embedding.weight", 2, source)[0]
        class_token = VISION + "embeddings.class_embedding" in shapes
        side = math.isqrt(max(0, positions - class_token))
        heads = stated.integer("heads", max(1, hidden // CLIP_HEAD))
        if hidden % heads or not 1 <= side * patch <= MAX_TILE:
            raise ModelError(
                f"checkpoint {source}",
                f"its vision tower must take tiles of at most {MAX_TILE} pixels, its width be a multiple of its heads",
                value=f"{side * patch} pixels, {hidden} wide, {heads} heads",
                remedy="Check that config.json and the weights belong together",
            )
        activation = stated.text("activation", "quick_gelu")
        if activation not in get_args(Activation):
            raise stated.wrong("activation", " or ".join(get_args(Activation)))
        vision = VisionSizes(
            hidden=hidden,
            layers=_count(shapes, VISION + "encoder.layers"),
            heads=heads,
            mlp=_shape(shapes, VISION + "encoder.layers.0.mlp.fc1.weight", 2, source)[0],
            patch=patch,
            image=side * patch,
            activation=cast("Activation", activation),
            eps=stated.number("eps", 1e-5, above=0),
            class_token=class_token,
            pre_norm=VISION + "pre_layrnorm.weight" in shapes,
            patch_bias=VISION + "embeddings.patch_embedding.bias" in shapes,
            mean=_colours(stated, "mean", CLIP_MEAN),
            std=_colours(stated, "std", CLIP_STD),
        )
        language = LanguageSizes.of(shapes, config, source)
        projector = _shape(shapes, "vision_proj.0.weight", 2, source)[0]
        return cls(vision, language, projector, _ploras(shapes, config, source))

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of every tensor of a checkpoint of this size, in the order of its modules."""
        found: dict[str, tuple[int, ...]] = {_GLOBAL: (1, 1, self.merged), _ROW: (1, 1, 1, self.merged)}
        language = self.language
        found["model.tok_embeddings.weight"] = (language.vocab, language.hidden)
        for i in range(language.layers):
            for name in LINEARS:
                out, into = language.linear(name)
                room = "attention" if name in {"wqkv", "wo"} else "feed_forward"
                key, rank = f"model.layers.{i}.{room}.{name}", self.plora[name].rank
                found[f"{key}.weight"] = (out, into)
                found[f"{key}.Plora_A.weight"] = (rank, into)
                found[f"{key}.Plora_B.weight"] = (out, rank)
            found[f"model.layers.{i}.attention_norm.weight"] = (language.hidden,)
            found[f"model.layers.{i}.ffn_norm.weight"] = (language.hidden,)
        found["model.norm.weight"] = (language.hidden,)
        found["output.weight"] = (language.vocab, language.hidden)
        found |= {VISION + name: shape for name, shape in vision_tensors(self.vision).items()}
        found |= {"vision_proj.0.weight": (self.projector, self.merged), "vision_proj.0.bias": (self.projector,)}
        found |= {"vision_proj.2.weight": (language.hidden, self.projector), "vision_proj.2.bias": (language.hidden,)}
        return found

    @property
    def parameters(self) -> int:
        """How many numbers the model holds."""
        return sum(math.prod(shape) for shape in self.tensors().values())


def vision_tensors(sizes: VisionSizes) -> dict[str, tuple[int, ...]]:
    """Name → shape of a vision tower's tensors, as transformers names them, without the norm after the last layer."""
    width = sizes.hidden
    found: dict[str, tuple[int, ...]] = {}
    if sizes.class_token:
        found["embeddings.class_embedding"] = (width,)
    found["embeddings.patch_embedding.weight"] = (width, 3, sizes.patch, sizes.patch)
    if sizes.patch_bias:
        found["embeddings.patch_embedding.bias"] = (width,)
    found["embeddings.position_embedding.weight"] = (sizes.positions, width)
    norms = ["pre_layrnorm"] if sizes.pre_norm else []
    for i in range(sizes.layers):
        layer = f"encoder.layers.{i}"
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            found[f"{layer}.self_attn.{name}.weight"] = (width, width)
            found[f"{layer}.self_attn.{name}.bias"] = (width,)
        found[f"{layer}.mlp.fc1.weight"], found[f"{layer}.mlp.fc1.bias"] = (sizes.mlp, width), (sizes.mlp,)
        found[f"{layer}.mlp.fc2.weight"], found[f"{layer}.mlp.fc2.bias"] = (width, sizes.mlp), (width,)
        norms += [f"{layer}.layer_norm1", f"{layer}.layer_norm2"]
    found |= {f"{norm}.{part}": (width,) for norm in norms for part in ("weight", "bias")}
    return found


def refuse_sibling(shapes: Shapes, source: str) -> None:
    """Raise `ModelError` that names it where the tensors are those of another model of the family, or of none."""
    rank = shapes.get("model.layers.0.attention.wqkv.Plora_A.weight", (0,))[0]
    positions = shapes.get(VISION + "embeddings.position_embedding.weight", (0,))[0]
    ends = _GLOBAL in shapes and _ROW in shapes
    into = shapes.get("vision_proj.0.weight", (0, 0))[-1]
    sibling = ""
    if not ends and rank and (positions == 1226 or into == 1024):
        sibling = "InternLM-XComposer2-VL: no row ends, and a projector without merging"
    elif rank == 256 and positions == 1601:
        sibling = "InternLM-XComposer-2.5: tiles of 560 pixels"
    elif not ends or not rank:
        sibling = "another model: it has no row ends, or no Partial LoRA"
    if sibling:
        raise ModelError(
            f"checkpoint {source}",
            "its tensors must be those of InternLM-XComposer2-4KHD",
            value=sibling,
            remedy="Name a 4KHD checkpoint, such as internlm/internlm-xcomposer2-4khd-7b at a commit, or use vlm",
        )


def _ploras(shapes: Shapes, config: UntrustedDict, source: str) -> dict[str, Plora]:
    stated = config.part("plora")
    found: dict[str, Plora] = {}
    for name in LINEARS:
        room = "attention" if name in {"wqkv", "wo"} else "feed_forward"
        rank = _shape(shapes, f"model.layers.0.{room}.{name}.Plora_A.weight", 2, source)[0]
        alpha = stated.part(name).number("alpha", RELEASED_ALPHAS.get(rank, 0.0))
        if not alpha or not rank:
            raise ModelError(
                f"checkpoint {source}",
                "the scale of its Partial LoRA must be known: it is never guessed",
                value=f"{name} has rank {rank}, and config.json states no alpha",
                remedy=f'Add "plora": {{"{name}": {{"rank": {rank}, "alpha": …}}}} to config.json',
            )
        found[name] = Plora(rank, alpha)
    return found


def _check_rope(config: UntrustedDict, source: str) -> None:
    """Dynamic scaling changes nothing up to the model's own length, and longer sequences are refused anyway."""
    scaling = config.part("rope_scaling")
    kind = scaling.text("type", scaling.text("rope_type", "dynamic"))
    if kind not in {"dynamic", "default"}:
        raise ModelError(
            f"checkpoint {source}",
            "its positions must be plain, or scaled dynamically",
            value=f"rope_scaling {kind}",
            remedy="Name another checkpoint",
        )


def _shape(shapes: Shapes, name: str, dimensions: int, source: str) -> tuple[int, ...]:
    found = shapes.get(name, ())
    if len(found) != dimensions:
        raise ModelError(
            f"checkpoint {source}",
            f"it must hold the tensor {name} of {dimensions} dimensions",
            value=str(found) if found else "it is absent",
            remedy="Check that the checkpoint's files are whole",
        )
    return found


def _count(shapes: Shapes, prefix: str) -> int:
    pattern = re.compile(re.escape(prefix) + r"\.(\d{1,9})\.")
    found = 1 + max((int(match[1]) for match in map(pattern.match, shapes) if match), default=-1)
    return min(found, len(shapes) + 1)  # with more than there are tensors, some are missing in any case


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)


def _colours(stated: UntrustedDict, key: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
    """Three numbers of red, green and blue; those of `std` above 0."""
    found = stated.list(key) or list(default)
    numbers = [value for value in found if isinstance(value, (int, float)) and (key == "mean" or value > 0)]
    if not len(numbers) == len(found) == len(default):
        raise stated.wrong(key, "three numbers" + (" above 0" if key == "std" else ""))
    return _three(numbers)


def _whole(config: UntrustedDict, key: str, source: str) -> int:
    value = config.integer(key, 0, most=MOST)
    if not value:
        raise ModelError(
            f"checkpoint {source}",
            f"its config.json must state {key}",
            value="None",
            remedy="Complete the file: it is never guessed",
        )
    return value
