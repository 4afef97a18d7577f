"""A head against a direct computation, and the checks of its file."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from limner.model.probe.head import Head
from limner.readers.errors import ModelError
from safetensors.numpy import load_file, save_file

RANDOM = np.random.default_rng(4)


def head(*sizes: int, temperature: float = 2.0) -> Head:
    layers = tuple((RANDOM.normal(size=(a, b)), RANDOM.normal(size=b)) for a, b in pairwise(sizes))
    return Head(RANDOM.normal(size=sizes[0]), RANDOM.uniform(1, 3, size=sizes[0]), layers, temperature)


def test_probabilities_are_those_of_one_or_two_layers() -> None:
    features = RANDOM.normal(size=(5, 4))
    for sizes in ((4, 3), (4, 6, 3)):
        made = head(*sizes)
        hidden = (features - made.mean) / made.scale
        for place, (weights, bias) in enumerate(made.layers):
            hidden = (hidden if place == 0 else np.where(hidden > 0, hidden, 0)) @ weights + bias
        chances = np.exp(hidden / 2) / np.exp(hidden / 2).sum(axis=1, keepdims=True)
        assert made.probabilities(made.standardise(features)) == pytest.approx(chances)
        assert (made.dimensions, made.classes) == (4, 3)


def test_constant_features_are_zero() -> None:
    made = Head(np.zeros(2), np.array([0.0, 1.0]), ((np.ones((2, 2)), np.zeros(2)),))
    assert made.standardise([[1e9, 3.0]]).tolist() == [[0.0, 3.0]]


def test_a_saved_head_is_loaded_unchanged(tmp_path: Path) -> None:
    made = head(4, 6, 3)
    digest = made.save(tmp_path / "head.safetensors")
    again = Head.load(tmp_path / "head.safetensors", digest)
    features = RANDOM.normal(size=(5, 4))
    assert np.array_equal(
        again.probabilities(again.standardise(features)), made.probabilities(made.standardise(features))
    )
    assert made.save(tmp_path / "other") == digest


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    digest = head(4, 3).save(path)
    with pytest.raises(ModelError, match="must have a readable"):
        Head.load(tmp_path / "absent", digest)
    with pytest.raises(ModelError, match=f"must have the sha256 {'0' * 64}"):
        Head.load(path, "0" * 64)
    import hashlib

    tensors = load_file(path)
    tensors["layers.0.bias"] = np.zeros(7)
    save_file(tensors, path)
    with pytest.raises(ModelError, match="layers that fit"):
        Head.load(path, hashlib.sha256(path.read_bytes()).hexdigest())
    path.write_bytes(b"not a head")
    with pytest.raises(ModelError, match="hold a head's tensors"):
        Head.load(path, hashlib.sha256(b"not a head").hexdigest())
