"""Wrong input: each with its own clear message, and nothing else lost."""

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
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
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
def test_a_truncated_file_loses_only_what_is_gone(
    write_raster: WriteRaster, places: Places, layout: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    picture = places(256, 256, 2) * 7
    path = Path(write_raster("a.tif", picture, **layout, COPY_SRC_OVERVIEWS="NO"))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    info = facts(str(path))
    good, bad, said = 0, 0, []
    with RasterReader().open(info) as image:
        for _ in range(2):  # an error must not be remembered, nor forgotten
            for y in range(0, 256, 64):
                box = Box(0, y, 256, y + 64)
                try:
                    pixels, valid = image.read(box, (256, 64))
                except ReadError as error:
                    bad += 1
                    said.append((f"y {y}…{y + 64} of {path}", str(error)))
                else:
                    good += 1
                    assert valid.all()
                    assert np.array_equal(pixels, picture[y : y + 64])
        with pytest.raises(ReadError):
            image.read(info.box, (16, 16))
    assert good >= 4
    assert bad >= 2
    assert all(where in message for where, message in said)
    assert capfd.readouterr().err == ""


def test_a_file_that_changed_since_it_was_scanned(write_raster: WriteRaster, places: Places) -> None:
    info = facts(write_raster("a.tif", places(20, 10)))
    write_raster("a.tif", places(10, 20))
    with pytest.raises(ReadError, match="Scan it again"):
        RasterReader().open(info)
    Path(info.uri).unlink()
    with pytest.raises(ReadError, match="No such file"):
        RasterReader().open(info)


def test_a_channel_that_is_not_there_lists_those_that_are(write_raster: WriteRaster, places: Places) -> None:
    info = facts(write_raster("a.tif", places(20, 10, 2), names=["blue", "dust"]))
    with pytest.raises(ReadError, match=r"'red'.*blue, dust"):
        RasterReader().open(info, ["red"])
    with pytest.raises(ReadError, match="at least one"):
        RasterReader().open(info, [])


def test_one_bad_file_among_good_ones(write_raster: WriteRaster, places: Places, tmp_path: Path) -> None:
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
    picture = places(6, 5, 300)
    info = facts(write_raster("a.tif", picture, interleave="pixel"))
    with RasterReader().open(info, ["300", "7"]) as image:
        pixels, _ = image.read(info.box, info.size)
    assert np.array_equal(pixels, picture[:, :, [299, 6]])
