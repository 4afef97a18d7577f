"""The domain of a model, and its comparison with images."""

from collections.abc import Mapping

import pytest
from limner.model.checkpoints.cards import find_card
from limner.model.domain import Domain, compare_domain, image_properties, whole_tiles
from limner.model.vlm.fourkhd.checkpoint import FourKhdFiles
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo, Kind

PIXEL: Mapping[Kind, float] = {"map": 10.0, "slide": 0.5, "study": 1.0}
GLAND, CSMASK = find_card("gland").domain, find_card("csmask").domain


def image(kind: Kind, *, sensor: str = "", unit: str = "", **facts: str) -> ImageInfo:
    size = PIXEL[kind]
    units = {"map": "crs", "slide": "um", "study": "px"}
    placement = Placement(((size, 0.0, 0.0), (0.0, -size if kind == "map" else size, 0.0)), unit or units[kind])  # type: ignore[arg-type]
    return ImageInfo(
        "a", "r", (100, 100), (Channel("c"),), placement, id="a", kind=kind, sensor=sensor, facts=tuple(facts.items())
    )


SMALL = ((card := FourKhdFiles.find("small").card) and card.domain) or ()
HE_SLIDE = {"stain_measured": "H&E", "stain_evidence": "of the overview"}


@pytest.mark.parametrize(
    ("domain", "info", "said"),
    [
        (GLAND, image("slide", stain_measured="IHC", stain_evidence="brown"), "its stain is IHC"),
        (GLAND, image("slide", stain="IHC"), "its stain is IHC"),
        (GLAND, image("slide", organ="skin", **HE_SLIDE), "its organ is skin, and the model was made for prostate"),
        (GLAND, image("study", modality="CT"), "it is a study, and the model was made for a slide"),
        (SMALL, image("study", modality="CT", body_part="ABDOMEN"), "its modality is CT"),
        (SMALL, image("study", modality="CR", body_part="HAND"), "its body part is HAND"),
        (SMALL, image("slide"), "it is a slide"),
        (CSMASK, image("map", sensor="naip-4"), "its sensor is naip-4"),
        (CSMASK, image("map", sensor="sentinel-2-l2a"), "its sensor is sentinel-2-l2a"),
    ],
)
def test_an_image_outside_the_domain_is_said_to_be(domain: tuple[Domain, ...], info: ImageInfo, said: str) -> None:
    assert said in "; ".join(compare_domain(domain, info).mismatches)


@pytest.mark.parametrize(
    ("domain", "info"),
    [
        (GLAND, image("slide", organ="prostate", **HE_SLIDE)),
        (SMALL, image("study", modality="DX", body_part="CHEST")),
        (CSMASK, image("map", sensor="sentinel-2-l1c-n0400")),
        (CSMASK, image("map", sensor="landsat-8-l1")),
    ],
)
def test_an_image_of_the_domain_has_nothing_to_tell(domain: tuple[Domain, ...], info: ImageInfo) -> None:
    found = compare_domain(domain, info)
    assert (found.mismatches, found.unknown, found.doubts) == ((), (), ())


@pytest.mark.parametrize(
    ("domain", "info", "unknown"),
    [
        (GLAND, image("slide"), ["the stain is not known", "the organ is not known"]),
        (SMALL, image("study"), ["the modality is not known", "the body part is not known"]),
        (CSMASK, image("map"), ["the sensor is not known"]),
        (GLAND, image("map", unit="px"), ["the file does not state whether it is a map"]),
        ((), image("study", modality="CT"), ["the model does not state its domain"]),
    ],
)
def test_what_is_not_known_is_noted_and_refuses_nothing(
    domain: tuple[Domain, ...], info: ImageInfo, unknown: list[str]
) -> None:
    found = compare_domain(domain, info)
    assert (found.mismatches, found.doubts) == ((), ())
    assert [text.split(",")[0] for text in found.unknown] == unknown


def test_a_doubtful_stain_and_a_contradiction_only_warn() -> None:
    between = image("slide", stain_measured="doubtful", stain_evidence="in the overview", organ="prostate")
    against = image("slide", stain="IHC", organ="prostate", **HE_SLIDE)
    for info, said in ((between, "between H&E and IHC"), (against, "the header says IHC")):
        found = compare_domain(GLAND, info)
        assert (found.mismatches, found.unknown) == ((), ())
        assert said in found.doubts[0]


def test_pixels_are_compared_as_they_are_analysed() -> None:
    domain = [Domain(kind="slide", pixel_size=(1.0, 3.0))]
    assert "0.5 µm" in compare_domain(domain, image("slide")).mismatches[0]
    assert compare_domain(domain, image("slide"), (4.0, 4.0)).mismatches == ()


def test_one_part_of_a_domain_is_enough() -> None:
    domain = [Domain(kind="study", modalities=("CT",)), Domain(kind="study", modalities=("MR",), body_parts=("HEAD",))]
    assert compare_domain(domain, image("study", modality="MR", body_part="HEAD")).mismatches == ()
    assert compare_domain(domain, image("study", modality="MR", body_part="KNEE")).mismatches


def test_the_domain_of_training_images_is_what_all_of_them_state() -> None:
    slides = [image("slide", organ="skin", **HE_SLIDE), image("slide", stain_measured="IHC", stain_evidence="")]
    films = [image("study", modality="CR", body_part="CHEST"), image("study", modality="DX", body_part="CHEST")]
    assert Domain.of_images([*slides, *films]) == (
        Domain(kind="slide", stains=("H&E", "IHC")),
        Domain(kind="study", modalities=("CR", "DX"), body_parts=("CHEST",)),
    )
    assert Domain.of_images([*films, image("map", unit="px")]) == (), "a picture of unknown kind may be anything"
    assert image_properties(image("map", unit="px")) == {}


@pytest.mark.parametrize(
    ("info", "tiles"),
    [
        (image("study", modality="CR", body_part="CHEST"), 1),
        (image("study", modality="DX"), 1),
        (image("study", modality="CT", body_part="CHEST"), 0),
        (image("map", sensor="sentinel-2-l2a"), 0),
    ],
)
def test_a_model_made_with_whole_images_shows_such_images_whole(info: ImageInfo, tiles: int) -> None:
    assert whole_tiles(SMALL, info) == tiles
