"""The stain of a slide, from its overview and from its header."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from limner.readers.kinds import DOUBTFUL
from limner.readers.slide.staining import HE, IHC, measure_stain, stated_specimen
from limner.readers.slide.tiff import OmeMetadata

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
import stain_table  # pyright: ignore[reportMissingImports] - a script beside the tests

sys.path.pop(0)


@pytest.mark.slow
def test_a_made_stain_is_hardly_ever_taken_for_the_other() -> None:
    generator = np.random.default_rng(1)
    told = {
        stain: Counter(stain_table.told(stain_table.made(generator, stain)) for _ in range(60)) for stain in (HE, IHC)
    }
    assert told[HE][IHC] == 0
    assert told[HE][HE] >= 57
    assert told[IHC][HE] <= 1
    assert told[IHC][IHC] >= 40


@pytest.mark.parametrize(("name", "stain"), [*((n, HE) for n in stain_table.REAL_HE), (stain_table.REAL_IHC[0], IHC)])
def test_the_stain_of_real_slides(shared_data: Path, name: str, stain: str) -> None:
    assert measure_stain(*stain_table.overview(shared_data / "slides" / name))[0] == stain


@pytest.mark.slow
def test_the_stain_of_real_fields(shared_data: Path) -> None:
    assert Counter(map(stain_table.told, stain_table.fields(shared_data / "slides"))) == {HE: 81}


def test_a_stain_between_the_two_is_doubtful_and_glass_has_none() -> None:
    picture = np.full((40, 40, 3), 240, dtype=np.uint8)
    tissue = np.zeros((40, 40), dtype=bool)
    tissue[:, 20:] = True
    everywhere = np.ones((40, 40), dtype=bool)
    assert measure_stain(picture, tissue, everywhere) == ("", "")
    picture[:, 20:] = (120, 95, 120)  # green has 39 % of the absorbance, red and blue 31 %
    picture[:, 20:30] = (120, 108, 110)
    assert measure_stain(picture, tissue, everywhere)[0] == DOUBTFUL
    assert measure_stain(picture.astype(np.uint16), tissue, everywhere) == ("", "")


@pytest.mark.parametrize(
    ("texts", "facts"),
    [
        (["H&E", "Prostate"], {"stain": "H&E", "organ": "prostate"}),
        (["hematoxylin and eosin stain", "Skin structure"], {"stain": "H&E", "organ": "skin"}),
        (["Ki-67"], {"stain": "IHC"}),
        (["H and E", "HER2", "lung"], {"organ": "lung"}),
        (["Arginase uV", "John Doe, skin of the nose", "S21-1234"], {}),
    ],
)
def test_only_known_stains_and_organs_are_kept_of_a_header(texts: list[str], facts: dict[str, str]) -> None:
    assert dict(stated_specimen(texts)) == facts


def test_annotations_of_ome_xml_state_stain_and_organ() -> None:
    entries = '<M K="Stain">H&amp;E</M><M K="Tissue type">Prostate</M><M K="Patient">Skin</M>'
    text = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels SizeX="9" SizeY="9"/></Image>'
        f"<StructuredAnnotations><MapAnnotation><Value>{entries}</Value></MapAnnotation></StructuredAnnotations></OME>"
    )
    [image] = OmeMetadata.parse(text)
    assert dict(image.specimen) == {"stain": "H&E", "organ": "prostate"}
