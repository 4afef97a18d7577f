"""A run's tables as data frames: the columns of the CSV files, typed. The only file that imports geopandas."""
# pandas and geopandas have their types in comments and stubs apart:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from ..readers import geodesy
from ..readers.errors import RequestError
from ..readers.geometry import Placement, crs_name
from ..readers.image import Kind
from .columns import findings_columns
from .measures import FindingsBatch, Shapes
from .overlay.zones import ZoneTable
from .patient_geometry import in_patient
from .rfc7946 import to_crs, to_wgs84
from .summary import FILES, ImageSummary, summary_columns
from .table import Batch, Column, Rows
from .writer import ImageRecord, Record

B = TypeVar("B", bound=Batch)

WGS84 = "EPSG:4326"


def findings_frame(record: Record, *, kind: Kind | None = None) -> pd.DataFrame:
    """A run's findings, a row each, with the columns of findings.csv and a `geometry`.

    Maps give a `geopandas.GeoDataFrame` in the CRS that all images share, else in EPSG:4326, cut at the antimeridian.
    Slides give a DataFrame with shapely geometries in µm from the slide's corner, studies one in patient
    coordinates, (x, y, z) in mm (LPS). Where no image has world coordinates, geometries are in level-0 pixels; where
    some have, those of the others are None. `attrs["geometry"]` states which: a CRS, "um", "mm" or "px".

    `kind` chooses images of one kind. A run of several kinds has no common coordinates: without `kind` it gives a
    DataFrame without geometries. Raises `RequestError` for a kind that the run does not have.
    """
    kinds = sorted({image.info.kind for image in record.images})
    if kind is not None and kind not in kinds:
        raise RequestError(
            f"kind {kind!r}",
            "must be one of the kinds of the run's images",
            value=", ".join(kinds) or "no images",
            remedy="Leave it out for all findings",
        )
    images = [image for image in record.images if kind in {None, image.info.kind}]
    chosen = replace(record, images=tuple(images))
    batches = [FindingsBatch(chosen, image, image.findings()[:]) for image in images]
    frame = _frame(findings_columns(chosen), batches)
    if kind is None and len(kinds) > 1:
        return frame
    where = _world(images)
    frame["geometry"] = np.concatenate([np.empty(0, dtype=object), *(_geometries(batch, where) for batch in batches)])
    if not images or images[0].info.kind == "map":
        frame = gpd.GeoDataFrame(frame, geometry="geometry", crs=None if where == "px" else where)
        where = crs_name(where) or where
    frame.attrs["geometry"] = where
    return frame


def summary_frame(record: Record) -> pd.DataFrame:
    """The findings of each image in numbers, a row per image: the columns of summary.csv."""
    rows = [ImageSummary.of(record, image) for image in record.images]
    return _frame(summary_columns(record, rows), rows)


def zones_frame(table: ZoneTable) -> pd.DataFrame:
    """A row per zone and image: the columns of zones.csv and the zone's outline, in its file's CRS or in pixels."""
    frame = _frame(table.columns, table.batches)
    frame["geometry"] = table.zones.source[np.concatenate([batch.rows for batch in table.batches])]
    if table.zones.lonlat is None:
        frame.attrs["geometry"] = "px"
        return frame
    frame = gpd.GeoDataFrame(frame, geometry="geometry", crs=table.zones.crs)
    frame.attrs["geometry"] = crs_name(table.zones.crs) or table.zones.crs
    return frame


def shapes_frame(
    columns: Sequence[Column[B]], batch: B, shapes: Sequence[object], placement: Placement
) -> pd.DataFrame:
    """A row per outline in level-0 pixels of a map, in its CRS."""
    frame = _frame(columns, [batch])
    frame["geometry"] = to_crs(np.array([*shapes, None], dtype=object)[:-1], placement)
    return gpd.GeoDataFrame(frame, geometry="geometry", crs=placement.crs)


def matrix_frame(rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[float]]) -> pd.DataFrame:
    """A matrix with names of its rows and columns."""
    return pd.DataFrame(cells, index=list(rows), columns=list(columns))


def files_frame(record: Record) -> pd.DataFrame:
    """The outcome of each input file: the columns of files.csv."""
    return _frame(FILES, [Rows(record.files)])


def _frame(columns: Sequence[Column[B]], batches: Sequence[B]) -> pd.DataFrame:
    return pd.DataFrame({column.name: _series(column, batches) for column in columns})


def _series(column: Column[B], batches: Iterable[B]) -> Any:
    values = [column.array(batch) for batch in batches]
    return pd.array(np.concatenate(values) if values else np.empty(0, dtype=object), dtype=column.dtype)


def _world(images: Sequence[ImageRecord]) -> str:
    """The coordinates that images of one kind have in common: a CRS, "um", "mm" or "px"."""
    placements = [image.info.placement for image in images]
    if not images or images[0].info.kind == "map":
        systems = {placement.crs for placement in placements if placement.crs is not None}
        if not systems:
            return "px"
        return systems.pop() if len(systems) == 1 else WGS84
    if images[0].info.kind == "slide":
        return "um" if any(placement.unit == "um" for placement in placements) else "px"
    return "mm" if any(in_patient(plane) for image in images for plane in image.info.planes) else "px"


def _geometries(batch: FindingsBatch, where: str) -> Shapes:
    """Geometries (N,) in the coordinates that `_world` chose; None for those without any."""
    placement = batch.image.info.placement
    none = np.full(len(batch), None, dtype=object)
    if where == "px":
        return batch.geometries
    if where == "mm":
        for number, (plane, shape) in enumerate(zip(batch.planes, batch.geometries, strict=True)):
            if in_patient(plane):
                to_patient = plane.placement.to_world
                flat = shapely.force_3d(shape)
                none[number] = shapely.transform(flat, lambda xyz, to=to_patient: to(xyz[:, :2]), include_z=True)
        return none
    if where == "um":
        return shapely.transform(batch.geometries, placement.to_world) if placement.unit == "um" else none
    if placement.crs == where:
        return to_crs(batch.geometries, placement)
    return to_wgs84(batch.geometries, placement) if geodesy.on_earth(placement) else none
