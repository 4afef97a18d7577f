"""The files of a 4KHD checkpoint: where they are, what they hold, their tensors file by file, and writing them anew.

Safetensors are preferred; a pickled `.bin` is only ever read by torch with weights only, mapped into memory.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError

from ....readers.errors import ModelError, RequestError, excerpt
from ....readers.files import atomic_path, write_atomic
from ...checkpoints.cards import CardPart, Text
from ...checkpoints.files import INDEX, SAFETENSORS, CheckpointFiles, fetch_weights, find_files
from ...checkpoints.tensors import read_shapes, read_tensors
from ...checkpoints.untrusted import UntrustedDict
from ...checkpoints.untrusted_yaml import read_yaml
from ...domain import Domain
from .model_config import Shapes, Sizes
from .tokenizer import TOKENIZER

if TYPE_CHECKING:
    import torch

CONFIG, GENERATION, CARD = "config.json", "generation_config.json", "card.yaml"
DTYPES = ("float32", "bfloat16", "float16")

SHIPPED = ("small",)
"""Checkpoints that come with limner; a folder of the same name is ./small."""

UNUSED = re.compile(r".*\.(?:post_layernorm\.(?:weight|bias)|position_ids|inv_freq|rotary_emb\..*)")
"""Names of tensors in some copies of the checkpoint that the network does not use."""


class CardSource(CardPart):
    """Data that the checkpoint was trained on, and which part of it."""

    name: Text
    licence: Text
    citation: Text
    used: Text


class CardFigure(CardPart):
    """A measured figure with its 95 % interval and the number of examples."""

    what: Text
    value: float
    low: float
    high: float
    count: Annotated[int, Field(gt=0)]


class CheckpointCard(CardPart):
    """A checkpoint's card: what it is, where it comes from, and what it must not be used for."""

    name: Text
    summary: Text
    licence: Text
    use: Text
    """The sentence that every report of the model repeats."""
    not_for: Annotated[tuple[Text, ...], Field(min_length=1)]
    known_mistakes: tuple[Text, ...] = ()
    asked: Text
    domain: tuple[Domain, ...] = ()
    """The images that it was trained on; empty where that is not known."""
    data: tuple[CardSource, ...] = ()
    measured: tuple[CardFigure, ...] = ()


@dataclass(frozen=True, slots=True)
class FourKhdFiles:
    """A 4KHD checkpoint on this machine."""

    held: CheckpointFiles
    config: UntrustedDict
    """The content of config.json."""
    names: tuple[str, ...]
    """The weight files in order, without an index."""

    @classmethod
    def find(cls, source: str, *, fetch: bool = False) -> "FourKhdFiles":
        """The files of a folder, of a hub id `OWNER/NAME@COMMIT` (40 hexadecimal digits), or of a name in `SHIPPED`.

        Only `fetch` allows the network, for safetensors before pickles. Raises `ModelError` where a file is absent.
        """
        small = (CONFIG, GENERATION, TOKENIZER)
        if source in SHIPPED:
            held = CheckpointFiles(source, Path(__file__).parent / source, small)
        else:
            held = find_files(source, fetch=fetch, small=small)
        config = held.read(CONFIG)
        fetch_weights(held, fetch=fetch and source not in SHIPPED)
        return cls(held, config, tuple(name for name in held.weights() if not name.endswith(".json")))

    @property
    def source(self) -> str:
        """The folder, hub id or name that it was found by."""
        return self.held.source

    @property
    def folder(self) -> Path:
        """The folder with its files."""
        return self.held.folder

    @property
    def tokenizer(self) -> Path:
        """The path where its tokenizer should be."""
        return self.folder / TOKENIZER

    @property
    def card(self) -> CheckpointCard | None:
        """Its card, None where it has none. Raises `ModelError` for one that is wrong."""
        path = self.folder / CARD
        return read_card(path, self.source) if path.is_file() else None

    def shapes(self) -> Shapes:
        """Name → shape of every tensor, without reading one. Raises `ModelError` where a file is damaged."""
        found: dict[str, tuple[int, ...]] = {}
        for name in self.names:
            found |= read_shapes(self.folder / name, f"checkpoint {self.source}")
        return found

    def tensors(self) -> Iterator[dict[str, Any]]:
        """The tensors of each file by name, on the CPU and still memory-mapped. Raises `ModelError`."""
        for name in self.names:
            yield read_tensors(self.folder / name, f"checkpoint {self.source}")

    def sizes(self) -> Sizes:
        """The sizes of the model, verified against its tensors (see `check_tensors`). Raises `ModelError`."""
        return self.checked()[0]

    def checked(self) -> tuple[Sizes, list[str]]:
        """(sizes of the model, names of unused tensors), as `check_tensors`. Raises `ModelError`."""
        shapes = self.shapes()
        sizes = Sizes.from_checkpoint(shapes, self.config, self.source)
        return sizes, check_tensors(shapes, sizes, self.source)


def read_card(path: Path, source: str) -> CheckpointCard:
    """Read a card. Raises `ModelError`: not YAML, unknown or missing keys, values that break a rule."""
    try:
        return CheckpointCard.model_validate(read_yaml(path, f"checkpoint {source}"))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ModelError(
            f"{CARD} of checkpoint {source}",
            "must be a card",
            value=excerpt(f"{'.'.join(map(str, first['loc']))}: {first['msg']}"),
            remedy="Correct the card, or remove it",
        ) from error


def check_tensors(shapes: Shapes, sizes: Sizes, source: str) -> list[str]:
    """Names of tolerated tensors that the network does not use, sorted.

    Raises `ModelError` with the first tensors that are missing, unknown, or of another shape.
    """
    expected = sizes.tensors()
    missing = [name for name in expected if name not in shapes]
    unused = sorted(name for name in shapes if name not in expected)
    unknown = [name for name in unused if not UNUSED.fullmatch(name)]
    for names, what in ((missing, "missing"), (unknown, "unknown")):
        if names:
            raise ModelError(
                f"checkpoint {source}",
                "must have all tensors of a 4KHD model and no others: missing ones would be random",
                value=f"{len(names)} {what}: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}",
                remedy="Check that all of the checkpoint's files are here and belong together",
            )
    for name, shape in expected.items():
        if tuple(shapes[name]) != shape:
            raise ModelError(
                f"tensor {name} of checkpoint {source}",
                f"must have the shape {shape}",
                value=str(tuple(shapes[name])),
                remedy="Check that config.json and the weights belong together",
            )
    return unused


def convert(
    files: FourKhdFiles,
    out: Path,
    *,
    dtype: str = "",
    replaced: Mapping[str, "torch.Tensor"] | None = None,
    stated: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write a checkpoint as safetensors, file by file, with its tokenizer and a config.json that states all sizes.

    `dtype` is the type of number, "" to keep it. `replaced` tensors stand in for those of their names; `stated` joins
    config.json. Returns the files. Raises `ModelError` for an incomplete checkpoint, `RequestError` where `out` is not
    empty.
    """
    check_output(out, dtype)
    sizes, unused = files.checked()
    if not files.tokenizer.is_file():
        raise ModelError(f"checkpoint {files.source}", f"must have its {TOKENIZER}", remedy="Copy it into the folder")
    new = {key: tensor.detach() for key, tensor in (replaced or {}).items()}
    shards = (
        {
            key: tensor if key not in new else new[key] if dtype else new[key].to(tensor.dtype)
            for key, tensor in tensors.items()
            if key not in unused
        }
        for tensors in files.tensors()
    )
    config = {**files.config, **sizes.to_json()} | ({"torch_dtype": dtype} if dtype else {}) | dict(stated or {})
    config.pop("auto_map", None)  # code is not copied
    return write_checkpoint(out, shards, len(files.names), config, files.tokenizer, dtype=dtype)


def check_output(out: Path, dtype: str) -> None:
    """Raise `RequestError` for an unknown type of number, or a folder that is not empty."""
    if dtype and dtype not in DTYPES:
        raise RequestError("--dtype", f"must be one of {', '.join(DTYPES)}", value=dtype, remedy="Correct it")
    if out.exists() and any(out.iterdir()):
        raise RequestError(str(out), "must be an empty or new folder", remedy="Name another folder")


def write_checkpoint(
    out: Path,
    shards: Iterable[Mapping[str, "torch.Tensor"]],
    count: int,
    config: Mapping[str, Any],
    tokenizer: Path,
    *,
    dtype: str = "",
) -> list[Path]:
    """Write `count` shards of tensors as safetensors, then config.json, the tokenizer and any index. Returns the files.

    `dtype` is the type of number, "" to keep it.
    """
    import torch
    from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType] - its type of a path

    out.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    shard_of: dict[str, str] = {}
    for number, tensors in enumerate(shards, start=1):
        name = SAFETENSORS if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"
        kept = {
            key: tensor.to("cpu", getattr(torch, dtype) if dtype else tensor.dtype).contiguous()
            for key, tensor in tensors.items()
        }
        files.append(out / name)
        with atomic_path(files[-1]) as part:
            save_file(kept, part, metadata={"format": "pt"})
        shard_of |= dict.fromkeys(kept, name)
    total = sum(path.stat().st_size for path in files)
    write_json(out / CONFIG, config)
    write_atomic(out / TOKENIZER, tokenizer.read_bytes())
    files += [out / CONFIG, out / TOKENIZER]
    if count > 1:
        write_json(out / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(shard_of.items()))})
        files.append(out / INDEX)
    return files


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with sorted keys, atomically."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    write_atomic(path, f"{text}\n".encode())
