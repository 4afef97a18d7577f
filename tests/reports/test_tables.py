"""findings.csv, summary.csv, areas.csv and files.csv."""

import csv
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import shapely
from limner.model.finding import Finding
from limner.readers import geodesy
from limner.readers.areas import areas_m2
from limner.readers.geometry import Placement
from limner.reports.columns import FindingsCsv, findings_columns
from limner.reports.summary import FILES, FilesCsv, SummaryCsv
from limner.reports.writer import DISCLAIMER, Area, FileRow, ImageRecord, Record
from pyproj import Geod
from rasterio.warp import transform

MakeImage = Callable[..., ImageRecord]
MakeRecord = Callable[..., Record]
MakePlacement = Callable[..., Placement]

NORTH_UP = (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_000_000.0)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_findings_csv_has_a_row_per_finding(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    bay = shapely.Polygon([(0, 0), (90, 0), (90, 10), (10, 10), (10, 80), (90, 80), (90, 90), (0, 90)])
    findings = [
        Finding("water", bay, "area", 0.25, text='salt, or "fresh"', numbers={"depth": 1 / 3}),
        Finding("land", shapely.box(100, 200, 110, 220), "box", None, notes={"why": "dry"}),
    ]
    place = placement(32618, *NORTH_UP)
    run = record(replace(image("a", place, findings), name="scene.tif"))
    (path,) = FindingsCsv().write(run, out)
    first, second = rows(path)
    assert list(first) == [column.name for column in findings_columns(run)]
    assert [first["image"], first["name"]] == ["a", "scene.tif"]
    assert list(first)[-7:] == ["number.depth", "note.why", "model", "model_version", "weights_sha256", "limner", "use"]
    assert not {"area_um2", "area_mm2", "x_um", "slice"} & set(first), "columns of slides and studies"
    assert (first["image"], first["finding"], first["label"], first["kind"], first["score"]) == (
        "a",
        "1",
        "water",
        "area",
        "0.2500",
    )
    assert (first["text"], first["number.depth"], first["note.why"]) == ('salt, or "fresh"', "0.333333333", "")
    assert (second["finding"], second["score"], second["number.depth"], second["note.why"]) == ("2", "", "", "dry")
    assert [second[key] for key in ("x0_px", "y0_px", "x1_px", "y1_px", "x_px", "y_px")] == [
        "100.000",
        "200.000",
        "110.000",
        "220.000",
        "105.000",
        "210.000",
    ]
    assert (second["world_x"], second["world_y"], second["world_unit"], second["crs"]) == (
        "501050.000",
        "3997900.000",
        "m",
        "EPSG:32618",
    )
    assert [second[f"world_{edge}"] for edge in ("x0", "y0", "x1", "y1")] == [
        "501000.000",
        "3997800.000",
        "501100.000",
        "3998000.000",
    ]
    assert all(row["use"] == DISCLAIMER and row["model"] == "toy" for row in (first, second))
    assert float(first["area_px"]) == bay.area
    # the centroid of the bay lies in its mouth: the point given is on the finding
    assert bay.contains(shapely.Point(float(first["x_px"]), float(first["y_px"])))
    (lon,), (lat,) = transform("EPSG:32618", "EPSG:4326", [501_050.0], [3_997_900.0])[:2]
    assert (second["lon"], second["lat"]) == (f"{lon:.7f}", f"{lat:.7f}")


def test_areas_are_those_on_the_ellipsoid(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    place = placement(32618, *NORTH_UP)
    square = shapely.box(100, 100, 200, 200)
    (path,) = FindingsCsv().write(record(image("a", place, [Finding("land", square, "box")])), out)
    area = float(rows(path)[0]["area_m2"])
    ring = shapely.get_coordinates(shapely.segmentize(square, 1.0))
    expected, _ = Geod(ellps="WGS84").polygon_area_perimeter(*geodesy.to_lonlat(place, ring).T)
    assert area == pytest.approx(abs(expected), rel=1e-6)
    assert area != pytest.approx(1e6, rel=1e-4), "a grid square is not a square kilometre"


def test_coordinates_in_degrees_have_nine_decimals(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    fine = placement(4326, 1e-5, 0.0, -70.0, 0.0, -1e-5, 40.0)
    (path,) = FindingsCsv().write(record(image("a", fine, [Finding("land", shapely.box(0, 0, 1, 1), "box")])), out)
    (row,) = rows(path)
    assert (row["world_x"], row["world_y"]) == ("-69.999995000", "39.999995000")
    assert (row["lon"], row["lat"]) == ("-69.9999950", "39.9999950")


def test_unknown_coordinates_are_empty_cells(image: MakeImage, record: MakeRecord, out: Path) -> None:
    (path,) = FindingsCsv().write(
        record(image("plain", Placement.pixels(), [Finding("land", shapely.box(0, 0, 1, 1), "box")])), out
    )
    (plain,) = rows(path)
    unknown = ("area_m2", "lon", "lat", "world_x", "world_y", "world_x0", "world_unit", "crs")
    assert [plain[key] for key in unknown] == [""] * 8


def test_only_a_text_may_be_cut(image: MakeImage, record: MakeRecord, out: Path) -> None:
    texts = (("said", True), ("said", False), ("", False))
    found = [Finding("land", shapely.box(0, 0, 1, 1), "box", text=text, text_cut=cut) for text, cut in texts]
    (path,) = FindingsCsv().write(record(image("plain", Placement.pixels(), found)), out)
    assert [row["cut"] for row in rows(path)] == ["true", "false", ""]


def test_each_kind_of_image_has_its_own_units_and_leaves_the_others_empty(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    nucleus = Finding("nucleus", shapely.box(2, 4, 6, 8), "box")
    slide = image("slide", Placement(((0.5, 0.0, 0.0), (0.0, 0.25, 0.0)), "um", source="tag"), [nucleus], m2=0.1)
    (path,) = FindingsCsv().write(record(slide), out)
    (row,) = rows(path)
    assert (row["area_um2"], row["area_mm2"], row["area_px"]) == ("2", "0.000002", "16.00")
    assert [row[key] for key in ("x_um", "y_um")] == ["2.000", "1.500"]
    assert [row[key] for key in ("x0_um", "y0_um", "x1_um", "y1_um")] == ["1.000", "1.000", "3.000", "2.000"]
    assert not {"area_m2", "lon", "world_x", "crs"} & set(row)
    (path,) = FindingsCsv().write(record(image("map", placement(32618, *NORTH_UP), [nucleus]), slide), out)
    first, second = rows(path)
    assert set(first) > set(row)
    assert {first[key] for key in ("area_um2", "area_mm2", "x_um", "y1_um")} == {""}
    assert {second[key] for key in ("area_m2", "lon", "world_x", "world_unit", "crs")} == {""}
    assert float(first["area_m2"]) == pytest.approx(1600, rel=1e-2)
    assert second["area_um2"] == row["area_um2"]


def test_another_planet_has_no_longitude_here(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    mars = "+proj=eqc +R=3396190 +units=m +no_defs"
    place = placement(mars, *NORTH_UP)
    (path,) = FindingsCsv().write(record(image("mars", place, [Finding("land", shapely.box(0, 0, 9, 9), "box")])), out)
    (row,) = rows(path)
    assert (row["lon"], row["lat"]) == ("", "")
    assert row["world_x"]
    assert row["area_m2"]
    assert row["crs"] == "unknown", "the name that its WKT gives it"


def test_pixels_off_the_limb_have_no_longitude(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    disc = "+proj=geos +h=35785831 +lon_0=0 +sweep=y +ellps=GRS80 +units=m"
    place = placement(disc, 11_000.0, 0.0, -5_500_000.0, 0.0, -11_000.0, 5_500_000.0)
    at = [(500, 500), (10, 10), (990, 5), (20, 500)]
    found = [Finding("land", shapely.box(x - 1, y - 1, x + 1, y + 1), "box") for x, y in at]
    (path,) = FindingsCsv().write(record(image("disc", place, found, size=(1000, 1000))), out)
    middle, *beyond, border = [(row["lon"], row["lat"]) for row in rows(path)]
    assert middle == ("0.0000000", "0.0000000")
    assert beyond == [("", "")] * 2
    (lon,), (lat,) = transform(place.crs, "EPSG:4326", [-5_280_000.0], [0.0])[:2]
    assert border == (f"{lon:.7f}", f"{lat:.7f}")


def test_no_cell_is_a_formula_and_every_row_is_a_line(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    bad = "=1+1\n=2"
    findings = [Finding(bad, shapely.box(0, 0, 9, 9), "box", text=bad, notes={"\n=x": bad}) for _ in range(3)]
    run = record(
        image("=a", placement(32618, *NORTH_UP), findings),
        files=[FileRow(bad, "failed", bad, bad, bad)],
        model={"name": bad, "version": bad, "sha256": bad},
        labels=(bad,),
    )
    for writer in (FindingsCsv(), SummaryCsv(), FilesCsv()):
        for path in writer.write(run, out):
            text = path.read_bytes().decode("utf-8")
            assert "\r" not in text
            assert text.count("\n") == 1 + len(rows(path))
            cells = [cell for row in csv.reader(text.splitlines()) for cell in row]
            assert not [cell for cell in cells if cell[:1] in set("=+-@\t") and not re.fullmatch(r"-\d+\.\d+", cell)]
            assert any(cell.startswith("'=1+1 =2") for cell in cells)


def test_pandas_reads_back_what_was_written(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    place = placement(4326, 0.01, 0.0, -70.0, 0.0, -0.01, 40.0)
    findings = [Finding("water", shapely.box(x, x, x + 3.5, x + 2), "area", x / 100) for x in range(100)]
    (path,) = FindingsCsv().write(record(image("a", place, findings)), out)
    frame = pd.read_csv(path)
    assert len(frame) == 100
    assert frame["finding"].tolist() == list(range(1, 101))
    assert frame["area_px"].tolist() == [7.0] * 100
    assert frame["lon"].between(-70, -68.99).all()


def test_the_summary_adds_up(placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path) -> None:
    place = placement(32618, *NORTH_UP)
    whole = areas_m2([shapely.box(0, 0, 1000, 800)], place)
    assert whole is not None
    m2 = float(whole[0])
    findings = [Finding("water", shapely.box(0, 0, 400, 400), "area"), Finding("boat", shapely.box(0, 0, 9, 9), "box")]
    areas = (
        Area("analysed", "", 400_000.0, m2 / 2, 4),
        Area("no data", "nodata 0", 300_000.0, m2 * 3 / 8, 0),
        Area("skipped", "outside the area of interest", 60_000.0, m2 * 3 / 40, 3),
        Area("unreadable", "truncated", 40_000.0, m2 / 20, 1),
    )
    run = record(
        image("a", place, findings, areas=areas, failures=(("a/x0", "truncated"),), scale=(2.0, 2.0)),
        image("b", Placement.pixels()),
    )
    summary, facts = map(rows, SummaryCsv().write(run, out))
    a, b = ([row for row in facts if row["image"] == name] for name in "ab")
    labels = [row for row in a if row["entry"] == "label"]
    assert [(row["item"], row["findings"]) for row in labels] == [("land", "0"), ("water", "1"), ("boat", "1")]
    assert (labels[0]["area_m2"], labels[0]["area_px"], labels[0]["share"]) == ("0", "0.00", "0.000000")
    assert float(labels[1]["share"]) == pytest.approx(160_000 / 400_000, rel=1e-3)
    parts = [row for row in a if row["entry"] == "area"]
    assert [(row["item"], row["reason"], row["regions"]) for row in parts] == [
        (area.status, area.reason, str(area.regions)) for area in areas
    ]
    (everything,) = (row for row in a if row["entry"] == "image")
    for key in ("area_px", "area_m2", "share"):
        assert math.fsum(float(row[key]) for row in parts) == pytest.approx(float(everything[key]), rel=1e-8)
    assert everything["findings"] == "2"
    assert {row["status"] for row in a} == {"partial"}
    assert {row["status"] for row in b} == {"complete"}
    assert {row["area_m2"] for row in b} == {""}
    assert [row["share"] for row in b] == ["0.000000", "0.000000", "1.000000", "1.000000"], "by pixels where m² unknown"

    first, second = summary
    assert [first[key] for key in ("image", "kind", "status", "findings", "regions", "failures")] == [
        "a",
        "map",
        "partial",
        "2",
        "8",
        "1",
    ]
    assert float(first["analysed_km2"]) == pytest.approx(m2 / 2e6, rel=1e-8)
    assert (first["analysed_px"], first["analysed_share"]) == ("400000.00", "0.500000")
    assert [first[f"count.{label}"] for label in ("land", "water", "boat")] == ["0", "1", "1"]
    for label in ("land", "water", "boat"):
        (fact,) = (row for row in labels if row["item"] == label)
        assert (first[f"area_m2.{label}"], first[f"share.{label}"]) == (fact["area_m2"], fact["share"])
        assert float(first[f"area_km2.{label}"]) == pytest.approx(float(fact["area_m2"]) / 1e6, rel=1e-8)
    assert float(first["per_km2.boat"]) == pytest.approx(2e6 / m2, rel=1e-8)
    observed = geodesy.metres_per_pixel(place, (500.0, 400.0))
    assert observed is not None
    assert float(first["pixel_x_m"]) == pytest.approx(observed[0], rel=1e-5)
    assert float(first["seen_x_m"]) == pytest.approx(2 * observed[0], rel=1e-5)
    assert (second["status"], second["analysed_share"], second["count.boat"]) == ("complete", "1.000000", "0")
    assert {second[key] for key in ("analysed_km2", "area_m2.water", "per_km2.water", "pixel_x_m")} == {""}


def test_pixel_sizes_at_level_0_and_in_the_analysis(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    turned = placement(4326, 0.01, 0.02, -70.0, 0.05, -0.03, 30.0)  # degrees: both ways a pixel's size changes
    summary, _ = map(rows, SummaryCsv().write(record(image("a", turned, scale=(2.0, 3.0))), out))
    geod = Geod(ellps="WGS84")

    def metres(x: float, y: float) -> float:
        ends = turned.to_world([(500 - x / 2, 400 - y / 2), (500 + x / 2, 400 + y / 2)])
        return geod.inv(*ends[0], *ends[1])[2]

    output = [float(summary[0][f"{name}_m"]) for name in ("pixel_x", "pixel_y", "seen_x", "seen_y")]
    x, y = metres(1, 0), metres(0, 1)
    assert output == pytest.approx([x, y, 2 * x, 3 * y], rel=1e-5)


def test_each_kind_has_its_own_pixel_size_and_areas(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    fine = Placement(((0.999999, 0.0, 0.0), (0.0, 0.999999, 0.0)), "um", source="tag")
    body = Placement(((0.7, 0.0, 9.0), (0.0, 1.5, 9.0), (0.0, 0.0, 9.0)), "mm", frame="2.25.9")
    study = image("study", body, m2=0.84)
    study = replace(study, info=replace(study.info, kind="study", placement=body))
    run = record(image("map", placement(32618, *NORTH_UP), m2=8e7), image("slide", fine, m2=8e-7), study, labels=())
    summary, facts = map(rows, SummaryCsv().write(run, out))
    output = ("pixel_x_um", "seen_y_um", "pixel_x_mm", "seen_y_mm")
    assert [[row[key] for key in output] for row in summary] == [
        ["", "", "", ""],
        ["0.999999", "0.999999", "", ""],
        ["", "", "0.7", "1.5"],
    ]
    assert [bool(row["pixel_x_m"]) for row in summary] == [True, False, False]
    whole = [(row["area_m2"], row["area_mm2"]) for row in facts if row["entry"] == "image"]
    assert whole == [("80000000", ""), ("", "0.8"), ("", "840000")]


def test_a_slides_summary_is_in_mm(image: MakeImage, record: MakeRecord, out: Path) -> None:
    slide = Placement(((0.5, 0.0, 0.0), (0.0, 0.5, 0.0)), "um", source="tag")
    areas = (Area("analysed", "", 400_000.0, 1e-7, 4), Area("skipped", "no tissue", 400_000.0, 1e-7, 4))
    cells = [Finding("cell", shapely.box(x, 0, x + 10, 10), "box") for x in range(0, 50, 10)]
    summary, facts = map(rows, SummaryCsv().write(record(image("s", slide, cells, areas=areas), labels=()), out))
    (row,) = summary
    output = ("analysed_mm2", "analysed_share", "count.cell", "area_mm2.cell", "share.cell", "per_mm2.cell")
    assert [row[key] for key in output] == ["0.1", "0.500000", "5", "0.000125", "0.001250", "50"]
    assert (row["pixel_x_um"], row["seen_y_um"]) == ("0.5", "0.5")
    assert not [key for key in row if "km2" in key or key.endswith("_m2.cell") or key == "pixel_x_m"]
    assert [fact["area_mm2"] for fact in facts] == ["0.000125", "0.1", "0.1", "0.2"]
    assert "area_m2" not in facts[0]


def test_an_image_without_analysed_area_has_no_shares(image: MakeImage, record: MakeRecord, out: Path) -> None:
    lost = image("a", Placement.pixels(), areas=(Area("unreadable", "truncated", 800_000.0, None, 4),))
    summary, facts = map(rows, SummaryCsv().write(record(lost), out))
    assert [row["share"] for row in facts] == ["", "", "1.000000", "1.000000"]
    assert {row["status"] for row in facts} == {"partial"}
    assert (summary[0]["analysed_share"], summary[0]["share.land"], summary[0]["count.land"]) == ("0.000000", "", "0")


@pytest.mark.parametrize(("m2", "area"), [(1000.0, "0"), (None, "")])
def test_a_label_of_another_image_has_an_area_of_0_where_areas_are_known(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path, m2: float | None, area: str
) -> None:
    boat = Finding("boat", shapely.box(0, 0, 9, 9), "area")
    analysed = (Area("analysed", "", 100.0, m2, 1),)
    place = placement(32618, *NORTH_UP)
    run = record(*(image(name, place, found, areas=analysed) for name, found in (("a", [boat]), ("b", []))))
    row = rows(SummaryCsv().write(run, out)[0])[1]
    assert [row[f"{name}.boat"] for name in ("count", "area_m2", "share")] == ["0", area, "0.000000"]
    assert row["per_km2.boat"] == area


def test_without_a_model_nothing_is_counted(image: MakeImage, record: MakeRecord, out: Path) -> None:
    run = replace(record(image("a", Placement.pixels()), labels=()), assessed=False)
    summary, facts = map(rows, SummaryCsv().write(run, out))
    assert SummaryCsv().omitted(run) == FilesCsv().omitted(run) == {}
    assert (summary[0]["status"], summary[0]["findings"]) == ("not assessed", "")
    assert {row["findings"] for row in facts} == {""}


def test_every_file_has_a_row(record: MakeRecord, out: Path) -> None:
    files = [
        FileRow("b.tif", "read", "b", "raster"),
        FileRow("a.txt", "skipped", reason="no reader claims it"),
        FileRow("c.tif", "failed", reader="raster", reason="c.tif: cut short"),
    ]
    (path,) = FilesCsv().write(record(files=files), out)
    assert list(rows(path)[0]) == [column.name for column in FILES]
    assert [tuple(row.values()) for row in rows(path)] == [
        ("b.tif", "read", "b", "raster", ""),
        ("a.txt", "skipped", "", "", "no reader claims it"),
        ("c.tif", "failed", "", "raster", "c.tif: cut short"),
    ]


def test_an_empty_run_has_its_headings(record: MakeRecord, out: Path) -> None:
    for writer in (FindingsCsv(), SummaryCsv(), FilesCsv()):
        for path in writer.write(record(), out):
            (line,) = path.read_text(encoding="utf-8").splitlines()
            assert len(line.split(",")) >= len(FILES)
    assert "image,name,finding,label,kind,score,area_px" in (out / "findings.csv").read_text(encoding="utf-8")


def test_the_same_record_gives_the_same_bytes(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, tmp_path: Path
) -> None:
    findings = [
        Finding("water", shapely.box(x, 0, x + 1 / 3, 7), "area", 1 / 3, numbers={"b": x, "a": 1.0}) for x in range(9)
    ]
    written: list[list[bytes]] = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        run = record(image("a", placement(32618, *NORTH_UP), findings, m2=5e7))
        paths = [*FindingsCsv().write(run, folder), *SummaryCsv().write(run, folder), *FilesCsv().write(run, folder)]
        written.append([path.read_bytes() for path in paths])
        assert sorted(folder.iterdir()) == sorted(paths), "nothing is left over"
    assert written[0] == written[1]


def test_a_report_that_fails_leaves_nothing_half_written(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    readings = iter([[], OSError(28, "No space left on device")])

    def torn() -> list[Finding]:
        reading = next(readings)
        if isinstance(reading, OSError):
            raise reading
        return reading

    (path,) = FindingsCsv().write(record(image("a", placement(32618, *NORTH_UP))), out)
    before = path.read_bytes()
    with pytest.raises(OSError, match="No space"):
        FindingsCsv().write(record(replace(image("a", placement(32618, *NORTH_UP)), findings=torn)), out)
    assert path.read_bytes() == before
    assert [entry.name for entry in out.iterdir()] == ["findings.csv"]


def test_regions_add_no_area_to_their_tiles(
    image: MakeImage, record: MakeRecord, placement: MakePlacement, out: Path
) -> None:
    tiles = [Finding("land", shapely.box(x, 0, x + 10, 10), "tile", 0.9) for x in (0, 10)]
    region = Finding("land", shapely.box(0, 0, 20, 10), "region", 0.8)
    for result, pixels in (([*tiles, region], "200.00"), ([region], "200.00"), ([tiles[0], region], "100.00")):
        one = image("a", placement(32618, 10, 0, 4e5, 0, -10, 4e6), result)
        SummaryCsv().write(record(one, labels=("land",)), out)
        row = rows(out / "areas.csv")[0]
        assert (row["item"], row["findings"], row["area_px"]) == ("land", str(len(result)), pixels)


def test_tiles_count_with_their_valid_part(image: MakeImage, record: MakeRecord, out: Path) -> None:
    slide = Placement(((0.5, 0.0, 0.0), (0.0, 0.5, 0.0)), "um")
    half = Finding("land", shapely.box(0, 0, 100, 100), "tile", numbers={"valid": 0.5})
    SummaryCsv().write(record(image("s", slide, [half], m2=2e-7), labels=()), out)
    row = rows(out / "areas.csv")[0]
    assert (row["area_px"], row["area_mm2"], row["share"]) == ("5000.00", "0.00125", "0.006250")
