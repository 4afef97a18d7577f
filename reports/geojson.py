"""GeoJSON by RFC 7946: longitude and latitude, for any map."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from ..model.finding import Finding
from ..readers import geodesy
from ..readers.files import replacing
from ..readers.geometry import Points
from .cells import plain
from .globe import DECIMALS, bounding_box, part_boxes, to_globe
from .measures import Measures, Shapes, crs_name, measure, shapes
from .palette import Palette
from .writer import ImageRecord, Record

_BATCH = 10_000  # findings that are transformed, and then written, at a time


@dataclass(frozen=True, slots=True)
class GeoJson:
    """findings.geojson: a FeatureCollection, a feature a line, streamed.

    Coordinates are WGS84 degrees with 7 decimals, rings follow the right-hand rule, shapes are cut at the antimeridian,
    and there is no `crs` member. The member `limner` holds what a reader must know of the whole: use, model, versions
    and the images that are not on the map. A finding too small for 7 decimals is a point there, and says so in
    `geometry_note`. `fill`, `stroke` and `fill-opacity` are hints that many maps honour (simplestyle 1.1).
    """

    name: str = "geojson"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write findings.geojson into `folder`, feature by feature."""
        path = folder / "findings.geojson"
        palette = Palette.of(record.labels, record.colours)
        about = {
            "title": "Findings in WGS84 longitude and latitude",
            "use": plain(record.use),
            "model": {key: plain(value) for key, value in sorted(record.model.items())},
            "version": record.version,
            "omitted": {plain(image): plain(why) for image, why in self.omitted(record).items()},
        }
        with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            file.write(f'{{"type":"FeatureCollection",\n"limner":{_json(about)},\n"features":[')
            boxes = [np.empty((0, 4))]
            between = "\n"
            for image in record.images:
                if not geodesy.on_earth(image.info.placement):
                    continue
                findings = image.findings()
                for start in range(0, len(findings), _BATCH):
                    batch = findings[start : start + _BATCH]
                    measures = measure(batch, image.info.placement)
                    placed = to_globe(shapes(batch), image.info.placement)
                    boxes.append(part_boxes(placed))
                    for place, geometry in enumerate(_geometries(placed, measures)):
                        feature = _feature(image, start + place + 1, batch[place], palette)
                        feature["properties"] |= _numbers(measures, place)
                        if placed[place] is None:
                            feature["properties"]["geometry_note"] = _NOTE
                        file.write(f'{between}{_json(feature)[:-1]},"geometry":{geometry}}}')
                        between = ",\n"
            file.write("\n]")
            box = bounding_box(np.concatenate(boxes))
            if box is not None:
                file.write(f',\n"bbox":{_json(box)}')
            file.write("}\n")
        return [path]

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images whose pixels have no longitude and latitude."""
        return {image.info.id: why for image in record.images if (why := _off_the_map(image.info.placement.crs, image))}


_NOTE = f"a point stands for a shape that {DECIMALS} decimals of a degree, or the image's CRS, cannot hold"


def _off_the_map(crs: str | None, image: ImageRecord) -> str:
    if crs is None:
        return "it has no CRS, so its pixels have no longitude and latitude"
    if not geodesy.on_earth(image.info.placement):
        return f"its CRS is not on Earth: {crs_name(crs)}"
    return ""


def _geometries(placed: Shapes, measures: Measures) -> Sequence[str]:
    """Each shape as GeoJSON text: a point where there is no shape, null where there is no place either."""
    return [
        _point(measures.lonlat[place]) if text is None else str(text)
        for place, text in enumerate(shapely.to_geojson(placed))
    ]


def _point(lonlat: Points) -> str:
    if not np.isfinite(lonlat).all():
        return "null"
    return _json({"type": "Point", "coordinates": [round(float(value), DECIMALS) + 0.0 for value in lonlat]})


def _feature(image: ImageRecord, number: int, finding: Finding, palette: Palette) -> dict[str, Any]:
    colour = palette[finding.label]
    return {
        "type": "Feature",
        "id": f"{plain(image.info.id)}/{number}",
        "properties": {
            "image": plain(image.info.id),
            "finding": number,
            "label": plain(finding.label),
            "kind": finding.kind,
            "score": None if finding.score is None else round(finding.score, 4),
            "text": plain(finding.text),
            **{f"number.{plain(key)}": _number(value) for key, value in sorted(finding.numbers.items())},
            **{f"note.{plain(key)}": plain(value) for key, value in sorted(finding.notes.items())},
            "fill": colour,
            "stroke": colour,
            "fill-opacity": 0.4,
        },
    }


def _numbers(measures: Measures, place: int) -> dict[str, float | None]:
    return {"area_m2": _number(measures.area_m2[place]), "area_px": round(float(measures.area_px[place]), 2)}


def _number(value: float) -> float | None:
    """Nine significant digits, as in the tables; None where not known."""
    return float(f"{value:.9g}") if math.isfinite(value) else None


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
