"""Sources of DICOM bytes: a path, or a member of a zip archive, named `path!/member`; and what their first bytes are.

Only plain files and archives are opened, and nothing inflates beyond a limit. No DICOM is parsed here.
"""

import io
import re
import stat
import struct
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Literal

from .faults import FaultError

Kind = Literal["dicom", "no-preamble", "zip", ""]
"""DICOM with a preamble, a data set without one, a zip archive, or none of these."""

MEMBER_SEPARATOR = "!/"
DICOMDIR = "DICOMDIR"
HEAD_BYTES = 4096
MAX_MEMBERS = 100_000
MAX_ARCHIVE_BYTES = 256 * 2**30  # of all members, inflated
MAX_INFLATED_BYTES = 256 * 2**20  # of one member or data set
MAX_FRAME_PIXELS = 2**26  # pixels times samples of one frame
MAX_FRAMES = 20_000
DEFLATED = "1.2.840.10008.1.2.1.99"

_EXPLICIT_VR = re.compile(rb"^(?:AE|AS|AT|CS|DA|DS|DT|FL|FD|IS|LO|LT|OB|OW|PN|SH|SL|SQ|SS|ST|TM|UI|UL|UN|US|UT)$")
_GROUPS = (0x0002, 0x0004, 0x0008)
_MAX_ELEMENT = 1024  # bytes: the first elements of a data set are short
_LONG_VR = {b"OB", b"OW", b"SQ", b"UN", b"UT"}
_EXECUTABLE = (b"MZ", b"\x7fELF", b"#!", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe", b"\xfe\xed\xfa")


def sniff(head: bytes) -> Kind:
    """The kind of a file by its first bytes."""
    if head[128:132] == b"DICM":
        return "dicom"
    if head[:4] == b"PK\x03\x04":
        return "zip"
    return "no-preamble" if _is_data_set(head) else ""


def is_executable(head: bytes) -> bool:
    """Whether a preamble begins like a program: such a file is both DICOM and executable."""
    return head.startswith(_EXECUTABLE)


def _is_data_set(head: bytes) -> bool:
    """Whether this begins with two elements in ascending order, in explicit or implicit VR, little or big endian."""
    return any(_two_elements(head, order, explicit) for order, explicit in (("<", True), (">", True), ("<", False)))


def _two_elements(head: bytes, order: str, explicit: bool) -> bool:
    at, last = 0, -1
    for _ in range(2):
        if len(head) < at + 12:
            return False
        group, element = struct.unpack_from(f"{order}HH", head, at)
        vr = head[at + 4 : at + 6]
        if explicit and not _EXPLICIT_VR.match(vr):
            return False
        if not explicit:
            (length,) = struct.unpack_from(f"{order}I", head, at + 4)
            start = at + 8
        elif vr in _LONG_VR:
            (length,) = struct.unpack_from(f"{order}I", head, at + 8)
            start = at + 12
        else:
            (length,) = struct.unpack_from(f"{order}H", head, at + 6)
            start = at + 8
        tag = group << 16 | element
        if group not in _GROUPS or tag <= last or length > _MAX_ELEMENT or length % 2:
            return False
        at, last = start + length, tag
    return True


def split_member(source: str) -> tuple[Path, str]:
    """(file, member); the member is "" where the source is a plain file."""
    if MEMBER_SEPARATOR not in source or Path(source).exists():
        return Path(source), ""
    at = source.find(MEMBER_SEPARATOR)
    while at >= 0:
        if Path(source[:at]).is_file():
            return Path(source[:at]), source[at + len(MEMBER_SEPARATOR) :]
        at = source.find(MEMBER_SEPARATOR, at + 1)
    return Path(source), ""


def open_source(source: str) -> io.BufferedReader | io.BytesIO:
    """Open a source for reading, seekable. Raises `FaultError`."""
    path, member = split_member(source)
    try:
        if not member:
            return path.open("rb")
        return io.BytesIO(_member(_archive(str(path), path.stat().st_mtime_ns), member))
    except (FileNotFoundError, PermissionError, IsADirectoryError, KeyError) as error:
        raise FaultError("missing") from error
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise FaultError("archive" if member else "missing", type(error).__name__) from error


def modified_ns(source: str) -> int:
    """The modification time of a source's file in nanoseconds. Raises `FaultError` where it is gone."""
    try:
        return split_member(source)[0].stat().st_mtime_ns
    except OSError as error:
        raise FaultError("missing") from error


@lru_cache(maxsize=1)
def _archive(path: str, changed: int) -> zipfile.ZipFile:
    """An archive, kept open for its next member; `changed` is its modification time."""
    del changed
    return zipfile.ZipFile(path)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.flag_bits & 1:
        raise FaultError("encrypted")
    if info.file_size > MAX_INFLATED_BYTES:
        raise FaultError("inflated", f"{info.file_size} bytes")
    with archive.open(info) as file:
        data = file.read(MAX_INFLATED_BYTES + 1)
    if len(data) > MAX_INFLATED_BYTES:
        raise FaultError("inflated", f"more than {MAX_INFLATED_BYTES} bytes")
    return data


def members(path: str) -> list[tuple[str, Kind, str]]:
    """(name, kind, fault code) of every file in an archive, sorted by name. Raises `FaultError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            if len(infos) > MAX_MEMBERS:
                raise FaultError("archive-size", f"{len(infos)} members")
            if sum(info.file_size for info in infos) > MAX_ARCHIVE_BYTES:
                raise FaultError("archive-size", f"more than {MAX_ARCHIVE_BYTES} bytes")
            rows = [(info.filename, *_check_member(archive, info)) for info in infos]
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise FaultError("archive", type(error).__name__) from error
    return sorted(rows)


def _check_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[Kind, str]:
    parts = re.split(r"[/\\]", info.filename)
    link = stat.S_ISLNK(info.external_attr >> 16)
    if link or ".." in parts or not parts[0] or re.match(r"^[A-Za-z]:", info.filename):
        return "", "unsafe-name"
    if info.flag_bits & 1:
        return "", "encrypted"
    try:
        with archive.open(info) as file:
            kind = sniff(file.read(HEAD_BYTES))
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError):
        return "", "archive"
    if kind == "zip":
        return "", "nested-archive"
    return (kind, "") if kind else ("", "not-dicom")


def transfer_syntax(file: BinaryIO) -> tuple[str, int]:
    """(transfer syntax UID or "", offset of the data set) by the file's meta group, if it has one."""
    file.seek(0)
    head = file.read(HEAD_BYTES * 16)
    at = 132 if head[128:132] == b"DICM" else 0
    found = ""
    while len(head) >= at + 12 and struct.unpack_from("<H", head, at)[0] == 0x0002:
        element, vr = struct.unpack_from("<H", head, at + 2)[0], head[at + 4 : at + 6]
        if vr in _LONG_VR:
            start, length = at + 12, struct.unpack_from("<I", head, at + 8)[0]
        else:
            start, length = at + 8, struct.unpack_from("<H", head, at + 6)[0]
        if element == 0x0010:
            found = head[start : start + length].rstrip(b"\0 ").decode("ascii", "replace")
        at = start + length
    return found, at


def inflate(file: BinaryIO) -> BinaryIO:
    """The file itself, or a copy with its data set inflated where that is deflated. Raises `FaultError`."""
    syntax, offset = transfer_syntax(file)
    file.seek(0)
    if syntax != DEFLATED:
        return file
    file.seek(offset)
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    name = b"1.2.840.10008.1.2.1\0"
    meta = struct.pack("<HH2sH", 2, 0x0010, b"UI", len(name)) + name
    whole = io.BytesIO()
    whole.write(b"\0" * 128 + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta)) + meta)
    try:
        while piece := file.read(2**20):
            while piece:
                part = stream.decompress(piece, 2**20)
                if whole.tell() + len(part) > MAX_INFLATED_BYTES:
                    raise FaultError("inflated", f"more than {MAX_INFLATED_BYTES} bytes")
                whole.write(part)
                piece = stream.unconsumed_tail
    except zlib.error as error:
        raise FaultError("damaged", "deflate stream") from error
    whole.seek(0)
    return whole
