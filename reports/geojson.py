"""GeoJSON by RFC 7946: longitude and latitude, for any map program."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from ..readers import geodesy
from ..readers.annotations import TITLES
from ..readers.files import atomic_path
from ..readers.geometry import Points
from .columns import findings_columns
from .csv_safety import clean_text
from .measures import FindingsBatch, Shapes, crs_name
from .palette import Palette
from .rfc7946 import DECIMALS, bounding_box, part_boxes, to_wgs84
from .table import Column
from .writer import ImageRecord, Record

_BATCH = 10_000  # findings that are transformed, and then written, at a time
_NOTE = f"a point stands for a shape that {DECIMALS} decimals of a degree, or the image's CRS, cannot hold"


@dataclass(frozen=True, slots=True)
class GeoJson:
    """findings.geojson: a FeatureCollection, streamed, one feature per line.

    Coordinates are WGS84 degrees with 7 decimals, rings follow the right-hand rule, shapes are cut at the antimeridian,
    and there is no `crs` member. The member `limner` holds use, model, versions and the images that are left out. A
    finding too small for 7 decimals is a point with a `geometry_note`. `fill`, `stroke` and `fill-opacity` are hints
    that many map programs honour (simplestyle 1.1).
    """

    name: str = "geojson"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write findings.geojson into `folder`, feature by feature."""
        path = folder / "findings.geojson"
        palette = Palette.of(record.labels, record.colours)
        about = {
            "title": TITLES["lonlat"],
            "use": clean_text(record.use),
            "model": {key: clean_text(value) for key, value in sorted(record.model.items())},
            "version": record.version,
            "omitted": {clean_text(image): clean_text(why) for image, why in self.omitted(record).items()},
        }
        with atomic_path(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            file.write(f'{{"type":"FeatureCollection",\n"limner":{_json(about)},\n"features":[')
            boxes = [np.empty((0, 4))]
            separator = "\n"
            for batch, columns in _batches(record):
                placed = to_wgs84(batch.geometries, batch.image.info.placement)
                boxes.append(part_boxes(placed))
                features = _features(batch, columns, placed, palette)
                for feature, geometry in zip(features, _geometries(batch, placed), strict=True):
                    file.write(f'{separator}{_json(feature)[:-1]},"geometry":{geometry}}}')
                    separator = ",\n"
            file.write("\n]")
            box = bounding_box(np.concatenate(boxes))
            if box is not None:
                file.write(f',\n"bbox":{_json(box)}')
            file.write("}\n")
        return [path]

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images whose pixels have no longitude and latitude."""
        return {image.info.id: reason for image in record.images if (reason := _omission(image))}


def _omission(image: ImageRecord) -> str:
    crs = image.info.placement.crs
    if crs is None:
        return "it has no CRS, so its pixels have no longitude and latitude"
    return "" if geodesy.on_earth(image.info.placement) else f"its CRS is not on Earth: {crs_name(crs)}"


def _batches(record: Record) -> Iterator[tuple[FindingsBatch, list[Column[FindingsBatch]]]]:
    for image in record.images:
        if not _omission(image):
            findings = image.findings()
            columns = [one for one in findings_columns(record, findings) if one.topic in {"identity", "finding"}]
            for start in range(0, len(findings), _BATCH):
                yield FindingsBatch(record, image, findings[start : start + _BATCH], start + 1), columns


def _geometries(batch: FindingsBatch, placed: Shapes) -> Iterator[str]:
    """Each shape as GeoJSON text: a point where there is no shape, null where there is no position either."""
    for place, text in enumerate(shapely.to_geojson(placed)):
        yield _point(batch.lonlat[place]) if text is None else str(text)


def _point(lonlat: Points) -> str:
    if not np.isfinite(lonlat).all():
        return "null"
    return _json({"type": "Point", "coordinates": [round(float(value), DECIMALS) + 0.0 for value in lonlat]})


def _features(
    batch: FindingsBatch, columns: Sequence[Column[FindingsBatch]], placed: Shapes, palette: Palette
) -> Iterator[dict[str, Any]]:
    """Each finding as a feature without its geometry; the model's own columns only where the finding has them."""
    image = clean_text(batch.image.info.id)
    names = [column.name for column in columns]
    own = {name for name in names if name.startswith(("number.", "note."))}
    rows = zip(*(column.json_values(batch) for column in columns), strict=True)
    for number, (finding, shape, row) in enumerate(zip(batch.findings, placed, rows, strict=True), batch.first):
        values = zip(names, row, strict=True)
        properties = {name: value for name, value in values if value is not None or name not in own}
        colour = palette[finding.label]
        properties |= {"fill": colour, "stroke": colour, "fill-opacity": 0.4}
        if shape is None:
            properties["geometry_note"] = _NOTE
        yield {"type": "Feature", "id": f"{image}/{number}", "properties": properties}


_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
