"""A new 4KHD model, assembled: a vision tower, a language model, and between them what alignment has yet to teach.

The width of a visual token before the projector is four times the tower's, and so is that of the separators. Partial
LoRA begins as nothing: the new model says of text what its language model said. Source: arXiv 2404.06512.
"""

# safetensors' types do not say what its functions take:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ....readers.errors import ModelError, RequestError
from ....readers.files import atomic_path, write_atomic
from ...checkpoints.files import INDEX, SAFETENSORS
from .convert import write_json
from .files import CONFIG, EXTRA, Files
from .model_config import NEW, language_sizes, ploras
from .runtime import DTYPES
from .sizes import VISION, LanguageSizes, Sizes, VisionSizes
from .tokenizer import FILE, Tokenizer
from .vision_encoder import Tensors, Tower, draws, find_tower


@dataclass(frozen=True, slots=True)
class Built:
    """What was written, the model's sizes, and reasons to expect a poor alignment, as sentences."""

    paths: tuple[Path, ...]
    sizes: Sizes
    concerns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Words:
    """A language model to build on: its sizes, its tokenizer's file, and its files, None for a new one."""

    sizes: LanguageSizes
    tokenizer: Path
    files: Files | None


def build(
    vision: str,
    language: str,
    out: Path,
    *,
    tokenizer: str = "",
    tile: int = 0,
    seed: int = 0,
    dtype: str = "float32",
) -> Built:
    """Assemble a model and write it as `load` reads it: config.json, safetensors, tokenizer.model.

    `vision` is `tower.find_tower`'s. `language` is the folder of an InternLM2 or of another 4KHD, whose language model
    is taken and not its Partial LoRA, or "new:…" (see `blueprint`) with the path of a `tokenizer`. The same parts and
    seed give the same bytes. Raises `ModelError`, `RequestError`, also where `out` holds something.
    """
    if dtype not in DTYPES:
        raise RequestError("--dtype", f"it is one of {', '.join(DTYPES)}", value=dtype, remedy="Correct it")
    if out.exists() and any(out.iterdir()):
        raise RequestError(str(out), "it must be an empty folder, or none yet", remedy="Name another folder")
    tower = find_tower(vision, tile=tile, seed=seed)
    words = _find_words(language, tokenizer)
    sizes = Sizes(tower.sizes, words.sizes, projector=words.sizes.hidden, plora=ploras(words.sizes))
    out.mkdir(parents=True, exist_ok=True)
    count = 1 + (len(words.files.names) if words.files else 0)
    where: dict[str, str] = {}
    made: list[Path] = []
    for number, tensors in enumerate(_tensors(tower, words, sizes, seed), start=1):
        name = SAFETENSORS if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"
        kept = {key: tensor.to(DTYPES[dtype]).contiguous() for key, tensor in tensors.items()}
        made.append(out / name)
        with atomic_path(made[-1]) as part:
            save_file(kept, part, metadata={"format": "pt"})
        where |= dict.fromkeys(kept, name)
    write_json(out / CONFIG, _config(sizes, dtype))
    write_atomic(out / FILE, words.tokenizer.read_bytes())
    made += [out / CONFIG, out / FILE]
    if count > 1:
        total = sum((out / name).stat().st_size for name in set(where.values()))
        write_json(out / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))})
        made.append(out / INDEX)
    return Built(tuple(made), sizes, tower.concerns)


def _tensors(tower: Tower, words: _Words, sizes: Sizes, seed: int) -> Iterator[Tensors]:
    """All tensors of the new model: the language model's, a file at a time, then whatever those do not hold."""
    expected = sizes.tensors()
    rest = dict(expected)
    embeddings: Tensors = {}
    for _, tensors in words.files.tensors() if words.files else ():
        kept = {name: tensor for name, tensor in tensors.items() if name in rest and _of_words(name)}
        embeddings |= {name: tensor for name, tensor in kept.items() if name == "model.tok_embeddings.weight"}
        for name in kept:
            rest.pop(name)
        yield kept
    draw = draws(seed)
    last: Tensors = {}
    for name, shape in rest.items():
        if name.startswith(VISION):
            last[name] = tower.tensors[name.removeprefix(VISION)]
        elif name == "output.weight" and embeddings:  # tied in its file
            last[name] = embeddings["model.tok_embeddings.weight"].clone()
        else:
            last[name] = draw(name, shape)
    yield last


def _find_words(language: str, tokenizer: str) -> _Words:
    if language.startswith(NEW):
        if not tokenizer:
            raise RequestError(
                "--tokenizer",
                "a new language model needs one",
                remedy="Name a tokenizer.model, or make one: limner models tokenizer TEXT --out tokenizer.model",
            )
        path = Path(tokenizer)
        return _Words(language_sizes(language, Tokenizer(path, tokenizer).size), path, None)
    files = Files.find(language)
    shapes = files.shapes()
    sizes = LanguageSizes.of(shapes, files.config, language)
    path = Path(tokenizer) if tokenizer else files.tokenizer
    known = Tokenizer(path, language).size
    if known > sizes.vocab:
        raise ModelError(
            f"checkpoint {language}",
            f"the tokenizer must know no more than the language model's {sizes.vocab} tokens",
            value=str(known),
            remedy="Name the tokenizer that belongs to it",
        )
    tied = bool(files.config.get("tie_word_embeddings", False)) and "output.weight" not in shapes
    expected = _language_tensors(sizes)
    if tied:
        expected.pop("output.weight")
    wrong = [f"no {name}" for name, shape in expected.items() if tuple(shapes.get(name, ())) != shape]
    wrong += [
        f"{name}, which is unknown"
        for name in shapes
        if _of_words(name) and name not in expected and not EXTRA.fullmatch(name)
    ]
    if wrong:
        raise ModelError(
            f"checkpoint {language}",
            "its language model must be an InternLM2 as config.json states it, without biases",
            value=wrong[0],
            remedy="Check that the files belong together, or name another checkpoint",
        )
    return _Words(sizes, path, files)


def _language_tensors(sizes: LanguageSizes) -> dict[str, tuple[int, ...]]:
    """Name → shape of a language model's own tensors."""
    none = VisionSizes(hidden=1, layers=1, heads=1, mlp=1, patch=1, image=2)
    whole = Sizes(none, sizes, projector=1, plora=ploras(sizes))
    return {name: shape for name, shape in whole.tensors().items() if _of_words(name)}


def _of_words(name: str) -> bool:
    """Whether a tensor is the language model's own."""
    return name.startswith(("model.", "output.")) and "Plora_" not in name


def _config(sizes: Sizes, dtype: str) -> dict[str, Any]:
    """A config.json that says all sizes, as the released model's does what it does not say otherwise."""
    marks = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    kind = {"architectures": ["InternLM2ForCausalLM"], "model_type": "internlmxcomposer2", "hidden_act": "silu"}
    return {**kind, **marks, "bias": False, "tie_word_embeddings": False, "torch_dtype": dtype, **sizes.to_json()}
