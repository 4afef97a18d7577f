"""The DICOM objects among the reports of a run, with the sha256 that each was written with."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, cast

from ...readers.files import parse_json, read_file, write_atomic
from ...reports.dicom.objects import KINDS
from ...reports.writer import Record, Writer
from ..progress import EventHandler
from .reporting import WrittenReport, write_reports
from .run_files import as_store_errors

OBJECTS: Final = "objects.json"


def write_run_reports(
    record: Record, folder: Path, writers: Sequence[Writer], on_event: EventHandler
) -> tuple[WrittenReport, ...]:
    """Write reports into the folder of their run, and note the sha256 of each DICOM object.

    Raises `StoreError` where that cannot be noted.
    """
    written = tuple(write_reports(record, folder, writers, on_event))
    note_objects(folder, (path for report in written for path in report.paths))
    return written


def find_objects(folder: Path) -> list[Path]:
    """The DICOM objects at the top of a run folder, by their names."""
    return sorted(path for path in folder.glob("*.dcm") if path.name.partition("-")[0] in KINDS)


def note_objects(folder: Path, paths: Iterable[Path]) -> None:
    """Note the sha256 of those of the files that are DICOM objects. Raises `StoreError`."""
    objects = {path.name for path in find_objects(folder)}
    new = [path for path in paths if path.parent == folder and path.name in objects]
    if new:
        with as_store_errors(folder):
            kept = {name: digest for name, digest in noted_objects(folder).items() if name in objects}
            noted = kept | {path.name: file_sha256(path) for path in new}
            write_atomic(folder / OBJECTS, json.dumps(noted, indent=1, sort_keys=True).encode() + b"\n", private=True)


def noted_objects(folder: Path) -> dict[str, str]:
    """The sha256 of the objects that limner wrote into a run folder, by name; {} where none is known."""
    try:
        found: object = parse_json(read_file(folder / OBJECTS, regular=True))
    except (OSError, ValueError):
        return {}
    names = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    return {name: digest for name, digest in names.items() if isinstance(digest, str)}


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal. Raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
