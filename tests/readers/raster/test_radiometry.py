"""Which statement on scale and offset counts, how contradictions are told, and values that a scale cannot be for."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import rasterio
from limner.pipelines.describe import image_json
from limner.readers.contract import scan_with
from limner.readers.errors import ReadError
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo
from limner.readers.raster.geotiff import RasterReader
from limner.readers.raster.radiometry import (
    BASELINE_UNKNOWN,
    VALUES,
    acquisition_dates,
    formula,
    implausible_values,
    offset_note,
)
from limner.readers.raster.scene import SceneReader

WriteRaster = Callable[..., str]

LOOSE = "T17SQB_{}T160901_B0{}.jp2.tif"
SAFE = "S2A_MSIL1C_{}T160901_N{}_R140_T17SQB_20230614T193000.SAFE"
OFFSETS = "".join(f'<RADIO_ADD_OFFSET band_id="{band}">-1000</RADIO_ADD_OFFSET>' for band in range(13))


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("T17SQB_20230614T160901_B02.jp2", "2023-06-14"),
        ("in/T17SQB_20230614T160901/IMG_DATA/R10m/B02.jp2", "2023-06-14"),
        ("S2A_MSIL1C_20160101T154321_N0500_R011_T18SVG_20231005T154321.SAFE/a.jp2", "2016-01-01"),
        ("2023-06-14-00:00_2023-06-14-23:59_Sentinel-2_L1C_B02_(Raw).tiff", "2023-06-14"),
        ("S2B_17SQB_20230614_0_L2A/B02.tif", "2023-06-14"),
        ("s3://sentinel-s2-l1c/tiles/17/S/QB/2023/6/14/0/B02.jp2", "2023-06-14"),
        ("export of 2023-06-14/virginia/B02.tif", ""),  # a plain date counts in the file's own folder only
        ("scene_20231399.tif", ""),
        ("120230614.tif", ""),
        ("B02.tif", ""),
    ],
)
def test_the_date_of_acquisition_in_a_name(path: str, found: str) -> None:
    assert [str(day) for day in acquisition_dates(path)][:1] == ([found] if found else [])


def test_a_span_over_the_change_says_nothing_of_the_offset() -> None:
    assert acquisition_dates("S2_2021-06-01_2022-12-31.tif") == (date(2021, 6, 1), date(2022, 12, 31))


def scene(folder: Path, write_raster: WriteRaster, *, day: str = "20230614", metadata: str | None = None) -> str:
    folder.mkdir(parents=True)
    for band in (2, 3):
        write_raster(str(folder / LOOSE.format(day, band)), np.full((8, 8, 1), 1500, np.uint16))
    if metadata is not None:
        text = f"<a><QUANTIFICATION_VALUE>10000</QUANTIFICATION_VALUE>{metadata}</a>"
        (folder / "MTD_MSIL1C.xml").write_text(text)
    return str(folder)


def described(folder: str, **options: str) -> tuple[set[float], str, list[str]]:
    """Offsets of the channels, the words on values, and the notes but that on nodata."""
    (info,) = scan_with(SceneReader(), folder, options)
    notes = [note for note in info.notes if not note.startswith("Nodata")]
    return {round(one.offset, 6) for one in info.channels}, dict(info.facts)[VALUES], notes


@pytest.mark.parametrize("level", ["l1c", "l2a"])
def test_an_offset_that_the_sensor_leaves_open_follows_the_date(
    tmp_path: Path, write_raster: WriteRaster, level: str
) -> None:
    sensor = f"sentinel-2-{level}"
    offsets, words, notes = described(scene(tmp_path / "new", write_raster), sensor=sensor)
    assert (offsets, words.partition(" = ")[2]) == ({-0.1}, "DN/10000 − 0.1, by the date 2023-06-14 in its name")
    assert [sensor in note and "2023-06-14" in note for note in notes] == [True]
    offsets, words, notes = described(scene(tmp_path / "old", write_raster, day="20180614"), sensor=sensor)
    assert (offsets, words.partition(" = ")[2], notes) == ({0.0}, "DN/10000, by the date 2018-06-14 in its name", [])
    folder = scene(tmp_path / "neither", write_raster, day="2023")
    offsets, words, notes = described(folder, sensor=sensor)
    assert (offsets, "baseline not stated" in words, notes) == ({0.0}, True, [])
    offsets, words, notes = described(folder, sensor=f"{sensor}-n0400")
    assert (offsets, f"by the sensor {sensor}-n0400" in words, notes) == ({-0.1}, True, [])


@pytest.mark.parametrize("sensor", ["", "sentinel-2-l1c"])
@pytest.mark.parametrize(
    ("product", "metadata", "offset", "says", "against"),
    [
        (SAFE.format("20230614", "0509"), OFFSETS, -0.1, "metadata (MTD_MSIL1C.xml)", ""),
        (SAFE.format("20230614", "0509"), None, -0.1, "baseline 05.09 in the product's name", ""),
        (SAFE.format("20180614", "0500"), None, -0.1, "baseline 05.00 in the product's name", ""),  # processed again
        (SAFE.format("20180614", "0206"), None, 0.0, "baseline 02.06 in the product's name", ""),
        (SAFE.format("20230614", "9999"), None, -0.1, "date 2023-06-14", ""),  # processed by a user
        (
            SAFE.format("20230614", "0509"),
            "",
            0.0,
            "metadata",
            "baseline 05.09 in the product's name and the date 2023-06-14",
        ),
        (SAFE.format("20180614", "0206"), OFFSETS, -0.1, "metadata", "baseline 02.06"),
        (SAFE.format("20230614", "0206"), None, 0.0, "baseline 02.06", "date 2023-06-14"),
    ],
    ids=["metadata", "name", "reprocessed", "old", "by a user", "against both", "against the name", "against the date"],
)
def test_metadata_precede_name_and_date(
    tmp_path: Path, write_raster: WriteRaster, sensor: str, product: str, metadata: str | None, offset: float,
    says: str, against: str,
) -> None:  # fmt: skip
    folder = scene(tmp_path / product, write_raster, day=product.split("_")[2][:8], metadata=metadata)
    offsets, words, notes = described(folder, sensor=sensor)
    assert offsets == {offset}
    assert says in words
    assert [against in note for note in notes if ", against " in note] == ([True] if against else [])
    assert len([note for note in notes if "leaves open" in note]) == bool(sensor and offset and metadata is None)


@pytest.mark.parametrize(
    ("sensor", "baseline", "metadata", "found"),
    [
        ("sentinel-2-l1c-n0400", "0206", None, "baseline 02.06"),
        ("sentinel-2-l1c-n0400", "0509", "", "metadata"),
        ("sentinel-2-l2a", "0509", None, "sentinel-2-l1c-n0400 by the name"),
        ("landsat-8-l1", "0509", None, "sentinel-2-l1c-n0400 by the name"),
    ],
)
def test_a_sensor_that_the_product_contradicts_is_refused(
    tmp_path: Path, write_raster: WriteRaster, sensor: str, baseline: str, metadata: str | None, found: str
) -> None:
    folder = scene(tmp_path / SAFE.format("20230614", baseline), write_raster, metadata=metadata)
    with pytest.raises(ReadError, match="must be of the sensor") as refused:
        described(folder, sensor=sensor)
    assert sensor in str(refused.value)
    assert found in str(refused.value)


def test_a_level_is_known_from_metadata_and_resolutions_in_names(tmp_path: Path, write_raster: WriteRaster) -> None:
    folder = scene(tmp_path / "renamed", write_raster, metadata="")
    with pytest.raises(ReadError, match=r"found: MTD_MSIL1C.xml of the product"):
        described(folder, sensor="sentinel-2-l2a")
    path = write_raster("T17SQB_20230614T160901_B02_10m.tif", np.full((8, 8, 1), 1500, np.uint16))
    with pytest.raises(ReadError, match="a resolution in the file's name, as only L2A has it"):
        scan_with(RasterReader(), path, {"sensor": "sentinel-2-l1c"})
    (info,) = scan_with(RasterReader(), path, {"sensor": "sentinel-2-l2a"})
    assert info.channels[0].offset == -0.1


def test_an_old_date_against_the_stated_offset_is_told(tmp_path: Path, write_raster: WriteRaster) -> None:
    folder = scene(tmp_path / "old", write_raster, day="20180614")
    offsets, words, notes = described(folder, sensor="sentinel-2-l1c-n0400")
    assert offsets == {-0.1}
    assert "by the sensor sentinel-2-l1c-n0400" in words
    assert ["2018-06-14" in note and "sentinel-2-l1c-n0400" in note for note in notes] == [True]


def test_tags_of_the_file_win_and_name_what_they_beat(write_raster: WriteRaster) -> None:
    path = write_raster("T17SQB_20230614T160901.tif", np.full((8, 8, 3), 1500, np.uint16), scales=[1e-4] * 3)
    (info,) = scan_with(RasterReader(), path, {"sensor": "sentinel-2-l1c", "bands": "blue,green,red"})
    assert [(one.scale, one.offset) for one in info.channels] == [(1e-4, 0.0)] * 3
    (told,) = [note for note in info.notes if "of the file are used" in note]
    assert "0.0001 and -0.1 by the date 2023-06-14" in told
    assert dict(info.facts)[VALUES] == "toa_reflectance = DN/10000, from the tags of the file"
    assert image_json(info)["values"] == dict(info.facts)[VALUES]
    assert {(one["scale"], one["offset"]) for one in image_json(info)["channels"]} == {(1e-4, 0.0)}


def test_tags_of_32_bits_are_no_contradiction(write_raster: WriteRaster) -> None:
    tag = float(np.float32(1e-4))
    path = write_raster("a.tif", np.full((8, 8, 3), 1500, np.uint16), scales=[tag] * 3)
    (info,) = scan_with(RasterReader(), path, {"sensor": "sentinel-2-l1c", "bands": "blue,green,red"})
    assert not any("of the file are used" in note for note in info.notes)


@pytest.mark.parametrize(
    ("scale", "offset"), [(0.0, 0.0), (float("nan"), 0.0), (float("inf"), 0.0), (1e-4, float("inf"))]
)
def test_tags_that_are_no_conversion_are_refused(write_raster: WriteRaster, scale: float, offset: float) -> None:
    path = write_raster("a.tif", np.full((8, 8, 1), 1500, np.uint16), scales=[scale], offsets=[offset])
    with pytest.raises(ReadError, match=r"finite, and no scale of 0.*reader_options\.scale"):
        scan_with(RasterReader(), path, {})
    (info,) = scan_with(RasterReader(), path, {"scale": "0.5"})
    assert (info.channels[0].scale, info.channels[0].offset) == (0.5, 0.0)


def test_a_product_is_known_from_the_tag_that_gdal_copies(write_raster: WriteRaster) -> None:
    path = write_raster("a.tif", np.full((8, 8, 3), 1500, np.uint16))
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(PRODUCT_URI=SAFE.format("20180614", "0500"))
    (info,) = scan_with(RasterReader(), path, {"bands": "blue,green,red"})
    assert (info.sensor, info.channels[0].offset) == ("sentinel-2-l1c-n0400", -0.1)
    with pytest.raises(ReadError, match="must be of the sensor landsat-8-l1"):
        scan_with(RasterReader(), path, {"sensor": "landsat-8-l1"})


def test_numbers_of_the_user_win_over_all(tmp_path: Path, write_raster: WriteRaster) -> None:
    folder = scene(tmp_path / SAFE.format("20230614", "0509"), write_raster, metadata=OFFSETS)
    offsets, words, (told,) = described(folder, offset="0")
    assert offsets == {0.0}
    assert words == "toa_reflectance = DN/10000, as stated by the options scale and offset"
    assert "instead of toa_reflectance = " in told
    offsets, words, _ = described(folder, scale="0.001")
    assert (offsets, "DN/1000," in words) == ({0.0}, True)
    assert described(folder, scale="0.0001", offset="-0.1", sensor="sentinel-2-l1c")[::2] == ({-0.1}, [])


def test_conversions_in_words() -> None:
    assert formula(1 / 10000, -0.1) == "DN/10000 − 0.1"
    assert formula(2e-5 / 0.866025, 0.1) == "DN · 2.3094e-05 + 0.1"
    assert formula(0.004, 0.0, "value") == "value/250"
    assert formula(1.0, -0.5) == "DN − 0.5"


def image(scale: float, offset: float, dtype: str) -> ImageInfo:
    channels = (Channel("B04", "red", dtype, scale, offset, "toa_reflectance"), Channel("QA", dtype=dtype))
    return ImageInfo("a.tif", "raster", (20, 10), channels, Placement.pixels(), sensor="sentinel-2-l1c")


def fault(numbers: float, scale: float, offset: float, dtype: str) -> str:
    """What is wrong with an image, 1 % of which is no data, of numbers up to a largest."""
    info = image(scale, offset, dtype)
    pixels = np.stack([np.linspace(0.1, 1.0, 200).reshape(10, 20) * numbers, np.full((10, 20), 1e9)], axis=2)
    valid = np.ones((10, 20), dtype=bool)
    pixels[0, :2], valid[0, :2] = -9999, False
    found = implausible_values(info, info.channels, pixels.astype(dtype), valid)
    return "" if found is None else f"{found}"


@pytest.mark.parametrize(
    ("numbers", "scale", "offset", "dtype", "says"),
    [
        (1.2, 1e-4, 0.0, "float32", "reader_options.scale=1 "),
        (1.2, 2.75e-5, -0.2, "float32", "reader_options.scale=1 "),  # Landsat, scaled already
        (90.0, 1e-4, -0.1, "float64", "reader_options.scale=0.01 "),
        (250, 1e-4, 0.0, "uint8", "more than 8 bits"),
        (3000, 1e-4, -0.1, "uint16", ""),
        (1500, 1e-4, -0.1, "uint16", "% of the pixels of B04 outside"),  # two thirds are negative
        (9000, 1e-4, 0.0, "int16", ""),
        (9000.0, 1e-4, 0.0, "float32", ""),
        (40000, 1e-4, 0.0, "uint16", "% of the pixels of B04 outside"),  # of Landsat
        (9000, 2.75e-5, -0.2, "uint16", "% of the pixels of B04 outside"),  # with the scale of Landsat
        (40000, 2.75e-5, -0.2, "uint16", ""),
        (1.2, 1.0, 0.0, "float32", ""),
        (250, 0.004, 0.0, "uint8", ""),
    ],
)
def test_numbers_that_a_scale_cannot_be_for(numbers: float, scale: float, offset: float, dtype: str, says: str) -> None:
    found = fault(numbers, scale, offset, dtype)
    assert (says in found) if says else found == ""


def test_values_without_a_quantity_are_not_judged() -> None:
    info = image(1e-4, 0.0, "float32")
    channels = tuple(replace(one, quantity="number") for one in info.channels)
    assert implausible_values(info, channels, np.full((2, 2, 2), 0.5), np.ones((2, 2), bool)) is None
    assert implausible_values(info, info.channels, np.full((2, 2, 2), 0.5), np.zeros((2, 2), bool)) is None


@pytest.mark.parametrize(("darkest", "known", "told"), [(1010, False, True), (900, False, False), (1010, True, False)])
def test_an_offset_that_nothing_states_is_noted_where_it_shows(darkest: int, known: bool, told: bool) -> None:
    info = image(1e-4, 0.0, "uint16")
    info = info if known else replace(info, facts=(BASELINE_UNKNOWN,))
    pixels = np.linspace(darkest, 4000, 400).reshape(10, 20, 2).astype(np.uint16)
    note = offset_note(info, info.channels, pixels, np.ones((10, 20), bool))
    assert ("sentinel-2-l1c-n0400" in note) == told
