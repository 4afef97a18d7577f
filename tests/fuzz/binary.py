"""Changes to TIFF, DICOM, ZIP, safetensors and protocol buffers, of what their bytes mean."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from random import Random

import trees

NUMBERS = (0, 1, 2, 3, 5, 7, 8, 15, 16, 255, 256, 1000, 32767, 65535, 65536, 10**6, 2**31 - 1, 2**31, 2**32 - 1)
REALS = (float("nan"), float("inf"), -float("inf"), 0.0, 1e308, -1e308, 1e-310, -1.0, 1e18)
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


def tiff(random: Random, content: bytes) -> bytes:  # noqa: C901, PLR0912 - a branch for each kind of change
    """A tag, type, count, value or offset of a directory, or the link from one to the next, becomes another."""
    order, big = "<" if content[:2] == b"II" else ">", content[2:4] in {b"+\0", b"\0+"}
    entries, links = _directories(content, order, big=big)
    if not entries:
        return content
    word = "Q" if big else "I"
    width, size = (8, 20) if big else (4, 12)
    changed = bytearray(content)

    def put(at: int, form: str, number: int) -> None:
        length = struct.calcsize(form)
        if at + length <= len(changed):
            struct.pack_into(order + form, changed, at, number % 2 ** (8 * length))

    at = random.choice(entries)
    tag, kind = struct.unpack_from(order + "HH", content, at)
    count = struct.unpack_from(order + word, content, at + 4)[0]
    value = at + 4 + width
    what = random.randrange(12)
    if what == 0:
        put(at, "H", random.choice((tag + 1, tag - 1, random.choice((254, 330, 347, 34665, 33922, 34735, 65420, 0)))))
    elif what == 1:
        put(at + 2, "H", random.choice((0, 1, 2, 3, 4, 5, 10, 12, 13, 16, 17, 99)))
    elif what == 2:
        put(at + 4, word, random.choice((*NUMBERS, count + 1, count - 1, count * 1000)))
    elif what == 3:
        put(value, word, random.choice((*NUMBERS, at, len(content), len(content) - 1, *links[:3])))
    elif what == 4:
        put(value, "H", random.choice(NUMBERS))
    elif what == 5 and links:
        ring = [link for link in links if link] or [8]
        put(random.choice(_link_places(content, order, big=big)), word, random.choice((*ring, 0, 8, len(content))))
    elif what == 6:
        other = random.choice(entries)
        changed[at : at + size], changed[other : other + size] = content[other : other + size], content[at : at + size]
    elif what == 7:
        other = random.choice(entries)
        changed[value : value + width] = content[other + 4 + width : other + 4 + 2 * width]
    elif what == 8:
        changed[at : at + size] = bytes(size)
    else:
        length = SIZES.get(kind, 1) * count
        start = value if length <= width else struct.unpack_from(order + word, content, value)[0]
        length = min(length, max(0, len(content) - start), 2**16)
        unit = max(1, SIZES.get(kind, 1))
        if length >= unit:
            place = start + unit * random.randrange(length // unit)
            if kind == 12:
                struct.pack_into(order + "d", changed, place, random.choice(REALS))
            elif kind == 2:
                changed[place] = random.choice(b"\0\xff 9.-<>=|,")
            else:
                put(place, {1: "B", 2: "H", 4: "I", 8: "Q"}[unit], random.choice(NUMBERS))
    return bytes(changed)


def _directories(content: bytes, order: str, *, big: bool) -> tuple[list[int], list[int]]:
    """The offsets of all directories' entries, and of the directories."""
    word, head, size = ("Q", 8, 20) if big else ("I", 2, 12)
    entries: list[int] = []
    links: list[int] = []
    todo = list(struct.unpack_from(order + word, content, 8 if big else 4)) if len(content) > 16 else []
    while todo and len(links) < 64:
        at = todo.pop()
        if at in links or at + head > len(content):
            continue
        links.append(at)
        count = struct.unpack_from(order + ("Q" if big else "H"), content, at)[0]
        end = at + head + size * count
        if count > 512 or end + struct.calcsize(word) > len(content):
            continue
        entries += range(at + head, end, size)
        todo += struct.unpack_from(order + word, content, end)
        for entry in range(at + head, end, size):
            tag, _, many = struct.unpack_from(order + "HH" + word, content, entry)
            if tag == 330 and many < 64:
                start = entry + (12 if big else 8)
                if many > 1:
                    start = struct.unpack_from(order + word, content, start)[0]
                if start + many * struct.calcsize(word) <= len(content):
                    todo += struct.unpack_from(f"{order}{many}{word}", content, start)
    return entries, links


def _link_places(content: bytes, order: str, *, big: bool) -> list[int]:
    """The positions of the offsets of each directory's successor, and of the first directory's offset."""
    head, size = (8, 20) if big else (2, 12)
    _, links = _directories(content, order, big=big)
    ends = [at + head + size * struct.unpack_from(order + ("Q" if big else "H"), content, at)[0] for at in links]
    return [8 if big else 4, *(end for end in ends if end + 8 <= len(content))]


def dicom(random: Random, content: bytes) -> bytes:
    """An element's tag, type, length or value becomes another, or the element is left out or doubled."""
    elements = _elements(content)
    if not elements:
        return content
    at, value, length = random.choice(elements)
    what = random.randrange(8)
    changed = bytearray(content)
    if what == 0:
        del changed[at : value + length]
    elif what == 1:
        changed[at:at] = content[at : value + length]
    elif what == 2:
        changed[at + 4 : at + 6] = random.choice((b"UI", b"DS", b"SQ", b"OW", b"US", b"UN", b"XX", b"FD", b"IS"))
    elif what == 3:
        wide = value - at == 12
        form, place = ("<I", value - 4) if wide or content[at + 4 : at + 6] < b"AA" else ("<H", value - 2)
        struct.pack_into(form, changed, place, random.choice(NUMBERS) % 2 ** (8 * struct.calcsize(form)))
    elif what == 4:
        other = random.choice(elements)
        changed[value : value + length] = content[other[1] : other[1] + other[2]][:length].ljust(length, b" ")
    elif what == 5:
        changed[at : at + 4] = content[(other := random.choice(elements))[0] : other[0] + 4]
    else:
        words = (
            b"9" * 16,
            b"-1",
            b"nan",
            b"1e308",
            b"0",
            b"",
            b"\\" * 8,
            b"1\\2\\3",
            b"\xff" * 8,
            b"1.2.840.10008.1.2.4.50",
        )
        changed[value : value + length] = random.choice(words)[:length].ljust(
            length, random.choice((b" ", b"\0", b"9"))
        )
    return bytes(changed)


def _elements(content: bytes) -> list[tuple[int, int, int]]:
    """(start, start of value, length) of the elements, those in sequences of undefined length among them."""
    found: list[tuple[int, int, int]] = []
    at = 132
    while at + 8 <= len(content) and len(found) < 2000:
        group = struct.unpack_from("<H", content, at)[0]
        kind = content[at + 4 : at + 6]
        if group == 0xFFFE:
            value, length = at + 8, 0
        elif kind in {b"OB", b"OW", b"OF", b"SQ", b"UN", b"UT", b"UC", b"UR", b"OD", b"OL"} and at + 12 <= len(content):
            value, length = at + 12, struct.unpack_from("<I", content, at + 8)[0]
        elif kind.isalpha() and kind.isupper():
            value, length = at + 8, struct.unpack_from("<H", content, at + 6)[0]
        else:
            value, length = at + 8, struct.unpack_from("<I", content, at + 4)[0]
        inside = length == 2**32 - 1 or kind == b"SQ"
        length = min(length, max(0, len(content) - value))
        if group != 0xFFFE:
            found.append((at, value, 0 if inside else length))
        at = value if inside else value + length
    return found


def archive(random: Random, content: bytes, change: Callable[[Random, str, bytes], bytes]) -> bytes:
    """A member of a ZIP is changed, renamed, doubled or left out; or a field of the directory is."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            members = [(info.filename, file.read(info)) for info in file.infolist()]
            packing = file.infolist()[0].compress_type if members else zipfile.ZIP_DEFLATED
    except (OSError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError):
        return content
    what = random.randrange(5)
    if what == 0 or not members:
        at = content.rfind(b"PK\x01\x02") if random.random() < 0.7 else content.rfind(b"PK\x05\x06")
        place = max(0, at) + random.randrange(4, 46)
        return content[:place] + bytes([random.choice((0, 1, 8, 99, 255))]) + content[place + 1 :]
    at = random.randrange(len(members))
    name, data = members[at]
    if what == 1:
        members[at] = (random.choice((f"../{name}", f"/{name}", f"{name}/", name * 40, "\x1b[31m", "a\\b")), data)
    elif what == 2:
        members.append((name, data))
    elif what == 3:
        del members[at]
    else:
        members[at] = (name, change(random, name, data))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", packing) as file:
        for name, data in members:
            file.writestr(zipfile.ZipInfo(name[:60000]), data, packing)
    return made.getvalue()


def safetensors(random: Random, content: bytes) -> bytes:
    """Change the header's length, or one entry of a tensor."""
    length = int.from_bytes(content[:8], "little")
    if not 2 <= length <= len(content) - 8:
        return content
    if random.random() < 0.15:
        return random.choice((*NUMBERS, 2**63, length - 1, length + 1)).to_bytes(8, "little") + content[8:]
    if random.random() < 0.2:  # weights that are no numbers
        at = 8 + length + 4 * random.randrange(max(1, (len(content) - 8 - length) // 4))
        return content[:at] + struct.pack("<f", random.choice(REALS[:4])) + content[at + 4 :]
    header = trees.change(random, content[8 : 8 + length])
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def protobuf(random: Random, content: bytes) -> bytes:
    """A field at any depth is left out, doubled, or has another value; the lengths around it are kept right."""
    fields = _fields(content)
    if not fields:
        return content
    number, wire, value = fields[at := random.randrange(len(fields))]
    if wire == 2 and isinstance(value, bytes) and len(value) > 1 and random.random() < 0.75 and _fields(value):
        fields[at] = (number, wire, protobuf(random, value))
        return _packed(fields)
    what = random.randrange(5)
    if what == 0:
        del fields[at]
    elif what == 1:
        fields.insert(at, fields[at])
    elif what == 2:
        fields[at] = (random.choice((number + 1, 1, 7, 536870911)), wire, value)
    elif isinstance(value, int):
        fields[at] = (number, wire, random.choice((*NUMBERS, 2**63, 2**64 - 1, value + 1)) % 2**64)
    else:
        some = (b"", value * 2, value[:-1], b"\xff" * 4, b"../../etc/passwd", value[::-1], bytes(len(value)), b"9" * 99)
        fields[at] = (number, wire, random.choice(some) if wire == 2 else random.randbytes(len(value)))
    return _packed(fields)


def _varint(content: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = content[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
        if shift > 63:
            raise ValueError


def _fields(content: bytes) -> list[tuple[int, int, int | bytes]]:
    """(number, type, value) of a message, [] where it is none."""
    found: list[tuple[int, int, int | bytes]] = []
    at = 0
    try:
        while at < len(content):
            key, at = _varint(content, at)
            number, wire = key >> 3, key & 7
            if wire == 0:
                value, at = _varint(content, at)
                found.append((number, wire, value))
                continue
            length = {1: 8, 5: 4}.get(wire, -1)
            if wire == 2:
                length, at = _varint(content, at)
            if number == 0 or not 0 <= length <= len(content) - at:
                return []
            found.append((number, wire, content[at : at + length]))
            at += length
    except (IndexError, ValueError):
        return []
    return found


def _packed(fields: list[tuple[int, int, int | bytes]]) -> bytes:
    def varint(number: int) -> bytes:
        made = bytearray()
        while number > 127:
            made.append(number & 127 | 128)
            number >>= 7
        return bytes([*made, number])

    made = b""
    for number, wire, value in fields:
        made += varint(number << 3 | wire)
        made += varint(value) if isinstance(value, int) else (varint(len(value)) if wire == 2 else b"") + value
    return made
