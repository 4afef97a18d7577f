"""The overview that tissue is segmented on, and annotations in its place."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from limner.readers.errors import RequestError
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo
from limner.readers.slide.tissue import overview_side, polygon_mask, read_tissue_annotation
from shapely.geometry import box, mapping
from shapely.geometry.base import BaseGeometry


def slide(size: tuple[int, int], spacing: float, origin: tuple[int, int] = (0, 0)) -> ImageInfo:
    placement = Placement(((spacing, 0.0, 0.0), (0.0, spacing, 0.0)), "um") if spacing else Placement.pixels()
    return ImageInfo("a.svs", "slide", size, (Channel("red"),), placement, origin=origin)


def test_overview_side() -> None:
    assert overview_side(slide((40000, 20000), 0.25)) == 1250
    assert overview_side(slide((400000, 20000), 0.25)) == 4096
    assert overview_side(slide((40000, 20000), 0)) == 2048
    assert overview_side(slide((4, 3), 0.5)) == 1


@pytest.mark.parametrize("form", ["collection", "list", "feature", "bare", "gz"])
def test_annotation_replaces_the_mask(tmp_path: Path, form: str) -> None:
    feature = {"type": "Feature", "geometry": mapping(box(10, 20, 30, 60)), "properties": {"objectType": "annotation"}}
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}}
    record = {
        "collection": {"type": "FeatureCollection", "features": [feature, point]},
        "list": [feature],
        "feature": feature,
        "bare": mapping(box(10, 20, 30, 60)),
        "gz": [feature, feature],
    }[form]
    path = tmp_path / ("t.geojson.gz" if form == "gz" else "t.geojson")
    content = json.dumps(record).encode()
    path.write_bytes(gzip.compress(content) if form == "gz" else content)
    area, doubt = read_tissue_annotation(str(path), slide((200, 100), 0.5, origin=(100, 10)))
    assert doubt == ""
    assert area.equals(box(110, 30, 130, 70))
    mask = polygon_mask(area, (20, 100), (2.0, 5.0))
    want = np.zeros((20, 100), dtype=bool)
    want[6:14, 55:65] = True
    assert np.array_equal(mask, want)


def test_an_annotation_is_cut_to_the_slide(tmp_path: Path) -> None:
    path = tmp_path / "t.geojson"
    path.write_text(json.dumps(mapping(box(-50, -50, 300, 300))))
    area, _ = read_tissue_annotation(str(path), slide((200, 100), 0.5))
    assert area.equals(box(0, 0, 200, 100))


def test_an_annotation_may_be_smaller_than_a_pixel(tmp_path: Path) -> None:
    path = tmp_path / "t.geojson"
    path.write_text(json.dumps(mapping(box(10, 20, 11.5, 20.5))))
    area, _ = read_tissue_annotation(str(path), slide((200, 100), 0.5))
    assert area.area == 0.75


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"{}",
        b"[1]",
        b'{"type": "Point", "coordinates": [1, 2]}',
        json.dumps(mapping(box(900, 0, 950, 9))).encode(),
    ],
)
def test_invalid_annotation_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.geojson"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=r"the area of interest .*t\.geojson"):
        read_tissue_annotation(str(path), slide((200, 100), 0.5))


@pytest.mark.parametrize(
    ("drawn", "size", "rule"),
    [
        (box(11.25, 48.0, 11.5, 48.5), (4000, 3000), "smaller than a pixel"),
        (box(-75.1, 37.2, -73.0, 39.9), (4000, 3000), "beside the image"),
        (box(5.8660, 47.2701, 15.0418, 55.0584), (4000, 3000), "doubt"),
        (box(5.8660, 47.2701, 15.0418, 55.0584), (300, 200), ""),  # an image as small as that
        (box(5.86, 47.27, 15.04, 55.05), (4000, 3000), ""),  # as QuPath writes pixels
        (box(5.8660, 47.2701, 1500.0418, 55.0584), (4000, 3000), ""),
    ],
)
def test_degrees_are_not_taken_for_pixels(
    tmp_path: Path, drawn: BaseGeometry, size: tuple[int, int], rule: str
) -> None:
    path = tmp_path / "area.geojson"
    path.write_text(json.dumps(mapping(drawn)))
    if rule not in {"", "doubt"}:
        with pytest.raises(RequestError, match=rf"must be in pixels, since .*{rule}.*(?i:draw the polygons)"):
            read_tissue_annotation(str(path), slide(size, 0.5))
        return
    area, doubt = read_tissue_annotation(str(path), slide(size, 0.5))
    assert area.equals(drawn)
    assert bool(doubt) == bool(rule)
    assert not doubt or "may be degrees" in doubt
