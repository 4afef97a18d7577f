"""New folders for results, and what is written about them."""

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...readers.errors import RequestError
from ...readers.files import atomic_path
from ...reports.writer import Record
from ..run.reporting import load_writers, write_reports
from ..run.run_files import StoreError, as_store_errors


@contextmanager
def new_folder(out: Path) -> Generator[Path]:
    """A folder that replaces nothing and appears once all that is written into it is whole.

    Raises `RequestError` where `out` exists, and `StoreError` where it cannot be written.
    """
    if out.is_symlink() or out.exists():
        raise RequestError(str(out), "must be a new folder", remedy="Remove it, or give another --out")
    with as_store_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(out) as part:
            part.mkdir()
            yield part


def write_statements(folder: Path, use: str, statements: Sequence[str], more: Mapping[str, object]) -> Path:
    """Write about.json: what the results may be used for, what must be known of them, and how they were made."""
    path = folder / "about.json"
    text = json.dumps({"use": use, "statements": list(statements), **more}, ensure_ascii=False, indent=1)
    with atomic_path(path) as part:
        part.write_text(f"{text}\n", encoding="utf-8")
    return path


def write_layers(record: Record, folder: Path, name: str, writers: Sequence[str] = ()) -> list[Path]:
    """Write findings with some writers, or as CSV, GeoPackage, GeoParquet and GeoJSON, those that suit the image.

    Slides have QuPath's GeoJSON. Files are named `name` instead of findings. Raises `StoreError` where one cannot be
    written.
    """
    slides = any(image.info.placement.crs is None for image in record.images)
    names = ["findings-csv", "summary-csv", *(["qupath"] if slides else ["geojson", "geopackage", "geoparquet"])]
    paths: list[Path] = []
    for report in write_reports(record, folder, load_writers(writers or names)):
        if report.error:
            remedy = "Free disk space, or give another --out"
            raise StoreError(f"the report {report.writer}", "must be written", value=report.error, remedy=remedy)
        for path in report.paths:
            renamed = path.with_name(path.name.replace("findings", name, 1))
            paths.append(path.rename(renamed))
    return paths
