"""CRS that a user states."""

import pyproj
import pytest
from limner.readers.errors import RequestError
from limner.readers.geodesy import stated_crs

SITE = 'LOCAL_CS["site",UNIT["foot",0.3048],AXIS["x",EAST],AXIS["y",NORTH]]'


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("EPSG:32618", "m"),
        ("EPSG:2263", "crs"),  # US survey feet
        ("EPSG:4326", "deg"),
        ("EPSG:4807", "crs"),  # grads from Paris
        (SITE, "crs"),
    ],
)
def test_the_unit_of_a_stated_crs(text: str, unit: str) -> None:
    found = stated_crs(text)
    assert found.unit == unit
    assert pyproj.CRS.from_wkt(found.wkt) == pyproj.CRS.from_user_input(text)


def test_a_stated_crs_that_is_none_is_refused() -> None:
    with pytest.raises(RequestError, match=r"--crs must be a CRS that PROJ can read"):
        stated_crs("EPSG:nowhere")
