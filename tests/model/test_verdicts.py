"""Verdicts on tiles and regions."""

import numpy as np
from limner.model.scores import MAX_LISTED, top_label


def test_of_many_labels_the_best_five_are_told() -> None:
    labels = [f"label {i}" for i in range(MAX_LISTED + 1)]
    chances = np.zeros(len(labels))
    chances[[20, 7, 3, 11, 5, 9]] = [0.3, 0.2, 0.2, 0.1, 0.05, 0.04]
    answer = top_label(labels, chances, "tile", 0.5)
    assert (answer.label, answer.score) == ("label 20", 0.3)
    told = {"p.label 20": 0.3, "p.label 3": 0.2, "p.label 7": 0.2, "p.label 11": 0.1, "p.label 5": 0.05}
    assert answer.numbers == {**told, "valid": 0.5}
    fewer = top_label(labels[1:], chances[1:], "tile", 0.5)
    assert len(fewer.numbers) == MAX_LISTED + 1


def test_of_equals_the_first_is_best() -> None:
    answer = top_label(["a", "b", "c"], np.array([0.2, 0.40001, 0.40004]), "region", 1.0, made_of="half")
    assert (answer.label, answer.kind, answer.geometry, answer.notes) == ("b", "region", None, {"made_of": "half"})


def test_of_labels_with_one_name_the_highest_is_told() -> None:
    answer = top_label(["crane", "crane", "heron"], np.array([0.6, 0.1, 0.3]), "tile", 1.0)
    assert answer.numbers == {"p.crane": 0.6, "p.heron": 0.3, "valid": 1.0}
