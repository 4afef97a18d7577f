"""Assemble a new 4KHD model from a vision encoder and a language model; what joins them is to be trained.

Image tokens before the projector, and the separators, are four times as wide as the encoder. Partial LoRA starts at
zero: on text the new model equals its language model. Source: arXiv 2404.06512.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ....readers.errors import ModelError, RequestError
from .checkpoint import UNUSED, FourKhdFiles, check_output, write_checkpoint
from .model_config import NEW, VISION, LanguageSizes, Sizes, VisionSizes, new_language_sizes, new_plora
from .tokenizer import Tokenizer
from .vision_encoder import Tensors, VisionEncoder, initial_tensor, make_vision_encoder

_EMBEDDINGS, _OUTPUT = "model.tok_embeddings.weight", "output.weight"


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A model that was written."""

    paths: tuple[Path, ...]
    sizes: Sizes
    concerns: tuple[str, ...]
    """Reasons to expect a poor alignment, as sentences."""


@dataclass(frozen=True, slots=True)
class _LanguageSource:
    """A language model to build on."""

    sizes: LanguageSizes
    tokenizer: Path
    files: FourKhdFiles | None
    """None for a new one."""


def build(
    vision: str,
    language: str,
    out: Path,
    *,
    tokenizer: str = "",
    tile: int = 0,
    seed: int = 0,
    dtype: str = "float32",
) -> BuiltModel:
    """Assemble a model and write it as `load_network` reads it: config.json, safetensors, tokenizer.model.

    `vision` is the source of `make_vision_encoder`. `language` is the folder of an InternLM2, or of a 4KHD whose
    language model is taken without its Partial LoRA, or "new:…" (see `new_language_sizes`) with the path of a
    `tokenizer`. The same parts and seed give the same bytes. Raises `ModelError`, `RequestError`, also where `out` is
    not empty.
    """
    check_output(out, dtype)
    encoder = make_vision_encoder(vision, tile=tile, seed=seed)
    base = _find_language(language, tokenizer)
    sizes = Sizes(encoder.sizes, base.sizes, projector=base.sizes.hidden, plora=new_plora(base.sizes))
    count = 1 + (len(base.files.names) if base.files else 0)
    config = {
        "architectures": ["InternLM2ForCausalLM"],
        "model_type": "internlmxcomposer2",
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "bias": False,
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
        **sizes.to_json(),
    }
    shards = _shards(encoder, base, sizes, seed)
    paths = write_checkpoint(out, shards, count, config, base.tokenizer, dtype=dtype)
    return BuiltModel(tuple(paths), sizes, encoder.concerns)


def _shards(encoder: VisionEncoder, base: _LanguageSource, sizes: Sizes, seed: int) -> Iterator[Tensors]:
    """All tensors of the new model: the language model's, file by file, then the others."""
    rest = dict(sizes.tensors())
    embeddings: Tensors = {}
    for tensors in base.files.tensors() if base.files else ():
        kept = {name: tensor for name, tensor in tensors.items() if name in rest and _of_language(name)}
        embeddings |= {name: tensor for name, tensor in kept.items() if name == _EMBEDDINGS}
        for name in kept:
            rest.pop(name)
        yield kept
    last: Tensors = {}
    for name, shape in rest.items():
        if name.startswith(VISION):
            last[name] = encoder.tensors[name.removeprefix(VISION)]
        elif name == _OUTPUT and embeddings:  # tied in its file
            last[name] = embeddings[_EMBEDDINGS].clone()
        else:
            last[name] = initial_tensor(seed, name, shape)
    yield last


def _find_language(language: str, tokenizer: str) -> _LanguageSource:
    if language.startswith(NEW):
        if not tokenizer:
            raise RequestError(
                "--tokenizer",
                "must be given for a new language model",
                remedy="Name a tokenizer.model, or make one: limner models tokenizer TEXT --out tokenizer.model",
            )
        path = Path(tokenizer)
        return _LanguageSource(new_language_sizes(language, Tokenizer(path, tokenizer).size), path, None)
    files = FourKhdFiles.find(language)
    shapes = files.shapes()
    sizes = LanguageSizes.from_checkpoint(shapes, files.config, language)
    path = Path(tokenizer) if tokenizer else files.tokenizer
    Tokenizer(path, language).check_vocabulary(sizes.vocab)
    expected = _language_tensors(sizes)
    if files.config.get("tie_word_embeddings", False) and _OUTPUT not in shapes:
        expected.pop(_OUTPUT)
    wrong = [f"no {name}" for name, shape in expected.items() if tuple(shapes.get(name, ())) != shape]
    others = [name for name in shapes if _of_language(name) and name not in expected]
    wrong += [f"unknown {name}" for name in others if not UNUSED.fullmatch(name)]
    if wrong:
        raise ModelError(
            f"language model of checkpoint {language}",
            "must be an InternLM2 without biases, as config.json states it",
            value=wrong[0],
            remedy="Check that the files belong together, or name another checkpoint",
        )
    return _LanguageSource(sizes, path, files)


def _language_tensors(sizes: LanguageSizes) -> dict[str, tuple[int, ...]]:
    """Name → shape of a language model's own tensors."""
    vision = VisionSizes(hidden=1, layers=1, heads=1, mlp=1, patch=1, image=2)
    whole = Sizes(vision, sizes, projector=1, plora=new_plora(sizes))
    return {name: shape for name, shape in whole.tensors().items() if _of_language(name)}


def _of_language(name: str) -> bool:
    """Whether a tensor is the language model's own."""
    return name.startswith(("model.", "output.")) and "Plora_" not in name
