"""From Orthanc and back: a study is read over DICOMweb, and objects are filed in it."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pydicom
import pytest
from limner.pipelines.run.dicom_objects import note_objects

pytestmark = pytest.mark.slow

Server = Any  # of conftest, which tests cannot import
Limner = Any
PATIENT = "Orthanc4711"


@pytest.fixture
def query(orthanc: Server, making: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A query for a study of seven instances, beside one of another patient."""
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))
    orthanc.clear()
    window = {"WindowCenter": 4000, "WindowWidth": 10000}
    identity = {"PatientID": PATIENT, "AccessionNumber": "A1", "StudyDate": "20240303"}
    for number, data in enumerate(making.slices(7, **window, **identity)):
        orthanc.put(making.save(data, tmp_path / "made" / f"{number}.dcm"))
    other = {"StudyInstanceUID": making.uid(5), "SOPInstanceUID": making.uid(6), "SeriesInstanceUID": making.uid(7)}
    orthanc.put(making.save(making.slices(1, PatientID="Other", **other)[0], tmp_path / "other.dcm"))
    return f"dicomweb:{orthanc.url}?PatientID={PATIENT}&Modality=CT&StudyDate=20240101-20241231&AccessionNumber=A1"


def tables(folder: Path) -> dict[str, list[dict[str, str]]]:
    """The tables of a run, but for where the files are."""
    found: dict[str, list[dict[str, str]]] = {}
    for path in folder.glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            found[path.name] = [
                {name: value for name, value in row.items() if name not in {"path", "name"}}
                for row in csv.DictReader(file)
            ]
    return found


def add_objects(folder: Path, making: ModuleType, count: int) -> list[Path]:
    """Objects among the reports of a run, in a series of their own in the study of their originals."""
    paths: list[Path] = []
    for number in range(count):
        made = making.image(
            making.ramp(), sop_class=making.SC, number=70 + number, SeriesInstanceUID=making.uid(9), PatientID=PATIENT
        )
        paths.append(making.save(made, folder / f"sc-study1-{number}.dcm"))
    note_objects(folder, paths)
    return paths


def test_a_run_reads_what_a_local_folder_gives(
    query: str, orthanc: Server, limner: Limner, per_tile: str, tmp_path: Path, making: ModuleType
) -> None:
    output = limner("run", query, "--model", per_tile, "--out", tmp_path / "web")
    assert output.code == 0, output.err
    local = limner("run", tmp_path / "made", "--model", per_tile, "--out", tmp_path / "local", "--names", "show")
    shown = limner("run", query, "--model", per_tile, "--out", tmp_path / "shown", "--names", "show")
    assert (local.code, shown.code) == (0, 0), shown.err
    one, other = tables(tmp_path / "local"), tables(tmp_path / "shown")
    assert {"findings.csv", "series.csv", "slices.csv", "areas.csv"} <= one.keys()
    assert len(one["findings.csv"]) == 7
    assert {name: rows for name, rows in one.items() if name != "files.csv"} == {
        name: rows for name, rows in other.items() if name != "files.csv"
    }
    assert len(other["files.csv"]) == len(one["files.csv"]) + 1, "the query has a row"
    fetched = sorted(path.read_bytes() for path in (tmp_path / "cache").rglob("*.dcm"))
    assert fetched == sorted(path.read_bytes() for path in (tmp_path / "made").glob("*.dcm")), "and of nobody else"
    for end in (f"/studies/{making.uid(1)}", f"/studies/{making.uid(1)}/series/{making.uid(2)}"):
        found = limner("info", f"dicomweb:{orthanc.url}{end}")
        assert found.code == 0, found.err
        assert "Fetching" not in found.err, "all of it is there"
    assert limner("info", query.replace("20240101-20241231", "20250101-")).code == 3


def test_objects_are_filed_in_their_study(
    query: str, orthanc: Server, limner: Limner, tmp_path: Path, making: ModuleType
) -> None:
    run, to = tmp_path / "run", ("--to", f"dicomweb:{orthanc.url}")
    assert limner("run", query, "--model", "none", "--out", run).code == 0
    paths = add_objects(run, making, 2)
    output = limner("send", run, *to)
    assert output.code == 0, output.out + output.err
    assert output.out.count(": stored") == 2, output.out
    assert len(orthanc.ask("/studies")) == 2
    [series] = orthanc.ask("/tools/find", {"Level": "Series", "Query": {"SeriesInstanceUID": making.uid(9)}})
    found = orthanc.ask(f"/series/{series}")
    study = orthanc.ask(f"/studies/{found['ParentStudy']}")
    assert study["MainDicomTags"]["StudyInstanceUID"] == making.uid(1)
    given_back = {orthanc.ask(f"/instances/{one}/file") for one in found["Instances"]}
    assert given_back == {path.read_bytes() for path in paths}
    before = orthanc.ask("/statistics")["CountInstances"]
    assert limner("send", run, *to).out.count("sent before") == 2
    (run / "sent.jsonl").unlink()
    assert limner("send", run, *to).out.count("already there") == 2
    assert orthanc.ask("/statistics")["CountInstances"] == before
    again = limner("info", f"dicomweb:{orthanc.url}/studies/{making.uid(1)}/series/{making.uid(9)}")
    assert again.code == 0, again.err


def test_reports_of_a_run_are_filed_beside_its_images(
    query: str, orthanc: Server, limner: Limner, per_tile: str, tmp_path: Path, making: ModuleType
) -> None:
    pytest.importorskip("highdicom", reason="DICOM objects are written with highdicom")
    run, to = tmp_path / "run", ("--to", f"dicomweb:{orthanc.url}")
    output = limner("run", query, "--model", per_tile, "--out", run, "--reports", "dicom-sr,dicom-ko,dicom-sc")
    assert output.code == 0, output.err
    sent = limner("send", run, *to)
    assert sent.code == 0, sent.out
    names = sorted(path.name for path in run.glob("*.dcm"))
    assert {name.partition("-")[0] for name in names} == {"ko", "sc", "sr"}
    assert sent.out.splitlines() == [f"{name}: stored" for name in names]
    [study] = orthanc.ask("/tools/find", {"Level": "Study", "Query": {"StudyInstanceUID": making.uid(1)}})
    series = [orthanc.ask(f"/series/{one}") for one in orthanc.ask(f"/studies/{study}")["Series"]]
    assert sorted(one["MainDicomTags"]["Modality"] for one in series) == ["CT", "KO", "OT", "SR"]
    assert limner("report", run).code == 0
    again = limner("send", run, *to)
    assert again.out.splitlines() == [f"{name}: sent before" for name in names], "the same bytes"
    read = limner("info", f"dicomweb:{orthanc.url}/studies/{making.uid(1)}")
    assert read.code == 0, read.err
    assert "not an image: structured report" in read.out


def test_a_killed_send_goes_on(query: str, orthanc: Server, limner: Limner, tmp_path: Path, making: ModuleType) -> None:
    run = tmp_path / "run"
    assert limner("run", query, "--model", "none", "--out", run).code == 0
    paths = add_objects(run, making, 30)
    command = [sys.executable, "-m", "limner", "send", str(run), "--to", f"dicomweb:{orthanc.url}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (run / "sent.jsonl").exists() or not (run / "sent.jsonl").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    whole = [line for line in (run / "sent.jsonl").read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    output = limner("send", run, "--to", f"dicomweb:{orthanc.url}")
    assert output.code == 0, output.out
    assert output.out.count("sent before") == len(whole)
    assert len(orthanc.ask("/tools/find", {"Level": "Instance", "Query": {"SeriesInstanceUID": making.uid(9)}})) == 30
    receipts = [json.loads(line) for line in (run / "sent.jsonl").read_text().splitlines()]
    assert len({one["sop_instance_uid"] for one in receipts}) == len(receipts) == len(paths)


def test_orthanc_refuses_what_is_no_dicom(
    query: str, orthanc: Server, limner: Limner, tmp_path: Path, making: ModuleType
) -> None:
    run = tmp_path / "run"
    assert limner("run", query, "--model", "none", "--out", run).code == 0
    [path] = add_objects(run, making, 1)
    assert pydicom.dcmread(path).StudyInstanceUID == making.uid(1)
    path.write_bytes(b"\0" * 300)
    note_objects(run, [path])
    output = limner("send", run, "--to", f"dicomweb:{orthanc.url}")
    assert output.code == 1
    assert "must be a DICOM file" in output.out
