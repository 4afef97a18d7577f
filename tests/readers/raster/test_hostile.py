"""Damaged and hostile rasters raise one `ReadError` that names the fault, in little time and memory."""

import os
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from limner.readers.contract import scan_with
from limner.readers.errors import ReadError
from limner.readers.geometry import Box
from limner.readers.raster import gdal, metadata
from limner.readers.raster.bands import MAX_METADATA_BYTES, find_sensor, read_radiometry
from limner.readers.raster.geotiff import RasterReader
from limner.readers.raster.metadata import ControlPoint, Crs, affine_placement, gcp_placement
from rasterio import io as rio_io
from rasterio._err import CPLE_BaseError

WriteRaster = Callable[..., str]


def refused(path: Path | str, what: str) -> None:
    with pytest.raises(ReadError, match=what):
        scan_with(RasterReader(), str(path), {})


def sparse(path: Path, width: int, height: int, count: int = 1, **profile: Any) -> Path:
    """A TIFF of any stated size without stored pixels."""
    settings = {"driver": "GTiff", "dtype": "uint8", "SPARSE_OK": True, "BIGTIFF": "YES"} | profile
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", width=width, height=height, count=count, **settings):
            pass
    return path


@pytest.mark.parametrize("number", [b"inf", b"nan"])
@pytest.mark.parametrize("at", [0, 4])
def test_geotransform_must_be_finite(write_raster: WriteRaster, number: bytes, at: int) -> None:
    """In a TIFF the pixel size and the tie point are six and three doubles."""
    path = Path(write_raster("a.tif", np.ones((8, 8, 1), np.uint8)))
    content = path.read_bytes()
    stored = struct.pack("<3d", 10, 10, 0) if at == 0 else struct.pack("<6d", 0, 0, 0, 3e5, 4e6, 0)
    odd = np.frombuffer(stored, dtype="<f8").copy()
    odd[at] = float(number)
    assert content.count(stored) == 1
    path.write_bytes(content.replace(stored, odd.tobytes()))
    refused(path, "finite")


def test_placement_must_be_finite() -> None:
    crs = Crs("EPSG:32618", "m", "EPSG:32618")
    with pytest.raises(ReadError, match="finite"):
        affine_placement(((float("inf"), 0, 0), (0, 1, 0)), crs)
    for size in (0.0, 1e-200, 1e200):
        with pytest.raises(ReadError, match=r"pixel|finite"):
            affine_placement(((size, 0, 3e5), (0, -size, 4e6)), crs)
    corners = ((0, 0), (9, 0), (0, 9))
    with pytest.raises(ReadError, match="finite"):
        gcp_placement([ControlPoint(corner, (corner[0], float("nan"))) for corner in corners], crs)


def test_late_gdal_error(write_raster: WriteRaster, monkeypatch: pytest.MonkeyPatch) -> None:
    """GDAL reports what it could not parse while opening, such as GeoKeys, at a later call."""

    class Late(rio_io.DatasetReader):
        @property
        def colorinterp(self) -> Any:
            raise CPLE_BaseError(3, 1, "Key 0 of unknown type.")

    path = write_raster("a.tif", np.ones((8, 8, 1), np.uint8))
    monkeypatch.setattr(rio_io, "DatasetReader", Late)
    refused(path, "metadata.*Key 0")


def test_every_rasterio_exception_becomes_a_read_error() -> None:
    """Also the classes that are no OSErrors, and private ones."""
    from rasterio import _err, errors  # pyright: ignore[reportAttributeAccessIssue] - compiled

    classes = [
        kind
        for module in (_err, errors)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, Warning)
    ]
    raised = [kind for kind in classes if "click" not in "".join(map(str, kind.__mro__))]
    assert len(raised) > 30
    for kind in raised:
        error = kind(1, 1, "words") if issubclass(kind, CPLE_BaseError) else kind("words")
        with pytest.raises(ReadError, match="words"), gdal.gdal_errors("a.tif", "must be good", "Repair it"):
            raise error


def test_number_of_bands_is_limited(tmp_path: Path) -> None:
    refused(sparse(tmp_path / "a.tif", 8, 8, gdal.MAX_BANDS + 1, interleave="pixel"), "bands")


@pytest.mark.parametrize("size", [(8_388_609, 8), (8, 8_388_609)])
def test_raster_size_is_limited(tmp_path: Path, size: tuple[int, int]) -> None:
    refused(sparse(tmp_path / "a.tif", *size), "at most 8388608 pixels a side")


def test_band_lists_are_read_once(tmp_path: Path) -> None:
    """Not once per band: rasterio builds each list anew from all bands."""
    accesses: list[str] = []
    known = ("descriptions", "dtypes", "scales", "offsets", "nodatavals", "colorinterp", "mask_flag_enums")

    class Recorder:
        def __init__(self, raster: Any) -> None:
            self._raster = raster

        def __getattr__(self, name: str) -> Any:
            accesses.append(name)
            return getattr(self._raster, name)

    path = sparse(tmp_path / "a.tif", 8, 8, 500)
    with rasterio.open(path) as raster:
        layout = metadata.band_layout(Recorder(raster))
        metadata.nodata_values(Recorder(raster), layout, metadata.RasterOptions(default_nodata=0))
        metadata.has_complex(Recorder(raster), layout.bands)
    assert max(accesses.count(name) for name in known) <= 4
    assert len(layout.channels) == 500


@pytest.mark.parametrize(
    ("profile", "count"),
    [
        ({"tiled": True, "blockxsize": 16384, "blockysize": 16400}, 1),
        ({"tiled": True, "blockxsize": 8192, "blockysize": 8192, "interleave": "pixel", "dtype": "float32"}, 2),
    ],
)
def test_block_size_is_limited(tmp_path: Path, profile: dict[str, Any], count: int) -> None:
    refused(sparse(tmp_path / "a.tif", 40_000, 40_000, count, **profile), "256 MiB")


def test_a_reduced_picture_that_is_wider_than_the_full_one_is_not_used(write_raster: WriteRaster) -> None:
    """One that claims 2³¹ − 1 columns would be averaged for minutes. ImageWidth is tag 256, a short or a long."""
    path = Path(write_raster("a.tif", np.full((200, 100, 1), 7, np.uint8)))
    with rasterio.open(path, "r+") as raster:
        raster.build_overviews([2])
    content = path.read_bytes()
    width = struct.pack("<HHII", 256, 3, 1, 50)
    assert content.count(width) == 1
    path.write_bytes(content.replace(width, struct.pack("<HHII", 256, 4, 1, 2**31 - 1)))
    (info,) = scan_with(RasterReader(), str(path), {})
    with RasterReader().open(info) as image:
        pixels, valid = image.read(info.box, (20, 40))
    assert (pixels == 7).all()
    assert valid.all()


def test_block_size_of_an_overview_is_limited(tmp_path: Path) -> None:
    """An external overview with too large blocks makes the whole file refused."""
    path = sparse(tmp_path / "a.tif", 40_000, 40_000, tiled=True)
    sparse(tmp_path / "a.tif.ovr", 20_000, 20_000, tiled=True, blockxsize=16384, blockysize=16400)
    refused(path, "256 MiB")


def test_terapixel_raster_can_be_scanned(tmp_path: Path) -> None:
    path = sparse(tmp_path / "a.tif", 1_000_000, 1_000_000, tiled=True, blockxsize=4096, blockysize=4096)
    (info,) = scan_with(RasterReader(), str(path), {})
    assert info.size == (1_000_000, 1_000_000)


def test_description_that_is_no_utf8(write_raster: WriteRaster) -> None:
    path = Path(write_raster("a.tif", np.ones((8, 8, 2), np.uint8), names=["depth___", "height__"]))
    content = path.read_bytes()
    assert b"depth___" in content
    path.write_bytes(content.replace(b"depth___", b"d\xff\xfe\xfdh___"))
    refused(path, "metadata")


def test_file_name_that_is_no_utf8(write_raster: WriteRaster, tmp_path: Path) -> None:
    path = os.fsencode(write_raster("a.tif", np.ones((8, 8, 1), np.uint8)))
    odd = os.fsencode(tmp_path) + b"/\xff.tif"
    Path(os.fsdecode(path)).rename(os.fsdecode(odd))
    refused(os.fsdecode(odd), "name in UTF-8")


def test_damaged_sidecar_files(write_raster: WriteRaster) -> None:
    """They are named, or ignored as GDAL ignores them."""
    path = Path(write_raster("a.tif", np.ones((64, 64, 1), np.uint8)))
    for ending in (".ovr", ".msk"):
        side = Path(f"{path}{ending}")
        side.write_bytes(path.read_bytes()[:120])
        refused(path, f"a.tif{ending} beside")
        side.unlink()
    bomb = (
        '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;">]><PAMDataset>&c;</PAMDataset>'
    )
    for text in ("<PAMDataset><a", "<a>" * 100_000, bomb, "\0\xff"):
        Path(f"{path}.aux.xml").write_text(text)
        try:
            (info,) = scan_with(RasterReader(), str(path), {})
        except ReadError:
            continue
        assert info.size == (64, 64)
    with Path(f"{path}.aux.xml").open("wb") as file:
        file.truncate(gdal.MAX_AUX_XML_BYTES + 1)
    refused(path, "32 MiB")


def test_rasterio_exceptions_while_reading(write_raster: WriteRaster, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_raster("a.tif", np.ones((64, 64, 1), np.uint8))
    (info,) = scan_with(RasterReader(), path, {})

    def fail(*_: object) -> None:
        raise CPLE_BaseError(1, 1, "of another kind")

    with RasterReader().open(info) as image:
        monkeypatch.setattr(image, "_read_window", fail)
        with pytest.raises(ReadError, match="of another kind"):
            image.read(Box(0, 0, 64, 64), (8, 8))


SENTINEL = (
    "<QUANTIFICATION_VALUE unit='none'>{}</QUANTIFICATION_VALUE><RADIO_ADD_OFFSET band_id=\"1\">{}</RADIO_ADD_OFFSET>"
)
LANDSAT = "SUN_ELEVATION = {}\nREFLECTANCE_MULT_BAND_2 = {}\nREFLECTANCE_ADD_BAND_2 = -0.1\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MTD_MSIL1C.xml", SENTINEL.format("1.2.3", "-1000")),
        ("MTD_MSIL1C.xml", SENTINEL.format("inf", "-1000")),
        ("MTD_MSIL1C.xml", SENTINEL.format("10000", "-1.0.0")),
        ("MTD_MSIL1C.xml", SENTINEL.format("10000", "nan")),
        ("MTD_MSIL1C.xml", "<QUANTIFICATION_VALUE " * 500_000),
        ("MTD_MSIL1C.xml", "x" * (MAX_METADATA_BYTES + 1)),
        ("a_MTL.txt", LANDSAT.format("1.2.3", "2e-5")),
        ("a_MTL.txt", LANDSAT.format("40", "nan")),
        ("a_MTL.txt", LANDSAT.format("0", "2e-5")),
        ("a_MTL.txt", LANDSAT.format("inf", "2e-5")),
        ("a_MTL.txt", "\n" * 1_000_000),
        ("a_MTL.json", '{"a":' * 100_000),
        ("a_MTL.json", '{"SUN_ELEVATION": ' + "9" * 10_000 + "}"),
        ("a_MTL.json", "[]"),
    ],
    ids=lambda text: text[:30],
)
def test_invalid_product_metadata_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    sensor = find_sensor("sentinel-2-l1c" if "MSIL1C" in name else "landsat-8-l1")
    with pytest.raises(ReadError, match=name):
        read_radiometry(str(tmp_path / "a_B2.TIF"), sensor)


def test_product_metadata_with_other_line_ends_and_tags(tmp_path: Path) -> None:
    listed = SENTINEL.replace("<QUANT", "<QUANTIFICATION_VALUES_LIST>\n <BOA_QUANT", 1)
    (tmp_path / "MTD_MSIL1C.xml").write_text(listed.format("10000", "-1000"))
    (tmp_path / "a_MTL.txt").write_text("GROUP = L1\r\n" + LANDSAT.format("30", "2e-5").replace("\n", "\r\n"))
    sentinel = read_radiometry(str(tmp_path / "a_B2.TIF"), find_sensor("sentinel-2-l1c"))
    assert (sentinel["B02"].scale, sentinel["B02"].offset, sentinel["B03"].offset) == (1e-4, -0.1, 0.0)
    landsat = read_radiometry(str(tmp_path / "a_B2.TIF"), find_sensor("landsat-8-l1"))
    assert landsat["B2"].scale == pytest.approx(4e-5)


@pytest.mark.slow
def test_files_found_by_mutation(shared_data: Path) -> None:
    """Each is read or refused in a process with 2 GB of address space within 20 s."""
    folder = shared_data.parent / "cases" / "hostile"
    if not folder.is_dir():
        pytest.skip("no files found by mutation")
    code = (
        "import resource, sys\nresource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "from limner.readers.errors import ReadError\nfrom limner.readers.raster.geotiff import RasterReader\n"
        "try:\n    (info,) = RasterReader().scan(sys.argv[1], RasterReader.Options())\n"
        "    with RasterReader().open(info) as image:\n        image.read(info.box, (8, 8))\n    print('read')\n"
        "except ReadError as error:\n    print('refused')"
    )
    expected = {"tiny.tif": "read", "hang_pyr27.tif": "read"}
    for path in sorted(folder.iterdir()):
        command = [sys.executable, "-c", code, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert done.stdout.strip() == expected.get(path.name, "refused"), (path.name, done.stderr)
