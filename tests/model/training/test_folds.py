"""Folds: units stay whole, and each fold holds every class."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.model.training.fit import assign_folds, number_units
from limner.readers.errors import RequestError


def test_groups_that_share_a_tile_are_one_unit() -> None:
    members = [["a"], ["b"], ["c", "a"], ["d"], ["d", "b"], ["e"]]
    assert number_units(members).tolist() == [0, 1, 0, 1, 1, 2]


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), min_size=15, max_size=40), st.integers(3, 5))
def test_units_stay_whole_and_every_fold_holds_every_class(units: list[tuple[int, int]], folds: int) -> None:
    dealt = [*units, *((one, 1) for one in range(3) for _ in range(5))]  # at least five units a class
    classes = np.concatenate([np.full(size, one) for one, size in dealt])
    numbers = np.concatenate([np.full(size, place) for place, (_, size) in enumerate(dealt)])
    found = assign_folds(numbers, classes, "abc", folds=folds, unit="outline")
    for unit in np.unique(numbers):
        assert len(set(found[numbers == unit].tolist())) == 1
    for fold in range(folds):
        assert set(classes[found == fold].tolist()) == {0, 1, 2}
    again = assign_folds(numbers, classes, "abc", folds=folds, unit="outline")
    assert found.tolist() == again.tolist()


def test_large_units_do_not_all_lie_in_one_fold() -> None:
    sizes = [30, 28, 26, 3, 3, 3, 3, 3, 3]
    numbers = np.repeat(np.arange(9), sizes)
    found = assign_folds(numbers, np.zeros(len(numbers), dtype=np.intp), "a", folds=3, unit="outline")
    counts = np.bincount(found)
    assert counts.max() <= 1.2 * counts.min()


def test_a_class_with_fewer_units_than_folds_is_refused_by_name() -> None:
    classes = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    numbers = np.arange(8)
    with pytest.raises(RequestError, match=r"class 'sand'.*as many outlines.*3 for 5 folds.*--folds 3.*--block 500m"):
        assign_folds(numbers, classes, ("land", "sand"), folds=5, unit="outline")
    with pytest.raises(RequestError, match="3 or more"):
        assign_folds(numbers, classes, ("land", "sand"), folds=2, unit="outline")
