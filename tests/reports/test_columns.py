"""Columns are declared once, and every output has them."""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from limner.model.finding import Finding
from limner.model.objects.watershed import MEAN, PERIMETER
from limner.readers.geometry import Placement
from limner.reports import columns, summary
from limner.reports.cells import joined
from limner.reports.columns import REVIEWED, FindingsCsv, findings_columns
from limner.reports.dataframes import findings_frame, summary_frame
from limner.reports.geojson import GeoJson
from limner.reports.geopackage import GeoPackage
from limner.reports.measures import FindingsBatch
from limner.reports.qupath import QuPath
from limner.reports.summary import ImageSummary, SummaryCsv
from limner.reports.table import Column, Dtype, Rows, attribute, markdown, with_unique_names
from limner.reports.writer import ImageRecord, Record
from pyogrio import raw

MakeImage = Callable[..., ImageRecord]
MakeRecord = Callable[..., Record]
MakePlacement = Callable[..., Placement]

NORTH_UP = (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_000_000.0)
MICRONS = Placement(((0.5, 0.0, 0.0), (0.0, 0.5, 0.0)), "um")


@pytest.mark.parametrize(
    ("dtype", "decimals", "values", "cells"),
    [
        ("float64", 2, [0.0, -0.00001, 1.005, 1e20, None], ["0.00", "0.00", "1.00", "100000000000000000000.00", ""]),
        ("float64", 2, [float("nan"), float("inf"), float("-inf")], ["", "", ""]),
        (
            "float64",
            None,
            [0.0, -0.0, 1 / 3, 1.23456789012e12, 4e-11, None],
            ["0", "0", "0.333333333", "1234567890000", "0.00000000004", ""],
        ),
        ("float64", None, 2.5, ["2.5"] * 3),
        ("Int64", None, [1, None, -3], ["1", "", "-3"]),
        ("int64", None, range(3), ["0", "1", "2"]),
        ("int64", None, 7, ["7"] * 3),
        ("string", None, ["a,b", None, "=1\n", 'say "a"'], ['"a,b"', "", "'=1 ", '"say ""a"""']),
        ("category", None, "x", ["x"] * 3),
    ],
)
def test_csv_json_and_arrays_have_the_same_values(
    dtype: Dtype, decimals: int | None, values: object, cells: list[str]
) -> None:
    column = Column("c", dtype, "said", lambda _: values, decimals=decimals)
    batch = Rows([object()] * len(cells))
    assert column.csv_cells(batch) == cells
    assert joined([column.csv_bytes(batch), b"\n"], len(cells)).decode() == "".join(f"{cell}\n" for cell in cells)
    assert column.texts(batch) == ["".join(next(csv.reader([cell]), [])).removeprefix("'") for cell in cells]
    output = column.json_values(batch)
    json.dumps(output, allow_nan=False)
    assert ["" if one is None else one for one in output] == [
        float(cell) if cell and dtype == "float64" else int(cell) if cell and "nt64" in dtype else cell.lstrip("'")
        for cell in next(csv.reader([",".join(cells)]))
    ]


@given(st.lists(st.floats() | st.integers(1, 10**11).map(lambda one: one / 200), min_size=1))
def test_numbers_are_rounded_to_nine_digits_as_python_formats_them(numbers: list[float]) -> None:
    column: Column[Rows[float]] = Column("c", "float64", "said", lambda _: numbers)
    made = column.array(Rows(numbers))
    expected = [float(f"{one:.9g}") if math.isfinite(one) else math.nan for one in numbers]
    assert np.array_equal(made, expected, equal_nan=True)


def test_a_column_of_other_kinds_of_image_is_empty() -> None:
    column = Column("c", "float64", "said", attribute("real"), kinds=("slide",))
    assert column.csv_cells(Rows([1.0, 2.0], "map")) == ["", ""]
    assert column.csv_cells(Rows([1.0, 2.0], "slide")) == ["1", "2"]


def test_equal_names_get_a_number() -> None:
    column = Column("c", "float64", "said", attribute("real"))
    assert [one.name for one in with_unique_names([column, column, column])] == ["c", "c_2", "c_3"]


def test_perimeters_are_in_the_unit_of_the_image(image: MakeImage, record: MakeRecord, out: Path) -> None:
    """A disc of analysed pixels of 2 × 2 level-0 pixels of half a micrometre, beside a finding that is none."""
    disc = Finding(
        "water", shapely.box(0, 0, 20, 20), "area", numbers={"pixels": 100.0, PERIMETER: 38.0, f"{MEAN}red": 12.3456}
    )
    drawn = Finding("land", shapely.box(30, 0, 50, 20), "area")
    (path,) = FindingsCsv().write(record(image("slide", MICRONS, [disc, drawn], scale=(2.0, 2.0))), out)
    first, second = csv.DictReader(path.open(encoding="utf-8"))
    assert (first["perimeter_um"], first["circularity"]) == ("38", f"{4 * math.pi * 100 / 38**2:.4f}")
    assert (second["perimeter_um"], second["circularity"]) == ("", "")
    assert (first["mean.red"], second["mean.red"]) == ("12.346", "")
    assert "perimeter_m" not in first


def test_reviewed_findings_keep_the_models_own_columns(image: MakeImage, record: MakeRecord) -> None:
    own, told = {"height": 3.0, f"{REVIEWED}run_finding": 1.0}, {"state": "dry", f"{REVIEWED}review": "accepted"}
    reviewed = Finding("water", shapely.box(0, 0, 9, 9), "area", numbers=own, notes=told)
    not_reviewed = replace(reviewed, notes={f"{REVIEWED}other": "x"})
    first, second = (
        {column.name for column in findings_columns(record(image("a", MICRONS, [finding])))}
        for finding in (reviewed, not_reviewed)
    )
    assert first - second == {"note.state", *(column.name for column in columns.REVIEW)}
    assert second - first == {f"number.{REVIEWED}run_finding", f"note.{REVIEWED}other"}
    assert "number.height" in first & second


def test_a_new_column_is_one_declaration(
    monkeypatch: pytest.MonkeyPatch, placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    def ratio(batch: FindingsBatch) -> object:
        return batch.area_px / shapely.area(shapely.box(*batch.bounds.T))

    def said(batch: FindingsBatch) -> object:
        return ["yes" if finding.text else None for finding in batch.findings]

    def lines(row: ImageSummary) -> object:
        return row.image.info.size[1]

    more = (Column("ratio", "float64", "area by box", ratio), Column("said", "string", "whether it said it", said))
    monkeypatch.setattr(columns, "FINDINGS", (*columns.FINDINGS, *more))
    monkeypatch.setattr(summary, "SUMMARY", (*summary.SUMMARY, Column("lines", "Int64", "pixels down", lines, "px")))
    half = Finding("water", shapely.Polygon([(0, 0), (8, 0), (0, 8)]), "area", text="half")
    run = record(image("map", placement(32618, *NORTH_UP), [half]), image("slide", MICRONS, [half]))

    (path,) = FindingsCsv().write(run, out)
    for row in csv.DictReader(path.open(encoding="utf-8")):
        assert (row["ratio"], row["said"]) == ("0.5", "yes")
    (path,) = GeoJson().write(run, out)
    (feature,) = json.loads(path.read_text(encoding="utf-8"))["features"]
    assert (feature["properties"]["ratio"], feature["properties"]["said"]) == (0.5, "yes")
    (path,) = GeoPackage().write(run, out)
    meta, _, _, values = raw.read(path, layer="map")
    layer = dict(zip(meta["fields"], values, strict=True))
    assert (layer["ratio"].tolist(), layer["said"].tolist()) == ([0.5], ["yes"])
    (path,) = QuPath().write(run, out)
    (feature,) = json.loads(path.read_text(encoding="utf-8"))["features"]
    assert feature["properties"]["measurements"]["ratio"] == 0.5
    assert feature["properties"]["metadata"]["said"] == "yes"
    frame = findings_frame(run)
    assert (frame["ratio"].tolist(), frame["said"].tolist()) == ([0.5, 0.5], ["yes", "yes"])
    assert "| `ratio` | number | | | area by box |" in markdown(findings_columns(run))

    path, _ = SummaryCsv().write(run, out)
    assert {row["lines"] for row in csv.DictReader(path.open(encoding="utf-8"))} == {"800"}
    assert summary_frame(run)["lines"].tolist() == [800, 800]
