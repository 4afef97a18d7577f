"""QuPath's GeoJSON: one file per slide, to be dropped on QuPath's window.

As QuPath 0.5 to 0.7 read it, coordinates are pixels from the corner of the scanned area (`openslide.bounds`); a
classification is an object with a colour; measurements must be numbers, texts are metadata; ids must be UUIDs.
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
from ..readers.annotations import TITLES
from ..readers.files import atomic_path
from ..readers.image import ImageInfo
from ..readers.slide.tma import CoreGrid
from .columns import findings_columns
from .cores import MISSING, PRESENT
from .csv_safety import clean_text
from .measures import FindingsBatch, batches
from .palette import Palette, rgb
from .table import Column, plain_text
from .writer import ImageRecord, Record, image_file, write_per_image

Suffix = Literal[".geojson", ".geojson.gz"]

_GRID: Final = 0.01  # pixels: what QuPath rounds to
_POLYGON: Final = 3  # shapely's type number
_TRAILING_ZERO: Final = re.compile(r"\.0(?=[],])")
_NAMESPACE: Final = uuid.UUID("6f1d6f0c-6f2b-5d35-9a53-5b0d3d6f7a11")  # of limner's findings
_OBJECTS: Final[Mapping[Kind, str]] = {"area": "detection", "box": "detection", "tile": "tile", "region": "annotation"}


@dataclass(frozen=True, slots=True)
class QuPath:
    """<image>.qupath.geojson (or .gz) for each slide: a FeatureCollection, streamed, one feature per line.

    Areas and boxes are detections, of which QuPath draws thousands fast, tiles are tiles, regions annotations. So are
    cores of a tissue microarray: QuPath leaves objects of its type tmaCore out when it imports a file. Numeric
    columns of findings are measurements, the others metadata. Ids are UUIDs of the slide's and the finding's content,
    so that a finding keeps its id in any run. QuPath ignores the member `limner`, which holds use, model and versions.
    """

    name: str = "qupath"
    suffix: Suffix = ".geojson"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write a file per slide into `folder`."""
        palette = Palette.of(record.labels, record.colours)
        omitted = self.omitted(record)

        def write_one(image: ImageRecord) -> Path:
            path = image_file(folder, "", image.info.id, f".qupath{self.suffix}")
            with atomic_path(path) as part, _text(part, compressed=self.suffix.endswith(".gz")) as file:
                _write(record, image, palette, file)
            return path

        return write_per_image([image for image in record.images if image.info.id not in omitted], write_one)

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Maps and studies."""
        return {image.info.id: reason for image in record.images if (reason := _omission(image.info))}


def compressed() -> QuPath:
    """The writer of `.geojson.gz`, which QuPath opens as well."""
    return QuPath("qupath-gz", ".geojson.gz")


def _omission(info: ImageInfo) -> str:
    if info.placement.crs is not None:
        return "it is a map: use GeoJSON or GeoPackage instead of QuPath"
    return "it is a radiology study: QuPath reads slides" if info.kind == "study" else ""


@contextmanager
def _text(path: Path, *, compressed: bool) -> Generator[TextIO]:
    """A UTF-8 file, or a gzip file without time and name, so that the same text gives the same bytes."""
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
        "title": TITLES["pixels"],
        "use": clean_text(record.use),
        "image": clean_text(image.info.id),
        "name": clean_text(image.name or image.info.id),
        "origin": list(image.info.origin),
        "model": {clean_text(key): clean_text(value) for key, value in sorted(record.model.items())},
        "version": record.version,
    }
    file.write(f'{{"type":"FeatureCollection",\n"limner":{_json(about)},\n"features":[')
    separator = "\n"
    for feature in _cores(image):
        file.write(separator + _json(feature))
        separator = ",\n"
    every = findings_columns(record, image.findings())
    columns = [one for one in every if one.topic in {"identity", "finding"}]
    for batch in batches(record, [image]):
        rows = zip(
            _names(batch),
            batch.table.label.tolist(),
            batch.table.kind.tolist(),
            _geometries(batch),
            _values(batch, columns),
            strict=True,
        )
        for name, found, kind, geometry, (measurements, metadata) in rows:
            label, colour = clean_text(found), list(rgb(palette[found]))
            properties: dict[str, Any] = {
                "objectType": _OBJECTS[kind],
                "name": f"{label} {metadata['finding']}",
                "color": colour,
                "classification": {"name": label, "color": colour},
            }
            if _OBJECTS[kind] == "annotation":
                properties["isLocked"] = True
            properties |= {"measurements": measurements, "metadata": metadata}
            feature = {"type": "Feature", "id": name, "properties": properties}
            file.write(f'{separator}{_json(feature)[:-1]},"geometry":{geometry}}}')
            separator = ",\n"
    file.write("\n]}\n")


def _cores(image: ImageRecord) -> Iterator[dict[str, Any]]:
    """A locked annotation for each core of a tissue microarray: a circle a little larger than a usual core."""
    grid = CoreGrid.of(image.info)
    if grid is None:
        return
    for core in grid.cores:
        circle = shapely.Point(core.x, core.y).buffer(grid.radius, quad_segs=16)
        rows = shapely.get_coordinates(circle) - image.info.origin
        status = "missing" if core.missing else "present"
        properties: dict[str, Any] = {
            "objectType": "annotation",
            "name": core.name,
            "color": list(MISSING if core.missing else PRESENT),
            "isLocked": True,
            "measurements": {"pieces": core.pieces},
            "metadata": {"core": core.name, "row": str(core.row), "column": str(core.column), "status": status},
        }
        name = uuid.uuid5(_NAMESPACE, _json([image.info.fingerprint or image.info.id, image.info.part, core.name]))
        geometry = {"type": "Polygon", "coordinates": [np.round(rows, 2).tolist()]}
        yield {"type": "Feature", "id": str(name), "properties": properties, "geometry": geometry}


def _names(batch: FindingsBatch) -> Iterator[str]:
    """A UUID for each finding, of its slide, geometry and texts."""
    info, seen, table = batch.image.info, batch.identifiers, batch.table
    shapes = shapely.to_wkb(shapely.normalize(batch.geometries), hex=True, byte_order=1)
    for kind, label, text, where in zip(table.kind, table.label, table.text, shapes, strict=True):
        texts = [kind, clean_text(label), clean_text(text)]
        name = uuid.uuid5(_NAMESPACE, _json([info.fingerprint or info.id, info.part, *texts, where]))
        yield str(uuid.uuid5(name, str(seen[name])) if seen[name] else name)
        seen[name] += 1


def _values(
    batch: FindingsBatch, columns: Sequence[Column[FindingsBatch]]
) -> Iterator[tuple[dict[str, float], dict[str, str]]]:
    """Each finding's measurements (finite numbers only, or QuPath refuses the file) and metadata (texts)."""
    columns_values = [(one.name, one.dtype == "float64", one.json_values(batch)) for one in columns]
    for row in range(len(batch)):
        known = [
            (name, number, values[row]) for name, number, values in columns_values if values[row] not in {None, ""}
        ]
        yield (
            {name: value for name, number, value in known if number},
            {
                name: value if isinstance(value, str) else plain_text(value)
                for name, number, value in known
                if not number
            },
        )


def _geometries(batch: FindingsBatch) -> Iterator[str]:
    """GeoJSON texts of polygons, rounded as QuPath does, from the scanned area's corner; points where no area is left.

    A MultiPolygon has more than one part, and there is no GeometryCollection: other programs fail on either.
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
        yield _TRAILING_ZERO.sub("", str(text))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
