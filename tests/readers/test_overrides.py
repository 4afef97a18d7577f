"""What the user states holds for the facts of any reader."""

import pytest
from limner.readers.errors import ReadError, RequestError
from limner.readers.geometry import Placement, Polynomial
from limner.readers.image import VALIDITY_UNKNOWN, Channel, ImageInfo
from limner.readers.options import Options, parse_options
from limner.readers.overrides import Overrides, PreparedOverrides
from pydantic import Field

PIXELS = Placement.pixels()
UNPLACED = Placement(((10.0, 0.0, 3e5), (0.0, -10.0, 4e6)), "crs", source="geotransform")


class NodataOptions(Options):
    """Options of a reader that takes a nodata value."""

    default_nodata: float | None = Field(default=None, description="No data.")


class Reader:
    """A plug-in's."""

    Options = NodataOptions


def facts(count: int = 3, placement: Placement = PIXELS, **further: object) -> ImageInfo:
    channels = tuple(Channel(f"c{i + 1}", dtype="uint16") for i in range(count))
    return ImageInfo("nowhere/a.npy", "npy", (9, 7), channels, placement, **further)  # pyright: ignore[reportArgumentType]


def apply(info: ImageInfo, **options: str) -> ImageInfo:
    return PreparedOverrides(parse_options(Overrides, options, "readers")).apply(info, Reader())


def test_bands_name_the_channels_of_any_reader() -> None:
    found = apply(facts(), bands="Red,green,DAPI").channels
    assert [(channel.name, channel.common) for channel in found] == [("Red", "red"), ("green", "green"), ("DAPI", None)]
    with pytest.raises(ReadError, match="each of the 3 channels"):
        apply(facts(), bands="red")
    with pytest.raises(RequestError, match="'bands' of readers must be different names"):
        apply(facts(), bands="red,red,blue")


def test_a_sensor_sets_quantity_and_nodata() -> None:
    info = apply(facts(2, facts=(VALIDITY_UNKNOWN,)), sensor="sentinel-2-l1c", bands="blue,nir")
    assert [(c.name, c.common, c.scale, c.quantity) for c in info.channels] == [
        ("B02", "blue", 1e-4, "toa_reflectance"),
        ("B08", "nir", 1e-4, "toa_reflectance"),
    ]
    assert (info.sensor, info.options) == ("sentinel-2-l1c", (("default_nodata", "0"),))
    assert "Nodata value 0 by the product specification of sentinel-2-l1c." in info.notes
    assert apply(facts(2), sensor="sentinel-2-l1c").options == ()  # the file says itself what is valid
    assert apply(facts(2, kind="study"), sensor="sentinel-2-l1c") == facts(2, kind="study")


def test_precedence_of_file_user_and_product() -> None:
    named = facts(2, sensor="sentinel-2-l2a")
    assert {c.quantity for c in apply(named, bands="blue,nir").channels} == {"surface_reflectance"}
    with pytest.raises(ReadError, match=r"sensor sentinel-2-l1c, .*found: sentinel-2-l2a by the name of the product"):
        apply(named, bands="blue,nir", sensor="sentinel-2-l1c")
    own = ImageInfo("a", "npy", (9, 7), (Channel("B04", scale=2e-4),), PIXELS)
    told = apply(own, sensor="sentinel-2-l1c")
    assert told.channels[0].scale == 2e-4
    assert any("scale 0.0002 and offset 0 of the file are used" in note for note in told.notes)


@pytest.mark.slow
def test_crs_is_used_for_files_that_lack_only_that() -> None:
    placed = apply(facts(placement=UNPLACED), crs="EPSG:32618").placement
    assert (placed.unit, placed.matrix) == ("m", UNPLACED.matrix)
    left = apply(facts(placement=UNPLACED))
    assert left.placement == Placement.pixels("none (geotransform without a CRS)")
    assert any("--crs EPSG:32618" in note for note in left.notes)
    assert apply(facts(), crs="EPSG:32618").placement == PIXELS
    own = apply(facts(placement=placed), crs="EPSG:4326")
    assert own.placement == placed
    assert own.notes == ("--crs was not used: the file has a CRS.",)
    assert apply(facts(placement=placed), crs="EPSG:32618").notes == ()
    with pytest.raises(RequestError, match="must be a CRS"):
        apply(facts(), crs="north of here")


def test_the_residual_of_control_points_is_noted() -> None:
    warp = Polynomial(((0, 0), (1, 0), (0, 1)), (3e5, 10.0, 0.0), (4e6, 0.0, -10.0), (0.0, 0.0), 1.0, 0.25)
    points = Placement(UNPLACED.matrix, "crs", source="4 control points", warp=warp)
    placed = apply(facts(placement=points), crs="EPSG:32618")
    assert placed.placement.warp == warp
    assert any("first-order polynomial through 4 control points" in note for note in placed.notes)
    assert any("control points but no CRS" in note for note in apply(facts(placement=points)).notes)


ON_MAP = Placement(((10.0, 0.0, 3e5), (0.0, -10.0, 4e6)), "m", crs="EPSG:32618", source="geotransform")


def test_a_pixel_size_in_microns_is_for_slides_and_flat_pictures() -> None:
    slide = apply(facts(kind="slide"), microns_per_pixel="0.5,0.51").placement
    assert (slide.unit, slide.matrix[0][0], slide.matrix[1][1]) == ("um", 0.5, 0.51)
    flat = apply(facts(personal=False, sensor="naip-4"), microns_per_pixel="0.5,0.51")
    assert (flat.placement, flat.kind, flat.personal, flat.sensor) == (slide, "slide", True, "")
    placed = apply(facts(placement=ON_MAP), microns_per_pixel="0.5")
    assert (placed.placement, placed.kind) == (ON_MAP, "map")
    assert "--microns-per-pixel was not used: the image has a georeference." in placed.notes
    assert apply(facts(kind="study"), microns_per_pixel="0.5").placement == PIXELS


def test_a_pixel_size_in_metres_is_for_maps_without_a_georeference() -> None:
    for placement in (PIXELS, UNPLACED):
        flat = apply(facts(placement=placement), metres_per_pixel="0.1")
        assert (flat.kind, flat.placement.unit, flat.placement.crs) == ("map", "m", None)
        assert flat.placement.to_world([(10, 20)]).tolist() == [[1.0, 2.0]]
        assert not any("in pixels" in note for note in flat.notes)
    stated = apply(facts(placement=UNPLACED), metres_per_pixel="0.1", crs="EPSG:32618")
    assert stated.placement.crs is not None
    assert any(note.startswith("--metres-per-pixel was not used") for note in stated.notes)
    slide = apply(facts(kind="slide"), metres_per_pixel="0.1")
    assert slide.placement == PIXELS
    assert "--metres-per-pixel was not used: it is for maps." in slide.notes
    with pytest.raises(RequestError, match="must not be given with --microns-per-pixel"):
        apply(facts(), metres_per_pixel="0.1", microns_per_pixel="0.5")


def test_a_crs_without_a_geotransform_is_told_to_be_unused() -> None:
    assert "--crs was not used: the image has no geotransform." in apply(facts(), crs="EPSG:32618").notes
