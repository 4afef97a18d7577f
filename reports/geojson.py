"""GeoJSON by RFC 7946: longitude and latitude, for any map program."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import shapely

from ..readers import geodesy
from ..readers.annotations import TITLES
from ..readers.files import atomic_path
from ..readers.geometry import Points, crs_name
from .cells import joined, text_cells
from .columns import findings_columns
from .csv_safety import clean_text
from .json_cells import encode, member_cells, polygon_texts, row_numbers
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
        with atomic_path(path) as part, part.open("wb") as file:
            file.write(f'{{"type":"FeatureCollection",\n"limner":{encode(about)},\n"features":['.encode())
            boxes = np.empty((0, 4))
            first = 1  # the first feature has no comma before it
            columns: list[Column[FindingsBatch]] = []
            while (batch := (yield)) is not None:
                if batch.image.info.id in omitted or not len(batch):
                    continue
                if batch.first == 1:
                    every = findings_columns(record, batch.image.findings())
                    columns = [one for one in every if one.topic in {"identity", "finding"}]
                placed = to_wgs84(batch.geometries, batch.image.info.placement)
                boxes = merged_boxes(np.concatenate([boxes, part_boxes(placed)]))
                file.write(memoryview(_features(batch, columns, placed, palette))[first:])
                first = 0
            file.write(b"\n]")
            box = bounding_box(boxes)
            if box is not None:
                file.write(f',\n"bbox":{encode(box)}'.encode())
            file.write(b"}\n")
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


def _point(lonlat: Points) -> str:
    if not np.isfinite(lonlat).all():
        return "null"
    return encode({"type": "Point", "coordinates": [round(float(value), DECIMALS) + 0.0 for value in lonlat]})


def _features(
    batch: FindingsBatch, columns: Sequence[Column[FindingsBatch]], placed: Shapes, palette: Palette
) -> bytes:
    """Each finding as a feature; the model's own columns only where the finding has them."""
    labels = batch.table.label.tolist()
    colours = {label: palette[label] for label in set(labels)}
    styles = {label: f',"fill":"{colour}","stroke":"{colour}","fill-opacity":0.4' for label, colour in colours.items()}
    lost = shapely.is_missing(placed).tolist()
    notes = {False: "", True: f',"geometry_note":{encode(_NOTE)}'}
    texts = polygon_texts(placed, DECIMALS)
    others = [place for place, text in enumerate(texts) if text is None]
    for place, text in zip(others, shapely.to_geojson(placed[others]), strict=True):
        texts[place] = (_point(batch.lonlat[place]) if text is None else str(text)).encode()
    own = ("number.", "note.")
    image = encode(clean_text(batch.image.info.id))  # the first column
    return joined(
        [
            f',\n{{"type":"Feature","id":{image[:-1]}/'.encode(),
            row_numbers(batch.first, len(batch)),
            f'","properties":{{"{columns[0].name}":{image}'.encode(),
            *(part for one in columns[1:] for part in member_cells(one, batch, null=not one.name.startswith(own))),
            text_cells([styles[label] for label in labels]),
            text_cells([notes[one] for one in lost]),
            b'},"geometry":',
            cast("list[bytes]", texts),
            b"}",
        ],
        len(batch),
    )
