"""Colours of labels."""

import pytest
from limner.model.checkpoints.cards import find_card
from limner.readers.errors import RequestError
from limner.reports.palette import PALETTE, Palette, conventional, rgb


def test_a_given_colour_is_kept_and_not_given_twice() -> None:
    palette = Palette.of(["a", "b", "c"], {"b": PALETTE[0].upper()})
    assert [palette[label] for label in "abc"] == [PALETTE[1], PALETTE[0], PALETTE[2]]


def test_more_labels_than_colours_repeat_the_palette() -> None:
    labels = [f"l{place}" for place in range(len(PALETTE) + 1)]
    palette = Palette.of(labels, {})
    assert palette[labels[-1]] == PALETTE[0]
    assert len({palette[label] for label in labels}) == len(PALETTE)


def test_a_label_that_the_model_did_not_list_has_a_colour() -> None:
    assert Palette.of([], {})["words of a model"] == Palette.of(["a"], {})["words of a model"]
    assert Palette.of([], {})["\ud800"] in PALETTE


@pytest.mark.parametrize("colour", ["red", "#12345", "#1234567", '#12345"', "#12345\n"])
def test_an_invalid_colour_is_refused(colour: str) -> None:
    with pytest.raises(RequestError, match="#rrggbb"):
        Palette.of(["a"], {"a": colour})


def test_a_colour_in_numbers() -> None:
    assert rgb("#0a10ff") == (10, 16, 255)


def _hue(colour: str) -> str:
    """The name of a colour, roughly."""
    red, green, blue = rgb(colour)
    if max(red, green, blue) - min(red, green, blue) < 30:
        return "grey"
    return {red: "red", green: "green", blue: "blue"}[max(red, green, blue)]


@pytest.mark.parametrize(
    ("label", "hue"),
    [
        ("water", "blue"),
        ("SeaLake", "blue"),
        ("open water", "blue"),
        ("cloud", "grey"),
        ("tree cover", "green"),
        ("HerbaceousVegetation", "green"),
        ("built-up", "red"),
        ("roads", "grey"),
        ("snow/ice", "blue"),
        ("tumour", "red"),
    ],
)
def test_labels_have_the_colours_that_people_expect(label: str, hue: str) -> None:
    assert _hue(Palette.of([label], {})[label]) == hue
    assert _hue(Palette.of([], {})[label]) == hue


def test_two_labels_of_one_convention_have_two_colours() -> None:
    palette = Palette.of(["AnnualCrop", "PermanentCrop"], {})
    assert palette["AnnualCrop"] == conventional("crop") != palette["PermanentCrop"]


def test_shipped_models_have_the_colours_that_people_expect() -> None:
    colours = {one.name: one.colour for card in ("csmask", "csmask-cloud", "gland") for one in find_card(card).classes}
    assert {name: _hue(colours[name]) for name in ("water", "land", "cloud", "snow/ice")} == {
        "water": "blue",
        "land": "green",
        "cloud": "grey",
        "snow/ice": "blue",
    }
    assert colours["epithelium"] != conventional("tumour"), "red is the colour of tumours"
