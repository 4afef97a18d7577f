"""Runs on montages of slices: each finding on its slice, and nothing counted twice."""

import csv
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.slow

WIDE = {"WindowCenter": 4000, "WindowWidth": 10000}
Limner = Callable[..., Any]


@pytest.fixture(autouse=True)
def _same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", "0123456789abcdef0123456789abcdef")


@pytest.fixture
def stack(tmp_path: Path, making: ModuleType) -> Path:
    """Seven slices of 6 × 8 pixels of 0.5 mm."""
    return making.save_all(making.slices(7, **WIDE), tmp_path / "ct", order=[3, 1, 6, 0, 5, 2, 4])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_tile_is_a_finding_of_its_slice(tmp_path: Path, stack: Path, per_tile: str, limner: Limner) -> None:
    common = ("run", stack, "--model", per_tile, "--hd-num", 4)
    for name, further in (("one", ()), ("many", ("--stack", "montage"))):
        output = limner(*common, *further, "--out", tmp_path / name)
        assert output.code == 0, output.err
    one, many = (rows(tmp_path / name / "findings.csv") for name in ("one", "many"))
    same = ("slice", "sop_uid", "slice_position_mm", "x0_px", "y0_px", "x1_px", "y1_px", "area_px", "centre_lps_z_mm")
    assert [[row[key] for key in same] for row in many] == [[row[key] for key in same] for row in one]
    [alone], [whole] = (rows(tmp_path / name / "summary.csv") for name in ("one", "many"))
    for key in ("area_mm2.seen", "share.seen", "per_mm2.seen"):
        assert float(whole[key]) == pytest.approx(float(alone[key]), rel=1e-6), key
    assert float(whole["analysed_px"]) == pytest.approx(7 * 48)
    assert whole["regions"] == "2"
    assert [row["n_findings"] for row in rows(tmp_path / "many" / "slices.csv")] == ["1"] * 7


def test_slices_that_are_not_chosen_are_on_no_page(tmp_path: Path, stack: Path, per_tile: str, limner: Limner) -> None:
    words = ("--model", per_tile, "--hd-num", 4, "--stack", "montage", "--slices", "2,4-6")
    assert limner("run", stack, *words, "--out", tmp_path / "out").code == 0
    assert [row["slice"] for row in rows(tmp_path / "out" / "findings.csv")] == ["2", "4", "5", "6"]
    left = [row for row in rows(tmp_path / "out" / "areas.csv") if row["reason"] == "not chosen with --slices"]
    assert [(row["regions"], float(row["area_px"])) for row in left] == [("3", 3 * 48)]
    [whole] = [row for row in rows(tmp_path / "out" / "areas.csv") if row["entry"] == "image"]
    assert float(whole["area_px"]) == pytest.approx(7 * 48)
    status = {row["slice"]: row["status"] for row in rows(tmp_path / "out" / "slices.csv")}
    assert [status[number] == status["2"] for number in "1234567"] == [False, True, False, True, True, True, False]
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.csv")}
    assert limner("report", tmp_path / "out").code == 0
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.csv")}


def test_a_plan_says_how_slices_are_shown(stack: Path, per_tile: str, limner: Limner) -> None:
    output = limner("plan", stack, "--model", per_tile, "--hd-num", 4, "--stack", "montage")
    assert output.code == 0, output.err
    assert "2 montages of up to 2 × 2 slices, each in a tile of" in output.out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--resolution", "native"), "must not be a montage, which has a scale of its own, with resolution"),
        (("--whole",), "must not be a montage, which has a scale of its own, with whole"),
        (("--overlap", "8"), "must not be a montage"),
    ],
)
def test_what_a_montage_cannot_have_is_refused(
    stack: Path, per_tile: str, limner: Limner, words: tuple[str, ...], why: str
) -> None:
    output = limner("plan", stack, "--model", per_tile, "--stack", "montage", *words)
    assert output.code == 2
    assert why in output.err.replace("\n", " ")
