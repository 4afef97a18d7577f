"""Outlines that people drew go through every format that limner writes for maps, and come back: how far they moved.

    python tests/bench/truth_formats.py [DATA]

DATA is the folder with `spacenet4_atlanta_buildings` (43 outlines of buildings, Atlanta, 0.5 m) and `neon_trees_osbs`
(61 boxes of trees, Florida, 0.1 m); by default shared/data/geo beside the checkout. Distances are Hausdorff distances
of each outline in pixels of the image: the largest and the mean. A class map has all outlines as one area: its distance
is that from the drawn border to what differs, since a corner that covers no pixel's centre is not in it.
"""

import csv
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import rasterio.features
import shapely
from limner.model.finding import Finding
from limner.pipelines.run.reporting import load_writers
from limner.readers.contract import scan_with
from limner.readers.geodesy import from_lonlat
from limner.readers.geometry import Placement
from limner.readers.image import ImageInfo
from limner.readers.raster.geotiff import RasterReader
from limner.readers.regions import Grid, cut_regions
from limner.reports.writer import ImageRecord, Record

Shapes = Sequence[Any]
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "geo"


def buildings(data: Path) -> tuple[ImageInfo, Shapes]:
    """The image, and the outlines in its pixels."""
    folder = data / "spacenet4_atlanta_buildings"
    [info] = scan_with(RasterReader(), str(folder / "sample_geotiff.tif"), {})
    drawn = gpd.read_file(folder / "geotiff_labels.geojson").geometry.to_numpy()
    return info, [shapely.transform(shape, info.placement.to_pixel) for shape in drawn]


def box_of(row: Mapping[str, str], names: Sequence[str]) -> Any:
    """The box of a row of a table, whose columns have these names."""
    x0, y0, x1, y1 = (float(row[name]) for name in names)
    return shapely.box(x0, y0, x1, y1)


def trees(data: Path) -> tuple[ImageInfo, Shapes]:
    """The image, and the boxes in its pixels."""
    folder = data / "neon_trees_osbs"
    [info] = scan_with(RasterReader(), str(folder / "OSBS_029.tif"), {})
    with (folder / "OSBS_029.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return info, [box_of(row, ("xmin", "ymin", "xmax", "ymax")) for row in rows]


def record_of(info: ImageInfo, shapes: Shapes, label: str) -> Record:
    """The outlines as the findings of a run."""
    found = [Finding(label, shape, "area") for shape in shapes]
    regions = cut_regions(Grid("image", info.size, (1.0, 1.0)), tile=256, hd_num=4)
    image = ImageRecord(info, lambda: found, lambda: None, (), analysed=lambda: ((region, None) for region in regions))
    return Record((image,), (), {"name": "drawn by people", "version": "1"}, (label,), "0.1.0")


def in_crs(frame: gpd.GeoDataFrame, placement: Placement) -> dict[int, Any]:
    """Outlines by number, from the image's CRS."""
    shapes = shapely.transform(frame.geometry.to_numpy(), placement.to_pixel)
    return dict(zip(frame["finding"].tolist(), shapes, strict=True))


def in_degrees(frame: gpd.GeoDataFrame, placement: Placement) -> dict[int, Any]:
    """Outlines by number, from longitude and latitude."""
    shapes = shapely.transform(frame.geometry.to_numpy(), lambda xy: from_lonlat(placement, xy))
    return dict(zip(frame["finding"].tolist(), shapes, strict=True))


def of_tiles(path: Path, placement: Placement) -> dict[int, Any]:
    """Outlines of vector tiles, of which those of the highest zoom are read, joined across tiles."""
    pieces = gpd.read_file(path).dissolve("finding", grid_size=1e-4, method="unary").reset_index().to_crs(4326)
    return in_degrees(pieces, placement)


def boxes(path: Path) -> dict[int, Any]:
    """The bounding boxes in a table."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {int(row["finding"]): box_of(row, ("x0_px", "y0_px", "x1_px", "y1_px")) for row in rows}


def area_of(path: Path, scale: float) -> Any:
    """What a class map has of any class, as outlines in pixels of the image."""
    with rasterio.open(path) as raster:
        classes = raster.read(1)
    parts = rasterio.features.shapes(classes, (classes > 0) & (classes < 255))
    return shapely.transform(
        shapely.union_all([shapely.from_geojson(json.dumps(one)) for one, _ in parts]), lambda xy: xy * scale
    )


READ: dict[str, Callable[[Path, Placement], dict[int, Any]]] = {
    "geojson": lambda path, placement: in_degrees(gpd.read_file(path), placement),
    "geopackage": lambda path, placement: in_crs(gpd.read_file(path, layer=0), placement),
    "geoparquet": lambda path, placement: in_crs(gpd.read_parquet(path), placement),
    "flatgeobuf": lambda path, placement: in_crs(gpd.read_file(path), placement),
    "pmtiles": of_tiles,
}


def distance(found: Any, drawn: Any, *, one: bool) -> float:
    """How far an outline lies from the drawn one; of `one` area, how far what differs lies from the drawn border."""
    if not one:
        return float(shapely.hausdorff_distance(found, drawn, densify=0.02))
    differs = shapely.segmentize(shapely.symmetric_difference(found, drawn), 0.05)
    return float(
        shapely.distance(shapely.points(shapely.get_coordinates(differs)), shapely.boundary(drawn)).max(initial=0)
    )


def table(info: ImageInfo, shapes: Shapes, label: str) -> None:
    """Print a row for each format."""
    run = record_of(info, shapes, label)
    sys.stdout.write(f"\n{len(shapes)} outlines of {label}\n\n| format | back | largest px | mean px | area |\n")
    sys.stdout.write("| --- | --- | --- | --- | --- |\n")
    whole = shapely.area(shapely.union_all(shapes))
    for name in (*READ, "findings-csv", "class-map"):
        with tempfile.TemporaryDirectory() as folder:
            [writer] = load_writers([name])
            path = writer.write(run, Path(folder))[0]
            if name == "class-map":
                area = area_of(path, 1.0)
                found, drawn = {1: area}, [shapely.union_all(shapes)]
            elif name == "findings-csv":
                found, drawn = boxes(path), [shapely.box(*shape.bounds) for shape in shapes]
            else:
                found, drawn = READ[name](path, info.placement), shapes
        moved = [distance(found[k], shape, one=name == "class-map") for k, shape in enumerate(drawn, 1)]
        ratio = shapely.area(shapely.union_all(list(found.values()))) / whole
        share = f"{ratio:.5f}" if name != "findings-csv" else "boxes"
        sys.stdout.write(f"| `{name}` | {len(found)} | {max(moved):.2g} | {np.mean(moved):.2g} | {share} |\n")
        sys.stdout.flush()


def main() -> None:
    """Print both tables."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else SHARED
    if not data.is_dir():
        sys.stdout.write(f"{data} is no folder of labelled images: nothing was measured\n")
        return
    table(*buildings(data), "buildings")
    table(*trees(data), "trees")


if __name__ == "__main__":
    main()
