"""Messages of type multipart/related (RFC 2387) with one DICOM object, read and written in pieces."""

from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import BinaryIO, Final

from .session import WebError

_MAX_HEAD: Final = 2**16  # bytes before a part, and of its headers
_MAX_BOUNDARY: Final = 70


def boundary_of(content_type: str) -> str:
    """The boundary in a Content-Type. Raises `WebError` where there is none."""
    message = Message()
    message["content-type"] = content_type
    found = message.get_param("boundary")
    if not isinstance(found, str) or not 0 < len(found) <= _MAX_BOUNDARY or not found.isascii():
        raise WebError("a message of several parts without a boundary")
    return found


def write_part(chunks: Iterator[bytes], boundary: str, file: BinaryIO) -> None:
    """Write the content of the only part of a message to a file. Raises `WebError` for any other message."""
    delimiter = b"\r\n--" + boundary.encode("ascii")
    buffer = bytearray(b"\r\n")  # the first delimiter may stand at the beginning

    def find(mark: bytes, limit: int) -> None:
        """Drop what is up to the end of a mark, which must come within `limit` bytes."""
        while (at := buffer.find(mark)) < 0 and len(buffer) <= limit:
            buffer.extend(_next(chunks))
        if at < 0:
            raise WebError("a message of several parts that is not well formed")
        del buffer[: at + len(mark)]

    def ends() -> bool:
        """Whether the last delimiter is that of the message's end."""
        while len(buffer) < 2:
            buffer.extend(_next(chunks))
        return buffer.startswith(b"--")

    find(delimiter, _MAX_HEAD)
    if ends():
        raise WebError("a message without an object")
    find(b"\r\n\r\n", _MAX_HEAD)
    while (at := buffer.find(delimiter)) < 0:
        keep = len(delimiter) - 1
        if len(buffer) > keep:
            file.write(buffer[: len(buffer) - keep])
            del buffer[: len(buffer) - keep]
        buffer.extend(_next(chunks))
    file.write(buffer[:at])
    del buffer[: at + len(delimiter)]
    if not ends():
        raise WebError("a message of several objects, though one was asked for")


def _next(chunks: Iterator[bytes]) -> bytes:
    chunk = next(chunks, None)
    if chunk is None:
        raise WebError("a message that ends before its object does", retries=2)
    return chunk


class MessageBody:
    """A message with one file, for sending; requests reads it in blocks."""

    boundary: Final = "limner-7b1f0e5c9d3a4862"
    """Random, so that no object holds it; the same in every message."""

    content_type: Final = f'multipart/related; type="application/dicom"; boundary={boundary}'

    def __init__(self, path: Path) -> None:
        self._head = f"--{self.boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        self._tail = f"\r\n--{self.boundary}--\r\n".encode()
        self._file = path.open("rb")
        self._size = path.stat().st_size

    def __len__(self) -> int:
        return len(self._head) + self._size + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        while block := self.read(2**16):
            yield block

    def read(self, size: int = -1) -> bytes:
        """The next bytes of the message, at most `size` of them."""
        size = len(self) if size < 0 else size
        if self._head:
            found, self._head = self._head[:size], self._head[size:]
            return found
        if not self._file.closed:
            if found := self._file.read(size):
                return found
            self._file.close()
        found, self._tail = self._tail[:size], self._tail[size:]
        return found
