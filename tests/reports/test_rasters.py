"""Rasters of reports: bands are no colours, and reduced levels leave out what has no data."""

import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from limner.model.probabilities import NODATA
from limner.readers.geometry import Placement
from limner.readers.regions import Grid
from limner.reports.probabilities import mean_of_four
from limner.reports.rasters import Layer, Raster, write_cog, write_ome_tiff
from rasterio.errors import NotGeoreferencedWarning


@pytest.mark.parametrize("count", [1, 3, 4])
def test_bands_are_not_taken_for_colours_or_opacity(tmp_path: Path, count: int) -> None:
    layers = np.zeros((count, 600, 700), np.uint8)
    names = [f"band {number}" for number in range(count)]
    raster = Raster(Grid("a", (700, 600), (1.0, 1.0)), Placement.pixels(), layers, {}, names, 1 / 250)
    write_cog(tmp_path / "a.tif", raster, nodata=NODATA, resampling="AVERAGE")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(tmp_path / "a.tif") as file:
            assert {one.name for one in file.colorinterp} <= {"gray", "undefined"}
            assert list(file.descriptions) == names


@given(arrays(np.uint8, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.sampled_from([0, 1, 7, 250, 255])))
def test_a_reduced_pixel_is_the_mean_of_those_with_data(layer: Layer) -> None:
    found = mean_of_four(layer)
    assert found.shape == (-(-layer.shape[0] // 2), -(-layer.shape[1] // 2))
    for (y, x), value in np.ndenumerate(found):
        four = layer[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        there = four[four != NODATA].astype(float)
        assert value == (NODATA if not len(there) else int(np.floor(there.mean() + 0.5)))


def test_levels_of_a_slide_are_reduced_across_blocks(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    layers = random.choice(np.array([0, 3, 250, 255], np.uint8), (2, 2301, 1407))
    placement = Placement(((0.5, 0, 0), (0, 0.5, 0)), "um")
    raster = Raster(Grid("a", (1407, 2301), (1.0, 1.0)), placement, layers, {}, ["one", "two"], 1 / 250)
    write_ome_tiff(tmp_path / "a.ome.tif", raster, "probabilities", mean_of_four)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        [series] = file.series
        levels = [level.asarray() for level in series.levels]
    assert np.array_equal(levels[0], layers)
    for larger, smaller in pairwise(levels):
        assert np.array_equal(smaller, np.stack([mean_of_four(layer) for layer in larger]))
    assert max(levels[-1].shape[1:]) <= 512
