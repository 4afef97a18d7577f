"""Hostile files cost one outcome each: the calling process stays small and reads the good file among them."""

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
from limner.readers.dicom import decoder as decoder_module
from limner.readers.dicom.decoder import Decoder
from limner.readers.dicom.faults import FaultError
from limner.readers.dicom.reader import DicomReader
from limner.readers.dicom.scan import scan_input
from limner.readers.sandbox import MEMORY_MB, SandboxedProcess, SandboxError

pytestmark = pytest.mark.slow

pytest.importorskip("resource", reason="memory limits need a POSIX system")

EXPECTED = {
    "good": "1 read",
    "deflate bomb": "must not inflate beyond the limit",
    "65535² run-length": "frames within the decoding limit",
    "8000² run-length of 116 bytes": "more pixels than its compression can hold",
    "native pixels cut short": "of the length that its header states",
    "60000² native, no pixels behind it": "frames within the decoding limit",
    "two thousand million frames": "more frames than the limit",
    "sequences nested 3000 deep": "must not nest sequences",
    "an element longer than the file": "must have a DICOM image",
    "path-like UIDs": "1 read",
    "a lookup table shorter than it says": "lookup table",
    "a palette shorter than it says": "palette",
    "random bytes after a preamble": "",
    "zip slip": "2 × must have a name inside its archive",
    "zip bomb": "must not inflate beyond the limit",
    "a zip cut short": "must be a readable archive",
    "a program and a DICOM file in one": "1 read",
}


@pytest.fixture(scope="module")
def hostile(making: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return making.hostile(tmp_path_factory.mktemp("hostile"))


def test_each_file_costs_one_outcome_and_little_memory(hostile: dict[str, Path]) -> None:
    script = Path(__file__).with_name("attack.py")
    command = [sys.executable, str(script), str(hostile["good"].parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert done.stderr == ""
    rows = {case: (outcome, own, sandbox) for case, outcome, own, sandbox in json.loads(done.stdout)}
    assert set(rows) == set(EXPECTED) == set(hostile)
    for case, expected in EXPECTED.items():
        assert expected in rows[case][0], case
    assert max(own for _, own, _ in rows.values()) < 700
    assert max(sandbox for _, _, sandbox in rows.values()) < MEMORY_MB


def test_each_file_of_a_folder_has_one_outcome(hostile: dict[str, Path]) -> None:
    folder = hostile["good"].parents[1]
    outcomes = scan_input(str(folder), Decoder()).outcomes
    assert sorted(outcome.source for outcome in outcomes) == sorted(str(path) for path in hostile.values())
    statuses = {Path(outcome.source).parent.name: outcome.status for outcome in outcomes}
    assert statuses["good"] == statuses["path-like UIDs"] == "read"
    assert [outcome.reason for outcome in outcomes if "program" in outcome.source] == [
        "its preamble begins like a program"
    ]


def test_archives_write_nothing_outside(hostile: dict[str, Path]) -> None:
    path = hostile["zip slip"]
    scan_with(DicomReader(), str(path), {})
    assert [p.name for p in path.parent.iterdir()] == ["a.zip"]
    assert not (path.parents[2] / "escaped.dcm").exists()


def test_a_process_that_hangs_is_one_fault_and_is_restarted(hostile: dict[str, Path]) -> None:
    decoder = Decoder(SandboxedProcess())
    good = str(hostile["good"])
    decoder.header(good)
    assert decoder.process.pid is not None
    os.kill(decoder.process.pid, signal.SIGSTOP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder_module, "HEADER_SECONDS", 0.2)
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


def test_the_calling_process_imports_no_dicom_library() -> None:
    names = "limner.readers.dicom.reader, limner.readers.dicom.decoder_worker, limner.reports.studies"
    code = f"import sys, {names}; print('pydicom' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_headers_that_are_read_together_are_those_that_are_read_alone(hostile: dict[str, Path]) -> None:
    """Also where one file of the batch fails."""
    decoder = Decoder()
    paths = [str(path) for path in hostile.values() if path.suffix != ".zip"]

    def alone(path: str) -> object:
        try:
            return decoder.header(path)
        except FaultError as fault:
            return fault.code, fault.value

    together = [(one.code, one.value) if isinstance(one, FaultError) else one for one in decoder.headers(paths)]
    assert together == [alone(path) for path in paths]
    assert {isinstance(one, tuple) for one in together} == {True, False}


def test_a_header_that_ends_the_process_costs_itself_only(
    hostile: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    good, whole = str(hostile["good"]), SandboxedProcess.call

    def call(self: SandboxedProcess, function: str, *arguments: object, seconds: float) -> object:
        if "dies" in str(arguments):
            raise SandboxError("died")
        return whole(self, function, *arguments, seconds=seconds)

    monkeypatch.setattr(SandboxedProcess, "call", call)
    first, dead, last = Decoder().headers([good, "dies", good])
    assert not isinstance(first, FaultError)
    assert first == last
    assert isinstance(dead, FaultError)
    assert dead.code == "died"
