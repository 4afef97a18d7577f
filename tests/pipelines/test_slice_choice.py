"""Which slices a choice chooses."""

import pytest
from limner.pipelines.config import Settings
from limner.readers.errors import RequestError
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo, Plane


def stack(*positions: float | None) -> ImageInfo:
    planes = tuple(Plane(Placement.pixels(), f"{at}.dcm", position_mm=mm) for at, mm in enumerate(positions))
    return ImageInfo("s", "dicom", (8, 8), (Channel("grey"),), Placement.pixels(), kind="study", planes=planes)


def chosen(info: ImageInfo, text: object) -> list[int]:
    choice = Settings.resolve({"slices": text}).slice_choice()
    assert choice is not None
    return sorted(plane + 1 for plane in choice.planes(info))


STACK = stack(*(-20.0 + 2.5 * at for at in range(12)))


@pytest.mark.parametrize(
    ("text", "slices"),
    [
        ("every:5", [1, 6, 11]),
        ("every:100", [1]),
        ("3-5", [3, 4, 5]),
        ("10-40", [10, 11, 12]),
        ("1,5,9", [1, 5, 9]),
        ([1, 5, "7-8"], [1, 5, 7, 8]),
        ("13-20", []),
        ("at:-12.5mm", [4]),
        ("at: -12.4 mm", [4]),
        ("at:-11.25mm", [4, 5]),
        ("at:8.7mm", [12]),
        ("at:8.8mm", []),
        ("at:-21mm,2", [1, 2]),
        ("every:11,at:0mm", [1, 9, 12]),
    ],
)
def test_slices_are_chosen_by_number_step_and_position(text: object, slices: list[int]) -> None:
    assert chosen(STACK, text) == slices


def test_the_order_of_positions_does_not_matter() -> None:
    assert chosen(stack(5.0, 0.0, -5.0), "at:-4mm") == [3]


def test_slices_without_positions_have_numbers_only() -> None:
    assert chosen(stack(None, None), "at:0mm") == []
    assert chosen(stack(None, None), "2") == [2]


def test_a_single_slice_has_the_position_that_it_states() -> None:
    assert chosen(stack(7.0), "at:7.4mm") == [1]
    assert chosen(stack(7.0), "at:8mm") == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0", "from 1"),
        ("5-3", "from 1"),
        ("every:0", "every:N"),
        ("every:", "every:N"),
        ("at:3", "at:POSITIONmm"),
        ("at:1e3mm", "at:POSITIONmm"),
        ("at:nanmm", "at:POSITIONmm"),
        ("1..3", "numbers of slices"),
        ("-3", "numbers of slices"),
        ("first", "numbers of slices"),
        ("", "at least one"),
        (" , ", "at least one"),
    ],
)
def test_a_malformed_or_empty_choice_is_refused(text: str, said: str) -> None:
    with pytest.raises(RequestError, match=said) as error:
        Settings.resolve({"slices": text})
    assert "--slices" in str(error.value)


def test_whole_and_a_resolution_contradict_each_other() -> None:
    with pytest.raises(RequestError, match="together with a resolution"):
        Settings.resolve({"whole": True, "resolution": "10m"})
    assert Settings.resolve({"whole": True, "preset": "sentinel2-l1c", "resolution": ""}).whole
