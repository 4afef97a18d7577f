"""PMTiles, read back by GDAL: every finding, where it lies, with its label."""

from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import pyogrio
import pytest
import shapely
import shapely.affinity
from limner.model.finding import Finding
from limner.readers.errors import RequestError
from limner.readers.geodesy import from_lonlat
from limner.readers.geometry import Placement
from limner.reports.pmtiles import PMTiles
from limner.reports.writer import DISCLAIMER, ImageRecord, PartlyWrittenError, Record

MakeImage = Callable[..., ImageRecord]
MakeRecord = Callable[..., Record]
MakePlacement = Callable[..., Placement]

SHAPE = shapely.Polygon([(3.25, 4), (300, 17.5), (250, 444), (8, 390)], [[(50, 50), (60, 80), (90, 60)]])
PLACES = {
    "UTM": (32618, 10.0, 0.0, 5e5, 0.0, -10.0, 4e6),
    "rotated aerial": (32631, 0.06, 0.08, 5e5, 0.08, -0.06, 5.7e6),
    "degrees": (4326, 1e-4, 0.0, -70.0, 0.0, -1e-4, 40.0),
    "across the antimeridian": (32660, 30.0, 0.0, 695_000.0, 0.0, -30.0, 5.7e6),
    "far north": (32633, 10.0, 0.0, 5e5, 0.0, -10.0, 9e6),
}


def outlines(path: Path, placement: Placement) -> dict[int, shapely.Geometry]:
    """The outline of each finding in level-0 pixels: its parts in the tiles of the highest zoom, joined."""
    pieces = gpd.read_file(path)
    joined = pieces.dissolve("finding", grid_size=1e-4, method="unary").to_crs(4326).geometry
    shapes = shapely.transform(joined.to_numpy(), lambda degrees: from_lonlat(placement, degrees))
    return dict(zip(joined.index.tolist(), shapes, strict=True))


@pytest.mark.parametrize("name", PLACES)
def test_outlines_are_within_a_quarter_of_a_pixel(
    name: str, placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    place = placement(*PLACES[name])
    boxes = [shapely.box(7 * k, 3 * k, 7 * k + 1, 3 * k + 2) for k in range(100)]
    shapes = [SHAPE, shapely.affinity.translate(SHAPE, 640.5, 300.25), *boxes]
    run = record(image("a", place, [Finding("water", shape, "area") for shape in shapes]))
    [path] = PMTiles().write(run, out)
    found = outlines(path, place)
    assert sorted(found) == list(range(1, len(shapes) + 1))
    for number, shape in enumerate(shapes, 1):
        assert shapely.hausdorff_distance(found[number], shape, densify=0.01) < 0.25, number


def test_a_run_analysed_at_a_coarser_scale_has_fewer_zooms(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    place = placement(*PLACES["UTM"])
    zooms = []
    for scale in (1.0, 4.0, 0.5):
        run = record(image("a", place, [Finding("water", SHAPE, "area")], scale=(scale, scale)))
        [path] = PMTiles().write(run, out)
        zooms.append(int(pyogrio.read_info(path)["dataset_metadata"]["maxzoom"]))
    assert zooms == [13, 11, 14]


def test_rows_have_the_properties_of_geojson_and_the_colour(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    found = [
        Finding("water", SHAPE, "area", 0.5, text="one\ntwo", text_cut=True, numbers={"deep": 2.5}),
        Finding("land", shapely.box(0, 0, 9, 9), "box", notes={"why": "dry"}),
    ]
    run = record(image("a", placement(*PLACES["UTM"]), found), colours={"water": "#0102ff"})
    [path] = PMTiles().write(run, out)
    info = pyogrio.read_info(path)
    assert (info["layer_name"], info["dataset_metadata"]["description"]) == ("findings", DISCLAIMER)
    rows = gpd.read_file(path).drop_duplicates("finding").set_index("finding")
    assert rows["label"].to_dict() == {1: "water", 2: "land"}
    assert (rows.loc[1, "fill"], rows.loc[1, "text"], rows.loc[1, "score"]) == ("#0102ff", "one two", 0.5)
    assert (rows.loc[1, "number.deep"], rows.loc[2, "note.why"]) == (2.5, "dry")
    assert "area_um2" not in rows


def test_no_finding_is_lost_where_a_tile_has_very_many(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    found = [
        Finding(f"label {k % 7}", shapely.box(x, y, x + 1, y + 1), "area", numbers={"n": k / 7})
        for k, (x, y) in enumerate((k % 250, k // 250) for k in range(25_000))
    ]
    [path] = PMTiles().write(record(image("a", placement(*PLACES["UTM"]), found)), out)
    assert pyogrio.read_dataframe(path, read_geometry=False, columns=["finding"])["finding"].nunique() == len(found)


def test_the_same_findings_give_the_same_bytes_and_nothing_else(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path, tmp_path: Path
) -> None:
    found = [Finding("water", shapely.box(k % 60, k // 60, k % 60 + 1, k // 60 + 1), "area") for k in range(3000)]
    run = record(image("a", placement(*PLACES["UTM"]), found))
    [first] = PMTiles().write(run, out)
    assert [path.name for path in out.iterdir()] == ["findings-a.pmtiles"]
    (tmp_path / "again").mkdir()
    [second] = PMTiles().write(run, tmp_path / "again")
    assert first.read_bytes() == second.read_bytes()


def test_images_that_web_mercator_cannot_hold_are_named(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    found = [Finding("water", SHAPE, "area")]
    mars = "+proj=eqc +R=3396190 +units=m +no_defs"
    run = record(
        image("pole", placement(3031, 100.0, 0.0, -5e4, 0.0, -100.0, 5e4), found),
        image("mars", placement(mars, 10.0, 0.0, 5e5, 0.0, -10.0, 4e6), found),
        image("none", Placement.pixels(), found),
        image("empty", placement(*PLACES["UTM"])),
    )
    assert {name: why.partition(":")[0] for name, why in PMTiles().omitted(run).items()} == {
        "pole": "it reaches beyond 85.05° of latitude, where Web Mercator ends",
        "mars": "its CRS is not on Earth",
        "none": "it has no CRS, so its pixels have no longitude and latitude",
        "empty": "it has no findings",
    }
    assert PMTiles().write(run, out) == []


def test_a_finding_off_the_earth_is_told(image: MakeImage, record: MakeRecord, out: Path) -> None:
    disc = Placement(((1e4, 0, -5.5e6), (0, -1e4, 5.5e6)), "m", "+proj=geos +h=35785831 +lon_0=0 +sweep=y +units=m")
    found = [Finding("cloud", shapely.box(x, x, x + 9, x + 9), "area") for x in (500, 0)]
    with pytest.raises(PartlyWrittenError) as error:
        PMTiles().write(record(image("disc", disc, found, size=(1100, 1100))), out)
    assert "finding 2 of disc must be on the Earth" in error.value.omitted["disc"]


def test_a_gdal_without_the_driver_is_told_with_a_way_out(
    record: MakeRecord, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyogrio, "list_drivers", lambda: {"GeoJSON": "rw", "PMTiles": "r"})
    with pytest.raises(RequestError, match=r"driver PMTiles.*without it.*wheel of PyPI.*tippecanoe"):
        PMTiles().write(record(), out)
