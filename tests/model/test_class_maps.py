"""Tracing class maps: every pixel in exactly one valid polygon of its class, four-connected, with its mean score."""

import tracemalloc
from collections import Counter
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from limner.model.annotator import Answer, InputSpec, View
from limner.model.class_maps import (
    Averaging,
    _blend_weights,  # pyright: ignore[reportPrivateUsage] - a formula
    class_map_bytes,
    class_map_to_polygons,
    draw_labels,
    fill_invalid,
    polygonise,
)
from limner.model.probabilities import NODATA, STEPS, LabelProbabilities
from limner.model.tiling import TileGrid
from limner.readers.regions import Grid, cut_regions


def flood(classes: npt.NDArray[np.uint8], wanted: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Patch numbers (H, W) by walking from pixel to pixel, -1 where nothing is wanted: slow and obvious."""
    height, width = classes.shape
    owner = np.full(classes.shape, -1)
    for seed in np.argwhere(wanted):
        if owner[tuple(seed)] >= 0:
            continue
        number, todo = owner.max() + 1, [tuple(seed)]
        while todo:
            y, x = todo.pop()
            if owner[y, x] >= 0 or not wanted[y, x] or classes[y, x] != classes[tuple(seed)]:
                continue
            owner[y, x] = number
            steps = ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1))
            todo += [(j, i) for j, i in steps if 0 <= j < height and 0 <= i < width]
    return owner


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.data(), st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_polygons_are_the_four_connected_components(data: st.DataObject, shape: tuple[int, int]) -> None:
    classes = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 2)))
    wanted = data.draw(hnp.arrays(np.bool_, shape, elements=st.sampled_from([True, True, True, False])))
    scores = np.linspace(0, 1, classes.size, dtype=np.float32).reshape(shape)
    patches = polygonise(classes, scores, wanted)
    owner = flood(classes, wanted)
    expected = Counter(
        (int(classes[owner == n][0]), int((owner == n).sum()), round(float(scores[owner == n].mean(dtype=float)), 5))
        for n in range(owner.max() + 1)
    )
    assert Counter((p.value, p.pixels, round(p.score, 5)) for p in patches) == expected
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    covered = np.zeros(shape, dtype=int)
    for patch in patches:
        assert patch.polygon.is_valid
        assert patch.polygon.area == patch.pixels
        within = shapely.contains_xy(patch.polygon, x, y)
        assert (classes[within] == patch.value).all()
        covered += within
    assert (covered == wanted).all()


def test_without_answers_a_label_map_is_empty() -> None:
    drawn = draw_labels([], {"a": 1}, (4, 5))
    assert (drawn.dtype, drawn.tolist()) == (np.int16, [[0] * 5] * 4)


def test_an_empty_mask_has_no_polygons() -> None:
    blank = np.zeros((3, 3), dtype=np.uint8)
    assert polygonise(blank, blank.astype(np.float32), blank.astype(np.bool_)) == []


def test_a_ring_has_a_hole_and_vertices_only_at_corners() -> None:
    classes = np.ones((5, 5), dtype=np.uint8)
    classes[2, 2] = 7
    ring, dot = sorted(polygonise(classes, np.ones((5, 5), np.float32), np.ones((5, 5), bool)), key=lambda p: p.value)
    assert shapely.normalize(ring.polygon) == shapely.normalize(
        shapely.Polygon([(0, 0), (5, 0), (5, 5), (0, 5)], [[(2, 2), (3, 2), (3, 3), (2, 3)]])
    )
    assert dot.polygon.bounds == (2, 2, 3, 3)
    assert (ring.score, dot.score) == (1.0, 1.0)


@pytest.mark.parametrize("score", [1.0, 1.0 - 2.0**-24, 0.7, 0.5, 5 * 2.0**-24])
def test_a_score_in_steps_of_2_to_the_minus_24_is_exact(score: float) -> None:
    exact = np.full((1, 1), score, np.float32)
    (patch,) = polygonise(np.ones((1, 1), np.uint8), exact, np.ones((1, 1), bool))
    assert patch.score == float(exact[0, 0])


def test_invalid_pixels_repeat_the_nearest_of_their_row_the_left_of_two_or_of_the_nearest_row() -> None:
    tile = np.arange(15.0).reshape(3, 5, 1)
    valid = np.zeros((3, 5), bool)
    valid[0, [0, 2]] = valid[2, 4] = True
    assert fill_invalid(tile, valid)[..., 0].tolist() == [[0, 0, 2, 2, 2]] * 2 + [[14] * 5]


@pytest.mark.parametrize("order", ["C", "F"])
def test_beyond_a_rectangle_of_valid_pixels_its_edge_is_repeated(order: Literal["C", "F"]) -> None:
    tile = np.array(np.random.default_rng(0).random((5, 6, 2)), order=order)
    valid = np.zeros((5, 6), bool)
    valid[1:4, 2:4] = True
    expected = tile[np.clip(np.arange(5), 1, 3)[:, None], np.clip(np.arange(6), 2, 3)]
    assert (fill_invalid(tile, valid) == expected).all()
    holed = valid.copy()
    holed[2, 2] = False  # no rectangle: the same but for this pixel and what repeats it
    assert (fill_invalid(tile, holed)[2, :3] == tile[2, 3]).all()
    assert (fill_invalid(tile, holed)[[0, 1, 3, 4]] == expected[[0, 1, 3, 4]]).all()


def test_a_tall_map_is_averaged_strip_by_strip() -> None:
    random = np.random.default_rng(1)
    classes, scores = random.integers(0, 2, (150, 7)).astype(np.uint8), random.random((150, 7), np.float32)
    for patch in polygonise(classes, scores, np.ones((150, 7), bool)):
        y, x = np.nonzero(draw_labels([Answer("a", patch.polygon, "area", 1.0)], {"a": 1}, (150, 7)))
        assert patch.score == pytest.approx(float(scores[y, x].mean(dtype=np.float64)), abs=1e-7)


@pytest.mark.parametrize("overlap", [0, 1, 2, 5])
def test_weights_of_two_neighbours_add_up_to_1(overlap: int) -> None:
    weights = _blend_weights(12, overlap)[6, :, 0]
    assert weights[overlap : 12 - overlap] == pytest.approx(1.0)
    assert weights[:overlap] + weights[12 - overlap :] == pytest.approx(1.0)
    assert (np.diff(weights[:overlap]) > 0).all()


def mirrored(scores: npt.NDArray[np.float32], x: int, y: int) -> npt.NDArray[np.float32]:
    return scores[::y, ::x]


@pytest.mark.parametrize("classes", [3, 20], ids=["few classes", "many classes"])
@pytest.mark.parametrize(
    "averaging", [Averaging(), Averaging(blend=True), Averaging(flips=True), Averaging(True, True)]
)
@pytest.mark.parametrize("overlap", [3, 4])
def test_a_pixel_has_the_class_of_its_highest_score(averaging: Averaging, classes: int, overlap: int) -> None:
    """The scores of each pixel are averaged here pixel by pixel: 3 × 2 tiles of 8 px that share 3 or 4 px."""
    tile, random = 8, np.random.default_rng(7)
    grid = TileGrid.exact(3, 2, tile=tile, overlap=overlap)
    width, height = grid.size
    (region,) = cut_regions(Grid("map", (width, height), (1.0, 1.0)), tile=max(width, height), halo=0)
    tiles = random.random((6, tile, tile, classes), dtype=np.float32)
    tiles[..., 1] = 0.0
    valid, keep = np.ones((6, tile, tile), np.bool_), random.random((height, width)) > 0.2
    ramp = np.linspace(0.5, 1.0, tile * tile, dtype=np.float32).reshape(tile, tile, 1)  # a network that sees mirroring

    def segment(pixels: npt.NDArray[np.float32], _: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        return pixels * ramp

    turns = [(1, 1), (-1, 1), (1, -1), (-1, -1)] if averaging.flips else [(1, 1)]
    scores = [np.mean([mirrored(mirrored(one, *turn) * ramp, *turn) for turn in turns], axis=0) for one in tiles]
    edge = [min(at, tile - 1 - at) + 0.5 for at in range(tile)]
    share = [np.sin(np.pi / 2 * min(1.0, distance / overlap)) ** 2 for distance in edge]
    assert share[tile - overlap :] == pytest.approx([1 - one for one in share[:overlap]])
    found, best = np.zeros((height, width), np.uint8), np.zeros((height, width), np.float32)
    averages = np.zeros((classes, height, width))
    for y in range(height):
        for x in range(width):
            total, weights = np.zeros(classes), 0.0
            for one, (x0, y0, x1, y1), core in zip(scores, grid.boxes(), grid.core_boxes(), strict=True):
                inside = core if not averaging.blend else (x0, y0, x1, y1)
                if inside[0] <= x < inside[2] and inside[1] <= y < inside[3]:
                    weight = share[x - x0] * share[y - y0] if averaging.blend else 1.0
                    total, weights = total + weight * one[y - y0, x - x0], weights + weight
            found[y, x], best[y, x] = total.argmax(), total.max() / weights
            averages[:, y, x] = total / weights
    threshold, background = float(np.quantile(best, 0.3)), [1, 2]
    kept = keep & (best >= threshold) & ~np.isin(found, background)
    assert 20 < kept.sum() < keep.sum()
    names = [f"class {number}" for number in range(classes)]
    labels: dict[str | int, int] = {names[2]: 0, names[0]: 1}
    room = LabelProbabilities(labels, np.full((2, height, width), NODATA, np.uint8))
    view = View(region, InputSpec(tile, overlap=overlap), grid, tiles, valid, keep, probabilities=room)
    decide = lambda scores: np.where(scores >= threshold, scores, 0)  # noqa: E731
    options = {"background": background, "decide": decide, "network": "n", "averaging": averaging}
    answers = class_map_to_polygons(view, segment, classes=names, **options)
    expected = polygonise(found, best, kept)
    assert [(answer.label, answer.kind, answer.numbers) for answer in answers] == [
        (names[one.value], "area", {"pixels": float(one.pixels)}) for one in expected
    ]
    assert [answer.geometry for answer in answers] == [one.polygon for one in expected]
    assert [answer.score for answer in answers] == pytest.approx([one.score for one in expected], abs=1e-6)
    assert np.abs(room.values / STEPS - averages[[2, 0]]).max() < 0.5 / STEPS + 1e-6  # before `decide`


@pytest.mark.parametrize("classes", [3, 12])
def test_the_memory_that_blending_adds_is_what_was_estimated(classes: int) -> None:
    """Of a map of many tiles, in which a tile's own scores are little."""
    tile, spec = 64, InputSpec(64, halo=8, overlap=64)
    grid = TileGrid.exact(12, 10, tile=tile, overlap=16)
    (region,) = cut_regions(Grid("map", grid.size, (1.0, 1.0)), tile=max(grid.size), halo=0)
    tiles = np.zeros((120, tile, tile, 1), np.float32)
    view = View(region, spec, grid, tiles, np.ones(tiles.shape[:3], np.bool_), np.ones(grid.size[::-1], np.bool_))
    scores = np.zeros((tile, tile, classes), np.float32)
    scores[..., 1] = 1.0
    peaks: list[int] = []
    for averaging in (Averaging(), Averaging(blend=True)):
        tracemalloc.start()
        names = [str(number) for number in range(classes)]
        class_map_to_polygons(view, lambda *_: scores, classes=names, network="n", averaging=averaging)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        estimated = class_map_bytes([spec], (12, 10), classes=classes, averaging=averaging)
    assert 0.75 < (peaks[0] + estimated) / peaks[1] < 1.25
    width, height = TileGrid.exact(12, 10, tile=tile, overlap=16).size
    assert class_map_bytes([spec], (12, 10), classes=classes, averaging=Averaging(blend=True)) == (
        width * height * np.dtype(np.float32).itemsize * (classes + 1)
    )
    assert class_map_bytes([spec], (12, 10), classes=classes, averaging=Averaging()) == 0
    specs = [replace(spec, halo=0), spec, replace(spec, halo=16)]
    assert class_map_bytes(specs, (12, 10), classes=classes, averaging=averaging) == max(
        class_map_bytes([one], (12, 10), classes=classes, averaging=averaging) for one in specs
    )
