"""What an ONNX file refers to outside itself, read from its bytes: nothing is loaded.

Source of the format: onnx.proto (fields and their numbers), and Protocol Buffers' encoding (varints, lengths).
"""

from collections.abc import Iterator, Mapping
from typing import Final

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
_KEY, _VALUE, _LOCATION = 1, 2, b"location"


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
            if field in parts:
                waiting.append((parts[field], value))
            elif kind == "entry":
                entry[field] = bytes(value)
        if entry.get(_KEY) == _LOCATION:
            found.add(entry.get(_VALUE, b"").decode("utf-8", errors="replace"))
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(number, bytes) of each field of a message that has a length."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        wire = tag & 7
        if wire == _VARINT:
            _, at = _varint(message, at)
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
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a number
            return found, at + place + 1
    msg = "a number has no end"
    raise ValueError(msg)
