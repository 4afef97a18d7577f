"""Read the tensors of a TorchScript archive without torch, and without running anything of it.

An archive is a zip of `data.pkl`, a pickle of the modules with their parameters, `data/N`, the numbers of tensor N, and
`code/`, the program. Only the first two are read, in the sandboxed process, by an unpickler that knows modules without
behaviour, and tensors. The format: torch/csrc/jit/docs/serialization.md.
"""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from ...readers.errors import ModelError
from ...readers.sandbox import SandboxError, run_sandboxed
from .untrusted import MIB, check_archive, open_file, wrap_errors

MAX_BYTES: Final = 192 * MIB
"""Of an archive: its tensors come back as one array of the sandbox."""
SECONDS: Final = 30
MEGABYTES: Final = 1024
_MAX_PICKLE: Final = 8 * MIB
_REMEDY: Final = "Fetch it again, or get the original; do not use it if it is the original"
_TYPES: Final = {"FloatStorage": np.float32, "HalfStorage": np.float16, "DoubleStorage": np.float64}


def read_torchscript(path: Path, subject: str) -> dict[str, Any]:
    """The tensors (torch) of a TorchScript archive by the names of its state dict. Raises `ModelError`."""
    from safetensors.torch import load

    rule = f"must be a TorchScript archive that is read within {SECONDS} s and {MEGABYTES} MiB"
    try:
        packed = run_sandboxed(f"{__name__}:pack_tensors", str(path), subject, seconds=SECONDS, megabytes=MEGABYTES)
    except SandboxError as error:
        raise ModelError(subject, rule, value=f"{error.code} {error.value}".strip(), remedy=_REMEDY) from error
    with wrap_errors(subject, rule, remedy=_REMEDY):
        return load(cast("npt.NDArray[np.uint8]", packed).tobytes())


def pack_tensors(path: str, subject: str) -> npt.NDArray[np.uint8]:
    """The part of `read_torchscript` that runs in the sandboxed process: the tensors as bytes of safetensors."""
    from safetensors.numpy import save

    rule = f"must be a whole TorchScript archive of at most {MAX_BYTES} bytes that holds modules and tensors"
    with wrap_errors(subject, rule, remedy=_REMEDY), open_file(Path(path), subject, most=MAX_BYTES) as file:
        check_archive(file)
        with zipfile.ZipFile(file) as archive:
            tensors = dict(_read_archive(archive))
        if not tensors:
            msg = "it holds no tensors"
            raise ValueError(msg)
        return np.frombuffer(save(tensors), dtype=np.uint8)


class _Module:
    """A module of the archive: its attributes, and no behaviour."""

    attributes: Mapping[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.attributes = cast("dict[str, Any]", state)


class _Storage(str):
    """The number type of a tensor, by the name of torch's class."""

    __slots__ = ()


class _Unpickler(pickle.Unpickler):
    """An unpickler that makes modules and tensors, and refuses any other name in a pickle."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        with archive.open(f"{folder}data.pkl") as file:
            super().__init__(io.BytesIO(file.read(_MAX_PICKLE)))
        self._archive, self._folder = archive, folder

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """The stand-in of a name in the pickle."""
        if module_name.partition(".")[0] == "__torch__":
            return _Module
        if (module_name, global_name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module_name, global_name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module_name == "torch" and global_name in _TYPES:
            return _Storage(global_name)
        msg = f"it asks for {module_name}.{global_name}"
        raise pickle.UnpicklingError(msg)

    def persistent_load(self, pid: Any) -> npt.NDArray[Any]:
        """The numbers of a storage ("storage", type, name, device, count)."""
        _, kind, name, _, count = pid
        numbers = np.frombuffer(self._archive.read(f"{self._folder}data/{name}"), dtype=_TYPES[kind])
        if len(numbers) != count:
            msg = f"tensor {name} has {len(numbers)} numbers of {count}"
            raise ValueError(msg)
        return numbers


def _tensor(
    numbers: npt.NDArray[Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> npt.NDArray[Any]:
    """A tensor in the order of its storage. Raises `ValueError` for another order, which no saved module has."""
    count = math.prod(shape)
    ordered = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    if any(length > 1 and a != b for length, a, b in zip(shape, strides, ordered, strict=True)):
        msg = f"a tensor {shape} has the strides {strides}"
        raise ValueError(msg)
    if min((offset, *shape)) < 0 or offset + count > len(numbers):
        msg = f"a tensor {shape} needs more than the {len(numbers)} numbers of its storage"
        raise ValueError(msg)
    return numbers[offset : offset + count].reshape(shape)


def _read_archive(archive: zipfile.ZipFile) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Name and values of each tensor, through modules in modules."""
    [folder] = {name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")}
    waiting: list[tuple[str, Any]] = [("", _Unpickler(archive, folder).load())]
    seen: set[int] = set()
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, np.ndarray):
            yield name, cast("npt.NDArray[Any]", value)
        elif isinstance(value, _Module) and id(value) not in seen:
            seen.add(id(value))
            waiting += [(f"{name}.{key}" if name else str(key), part) for key, part in value.attributes.items()]
