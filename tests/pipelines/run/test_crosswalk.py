"""Runs with a project's own pseudonyms, and joining their tables to the export of a PACS."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import
NAME = "CANARYBIRD"
WIDE = {"WindowCenter": 4000, "WindowWidth": 10000}
REPORTS = "findings-csv,studies-csv,files-csv,summary-csv,study-html"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def ward(tmp_path: Path, making: ModuleType, make_slide: Callable[..., Path]) -> Path:
    """Two studies and a slide, all called after a patient."""
    folder = tmp_path / NAME
    for study in (1, 2):
        uids = {"StudyInstanceUID": f"1.2.3.{study}", "SeriesInstanceUID": f"1.2.3.{study}.7"}
        for k, data in enumerate(making.slices(3, **uids, **WIDE)):
            data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{study}.7.{k + 1}"
            making.save(data, folder / f"{NAME}{study}" / f"{NAME}_{k}.dcm")
    make_slide(folder / f"{NAME} A1.tif")
    return folder


@pytest.fixture
def listed(tmp_path: Path, ward: Path) -> Path:
    """The crosswalk of the first study and the slide, with an entry that matches nothing."""
    path = tmp_path / f"{NAME} list.csv"
    path.write_text(f"original,pseudonym\n1.2.3.1,P001\n{ward / f'{NAME} A1.tif'},case-17\n1.2.3.9,P009\n")
    return path


def run(limner: Limner, ward: Path, model: str, listed: Path, out: Path, *more: object) -> Any:
    words = ("--model", model, "--reports", REPORTS, "--crosswalk", listed, "--out", out)
    return limner("run", ward, *words, *more)


def test_chosen_names_are_in_every_table_and_originals_in_none(
    tmp_path: Path, ward: Path, listed: Path, per_tile: str, limner: Limner
) -> None:
    out = tmp_path / "out"
    said = run(limner, ward, per_tile, listed, out)
    assert said.code == 0, said.err
    assert "1 of 3 entries of the crosswalk match nothing in the inputs: lines 4." in said.err
    assert {row["study_uid"] for row in rows(out / "studies.csv")} >= {"P001"}
    other = next(row["study_uid"] for row in rows(out / "studies.csv") if row["study_uid"] != "P001")
    assert other.startswith("2.25.")
    assert "case-17" in {row["path"] for row in rows(out / "files.csv")}
    assert "case-17" in {row["name"] for row in rows(out / "summary.csv")}
    assert (out / "study-P001.html").is_file()
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["config"]["crosswalk"].startswith("crosswalk-")
    for path in out.rglob("*"):
        held = path.is_file() and NAME.encode() in path.read_bytes()
        assert held == (path.name == "sources.json"), path.name
    assert NAME not in said.err + said.out
    for command in (("info", ward), ("plan", ward, "--model", per_tile)):
        said = limner(*command, "--crosswalk", listed)
        assert NAME not in said.err + said.out
        assert "1 of 3 entries of the crosswalk" in said.err
    assert limner("check", "run", out).code == 0


def test_a_run_is_resumed_with_the_same_crosswalk_only(
    tmp_path: Path, ward: Path, listed: Path, per_tile: str, limner: Limner
) -> None:
    out = tmp_path / "out"
    assert run(limner, ward, per_tile, listed, out).code == 0
    before = (out / "findings.csv").read_bytes()
    moved = listed.rename(tmp_path / "moved.csv")
    assert run(limner, ward, per_tile, moved, out).code == 0
    assert (out / "findings.csv").read_bytes() == before
    moved.write_text(moved.read_text().replace("P009", "P008"))
    said = run(limner, ward, per_tile, moved, out)
    assert said.code == 2
    assert "crosswalk: crosswalk-" in said.err
    said = limner("run", ward, "--model", per_tile, "--reports", REPORTS, "--out", out)
    assert said.code == 2
    assert "crosswalk" in said.err


def test_reveal_knows_the_chosen_names_and_needs_the_crosswalk(
    tmp_path: Path, ward: Path, listed: Path, per_tile: str, limner: Limner
) -> None:
    out = tmp_path / "out"
    assert run(limner, ward, per_tile, listed, out).code == 0
    said = limner("reveal", out, "--out", tmp_path / "names.csv")
    assert said.code == 0, said.err
    found = {row["pseudonym"]: row["original"] for row in rows(tmp_path / "names.csv")}
    assert (found["P001"], found["case-17"]) == ("1.2.3.1", str(ward / f"{NAME} A1.tif"))
    moved = listed.rename(tmp_path / "moved.csv")
    said = limner("reveal", out, "--out", tmp_path / "again.csv")
    assert said.code == 2
    assert "Give --crosswalk FILE as for the run" in said.err
    assert limner("reveal", out, "--out", tmp_path / "again.csv", "--crosswalk", moved).code == 0
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "names.csv").read_bytes()
    moved.write_text("original,pseudonym\n1.2.3.1,P002\n")
    said = limner("reveal", out, "--out", tmp_path / "third.csv", "--crosswalk", moved)
    assert said.code == 2
    assert "must be that of the run" in said.err
    again = run(limner, ward, per_tile, tmp_path / "names.csv", tmp_path / "second")
    assert again.code == 0, "the table of reveal is a crosswalk"
    assert re.search(r"1 of \d+ entries of the crosswalk match nothing", again.err), "the file of the first one"
    assert {row["study_uid"] for row in rows(tmp_path / "second" / "studies.csv")} == {
        row["study_uid"] for row in rows(out / "studies.csv")
    }


def test_names_are_shown_or_chosen(ward: Path, listed: Path, limner: Limner) -> None:
    said = limner("info", ward, "--crosswalk", listed, "--names", "show")
    assert said.code == 2
    assert "must not be given where names are shown" in said.err
    said = limner("info", ward, "--reader-options", f"crosswalk={listed}")
    assert said.code == 2
    assert "must be given as crosswalk" in said.err


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """What a PACS lists of the second study, and of one that was not given."""
    path = tmp_path / "export.csv"
    path.write_text(
        "AccessionNumber;StudyInstanceUID;score;note\nA-2;1.2.3.2;-4.5;=HYPERLINK(1)\nA-9;1.2.3.9;;\n",
        encoding="utf-8",
    )
    return path


def test_a_table_is_joined_to_an_export(
    tmp_path: Path, ward: Path, listed: Path, export: Path, per_tile: str, limner: Limner
) -> None:
    out = tmp_path / "out"
    assert run(limner, ward, per_tile, listed, out).code == 0
    said = limner("reveal", out, "--join", export)
    assert said.code == 0, said.err
    written = Path(f"{out}-matched.csv")
    assert said.out.strip() == str(written)
    assert written.stat().st_mode & 0o777 == 0o600
    found, findings = rows(written), rows(out / "findings.csv")
    assert len(found) == len(findings) + 1
    assert [{key: row[key] for key in findings[0] if key != "score"} for row in found[:-1]] == [
        {key: row[key] for key in row if key != "score"} for row in findings
    ]
    for row in found[:-1]:
        mine = row["StudyInstanceUID"] == "1.2.3.2"
        assert (row["match"], row["AccessionNumber"]) == (("both", "A-2") if mine else ("run only", ""))
        assert (row["export.score"], row["note"]) == (("-4.5", "'=HYPERLINK(1)") if mine else ("", ""))
    last = found[-1]
    assert (last["match"], last["StudyInstanceUID"], last["AccessionNumber"]) == ("export only", "1.2.3.9", "A-9")
    both = sum(row["match"] == "both" for row in found)
    assert f"{both} rows of findings.csv matched" in said.err
    assert "1 row of the export without one in findings.csv" in said.err
    assert NAME not in said.err
    assert limner("reveal", out, "--join", export).code == 2, "never over a file"


def test_the_example_in_pandas_gives_the_same(
    tmp_path: Path,
    ward: Path,
    listed: Path,
    per_tile: str,
    limner: Limner,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "runs" / "may"
    assert run(limner, ward, per_tile, listed, out).code == 0
    assert limner("reveal", out).code == 0
    (tmp_path / "pacs.csv").write_text("AccessionNumber,StudyInstanceUID\nA-2,1.2.3.2\nA-9,1.2.3.9\n")
    monkeypatch.chdir(tmp_path)
    page = (root / "docs" / "privacy.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    exec(compile(example, "privacy.md", "exec"), {})  # noqa: S102 - the documentation's own
    counted = dict(line.split() for line in capsys.readouterr().out.splitlines() if line.split()[-1].isdigit())
    (command,) = re.findall(r"^limner (reveal .* --join .*)$", page, re.MULTILINE)
    assert limner(*command.split()).code == 0
    found = [row["match"] for row in rows(tmp_path / "matched.csv")]
    assert counted == {
        "both": str(found.count("both")),
        "left_only": str(found.count("run only")),
        "right_only": str(found.count("export only")),
    }
    assert found.count("both") > 0
    assert found.count("export only") == 1


def test_slices_are_joined_by_instance(tmp_path: Path, ward: Path, listed: Path, per_tile: str, limner: Limner) -> None:
    out, export = tmp_path / "out", tmp_path / "export.csv"
    assert run(limner, ward, per_tile, listed, out).code == 0
    export.write_text("SOP Instance UID,reader\n1.2.3.1.7.2,A\n1.2.3.2.7.3,B\n")
    words = ("--join", export, "--on", "SOP Instance UID", "--table", "slices", "--out", tmp_path / "m.csv")
    said = limner("reveal", out, *words)
    assert said.code == 0, said.err
    matched = [(row["slice"], row["reader"]) for row in rows(tmp_path / "m.csv") if row["match"] == "both"]
    assert matched == [("2", "A"), ("3", "B")]


def test_an_export_that_cannot_be_joined_is_refused(
    tmp_path: Path, ward: Path, listed: Path, export: Path, per_tile: str, limner: Limner
) -> None:
    out = tmp_path / "out"
    assert run(limner, ward, per_tile, listed, out).code == 0
    cases: list[tuple[str, tuple[object, ...]]] = [
        ("must be StudyInstanceUID, SeriesInstanceUID or SOPInstanceUID", ("--on", "AccessionNumber")),
        ("must have the column SeriesInstanceUID", ("--on", "SeriesInstanceUID")),
        ("must be a CSV report of the run", ("--table", "finding")),
        ("must be a CSV report of the run", ("--table", "../export")),
        ("must have the column study_uid", ("--table", "files")),
        ("outside of run folders", ("--out", out / "m.csv")),
    ]
    for expected, words in cases:
        said = limner("reveal", out, "--join", export, *words)
        assert (said.code, expected in said.err) == (2, True), said.err
    export.write_text("StudyInstanceUID\n1.2.3.2\n1.2.3.2\n")
    said = limner("reveal", out, "--join", export)
    assert "must have one row for each StudyInstanceUID.\n  found:  lines 2 and 3" in said.err
    export.write_text("StudyInstanceUID,a\n,1\n")
    assert "line 2, must have StudyInstanceUID" in limner("reveal", out, "--join", export).err
    assert not Path(f"{out}-matched.csv").exists()
