"""What a file of weights holds: the names and shapes of its tensors, and the tensors of a pickle. No tensor is trusted.

Safetensors are read by their own library, pickles by torch's reader of nothing but tensors, which runs nothing of them.
"""

# torch's and safetensors' types do not say what they load:
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

WHOLE = (
    "Copy or fetch the file again; of a TorchScript program or a whole pickled model, have the state_dict alone saved "
    "by whoever trusts it"
)


def read_shapes(path: Path, subject: str) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a file of weights, by name. Raises `ModelError` where it is damaged."""
    if path.suffix != ".safetensors":
        return {name: tuple(tensor.shape) for name, tensor in read_tensors(path, subject).items()}
    from safetensors import safe_open

    with damage(path, subject), open_file(path, subject), safe_open(path, framework="numpy") as held:
        return {key: tuple(held.get_slice(key).get_shape()) for key in held.keys()}  # noqa: SIM118 - not a mapping


def read_tensors(path: Path, subject: str) -> dict[str, Any]:
    """The tensors of a file of weights by name, on the processor, mapped where it allows that. Raises `ModelError`."""
    with damage(path, subject):
        return {
            str(key): value for key, value in load_weights(path, subject).items() if hasattr(value, "untyped_storage")
        }


def load_weights(path: Path, subject: str) -> Any:
    """What a file of weights holds: tensors by name, or whatever a pickle has around them. Raises `ModelError`.

    A pickle is read by torch with weights only; one that unpacks to much more than its size is refused, and so is a
    tensor that repeats its numbers, since a few bytes may then stand for terabytes.
    """
    import torch
    from safetensors.torch import load_file

    with damage(path, subject):
        with open_file(path, subject) as file:
            zipped = file.read(2) == b"PK"  # older files cannot be mapped
            check_archive(file)
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore"):  # that a TorchScript program is one: it is refused
            try:
                held: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
            except Exception as error:  # torch advises to run what is in the file
                raise UnpicklingError(_reason(error)) from error
        for name, tensor in _tensors(held):
            if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
                msg = f"{name} repeats its numbers"
                raise ValueError(msg)
        return held


def damage(path: Path, subject: str) -> AbstractContextManager[None]:
    """Say of whatever a library raises over a file of weights that the file is damaged."""
    return wrap_errors(subject, f"its file {path.name} must be whole, and hold nothing but tensors", remedy=WHOLE)


def _tensors(held: Any) -> Iterator[tuple[str, Any]]:
    """The tensors of a mapping, and of mappings in it."""
    for name, value in held.items() if isinstance(held, dict) else ():
        if isinstance(value, dict):
            yield from _tensors(value)
        elif hasattr(value, "untyped_storage"):
            yield str(name), value


def _reason(error: Exception) -> str:
    """What torch says, without its advice to run what is in the file."""
    said = str(error).rpartition("WeightsUnpickler error:")[2].partition("Check the documentation")[0]
    asked = re.search(r"GLOBAL (\S+)", said)
    return f"it asks for {asked[1]}" if asked else said.strip() or type(error).__name__


def count_elements(shapes: Shapes) -> int:
    """How many numbers tensors of those shapes hold."""
    return sum(math.prod(shape) for shape in shapes.values())


COUNTS = re.compile(r"(?:.*_)?(?:layers?|depths?|blocks?)(?:_.*)?|n_layers?")
NUMBERED = re.compile(r"(?:num|n)_.*|.*_num_.*")
SIDES = re.compile(r".*(?:image|img|patch|tile|window|kernel)_size")
FREE = re.compile(r".*(?:theta|base|pixels|_id|ids|version|max_length|seed|threshold|factor).*")
FEW, MANY, LARGE = 2**8, 2**16, 2**24
"""Whole numbers up to here cost little: of layers, of other things that are counted, and all others."""


def check_config_integers(stated: object, *, tensors: int, numbers: int, subject: str, key: str = "") -> None:
    """Raise `ModelError` for a number in settings that no network has with so many tensors and numbers in them.

    Small numbers pass; layers are at most as many as tensors, and sides at most `MAX_TILE` pixels.
    """
    if isinstance(stated, dict):
        for name, part in cast("dict[str, object]", stated).items():
            check_config_integers(part, tensors=tensors, numbers=numbers, subject=subject, key=name)
    elif isinstance(stated, list):
        for part in cast("list[object]", stated):
            check_config_integers(part, tensors=tensors, numbers=numbers, subject=subject, key=key)
    elif isinstance(stated, int) and not isinstance(stated, bool) and not FREE.fullmatch(key):
        most = max(LARGE, numbers)
        if SIDES.fullmatch(key):
            most = MAX_TILE
        elif COUNTS.fullmatch(key):
            most = max(FEW, tensors)
        elif NUMBERED.fullmatch(key):
            most = max(MANY, tensors)
        if stated > most:
            raise ModelError(
                subject,
                f"{excerpt(key)} in its settings must be at most {most}, as far as its weights tell",
                value=str(stated),
                remedy="Check that its files belong together",
            )
