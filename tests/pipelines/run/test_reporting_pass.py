"""Reports that are written together, in one pass over the findings."""

import errno
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import SpooledTemporaryFile

import pytest
from limner.model import sorting
from limner.model.finding import Finding
from limner.model.findings_table import FindingsTable, Index
from limner.model.merged_findings import MergedFindings, arranged
from limner.model.sorting import RECORD
from limner.pipelines.progress import Event, Reporting
from limner.pipelines.run.reporting import load_writers, write_reports
from limner.reports.contract import hostile_record
from limner.reports.streams import Stream
from limner.reports.writer import Record

STREAMING = ["findings-csv", "geojson", "geoparquet", "overview-png", "summary-csv"]


@dataclass
class Failing:
    """Fails at a batch, or at the end."""

    at: int
    name: str = "failing"
    closed: bool = False

    def stream(self, record: Record, folder: Path) -> Stream:  # noqa: ARG002 - writes nothing
        """Count the batches."""
        try:
            for _ in range(self.at):
                yield
            raise RuntimeError("a part of /data/of-mine")
        finally:
            self.closed = True

    def write(self, record: Record, folder: Path) -> Sequence[Path]:  # noqa: ARG002 - as above
        """Is not called."""
        raise AssertionError

    def omitted(self, record: Record) -> Mapping[str, str]:  # noqa: ARG002 - nothing
        """Nothing."""
        return {}


def test_a_pass_gives_the_bytes_of_each_writer_alone(tmp_path: Path) -> None:
    together, alone = tmp_path / "together", tmp_path / "alone"
    together.mkdir()
    alone.mkdir()
    record, writers = hostile_record(), load_writers([*STREAMING, "files-csv"])
    names = [path.name for made in write_reports(record, together, writers) for path in made.paths]
    for writer in writers:
        writer.write(record, alone)
    assert sorted(path.name for path in alone.iterdir()) == sorted(names)
    assert [(alone / name).read_bytes() for name in names] == [(together / name).read_bytes() for name in names]


def test_findings_are_read_once(tmp_path: Path) -> None:
    (first, *_), read = hostile_record().images, list[int]()

    class Counted(MergedFindings):
        """Findings that count how often some are read."""

        def take(self, places: Index | slice) -> FindingsTable:
            read.append(1)
            return super().take(places)

    found = arranged([FindingsTable.of(first.findings())])
    counted = Counted(**{one.name: getattr(found, one.name) for one in fields(found)})
    record = replace(hostile_record(), images=(replace(first, findings=lambda: counted),))
    assert not any(made.error for made in write_reports(record, tmp_path, load_writers(STREAMING)))
    assert len(read) == 1


def test_a_writer_that_fails_does_not_prevent_the_others(tmp_path: Path) -> None:
    for at in (0, 1, 3, 4):
        failing = Failing(at)
        made = list(write_reports(hostile_record(), tmp_path, [failing, *load_writers(["geojson"])]))
        assert "a bug of the writer" in made[0].error
        assert (made[1].error, [path.name for path in made[1].paths]) == ("", ["findings.geojson"])
        assert failing.closed


def test_findings_that_cannot_be_read_are_told_of_every_report(tmp_path: Path) -> None:
    def broken() -> Sequence[Finding]:
        raise OSError(5, "Input/output error")

    record = hostile_record()
    images = (record.images[0], replace(record.images[1], findings=broken))
    made = list(write_reports(replace(record, images=images), tmp_path, load_writers(STREAMING)))
    assert all("Input/output error" in one.error for one in made)
    assert list(tmp_path.iterdir()) == []


def test_a_full_folder_of_temporary_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Findings are sorted there, where they are many."""

    class Full(SpooledTemporaryFile[bytes]):
        def write(self, content: object) -> int:  # pyright: ignore[reportIncompatibleMethodOverride] - as short
            raise OSError(errno.ENOSPC, f"No space left for {len(bytes(content))} bytes")  # pyright: ignore[reportArgumentType]

    record = hostile_record()
    many = list(record.images[0].findings())
    images = [replace(one, findings=lambda: arranged([FindingsTable.of(many)])) for one in record.images]
    monkeypatch.setattr(sorting, "_RUN", len(many))
    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", Full)
    monkeypatch.setattr(tempfile, "tempdir", "/temporary/files")
    for one in write_reports(replace(record, images=tuple(images)), tmp_path, load_writers(["findings-csv"])):
        assert "the folder of temporary files, /temporary/files, must be writable" in one.error
        assert f"No space left for {RECORD.itemsize * len(many)} bytes" in one.error
    assert list(tmp_path.iterdir()) == []


def test_progress_goes_from_nothing_to_all(tmp_path: Path) -> None:
    events: list[Event] = []
    list(write_reports(hostile_record(), tmp_path, load_writers([*STREAMING, "files-csv"]), events.append))
    shares = [event.share for event in events if isinstance(event, Reporting)]
    assert shares == sorted(shares)
    assert (len(shares) >= 5, min(shares) < 0.5, shares[-1]) == (True, True, 1.0)
