"""Fitted heads against scikit-learn, and held-out predictions without leakage."""

import subprocess
import sys

import numpy as np
import pytest
from limner.model.scores import softmax
from limner.model.training.fit import STRENGTHS, assign_folds, fit_head, max_fits, temperature
from limner.model.training.metrics import class_weights
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

pytestmark = pytest.mark.slow

Data = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def data() -> Data:
    """Features (160, 8), three classes of unequal size, folds: each unit of four tiles has an offset of its own."""
    random = np.random.default_rng(7)
    units = np.repeat(np.arange(40), 4)
    classes = np.array([0, 0, 1, 2])[units % 4]
    features = random.normal(size=(160, 8)) + np.eye(8)[classes] * 2 + random.normal(size=(40, 8))[units]
    return features * 50 + 9, classes, assign_folds(units, classes, "abc", folds=4, unit="outline")


def test_the_head_is_scikit_learn_s(data: Data) -> None:
    features, classes, folds = data
    fitted = fit_head(features, classes, folds, count=3, kind="linear")
    standard = StandardScaler().fit(features)
    oracle = LogisticRegression(C=1 / (fitted.strength * 160), max_iter=2000, tol=1e-8)
    oracle.fit(standard.transform(features), classes, sample_weight=class_weights(classes, 3))
    found = softmax(fitted.head.logits(fitted.head.standardise(features)))
    assert found == pytest.approx(oracle.predict_proba(standard.transform(features)), abs=1e-4)


def test_held_out_tiles_do_not_influence_their_predictions(data: Data) -> None:
    """The classes of a fold change the predictions of other folds, and not those of itself."""
    features, classes, folds = data
    before = fit_head(features, classes, folds, count=3, kind="linear")
    here = folds == 1
    renamed = np.where(here, (classes + 1) % 3, classes)
    after = fit_head(features, renamed, folds, count=3, kind="linear")
    assert after.chosen[1] == before.chosen[1], "the strength of a fold is chosen on the others"
    assert np.array_equal(after.uncalibrated[here], before.uncalibrated[here])
    assert not np.array_equal(after.uncalibrated[~here], before.uncalibrated[~here])
    scale = np.log(before.uncalibrated[here]) - np.log(before.uncalibrated[here][:, :1])
    calibrated = np.log(before.probabilities[here]) - np.log(before.probabilities[here][:, :1])
    others = temperature(np.log(before.uncalibrated[~here]), classes[~here], 3)
    assert calibrated == pytest.approx(scale / others), "its temperature is that of the others"


def test_noise_gives_chance_accuracy() -> None:
    """With many features of pure noise, held-out accuracy is that of chance; that of training tiles would not be."""
    random = np.random.default_rng(3)
    features, classes = random.normal(size=(120, 200)), np.repeat([0, 1], 60)
    folds = assign_folds(np.arange(120), classes, "ab", folds=5, unit="outline")
    fitted = fit_head(features, classes, folds, count=2, kind="linear")
    assert 0.35 < (fitted.probabilities.argmax(axis=1) == classes).mean() < 0.65
    assert fitted.probabilities.max(axis=1).mean() < 0.6


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_two_classes_have_two_logits(kind: str) -> None:
    random = np.random.default_rng(5)
    classes = np.repeat([0, 1], 30)
    features = random.normal(size=(60, 3)) + 4 * classes[:, None]
    folds = assign_folds(np.arange(60), classes, "ab", folds=3, unit="outline")
    fitted = fit_head(features, classes, folds, count=2, kind=kind)  # type: ignore[arg-type]
    assert fitted.head.classes == 2
    assert (fitted.probabilities.argmax(axis=1) == classes).mean() > 0.9
    assert (fitted.head.probabilities(fitted.head.standardise(features)).argmax(axis=1) == classes).mean() > 0.9


def test_the_temperature_is_recovered() -> None:
    random = np.random.default_rng(2)
    truth = random.normal(size=(3000, 3))
    sampled = np.array([random.choice(3, p=row) for row in softmax(truth)])
    assert temperature(truth, sampled, 3) == pytest.approx(1.0, abs=0.15)
    assert temperature(4 * truth, sampled, 3) == pytest.approx(4.0, abs=0.5)


def test_fitting_is_deterministic(data: Data) -> None:
    features, classes, folds = data
    one, other = (fit_head(features, classes, folds, count=3, kind="mlp") for _ in range(2))
    assert np.array_equal(one.probabilities, other.probabilities)
    for (a, b), (c, d) in zip(one.head.layers, other.head.layers, strict=True):
        assert np.array_equal(a, c)
        assert np.array_equal(b, d)


def test_the_number_of_fits() -> None:
    assert max_fits(5, "linear") == len(STRENGTHS["linear"]) * (5 + 10) + 1


def test_without_scikit_learn_the_error_names_the_packages() -> None:
    code = (
        "import sys\nsys.modules['sklearn'] = None\nimport numpy as np\n"
        "from limner.model.training.fit import fit_head\n"
        "try:\n    fit_head(np.zeros((3, 1)), np.array([0, 1, 0]), np.array([0, 1, 2]), count=2, kind='linear')\n"
        "except Exception as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'matplotlib>=3.9' 'scikit-learn>=1.7' 'threadpoolctl>=3.5'" in done.stdout


def test_with_fewer_tiles_than_features_the_head_is_the_same(data: Data) -> None:
    _, classes, folds = data
    features = np.random.default_rng(9).normal(size=(160, 300)) + 0.3 * np.eye(300)[classes]
    fitted = fit_head(features, classes, folds, count=3, kind="linear")
    standard = StandardScaler().fit(features)
    oracle = LogisticRegression(C=1 / (fitted.strength * 160), max_iter=5000, tol=1e-8)
    oracle.fit(standard.transform(features), classes, sample_weight=class_weights(classes, 3))
    strange = np.random.default_rng(10).normal(size=(20, 300))
    found = softmax(fitted.head.logits(fitted.head.standardise(strange)))
    assert found == pytest.approx(oracle.predict_proba(standard.transform(strange)), abs=1e-3)
