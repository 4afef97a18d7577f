"""Facts and pixels of the raster reader, against rasterio."""

import http.server
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from limner.readers.contract import scan_with
from limner.readers.geometry import Box
from limner.readers.image import ImageInfo
from limner.readers.raster.geotiff import RasterReader
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

WriteRaster = Callable[..., str]
Places = Callable[..., np.ndarray[Any, Any]]


def facts(path: str, **options: str) -> ImageInfo:
    (info,) = scan_with(RasterReader(), path, options)
    return info


def test_colour_interpretation_is_not_guessed(write_raster: WriteRaster, places: Places) -> None:
    data = places(9, 7, 3, "uint8")
    stated = facts(write_raster("a.tif", data, photometric="RGB"))
    assert [(c.name, c.common) for c in stated.channels] == [(n, n) for n in ("red", "green", "blue")]
    unstated = facts(write_raster("b.tif", data, photometric="MINISBLACK"))
    assert [(c.name, c.common) for c in unstated.channels] == [("1", None), ("2", None), ("3", None)]
    swapped = [ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    other = facts(write_raster("c.tif", data, colours=swapped))
    assert [channel.common for channel in other.channels] == ["blue", "green", "red"]


def test_descriptions_name_channels(write_raster: WriteRaster, places: Places) -> None:
    info = facts(write_raster("a.tif", places(9, 7, 4), names=["VV", "VH", "VV", "NIR"]))
    assert [channel.name for channel in info.channels] == ["VV (1)", "VH", "VV (3)", "NIR"]
    assert [channel.common for channel in info.channels] == [None, None, None, "nir"]


def test_bands_option_names_channels(write_raster: WriteRaster, places: Places) -> None:
    path = write_raster("a.tif", places(9, 7, 3))
    info = facts(path, bands="blue, green,red")
    assert [(c.name, c.common) for c in info.channels] == [(n, n) for n in ("blue", "green", "red")]
    sensed = facts(path, bands="B4,B5,B6", sensor="landsat-8-l1")
    assert [channel.common for channel in sensed.channels] == ["red", "nir", "swir16"]


def test_scale_and_offset_do_not_change_native_values(write_raster: WriteRaster, places: Places) -> None:
    data = places(9, 7, 2, "int16")
    info = facts(write_raster("a.tif", data, scales=(0.5, 2.0), offsets=(10.0, -1.0)))
    assert [(c.scale, c.offset, c.dtype) for c in info.channels] == [(0.5, 10.0, "int16"), (2.0, -1.0, "int16")]
    with RasterReader().open(info) as image:
        assert np.array_equal(image.read(info.box, info.size)[0], data)


def test_nodata_rounded_to_float32(write_raster: WriteRaster, places: Places) -> None:
    data = places(9, 7, 1, "float32")
    data[2, 3] = -9999.9
    info = facts(write_raster("a.tif", data, nodata=np.float32(-9999.9).item()))
    with RasterReader().open(info) as image:
        assert np.argwhere(~image.read(info.box, info.size)[1]).tolist() == [[2, 3]]


def test_pixel_is_nodata_where_all_bands_are(write_raster: WriteRaster, places: Places) -> None:
    """Also where only some of the bands are read."""
    data = places(9, 7, 3)
    data[0, 0], data[1, 1, :2], data[2, 2, 0] = 0, 0, 0
    path = write_raster("a.tif", data, nodata=0)
    with rasterio.open(path) as file:
        expected = file.dataset_mask() != 0
    for channels in (None, ["1"], ["1", "2"], ["3"]):
        with RasterReader().open(facts(path), channels) as image:
            assert np.array_equal(image.read(Box(0, 0, 9, 7), (9, 7))[1], expected)


def test_alpha_and_nodata_combine(write_raster: WriteRaster, places: Places) -> None:
    data = np.dstack([places(9, 7, 3, "uint8"), np.full((7, 9, 1), 255, np.uint8)])
    data[0, 0, :3], data[1, 1, 3] = 0, 0
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    info = facts(write_raster("a.tif", data, nodata=0, colours=colours))
    with RasterReader().open(info) as image:
        assert np.argwhere(~image.read(info.box, info.size)[1]).tolist() == [[0, 0], [1, 1]]


def test_lossy_compression_is_noted(write_raster: WriteRaster, places: Places) -> None:
    data = places(64, 64, 3, "uint8")
    assert any("loss" in n for n in facts(write_raster("a.tif", data, compress="jpeg", photometric="ycbcr")).notes)
    assert any("loss" in n for n in facts(write_raster("a.jp2", data, driver="JP2OpenJPEG", QUALITY="10")).notes)
    lossless = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES", "YCC": "NO"}
    assert not any("loss" in n for n in facts(write_raster("b.jp2", data, **lossless)).notes)
    assert not any("loss" in n for n in facts(write_raster("b.tif", data, compress="deflate")).notes)


def test_fingerprint_is_of_the_content(write_raster: WriteRaster, places: Places, tmp_path: Path) -> None:
    path = Path(write_raster("a.tif", places(64, 64)))
    first = facts(str(path)).fingerprint
    moved = tmp_path / "moved.tif"
    moved.write_bytes(path.read_bytes())
    assert facts(str(moved)).fingerprint == first
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    moved.write_bytes(content)
    assert facts(str(moved)).fingerprint != first


def test_nearest_finer_overview_is_read(write_raster: WriteRaster) -> None:
    """Each overview is filled with its own value, which shows which one was read."""
    path = write_raster("a.tif", np.ones((512, 512, 1), np.uint8), overviews=[2, 4, 8], tiled=True)
    for level in range(3):
        with rasterio.open(path, "r+", overview_level=level) as file:
            file.write(np.full((1, 512 >> level + 1, 512 >> level + 1), 2 << level, np.uint8))
    info = facts(path)
    with RasterReader().open(info) as image:
        for step, level in ((1, 1), (1.9, 1), (2, 2), (3, 2), (4, 4), (7.5, 4), (8, 8), (16, 8), (64, 8)):
            n = int(512 // step)
            pixels, valid = image.read(Box(0, 0, n * step, n * step), (n, n))
            assert valid.all()
            assert np.unique(pixels).tolist() == [level], step
        stretched, _ = image.read(Box(0, 0, 512, 512), (64, 256))  # 8 px one way, 2 px the other
        assert np.unique(stretched).tolist() == [2]


def test_masks_of_overviews(write_raster: WriteRaster) -> None:
    mask = np.zeros((256, 256), dtype=bool)
    mask[:, :100] = True
    path = write_raster("a.tif", np.full((256, 256, 1), 9, np.uint8), mask=mask, overviews=[2, 4], tiled=True)
    info = facts(path)
    with RasterReader().open(info) as image:
        _, valid = image.read(info.box, (32, 32))
    assert np.array_equal(valid, np.broadcast_to(np.arange(32) < 13, (32, 32)))  # the 13th is half valid


def test_window_of_a_huge_raster_needs_little_memory(tmp_path: Path) -> None:
    """A sparse raster of 10 gigapixels whose last blocks hold data."""
    path = tmp_path / "a.tif"
    profile = {
        "driver": "GTiff",
        "width": 100_000,
        "height": 100_000,
        "count": 1,
        "dtype": "uint8",
        "crs": "EPSG:32618",
    }
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "SPARSE_OK": "TRUE", "compress": "deflate"}
    with rasterio.open(path, "w", **profile, **layout, transform=from_origin(3e5, 4e6, 1, 1)) as file:
        file.write(np.full((1, 500, 500), 7, np.uint8), window=((99_500, 100_000), (99_500, 100_000)))
    info = facts(str(path))
    assert info.size == (100_000, 100_000)
    with RasterReader().open(info) as image:
        pixels, valid = image.read(Box(99_000, 99_000, 100_500, 100_500), (150, 150))
    assert valid.sum() == 100 * 100
    assert (pixels[valid] == 7).sum() == 50 * 50


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves byte ranges and records their sizes."""

    sent: list[int]

    def do_GET(self) -> None:
        """One range."""
        body = Path(self.translate_path(self.path)).read_bytes()
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = body[int(first) : int(last) + 1 if last else None]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        self.wfile.write(part)
        self.sent.append(len(part))

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, list[int]]]:
    """(URL of the folder `tmp_path`, sizes of the ranges sent)."""
    sent: list[int] = []
    handler = type("Counting", (Ranges,), {"sent": sent})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", sent
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("prefix", ["", "/vsicurl/"])
def test_remote_reads_use_byte_ranges(write_raster: WriteRaster, served: tuple[str, list[int]], prefix: str) -> None:
    address, sent = served
    data = np.random.default_rng(0).integers(0, 60000, (2048, 1024, 1)).astype(np.uint16)
    path = Path(write_raster("a.tif", data, tiled=True, blockxsize=256, blockysize=256))
    info = facts(f"{prefix}{address}/a.tif")
    assert (info.fingerprint, info.files) == ("", (info.uri,))
    with RasterReader().open(info) as image:
        pixels, valid = image.read(Box(600, 1100, 700, 1200), (100, 100))
    assert np.array_equal(pixels, data[1100:1200, 600:700])
    assert valid.all()
    assert 0 < sum(sent) < path.stat().st_size / 4
