"""Detections: a thing that seams cut, and that several tiles saw, is reported once and where it is."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.model.annotator import Answer, InputSpec, View
from limner.model.detections import Detection, suppress_overlaps, tile_detections
from limner.model.finding import Finding
from limner.model.merging import merge_across_regions, merge_detections
from limner.model.tiling import TileGrid
from limner.model.views import core_window, to_image_coordinates
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo
from limner.readers.regions import Grid, Region, cut_regions
from shapely.geometry import box

Corners = npt.NDArray[np.float64]
Scene = dict[str, Corners]


@dataclass(frozen=True)
class Cutting:
    """How a picture is cut: in grid pixels."""

    size: tuple[int, int]
    scale: float
    tile: int
    halo: int
    overlap: int
    hd_num: int

    @property
    def grid(self) -> Grid:
        """Level-0 sizes that hold just the grid."""
        return Grid(
            "picture", (int(self.size[0] * self.scale), int(self.size[1] * self.scale)), (self.scale, self.scale)
        )

    @property
    def info(self) -> ImageInfo:
        """The picture's facts."""
        return ImageInfo("memory", "array", self.grid.size, (Channel("b0"),), Placement.pixels(), id="picture")

    @property
    def regions(self) -> list[Region]:
        """All of them."""
        return cut_regions(self.grid, tile=self.tile, halo=self.halo, overlap=self.overlap, hd_num=self.hd_num)

    def view(self, region: Region) -> View:
        """A view whose tiles are one pixel that holds the tile's own place on the grid."""
        grid = TileGrid.exact(*region.tiles, tile=self.tile, overlap=2 * self.halo)
        start = np.array([region.columns.start, region.rows.start])
        places = np.array(grid.boxes(), dtype=np.float64)[:, :2] + start
        canvas = np.zeros(region.size[::-1], dtype=np.bool_)
        rows, columns = (
            slice(max(0, -s.start), n - s.start)
            for s, n in ((region.rows, self.size[1]), (region.columns, self.size[0]))
        )
        canvas[rows, columns] = True
        valid = np.stack([canvas[y0:y1, x0:x1] for x0, y0, x1, y1 in grid.boxes()])
        wanted = np.zeros_like(canvas)
        wanted[core_window(region)] = canvas[core_window(region)]
        return View(region, InputSpec(self.tile, self.halo), grid, places[:, None, None], valid, wanted)


def perfect(scene: Scene, tile: int, rng: np.random.Generator) -> Callable[..., Iterable[Detection]]:
    """Reports, with any score, what is visible of each box (grid pixels) in the tile that it is shown."""

    def detect(shown: npt.NDArray[np.float64], _: npt.NDArray[np.bool_]) -> list[Detection]:
        origin = np.tile(shown[0, 0], 2)
        found: list[Detection] = []
        for label, boxes in scene.items():
            visible = np.clip(boxes - origin, 0, tile)
            here = ((visible[:, 2:] - visible[:, :2]) > 0).all(axis=1)
            found += [Detection(label, rng.uniform(0.1, 1), tuple(corners)) for corners in visible[here].tolist()]
        return found

    return detect


def seen(cutting: Cutting, scene: Scene, rng: np.random.Generator) -> list[Finding]:
    """All sightings of a scene, through the run folder's JSON, in any order."""
    detector = perfect(scene, cutting.tile, rng)
    found: list[Finding] = []
    for region in cutting.regions:
        view = cutting.view(region)
        for answer in tile_detections(view, detector, threshold=0.0):
            output = json.dumps(to_image_coordinates([answer], view)[0].to_json())
            found.append(Finding.from_json(json.loads(output)))
    return [found[i] for i in rng.permutation(len(found))]


def places(findings: Iterable[Finding]) -> list[tuple[object, ...]]:
    return sorted((finding.label, *finding.geometry.bounds) for finding in findings)


def truth(scene: Scene, scale: float) -> list[tuple[object, ...]]:
    return sorted((label, *corners) for label, boxes in scene.items() for corners in (boxes * scale).tolist())


def apart(rng: np.random.Generator, size: tuple[int, int], largest: float, tries: int) -> Corners:
    """Boxes that do not overlap, of sides from a sixteenth of a pixel to `largest`, in sixteenths of a pixel."""
    boxes = np.empty((0, 4))
    for _ in range(tries):
        side = np.ceil(np.exp(rng.uniform(np.log(1 / 16), np.log(largest), 2)) * 16) / 16
        side = np.minimum(side, size)
        low = np.floor(rng.uniform(0, np.array(size) - side + 1 / 16) * 16) / 16
        one = np.concatenate([low, np.minimum(low + side, size)])
        if not ((np.minimum(one[2:], boxes[:, 2:]) > np.maximum(one[:2], boxes[:, :2])).all(axis=1)).any():
            boxes = np.vstack([boxes, one])
    return boxes


def crowd(rng: np.random.Generator, size: tuple[int, int], largest: float, count: int) -> Corners:
    """Boxes that may overlap each other by any amount; no two have a corner coordinate in common."""
    low = np.stack([rng.permutation(int(side - largest) * 16)[:count] / 16 for side in size], axis=1)
    return np.concatenate([low, low + np.ceil(rng.uniform(1, largest, low.shape) * 16) / 16], axis=1)


EVEN = st.integers(30, 120).map(lambda half: 2 * half)


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.tuples(EVEN, EVEN),
    st.sampled_from([1.0, 2.0, 0.5, 4.0]),
    st.sampled_from([24, 32, 48]),
    st.integers(1, 7),
    st.integers(0, 30),
    st.integers(1, 9),
    st.integers(0, 2**32 - 1),
)
def test_every_object_has_one_exact_box(
    size: tuple[int, int], scale: float, tile: int, halo: int, overlap: int, hd_num: int, seed: int
) -> None:
    cutting = Cutting(size, scale, tile, halo, min(overlap, tile - 2), hd_num)
    rng = np.random.default_rng(seed)
    scene = {"apart": apart(rng, cutting.size, 2.5 * tile, 150), "crowd": crowd(rng, cutting.size, 2 * halo, 60)}
    joined = merge_across_regions(seen(cutting, scene, rng), cutting.info)
    assert places(joined) == truth(scene, scale)
    assert not any(finding.cut or finding.window or "cut" in finding.notes for finding in joined)


@pytest.mark.slow
def test_thousands_of_boxes_merge_in_seconds() -> None:
    cutting = Cutting((6000, 5000), 1.0, 256, 32, 0, 9)
    rng = np.random.default_rng(3)
    scene: Scene = {}
    for label in "ab":
        corner = np.stack(np.meshgrid(np.arange(75), np.arange(66), indexing="ij"), axis=-1).reshape(-1, 2) * (80, 75.5)
        low = corner + np.floor(rng.uniform(0, 30, corner.shape))
        scene[label] = np.concatenate([low, low + np.ceil(rng.uniform(2, 45, low.shape))], axis=1).astype(np.float64)
    found = seen(cutting, scene, rng)
    assert len(truth(scene, 1.0)) == 9900
    assert len(found) > 15000
    start = time.perf_counter()
    joined = merge_across_regions(found, cutting.info)
    assert time.perf_counter() - start < 15
    assert places(joined) == truth(scene, 1.0)


@pytest.mark.slow
def test_merging_does_not_depend_on_order() -> None:
    cutting = Cutting((200, 150), 1.0, 32, 4, 0, 4)
    rng = np.random.default_rng(8)
    scene = {"a": apart(rng, cutting.size, 60, 200)}
    found = [replace(finding, score=round(rng.uniform(), 1)) for finding in seen(cutting, scene, rng)]
    first = [finding.to_json() for finding in merge_across_regions(found, cutting.info)]
    for _ in range(3):
        assert [
            f.to_json() for f in merge_across_regions([found[i] for i in rng.permutation(len(found))], cutting.info)
        ] == first


INFO = ImageInfo("memory", "array", (200, 100), (Channel("b0"),), Placement.pixels(), id="picture")
LEFT, RIGHT = (0.0, 0.0, 110.0, 100.0), (90.0, 0.0, 200.0, 100.0)


def sighting(corners: Sequence[float], window: tuple[float, ...], score: float = 0.5, **changes: object) -> Finding:
    values: dict[str, object] = {"label": "ship", "kind": "box", "score": score, "window": window}
    return Finding(geometry=box(*corners), **(values | changes))  # pyright: ignore[reportArgumentType] - a test


def test_a_whole_box_replaces_a_cut_one_even_with_a_lower_score() -> None:
    (one,) = merge_detections([sighting((80, 10, 108, 30), LEFT, 0.4), sighting((90, 11, 107, 29), RIGHT, 0.9)], INFO)
    assert one.geometry.bounds == (80, 10, 108, 30)
    assert one.score == 0.9
    assert one.numbers == {"tiles": 2.0}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_part_that_one_window_cut_joins_the_whole_that_another_had(*, turned: bool, mirrored: bool) -> None:
    """Only one of the two windows cuts the object, at its left, right, upper or lower border; it has little of it."""
    corners = np.array([[[80, 10], [110, 18]], [[80, 10], [160, 30]]], dtype=np.float64)
    windows = np.array([LEFT, (60, 0, 200, 100)], dtype=np.float64).reshape(2, 2, 2)
    info = INFO
    if mirrored:
        corners, windows = ((200, 100) - part[:, ::-1] for part in (corners, windows))
    if turned:
        corners, windows, info = corners[..., ::-1], windows[..., ::-1], replace(INFO, size=(100, 200))
    found = [
        sighting(box.ravel().tolist(), tuple(window.ravel())) for box, window in zip(corners, windows, strict=True)
    ]
    (one,) = merge_detections(found, info)
    assert one.geometry.bounds == tuple(corners[1].ravel())
    assert one.notes == {}


def test_an_inexact_sliver_is_merged() -> None:
    (one,) = merge_detections([sighting((70, 10, 93, 30), LEFT), sighting((90, 8, 99, 33), RIGHT)], INFO)
    assert one.geometry.bounds == (70, 10, 93, 30)


def test_boxes_cut_in_every_window_merge_to_their_bounds() -> None:
    (one,) = merge_detections([sighting((20, 10, 110, 30), LEFT, 0.6), sighting((90, 8, 170, 30), RIGHT, 0.5)], INFO)
    assert one.geometry.bounds == (20, 8, 170, 30)
    assert one.notes == {}


def test_sides_cut_in_every_window_are_noted() -> None:
    (one,) = merge_detections([sighting((20, 10, 110, 30), LEFT)], INFO)
    assert one.notes == {"cut": "right"}
    (whole,) = merge_detections([sighting((0, 0, 40, 100), LEFT)], INFO)
    assert whole.notes == {}


@pytest.mark.parametrize(("gap", "cut"), [(0.0, "right"), (1.09, "right"), (1.11, "")])
def test_a_box_is_cut_that_ends_within_a_hundredth_of_its_window(gap: float, cut: str) -> None:
    (one,) = merge_detections([sighting((20, 10, 110 - gap, 30), LEFT)], INFO)
    assert one.notes.get("cut", "") == cut
    (exact,) = merge_detections([sighting((20, 10, 99, 30), (0, 0, 100, 100))], INFO)
    assert exact.notes["cut"] == "right"


def test_of_two_boxes_that_overlap_alike_the_larger_is_nearer() -> None:
    """What both windows see of each is half of the union: the larger joins, the smaller stays."""
    best = sighting((92, 10, 100, 90), LEFT, 0.9)
    small, large = sighting((92, 10, 96, 90), RIGHT, 0.4), sighting((92, 10, 108, 90), RIGHT, 0.3)
    found = merge_detections([best, small, large], INFO)
    assert sorted((one.score, one.numbers["tiles"]) for one in found) == [(0.4, 1.0), (0.9, 2.0)]


def test_boxes_on_two_planes_are_two_objects() -> None:
    found = [replace(sighting((60, 10, 100, 30), (0, 0, 100, 100)), plane=plane) for plane in (0, 0, 3)]
    assert [(subject.plane, subject.numbers["tiles"]) for subject in merge_across_regions(found, INFO)] == [
        (0, 1.0),
        (3, 1.0),
    ]


def test_a_window_at_the_pictures_border_cuts_nothing_despite_rounding() -> None:
    (one,) = merge_detections([sighting((150, 10, 200, 30), (90, 0, 200 + 1e-6, 100))], INFO)
    assert one.notes == {}


def test_each_window_adds_only_its_nearest_box() -> None:
    best = sighting((60, 10, 100, 30), LEFT, 0.9)
    nearer, other = sighting((90, 10, 100, 30), RIGHT, 0.8), sighting((90, 12, 100, 30), RIGHT, 0.7)
    found = merge_detections([best, nearer, other], INFO)
    assert [(subject.score, subject.numbers["tiles"]) for subject in found] == [(0.9, 2.0), (0.7, 1.0)]


@pytest.mark.parametrize(
    "other",
    [
        sighting((60, 10, 105, 30), RIGHT, label="boat"),
        sighting((60, 10, 105, 30), LEFT),
        sighting((91, 22, 130, 48), RIGHT),
    ],
    ids=["another label", "the same window", "little in common"],
)
def test_boxes_that_are_not_merged(other: Finding) -> None:
    assert len(merge_detections([sighting((61, 11, 106, 31), LEFT), other], INFO)) == 2


def test_boxes_that_end_before_the_cut_and_subpixel_boxes_are_not_merged() -> None:
    assert len(merge_detections([sighting((20, 10, 110, 30), LEFT), sighting((101, 10, 109, 30), RIGHT)], INFO)) == 2
    assert (
        len(merge_detections([sighting((95, 10, 95.5, 10.5), LEFT), sighting((95.25, 10, 95.75, 10.5), RIGHT)], INFO))
        == 2
    )


def test_regions_that_share_tiles() -> None:
    assert len(merge_detections([sighting((10, 10, 20, 20), LEFT)] * 2, INFO)) == 1


def test_boxes_count_where_their_centre_lies() -> None:
    found = [sighting((10, 10, 30, 30), LEFT), sighting((40, 10, 60, 30), LEFT)]
    assert [f.geometry.bounds[0] for f in merge_across_regions(found, INFO, box(0, 0, 49, 100))] == [10.0]
    found = [sighting((10, top, 30, top + 20), LEFT) for top in (10, 40)]
    for low, high, kept in ((0, 49, 10.0), (21, 100, 40.0)):
        assert [f.geometry.bounds[1] for f in merge_across_regions(found, INFO, box(0, low, 200, high))] == [kept]


@pytest.mark.parametrize(("shift", "objects"), [(0.0, 1), (0.5, 2)])
def test_boxes_of_one_object_share_half_of_what_they_cover_together(shift: float, objects: int) -> None:
    found = [sighting((92, 10, 104, 30), LEFT), sighting((96 + shift, 10, 108 + shift, 30), RIGHT)]
    assert len(merge_detections(found, INFO)) == objects


@pytest.mark.parametrize(("shift", "objects"), [(0.0, 1), (0.5, 2)])
def test_a_cut_part_shares_half_of_the_smaller_with_the_box_that_crosses_the_cut(shift: float, objects: int) -> None:
    found = [sighting((100, 10, 110, 30), LEFT), sighting((105, 20 + shift, 150, 40 + shift), RIGHT)]
    assert len(merge_detections(found, INFO)) == objects


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("beyond", "objects"), [(0, 2), (20, 1)])
def test_a_box_that_ends_at_the_cut_does_not_cross_it(beyond: int, objects: int, *, mirrored: bool) -> None:
    pairs = [((92, 10, 110, 30), LEFT), ((105, 10, 110 + beyond, 30), RIGHT)]
    if mirrored:
        pairs = [
            ((200 - x1, y0, 200 - x0, y1), (200 - right, top, 200 - left, bottom))
            for (x0, y0, x1, y1), (left, top, right, bottom) in pairs
        ]
    assert len(merge_detections([sighting(corners, window) for corners, window in pairs], INFO)) == objects


def test_a_box_without_a_score_is_the_worst() -> None:
    scored, unscored = sighting((80, 10, 108, 30), LEFT, 0.1), replace(sighting((80, 11, 108, 31), RIGHT), score=None)
    (one,) = merge_detections([unscored, scored], INFO)
    assert (one.score, one.geometry.bounds) == (0.1, (80, 10, 108, 30))


def test_only_boxes_that_are_equal_in_all_are_one_before_they_are_compared() -> None:
    same = sighting((10, 10, 20, 20), LEFT)
    others = [replace(same, notes={"colour": "red"}), replace(same, numbers={"size": 1.0}), replace(same, text="a")]
    assert len(merge_detections([same, *others, same], INFO)) == 4


def test_boxes_are_clipped_to_tile_and_picture() -> None:
    cutting = Cutting((50, 20), 1.0, 32, 4, 0, 9)
    view = cutting.view(cutting.regions[0])  # tiles from -4, 20 and 44 on; along y one from -4 on

    def detect(shown: npt.NDArray[np.float64], _: npt.NDArray[np.bool_]) -> list[Detection]:
        if shown[0, 0, 0] != 20:
            return []
        ends = [
            (-5.0, 2.0, 90.0, 90.0),
            (27.0, 1.0, 31.0, 9.0),
            (1.0, 25.0, 9.0, 30.0),
            (3.0, 0.0, 9.0, 4.0),
            (3.0, 7.0, 3.0, 9.0),
            (3.0, 7.0, 9.0, 7.0),
        ]
        faint = [Detection("a", score, (0, 0, 9, 9)) for score in (0.29994, 0.29996)]
        return [Detection("a", 0.56789, corners) for corners in ends] + faint

    found = to_image_coordinates(tile_detections(view, detect, threshold=0.3), view)
    assert [(one.geometry.bounds, one.score) for one in found] == [
        ((20, 0, 50, 20), 0.5679),
        ((47, 0, 50, 5), 0.5679),
        ((20, 0, 29, 5), 0.3),
    ]
    assert [finding.window for finding in found] == [(20, 0, 50, 20)] * 3


def test_tiles_without_kept_pixels_are_not_run() -> None:
    cutting = Cutting((50, 20), 1.0, 32, 4, 0, 9)
    view = cutting.view(cutting.regions[0])
    asked: list[float] = []

    def detect(shown: npt.NDArray[np.float64], _: npt.NDArray[np.bool_]) -> list[Detection]:
        asked.append(float(shown[0, 0, 0]))
        return []

    view.keep_mask[:, :27] = False  # 4 px of them are beyond the picture, and its last tile shares 2 px of it
    tile_detections(view, detect, threshold=0.0)
    assert asked == [-4.0, 20.0, 44.0]
    view.keep_mask[:, :28] = False  # where the second tile's share begins
    tile_detections(view, detect, threshold=0.0)
    assert asked == [-4.0, 20.0, 44.0, 20.0, 44.0]


def test_a_box_without_a_window_has_the_whole_region() -> None:
    cutting = Cutting((100, 40), 2.0, 32, 0, 8, 2)
    region = cutting.regions[1]
    answer = Answer("a", box(0, 0, 5, 5), "box")
    c, r = region.columns, region.rows
    assert to_image_coordinates([answer], cutting.view(region))[0].window == (
        2 * c.start,
        2 * r.start,
        min(200, 2 * c.stop),
        min(80, 2 * r.stop),
    )


def test_suppression_keeps_the_best_of_overlapping_boxes() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 5, 10, 15]], dtype=np.float64)
    assert suppress_overlaps(boxes, np.array([0.5, 0.9, 0.9, 0.2]), 0.45).tolist() == [1, 2, 3]
    assert suppress_overlaps(boxes, np.array([0.5, 0.9, 0.9, 0.2]), 0.2).tolist() == [1, 2]
    assert suppress_overlaps(boxes[:0], np.empty(0), 0.5).tolist() == []
