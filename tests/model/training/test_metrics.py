"""Metrics against scikit-learn, and bootstrap intervals over units."""

import numpy as np
import pytest
from limner.model.training.metrics import accuracy_gain, class_weights, compute_metrics, margins
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

Predictions = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Probabilities (n, classes), true classes (n,) and units (n,)."""


@pytest.fixture
def predictions() -> Predictions:
    """Probabilities of 400 tiles of four classes in 40 units, right about two times in three."""
    random = np.random.default_rng(1)
    classes = random.integers(0, 4, 400)
    logits = random.normal(size=(400, 4)) + 1.5 * np.eye(4)[classes]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities, classes, np.repeat(np.arange(40), 10)


def test_metrics_are_those_of_scikit_learn(predictions: Predictions) -> None:
    probabilities, classes, units = predictions
    best = probabilities.argmax(axis=1)
    found = compute_metrics(probabilities, classes, units, np.ones(400))
    assert found.accuracy.value == pytest.approx((best == classes).mean())
    assert found.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(classes, best))
    assert found.macro_f1.value == pytest.approx(f1_score(classes, best, average="macro"))
    assert found.confusion.tolist() == confusion_matrix(classes, best).tolist()
    precision, recall, f1, _ = precision_recall_fscore_support(classes, best)
    by_class = np.array([[one.value for one in three] for three in found.by_class])
    assert by_class == pytest.approx(np.stack([precision, recall, f1], axis=1))


def test_the_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.65, 0.35]] * 10)
    classes = np.array([0] * 8 + [1] * 2 + [0] * 5 + [1] * 5)
    found = compute_metrics(probabilities, classes, np.arange(20), np.ones(20))
    assert found.calibration_error.value == pytest.approx(0.5 * 0.1 + 0.5 * 0.15)
    weighted = compute_metrics(probabilities, classes, np.arange(20), np.array([2.0] * 10 + [1.0] * 10))
    assert weighted.calibration_error.value == pytest.approx((2 * 0.1 + 0.15) / 3)


def test_intervals_contain_the_metric_and_widen_with_fewer_units(
    predictions: Predictions,
) -> None:
    probabilities, classes, units = predictions
    alike = np.repeat(probabilities[:40], 10, axis=0), np.repeat(classes[:40], 10)  # ten copies of each of forty tiles
    blocked = compute_metrics(*alike, units, np.ones(400)).accuracy
    alone = compute_metrics(*alike, np.arange(400), np.ones(400)).accuracy
    for one in (blocked, alone):
        assert one.low <= one.value <= one.high
    assert blocked.high - blocked.low > 2 * (alone.high - alone.low)
    assert compute_metrics(*alike, units, np.ones(400)) is not None
    again = compute_metrics(*alike, units, np.ones(400)).accuracy
    assert again == blocked


def test_a_class_that_is_never_predicted_has_no_precision() -> None:
    probabilities = np.tile([0.6, 0.4], (12, 1))
    found = compute_metrics(probabilities, np.array([0, 1] * 6), np.arange(12), np.ones(12))
    assert [one.value for one in found.by_class[1]] == [0.0, 0.0, 0.0]
    assert found.balanced_accuracy.value == 0.5


def test_the_difference_is_paired(predictions: Predictions) -> None:
    probabilities, classes, units = predictions
    same = accuracy_gain(probabilities, probabilities, classes, units)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    perfect = np.eye(4)[classes]
    gain = accuracy_gain(perfect, probabilities, classes, units)
    assert gain.value == pytest.approx(1 - (probabilities.argmax(axis=1) == classes).mean())
    assert 0 < gain.low < gain.value < gain.high


def test_a_larger_margin_decides_fewer_tiles_more_accurately(
    predictions: Predictions,
) -> None:
    probabilities, classes, _ = predictions
    found = margins(probabilities, classes, (0.0, 0.3, 0.6))
    assert found[0][1] == 1.0
    assert found[0][1] > found[1][1] > found[2][1]
    assert found[0][2] < found[1][2] < found[2][2]
    assert margins(probabilities, classes, (1.1,)) == [(1.1, 0.0, 0.0)]


def test_class_weights_are_balanced() -> None:
    weights = class_weights(np.array([0] * 9 + [2]), 3)
    assert weights[:9].sum() == pytest.approx(weights[9:].sum())
    assert weights.mean() == pytest.approx(1.0)
