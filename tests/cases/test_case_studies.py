"""Studies on which tools of this field fail, and what is right."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # of conftest, which tests cannot import
Made = Callable[[str], Path]
Rows = Callable[[Path], list[dict[str, str]]]
Shares = Callable[[Path], dict[str, float]]
Server = Any


@pytest.fixture
def look(tmp_path: Path, studies: Made, limner: Limner, per_tile: str) -> Callable[[str], Path]:
    """`look(name)`: the folder of a run that says of 16 × 16 px each how bright they are shown, from 0 to 1."""

    def run(name: str, code: int = 0) -> Path:
        reports = (
            "--reports",
            "findings-csv",
            "--reports",
            "files-csv",
            "--reports",
            "studies-csv",
            "--reports",
            "summary-csv",
        )
        said = limner("run", studies(name), "--model", per_tile, *reports, "--out", tmp_path / "out")
        assert said.code == code, said.err
        return tmp_path / "out"

    return run


def brightness(found: list[dict[str, str]], corner: tuple[float, float] | None = None, **where: str) -> list[float]:
    """The scores of findings in whose rows these cells stand, and whose upper left corner in the slice is that."""
    return [
        float(row["score"])
        for row in found
        if all(row[key] == value for key, value in where.items())
        and corner in {None, tuple(float(row[key] or "nan") for key in ("x0_px", "y0_px"))}
    ]


def test_the_slices_of_a_mosaic_are_cut_out(look: Callable[[str], Path], rows: Rows) -> None:
    (series,) = rows(look("mosaic") / "series.csv")
    assert (series["n_images"], series["rows"], series["columns"]) == ("5", "72", "72")
    assert (float(series["row_mm"]), float(series["step_mm_median"])) == (3.0, 4.0)


def test_the_slices_of_a_mosaic_lie_where_the_patient_was(look: Callable[[str], Path], rows: Rows) -> None:
    """The stated corner is the whole picture's as if it were one slice: each slice's is (216 − 72) / 2 px further."""
    found = rows(look("mosaic") / "findings.csv")
    heights = []
    for number in range(1, 6):
        column, row = 20, 10  # of the slice's bright pixel
        (tile,) = [
            one
            for one in found
            if one["slice"] == str(number)
            and float(one["x0_px"]) <= column < float(one["x1_px"])
            and float(one["y0_px"]) <= row < float(one["y1_px"])
        ]
        middle = [(float(tile[f"{axis}0_px"]) + float(tile[f"{axis}1_px"])) / 2 - 0.5 for axis in "xy"]
        place = [float(tile[f"centre_lps_{axis}_mm"]) for axis in "xyz"]
        assert place[0] + 3 * (column - middle[0]) == pytest.approx(-48)
        assert place[1] + 3 * (row - middle[1]) == pytest.approx(-78)
        heights.append(place[2])
    assert sorted(heights, key=lambda z: abs(z + 8)) in ([-8, -4, 0, 4, 8], [-8, -12, -16, -20, -24])


@pytest.mark.parametrize("name", ["temporal_position", "trigger_time", "content_time"])
def test_stacks_of_one_series_are_in_the_order_of_time(look: Callable[[str], Path], rows: Rows, name: str) -> None:
    """Greys grow with time."""
    out = look(name)
    stacks = [row["image"] for row in rows(out / "series.csv")]
    assert len(stacks) == 4
    found = rows(out / "findings.csv")
    grey = [brightness(found, image=stack) for stack in stacks]
    assert [len(set(one)) for one in grey] == [1] * 4
    assert [one[0] for one in grey] == sorted({one[0] for one in grey})


@pytest.mark.parametrize(
    ("name", "what", "values", "unit"),
    [
        ("temporal_position", "temporal position", ("21", "22", "23", "24"), ""),
        ("trigger_time", "trigger time", ("0", "200", "400", "600"), "ms"),
    ],
)
def test_what_tells_stacks_apart_is_in_a_table_with_its_value_and_unit(
    look: Callable[[str], Path], rows: Rows, name: str, what: str, values: tuple[str, ...], unit: str
) -> None:
    out = look(name)
    stacks = [row["image"] for row in rows(out / "series.csv")]
    for stack, value in zip(stacks, values, strict=True):
        told = [
            f"{key} {cell}".replace("_", " ")
            for table in ("series.csv", "findings.csv")
            for row in rows(out / table)
            if row["image"] == stack
            for key, cell in row.items()
            if re.search(rf"(?<![\d./]){value}(\.0+)?(?![\d./])", cell)
        ]
        assert [one for one in told if ("split" in one or what in one) and unit in one], stack


def test_stacks_that_only_the_clock_tells_apart_are_split_by_time(look: Callable[[str], Path], rows: Rows) -> None:
    split = {row["split_by"] for row in rows(look("content_time") / "series.csv")}
    assert len(split) == 1
    assert "time" in split.pop()


@pytest.mark.parametrize("name", ["window_black", "slope_zero"])
def test_a_picture_in_which_nothing_is_visible_is_noted_and_not_asked_about(
    tmp_path: Path, studies: Made, limner: Limner, rows: Rows, model_server: Server, name: str
) -> None:
    words = ("--model", f"endpoint:{model_server.url}", "--set", "model_options.served=seer", "--ask", "What is it?")
    said = limner("run", studies(name), *words, "--out", tmp_path / "out")
    assert said.code in {0, 1}, said.err
    assert model_server.questions == []
    areas = [row for row in rows(tmp_path / "out" / "areas.csv") if row["entry"] == "area"]
    assert "visible" in " ".join([said.err, *(row["reason"] for row in areas)])


@pytest.mark.parametrize(("name", "stacks"), [("mixed_orientation", 2), ("three_planes", 3)])
def test_planes_are_split(look: Callable[[str], Path], rows: Rows, name: str, stacks: int) -> None:
    assert len(rows(look(name) / "series.csv")) == stacks


@pytest.mark.parametrize("name", ["mixed_orientation", "three_planes"])
def test_it_is_said_that_planes_were_split_by_orientation(look: Callable[[str], Path], rows: Rows, name: str) -> None:
    assert {"orientation" in row["split_by"] for row in rows(look(name) / "series.csv")} == {True}


def test_a_tomogram_is_placed_by_its_detectors_sequence(look: Callable[[str], Path], rows: Rows) -> None:
    out = look("tomogram")
    (series,) = rows(out / "series.csv")
    assert series["spacing_source"] == "pixel_spacing"
    assert float(series["step_mm_median"]) == 4.0
    found = rows(out / "findings.csv")
    heights = {row["slice"]: float(row["centre_lps_z_mm"] or "nan") for row in found}
    assert heights == {str(number + 1): 50.0 + 4 * number for number in range(6)}
    middle = [(float(row["x0_px"]) + float(row["x1_px"])) / 2 - 0.5 for row in found]
    assert [float(row["centre_lps_x_mm"]) for row in found] == pytest.approx([-128 + 4 * column for column in middle])


def test_each_slice_of_a_pet_has_its_own_slope(look: Callable[[str], Path], rows: Rows) -> None:
    """1484.4 Bq/ml on average in every slice, shown in a window of 20,000."""
    out = look("pet_slopes")
    (series,) = rows(out / "series.csv")
    assert (series["n_images"], series["quantity"]) == ("5", "Bq/ml")
    found = rows(out / "findings.csv")
    for number in range(1, 6):
        scores = brightness(found, slice=str(number))
        assert sum(scores) / len(scores) == pytest.approx(1484.4 / 20000, abs=0.003)


def test_a_mammogram_is_shown_inverted_and_not_placed_in_the_patient(look: Callable[[str], Path], rows: Rows) -> None:
    out = look("mammogram")
    (series,) = rows(out / "series.csv")
    assert float(series["row_mm"]) == pytest.approx(0.07 / 1.5)
    assert series["spacing_source"] == "imager_plane/ermf"
    found = rows(out / "findings.csv")
    dark, light = (brightness(found, corner) for corner in ((0, 48), (48, 48)))
    assert dark[0] < 0.3
    assert light[0] > 0.95


def test_a_film_has_the_scale_that_its_tags_allow(look: Callable[[str], Path], rows: Rows) -> None:
    series = rows(look("film_spacings") / "series.csv")
    assert sorted((row["spacing_source"], float(row["row_mm"])) for row in series) == [
        ("imager_plane", 0.2),
        ("imager_plane", 0.2),
        ("pixel_spacing_calibrated", 0.15),
        ("pixel_spacing_unspecified", 0.2),
    ]


def test_the_scale_of_an_ultrasound_holds_in_its_region_alone(look: Callable[[str], Path], rows: Rows) -> None:
    series = rows(look("ultrasound") / "series.csv")
    assert sorted((row["spacing_source"], row["row_mm"]) for row in series) == [
        ("none", ""),
        ("none", ""),
        ("us_region", "0.4"),
    ]


def test_padding_is_no_data_however_it_is_stated(look: Callable[[str], Path], rows: Rows) -> None:
    out = look("padding")
    missing = [row for row in rows(out / "areas.csv") if row["item"] == "no data"]
    assert [float(row["area_px"]) for row in missing] == [64 * 64 - 32 * 32] * 3
    assert [row["padding"] for row in rows(out / "series.csv")] == ["yes"] * 3


def test_bits_of_an_overlay_are_no_grey(look: Callable[[str], Path], rows: Rows) -> None:
    """The tile in which they lie is air, which the window shows black."""
    found = rows(look("overlay_bits") / "findings.csv")
    assert brightness(found, (0, 0)) == [0.0]
    assert max(brightness(found)) > 0.5


def test_colours_are_converted(look: Callable[[str], Path], rows: Rows) -> None:
    found = rows(look("colours") / "findings.csv")
    mean = {round(255 * float(row["score"])) for row in found}
    ybr = [150 + 1.402 * 72, 150 + 0.344136 * 38 - 0.714136 * 72, 150 - 1.772 * 38]
    assert sorted(mean) == pytest.approx([(200 + 100 + 30) / 3, sum(ybr) / 3], abs=1.0)


def test_a_decimal_comma_is_no_pixel_size_and_no_end(look: Callable[[str], Path], rows: Rows) -> None:
    (series,) = rows(look("decimal_comma") / "series.csv")
    assert series["spacing_source"] == "none"
    assert "does not state a pixel size" in series["notes"]


def test_missing_slices_are_counted(look: Callable[[str], Path], rows: Rows) -> None:
    (series,) = rows(look("gap") / "series.csv")
    assert (series["n_images"], series["missing_slices"]) == ("6", "4")
    assert "4 slices are missing" in series["notes"]


def test_slices_at_the_same_position_are_noted(look: Callable[[str], Path], rows: Rows) -> None:
    series = rows(look("doubled_places") / "series.csv")
    assert sorted(row["n_images"] for row in series) == ["2", "6"]
    assert all("share positions" in row["notes"] and row["split_by"] for row in series)


def test_different_slices_of_one_uid_are_noted(look: Callable[..., Path], rows: Rows) -> None:
    out = look("same_uid", code=1)
    files = rows(out / "files.csv")
    assert sorted(row["status"] for row in files) == ["failed"] * 4 + ["read"]
    assert all("share its SOP Instance UID" in row["reason"] for row in files if row["status"] == "failed")


def test_foreign_files_among_slices_are_noted(look: Callable[[str], Path], rows: Rows) -> None:
    out = look("foreign_files")
    (series,) = rows(out / "series.csv")
    assert series["n_images"] == "3"
    files = rows(out / "files.csv")
    assert len(files) >= 7  # hidden files need no row
    assert all(row["reason"] for row in files if row["status"] != "read")
