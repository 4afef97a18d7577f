"""The one check that numbers are finite, and where each kind of answer passes it."""

from typing import Any

import numpy as np
import pytest
import torch
from limner.model.annotator import Answer, InputSpec, View
from limner.model.class_maps import class_map_to_polygons
from limner.model.detections import Detection, tile_detections
from limner.model.probe.head import Head
from limner.model.scores import (
    MAX_LISTED,
    SCORE_DIGITS,
    require_distinct,
    require_finite,
    require_probabilities,
    round_scores,
    softmax,
    top_label,
)
from limner.model.tiling import TileGrid
from limner.model.views import to_image_coordinates
from limner.model.vlm.decoding import Decoding
from limner.model.vlm.texts import CUT
from limner.readers.errors import ModelError
from limner.readers.regions import Grid, cut_regions
from shapely.geometry import box

SIDE = 8


@pytest.fixture
def view() -> View:
    """One tile of 8 × 8 pixels."""
    (region,) = cut_regions(Grid("map", (SIDE, SIDE), (1.0, 1.0)), tile=SIDE, halo=0)
    everywhere = np.ones((SIDE, SIDE), dtype=np.bool_)
    grid = TileGrid.exact(1, 1, tile=SIDE)
    return View(region, InputSpec(SIDE), grid, np.zeros((1, SIDE, SIDE, 3), np.uint8), everywhere[None], everywhere)


@pytest.mark.parametrize("kind", [np.array, torch.tensor], ids=["array", "tensor"])
def test_nonfinite_values_are_counted(kind: Any) -> None:
    good = kind([[1.0, 2.0], [3.0, -1e30]])
    assert require_finite(good, "logits", of="network n") is good
    bad = kind([[1.0, float("nan")], [float("inf"), -float("inf")]])
    with pytest.raises(ModelError) as caught:
        require_finite(bad, "logits", of="network n", at="at token 3")
    told = "network n must have finite logits (found: NaN in 1 and infinity in 2 of 4 at token 3). Check"
    assert str(caught.value).startswith(told)
    assert "float32" in caught.value.remedy


def test_half_precision_and_integers() -> None:
    with pytest.raises(ModelError, match="infinity in 1 of 2"):
        require_finite(torch.tensor([1.0, 1e6]).half(), "logits", of="n")
    assert require_finite(np.array([1, 2]), "counts", of="n").tolist() == [1, 2]


def test_equal_scores_of_all_classes_are_refused() -> None:
    require_distinct(np.array([0.0, 0.1]), of="n")
    require_distinct(np.array([5.0]), of="n")
    with pytest.raises(ModelError, match=r"apart \(found: all 3 are 2\)"):
        require_distinct(torch.full((1, 3), 2.0), of="n")


def test_probabilities_outside_0_to_1_are_refused() -> None:
    require_probabilities(np.array([0.0, 1.0005]), of="n")
    for wrong in ([1.1], [-0.5], [np.nan]):
        with pytest.raises(ModelError):
            require_probabilities(np.array(wrong), of="n")


@pytest.mark.parametrize(
    ("score", "corners", "say"),
    [
        (0.9, (5.0, 1.0, 2.0, 3.0), "width and height"),
        (0.9, (1.0, 1.0, np.inf, 3.0), "must have finite boxes"),
        (1.7, (1.0, 1.0, 2.0, 3.0), "from 0 to 1"),
    ],
)
def test_invalid_detections_are_refused(view: View, score: float, corners: Any, say: str) -> None:
    one = Detection("ship", score, corners)
    with pytest.raises(ModelError, match=say):
        tile_detections(view, lambda *_: [one], threshold=0.5, of="network n")
    unlikely = Detection("ship", 0.1, corners)
    assert tile_detections(view, lambda *_: [unlikely], threshold=0.5) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, 3.0, -2.0])
def test_nonfinite_class_maps_are_refused(view: View, value: float) -> None:
    values = np.zeros((SIDE, SIDE, 2), dtype=np.float32)
    values[3, 4, 1] = value
    with pytest.raises(ModelError, match="network n"):
        class_map_to_polygons(view, lambda *_: values, lambda scores: scores, classes=("a", "b"), network="n")


def test_nonfinite_logits_of_a_probe_are_refused() -> None:
    layers = ((np.array([[np.inf, 1.0]]), np.zeros(2)),)
    head = Head(np.zeros(1), np.ones(1), layers)
    with pytest.raises(ModelError, match="head of the probe must have finite logits"):
        head.probabilities(np.ones((1, 1)))


@pytest.mark.parametrize(
    "answer",
    [
        Answer("a", None, "region", score=float("nan")),
        Answer("a", None, "region", numbers={"n": float("inf")}),
        Answer("a", box(0, 0, 1, 1), "area", score=-float("inf")),
    ],
)
def test_nonfinite_answers_of_any_annotator_are_refused(view: View, answer: Answer) -> None:
    with pytest.raises(ModelError, match="must have finite numbers"):
        to_image_coordinates([answer], view)[0]


def test_a_free_text_is_marked_where_it_was_cut() -> None:
    decoding = Decoding("n", stops=[9])
    words = decoding.texts([[1, 2, 9, 9], [1, 2, 3, 4]], lambda ids: "-".join(map(str, ids)), limit=4)
    assert [text.marked for text in words] == ["1-2", "1-2-3-4" + CUT]
    assert [text.cut for text in words] == [False, True]


def test_logits_are_checked_before_the_grammar_bars_tokens() -> None:
    decoding = Decoding("checkpoint c", stops=[9], begin=2)
    scores = torch.zeros((2, 10))
    ids = torch.zeros((2, 3), dtype=torch.long)
    assert decoding(ids, scores) is scores
    scores[1, 3] = -torch.inf
    with pytest.raises(ModelError, match=r"checkpoint c.*infinity in 1 of 20 at token 2 of the answer"):
        decoding(ids, scores)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_of_large_and_infinite_logits(dtype: type) -> None:
    logits = np.array([[1000.0, 1000.0, -np.inf], [np.log(1.0), np.log(2.0), np.log(5.0)]], dtype=dtype)
    found = softmax(logits)
    assert found.dtype == dtype
    assert found == pytest.approx(np.array([[0.5, 0.5, 0.0], [0.125, 0.25, 0.625]]), abs=1e-7)


def test_the_best_five_of_many_labels_are_listed() -> None:
    labels = [f"label {i}" for i in range(MAX_LISTED + 1)]
    chances = np.zeros(len(labels))
    chances[[20, 7, 3, 11, 5, 9]] = [0.3, 0.2, 0.2, 0.1, 0.05, 0.04]
    answer = top_label(labels, chances, "tile", 0.5)
    assert (answer.label, answer.score) == ("label 20", 0.3)
    told = {"p.label 20": 0.3, "p.label 3": 0.2, "p.label 7": 0.2, "p.label 11": 0.1, "p.label 5": 0.05}
    assert answer.numbers == {**told, "valid": 0.5}
    fewer = top_label(labels[1:], chances[1:], "tile", 0.5)
    assert len(fewer.numbers) == MAX_LISTED + 1


def test_the_first_of_equal_scores_wins() -> None:
    answer = top_label(["a", "b", "c"], np.array([0.2, 0.40001, 0.40004]), "region", 1.0, made_of="half")
    assert (answer.label, answer.kind, answer.geometry, answer.notes) == ("b", "region", None, {"made_of": "half"})


def test_labels_of_one_name_have_the_highest_score() -> None:
    answer = top_label(["crane", "crane", "heron"], np.array([0.6, 0.1, 0.3]), "tile", 1.0)
    assert answer.numbers == {"p.crane": 0.6, "p.heron": 0.3, "valid": 1.0}


def test_many_scores_are_rounded_as_one_is() -> None:
    random = np.random.default_rng(0)
    halves = (random.integers(0, 10_000, 5000) + 0.5) / 10_000
    near = np.concatenate([halves, np.nextafter(halves, 1.0), np.nextafter(halves, 0.0)])
    every = np.concatenate([near, random.random(5000), -near, [np.nan, 0.0, -0.00001, 123456789012.34565, 1e300]])
    one_by_one = [round(one, SCORE_DIGITS) for one in every.tolist()]
    np.testing.assert_array_equal(round_scores(every), one_by_one)
