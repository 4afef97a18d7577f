"""Rasters and scenes of every layout pass the contract suite, which catches readers that break it."""

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from limner.readers.contract import ExpectedImage, area_average, check_reader, scan_with
from limner.readers.geometry import Box, Placement
from limner.readers.image import ImageInfo
from limner.readers.raster.geotiff import RasterReader
from limner.readers.raster.metadata import RasterOptions
from limner.readers.raster.raster_image import RasterImage
from limner.readers.raster.scene import SceneReader
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.transform import from_gcps

pytestmark = pytest.mark.slow

Array = np.ndarray[Any, Any]
WriteRaster = Callable[..., str]
Places = Callable[..., Array]

CORNER = ((0.0, 0.0, 3e5, 4e6), (0.5, 0.5, 300005.0, 3999995.0), (10.0, 4.0, 300100.0, 3999960.0))
LAYOUTS: dict[str, dict[str, Any]] = {
    "tiles": {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate", "predictor": 2},
    "strips": {"blockysize": 3, "compress": "lzw"},
    "one strip": {"blockysize": 61},
    "band after band": {"interleave": "band", "compress": "zstd"},
    "BigTIFF": {"BIGTIFF": "YES"},
    "big-endian": {"ENDIANNESS": "BIG"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 3, 7])
def test_tiff_layouts(write_raster: WriteRaster, places: Places, layout: str, channels: int) -> None:
    image = places(83, 61, channels)
    path = write_raster("a.tif", image, **LAYOUTS[layout])
    check_reader(RasterReader(), path, ExpectedImage(image, np.ones((61, 83), dtype=bool), CORNER))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_dtypes_with_nodata(write_raster: WriteRaster, places: Places, dtype: str) -> None:
    image, valid = places(41, 53, 3, dtype), np.random.default_rng(5).random((53, 41)) > 0.4
    image[~valid] = 0
    path = write_raster("a.tif", image, nodata=0)
    check_reader(RasterReader(), path, ExpectedImage(image, valid, CORNER))


@pytest.mark.parametrize("dtype", ["complex64", "complex_int16", "complex128"])
def test_complex_numbers_are_amplitudes(write_raster: WriteRaster, places: Places, dtype: str) -> None:
    image = (places(31, 23, 2).astype(np.float64) * np.array([0.6 + 0.8j, -1j])).astype(np.complex64)
    stored = image.astype("complex128" if dtype == "complex128" else "complex64")
    path = write_raster("a.tif", stored, dtype=dtype)
    native = np.abs(np.moveaxis(rasterio.open(path).read(), 0, 2)).astype(np.float32)
    info = check_reader(RasterReader(), path, ExpectedImage(native, np.ones((23, 31), dtype=bool), CORNER))
    assert {channel.quantity for channel in info.channels} == {"amplitude"}
    assert any("amplitude" in note for note in info.notes)


def test_nan_and_infinity_are_invalid(write_raster: WriteRaster, places: Places) -> None:
    image = places(30, 20, 1, "float32")
    image[3, 4:9], image[10, 11] = np.nan, np.inf
    valid = np.isfinite(image[:, :, 0])
    check_reader(RasterReader(), write_raster("a.tif", image, nodata=np.nan), ExpectedImage(image, valid))
    check_reader(RasterReader(), write_raster("b.tif", image), ExpectedImage(image, valid))


def test_alpha_band_is_a_mask_and_no_channel(write_raster: WriteRaster, places: Places) -> None:
    image, alpha = places(33, 27, 3, "uint8"), np.zeros((27, 33), dtype=np.uint8)
    alpha[5:20, 3:30], alpha[8:12, 8:12] = 255, 1
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    path = write_raster("a.tif", np.dstack([image, alpha]), colours=colours, photometric="RGB")
    info = check_reader(RasterReader(), path, ExpectedImage(image, alpha > 0, CORNER))
    assert [channel.common for channel in info.channels] == ["red", "green", "blue"]


def test_internal_mask(write_raster: WriteRaster, places: Places) -> None:
    image, mask = places(33, 27, 3, "uint8"), np.random.default_rng(2).random((27, 33)) > 0.5
    check_reader(RasterReader(), write_raster("a.tif", image, mask=mask), ExpectedImage(image, mask, CORNER))


def test_external_mask(write_raster: WriteRaster, places: Places) -> None:
    image, mask = places(33, 27, 1, "uint8"), np.random.default_rng(2).random((27, 33)) > 0.5
    path = write_raster("a.tif", image)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
        file.write_mask(mask.astype(np.uint8) * 255)
    info = check_reader(RasterReader(), path, ExpectedImage(image, mask, CORNER))
    assert [Path(name).name for name in info.files] == ["a.tif", "a.tif.msk"]


def test_palette_becomes_rgb(write_raster: WriteRaster) -> None:
    index = np.random.default_rng(4).integers(0, 4, (25, 35, 1)).astype(np.uint8)
    path = write_raster("a.tif", index, photometric="palette")
    table = {0: (0, 0, 0, 0), 1: (250, 10, 20, 255), 2: (5, 200, 30, 255), 3: (1, 2, 3, 255)}
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, table)
    with rasterio.open(path) as file:  # not every format keeps an entry's transparency
        opaque = np.array([file.colormap(1)[at][3] > 0 for at in range(4)])
    native = np.array([table[at][:3] for at in range(4)], dtype=np.uint8)[index[:, :, 0]]
    info = check_reader(RasterReader(), path, ExpectedImage(native, opaque[index[:, :, 0]], CORNER))
    assert any("palette" in note for note in info.notes)


def test_transparent_palette_entry_is_invalid(write_raster: WriteRaster, tmp_path: Path) -> None:
    index = np.random.default_rng(4).integers(0, 3, (25, 35, 1)).astype(np.uint8)
    source = write_raster("a.tif", index)
    colours = ((9, 9, 9, 0), (250, 10, 20, 255), (5, 200, 30, 255))
    entries = "".join('<Entry c1="{}" c2="{}" c3="{}" c4="{}"/>'.format(*colour) for colour in colours)
    path = tmp_path / "a.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="35" rasterYSize="25"><VRTRasterBand dataType="Byte" band="1">'
        f"<ColorInterp>Palette</ColorInterp><ColorTable>{entries}</ColorTable><SimpleSource>"
        f'<SourceFilename relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>",
        encoding="utf-8",
    )
    native = np.array([colour[:3] for colour in colours], dtype=np.uint8)[index[:, :, 0]]
    check_reader(RasterReader(), str(path), ExpectedImage(native, index[:, :, 0] > 0))


@pytest.mark.parametrize("driver", ["JP2OpenJPEG", "PNG", "GTiff"])
def test_formats(write_raster: WriteRaster, places: Places, driver: str) -> None:
    image = places(150, 130, 3, "uint8")
    profile = {"QUALITY": "100", "REVERSIBLE": "YES", "YCC": "NO"} if driver == "JP2OpenJPEG" else {}
    path = write_raster("image.bin", image, driver=driver, **profile)
    whole = np.ones((130, 150), dtype=bool)
    check_reader(RasterReader(), path, ExpectedImage(image, whole, CORNER, exact=driver != "JP2OpenJPEG"))


def test_zip_archive(write_raster: WriteRaster, places: Places, tmp_path: Path) -> None:
    image = places(35, 25, 2)
    path = Path(write_raster("a.tif", image))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "inside/a.tif")
    truth = ExpectedImage(image, np.ones((25, 35), dtype=bool), CORNER)
    info = check_reader(RasterReader(), f"/vsizip/{tmp_path}/a.zip/inside/a.tif", truth)
    assert info.fingerprint == ""


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 40), (40, 1), (2, 3)])
def test_tiny_images(write_raster: WriteRaster, places: Places, width: int, height: int) -> None:
    image = places(width, height, 2)
    path = write_raster("a.tif", image)
    check_reader(RasterReader(), path, ExpectedImage(image, np.ones((height, width), dtype=bool)))


def test_overviews_are_used(write_raster: WriteRaster) -> None:
    y, x = np.mgrid[:300, :410]
    image = np.stack([x, y], axis=2).astype(np.float32)
    path = write_raster("a.tif", image, overviews=[2, 4, 8], tiled=True, blockxsize=64, blockysize=64)
    truth = ExpectedImage(image, np.ones((300, 410), dtype=bool), CORNER, exact=False)
    info = check_reader(RasterReader(), path, truth)
    mean, _ = area_average(image, truth.valid, 6)
    with RasterReader().open(info) as image:
        pixels, _ = image.read(Box(0, 0, 69 * 6, 50 * 6), (69, 50))
    assert np.abs(pixels - mean)[2:-2, 2:-2].max() < 0.4  # averaging averages: 1/12 of the overview's 4 px


@pytest.mark.parametrize("factor", [2, 3, 4, 8, 10])
def test_reduced_jpeg_2000_is_aligned(write_raster: WriteRaster, factor: int) -> None:
    y, x = np.mgrid[:600, :1101]
    path = write_raster(
        "a.jp2",
        np.stack([20 * x, 20 * y], axis=2).astype(np.uint16),
        driver="JP2OpenJPEG",
        QUALITY="100",
        REVERSIBLE="YES",
    )
    columns, rows = 1101 // factor, 600 // factor
    with rasterio.open(path) as file:
        assert file.overviews(1)
    (info,) = scan_with(RasterReader(), path, {})
    with RasterReader().open(info) as image:
        pixels, valid = image.read(Box(0, 0, columns * factor, rows * factor), (columns, rows))
    middle = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=2) * factor + (factor - 1) / 2
    off = (pixels / 20 - middle)[3:-3, 3:-3]
    assert valid.all()
    assert np.abs(off).max() < 0.15 * factor  # the wavelet's own ringing
    assert np.abs(off.mean(axis=(0, 1))).max() < 0.02 * factor  # unmoved: uncorrected it would be up to factor / 2


def test_scene(write_raster: WriteRaster, places: Places, tmp_path: Path) -> None:
    image = places(64, 48, 4)
    for at, band in enumerate(("B02", "B03", "B04", "B8A")):
        write_raster(f"scene/S2_{band}.tif", image[:, :, at : at + 1])
    truth = ExpectedImage(image, np.ones((48, 64), dtype=bool), CORNER)
    info = check_reader(SceneReader(), str(tmp_path / "scene"), truth)
    assert [channel.common for channel in info.channels] == ["blue", "green", "red", "nir08"]


def test_scene_with_nodata_in_each_band(write_raster: WriteRaster, places: Places, tmp_path: Path) -> None:
    image, holes = places(64, 48, 2), np.random.default_rng(0).random((48, 64, 2)) > 0.8
    image[holes] = 0
    for at, band in enumerate(("B02", "B03")):
        write_raster(f"scene/S2_{band}.tif", image[:, :, at : at + 1])
    truth = ExpectedImage(image, np.logical_not(holes.any(axis=2)), exact=False, options={"sensor": "sentinel-2-l1c"})
    check_reader(SceneReader(), str(tmp_path / "scene"), truth)


@pytest.mark.parametrize(
    "name",
    [
        "rasterio_testdata/RGB.byte.tif",
        "rio_tiler_fixtures/cog_gcps.tif",
        "rio_tiler_fixtures/cog_rgb_mask.tif",
        "rio_tiler_fixtures/colorado_extmask.tif",
        "rio_tiler_fixtures/cog_scale_epsg4326.tif",
        "rio_tiler_fixtures/inverted_lat.tif",
        "rocky_mountain_epsg4326/rmnp-rgb.tif",
        "sentinel2_slovenia_lulc/S2_L1C_2015-07-11.tif",
        "sentinel2_virginia_l1c/s2_B01.jp2",
        "spacenet6_rotterdam_sar/rgb_unmasked.tif",
    ],
)
def test_real_files(shared_data: Path, name: str) -> None:
    path = str(shared_data / "geo" / name)
    with rasterio.open(path) as file:
        native = np.moveaxis(file.read(), 0, 2)
        truth = ExpectedImage(native, file.dataset_mask() != 0, exact=not file.overviews(1))
    check_reader(RasterReader(), path, truth)


class BrokenReader:
    """A reader that breaks one rule: `how` changes what a correct image reads."""

    name = "raster"
    Options = RasterReader.Options

    def __init__(self, how: Callable[..., tuple[Array, Array]] | None = None, **facts: Any) -> None:
        self.how, self.facts, self.scans = how, facts, 0

    def identify(self, uri: str, head: bytes) -> int:
        """As the correct reader."""
        return RasterReader().identify(uri, head)

    def scan(self, uri: str, options: RasterOptions) -> Sequence[ImageInfo]:
        """With some facts changed."""
        self.scans += 1
        facts = {key: value(self.scans) if callable(value) else value for key, value in self.facts.items()}
        return [replace(info, **facts) for info in RasterReader().scan(uri, options)]

    def open(self, info: ImageInfo, channels: Sequence[str] | None = None) -> RasterImage:
        """With what it reads changed."""
        image = RasterImage(info, channels)
        good = image.read
        if self.how is not None:
            how = self.how
            image.read = lambda box, size, _=0: how(good, box, size)  # type: ignore[method-assign] # a deliberate fault
        return image


def shifted(good: Any, box: Box, size: tuple[int, int]) -> tuple[Array, Array]:
    return good(Box(box.x0 + 1, box.y0, box.x1 + 1, box.y1), size)


def nearest_neighbour(good: Any, box: Box, size: tuple[int, int]) -> tuple[Array, Array]:
    fine, valid = good(box, (max(size[0], round(box.width)), max(size[1], round(box.height))))
    rows = np.arange(size[1]) * fine.shape[0] // size[1]
    columns = np.arange(size[0]) * fine.shape[1] // size[0]
    return fine[rows][:, columns], valid[rows][:, columns]


def box_dependent(good: Any, box: Box, size: tuple[int, int]) -> tuple[Array, Array]:
    pixels, valid = good(box, size)
    return (pixels if float(box.width).is_integer() and box.width == size[0] else pixels + box.x0 % 2), valid


def all_valid(good: Any, box: Box, size: tuple[int, int]) -> tuple[Array, Array]:
    pixels, valid = good(box, size)
    return pixels, np.ones_like(valid)


def other_dtype(good: Any, box: Box, size: tuple[int, int]) -> tuple[Array, Array]:
    pixels, valid = good(box, size)
    return pixels.astype(np.float64), valid


def all_of_footprint(good: Any, box: Box, size: tuple[int, int]) -> tuple[Array, Array]:
    """Valid only where all of the footprint is."""
    pixels, _ = good(box, size)
    _, valid = good(box, (max(size[0], round(box.width)), max(size[1], round(box.height))))
    factor = valid.shape[0] // size[1], valid.shape[1] // size[0]
    return pixels, valid[: size[1] * factor[0], : size[0] * factor[1]].reshape(
        size[1], factor[0], size[0], factor[1]
    ).all(axis=(1, 3))


@pytest.mark.parametrize(
    ("reader", "sentence"),
    [
        (BrokenReader(shifted), "native scale"),
        (BrokenReader(nearest_neighbour), "mean of its valid footprint|half of its footprint"),
        (BrokenReader(box_dependent), "from whatever box"),
        (BrokenReader(all_valid), "validity|outside"),
        (BrokenReader(other_dtype), "native dtype"),
        (BrokenReader(all_of_footprint), "half of its footprint"),
        (BrokenReader(lambda good, box, size: good(box, size)), "a plane that an image does not have"),
        (BrokenReader(id=str), "scanning twice"),
        (BrokenReader(files=()), "files that the image is made of"),
        (BrokenReader(placement=Placement.pixels()), "known points"),
        (BrokenReader(reader="other"), "name the reader"),
    ],
)
def test_broken_reader_fails(write_raster: WriteRaster, places: Places, reader: BrokenReader, sentence: str) -> None:
    image, valid = places(40, 30, 2), np.random.default_rng(5).random((30, 40)) > 0.3
    image[~valid] = 0
    path = write_raster("a.tif", image, nodata=0)
    truth = ExpectedImage(image, valid, CORNER)
    check_reader(BrokenReader(), path, truth)
    with pytest.raises(AssertionError, match=sentence):
        check_reader(reader, path, truth)


def test_control_points(write_raster: WriteRaster, places: Places) -> None:
    """An affine through control points is the affine that GDAL fits."""
    image = places(40, 30, 1)
    points = [
        GroundControlPoint(row, col, 3e5 + 10 * col + 2 * row, 4e6 - 10 * row + col)
        for row, col in ((0, 0), (0, 40), (30, 0), (30, 40))
    ]
    path = write_raster("a.tif", image, crs=None, transform=None)
    with rasterio.open(path, "r+") as file:
        file.gcps = points, CRS.from_epsg(32618)
    affine = from_gcps(points)
    known = tuple((x, y, *(affine * (x, y))) for x, y in ((0, 0), (40, 30), (12.5, 3.25)))
    check_reader(RasterReader(), path, ExpectedImage(image, np.ones((30, 40), dtype=bool), known))


def test_area_average() -> None:
    native = np.arange(12.0).reshape(3, 4, 1)
    mean, enough = area_average(native, np.ones((3, 4), dtype=bool), 2)
    assert mean[:, :, 0].tolist() == [[2.5, 4.5], [8.5, 10.5]]
    assert enough.all()
