"""Outlines as users draw them, in every format and wording, and the errors for ambiguous ones."""

import gzip
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import shapely
from limner.pipelines.train.outlines import Labels, read_labels
from limner.readers.errors import RequestError
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo
from pyogrio import raw
from shapely.geometry import box, mapping

Save = Callable[..., str]
UTM = pyproj.CRS.from_epsg(32618).to_wkt()
TO_LONLAT = pyproj.Transformer.from_crs(32618, 4326, always_xy=True)


def scene(name: str = "scene", east: float = 440000.0) -> ImageInfo:
    """A map of 1000 × 800 px of 10 m."""
    placement = Placement(((10.0, 0.0, east), (0.0, -10.0, 4172000.0)), "m", crs=UTM, source="test")
    return ImageInfo(f"{name}.tif", "raster", (1000, 800), (Channel("1"),), placement, id=name)


def picture(name: str = "field", **facts: Any) -> ImageInfo:
    """A picture of 300 × 200 px without a place."""
    return ImageInfo(f"{name}.png", "raster", (300, 200), (Channel("1"),), Placement.pixels(), id=name, **facts)


def on_map(x0: float, y0: float, x1: float, y1: float, east: float = 440000.0) -> dict[str, Any]:
    """A box of a scene's pixels, in longitude and latitude, as QGIS saves it."""
    corners = [(east + 10 * x, 4172000 - 10 * y) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0))]
    return {"type": "Polygon", "coordinates": [[list(TO_LONLAT.transform(*corner)) for corner in corners]]}


def feature(geometry: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "properties": properties, "geometry": geometry}


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(features: Sequence[Any], name: str = "labels.geojson", **members: Any) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        content = json.dumps({"type": "FeatureCollection", "features": list(features), **members}).encode()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return str(path)

    return write


def placed(labels: Labels, image: str) -> list[tuple[str, list[float]]]:
    return [(one.label, [round(v, 1) for v in one.geometry.bounds]) for one in labels.outlines[image]]


def test_polygons_of_a_map_are_placed_in_pixels(save: Save) -> None:
    path = save([feature(on_map(100, 50, 200, 150), label="water"), feature(on_map(300, 50, 400, 90), label="land")])
    labels = read_labels(path, [scene()])
    assert placed(labels, "scene") == [("water", [100, 50, 200, 150]), ("land", [300, 50, 400, 90])]
    assert (labels.classes, labels.outside, labels.unlabelled) == (("land", "water"), 0, 0)


def test_labels_of_a_geopackage_are_placed_and_its_file_is_in_the_digest(tmp_path: Path) -> None:
    """In a folder beside GeoJSON, too."""
    boxes = [shapely.box(441000, 4170500, 442000, 4171500), shapely.box(443000, 4171100, 444000, 4171500)]
    outlines = np.array([shapely.to_wkb(one) for one in boxes], dtype=object)
    names = np.array(["water", "land"], dtype=object)
    path = tmp_path / "labels.gpkg"
    raw.write(path, outlines, [names], ["label"], crs="EPSG:32618", driver="GPKG", geometry_type="Polygon", layer="a")
    expected = [("water", [100.0, 50.0, 200.0, 150.0]), ("land", [300.0, 50.0, 400.0, 90.0])]
    for given in (path, tmp_path):
        labels = read_labels(str(given), [scene()])
        assert placed(labels, "scene") == expected
        assert labels.digests == {"file 1": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_a_stated_crs_is_respected(save: Save) -> None:
    square = {
        "type": "Polygon",
        "coordinates": [
            [
                [x, y]
                for x, y in (
                    (441000, 4171500),
                    (442000, 4171500),
                    (442000, 4170500),
                    (441000, 4170500),
                    (441000, 4171500),
                )
            ]
        ],
    }
    path = save(
        [feature(square, label="water")], crs={"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32618"}}
    )
    assert placed(read_labels(path, [scene()]), "scene") == [("water", [100, 50, 200, 150])]


def test_an_outline_lies_on_every_map_that_it_intersects(save: Save) -> None:
    east = 440000.0 + 9000.0
    path = save([feature(on_map(850, 10, 950, 60), label="a"), feature(on_map(10, 10, 50, 50), label="b")])
    labels = read_labels(path, [scene(), scene("east", east)])
    assert placed(labels, "scene") == [("a", [850, 10, 950, 60]), ("b", [10, 10, 50, 50])]
    assert placed(labels, "east") == [("a", [0, 10, 50, 60])]


@pytest.mark.parametrize(
    ("properties", "field", "label"),
    [
        ({"classification": {"name": "Tumor", "color": [1, 2, 3]}, "label": "no"}, "", "Tumor"),
        ({"classification": {"names": ["Tumor", "Ki67"]}}, "", "Tumor: Ki67"),
        ({"objectType": "annotation", "class": 3.0}, "", "3"),
        ({"label": " gland "}, "", "gland"),
        ({"label": "no", "kind": "gland"}, "kind", "gland"),
    ],
)
@pytest.mark.parametrize("name", ["labels.geojson", "labels.geojson.gz"])
def test_labels_of_qupath_and_other_programs_are_found(
    save: Save, properties: dict[str, Any], field: str, label: str, name: str
) -> None:
    path = save([feature(mapping(box(10, 20, 60, 80)), **properties)], name)
    slide = picture(origin=(100, 10))
    assert placed(read_labels(path, [slide], label_field=field), "field") == [(label, [110, 30, 160, 90])]


def test_a_folder_has_a_file_for_each_image(save: Save, tmp_path: Path) -> None:
    for name in ("one", "two"):
        save([feature(mapping(box(0, 0, 50, 50)), label=name)], f"drawn/{name}.geojson")
    labels = read_labels(str(tmp_path / "drawn"), [picture("one"), picture("two"), picture("three")])
    assert placed(labels, "one") == [("one", [0, 0, 50, 50])]
    assert placed(labels, "two") == [("two", [0, 0, 50, 50])]
    assert "three" not in labels.outlines
    assert list(labels.digests) == ["file 1", "file 2"]
    save([feature(mapping(box(0, 0, 50, 50)), label="x")], "drawn/other.geojson")
    with pytest.raises(RequestError, match=r"other\.geojson.*named like one of the images"):
        read_labels(str(tmp_path / "drawn"), [picture("one"), picture("two")])


def test_a_csv_has_points_and_polygons_in_pixels_or_in_a_crs(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    lon, lat = TO_LONLAT.transform(441000.0, 4171500.0)
    square = box(441000, 4170500, 442000, 4171500).wkt
    path.write_text(
        "image,x,y,wkt,crs,label\n"
        "scene.tif,5.5,6.5,,,a\n"
        f"scene,{lon},{lat},,EPSG:4326,b\n"
        f'scene,,,"{square}",EPSG:32618,c\n'
        'other.tif,,,"POLYGON ((1 1, 9 1, 9 9, 1 1))",,d\n'
        "scene.tif,3,3,,, \n"
    )
    labels = read_labels(str(path), [scene(), scene("other")])
    assert placed(labels, "scene") == [
        ("a", [5.5, 6.5, 5.5, 6.5]),
        ("b", [100, 50, 100, 50]),
        ("c", [100, 50, 200, 150]),
    ]
    assert placed(labels, "other") == [("d", [1, 1, 9, 9])]
    assert labels.unlabelled == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("image,x,label\nscene,1,a\n", "columns: image, x, label; no y"),
        ("image,x,y,kind\nscene,1,2,a\n", "no label"),
        ("image,x,y,label\nscene,one,2,a\n", "line 2.*x and y"),
        ("image,x,y,label\nscene,nan,2,a\n", "line 2.*not finite"),
        ("image,wkt,label\nscene,LINESTRING (0 0; 1 1),a\n", "line 2.*WKT"),
        ("image,x,y,label,crs\nscene,1,2,a,EPSG:99999\n", "line 2.*EPSG:99999"),
        ("image,x,y,label\nscene,1,2,a\nnowhere,1,2,a\n", "line 3.*'nowhere' is the name of 0 of 2"),
        ("image,x,y,label\n", "must hold outlines"),
        ("", "must hold outlines"),
        ("image,x,y,label\nscene,-5,2,a\n", "they span x -5 to -5, y 2 to 2; scene spans"),
    ],
)
def test_an_invalid_csv_is_refused_with_its_line(tmp_path: Path, rows: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(rows)
    with pytest.raises(RequestError, match=message):
        read_labels(str(path), [picture("scene"), picture("other")])


def test_outlines_outside_the_images_are_counted(save: Save) -> None:
    far = on_map(5000, 50, 5100, 150)
    path = save([feature(on_map(100, 50, 200, 150), label="water"), feature(far, label="land")])
    assert read_labels(path, [scene()]).outside == 1
    path = save([feature(far, label="land")])
    with pytest.raises(
        RequestError, match=r"1 beside all of them: they span longitude -75\.1.*; scene spans longitude -75\.6"
    ):
        read_labels(path, [scene()])


def test_swapped_latitude_and_longitude_are_reported_by_extents(save: Save) -> None:
    swapped = on_map(100, 50, 200, 150)
    swapped["coordinates"] = [[[lat, lon] for lon, lat in swapped["coordinates"][0]]]
    with pytest.raises(RequestError, match=r"span longitude 37.*latitude -75.*longitude first"):
        read_labels(save([feature(swapped, label="a")]), [scene()])


def test_pixel_coordinates_on_a_map_are_refused(save: Save) -> None:
    with pytest.raises(RequestError, match=r"must have longitudes within ±180.*RFC 7946"):
        read_labels(save([feature(mapping(box(100, 200, 300, 400)), label="a")]), [scene()])
    with pytest.raises(RequestError, match=r"they span longitude 1.*; scene spans longitude -75"):
        read_labels(save([feature(mapping(box(1, 2, 30, 40)), label="a")]), [scene()])


def test_map_coordinates_on_an_image_in_pixels_are_refused(save: Save) -> None:
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}
    with pytest.raises(RequestError, match=r"must be in pixels.*CRS84"):
        read_labels(save([feature(mapping(box(11, 48, 12, 49)), label="a")], crs=crs), [picture()])
    with pytest.raises(RequestError, match=r"must be in pixels.*x -75.*smaller than a pixel.*--crs"):
        read_labels(save([feature(on_map(1, 2, 3, 4), label="a")]), [picture()])


def test_an_unknown_field_is_refused_with_the_known_ones(save: Save) -> None:
    path = save([feature(mapping(box(1, 2, 30, 40)), id=1, kind="a")])
    with pytest.raises(
        RequestError, match=r"classification, or in a field label or class.*fields: id, kind.*--label-field"
    ):
        read_labels(path, [picture()])
    with pytest.raises(RequestError, match=r"field 'species'.*fields: id, kind"):
        read_labels(path, [picture()], label_field="species")


def test_outlines_without_a_label_are_counted(save: Save) -> None:
    shape = mapping(box(1, 2, 30, 40))
    labels = read_labels(save([feature(shape, label="a"), feature(shape, label=None), feature(shape)]), [picture()])
    assert labels.unlabelled == 2


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"type": "FeatureCollection", "features": []}', b'{"type": "Feature", "geometry": null}']
)
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels.geojson"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=r"labels\.geojson.*(must hold outlines|must be a GeoJSON file)"):
        read_labels(str(path), [picture()])
    with pytest.raises(RequestError, match=r"absent.*must be a GeoJSON file"):
        read_labels(str(tmp_path / "absent.geojson"), [picture()])
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="must hold GeoJSON files"):
        read_labels(str(tmp_path / "empty"), [picture()])


def test_one_file_in_pixels_for_several_images_is_refused(save: Save) -> None:
    path = save([feature(mapping(box(1, 2, 30, 40)), label="a")])
    with pytest.raises(RequestError, match=r"belong to one image.*a folder with a GeoJSON file for each"):
        read_labels(path, [picture("one"), picture("two")])


def test_the_class_undecided_is_refused(save: Save) -> None:
    with pytest.raises(RequestError, match="must not have a class undecided"):
        read_labels(save([feature(mapping(box(1, 2, 30, 40)), label="undecided")]), [picture()])


def test_self_intersecting_polygons_in_pixels_are_repaired(save: Save) -> None:
    bow = {"type": "Polygon", "coordinates": [[[0, 0], [20, 20], [20, 0], [0, 20], [0, 0]]]}
    [one] = read_labels(save([feature(bow, label="a")]), [picture()]).outlines["field"]
    assert one.geometry.is_valid
    assert one.geometry.area == 200
    assert np.isfinite(shapely.get_coordinates(one.geometry)).all()
