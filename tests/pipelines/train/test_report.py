"""Reports of trainings: plots with the right colours, and a page with every metric."""

import math
from pathlib import Path

import numpy as np
import pytest
from limner.model.probe.card import ProbeCard
from limner.pipelines.train.report import card_markdown
from PIL import Image, ImageColor

pytest.importorskip("matplotlib", reason="an extra")

from limner.pipelines.train.report import RIGHT, SIZE, WRONG, plot_confusion, plot_losses

FIGURE = {"value": 0.8, "low": 0.7, "high": 0.9}


def card(table: list[list[int]], names: list[str], *, beside: bool) -> ProbeCard:
    figures = dict.fromkeys(
        ("accuracy", "balanced_accuracy", "macro_f1", "calibration_error_before", "calibration_error"), FIGURE
    )
    return ProbeCard.model_validate(
        {
            "summary": "Tells things apart.",
            "licence": "CC0",
            "classes": [{"name": name, "tiles": sum(row), "units": 5} for name, row in zip(names, table, strict=True)],
            "seen": {"tile": 16, "metres": 5e-7, "tolerates": 1.5, "bands": None, "quantity": "", "channels": 3},
            "encoder": {"source": "colour", "identity": {"kind": "colour"}},
            "head": {"kind": "linear", "sha256": "0" * 64, "dimensions": 21, "strength": "1", "temperature": 0.5},
            "validation": {
                "folds": 5,
                "unit": "image",
                "units": 15,
                "inside": 0.5,
                "interval": "95 %, of a kind",
                "left_out": {"at an edge": 7},
            },
            "figures": figures,
            "by_class": [{"name": name, "precision": FIGURE, "recall": FIGURE, "f1": FIGURE} for name in names],
            "confusion": table,
            "margins": [{"margin": 0.1, "decided": 0.95, "accuracy": 0.85}],
            "majority": 0.4,
            "colour": figures if beside else None,
            "gain": {"value": 0.1, "low": -0.1, "high": 0.2} if beside else None,
            "labels_sha256": {"file 1": "1" * 64},
            "versions": {},
            "not_for": ["anything but tests"],
        }
    )


@pytest.mark.slow
def test_the_same_losses_give_the_same_bytes(tmp_path: Path) -> None:
    losses = [4 * math.exp(-step / 60) + 0.1 for step in range(300)]
    for name in ("a.png", "b.png"):
        plot_losses(losses, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == SIZE
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    dark = (pixels[..., 2] - pixels[..., 0]) > 120  # the moving mean
    rows = [np.nonzero(dark[:, x])[0].mean() for x in (150, 400, 600)]
    assert rows[0] < rows[1] < rows[2]  # it falls


@pytest.mark.parametrize("losses", [[], [0.5], [0.0, 0.0], [1e9, 1e-9, 1.0]])
@pytest.mark.slow
def test_few_or_extreme_losses_are_plotted(tmp_path: Path, losses: list[float]) -> None:
    plot_losses(losses, tmp_path / "losses.png")
    with Image.open(tmp_path / "losses.png") as picture:
        picture.load()


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 9, 30])
def test_a_confusion_matrix_has_the_colours_of_its_shares(tmp_path: Path, count: int) -> None:
    table = [[20 if r == c else 20 if c == (r + 1) % count else 0 for c in range(count)] for r in range(count)]
    table[0] = [40 if c == 0 else 0 for c in range(count)]
    names = [f"class $x^2$ | {n}" for n in range(count)]
    for name in ("a.png", "b.png"):
        plot_confusion(card(table, names, beside=False), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)

    def cells(colour: str, share: float) -> int:
        pale, full = np.array(ImageColor.getrgb("#f6f6f6")), np.array(ImageColor.getrgb(colour))
        return int((np.abs(pixels - (pale + (full - pale) * share)).max(axis=2) <= 1).sum())

    assert cells(RIGHT, 1.0) > 0, "a row that is all right"
    assert cells(RIGHT, 0.5) > cells(RIGHT, 1.0) or count == 2
    assert cells(WRONG, 0.5) > 0
    assert cells(WRONG, 1.0) == 0


def test_the_page_has_every_metric() -> None:
    made = card([[8, 2], [1, 9]], ["a|b", "c"], beside=True)
    words = card_markdown(made)
    for text in (
        "anything but tests",
        "at an edge: 7",
        "0.800 (0.700 to 0.900)",
        "a\\|b",
        "0.5 µm",
        "factor 1.5",
        "0" * 64,
    ):
        assert text in words
    assert "adds 0.100 (-0.100 to 0.200)" in words
    assert "not more than chance may explain" in words
    assert "0.400 of the tiles" in words
    alone = card_markdown(card([[8, 2], [1, 9]], ["a", "b"], beside=False))
    assert "| metric | colour statistics |" in alone
    assert "adds" not in alone
