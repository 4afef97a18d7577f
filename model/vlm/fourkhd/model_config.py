"""The sizes of a 4KHD model: read off its tensors and config.json, or given as text for a new model. Imports no torch.

The released config.json states nothing about vision or Partial LoRA: ranks, widths and layers come from the shapes of
the tensors; heads and the scale of Partial LoRA, which shapes cannot tell, come from the file or from the release.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal, Self, cast, get_args

from ....readers.errors import ModelError, RequestError
from ...checkpoints.untrusted import MAX_TILE, UntrustedDict

Shapes = Mapping[str, tuple[int, ...]]
Activation = Literal["quick_gelu", "gelu", "gelu_tanh"]
Kernel = Literal["sdpa", "flash_attention_2", "eager"]
RGB = tuple[float, float, float]

LINEARS = ("wqkv", "wo", "w1", "w2", "w3")
VISION = "vit.vision_tower.vision_model."
SEPARATOR, ROW_END = "plora_glb_GN", "plora_sub_GN"
CLIP_MEAN: RGB = (0.48145466, 0.4578275, 0.40821073)  # of values 0 to 1
CLIP_STD: RGB = (0.26862954, 0.26130258, 0.27577711)
CLIP_HEAD_DIM = 64  # in every released CLIP vision encoder
RELEASED_ALPHAS = {8: 16.0, 256: 256.0}  # rank → alpha of the released 7B checkpoint
MAX_COUNT = 2**24  # heads or positions of a model
NEW = "new:"

_NF4_BLOCK, _NF4_SCALES = 64, 256  # numbers that share a scale of 8 bits, and such scales that share one of 32 bits
_LANGUAGE_KEYS: Final = {
    "vocab": "vocab_size",
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "mlp": "intermediate_size",
    "eps": "rms_norm_eps",
    "rope_theta": "rope_theta",
    "positions": "max_position_embeddings",
}
"""Field of `LanguageSizes` → InternLM2's key in config.json."""


@dataclass(frozen=True, slots=True)
class VisionSizes:
    """A vision encoder: a transformer over the square patches of a square tile."""

    hidden: int
    layers: int
    heads: int
    mlp: int
    patch: int = 14
    """Side of a patch in pixels."""
    image: int = 336
    """Side of a tile in pixels."""
    activation: Activation = "quick_gelu"
    eps: float = 1e-5
    class_token: bool = True
    """True for CLIP, false for SigLIP."""
    pre_norm: bool = True
    """Whether a norm precedes the layers: true for CLIP, false for SigLIP."""
    patch_bias: bool = False
    """Whether the patch embedding has a bias: false for CLIP, true for SigLIP."""
    mean: RGB = CLIP_MEAN
    """The encoder gets (value - mean) / std, with values from 0 to 1."""
    std: RGB = CLIP_STD

    @property
    def patches_per_side(self) -> int:
        """Patches along a tile's side."""
        return self.image // self.patch

    @property
    def positions(self) -> int:
        """Position embeddings: one for each patch, and the class token's."""
        return self.patches_per_side**2 + self.class_token

    def image_tokens(self, rows: int, cols: int) -> int:
        """Tokens of a grid of tiles: global view, separator and tiles, with row ends."""
        side = self.patches_per_side // 2
        return side * (side + 1) + 1 + rows * side * (cols * side + 1)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of the tensors, by transformers' names, without the norm after the last layer."""
        width = self.hidden
        found: dict[str, tuple[int, ...]] = {"embeddings.class_embedding": (width,)} if self.class_token else {}
        found["embeddings.patch_embedding.weight"] = (width, 3, self.patch, self.patch)
        if self.patch_bias:
            found["embeddings.patch_embedding.bias"] = (width,)
        found["embeddings.position_embedding.weight"] = (self.positions, width)
        norms = ["pre_layrnorm"] if self.pre_norm else []
        for i in range(self.layers):
            layer = f"encoder.layers.{i}"
            linears = {f"self_attn.{name}": (width, width) for name in ("k_proj", "v_proj", "q_proj", "out_proj")}
            linears |= {"mlp.fc1": (self.mlp, width), "mlp.fc2": (width, self.mlp)}
            for name, shape in linears.items():
                found |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[:1]}
            norms += [f"{layer}.layer_norm1", f"{layer}.layer_norm2"]
        return found | {f"{norm}.{part}": (width,) for norm in norms for part in ("weight", "bias")}


@dataclass(frozen=True, slots=True)
class LanguageSizes:
    """An InternLM2 language model."""

    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    eps: float = 1e-5
    rope_theta: float = 1e6
    positions: int = 32768
    """The longest sequence that the model was made for."""

    @classmethod
    def from_checkpoint(cls, shapes: Shapes, config: Mapping[str, Any], source: str) -> Self:
        """The sizes of an InternLM2 with those tensors and that config.json. Raises `ModelError`."""
        vocab, hidden = _shape(shapes, "model.tok_embeddings.weight", 2, source)
        settings = UntrustedDict(config, f"config.json of checkpoint {source}")
        _check_rope(settings, source)
        heads, kv_heads, positions = (
            settings.required_integer(_LANGUAGE_KEYS[name], most=MAX_COUNT)
            for name in ("heads", "kv_heads", "positions")
        )
        return cls(
            vocab,
            hidden,
            layers=_count(shapes, "model.layers"),
            heads=heads,
            kv_heads=kv_heads,
            mlp=_shape(shapes, "model.layers.0.feed_forward.w1.weight", 2, source)[0],
            eps=settings.number("rms_norm_eps", 1e-5, above=0),
            rope_theta=settings.number("rope_theta", 1e6, above=0),
            positions=positions,
        )

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.hidden // self.heads

    def linear(self, name: str) -> tuple[int, int]:
        """(out, in) of one of a layer's five linear maps.

        `wqkv` packs, for each key-value head, its query heads, a key and a value.
        """
        packed = (self.heads + 2 * self.kv_heads) * self.head_dim
        out = {"wqkv": packed, "w1": self.mlp, "w3": self.mlp}.get(name, self.hidden)
        return out, self.mlp if name == "w2" else self.hidden

    @property
    def largest_linear(self) -> int:
        """Numbers in a layer's largest linear map."""
        return max(math.prod(self.linear(name)) for name in LINEARS)


@dataclass(frozen=True, slots=True)
class Plora:
    """Partial LoRA of one linear map: y = W x + mask · (alpha / rank) · B A x (arXiv 2401.16420)."""

    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        """The factor of B A x: alpha / rank."""
        return self.alpha / self.rank


@dataclass(frozen=True, slots=True)
class Sizes:
    """A whole 4KHD model."""

    vision: VisionSizes
    language: LanguageSizes
    projector: int
    """Width between the projector's two linear maps."""
    plora: Mapping[str, Plora] = field(default_factory=dict[str, Plora])
    """Partial LoRA of each linear map in `LINEARS`."""

    @property
    def merged(self) -> int:
        """Width of an image token before the projector: four patches side by side."""
        return 4 * self.vision.hidden

    def to_json(self) -> dict[str, Any]:
        """The sizes as in config.json: InternLM2's own keys, and `vision`, `projector`, `plora`."""
        return {
            **{key: getattr(self.language, name) for name, key in _LANGUAGE_KEYS.items()},
            "projector": self.projector,
            "vision": asdict(self.vision),
            "plora": {name: asdict(plora) for name, plora in self.plora.items()},
        }

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        vision = cast("dict[str, Any]", config["vision"])
        colours: dict[str, Any] = {key: tuple(vision[key]) for key in ("mean", "std")}
        return cls(
            VisionSizes(**{**vision, **colours}),
            LanguageSizes(**{name: config[key] for name, key in _LANGUAGE_KEYS.items()}),
            config["projector"],
            {name: Plora(**part) for name, part in config["plora"].items()},
        )

    @classmethod
    def from_checkpoint(cls, shapes: Shapes, config: Mapping[str, Any], source: str) -> Self:
        """The sizes of a checkpoint with those tensors and that config.json; errors name it by `source`.

        Raises `ModelError` for a sibling model, which it names, and for sizes that are not stated.
        """
        refuse_sibling(shapes, source)
        settings = UntrustedDict(config, f"config.json of checkpoint {source}")
        stated = settings.part("vision")
        hidden, _, patch, _ = _shape(shapes, VISION + "embeddings.patch_embedding.weight", 4, source)
        positions = _shape(shapes, VISION + "embeddings.position_embedding.weight", 2, source)[0]
        class_token = VISION + "embeddings.class_embedding" in shapes
        tile = math.isqrt(max(0, positions - class_token)) * patch
        heads = stated.integer("heads", max(1, hidden // CLIP_HEAD_DIM))
        if hidden % heads or not 1 <= tile <= MAX_TILE:
            raise ModelError(
                f"vision encoder of checkpoint {source}",
                f"must take tiles of at most {MAX_TILE} pixels and have a width that is a multiple of its heads",
                value=f"{tile} pixels, width {hidden}, {heads} heads",
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
            image=tile,
            activation=cast("Activation", activation),
            eps=stated.number("eps", 1e-5, above=0),
            class_token=class_token,
            pre_norm=VISION + "pre_layrnorm.weight" in shapes,
            patch_bias=VISION + "embeddings.patch_embedding.bias" in shapes,
            mean=_rgb(stated, "mean", CLIP_MEAN),
            std=_rgb(stated, "std", CLIP_STD),
        )
        language = LanguageSizes.from_checkpoint(shapes, config, source)
        projector = _shape(shapes, "vision_proj.0.weight", 2, source)[0]
        return cls(vision, language, projector, _plora_from_checkpoint(shapes, settings, source))

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of every tensor of a checkpoint of this size, in the order of its modules."""
        language = self.language
        found: dict[str, tuple[int, ...]] = {SEPARATOR: (1, 1, self.merged), ROW_END: (1, 1, 1, self.merged)}
        found["model.tok_embeddings.weight"] = (language.vocab, language.hidden)
        for i in range(language.layers):
            for name in LINEARS:
                out, into = language.linear(name)
                key, rank = f"model.layers.{i}.{_block(name)}.{name}", self.plora[name].rank
                found[f"{key}.weight"] = (out, into)
                found[f"{key}.Plora_A.weight"] = (rank, into)
                found[f"{key}.Plora_B.weight"] = (out, rank)
            found[f"model.layers.{i}.attention_norm.weight"] = (language.hidden,)
            found[f"model.layers.{i}.ffn_norm.weight"] = (language.hidden,)
        found["model.norm.weight"] = (language.hidden,)
        found["output.weight"] = (language.vocab, language.hidden)
        found |= {VISION + name: shape for name, shape in self.vision.tensors().items()}
        found |= {"vision_proj.0.weight": (self.projector, self.merged), "vision_proj.0.bias": (self.projector,)}
        found |= {"vision_proj.2.weight": (language.hidden, self.projector), "vision_proj.2.bias": (language.hidden,)}
        return found

    @property
    def parameters(self) -> int:
        """How many parameters the model has."""
        return sum(math.prod(shape) for shape in self.tensors().values())

    def weight_bytes(self, prefix: str, itemsize: int) -> float:
        """Bytes of the tensors whose names begin with `prefix`; "" for all."""
        chosen = (math.prod(shape) for name, shape in self.tensors().items() if name.startswith(prefix))
        return float(sum(chosen) * itemsize)

    def quantized_bytes(self, itemsize: int, quantize: str) -> float:
        """Bytes of all weights with the language model's linear maps in "4bit" or "8bit"; "" for unquantized.

        All other weights keep `itemsize` bytes a number. 4 bits are NF4 with quantized scales (QLoRA, arXiv
        2305.14314), 8 bits have a float32 scale for each row (LLM.int8, arXiv 2208.07339).
        """
        if not quantize:
            return self.weight_bytes("", itemsize)
        total = 0.0
        for name, shape in self.tensors().items():
            count = math.prod(shape)
            if name.startswith("model.layers.") and name.split(".")[-2] in LINEARS:
                scales = count / _NF4_BLOCK * (1 + 4 / _NF4_SCALES)
                total += count / 2 + scales if quantize == "4bit" else count + 4 * shape[0]
            else:
                total += count * itemsize
        return total


def refuse_sibling(shapes: Shapes, source: str) -> None:
    """Raise `ModelError` where the tensors are those of another model, with its name if it is of the same family."""
    rank = shapes.get("model.layers.0.attention.wqkv.Plora_A.weight", (0,))[0]
    positions = shapes.get(VISION + "embeddings.position_embedding.weight", (0,))[0]
    separators = SEPARATOR in shapes and ROW_END in shapes
    sibling = ""
    if not separators and rank and (positions == 1226 or shapes.get("vision_proj.0.weight", (0, 0))[-1] == 1024):
        sibling = "InternLM-XComposer2-VL: no row ends, and a projector without merging"
    elif rank == 256 and positions == 1601:
        sibling = "InternLM-XComposer-2.5: tiles of 560 pixels"
    elif not separators or not rank:
        sibling = "another model: no row ends, or no Partial LoRA"
    if sibling:
        raise ModelError(
            f"checkpoint {source}",
            "must have the tensors of InternLM-XComposer2-4KHD",
            value=sibling,
            remedy="Name a 4KHD checkpoint, such as internlm/internlm-xcomposer2-4khd-7b at a commit, or use vlm",
        )


def _block(linear: str) -> str:
    """The module of a layer that has this linear map."""
    return "attention" if linear in {"wqkv", "wo"} else "feed_forward"


def _plora_from_checkpoint(shapes: Shapes, config: UntrustedDict, source: str) -> dict[str, Plora]:
    stated = config.part("plora")
    found: dict[str, Plora] = {}
    for name in LINEARS:
        rank = _shape(shapes, f"model.layers.0.{_block(name)}.{name}.Plora_A.weight", 2, source)[0]
        alpha = stated.part(name).number("alpha", RELEASED_ALPHAS.get(rank, 0.0))
        if not alpha or not rank:
            raise ModelError(
                f"config.json of checkpoint {source}",
                "must state the alpha of Partial LoRA, which is never guessed",
                value=f"{name} has rank {rank} and no alpha",
                remedy=f'Add "plora": {{"{name}": {{"rank": {rank}, "alpha": …}}}} to config.json',
            )
        found[name] = Plora(rank, alpha)
    return found


def _check_rope(config: UntrustedDict, source: str) -> None:
    """Raise `ModelError` for scaled positions. Dynamic scaling changes nothing up to the model's own length."""
    scaling = config.part("rope_scaling")
    kind = scaling.text("type", scaling.text("rope_type", "dynamic"))
    if kind not in {"dynamic", "default"}:
        raise ModelError(
            f"rope_scaling of checkpoint {source}",
            "must be absent, default or dynamic",
            value=kind,
            remedy="Name another checkpoint",
        )


def _shape(shapes: Shapes, name: str, dimensions: int, source: str) -> tuple[int, ...]:
    found = shapes.get(name, ())
    if len(found) != dimensions:
        raise ModelError(
            f"checkpoint {source}",
            f"must have the tensor {name} with {dimensions} dimensions",
            value=str(found) if found else "no such tensor",
            remedy="Check that the checkpoint's files are complete",
        )
    return found


def _count(shapes: Shapes, prefix: str) -> int:
    """How many numbered modules there are under a prefix."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d{1,9})\.")
    found = 1 + max((int(match[1]) for match in map(pattern.match, shapes) if match), default=-1)
    return min(found, len(shapes) + 1)  # with more layers than tensors, some are missing in any case


def _rgb(stated: UntrustedDict, key: str, default: RGB) -> RGB:
    """Three numbers of red, green and blue; those of `std` above 0."""
    found = stated.list(key) or list(default)
    numbers = [float(value) for value in found if isinstance(value, (int, float)) and (key == "mean" or value > 0)]
    if not len(numbers) == len(found) == len(default):
        raise stated.wrong(key, "three numbers" + (" above 0" if key == "std" else ""))
    return numbers[0], numbers[1], numbers[2]


# Sizes of a new model, as text

_VISION_NAMES = ("hidden", "layers", "heads", "mlp", "patch", "tile")
_LANGUAGE_NAMES = ("hidden", "layers", "heads", "mlp")
_OPTIONAL = {"kv_heads": 0, "theta": 1_000_000, "positions": 32768}
_SIGLIP = "siglip,"
_COLOURS = {"mean": 0.0, "std": 0.01}  # smallest values


def new_vision_sizes(text: str) -> VisionSizes:
    """A vision encoder from text such as "new:hidden=128,layers=4,heads=4,mlp=512,patch=8,tile=64".

    It is of CLIP's kind; "new:siglip,hidden=…" is of SigLIP's, without the norm before the layers, which would hide the
    brightness of a patch from a small encoder. Optional `mean` and `std` of pixel values from 0 to 1, for all colours,
    stand in for CLIP's. Raises `RequestError`.
    """
    siglip = text.removeprefix(NEW).startswith(_SIGLIP)
    text, colours = _new_colours(text.removeprefix(NEW).removeprefix(_SIGLIP))
    asked = _new_sizes("--vision", text, _VISION_NAMES, {})
    sizes = VisionSizes(asked["hidden"], asked["layers"], asked["heads"], asked["mlp"], asked["patch"], asked["tile"])
    sizes = replace(sizes, **colours)
    if siglip:
        sizes = replace(sizes, class_token=False, pre_norm=False, patch_bias=True, activation="gelu_tanh", eps=1e-6)
    check_heads("--vision", sizes.hidden, sizes.heads)
    check_tile(sizes.image, sizes.patch)
    return sizes


def new_language_sizes(text: str, vocab: int) -> LanguageSizes:
    """An InternLM2 for `vocab` tokens from text such as "new:hidden=128,layers=4,heads=4,mlp=512".

    `kv_heads`, `theta` and `positions` are optional. Raises `RequestError`.
    """
    asked = _new_sizes("--language", text, _LANGUAGE_NAMES, _OPTIONAL)
    hidden, heads = asked["hidden"], asked["heads"]
    kv_heads = asked["kv_heads"] or heads
    check_heads("--language", hidden, heads)
    if heads % kv_heads or (hidden // heads) % 2:
        raise RequestError(
            "--language",
            "must have heads that are a multiple of kv_heads, and heads of an even width, which positions rotate",
            value=f"{heads} heads, {kv_heads} kv_heads, {hidden // heads} wide",
            remedy="Correct the sizes",
        )
    theta, positions = float(asked["theta"]), asked["positions"]
    return LanguageSizes(
        vocab, hidden, asked["layers"], heads, kv_heads, asked["mlp"], rope_theta=theta, positions=positions
    )


def new_plora(language: LanguageSizes) -> dict[str, Plora]:
    """Partial LoRA as in the released model, with a rank of at most a quarter of the language model's width."""
    most = max(1, language.hidden // 4)
    released = {name: (8, 2.0) if name == "wqkv" else (256, 1.0) for name in LINEARS}  # rank, and alpha / rank
    return {name: Plora(min(rank, most), min(rank, most) * scale) for name, (rank, scale) in released.items()}


def check_tile(tile: int, patch: int) -> None:
    """Raise `RequestError` where a tile's side is not an even number of patches, which are merged two by two."""
    if tile % (2 * patch) or tile < 1:
        below = max(1, tile // (2 * patch)) * 2 * patch
        rule = f"must be a multiple of two patches of {patch} pixels, since patches are merged two by two"
        remedy = f"Give --tile {below} or {below + 2 * patch}"
        raise RequestError("tile", rule, value=f"{tile} pixels", remedy=remedy)


def check_heads(subject: str, hidden: int, heads: int) -> None:
    """Raise `RequestError` where a width is no multiple of its heads."""
    if hidden % heads:
        rule = "must have a hidden width that is a multiple of heads"
        raise RequestError(subject, rule, value=f"{hidden} and {heads}", remedy="Correct the sizes")


def _new_colours(text: str) -> tuple[str, dict[str, RGB]]:
    """(the sizes without `mean` and `std`, and these for three colours)."""
    rest: list[str] = []
    found: dict[str, RGB] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in _COLOURS:
            rest.append(part)
            continue
        number = float(value) if re.fullmatch(r"\d*\.?\d+", value) else -1.0
        if not _COLOURS[name] <= number <= 1 or name in found:
            raise RequestError(
                "--vision",
                "must state mean and std at most once each, from 0 to 1, and std at least 0.01",
                value=part,
                remedy="Write, for example, mean=0.45,std=0.27",
            )
        found[name] = (number, number, number)
    return ",".join(rest), found


def _new_sizes(subject: str, text: str, needed: tuple[str, ...], optional: Mapping[str, int]) -> dict[str, int]:
    known = (*needed, *optional)
    found: dict[str, int] = {}
    for part in text.removeprefix(NEW).split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in known or name in found or not value.isdecimal() or int(value) < 1:
            raise RequestError(
                subject,
                f"must be whole numbers from 1, each named once: {NEW}{','.join(f'{word}=…' for word in needed)}",
                value=part,
                remedy=f"Use only {', '.join(known)}",
            )
        found[name] = int(value)
    absent = [name for name in needed if name not in found]
    if absent:
        raise RequestError(subject, f"must state {' and '.join(absent)}", value=text, remedy="Add what is missing")
    return {**optional, **found}
