"""Read the names, shapes and tensors of weight files without trusting them, and check a configuration against them.

Safetensors are read by their own library, pickles by torch's weights-only reader, which runs nothing of them.
"""

# torch's and safetensors' types do not cover what they load:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

from ...readers.errors import ModelError, excerpt
from .untrusted import MAX_TILE, check_archive, open_file, wrap_errors

Shapes = Mapping[str, tuple[int, ...]]


def read_shapes(path: Path, subject: str) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a weight file, by name. Raises `ModelError` where it is damaged."""
    if path.suffix != ".safetensors":
        return {name: tuple(tensor.shape) for name, tensor in read_tensors(path, subject).items()}
    from safetensors import safe_open

    with _wrap_damage(path, subject), open_file(path, subject), safe_open(path, framework="numpy") as held:
        return {key: tuple(held.get_slice(key).get_shape()) for key in held.keys()}  # noqa: SIM118 - not a mapping


def read_tensors(path: Path, subject: str) -> dict[str, Any]:
    """The tensors of a weight file by name, on the CPU, memory-mapped where possible. Raises `ModelError`."""
    with _wrap_damage(path, subject):
        content = load_weights(path, subject).items()
        return {str(key): value for key, value in content if hasattr(value, "untyped_storage")}


def load_weights(path: Path, subject: str) -> Any:
    """The content of a weight file: tensors by name, or whatever a pickle has around them. Raises `ModelError`.

    A pickle that unpacks to much more than its size is refused, and so is a tensor that repeats its numbers, since a
    few bytes may then stand for terabytes.
    """
    import torch
    from safetensors.torch import load_file

    with _wrap_damage(path, subject):
        with open_file(path, subject) as file:
            zipped = file.read(2) == b"PK"  # older files cannot be mapped
            check_archive(file)
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore"):  # about TorchScript programs, which are refused
            try:
                held: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
            except Exception as error:
                raise UnpicklingError(_torch_message(error)) from error
        for name, tensor in _tensors(held):
            if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
                msg = f"{name} repeats its numbers"
                raise ValueError(msg)
        return held


def _wrap_damage(path: Path, subject: str) -> AbstractContextManager[None]:
    remedy = "Copy or fetch it again; of a TorchScript program or a pickled model, save the state_dict alone"
    return wrap_errors(f"{path.name} of {subject}", "must be whole, and hold nothing but tensors", remedy=remedy)


def _tensors(held: Any) -> Iterator[tuple[str, Any]]:
    """The tensors of a mapping, and of mappings in it."""
    for name, value in held.items() if isinstance(held, dict) else ():
        if isinstance(value, dict):
            yield from _tensors(value)
        elif hasattr(value, "untyped_storage"):
            yield str(name), value


def _torch_message(error: Exception) -> str:
    """Torch's message without its advice to run what is in the file."""
    text = str(error).rpartition("WeightsUnpickler error:")[2].partition("Check the documentation")[0]
    refused = re.search(r"GLOBAL (\S+)", text)
    return f"it asks for {refused[1]}" if refused else text.strip() or type(error).__name__


def count_elements(shapes: Shapes) -> int:
    """How many numbers tensors of those shapes hold."""
    return sum(math.prod(shape) for shape in shapes.values())


SMALL_LIMIT, COUNT_LIMIT, LIMIT = 2**8, 2**16, 2**24
"""Whole numbers up to here cost little: of layers, of other things that are counted, and all others."""
LAYERS = re.compile(r"(?:.*_)?(?:layers?|depths?|blocks?)(?:_.*)?|n_layers?")
COUNTS = re.compile(r"(?:num|n)_.*|.*_num_.*")
SIDES = re.compile(r".*(?:image|img|patch|tile|window|kernel)_size")
UNLIMITED = re.compile(r".*(?:theta|base|pixels|_id|ids|version|max_length|seed|threshold|factor).*")


def check_config_integers(config: object, *, tensors: int, numbers: int, subject: str, key: str = "") -> None:
    """Raise `ModelError` for a number in a configuration that no network has with so many tensors and numbers in them.

    Small numbers pass; layers are at most as many as tensors, and sides at most `MAX_TILE` pixels.
    """
    if isinstance(config, dict):
        for name, part in cast("dict[str, object]", config).items():
            check_config_integers(part, tensors=tensors, numbers=numbers, subject=subject, key=name)
    elif isinstance(config, list):
        for part in cast("list[object]", config):
            check_config_integers(part, tensors=tensors, numbers=numbers, subject=subject, key=key)
    elif isinstance(config, int) and not isinstance(config, bool) and not UNLIMITED.fullmatch(key):
        most = max(LIMIT, numbers)
        if SIDES.fullmatch(key):
            most = MAX_TILE
        elif LAYERS.fullmatch(key):
            most = max(SMALL_LIMIT, tensors)
        elif COUNTS.fullmatch(key):
            most = max(COUNT_LIMIT, tensors)
        if config > most:
            rule, remedy = f"must be at most {most} for its weights", "Check that its files belong together"
            raise ModelError(f"{excerpt(key)} in the config of {subject}", rule, value=str(config), remedy=remedy)
