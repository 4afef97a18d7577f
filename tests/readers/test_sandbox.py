"""The sandboxed process: what a call may cost, what comes back, and that nothing is written."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from limner.readers.errors import ReadError
from limner.readers.sandbox import SandboxedProcess, SandboxError, run_sandboxed, while_waiting

pytest.importorskip("resource", reason="memory limits need a POSIX system")

HERE = "limited_calls"
CALLS = """
import os, signal, time
import numpy as np
from limner.readers.errors import ReadError

def double(number): return 2 * number
def name(text): return text
def image(height, width): return np.arange(height * width, dtype="uint16").reshape(height, width)
def objects(): return np.array([object()])
def sleep(seconds): time.sleep(seconds)
def stubborn():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True: pass
def folder(): return os.getcwd()
def fill(megabytes): return len(bytearray(megabytes * 2**20))
def nest(): return nest()
def crash(): os.kill(os.getpid(), signal.SIGSEGV)
def leave(): raise SystemExit(0)
def foreign(): raise KeyError("Doe^John")
def refuse(): raise ReadError("a.tif", "must be whole", value="half", remedy="Copy it again")
def write(path):
    try:
        with open(path, "w") as file: file.write("x")
    except OSError as error: return error.errno
def chatter(): os.write(1, b"not an answer"); print("neither"); return "quiet"
def variables(): return sorted(os.environ)
"""


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxedProcess]:
    """A sandboxed process of 400 MiB that can import the functions above."""
    folder = tmp_path_factory.mktemp("calls")
    (folder / f"{HERE}.py").write_text(CALLS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.setenv("LIMNER_PSEUDONYM_KEY", "a key that nobody must be told")
        one = SandboxedProcess(megabytes=400)
        yield one
        one.close()


@pytest.mark.slow
def test_paths_are_relative_to_the_callers_folder(
    process: SandboxedProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert process.call(f"{HERE}:folder", seconds=30) == str(Path.cwd())
    monkeypatch.chdir(tmp_path)
    assert process.call(f"{HERE}:folder", seconds=30) == str(tmp_path.resolve())


def test_json_and_arrays_come_back(process: SandboxedProcess) -> None:
    assert process.call(f"{HERE}:double", 21, seconds=30) == 42
    assert process.call(f"{HERE}:name", "Größe \udcff", seconds=30) == "Größe \udcff"
    image = process.call(f"{HERE}:image", 300, 500, seconds=30)
    assert image.dtype == np.uint16
    assert np.array_equal(image, np.arange(150_000, dtype=np.uint16).reshape(300, 500))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "arguments", "code"),
    [
        ("sleep", (60,), "time"),
        ("stubborn", (), "time"),
        ("fill", (1000,), "memory"),
        ("nest", (), "nested"),
        ("crash", (), "died"),
        ("foreign", (), "raised"),
        ("leave", (), "raised"),
        ("objects", (), "died"),
    ],
)
def test_a_failed_call_has_a_code_and_the_next_one_works(
    process: SandboxedProcess, call: str, arguments: tuple[int, ...], code: str
) -> None:
    process.call(f"{HERE}:double", 1, seconds=60)  # it is running, so that the time below is the call's own
    start = time.monotonic()
    with pytest.raises(SandboxError) as caught:
        process.call(f"{HERE}:{call}", *arguments, seconds=0.5 if code == "time" else 60)
    assert caught.value.code == code
    assert "Doe" not in str(caught.value)
    assert time.monotonic() - start < 20
    assert process.call(f"{HERE}:double", 1, seconds=60) == 2


def test_something_else_is_done_while_a_call_works(process: SandboxedProcess) -> None:
    done: list[str] = []
    while_waiting(lambda: done.append("meanwhile"))
    process.call(f"{HERE}:double", 1, seconds=60)
    process.call(f"{HERE}:double", 1, seconds=60)
    assert done == ["meanwhile"]


def test_limner_errors_are_passed_on(process: SandboxedProcess) -> None:
    with pytest.raises(ReadError) as caught:
        process.call(f"{HERE}:refuse", seconds=30)
    assert str(caught.value) == "a.tif must be whole (found: half). Copy it again."


def test_the_sandbox_cannot_write_files_and_has_no_key(process: SandboxedProcess, tmp_path: Path) -> None:
    assert process.call(f"{HERE}:write", str(tmp_path / "a"), seconds=30) is not None
    assert not (tmp_path / "a").exists() or (tmp_path / "a").stat().st_size == 0
    assert "LIMNER_PSEUDONYM_KEY" not in process.call(f"{HERE}:variables", seconds=30)


def test_output_of_libraries_is_not_an_answer(process: SandboxedProcess) -> None:
    assert process.call(f"{HERE}:chatter", seconds=30) == "quiet"


@pytest.mark.slow
def test_a_call_ends_after_its_caller_has_died(process: SandboxedProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the caller had been killed, with its timer."""

    class Never:
        def __init__(self, *_: object) -> None: ...
        def start(self) -> None: ...
        def cancel(self) -> None: ...

    process.call(f"{HERE}:double", 1, seconds=60)
    monkeypatch.setattr("limner.readers.sandbox.threading.Timer", Never)
    for call in ("stubborn", "sleep"):
        with pytest.raises(SandboxError, match="time"):
            process.call(f"{HERE}:{call}", *([60] if call == "sleep" else []), seconds=0.2)


@pytest.mark.slow
def test_a_forked_process_gets_another() -> None:
    mine = run_sandboxed("os:getpid", seconds=60)
    child = os.fork()
    if child == 0:
        os._exit(0 if run_sandboxed("os:getpid", seconds=60) != mine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert run_sandboxed("os:getpid", seconds=60) == mine


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_killed_process_is_restarted(process: SandboxedProcess) -> None:
    process.call(f"{HERE}:double", 1, seconds=60)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    time.sleep(0.2)
    assert process.call(f"{HERE}:double", 2, seconds=60) == 4
