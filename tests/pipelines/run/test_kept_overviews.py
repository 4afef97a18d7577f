"""Overviews that are kept between plan and reports."""

from pathlib import Path

import numpy as np
import pytest
from limner.pipelines.run import kept_overviews
from limner.pipelines.run.kept_overviews import keep_overview, load_overview, rename_overviews
from limner.readers.overview import ReducedImage
from limner.readers.render import Stretch

STRETCH = Stretch(("red",), (0.0,), (100.0,), "test")


@pytest.fixture
def overview() -> ReducedImage:
    pixels = np.arange(24).reshape(3, 4, 2).astype(np.uint16)  # the second channel is no part of the stretch
    valid = np.ones((3, 4), np.bool_)
    valid[0, 0] = False
    return ReducedImage(pixels, valid, ~np.eye(3, 4, dtype=np.bool_), (10.0, 20.0))


def test_an_overview_is_kept_as_it_is_rendered(tmp_path: Path, overview: ReducedImage) -> None:
    keep_overview(tmp_path, "a", overview, STRETCH)
    rename_overviews(tmp_path, [("a", "shown"), ("b", "c")])
    kept = load_overview(tmp_path, "shown", (40, 60))
    assert kept is not None
    assert kept.pixels.shape == (3, 4, 3)
    assert kept.pixels[2, 3].tolist() == [56] * 3  # 22 of 100
    assert kept.scale == overview.scale
    assert np.array_equal(kept.valid, overview.valid)
    assert np.array_equal(kept.readable, overview.readable)
    assert load_overview(tmp_path, "a", (40, 60)) is None


def test_a_damaged_file_is_no_overview(tmp_path: Path, overview: ReducedImage) -> None:
    keep_overview(tmp_path, "a", overview, STRETCH)
    (path,) = tmp_path.iterdir()
    for content in (path.read_bytes()[:-30], b"", b"no archive"):
        path.write_bytes(content)
        assert load_overview(tmp_path, "a", (40, 60)) is None


def test_no_more_is_kept_than_allowed(tmp_path: Path, overview: ReducedImage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_overviews, "MAX_BYTES", 100)
    keep_overview(tmp_path, "a", overview, STRETCH)
    keep_overview(tmp_path, "b", overview, STRETCH)
    assert len([*tmp_path.iterdir()]) == 1
