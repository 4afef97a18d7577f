"""FlatGeobuf: the rows and outlines of the other reports, found by place."""

from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pyogrio
import pytest
import shapely
from limner.model.finding import Finding
from limner.reports.columns import FindingsCsv
from limner.reports.contract import hostile_record
from limner.reports.flatgeobuf import FlatGeobuf
from limner.reports.geopackage import GeoPackage
from limner.reports.writer import Record


@pytest.fixture
def record() -> Record:
    """A map of 10 m pixels with 300 boxes, whose row is their number."""
    run = hostile_record()
    found = [
        Finding(f"label {k % 3}", shapely.box(k % 20, k // 20, k % 20 + 0.5, k // 20 + 1), "area", k / 300)
        for k in range(300)
    ]
    [scene] = [image for image in run.images if image.info.kind == "map"]
    scene = replace(scene, findings=lambda: found, info=replace(scene.info, id="scene"))
    return replace(run, images=(scene,))


def test_rows_and_outlines_are_those_of_other_reports(tmp_path: Path, record: Record) -> None:
    [path] = FlatGeobuf().write(record, tmp_path)
    assert path.name == "findings-scene.fgb"
    found = gpd.read_file(path).sort_values("finding", ignore_index=True)
    [table] = FindingsCsv().write(record, tmp_path)
    expected = pd.read_csv(table)
    assert list(found.columns) == [*expected.columns, "geometry"]
    for name in ("finding", "label", "kind", "score", "area_m2", "x0_px"):
        assert found[name].tolist() == pytest.approx(expected[name].tolist()), name
    [package] = GeoPackage().write(record, tmp_path)
    layer = gpd.read_file(package, layer="scene").sort_values("finding", ignore_index=True)
    assert found.crs == layer.crs
    assert found.geometry.geom_equals(layer.geometry).all()


def test_a_part_is_found_by_the_index(tmp_path: Path, record: Record) -> None:
    [path] = FlatGeobuf().write(record, tmp_path)
    info = pyogrio.read_info(path)
    assert info["features"] == 300
    assert info["capabilities"]["fast_spatial_filter"]
    part = gpd.read_file(path, bbox=(5e5, 4e6 - 9.0, 5e5 + 9.0, 4e6))  # the first pixel, but for its last metre
    assert part["finding"].tolist() == [1]


def test_the_same_findings_give_the_same_bytes(tmp_path: Path, record: Record) -> None:
    [first] = FlatGeobuf().write(record, tmp_path)
    (tmp_path / "again").mkdir()
    [second] = FlatGeobuf().write(record, tmp_path / "again")
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "findings-scene.fgb"]


def test_maps_without_crs_or_findings_are_named(tmp_path: Path, record: Record) -> None:
    [scene] = record.images
    empty = replace(scene, findings=tuple)
    lost = replace(scene, info=replace(scene.info, id="b", placement=replace(scene.info.placement, crs=None)))
    run = replace(record, images=(empty, lost))
    assert FlatGeobuf().omitted(run) == {
        "scene": "it has no findings",
        "b": "it has no CRS, so a GIS cannot place it",
    }
    assert FlatGeobuf().write(run, tmp_path) == []
