"""The picture of a training's losses."""

import math
from pathlib import Path

import numpy as np
import pytest
from limner.reports.losses import SIZE, draw_losses
from PIL import Image


def test_the_same_losses_give_the_same_bytes(tmp_path: Path) -> None:
    losses = [4 * math.exp(-step / 60) + 0.1 for step in range(300)]
    for name in ("a.png", "b.png"):
        draw_losses(losses, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == SIZE
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    blue = (pixels[..., 2] - pixels[..., 0]) > 60
    rows = [np.nonzero(blue[:, x])[0].mean() for x in (150, 500, 900)]
    assert rows[0] < rows[1] < rows[2]  # it falls


@pytest.mark.parametrize("losses", [[], [0.5], [0.0, 0.0], [1e9, 1e-9, 1.0]])
def test_few_and_strange_losses_are_drawn_too(tmp_path: Path, losses: list[float]) -> None:
    draw_losses(losses, tmp_path / "losses.png")
    with Image.open(tmp_path / "losses.png") as picture:
        picture.load()
