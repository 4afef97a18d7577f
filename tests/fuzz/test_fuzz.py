"""Five hundred of the fuzzer's inputs; its undamaged seeds pass; each kind of failure is detected."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).resolve().parent

pytest.importorskip("onnx", reason="networks for tests are written with the onnx package")
pytest.importorskip("resource", reason="memory is watched as Linux shows it")

ANNOTATOR = """
import os
import time

from limner.readers.errors import ModelError
from limner.readers.options import Options
from pydantic import Field


class PlantedOptions(Options):
    do: str = Field("", description="What happens.")
    into: str = Field("", description="What is written.")


def make(options):
    match options.do:
        case "raise":
            return 1 / 0
        case "wait":
            time.sleep(600)
        case "fill":
            held = [bytearray(os.urandom(2**20)) * 20 for _ in range(200)]
            time.sleep(600)
        case "die":
            os.abort()
        case "write":
            open(options.into, "w").close()
            raise ModelError("planted", "it must write", remedy="None")


make.Options = PlantedOptions
"""


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, whose siblings it imports as the script that it is."""
    monkeypatch.syspath_prepend(str(HERE))
    import fuzz as module

    return module


def script(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "fuzz.py"), "--out", str(out), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_five_hundred_inputs_bring_nothing_but_limners_own_errors(tmp_path: Path) -> None:
    done = script(tmp_path, "--seed", "1", "--inputs", "500")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_seed_ends_well_as_it_is(tmp_path: Path) -> None:
    done = script(tmp_path, "--unchanged")
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_input_follows_from_its_number(fuzz: ModuleType, tmp_path: Path) -> None:
    areas = ["maps", "slides", "studies"]
    one, two = (fuzz.Kitchen(1, areas, tmp_path / "input") for _ in range(2))
    first = [one.make(number) for number in range(30)]
    assert first[::-1] == [two.make(number) for number in reversed(range(30))]
    assert len({(made.area, made.name) for made in first}) > 15
    assert sum(made.files == one.files(made.area, made.name) for made in first) < 5
    other = fuzz.Kitchen(2, areas, tmp_path / "input").make(0)
    assert other.files != first[0].files


@pytest.fixture
def attempt(fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Try something as the fuzzer tries inputs; the annotator `planted` misbehaves as its options ask."""
    (tmp_path / "planted.py").write_text(ANNOTATOR, encoding="utf-8")
    about = tmp_path / "planted-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1\n", encoding="ascii")
    (about / "entry_points.txt").write_text("[limner.annotators]\nplanted = planted:make\n", encoding="ascii")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(fuzz, "SECONDS", 20)
    monkeypatch.setattr(fuzz, "BYTES", 2**28)
    made = fuzz.Kitchen(1, ["maps"], tmp_path / "input").unchanged()[0]
    fuzz.write(made, tmp_path / "a")
    worker = fuzz.Worker(tmp_path)
    yield lambda *words: worker.attempt(tmp_path / "a", [list(words)])
    worker.close()


@pytest.mark.parametrize(
    ("does", "outcome"),
    [("raise", "foreign"), ("wait", "slow"), ("fill", "memory"), ("die", "died"), ("write", "wrote")],
)
def test_what_must_not_happen_is_seen(
    does: str, outcome: str, attempt: Callable[..., Any], fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt("limner", "info", "@a.tif")  # what is imported does not count
    if does == "wait":
        monkeypatch.setattr(fuzz, "SECONDS", 2)
    output = (f"model_options.do={does}", "model_options.into=@made.txt")
    words = [word for one in output for word in ("--set", one)]
    result = attempt("limner", "plan", "@a.tif", "--model", "planted", *words)
    assert result["outcome"] == outcome, result["told"]
    if does == "raise":
        assert result["signature"].startswith("ZeroDivisionError readers/options.py:make_plugin"), result["signature"]
    again = attempt("limner", "info", "@a.tif")
    assert again["outcome"] == "fine"
