"""Native pixels become 8-bit RGB in one way, which is recorded."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.readers.errors import ReadError
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo
from limner.readers.render import Curve, Stretch, copy_pixels, fit_stretch, render, rgb_channels, visibility

RGB8 = tuple(Channel(name, common) for name, common in [("r", "red"), ("g", "green"), ("b", "blue")])
RGB16 = tuple(Channel(c.name, c.common, "uint16") for c in RGB8)
GREY16 = (Channel("B1", dtype="uint16"),)
SAR = (Channel("VV", dtype="float32", quantity="amplitude"),)


def everywhere(pixels: np.ndarray) -> np.ndarray:
    return np.ones(pixels.shape[:2], dtype=bool)


def test_rgb_channels_in_any_order() -> None:
    bands = [Channel("B02", "blue"), Channel("B08", "nir"), Channel("B04", "red"), Channel("B03", "green")]
    assert rgb_channels(bands) == ("B04", "B03", "B02")
    assert rgb_channels([Channel("VV")]) == ("VV",)


@pytest.mark.parametrize(
    "channels",
    [
        [Channel("1"), Channel("2"), Channel("3")],
        [Channel("VV"), Channel("VH")],
        [Channel("r", "red"), Channel("g", "green")],
        [Channel("a", "red"), Channel("b", "red"), Channel("g", "green"), Channel("c", "blue")],
    ],
)
def test_colours_are_never_guessed(channels: list[Channel]) -> None:
    with pytest.raises(ReadError, match="--bands"):
        rgb_channels(channels)


def test_8_bit_colour_is_unchanged() -> None:
    pixels = np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, axis=2)
    stretch = fit_stretch(pixels, everywhere(pixels), RGB8)
    assert (stretch.low, stretch.high) == ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
    assert (render(pixels, everywhere(pixels), stretch) == pixels).all()


def test_given_limits_are_black_and_white() -> None:
    pixels = np.array([[[0, 2750, 5000], [1375, 11, 300]]], dtype=np.uint16)
    stretch = fit_stretch(pixels, everywhere(pixels), RGB16, (0.0, 2750.0))
    assert (stretch.low, stretch.high) == ((0.0,) * 3, (2750.0,) * 3)
    assert render(pixels, everywhere(pixels), stretch).tolist() == [[[0, 255, 255], [128, 1, 28]]]
    eight = np.full((4, 4, 3), 51, dtype=np.uint8)
    stretch = fit_stretch(eight, everywhere(eight), RGB8, (0.0, 102.0))
    assert (render(eight, everywhere(eight), stretch) == 128).all(), "even where colours of 8 bits would stay"


def test_16_bit_colour_runs_between_percentiles_of_valid_pixels_by_channel() -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 10000, (50, 60, 3)).astype(np.uint16)
    valid = rng.random((50, 60)) < 0.7
    pixels[~valid] = 65535
    stretch = fit_stretch(pixels, valid, RGB16)
    for channel in range(3):
        expected = np.percentile(pixels[..., channel][valid], [2, 98])
        assert (stretch.low[channel], stretch.high[channel]) == tuple(expected)
    seen = render(pixels, valid, stretch)
    assert (seen[~valid] == 255).all()
    shown = seen[valid].astype(float)
    exact = np.clip((pixels[valid] - np.array(stretch.low)) / np.subtract(stretch.high, stretch.low), 0, 1) * 255
    assert np.abs(shown - exact).max() <= 0.5


def test_a_stretch_takes_its_channels_out_of_many_in_order() -> None:
    bands = (Channel("B02", "blue", "uint16"), Channel("B03", "green", "uint16"), Channel("B04", "red", "uint16"))
    pixels = np.stack([np.full((9, 9), v, np.uint16) + np.arange(9, dtype=np.uint16) for v in (100, 200, 300)], axis=-1)
    stretch = fit_stretch(pixels, everywhere(pixels), bands)
    assert stretch.channels == ("B04", "B03", "B02")
    assert stretch.low[0] >= 300 > stretch.low[1] >= 200 > stretch.low[2] >= 100


def test_a_tile_is_rendered_as_in_the_whole_image() -> None:
    pixels = np.random.default_rng(2).normal(3.0, 2.0, (40, 40, 1)).astype(np.float32)
    channels = (Channel("h", dtype="float32"),)
    stretch = fit_stretch(pixels, everywhere(pixels), channels)
    whole = render(pixels, everywhere(pixels), stretch)
    tile = pixels[10:20, 5:25]
    assert (render(tile, everywhere(tile), stretch) == whole[10:20, 5:25]).all()
    assert (whole[..., 0] == whole[..., 2]).all(), "one channel is grey"


def test_nan_is_neither_counted_nor_shown() -> None:
    pixels = np.linspace(0, 1, 101, dtype=np.float32).reshape(1, 101, 1)
    pixels = np.concatenate([pixels, np.full_like(pixels, np.nan), np.full_like(pixels, np.inf)])
    stretch = fit_stretch(pixels, everywhere(pixels), (Channel("h", dtype="float32"),))
    assert stretch.low == pytest.approx((0.02,))
    assert stretch.high == pytest.approx((0.98,))
    seen = render(pixels, everywhere(pixels), stretch)
    assert (seen[1] == 255).all()
    assert (seen[0, 0] == 0).all()


def test_amplitude_is_stretched_in_decibels() -> None:
    amplitude = np.logspace(-2, 2, 401, dtype=np.float32).reshape(1, 401, 1)  # -40 … 40 dB
    dark = np.zeros((1, 401, 1), dtype=np.float32)
    pixels = np.concatenate([amplitude, dark])
    stretch = fit_stretch(pixels, everywhere(pixels), SAR)
    assert stretch.curve == "decibel"
    assert stretch.low == pytest.approx((-38.4,), abs=1e-4)
    assert stretch.high == pytest.approx((38.4,), abs=1e-4)
    assert "20·log10" in stretch.source
    seen = render(pixels, everywhere(pixels), stretch)
    assert seen[0, 200].tolist() == [128, 128, 128]
    assert (seen[1] == 0).all(), "an amplitude of 0 is black, not white"


def test_complex_amplitude_shows_its_magnitude() -> None:
    pixels = np.exp(1j * np.linspace(0, 6, 50)).astype(np.complex64).reshape(1, 50, 1) * np.linspace(1, 9, 50)[:, None]
    channels = (Channel("HH", dtype="complex64", quantity="amplitude"),)
    stretch = fit_stretch(pixels, everywhere(pixels), channels)
    assert (render(pixels, everywhere(pixels), stretch) == render(np.abs(pixels), everywhere(pixels), stretch)).all()


@pytest.mark.parametrize("dtype", ["uint16", "float32", "int16"])
def test_a_constant_image_is_grey(dtype: str) -> None:
    pixels = np.full((5, 5, 1), 7, dtype=dtype)
    stretch = fit_stretch(pixels, everywhere(pixels), (Channel("h", dtype=dtype),))
    pixels[0, 0], pixels[0, 1] = 6, 8
    seen = render(pixels, everywhere(pixels), stretch)[..., 0]
    assert (seen[0, 0], seen[0, 1], seen[4, 4]) == (0, 255, 128)


def test_an_image_without_valid_pixels_is_white() -> None:
    pixels = np.zeros((4, 4, 1), dtype=np.uint16)
    nothing = np.zeros((4, 4), dtype=bool)
    stretch = fit_stretch(pixels, nothing, GREY16)
    assert stretch.source == "no valid pixel"
    assert (render(pixels, nothing, stretch) == 255).all()


def test_pixels_must_match_the_channels_of_the_stretch() -> None:
    stretch = Stretch(("a",), (0.0,), (1.0,), "test")
    with pytest.raises(ValueError, match="channels"):
        render(np.zeros((2, 2, 3), dtype=np.uint8), np.ones((2, 2), dtype=bool), stretch)


finite = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("part", ["channels", "low", "high"])
def test_inconsistent_json_is_refused(part: str) -> None:
    record = Stretch(("red", "green", "blue"), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "a test").to_json()
    for wrong in (record[part][:2], [*record[part], record[part][0]], []):
        with pytest.raises(ValueError, match="one or three channels"):
            Stretch.from_json(record | {part: wrong})


@settings(deadline=None, derandomize=True)
@given(st.tuples(finite, finite, finite), st.tuples(finite, finite, finite), st.sampled_from(["linear", "decibel"]))
def test_json_keeps_every_bit(low: tuple[float, ...], high: tuple[float, ...], curve: Curve) -> None:
    stretch = Stretch(("r", "g", "b"), low, high, "words", curve)
    assert Stretch.from_json(json.loads(json.dumps(stretch.to_json()))) == stretch
    steps = tuple((number, at) for at, number in enumerate(sorted(low)))
    table = Stretch(("g",), low[:1], high[:1], "words", "steps", steps, blank=0)
    assert Stretch.from_json(json.loads(json.dumps(table.to_json()))) == table


def test_json_without_steps_is_read() -> None:
    record = {"channels": ["g"], "low": [1.5], "high": [2.5], "source": "words", "curve": "linear"}
    stretch = Stretch.from_json(record)
    assert stretch == Stretch(("g",), (1.5,), (2.5,), "words")
    assert stretch.to_json() == record, "a scene's record, and so its plan's digest, is as it was"


def test_a_sigmoid_and_its_mirror() -> None:
    numbers = np.array([-np.inf, 0.0, 25.0, 50.0, 75.0, 100.0, np.inf, np.nan], dtype=np.float32).reshape(1, -1, 1)
    rising = render(numbers, everywhere(numbers), Stretch(("g",), (0.0,), (100.0,), "test", "sigmoid", blank=9))
    falling = render(numbers, everywhere(numbers), Stretch(("g",), (100.0,), (0.0,), "test", "sigmoid", blank=9))
    expected = [round(255 / (1 + np.exp(-4 * (x - 50) / 100))) for x in (0, 25, 50.1, 75, 100)]
    assert rising[0, :, 0].tolist() == [0, *expected, 255, 9]
    assert falling[0, :, 0].tolist() == [255, *expected[::-1], 0, 9]


def test_a_table_of_steps() -> None:
    numbers = np.array([-9.0, 0.0, 0.5, 1.0, 1.75, 2.0, 1e9, np.inf, np.nan], dtype=np.float64).reshape(1, -1, 1)
    table = Stretch(("g",), (0.0,), (2.0,), "test", "steps", ((0.0, 40), (1.0, 10), (1.75, 250)), blank=0)
    seen = render(numbers, everywhere(numbers), table)
    assert seen[0, :, 0].tolist() == [40, 40, 40, 10, 250, 250, 250, 250, 0]
    assert (seen[..., 0] == seen[..., 2]).all()


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.floats(width=32), min_size=1, max_size=30),
    st.tuples(finite, finite),
)
@pytest.mark.slow
def test_any_numbers_can_be_rendered(values: list[float], ends: tuple[float, float]) -> None:
    pixels = np.array(values, dtype=np.float32).reshape(1, -1, 1)
    stretch = Stretch(("h",), (min(ends),), (max(ends),), "test")
    seen = render(pixels, everywhere(pixels), stretch)
    order = np.argsort(pixels[0, :, 0], kind="stable")
    shown = seen[0, order, 0].astype(int)
    assert (np.diff(shown) >= 0).all(), "brighter stays brighter, NaN last and white"


def test_colours_of_a_slide_in_16_bits_keep_their_proportions() -> None:
    """One window of whole bits for all colours, so that the same slide in 8 bits gives the same pixels."""
    eight = np.random.default_rng(0).integers(120, 250, (20, 30, 3)).astype(np.uint8)
    for factor, white in ((257, 65535), (16, 4095)):
        wide = eight.astype(np.uint16) * factor
        stretch = fit_stretch(wide, everywhere(wide), RGB16, keep_colours=True)
        assert (stretch.low, stretch.high) == ((0.0,) * 3, (float(white),) * 3)
        assert str(white) in stretch.source
        assert np.abs(render(wide, everywhere(wide), stretch).astype(int) - eight).max() <= (0 if factor == 257 else 1)


def test_channels_of_a_dark_field_are_stretched_each() -> None:
    dark = np.random.default_rng(0).integers(0, 300, (20, 30, 3)).astype(np.uint16)
    dark[:2, :2] = 60000
    assert fit_stretch(dark, everywhere(dark), RGB16, keep_colours=True) == fit_stretch(dark, everywhere(dark), RGB16)


def study(**facts: str) -> ImageInfo:
    return ImageInfo("a.dcm", "dicom", (4, 4), GREY16, Placement.pixels(), kind="study", facts=tuple(facts.items()))


WINDOW = Stretch(("B1",), (100.0,), (200.0,), "40/400 LINEAR (file, first window)")
INVERTED = Stretch(("B1",), (200.0,), (100.0,), "as above, inverted")
FLAT_TABLE = Stretch(("B1",), (100.0,), (200.0,), "a table", "steps", ((100.0, 77),))


@pytest.mark.parametrize(
    ("stretch", "values", "shown"),
    [
        (WINDOW, (50, 99), "nothing"),
        (WINDOW, (100, 100), "nothing"),
        (WINDOW, (201, 900), "nothing"),
        (INVERTED, (50, 99), "nothing"),
        (INVERTED, (201, 900), "nothing"),
        (WINDOW, (150, 150), "one grey"),
        (WINDOW, (50, 150), "detail"),
        (WINDOW, (50, 900), "detail"),
        (FLAT_TABLE, (120, 180), "nothing"),
        (None, (150, 150), "one grey"),
        (None, (50, 900), "detail"),
    ],
)
def test_a_study_shows_nothing_where_all_is_black_or_white(
    stretch: Stretch | None, values: tuple[int, int], shown: str
) -> None:
    """None: a stretch that was fitted to these pixels. Invalid pixels show nothing."""
    pixels = np.full((4, 4, 1), values[0], dtype=np.uint16)
    pixels[2:] = values[1]
    valid = everywhere(pixels)
    stretch = stretch or fit_stretch(pixels, valid, GREY16)
    assert visibility(study(), pixels, valid, stretch) == shown
    valid[2:] = False
    alone = visibility(study(), pixels[:2], valid[:2], stretch)
    assert visibility(study(), pixels, valid, stretch) == alone
    assert visibility(study(), pixels, ~everywhere(pixels), stretch) == "detail", "which is no data"
    if shown != "detail":
        assert visibility(study(flat="yes"), pixels, everywhere(pixels), stretch) == "nothing"
        other = ImageInfo("a.tif", "raster", (4, 4), GREY16, Placement.pixels())
        assert visibility(other, pixels, everywhere(pixels), stretch) == "detail", "maps show what they have"


def test_slices_beyond_the_stretch_of_their_stack_show_nothing() -> None:
    """A stretch fitted to a stack may leave out its darkest slices, but not one at its very end."""
    stack = np.arange(1000, dtype=np.uint16).reshape(10, 100, 1)
    stretch = fit_stretch(stack, everywhere(stack), GREY16)
    for value, shown in (
        (int(stretch.low[0]) - 5, "nothing"),
        (int(stretch.high[0]) + 5, "nothing"),
        (500, "one grey"),
    ):
        pixels = np.full((4, 4, 1), value, dtype=np.uint16)
        assert visibility(study(), pixels, everywhere(pixels), stretch) == shown


def test_a_black_colour_frame_shows_nothing() -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    info = ImageInfo("a.dcm", "dicom", (4, 4), RGB8, Placement.pixels(), kind="study")
    stretch = fit_stretch(pixels, everywhere(pixels), RGB8)
    assert visibility(info, pixels, everywhere(pixels), stretch) == "nothing"
    pixels[0, 0, 1] = 9
    assert visibility(info, pixels, everywhere(pixels), stretch) == "detail"


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
def test_copies_have_c_order_and_memory_of_their_own(order: tuple[int, int, int]) -> None:
    stored = np.arange(4 * 5 * 3, dtype=np.uint16).reshape(4, 5, 3).transpose(order)
    for pixels in (stored, stored[1:, 1:], stored[..., 0]):
        copied = copy_pixels(pixels)
        assert copied.flags.c_contiguous
        assert np.array_equal(copied, pixels)
        copied += 1
        assert not (copied == pixels).any()


def test_percentiles_of_unsigned_integers_are_those_of_the_same_floats() -> None:
    rng = np.random.default_rng(4)
    whole = rng.integers(0, 2**16, (37, 41, 1), dtype=np.uint16)
    valid = rng.random(whole.shape[:2]) > 0.3
    one, other = (
        fit_stretch(pixels, valid, [Channel("grey", dtype=pixels.dtype.name)])
        for pixels in (whole, whole.astype(np.float64))
    )
    assert (one.low, one.high) == (other.low, other.high)
