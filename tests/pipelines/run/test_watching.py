"""A run is watched from its folder: while it works, after it has ended, and after it was killed."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import limner
import pytest
from limner.model.finding import Result
from limner.pipelines import api
from limner.pipelines.progress import (
    Event,
    Message,
    RegionCounts,
    RegionDone,
    Started,
    TerminalProgress,
    stopped_text,
)
from limner.pipelines.run.run_files import RESULTS, StoreError
from limner.pipelines.run.run_folder import RunFolder
from limner.pipelines.run.watching import Watcher
from limner.readers.errors import RequestError
from limner.readers.locks import lock_holder

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import

pytestmark = pytest.mark.slow


def begin(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "limner.pipelines.cli.main", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def words(scene: Path, painter: str, tmp_path: Path) -> list[object]:
    """A run of 20 regions."""
    return ["run", scene, "--out", tmp_path / "out", "--model", painter, "--hd-num", 1, "--engine", "inline"]


@pytest.fixture
def working(words: list[object], tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The same, slow, with a first result."""
    running = begin(*words, "--set", "model_options.behaviour=slow")
    wait_for(lambda: (tmp_path / "out" / RESULTS).exists() and b"done" in (tmp_path / "out" / RESULTS).read_bytes())
    yield running
    running.kill()
    running.communicate()


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in [folder, *folder.rglob("*")]}


def test_a_run_is_followed_to_its_end(working: subprocess.Popen[str], tmp_path: Path) -> None:
    watching = begin("watch", tmp_path / "out", "--every", 0.2)
    assert working.wait(timeout=60) == 0
    out, err = watching.communicate(timeout=30)
    assert watching.returncode == 0, err
    assert "ended, complete" in out
    assert "20 of 20 done" in out
    assert "20 regions in 1 image" in err
    assert "reports" in out
    if sys.platform == "linux":
        assert "MiB" in err
    assert "regions/" in err
    assert "left" in err


@pytest.mark.usefixtures("working")
def test_to_stop_watching_stops_nothing(tmp_path: Path) -> None:
    watching = begin("watch", tmp_path / "out", "--every", 0.2)
    assert watching.stderr is not None
    assert "20 regions" in watching.stderr.readline()
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=30)
    assert watching.returncode == 130
    assert "The run is not touched" in err
    assert "Traceback" not in err
    before = (tmp_path / "out" / RESULTS).stat().st_size
    wait_for(lambda: (tmp_path / "out" / RESULTS).stat().st_size > before)


def test_a_run_that_was_killed_says_so_and_that_it_can_be_resumed(
    working: subprocess.Popen[str], words: list[object], tmp_path: Path, limner: Limner
) -> None:
    now = limner("watch", tmp_path / "out", "--once")
    assert now.code == 0
    assert "regions are being annotated" in now.out
    working.kill()
    working.wait()
    before = state_of(tmp_path / "out")
    stopped = limner("watch", tmp_path / "out")
    assert stopped.code == 1
    assert "stopped or killed before it ended; the same command resumes it" in stopped.out
    assert state_of(tmp_path / "out") == before, "the watcher writes nothing"
    assert limner(*words, "--set", "model_options.behaviour=slow").code == 0
    ended = limner("watch", tmp_path / "out")
    assert ended.code == 0
    assert "ended, complete" in ended.out


def test_failures_are_told(scene: Path, painter: str, tmp_path: Path, limner: Limner) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        code = limner("run", scene, "--out", "out", "--model", painter, "--hd-num", 1, "--set", FAILING).code
    assert code in {1, 3}
    watched = limner("watch", tmp_path / "out")
    assert watched.code == 1
    assert "of them failed" in watched.out
    assert "the same command tries again" in watched.out
    assert " failed. " in watched.err


FAILING = "model_options.behaviour=memory"


def test_what_is_no_run_is_refused_or_waited_for(tmp_path: Path, limner: Limner) -> None:
    assert limner("watch", tmp_path / "a" / "b").code == 2
    assert Watcher(tmp_path / "out", wait=True).read().state == "planning"
    (tmp_path / "letter.txt").write_text("Dear Sir")
    for path in (tmp_path, tmp_path / "letter.txt"):
        with pytest.raises(RequestError):
            Watcher(path, wait=True)


def test_a_damaged_result_is_told(words: list[object], tmp_path: Path, limner: Limner) -> None:
    assert limner(*words).code == 0
    lines = (tmp_path / "out" / RESULTS).read_bytes().splitlines(keepends=True)
    (tmp_path / "out" / RESULTS).write_bytes(b"".join([lines[0], lines[1].replace(b"done", b"dome"), *lines[2:]]))
    with pytest.raises(StoreError, match="line 2"):
        Watcher(tmp_path / "out").read()


def test_only_complete_lines_count(tmp_path: Path, words: list[object], limner: Limner) -> None:
    assert limner(*words).code == 0
    results = tmp_path / "out" / RESULTS
    whole = results.read_bytes()
    end = whole.rindex(b"\n", 0, -1) + 1
    results.write_bytes(whole[: end + 20])
    watcher = Watcher(tmp_path / "out")
    assert (watcher.read().done, watcher.read().state) == (19, "stopped")
    results.write_bytes(whole)
    assert watcher.read().done == 20


def test_names_are_those_of_the_run(
    make_slide: Callable[..., Path], tmp_path: Path, painter: str, limner: Limner
) -> None:
    slide = make_slide(tmp_path / "Miller-Anna.tif")
    assert limner("run", slide, "--out", tmp_path / "out", "--model", painter, "--set", FAILING).code in {1, 3}
    watched = limner("watch", tmp_path / "out")
    assert "failed" in watched.out
    assert "Miller" not in watched.out + watched.err


def test_python_watches_as_well(words: list[object], tmp_path: Path, limner: Limner) -> None:
    assert limner(*words).code == 0
    watched = api_watch(tmp_path / "out")
    assert (watched.state, watched.done, watched.total, watched.failed) == ("ended", 20, 20, ())
    assert "ended, complete" in repr(watched)


api_watch = limner.watch  # before a fixture has its name


@pytest.mark.skipif(sys.platform != "linux", reason="locks are listed by Linux only")
def test_a_run_begins_although_a_watcher_holds_its_lock_for_a_moment(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "out") as store:
        assert lock_holder(tmp_path / "out" / RESULTS) == os.getpid()
        store.append([Result("a", "image", "skipped", error="why")])
    with (tmp_path / "out" / RESULTS).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        release = threading.Timer(0.2, fcntl.flock, (file, fcntl.LOCK_UN))
        release.start()
        with RunFolder.open(tmp_path / "out") as store:
            assert [*store.entries] == ["a"]
        release.join()


def test_the_speed_is_that_of_the_latest_results(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    counts = RegionCounts(lambda: 3 * 2**30)
    counts.update(Started(1, 40, 10, "out", ("x",)))
    assert str(counts) == "10 of 40 regions, 1 failed, 3.0 GiB"
    for number in range(4):
        clock[0] += 1.998
        for part in "ab":  # two regions in a batch, which are told one after the other
            clock[0] += 0.001
            counts.update(RegionDone(f"{number}{part}", "done", 1))
    assert counts.rate == pytest.approx(1.0, rel=0.01)
    assert str(counts).startswith("18 of 40 regions, 1 failed, 1 regions/s, about 2")
    counts.update(RegionDone("x", "done", 1))  # tried again
    assert (counts.done, counts.failed) == (18, 0)


def test_a_stopped_run_says_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalProgress(lambda: 0.0) as progress:
        assert stopped_text(progress, again="call") == "Stopped before the first region. The same call starts again."
        progress(Message("Scanning"))
        progress(Started(1, 4, 1, "out"))
        progress(RegionDone("a", "done", 2))
    assert stopped_text(progress, again="command").startswith(
        "Stopped with 2 of 4 regions done. Results so far are kept"
    )
    assert "Scanning" in capsys.readouterr().err


def test_an_interrupted_call_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said: list[str] = []

    class Display(TerminalProgress):
        def __call__(self, event: Event) -> None:
            super().__call__(event)
            said.extend([event.text] if isinstance(event, Message) else [])

    def interrupted(_: object, on_event: Display) -> None:
        on_event(Started(1, 4, 1, "out"))
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "run_settings", interrupted)
    monkeypatch.setattr(api, "progress_display", Display)
    with pytest.raises(KeyboardInterrupt):
        api.run("scene.tif", out=tmp_path / "out")
    assert said == ["Stopped with 1 of 4 regions done. Results so far are kept; the same call resumes the run."]


def test_to_interrupt_a_watching_call_returns_how_far_the_run_is(
    words: list[object], tmp_path: Path, limner: Limner, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert limner(*words).code == 0

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Watcher, "follow", interrupted)
    assert api_watch(tmp_path / "out").done == 20
