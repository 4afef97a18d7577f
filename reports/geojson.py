"""GeoJSON by RFC 7946: longitude and latitude, for any map program."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from ..readers import geodesy
from ..readers.annotations import TITLES
from ..readers.files import atomic_path
from ..readers.geometry import Points, crs_name
from .columns import findings_columns
from .csv_safety import clean_text
from .measures import FindingsBatch, Shapes
from .palette import Palette
from .rfc7946 import DECIMALS, bounding_box, merged_boxes, part_boxes, to_wgs84
from .streams import Stream, write_stream
from .table import Column
from .writer import ImageRecord, Record

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
        """Write findings.geojson into `folder`."""
        return write_stream(self.stream(record, folder), record)

    def stream(self, record: Record, folder: Path) -> Stream:
        """Write findings.geojson batch by batch."""
        path = folder / "findings.geojson"
        palette = Palette.of(record.labels, record.colours)
        omitted = self.omitted(record)
        about = {
            "title": TITLES["lonlat"],
            "use": clean_text(record.use),
            "model": {key: clean_text(value) for key, value in sorted(record.model.items())},
            "version": record.version,
            "omitted": {clean_text(image): clean_text(why) for image, why in omitted.items()},
        }
        with atomic_path(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            file.write(f'{{"type":"FeatureCollection",\n"limner":{_json(about)},\n"features":[')
            boxes = np.empty((0, 4))
            separator = "\n"
            columns: list[Column[FindingsBatch]] = []
            while (batch := (yield)) is not None:
                if batch.image.info.id in omitted or not len(batch):
                    continue
                if batch.first == 1:
                    every = findings_columns(record, batch.image.findings())
                    columns = [one for one in every if one.topic in {"identity", "finding"}]
                placed = to_wgs84(batch.geometries, batch.image.info.placement)
                boxes = merged_boxes(np.concatenate([boxes, part_boxes(placed)]))
                file.write(separator + ",\n".join(_features(batch, columns, placed, palette)))
                separator = ",\n"
            file.write("\n]")
            box = bounding_box(boxes)
            if box is not None:
                file.write(f',\n"bbox":{_json(box)}')
            file.write("}\n")
        return [path]

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images whose pixels have no longitude and latitude."""
        return {image.info.id: reason for image in record.images if (reason := omission(image))}


def omission(image: ImageRecord) -> str:
    """Why the pixels of an image have no longitude and latitude; "" where they have."""
    crs = image.info.placement.crs
    if crs is None:
        return "it has no CRS, so its pixels have no longitude and latitude"
    return "" if geodesy.on_earth(image.info.placement) else f"its CRS is not on Earth: {crs_name(crs)}"


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
) -> Iterator[str]:
    """Each finding as a feature; the model's own columns only where the finding has them."""
    image = _json(clean_text(batch.image.info.id))[:-1]
    members = zip(*(_members(column, batch) for column in columns), strict=True)
    colours = {label: palette[label] for label in set(batch.table.label.tolist())}
    styles = {label: f',"fill":"{colour}","stroke":"{colour}","fill-opacity":0.4' for label, colour in colours.items()}
    note = f',"geometry_note":{_json(_NOTE)}'
    notes = [note if lost else "" for lost in shapely.is_missing(placed).tolist()]
    rows = zip(members, batch.table.label.tolist(), notes, _geometries(batch, placed), strict=True)
    for number, (values, label, said, geometry) in enumerate(rows, batch.first):
        properties = f"{''.join(values)[1:]}{styles[label]}{said}"
        yield (f'{{"type":"Feature","id":{image}/{number}","properties":{{{properties}}},"geometry":{geometry}}}')


def _members(column: Column[FindingsBatch], batch: FindingsBatch) -> list[str]:
    """A column's values as members of JSON objects, each after a comma; "" where one of the model's own is missing."""
    values = column.json_values(batch)
    name = f",{_json(column.name)}:"
    if column.dtype in {"float64", "int64", "Int64"}:
        members = [name + text for text in _json(values)[1:-1].split(",")]
    else:
        texts = {value: name + _json(value) for value in set(values)}
        members = [texts[value] for value in values]
    if column.name.startswith(("number.", "note.")):
        return ["" if value is None else text for value, text in zip(values, members, strict=True)]
    return members


_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
