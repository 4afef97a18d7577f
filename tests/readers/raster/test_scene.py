"""Folders of single-band files read as one scene."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from limner.readers.contract import area_average, scan_with
from limner.readers.errors import ReadError
from limner.readers.geometry import Box
from limner.readers.image import ImageInfo
from limner.readers.raster.bands import SENSORS
from limner.readers.raster.geotiff import RasterReader
from limner.readers.raster.scene import SceneReader
from limner.readers.registry import open_image, scan
from rasterio.transform import from_origin

WriteRaster = Callable[..., str]
Places = Callable[..., np.ndarray[Any, Any]]
SAFE = "S2B_MSIL2A_20220125T102221_N0400_R065_T32UNU_20220125T111503.SAFE"
LANDSAT = "LC08_L1TP_224078_20200518_20200525_02_T1"


def ramp(width: int, height: int, step: float, origin: tuple[float, float] = (0.0, 0.0)) -> np.ndarray[Any, Any]:
    """A linear ramp in map coordinates: all resolutions have the same value at the same place."""
    x = origin[0] + (np.arange(width) + 0.5) * step
    y = origin[1] + (np.arange(height) + 0.5) * step
    return (1000 + 2 * x[None, :] + 3 * y[:, None])[:, :, None].astype(np.float32)


def at(x: float, y: float, step: float) -> Affine:
    return from_origin(3e5 + x, 4e6 - y, step, step)


def scene(folder: Path, options: Mapping[str, str] | None = None) -> ImageInfo:
    (info,) = scan_with(SceneReader(), str(folder), options or {})
    return info


def test_bands_of_three_resolutions_agree(write_raster: WriteRaster, tmp_path: Path) -> None:
    write_raster("s/S2_B02.tif", ramp(60, 48, 10), transform=at(0, 0, 10))
    write_raster("s/S2_B11.tif", ramp(30, 24, 20), transform=at(0, 0, 20))
    write_raster("s/S2_B09.tif", ramp(10, 8, 60), transform=at(0, 0, 60))
    info = scene(tmp_path / "s")
    assert info.size == (60, 48)
    assert [(c.name, c.common) for c in info.channels] == [("B02", "blue"), ("B09", "nir09"), ("B11", "swir16")]
    with SceneReader().open(info) as image:
        native, everywhere = image.read(info.box, info.size)
        thirty, _ = image.read(Box(6, 6, 54, 42), (16, 12))
    assert everywhere.all()
    assert np.abs(native - ramp(60, 48, 10))[8:-8, 8:-8].max() < 0.05
    off = np.abs(thirty - ramp(16, 12, 30, (60, 60)))[2:-2, 2:-2]
    assert off[:, :, 0].max() < 0.05
    assert off[:, :, 2].max() < 0.05 + 5 * 20 / 12  # 1½ pixels cannot be averaged to better than 1/12 of one


def test_bands_are_resampled_once(write_raster: WriteRaster, tmp_path: Path) -> None:
    """A reduced fine band is the mean of its own pixels; a coarse band at its own resolution is unchanged."""
    random = np.random.default_rng(0)
    fine, coarse = (random.integers(1, 60000, (s, s, 1)).astype(np.uint16) for s in (60, 30))
    write_raster("s/S2_B02.tif", fine, transform=at(0, 0, 10))
    write_raster("s/S2_B11.tif", coarse, transform=at(0, 0, 20))
    info = scene(tmp_path / "s")
    with SceneReader().open(info) as image:
        pixels, valid = image.read(info.box, (30, 30))
    mean, _ = area_average(fine, np.ones((60, 60), dtype=bool), 2)
    assert valid.all()
    assert np.array_equal(pixels[:, :, 0], np.rint(mean[:, :, 0]))
    assert np.array_equal(pixels[:, :, 1], coarse[:, :, 0])


def test_shorter_band_is_invalid_beyond_its_edge(write_raster: WriteRaster, tmp_path: Path) -> None:
    """As in crops of real scenes: sizes are rounded up or down, corners differ by a part of the coarse pixel."""
    write_raster("s/S2_B02.tif", ramp(61, 59, 10), transform=at(10, 20, 10))
    write_raster("s/S2_B09.tif", ramp(10, 10, 60), transform=at(0, 0, 60))
    info = scene(tmp_path / "s")
    with SceneReader().open(info) as image:
        pixels, valid = image.read(info.box, info.size)
        _, blue = open_and_read(info, ["B02"])
    assert blue.all()
    assert np.flatnonzero(~valid.any(axis=0)).tolist() == [59, 60]
    assert np.flatnonzero(~valid.any(axis=1)).tolist() == [58]
    centre = 1000 + 2 * (10 + 305) + 3 * (20 + 295)
    assert pixels[29, 30, 1] == pytest.approx(centre, abs=0.05)


def open_and_read(info: ImageInfo, channels: list[str]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    with open_image(info, channels) as image:
        return image.read(info.box, info.size)


def test_pixel_does_not_depend_on_the_box(write_raster: WriteRaster, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    for name, size, step in (("B02", 66, 10), ("B11", 33, 20), ("B09", 11, 60)):
        write_raster(f"s/S2_{name}.tif", random.random((size, size, 1)).astype(np.float32), transform=at(0, 0, step))
    info = scene(tmp_path / "s")
    with SceneReader().open(info) as image:
        for step in (1.0, 2.0, 3.0, 0.5, 10 / 3):
            n = int(60 // step)
            whole, _ = image.read(Box(0, 0, n * step, n * step), (n, n))
            for low, high in ((0, n // 3), (n // 3, n)):
                part, _ = image.read(Box(low * step, low * step, high * step, high * step), (high - low, high - low))
                assert np.array_equal(part, whole[low:high, low:high])


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"crs": "EPSG:32619"}, "CRS"),
        ({"transform": at(40, 0, 20)}, "same extent"),
        ({"transform": at(0, -40, 20)}, "same extent"),
        ({"transform": Affine(20, 3, 3e5, 3, -20, 4e6)}, "parallel"),
        ({"transform": Affine(20, 0, 3e5, 0, 20, 4e6 - 400)}, "parallel"),
        ({"crs": None, "transform": None}, "CRS"),
    ],
)
def test_mismatched_bands_are_named(
    write_raster: WriteRaster, tmp_path: Path, profile: dict[str, Any], message: str
) -> None:
    write_raster("s/S2_B02.tif", ramp(40, 40, 10), transform=at(0, 0, 10))
    write_raster("s/S2_B11.tif", ramp(20, 20, 20), **({"transform": at(0, 0, 20)} | profile))
    with pytest.raises(ReadError, match=message) as raised:
        scene(tmp_path / "s")
    assert "S2_B02.tif" in str(raised.value)
    assert "S2_B11.tif" in str(raised.value)


@pytest.mark.parametrize(("size", "fits"), [(20, True), (21, True), (19, True), (22, False), (18, False)])
def test_band_sizes_may_differ_by_less_than_a_pixel(
    write_raster: WriteRaster, tmp_path: Path, size: int, *, fits: bool
) -> None:
    write_raster("s/S2_B02.tif", ramp(41 if size == 21 else 39, 40, 10), transform=at(0, 0, 10))
    write_raster("s/S2_B11.tif", ramp(size, 20, 20), transform=at(0, 0, 20))
    if fits:
        assert scene(tmp_path / "s").size[1] == 40
    else:
        with pytest.raises(ReadError, match="same extent"):
            scene(tmp_path / "s")


def test_duplicate_band_is_refused(write_raster: WriteRaster, places: Places, tmp_path: Path) -> None:
    for name in ("B04", "B4", "B8A"):
        write_raster(f"s/S2_{name}.tif", places(8, 8))
    with pytest.raises(ReadError, match=r"S2_B04\.tif and .*S2_B4\.tif"):
        scene(tmp_path / "s")


def test_multiband_file_in_a_scene_is_refused(write_raster: WriteRaster, places: Places, tmp_path: Path) -> None:
    write_raster("s/S2_B02.tif", places(8, 8, 3))
    write_raster("s/S2_B03.tif", places(8, 8))
    with pytest.raises(ReadError, match=r"S2_B02\.tif.*single band"):
        scene(tmp_path / "s")


def test_folder_without_bands_is_not_claimed(write_raster: WriteRaster, places: Places, tmp_path: Path) -> None:
    write_raster("s/S2_B02.tif", places(8, 8))
    write_raster("s/plan.tif", places(8, 8))
    (tmp_path / "s" / "S2_B03.txt").write_text("not a band", encoding="utf-8")
    assert SceneReader().identify(str(tmp_path / "s"), b"") == 0
    assert SceneReader().identify(str(tmp_path / "s" / "plan.tif"), b"II*\0") == 0
    with pytest.raises(ReadError, match="two single-band files"):
        scan_with(SceneReader(), str(tmp_path / "s"), {})


def test_sensor_from_option(write_raster: WriteRaster, places: Places, tmp_path: Path) -> None:
    for band in ("B02", "B8A"):
        write_raster(f"s/S2_{band}.tif", places(8, 8))
    plain = scene(tmp_path / "s")
    assert {channel.quantity for channel in plain.channels} == {"number"}
    assert any("--sensor" in note for note in plain.notes)
    stated = scene(tmp_path / "s", {"sensor": "sentinel-2-l1c-n0400"})
    assert {(c.quantity, c.scale, c.offset) for c in stated.channels} == {("toa_reflectance", 1e-4, -0.1)}
    assert (plain.id, plain.uri, plain.part) == ("s", str(tmp_path / "s"), "S2_{}.tif")


def test_safe_product(write_raster: WriteRaster, tmp_path: Path) -> None:
    """L2A: each band at its finest resolution; quality layers and previews are side files; offsets from metadata."""
    granule = f"{SAFE}/GRANULE/L2A_T32UNU"
    stem = "T32UNU_20220125T102221"
    for resolution, bands in ((10, ("B02", "B03", "TCI")), (20, ("B02", "B03", "B8A", "SCL")), (60, ("B02", "B09"))):
        for band in bands:
            size = 120 // resolution
            pixels = ramp(size, size, resolution).astype(np.uint16)
            name = f"{granule}/IMG_DATA/R{resolution}m/{stem}_{band}_{resolution}m.jp2"
            write_raster(name, pixels, transform=at(0, 0, resolution))
    write_raster(f"{granule}/QI_DATA/MSK_CLDPRB_20m.jp2", ramp(6, 6, 20).astype(np.uint16))
    offsets = "".join(f'<BOA_ADD_OFFSET band_id="{n}">-1000</BOA_ADD_OFFSET>' for n in range(13))
    (tmp_path / SAFE / "MTD_MSIL2A.xml").write_text(
        f'<a><BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>{offsets}</a>', encoding="utf-8"
    )
    rows = scan([str(tmp_path)], {})
    (info,) = [info for row in rows for info in row.infos]
    read = [Path(row.path).name for row in rows if row.status == "read"]
    assert read == [f"{stem}_{band}.jp2" for band in ("B02_10m", "B03_10m", "B8A_20m", "B09_60m")]
    assert {row.status for row in rows} == {"read", "skipped"}
    assert len(rows) == 11
    assert info.id == SAFE.removesuffix(".SAFE").lower()
    assert {(c.quantity, c.scale, c.offset) for c in info.channels} == {("surface_reflectance", 1e-4, -0.1)}
    assert "MTD_MSIL2A.xml" in {Path(name).name for name in info.files}


def test_landsat_folder(write_raster: WriteRaster, places: Places, tmp_path: Path) -> None:
    for band in ("B2", "B3", "B4", "B5", "B10", "QA_PIXEL"):
        write_raster(f"l/{LANDSAT}_{band}.TIF", places(9, 9))
    write_raster("l/other.tif", places(9, 9))
    (tmp_path / "l" / f"{LANDSAT}_MTL.txt").write_text(
        "SUN_ELEVATION = 90.0\n"
        + "".join(f"REFLECTANCE_MULT_BAND_{n} = 2.0E-05\nREFLECTANCE_ADD_BAND_{n} = -0.1\n" for n in range(1, 10)),
        encoding="utf-8",
    )
    rows = {Path(row.path).name: row for row in scan([str(tmp_path / "l")], {})}
    (info,) = rows[f"{LANDSAT}_B2.TIF"].infos
    assert [channel.common for channel in info.channels] == ["blue", "green", "red", "nir", "lwir11"]
    assert [c.quantity for c in info.channels] == ["toa_reflectance"] * 4 + ["number"]
    assert (info.channels[0].scale, info.channels[0].offset) == (2e-5, -0.1)
    assert rows[f"{LANDSAT}_QA_PIXEL.TIF"].status == "skipped"
    assert rows[f"{LANDSAT}_MTL.txt"].status == "skipped"
    assert rows["other.tif"].infos[0].id == "other"


def test_broken_scene_fails_alone(write_raster: WriteRaster, places: Places, tmp_path: Path) -> None:
    for stem in ("good", "bad"):
        for band in ("B02", "B03"):
            write_raster(f"s/{stem}_{band}.tif", places(8, 8))
    broken = tmp_path / "s" / "bad_B03.tif"
    broken.write_bytes(broken.read_bytes()[:60])
    rows = {Path(row.path).name: row for row in scan([str(tmp_path / "s")], {})}
    assert {name: row.status for name, row in rows.items()} == {
        "good_B02.tif": "read",
        "good_B03.tif": "read",
        "bad_B02.tif": "failed",
        "bad_B03.tif": "skipped",
    }
    assert "bad_B03.tif" in rows["bad_B02.tif"].reason
    assert rows["bad_B03.tif"].reason == f"a part of the image of {tmp_path / 's' / 'bad_B02.tif'}, which failed"
    assert [info.id for row in rows.values() for info in row.infos] == ["good"]


@pytest.mark.parametrize(("channels", "options"), [(2, {}), (1, {"bands": "red,green"})])
def test_fault_of_all_bands_is_one_refusal(
    write_raster: WriteRaster, places: Places, tmp_path: Path, channels: int, options: dict[str, str]
) -> None:
    """Whether the reader refuses the scene or the user's `--bands` do not suit it."""
    for band in SENSORS["sentinel-2-l1c"].bands:
        write_raster(f"s/S2_{band}.tif", places(8, 8, channels))
    rows = scan([str(tmp_path / "s")], options)
    assert [Path(row.path).name for row in rows if row.status == "failed"] == ["S2_B01.tif"]
    assert [row.status for row in rows].count("skipped") == 12
    assert len({row.reason for row in rows}) == 2


def test_only_requested_bands_are_opened(write_raster: WriteRaster, places: Places, tmp_path: Path) -> None:
    for band in ("B02", "B03", "B04"):
        write_raster(f"s/S2_{band}.tif", places(8, 8))
    info = scene(tmp_path / "s")
    (tmp_path / "s" / "S2_B03.tif").unlink()
    assert open_and_read(info, ["B04", "B02"])[0].shape == (8, 8, 2)
    with pytest.raises(ReadError, match="S2_B03"):
        SceneReader().open(info)


@pytest.mark.slow
def test_virginia_scene(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "geo" / "sentinel2_virginia_l1c"
    rows = scan([str(folder)], {"sensor": "sentinel-2-l1c"})
    infos = {info.id: info for row in rows for info in row.infos}
    assert set(infos) == {"sentinel2_virginia_l1c", "s2_b01", "s2_b04_lossless_derived"}
    info = infos["sentinel2_virginia_l1c"]
    assert (info.size, len(info.channels), info.channels[12].common) == ((1933, 1947), 13, "swir22")
    box = Box(300, 400, 636, 736)
    with open_image(info, ["B04"]) as whole, RasterReader().open(infos["s2_b04_lossless_derived"]) as band:
        assert np.array_equal(whole.read(box, (336, 336))[0], band.read(box, (336, 336))[0])
    shutil.copytree(folder, tmp_path / "again")
    (again,) = [i for i in scan_with(SceneReader(), str(tmp_path / "again"), {}) if len(i.channels) == 13]
    assert again.fingerprint == info.fingerprint
