"""Read the user's outlines and place them on the images: GeoJSON and its like of QGIS or QuPath, a folder, or a CSV.

Its like are the formats of `readers.vectors`, for which all holds that is said of GeoJSON. GeoJSON of maps is in
longitude and latitude, or in the CRS that it states; that of all other images is in pixels, as QuPath exports it. A CSV
is in pixels unless its rows state a `crs`.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import csv
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
from ...model.training.tile_labels import Outline
from ...readers.annotations import (
    AnnotatedPolygon,
    check_pixels,
    format_bounds,
    from_crs,
    in_pixels,
    lonlat_bounds,
    polygons_to_pixels,
    read_polygons,
)
from ...readers.errors import ReadError, RequestError
from ...readers.files import read_file
from ...readers.geodesy import from_lonlat
from ...readers.image import ImageInfo
from ...readers.vectors import SUFFIXES, vector_digest

FIELDS: Final = ("label", "class")
"""Properties with the label where no field is named, after QuPath's `classification`."""

_SUFFIXES: Final = (".geojson.gz", ".geojson", ".json", *SUFFIXES)


@dataclass(frozen=True, slots=True)
class Labels:
    """Outlines by image."""

    outlines: Mapping[str, tuple[Outline, ...]]
    """By image id."""
    outside: int
    """Number of outlines that lie on none of the images."""
    unlabelled: int
    """Number of outlines without a label."""
    digests: Mapping[str, str]
    """The sha256 of each file, by its number."""
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])
    """How many findings of reviews are not used, by reason."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, sorted."""
        return tuple(sorted({outline.label for several in self.outlines.values() for outline in several}))


@dataclass(slots=True)
class _Found:
    """Outlines while they are read."""

    outlines: dict[str, list[Outline]] = field(default_factory=dict[str, list[Outline]])
    labelled: int = 0
    outside: int = 0
    unlabelled: int = 0
    extents: list[str] = field(default_factory=list[str])
    """Where outlines lie that lie on no image."""

    def add(self, info: ImageInfo, label: str, geometry: BaseGeometry, name: str) -> bool:
        """Add an outline unless it is empty on this image; returns whether it was added."""
        if geometry.is_empty:
            return False
        self.outlines.setdefault(info.id, []).append(Outline(label, geometry, name))
        return True


def label_files(path: str) -> list[Path]:
    """The label files at a path: the file, or the vector files of a folder, sorted. Raises `RequestError`."""
    folder = Path(path)
    if not folder.is_dir():
        return [folder]
    try:
        files = sorted(one for one in folder.iterdir() if one.name.endswith(_SUFFIXES) and not one.name.startswith("."))
    except OSError as error:
        raise RequestError(
            f"label folder {path}", "must be readable", value=str(error), remedy="Check the path and its permissions"
        ) from error
    if not files:
        raise RequestError(
            f"label folder {path}",
            "must hold GeoJSON files",
            value="none",
            remedy="Name each like its image: field-1.geojson for field-1.tif",
        )
    return files


def read_labels(path: str, infos: Sequence[ImageInfo], *, label_field: str = "") -> Labels:
    """Read the outlines of a file or a folder, and place them on the images.

    GeoJSON of maps is placed on every image that it intersects; GeoJSON in pixels belongs to the only image, or, in a
    folder, to the image with the file's name. A CSV has the columns image, label, and x and y or wkt. Raises
    `RequestError` for a file that cannot be read, a missing label field, and labels of which none lies on an image.
    """
    subject = f"labels {path}"
    files = label_files(path)
    found = _Found()
    numbered = len(files) > 1 or Path(path).is_dir()
    for number, file in enumerate(files, start=1):
        if file.suffix == ".csv":
            _read_csv(file, infos, label_field, found)
        else:
            _read_geojson(file, infos, label_field, found, number=number if numbered else 0)
    if not found.labelled:
        raise RequestError(subject, "must hold outlines", value="none", remedy="Outline some places of each class")
    if not found.outlines:
        raise RequestError(
            subject,
            "must have outlines on the images",
            value=f"{found.outside} beside all of them: {'; '.join(dict.fromkeys(found.extents))}",
            remedy="Check that they were drawn on these images: GeoJSON of maps has longitude first or states its crs, "
            "that of other images is in pixels",
        )
    digests = {f"file {n}": vector_digest(str(file)) for n, file in enumerate(files, start=1)}
    outlines = {image: tuple(several) for image, several in sorted(found.outlines.items())}
    labels = Labels(outlines, found.outside, found.unlabelled, digests)
    if UNDECIDED in labels.classes:
        raise RequestError(
            subject, f"must not have a class {UNDECIDED}", remedy="Rename it: tiles between two classes are called that"
        )
    return labels


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
                "must be named like one of the images, since its outlines are in pixels",
                value=named,
                remedy="Rename it, or remove it from the folder",
            )
    if len(pixels) > 1:
        raise RequestError(
            subject,
            "must belong to one image, since its outlines are in pixels",
            value=f"{len(pixels)} images",
            remedy="Give a folder with a GeoJSON file for each image, named like it, or a CSV with a column image",
        )
    for several, frame in ((pixels, "pixels"), (maps, "lonlat")):
        if several:
            shapes = read_polygons(str(path), subject, "pixels" if frame == "pixels" else "lonlat")
            if frame == "pixels":
                check_pixels([shape.geometry for shape in shapes], several[0], subject)
            _place(_labelled(shapes, subject, label_field, found), several, found, prefix=f"{number}:")


def _labelled(
    shapes: Sequence[AnnotatedPolygon], subject: str, label_field: str, found: _Found
) -> list[tuple[str, AnnotatedPolygon]]:
    """(label, shape) of each shape with a label. Raises `RequestError` that lists the fields where none has one."""
    if not shapes:
        return []
    candidates = (label_field,) if label_field else ("classification", *FIELDS)
    chosen = next((name for name in candidates if any(_text(shape.properties.get(name)) for shape in shapes)), None)
    if chosen is None:
        fields = sorted({name for shape in shapes for name in shape.properties})
        raise RequestError(
            subject,
            f"must have the outlines' labels in the field {label_field!r}"
            if label_field
            else "must have the outlines' labels in QuPath's classification, or in a field label or class",
            value=f"fields: {', '.join(fields) or 'none'}",
            remedy="Name the field with --label-field",
        )
    labelled = [(_text(shape.properties.get(chosen)), shape) for shape in shapes]
    found.unlabelled += sum(not label for label, _ in labelled)
    return [(label, shape) for label, shape in labelled if label]


def _text(value: object) -> str:
    """The text of a label: a string, a number, or QuPath's classification."""
    if isinstance(value, dict):
        named = cast("Mapping[str, Any]", value).get("name", cast("Mapping[str, Any]", value).get("names"))
        value = ": ".join(map(str, cast("list[Any]", named))) if isinstance(named, list) else named
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _place(
    labelled: Sequence[tuple[str, AnnotatedPolygon]], infos: Sequence[ImageInfo], found: _Found, *, prefix: str
) -> None:
    """Add shapes to the images that they intersect, and count those that intersect none."""
    found.labelled += len(labelled)
    hits: Counter[int] = Counter()
    for info in infos:
        geometries = [shape.geometry for _, shape in labelled]
        placed = _on_image(geometries, info) if in_pixels(info) else polygons_to_pixels(geometries, info)
        for index, ((label, shape), geometry) in enumerate(zip(labelled, placed, strict=True)):
            hits[index] += found.add(info, label, geometry, f"{prefix}{shape.feature}")
    missed = [shape.geometry for index, (_, shape) in enumerate(labelled) if not hits[index]]
    found.outside += len(missed)
    if missed:
        found.extents.append(_extents(missed, infos[0]))


def _on_image(geometries: Sequence[BaseGeometry], info: ImageInfo) -> list[BaseGeometry]:
    """Geometries in pixels of the visible area, as other programs count them → level-0 pixels, clipped to the image."""
    frame = shapely.box(0.0, 0.0, *info.size)
    origin = np.asarray(info.origin, dtype=np.float64)
    return [shapely.transform(one, lambda xy: xy + origin).intersection(frame) for one in geometries]


def _extents(missed: Sequence[BaseGeometry], info: ImageInfo) -> str:
    """The extents of outlines beside an image, and of the image."""
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
        raise RequestError(subject, "must be a readable CSV file", value=str(error), remedy="Check the path") from error
    columns = list(rows[0]) if rows else []
    label_column = label_field or next((name for name in FIELDS if name in columns), "label")
    needed = [label_column, *([] if "wkt" in columns else ["x", "y"]), *([] if len(infos) == 1 else ["image"])]
    missing = [name for name in needed if name not in columns]
    if rows and missing:
        raise RequestError(
            subject,
            "must have the columns image, label, and x and y or wkt",
            value=f"columns: {', '.join(columns)}; no {', '.join(missing)}",
            remedy="Add the missing columns, or name the label's column with --label-field",
        )
    for number, row in enumerate(rows, start=2):  # the first line holds the columns' names
        label = (row[label_column] or "").strip()
        if not label:
            found.unlabelled += 1
            continue
        found.labelled += 1
        info = _image_of(row.get("image") or "", infos, f"{subject}, line {number}")
        try:
            geometry = _geometry(row, info)
        except (ValueError, shapely.GEOSException, ReadError) as error:
            raise RequestError(
                f"{subject}, line {number}",
                "must have x and y, or the WKT of a polygon or a point",
                value=str(error)[:200],
                remedy="Correct the line",
            ) from error
        [placed] = _on_image([geometry], info) if not row.get("crs") else [geometry]
        if not found.add(info, label, placed, f"line {number}"):
            found.outside += 1
            found.extents.append(_extents([geometry], info) if not row.get("crs") else f"line {number} is beside")


def _image_of(name: str, infos: Sequence[ImageInfo], subject: str) -> ImageInfo:
    if not name and len(infos) == 1:
        return infos[0]
    names = {name, Path(name).name}
    matching = [info for info in infos if names & {info.id, Path(info.uri).name, Path(info.uri).stem}]
    if len(matching) != 1:
        raise RequestError(
            subject,
            "must name one of the images that are read",
            value=f"{name!r} is the name of {len(matching)} of {len(infos)}",
            remedy="Write the file's name, or the id that `limner info` shows",
        )
    return matching[0]


def _geometry(row: Mapping[str, str], info: ImageInfo) -> BaseGeometry:
    """A row's geometry: in the file's pixels, or, where it states a crs, in level-0 pixels, clipped to the image.

    Raises `ValueError`, `GEOSException` or `ReadError` for an invalid one.
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
