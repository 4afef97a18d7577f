"""STAC items: their assets are bands where they are files beside them, and nothing is fetched unasked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from limner.readers.contract import ExpectedImage, check_reader
from limner.readers.image import ImageInfo
from limner.readers.raster.acquisition import ACQUISITION, acquired, interval_text
from limner.readers.raster.radiometry import VALUES
from limner.readers.raster.scene import SceneReader
from limner.readers.registry import open_image, scan
from limner.readers.scanned_files import ScannedFile

WriteRaster = Callable[..., str]
Assets = dict[str, dict[str, Any]]


def item(folder: Path, assets: Assets, **properties: object) -> str:
    content = {"type": "Feature", "stac_version": "1.0.0", "id": "S2B_17SQB", "geometry": None, "links": []}
    content |= {"properties": {"datetime": "2023-06-14T16:09:01Z", **properties}, "assets": assets}
    path = folder / "item.json"
    path.write_text(json.dumps(content))
    return str(path)


def only(path: str, **options: str) -> ScannedFile:
    (row,) = scan([path], options)
    return row


def read(path: str, **options: str) -> ImageInfo:
    row = only(path, **options)
    assert row.status == "read", row.reason
    return row.infos[0]


@pytest.fixture
def bands(tmp_path: Path, write_raster: WriteRaster) -> Assets:
    """A band of 10 m, one of 20 m in a folder below, and assets that are no bands."""
    write_raster("red band.tif", np.full((8, 8, 1), 2000, np.uint16))
    write_raster("R20m/B11.tif", np.full((4, 4, 1), 3000, np.uint16), transform=[20, 0, 3e5, 0, -20, 4e6])
    write_raster("visual.tif", np.full((8, 8, 3), 20, np.uint8))
    (tmp_path / "secret.txt").write_text("no raster")
    red = {"name": "B04", "common_name": "red"}
    numbers = {"scale": 1e-4, "offset": -0.1, "nodata": 0}
    return {
        "red": {"href": "red%20band.tif", "eo:bands": [red], "raster:bands": [numbers]},
        "swir": {"href": "./R20m/B11.tif", "bands": [{"eo:common_name": "swir16", "raster:scale": 1e-4}]},
        "thumbnail": {"href": "./secret.txt", "roles": ["thumbnail"]},
        "visual": {"href": "./visual.tif", "roles": ["data"]},
        "blue": {"href": "https://127.0.0.1:9/B02.tif"},
        "text": {"href": "secret.txt"},
        "gone": {"href": "gone.tif"},
    }


def test_assets_beside_an_item_are_bands(tmp_path: Path, bands: Assets) -> None:
    info = read(item(tmp_path, bands))
    assert info.id == "s2b_17sqb"
    found = [(one.name, one.common, one.scale, one.offset) for one in info.channels]
    assert found == [("B04", "red", 1e-4, -0.1), ("B11", "swir16", 1e-4, 0.0)]
    assert dict(info.facts)[VALUES].endswith("from the STAC item")
    (told,) = [note for note in info.notes if "not read" in note]
    for name, why in {
        "thumbnail": "no band by its roles",
        "visual": "must hold a single band",
        "blue": "on the server 127.0.0.1:9, which --set reader_options.remote_assets=true reads",
        "text": "no raster",
        "gone": "missing",
    }.items():
        assert why in told[told.index(name) :].partition(";")[0]
    with open_image(info) as image:
        pixels, valid = image.read(info.box, info.size)
    assert valid.all()
    assert (pixels == [2000, 3000]).all()


def test_the_reader_keeps_its_contract_on_an_item(tmp_path: Path, bands: Assets) -> None:
    path = item(tmp_path, {"red": bands["red"]})
    check_reader(SceneReader(), path, ExpectedImage(np.full((8, 8, 1), 2000, np.uint16), np.ones((8, 8), bool)))


def test_an_item_states_date_baseline_and_what_was_subtracted(tmp_path: Path, bands: Assets) -> None:
    plain = {"B04": {"href": "red%20band.tif"}}
    sensor = {"sensor": "sentinel-2-l2a"}
    info = read(item(tmp_path, plain), **sensor)
    assert info.channels[0].offset == -0.1
    assert "the date 2023-06-14 in the STAC item" in dict(info.facts)[VALUES]
    info = read(item(tmp_path, plain, **{"s2:processing_baseline": "03.01"}), **sensor)
    assert info.channels[0].offset == 0
    assert any("03.01 in the STAC item, against the date 2023-06-14" in note for note in info.notes)
    info = read(item(tmp_path, bands, **{"earthsearch:boa_offset_applied": True}), **sensor)
    assert {one.offset for one in info.channels} == {0.0}
    assert any("boa_offset_applied" in note and "against -0.1" in note for note in info.notes)


def test_tags_of_assets_win_over_the_item_and_are_told_once(
    tmp_path: Path, bands: Assets, write_raster: WriteRaster
) -> None:
    for name in ("red band.tif", "blue.tif"):
        write_raster(name, np.full((8, 8, 1), 2000, np.uint16), scales=[2e-4], offsets=[0.5])
    assets = {"red": bands["red"], "blue": bands["red"] | {"href": "blue.tif", "eo:bands": [{"name": "B02"}]}}
    info = read(item(tmp_path, assets))
    assert {(one.scale, one.offset) for one in info.channels} == {(2e-4, 0.5)}
    assert [note for note in info.notes if "STAC" in note] == [
        "Of B04, B02 scale 0.0002 and offset 0.5 in the file are used, against 0.0001 and -0.1 in the STAC item."
    ]


def test_two_assets_of_one_band_are_told(tmp_path: Path, bands: Assets, write_raster: WriteRaster) -> None:
    write_raster("again.tif", np.full((8, 8, 1), 2000, np.uint16))
    info = read(item(tmp_path, {"red": bands["red"], "red-jp2": bands["red"] | {"href": "again.tif"}}))
    assert [one.name for one in info.channels] == ["B04"]
    assert any("again.tif: another asset is the band B04" in note for note in info.notes)


def test_a_scale_of_zero_in_an_item_is_refused(tmp_path: Path, bands: Assets) -> None:
    row = only(item(tmp_path, {"red": bands["red"] | {"raster:bands": [{"scale": 0}]}}))
    assert (row.status, "no scale of 0" in row.reason) == ("failed", True)


@pytest.mark.parametrize(
    "href", ["../outside.tif", "/etc/passwd", "link.tif", "file:///etc/passwd", "/vsicurl/http://a/b"]
)
def test_files_outside_of_the_folder_are_not_read(tmp_path: Path, write_raster: WriteRaster, href: str) -> None:
    outside = write_raster("outside.tif", np.full((8, 8, 1), 2000, np.uint16))
    folder = tmp_path / "item"
    folder.mkdir()
    (folder / "link.tif").symlink_to(outside)
    row = only(item(folder, {"B04": {"href": href}}))
    assert row.status == "failed"
    assert "STAC" in row.reason
    assert "outside" in row.reason or "not on this machine" in row.reason


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"stac_version": "1.0.0", "type": "Collection"}', "must hold STAC items or link to them"),
        ('{"stac_version": "1.0.0", "type": "Other"}', "one STAC item (found: Other)"),
        ('{"stac_version": "1.0.0", "type": "Feature"}', "no assets"),
        ('{"stac_version": "1.0.0", "type": "Feature", "assets": [1]}', "no assets"),
        ('{"stac_version": "1.0.0", "type": "Feature", "assets": {"a": 1, "b": {"href": 3}}}', "a: it is not on this"),
        ('{"stac_version": "1.0.0", "type":', "readable JSON"),
        ('{"stac_version": 1, "a": ' + "[" * 900 + "]" * 900 + "}", "readable JSON"),
    ],
)
def test_what_is_no_item_with_assets_is_refused(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "a.json").write_text(content)
    row = only(str(tmp_path / "a.json"))
    assert (row.status, says in row.reason) == ("failed", True), row.reason


def test_in_a_folder_an_item_has_its_assets(tmp_path: Path, bands: Assets, write_raster: WriteRaster) -> None:
    item(tmp_path, bands)
    write_raster("other.tif", np.full((8, 8, 1), 7, np.uint16))
    rows = {Path(row.path).name: row for row in scan([str(tmp_path)], {})}
    images = {info.id: [one.name for one in info.channels] for row in rows.values() for info in row.infos}
    assert images == {"s2b_17sqb": ["B04", "B11"], "other": ["1"], "visual": ["red", "green", "blue"]}
    assert {"item.json", "B11.tif", "secret.txt"} <= rows.keys()


def test_in_a_folder_an_item_without_local_assets_is_a_side_file(tmp_path: Path, write_raster: WriteRaster) -> None:
    write_raster("a.tif", np.full((8, 8, 1), 7, np.uint16))
    item(tmp_path, {"blue": {"href": "https://127.0.0.1:9/B02.tif"}})
    rows = {Path(row.path).name: row for row in scan([str(tmp_path)], {})}
    assert (rows["item.json"].status, "STAC" in rows["item.json"].reason) == ("skipped", True)
    assert rows["a.tif"].status == "read"


@pytest.mark.parametrize("named", ["name", "common_name"])
def test_an_asset_of_several_bands_has_their_names(tmp_path: Path, write_raster: WriteRaster, named: str) -> None:
    pixels = np.arange(8 * 8 * 4, dtype=np.uint16).reshape(8, 8, 4)
    write_raster("image.tif", pixels)
    names = ("red", "green", "blue", "nir")
    raster = [{"scale": 1e-4, "offset": -0.1}] * 4
    asset = {"href": "image.tif", "eo:bands": [{named: name} for name in names], "raster:bands": raster}
    info = read(item(tmp_path, {"image": asset}))
    assert [one.name for one in info.channels] == list(names)
    assert [one.common for one in info.channels] == list(names)
    assert {(one.scale, one.offset) for one in info.channels} == {(1e-4, -0.1)}
    with open_image(info, ["nir", "red"]) as image:
        found, _ = image.read(info.box, info.size)
    assert (found == pixels[:, :, [3, 0]]).all()
    wrong = asset | {"eo:bands": [{named: name} for name in names[:3]], "raster:bands": []}
    assert "3 bands of different names" in only(item(tmp_path, {"image": wrong})).reason


def test_a_collection_lists_items_in_its_folder(tmp_path: Path, bands: Assets, write_raster: WriteRaster) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        write_raster(f"{folder.name}/red.tif", np.full((8, 8, 1), 2000, np.uint16))
        item(folder, {"red": bands["red"] | {"href": "red.tif"}})
    outside = tmp_path.parent / f"{tmp_path.name}.json"
    outside.write_text('{"stac_version": "1.0.0", "type": "Feature"}')
    hrefs = [
        "./a/item.json",
        "b/item.json",
        "b/item.json",
        f"../{outside.name}",
        "https://127.0.0.1:9/item.json",
        "gone.json",
    ]
    links = [{"rel": "item", "href": href} for href in hrefs] + [{"rel": "child", "href": "collection.json"}]
    listed = {"stac_version": "1.1.0", "type": "Collection", "id": "c", "links": links}
    path = tmp_path / "collection.json"
    path.write_text(json.dumps(listed))
    rows = scan([str(path)], {})
    images = [info for row in rows for info in row.infos]
    assert [one.id for one in images] == ["s2b_17sqb", "s2b_17sqb-2"]
    (failed,) = [row for row in rows if row.status == "failed"]
    assert failed.path == str(path)
    for why in ("outside of", "not on this machine", "missing"):
        assert why in failed.reason


def test_a_collection_of_items_holds_them(tmp_path: Path, bands: Assets) -> None:
    one = json.loads(Path(item(tmp_path, {"red": bands["red"]})).read_text())
    two = one | {"id": "second", "assets": {"swir": bands["swir"]}}
    lost = one | {"id": "third", "assets": {"gone": bands["gone"]}}
    (tmp_path / "item.json").unlink()
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "stac_version": "1.1.0", "features": [one, two, lost]}))
    rows = scan([str(path)], {})
    assert [(row.path, "gone: its file is missing" in row.reason) for row in rows if row.status == "failed"] == [
        (str(path), True)
    ]
    images = [info for row in rows for info in row.infos]
    assert [(one.id, one.channels[0].name) for one in images] == [("s2b_17sqb", "B04"), ("second", "B11")]
    for info in images:
        with open_image(info) as image:
            assert image.read(info.box, info.size)[1].all()


def test_a_grid_that_the_file_contradicts_is_told(tmp_path: Path, bands: Assets) -> None:
    right = {"proj:epsg": 32618, "proj:transform": [10, 0, 3e5, 0, -10, 4e6, 0, 0, 1], "proj:shape": [8, 8]}
    info = read(item(tmp_path, {"red": bands["red"] | right}))
    assert not [note for note in info.notes if "against" in note]
    wrong = {"proj:code": "EPSG:32617", "proj:transform": [10, 0, 3e5, 0, -10, 4e6 + 5], "proj:shape": [8, 9]}
    notes = read(item(tmp_path, {"red": bands["red"]}, **wrong)).notes
    grid = "10, 0, 300000, 0, -10, 400000"
    assert [note for note in notes if "against" in note] == [
        "Of B04 8 × 8 px of the file is used, against 8 × 9 px in the STAC item.",
        "Of B04 the CRS EPSG:32618 of the file is used, against EPSG:32617 in the STAC item.",
        f"Of B04 the transform {grid}0 of the file is used, against {grid}5 in the STAC item.",
    ]


def test_an_item_states_when_it_was_acquired(tmp_path: Path, bands: Assets) -> None:
    day = {"start_datetime": "2023-06-14T00:00:00Z", "end_datetime": "2023-06-15T00:00:00Z"}
    for stated, expected in (
        ({}, "2023-06-14T16:09:01Z/2023-06-14T16:09:01Z"),
        ({"datetime": None, **day}, "2023-06-14T00:00:00Z/2023-06-15T00:00:00Z"),
        ({"datetime": None}, None),
    ):
        info = read(item(tmp_path, {"red": bands["red"]}, **stated))
        assert dict(info.facts).get(ACQUISITION) == expected
        assert interval_text(acquired(info)) == (expected or "")


def test_other_json_is_no_item(tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    assert "must be recognised by an installed reader" in only(str(tmp_path / "a.geojson")).reason
