"""QuPath's GeoJSON, read back by a reimplementation of its parser's rules."""

import gzip
import json
import math
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.model.finding import Finding
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo
from limner.reports.qupath import QuPath, compressed
from limner.reports.writer import ImageRecord, Record
from shapely.geometry import MultiPolygon, Point, Polygon, box, shape
from shapely.geometry.base import BaseGeometry

MICRONS = Placement(((0.5, 0.0, 0.0), (0.0, 0.25, 0.0)), "um", source="aperio header")


class QuPathParser:
    """QuPath's import of a file, rule by rule; raises where QuPath would refuse it."""

    TYPES = ("annotation", "detection", "tile", "cell", "tmaCore")

    def read(self, content: bytes) -> list[dict[str, Any]]:
        """The objects of a file."""
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        document = json.loads(content.decode("utf-8"), parse_constant=self._refuse)
        return [self._object(feature) for feature in document["features"]]

    def _refuse(self, word: str) -> None:
        raise ValueError(word)

    def _object(self, feature: dict[str, Any]) -> dict[str, Any]:
        assert feature["type"] == "Feature"
        properties = feature.get("properties", {})
        kind = properties.get("objectType", "annotation")
        assert kind in self.TYPES
        return {
            "id": uuid.UUID(feature["id"]),
            "kind": kind,
            "roi": self._roi(feature["geometry"]),
            "name": properties.get("name"),
            "class": self._path_class(properties["classification"]),
            "colour": self._colour(properties["color"]),
            "measurements": self._measurements(properties.get("measurements", {})),
            "metadata": self._metadata(properties.get("metadata", {})),
        }

    def _roi(self, geometry: dict[str, Any]) -> BaseGeometry:
        coordinates = geometry["coordinates"]  # a GeometryCollection has none
        if geometry["type"] == "Point":
            return Point(coordinates)
        assert geometry["type"] in {"Polygon", "MultiPolygon"}
        parts = [coordinates] if geometry["type"] == "Polygon" else coordinates
        assert geometry["type"] == "Polygon" or len(parts) > 1
        for ring in (ring for part in parts for ring in part):
            assert len(ring) >= 4
            assert ring[0] == ring[-1]
            assert all(abs(value * 100 - round(value * 100)) < 1e-6 for point in ring for value in point)
        return shape(geometry)

    def _path_class(self, given: object) -> tuple[str, ...]:
        assert isinstance(given, dict)
        if "color" not in given:
            raise ValueError("Unable to parse PathClass")
        self._colour(given["color"])
        return tuple(given["names"]) if "names" in given else tuple(given["name"].split(": "))

    def _colour(self, given: list[int]) -> tuple[int, ...]:
        assert len(given) == 3
        assert all(isinstance(value, int) and 0 <= value <= 255 for value in given)
        return tuple(given)

    def _measurements(self, given: dict[str, Any]) -> dict[str, float]:
        assert all(isinstance(value, int | float) and not isinstance(value, bool) for value in given.values())
        return {key: float(value) for key, value in given.items()}

    def _metadata(self, given: dict[str, Any]) -> dict[str, str]:
        assert all(isinstance(value, str) for value in given.values())
        return {key: value for key, value in given.items() if not key.startswith("_")}


def info(placement: Placement = MICRONS, **more: Any) -> ImageInfo:
    channels = tuple(Channel(name, name) for name in ("red", "green", "blue"))
    facts: dict[str, Any] = {"id": "slide-01234567", "fingerprint": "0123456789abcdef"}
    return ImageInfo("a.svs", "slide", (5000, 4000), channels, placement, **(facts | more))


def record(findings: list[Finding], image: ImageInfo | None = None, *others: ImageInfo) -> Record:
    images = tuple(ImageRecord(one, lambda: findings, lambda: None, ()) for one in (image or info(), *others))
    return Record(images, (), {"name": "gland"}, ("gland", "lumen"), "0.1.0", colours={"gland": "#c80000"})


FINDINGS = [
    Finding("gland", box(10, 20, 110, 70), "area", 0.93, numbers={"pixels": 5000.0, "bad": math.nan}),
    Finding(
        "tile class",
        box(0, 0, 336, 336),
        "tile",
        text='said "x" =1+1\nand more',
        text_cut=True,
        notes={"_why": "a", "b": "ü"},
    ),
    Finding("region", MultiPolygon([box(0, 0, 5, 5), box(9, 9, 12, 12)]), "region", 0.5),
    Finding("lumen", Polygon(box(0, 0, 50, 50).exterior, [box(5, 5, 9, 9).exterior]), "box"),
    Finding("lumen", MultiPolygon([box(1.004, 1, 2, 2)]), "area"),
    Finding("lumen", box(7, 7, 7.001, 7.001), "area"),
]


def write(folder: Path, what: Record, writer: QuPath | None = None) -> list[dict[str, Any]]:
    [path] = (writer or QuPath()).write(what, folder)
    return QuPathParser().read(path.read_bytes())


def test_a_feature_has_type_class_colour_measurements_and_metadata(tmp_path: Path) -> None:
    objects = write(tmp_path, record(FINDINGS))
    assert [one["kind"] for one in objects] == [
        "detection",
        "tile",
        "annotation",
        "detection",
        "detection",
        "detection",
    ]
    assert [one["name"] for one in objects][:2] == ["gland 1", "tile class 2"]
    first, second, third, fourth, fifth, sixth = objects
    assert first["class"] == ("gland",)
    assert first["colour"] == (200, 0, 0)
    assert first["measurements"] == {
        "area_px": 5000,
        "area_um2": 625,
        "area_mm2": 0.000625,
        "number.pixels": 5000,
        "score": 0.93,
    }
    assert second["metadata"] == {
        "image": "slide-01234567",
        "name": "slide-01234567",
        "finding": "2",
        "label": "tile class",
        "kind": "tile",
        "text": 'said "x" =1+1 and more',
        "cut": "true",
        "note._why": "a",
        "note.b": "ü",
    }
    assert third["roi"].equals(FINDINGS[2].geometry)
    assert fourth["roi"].equals(FINDINGS[3].geometry)
    assert fifth["roi"].geom_type == "Polygon"
    assert sixth["roi"].geom_type == "Point"


def test_the_file_states_its_use_and_no_path(tmp_path: Path) -> None:
    [path] = QuPath().write(record(FINDINGS), tmp_path)
    assert path.name == "slide-01234567.qupath.geojson"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert "Research use only" in content["limner"]["use"]
    assert "a.svs" not in path.read_text(encoding="utf-8")


def test_coordinates_start_at_the_corner_of_the_scanned_area(tmp_path: Path) -> None:
    here = write(tmp_path, record(FINDINGS, info(origin=(1000, 300))))
    for one, finding in zip(here[:4], FINDINGS, strict=False):
        assert one["roi"].equals(shapely.transform(finding.geometry, lambda xy: xy - (1000, 300)))
    assert (here[5]["roi"].x, here[5]["roi"].y) == (-993, -293)


def test_ids_follow_content_not_order(tmp_path: Path) -> None:
    forward = write(tmp_path, record(FINDINGS))
    backward = write(tmp_path, record(FINDINGS[::-1]))
    assert [one["id"] for one in forward] == [one["id"] for one in backward][::-1]
    twice = write(tmp_path, record([FINDINGS[0]] * 3))
    assert len({one["id"] for one in twice}) == 3
    assert twice[0]["id"] == forward[0]["id"]
    other = write(tmp_path, record(FINDINGS, info(fingerprint="ffff")))
    assert not {one["id"] for one in other} & {one["id"] for one in forward}
    changed = write(tmp_path, record([replace(FINDINGS[0], label="lumen")]))
    assert changed[0]["id"] != forward[0]["id"]


def test_gzip_files_are_reproducible(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    [plain] = QuPath().write(record(FINDINGS), tmp_path)
    [one] = compressed().write(record(FINDINGS), tmp_path / "a")
    [two] = compressed().write(record(FINDINGS), tmp_path / "b")
    assert one.name == "slide-01234567.qupath.geojson.gz"
    assert one.read_bytes() == two.read_bytes()
    assert gzip.decompress(one.read_bytes()) == plain.read_bytes()
    assert QuPathParser().read(one.read_bytes())
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [one.name]


def test_a_slide_without_findings_has_a_file(tmp_path: Path) -> None:
    assert write(tmp_path, record([])) == []


def test_maps_and_studies_are_omitted_with_a_reason(tmp_path: Path) -> None:
    world = Placement(((10.0, 0.0, 0.0), (0.0, -10.0, 0.0)), "m", crs="EPSG:32618")
    patient = Placement(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 5.0)), "mm", frame="1.2.3")
    bare = info(Placement.pixels(), id="bare")
    what = record(FINDINGS, bare, info(world, id="map"), info(patient, id="ct", kind="study"))
    assert sorted(QuPath().omitted(what)) == ["ct", "map"]
    assert [path.name for path in QuPath().write(what, tmp_path)] == ["bare.qupath.geojson"]
    [first, *_] = QuPathParser().read((tmp_path / "bare.qupath.geojson").read_bytes())
    assert "area_um2" not in first["measurements"]


texts = st.text(max_size=30)


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    corners=st.lists(st.tuples(st.floats(0, 500), st.floats(0, 400)), min_size=3, max_size=9),
    label=st.text(min_size=1, max_size=12),
    text=texts,
    numbers=st.dictionaries(texts, st.floats(), max_size=3),
    notes=st.dictionaries(texts, texts, max_size=3),
)
def test_any_text_of_a_model_can_be_imported(
    tmp_path_factory: pytest.TempPathFactory,
    corners: list[tuple[float, float]],
    label: str,
    text: str,
    numbers: dict[str, float],
    notes: dict[str, str],
) -> None:
    hull = shapely.MultiPoint(corners).convex_hull.buffer(0.5)
    finding = Finding(label, hull, "area", 0.1, text, numbers=numbers, notes=notes)
    [one] = write(tmp_path_factory.mktemp("any"), record([finding]))
    assert one["roi"].symmetric_difference(hull).area < 0.02 * hull.length + 0.1
