"""GeoJSON in QuPath's dialect: one file a slide, to drop on its window.

The dialect, as QuPath 0.5 to 0.7 read it: pixels instead of degrees, counted from the slide's scanned part; a class is
an object that must have a colour; measurements must be numbers and texts are metadata; ids must be UUIDs.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import gzip
import io
import json
import math
import uuid
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TextIO

import shapely
from shapely.geometry.base import BaseGeometry

from ..model.finding import Finding, Kind
from ..readers.files import replacing
from ..readers.geometry import Placement
from ..readers.image import ImageInfo
from .cells import plain
from .palette import Palette, rgb
from .writer import ImageRecord, Record, image_file, write_each

Suffix = Literal[".geojson", ".geojson.gz"]

_GRID: Final = 0.01  # pixels: what QuPath rounds to
_NAMESPACE: Final = uuid.UUID("6f1d6f0c-6f2b-5d35-9a53-5b0d3d6f7a11")  # of limner's findings
_OBJECTS: Final[Mapping[Kind, str]] = {"area": "detection", "box": "detection", "tile": "tile", "region": "annotation"}


@dataclass(frozen=True, slots=True)
class QuPath:
    """<image>.qupath.geojson (or .gz) for each slide: a FeatureCollection, a feature a line, streamed.

    Areas and boxes are detections, which QuPath draws by the thousand, tiles are tiles, regions annotations. The
    model's texts are metadata, its score and numbers measurements, with the area in µm² where that is known. Ids are
    UUIDs made from the slide's and the finding's content, so that the same finding keeps its id in any run. The member
    `limner`, which QuPath passes over, says what a reader must know of the whole.
    """

    name: str = "qupath"
    suffix: Suffix = ".geojson"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write a file for each slide into `folder`."""
        palette = Palette.of(record.labels, record.colours)
        omitted = self.omitted(record)

        def write_one(image: ImageRecord) -> Path:
            path = image_file(folder, "", image.info.id, f".qupath{self.suffix}")
            with replacing(path) as part, _text(part, compressed=self.suffix.endswith(".gz")) as file:
                _write(record, image, palette, file)
            return path

        return write_each([image for image in record.images if image.info.id not in omitted], write_one)

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images that are no slides: maps and studies."""
        return {image.info.id: why for image in record.images if (why := _no_slide(image.info))}


def compressed() -> QuPath:
    """The writer of `.geojson.gz`, which QuPath opens as well."""
    return QuPath("qupath-gz", ".geojson.gz")


def _no_slide(info: ImageInfo) -> str:
    placement = info.placement
    if placement.crs is not None:
        return "it is a map: QuPath reads pixels, and maps are better served by GeoJSON and GeoPackage"
    if info.cells or len(placement.matrix) > 2 or placement.frame is not None:  # noqa: PLR2004 - two axes of a slide
        return "it lies in a patient: QuPath reads slides"
    return ""


@contextmanager
def _text(path: Path, *, compressed: bool) -> Generator[TextIO]:
    """A UTF-8 file, or one in gzip without a time or a name, so that the same text is the same bytes."""
    if not compressed:
        with path.open("w", encoding="utf-8", newline="") as file:
            yield file
        return
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as file,
    ):
        yield file


def _write(record: Record, image: ImageRecord, palette: Palette, file: TextIO) -> None:
    about = {
        "title": "Findings in pixels, for QuPath",
        "use": plain(record.use),
        "image": plain(image.info.id),
        "origin": list(image.info.origin),
        "model": {plain(key): plain(value) for key, value in sorted(record.model.items())},
        "version": record.version,
    }
    file.write(f'{{"type":"FeatureCollection",\n"limner":{_json(about)},\n"features":[')
    seen: dict[uuid.UUID, int] = {}
    between = "\n"
    for number, finding in enumerate(image.findings(), 1):
        name = _name(image, finding)
        seen[name] = seen.get(name, -1) + 1
        unique = uuid.uuid5(name, str(seen[name])) if seen[name] else name
        file.write(f"{between}{_json(_feature(image, finding, number, str(unique), palette))}")
        between = ",\n"
    file.write("\n]}\n")


def _name(image: ImageRecord, finding: Finding) -> uuid.UUID:
    """A UUID of what is said of which pixels of which slide."""
    where = shapely.to_wkb(shapely.normalize(finding.geometry), hex=True, byte_order=1)
    said = [image.info.fingerprint or image.info.id, image.info.part, finding.kind, finding.label, finding.text, where]
    return uuid.uuid5(_NAMESPACE, _json(said))


def _feature(image: ImageRecord, finding: Finding, number: int, name: str, palette: Palette) -> dict[str, Any]:
    label = plain(finding.label)
    colour = list(rgb(palette[finding.label]))
    properties: dict[str, Any] = {
        "objectType": _OBJECTS[finding.kind],
        "name": f"{label} {number}",
        "color": colour,
        "classification": {"name": label, "color": colour},
    }
    if _OBJECTS[finding.kind] == "annotation":
        properties["isLocked"] = True
    properties["measurements"] = _measurements(image.info.placement, finding)
    properties["metadata"] = _metadata(finding, number)
    geometry = _geometry(finding.geometry, image.info.origin)
    return {"type": "Feature", "id": name, "geometry": geometry, "properties": properties}


def _measurements(placement: Placement, finding: Finding) -> dict[str, float]:
    """Finite numbers only: one text among them, and QuPath refuses the file."""
    numbers = {plain(key): value for key, value in finding.numbers.items()}
    if finding.score is not None:
        numbers["score"] = finding.score
    numbers["area_px"] = finding.geometry.area
    if placement.unit == "um":
        (a, b, _), (c, d, _) = placement.matrix[:2]
        numbers["area_um2"] = finding.geometry.area * abs(a * d - b * c)
    return {key: float(f"{value:.9g}") for key, value in sorted(numbers.items()) if math.isfinite(value)}


def _metadata(finding: Finding, number: int) -> dict[str, str]:
    """Texts. QuPath hides keys that begin with an underscore."""
    notes = {plain(key).lstrip("_") or "note": plain(value) for key, value in finding.notes.items()}
    if finding.text:
        notes["text"] = plain(finding.text)
    return dict(sorted((notes | {"finding": str(number), "kind": finding.kind}).items()))


def _geometry(geometry: BaseGeometry, origin: tuple[int, int]) -> dict[str, Any]:
    """A Polygon or MultiPolygon on QuPath's grid, counted from the scanned part; a Point where that holds no area.

    A MultiPolygon has more than one part, and there is no GeometryCollection: either stops other programs.
    """
    snapped = shapely.set_precision(geometry, _GRID)
    polygons = [part for part in shapely.get_parts(snapped, return_index=False) if part.geom_type == "Polygon"]
    rings = [_rings(polygon, origin) for polygon in polygons if not polygon.is_empty]
    if not rings:
        x, y = geometry.representative_point().coords[0]
        return {"type": "Point", "coordinates": [_number(x - origin[0]), _number(y - origin[1])]}
    if len(rings) == 1:
        return {"type": "Polygon", "coordinates": rings[0]}
    return {"type": "MultiPolygon", "coordinates": rings}


def _rings(polygon: Any, origin: tuple[int, int]) -> list[list[list[float]]]:  # noqa: ANN401 - a shapely Polygon
    """The closed rings of a polygon, the outer one first."""
    return [
        [[_number(x - origin[0]), _number(y - origin[1])] for x, y in ring.coords]
        for ring in (polygon.exterior, *polygon.interiors)
    ]


def _number(value: float) -> float:
    """A coordinate on QuPath's grid, without a fraction where it has none; never "-0"."""
    rounded = round(value, 2) + 0.0
    return int(rounded) if rounded.is_integer() else rounded


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
