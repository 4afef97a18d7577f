"""Data frames: typed columns, and geometries in their CRS or unit."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from limner.model.finding import Finding
from limner.readers.errors import RequestError
from limner.readers.geometry import Placement
from limner.readers.image import Kind, Plane
from limner.reports.columns import FindingsCsv
from limner.reports.dataframes import files_frame, findings_frame, shapes_frame, summary_frame
from limner.reports.geojson import GeoJson
from limner.reports.summary import FilesCsv, SummaryCsv
from limner.reports.table import Column, Rows
from limner.reports.writer import FileRow, ImageRecord, Record

MakeImage = Callable[..., ImageRecord]
MakeRecord = Callable[..., Record]
MakePlacement = Callable[..., Placement]

NORTH_UP = (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_000_000.0)
MICRONS = Placement(((0.5, 0.0, 0.0), (0.0, 0.25, 0.0)), "um")
FINDINGS = [
    Finding(
        "water", shapely.box(10, 20, 30, 40), "area", 0.123456, text="=said", text_cut=True, numbers={"depth": 1 / 3}
    ),
    Finding("land", shapely.box(100, 200, 110, 220), "box", notes={"why": "dry"}),
]


def study(image: MakeImage, findings: list[Finding]) -> ImageRecord:
    """A sagittal slice of 2 × 0.5 mm pixels at x = 7 mm: rows run to posterior, columns to inferior."""
    place = Placement(
        ((0.0, 0.0, 7.0), (2.0, 0.0, 100.0), (0.0, -0.5, 200.0)), "mm", frame="2.25.9", source="pixel_spacing"
    )
    made = image("s", place, findings)
    plane = Plane(place, "/secret/3", 1, "2.25.3", 7.0, 4)
    facts = (("row_mm", "0.5"), ("col_mm", "2.0"), ("spacing_source", "pixel_spacing"))
    return replace(made, info=replace(made.info, kind="study", study="2.25.1", planes=(plane,), facts=facts))


def test_a_map_is_a_geodataframe_with_typed_columns(
    placement: MakePlacement, image: MakeImage, record: MakeRecord
) -> None:
    place = placement(32618, *NORTH_UP)
    frame: Any = findings_frame(record(image("a", place, FINDINGS), image("b", place, FINDINGS[:1])))
    assert frame.crs.to_epsg() == 32618
    assert frame.attrs["geometry"] == "EPSG:32618"
    types = {name: str(frame[name].dtype) for name in ("image", "finding", "label", "score", "area_m2", "lon", "text")}
    assert types == {
        "image": "category",
        "finding": "int64",
        "label": "category",
        "score": "float64",
        "area_m2": "float64",
        "lon": "float64",
        "text": "string",
    }
    assert frame["finding"].tolist() == [1, 2, 1]
    assert frame["score"].isna().tolist() == [False, True, False]
    assert frame["text"][0] == "=said", "an apostrophe is for spreadsheets"
    assert frame["note.why"].isna().tolist() == [True, False, True]
    assert frame.geometry[0].bounds == (500_100.0, 3_999_600.0, 500_300.0, 3_999_800.0)
    assert frame.area.to_numpy() == pytest.approx(frame["area_m2"].to_numpy(), rel=1e-2)
    columns = ["world_x0", "world_y0", "world_x1", "world_y1"]
    assert frame[columns].to_numpy() == pytest.approx(frame.bounds.to_numpy())
    assert isinstance(frame, gpd.GeoDataFrame)


def test_maps_of_several_crs_are_in_wgs84_as_in_geojson(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    mars = placement("+proj=eqc +R=3396190 +units=m +no_defs", *NORTH_UP)
    run = record(
        image("a", placement(32618, *NORTH_UP), FINDINGS),
        image(
            "b",
            placement(32660, 10.0, 0.0, 700_000.0, 0.0, -10.0, 5_700_000.0),
            [Finding("w", shapely.box(0, 0, 1000, 800), "box")],
        ),
        image("mars", mars, FINDINGS[:1]),
    )
    frame: Any = findings_frame(run)
    assert frame.crs.to_epsg() == 4326
    assert frame.geometry.isna().tolist() == [False, False, False, True]
    (path,) = GeoJson().write(run, out)
    there = gpd.read_file(path)
    assert there.geometry.geom_equals_exact(frame.geometry[:3].reset_index(drop=True), 1e-9).all()
    assert frame.geometry[2].geom_type == "MultiPolygon", "cut at the antimeridian"


def test_images_without_a_crs_are_in_pixels_and_beside_maps_have_no_geometry(
    placement: MakePlacement, image: MakeImage, record: MakeRecord
) -> None:
    snap = image("snap", Placement.pixels(), FINDINGS)
    frame: Any = findings_frame(record(snap))
    assert frame.crs is None
    assert frame.attrs["geometry"] == "px"
    assert frame.geometry.tolist() == [finding.geometry for finding in FINDINGS]
    frame: Any = findings_frame(record(snap, image("a", placement(32618, *NORTH_UP), FINDINGS)))
    assert frame.geometry.isna().tolist() == [True, True, False, False]
    assert frame.crs.to_epsg() == 32618


def test_one_slide_or_slice_with_a_spacing_decides_the_unit_of_all(image: MakeImage, record: MakeRecord) -> None:
    def pixels(one: ImageRecord) -> ImageRecord:
        planes = tuple(replace(plane, placement=Placement.pixels()) for plane in one.info.planes)
        return replace(one, info=replace(one.info, placement=Placement.pixels(), planes=planes))

    for known, unit in ((image("s", MICRONS, FINDINGS), "um"), (study(image, FINDINGS), "mm")):
        none = pixels(known)
        for images, expected in (((known, none), unit), ((none, known), unit), ((none, none), "px")):
            slides = [replace(one, info=replace(one.info, kind="slide")) if unit == "um" else one for one in images]
            assert findings_frame(record(*slides)).attrs["geometry"] == expected


def test_a_slide_is_in_micrometres(image: MakeImage, record: MakeRecord) -> None:
    frame: Any = findings_frame(record(image("s", MICRONS, FINDINGS)))
    assert frame.attrs["geometry"] == "um"
    assert frame["geometry"][0].bounds == (5.0, 5.0, 15.0, 10.0)
    assert [shape.area for shape in frame["geometry"]] == pytest.approx(frame["area_um2"].tolist())
    assert type(frame) is pd.DataFrame


def test_a_study_is_in_patient_coordinates(image: MakeImage, record: MakeRecord) -> None:
    everywhere = Finding("all", shapely.box(0, 0, 1000, 800), "region")
    frame: Any = findings_frame(record(study(image, [*FINDINGS, everywhere])))
    assert frame.attrs["geometry"] == "mm"
    vertices = shapely.get_coordinates(frame["geometry"][0], include_z=True)
    assert vertices.min(axis=0).tolist() == [7.0, 120.0, 180.0]
    assert vertices.max(axis=0).tolist() == [7.0, 160.0, 190.0]
    assert frame["area_mm2"].tolist() == [400.0, 200.0, 800_000.0]
    assert str(frame["slice"].dtype) == "Int64"
    assert frame["slice"].tolist() == [1, 1, 1]
    assert frame["instance_number"].tolist() == [4, 4, 4]
    assert type(frame) is pd.DataFrame


def test_several_kinds_have_no_geometry_until_one_is_chosen(
    placement: MakePlacement, image: MakeImage, record: MakeRecord
) -> None:
    run = record(
        image("m", placement(32618, *NORTH_UP), FINDINGS), image("s", MICRONS, FINDINGS), study(image, FINDINGS)
    )
    frame: Any = findings_frame(run)
    assert type(frame) is pd.DataFrame
    assert "geometry" not in frame
    assert len(frame) == 6
    assert np.isfinite(frame["area_m2"]).tolist() == [True] * 2 + [False] * 4
    assert frame["slice"].isna().tolist() == [True] * 4 + [False] * 2
    kinds: dict[Kind, str] = {"map": "area_m2", "slide": "area_um2", "study": "area_mm2"}
    for kind, column in kinds.items():
        one: Any = findings_frame(run, kind=kind)
        assert len(one) == 2
        assert one["geometry"].notna().all()
        assert one[column].tolist() == frame[column].dropna().tolist()[-2:]
    with pytest.raises(RequestError, match=r"kind 'study'.*found: map"):
        findings_frame(replace(run, images=run.images[:1]), kind="study")


def test_data_frames_equal_the_csv_files(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    files = [FileRow("a.tif", "read", "a", "raster"), FileRow("b.txt", "skipped", reason="no reader claims it")]
    place = placement(32618, *NORTH_UP)
    run = record(
        image("a", place, FINDINGS, m2=8e7),
        image("b", place, FINDINGS[:1], m2=8e7),
        image("s", MICRONS, FINDINGS, m2=2e-7),
        files=files,
    )
    for writer, frame in (
        (FindingsCsv(), findings_frame(run)),
        (SummaryCsv(), summary_frame(run)),
        (FilesCsv(), files_frame(run)),
    ):
        with writer.write(run, out)[0].open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(frame) == list(rows[0])
        for name in frame:
            output = [row[name] for row in rows]
            values = frame[name].astype(object).where(frame[name].notna(), "").tolist()
            if pd.api.types.is_bool_dtype(frame[name].dtype):
                assert [str(value).lower() for value in values] == output, name
            elif pd.api.types.is_numeric_dtype(frame[name].dtype):
                assert values == [float(text) if text else "" for text in output], name
            else:
                assert values == [text.removeprefix("'") for text in output], name


def test_an_empty_run_has_data_frames(record: MakeRecord) -> None:
    frame: Any = findings_frame(record())
    assert len(frame) == len(summary_frame(record())) == len(files_frame(record())) == 0
    assert str(frame["score"].dtype) == "float64"
    assert isinstance(frame, gpd.GeoDataFrame)


def test_an_image_without_findings_keeps_the_types(image: MakeImage, record: MakeRecord) -> None:
    frame: Any = findings_frame(record(image("s", MICRONS), image("t", MICRONS, FINDINGS)))
    assert frame["finding"].tolist() == [1, 2]
    assert str(frame["finding"].dtype) == "int64"


def test_outlines_of_a_map_have_a_row_each_in_its_crs(placement: MakePlacement) -> None:
    column: Column[Rows[str]] = Column("name", "string", "said", lambda batch: list(batch.rows))
    shapes = [shapely.box(0, 0, 2, 1), shapely.box(10, 0, 11, 1)]
    frame = shapes_frame([column], Rows(["a", "b"]), shapes, placement(32618, *NORTH_UP))
    assert isinstance(frame, gpd.GeoDataFrame)
    assert (frame["name"].tolist(), frame.crs) == (["a", "b"], "EPSG:32618")
    assert [one.bounds for one in frame.geometry] == [
        (5e5, 3_999_990, 500_020, 4e6),
        (500_100, 3_999_990, 500_110, 4e6),
    ]
