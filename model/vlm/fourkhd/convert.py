"""A checkpoint written anew: safetensors, its tokenizer, and a config.json that says all sizes. Once, file by file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType] - its paths

from ....readers.errors import ModelError, RequestError
from ....readers.files import atomic_path, write_atomic
from ...checkpoints.files import INDEX, SAFETENSORS
from .files import CONFIG, Files, compare
from .runtime import DTYPES
from .sizes import Sizes
from .tokenizer import FILE


def convert(
    files: Files,
    out: Path,
    *,
    dtype: str = "",
    instead: Mapping[str, torch.Tensor] | None = None,
    stated: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write a checkpoint as safetensors, file by file, with its tokenizer and a config.json that says all sizes.

    `dtype` changes the numbers' type; "" keeps it. Tensors in `instead` take the place of those of their names, and
    what is `stated` joins config.json. The index, or the only file, is written last: it being there means
    that all is. Nothing is overwritten. Raises `ModelError` where the checkpoint is not whole, `RequestError` where
    `out` holds something.
    """
    if dtype and dtype not in DTYPES:
        raise RequestError("--dtype", f"it is one of {', '.join(DTYPES)}", value=dtype, remedy="Correct it")
    if out.exists() and any(out.iterdir()):
        raise RequestError(str(out), "it must be an empty folder, or none yet", remedy="Name another folder")
    shapes = files.shapes()
    sizes = Sizes.of(shapes, files.config, files.source)
    extra = set(compare(shapes, sizes, files.source))
    if not files.tokenizer.is_file():
        raise ModelError(f"checkpoint {files.source}", f"it must have its {FILE}", remedy="Copy it into the folder")
    out.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    where: dict[str, str] = {}
    whole = len(files.names) == 1
    replaced: Mapping[str, torch.Tensor] = instead or {}
    for number, (_, tensors) in enumerate(files.tensors(), start=1):
        name = SAFETENSORS if whole else f"model-{number:05d}-of-{len(files.names):05d}.safetensors"
        kept = {key: _cast(tensor, replaced.get(key), dtype) for key, tensor in tensors.items() if key not in extra}
        made.append(out / name)
        with atomic_path(made[-1]) as part:
            save_file(kept, part, metadata={"format": "pt"})
        where |= dict.fromkeys(kept, name)
    config = {**files.config, **sizes.to_json()} | ({"torch_dtype": dtype} if dtype else {}) | dict(stated or {})
    config.pop("auto_map", None)  # no code comes along
    write_json(out / CONFIG, config)
    write_atomic(out / FILE, files.tokenizer.read_bytes())
    made += [out / CONFIG, out / FILE]
    if not whole:
        total = sum((out / name).stat().st_size for name in set(where.values()))
        write_json(out / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))})
        made.append(out / INDEX)
    return made


def _cast(tensor: torch.Tensor, instead: torch.Tensor | None, dtype: str) -> torch.Tensor:
    """The tensor, or what takes its place, in numbers of that type, or of the tensor's own for ""."""
    kept = tensor if instead is None else instead.detach()
    return kept.to("cpu", DTYPES[dtype] if dtype else tensor.dtype).contiguous()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with sorted keys, whole or not at all."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    write_atomic(path, f"{text}\n".encode())
