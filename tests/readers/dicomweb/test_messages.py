"""Messages of several parts, and answers to the storing of an object."""

import io
from pathlib import Path
from typing import Any

import pytest
from limner.readers.dicomweb.multipart import MessageBody, boundary_of, write_part
from limner.readers.dicomweb.session import WebError
from limner.readers.dicomweb.stored import Stored, failure_words, read_stored

CONTENT = bytes(range(256)) * 40 + b"\r\n--b\r--bound\r\n-"


def message(*parts: bytes, end: bytes = b"--", preamble: bytes = b"") -> bytes:
    whole = b"".join(b"\r\n--bound\r\nContent-Type: application/dicom\r\n\r\n" + part for part in parts)
    return preamble + whole[0 if preamble else 2 :] + b"\r\n--bound" + end


def written(content: bytes, size: int) -> bytes:
    file = io.BytesIO()
    write_part((content[at : at + size] for at in range(0, len(content), size)), "bound", file)
    return file.getvalue()


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10**6])
@pytest.mark.parametrize("preamble", [b"", b"Hello"])
def test_the_content_of_a_part(size: int, preamble: bytes) -> None:
    assert written(message(CONTENT, preamble=preamble), size) == CONTENT
    assert written(b"--bound\r\n\r\n" + CONTENT + b"\r\n--bound--", size) == CONTENT, "no headers"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (message(CONTENT)[:-9], "ends before"),
        (b"", "ends before"),
        (b"--bound--", "without an object"),
        (message(CONTENT, CONTENT), "several objects"),
        (b"x" * 10**6, "not well formed"),
        (b"--bound\r\n" + b"A: b\r\n" * 10**5, "not well formed"),
    ],
)
def test_other_messages_are_refused(content: bytes, why: str) -> None:
    with pytest.raises(WebError, match=why):
        written(content, 4096)


def test_boundaries() -> None:
    assert boundary_of('multipart/related; type="application/dicom"; boundary="a b"') == "a b"
    assert boundary_of("multipart/related;boundary=ab") == "ab"
    for text in ("multipart/related", "multipart/related; boundary=", f"multipart/related; boundary={'x' * 71}"):
        with pytest.raises(WebError, match="without a boundary"):
            boundary_of(text)


@pytest.mark.parametrize("size", [1, 10, 100000])
def test_a_message_that_is_sent(tmp_path: Path, size: int) -> None:
    path = tmp_path / "object"
    path.write_bytes(CONTENT)
    body = MessageBody(path)
    expected = len(body)
    blocks = list(iter(lambda: body.read(size), b""))
    assert len(b"".join(blocks)) == expected
    assert body.read(size) == b"", "after its end"
    file = io.BytesIO()
    write_part(iter(blocks), body.boundary, file)
    assert file.getvalue() == CONTENT


def item(**values: Any) -> dict[str, Any]:
    tags = {"failure": "00081197", "warning": "00081196"}
    return {tags[name]: {"vr": "US", "Value": [value]} for name, value in values.items()}


def sequence(tag: str, *items: Any) -> dict[str, Any]:
    return {tag: {"vr": "SQ", "Value": list(items)}}


@pytest.mark.parametrize(
    ("status", "answer", "outcome"),
    [
        (200, None, Stored("stored")),
        (202, None, Stored("unknown")),
        (409, None, Stored("failed", "HTTP 409 Conflict, without a reason")),
        (200, sequence("00081199", {}), Stored("stored")),
        (
            202,
            sequence("00081199", item(warning=0xB000)),
            Stored("stored", "the server changed attributes of it (B000)"),
        ),
        (200, {}, Stored("unknown")),
        (409, sequence("00081198", item(failure=0x0111)), Stored("already there", failure_words(0x0111))),
        (409, sequence("00081198", item(failure=0xA701)), Stored("failed", "the server is out of resources (A701)")),
        (409, sequence("00081198", item(failure=0x1234)), Stored("failed", "a reason without a name (1234)")),
        (202, sequence("0008119A", {}), Stored("failed", "no reason given")),
        (
            202,
            {**sequence("00081198", item(failure="x")), **sequence("00081199", {})},
            Stored("failed", "no reason given"),
        ),
    ],
)
def test_outcomes(status: int, answer: Any, outcome: Stored) -> None:
    assert read_stored(status, answer) == outcome


def test_codes_in_words() -> None:
    words = [failure_words(code) for code in (0x0110, 0x0122, 0xC122, 0xA900, 0xC001)]
    assert words == [
        "processing failure (0110)",
        "the server does not support its class (0122)",
        "the server does not support its transfer syntax (C122)",
        "it does not match its class (A900)",
        "the server cannot understand it (C001)",
    ]
    with pytest.raises(WebError):
        read_stored(200, [])
