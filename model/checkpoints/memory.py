"""Memory: the bytes that weights take, read from their files' headers, and the errors of running out. Loads nothing."""

# torch's and safetensors' types do not cover what is used here:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
import zipfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ...readers.files import parse_fields
from .untrusted import wrap_errors

if TYPE_CHECKING:
    from .files import CheckpointFiles

FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
INTEGERS = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Number types of safetensors → bytes of a number."""

_HALF = (b"HalfStorage", b"BFloat16Storage")  # in the pickle of a file with numbers of 16 bits
_MAX_PICKLE = 2**26  # bytes of such a pickle, which lists tensors and does not hold them
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory", "Cannot allocate memory")


@contextmanager
def memory_errors() -> Generator[None]:
    """Turn torch's own errors about memory into `MemoryError`."""
    try:
        yield
    except RuntimeError as error:
        import torch

        if isinstance(error, torch.OutOfMemoryError):
            torch.cuda.empty_cache()  # fewer regions at once, or the next one, may fit
        elif not any(text in str(error) for text in _OUT_OF_MEMORY):
            raise
        raise MemoryError(str(error)) from error


def free_gpu_memory(device: str) -> float:
    """Free bytes of a GPU by torch's name for it, or of all of them together for "split"."""
    import torch

    devices = range(torch.cuda.device_count()) if device == "split" else [torch.device(device)]
    return float(sum(torch.cuda.mem_get_info(one)[0] for one in devices))


def weight_bytes(files: "CheckpointFiles", *, itemsize: int = 0) -> float:
    """Bytes of a checkpoint's weights once loaded, with floating-point numbers of `itemsize` bytes.

    0 leaves numbers as the files have them. Raises `ModelError` where a file is absent or damaged.
    """
    total = 0.0
    for path in (files.folder / name for name in files.weights() if not name.endswith(".json")):
        rule, remedy = f"must have a whole header in {path.name}", "Copy or fetch the file again"
        with wrap_errors(f"checkpoint {files.source}", rule, remedy=remedy):
            read = _safetensors_bytes if path.suffix == ".safetensors" else _pickle_bytes
            total += read(path, itemsize)
    return total


def allocated_bytes() -> float:
    """Bytes of memory that this process has allocated, without cached files; 0 where the system does not tell."""
    return parse_fields(Path("/proc/self/status")).get("RssAnon", 0.0)


def file_bytes(paths: Iterable[Path]) -> float:
    """Total size of network files. Raises `ModelError` where one cannot be read."""
    total = 0.0
    for path in paths:
        with wrap_errors(f"network {path}", "must be a readable file", remedy="Check the path"):
            total += path.stat().st_size
    return total


def _safetensors_bytes(path: Path, itemsize: int) -> float:
    from safetensors import safe_open

    total = 0.0
    with safe_open(path, framework="numpy") as held:
        for name in held.keys():  # noqa: SIM118 - not a mapping
            part = held.get_slice(name)
            kind = part.get_dtype()
            each = (itemsize or FLOATS[kind]) if kind in FLOATS else INTEGERS.get(kind, 1)
            total += math.prod(part.get_shape()) * each
    return total


def _pickle_bytes(path: Path, itemsize: int) -> float:
    """The storages of torch's archives, whose number type the pickle beside them names; all of older files."""
    if not zipfile.is_zipfile(path):
        return path.stat().st_size * max(1.0, itemsize / FLOATS["F32"])
    with zipfile.ZipFile(path) as archive:
        stored = sum(one.file_size for one in archive.infolist() if "/data/" in one.filename)
        lists = [o for o in archive.infolist() if o.filename.endswith("/data.pkl") and o.file_size <= _MAX_PICKLE]
        half = any(mark in archive.read(one) for one in lists for mark in _HALF)
    return stored * (itemsize / (FLOATS["F16"] if half else FLOATS["F32"]) if itemsize else 1.0)
