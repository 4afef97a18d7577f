"""Every built-in writer fulfils the contract, and each broken rule of a writer is reported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from limner.pipelines.run.reporting import load_writers
from limner.reports.contract import check_writer, hostile_record
from limner.reports.writer import DISCLAIMER, Record, Writer

OURS = sorted(point.name for point in entry_points(group="limner.writers") if point.value.startswith("limner."))


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
def test_built_in_writers_fulfil_the_contract(name: str, tmp_path: Path) -> None:
    (writer,) = load_writers([name])
    check_writer(writer, None, tmp_path)


@dataclass
class Texts:
    """A writer of a text file with placeholders for parts of the record."""

    text: str
    file: str = "texts.txt"
    name: str = "texts"
    why: Mapping[str, str] | None = None
    written: int = 0

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write the text."""
        self.written += 1
        for image in record.images:
            image.findings()
        uris = [image.info.uri for image in record.images]
        path = folder / self.file
        text = self.text.format(use=record.use, uris=uris, count=self.written)
        path.write_text(text, encoding="utf-8", newline="")
        return [path]

    def omitted(self, record: Record) -> Mapping[str, str]:  # noqa: ARG002 - the same of any
        """Give what was given."""
        return self.why or {}


def test_a_correct_writer_passes(tmp_path: Path) -> None:
    check_writer(Texts("lymphocyte: {use}\n"), hostile_record(), tmp_path)


@pytest.mark.parametrize(
    ("writer", "sentence"),
    [
        (Texts("{use}", name=""), "a writer must have a name"),
        (Texts("{use}", file="../texts.txt"), "files must be in the given folder"),
        (Texts("{count}"), "the same bytes"),
        (Texts("lymphocyte"), "must hold: Research use only"),
        (Texts("{use} {uris}"), "no report may hold paths"),
        (Texts("{use}\x07"), "no control"),
        (Texts("lymphocyte,=1+1,{use}\n", file="a.csv"), "formula"),
        (Texts("lymphocyte\n{use},b\n", file="a.csv"), "all columns"),
        (Texts("{use}", why={"another": "reason"}), "images of the run"),
        (Texts("{use}", why={"study-1": ""}), "must have a reason"),
    ],
)
def test_a_broken_rule_is_reported(writer: Writer, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_writer(writer, None, tmp_path)


def test_json_is_strict(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="NaN"):
        check_writer(Texts('{{"use": "{use}", "area": NaN}}', file="a.json"), None, tmp_path)


class Untidy(Texts):
    """A writer that leaves a file behind when it fails."""

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write the text, with another file beside it for a while."""
        (folder / ".part").write_text(DISCLAIMER, encoding="utf-8")
        paths = super().write(record, folder)
        (folder / ".part").unlink()
        return paths


def test_files_left_behind_by_a_failure_are_reported(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="half-written"):
        check_writer(Untidy("{use}"), None, tmp_path)
