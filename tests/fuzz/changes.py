"""Changes to files: of bytes, and of what the bytes mean where a format is known. All take what they do from `random`.

`change(random, name, content)` picks one or several that suit the file.
"""

import random as randoms
import re
import struct
from collections.abc import Callable, Iterator

import binary
import trees

Random = randoms.Random
Change = Callable[[Random, bytes], bytes]

INTEGERS = (0, 1, -1, 2, 7, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
WORDS = (
    b"nan", b"inf", b"-inf", b"-1", b"0", b"1e308", b"1e-320", b"99999999999999999999", b"", b"\0", b"\xff\xfe",
    b"../../../../etc/passwd", b"/dev/zero", b"\x1b[31m", b"%s%n", b"'; --", b"x" * 5000, "\u202e\u2028".encode(),
)  # fmt: skip
MAGIC = (
    b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"PK\x03\x04", b"<VRTDataset>",
    b"\0\0\0\x0cjP  \r\n\x87\n", b"%PDF-1.7", b"\x1f\x8b\x08", b"{", b"\x80\x04", b"\x89HDF\r\n\x1a\n", b"CDF\x01",
)  # fmt: skip


def flip(random: Random, content: bytes) -> bytes:
    """A few bytes become others."""
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        if changed:
            changed[random.randrange(len(changed))] = random.choice((random.randrange(256), 0, 255, 128))
    return bytes(changed)


def flip_head(random: Random, content: bytes) -> bytes:
    """A few of the first bytes become others."""
    length = random.choice((16, 64, 256))
    return flip(random, content[:length]) + content[length:]


def cut(random: Random, content: bytes) -> bytes:
    """The end, the start or a part of the middle is gone."""
    at, end = sorted((random.randrange(len(content) + 1), random.randrange(len(content) + 1)))
    return random.choice((content[:end], content[at:], content[:at] + content[end:], content[:-1], b""))


def copy(random: Random, content: bytes) -> bytes:
    """A block stands where another was, or twice."""
    if not content:
        return content
    at, to = random.randrange(len(content)), random.randrange(len(content))
    block = content[at : at + random.choice((1, 4, 12, 64, 512))]
    return content[:to] + block + content[to + random.choice((0, len(block))) :]


def integer(random: Random, content: bytes) -> bytes:
    """An integer of 1 to 8 bytes somewhere becomes another."""
    width = random.choice((1, 2, 4, 8))
    if len(content) < width:
        return content
    at = random.randrange(len(content) - width + 1)
    number = random.choice(INTEGERS) % 2 ** (8 * width)
    return content[:at] + number.to_bytes(width, random.choice(("little", "big"))) + content[at + width :]


def real(random: Random, content: bytes) -> bytes:
    """A floating point number somewhere becomes another."""
    number = random.choice((float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e308, 1e-310, -1.0))
    packed = struct.pack(random.choice(("<d", ">d", "<f", ">f")), number if abs(number) < 1e300 else float("inf"))
    at = random.randrange(len(content) + 1) // 4 * 4
    return content[:at] + packed + content[at + len(packed) :]


def magic(random: Random, content: bytes) -> bytes:
    """It begins as another format does."""
    head = random.choice(MAGIC)
    return head + content[random.choice((0, len(head))) :]


def bloat(random: Random, content: bytes) -> bytes:
    """Much of the same is added."""
    filler = random.choice((b"\0", b"\xff", b"A", b"[", content[:64] or b"x"))
    return content + filler * random.choice((1, 1000, 100_000))


def number_in_text(random: Random, content: bytes) -> bytes:
    """A number written out becomes something else."""
    return _replace(random, rb"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", content)


def word_in_text(random: Random, content: bytes) -> bytes:
    """A word becomes something else."""
    return _replace(random, rb"[A-Za-z_][\w.-]*", content)


def lines(random: Random, content: bytes) -> bytes:
    """A line is left out, doubled or moved."""
    rows = content.splitlines(keepends=True)
    if not rows:
        return content
    at, to = random.randrange(len(rows)), random.randrange(len(rows))
    row = rows[at]
    kept = rows[:at] + rows[at + random.choice((0, 1)) :]
    return b"".join(kept[:to] + [row] * random.choice((0, 1, 1, 50)) + kept[to:])


def markup(random: Random, content: bytes) -> bytes:
    """An element of XML is left out, doubled or nested; an attribute or a text becomes something else."""
    what = random.randrange(6)
    if what == 0:
        return _replace(random, rb'(?<==")[^"]*(?=")', content)
    if what == 1:
        return _replace(random, rb"(?<=>)[^<>\s][^<>]*(?=<)", content)
    if what == 2:
        return _replace(random, rb"(?<=[<\s/])[A-Za-z][\w:]*", content)
    found = list(re.finditer(rb"<(\w[\w:]*)[^>]*(?:/>|>.*?</\1>)", content, re.DOTALL))
    inner = [match for match in found if match.start()] or found
    if not inner:
        return content
    match = random.choice(inner)
    part = match.group()
    name = match.group(1)
    deep = random.choice((2, 100, 5000))
    new = random.choice((b"", part * 2, part * 50, b"<" + name + b">" + part + b"</" + name + b">"))
    if what == 5:
        new = b"".join((b"<", name, b">")) * deep + b"".join((b"</", name, b">")) * deep
    if random.random() < 0.05:
        new = (
            b'<!DOCTYPE a [<!ENTITY b "' + b"b" * 1000 + b'"><!ENTITY c SYSTEM "file:///etc/passwd">]>&c;' + b"&b;" * 99
        )
    return content[: match.start()] + new + content[match.end() :]


def tree(random: Random, content: bytes) -> bytes:
    """A value of JSON or YAML is left out, doubled, renamed, nested or of another type."""
    return trees.change(random, content)


def _replace(random: Random, pattern: bytes, content: bytes) -> bytes:
    found = list(re.finditer(pattern, content))
    if not found:
        return flip(random, content)
    match = random.choice(found)
    old = match.group()
    other = random.choice(found).group()
    new = random.choice((*WORDS, other, old * 3, old[:-1], b"-" + old, b"9" * 40))
    return content[: match.start()] + new + content[match.end() :]


PLAIN: tuple[Change, ...] = (flip, flip_head, cut, copy, integer, real, magic, bloat)
TEXT: tuple[Change, ...] = (flip, cut, copy, number_in_text, number_in_text, word_in_text, lines, lines)


def suited(name: str, content: bytes) -> Iterator[Change]:
    """What can be done to a file beyond bytes, judged by its name and first bytes."""
    head = content[:64].lstrip()
    if content[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}:
        yield binary.tiff
    if content[:4] == b"PK\x03\x04":
        yield lambda random, old: binary.archive(random, old, change)
    if content[128:132] == b"DICM":
        yield binary.dicom
    if name.endswith(".safetensors"):
        yield binary.safetensors
    if name.endswith((".onnx", ".model")):
        yield binary.protobuf
    if name.endswith((".json", ".geojson", ".yaml", ".yml")):
        yield tree
    elif name.endswith(".jsonl"):
        yield json_lines
    elif head.startswith(b"<"):
        yield markup


def json_lines(random: Random, content: bytes) -> bytes:
    """As `tree`, of one line."""
    rows = content.splitlines()
    if not rows:
        return content
    at = random.randrange(len(rows))
    return b"\n".join([*rows[:at], tree(random, rows[at]).replace(b"\n", b" "), *rows[at + 1 :], b""])


def change(random: Random, name: str, content: bytes) -> bytes:
    """The file with one to four changes, most of them of its structure where that is known."""
    for _ in range(random.choice((1, 1, 1, 1, 2, 2, 4))):
        known = tuple(suited(name, content))
        text = b"\0" not in content[:4096]
        general = TEXT if text else PLAIN
        pick = random.choice(known if known and random.random() < 0.7 else general)
        content = pick(random, content)[: 2**23]
    return content
