"""Rows of bytes beside what Python formats, cell by cell."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from limner.reports.cells import coordinate_texts, joined, number_cells, significant_cells, text_cells

NUMBERS = st.lists(st.floats(-1e6, 1e6) | st.integers(-3000, 3000) | st.just(math.nan), min_size=1, max_size=20)


def rows(cells: object, count: int) -> list[str]:
    assert cells is not None
    return joined([cells, b"\n"], count).decode().split("\n")[:-1]  # type: ignore[list-item]


@given(NUMBERS, st.integers(0, 7))
def test_numbers_are_as_python_formats_them(numbers: list[float], decimals: int) -> None:
    values = np.round(np.array(numbers, dtype=np.float64), decimals) + 0.0
    expected = ["" if math.isnan(one) else f"{one:.{decimals}f}" for one in values.tolist()]
    assert rows(number_cells(values, decimals), len(values)) == expected


@given(NUMBERS, st.integers(1, 4))
def test_numbers_without_zeros_at_the_end_are_as_in_json(numbers: list[float], decimals: int) -> None:
    values = np.round(np.array(numbers, dtype=np.float64), decimals) + 0.0
    expected = ["" if math.isnan(one) else json.dumps(one) for one in values.tolist()]
    assert rows(number_cells(values, decimals, 1), len(values)) == expected
    short = [one.removesuffix(".0") for one in expected]
    assert rows(number_cells(values, decimals, 0), len(values)) == short


@given(NUMBERS, st.sampled_from([1.0, 1e-4, 300.0]))
def test_numbers_of_nine_digits_are_as_python_formats_them(numbers: list[float], scale: float) -> None:
    values = np.array([float(f"{one * scale:.9g}") for one in numbers]) + 0.0
    known = np.abs(values[~np.isnan(values) & (values != 0)])
    if ((known < 1e-4) | (known >= 1e9)).any():
        assert significant_cells(values, 9, 0) is None
        return
    expected = ["" if math.isnan(one) else json.dumps(one) for one in values.tolist()]
    assert rows(significant_cells(values, 9, 1), len(values)) == expected
    expected = ["" if math.isnan(one) else f"{one:.9g}" for one in values.tolist()]
    assert rows(significant_cells(values, 9, 0), len(values)) == expected


@pytest.mark.parametrize("value", [1e300, 3e12, -3e12])
def test_numbers_that_need_more_digits_than_a_double_has_are_left_to_others(value: float) -> None:
    assert number_cells(np.array([1.0, value]), 3) is None
    assert coordinate_texts(np.array([[0.0, value]]), (np.array([1]), np.array([1])), 3, 0) == [None]


@given(st.lists(st.text('aäß€😀,"', max_size=90), min_size=1, max_size=9), st.text("xyz", max_size=90))
def test_short_and_long_texts_stand_in_their_row(texts: list[str], same: str) -> None:
    count = len(texts)
    made = joined([text_cells(texts), b"|", text_cells([same] * count), b"|", text_cells(texts[::-1]), b"\n"], count)
    assert made.decode() == "".join(f"{one}|{same}|{other}\n" for one, other in zip(texts, texts[::-1], strict=True))


def test_rings_and_polygons_are_told_apart() -> None:
    xy = np.array([[0, 0], [9.5, 0], [0, 0], [1, 1], [2, -1.25], [1, 1], [4, 4], [4, 5], [4, 4]])
    made = coordinate_texts(xy, (np.array([3, 6, 9]), np.array([6, 9])), 2, 0)
    assert made == [b"[0,0],[9.5,0],[0,0]],[[1,1],[2,-1.25],[1,1]", b"[4,4],[4,5],[4,4]"]
