"""Protocol Buffers: read the fields of a message from its bytes, and write fields.

Format: Protocol Buffers' encoding (varints, lengths). A message is a sequence of fields, each with a number and a wire
type; a repeated field is several of one number, or numbers packed into one.
"""

from collections.abc import Iterable, Iterator
from typing import Final

VARINT, EIGHT, LENGTH, FOUR = 0, 1, 2, 5
"""Wire types."""

_SIZES: Final = {EIGHT: 8, FOUR: 4}
_BITS: Final = 64


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview | None, memoryview]]:
    """(number, value, all bytes) of each field of a message. Raises `ValueError`.

    The value is a whole number, or the bytes of a field with a length; None for numbers of 4 or 8 bytes, which are the
    last of the field's bytes.
    """
    at, end = 0, len(message)
    while at < end:
        start = at
        tag, at = _varint(message, at)
        kind, number = tag & 7, tag >> 3
        if kind == VARINT:
            value, at = _varint(message, at)
            yield number, value, message[start:at]
        elif kind == LENGTH:
            size, at = _varint(message, at)
            if size > end - at:
                msg = "a field is longer than its message"
                raise ValueError(msg)
            at += size
            yield number, message[at - size : at], message[start:at]
        elif kind in _SIZES:
            at += _SIZES[kind]
            if at > end:
                msg = "a number is longer than its message"
                raise ValueError(msg)
            yield number, None, message[start:at]
        else:
            msg = f"no field has the wire type {kind}"
            raise ValueError(msg)


def submessages(message: memoryview, field: int) -> list[memoryview]:
    """The messages, texts or bytes with that field number in a message. Raises `ValueError`."""
    return [value for number, value, _ in fields(message) if number == field and isinstance(value, memoryview)]


def text_of(message: memoryview, field: int) -> str:
    """The last text with that field number, "" without one. Raises `ValueError`."""
    found = submessages(message, field)
    return bytes(found[-1]).decode() if found else ""


def numbers_of(message: memoryview, field: int) -> list[int]:
    """The whole numbers with that field number, packed or not; 64 bits, signed. Raises `ValueError`."""
    found: list[int] = []
    for number, value, _ in fields(message):
        if number == field and isinstance(value, int):
            found.append(value)
        elif number == field and isinstance(value, memoryview):
            at = 0
            while at < len(value):
                one, at = _varint(value, at)
                found.append(one)
    return [one - 2**_BITS if one >= 2 ** (_BITS - 1) else one for one in found]


def write_number(field: int, value: int) -> bytes:
    """A field that holds a whole number of 64 bits, signed."""
    return _to_varint(field << 3 | VARINT) + _to_varint(value % 2**_BITS)


def write_bytes(field: int, value: bytes | str | Iterable[bytes | memoryview]) -> bytes:
    """A field that holds bytes, a text, or a message of the given fields."""
    content = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else b"".join(value)
    return _to_varint(field << 3 | LENGTH) + _to_varint(len(content)) + content


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and where it ends."""
    found = 0
    for place, byte in enumerate(message[at : at + 10]):
        found |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return found, at + place + 1
    msg = "a number has no end"
    raise ValueError(msg)


def _to_varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
