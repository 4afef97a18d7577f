"""Fusion against a direct computation, and its invariants."""

import numpy as np
import pytest
from limner.model.clip.fusion import Fusion, normalise


def test_it_is_attention_over_tiles_and_the_global_view() -> None:
    random = np.random.default_rng(0)
    tiles, overall = random.normal(size=(5, 7)), random.normal(size=7)
    fused = Fusion(scale=3.0, mix=0.4)(tiles, overall)
    observed = [*tiles, overall]
    for place, tile in enumerate(tiles):
        cosines = [tile @ other / np.linalg.norm(tile) / np.linalg.norm(other) for other in observed]
        weights = np.exp(3.0 * np.array(cosines))
        mean = sum(w * other for w, other in zip(weights / weights.sum(), observed, strict=True))
        assert fused[place] == pytest.approx(0.6 * tile + 0.4 * mean)


def test_the_order_of_tiles_does_not_matter() -> None:
    random = np.random.default_rng(1)
    tiles, order = random.normal(size=(9, 4)), random.permutation(9)
    assert Fusion()(tiles[order], tiles[0]) == pytest.approx(Fusion()(tiles, tiles[0])[order])


def test_similar_tiles_move_closer_to_their_mean() -> None:
    random = np.random.default_rng(2)
    tiles = np.eye(6)[0] + 0.3 * random.normal(size=(12, 6))
    fused = Fusion()(tiles)
    middle = tiles.mean(axis=0)
    assert (np.linalg.norm(fused - middle, axis=1) < np.linalg.norm(tiles - middle, axis=1)).all()


def test_a_single_tile_is_unchanged() -> None:
    tile = np.array([[1.0, 2.0]])
    assert Fusion()(tile) == pytest.approx(tile)
    assert Fusion(mix=0.0)(np.arange(6.0).reshape(3, 2), np.ones(2)) == pytest.approx(np.arange(6.0).reshape(3, 2))
    assert Fusion()(np.empty((0, 3))).shape == (0, 3)
    assert np.isfinite(Fusion()(np.zeros((3, 2)))).all()
    assert normalise(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [[0.6, 0.8], [0.0, 0.0]]


def test_the_option_is_parsed() -> None:
    assert Fusion.parse("off") is None
    assert Fusion.parse("attention") == Fusion()
    assert Fusion.parse("attention,5,0.25") == Fusion(5.0, 0.25)
    for text in ("on", "", "attention,5", "attention,a,b", "attention,5,1.5", "attention,-1,0.5", "attention,nan,0.5"):
        with pytest.raises(ValueError, match="off, attention"):
            Fusion.parse(text)
