"""GeoJSON in QuPath's dialect: one file a slide, to drop on its window.

The dialect, as QuPath 0.5 to 0.7 read it: pixels instead of degrees, counted from the slide's scanned part; a class is
an object that must have a colour; measurements must be numbers and texts are metadata; ids must be UUIDs.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import gzip
import io
import json
import re
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TextIO

import numpy as np
import shapely

from ..model.finding import Kind
from ..readers.files import atomic_path
from ..readers.image import ImageInfo
from .columns import findings_columns
from .csv_safety import clean_text
from .measures import FindingsBatch
from .palette import Palette, rgb
from .writer import ImageRecord, Record, image_file, write_per_image

Suffix = Literal[".geojson", ".geojson.gz"]

_GRID: Final = 0.01  # pixels: what QuPath rounds to
_POLYGON: Final = 3  # shapely's type number
_WHOLE: Final = re.compile(r"\.0(?=[],])")  # what a whole number does without
_NAMESPACE: Final = uuid.UUID("6f1d6f0c-6f2b-5d35-9a53-5b0d3d6f7a11")  # of limner's findings
_OBJECTS: Final[Mapping[Kind, str]] = {"area": "detection", "box": "detection", "tile": "tile", "region": "annotation"}


@dataclass(frozen=True, slots=True)
class QuPath:
    """<image>.qupath.geojson (or .gz) for each slide: a FeatureCollection, a feature a line, streamed.

    Areas and boxes are detections, which QuPath draws by the thousand, tiles are tiles, regions annotations. The
    columns of findings that are numbers are measurements, those that are texts metadata, under their names. Ids are
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
            with atomic_path(path) as part, _text(part, compressed=self.suffix.endswith(".gz")) as file:
                _write(record, image, palette, file)
            return path

        return write_per_image([image for image in record.images if image.info.id not in omitted], write_one)

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images that are no slides: maps and studies."""
        return {image.info.id: why for image in record.images if (why := _no_slide(image.info))}


def compressed() -> QuPath:
    """The writer of `.geojson.gz`, which QuPath opens as well."""
    return QuPath("qupath-gz", ".geojson.gz")


def _no_slide(info: ImageInfo) -> str:
    if info.placement.crs is not None:
        return "it is a map: QuPath reads pixels, and maps are better served by GeoJSON and GeoPackage"
    if info.kind == "study":
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
    topic = {
        "title": "Findings in pixels, for QuPath",
        "use": clean_text(record.use),
        "image": clean_text(image.info.id),
        "name": clean_text(image.name or image.info.id),
        "origin": list(image.info.origin),
        "model": {clean_text(key): clean_text(value) for key, value in sorted(record.model.items())},
        "version": record.version,
    }
    file.write(f'{{"type":"FeatureCollection",\n"limner":{_json(topic)},\n"features":[')
    batch = FindingsBatch(record, image, image.findings())
    names = _names(batch)
    between = "\n"
    for name, finding, geometry, (measured, said) in zip(
        names, batch.findings, _geometries(batch), _values(batch), strict=True
    ):
        label, colour = clean_text(finding.label), list(rgb(palette[finding.label]))
        properties: dict[str, Any] = {
            "objectType": _OBJECTS[finding.kind],
            "name": f"{label} {said['finding']}",
            "color": colour,
            "classification": {"name": label, "color": colour},
        }
        if _OBJECTS[finding.kind] == "annotation":
            properties["isLocked"] = True
        properties |= {"measurements": measured, "metadata": said}
        feature = {"type": "Feature", "id": name, "properties": properties}
        file.write(f'{between}{_json(feature)[:-1]},"geometry":{geometry}}}')
        between = ",\n"
    file.write("\n]}\n")


def _names(batch: FindingsBatch) -> Iterator[str]:
    """A UUID for each finding, of what is said of which pixels of which slide."""
    info = batch.image.info
    seen: dict[uuid.UUID, int] = {}
    shapes = shapely.to_wkb(shapely.normalize(batch.geometries), hex=True, byte_order=1)
    for finding, where in zip(batch.findings, shapes, strict=True):
        said = [
            info.fingerprint or info.id,
            info.part,
            finding.kind,
            clean_text(finding.label),
            clean_text(finding.text),
            where,
        ]
        name = uuid.uuid5(_NAMESPACE, _json(said))
        seen[name] = seen.get(name, -1) + 1
        yield str(uuid.uuid5(name, str(seen[name])) if seen[name] else name)


def _values(batch: FindingsBatch) -> Iterator[tuple[dict[str, float], dict[str, str]]]:
    """Each finding's measurements and metadata: its columns that are numbers, and those that are texts.

    Measurements are finite numbers only: one text among them, and QuPath refuses the file.
    """
    columns = [one for one in findings_columns(batch.record, batch.findings) if one.topic in {"identity", "finding"}]
    told = [(one.name, one.dtype == "float64", one.json_values(batch)) for one in columns]
    for row in range(len(batch)):
        known = [(name, number, values[row]) for name, number, values in told if values[row] not in {None, ""}]
        yield (
            {name: value for name, number, value in known if number},
            {name: str(value) for name, number, value in known if not number},
        )


def _geometries(batch: FindingsBatch) -> Iterator[str]:
    """GeoJSON texts of polygons on QuPath's grid, counted from the scanned part; of points where those hold no area.

    A MultiPolygon has more than one part, and there is no GeometryCollection: either stops other programs.
    """
    snapped = shapely.set_precision(batch.geometries, _GRID)
    for place in np.flatnonzero((shapely.get_type_id(snapped) != _POLYGON) | shapely.is_empty(snapped)):
        parts = shapely.get_parts(snapped[place], return_index=False)
        polygons = [part for part in parts if part.geom_type == "Polygon" and not part.is_empty]
        if not polygons:
            snapped[place] = shapely.point_on_surface(batch.geometries[place])
        else:
            snapped[place] = polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)
    origin = batch.image.info.origin
    for text in shapely.to_geojson(shapely.transform(snapped, lambda xy: np.round(xy - origin, 2) + 0.0)):
        yield _WHOLE.sub("", str(text))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
