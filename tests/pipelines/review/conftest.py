"""A run with many findings to review, made once."""

import json
from collections.abc import Callable
from pathlib import Path

import limner as package
import pytest
from limner.reports.writer import Record


@pytest.fixture(scope="session")
def reviewed_run(
    tmp_path_factory: pytest.TempPathFactory, make_scene: Callable[..., Path], make_card: Callable[..., Path]
) -> Path:
    """A run of the toy network over a scene of 150 × 110 pixels: findings "bright" and "ridge"."""
    folder = tmp_path_factory.mktemp("reviewed")
    make_scene(folder / "scene.tif")
    package.run(str(folder / "scene.tif"), model=str(make_card(folder)), out=str(folder / "run"), reports=[])
    return folder / "run"


@pytest.fixture(scope="session")
def record(reviewed_run: Path) -> Record:
    """That run, read."""
    return package.Run.open(reviewed_run).record


@pytest.fixture
def lines() -> Callable[[Path], list[dict]]:
    """The JSON objects of a log, line by line."""
    return lambda path: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
