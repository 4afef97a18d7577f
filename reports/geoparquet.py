"""GeoParquet 1.1: columns for DuckDB, geopandas and GDAL, a file per image in the image's own CRS.

pyarrow is imported only when a file is written.
"""
# pyarrow states no types, and shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import shapely

from ..readers.files import atomic_path
from ..readers.geodesy import parse_crs
from .arrow import Codes, arrow_array, arrow_type, binary_array
from .columns import findings_columns
from .csv_safety import clean_text
from .measures import FindingsBatch, Numbers, Shapes
from .streams import Stream, stream_per_image, write_stream
from .table import Column, Typed, is_constant
from .wkb import batch_boxes, batch_to_wkb
from .writer import ImageRecord, Record, image_file

if TYPE_CHECKING:
    import pyarrow as pa

SORTED_AT_ONCE: Final = 65_536
"""Findings that are in memory, and sorted along a Hilbert curve, at a time."""
VERTICES_AT_ONCE: Final = 1_000_000
"""Of findings that are in memory at a time."""
ROW_GROUP: Final = 16_384
"""Findings of a row group: what a reader skips where its box does not meet the one that is asked for."""

_CURVE: Final = 16  # bits of each coordinate on the Hilbert curve
_SIDES: Final = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True)
class GeoParquet:
    """findings-<image id>.parquet for each map: the columns of findings.csv, the outline as WKB, and its bounding box.

    Coordinates are in the image's own CRS, as in the GeoPackage. Rows are sorted along a Hilbert curve, some ten
    thousands at a time in the order of findings.csv, so that a query for an area reads few row groups; compressed with
    zstd. The metadata `limner` holds use, model and version. Images without a CRS are left out.
    """

    name: str = "geoparquet"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write a file per map into `folder`."""
        return write_stream(self.stream(record, folder), record)

    def stream(self, record: Record, folder: Path) -> Stream:
        """Write a file per map, batch by batch."""
        columns = findings_columns(record)
        start = partial(_write, record, columns, folder)
        return (yield from stream_per_image(start, self.omitted(record)))

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images without a CRS."""
        reason = "it has no CRS, so a GIS cannot place it"
        return {image.info.id: reason for image in record.images if not image.info.placement.crs}


def _write(record: Record, columns: Sequence[Column[FindingsBatch]], folder: Path, image: ImageRecord) -> Stream:
    path = image_file(folder, "findings-", image.info.id, ".parquet")
    with atomic_path(path) as part, closing(_File(part, record, image, columns)) as file:
        while (batch := (yield)) is not None:
            file.add(batch)
        file.finish()
    return [path]


class _File:
    """A Parquet file, and the rows that are not written yet."""

    def __init__(
        self, path: Path, record: Record, image: ImageRecord, columns: Sequence[Column[FindingsBatch]]
    ) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._image, self._columns = image, columns
        fields = [pa.field(column.name, _type(column)) for column in columns]
        box = pa.struct([pa.field(side, pa.float64()) for side in _SIDES])
        self._schema = pa.schema([*fields, pa.field("bbox", box), pa.field("geometry", pa.binary())])
        model = {clean_text(key): clean_text(value) for key, value in sorted(record.model.items())}
        about = {"use": clean_text(record.use), "model": model, "version": record.version}
        self._writer = pq.ParquetWriter(
            path,
            self._schema.with_metadata({"limner": json.dumps(about, ensure_ascii=False)}),
            compression="zstd",
            write_statistics=[*(column.name for column in columns), *(f"bbox.{side}" for side in _SIDES)],  # pyright: ignore[reportArgumentType] - its stub
            use_dictionary=[column.name for column in columns if column.dtype in {"category", "string"}],  # pyright: ignore[reportArgumentType] - its stub
        )
        self._waiting: list[_Waiting] = []
        self._codes: dict[str, Codes] = {}
        self._box = np.full(4, np.nan)
        self._types: set[str] = set()

    def add(self, batch: FindingsBatch) -> None:
        """Add findings; write those that are enough."""
        boxes, keys = batch_boxes(batch), hilbert(batch.bounds, self._image.info.size)
        columns = [self._values(column, batch) for column in self._columns]
        self._waiting.append(_Waiting(columns, boxes, batch_to_wkb(batch), keys, int(batch.table.vertices.sum())))
        every = np.concatenate([self._box[None], boxes])
        self._box = np.concatenate([np.fmin.reduce(every[:, :2]), np.fmax.reduce(every[:, 2:])])
        self._types.update(_type_names(batch.geometries))
        vertices = sum(waiting.vertices for waiting in self._waiting)
        if sum(len(waiting.keys) for waiting in self._waiting) >= SORTED_AT_ONCE or vertices >= VERTICES_AT_ONCE:
            self._flush()

    def finish(self) -> None:
        """Write what is left, and what a reader must know of the geometries."""
        self._flush()
        crs = parse_crs(self._image.info.placement.crs or "").to_json_dict()
        geometry = {
            "encoding": "WKB",
            "geometry_types": sorted(self._types),
            "crs": crs,
            "orientation": "counterclockwise",
            "covering": {"bbox": {side: ["bbox", side] for side in _SIDES}},
            **({} if np.isnan(self._box[0]) else {"bbox": self._box.tolist()}),
        }
        geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
        self._writer.add_key_value_metadata({"geo": json.dumps(geo)})

    def close(self) -> None:
        """Close the file, whole or not."""
        self._writer.close()

    def _values(self, column: Column[FindingsBatch], batch: FindingsBatch) -> Typed:
        """The values of a column; of a category, their numbers in `_codes`."""
        values = column.array(batch)
        if column.dtype != "category":
            return values
        codes = self._codes.setdefault(column.name, Codes())
        if is_constant(values):
            return np.broadcast_to(codes.add(values[:1].tolist()), len(values))
        return codes.add(values.tolist())

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._waiting:
            return
        columns = [np.concatenate(parts) for parts in zip(*(one.columns for one in self._waiting), strict=True)]
        boxes, outlines, keys = (
            np.concatenate([getattr(one, name) for one in self._waiting]) for name in ("boxes", "outlines", "keys")
        )
        self._waiting = []
        order = np.argsort(keys, kind="stable")
        for start in range(0, max(1, len(order)), ROW_GROUP):
            rows = order[start : start + ROW_GROUP]
            arrays = [
                self._codes[column.name].array(values[rows])
                if column.dtype == "category"
                else arrow_array(values[rows], column.dtype)
                for column, values in zip(self._columns, columns, strict=True)
            ]
            sides = [arrow_array(side, "float64") for side in boxes[rows].T]
            box = pa.StructArray.from_arrays(sides, fields=list(self._schema.field("bbox").type))
            geometry = binary_array(outlines[rows].tolist())
            self._writer.write_table(pa.Table.from_arrays([*arrays, box, geometry], schema=self._schema))
        self._codes = {}


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A batch that is not written yet."""

    columns: list[Typed]
    boxes: Numbers
    outlines: Typed
    keys: npt.NDArray[np.uint32]
    vertices: int


def hilbert(bounds: Numbers, size: tuple[int, int]) -> npt.NDArray[np.uint32]:
    """The place of each box's centre along a Hilbert curve over an image, so that neighbours are often near each other.

    Method: Warren 2013 ("Hacker's Delight", chapter 16).
    """
    side = (1 << _CURVE) - 1
    share = np.nan_to_num((bounds[:, :2] + bounds[:, 2:]) / 2 / size)
    x, y = np.clip(share * side, 0, side).astype(np.uint32).T.copy()
    place = np.zeros(len(bounds), dtype=np.uint32)
    for bit in range(_CURVE - 1, -1, -1):
        right, low = (x >> bit) & 1, (y >> bit) & 1
        place = place << 2 | (3 * right) ^ low
        flip = -(right & (low ^ 1))  # all bits, or none
        swap = (x ^ y) & (low - 1)
        x, y = x ^ swap ^ flip, y ^ swap ^ flip
    return place


def _type(column: Column[FindingsBatch]) -> "pa.DataType":
    import pyarrow as pa

    if column.dtype == "category":
        return pa.dictionary(pa.int32(), pa.string())
    return arrow_type(column)


def _type_names(shapes: Shapes) -> set[str]:
    """The names of the geometries' types."""
    _, first = np.unique(shapely.get_type_id(shapes), return_index=True)
    return {shape.geom_type for shape in shapes[first].tolist() if shape is not None}
