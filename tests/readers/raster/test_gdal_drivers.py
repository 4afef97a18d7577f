"""GDAL drivers: every listed one is available, the blocked ones are not even loaded."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from limner.readers.contract import scan_with
from limner.readers.errors import ReadError
from limner.readers.raster import gdal
from limner.readers.raster.geotiff import RasterReader
from rasterio.vrt import WarpedVRT

WriteRaster = Callable[..., str]


def test_listed_drivers_are_available() -> None:
    with gdal.gdal_env(""), rasterio.Env() as env:
        assert {*gdal.DRIVERS.values(), *gdal.HEADER_FILE_DRIVERS, "VRT"} <= set(env.drivers())


@pytest.mark.slow
def test_blocked_drivers_are_not_loaded() -> None:
    code = (
        "import json, rasterio\nfrom limner.readers.raster import gdal\n"
        "with gdal.gdal_env(''), rasterio.Env() as env:\n    print(json.dumps(sorted(env.drivers())))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(gdal.BLOCKED_DRIVERS) & set(json.loads(done.stdout))


@pytest.mark.parametrize("driver", ["PNG", "JPEG", "GIF", "BMP", "NITF", "HFA", "ENVI", "EHdr", "AAIGrid"])
def test_formats_that_open_by_reader_name(write_raster: WriteRaster, driver: str) -> None:
    pixels = (np.arange(40 * 30).reshape(30, 40, 1) % 250).astype(np.uint8)
    profile: dict[str, Any] = {"NITF": {"ICORDS": "N"}, "BMP": {"crs": None, "transform": None}}.get(driver, {})
    name = {"AAIGrid": "a.asc", "EHdr": "a.bil"}.get(driver, "a.img")
    (info,) = scan_with(RasterReader(), write_raster(name, pixels, driver=driver, **profile), {})
    assert info.size == (40, 30)
    with RasterReader().open(info) as image:
        image.read(info.box, info.size)


def test_subdatasets_of_a_classic_netcdf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two variables of 30 × 40 bytes, by the format's specification; also by a relative name."""
    number = partial(struct.pack, ">i")
    word = lambda text: number(len(text)) + text.ljust(-(-len(text) // 4) * 4, b"\0")  # noqa: E731
    dimensions = number(10) + number(2) + word(b"y") + number(30) + word(b"x") + number(40)
    head = b"CDF\x01" + number(0) + dimensions + number(0) * 2 + number(11) + number(2)
    variables = [
        word(name) + number(2) + number(0) + number(1) + number(0) * 2 + number(1) + number(1200)
        for name in (b"a", b"b")
    ]
    start = len(head) + sum(map(len, variables)) + 8
    content = b"".join(text + number(start + 1200 * at) for at, text in enumerate(variables))
    (tmp_path / "a.nc").write_bytes(head + content + bytes([1]) * 1200 + bytes([2]) * 1200)
    monkeypatch.chdir(tmp_path)
    for path in (str(tmp_path / "a.nc"), "a.nc"):
        infos = scan_with(RasterReader(), path, {})
        assert [info.part.rpartition(":")[2] for info in infos] == ["a", "b"]
        for value, info in enumerate(infos, start=1):
            with RasterReader().open(info) as image:
                assert (image.read(info.box, info.size)[0] == value).all()


def test_hdf5_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
    with pytest.raises(ReadError, match="NetCDF-4"):
        scan_with(RasterReader(), str(path), {})


def test_sidecar_files_are_used(tile: Path) -> None:
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(tile, "r+") as file:
        file.build_overviews([2, 4])
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(tile, "r+") as file:
        file.write_mask(np.eye(64, dtype=np.uint8) * 255)
    tile.with_name("tile.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><Description>depth</Description></PAMRasterBand></PAMDataset>'
    )
    (info,) = scan_with(RasterReader(), str(tile), {})
    assert {Path(name).name for name in info.files} >= {"tile.tif", "tile.tif.ovr", "tile.tif.msk", "tile.tif.aux.xml"}
    assert [channel.name for channel in info.channels] == ["depth"]
    with RasterReader().open(info) as image:
        assert np.array_equal(image.read(info.box, info.size)[1], np.eye(64) > 0)


def test_warped_vrt_reads_as_gdal_reads_it(tile: Path) -> None:
    path = tile.with_name("warped.vrt")
    with rasterio.open(tile) as source, WarpedVRT(source, crs="EPSG:3857") as warped:
        rasterio.shutil.copy(warped, path, driver="VRT")
        truth = warped.read(1)
    (info,) = scan_with(RasterReader(), str(path), {})
    assert {Path(name).name for name in info.files} == {"warped.vrt", "tile.tif"}
    with RasterReader().open(info) as image:
        assert np.array_equal(image.read(info.box, info.size)[0][:, :, 0], truth)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('<Option name="INIT_DEST">', '<Option name="CUTLINE_DATASET">'),
        ("<WarpMemoryLimit>", "<Cutline>x</Cutline><WarpMemoryLimit>"),
        ("<WarpMemoryLimit>", "<WarpMemoryLimit>9e99"),
        ("VRTWarpedDataset", "VRTPansharpenedDataset"),
        ("VRTWarpedRasterBand", "VRTDerivedRasterBand"),
        ("<SourceSRS>", "<SourceSRS>+proj=utm +zone=18 +nadgrids=/etc/passwd"),
        ("<TargetSRS>", "<Options><Option key='COORDINATE_OPERATION'>x</Option></Options><TargetSRS>"),
    ],
)
def test_warped_vrt_off_the_allow_list_is_refused(tile: Path, old: str, new: str) -> None:
    path = tile.with_name("warped.vrt")
    with rasterio.open(tile) as source, WarpedVRT(source, crs="EPSG:3857") as warped:
        rasterio.shutil.copy(warped, path, driver="VRT")
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ReadError, match=r"virtual raster .*must"):
        scan_with(RasterReader(), str(path), {})
