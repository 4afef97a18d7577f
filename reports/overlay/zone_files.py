"""The table of zones as files: CSV, GeoParquet, and a layer with the zones' own outlines."""
# pyarrow and pyogrio state no types, and shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely

from ...readers.annotations import TITLES
from ...readers.files import atomic_path
from ...readers.geodesy import parse_crs
from ..arrow import arrow_batch, arrow_schema
from ..csv_safety import clean_text
from ..geopackage import GEOMETRY, multipolygons, texts, write_layer, write_table
from ..measures import Shapes
from ..table import Column, Typed, write_csv
from .zones import ZoneBatch, ZoneTable

if TYPE_CHECKING:
    import pyarrow as pa

_METHOD = (
    "Findings and the analysed area are cut along the zones' edges. Areas of maps are on the ellipsoid. An empty cell"
    " is not known, never 0."
)


def write_zones(table: ZoneTable, folder: Path) -> list[Path]:
    """Write zones.csv, zones.parquet, and zones.gpkg, or zones.geojson in pixels, into `folder`."""
    paths = [write_csv(folder / "zones.csv", table.columns, table.batches), _write_parquet(table, folder)]
    return [*paths, _write_pixels(table, folder) if table.zones.lonlat is None else _write_geopackage(table, folder)]


def about(table: ZoneTable) -> dict[str, str]:
    """What the files say of themselves."""
    record = table.record
    return {
        "use": record.use,
        "method": _METHOD,
        "statements": " ".join(table.statements),
        "limner": record.version,
        "run": record.run,
        "zones sha256": table.zones.sha256,
        **{f"model {key}": value for key, value in sorted(record.model.items())},
        **{f"left out: {image}": why for image, why in table.omitted.items()},
    }


def _shapes(table: ZoneTable) -> Shapes:
    return table.zones.source[np.concatenate([batch.rows for batch in table.batches])]


def _arrow(table: ZoneTable, columns: Sequence[Column[ZoneBatch]], outlines: Typed, geometry: str) -> "pa.Table":
    import pyarrow as pa

    schema = arrow_schema(columns, geometry=geometry)
    ends = np.cumsum([len(batch) for batch in table.batches])
    parts = zip(table.batches, np.split(outlines, ends[:-1]), strict=True)
    return pa.Table.from_batches([arrow_batch(columns, batch, own, schema) for batch, own in parts]).combine_chunks()


def _write_parquet(table: ZoneTable, folder: Path) -> Path:
    import pyarrow.parquet as pq

    shapes = shapely.orient_polygons(_shapes(table))
    crs = None if table.zones.lonlat is None else parse_crs(table.zones.crs).to_json_dict()
    types = sorted({shape.geom_type for shape in shapes.tolist()})
    geometry = {"encoding": "WKB", "geometry_types": types, "crs": crs, "orientation": "counterclockwise"}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    path = folder / "zones.parquet"
    with atomic_path(path) as part:
        made = _arrow(table, table.columns, shapely.to_wkb(shapes, byte_order=1), "geometry")
        made = made.replace_schema_metadata({"geo": json.dumps(geo), "limner": json.dumps(about(table))})
        pq.write_table(made, part, compression="zstd")
    return path


def _write_geopackage(table: ZoneTable, folder: Path) -> Path:
    columns = [column for column in table.columns if column.topic != "run"]
    made = _arrow(table, columns, multipolygons(shapely.to_wkb(_shapes(table), byte_order=1)), GEOMETRY)
    rows = about(table)
    path = folder / "zones.gpkg"
    with atomic_path(path) as part:
        write_table(part, "about", {"name": texts(list(rows)), "value": texts(list(rows.values()))}, append=False)
        write_layer(part, made.to_batches(), "zones", geometry_type="MultiPolygon", crs=table.zones.crs)
    return path


def _write_pixels(table: ZoneTable, folder: Path) -> Path:
    """Write annotations for QuPath, whose measurements are the numbers of the table."""
    columns = [column for column in table.columns if column.topic != "run"]
    path = folder / "zones.geojson"
    head = {"title": TITLES["pixels"], **{key: clean_text(value) for key, value in about(table).items()}}
    with atomic_path(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        file.write(f'{{"type":"FeatureCollection",\n"limner":{_json(head)},\n"features":[')
        separator = "\n"
        for batch in table.batches:
            values = [column.json_values(batch) for column in columns]
            for place, row in enumerate(batch.rows.tolist()):
                cells = {column.name: several[place] for column, several in zip(columns, values, strict=True)}
                numbers = {name: value for name, value in cells.items() if isinstance(value, int | float)}
                properties = {
                    "objectType": "annotation",
                    "name": clean_text(table.zones.ids[row] or f"zone {row + 1}"),
                    "classification": {"name": "zone"},
                    "measurements": numbers,
                    "metadata": {name: str(value) for name, value in cells.items() if isinstance(value, str)},
                }
                geometry = shapely.to_geojson(shapely.orient_polygons(table.zones.source[row]))
                file.write(f'{separator}{{"type":"Feature","properties":{_json(properties)},"geometry":{geometry}}}')
                separator = ",\n"
        file.write("\n]}\n")
    return path


_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
