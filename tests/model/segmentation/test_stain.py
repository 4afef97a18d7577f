"""Stains told apart: against a plain computation in float64, on made slides and a real one."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.model.segmentation.stain import Stain, fit_stain
from limner.readers.contract import scan_with
from limner.readers.errors import ModelError
from limner.readers.overview import read_overview
from limner.readers.slide.pyramid import PyramidReader
from limner.readers.slide.tissue import find_tissue, overview_side

Rgb = npt.NDArray[np.uint8]
HAEMATOXYLIN, EOSIN = (np.array(v) / np.linalg.norm(v) for v in ((0.65, 0.70, 0.29), (0.12, 0.95, 0.28)))
WHITE = 243.0


def slide(seed: int = 1, *, eosin: float = 1.0) -> tuple[Rgb, npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """A slide made by Beer and Lambert's law: (pixels, tissue, amounts of eosin and haematoxylin)."""
    random = np.random.default_rng(seed)
    amounts = random.gamma(0.7, 0.25, (120, 160, 2)) * (eosin, 1.0)
    tissue = np.zeros((120, 160), dtype=bool)
    tissue[20:, 30:] = True
    amounts[~tissue] = 0
    density = amounts[..., :1] * EOSIN + amounts[..., 1:] * HAEMATOXYLIN
    return np.rint(np.clip(WHITE * 10**-density, 0, 255)).astype(np.uint8), tissue, amounts


def reference(pixels: Rgb, tissue: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Macenko's method pixel by pixel, in the paper's steps."""
    glass = [
        p
        for p in pixels.reshape(-1, 3).tolist()
        if max(p) > 211.65 and max(p) - min(p) < 0.12 * max(p) and min(p) < 255
    ]
    white = min(255.0, max(200.0, sum(map(sum, glass)) / len(glass) / 3))
    density = np.array([[-np.log10(min(max(v, 1), white) / white) for v in p] for p in pixels.reshape(-1, 3).tolist()])
    inside = density[tissue.ravel()]
    values, vectors = np.linalg.eigh(sum(np.outer(d, d) for d in inside))
    plane = [vectors[:, i] * np.sign(vectors[:, i].sum()) for i in np.argsort(values)[::-1][:2]]
    angles = [np.arctan2(d @ plane[1], d @ plane[0]) for d in inside if np.hypot(d @ plane[0], d @ plane[1]) > 0.15]
    ends = [np.cos(a) * plane[0] + np.sin(a) * plane[1] for a in np.percentile(angles, [1, 99])]
    haematoxylin, eosin = sorted(ends, key=lambda v: -v[0])
    basis = np.column_stack([haematoxylin, eosin, np.cross(haematoxylin, eosin)])
    solved = np.linalg.solve(basis, density.T).T
    result = np.column_stack([solved[:, 1], solved[:, 0], density.mean(axis=1)])
    for i in range(3):
        low, high = np.percentile(result[:, i], [1, 99])
        result[:, i] = np.clip((result[:, i] - low) / (high - low), 0, 1)
    return result.reshape(*pixels.shape[:2], 3)


def everywhere(pixels: Rgb) -> npt.NDArray[np.bool_]:
    return np.ones(pixels.shape[:2], dtype=bool)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_stains_equal_the_plain_computation(seed: int) -> None:
    pixels, tissue, _ = slide(seed)
    stain = fit_stain(pixels, tissue, everywhere(pixels))
    assert stain(pixels).dtype == np.float32
    assert np.abs(stain(pixels) - reference(pixels, tissue)).max() < 1e-6


def test_amounts_of_stain_are_recovered_in_order_eosin_haematoxylin_density() -> None:
    pixels, tissue, amounts = slide()
    shown = fit_stain(pixels, tissue, everywhere(pixels))(pixels)
    clear = (amounts.sum(axis=2) < 1) & tissue
    for place in (0, 1):
        assert np.corrcoef(shown[clear][:, place], amounts[clear][:, place])[0, 1] > 0.98
    assert (shown[~tissue] < 0.05).all()
    density = amounts[..., 0] * EOSIN.mean() + amounts[..., 1] * HAEMATOXYLIN.mean()
    assert np.corrcoef(shown[clear][:, 2], density[clear])[0, 1] > 0.99


def test_a_tile_is_the_same_alone_as_in_the_slide() -> None:
    pixels, tissue, _ = slide()
    stain = fit_stain(pixels, tissue, everywhere(pixels))
    assert np.array_equal(stain(pixels)[40:60, 50:90], stain(pixels[40:60, 50:90]))


def test_a_stain_survives_json_bit_for_bit() -> None:
    pixels, tissue, _ = slide()
    stain = fit_stain(pixels, tissue, everywhere(pixels))
    assert Stain.from_json(stain.to_json()) == stain
    assert "Macenko 2009 on 13000 overview pixels of tissue, glass measured at 238.7" in stain.source


def test_invalid_pixels_do_not_count() -> None:
    pixels, tissue, _ = slide()
    stain = fit_stain(pixels, tissue, everywhere(pixels))
    wider = np.concatenate([pixels, np.zeros_like(pixels)])
    valid = np.concatenate([everywhere(pixels), ~everywhere(pixels)])
    again = fit_stain(wider, np.concatenate([tissue, everywhere(pixels)]), valid)
    assert again == stain


def test_a_slide_without_two_stains_is_refused() -> None:
    pixels, tissue, _ = slide()
    with pytest.raises(ModelError, match="stained overview pixels of tissue"):
        fit_stain(pixels, np.zeros_like(tissue), everywhere(pixels))
    with pytest.raises(ModelError, match="stained overview pixels of tissue"):
        fit_stain(np.full_like(pixels, 243), tissue, everywhere(pixels))
    grey = np.repeat(pixels[..., :1], 3, axis=2)
    with pytest.raises(ModelError, match="two stains of different colour"):
        fit_stain(grey, tissue, everywhere(pixels))


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=20))
def test_any_colour_gives_numbers_from_0_to_1(colours: list[tuple[int, int, int]]) -> None:
    pixels, tissue, _ = slide()
    shown = fit_stain(pixels, tissue, everywhere(pixels))(np.array(colours, dtype=np.uint8))
    assert np.isfinite(shown).all()
    assert ((shown >= 0) & (shown <= 1)).all()


@pytest.mark.slow
def test_a_real_slide(shared_data: Path) -> None:
    path = str(shared_data / "slides" / "generic_pyramid_prostate" / "slide.tiff")
    [info] = scan_with(PyramidReader(), path, {"microns_per_pixel": "0.5"})
    with PyramidReader().open(info) as image:
        seen = read_overview(image, limit=overview_side(info, 2.0))
    tissue = find_tissue(seen.pixels, seen.valid, microns=(2.0, 2.0))
    stain = fit_stain(seen.pixels, tissue.mask, seen.valid)
    shown = stain(seen.pixels)
    assert 235 < stain.white < 245
    assert shown[390, 140].max() < 0.3  # a lumen, with a little secretion
    assert (shown[tissue.mask].mean(axis=0) > 0.2).all()


def test_dark_field_is_refused() -> None:
    pixels = np.zeros((60, 80, 3), dtype=np.uint8)
    pixels[20:40, 20:60, 0] = 120
    tissue = pixels[..., 0] > 0
    with pytest.raises(ModelError, match="stained tissue on bright glass"):
        fit_stain(pixels, tissue, everywhere(pixels))
