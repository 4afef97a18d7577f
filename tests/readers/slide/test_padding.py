"""Padding of slides: constant areas that were never scanned."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from limner.readers.contract import scan_with
from limner.readers.errors import RequestError
from limner.readers.image import ImageInfo
from limner.readers.overview import dilate, read_overview
from limner.readers.slide.padding import find_padding, padding_mask
from limner.readers.slide.pyramid import PyramidReader
from limner.readers.slide.tissue import overview_side

Picture = npt.NDArray[np.uint8]


def scanned(size: int = 960) -> Picture:
    """Glass with camera noise, and tissue in the upper left."""
    noise = np.random.default_rng(1).normal(0, 2, (size, size, 3))
    picture = np.full((size, size, 3), (240.0, 238.0, 239.0))
    picture[100:400, 100:400] = (180, 110, 160)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def glow(size: int = 960) -> Picture:
    """Fluorescence: a disc of light on black that is clipped to zero."""
    rows, columns = np.mgrid[:size, :size]
    light = np.where((rows - 400) ** 2 + (columns - 400) ** 2 < 250**2, 40.0, 0.0)
    noise = np.random.default_rng(2).normal(-10, 2, (size, size, 3))
    return np.clip(light[..., None] * (1.0, 0.6, 0.4) + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[npt.NDArray[np.generic]], ImageInfo]:
    """`opened(pixels)`: the metadata of a slide of 0.5 µm/px with these pixels."""

    def make(pixels: npt.NDArray[np.generic]) -> ImageInfo:
        path = tmp_path / "a.ome.tif"
        sizes = {f"PhysicalSize{axis}": 0.5 for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
        with tifffile.TiffWriter(path, ome=True) as file:
            file.write(
                pixels, tile=(256, 256), photometric="rgb", compression="deflate", metadata={"axes": "YXS", **sizes}
            )
        [info] = scan_with(PyramidReader(), str(path), {})
        return info

    return make


def padding_of(info: ImageInfo) -> tuple[int, ...]:
    with PyramidReader().open(info) as image:
        return find_padding(image, read_overview(image, limit=overview_side(info)))


@pytest.mark.parametrize("value", [(0, 0, 0), (255, 255, 255), (12, 30, 200)])
@pytest.mark.slow
def test_a_constant_area_unlike_the_background_is_padding(
    opened: Callable[[Picture], ImageInfo], value: tuple[int, int, int]
) -> None:
    picture = scanned()
    picture[:, 480:] = value
    info = opened(picture)
    assert padding_of(info) == value
    stated = replace(info, options=(("padding", ",".join(map(str, value))),))
    with PyramidReader().open(stated) as image:
        _, valid = image.read(info.box, info.size)
        _, reduced = image.read(info.box, (60, 60))
    assert valid[:, :480].all()
    assert not valid[:, 480:].any()
    assert not reduced[:, 30:].any()


@pytest.mark.slow
def test_constant_glass_and_the_black_of_fluorescence_are_background(opened: Callable[[Picture], ImageInfo]) -> None:
    glass = scanned()
    glass[500:] = (240, 238, 239)
    assert padding_of(opened(glass)) == ()
    assert padding_of(opened(np.full((960, 960, 3), 243, dtype=np.uint8))) == ()
    dark = glow()
    assert (dark[700:] == 0).all(axis=(1, 2)).any()
    assert padding_of(opened(dark)) == ()


def test_a_picture_that_is_not_constant_has_no_padding(opened: Callable[[Picture], ImageInfo]) -> None:
    """Averages of noise may be constant in the overview, where level-0 pixels are not."""
    picture = scanned()
    picture[:, 480:] = np.random.default_rng(3).integers(29, 32, (960, 480, 3))
    assert padding_of(opened(picture)) == ()


def test_a_value_for_each_channel_is_needed(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", scanned(), tile=(256, 256), photometric="rgb")
    with pytest.raises(RequestError, match="must have a value for each of the 3 channels"):
        scan_with(PyramidReader(), str(tmp_path / "a.tif"), {"padding": "0"})


def test_padding_is_windows_of_16_pixels() -> None:
    generator = np.random.default_rng(4)
    for _ in range(5):
        pixels = np.where(generator.random((50, 60, 1)) < 0.005, 70, 0).astype(np.uint8)
        same = np.pad(pixels[..., 0] == 0, 16, constant_values=True)
        truth = np.zeros_like(same)
        for y, x in np.ndindex(same.shape[0] - 15, same.shape[1] - 15):
            truth[y : y + 16, x : x + 16] |= same[y : y + 16, x : x + 16].all()
        found, inside = padding_mask(pixels, np.array([0])), np.s_[16:-16, 16:-16]
        near = dilate(truth[inside] & same[inside], (16, 16))
        assert np.array_equal(found, same[inside] & near)


def test_a_compressed_border_is_padding() -> None:
    pixels = np.full((64, 64, 3), 200, dtype=np.uint8)
    pixels[:, 32:] = 0
    pixels[:, 32:40] = np.random.default_rng(5).integers(0, 10, (64, 8, 3))
    assert np.array_equal(padding_mask(pixels, np.zeros(3)), np.arange(64)[None].repeat(64, 0) >= 32)
