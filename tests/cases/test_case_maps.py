"""Maps on which tools of this field fail, and what is right: the same pixels give the same, however they are wrapped.

The truth for the crop of the sample scene is csmask's at 30 m; what has another network's would do as well.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # of conftest, which tests cannot import
Made = Callable[[str], Path]
Rows = Callable[[Path], list[dict[str, str]]]
Shares = Callable[[Path], dict[str, float]]

TRUTH = {"shadow": 0.0, "water": 65.48, "snow/ice": 0.75, "land": 31.94, "cloud": 1.82}
"""Per cent of the crop. Analysed within the whole scene it has 65.26, 0.81, 31.81 and 2.13 %."""
PRESET = ("--preset", "sentinel2-l1c", "--resolution", "30m")
LOOK = ("--stretch", "0,4000", "--reports", "findings-csv", "--reports", "summary-csv", "--reports", "files-csv")


def labels(found: dict[str, float]) -> dict[str, float]:
    """Per cent by label alone."""
    return {name: found[name] for name in TRUTH}


@pytest.mark.network
@pytest.mark.usefixtures("csmask")
@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "antimeridian",
        "compound_height",
        "compound_ellipsoid",
        "custom",
        "local",
        "feet",
        "control_points",
        "reversed_bands",
        "scale_tags",
        "offset_tags",
        "southup",
        "mirrored",
    ],
)
def test_the_same_pixels_are_the_same_classes(
    tmp_path: Path, maps: Made, limner: Limner, shares: Shares, name: str
) -> None:
    said = limner("run", maps(name), *PRESET, "--out", tmp_path / "out", "--reports", "summary-csv")
    assert said.code == 0, said.err
    found = shares(tmp_path / "out")
    assert labels(found) == pytest.approx(TRUTH, abs=0.02)
    assert found["analysed"] == 100.0


@pytest.mark.network
@pytest.mark.usefixtures("csmask")
@pytest.mark.parametrize(("name", "analysed"), [("rotated", 51.0), ("epsg4326", 98.7), ("compound_navd88", 100.0)])
def test_pixels_on_another_grid_are_nearly_the_same_classes(
    tmp_path: Path, maps: Made, limner: Limner, shares: Shares, name: str, analysed: float
) -> None:
    said = limner("run", maps(name), *PRESET, "--out", tmp_path / "out", "--reports", "summary-csv")
    assert said.code == 0, said.err
    found = shares(tmp_path / "out")
    assert labels(found) == pytest.approx(TRUTH, abs=6.0)  # it sees the ground turned, stretched, or elsewhere
    assert found["analysed"] == pytest.approx(analysed, abs=0.8)


@pytest.mark.network
@pytest.mark.usefixtures("csmask")
def test_landsat_reflectance_comes_from_an_mtl_with_doubled_keys(
    tmp_path: Path, maps: Made, limner: Limner, shares: Shares
) -> None:
    words = ("--preset", "landsat", "--resolution", "30m", "--out", tmp_path / "out", "--reports", "summary-csv")
    said = limner("run", maps("landsat"), *words)
    assert said.code == 0, said.err
    assert labels(shares(tmp_path / "out")) == pytest.approx(TRUTH, abs=0.04)  # its numbers are rounded


@pytest.mark.network
@pytest.mark.usefixtures("csmask")
@pytest.mark.parametrize("name", ["nan", "nan_beside_sentinel"])
def test_nan_is_no_data_as_the_network_sees_it(
    tmp_path: Path, maps: Made, limner: Limner, shares: Shares, name: str
) -> None:
    said = limner("run", maps(name), *PRESET, "--out", tmp_path / "out", "--reports", "summary-csv")
    assert said.code == 0, said.err
    assert shares(tmp_path / "out")["no data"] == pytest.approx(11.18, abs=0.01)


@pytest.mark.parametrize(
    ("name", "missing", "within"),
    [
        ("nan", 10.0, 0.001),  # of the bands that are shown
        ("nan_beside_sentinel", 10.0, 0.001),
        ("mask", 37.5, 0.001),
        ("bad_overviews", 100 * 201**2 / 160000, 0.001),
    ],
)
def test_no_data_is_exact_at_the_files_own_pixels(
    tmp_path: Path, maps: Made, limner: Limner, shares: Shares, per_tile: str, name: str, missing: float, within: float
) -> None:
    out = tmp_path / "out"
    words = (*LOOK, "--model", per_tile, "--out", out)
    said = limner("run", maps(name), *words)
    assert said.code == 0, said.err
    assert shares(out)["no data"] == pytest.approx(missing, abs=within)


@pytest.mark.parametrize(("name", "missing"), [("mask", 37.5), ("bad_overviews", 100 * 201**2 / 160000)])
def test_overviews_with_blended_no_data_are_not_believed(
    tmp_path: Path, maps: Made, limner: Limner, rows: Rows, shares: Shares, per_tile: str, name: str, missing: float
) -> None:
    """At 40 m, where the file has an overview that would do: brightness and coverage stay those of the ground."""
    out = tmp_path / "out"
    words = (*LOOK, "--model", per_tile, "--resolution", "40m", "--out", out)
    said = limner("run", maps(name), *words)
    assert said.code == 0, said.err
    assert shares(out)["no data"] == pytest.approx(missing, abs=0.6)  # 4 × 4 pixels that are partly no data
    scores = [float(row["score"]) for row in rows(out / "findings.csv")]
    assert len(scores) > 10
    assert min(scores) > 0.15  # −9999 blended in would make a tile black


def test_square_degrees_are_not_square_on_the_ground(
    tmp_path: Path, maps: Made, limner: Limner, rows: Rows, per_tile: str
) -> None:
    out = tmp_path / "out"
    words = (*LOOK, "--model", per_tile, "--resolution", "30m", "--out", out)
    said = limner("run", maps("deg60"), *words)
    assert said.code == 0, said.err
    (whole,) = rows(out / "summary.csv")
    assert float(whole["pixel_x_m"]) == pytest.approx(5.58, abs=0.01)
    assert float(whole["pixel_y_m"]) == pytest.approx(11.14, abs=0.01)
    assert float(whole["seen_x_m"]) == pytest.approx(30.0, rel=0.01)
    assert float(whole["seen_y_m"]) == pytest.approx(30.0, rel=0.01)


def test_local_coordinates_are_kept_and_never_become_degrees(
    tmp_path: Path, maps: Made, limner: Limner, rows: Rows, per_tile: str
) -> None:
    out = tmp_path / "out"
    said = limner("run", maps("local"), *LOOK, "--model", per_tile, "--out", out)
    assert said.code == 0, said.err
    found = rows(out / "findings.csv")
    assert found
    assert {(row["lon"], row["lat"]) for row in found} == {("", "")}
    assert all(1000 <= float(row["world_x"]) <= 5000 and 1000 <= float(row["world_y"]) <= 5000 for row in found)
    assert {row["world_unit"] for row in found} == {"m"}


def test_feet_become_metres(tmp_path: Path, maps: Made, limner: Limner, rows: Rows, per_tile: str) -> None:
    out = tmp_path / "out"
    said = limner("run", maps("feet"), *LOOK, "--model", per_tile, "--out", out)
    assert said.code == 0, said.err
    (whole,) = [row for row in rows(out / "areas.csv") if row["entry"] == "image"]
    side = 32.8 * 1200 / 3937
    (seen,) = rows(out / "summary.csv")
    assert float(seen["pixel_x_m"]) == pytest.approx(side, rel=1e-3)  # the projection's scale is not quite 1
    assert float(whole["area_m2"]) == pytest.approx(160000 * side**2, rel=2e-3)


@pytest.mark.parametrize("name", ["rotated", "epsg4326", "southup", "mirrored", "custom", "control_points"])
def test_findings_lie_where_the_ground_is(
    tmp_path: Path, maps: Made, limner: Limner, rows: Rows, per_tile: str, name: str
) -> None:
    """In longitude and latitude, from the whole of what was analysed: the crop's own rectangle, or its own map's."""
    out = tmp_path / "out"
    said = limner("run", maps(name), *LOOK, "--model", per_tile, "--out", out)
    assert said.code == 0, said.err
    places = np.array([[float(row["lon"]), float(row["lat"])] for row in rows(out / "findings.csv")])
    west, south, east, north = (-75.6, 37.614, -75.5546, 37.65) if name == "custom" else WGS84
    assert places.min(axis=0) == pytest.approx([west, south], abs=0.003)
    assert places.max(axis=0) == pytest.approx([east, north], abs=0.003)


WGS84 = (-75.6392, 37.6374, -75.5907, 37.6766)


@pytest.mark.parametrize(("name", "pixels"), [("one_pixel", 1), ("one_row", 400), ("few_pixels", 35)])
def test_the_smallest_maps_are_analysed_whole(
    tmp_path: Path, maps: Made, limner: Limner, rows: Rows, shares: Shares, per_tile: str, name: str, pixels: int
) -> None:
    out = tmp_path / "out"
    words = (*LOOK, "--model", per_tile, "--resolution", "30m", "--out", out)
    said = limner("run", maps(name), *words)
    assert said.code == 0, said.err
    assert shares(out)["analysed"] == 100.0
    (whole,) = [row for row in rows(out / "areas.csv") if row["entry"] == "image"]
    assert float(whole["area_px"]) == pixels


AUTOMATIC = ("--model", "csmask", "--resolution", "30m")


@pytest.mark.network
@pytest.mark.usefixtures("csmask")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("safe", PRESET),
        ("safe", AUTOMATIC),
        ("safe_without_metadata", AUTOMATIC),
        ("safe_without_metadata", PRESET),
    ],
)
def test_the_offset_of_baseline_0400_is_applied_with_and_without_metadata(
    tmp_path: Path, maps: Made, limner: Limner, shares: Shares, name: str, words: tuple[str, ...]
) -> None:
    """N0509 stands in the product's name. JPEG 2000's own halved levels are no means of areas, hence the tolerance.

    Without the offset there is more than twice as much cloud.
    """
    said = limner("run", maps(name), *words, "--out", tmp_path / "out", "--reports", "summary-csv")
    assert said.code == 0, said.err
    found = labels(shares(tmp_path / "out"))
    assert found == pytest.approx(TRUTH, abs=1.2)
    assert found["cloud"] == pytest.approx(TRUTH["cloud"], abs=0.3)


@pytest.mark.network
@pytest.mark.usefixtures("csmask")
def test_a_preset_that_leaves_the_offset_open_follows_a_date_of_2023(
    tmp_path: Path, maps: Made, limner: Limner, shares: Shares
) -> None:
    said = limner("run", maps("loose"), *PRESET, "--out", tmp_path / "out", "--reports", "summary-csv")
    assert said.code == 0, said.err
    (told,) = [line for line in said.err.splitlines() if "2023-07-01" in line]
    assert "sentinel-2-l1c" in told
    found = labels(shares(tmp_path / "out"))
    assert found == pytest.approx(TRUTH, abs=1.2)
    assert found["cloud"] == pytest.approx(TRUTH["cloud"], abs=0.3)
    (planned,) = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))["images"]
    used = dict(planned["info"]["facts"])["values"]
    assert used == "toa_reflectance = DN/10000 − 0.1, by the date 2023-07-01 in its name"
    assert used in limner("plan", maps("loose"), *PRESET[:2], "--model", "none").out


@pytest.mark.network
@pytest.mark.usefixtures("csmask")
def test_reflectance_that_is_reflectance_already_is_not_divided_again(
    tmp_path: Path, maps: Made, limner: Limner, shares: Shares
) -> None:
    """Refused with the reason, and right by the remedy."""
    words = ("run", maps("float01"), *PRESET, "--out", tmp_path / "out", "--reports", "summary-csv")
    said = limner(*words)
    assert said.code == 2
    assert "if they are reflectance already" in said.err
    remedy = "reader_options.scale=1"
    assert f"--set {remedy} " in said.err
    said = limner(*words, "--set", remedy)
    assert said.code == 0, said.err
    assert labels(shares(tmp_path / "out")) == pytest.approx(TRUTH, abs=0.04)  # integers are rounded when averaged


@pytest.mark.parametrize("name", ["scale_tags", "offset_tags"])
def test_tags_that_win_are_told_once(tmp_path: Path, maps: Made, limner: Limner, per_tile: str, name: str) -> None:
    said = limner("run", maps(name), "--model", per_tile, "--sensor", "sentinel-2-l1c", "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert said.err.count("0.0001") <= 2  # the tags' and the product's, in one sentence
    if name == "offset_tags":
        assert "-0.1" in said.err or "−0.1" in said.err


def test_bands_without_names_are_refused_with_the_remedy(tmp_path: Path, maps: Made, limner: Limner) -> None:
    said = limner("run", maps("unnamed_bands"), *PRESET, "--out", tmp_path / "out")
    assert said.code == 2
    assert "--bands" in said.err
    assert "--sensor" in said.err


def test_scenes_of_one_name_are_both_read(
    tmp_path: Path, maps: Made, limner: Limner, rows: Rows, per_tile: str
) -> None:
    out = tmp_path / "out"
    said = limner("run", maps("two_years"), *LOOK, "--model", per_tile, "--out", out)
    assert said.code == 0, said.err
    paths = {row["image"]: row["path"] for row in rows(out / "files.csv")}
    assert sorted(Path(path).parent.name for path in paths.values()) == ["2020", "2021"]
    assert {row["image"] for row in rows(out / "findings.csv")} == set(paths)


def test_scenes_of_one_name_are_told_apart_in_every_table(
    tmp_path: Path, maps: Made, limner: Limner, rows: Rows, per_tile: str
) -> None:
    out = tmp_path / "out"
    said = limner("run", maps("two_years"), *LOOK, "--model", per_tile, "--out", out)
    assert said.code == 0, said.err
    for table in ("findings.csv", "summary.csv"):
        years: dict[str, set[str]] = {}
        for row in rows(out / table):
            years.setdefault(row["image"], set()).update(y for y in ("2020", "2021") if y in " ".join(row.values()))
        assert sorted(years.values(), key=sorted) == [{"2020"}, {"2021"}], table


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("hole.geojson", 15.75),
        ("heights.geojson", 22.0),
        ("utm.geojson", 22.0),
        ("twice.geojson", 22.0),
        ("square.gpkg", 22.0),
        ("square.fgb", 22.0),
        ("square.shp", 22.0),
        ("square.kml", 22.0),
        ("layers.gpkg|layername=woods", 22.0),
    ],
)
def test_an_area_of_interest_is_used(
    tmp_path: Path, maps: Made, areas: Path, limner: Limner, shares: Shares, per_tile: str, name: str, share: float
) -> None:
    """The crop holds 3.52 km² of the square of 4, and all of its hole of 1 km², of 16 km² in all."""
    out = tmp_path / "out"
    words = (*LOOK, "--model", per_tile, "--area", areas / name, "--out", out)
    said = limner("run", maps("plain"), *words)
    assert said.code == 0, said.err
    found = shares(out)
    assert found["analysed"] == pytest.approx(share, abs=0.01)
    assert found["skipped"] == pytest.approx(100 - share, abs=0.01)


def test_a_plan_tells_which_share_of_the_picture_an_area_is(
    maps: Made, areas: Path, limner: Limner, per_tile: str
) -> None:
    said = limner("plan", maps("plain"), "--model", per_tile, "--area", areas / "square.gpkg")
    assert said.code == 0, said.err
    [share, km2] = re.findall(r"area of interest +([0-9.]+) % of the picture, ([0-9.]+) km²", said.out)[0]
    assert float(share) == pytest.approx(22.0, abs=0.01)
    assert float(km2) == pytest.approx(3.52, abs=0.01)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("crossed.geojson", "Self-intersection"),
        ("empty.geojson", "must contain a polygon"),
        ("latitude first.geojson", "longitude before latitude"),
        ("utm without its name.geojson", "longitudes within"),
        ("without its crs.shp", "must state its coordinate reference system"),
        ("layers.gpkg", "fields (Polygon), woods (Polygon)"),
        ("cut.gpkg", "must be a readable GeoPackage"),
    ],
)
def test_an_area_of_interest_is_refused_with_its_fault(
    tmp_path: Path, maps: Made, areas: Path, limner: Limner, per_tile: str, name: str, fault: str
) -> None:
    words = (*LOOK, "--model", per_tile, "--area", areas / name, "--out", tmp_path / "out")
    said = limner("run", maps("plain"), *words)
    assert said.code == 2
    flat = " ".join(said.err.split())
    assert fault in flat or fault.removeprefix("it ") in flat


def test_each_bad_file_is_a_row_with_its_reason(
    tmp_path: Path, maps: Made, limner: Limner, rows: Rows, per_tile: str
) -> None:
    """A broken header is a failed file, broken pixels are an unreadable region; the good scene is analysed."""
    out, folder = tmp_path / "out", tmp_path / "in"
    shutil.copytree(maps("bad_files"), folder, ignore=shutil.ignore_patterns("bands"))
    said = limner("run", folder, *LOOK, "--model", per_tile, "--out", out)
    assert said.code == 1, said.err
    files = {Path(row["path"]).name: row for row in rows(out / "files.csv")}
    assert set(files) == {"plain.tif", "dead.vrt", "truncated.tif", "damaged.tif", "empty.tif", "login.tif"}
    assert files.pop("plain.tif")["status"] == "read"
    assert files["truncated.tif"]["status"] == "failed"
    lost = {row["image"] for row in rows(out / "areas.csv") if (row["entry"], row["item"]) == ("area", "unreadable")}
    assert [name for name, row in files.items() if row["image"] not in lost and not row["reason"]] == []


@pytest.mark.parametrize("case", ["sparse", "sparse_scene"])
def test_a_huge_sparse_map_is_planned_in_bounded_time_and_memory(
    case: str, maps: Made, child: Callable[..., Any]
) -> None:
    words = ("--model", "csmask", "--sensor", "sentinel-2-l1c")
    ended = child("plan", maps(case), *words, seconds=20, megabytes=600)
    assert ended.stopped == ""
    assert ended.code in {0, 2}, ended.err  # 2 where the weights are not here


def test_a_map_as_large_that_is_not_looked_at_is_known_at_once(maps: Made, child: Callable[..., Any]) -> None:
    ended = child("info", maps("sparse"), seconds=10, megabytes=500)
    assert (ended.stopped, ended.code) == ("", 0)
    assert "200000 × 200000 px" in ended.out


def test_variables_of_a_netcdf_are_bands_or_named_in_the_refusal(maps: Made, limner: Limner) -> None:
    said = limner("info", maps("netcdf"))
    told = said.out + said.err
    assert "red" in told
    assert "nir" in told


def test_a_variable_of_a_netcdf_is_read_by_its_name(maps: Made, limner: Limner) -> None:
    said = limner("info", f"NETCDF:{maps('netcdf')}:red")
    assert said.code == 0, said.err
    assert "400 × 400 px" in said.out
    assert "nir" not in said.out


def test_a_stac_item_is_read_or_the_way_is_said(maps: Made, limner: Limner) -> None:
    said = limner("info", maps("stac_item"))
    told = said.out + said.err
    assert ("400 × 400 px" in told and "B04" in told) or "STAC" in told
