"""What a person outlined, placed on the images: GeoJSON drawn in QGIS or QuPath, a folder of it, or a CSV.

On maps GeoJSON is in longitude and latitude, or in the CRS that it states; on all other pictures in pixels, as QuPath
exports it. A CSV is in pixels unless its rows state a `crs`.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from ...model.annotator import UNDECIDED
from ...model.training.training_tiles import Outline
from ...readers.annotations import (
    AnnotatedPolygon,
    format_bounds,
    from_crs,
    lonlat_bounds,
    polygons_to_pixels,
    read_polygons,
)
from ...readers.errors import ReadError, RequestError
from ...readers.files import read_file
from ...readers.geodesy import from_lonlat, on_earth
from ...readers.image import ImageInfo

FIELDS: Final = ("label", "class")
"""Properties that hold the label where no field is named, after QuPath's `classification`."""

_SUFFIXES: Final = (".geojson.gz", ".geojson", ".json")


@dataclass(frozen=True, slots=True)
class Labels:
    """Outlines by image id. `beyond` counts those that lie on none of the images, `bare` those without a label.

    `digests` are the sha256 of the files, by their number, in order.
    """

    outlines: Mapping[str, tuple[Outline, ...]]
    beyond: int
    bare: int
    digests: Mapping[str, str]

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, sorted."""
        return tuple(sorted({outline.label for some in self.outlines.values() for outline in some}))


@dataclass(slots=True)
class _Found:
    """What has been read so far."""

    outlines: dict[str, list[Outline]] = field(default_factory=dict[str, list[Outline]])
    drawn: int = 0
    beyond: int = 0
    bare: int = 0
    extents: list[str] = field(default_factory=list[str])

    def put(self, info: ImageInfo, label: str, geometry: BaseGeometry, name: str) -> bool:
        """Keep an outline where it lies on the image; whether it does."""
        if geometry.is_empty:
            return False
        self.outlines.setdefault(info.id, []).append(Outline(label, geometry, name))
        return True


def label_files(path: str) -> list[Path]:
    """The files that labels come from: one, or those of a folder, sorted. Raises `RequestError` where there is none."""
    given = Path(path)
    if not given.is_dir():
        return [given]
    try:
        files = sorted(one for one in given.iterdir() if one.name.endswith(_SUFFIXES) and not one.name.startswith("."))
    except OSError as error:
        raise RequestError(
            f"labels {path}", "the folder must be readable", value=str(error), remedy="Check the path and rights"
        ) from error
    if not files:
        raise RequestError(
            f"labels {path}",
            "the folder must hold GeoJSON files",
            value="none",
            remedy="Name each like its image: field-1.geojson for field-1.tif",
        )
    return files


def read_labels(path: str, infos: Sequence[ImageInfo], *, label_field: str = "") -> Labels:
    """The outlines of a file or a folder, on the images that they lie on.

    A GeoJSON file of maps is placed on every image that it touches; one in pixels belongs to the only image, or, in a
    folder, to the image that it is named like. A CSV has the columns image (a file's name), label, and x and y or wkt;
    a row's `crs` says what its coordinates are in, pixels where there is none. Raises `RequestError`: files that cannot
    be read, no label field, labels that all lie beside the images, fewer than two classes.
    """
    subject = f"labels {path}"
    files = label_files(path)
    found = _Found()
    for number, file in enumerate(files, start=1):
        if file.suffix == ".csv":
            _read_csv(file, infos, label_field, found)
        else:
            _read_geojson(
                file, infos, label_field, found, number=number if len(files) > 1 or Path(path).is_dir() else 0
            )
    if not found.drawn:
        raise RequestError(subject, "it must hold outlines", value="none", remedy="Outline some places of each class")
    if not found.outlines:
        raise RequestError(
            subject,
            "some of them must lie on an image",
            value=f"{found.beyond} beside all of them: {'; '.join(dict.fromkeys(found.extents))}",
            remedy="Check that they were drawn on these images. GeoJSON of maps says longitude first, or its crs; "
            "that of other pictures is in pixels",
        )
    digests = {f"file {n}": hashlib.sha256(file.read_bytes()).hexdigest() for n, file in enumerate(files, start=1)}
    outlines = {image: tuple(some) for image, some in sorted(found.outlines.items())}
    labels = Labels(outlines, found.beyond, found.bare, digests)
    if UNDECIDED in labels.classes:
        raise RequestError(
            subject, f"no class may be called {UNDECIDED}", remedy="That is what tiles are called between two classes"
        )
    return labels


def in_pixels(info: ImageInfo) -> bool:
    """Whether people draw on an image in pixels: slides, studies, and pictures without a place on the Earth."""
    return info.kind != "map" or not on_earth(info.placement)


def _read_geojson(path: Path, infos: Sequence[ImageInfo], label_field: str, found: _Found, *, number: int) -> None:
    subject = f"labels {path}"
    named = next(path.name.removesuffix(end) for end in (*_SUFFIXES, "") if path.name.endswith(end))
    pixels = [info for info in infos if in_pixels(info)]
    maps = [info for info in infos if not in_pixels(info)]
    if pixels and number:
        own = [info for info in pixels if Path(info.uri).stem == named or info.id == named]
        pixels = own if own or maps else pixels[:0]
        if not own and not maps:
            raise RequestError(
                subject,
                "a file of outlines in pixels must be named like one of the images",
                value=named,
                remedy="Rename it, or take it out of the folder",
            )
    if len(pixels) > 1:
        raise RequestError(
            subject,
            "outlines in pixels must belong to one image",
            value=f"{len(pixels)} images",
            remedy="Give a folder with a GeoJSON file for each image, named like it; or a CSV with a column image",
        )
    for some, frame in ((pixels, "pixels"), (maps, "lonlat")):
        if some:
            shapes = read_polygons(str(path), subject, "pixels" if frame == "pixels" else "lonlat")
            _place(_labelled(shapes, subject, label_field, found), some, found, prefix=f"{number}:")


def _labelled(
    shapes: Sequence[AnnotatedPolygon], subject: str, label_field: str, found: _Found
) -> list[tuple[str, AnnotatedPolygon]]:
    """(label, shape) of each shape that has one. Raises `RequestError` that lists fields where none has."""
    if not shapes:
        return []
    wanted = (label_field,) if label_field else ("classification", *FIELDS)
    chosen = next((name for name in wanted if any(_text(shape.properties.get(name)) for shape in shapes)), None)
    if chosen is None:
        fields = sorted({name for shape in shapes for name in shape.properties})
        raise RequestError(
            subject,
            f"its outlines must have their label in the field {label_field!r}"
            if label_field
            else "its outlines must have their label in QuPath's classification, or in a field label or class",
            value=f"fields: {', '.join(fields) or 'none'}",
            remedy="Name the field with --label-field",
        )
    labelled = [(_text(shape.properties.get(chosen)), shape) for shape in shapes]
    found.bare += sum(not label for label, _ in labelled)
    return [(label, shape) for label, shape in labelled if label]


def _text(value: object) -> str:
    """A label: a text, a number, or what QuPath calls a classification."""
    if isinstance(value, dict):
        named = cast("Mapping[str, Any]", value).get("name", cast("Mapping[str, Any]", value).get("names"))
        value = ": ".join(map(str, cast("list[Any]", named))) if isinstance(named, list) else named
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _place(
    labelled: Sequence[tuple[str, AnnotatedPolygon]], infos: Sequence[ImageInfo], found: _Found, *, prefix: str
) -> None:
    """Put shapes on the images that they touch, and count those that touch none."""
    found.drawn += len(labelled)
    touched: Counter[int] = Counter()
    for info in infos:
        geometries = [shape.geometry for _, shape in labelled]
        placed = _on_picture(geometries, info) if in_pixels(info) else polygons_to_pixels(geometries, info)
        for index, ((label, shape), geometry) in enumerate(zip(labelled, placed, strict=True)):
            touched[index] += found.put(info, label, geometry, f"{prefix}{shape.feature}")
    missed = [shape.geometry for index, (_, shape) in enumerate(labelled) if not touched[index]]
    found.beyond += len(missed)
    if missed:
        found.extents.append(_extents(missed, infos[0]))


def _on_picture(geometries: Sequence[BaseGeometry], info: ImageInfo) -> list[BaseGeometry]:
    """Geometries in pixels, as other programs count them, in level-0 pixels and cut to the picture."""
    picture = shapely.box(0.0, 0.0, *info.size)
    origin = np.asarray(info.origin, dtype=np.float64)
    return [shapely.transform(one, lambda xy: xy + origin).intersection(picture) for one in geometries]


def _extents(missed: Sequence[BaseGeometry], info: ImageInfo) -> str:
    """Where outlines lie that lie beside an image, and where the image lies."""
    x0, y0, x1, y1 = shapely.total_bounds(np.asarray(missed, dtype=object)).tolist()
    if in_pixels(info):
        whole = f"{info.id} spans x 0 to {info.size[0]}, y 0 to {info.size[1]}"
        return f"they span x {x0:g} to {x1:g}, y {y0:g} to {y1:g}; {whole}"
    return f"they span {format_bounds((x0, y0, x1, y1))}; {info.id} spans {format_bounds(lonlat_bounds(info))}"


def _read_csv(path: Path, infos: Sequence[ImageInfo], label_field: str, found: _Found) -> None:
    subject = f"labels {path}"
    try:
        text = read_file(path).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), restkey="", restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RequestError(
            subject, "it must be a readable CSV file", value=str(error), remedy="Check the path"
        ) from error
    columns = list(rows[0]) if rows else []
    label_column = label_field or next((name for name in FIELDS if name in columns), "label")
    needed = [label_column, *([] if "wkt" in columns else ["x", "y"]), *([] if len(infos) == 1 else ["image"])]
    absent = [name for name in needed if name not in columns]
    if rows and absent:
        raise RequestError(
            subject,
            "it must have the columns image, label, and x and y or wkt",
            value=f"columns: {', '.join(columns)}; no {', '.join(absent)}",
            remedy="Add what is absent, or name the label's column with --label-field",
        )
    for number, row in enumerate(rows, start=2):  # the first line holds the columns' names
        label = (row[label_column] or "").strip()
        if not label:
            found.bare += 1
            continue
        found.drawn += 1
        info = _image_of(row.get("image") or "", infos, f"{subject}, line {number}")
        try:
            geometry = _geometry(row, info)
        except (ValueError, shapely.GEOSException, ReadError) as error:
            raise RequestError(
                f"{subject}, line {number}",
                "its place must be x and y, or the WKT of a polygon or a point",
                value=str(error)[:200],
                remedy="Correct the line",
            ) from error
        [placed] = _on_picture([geometry], info) if not row.get("crs") else [geometry]
        if not found.put(info, label, placed, f"line {number}"):
            found.beyond += 1
            found.extents.append(_extents([geometry], info) if not row.get("crs") else f"line {number} is beside")


def _image_of(name: str, infos: Sequence[ImageInfo], subject: str) -> ImageInfo:
    if not name and len(infos) == 1:
        return infos[0]
    wanted = {name, Path(name).name}
    matching = [info for info in infos if wanted & {info.id, Path(info.uri).name, Path(info.uri).stem}]
    if len(matching) != 1:
        raise RequestError(
            subject,
            "its image must be one of those that are read",
            value=f"{name!r} is the name of {len(matching)} of {len(infos)}",
            remedy="Write the file's name, or the id that `limner info` shows",
        )
    return matching[0]


def _geometry(row: Mapping[str, str], info: ImageInfo) -> BaseGeometry:
    """A row's geometry: in pixels as other programs count, or, where it states a crs, in level-0 pixels on the picture.

    Raises `ValueError`, `GEOSException` or `ReadError` for what is none.
    """
    text = (row.get("wkt") or "").strip()
    shape = shapely.from_wkt(text) if text else shapely.Point(float(row["x"]), float(row["y"]))
    if shape.is_empty or shape.geom_type not in {"Point", "Polygon", "MultiPolygon"}:
        msg = text or "nothing"
        raise ValueError(msg)
    if not np.isfinite(shapely.get_coordinates(shape)).all():
        msg = "coordinates that are not finite"
        raise ValueError(msg)
    crs = (row.get("crs") or "").strip()
    if not crs:
        return shape if shape.geom_type == "Point" else shapely.make_valid(shape)
    lonlat = shapely.transform(shape, lambda xy: from_crs(crs, xy))
    if shape.geom_type != "Point":
        [placed] = polygons_to_pixels([lonlat], info)
        return placed
    point = shapely.transform(lonlat, lambda xy: from_lonlat(info.placement, xy))
    return point.intersection(shapely.box(0.0, 0.0, *info.size))
