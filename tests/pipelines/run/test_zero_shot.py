"""Words and pictures through the whole path, in all three worlds."""

import csv
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import


@pytest.fixture
def words(made_checkpoints: Path) -> list[str]:
    """The arguments for zero-shot classification with three labels."""
    checkpoint = f"model_options.checkpoint={made_checkpoints / 'clip'}"
    return ["--model", "zero-shot", "--labels", "cat,dog,water", "--set", checkpoint]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_scene(tmp_path: Path, scene: Path, words: list[str], limner: Limner) -> None:
    output = limner("run", scene, *words, "--hd-num", 4, "--out", tmp_path / "out")
    assert output.code == 0, output.err
    found = rows(tmp_path / "out" / "findings.csv")
    assert {row["kind"] for row in found} == {"tile", "region"}
    for row in found:
        scores = {label: float(row[f"number.p.{label}"]) for label in ("cat", "dog", "water")}
        assert sum(scores.values()) == pytest.approx(1, abs=2e-4)
        assert row["label"] == max(scores, key=lambda label: scores[label])
    analysed = next(row for row in rows(tmp_path / "out" / "areas.csv") if row["item"] == "analysed")
    labels = [row for row in rows(tmp_path / "out" / "areas.csv") if row["entry"] == "label"]
    assert sum(float(row["area_px"]) for row in labels) == pytest.approx(float(analysed["area_px"]), rel=1e-6)


def test_a_slice_of_a_stack_is_named(
    tmp_path: Path, making: ModuleType, words: list[str], limner: Limner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", "0123456789abcdef0123456789abcdef")
    folder = making.save_all(making.slices(7, WindowCenter=4000, WindowWidth=10000), tmp_path / "ct")
    batches = []
    for batch in (1, 3):
        out = tmp_path / f"out{batch}"
        output = limner("run", folder, *words, "--hd-num", 4, "--batch", batch, "--out", out)
        assert output.code == 0, output.err
        batches.append([(out / name).read_bytes() for name in ("findings.csv", "areas.csv", "summary.csv")])
    assert batches[0] == batches[1]
    tiles = [row for row in rows(tmp_path / "out1" / "findings.csv") if row["kind"] == "tile"]
    assert sorted(int(row["slice"]) for row in tiles) == list(range(1, 8))
    assert len({row["sop_uid"] for row in tiles}) == 7
