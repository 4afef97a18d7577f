"""Columns of tables, with outlines as WKB, as Arrow: what Parquet files and GDAL are given, and what a run keeps.

pyarrow is imported only when a file is written. Arrays are made of bytes: `pa.array` and others import pandas, and
`take`, `cast` and `dictionary_encode` pyarrow.compute, which takes longer than to write some ten thousand rows.
"""
# pyarrow states no types:
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from .table import Column, Dtype, Typed

if TYPE_CHECKING:
    import pyarrow as pa

_TYPES: Final = {"int64": "int64", "Int64": "int64", "float64": "float64", "boolean": "bool_"}
_MOST_BYTES: Final = 2**31 - 1


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

    arrays = [arrow_array(column.array(rows), column.dtype) for column in columns]
    return pa.RecordBatch.from_arrays([*arrays, binary_array(outlines.tolist())], schema=schema)


def arrow_array(values: Typed, dtype: Dtype) -> "pa.Array[Any]":
    """Values (N,) of a column, as `Column.array` has them: null where they are None or NaN."""
    if dtype == "float64":
        return plain_array(values, ~np.isnan(values))
    if dtype == "int64":
        return plain_array(values)
    rows: list[Any] = values.tolist()
    if dtype in {"boolean", "Int64"}:
        known = np.array([one is not None for one in rows], dtype=np.bool_)
        numbers = np.array([one or 0 for one in rows], dtype=np.bool_ if dtype == "boolean" else np.int64)
        return plain_array(numbers, known)
    return text_array(rows)


def plain_array(values: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None = None) -> "pa.Array[Any]":
    """Numbers or flags (N,), null where they are not valid."""
    import pyarrow as pa

    content = np.packbits(values, bitorder="little") if values.dtype == np.bool_ else np.ascontiguousarray(values)
    bits = None if valid is None or valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [bits, pa.py_buffer(content)])


def binary_array(rows: Sequence[bytes | None], kind: "pa.DataType | None" = None) -> "pa.Array[Any]":
    """Bytes, or null, as `kind`, binary by default. Raises `ValueError` for more than an array can have."""
    import pyarrow as pa

    known, bits = [row or b"" for row in rows], None
    if None in rows:
        bits = pa.py_buffer(np.packbits([row is not None for row in rows], bitorder="little"))
    ends = np.cumsum(np.fromiter(chain([0], map(len, known)), np.int64, len(known) + 1))
    if ends[-1] > _MOST_BYTES:
        msg = f"a column must have less than 2 GiB of bytes, and has {ends[-1]}"
        raise ValueError(msg)
    buffers = [bits, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(known))]
    return pa.Array.from_buffers(kind or pa.binary(), len(rows), buffers)


def text_array(values: Sequence[str | None], kind: "pa.DataType | None" = None) -> "pa.Array[Any]":
    """Texts as UTF-8, as `kind`, string by default.

    Surrogates, as file names have them, are encoded too: those are no strings to Arrow, and need another kind.
    """
    import pyarrow as pa

    encoded = {one: None if one is None else one.encode("utf-8", "surrogatepass") for one in set(values)}
    return binary_array([encoded[one] for one in values], kind or pa.string())


class Codes:
    """Numbers for texts that differ, in the order in which they come: -1 for None."""

    def __init__(self) -> None:
        self._codes: dict[str | None, int] = {None: -1}

    def add(self, rows: Sequence[str | None]) -> npt.NDArray[np.int32]:
        """The number of each text (N,)."""
        for one in dict.fromkeys(rows):
            self._codes.setdefault(one, len(self._codes) - 1)
        return np.fromiter(map(self._codes.__getitem__, rows), np.int32, len(rows))

    def array(self, numbers: npt.NDArray[np.int32], kind: "pa.DataType | None" = None) -> "pa.Array[Any]":
        """The texts that have these numbers (N,), as dictionary of `kind`, string by default."""
        import pyarrow as pa

        texts = text_array(list(self._codes)[1:], kind)
        return pa.DictionaryArray.from_arrays(plain_array(numbers, numbers >= 0), texts)
