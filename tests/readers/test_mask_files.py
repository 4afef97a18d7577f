"""Masks of images: the quality bands of products, and the pixel of a mask that each pixel of the analysis has."""

from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
from limner.readers.errors import RequestError
from limner.readers.image import ImageInfo
from limner.readers.mask_files import find_band_mask, find_file_mask, whole_scale
from limner.readers.masks import QA_PIXEL, SCL
from limner.readers.orientation import image_orientation
from limner.readers.regions import Grid, cut_regions
from limner.readers.registry import scan


def save(path: Path, values: np.ndarray, crs: str | None, transform: Any, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    placed = {} if crs is None else {"crs": crs, "transform": transform}
    size = {"width": values.shape[1], "height": values.shape[0], "count": 1, "dtype": values.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", **size, **placed, **more) as raster:
        raster.write(values, 1)
    return path


def scanned(path: Path, **options: str) -> ImageInfo:
    [info] = [info for row in scan([str(path)], options) for info in row.infos]
    return info


def masked(info: ImageInfo, mask: Any, scale: float = 1.0) -> np.ndarray:
    """What is masked of an image, put together from its regions."""
    grid = Grid(info.id, info.size, (scale, scale), orientation=image_orientation(info))
    found = np.zeros(grid.shape[::-1], dtype=bool)
    opened = mask.raster.open()
    for region in cut_regions(grid, tile=16, halo=2, hd_num=2):
        part, c, r = opened.masked(region, info.placement), region.columns, region.rows
        core = np.s_[r.core_start - r.start : r.core_stop - r.start, c.core_start - c.start : c.core_stop - c.start]
        found[r.core_start : r.core_stop, c.core_start : c.core_stop] = part[core]
    opened.close()
    return found


def test_the_classification_in_the_folders_of_sentinel_2(tmp_path: Path) -> None:
    """The finest of two is used, and none of another granule."""
    data = (
        tmp_path / "S2A_MSIL2A_20200101T100000_N0500_R122_T33UXP_20200101T120000.SAFE" / "GRANULE" / "L2A" / "IMG_DATA"
    )
    place = rasterio.Affine(10, 0, 600000, 0, -10, 5300000)
    for band in ("B02", "B03", "B04"):
        save(
            data / "R10m" / f"T33UXP_20200101T100000_{band}_10m.tif",
            np.full((60, 60), 900, np.uint16),
            "EPSG:32633",
            place,
        )
    classes = np.full((30, 30), 4, np.uint8)
    classes[3:9, 4:20] = 8
    save(data / "R20m" / "T33UXP_20200101T100000_SCL_20m.tif", classes, "EPSG:32633", place @ place.scale(2))
    save(data / "R60m" / "T33UXP_20200101T100000_SCL_60m.tif", classes[::3, ::3], "EPSG:32633", place @ place.scale(6))
    save(data / "R20m" / "T33UXQ_20200101T100000_SCL_20m.tif", classes, "EPSG:32633", place)
    info = scanned(data.parents[2])
    found = find_band_mask("SCL", info)
    assert found.mask.raster is not None
    assert Path(found.mask.raster.uri).name == "T33UXP_20200101T100000_SCL_20m.tif"
    assert (masked(info, found.mask) == (np.kron(classes, np.ones((2, 2))) == 8)).all()
    with pytest.raises(RequestError, match="must have the pixel quality band of Landsat Collection 2"):
        find_band_mask("QA_PIXEL", info)


def test_the_quality_band_beside_the_bands_of_landsat(tmp_path: Path) -> None:
    name, place = "LC08_L2SP_190027_20200101_20200823_02_T1", rasterio.Affine(30, 0, 600000, 0, -30, 5300000)
    for band in ("SR_B2", "SR_B3", "SR_B4"):
        save(tmp_path / name / f"{name}_{band}.TIF", np.full((20, 24), 9000, np.uint16), "EPSG:32633", place)
    quality = np.full((20, 24), 21824, np.uint16)
    quality[5:8, 2:9] = 22280
    save(tmp_path / name / f"{name}_QA_PIXEL.TIF", quality, "EPSG:32633", place)
    info = scanned(tmp_path / name)
    assert (masked(info, find_band_mask("QA_PIXEL", info).mask) == (quality == 22280)).all()


@pytest.mark.parametrize("scale", [1.0, 2.0, 2.5, 0.5])
def test_regions_and_turns_do_not_matter(tmp_path: Path, scale: float) -> None:
    """An image that is stored with south at the top, and a mask that is stored with north there."""
    rng, height, width = np.random.default_rng(1), 37, 53
    values = (rng.random((height, width)) < 0.4).astype(np.uint8)
    upside = save(
        tmp_path / "up.tif", np.ones_like(values), "EPSG:32633", rasterio.Affine(10, 0, 500000, 0, 10, 5200000)
    )
    north = save(
        tmp_path / "m.tif", values, "EPSG:32633", rasterio.Affine(10, 0, 500000, 0, -10, 5200000 + 10 * height)
    )
    info = scanned(upside)
    found = masked(info, find_file_mask(str(north), info).mask, scale)
    places = [
        np.floor((np.arange(n) + np.minimum(np.arange(n) + 1, side / scale)) * scale / 2 + 1e-9).astype(int)
        for n, side in zip(found.shape, values.shape, strict=True)
    ]
    assert (found == (values[np.ix_(*places)] > 0)).all()


def test_a_grid_of_longitudes_from_0_to_360(tmp_path: Path) -> None:
    """West of Greenwich, on a mask of half degrees that begins there."""
    world = (np.random.default_rng(2).random((360, 720)) < 0.5).astype(np.uint8)
    mask = save(tmp_path / "world.tif", world, "EPSG:4326", rasterio.Affine(0.5, 0, 0, 0, -0.5, 90))
    image = save(
        tmp_path / "west.tif", np.ones((20, 20), np.uint8), "EPSG:32630", rasterio.Affine(1e4, 0, 4e5, 0, -1e4, 5e6)
    )
    info = scanned(image)
    x, y = np.meshgrid(4e5 + (np.arange(20) + 0.5) * 1e4, 5e6 - (np.arange(20) + 0.5) * 1e4)
    lon, lat = pyproj.Transformer.from_crs("EPSG:32630", "EPSG:4326", always_xy=True).transform(x, y)
    assert lon.min() < 0
    expected = world[np.floor((90 - lat) * 2).astype(int), np.floor(lon % 360 * 2).astype(int)] > 0
    assert (masked(info, find_file_mask(str(mask), info).mask) == expected).all()


def test_a_mask_much_finer_than_the_analysis_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from limner.readers import masks

    values = (np.random.default_rng(3).random((400, 400)) < 0.5).astype(np.uint8)
    place = rasterio.Affine(1, 0, 500000, 0, -1, 5200000)
    mask = save(tmp_path / "fine.tif", values, "EPSG:32633", place)
    info = scanned(save(tmp_path / "coarse.tif", np.ones((40, 40), np.uint8), "EPSG:32633", place @ place.scale(10)))
    whole = masked(info, find_file_mask(str(mask), info).mask)
    monkeypatch.setattr(masks, "_MOST", 500)
    assert (masked(info, find_file_mask(str(mask), info).mask) == whole).all()
    assert (whole == values[5::10, 5::10]).all()  # the right and lower of the pixels around a centre


def test_reduced_pictures_have_the_slides_proportions() -> None:
    for divisor in (2, 4, 16, 33):
        for up in (np.floor, np.ceil):
            size = (19743, 8171)
            assert whole_scale((int(up(size[0] / divisor)), int(up(size[1] / divisor))), size) is not None
    assert whole_scale((1000, 500), (19743, 8171)) is None


PIXEL_QUALITY = {
    1: True,
    21824: False,
    21826: True,
    21888: False,
    21890: True,
    22080: False,
    22144: False,
    22280: True,
    23888: True,
    23952: True,
    24088: True,
    30048: False,
    54596: True,
    54660: True,
    55052: True,
}
"""Values of Landsat Collection 2 by its data format control book, and whether cloud, cirrus or shadow lies there."""

BEFORE_COLLECTIONS = [20480, 20512, 23552, 28672, 28704, 36864, 36896, 45056, 45088, 53248, 53280, 61440, 61472]
"""All values of the quality band of a real Landsat 8 scene of 2014: its bits 14 and 15 are cloud."""


def test_values_of_quality_bands_are_told_apart() -> None:
    values = np.array([*PIXEL_QUALITY])
    assert QA_PIXEL.masked(values).tolist() == [*PIXEL_QUALITY.values()]
    assert QA_PIXEL.wrong(values) == []
    assert set(QA_PIXEL.wrong(np.array(BEFORE_COLLECTIONS))) >= {36864, 45056}
    classes = np.arange(12)
    assert np.flatnonzero(SCL.masked(classes)).tolist() == [0, 3, 8, 9, 10]
    assert SCL.wrong(np.array([11, 12, 255])) == [12, 255]
