"""studies.csv, series.csv and slices.csv: a finding names its slice, and a study tells what became of its files."""

import csv
from pathlib import Path

import pytest
from limner.model.finding import Finding
from limner.readers.geometry import Placement
from limner.readers.image import Cell, Channel, ImageInfo
from limner.readers.sheet import Sheet
from limner.reports.studies import SERIES_COLUMNS, SLICES_COLUMNS, STUDIES_COLUMNS, StudiesCsv, cells_touched
from limner.reports.writer import ImageRecord, Record
from shapely.geometry import Polygon, box

SHEET = Sheet.lay((10, 6), 5, columns=2, spacing=(1.0, 0.5))  # cells of 12: a slice is 10 wide and 12 high in it
FACTS = {
    "series_uid": "2.25.7",
    "modality": "CT",
    "rows": "6",
    "columns": "10",
    "sheet_columns": "2",
    "row_mm": "1.0",
    "col_mm": "0.5",
    "spacing_source": "pixel_spacing",
    "study_read": "5",
    "study_skipped": "1",
    "study_failed": "0",
}


def slice_place(z: float) -> Placement:
    """Slices of 0.5 × 1 mm pixels, whose first corner is at (100, 200, z)."""
    return Placement(
        ((0.5, 0.0, 100.0), (0.0, 1.0, 200.0), (0.0, 0.0, z)), "mm", frame="2.25.9", source="pixel_spacing"
    )


def stack(**changes: str) -> ImageInfo:
    cells = tuple(
        Cell(SHEET.cell(k), f"2.25.{k}", 1, f"/secret/{k}", 2.0 * k, SHEET.place(k, slice_place(2.0 * k)))
        for k in range(5)
    )
    return ImageInfo(
        uri="dicom:2.25.1/study1-ct1",
        reader="dicom",
        size=SHEET.size,
        channels=(Channel("grey", dtype="float32", quantity="HU"),),
        placement=Placement.pixels("sheet of slices"),
        id="study1-ct1",
        study="2.25.1",
        cells=cells,
        facts=tuple((FACTS | changes).items()),
        notes=("=1+1 is a formula",),
    )


def write(tmp_path: Path, *images: tuple[ImageInfo, list[Finding]]) -> dict[str, list[dict[str, str]]]:
    def record(info: ImageInfo, findings: list[Finding]) -> ImageRecord:
        return ImageRecord(info, lambda: findings, lambda: None, ())

    run = Record(tuple(record(*one) for one in images), (), {"name": "m", "version": "1"}, (), "0.1")
    written = StudiesCsv().write(run, tmp_path)
    return {path.name: list(csv.DictReader(path.open(encoding="utf-8", newline=""))) for path in written}


def test_a_finding_names_its_slice_and_its_place_in_the_patient(tmp_path: Path) -> None:
    cell = SHEET.cell(3)
    x, y = cell.x0 + SHEET.margin[0], cell.y0 + SHEET.margin[1]
    finding = Finding("mass", box(x + 2, y + 4, x + 4, y + 8), "box", 0.75, text="=evil()")
    tables = write(tmp_path, (stack(), [finding]))
    (row,) = tables["slices.csv"]
    assert list(row) == list(SLICES_COLUMNS)
    assert (row["sop_uid"], row["frame"], row["slice"], row["slice_position_mm"]) == ("2.25.3", "1", "4", "6.000")
    assert [row[f"{name}_px"] for name in ("x0", "y0", "x1", "y1")] == ["2.000", "2.000", "4.000", "4.000"]
    point = [float(row[f"centre_{axis}_mm"]) for axis in "xyz"]
    assert point == pytest.approx([100 + 3 * 0.5, 200 + 3 * 1.0, 6.0])
    assert row["text"] == "'=evil()"
    assert "secret" not in "".join(path.read_text(encoding="utf-8") for path in tmp_path.iterdir())


def test_a_finding_of_several_slices_names_none(tmp_path: Path) -> None:
    finding = Finding("all", box(0, 0, *SHEET.size), "region")
    (row,) = write(tmp_path, (stack(), [finding]))["slices.csv"]
    assert (row["n_slices"], row["sop_uid"], row["centre_x_mm"]) == ("5", "", "")


def test_a_tile_touches_its_own_cell_only() -> None:
    info = stack()
    for number, cell in enumerate(info.cells):
        tile = Finding("t", box(cell.box.x0, cell.box.y0, cell.box.x1, cell.box.y1), "tile")
        assert [place for place, _ in cells_touched(info, tile)] == [number]
    ell = Finding("t", Polygon([(0, 0), (24, 0), (24, 1), (1, 1), (1, 24), (0, 24)]), "area")
    assert [place for place, _ in cells_touched(info, ell)] == [0, 1, 2]


def test_a_study_sums_its_series(tmp_path: Path) -> None:
    other = stack(series_uid="2.25.8", modality="MR", study_failed="2")
    tables = write(tmp_path, (stack(), []), (other, [Finding("a", box(1, 1, 2, 2), "box")]))
    (study,) = tables["studies.csv"]
    assert list(study) == list(STUDIES_COLUMNS)
    expected = {
        "modalities": "CT MR",
        "n_series": "2",
        "n_instances": "10",
        "n_read": "5",
        "n_failed": "2",
        "n_findings": "1",
        "status": "partial",
    }
    assert {key: study[key] for key in expected} == expected
    assert [list(row) for row in tables["series.csv"]] == [list(SERIES_COLUMNS)] * 2
    assert tables["series.csv"][0]["notes"] == "'=1+1 is a formula"
    assert [row["status"] for row in tables["series.csv"]] == ["complete", "complete"]


def test_a_run_without_studies_writes_nothing(tmp_path: Path) -> None:
    scene = ImageInfo("a.tif", "raster", (4, 4), (Channel("1"),), Placement.pixels(), id="a")
    assert write(tmp_path, (scene, [])) == {}
    assert list(tmp_path.iterdir()) == []


def test_the_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in "ab":
        write(tmp_path / name, (stack(), [Finding("m", box(1, 1, 2, 2), "box")]))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
