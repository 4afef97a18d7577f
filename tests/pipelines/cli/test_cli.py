"""The command line: help, listings, plans, and bugs of plug-ins."""

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from limner.pipelines.run.reporting import read_record
from limner.readers.plugins import installed

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import


@pytest.mark.slow
@pytest.mark.parametrize("command", [["--help"], ["run", "--help"], ["models", "--help"], ["--version"]])
def test_help_loads_nothing_heavy_and_touches_no_network(command: list[str]) -> None:
    spy = (
        "import sys, socket; sys.argv = ['limner', *sys.argv[1:]]\n"
        "def refuse(*_): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "from limner.pipelines.cli import main as cli\n"
        "try: cli.main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'rasterio', 'onnxruntime', 'pandas', 'pyproj', 'shapely', 'PIL'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", spy, *command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_version(limner: Limner) -> None:
    output = limner("--version")
    assert (output.code, output.out) == (0, f"limner {version('limner')}\n")


def test_an_unknown_flag_is_an_invalid_request(limner: Limner) -> None:
    assert limner("run", "--resolutoin", "10m").code == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [("--model thresold:red", "'threshold:'"), ("--model threshold:red --reports findings", "'findings-csv'")],
)
def test_a_misspelt_plug_in_is_told_with_the_nearest_one(
    words: str, told: str, limner: Limner, scene: Path, tmp_path: Path
) -> None:
    said = limner("run", scene, *words.split(), "--out", tmp_path / "out")
    assert said.code == 2
    assert f"Did you mean {told}?" in said.err


def test_plugins_are_listed_with_their_packages(limner: Limner, painter: str) -> None:
    output = limner("plugins")
    for group in ("limner.readers", "limner.annotators", "limner.writers"):
        for name, point in installed(group).items():
            assert any(name in line and point.value in line for line in output.out.splitlines())
    assert any(painter in line and "painter 1.0" in line for line in output.out.splitlines())


def test_models_are_listed_and_shown(limner: Limner, card: Path) -> None:
    output = limner("models")
    assert "csmask " in output.out
    assert "csmask-cloud" in output.out
    output = limner("models", "show", card)
    assert output.code == 0
    for words in ("anything but tests", "bright, ridge", "10 m", "sha256"):
        assert words in output.out
    output = limner("models", "show", "brain")
    for words in ("80 to 400 mm", "deepbet", "measured", "model.pt", "model_options.flips"):
        assert words in output.out
    assert limner("models", "show", "csmsk").code == 2


def test_fetch_finds_local_weights(limner: Limner, card: Path, tmp_path: Path) -> None:
    output = limner("models", "fetch", card)
    assert (output.code, output.out.strip()) == (0, str(tmp_path / "toy.onnx"))


@pytest.mark.slow
def test_info_of_an_image_and_of_none(limner: Limner, scene: Path, tmp_path: Path) -> None:
    output = limner("info", scene)
    assert output.code == 0
    for words in ("150 × 110 px", "red", "uint16", "EPSG:32633", "geotransform"):
        assert words in output.out
    (tmp_path / "letter.txt").write_text("Dear Sir")
    assert limner("info", tmp_path / "letter.txt").code == 3


@pytest.mark.slow
def test_a_plan_describes_the_run_and_writes_nothing(limner: Limner, scene: Path, card: Path) -> None:
    before = sorted(scene.parent.iterdir())
    output = limner("plan", scene, "--model", card, "--hd-num", 4, "--engine", "local", "--workers", 3)
    assert output.code == 0
    for words in ("EPSG:32633", "10 m", "2 × 2 tiles of 32 px", "red", "memory per worker", "on this machine"):
        assert words in output.out
    assert sorted(scene.parent.iterdir()) == before


@pytest.mark.slow
def test_a_plan_without_the_weights_names_them(
    limner: Limner, scene: Path, make_card: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))
    card = make_card(tmp_path, weights="pypi:limner-toy==1.0#toy.onnx", sha256="0" * 64)
    output = limner("plan", scene, "--model", card)
    assert output.code == 0
    assert "cannot be measured" in output.out
    assert "models fetch" in output.out


@pytest.mark.slow
def test_an_annotator_plugin_gets_rgb(limner: Limner, scene: Path, painter: str, tmp_path: Path) -> None:
    output = limner("run", scene, "--out", tmp_path / "out", "--model", painter, "--hd-num", 4)
    assert output.code == 0, output.err
    (image,) = read_record(tmp_path / "out").images
    assert {(f.label, f.kind, f.text) for f in image.findings()} == {("picture", "region", "of uint8")}
    assert sum(f.geometry.area for f in image.findings()) == 150 * 110


@pytest.mark.slow
def test_a_bug_of_a_plugin_shows_its_traceback_and_keeps_results(
    limner: Limner, scene: Path, painter: str, tmp_path: Path
) -> None:
    words = ("run", scene, "--out", tmp_path / "out", "--model", painter, "--hd-num", 1)
    output = limner(*words, "--set", "model_options.behaviour=bug")
    assert output.code == 70
    assert "painter spilled" in output.err
    assert "limner doctor" in output.err
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) >= 1


@pytest.mark.slow
def test_a_region_that_does_not_fit_into_memory_fails_alone(
    limner: Limner, scene: Path, painter: str, tmp_path: Path
) -> None:
    words = ("run", scene, "--out", tmp_path / "out", "--model", painter, "--hd-num", 1, "--batch", 3)
    output = limner(*words, "--set", "model_options.behaviour=memory")
    assert output.code == 1
    (image,) = read_record(tmp_path / "out").images
    assert image.failures
    assert all("memory" in reason for _, reason in image.failures)
    assert len(image.findings()) == 3  # of the first column, whose uppermost region is empty


@pytest.mark.slow
def test_a_killed_worker_is_replaced(limner: Limner, scene: Path, painter: str, tmp_path: Path) -> None:
    trigger = tmp_path / "trigger"
    trigger.touch()
    behaviour = ("--set", "model_options.behaviour=rogue", "--set", f"model_options.trigger={trigger}", "--hd-num", 1)
    words = ("run", scene, "--out", tmp_path / "out", "--model", painter, *behaviour, "--batch", 4)
    output = limner(*words, "--engine", "local", "--workers", 2)
    assert output.code == 0, output.err
    assert not trigger.exists()
