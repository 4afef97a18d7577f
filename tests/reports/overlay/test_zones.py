"""Sums by zone are exact, say what was analysed, and depend on no batch."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.model import findings_table
from limner.model.finding import Finding
from limner.readers.errors import RequestError
from limner.readers.zones import Zones, read_zones
from limner.reports.overlay import pieces
from limner.reports.overlay.zone_files import write_zones
from limner.reports.overlay.zones import ZoneTable, zone_table
from limner.reports.writer import DISCLAIMER, Record

Make = Callable[..., Any]


@pytest.fixture
def zones(tmp_path: Path) -> Callable[..., Zones]:
    """Zones of shapes in level-0 pixels of the run's map, in its CRS."""

    def make(*shapes: Any, ids: Sequence[str] = ()) -> Zones:
        placed = shapely.transform(
            np.array([*shapes, None], dtype=object)[:-1], lambda xy: xy * (10.0, -10.0) + (500_000.0, 5_200_000.0)
        )
        frame = gpd.GeoDataFrame({"name": list(ids)} if ids else {}, geometry=list(placed), crs="EPSG:32633")
        frame.to_file(tmp_path / "zones.gpkg", driver="GPKG")
        return read_zones(str(tmp_path / "zones.gpkg"), "lonlat", column="name" if ids else "")

    return make


def rows(table: ZoneTable) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for batch in table.batches:
        columns = {column.name: column.json_values(batch) for column in table.columns}
        found += [{name: values[at] for name, values in columns.items()} for at in range(len(batch))]
    return found


def added(record: Record, zones: Zones) -> list[dict[str, Any]]:
    return rows(zone_table(record, record.images, zones))


def test_a_square_of_50_m_has_its_true_area(run: Make, area: Make, zones: Make) -> None:
    """By the centres of pixels of 10 m it would have 2,702 m² or 2,102 m², by where it lies."""
    record = run([area("land", (0, 0, 100, 80), 0.75)])
    [row] = added(record, zones(shapely.box(10.4, 10.4, 15.4, 15.4)))
    assert row["zone_m2"] == pytest.approx(2502, abs=0.1)
    assert row["area_m2.land"] == row["analysed_m2"] == row["zone_m2"]
    assert (row["share.land"], row["share.water"], row["score.land"], row["status"]) == (1.0, 0.0, 0.75, "analysed")
    assert row["area_px.land"] == pytest.approx(25.0, abs=1e-6)
    assert row["use"] == DISCLAIMER


def test_findings_are_cut_at_the_edges(run: Make, area: Make, zones: Make) -> None:
    record = run(
        [area("water", (0, 0, 10, 10), 1.0), area("water", (10, 0, 20, 10), 0.4), area("land", (0, 10, 20, 20))]
    )
    [row] = added(record, zones(shapely.Polygon([(5, 5), (15, 5), (5, 15)])))
    assert row["area_px.water"] == pytest.approx(37.5)
    assert row["area_px.land"] == pytest.approx(12.5)
    assert row["score.water"] == pytest.approx((1.0 * 25 + 0.4 * 12.5) / 37.5, abs=1e-4)
    assert row["share.land"] == pytest.approx(0.25, abs=1e-6)
    assert (row["count.water"], row["count.land"]) == (2, 0)  # both are on its corners


def test_a_point_on_a_common_border_counts_once(run: Make, area: Make, zones: Make) -> None:
    record = run([area("land", (8, 2, 12, 4)), area("land", (9, 4, 11, 6))])
    found = added(record, zones(shapely.box(0, 0, 10, 10), shapely.box(10, 0, 20, 10)))
    assert [row["count.land"] for row in found] == [2, 0]
    assert [row["area_px.land"] for row in found] == pytest.approx([6.0, 6.0])


def test_where_nothing_was_analysed_cells_are_empty(run: Make, area: Make, zones: Make) -> None:
    record = run([area("land", (0, 0, 40, 80))], analysed=[(0, 0, 40, 80)])
    shapes = [
        shapely.box(0, 0, 10, 10),
        shapely.box(35, 0, 45, 10),
        shapely.box(60, 0, 70, 10),
        shapely.box(300, 0, 310, 9),
    ]
    table = zone_table(record, record.images, zones(*shapes))
    found = rows(table)
    assert [row["status"] for row in found] == ["analysed", "partly analysed", "not analysed", "outside"]
    assert [row["analysed_share"] for row in found] == pytest.approx([1.0, 0.5, 0.0, 0.0], abs=1e-6)
    assert [row["share.land"] for row in found] == [1.0, 1.0, None, None]
    assert [row["count.water"] for row in found] == [0, 0, None, None]
    assert [row["area_m2.water"] for row in found] == [0.0, 0.0, None, None]
    assert found[3]["image"] is None
    assert found[3]["zone_m2"] == pytest.approx(9006, rel=1e-3)
    text = " ".join(table.statements)
    assert all(words in text for words in ("1 zone on no image", "not analysed at all", "1 zone analysed in part"))


def test_a_zone_beyond_the_image_counts_as_a_whole(run: Make, area: Make, zones: Make) -> None:
    record = run([area("land", (0, 0, 100, 80))])
    [row] = added(record, zones(shapely.box(-10, 0, 10, 10)))
    assert row["analysed_share"] == pytest.approx(0.5, abs=1e-5)
    assert row["zone_m2"] == pytest.approx(2 * row["analysed_m2"], rel=1e-5)


def test_overlapping_zones_are_told(run: Make, area: Make, zones: Make) -> None:
    record = run([area("land", (0, 0, 100, 80))])
    table = zone_table(record, record.images, zones(shapely.box(0, 0, 20, 20), shapely.box(10, 10, 30, 30)))
    assert [row["overlaps"] for row in rows(table)] == [1, 1]
    assert "2 zones overlap others: sums over zones count what they share more than once." in table.statements


def test_zones_on_no_image_are_refused(run: Make, zones: Make) -> None:
    record = run()
    with pytest.raises(RequestError, match="must overlap an image of the run"):
        zone_table(record, record.images, zones(shapely.box(300, 300, 310, 310)))


def test_tiles_count_with_their_valid_share_and_regions_only_without_smaller_ones(run: Make, zones: Make) -> None:
    tile = Finding("land", shapely.box(0, 0, 10, 10), "tile", 0.5, numbers={"valid": 0.5})
    region = Finding("land", shapely.box(0, 0, 100, 80), "region", 0.5)
    zone = zones(shapely.box(0, 0, 10, 20))
    assert added(run([tile]), zone)[0]["area_px.land"] == pytest.approx(50.0)
    assert added(run([tile, region]), zone)[0]["area_px.land"] == pytest.approx(50.0)
    assert added(run([region]), zone)[0]["area_px.land"] == pytest.approx(200.0)


def test_without_a_model_nothing_is_counted(run: Make, zones: Make) -> None:
    from dataclasses import replace

    [row] = added(replace(run(), assessed=False), zones(shapely.box(0, 0, 10, 10)))
    assert row["count.land"] is None
    assert row["analysed_share"] == 1.0


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10_000))
def test_sums_are_those_of_shapely_whatever_the_batch(seed: int) -> None:
    """Random blobs and zones, cut into small pieces and gone through in small batches."""
    random = np.random.default_rng(seed)

    def blobs(count: int, vertices: int) -> Any:
        angle = np.sort(random.random((count, vertices)), axis=1) * 2 * np.pi
        spokes = np.stack([np.cos(angle), np.sin(angle)], axis=2) * random.uniform(2, 25, (count, vertices, 1))
        shapes = shapely.polygons(random.uniform(20, 80, (count, 1, 2)) + spokes)
        return shapely.make_valid(shapes)

    shapes, drawn = blobs(30, 40), blobs(6, 12)
    found = pieces.Overlay(drawn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "MOST", 16)
        small = pieces.Overlay(drawn)
        row, zone, parts = small.pieces(shapes)
    sums = np.zeros((30, 6))
    np.add.at(sums, (row, zone), shapely.area(parts))
    whole = shapely.area(shapely.intersection(shapes[:, None], drawn[None]))
    assert sums == pytest.approx(whole, abs=1e-6)
    row, zone, parts = found.pieces(shapes)
    sums[:] = 0
    np.add.at(sums, (row, zone), shapely.area(parts))
    assert sums == pytest.approx(whole, abs=1e-6)


def test_files_agree_and_have_the_same_bytes(run: Make, area: Make, zones: Make, tmp_path: Path) -> None:
    record = run([area("land", (0, 0, 40, 80)), area("=water", (40, 0, 100, 80))], analysed=[(0, 0, 90, 80)])
    made = zones(shapely.box(0, 0, 10, 10), shapely.box(35, 0, 45, 10), shapely.box(92, 0, 99, 9), ids=["a", "b", "c"])
    written: list[list[bytes]] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        paths = write_zones(zone_table(record, record.images, made), tmp_path / name)
        written.append([path.read_bytes() for path in paths])
    assert [path.name for path in paths] == ["zones.csv", "zones.parquet", "zones.gpkg"]
    assert written[0] == written[1]
    table, layer = pd.read_csv(paths[0]), gpd.read_file(paths[2], layer="zones")
    parquet = gpd.read_parquet(paths[1])
    for name in ("zone_id", "area_m2.land", "count.land", "analysed_share"):
        assert table[name].fillna(-1).tolist() == layer[name].fillna(-1).tolist() == parquet[name].fillna(-1).tolist()
    assert layer.crs == parquet.crs == "EPSG:32633"
    assert table["area_m2.land"].isna().tolist() == [False, False, True]
    assert layer.area.tolist() == pytest.approx([10_000, 10_000, 6_300])
    about = json.loads(pq.read_schema(paths[1]).metadata[b"limner"])
    assert about["use"] == DISCLAIMER
    assert DISCLAIMER in gpd.read_file(paths[2], layer="about")["value"].tolist()


def test_zones_of_slides_are_in_pixels_and_um(run: Make, area: Make, tmp_path: Path) -> None:
    record = run([area("land", (0, 0, 50, 80))], epsg=None)
    drawn = {
        "type": "Feature",
        "properties": {"name": "core 1"},
        "geometry": shapely.geometry.mapping(shapely.box(40, 0, 60, 10)),
    }
    (tmp_path / "a.geojson").write_text(json.dumps([drawn]))
    table = zone_table(record, record.images, read_zones(str(tmp_path / "a.geojson"), "pixels", column="name"))
    [row] = rows(table)
    assert (row["zone_um2"], row["area_um2.land"], row["share.land"]) == pytest.approx((50.0, 25.0, 0.5))
    assert "zone_m2" not in row
    (tmp_path / "out").mkdir()
    written = write_zones(table, tmp_path / "out")[2]
    [feature] = json.loads(written.read_text())["features"]
    assert feature["properties"]["name"] == "core 1"
    assert feature["properties"]["measurements"]["area_um2.land"] == pytest.approx(25.0)


def test_findings_are_gone_through_in_batches(
    run: Make, area: Make, zones: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = run([area("land", (x, 0, x + 1, 80)) for x in range(100)])
    made = zones(shapely.box(10.5, 0, 20.25, 10), shapely.box(50, 0, 99, 10))
    whole = added(record, made)
    monkeypatch.setattr(findings_table, "BATCH", 7)
    assert added(record, made) == whole
