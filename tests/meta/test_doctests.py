"""The examples in docstrings are correct."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    path.relative_to(ROOT).as_posix()
    for package in ("readers", "model", "reports", "pipelines")
    for path in (ROOT / package).rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


def test_there_are_examples() -> None:
    assert len(MODULES) >= 8


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module("limner." + name.removesuffix(".py").replace("/", "."))
    done = doctest.testmod(module)
    assert (done.failed, done.attempted > 0) == (0, True)
