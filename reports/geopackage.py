"""GeoPackage: a layer per image, in the image's own CRS, for GIS programs.

pyogrio, which brings a GDAL of its own of 50 MB, is imported only when a file is written.
"""
# pyogrio and pyarrow leave some of their arguments untyped:
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownVariableType=false

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ..model.merged_findings import columnar
from ..readers.errors import RequestError
from ..readers.files import atomic_path
from ..readers.geometry import crs_name
from .arrow import arrow_batch, arrow_schema
from .columns import findings_columns
from .csv_safety import clean_text
from .layer_styles import qml, sld
from .measures import FindingsBatch, all_labels
from .palette import Palette
from .streams import Stream, write_stream
from .table import Column
from .wkb import batch_to_wkb
from .writer import DISCLAIMER, ImageRecord, Record

if TYPE_CHECKING:
    import pyarrow as pa

Values = npt.NDArray[Any]
GEOMETRY: Final = "geom"
"""The column of outlines."""

_LAST_CHANGE = "2000-01-01T00:00:00.000"  # a fixed time, so that the same findings give the same bytes
_VERSION = "1.2"  # which programs with GDAL 2.3 and later know
_WRITTEN_AT_ONCE = 40_000  # findings
_VERTICES_AT_ONCE = 1_000_000
_ABOUT = "about"
_POLYGON = b"\1\3\0\0\0"  # how WKB of a polygon begins
_ONE_PART = b"\1\6\0\0\0\1\0\0\0"  # and of a MultiPolygon, up to the only part
_REDUNDANT = {"world", "run"}  # topics of columns that the geometry, the CRS and the table `about` already state
_STYLES = "layer_styles"


@dataclass(frozen=True, slots=True)
class GeoPackage:
    """findings.gpkg: a layer per image with the columns of findings.csv, coordinates in the image's own CRS.

    Affine images keep their exact vertices; on images placed by ground control points, edges are densified first.
    Images without a CRS are left out, since a GIS would place them anywhere. The table `about` holds use, model and
    omissions, and `layer_styles` the labels' colours as QML and SLD. The times of change are fixed.
    """

    name: str = "geopackage"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write findings.gpkg into `folder`."""
        return write_stream(self.stream(record, folder), record)

    def stream(self, record: Record, folder: Path) -> Stream:
        """Write findings.gpkg, some batches at a time."""
        from pyogrio.errors import DataLayerError, DataSourceError

        path = folder / "findings.gpkg"
        columns = [one for one in findings_columns(record) if one.topic not in _REDUNDANT]
        mapped = [image.info.id for image in record.images if image.info.placement.crs]
        names = dict(zip(mapped, _unique(mapped, taken=(_ABOUT, _STYLES)), strict=True))
        palette = Palette.of(record.labels, record.colours)
        found: dict[str, set[str]] = {}
        try:
            with atomic_path(path) as part:
                write_table(part, _ABOUT, _about(record, self.omitted(record)), append=False)
                layer: _Layer | None = None
                while (batch := (yield)) is not None:
                    if batch.image.info.id not in names:
                        continue
                    if batch.first == 1:
                        if layer is not None:
                            layer.flush()
                        layer = _Layer(part, names[batch.image.info.id], batch.image, columns)
                    if layer is not None:
                        layer.add(batch)
                        found.setdefault(layer.name, set()).update(batch.table.label.tolist())
                if layer is not None:
                    layer.flush()
                labels = {name: all_labels(record, list(every)) for name, every in found.items()}
                if labels:
                    write_table(part, _STYLES, _style_columns(labels, palette), append=True)
        except (DataSourceError, DataLayerError) as error:
            remedy = "Check disk space and permissions, then run: limner report"
            raise RequestError(str(path), "must be writable", value=str(error), remedy=remedy) from error
        return [path]

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images without a CRS."""
        return {
            image.info.id: "it has no CRS, so a GIS cannot place it"
            for image in record.images
            if not image.info.placement.crs
        }


class _Layer:
    """A layer to which batches are written, several at a time, since each time the file is opened."""

    def __init__(self, path: Path, name: str, image: ImageRecord, columns: Sequence[Column[FindingsBatch]]) -> None:
        self.name = name
        self._path, self._crs, self._columns = path, image.info.placement.crs, columns
        self._polygonal = columnar(image.findings()).polygonal
        names = _unique([column.name for column in columns], keep=".")
        self._schema = arrow_schema(columns, names=names, geometry=GEOMETRY)
        self._batches: list[pa.RecordBatch] = []  # of which an image without findings has one, too
        self._vertices = 0

    def add(self, batch: FindingsBatch) -> None:
        """Add a batch."""
        outlines = batch_to_wkb(batch)
        shapes = multipolygons(outlines) if self._polygonal else outlines
        self._batches.append(arrow_batch(self._columns, batch, shapes, self._schema))
        self._vertices += int(batch.table.vertices.sum())
        if sum(map(len, self._batches)) >= _WRITTEN_AT_ONCE or self._vertices >= _VERTICES_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write what was added."""
        if not self._batches:
            return
        kind = "MultiPolygon" if self._polygonal else "Unknown"
        write_layer(self._path, self._batches, self.name, geometry_type=kind, crs=self._crs)
        self._batches, self._vertices = [], 0


def multipolygons(outlines: Values) -> Values:
    """Polygons and multipolygons (N,) as little-endian WKB → all as multipolygons."""
    return np.array([_ONE_PART + one if one.startswith(_POLYGON) else one for one in outlines], dtype=object)


def write_layer(path: Path, batches: "Sequence[pa.RecordBatch]", name: str, **options: Any) -> None:
    """Write a layer of batches, or add to it."""
    import pyarrow as pa

    table = pa.Table.from_batches(batches).combine_chunks()  # in one transaction
    about = {"DESCRIPTION": DISCLAIMER, "GEOMETRY_NAME": GEOMETRY}
    _write(path, table, name, geometry_name=GEOMETRY, layer_options=about, append=True, **options)


def write_table(path: Path, name: str, columns: Mapping[str, Values], *, append: bool) -> None:
    """Write a table without geometry."""
    import pyarrow as pa

    created = {} if append else {"dataset_options": {"VERSION": _VERSION}}
    utc = {"M": pa.timestamp("ms", "UTC")}
    arrays = {key: pa.array(values, utc.get(values.dtype.kind)) for key, values in columns.items()}
    _write(path, pa.table(arrays), name, append=append, **created)


def _write(path: Path, table: "pa.Table", name: str, **options: Any) -> None:
    """Write with pyogrio, which states the same time of change in every file."""
    import pyogrio
    from pyogrio import raw

    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": f"{_LAST_CHANGE}Z"})
    try:
        raw.write_arrow(table, path, layer=name, driver="GPKG", **options)
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def _about(record: Record, omitted: Mapping[str, str]) -> Mapping[str, Values]:
    rows = [
        ("use", record.use),
        ("limner", record.version),
        *((f"model {key}", value) for key, value in sorted(record.model.items())),
        *((f"left out: {image}", why) for image, why in omitted.items()),
        *((f"CRS of {image.info.id}", crs_name(image.info.placement.crs)) for image in record.images),
    ]
    return {"name": texts([name for name, _ in rows]), "value": texts([value for _, value in rows])}


def _style_columns(labels: Mapping[str, Sequence[str]], palette: Palette) -> Mapping[str, Values]:
    """The columns of the table in which QGIS stores layer styles; `labels` are those of each layer."""
    rows = len(labels)
    return {
        "f_table_catalog": texts([""] * rows),
        "f_table_schema": texts([""] * rows),
        "f_table_name": texts(list(labels)),
        "f_geometry_column": texts([GEOMETRY] * rows),
        "styleName": texts(["limner"] * rows),
        "styleQML": np.array([qml(every, palette) for every in labels.values()], dtype=object),
        "styleSLD": np.array([sld(name, every, palette) for name, every in labels.items()], dtype=object),
        "useAsDefault": np.ones(rows, dtype=np.bool_),
        "description": texts(["Colours of the labels"] * rows),
        "owner": texts([""] * rows),
        "ui": texts([""] * rows),
        "update_time": np.array([_LAST_CHANGE] * rows, dtype="datetime64[ms]"),
    }


def _unique(names: Sequence[str], *, taken: Sequence[str] = (), keep: str = "") -> list[str]:
    """Names of letters, digits, _ and -, different from each other and from `taken` in any case."""
    used = {name.casefold() for name in taken}
    result: list[str] = []
    for name in names:
        base = re.sub(rf"[^\w\-{re.escape(keep)}]", "_", clean_text(name)) or "image"
        if base.casefold().startswith(("gpkg", "rtree_", "sqlite")):
            base = f"image_{base}"
        candidate, count = base, 1
        while candidate.casefold() in used:
            count += 1
            candidate = f"{base}_{count}"
        used.add(candidate.casefold())
        result.append(candidate)
    return result


def texts(values: Sequence[str]) -> Values:
    """Texts as a column."""
    return np.array([clean_text(value) for value in values], dtype=object)
