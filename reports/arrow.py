"""Columns of tables, with outlines as WKB, as Arrow: what Parquet files and GDAL are given.

pyarrow is imported only when a file is written.
"""
# pyarrow states no types:
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from .table import Column, Typed

if TYPE_CHECKING:
    import pyarrow as pa

_TYPES: Final = {"int64": "int64", "Int64": "int64", "float64": "float64", "boolean": "bool_"}


def arrow_type(column: Column[Any]) -> "pa.DataType":
    """The type of a column's values."""
    import pyarrow as pa

    return getattr(pa, _TYPES.get(column.dtype, "string"))()


def arrow_schema(
    columns: Sequence[Column[Any]], *, names: Sequence[str] = (), geometry: str = "geometry"
) -> "pa.Schema":
    """Columns, with other `names` where some are given, and one of outlines."""
    import pyarrow as pa

    used = names or [column.name for column in columns]
    fields = [pa.field(name, arrow_type(column)) for name, column in zip(used, columns, strict=True)]
    return pa.schema([*fields, pa.field(geometry, pa.binary())])


def arrow_batch(columns: Sequence[Column[Any]], rows: Any, outlines: Typed, schema: "pa.Schema") -> "pa.RecordBatch":
    """Rows of columns, with outlines as WKB (N,), of a schema that `arrow_schema` made."""
    import pyarrow as pa

    arrays = [pa.array(column.array(rows), arrow_type(column), from_pandas=True) for column in columns]
    return pa.RecordBatch.from_arrays([*arrays, pa.array(outlines, pa.binary())], schema=schema)
