"""QuPath's GeoJSON: one file per slide, to be dropped on QuPath's window.

As QuPath 0.5 to 0.7 read it, coordinates are pixels from the corner of the scanned area (`openslide.bounds`); a
classification is an object with a colour; measurements must be numbers, texts are metadata; ids must be UUIDs.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import gzip
import hashlib
import re
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, cast

import numpy as np
import shapely

from ..model.finding import Kind
from ..readers.annotations import TITLES
from ..readers.files import atomic_path
from ..readers.image import ImageInfo
from ..readers.slide.tma import CoreGrid
from .cells import Cells, text_cells
from .columns import findings_columns
from .cores import MISSING, PRESENT
from .csv_safety import clean_text
from .json_cells import FIRST, encode, features, member_cells, ring_texts, row_numbers
from .measures import FindingsBatch
from .palette import Palette, rgb
from .snapping import only_rounded, snapped_rings
from .streams import Stream, stream_per_image, write_stream
from .writer import ImageRecord, Record, image_file

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
        return write_stream(self.stream(record, folder), record)

    def stream(self, record: Record, folder: Path) -> Stream:
        """Write a file per slide, batch by batch."""
        return (yield from stream_per_image(partial(self._write, record, folder), self.omitted(record)))

    def _write(self, record: Record, folder: Path, image: ImageRecord) -> Stream:
        path = image_file(folder, "", image.info.id, f".qupath{self.suffix}")
        with atomic_path(path) as part, _opened(part, compressed=self.suffix.endswith(".gz")) as opened:
            file = _File(opened, record, image)
            while (batch := (yield)) is not None:
                file.add(batch)
            opened.write(b"\n]}\n")
        return [path]

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
def _opened(path: Path, *, compressed: bool) -> Generator[BinaryIO]:
    """A file, or a gzip file without time and name, so that the same content gives the same bytes."""
    with path.open("wb") as raw:
        if not compressed:
            yield raw
            return
        with gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
            yield cast("BinaryIO", packed)
            packed.flush()  # as earlier versions did, whose bytes stay the same


class _File:
    """A file of a slide, to which features are added."""

    def __init__(self, file: BinaryIO, record: Record, image: ImageRecord) -> None:
        about = {
            "title": TITLES["pixels"],
            "use": clean_text(record.use),
            "image": clean_text(image.info.id),
            "name": clean_text(image.name or image.info.id),
            "origin": list(image.info.origin),
            "model": {clean_text(key): clean_text(value) for key, value in sorted(record.model.items())},
            "version": record.version,
        }
        self._write, self._seen = file.write, dict[bytes, int]()
        self._palette = Palette.of(record.labels, record.colours)
        every = findings_columns(record, image.findings())
        self._columns = [one for one in every if one.topic in {"identity", "finding"}]
        cores = ",\n".join(map(encode, _cores(image)))
        head = f'{{"type":"FeatureCollection",\n"limner":{encode(about)},\n"features":['
        self._write(f"{head}\n{cores}".encode() if cores else head.encode())
        self._first = 0 if cores else 1  # the first feature has no comma before it

    def add(self, batch: FindingsBatch) -> None:
        """Add findings."""
        if not len(batch):
            return
        kinds = list(zip(batch.table.kind.tolist(), batch.table.label.tolist(), strict=True))
        heads = {one: self._head(*one) for one in set(kinds)}
        measured = [one for one in self._columns if one.dtype == "float64"]
        texts = [one for one in self._columns if one.dtype != "float64"]
        made = features(
            [
                b'{"type":"Feature","id":"',
                _uuid_cells(_names(batch, self._seen)),
                text_cells([heads[one][0] for one in kinds]),
                row_numbers(batch.first, len(batch)),
                text_cells([heads[one][1] for one in kinds]),
                b',"measurements":{' + FIRST,
                *(part for one in measured for part in member_cells(one, batch, null=False)),
                b'},"metadata":{' + FIRST,
                *(part for one in texts for part in member_cells(one, batch, null=False, text=True)),
                b'}},"geometry":',
                _geometries(batch),
                b"}",
            ],
            len(batch),
        )
        self._write(memoryview(made)[self._first :])
        self._first = 0

    def _head(self, kind: Kind, found: str) -> tuple[str, str]:
        """What stands before and after the number of a finding of this kind and label."""
        label, colour = clean_text(found), list(rgb(self._palette[found]))
        name = encode(f"{label} ")[:-1]
        locked = ',"isLocked":true' if _OBJECTS[kind] == "annotation" else ""
        shown = f'"color":{encode(colour)},"classification":{encode({"name": label, "color": colour})}{locked}'
        return f'","properties":{{"objectType":"{_OBJECTS[kind]}","name":{name}', f'",{shown}'


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
        name = uuid.uuid5(_NAMESPACE, encode([image.info.fingerprint or image.info.id, image.info.part, core.name]))
        geometry = {"type": "Polygon", "coordinates": [np.round(rows, 2).tolist()]}
        yield {"type": "Feature", "id": str(name), "properties": properties, "geometry": geometry}


def _names(batch: FindingsBatch, seen: dict[bytes, int]) -> list[bytes]:
    """A UUID for each finding, of its slide, geometry and texts; `seen` are those of earlier ones."""
    info, table, found = batch.image.info, batch.table, list[bytes]()
    shapes = shapely.to_wkb(shapely.normalize(batch.geometries), byte_order=1).tolist()
    begun: dict[tuple[str, ...], Any] = {}
    for of, where in zip(zip(table.kind, table.label, table.text, strict=True), shapes, strict=True):
        if of not in begun:
            kind, label, text = of
            content = encode([info.fingerprint or info.id, info.part, kind, clean_text(label), clean_text(text)])
            begun[of] = hashlib.sha1(_NAMESPACE.bytes + content[:-1].encode() + b',"', usedforsecurity=False)
        digest = begun[of].copy()
        digest.update(where.hex().upper().encode() + b'"]')
        name = digest.digest()[:16]
        before = seen.get(name, 0)
        seen[name] = before + 1
        found.append(uuid.uuid5(uuid.UUID(bytes=name, version=5), str(before)).bytes if before else name)
    return found


def _uuid_cells(hashes: Sequence[bytes]) -> Cells:
    """UUIDs of version 5 as texts, of the first 16 bytes of SHA-1 hashes."""
    octets = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 16).copy()
    octets[:, 6], octets[:, 8] = octets[:, 6] & 0x0F | 0x50, octets[:, 8] & 0x3F | 0x80
    digits = np.frombuffer(octets.tobytes().hex().encode(), np.uint8).reshape(-1, 32)
    return np.insert(digits, (8, 12, 16, 20), ord("-"), axis=1)


def _geometries(batch: FindingsBatch) -> list[bytes]:
    """GeoJSON texts of polygons, rounded as QuPath does, from the scanned area's corner; points where no area is left.

    A MultiPolygon has more than one part, and there is no GeometryCollection: other programs fail on either.
    """
    found: list[bytes | None] = [None] * len(batch)
    shapes, origin = batch.geometries, batch.image.info.origin
    simple = only_rounded(shapes, batch.image.scale, _GRID)
    xy, *ends = snapped_rings(shapes[simple], _GRID)
    texts = ring_texts(np.round(xy - origin, 2) + 0.0, (ends[0], ends[1]), 2, 0)
    for place, text in zip(simple.tolist(), texts, strict=True):
        found[place] = text
    others = [place for place, text in enumerate(found) if text is None]
    snapped = shapely.set_precision(shapes[others], _GRID)
    for place in np.flatnonzero((shapely.get_type_id(snapped) != _POLYGON) | shapely.is_empty(snapped)):
        parts = shapely.get_parts(snapped[place], return_index=False)
        polygons = [part for part in parts if part.geom_type == "Polygon" and not part.is_empty]
        if not polygons:
            snapped[place] = shapely.point_on_surface(shapes[others[place]])
        else:
            snapped[place] = polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)
    moved = shapely.to_geojson(shapely.transform(snapped, lambda xy: np.round(xy - origin, 2) + 0.0))
    for place, text in zip(others, moved, strict=True):
        found[place] = _TRAILING_ZERO.sub("", str(text)).encode()
    return cast("list[bytes]", found)
