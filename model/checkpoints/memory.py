"""How much memory weights take, read off their files' headers. Reads no weights, imports no torch."""

# safetensors has no types for its handles:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
import zipfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

import torch

from ...readers.errors import ModelError
from .files import CheckpointFiles

FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
WHOLE = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""safetensors' number types → bytes of a number."""

_HALF = (b"HalfStorage", b"BFloat16Storage")  # in the pickle of a file that holds numbers of 16 bits
_MOST = 2**26  # bytes of such a pickle: it lists tensors, it does not hold them


def weight_bytes(files: CheckpointFiles, *, itemsize: int = 0) -> float:
    """Bytes that a checkpoint's weights take once loaded, with floating-point numbers of `itemsize` bytes.

    0 leaves numbers as the files have them. Raises `ModelError` where a file is absent or damaged.
    """
    paths = [files.folder / name for name in files.weights() if not name.endswith(".json")]
    return sum(_bytes(path, files.source, itemsize) for path in paths)


def file_bytes(paths: Iterable[Path]) -> float:
    """Bytes of files that are networks whole, programs among them. Raises `ModelError` where one cannot be read."""
    total = 0.0
    for path in paths:
        try:
            total += path.stat().st_size
        except OSError as error:
            raise ModelError(
                f"network {path}", "its file must be readable", value=str(error), remedy="Check the path"
            ) from error
    return total


def _bytes(path: Path, source: str, itemsize: int) -> float:
    try:
        return _safe(path, itemsize) if path.suffix == ".safetensors" else _pickled(path, itemsize)
    except Exception as error:  # safetensors and zipfile raise their own
        raise ModelError(
            f"checkpoint {source}",
            f"its file {path.name} must have a whole header",
            value=(str(error).splitlines() or [type(error).__name__])[0][:200],
            remedy="Copy or fetch the file again",
        ) from error


def _safe(path: Path, itemsize: int) -> float:
    from safetensors import safe_open

    total = 0.0
    with safe_open(path, framework="numpy") as held:
        for name in held.keys():  # noqa: SIM118 - not a mapping
            part = held.get_slice(name)
            kind = part.get_dtype()
            each = (itemsize or FLOATS[kind]) if kind in FLOATS else WHOLE.get(kind, 1)
            total += math.prod(part.get_shape()) * each
    return total


def _pickled(path: Path, itemsize: int) -> float:
    """Of torch's archives the storages, whose number type the pickle beside them names; of older files all of it."""
    if not zipfile.is_zipfile(path):
        return path.stat().st_size * max(1.0, itemsize / FLOATS["F32"])
    with zipfile.ZipFile(path) as archive:
        stored = sum(one.file_size for one in archive.infolist() if "/data/" in one.filename)
        lists = [one for one in archive.infolist() if one.filename.endswith("/data.pkl") and one.file_size <= _MOST]
        half = any(mark in archive.read(one) for one in lists for mark in _HALF)
    return stored * (itemsize / (FLOATS["F16"] if half else FLOATS["F32"]) if itemsize else 1.0)


SIGNS = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory", "Cannot allocate memory")
"""In what a processor's allocator says."""


@contextmanager
def memory_errors() -> Generator[None]:
    """Says of torch's own ways to run out of memory that memory has run out, by `MemoryError`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()  # fewer regions at once, or the next one, may fit
        raise MemoryError(str(error)) from error
    except RuntimeError as error:
        if any(sign in str(error) for sign in SIGNS):
            raise MemoryError(str(error)) from error
        raise


def free_gpu_memory(device: str) -> float:
    """Bytes that are free on a GPU by torch's name for it, or on all of them together where that is "split"."""
    several = range(torch.cuda.device_count()) if device == "split" else [torch.device(device)]
    return float(sum(torch.cuda.mem_get_info(one)[0] for one in several))
