"""Views of a map are north-up whatever the file's orientation, and so is all that annotators get of them."""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyproj
import pytest
import shapely
from limner.model.annotator import Answer, InputSpec, View
from limner.model.detections import Detection, tile_detections
from limner.model.training.tile_labels import tile_boxes
from limner.model.views import measure_coverage, read_view, to_image_coordinates
from limner.readers.array import ArrayHandle, ArrayReader, register_array
from limner.readers.geometry import Placement, Points
from limner.readers.image import Image, ImageInfo
from limner.readers.orientation import UPRIGHT, Orientation, find_orientation, orientation_notes
from limner.readers.regions import Grid, cut_regions
from limner.readers.render import Stretch
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

EIGHT = [Orientation(t, x, y) for t in (False, True) for x in (False, True) for y in (False, True)]
UTM = pyproj.CRS(32618).to_wkt()
METRES = (10.0, 20.0)
WIDTH, HEIGHT = 90, 131
KEPT: list[ArrayHandle] = []
GREY = Stretch(("red", "green", "blue"), (0.0,) * 3, (255.0,) * 3, "test")
SPECS = [
    InputSpec(tile=16, halo=3, bands=("red", "green", "blue")),
    InputSpec(tile=16, overall=True),
    InputSpec(tile=16, overall=True, enlarge=9),
]


def upright_picture() -> npt.NDArray[np.uint8]:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x, y, (x * y) % 251], axis=2).astype(np.uint8)


def open_turned(turn: Orientation) -> Image:
    """The upright picture as a file of this turn stores it, with the geotransform that says so."""
    mirrored = upright_picture()[:: -1 if turn.mirror_y else 1, :: -1 if turn.mirror_x else 1]
    pixels = np.ascontiguousarray(mirrored.swapaxes(0, 1) if turn.transposed else mirrored)
    size = pixels.shape[1], pixels.shape[0]
    world = turn.to_upright(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), size) * np.array([METRES[0], -METRES[1]])
    world += np.array([500_000.0, 4_000_000.0])
    origin, x, y = world
    matrix = tuple((float(x[i] - origin[i]), float(y[i] - origin[i]), float(origin[i])) for i in (0, 1))
    place = Placement((matrix[0], matrix[1]), "m", crs=UTM)
    held = register_array(np.ma.masked_array(pixels, np.repeat(pixels[..., 2:] == 7, 3, axis=2)))
    KEPT.append(held)
    return ArrayReader().open(replace(held.info, placement=place))


def info_at(placement: Placement) -> ImageInfo:
    return ImageInfo("a.tif", "raster", (10, 10), (), placement)


def views(image: Image, spec: InputSpec) -> Iterator[View]:
    turn, rest = find_orientation(image.info.placement)
    assert rest == pytest.approx(0.0, abs=1e-9)
    grid = Grid("picture", image.info.size, turn.swap((2.0, 1.0)), 1, turn)
    for region in cut_regions(grid, tile=spec.tile, halo=spec.halo, hd_num=6):
        yield read_view(image, region, spec, stretch=GREY, roi=area(image))


def area(image: Image) -> Polygon:
    ground = np.array([[500_050, 3_999_900], [500_850, 3_999_000], [500_400, 3_997_400]], dtype=np.float64)
    return Polygon(image.info.placement.to_pixel(ground).tolist())


@pytest.mark.parametrize("turn", EIGHT, ids=str)
def test_the_turn_is_found_and_undone(turn: Orientation) -> None:
    image = open_turned(turn)
    assert find_orientation(image.info.placement)[0] == turn
    points = np.random.default_rng(1).uniform(0, 90, (20, 2))
    assert turn.to_level0(turn.to_upright(points, image.info.size), image.info.size) == pytest.approx(points)
    pixels, _ = image.read(image.info.box, image.info.size)
    turned = turn.turn(pixels)
    assert (turned == upright_picture()).all()
    assert turned.flags.c_contiguous or turn == UPRIGHT


@pytest.mark.parametrize("spec", SPECS, ids=["bands with a halo", "RGB with the global view", "enlarged"])
@pytest.mark.parametrize("turn", EIGHT[1:], ids=str)
def test_views_are_those_of_the_upright_map(turn: Orientation, spec: InputSpec) -> None:
    upright, turned = (open_turned(one) for one in (EIGHT[0], turn))
    count = 0
    for one, other in zip(views(upright, spec), views(turned, spec), strict=True):
        assert one.region.key == other.region.key
        assert np.array_equal(one.tiles, other.tiles, equal_nan=one.tiles.dtype.kind == "f")
        assert np.array_equal(one.valid, other.valid)
        assert (one.keep_mask == other.keep_mask).all()
        count += int(one.keep_mask.sum())
        if spec.overall:
            assert one.global_view is not None
            assert other.global_view is not None
            assert (one.global_view == other.global_view).all()
        covers = [measure_coverage(v, i.info.placement, area(i)) for v, i in ((one, upright), (other, turned))]
        assert covers[0].valid_px == covers[1].valid_px
        assert covers[0].valid_m2 == pytest.approx(covers[1].valid_m2, rel=1e-9)
        assert covers[0].outside_m2 == pytest.approx(covers[1].outside_m2, rel=1e-9)
    assert count > 1000


@pytest.mark.parametrize("turn", EIGHT[1:], ids=str)
def test_answers_of_every_kind_lie_on_the_same_ground(turn: Orientation) -> None:
    def world(image: Image, geometry: BaseGeometry) -> BaseGeometry:
        return shapely.normalize(shapely.transform(geometry, image.info.placement.to_world))

    def detector(tile: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]) -> list[Detection]:
        del valid
        return [Detection("ship", 0.5, (float(np.nan_to_num(tile).max() % 3), 2.0, 9.0, 7.25))]

    upright, turned = (open_turned(one) for one in (EIGHT[0], turn))
    spec = SPECS[0]
    count = 0
    for one, other in zip(views(upright, spec), views(turned, spec), strict=True):
        whole = [Answer("note", None, "region", None, text="a text"), Answer("land", shapely.box(3, 3, 9, 13), "area")]
        pairs = [[*whole, *tile_detections(view, detector, threshold=0.1, of="a test")] for view in (one, other)]
        for mine, theirs in zip(*pairs, strict=True):
            if mine.geometry is not None and not shapely.intersects(mine.geometry, shapely.box(0, 0, 3, 3)):
                continue
            first, second = to_image_coordinates([mine], one)[0], to_image_coordinates([theirs], other)[0]
            assert world(turned, second.geometry).equals_exact(world(upright, first.geometry), 1e-6)
            assert first.cut == second.cut
            if first.window is not None and second.window is not None:
                here, there = (shapely.box(*finding.window) for finding in (first, second) if finding.window)
                assert world(turned, there).equals_exact(world(upright, here), 1e-6)
            count += 1
        boxes = [[world(i, shapely.box(b.x0, b.y0, b.x1, b.y1)) for b in tile_boxes(v.region, spec)]
                 for v, i in ((one, upright), (other, turned))]  # fmt: skip
        assert all(a.equals_exact(b, 1e-6) for a, b in zip(*boxes, strict=True))
    assert count > 20


def test_maps_that_are_north_up_and_pictures_without_a_crs_are_not_turned() -> None:
    upright = Placement(((10.0, 0.0, 0.0), (0.0, -10.0, 0.0)), "m", crs=UTM)
    assert find_orientation(upright) == (UPRIGHT, 0.0)
    assert orientation_notes(info_at(upright)) == []
    assert find_orientation(Placement.pixels()) == (UPRIGHT, 0.0)


@pytest.mark.parametrize(
    ("degrees", "turn", "rest"),
    [
        (0.5, UPRIGHT, 0.5),
        (30.0, UPRIGHT, 30.0),
        (-44.0, UPRIGHT, 44.0),
        (60.0, Orientation(transposed=True, mirror_y=True), 30.0),
        (170.0, Orientation(mirror_x=True, mirror_y=True), 10.0),
        (-90.0, Orientation(transposed=True, mirror_x=True), 0.0),
    ],
)
def test_other_rotations_are_turned_to_the_nearest_right_angle_and_told(
    degrees: float, turn: Orientation, rest: float
) -> None:
    """The rotation is that of the pixel grid, counter-clockwise on the ground."""
    c, s = 10 * np.cos(np.radians(degrees)), 10 * np.sin(np.radians(degrees))
    placement = Placement(((c, s, 0.0), (s, -c, 0.0)), "m", crs=UTM)
    found, left = find_orientation(placement)
    assert found == turn
    assert left == pytest.approx(rest, abs=1e-6)
    assert any(f"{rest:.0f}° from the top" in note for note in orientation_notes(info_at(placement))) == (rest >= 1)
    steps: Points = np.array([[0.0, 0.0], [1.0, 0.0]])
    (x0, y0), (x1, y1) = placement.to_world(found.to_level0(steps, (0, 0)))
    assert np.degrees(np.arctan2(abs(y1 - y0), x1 - x0)) == pytest.approx(rest, abs=1e-6)


def test_south_is_up_in_a_crs_whose_axes_point_west_and_south() -> None:
    """South Africa's Lo grids count to the west and to the south: a positive step along y is north-up there."""
    lo19 = pyproj.CRS(2048).to_wkt()
    assert find_orientation(Placement(((-10.0, 0.0, 0.0), (0.0, 10.0, 0.0)), "m", crs=lo19))[0] == UPRIGHT
    turned = Orientation(mirror_x=True, mirror_y=True)
    assert find_orientation(Placement(((10.0, 0.0, 0.0), (0.0, -10.0, 0.0)), "m", crs=lo19))[0] == turned


@pytest.mark.parametrize("code", [3031, 3413, 4326, 3857, 6349])
def test_the_grid_decides_on_polar_maps_and_in_degrees(code: int) -> None:
    crs = pyproj.CRS(code).to_wkt()
    unit = "deg" if code in {4326, 6349} else "m"
    assert find_orientation(Placement(((0.1, 0.0, 10.0), (0.0, -0.1, 70.0)), unit, crs=crs)) == (UPRIGHT, 0.0)
    south_up = Placement(((0.1, 0.0, 10.0), (0.0, 0.1, 60.0)), unit, crs=crs)
    assert find_orientation(south_up)[0] == Orientation(mirror_y=True)
