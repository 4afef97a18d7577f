"""PMTiles: a file per map of vector tiles in Web Mercator, which a web map reads over HTTP without a tile server.

pyarrow and pyogrio are imported only when a file is written.
"""
# pyarrow states no types, and shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely

from ..readers import geodesy
from ..readers.errors import ReadError, RequestError
from ..readers.files import atomic_path
from .arrow import arrow_batch, arrow_schema
from .columns import findings_columns
from .csv_safety import clean_text
from .geojson import omission
from .measures import FindingsBatch, batches, lonlat
from .palette import Palette
from .rfc7946 import to_wgs84
from .table import Column
from .writer import ImageRecord, Record, image_file, write_per_image

DRIVER: Final = "PMTiles"
LAYER: Final = "findings"

_MOST_LATITUDE: Final = 85.05  # where Web Mercator's square ends
_EQUATOR_M: Final = 40_075_016.7
_UNITS: Final = 4096  # along the side of a tile
_UNITS_PER_PIXEL: Final = 8
_LAST_ZOOM: Final = 22  # of GDAL
_PER_TILE: Final = 20_000  # findings, of evenly spread ones, which a browser can draw at once
_UNLIMITED: Final = str(2**31 - 1)


@dataclass(frozen=True, slots=True)
class PMTiles:
    """findings-<image id>.pmtiles for each map: vector tiles for web maps, with the properties of findings.geojson.

    The layer is `findings`; `fill` is the label's colour. At the highest zoom a pixel is 8 units of a tile or more.
    No tile is thinned out, so that lower zooms end where one would have too many findings. The file's description
    states the use. Needs GDAL's driver PMTiles, which the wheels of pyogrio have.
    """

    name: str = "pmtiles"
    on_request: bool = True

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write a file per map into `folder`. Raises `RequestError` where GDAL has no driver for it."""
        _check_driver()
        omitted = self.omitted(record)
        chosen = [image for image in record.images if image.info.id not in omitted]
        return write_per_image(chosen, lambda image: _write(record, image, folder))

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images without longitude and latitude, near a pole, or without findings."""
        return {image.info.id: reason for image in record.images if (reason := _omission(image))}


def _check_driver() -> None:
    import pyogrio

    if "w" not in pyogrio.list_drivers().get(DRIVER, ""):
        raise RequestError(
            "the report pmtiles",
            f"must be written by a GDAL with the driver {DRIVER}",
            value=f"pyogrio {pyogrio.__version__} with GDAL {pyogrio.__gdal_version_string__} without it",
            remedy="Install pyogrio as a wheel of PyPI (pip install --force-reinstall --only-binary :all: pyogrio), or "
            "write geojson and make tiles of it with tippecanoe",
        )


def _omission(image: ImageRecord) -> str:
    if reason := omission(image):
        return reason
    if not len(image.findings()):
        return "it has no findings"
    places = np.stack(np.meshgrid(*(np.linspace(0, side, 33) for side in image.info.size)), axis=-1).reshape(-1, 2)
    latitudes = np.abs(lonlat(image.info.placement, places)[:, 1])
    if (latitudes[np.isfinite(latitudes)] > _MOST_LATITUDE).any():
        return f"it reaches beyond {_MOST_LATITUDE}° of latitude, where Web Mercator ends"
    return ""


def _zooms(image: ImageRecord) -> tuple[int, int]:
    """The least and the greatest zoom of an image."""
    info = image.info
    ground = geodesy.metres_per_pixel(info.placement, (info.size[0] / 2, info.size[1] / 2)) or (1.0, 1.0)
    finest = min(one * scale for one, scale in zip(ground, image.scale, strict=True))
    whole = max(one * side for one, side in zip(ground, info.size, strict=True))
    last = math.ceil(math.log2(_EQUATOR_M * _UNITS_PER_PIXEL / (_UNITS * finest)))
    first = math.floor(math.log2(_EQUATOR_M / whole)) + math.ceil(math.log(len(image.findings()) / _PER_TILE, 4))
    last = min(max(last, 0), _LAST_ZOOM)
    return min(max(first, 0), last), last


def _write(record: Record, image: ImageRecord, folder: Path) -> Path:
    import pyarrow as pa
    from pyogrio.raw import write_arrow

    chosen = [one for one in findings_columns(record, image.findings()) if one.topic in {"identity", "finding"}]
    palette = Palette.of(record.labels, record.colours)
    colours: Column[FindingsBatch] = Column(
        "fill", "string", "its label's colour", lambda batch: [palette[label] for label in batch.table.label.tolist()]
    )
    columns = [*(one for one in chosen if image.info.kind in one.kinds), colours]
    schema = arrow_schema(columns)
    failed: list[ReadError] = []  # what is raised while GDAL reads is lost

    def rows() -> Iterator[Any]:
        for batch in batches(replace(record, images=(image,))):
            placed = to_wgs84(batch.geometries, image.info.placement)
            lost = np.flatnonzero(shapely.is_missing(placed))
            placed[lost] = shapely.points(batch.lonlat[lost])
            if nowhere := (batch.first + np.flatnonzero(~np.isfinite(batch.lonlat).all(axis=1))).tolist():
                rule, remedy = "must be on the Earth", "Use geojson, which keeps findings without a position"
                failed.append(ReadError(f"finding {nowhere[0]} of {image.info.id}", rule, remedy=remedy))
                raise failed[0]
            yield arrow_batch(columns, batch, shapely.to_wkb(placed, byte_order=1), schema)

    first, last = _zooms(image)
    path = image_file(folder, "findings-", image.info.id, ".pmtiles")
    with atomic_path(path) as part, tempfile.TemporaryDirectory(prefix=".limner-", dir=folder) as temporary:
        tiles = Path(temporary) / "tiles.pmtiles"  # GDAL writes a database beside it
        try:
            write_arrow(
                pa.RecordBatchReader.from_batches(schema, rows()),
                tiles,
                layer=LAYER,
                driver=DRIVER,
                geometry_name="geometry",
                geometry_type="Unknown",
                crs="EPSG:4326",
                dataset_options={
                    "MINZOOM": str(first),
                    "MAXZOOM": str(last),
                    "MAX_SIZE": _UNLIMITED,
                    "MAX_FEATURES": _UNLIMITED,
                    "NAME": clean_text(image.info.id),
                    "DESCRIPTION": clean_text(record.use),
                },
            )
        except RuntimeError as error:
            raise failed[0] if failed else error from None
        tiles.replace(part)
    return path
