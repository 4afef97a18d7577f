"""Wrong input: a clear message for each fault, and nothing else is lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from limner.readers.contract import scan_with
from limner.readers.errors import ReadError
from limner.readers.geometry import Box
from limner.readers.image import ImageInfo
from limner.readers.raster.geotiff import RasterReader
from limner.readers.registry import scan

WriteRaster = Callable[..., str]
Places = Callable[..., np.ndarray[Any, Any]]


def facts(path: str) -> ImageInfo:
    (info,) = scan_with(RasterReader(), path, {})
    return info


@pytest.mark.parametrize("content", [b"", b"hello", b"II*\0", b"II*\0\x08\0\0\0\xff\xff", b"\x89PNG\r\n\x1a\n123"])
def test_file_that_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.raises(ReadError, match=r"a\.tif must be a raster that GDAL can open"):
        scan_with(RasterReader(), str(path), {})


@pytest.mark.parametrize(
    "layout",
    [
        {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"},
        {"tiled": True, "blockxsize": 64, "blockysize": 64},
        {"blockysize": 16, "compress": "lzw"},
    ],
)
def test_truncated_file_is_readable_up_to_its_end(
    write_raster: WriteRaster, places: Places, layout: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    data = places(256, 256, 2) * 7
    path = Path(write_raster("a.tif", data, **layout, COPY_SRC_OVERVIEWS="NO"))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    info = facts(str(path))
    good, bad, messages = 0, 0, []
    with RasterReader().open(info) as image:
        for _ in range(2):  # neither pixels nor errors may be cached wrongly
            for y in range(0, 256, 64):
                box = Box(0, y, 256, y + 64)
                try:
                    pixels, valid = image.read(box, (256, 64))
                except ReadError as error:
                    bad += 1
                    messages.append((f"y {y}…{y + 64} of {path}", str(error)))
                else:
                    good += 1
                    assert valid.all()
                    assert np.array_equal(pixels, data[y : y + 64])
        with pytest.raises(ReadError):
            image.read(info.box, (16, 16))
    assert good >= 4
    assert bad >= 2
    assert all(where in message for where, message in messages)
    assert capfd.readouterr().err == ""


def test_file_changed_since_its_scan(write_raster: WriteRaster, places: Places) -> None:
    info = facts(write_raster("a.tif", places(20, 10)))
    write_raster("a.tif", places(10, 20))
    with pytest.raises(ReadError, match="Scan it again"):
        RasterReader().open(info)
    Path(info.uri).unlink()
    with pytest.raises(ReadError, match="No such file"):
        RasterReader().open(info)


def test_unknown_channel_lists_the_known(write_raster: WriteRaster, places: Places) -> None:
    info = facts(write_raster("a.tif", places(20, 10, 2), names=["blue", "dust"]))
    with pytest.raises(ReadError, match="one of blue, dust"):
        RasterReader().open(info, ["red"])
    with pytest.raises(ReadError, match="at least one"):
        RasterReader().open(info, [])


@pytest.mark.slow
def test_damaged_file_fails_alone(write_raster: WriteRaster, places: Places, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_raster(f"in/{name}.tif", places(20, 10))
    (tmp_path / "in" / "b.tif").write_bytes(b"II*\0\x08\0\0\0 broken off")
    rows = scan([str(tmp_path / "in")], {})
    assert [row.status for row in rows] == ["read", "failed", "read"]
    assert "b.tif" in rows[1].reason


def test_one_pixel(write_raster: WriteRaster, places: Places) -> None:
    info = facts(write_raster("a.tif", places(1, 1, 1)))
    with RasterReader().open(info) as image:
        for box, size, valid in (
            (info.box, (1, 1), 1),
            (info.box, (7, 5), 35),
            (Box(-1, -1, 2, 2), (1, 1), 1),
            (Box(-1, -1, 2, 2), (3, 3), 1),
            (Box(5, 5, 6, 6), (1, 1), 0),
        ):
            pixels, usable = image.read(box, size)
            assert usable.sum() == valid
            assert (pixels[usable] == 1).all()


def test_three_hundred_bands(write_raster: WriteRaster, places: Places) -> None:
    data = places(6, 5, 300)
    info = facts(write_raster("a.tif", data, interleave="pixel"))
    with RasterReader().open(info, ["300", "7"]) as image:
        pixels, _ = image.read(info.box, info.size)
    assert np.array_equal(pixels, data[:, :, [299, 6]])
