"""Scanning a file, a folder, a zip archive or a DICOMDIR: the stacks in it, and the outcome of each file.

Every file has exactly one outcome. Nothing is parsed here: the sandboxed process does that.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .decoder import Decoder
from .faults import FaultError, reason
from .series import GroupedFiles, ImageFile, group_into_stacks
from .sop_classes import skip_reason
from .source import DICOMDIR, HEAD_BYTES, MEMBER_SEPARATOR, Kind, is_executable, sniff

DUPLICATE = "a duplicate, byte for byte, of another file"
_CONFLICT = "must not share its SOP Instance UID with a file of other bytes; the other file was kept"


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """The outcome of one file."""

    source: str
    status: Literal["read", "skipped", "failed"]
    reason: str = ""
    study: str = ""
    foreign: bool = False
    """Whether it is not DICOM at all: another reader may read it."""
    fault: FaultError | None = None


@dataclass
class DicomScan:
    """The stacks of an input, and the outcome of each of its files, sorted by source."""

    grouped: GroupedFiles = field(default_factory=GroupedFiles)
    outcomes: list[FileOutcome] = field(default_factory=list[FileOutcome])

    def of_study(self, study: str) -> list[FileOutcome]:
        """The outcomes of the files of one study, by its UID."""
        return [outcome for outcome in self.outcomes if outcome.study == study]


def scan_input(uri: str, decoder: Decoder) -> DicomScan:
    """Scan all files of an input. Raises `FaultError` where an archive or DICOMDIR cannot be opened at all."""
    return _scan_sources(list(_sources(uri, decoder)), decoder)


def scan_files(paths: Sequence[str], decoder: Decoder) -> DicomScan:
    """Scan these files, and no others beside them."""
    return _scan_sources([(path, _head_kind(path), "") for path in paths], decoder)


def _scan_sources(sources: Sequence[tuple[str, Kind, str]], decoder: Decoder) -> DicomScan:
    """Scan sources by (source, kind, fault code)."""
    found = DicomScan()
    files: list[ImageFile] = []
    headers = decoder.headers([source for source, kind, code in sources if kind and not code])
    for source, kind, code in sources:
        metadata = FaultError(code or "not-dicom") if code or not kind else next(headers)
        if isinstance(metadata, FaultError):
            foreign = metadata.code == "not-dicom"
            status = "skipped" if foreign else "failed"
            found.outcomes.append(FileOutcome(source, status, reason(metadata), foreign=foreign, fault=metadata))
            continue
        why = skip_reason(metadata)
        if why:
            found.outcomes.append(FileOutcome(source, "skipped", why, metadata.study))
        else:
            files.append(ImageFile(source, metadata))
    found.grouped = group_into_stacks(files, decoder.digest)
    kept = {one.file.source: one.file for stack in found.grouped.stacks for one in stack.slices}
    found.outcomes += [_outcome(file, kept.get(file.source), found.grouped) for file in files]
    found.outcomes.sort(key=lambda outcome: outcome.source)
    return found


def has_dicom(root: str, most: int = 5000) -> bool:
    """Whether a folder or a folder in it has DICOM, by the first bytes of at most `most` files."""
    for count, path in enumerate(walk(root)):
        if count >= most:
            return False
        if _head_kind(path) in {"dicom", "no-preamble"}:
            return True
    return False


def walk(root: str) -> Iterator[str]:
    """Files in a folder and below, sorted, without hidden ones; links to folders are not followed."""
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(place, name) for name in sorted(names) if not name.startswith("."))


def _sources(uri: str, decoder: Decoder) -> Iterator[tuple[str, Kind, str]]:
    """(source, kind, fault code) of every file in an input."""
    path = Path(uri)
    if path.is_dir():
        for name in walk(uri):
            kind = _head_kind(name)
            yield name, "" if kind == "zip" else kind, ""
        if (path / DICOMDIR).is_file():
            yield from _missing(str(path / DICOMDIR), decoder)
    elif path.name == DICOMDIR and _head_kind(uri) == "dicom":
        for name in walk(str(path.parent)):
            yield name, _head_kind(name), ""
        yield from _missing(uri, decoder)
    elif _head_kind(uri) == "zip":
        for name, kind, code in decoder.members(uri):
            yield f"{uri}{MEMBER_SEPARATOR}{name}", kind, code
    else:
        yield uri, _head_kind(uri), ""


def _missing(dicomdir: str, decoder: Decoder) -> Iterator[tuple[str, Kind, str]]:
    """The files that a DICOMDIR lists and its folder lacks. A DICOMDIR is only a hint: the folder counts."""
    root = Path(dicomdir).parent
    try:
        listed = decoder.dicomdir(dicomdir)
    except FaultError:
        return  # the DICOMDIR has an outcome of its own
    present = {os.path.normcase(os.path.relpath(name, root)) for name in walk(str(root))}
    for parts in listed:
        name = os.path.normcase(os.path.join(*parts)) if parts else ""
        if name and name not in present:
            yield f"{dicomdir}{MEMBER_SEPARATOR}{'/'.join(parts)}", "", "listed"


def _head(path: str) -> bytes:
    """The first bytes of a plain file; b"" for pipes and devices, which may block, and for unreadable files."""
    try:
        if not Path(path).is_file():
            return b""
        with Path(path).open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""


def _head_kind(path: str) -> Kind:
    return sniff(_head(path))


def _outcome(file: ImageFile, kept: ImageFile | None, grouped: GroupedFiles) -> FileOutcome:
    study = kept.study if kept else file.metadata.study
    if file.source in grouped.duplicates:
        return FileOutcome(file.source, "skipped", DUPLICATE, study)
    if file.source in grouped.conflicts:
        return FileOutcome(file.source, "failed", _CONFLICT, study)
    notes = [
        "it has no DICOM preamble" if not file.metadata.header else "",
        "UIDs that it lacks were made from its content" if kept and kept.synthesised else "",
        "its preamble begins like a program" if is_executable(_head(file.source)) else "",
    ]
    return FileOutcome(file.source, "read", "; ".join(filter(None, notes)), study)
