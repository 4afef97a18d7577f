"""The package that docs/plugins.md shows is written from the page, installed, held to its contracts, and run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "bench"))
from options_tables import tables  # pyright: ignore[reportMissingImports] - a script beside the tests

sys.path.pop(0)


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "plugins.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def place(page: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the package is installed; its sources lie in `source` beside it."""
    folder = tmp_path_factory.mktemp("plugins")
    source = folder / "source"
    for path, text in re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(text, encoding="utf-8")
    (source / "limner_bright" / "__init__.py").touch()
    words = ["-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    subprocess.run([sys.executable, *words, str(folder / "site"), str(source)], check=True, capture_output=True)
    return folder


def environment(place: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(place / "site")}


def run(place: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """`limner` in a process of its own, with the package installed."""
    command = [sys.executable, "-m", "limner.pipelines.cli.main", *map(str, words)]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment(place), cwd=place)


def test_the_package_keeps_its_contracts(place: Path) -> None:
    tests = [path for path in (place / "source" / "tests").iterdir() if path.name.startswith("test_")]
    assert len(tests) == 3
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, tests)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment(place), cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_three_are_listed_with_their_options(place: Path) -> None:
    said = run(place, "plugins").stdout
    for name, value in (("npy", "npy:NpyReader"), ("bright", "bright:Bright"), ("counts", "counts:Counts")):
        assert re.search(rf"^\w+ +{name} +limner_bright\.{value} +limner-bright 1\.0$", said, re.MULTILINE)
    assert "threshold  a number from 0 to 1  default 0.5    Mean of a bright tile" in said
    assert "Axis of the channels." in said
    assert "Lowest score that is counted" in said
    assert "model_options.threshold" in run(place, "models", "show", "bright").stdout


def test_all_three_run_together(place: Path) -> None:
    picture = np.zeros((3, 64, 96), dtype=np.uint8)
    picture[:, :, :32] = 250
    (place / "in").mkdir()
    np.save(place / "in" / "a.npy", picture)
    model = ("--model", "bright", "--bands", "red,green,blue", "--set", "model_options.threshold=0.7")
    words = (*model, "--set", "reader_options.channels=first", "--reports", "counts", "--out", "out")
    done = run(place, "run", "in", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads((place / "out" / "counts.json").read_text(encoding="utf-8"))
    assert counts["counts"] == {"a": {"bright": 2, "dark": 4}}
    fewer = ("--set", "report_options.counts.least=0.9")
    assert run(place, "run", "in", *words, "--set", "model_options.verbose=true", *fewer).returncode == 0
    counts = json.loads((place / "out" / "counts.json").read_text(encoding="utf-8"))
    assert counts["counts"] == {"a": {"bright": 2}}
    other = run(place, "run", "in", *words, "--set", "model_options.threshold=0.1")
    assert (other.returncode, "threshold" in other.stderr) == (2, True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model_options.treshold=0.7", "Did you mean 'threshold'?"),
        ("model_options.threshold=7", "a number from 0 to 1"),
        ("reader_options.channel=first", "Did you mean 'channels'?"),
        ("reader_options.channels=second", "last or first"),
        ("report_options.counts.lest=1", "Did you mean 'least'?"),
        ("report_options.count.least=1", "Did you mean 'counts'?"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_input_is_looked_at(place: Path, change: str, said: str) -> None:
    for command in ("plan", "info"):
        words = ("--set", change, "--set", "model=bright")
        done = run(place, command, "no such file", *words)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_bands_that_do_not_fit_cost_their_file(place: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((8, 8, 2), dtype=np.uint8))
    done = run(place, "info", tmp_path / "a.npy", "--bands", "red,green,blue")
    assert done.returncode == 3
    assert "must name each of the 2 channels" in done.stdout


def test_the_page_lists_the_options_that_there_are(page: str) -> None:
    listed = page.split("## Options of the built-in plug-ins\n\n")[1]
    assert listed == tables(), "make it again with tests/bench/options_tables.py"
