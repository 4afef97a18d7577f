"""What a scan of DICOM files found: the metadata of each stack, and the errors about those that cannot be read."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from ..errors import ReadError
from ..image import ImageInfo
from ..pseudonyms import Pseudonyms
from .decoder import Decoder
from .faults import FaultError, as_error
from .image_info import image_info
from .scan import DicomScan, scan_input
from .source import DICOMDIR


def scan_stacks(uri: str, names: Pseudonyms) -> DicomScan:
    """Scan an input. Raises `ReadError` where it cannot be opened at all."""
    try:
        return scan_input(uri, Decoder())
    except FaultError as fault:
        raise as_error(names.path(uri), fault) from None


def stack_infos(
    uri: str, found: DicomScan, names: Pseudonyms, *, window: str, suv: bool
) -> list[tuple[ImageInfo, tuple[object, ...]]]:
    """The metadata of each stack that was found, not yet numbered, and its sort key."""
    tables = Decoder().table
    archive = Path(uri).is_file() and Path(uri).name != DICOMDIR  # one row in files.csv: notes list its other files
    infos: list[tuple[ImageInfo, tuple[object, ...]]] = []
    for number, stack in enumerate(found.grouped.stacks):
        first = stack.first
        converted = suv and first.metadata.modality == "PT"
        if converted and any(one.metadata.suv for one in stack.slices):
            continue  # `without_suv` tells of it
        outcomes = found.of_study(first.file.study)
        info = image_info(
            stack, f"stack{number}", names, window=window, suv=converted, outcomes=outcomes, tables=tables
        )
        infos.append((_with_archive_note(info, found) if archive else info, stack.order))
    return infos


def without_suv(found: DicomScan, names: Pseudonyms, *, suv: bool) -> list[tuple[tuple[str, ...], ReadError]]:
    """The files of each stack whose values cannot become SUV though `suv` asks for it, with the error."""
    failed: list[tuple[tuple[str, ...], ReadError]] = []
    for stack in found.grouped.stacks if suv else ():
        faulty = [one for one in stack.slices if one.metadata.suv]
        if faulty and stack.first.metadata.modality == "PT":
            error = as_error(names.path(faulty[0].file.source), FaultError("suv", faulty[0].metadata.suv))
            failed.append((tuple(sorted({one.file.source for one in stack.slices})), error))
    return failed


def archive_has_dicom(uri: str) -> bool:
    """Whether a zip archive holds DICOM."""
    try:
        return any(kind for _, kind, _ in Decoder().members(uri))
    except FaultError:
        return False


def conflict(subject: str, why: str) -> ReadError:
    """The error about files that contradict each other."""
    return ReadError(subject, why, remedy="Find out which of the two files is right, and remove the other")


def _with_archive_note(info: ImageInfo, found: DicomScan) -> ImageInfo:
    """The image with a note on the other files of its archive, which has one row in files.csv."""
    counts = Counter(outcome.reason for outcome in found.outcomes if outcome.status != "read")
    if not counts:
        return info
    rest = "; ".join(f"{count} × {reason}" for reason, count in sorted(counts.items()))
    return replace(info, notes=(*info.notes, f"left out of its archive: {rest}"))
