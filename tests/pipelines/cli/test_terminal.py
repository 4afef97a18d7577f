"""Terminal output: escaping, encodings, closed streams, progress."""

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from limner.pipelines import progress as progress_module
from limner.pipelines.cli.terminal import EscapedStream, visible
from limner.pipelines.progress import (
    Inspecting,
    Message,
    NotebookProgress,
    RegionDone,
    Started,
    TerminalProgress,
    progress_display,
)

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import

EVIL = "a\x1b[31m\x9b2J\x7f\u202egpj.\u2066[red]\n:smile:\r\x07.tif"
SHOWN = "a\\x1b[31m\\x9b2J\\x7f\\u202egpj.\\u2066[red]\\n:smile:\\r\\x07.tif"


def run(words: Sequence[str | Path], **further: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "limner.pipelines.cli.main", *(os.fsencode(word) for word in words)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run(command, **{**pipes, **further}, check=False)


def test_control_characters_are_escaped() -> None:
    assert visible(EVIL) == SHOWN
    assert visible("a\nb", keep="\n") == "a\nb"
    assert visible(os.fsdecode(b"\xff.tif")) == "\\xff.tif"
    assert visible("\ud800") == "\\ud800"
    assert visible("Fälle 一 × µ") == "Fälle 一 × µ"
    stream = io.StringIO()
    EscapedStream(stream, required=True).write("a\x1b\nb")
    assert stream.getvalue() == "a\\x1b\nb"


def test_every_command_escapes_file_names(tmp_path: Path, limner: Limner) -> None:
    folder = tmp_path / EVIL
    folder.mkdir()
    (folder / EVIL).write_bytes(b"II*\0" + b"nonsense")
    for words in (
        ("info", folder),
        ("plan", folder),
        ("run", folder, "--out", tmp_path / "out"),
        ("run", folder / EVIL, "--out", folder / EVIL),
        ("report", folder),
        ("report", tmp_path, "--reports", EVIL),
        ("models", "show", EVIL),
        ("info", "x.tif", "--set", EVIL),
        ("info", "x.tif", "--config", EVIL),
        ("info", "x.tif", f"--{EVIL}"),
    ):
        output = limner(*words)
        assert output.code in {1, 2, 3}, words
        text = output.out + output.err
        assert text.replace("\n", "").isprintable(), words
        assert "[red]" in text, words
        assert "[red]\n" not in text, words


def test_progress_escapes_markup_and_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalProgress() as progress:
        progress(Message(EVIL))
        progress(Started(1, 1, 0, EVIL))
        progress(RegionDone(EVIL, "failed", 0, EVIL))
    output = capsys.readouterr().err
    assert f"{SHOWN}\n" in output
    assert f"{SHOWN} failed. {SHOWN}\n" in output


def test_progress_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def display(_: object, *, display_id: bool) -> SimpleNamespace:
        assert display_id
        return SimpleNamespace(update=lambda one: drawn.append(one._repr_html_()))

    shell = SimpleNamespace(kernel=None)
    notebook = SimpleNamespace(get_ipython=lambda: shell, display=SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython", notebook)  # pyright: ignore[reportArgumentType] - all that is used
    with progress_display() as on_event:
        on_event(Message("<b>" + EVIL))
        monkeypatch.setattr(progress_module, "_UPDATE_S", 0.0)
        on_event(Inspecting("<slide>", 1, 4, 0.5, "measuring"))
        assert '<progress value="0.375" max="1">' in drawn[-1]
        assert "measuring &lt;slide&gt;: 38 % of 4 images" in drawn[-1]
        on_event(Inspecting("<slide>", 3, 4, 1.0, "planning"))
        assert "<progress" not in drawn[-1]
        on_event(Started(1, 4, 1, "out"))
        on_event(RegionDone("a", "done", 2))
        on_event(RegionDone("b", "failed", 0, "why"))
    assert 'value="3" max="4"' in drawn[-1]
    assert "3 of 4 regions, 1 failed" in drawn[-1]
    assert f"&lt;b&gt;{SHOWN}" in drawn[-1]
    assert "b failed. why" in drawn[-1]


def test_progress_of_planning_in_a_notebook_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    shown = SimpleNamespace(update=lambda one: drawn.append(one._repr_html_()))
    display = SimpleNamespace(display=lambda _, display_id: shown if display_id else None)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=display))  # pyright: ignore[reportArgumentType]
    with NotebookProgress() as on_event:
        on_event(Inspecting("slide", 0, 1, 0.5))
    assert drawn == ['<progress value="0.5" max="1"></progress> reading slide: 50 % of 1 image', ""]


def test_a_terminal_shows_what_is_planned_and_how_much_of_it() -> None:
    ours, theirs = pty.openpty()
    code = (
        "from limner.pipelines.progress import *\n"
        "with TerminalProgress() as progress:\n"
        "    for number, (share, step) in enumerate([(0.5, 'reading'), (0.0, 'fitting'), (1.0, 'planning')]):\n"
        "        progress(Inspecting('[red]', number % 2, 2, share, step)); progress._bar.refresh()\n"
        "    progress(Inspecting('last', 1, 2, 1.0, 'planning')); progress._bar.refresh()\n"
        "    progress(Started(1, 4, 1, 'out')); progress._bar.refresh()\n"
    )
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen([sys.executable, "-c", code], stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # at the end
            while part := os.read(ours, 65536):
                shown += part
    os.close(ours)
    assert process.returncode == 0
    lines = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", shown).decode()
    assert "reading [red] (1 of 2)" in lines
    assert " 25 %" in lines
    assert "fitting [red] (2 of 2)" in lines
    assert " 50 %" in lines
    assert "-:--" not in lines.split("regions")[0]
    assert "1/4" in lines


def test_progress_of_a_script_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_display() as on_event:
        on_event(Message("something"))
        on_event(Started(1, 4, 1, "out"))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "locale",
    [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii"}, {"LANG": "C"}],
)
def test_characters_outside_the_locale_are_escaped(
    locale: dict[str, str], tmp_path: Path, make_slide: Callable[..., Path]
) -> None:
    path = make_slide(tmp_path / "plain.tif", side=256).rename(tmp_path / "ß × [red].tif")
    output = run(["info", path, "--set", "names=show"], env={**os.environ, **locale})
    assert output.returncode == 0, output.stderr
    assert b"256" in output.stdout
    assert b"[red].tif" in output.stdout
    assert b"Traceback" not in output.stderr


def test_log_messages_of_libraries_are_not_printed(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import limner.pipelines.run.plan as plan, logging\n"
        "plan.reader_options = lambda settings, key='': logging.getLogger('tifffile').warning('JOHN DOE.svs') or {}\n"
    )
    output = run(["info", tmp_path], env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert output.returncode == 3
    assert b"JOHN" not in output.stdout + output.stderr


def _no_output(words: Sequence[str | Path], case: str) -> subprocess.CompletedProcess[bytes]:
    if case == "full":
        with Path("/dev/full").open("wb") as full:
            return run(words, stdout=full)
    if case == "closed":
        return run(words, stdout=None, preexec_fn=lambda: os.close(1))
    read, write = os.pipe()
    os.close(read)
    try:
        return run(words, stdout=write)
    finally:
        os.close(write)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("case", ["full", "closed", "gone"])
def test_an_unwritable_standard_output_is_an_error(case: str, scene: Path, card: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    output = _no_output(["run", scene, "--out", out, "--model", card], case)
    assert output.returncode == 1
    reason = {"full": b"No space left", "closed": b"it is closed", "gone": b"Broken pipe"}[case]
    assert reason in output.stderr
    assert b"standard output" in output.stderr
    assert b"Traceback" not in output.stderr
    assert b"Exception ignored" not in output.stderr
    assert (out / "findings.csv").exists()
    assert (out / "results.jsonl").read_bytes().startswith(b"{")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["plugins"]])
@pytest.mark.parametrize("case", ["full", "closed", "gone"])
def test_an_unwritable_standard_output_of_every_command(case: str, words: list[str]) -> None:
    output = _no_output(words, case)
    assert output.returncode == 1
    assert b"standard output" in output.stderr
    assert b"Traceback" not in output.stderr
    assert b"Exception ignored" not in output.stderr


@pytest.mark.parametrize("case", ["full", "closed", "gone"])
def test_standard_error_may_be_closed(case: str, scene: Path, card: Path, tmp_path: Path) -> None:
    words = ["run", scene, "--out", tmp_path / "out", "--model", card]
    if case == "full":
        with Path("/dev/full").open("wb") as full:
            output = run(words, stderr=full)
    elif case == "closed":
        output = run(words, stderr=None, preexec_fn=lambda: os.close(2))
    else:
        read, write = os.pipe()
        os.close(read)
        output = run(words, stderr=write)
        os.close(write)
    assert output.returncode == 0
    assert b"Research use only" in output.stdout
