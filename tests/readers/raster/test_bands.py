"""Sensors, band names, radiometry and product metadata."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from limner.readers.contract import scan_with
from limner.readers.errors import ReadError, RequestError
from limner.readers.image import Channel
from limner.readers.raster.bands import (
    SENSORS,
    common_names,
    describe_channels,
    find_channels,
    find_sensor,
    match_band,
    read_radiometry,
    sensor_from_name,
)
from limner.readers.raster.geotiff import RasterReader

WriteRaster = Callable[..., str]
Places = Callable[..., np.ndarray[Any, Any]]


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("S2_B02.tif", "B02"),
        ("T18SVG_20160101T154321_B8A.jp2", "B8A"),
        ("T32UNU_20220125T102221_B11_20m.jp2", "B11"),
        ("LC08_L1TP_224078_20200518_20200525_02_T1_B10.TIF", "B10"),
        ("LE07_L1TP_015034_20000101_20200918_02_T1_B6_VCID_2.TIF", "B6_VCID_2"),
        ("LC09_L2SP_224078_20220518_20220525_02_T1_SR_B4.TIF", "SR_B4"),
        ("LC09_L2SP_224078_20220518_20220525_02_T1_ST_B10.TIF", "ST_B10"),
        ("LC09_L2SP_224078_20220518_20220525_02_T1_QA_PIXEL.TIF", None),
        ("T18SVG_20160101T154321_TCI.jp2", None),
        ("TAB12.tif", None),
        ("B13.tif", None),
        ("b4.tif", "b4"),
    ],
)
def test_band_id_in_a_file_name(name: str, band: str | None) -> None:
    found = match_band(name)
    assert (found[0] if found else None) == band


@pytest.mark.parametrize(
    ("name", "sensor"),
    [
        ("S2A_MSIL1C_20160101T154321_N0201_R011_T18SVG_20160101T154321.SAFE", "sentinel-2-l1c"),
        ("S2B_MSIL1C_20220125T102221_N0400_R065_T32UNU_20220125T111503.SAFE", "sentinel-2-l1c-n0400"),
        ("S2C_MSIL2A_20250125T102221_N0511_R065_T32UNU_20250125T111503.SAFE", "sentinel-2-l2a-n0400"),
        ("S2A_MSIL2A_20180125T102221_N0206_R065_T32UNU_20180125T111503.SAFE", "sentinel-2-l2a"),
        ("LC08_L1TP_224078_20200518_20200518_01_RT.TIF", "landsat-8-l1"),
        ("LC09_L1GT_224078_20220518_20220525_02_T2_B4.TIF", "landsat-8-l1"),
        ("LC09_L2SP_224078_20220518_20220525_02_T1_SR_B4.TIF", "landsat-8-l2"),
        ("LE07_L1TP_015034_20000101_20200918_02_T1_B3.TIF", "landsat-7-l1"),
        ("LT05_L2SP_015034_19900101_20200918_02_T1_SR_B3.TIF", "landsat-5-l2"),
        ("S2_B02.tif", None),
        ("S2_L1C_2015-07-11.tif", None),
        ("holiday.jpg", None),
    ],
)
def test_sensor_in_a_product_name(name: str, sensor: str | None) -> None:
    found = sensor_from_name(name)
    assert (found.name if found else None) == sensor


def test_sensors_have_visible_and_nir_bands() -> None:
    for sensor in SENSORS.values():
        assert {"blue", "green", "red", "nir"} <= set(sensor.bands.values())
        assert set(sensor.radiometry) <= set(sensor.bands)


def test_unknown_sensor_suggests_the_nearest() -> None:
    with pytest.raises(RequestError, match=r"sentinel-2-l1c, .*Did you mean 'sentinel-2-l2a'\?"):
        find_sensor("sentinel2-l2a")


def test_band_numbers_alone_need_unambiguous_numbering() -> None:
    assert common_names(None, ["B2", "B3", "B4"]) == {}
    assert common_names(None, ["B10", "B11"]) == {}
    assert common_names(None, ["B02", "B11"]) == {"B02": "blue", "B11": "swir16"}
    assert common_names(None, ["B2", "B8A"]) == {"B2": "blue", "B8A": "nir08"}
    assert common_names(SENSORS["landsat-8-l1"], ["B2", "B5"]) == {"B2": "blue", "B5": "nir"}
    assert common_names(SENSORS["landsat-7-l1"], ["B2", "B4"]) == {"B2": "green", "B4": "nir"}
    assert common_names(None, ["Red", "height"]) == {"Red": "red"}


def test_unknown_product_keeps_digital_numbers() -> None:
    channels, notes = describe_channels([Channel("B02"), Channel("B8A")], None)
    assert {channel.quantity for channel in channels} == {"number"}
    assert any("--sensor" in note and "sentinel-2-l1c" in note for note in notes)


@pytest.mark.parametrize(
    ("sensor", "band", "scale", "offset", "quantity"),
    [
        ("sentinel-2-l1c", "B04", 1e-4, 0.0, "toa_reflectance"),
        ("sentinel-2-l1c-n0400", "B04", 1e-4, -0.1, "toa_reflectance"),
        ("sentinel-2-l2a-n0400", "B8A", 1e-4, -0.1, "surface_reflectance"),
        ("landsat-8-l2", "SR_B4", 2.75e-5, -0.2, "surface_reflectance"),
        ("landsat-8-l2", "ST_B10", 1.0, 0.0, "number"),
        ("landsat-8-l1", "B4", 1.0, 0.0, "number"),
    ],
)
def test_sensor_radiometry(sensor: str, band: str, scale: float, offset: float, quantity: str) -> None:
    ((channel,), notes) = describe_channels([Channel(band)], SENSORS[sensor])
    assert (channel.scale, channel.offset, channel.quantity) == (scale, offset, quantity)
    assert any("MTL" in note for note in notes) == (sensor == "landsat-8-l1")


def test_bands_option_takes_common_names(write_raster: WriteRaster) -> None:
    path = write_raster("a.tif", np.full((8, 8, 3), 1000, np.uint16))
    (info,) = scan_with(RasterReader(), path, {"sensor": "sentinel-2-l1c", "bands": "blue,nir,swir16"})
    assert [(c.name, c.common, c.scale, c.quantity) for c in info.channels] == [
        (band, colour, 1e-4, "toa_reflectance") for band, colour in (("B02", "blue"), ("B08", "nir"), ("B11", "swir16"))
    ]


def test_scale_of_the_file_wins_over_the_sensor() -> None:
    ((channel,), notes) = describe_channels([Channel("B04", scale=2e-4, offset=0.5)], SENSORS["sentinel-2-l1c"])
    assert (channel.scale, channel.offset) == (2e-4, 0.5)
    assert len(notes) == 1
    assert "0.0002" in notes[0]
    assert "0.0001" in notes[0]
    _, agreed = describe_channels([Channel("B04", scale=1e-4)], SENSORS["sentinel-2-l1c"])
    assert agreed == []


def test_ordered_sensor_names_channels() -> None:
    channels, _ = describe_channels([Channel(str(n)) for n in range(1, 5)], SENSORS["naip-4"])
    assert [(c.name, c.common) for c in channels] == [(n, n) for n in ("red", "green", "blue", "nir")]
    channels, _ = describe_channels([Channel(str(n)) for n in range(1, 5)], SENSORS["planetscope-4"])
    assert [channel.common for channel in channels] == ["blue", "green", "red", "nir"]
    channels, _ = describe_channels([Channel(str(n)) for n in range(1, 4)], SENSORS["naip-4"])
    assert {channel.common for channel in channels} == {None}


def test_find_channels_by_common_name() -> None:
    channels = [Channel("B02", "blue"), Channel("B04", "red"), Channel("1")]
    assert find_channels(channels, ["red", "blue"]) == ("B04", "B02")
    with pytest.raises(ReadError, match=r"'nir'.*B02 \(blue\), B04 \(red\), 1"):
        find_channels(channels, ["red", "nir"])
    with pytest.raises(ReadError, match="2 of its channels"):
        find_channels([*channels, Channel("B4", "red")], ["red"])


MTL = {"SUN_ELEVATION": "30.0", "REFLECTANCE_MULT_BAND_4": "2.0000E-05", "REFLECTANCE_ADD_BAND_4": "-0.100000"}
SCENE = "LC08_L1TP_224078_20200518_20200525_02_T1"


@pytest.mark.parametrize("kind", ["txt", "json"])
def test_landsat_reflectance_uses_sun_elevation(tmp_path: Path, kind: str) -> None:
    lines = [f"    {key} = {value}" for key, value in MTL.items()]
    text = "GROUP = LANDSAT_METADATA_FILE\n" + "\n".join(lines) + "\nEND_GROUP = LANDSAT_METADATA_FILE\nEND\n"
    if kind == "json":
        text = json.dumps({"LANDSAT_METADATA_FILE": {"A": {"SUN_ELEVATION": "30.0"}, "B": MTL}})
    (tmp_path / f"{SCENE}_MTL.{kind}").write_text(text, encoding="utf-8")
    bands = read_radiometry(str(tmp_path / f"{SCENE}_B4.TIF"), SENSORS["landsat-8-l1"])
    assert bands["B4"].scale == pytest.approx(2e-5 / math.sin(math.radians(30)))
    assert bands["B4"].offset == pytest.approx(-0.1 / 0.5)
    assert bands["B4"].quantity == "toa_reflectance"
    assert read_radiometry(str(tmp_path / "LC08_L1TP_999999_B4.TIF"), SENSORS["landsat-8-l1"]) == {}
    assert read_radiometry(str(tmp_path / f"{SCENE}_SR_B4.TIF"), SENSORS["landsat-8-l2"]) == {}


@pytest.mark.parametrize("text", ["", "SUN_ELEVATION = high\n", "SUN_ELEVATION = -3.5\n"])
def test_invalid_landsat_metadata_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / f"{SCENE}_MTL.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ReadError, match="MTL"):
        read_radiometry(str(tmp_path / f"{SCENE}_B4.TIF"), SENSORS["landsat-8-l1"])


def test_sentinel_metadata_offsets(tmp_path: Path) -> None:
    offsets = "".join(f'<RADIO_ADD_OFFSET band_id="{at}">{-1000 - at}</RADIO_ADD_OFFSET>' for at in range(13))
    text = f'<a><QUANTIFICATION_VALUE unit="none">10000</QUANTIFICATION_VALUE><b>{offsets}</b></a>'
    (tmp_path / "MTD_MSIL1C.xml").write_text(text, encoding="utf-8")
    band = tmp_path / "GRANULE" / "L1C_T18SVG" / "IMG_DATA" / "T18SVG_20220101T000000_B8A.jp2"
    band.parent.mkdir(parents=True)
    bands = read_radiometry(str(band), SENSORS["sentinel-2-l1c"])
    assert (bands["B8A"].scale, bands["B8A"].offset) == (1e-4, -1008 / 1e4)
    assert (bands["B12"].scale, bands["B12"].offset) == (1e-4, -1012 / 1e4)
    (tmp_path / "MTD_MSIL1C.xml").write_text("<a/>", encoding="utf-8")
    with pytest.raises(ReadError, match="quantification"):
        read_radiometry(str(band), SENSORS["sentinel-2-l1c"])


def test_nodata_of_the_sensor(write_raster: WriteRaster, places: Places) -> None:
    """A pixel is nodata only where all bands are 0."""
    pixels = places(8, 6, 3)
    pixels[0, 0], pixels[1, 1, 0] = 0, 0
    path = write_raster(f"{SCENE}.TIF", pixels)
    (info,) = scan_with(RasterReader(), path, {"bands": "B2,B3,B4"})
    assert [channel.common for channel in info.channels] == ["blue", "green", "red"]
    assert any("Nodata value 0" in note for note in info.notes)
    with RasterReader().open(info, ["B2"]) as image:
        _, valid = image.read(info.box, info.size)
    assert np.argwhere(~valid).tolist() == [[0, 0]]


def test_nodata_of_file_or_option_wins_over_the_sensor(write_raster: WriteRaster, places: Places) -> None:
    pixels = places(8, 6, 1)
    pixels[0, 0], pixels[1, 1] = 0, 9999
    path = write_raster("a.tif", pixels, nodata=9999)
    for options, holes in (({"sensor": "landsat-8-l1"}, [[1, 1]]), ({"nodata": "0"}, [[0, 0]])):
        (info,) = scan_with(RasterReader(), path, options)
        with RasterReader().open(info) as image:
            assert np.argwhere(~image.read(info.box, info.size)[1]).tolist() == holes
