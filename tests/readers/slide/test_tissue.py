"""Tissue segmentation of synthetic slides with known tissue, and of real ones."""

import statistics
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from limner.readers.contract import scan_with
from limner.readers.overview import box_mean, dilate, fill_holes, keep_components, read_overview
from limner.readers.slide.openslide import SlideReader
from limner.readers.slide.pyramid import PyramidReader
from limner.readers.slide.tissue import (
    background_range,
    find_tissue,
    otsu,
    overview_side,
)
from PIL import Image

Mask = npt.NDArray[np.bool_]
GLASS, HAEMATOXYLIN, EOSIN, DAB, PALE = (240, 240, 240), (110, 90, 160), (225, 130, 175), (120, 80, 50), (228, 216, 230)
DENSE, DEEP_DAB = (120, 20, 160), (60, 30, 20)
INKS = {"blue": (40, 70, 170), "green": (30, 110, 80), "red": (215, 25, 30)}
LOW, MICRONS = 8.0, (8.0, 8.0)


def disc(size: int, x: int, y: int, radius: int) -> Mask:
    rows, columns = np.mgrid[:size, :size]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def noisy_image(size: int, *layers: tuple[Mask, tuple[int, int, int]]) -> npt.NDArray[np.uint8]:
    """An image with camera noise and a brightness gradient."""
    image = np.full((size, size, 3), GLASS, dtype=np.float64)
    for mask, colour in layers:
        image[mask] = colour
    noise = np.random.default_rng(1).normal(0, 1, image.shape)
    return np.clip(image * np.linspace(1, 0.97, size)[:, None] + noise, 0, 255).astype(np.uint8)


def flat_image(shape: tuple[int, int], where: Mask, colour: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """An image without noise: glass and one colour."""
    image = np.full((*shape, 3), GLASS, dtype=np.uint8)
    image[where] = colour
    return image


def agreement(found: Mask, truth: Mask) -> float:
    """Intersection over union."""
    return float((found & truth).sum() / (found | truth).sum())


def everywhere(image: npt.NDArray[np.generic]) -> Mask:
    return np.ones(image.shape[:2], dtype=bool)


@pytest.mark.parametrize("colour", [HAEMATOXYLIN, EOSIN, DAB, DEEP_DAB, PALE])
def test_stains(colour: tuple[int, int, int]) -> None:
    truth = disc(300, 150, 150, 80)
    found = find_tissue(image := noisy_image(300, (truth, colour)), everywhere(image), microns=MICRONS)
    assert found.illumination == "bright"
    assert agreement(found.mask, truth) > 0.95
    assert not found.ink.any()
    assert "Otsu" in found.method


def test_glass_and_grey_dust_are_no_tissue() -> None:
    image = noisy_image(300, (disc(300, 100, 100, 30), (90, 90, 92)))
    assert not find_tissue(image, everywhere(image), microns=MICRONS).mask.any()


@pytest.mark.parametrize("stain", [EOSIN, DAB])
@pytest.mark.parametrize("ink", sorted(INKS))
def test_pen_marks_are_no_tissue(ink: str, stain: tuple[int, int, int]) -> None:
    tissue, stroke = disc(300, 150, 150, 80), np.zeros((300, 300), dtype=bool)
    stroke[20:280, 140:156] = True
    image = noisy_image(300, (tissue, stain), (stroke, INKS[ink]))
    found = find_tissue(image, everywhere(image), microns=MICRONS)
    assert found.mask[stroke].mean() < 0.02
    assert found.ink[stroke].mean() > 0.95
    assert found.mask[tissue & ~stroke].mean() > 0.9
    assert found.mask[~tissue].mean() < 0.01


def test_small_holes_are_tissue_and_large_ones_are_not() -> None:
    tissue = disc(400, 200, 200, 150)
    lumen, cavity = disc(400, 150, 200, 20), disc(400, 260, 200, 45)  # 0.08 and 0.41 mm²
    image = noisy_image(400, (tissue, EOSIN), (lumen | cavity, GLASS))
    found = find_tissue(image, everywhere(image), microns=MICRONS)
    assert found.mask[lumen].all()
    assert found.mask[cavity].mean() < 0.1


def test_invalid_pixels_are_ignored() -> None:
    truth = disc(300, 150, 150, 80)
    image = noisy_image(300, (truth, EOSIN))
    valid = np.ones((300, 300), dtype=bool)
    valid[:, :150] = False
    image[~valid] = 0
    found = find_tissue(image, valid, microns=MICRONS)
    assert not found.mask[~valid].any()
    assert agreement(found.mask, truth & valid) > 0.95
    assert not find_tissue(image, np.zeros_like(valid), microns=MICRONS).mask.any()


def test_glass_beside_invalid_pixels_of_any_colour_is_no_tissue() -> None:
    valid = np.ones((100, 100), dtype=bool)
    valid[:, :50] = False
    image = flat_image((100, 100), ~valid, DENSE)
    assert not find_tissue(image, valid, microns=(2.0, 2.0)).mask.any()


@pytest.mark.parametrize(("glass", "lowest"), [(90, 0.05), (92, 3 * 1.4826 * np.log2(96 / 94)), (100, 0.3)])
def test_the_threshold_of_dark_field_is_three_times_its_noise(glass: int, lowest: float) -> None:
    image = np.full((100, 100, 1), glass, dtype=np.uint16)
    image.reshape(-1)[:550] = 90  # more than the 5 % whose end is the background
    image[70:] = 5000
    assert f"limited to {lowest:.3g} to 3)" in find_tissue(image, everywhere(image), microns=MICRONS).method


def test_each_channel_of_dark_field_rises_from_its_own_background_of_4_more() -> None:
    image = np.full((100, 100, 2), (92, 1000), dtype=np.uint16)
    image.reshape(-1, 2)[:550, 0] = 90
    image[70:, :, 0] = 5000
    lowest = 3 * 1.4826 * np.log2(96 / 94)
    assert f"limited to {lowest:.3g} to 3)" in find_tissue(image, everywhere(image), microns=MICRONS).method


def test_the_threshold_of_grey_bright_field_is_three_times_its_noise() -> None:
    image = np.full((100, 100, 1), 90, dtype=np.uint16)
    image.reshape(-1)[:550] = 92  # more than the 5 % whose end is the background
    image[70:] = 40
    lowest = 3 * 1.4826 * np.log2(93 / 91)
    assert f"limited to {lowest:.3g} to 3)" in find_tissue(image, everywhere(image), microns=MICRONS).method


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_fluorescence_is_dark_field(dtype: str, channels: int) -> None:
    truth = disc(300, 150, 150, 80)
    generator = np.random.default_rng(2)
    base, glow = (5, 25) if dtype == "uint8" else (300, 1500)
    image = generator.poisson(base, (300, 300, channels))
    image[truth, channels - 1] += generator.poisson(glow, int(truth.sum()))
    image[140:143, 140:143] = 250 if dtype == "uint8" else 60000  # a bright artefact
    found = find_tissue(image.astype(dtype), everywhere(image), microns=MICRONS)
    assert found.illumination == "dark"
    assert found.method.startswith("light over the background in powers of two")
    assert agreement(found.mask, truth) > 0.9


def test_float_dark_field_may_be_of_values_below_one() -> None:
    truth = disc(300, 150, 150, 80)
    image = np.where(truth, np.float32(0.9), np.float32(0.0))[..., None]
    found = find_tissue(image, everywhere(image), microns=MICRONS)
    assert found.illumination == "dark"
    assert agreement(found.mask, truth) > 0.95


def test_grey_bright_field() -> None:
    truth = disc(300, 150, 150, 80)
    image = noisy_image(300, (truth, (0, 0, 0)))[..., :1]
    found = find_tissue(image, everywhere(image), microns=MICRONS)
    assert agreement(found.mask, truth) > 0.95
    assert (found.illumination, found.method[:24]) == ("bright", "light lost in powers of ")


def test_float_bright_field_may_have_any_white() -> None:
    truth = disc(300, 150, 150, 80)
    image = np.where(truth, np.float32(0.3), np.float32(0.95))[..., None]
    found = find_tissue(image, everywhere(image), microns=MICRONS)
    assert found.illumination == "bright"
    assert agreement(found.mask, truth) > 0.95


def test_deep_stain_does_not_hide_pale_tissue() -> None:
    pale, deep = np.zeros((2, 300, 300), dtype=bool)
    pale[:, 120:285], deep[:, 285:] = True, True
    image = flat_image((300, 300), pale, (240, 226, 240))  # range of densities 0.026 beside one of 0.8
    image[deep] = DENSE
    assert agreement(find_tissue(image, everywhere(image), microns=MICRONS).mask, pale | deep) > 0.95


@pytest.mark.parametrize(("green", "found"), [(236, True), (238, False)])  # 4 and 2 grey levels under the glass's 240
def test_stain_has_more_than_three_grey_levels(green: int, *, found: bool) -> None:
    truth = disc(300, 150, 150, 80)
    image = flat_image((300, 300), truth, (240, green, 240))
    mask = find_tissue(image, everywhere(image), microns=MICRONS).mask
    assert agreement(mask, truth) > 0.9 if found else not mask.any()


@pytest.mark.parametrize(("grey", "found"), [(182, True), (120, False)])  # optical densities 0.12 and 0.3
def test_only_what_is_dark_and_almost_grey_is_dust(grey: int, *, found: bool) -> None:
    truth = disc(300, 150, 150, 80)
    image = flat_image((300, 300), truth, (grey, grey - 4, grey))
    mask = find_tissue(image, everywhere(image), microns=MICRONS).mask
    assert agreement(mask, truth) > 0.9 if found else not mask.any()


def test_the_colour_of_the_glass_raises_the_threshold() -> None:
    image = np.full((60, 60, 3), (190, 187, 190), dtype=np.uint8)  # range of densities log10(191 / 188) = 0.0069
    lowest = np.log10(191 / 188) + 3 * np.log10(1 + 1 / 200)
    assert f"limited to {lowest:.3g} to 0.03" in find_tissue(image, everywhere(image), microns=MICRONS).method


def test_twice_the_noise_of_the_glass_raises_the_threshold() -> None:
    """Columns of glass of five colours and a tenth of stain, where nothing is averaged: half of the glass decides."""
    columns = [(255, 255, 255)] * 4 + [(255, 255, 254)] * 4 + [(205, 205, 203)] * 4
    columns += [(205, 205, 202)] * 3 + [(205, 205, 201)] * 3 + [DENSE] * 2
    image = np.broadcast_to(np.array(columns, dtype=np.uint8), (20, 20, 3))
    level, below = np.log10(206 / 204), np.log10(256 / 255)
    lowest = level + 2 * 1.4826 * (level - below)
    found = find_tissue(image, everywhere(image), microns=(30.0, 30.0))
    assert f"limited to {lowest:.3g} to 0.03" in found.method


def test_what_is_invalid_is_neither_ink_nor_stain() -> None:
    """Ink under the invalid half marks no glass beside it, and does not raise the threshold above pale tissue."""
    valid, tissue = np.ones((60, 120), dtype=bool), np.zeros((60, 120), dtype=bool)
    valid[:, :60] = False
    tissue[:, 90:] = True
    for hidden in (INKS["blue"], DENSE, GLASS):
        image = flat_image(valid.shape, tissue, (240, 230, 240))
        image[~valid] = hidden
        found = find_tissue(image, valid, microns=(2.0, 2.0))
        assert not found.ink.any()
        assert agreement(found.mask, tissue) > 0.9


def test_a_picture_of_ink_alone_has_no_tissue() -> None:
    image = np.full((60, 60, 3), INKS["blue"], dtype=np.uint8)
    found = find_tissue(image, everywhere(image), microns=MICRONS)
    assert found.ink.all()
    assert not found.mask.any()
    assert (
        "above 0.0065 (Otsu 1979, limited to 0.0065 to 0.03)" in found.method
    )  # three grey levels under a white of 200


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_background_of_bright_field_is_from_the_median_of_the_glass(dtype: type[np.unsignedinteger]) -> None:
    unit = 1 if dtype == np.uint8 else 100
    image = np.full((10, 100, 3), 200, dtype=np.float64)
    image[:, :20] = (120, 60, 120)
    image[:, 20:40] = 100
    image[:, 90:] = 210
    pixels = (image * unit).astype(dtype)
    low, high = background_range(pixels, everywhere(pixels))
    margin = 0.016 * (255 if dtype == np.uint8 else 21000)
    assert low == pytest.approx([200 * unit - margin] * 3)
    assert high == pytest.approx([210 * unit + margin] * 3)


def test_the_glass_of_bright_field_is_from_its_median_to_its_99th_percentile() -> None:
    pixels = np.arange(1900, 2000, dtype=np.uint16).repeat(3).reshape(10, 10, 3)
    low, high = background_range(pixels, everywhere(pixels))
    margin = 0.016 * (1900 + 0.999 * 99)
    assert low == pytest.approx([1949.5 - margin] * 3)
    assert high == pytest.approx([1900 + 0.99 * 99 + margin] * 3)


def test_what_is_bright_and_coloured_is_no_glass() -> None:
    pixels = np.full((10, 100, 3), (210, 210, 180), dtype=np.uint8)
    pixels[:, :40] = (100, 60, 100)
    low, high = background_range(pixels, everywhere(pixels))
    assert low == pytest.approx(np.array([210, 210, 180]) - 0.016 * 255)
    assert np.isinf(high).all()


def test_the_background_of_dark_field_is_six_times_its_noise_wide() -> None:
    values = [*range(1000, 1100), *[6000] * 10]
    pixels = np.array(values, dtype=np.uint16).reshape(11, 10, 1)
    low, high = background_range(pixels, everywhere(pixels))
    level = 1000 + 0.05 * 109
    rise = sorted(abs(value - level) for value in values)
    margin = 6 * 1.4826 * statistics.median(rise[:55])
    assert margin > 0.016 * 6000
    assert (low[0], high[0]) == pytest.approx((level - margin, level + margin))


def test_unknown_spacing_is_in_the_method() -> None:
    image = noisy_image(300, (disc(300, 150, 150, 80), EOSIN))
    assert "unknown" in find_tissue(image, everywhere(image), microns=None).method


@pytest.mark.parametrize(("across", "microns"), [(True, (1.0, 2.0)), (False, (2.0, 1.0))])
def test_stain_is_averaged_within_12_micrometres(across: bool, microns: tuple[float, float]) -> None:
    for gap, one in ((24, True), (25, False)):  # µm of glass between two strands: its middle averages both or none
        strand = np.arange(10 * (gap + 10) + 10) % (gap + 10) < 10
        stained = np.broadcast_to(strand if across else strand[:, None], (len(strand), len(strand)))
        image = flat_image((len(strand), len(strand)), stained, DENSE)
        mask = find_tissue(image, everywhere(image), microns=microns).mask
        assert mask.all() if one else np.array_equal(mask, stained)


@pytest.mark.parametrize(
    ("width", "height", "kept"), [(3, 3, True), (4, 2, False), (2, 4, False)], ids=["25 px", "24 px", "upright"]
)
def test_dust_is_less_than_25_pixels_without_spacing(width: int, height: int, kept: bool) -> None:
    spot = np.zeros((60, 60), dtype=bool)
    spot[20 : 20 + height, 20 : 20 + width] = True
    found = find_tissue(image := flat_image(spot.shape, spot, DENSE), everywhere(image), microns=None)
    assert np.array_equal(found.mask, spot & kept)


@pytest.mark.parametrize(("width", "height", "filled"), [(23, 21, True), (22, 22, False)], ids=["399 px", "400 px"])
def test_lumens_are_less_than_400_pixels_without_spacing(
    width: int,
    height: int,
    filled: bool,
) -> None:
    stained = np.ones((80, 80), dtype=bool)
    stained[20 : 20 + height, 20 : 20 + width] = False
    found = find_tissue(image := flat_image(stained.shape, stained, DENSE), everywhere(image), microns=None)
    assert np.array_equal(found.mask, stained | filled)


def test_few_coloured_pixels_do_not_change_white() -> None:
    image = flat_image((100, 100), np.zeros((100, 100), dtype=bool), GLASS)
    image[::20, ::10] = (255, 240, 240)  # 0.5 % of it: white is what 99 % do not exceed
    assert not find_tissue(image, everywhere(image), microns=None).mask.any()


@pytest.mark.parametrize(("median", "light"), [(69, "dark"), (70, "bright")])
def test_dark_field_threshold(median: int, light: str) -> None:
    image = np.full((100, 100, 1), median, dtype=np.uint16)
    image[:40] = 200
    assert find_tissue(image, everywhere(image), microns=None).illumination == light


@pytest.mark.parametrize(("size", "ink"), [(25, 9), (20, 0)])
def test_pen_mark_has_nine_pixels_of_clear_ink(size: int, ink: int) -> None:
    """The averaged border of a spot is too pale: 5 × 5 pixels have a core of nine, 5 × 4 of six."""
    spot = np.zeros((60, 60), dtype=bool)
    spot[20 : 20 + size // 5, 20:25] = True
    found = find_tissue(image := flat_image(spot.shape, spot, (76, 112, 150)), everywhere(image), microns=None)
    assert found.ink[21:24, 21:24].sum() == ink


@pytest.mark.parametrize(("ink", "pale"), [("red", (235, 170, 172)), ("blue", (180, 200, 235))])
def test_pen_mark_grows_from_clear_ink(ink: str, pale: tuple[int, int, int]) -> None:
    stroke, core = np.zeros((100, 100), dtype=bool), np.zeros((100, 100), dtype=bool)
    stroke[20:80, 40:60] = True
    core[20:80, 46:54] = True
    image = flat_image(stroke.shape, stroke, pale)
    assert not find_tissue(image, everywhere(image), microns=None).ink.any()
    image[core] = INKS[ink]
    found = find_tissue(image, everywhere(image), microns=None)
    assert found.ink[21:79, 41:59].all(), "except for its averaged border"


def test_otsu_of_values_that_differ_by_rounding() -> None:
    for dtype in (np.float32, np.float64):
        one = dtype(0.0069)
        assert otsu(np.array([one, np.nextafter(one, dtype(1))])) == one


def test_otsu_splits_at_the_upper_edge_of_a_bin() -> None:
    assert otsu(np.repeat([0.0, 512.0], 10)) == 1.0


def test_otsu() -> None:
    generator = np.random.default_rng(3)
    values = np.concatenate([generator.normal(0, 0.1, 5000), generator.normal(1, 0.1, 500)])
    assert 0.3 < otsu(values) < 0.75
    assert otsu(np.zeros(5)) == 0.0
    assert 101 < otsu(np.repeat([100.0, 101.0, 102.0], [1, 3, 3])) < 102, "4 · 3 · 1.25² is more than 1 · 6 · 1.5²"
    assert 100 < otsu(np.repeat([100.0, 101.0, 102.0], [3, 3, 1])) < 101


def flood(mask: Mask) -> list[set[tuple[int, int]]]:
    """4-connected components by flood fill."""
    left = set(zip(*map(list, np.nonzero(mask)), strict=True))
    found = []
    while left:
        patch, todo = set(), [left.pop()]
        while todo:
            row, column = todo.pop()
            patch.add((row, column))
            for there in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                if there in left:
                    left.remove(there)
                    todo.append(there)
        found.append(patch)
    return found


masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=300)
@given(masks, st.integers(1, 6))
def test_components_equal_a_flood_fill(mask: Mask, least: int) -> None:
    kept, filled = np.zeros_like(mask), mask.copy()
    for patch in flood(mask):
        for pixel in patch:
            kept[pixel] = len(patch) >= least
    for patch in flood(~mask):
        border = any(r in {0, mask.shape[0] - 1} or c in {0, mask.shape[1] - 1} for r, c in patch)
        for pixel in patch:
            filled[pixel] = not border and len(patch) < least
    assert np.array_equal(keep_components(mask, mask, least), kept)
    assert np.array_equal(fill_holes(mask, least), filled)


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=100)
@given(masks, st.tuples(st.integers(0, 4), st.integers(0, 4)))
def test_box_mean_and_dilation(mask: Mask, radius: tuple[int, int]) -> None:
    found, near = box_mean(mask, radius), dilate(mask, radius)
    for row, column in np.ndindex(*mask.shape):
        here = mask[max(0, row - radius[1]) : row + radius[1] + 1, max(0, column - radius[0]) : column + radius[0] + 1]
        assert found[row, column] == pytest.approx(here.mean())
        assert near[row, column] == here.any()


@pytest.mark.slow
def test_real_slides(shared_data: Path) -> None:
    slides = shared_data / "slides"
    for reader, name, options, light, share in (
        (SlideReader(), "aperio_cmu1_small_region/CMU-1-Small-Region.svs", {}, "bright", (0.33, 0.45)),
        (SlideReader(), "hamamatsu_ndpi_tritc/test3-TRITC-2-560.ndpi", {}, "dark", (0.75, 0.87)),
        (PyramidReader(), "generic_pyramid_prostate/slide.tiff", {"microns_per_pixel": "0.5"}, "bright", (0.8, 0.92)),
        (PyramidReader(), "ometiff_os2_ki67/OS-2-vsi.ome.tif", {}, "bright", (0.6, 0.85)),
    ):
        [info] = scan_with(reader, str(slides / name), options)
        with reader.open(info) as opened:
            seen = read_overview(opened, limit=overview_side(info))
        found = find_tissue(seen.pixels, seen.valid, microns=MICRONS)
        assert found.illumination == light
        assert share[0] < found.mask.mean() < share[1], name
        assert found.ink.mean() < 0.001
    for name, ink, part in (
        ("tcga-green-pen.png", 0.1, np.s_[:400, 330:380]),
        ("tcga-red-pen.png", 0.15, np.s_[250:400, 40:120]),
        ("wsi-blue-pen.png", 0.02, np.s_[60:75, 150:170]),
    ):
        image = np.asarray(Image.open(slides / "pen_marks" / name).convert("RGB"))
        found = find_tissue(image, everywhere(image), microns=None)
        assert found.ink.mean() > ink, name
        assert found.mask[part].mean() < 0.4, name
        assert found.mask.mean() > 0.3, name


def pale_image(contrast: float) -> npt.NDArray[np.uint8]:
    """Haematoxylin, eosin and DAB at a share of their contrast, beside glass, with camera noise."""

    def faded(colour: tuple[int, int, int]) -> tuple[int, int, int]:
        red, green, blue = (round(g - (g - c) * contrast) for g, c in zip(GLASS, colour, strict=True))
        return red, green, blue

    places = (disc(300, 80, 90, 60), disc(300, 215, 90, 60), disc(300, 150, 220, 60))
    layers = [(m, faded(colour)) for m, colour in zip(places, (HAEMATOXYLIN, EOSIN, DAB), strict=True)]
    return noisy_image(300, *layers)


@pytest.mark.parametrize("contrast", [1.0, 0.5, 0.3, 0.2, 0.12])
def test_pale_stain_is_found_against_the_noise_of_glass(contrast: float) -> None:
    truth = disc(300, 80, 90, 60) | disc(300, 215, 90, 60) | disc(300, 150, 220, 60)
    image = pale_image(contrast)
    found = find_tissue(image, everywhere(image), microns=MICRONS)
    assert agreement(found.mask, truth) > 0.9
    assert not found.doubt


def test_shaded_noisy_glass_is_no_tissue() -> None:
    rng = np.random.default_rng(4)
    for glass in ((243, 243, 243), (235, 228, 220), (205, 205, 205)):
        shade = np.linspace(1.0, 0.95, 300)[:, None, None] * np.linspace(0.98, 1.0, 300)[:, None]
        image = np.clip(np.array(glass) * shade + rng.normal(0, 0.5, (300, 300, 3)), 0, 255).astype(np.uint8)
        assert find_tissue(image, everywhere(image), microns=MICRONS).mask.mean() < 0.001


def test_pen_marks_do_not_hide_pale_tissue() -> None:
    image = pale_image(0.2)
    image[20:280, 145:155] = INKS["blue"]
    found = find_tissue(image, everywhere(image), microns=MICRONS)
    assert found.mask[disc(300, 80, 90, 50)].mean() > 0.9
    assert found.mask[20:280, 145:155].mean() < 0.02


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_black_that_is_not_constant_does_not_make_dark_field(share: float) -> None:
    truth = disc(300, 20, 150, 15)
    image = noisy_image(300, (truth, EOSIN))
    black = np.zeros((300, 300), dtype=bool)
    black[:, round(300 * (1 - share)) :] = True
    truth &= ~black
    image[black] = np.random.default_rng(5).integers(0, 6, (int(black.sum()), 3))
    found = find_tissue(image, everywhere(image), microns=MICRONS)
    assert found.illumination == "bright"
    assert agreement(found.mask, truth) > 0.85
    assert f"{100 * share:.0f} % of the overview is black" in found.doubt
