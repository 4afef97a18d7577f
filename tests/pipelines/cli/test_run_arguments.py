"""Every command that takes the folder of a run refuses what is none, in a sentence and with an exit code."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from limner.pipelines.cli import main as cli
from limner.pipelines.run.run_folder import FORMAT

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import

MORE = {
    "watch": ["--once"],
    "send": ["--to", "dicomweb:http://localhost:1/x", "--dry-run"],
    "zones": ["--zones", "zones.geojson"],
    "merge": ["--out", "merged"],
    "export": ["--to", "csv"],
}
"""What else a command needs, or is given so that it ends."""


def commands(group: Any, *path: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """The words of every command that takes runs, with how many it takes."""
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, *path, name)
    runs = sum((one.metavar or "").count("RUN") for one in group.params if one.param_type_name == "argument")
    if runs:
        yield path, runs


COMMANDS = dict(commands(typer.main.get_command(cli.app)))


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, make_scene: Callable[..., Path]) -> Path:
    from limner.pipelines.config import Settings
    from limner.pipelines.run.execute import run

    folder = tmp_path_factory.mktemp("ended")
    asked = {"inputs": [str(make_scene(folder / "scene.tif"))], "model": "none", "out": str(folder / "run")}
    run(Settings.resolve({**asked, "reports": ["files-csv"]}), lambda _: None)
    return folder / "run"


def put(kind: str, path: Path, ended: Path) -> None:
    """Put something in place of a run."""
    if kind == "a file":
        path.write_text("Dear Sir")
    elif kind == "an empty folder":
        path.mkdir()
    elif kind == "another folder":
        path.mkdir()
        (path / "letter.txt").write_text("Dear Sir")
    elif kind == "another manifest":
        path.mkdir()
        (path / "manifest.json").write_text('{"name": "a web app"}')
        (path / "results.jsonl").touch()
    elif kind != "nothing":
        manifest = json.loads((shutil.copytree(ended, path) / "manifest.json").read_text())
        if kind == "a damaged manifest":
            manifest["area_sha256"] = "0"
        else:
            del manifest["sha256"]
            manifest["format"] = FORMAT + 1 if kind == "a newer version" else FORMAT - 1
        (path / "manifest.json").write_text(json.dumps(manifest))


RULES = {
    "nothing": (2, "must be a run folder, with a manifest.json", "nothing there"),
    "a file": (2, "must be a run folder, with a manifest.json", "a file"),
    "an empty folder": (2, "must be a run folder, with a manifest.json", "a folder without one"),
    "another folder": (2, "must be a run folder, with a manifest.json", "letter.txt"),
    "a damaged manifest": (1, "must be as limner wrote it", "its sha256 does not match"),
    "another manifest": (1, "must be as this version of limner", "format: Field required, and 7 other parts"),
    "a newer version": (1, f"must have the format {FORMAT}", f"format {FORMAT + 1} of a newer version"),
    "an older version": (1, f"must have the format {FORMAT}", f"format {FORMAT - 1} of an earlier version"),
}
"""What is in place of a run: the exit code, the rule and the value."""


def test_the_commands_that_take_runs_are_found() -> None:
    assert {("watch",), ("report",), ("reveal",), ("send",), ("check", "run"), ("zones",)} <= COMMANDS.keys()
    assert (COMMANDS["compare",], COMMANDS["merge",]) == (2, 2)


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_what_is_no_run_is_refused(
    command: tuple[str, ...],
    kind: str,
    ended: Path,
    tmp_path: Path,
    limner: Limner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    put(kind, tmp_path / "given", ended)
    code, rule, value = RULES[kind]
    for place in range(COMMANDS[command]):
        runs = [tmp_path / "given" if place == number else ended for number in range(COMMANDS[command])]
        output = limner(*command, *runs, *MORE.get(command[-1], []))
        assert output.code == code, output.err
        said = output.out if command == ("check", "run") and code == 1 else output.err
        assert f"{tmp_path / 'given'}" in said
        assert rule in said
        assert value in said
        assert output.err.count("limner: ") <= 1
        assert "try:" in said or "Use the version" in said or "Restore it" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == (["given"] if kind != "nothing" else [])
