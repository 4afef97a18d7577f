"""Colours of labels."""

import pytest
from limner.readers.errors import RequestError
from limner.reports.palette import PALETTE, Palette, rgb


def test_a_given_colour_is_kept_and_not_given_twice() -> None:
    palette = Palette.of(["a", "b", "c"], {"b": PALETTE[0].upper()})
    assert [palette[label] for label in "abc"] == [PALETTE[1], PALETTE[0], PALETTE[2]]


def test_more_labels_than_colours_begin_again() -> None:
    labels = [f"l{place}" for place in range(len(PALETTE) + 1)]
    palette = Palette.of(labels, {})
    assert palette[labels[-1]] == PALETTE[0]
    assert len({palette[label] for label in labels}) == len(PALETTE)


def test_a_label_nobody_listed_has_a_colour_too() -> None:
    assert Palette.of([], {})["words of a model"] == Palette.of(["a"], {})["words of a model"]
    assert Palette.of([], {})["\ud800"] in PALETTE


@pytest.mark.parametrize("colour", ["red", "#12345", "#1234567", '#12345"', "#12345\n"])
def test_a_colour_that_is_none_is_refused(colour: str) -> None:
    with pytest.raises(RequestError, match="#rrggbb"):
        Palette.of(["a"], {"a": colour})


def test_a_colour_in_numbers() -> None:
    assert rgb("#0a10ff") == (10, 16, 255)
