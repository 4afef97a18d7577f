"""The gland card, run through the segmenter on a real slide, with the tissue mask that it needs."""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from limner.model.annotator import SupportsFit
from limner.model.checkpoints.cards import find_card, read_card
from limner.model.checkpoints.weights import locate
from limner.model.class_maps import polygonise
from limner.model.merging import merge_across_regions
from limner.model.segmentation.annotator import Segmenter
from limner.model.views import read_view, to_image_coordinates
from limner.readers.contract import scan_with
from limner.readers.errors import ModelError
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo
from limner.readers.options import make_plugin
from limner.readers.overview import read_overview
from limner.readers.regions import Grid, cut_regions
from limner.readers.render import fit_stretch
from limner.readers.slide.pyramid import PyramidReader
from limner.readers.slide.tissue import find_tissue, overview_side
from shapely.geometry.base import BaseGeometry

pytestmark = pytest.mark.slow

CARD = find_card("gland")


def slide(*, common: bool = True, dtype: str = "uint8") -> ImageInfo:
    channels = tuple(Channel(name, name if common else None, dtype) for name in ("red", "green", "blue"))
    return ImageInfo("a.svs", "slide", (500, 500), channels, Placement.pixels())


def test_it_needs_8_bit_colours_and_a_fit() -> None:
    segmenter = make_plugin(Segmenter, {"model": "gland"})
    spec = segmenter.input_spec(slide())
    assert (spec.bands, spec.resolution, spec.unit, spec.fitted) == (None, 2.0, "um", "")
    assert isinstance(segmenter, SupportsFit)
    assert segmenter.labels == ("lumen", "epithelium")
    with pytest.raises(ModelError, match="8-bit"):
        segmenter.input_spec(slide(dtype="uint16"))
    with pytest.raises(ModelError, match="missing: red, green, blue"):
        segmenter.input_spec(slide(common=False))


def test_a_cards_digest_covers_hashes_and_not_sources() -> None:
    [variant] = CARD.variants
    [companion] = variant.companions

    def with_companion(**changes: str) -> str:
        changed = variant.model_copy(update={"companions": (companion.model_copy(update=changes),)})
        return CARD.model_copy(update={"variants": (changed,)}).digest

    assert with_companion(weights="elsewhere") == CARD.digest
    assert with_companion(sha256="0" * 64) != CARD.digest


def test_stains_need_red_green_and_blue() -> None:
    text = CARD.model_dump_json().replace('["red","green","blue"]', '["red","blue","green"]')
    with pytest.raises(ModelError, match="from the bands red, green, blue"):
        read_card(text, subject="card")


def weights_here() -> None:
    [variant] = CARD.variants
    try:
        for part in (variant, *variant.companions):
            locate(part.weights, part.sha256, fetch=True, name="gland")
    except (ModelError, subprocess.SubprocessError) as error:
        pytest.skip(f"the gland weights cannot be had here: {error}")


@pytest.mark.network
def test_glands_of_a_real_prostate(shared_data: Path) -> None:
    weights_here()
    path = str(shared_data / "slides" / "generic_pyramid_prostate" / "slide.tiff")
    [info] = scan_with(PyramidReader(), path, {"microns_per_pixel": "0.5"})
    info = replace(info, id="prostate")
    segmenter = make_plugin(Segmenter, {"model": "gland"})
    with PyramidReader().open(info) as image:
        seen = read_overview(image, limit=overview_side(info, 2.0))
        tissue = find_tissue(seen.pixels, seen.valid, microns=(2.0, 2.0))
        spec = segmenter.fit(segmenter.input_spec(info), seen.pixels, tissue.mask, seen.valid)
        assert "Macenko" in spec.fitted
        area = outline(tissue.mask, seen.scale)
        assert isinstance(area, BaseGeometry)
        stretch = fit_stretch(seen.pixels, seen.valid, image.channels)
        found = []
        for region in cut_regions(Grid("prostate", info.size, (4.0, 4.0)), tile=spec.tile, halo=spec.halo, hd_num=1):
            view = read_view(image, region, spec, stretch=stretch, roi=area)
            [answers] = segmenter.annotate([view])
            found += to_image_coordinates(answers, view)
    joined = merge_across_regions(found)
    share = {
        label: sum(f.geometry.area for f in joined if f.label == label) / (2500 * 2500)
        for label in ("lumen", "epithelium")
    }
    assert 0.07 < share["lumen"] < 0.14
    assert 0.08 < share["epithelium"] < 0.17
    lumen = shapely.union_all([f.geometry for f in joined if f.label == "lumen"])
    assert lumen.covers(shapely.Point(560, 1560))
    assert lumen.difference(area.buffer(4)).area == 0
    assert not lumen.intersects(shapely.Point(2300, 2300))  # blank, and not known to be enclosed


def outline(mask: npt.NDArray[np.bool_], scale: tuple[float, float]) -> shapely.Geometry:
    """A mask of an overview as an area in level-0 pixels."""
    patches = polygonise(mask.astype(np.uint8), np.ones(mask.shape, dtype=np.float32), mask)
    return shapely.transform(shapely.union_all([p.polygon for p in patches]), lambda xy: xy * scale)
