"""What an ONNX file says of itself, read from its bytes: no network is made, no weights are read.

Source of the format: onnx.proto (fields and their numbers), and Protocol Buffers' encoding (varints, lengths).
"""

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .foreign import foreign
from .untrusted import open_file

_VARINT, _EIGHT, _LENGTH, _FOUR = 0, 1, 2, 5
_PARTS: Final[Mapping[str, Mapping[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {},
}
"""Message → number of a field that holds another message → which."""
_KEY, _VALUE, _LOCATION = 1, 2, b"location"  # of StringStringEntryProto
_GRAPH, _METADATA = 7, 14  # of ModelProto
_INITIALIZER, _INPUT, _OUTPUT = 5, 11, 12  # of GraphProto
_TENSOR_NAME = 8  # of TensorProto
_NAME, _TYPE = 1, 2  # of ValueInfoProto
_TENSOR, _SHAPE, _AXIS, _AXIS_LENGTH = 1, 2, 1, 1  # of TypeProto, its Tensor, TensorShapeProto and its Dimension

Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """`shapes` are those of the `inputs` inputs and then of the outputs, in order; an open axis is None."""

    metadata: Mapping[str, str]
    shapes: tuple[Shape, ...]
    inputs: int


def read_header(path: Path) -> Header:
    """The header of an ONNX file. Raises `ModelError` where it cannot be read or is none."""
    subject = f"network {path.name}"
    with (
        foreign(subject, "it must be an ONNX network", remedy="Check that it is the right file, and whole"),
        open_file(path, subject) as file,
    ):
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        metadata = {_text(entry, _KEY): _text(entry, _VALUE) for entry in _parts(whole, _METADATA)}
        graph = _parts(whole, _GRAPH)[-1]
        constants = {_text(one, _TENSOR_NAME) for one in _parts(graph, _INITIALIZER)}
        inputs = [one for one in _parts(graph, _INPUT) if _text(one, _NAME) not in constants]
        outputs = _parts(graph, _OUTPUT)
        if not inputs or not outputs:
            msg = f"it has {len(inputs)} inputs and {len(outputs)} outputs"
            raise ValueError(msg)
        return Header(metadata, tuple(_shape(one) for one in (*inputs, *outputs)), len(inputs))


def external_files(content: bytes) -> set[str]:
    """The files that hold tensors of a network outside its own file, by the names that it gives them.

    Raises `ValueError` for bytes that are no protocol buffer.
    """
    found: set[str] = set()
    waiting = [("model", memoryview(content))]
    while waiting:
        kind, message = waiting.pop()
        parts = _PARTS[kind]
        entry: dict[int, bytes] = {}
        for field, value in _fields(message):
            if isinstance(value, int):
                continue
            if field in parts:
                waiting.append((parts[field], value))
            elif kind == "entry":
                entry[field] = bytes(value)
        if entry.get(_KEY) == _LOCATION:
            found.add(entry.get(_VALUE, b"").decode("utf-8", errors="replace"))
    return found


def _shape(value: memoryview) -> Shape:
    """The shape that an input or output states; () where it states none."""
    found = [value]
    for number in (_TYPE, _TENSOR, _SHAPE):
        found = [part for one in found for part in _parts(one, number)]
    axes = [axis for one in found for axis in _parts(one, _AXIS)]
    lengths = [[n for number, n in _fields(axis) if number == _AXIS_LENGTH and isinstance(n, int)] for axis in axes]
    return tuple(length[0] if length else None for length in lengths)


def _text(message: memoryview, number: int) -> str:
    found = _parts(message, number)
    return bytes(found[-1]).decode() if found else ""


def _parts(message: memoryview, wanted: int) -> list[memoryview]:
    """The messages, texts or bytes of that number in a message."""
    return [value for number, value in _fields(message) if number == wanted and isinstance(value, memoryview)]


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of each field of a message that is a whole number or has a length. Raises `ValueError`."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        wire = tag & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield tag >> 3, value
        elif wire == _LENGTH:
            size, at = _varint(message, at)
            if size > end - at:
                msg = "a field is longer than its message"
                raise ValueError(msg)
            yield tag >> 3, message[at : at + size]
            at += size
        elif wire in {_EIGHT, _FOUR}:
            at += 8 if wire == _EIGHT else 4
        else:
            msg = f"no field is of the kind {wire}"
            raise ValueError(msg)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and where it ends."""
    found = 0
    for place, byte in enumerate(message[at : at + 10]):
        found |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return found, at + place + 1
    msg = "a number has no end"
    raise ValueError(msg)
