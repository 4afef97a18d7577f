"""What an ONNX file says of itself: metadata, and the shapes of inputs and outputs. Makes no network, reads no weights.

Source of the format: onnx.proto of ONNX, in protocol buffers' wire format.
"""

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..readers.errors import ModelError

_GRAPH, _METADATA = 7, 14  # of ModelProto
_INITIALIZER, _INPUT, _OUTPUT = 5, 11, 12  # of GraphProto
_TENSOR_NAME = 8  # of TensorProto
_KEY, _VALUE = 1, 2  # of StringStringEntryProto
_NAME, _TYPE = 1, 2  # of ValueInfoProto
_TENSOR, _SHAPE, _AXIS, _LENGTH = 1, 2, 1, 1  # of TypeProto, its Tensor, TensorShapeProto and its Dimension
_FIXED = {1: 8, 5: 4}  # wire type → bytes
_LONGEST = 10  # bytes of a varint

Shape = tuple[int | None, ...]
_Part = tuple[int, int]  # where a message begins and ends


@dataclass(frozen=True, slots=True)
class Header:
    """`shapes` are those of the `inputs` inputs and then of the outputs, in order; an open axis is None."""

    metadata: Mapping[str, str]
    shapes: tuple[Shape, ...]
    inputs: int


def read_header(path: Path) -> Header:
    """The header of an ONNX file. Raises `ModelError` where it cannot be read or is none."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _header(data)
    except OSError as error:
        raise ModelError(
            f"network {path}", "it must be a readable file", value=str(error), remedy="Check the path"
        ) from error
    except (IndexError, ValueError) as error:
        raise ModelError(
            f"network {path.name}",
            "it must be an ONNX network",
            value=str(error),
            remedy="Check that it is the right file, and whole",
        ) from error


def _header(data: mmap.mmap) -> Header:
    whole = (0, len(data))
    entries = _parts(data, whole, _METADATA)
    metadata = {_text(data, entry, _KEY): _text(data, entry, _VALUE) for entry in entries}
    graphs = _parts(data, whole, _GRAPH)
    if not graphs:
        msg = "it holds no graph"
        raise ValueError(msg)
    constants = {_text(data, one, _TENSOR_NAME) for one in _parts(data, graphs[-1], _INITIALIZER)}
    inputs = [one for one in _parts(data, graphs[-1], _INPUT) if _text(data, one, _NAME) not in constants]
    outputs = _parts(data, graphs[-1], _OUTPUT)
    return Header(metadata, tuple(_shape(data, one) for one in (*inputs, *outputs)), len(inputs))


def _shape(data: mmap.mmap, value: _Part) -> Shape:
    """The shape that an input or output states; () where it states none."""
    found = [value]
    for number in (_TYPE, _TENSOR, _SHAPE):
        found = [part for one in found for part in _parts(data, one, number)]
    axes = [axis for one in found for axis in _parts(data, one, _AXIS)]
    return tuple(
        next((length for number, length in _fields(data, axis) if number == _LENGTH and isinstance(length, int)), None)
        for axis in axes
    )


def _text(data: mmap.mmap, part: _Part, number: int) -> str:
    found = _parts(data, part, number)
    return data[slice(*found[-1])].decode() if found else ""


def _parts(data: mmap.mmap, part: _Part, wanted: int) -> list[_Part]:
    """The messages, texts or bytes of that number in a message."""
    return [value for number, value in _fields(data, part) if number == wanted and isinstance(value, tuple)]


def _fields(data: mmap.mmap, part: _Part) -> Iterator[tuple[int, int | _Part]]:
    """(number, value) of each field of a message: a whole number, or where its bytes lie. Raises `ValueError`."""
    at, stop = part
    while at < stop:
        key, at = _varint(data, at, stop)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at, stop)
            yield number, value
            continue
        if wire == 2:  # noqa: PLR2004 - a length, and as many bytes
            length, at = _varint(data, at, stop)
        elif wire in _FIXED:
            length = _FIXED[wire]
        else:
            msg = f"a field of a kind that is not known at byte {at}"
            raise ValueError(msg)
        if at + length > stop:
            msg = f"it is cut off at byte {stop}"
            raise ValueError(msg)
        yield number, (at, at + length)
        at += length


def _varint(data: mmap.mmap, at: int, stop: int) -> tuple[int, int]:
    """A whole number, seven bits a byte, and where the next field begins."""
    value = 0
    for place in range(_LONGEST):
        if at + place >= stop:
            break
        byte = data[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:  # noqa: PLR2004 - the last one
            return value, at + place + 1
    msg = f"a number that does not end at byte {at}"
    raise ValueError(msg)
