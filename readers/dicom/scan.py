"""Everything that a file, a folder, a zip archive or a DICOMDIR holds of DICOM, and what became of each file.

Every file has exactly one fate. Nothing is parsed here: the limited process answers what a file is.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .decoder import Decoder
from .faults import FaultError, reason
from .series import File, Series, build
from .sop_classes import why_skipped
from .source import HEAD, JOINT, Kind, sniff, suspicious

LISTING = "DICOMDIR"


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """What became of one file. `foreign` marks what is not DICOM at all and may be another reader's."""

    source: str
    status: Literal["read", "skipped", "failed"]
    reason: str = ""
    study: str = ""
    foreign: bool = False
    fault: FaultError | None = None


@dataclass
class DicomScan:
    """An input's stacks, and a fate for each of its files, sorted by source. UIDs are the files' own, or made up."""

    series: Series = field(default_factory=Series)
    fates: list[FileOutcome] = field(default_factory=list[FileOutcome])

    def of_study(self, study: str) -> list[FileOutcome]:
        """The fates of the files of one study, by its UID."""
        return [fate for fate in self.fates if fate.study == study]


def survey(uri: str, decoder: Decoder) -> DicomScan:
    """Look at everything in an input. Raises `FaultError` where an archive or listing cannot be opened at all."""
    found = DicomScan()
    files: list[File] = []
    for source, kind, fault in _sources(uri, decoder):
        if fault or not kind:
            code = FaultError(fault or "not-dicom")
            found.fates.append(_lost(source, code, foreign=code.code == "not-dicom"))
            continue
        try:
            facts = decoder.header(source)
        except FaultError as error:
            foreign = error.code == "not-dicom"
            found.fates.append(_lost(source, error, foreign=foreign))
            continue
        why = why_skipped(facts)
        if why:
            found.fates.append(FileOutcome(source, "skipped", why, facts.study))
        else:
            files.append(File(source, facts))
    series = found.series = build(files, decoder.digest)
    named = {one.file.source: one.file for stack in series.stacks for one in stack.slices}
    for file in files:
        found.fates.append(_fate(file, series, named))
    found.fates.sort(key=lambda fate: fate.source)
    return found


def has_dicom(root: str, most: int = 5000) -> bool:
    """Whether a folder, or a folder within it, holds DICOM: by the first bytes of at most so many files."""
    for count, path in enumerate(walk(root)):
        if count >= most:
            return False
        if _head_kind(path) in {"dicom", "bare"}:
            return True
    return False


def walk(root: str) -> Iterator[str]:
    """Files in a folder and below, sorted; what begins with a dot is not looked at, links to folders not followed."""
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(place, name) for name in sorted(names) if not name.startswith("."))


def _sources(uri: str, decoder: Decoder) -> Iterator[tuple[str, Kind, str]]:
    """(source, what it is, fault code) of every file in an input."""
    path = Path(uri)
    if path.is_dir():
        for name in walk(uri):
            kind = _head_kind(name)
            yield name, "" if kind == "zip" else kind, ""
        if (path / LISTING).is_file():
            yield from _missing(str(path / LISTING), decoder)
    elif path.name == LISTING and _head_kind(uri) == "dicom":
        for name in walk(str(path.parent)):
            yield name, _head_kind(name), ""
        yield from _missing(uri, decoder)
    elif _head_kind(uri) == "zip":
        for name, kind, fault in decoder.members(uri):
            yield f"{uri}{JOINT}{name}", kind, fault
    else:
        yield uri, _head_kind(uri), ""


def _missing(listing: str, decoder: Decoder) -> Iterator[tuple[str, Kind, str]]:
    """What a DICOMDIR lists and the folder does not hold. The listing is a hint: the folder is what counts."""
    root = Path(listing).parent
    try:
        listed = decoder.listing(listing)
    except FaultError:
        return  # it has a row of its own
    there = {os.path.normcase(os.path.relpath(name, root)) for name in walk(str(root))}
    for parts in listed:
        name = os.path.normcase(os.path.join(*parts)) if parts else ""
        if name and name not in there:
            yield f"{listing}{JOINT}{'/'.join(parts)}", "", "listed"


def _head_kind(path: str) -> Kind:
    try:
        if not Path(path).is_file():
            return ""  # a pipe or a device: opening it may never end
        with Path(path).open("rb") as file:
            return sniff(file.read(HEAD))
    except OSError:
        return ""


def _fate(file: File, series: Series, named: dict[str, File]) -> FileOutcome:
    study = named[file.source].study if file.source in named else file.facts.study
    if file.source in series.duplicates:
        return FileOutcome(file.source, "skipped", "a duplicate, byte for byte, of another file", study)
    if file.source in series.conflicts:
        return FileOutcome(
            file.source,
            "failed",
            "another file has the same SOP Instance UID and other bytes; that one was kept",
            study,
        )
    remarks = [
        "it has no DICOM preamble" if not file.facts.header else "",
        "UIDs that it lacks were made from its content" if named[file.source].made else "",
        "its preamble begins like a program" if _is_suspicious(file.source) else "",
    ]
    return FileOutcome(file.source, "read", "; ".join(filter(None, remarks)), study)


def _lost(source: str, fault: FaultError, *, foreign: bool) -> FileOutcome:
    return FileOutcome(source, "skipped" if foreign else "failed", reason(fault), foreign=foreign, fault=fault)


def _is_suspicious(source: str) -> bool:
    try:
        with Path(source).open("rb") as file:
            return suspicious(file.read(8))
    except OSError:
        return False
