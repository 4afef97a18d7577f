"""Signals stop a command at once; results are kept."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from limner.pipelines.run.run_folder import RunFolder

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import


def begin(words: list[object], **further: Any) -> subprocess.Popen[str]:
    """Start the command line in a process group of its own."""
    command = [sys.executable, "-m", "limner.pipelines.cli.main", *map(str, words)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, **further)


def wait_for(condition: Callable[[], bool], running: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if condition() or running.poll() is not None:
            return
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("engine", "number", "whole_group"),
    [
        ("inline", signal.SIGINT, "group"),
        ("inline", signal.SIGTERM, ""),
        ("local", signal.SIGTERM, ""),
        ("local", signal.SIGTERM, "group"),
        ("local", signal.SIGHUP, "group"),
    ],
)
def test_a_run_stopped_by_a_signal_can_be_resumed(
    engine: str,
    number: signal.Signals,
    whole_group: str,
    scene: Path,
    painter: str,
    tmp_path: Path,
    limner: Limner,
    left_of_group: Callable[[int], list[int]],
) -> None:
    words: list[object] = ["run", scene, "--out", tmp_path / "out", "--model", painter, "--hd-num", 1]
    words += ["--set", "model_options.behaviour=slow", "--engine", engine, "--workers", 2]
    running = begin(words)
    journal = tmp_path / "out" / "results.jsonl"
    wait_for(lambda: journal.exists() and journal.read_bytes().count(b"done") > 0, running)
    (os.killpg if whole_group else os.kill)(running.pid, number)
    _, talk = running.communicate(timeout=60)
    assert running.returncode == 128 + number, talk
    assert "the same command resumes" in talk
    assert "Traceback" not in talk
    assert not left_of_group(running.pid)
    done = [json.loads(line)["region"] for line in journal.read_text().splitlines()]
    assert 0 < len(done) < 30
    with RunFolder.open(tmp_path / "out"):
        pass  # nobody holds the lock
    if engine == "inline" and number == signal.SIGINT:
        assert limner(*words).code == 0
        assert [json.loads(line)["region"] for line in journal.read_text().splitlines()][: len(done)] == done


def test_a_second_signal_kills_at_once(scene: Path, painter: str, tmp_path: Path) -> None:
    words: list[object] = ["run", scene, "--out", tmp_path / "out", "--model", painter, "--hd-num", 1]
    running = begin([*words, "--set", "model_options.behaviour=stubborn"])
    wait_for((tmp_path / "out" / "manifest.json").exists, running)
    time.sleep(1.0)
    running.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert running.poll() is None
    running.send_signal(signal.SIGTERM)
    _, talk = running.communicate(timeout=10)
    assert running.returncode == -signal.SIGTERM
    assert "Traceback" not in talk


def test_every_command_reports_a_signal(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import limner.pipelines.run.scanning as scanning, time\n"
        "scanning.reader_options = lambda settings: (open('begun', 'w').close(), time.sleep(60))\n"
    )
    running = begin(["info", "x.tif"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)})
    wait_for((tmp_path / "begun").exists, running)
    running.send_signal(signal.SIGTERM)
    _, talk = running.communicate(timeout=30)
    assert (running.returncode, talk) == (143, "\nStopped.\n")


def test_a_signal_that_is_ignored_from_the_start_stays_ignored(scene: Path, painter: str, tmp_path: Path) -> None:
    words: list[object] = ["run", scene, "--out", tmp_path / "out", "--model", painter]
    running = begin(words, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN), stdout=subprocess.DEVNULL)
    for _ in range(200):
        if running.poll() is not None:
            break
        running.send_signal(signal.SIGHUP)
        time.sleep(0.05)
    running.communicate(timeout=60)
    assert running.returncode == 0
