"""Pages of studies from runs: the pixels of a slice, the same bytes again, and what remains when the study is gone."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from limner.pipelines.run.reporting import read_record
from limner.readers.geometry import Box

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import
EXACT = {"WindowCenter": 127.5, "WindowWidth": 255, "VOILUTFunction": "LINEAR_EXACT"}


@pytest.fixture
def run(tmp_path: Path, making: ModuleType, per_tile: str, limner: Limner) -> Path:
    """A run on a stack of 24 × 32 px whose pixels hold column, row and slice, with pixels of 2 × 1 mm."""
    y, x = np.mgrid[0:24, 0:32]
    slices = making.slices(5, **EXACT, PixelSpacing=[1.0, 2.0], Rows=24, Columns=32, RescaleSlope=1, RescaleIntercept=0)
    for k, data in enumerate(slices):
        data.PixelData = (x + 4 * y + 20 * k).astype(np.int16).tobytes()
    folder = making.save_all(slices, tmp_path / "ct")
    out = tmp_path / "out"
    assert limner("run", folder, "--model", per_tile, "--reports", "study-html,findings-csv", "--out", out).code == 0
    return out


def test_a_slice_is_shown_in_its_window_with_its_proportions(run: Path) -> None:
    (image,) = read_record(run).images
    assert image.slice_pictures is not None
    first, last = image.slice_pictures([0, 4], 1024)
    assert first is not None
    assert last is not None
    assert first.pixels.shape == (24, 64, 3), "columns are twice as far apart as rows"
    assert first.valid.all()
    y, x = np.mgrid[0:24, 0:32]
    shown = first.pixels[:, ::2, 0].astype(int) + first.pixels[:, 1::2, 0]
    assert np.abs(shown / 2 - (x + 4 * y))[:, 1:-1].max() <= 1
    assert (last.pixels[:, :, 0].astype(int) - first.pixels[:, :, 0] == 80).all()
    (reduced,) = image.slice_pictures([2], 16)
    assert reduced is not None
    assert reduced.pixels.shape == (6, 16, 3)


def test_a_part_is_read_with_its_proportions_and_never_enlarged(run: Path) -> None:
    (image,) = read_record(run).images
    assert image.part_pictures is not None
    parts = [(0, Box(4, 4, 12, 20)), (4, Box(4, 4, 12, 20)), (2, Box(-8, 0, 32, 24)), (0, Box(40, 0, 50, 9))]
    first, last, reduced, outside = image.part_pictures(parts, 16)
    assert first is not None
    assert last is not None
    assert reduced is not None
    assert outside is None
    assert first.pixels.shape == (16, 16, 3), "8 columns of 2 mm and 16 rows of 1 mm"
    assert first.scale == (0.5, 1.0)
    y, x = np.mgrid[4:20, 4:12]
    shown = first.pixels[:, ::2, 0].astype(int) + first.pixels[:, 1::2, 0]
    assert np.abs(shown / 2 - (x + 4 * y))[:, 1:-1].max() <= 1
    assert (last.pixels[:, :, 0].astype(int) - first.pixels[:, :, 0] == 80).all()
    assert reduced.pixels.shape == (6, 16, 3)


def test_a_page_is_the_same_when_it_is_written_again(run: Path, limner: Limner) -> None:
    (page,) = run.glob("study-*.html")
    before = page.read_bytes()
    assert before.count(b"<figure") == 5
    assert limner("report", run).code == 0
    assert page.read_bytes() == before
    assert "study-html" in limner("plugins").out


def test_a_study_that_is_gone_or_changed_keeps_its_table(run: Path, limner: Limner, tmp_path: Path) -> None:
    (page,) = run.glob("study-*.html")
    shutil.move(tmp_path / "ct", tmp_path / "elsewhere")
    assert limner("report", run).code == 0
    text = page.read_text()
    assert "<img" not in text
    assert text.count("The image is gone, has changed since the run, or cannot be rendered.") == 5
    assert "Findings in study1-ct1" in text
    shutil.move(tmp_path / "elsewhere", tmp_path / "ct")
    changed = next((tmp_path / "ct").iterdir())
    changed.write_bytes(changed.read_bytes() + b"\0\0")
    assert limner("report", run).code == 0
    assert "<img" not in page.read_text()
