"""Hostile files cost one row each: the parent stays small, finishes, and reads the good file among them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from limner.readers.contract import scan_with
from limner.readers.dicom.decoder import Decoder
from limner.readers.dicom.faults import FaultError
from limner.readers.dicom.reader import DicomReader
from limner.readers.sandbox import MEMORY_MB, SandboxedProcess

pytestmark = pytest.mark.slow

pytest.importorskip("resource", reason="memory limits need a POSIX system")

EXPECTED = {
    "good": "1 read",
    "deflate bomb": "grow only to the budget",
    "65535² run-length": "must fit the budget",
    "8000² run-length of 116 bytes": "only as far as their coding can",
    "native pixels cut short": "as long as its header says",
    "60000² native, no pixels behind it": "must fit the budget",
    "two thousand million frames": "so many frames",
    "sequences nested 3000 deep": "nested only so deep",
    "an element longer than the file": "must hold an image",
    "path-like UIDs": "1 read",
    "a lookup table shorter than it says": "lookup table",
    "a palette shorter than it says": "palette",
    "random bytes after a preamble": "",
    "zip slip": "2 × names in an archive must stay inside it",
    "zip bomb": "grow only to the budget",
    "a zip cut short": "archive must be readable",
    "a program and a DICOM file in one": "1 read",
}


@pytest.fixture(scope="module")
def hostile(making: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return making.hostile(tmp_path_factory.mktemp("hostile"))


def test_each_costs_one_row_and_the_parent_stays_small(hostile: dict[str, Path]) -> None:
    script = Path(__file__).with_name("attack.py")
    command = [sys.executable, str(script), str(hostile["good"].parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert done.stderr == ""
    rows = {case: (outcome, mine, theirs) for case, outcome, mine, theirs in json.loads(done.stdout)}
    assert set(rows) == set(EXPECTED) == set(hostile)
    for case, expected in EXPECTED.items():
        assert expected in rows[case][0], case
    assert max(mine for _, mine, _ in rows.values()) < 700
    assert max(theirs for _, _, theirs in rows.values()) < MEMORY_MB


def test_together_in_one_folder_each_still_has_one_row(hostile: dict[str, Path]) -> None:
    folder = hostile["good"].parents[1]
    fates = DicomReader().survey(str(folder), DicomReader.Options()).fates
    assert sorted(fate.source for fate in fates) == sorted(str(path) for path in hostile.values())
    statuses = {Path(fate.source).parent.name: fate.status for fate in fates}
    assert statuses["good"] == statuses["path-like UIDs"] == "read"
    assert [fate.reason for fate in fates if "program" in fate.source] == ["its preamble begins like a program"]


def test_nothing_escapes_from_an_archive(hostile: dict[str, Path]) -> None:
    path = hostile["zip slip"]
    scan_with(DicomReader(), str(path), {})
    assert [p.name for p in path.parent.iterdir()] == ["a.zip"]
    assert not (path.parents[2] / "escaped.dcm").exists()


def test_a_process_that_dies_is_one_fault_and_the_next_question_is_answered(hostile: dict[str, Path]) -> None:
    decoder = Decoder(SandboxedProcess())
    good = str(hostile["good"])
    decoder.header(good)
    assert decoder.process.pid is not None
    os.kill(decoder.process.pid, signal.SIGSTOP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "HEADER_SECONDS", 0.2)
        start = time.monotonic()
        with pytest.raises(FaultError, match="time"):
            decoder.header(good)
        assert time.monotonic() - start < 20
    assert decoder.header(good).rows == 8
    decoder.close()


def test_memory_is_limited(tmp_path: Path, making: ModuleType) -> None:
    big = making.image(making.ramp(5000, 5000), number=1)
    path = making.save(big, tmp_path / "a.dcm")
    small = Decoder(SandboxedProcess(megabytes=500))
    with pytest.raises(FaultError, match=r"memory|died"):
        small.frame(str(path), 0, 0, 5000)
    small.close()
    assert Decoder().frame(str(path), 0, 0, 5000).shape == (5000, 5000)


def test_the_process_that_reads_images_holds_no_dicom_library() -> None:
    names = "limner.readers.dicom.reader, limner.readers.dicom.decoder_worker, limner.reports.studies"
    code = f"import sys, {names}; print('pydicom' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
