"""Class maps: the raster has the class of every analysed pixel, where the outlines have it."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import shapely
import tifffile
from limner.model.class_maps import polygonise
from limner.model.finding import Finding
from limner.readers.geodesy import parse_crs
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo
from limner.readers.orientation import UPRIGHT, Orientation
from limner.readers.regions import Grid, Region, cut_regions
from limner.reports.class_map import ClassMap, most_frequent
from limner.reports.writer import ImageRecord, PartlyWrittenError, Record

Classes = npt.NDArray[np.uint8]
Masks = dict[int, npt.NDArray[np.bool_]]
LABELS = ("water", "land", "cloud")
NODATA = {"255": "not analysed or no data"}
UTM = parse_crs("EPSG:32618").to_wkt()
MAP = Placement(((10.0, 0.0, 5e5), (0.0, -10.0, 4e6)), "m", UTM)
SLIDE = Placement(((0.5, 0.0, 0.0), (0.0, 0.25, 0.0)), "um")


def random_classes(grid: Grid, block: int = 5, noise: float = 0.1) -> Classes:
    """0 to 3 in blocks, and a share of single pixels."""
    random = np.random.default_rng(1)
    width, height = grid.shape
    coarse = (
        random.integers(0, 4, (height // block + 1, width // block + 1)).repeat(block, axis=0).repeat(block, axis=1)
    )
    pixels = random.integers(0, 4, (height, width))
    return np.where(random.random((height, width)) >= noise, coarse[:height, :width], pixels).astype(np.uint8)


def traced(classes: Classes, grid: Grid) -> list[Finding]:
    """The areas of a class map in level-0 pixels, cut to the image as findings are."""
    scores = np.ones(classes.shape, dtype=np.float32)
    whole = shapely.box(0, 0, *grid.upright_size)

    def outline(polygon: Any) -> Any:
        upright = shapely.transform(polygon, lambda xy: xy * grid.upright_scale) & whole
        return shapely.transform(upright, lambda xy: grid.orientation.to_level0(xy, grid.size))

    return [
        Finding(LABELS[one.value - 1], outline(one.polygon), "area", one.score)
        for one in polygonise(classes, scores, classes > 0)
    ]


def record_of(
    grid: Grid,
    findings: list[Finding],
    placement: Placement,
    regions: list[Region] | None = None,
    masks: Masks | None = None,
) -> Record:
    """A run of one image."""
    info = ImageInfo("/a.tif", "sample", grid.size, (Channel("red"),), placement, id="a")
    some = cut_regions(grid, tile=16, hd_num=4) if regions is None else regions

    def analysed() -> Iterator[tuple[Region, npt.NDArray[np.bool_] | None]]:
        return ((region, (masks or {}).get(number)) for number, region in enumerate(some))

    image = ImageRecord(info, lambda: findings, lambda: None, (), analysed=analysed)
    colours = {"water": "#0000ff", "land": "#00ff00", "cloud": "#cccccc"}
    return Record((image,), (), {"name": "m", "version": "1"}, LABELS, "0.1.0", colours=colours)


def read(path: Path) -> Classes:
    with rasterio.open(path) as raster:
        return raster.read(1)


@pytest.mark.parametrize("scale", [(1.0, 1.0), (3.0, 3.0), (2.5, 1.7), (10 / 3, 10 / 3)])
@pytest.mark.parametrize(
    "turn", [UPRIGHT, Orientation(mirror_y=True), Orientation(True, False, True), Orientation(True, True, True)]
)
def test_every_pixel_has_its_class_again(tmp_path: Path, scale: tuple[float, float], turn: Orientation) -> None:
    grid = Grid("a", (301, 200), scale, orientation=turn)
    classes = random_classes(grid)
    [path, _] = ClassMap().write(record_of(grid, traced(classes, grid), MAP), tmp_path)
    assert path.name == "classes-a.tif"
    assert (read(path) == classes).all()


def test_what_was_not_analysed_is_nodata(tmp_path: Path) -> None:
    grid = Grid("a", (120, 100), (2.0, 2.0))
    classes = random_classes(grid)
    regions = cut_regions(grid, tile=16, hd_num=1)
    first = regions[0]
    hole = np.ones((first.rows.core_stop - first.rows.core_start, 16), dtype=np.bool_)
    hole[3:7, 2:9] = False
    record = record_of(grid, traced(classes, grid), MAP, regions[:5], {0: hole})
    [path, _] = ClassMap().write(record, tmp_path)
    expected = np.full_like(classes, 255)
    for region in regions[:5]:
        here = np.s_[
            region.rows.core_start : region.rows.core_stop, region.columns.core_start : region.columns.core_stop
        ]
        expected[here] = classes[here]
    expected[3:7, 2:9] = 255
    assert (read(path) == expected).all()


@pytest.mark.parametrize("turn", [UPRIGHT, Orientation(mirror_y=True), Orientation(True, False, True)])
def test_pixels_lie_where_the_outlines_do(tmp_path: Path, turn: Orientation) -> None:
    placement = Placement(((8.0, 3.0, 5e5), (3.0, -8.0, 4e6)), "m", UTM)
    grid = Grid("a", (60, 40), (2.0, 2.0), orientation=turn)
    classes = np.zeros(grid.shape[::-1], dtype=np.uint8)
    classes[4, 7] = 2
    [finding] = traced(classes, grid)
    [path, _] = ClassMap().write(record_of(grid, [finding], placement), tmp_path)
    with rasterio.open(path) as raster:
        corners = [raster.transform @ corner for corner in ((7, 4), (8, 4), (8, 5), (7, 5))]
        assert raster.crs.to_epsg() == 32618
    drawn = shapely.Polygon(corners)
    mapped = shapely.transform(finding.geometry, placement.to_world)
    assert drawn.symmetric_difference(mapped).area < 1e-6


def test_a_map_is_a_cloud_optimised_geotiff_with_colours_and_names(tmp_path: Path) -> None:
    grid = Grid("a", (2100, 1300), (1.0, 1.0))
    classes = random_classes(grid, block=35, noise=0.0)
    record = record_of(grid, traced(classes, grid), MAP, cut_regions(grid, tile=512, hd_num=4))
    paths = ClassMap().write(record, tmp_path)
    assert [path.name for path in paths] == ["classes-a.tif", "classes-a.qml"]
    with rasterio.open(paths[0]) as raster:
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.overviews(1) == [2, 4, 8]
        assert raster.nodata == 255
        assert {number: raster.colormap(1)[number] for number in (1, 2)} == {1: (0, 0, 255, 255), 2: (0, 255, 0, 255)}
        assert raster.tags()["USE"].startswith("Research use only.")
        assert json.loads(raster.tags()["CLASSES"]) == {"0": "none", "1": "water", "2": "land", "3": "cloud", **NODATA}
        assert (raster.read(1) == classes).all()
    with rasterio.open(paths[0], overview_level=0) as raster:
        reduced = raster.read(1)
    four = np.stack([classes[y::2, x::2] for y in (0, 1) for x in (0, 1)])
    assert ((four == reduced).sum(axis=0) == np.stack([(four == k).sum(axis=0) for k in range(4)]).max(axis=0)).all()
    entries = re.findall(r'value="(\d)" color="(#\w{6})" alpha="255" label="(\w+)"', paths[1].read_text())
    assert entries == [("1", "#0000ff", "water"), ("2", "#00ff00", "land"), ("3", "#cccccc", "cloud")]


def test_a_slide_is_an_ome_tiff_with_its_pixel_size(tmp_path: Path) -> None:
    grid = Grid("a", (4200, 3001), (2.0, 4.0))
    classes = random_classes(grid, block=35, noise=0.0)
    record = record_of(grid, traced(classes, grid), SLIDE, cut_regions(grid, tile=512, hd_num=4))
    [path] = ClassMap().write(record, tmp_path)
    assert path.name == "classes-a.ome.tif"
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        [series] = file.series
        found = [level.asarray() for level in series.levels]
        ome = tifffile.xml2dict(file.ome_metadata or "")["OME"]
    assert (found[0] == classes).all()
    assert [level.shape for level in found] == [(751, 2100), (376, 1050), (188, 525), (94, 263)]
    assert (found[1] == most_frequent(classes)).all()
    pixels = ome["Image"]["Pixels"]
    assert (float(pixels["PhysicalSizeX"]), pixels["PhysicalSizeXUnit"]) == (1.0, "µm")
    assert float(pixels["PhysicalSizeY"]) == 1.0
    assert '"2": "land"' in ome["Image"]["Description"]
    again = tmp_path / "again"
    again.mkdir()
    [second] = ClassMap().write(record, again)
    assert second.read_bytes() == path.read_bytes()


def test_the_most_frequent_class_counts_and_the_lowest_of_equals() -> None:
    cases = np.array(list(itertools.product(range(4), repeat=4)), dtype=np.uint8).reshape(-1, 2, 2)
    stacked = np.concatenate(list(cases), axis=0)
    expected = [max(sorted(Counter(one.ravel().tolist()).items()), key=lambda pair: pair[1])[0] for one in cases]
    assert most_frequent(stacked)[:, 0].tolist() == expected
    assert most_frequent(np.array([[1, 2, 3]], dtype=np.uint8)).tolist() == [[1, 3]]


def test_images_that_have_no_class_map_are_named(tmp_path: Path) -> None:
    grid = Grid("a", (60, 40), (1.0, 1.0))
    box = Finding("ship", shapely.box(1, 1, 5, 5), "box", 0.5)
    assert ClassMap().omitted(record_of(grid, [box], MAP)) == {
        "a": "its findings are not areas of pixels, but of the kind box"
    }
    assert ClassMap().write(record_of(grid, [box], MAP), tmp_path) == []
    with pytest.raises(PartlyWrittenError) as refused:
        ClassMap().write(record_of(grid, [], MAP, []), tmp_path)
    assert "must have regions that were analysed" in refused.value.omitted["a"]
    assert list(tmp_path.iterdir()) == []
