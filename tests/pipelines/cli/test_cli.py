"""The command line: cheap help, honest words, and a plug-in's mistakes told from the user's."""

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from limner.pipelines.run.reporting import read_record
from limner.readers.plugins import installed

Limner = Callable[..., Any]  # gives the class Said of conftest, which tests cannot import


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
    said = limner("--version")
    assert (said.code, said.out) == (0, f"limner {version('limner')}\n")


def test_an_unknown_flag_is_a_wrong_request(limner: Limner) -> None:
    assert limner("run", "--resolutoin", "10m").code == 2


def test_plugins_are_listed_with_their_packages(limner: Limner, painter: str) -> None:
    said = limner("plugins")
    for group in ("limner.readers", "limner.annotators", "limner.writers"):
        for name, point in installed(group).items():
            assert any(name in line and point.value in line for line in said.out.splitlines())
    assert any(painter in line and "painter 1.0" in line for line in said.out.splitlines())


def test_models_are_listed_and_shown(limner: Limner, card: Path) -> None:
    said = limner("models")
    assert "csmask " in said.out
    assert "csmask-cloud" in said.out
    said = limner("models", "show", card)
    assert said.code == 0
    for words in ("anything but tests", "bright, ridge", "10 m", "sha256"):
        assert words in said.out
    assert limner("models", "show", "csmsk").code == 2


def test_weights_that_are_here_are_fetched_from_here(limner: Limner, card: Path, tmp_path: Path) -> None:
    said = limner("models", "fetch", card)
    assert (said.code, said.out.strip()) == (0, str(tmp_path / "toy.onnx"))


def test_the_doctor_says_what_is_there(limner: Limner) -> None:
    said = limner("doctor")
    assert said.code == 0
    for words in ("limner", "GDAL", "GTiff", "cores", "memory", "weights cache", "model csmask"):
        assert words in said.out


def test_info_of_an_image_and_of_none(limner: Limner, scene: Path, tmp_path: Path) -> None:
    said = limner("info", scene)
    assert said.code == 0
    for words in ("150 × 110 px", "red", "uint16", "EPSG:32633", "geotransform"):
        assert words in said.out
    (tmp_path / "letter.txt").write_text("Dear Sir")
    assert limner("info", tmp_path / "letter.txt").code == 3


def test_a_plan_says_what_would_be_done_and_writes_nothing(limner: Limner, scene: Path, card: Path) -> None:
    before = sorted(scene.parent.iterdir())
    said = limner("plan", scene, "--model", card, "--hd-num", 4, "--engine", "local", "--workers", 3)
    assert said.code == 0
    for words in ("EPSG:32633", "10 m", "2 × 2 tiles of 32 px", "red", "memory per worker", "on this machine"):
        assert words in said.out
    assert sorted(scene.parent.iterdir()) == before


def test_a_plan_without_the_weights_says_what_is_missing(
    limner: Limner, scene: Path, make_card: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))
    card = make_card(tmp_path, weights="pypi:limner-toy==1.0#toy.onnx", sha256="0" * 64)
    said = limner("plan", scene, "--model", card)
    assert said.code == 0
    assert "cannot be measured" in said.out
    assert "models fetch" in said.out


def test_another_packages_annotator_sees_rgb(limner: Limner, scene: Path, painter: str, tmp_path: Path) -> None:
    said = limner("run", scene, "--out", tmp_path / "out", "--model", painter, "--hd-num", 4)
    assert said.code == 0, said.err
    (image,) = read_record(tmp_path / "out").images
    assert {(f.label, f.kind, f.text) for f in image.findings()} == {("picture", "region", "of uint8")}
    assert sum(f.geometry.area for f in image.findings()) == 150 * 110


def test_a_mistake_of_a_plug_in_shows_its_traceback_and_keeps_what_was_done(
    limner: Limner, scene: Path, painter: str, tmp_path: Path
) -> None:
    words = ("run", scene, "--out", tmp_path / "out", "--model", painter, "--hd-num", 1)
    said = limner(*words, "--set", "model_options.mood=bug")
    assert said.code == 70
    assert "painter spilled" in said.err
    assert "limner doctor" in said.err
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) >= 1


def test_a_region_that_does_not_fit_into_memory_fails_alone(
    limner: Limner, scene: Path, painter: str, tmp_path: Path
) -> None:
    words = ("run", scene, "--out", tmp_path / "out", "--model", painter, "--hd-num", 1, "--batch", 3)
    said = limner(*words, "--set", "model_options.mood=memory")
    assert said.code == 1
    (image,) = read_record(tmp_path / "out").images
    assert image.failures
    assert all("memory" in reason for _, reason in image.failures)
    assert len(image.findings()) == 3  # of the first column, whose uppermost region is empty


def test_a_worker_that_is_killed_costs_nothing(limner: Limner, scene: Path, painter: str, tmp_path: Path) -> None:
    trigger = tmp_path / "trigger"
    trigger.touch()
    mood = ("--set", "model_options.mood=rogue", "--set", f"model_options.trigger={trigger}", "--hd-num", 1)
    words = ("run", scene, "--out", tmp_path / "out", "--model", painter, *mood, "--batch", 4)
    said = limner(*words, "--engine", "local", "--workers", 2)
    assert said.code == 0, said.err
    assert not trigger.exists()
