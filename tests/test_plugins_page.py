"""The example package of docs/plugins.md: written from the page, installed, checked against the contracts, and run."""

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

pytestmark = pytest.mark.slow

sys.path.pop(0)


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "plugins.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def installed(page: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the package's sources in `source` and the installed package in `site`."""
    folder = tmp_path_factory.mktemp("plugins")
    source = folder / "source"
    for path, text in re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(text, encoding="utf-8")
    (source / "limner_bright" / "__init__.py").touch()
    words = ["-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    subprocess.run([sys.executable, *words, str(folder / "site"), str(source)], check=True, capture_output=True)
    return folder


def environment(installed: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(installed / "site")}


def run(installed: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `limner` in a new process that sees the installed package."""
    command = [sys.executable, "-m", "limner.pipelines.cli.main", *map(str, words)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment(installed), cwd=installed
    )


def test_contract_checks_pass(installed: Path) -> None:
    tests = [path for path in (installed / "source" / "tests").iterdir() if path.name.startswith("test_")]
    assert len(tests) == 3
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, tests)]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment(installed), cwd=installed
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_plugins_are_listed_with_their_options(installed: Path) -> None:
    listed = run(installed, "plugins").stdout
    for name, value in (("npy", "npy:NpyReader"), ("bright", "bright:Bright"), ("counts", "counts:Counts")):
        assert re.search(rf"^\w+ +{name} +limner_bright\.{value} +limner-bright 1\.0$", listed, re.MULTILINE)
    assert "threshold  a number from 0 to 1  default 0.5    Mean of a bright tile" in listed
    assert "Axis of the channels." in listed
    assert "Lowest score that is counted" in listed
    assert "model_options.threshold" in run(installed, "models", "show", "bright").stdout


def test_plugins_run_together(installed: Path) -> None:
    picture = np.zeros((3, 64, 96), dtype=np.uint8)
    picture[:, :, :32] = 250
    (installed / "in").mkdir()
    np.save(installed / "in" / "a.npy", picture)
    model = ("--model", "bright", "--bands", "red,green,blue", "--set", "model_options.threshold=0.7")
    words = (*model, "--set", "reader_options.channels=first", "--reports", "counts", "--out", "out")
    done = run(installed, "run", "in", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads((installed / "out" / "counts.json").read_text(encoding="utf-8"))
    assert counts["counts"] == {"a": {"bright": 2, "dark": 4}}
    fewer = ("--set", "report_options.counts.least=0.9")
    assert run(installed, "run", "in", *words, "--set", "model_options.verbose=true", *fewer).returncode == 0
    counts = json.loads((installed / "out" / "counts.json").read_text(encoding="utf-8"))
    assert counts["counts"] == {"a": {"bright": 2}}
    other = run(installed, "run", "in", *words, "--set", "model_options.threshold=0.1")
    assert (other.returncode, "threshold" in other.stderr) == (2, True)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("model_options.treshold=0.7", "Did you mean 'threshold'?"),
        ("model_options.threshold=7", "a number from 0 to 1"),
        ("reader_options.channel=first", "Did you mean 'channels'?"),
        ("reader_options.channels=second", "last or first"),
        ("report_options.counts.lest=1", "Did you mean 'least'?"),
        ("report_options.count.least=1", "Did you mean 'counts'?"),
    ],
)
def test_invalid_options_are_refused_before_any_input_is_read(installed: Path, change: str, expected: str) -> None:
    for command in ("plan", "info"):
        words = ("--set", change, "--set", "model=bright")
        done = run(installed, command, "no such file", *words)
        assert (done.returncode, expected in done.stderr) == (2, True), done.stderr


def test_wrong_bands_fail_their_file(installed: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((8, 8, 2), dtype=np.uint8))
    done = run(installed, "info", tmp_path / "a.npy", "--bands", "red,green,blue")
    assert done.returncode == 3
    assert "must name each of the 2 channels" in done.stdout


def test_option_tables_are_up_to_date(page: str) -> None:
    listed = page.split("## Options of the built-in plug-ins\n\n")[1]
    assert listed == tables(), "write it again with tests/bench/options_tables.py"
