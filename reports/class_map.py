"""The classes of a segmentation as a raster on the analysed grid: a cloud-optimised GeoTIFF, or an OME-TIFF for slides.

Areas are traced along the edges of analysed pixels, so that drawing the outlines gives back the class of every pixel.
"""
# rasterio and shapely leave some of their arguments untyped:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt
import shapely

from ..model.findings_table import FindingsTable, spans
from ..model.merged_findings import columnar, in_batches
from ..readers.errors import ReadError
from ..readers.files import atomic_path
from ..readers.geometry import Points
from ..readers.regions import Grid, Region
from ..readers.scratch import scratch_array
from .csv_safety import clean_text
from .measures import all_labels
from .palette import Palette, rgb
from .rasters import Raster, write_cog, write_ome_tiff
from .writer import ImageRecord, Record, image_file, write_per_image

Classes = npt.NDArray[np.uint8]

NONE: Final = 0
"""The value of analysed pixels without a class."""

NODATA: Final = 255
"""The value of pixels that were not analysed, or have no data."""


@dataclass(frozen=True, slots=True)
class ClassMap:
    """classes-<image id>.tif or .ome.tif: the number of the class of every analysed pixel.

    1 is the first of the model's labels, 0 none of them, 255 what was not analysed or has no data. Maps are
    cloud-optimised GeoTIFFs with a colour table, whose reduced levels have the most frequent class, with a style for
    QGIS beside them. Slides are OME-TIFFs with pixel sizes in µm. Pixels are those of the analysis, north-up.
    """

    name: str = "class-map"
    on_request: bool = True

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write a file per map and slide into `folder`, and a style per map."""
        omitted = self.omitted(record)
        chosen = [image for image in record.images if image.info.id not in omitted]
        paths = write_per_image(chosen, lambda image: _write(record, image, folder))
        return [*paths, *(style for path in paths if (style := path.with_suffix(".qml")).exists())]

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Studies, images placed by control points, and those whose findings are no areas."""
        found = {image.info.id: _omission(record, image) for image in record.images}
        return {name: reason for name, reason in found.items() if reason}


def _omission(record: Record, image: ImageRecord) -> str:
    if image.info.kind == "study":
        return "it is a study: use nifti or dicom-seg"
    if image.info.placement.warp is not None:
        return "it is placed by control points, so its pixels are on no regular grid"
    if image.analysed is None:
        return "it is not known which of its pixels were analysed"
    others = sorted({kind for batch in _batches(image) for kind in batch.kind[~batch.is_area].tolist()})
    if others:
        return f"its findings are not areas of pixels, but of the kind {' or '.join(others)}"
    return f"it has more than {NODATA - 1} labels" if len(image_labels(record, image)) >= NODATA else ""


def image_labels(record: Record, image: ImageRecord) -> list[str]:
    """The labels by number, from 1: the model's, then others that the image has."""
    return all_labels(record, [label for batch in _batches(image) for label in set(batch.label.tolist())])


def _batches(image: ImageRecord) -> Iterator[FindingsTable]:
    return (table for _, table in in_batches(columnar(image.findings())))


def _write(record: Record, image: ImageRecord, folder: Path) -> Path:
    labels, palette = image_labels(record, image), Palette.of(record.labels, record.colours)
    slide = image.info.placement.unit == "um"
    path = image_file(folder, "classes-", image.info.id, ".ome.tif" if slide else ".tif")
    grid, classes = _rasterised(image, labels, folder)
    names = {NONE: "none", **dict(enumerate(labels, 1)), NODATA: "not analysed or no data"}
    about = {"use": record.use, "model": dict(record.model), "limner": record.version, "classes": names}
    raster = Raster(grid, image.info.placement, classes[None], about)
    if slide:
        with atomic_path(path) as part:
            write_ome_tiff(part, raster, "classes", most_frequent)
        return path
    colours = {NONE: (0, 0, 0), **{number: rgb(palette[label]) for number, label in enumerate(labels, 1)}}
    with atomic_path(path) as part:
        write_cog(part, raster, nodata=NODATA, resampling="MODE", colours=colours)
    with atomic_path(path.with_suffix(".qml")) as part:
        part.write_text(_qgis_style(labels, [palette[label] for label in labels]), encoding="utf-8")
    return path


def _rasterised(image: ImageRecord, labels: Sequence[str], folder: Path) -> tuple[Grid, Classes]:
    """The grid of the analysis and the classes (H, W) of its pixels, in a file of `folder` that is mapped to memory."""
    found, codes = columnar(image.findings()), {label: number for number, label in enumerate(labels, 1)}
    grid: Grid | None = None
    boxes, classes = np.empty((0, 2, 2)), np.empty((0, 0), dtype=np.uint8)
    for region, mask in image.analysed() if image.analysed is not None else ():
        if grid is None:
            grid = region.grid
            boxes = _grid_boxes(image, grid)
            classes = scratch_array(grid.shape[::-1], folder, fill=NODATA)
        c, r = region.columns, region.rows
        part = np.zeros((r.core_stop - r.core_start, c.core_stop - c.core_start), dtype=np.uint8)
        near = (boxes[:, 0] < (c.core_stop, r.core_stop)) & (boxes[:, 1] > (c.core_start, r.core_start))
        inside = np.flatnonzero(near.all(axis=1))
        for span in spans(found.vertices[inside]):
            _burn(part, found.take(inside[span]), region, codes)
        if mask is not None:
            part[~mask] = NODATA
        classes[r.core_start : r.core_stop, c.core_start : c.core_stop] = part
    if grid is None:
        rule, remedy = "must have regions that were analysed", "Run it again, or leave out the report class-map"
        raise ReadError(image.info.id, rule, remedy=remedy)
    return grid, classes


def _grid_boxes(image: ImageRecord, grid: Grid) -> npt.NDArray[np.float64]:
    """The bounding boxes (N, 2, 2) of the image's findings in grid pixels: least and greatest (x, y)."""
    corners = [_to_grid(batch.bounds.reshape(-1, 2), grid).reshape(-1, 2, 2) for batch in _batches(image)]
    boxes = np.concatenate([np.empty((0, 2, 2)), *corners])
    return np.stack([boxes.min(axis=1), boxes.max(axis=1)], axis=1)


def _to_grid(xy: Points, grid: Grid) -> Points:
    """Level-0 pixels (N, 2) in grid pixels; the image's end is that of the last pixel, of which it may be a part."""
    size = np.asarray(grid.upright_size, dtype=np.float64)
    upright = grid.orientation.to_upright(xy, grid.size)
    return np.where(upright >= size - 1e-6, grid.shape, upright / grid.upright_scale)


def _burn(part: Classes, table: FindingsTable, region: Region, codes: Mapping[str, int]) -> None:
    """Draw areas into the pixels of a region's core, where their centres are inside."""
    from rasterio.features import rasterize

    offset = (region.columns.core_start, region.rows.core_start)
    shapes: Any = shapely.transform(table.geometries, lambda xy: _to_grid(xy, region.grid) - offset)
    values = [codes[label] for label in table.label.tolist()]
    filled = [(shape, value) for shape, value in zip(shapes, values, strict=True) if not shape.is_empty]
    if filled:
        rasterize(filled, out=part)


def _qgis_style(labels: Sequence[str], colours: Sequence[str]) -> str:
    """A style with names and colours of the classes, which QGIS uses for the raster beside it."""
    entries = "".join(
        f'<paletteEntry value="{number}" color="{colour}" alpha="255" label={quoteattr(clean_text(label))}/>'
        for number, (label, colour) in enumerate(zip(labels, colours, strict=True), 1)
    )
    renderer = f'<rasterrenderer type="paletted" band="1" opacity="1"><colorPalette>{entries}</colorPalette>'
    return f"<qgis><pipe>{renderer}</rasterrenderer></pipe></qgis>\n"


def most_frequent(classes: Classes) -> Classes:
    """Classes (H, W) at half their size: the most frequent of each 2 × 2 pixels, the lowest of equals.

    The last column and row of an odd side count twice.
    """
    padded = np.pad(classes, [(0, side % 2) for side in classes.shape], mode="edge")
    four = np.sort(np.stack([padded[y::2, x::2] for y in (0, 1) for x in (0, 1)]), axis=0)
    pair = np.where(four[1] == four[2], four[1], np.where(four[0] == four[1], four[0], four[3]))
    return np.where((four[0] != four[1]) & (four[1] != four[2]) & (four[2] != four[3]), four[0], pair)
