"""Reads the outputs of `make` into tables of cells: what they mean, whatever file they stand in."""

import csv
import gzip
import hashlib
import json
import lzma
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pyogrio.raw
import shapely
from PIL import Image

# A row's cells by column, as text just as it was written. The cell "geometry" holds WKB in hexadecimal digits.
Row = dict[str, str]
Tables = dict[str, list[Row]]  # by run and file: "map/findings.csv"

GEOMETRY = "geometry"
BLOCKS = 16  # a picture's coarse look: so many means across and down
_INTERNAL = {"manifest.json", "results.jsonl", "parts", "sources.json", "pseudonym.key"}  # not reports


def read(path: Path) -> Tables:
    """The tables of a folder of `make`, or of a file of `keep`."""
    if path.is_dir():
        return read_folder(path)
    return json.loads(lzma.decompress(path.read_bytes()))


def keep(tables: Tables, path: Path) -> None:
    """Write tables as compressed JSON, the same bytes for the same tables."""
    text = json.dumps(tables, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    path.write_bytes(lzma.compress(text.encode("utf-8"), preset=9 | lzma.PRESET_EXTREME))
    print(f"{path}: {path.stat().st_size} bytes")


def read_folder(folder: Path) -> Tables:
    """The tables of every output in a folder of `make`."""
    found: Tables = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".txt":
            found[path.name] = [{"line": line.rstrip()} for line in path.read_text(encoding="utf-8").splitlines()]
        elif path.is_dir() and path.name != "inputs":
            for report in sorted(path.iterdir()):
                if report.name not in _INTERNAL:
                    for name, rows in read_report(report):
                        found[f"{path.name}/{name}"] = rows
    return found


def read_report(path: Path) -> Iterator[tuple[str, list[Row]]]:
    """The tables of one report. Raises `KeyError` for a kind of file that has no reader here."""
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    for part, rows in READERS[suffix](path):
        yield path.name + part, rows


def _csv(path: Path) -> Iterator[tuple[str, list[Row]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield "", [dict(row) for row in csv.DictReader(file)]


def _geojson(path: Path) -> Iterator[tuple[str, list[Row]]]:
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    whole = json.loads(content)
    features = whole.pop("features")
    yield "#about", [_flat(whole)]
    rows: list[Row] = []
    for feature in features:
        shape = feature.pop("geometry")
        row = _flat(feature.pop("properties")) | _flat(feature)
        rows.append(row | {GEOMETRY: shapely.from_geojson(json.dumps(shape)).wkb_hex if shape else ""})
    yield "", rows


def _geopackage(path: Path) -> Iterator[tuple[str, list[Row]]]:
    for layer, _ in pyogrio.list_layers(path):
        about, _, shapes, columns = pyogrio.raw.read(path, layer=layer)
        names: list[str] = list(about["fields"])
        rows = [dict(zip(names, map(_text, cells), strict=True)) for cells in zip(*columns, strict=True)]
        if shapes is not None and about["geometry_type"]:
            rows = [row | {GEOMETRY: shape.hex().upper()} for row, shape in zip(rows, shapes, strict=True)]
            yield f"#{layer}#about", [{"crs": _text(about["crs"]), "geometry_type": _text(about["geometry_type"])}]
        yield f"#{layer}", rows
    with sqlite3.connect(path) as database:
        pairs = database.execute("SELECT table_name, identifier, description FROM gpkg_contents ORDER BY table_name")
        yield (
            "#contents",
            [dict(zip(("layer", "identifier", "description"), map(_text, row), strict=True)) for row in pairs],
        )


def _geoparquet(path: Path) -> Iterator[tuple[str, list[Row]]]:
    table = pq.read_table(path).drop_columns("bbox")
    about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    yield "#about", [{key: about[key] for key in ("geo", "limner")}]
    rows = [{name: _text(value) for name, value in row.items() if name != GEOMETRY} for row in table.to_pylist()]
    shapes = (shape.as_py().hex().upper() for shape in table[GEOMETRY])
    yield "", [row | {GEOMETRY: shape} for row, shape in zip(rows, shapes, strict=True)]


def _picture(path: Path) -> Iterator[tuple[str, list[Row]]]:
    """The title, in the uppermost sixteenth, is apart from what is drawn below it."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    title, drawn = np.split(pixels, [len(pixels) // 16])
    coarse = np.asarray(Image.fromarray(drawn).resize((BLOCKS, BLOCKS), Image.Resampling.BOX))
    row = {"width": str(pixels.shape[1]), "height": str(pixels.shape[0]), "coarse": coarse.tobytes().hex()}
    row |= {name: hashlib.sha256(part.tobytes()).hexdigest() for name, part in (("title", title), ("drawn", drawn))}
    yield "", [row]


def _flat(value: Mapping[str, Any], before: str = "") -> Row:
    """Nested objects as one row: {"a": {"b": 1}} has the column "a.b"."""
    row: Row = {}
    for key, inner in value.items():
        if isinstance(inner, dict):
            row |= _flat(inner, f"{before}{key}.")
        elif isinstance(inner, list):
            row |= _flat({str(i): item for i, item in enumerate(inner)}, f"{before}{key}.")
        else:
            row[f"{before}{key}"] = _text(inner)
    return row


def _text(value: object) -> str:
    if value is None or (isinstance(value, float | np.floating) and bool(np.isnan(value))):
        return ""
    if isinstance(value, np.generic):
        value = value.item()
    return repr(value) if isinstance(value, float) else str(value)


READERS: dict[str, Callable[[Path], Iterator[tuple[str, list[Row]]]]] = {
    ".csv": _csv,
    ".geojson": _geojson,
    ".geojson.gz": _geojson,
    ".gpkg": _geopackage,
    ".parquet": _geoparquet,
    ".png": _picture,
}
