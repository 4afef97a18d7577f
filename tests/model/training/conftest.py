"""A small model to train, and images that are easy to tell apart."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from limner.model.annotator import InputSpec, View
from limner.model.tiling import TileGrid
from limner.model.vlm.fourkhd.build import build
from limner.model.vlm.fourkhd.tokenizer import train_tokenizer
from limner.readers.regions import Grid, cut_regions
from PIL import Image

COLOURS = {"red": (200, 30, 40), "green": (30, 180, 50), "blue": (40, 50, 210)}
QUESTION = "What does this image show?\nOptions: {}.\nAnswer with one of the options and nothing else."


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new model: tiles of 16 px, merged to 2 × 2, some 60,000 parameters."""
    folder = tmp_path_factory.mktemp("base")
    words = [QUESTION.format("; ".join(COLOURS)), *COLOURS, "a red picture", "a green picture", "a blue picture"]
    lines = [f"{word} {line}" for word in words for line in Path(__file__).read_text(encoding="utf-8").splitlines()]
    train_tokenizer(lines, 560, folder / "tokenizer.model")
    build(
        "new:hidden=32,layers=2,heads=2,mlp=48,patch=4,tile=16",
        "new:hidden=32,layers=2,heads=4,kv_heads=2,mlp=48,theta=10000,positions=512",
        folder / "model",
        tokenizer=str(folder / "tokenizer.model"),
        seed=1,
    )
    return folder / "model"


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JSONL of twelve noisy pictures in three colours, of several sizes and hd_num."""
    folder = tmp_path_factory.mktemp("colours")
    random = np.random.default_rng(5)
    lines: list[str] = []
    for number in range(12):
        name = list(COLOURS)[number % 3]
        width, height = ((16, 16), (40, 24), (11, 30))[number // 3 % 3]
        pixels = np.clip(random.normal(COLOURS[name], 25, (height, width, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        listed = "; ".join(np.roll(list(COLOURS), number))
        result: dict[str, Any] = {"image": f"{number}.png", "question": QUESTION.format(listed), "answer": name}
        result |= {"hd_num": (1, 2, 6)[number % 3]} if number % 2 else {"vary": ["shift", "mirror", "turn", "light"]}
        lines.append(json.dumps(result))
    path = folder / "train.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def lines(tmp_path: Path) -> Callable[..., Path]:
    """Make a JSONL of lines, as texts or as values, beside a picture `a.png` of 20 × 10 px."""

    def make(*written: object) -> Path:
        Image.new("RGB", (20, 10), (9, 99, 199)).save(tmp_path / "a.png")
        path = tmp_path / "train.jsonl"
        texts = [one if isinstance(one, str) else json.dumps(one) for one in written]
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
        return path

    return make


@pytest.fixture
def view() -> Callable[[tuple[int, int, int]], View]:
    """Make a view of one tile of 16 px in one colour."""

    def make(colour: tuple[int, int, int]) -> View:
        [region] = cut_regions(Grid("picture", (16, 16), (1.0, 1.0)), tile=16, hd_num=1)
        tiles = np.full((1, 16, 16, 3), colour, dtype=np.uint8)
        inside = np.ones((16, 16), dtype=np.bool_)
        spec = InputSpec(tile=16, overall=True)
        grid = TileGrid.exact(1, 1, tile=16)
        return View(region, spec, grid, tiles, inside[None], inside, tiles[0].astype(np.float32))

    return make
