"""GeoParquet files as DuckDB, geopandas and pyarrow read them."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from limner.model import findings_table
from limner.model.finding import Finding
from limner.readers.geometry import Placement
from limner.reports import geoparquet
from limner.reports.columns import FindingsCsv
from limner.reports.geoparquet import GeoParquet, hilbert
from limner.reports.table import plain_text
from limner.reports.writer import DISCLAIMER, ImageRecord, Record
from pyproj import CRS

MakeImage = Callable[..., ImageRecord]
MakeRecord = Callable[..., Record]
MakePlacement = Callable[..., Placement]

FINDINGS = [
    Finding("water", shapely.box(10 * n, 5 * n, 10 * n + 8, 5 * n + 4), "area", n / 10, numbers={"pixels": 32.0 + n})
    for n in range(8)
] + [
    Finding("land", shapely.MultiPolygon([shapely.box(0, 0, 2, 2), shapely.box(5, 5, 6, 6)]), "box", None, text="é"),
    Finding("land", shapely.box(0, 0, 9, 9).difference(shapely.box(1, 1, 2, 2)), "area", notes={"why": "a hole"}),
]


@pytest.fixture
def two_maps(image: MakeImage, record: MakeRecord, placement: MakePlacement) -> Record:
    """A map in UTM, one in degrees without findings, and a picture without coordinates."""
    utm, degrees = placement(32618, 10, 0, 5e5, 0, -10, 4e6), placement(4326, 0.1, 0, 5, 0, -0.1, 50)
    return record(image("utm", utm, FINDINGS), image("degrees", degrees), image("plain", Placement.pixels()))


def test_geopandas_reads_what_was_found_where_it_is(two_maps: Record, out: Path) -> None:
    paths = GeoParquet().write(two_maps, out)
    assert [path.name for path in paths] == ["findings-utm.parquet", "findings-degrees.parquet"]
    assert GeoParquet().omitted(two_maps) == {"plain": "it has no CRS, so a GIS cannot place it"}
    frame = gpd.read_parquet(paths[0]).sort_values("finding")
    assert frame.crs == CRS.from_epsg(32618)
    for shape, finding in zip(frame.geometry, FINDINGS, strict=True):
        expected = shapely.transform(finding.geometry, lambda xy: xy * [10, -10] + [5e5, 4e6])
        assert shape.equals(expected)
        assert all(part.exterior.is_ccw for part in shapely.get_parts(shape))
    assert len(gpd.read_parquet(paths[1])) == 0
    assert gpd.read_parquet(paths[1]).crs == CRS.from_epsg(4326)


def test_the_columns_are_those_of_the_table(two_maps: Record, out: Path) -> None:
    (path, _), (table,) = GeoParquet().write(two_maps, out), FindingsCsv().write(two_maps, out)
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = sorted(pq.read_table(path).to_pylist(), key=lambda row: row["finding"])
    assert list(found[0]) == [*rows[0], "bbox", "geometry"]
    for row, other in zip(rows, found, strict=True):
        for name, cell in row.items():
            value = other[name]
            if isinstance(value, float):
                assert float(cell) == value
            else:
                assert cell == (value if isinstance(value, str) else plain_text(value))


def test_duckdb_finds_an_area_by_its_boxes(two_maps: Record, out: Path) -> None:
    path, _ = GeoParquet().write(two_maps, out)
    asked = "SELECT finding FROM read_parquet(?) WHERE bbox.xmin < 500110 AND bbox.xmax > 500095 ORDER BY finding"
    with duckdb.connect() as connection:
        found = [number for (number,) in connection.execute(asked, [str(path)]).fetchall()]
        kinds = connection.execute("SELECT DISTINCT typeof(geometry) FROM read_parquet(?)", [str(path)]).fetchall()
    assert found == [2]  # x from 10 to 18 px of 10 m
    assert len(kinds) == 1


def test_the_metadata_are_those_of_geoparquet_1_1(two_maps: Record, out: Path) -> None:
    path, empty = GeoParquet().write(two_maps, out)
    metadata = pq.read_metadata(path)
    geo = json.loads(metadata.metadata[b"geo"])
    column = geo["columns"].pop(geo["primary_column"])
    assert geo == {"version": "1.1.0", "primary_column": "geometry", "columns": {}}
    assert CRS.from_json_dict(column.pop("crs")) == CRS.from_epsg(32618)
    assert column == {
        "encoding": "WKB",
        "geometry_types": ["MultiPolygon", "Polygon"],
        "orientation": "counterclockwise",
        "covering": {"bbox": {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}},
        "bbox": [500000.0, 3999610.0, 500780.0, 4000000.0],
    }
    assert {metadata.row_group(0).column(n).compression for n in range(metadata.num_columns)} == {"ZSTD"}
    assert DISCLAIMER in json.loads(metadata.metadata[b"limner"])["use"]
    assert "bbox" not in json.loads(pq.read_metadata(empty).metadata[b"geo"])["columns"]["geometry"]


def test_row_groups_are_compact(
    image: MakeImage, record: MakeRecord, placement: MakePlacement, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sorted along the curve, a group covers a few per cent of the image."""
    monkeypatch.setattr(geoparquet, "ROW_GROUP", 64)
    squares = [Finding("a", shapely.box(x, y, x + 1, y + 1), "tile") for y in range(64) for x in range(64)]
    utm = placement(32618, 10, 0, 5e5, 0, -10, 4e6)
    (path,) = GeoParquet().write(record(image("utm", utm, squares, size=(64, 64))), out)
    file = pq.ParquetFile(path)
    assert file.metadata.num_row_groups == 64
    names = [file.metadata.row_group(0).column(n).path_in_schema for n in range(file.metadata.num_columns)]
    for number in range(64):
        group = file.metadata.row_group(number)
        low, high = (group.column(names.index(f"bbox.{side}")).statistics for side in ("xmin", "xmax"))
        assert high.max - low.min == 80.0


def test_large_outlines_are_written_in_more_parts(two_maps: Record, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole, _) = GeoParquet().write(two_maps, out)
    before = gpd.read_parquet(whole).sort_values("finding").reset_index(drop=True)
    assert pq.ParquetFile(whole).num_row_groups == 1
    monkeypatch.setattr(findings_table, "BATCH", 2)
    monkeypatch.setattr(geoparquet, "VERTICES_AT_ONCE", 20)
    (path, _) = GeoParquet().write(two_maps, out)
    assert pq.ParquetFile(path).num_row_groups > 2
    assert gpd.read_parquet(path).sort_values("finding").reset_index(drop=True).equals(before)


def test_a_file_is_written_without_pandas(out: Path) -> None:
    code = """
import sys
from pathlib import Path
import pyproj, shapely
from limner.model.finding import Finding
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo
from limner.reports.geoparquet import GeoParquet
from limner.reports.writer import ImageRecord, Record

where = Placement(((10, 0, 5e5), (0, -10, 4e6)), "m", pyproj.CRS(32618).to_wkt())
info = ImageInfo("map.tif", "raster", (99, 99), (Channel("b1"),), where, id="map")
found = [Finding("a", shapely.box(n, 0, n + 1, 1), "area", text="t" * n, notes={"n": "m"}) for n in range(9)]
image = ImageRecord(info, lambda: found, lambda: None, ())
(path,) = GeoParquet().write(Record((image,), (), {"name": "toy"}, ("a",), "1"), Path(sys.argv[1]))
print(sorted({"pandas", "geopandas", "pyarrow.compute"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert len(gpd.read_parquet(out / "findings-map.parquet")) == 9


def test_neighbours_on_the_curve_touch() -> None:
    y, x = (axis.ravel() for axis in np.mgrid[:16, :16])
    centres = np.stack([x, y, x + 1, y + 1], axis=1).astype(float)
    order = np.argsort(hilbert(centres, (16, 16)))
    steps = np.abs(np.diff(np.stack([x, y])[:, order], axis=1)).sum(axis=0)
    assert (steps == 1).all()


def test_a_file_that_cannot_be_finished_is_not_there(two_maps: Record, out: Path) -> None:
    stream = GeoParquet().stream(two_maps, out)
    next(stream)
    with pytest.raises(RuntimeError, match="a bug"):
        stream.throw(RuntimeError("a bug"))
    assert list(out.iterdir()) == []
