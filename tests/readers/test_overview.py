"""The whole picture, reduced, read in pieces."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from limner.readers import overview
from limner.readers.geometry import Box
from limner.readers.overview import read_overview

Make = Callable[..., Any]


def test_a_small_image_is_not_enlarged(array_image: Make, coordinates: Make) -> None:
    image = array_image(coordinates(30, 20))
    pixels, valid, readable, scale, _ = read_overview(image, limit=2048)
    assert (pixels == image.pixels).all()
    assert valid.all()
    assert readable.all()
    assert scale == (1.0, 1.0)


@pytest.mark.parametrize(("width", "height", "limit"), [(1000, 600, 100), (997, 31, 64), (3, 5000, 64), (64, 64, 64)])
def test_overview_pixels_are_in_place(
    array_image: Make, coordinates: Make, width: int, height: int, limit: int
) -> None:
    """The mean of a footprint's coordinates is its middle, but for the pixels at its ends that it shares."""
    pixels, valid, readable, scale, _ = read_overview(array_image(coordinates(width, height)), limit=limit)
    assert max(pixels.shape[:2]) == min(limit, max(width, height))
    assert min(pixels.shape[:2]) >= 1
    rows, columns = valid.shape
    assert scale == (width / columns, height / rows)
    x, y = (np.arange(columns) + 0.5) * scale[0], (np.arange(rows) + 0.5) * scale[1]
    assert np.abs(pixels[..., 0] - x[None, :]).max() < 1e-6 + (0.125 / scale[0] if width % columns else 0)
    assert np.abs(pixels[..., 1] - y[:, None]).max() < 1e-6 + (0.125 / scale[1] if height % rows else 0)
    assert valid.all()
    assert readable.all()


@pytest.mark.slow
def test_blocks_bound_memory_and_change_nothing(
    array_image: Make, coordinates: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = array_image(coordinates(1000, 700))
    whole = read_overview(image, limit=100)
    assert len(image.reads) == 1
    for limit_bytes in (200_000, 3_000):
        monkeypatch.setattr(overview, "_BYTES", limit_bytes)
        image.reads.clear()
        pieces = read_overview(image, limit=100)
        assert max(box.width * box.height * 16 for box, _ in image.reads) <= limit_bytes * (1 + 1e-9)
        assert np.abs(pieces.pixels - whole.pixels).max() < 1e-9
        assert (pieces.valid == whole.valid).all()
        assert all(
            a.x1 <= b.x0 + 1e-9 or b.x1 <= a.x0 + 1e-9 or a.y1 <= b.y0 + 1e-9 or b.y1 <= a.y0 + 1e-9
            for (a, _), (b, _) in itertools.combinations(image.reads, 2)
        ), "nothing is read twice"


def test_only_damaged_blocks_are_lost(array_image: Make, coordinates: Make) -> None:
    damaged = Box(300, 350, 700, 1000)
    image = array_image(coordinates(1000, 1000), damaged=[damaged])
    pixels, valid, readable, scale, _ = read_overview(image, limit=500)
    y, x = np.nonzero(~readable)
    assert scale == (2.0, 2.0)
    assert not readable[175:500, 150:350].any()
    assert x.min() >= 150 - 32
    assert x.max() < 350 + 32
    assert y.min() >= 175 - 32
    assert (valid == readable).all()
    assert (
        np.abs(pixels[readable] - np.stack(np.meshgrid(*[np.arange(500) * 2 + 1] * 2), axis=-1)[readable]).max() < 1e-6
    )


def test_an_unreadable_image_has_an_empty_overview(array_image: Make, coordinates: Make) -> None:
    image = array_image(coordinates(100, 80), damaged=[Box(-1, -1, 101, 81)])
    pixels, valid, readable, *_ = read_overview(image)
    assert pixels.shape == (80, 100, 2)
    assert not valid.any()
    assert not readable.any()


def test_validity_is_reduced_with_the_pixels(array_image: Make) -> None:
    valid = np.ones((40, 40), dtype=bool)
    valid[:20] = False
    image = array_image(np.full((40, 40, 3), 9, dtype=np.uint16), valid)
    pixels, observed, readable, *_ = read_overview(image, limit=10)
    assert pixels.dtype == np.uint16
    assert not observed[:5].any()
    assert observed[5:].all()
    assert readable.all()
