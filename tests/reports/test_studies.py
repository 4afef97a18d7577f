"""Tables of studies: slices and patient coordinates of findings, and outcomes of files."""

import csv
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from limner.model.finding import Finding
from limner.readers.dicom.metadata import SPLIT_ATTRIBUTES
from limner.readers.geometry import Box, Placement
from limner.readers.image import Channel, ImageInfo, Plane
from limner.reports.columns import FINDINGS, FindingsCsv
from limner.reports.measures import label_areas
from limner.reports.studies import SERIES, SLICE_VALUES, SLICES, STUDIES, StudiesCsv
from limner.reports.writer import FileRow, ImageRecord, Record, UnanalysedRegion
from shapely.geometry import box

OF_STUDIES = [column.name for column in FINDINGS if column.kinds == ("study",)]
FACTS = {
    "series_uid": "2.25.7",
    "modality": "CT",
    "rows": "6",
    "columns": "10",
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
    planes = tuple(Plane(slice_place(2.0 * k), f"/secret/{k}", 1, f"2.25.{k}", 2.0 * k, 40 - k) for k in range(5))
    return ImageInfo(
        uri="dicom:2.25.1/study1-ct1",
        reader="dicom",
        size=(10, 6),
        channels=(Channel("grey", dtype="float32", quantity="HU"),),
        placement=planes[0].placement,
        id="study1-ct1",
        study="2.25.1",
        planes=planes,
        facts=tuple((FACTS | changes).items()),
        kind="study",
        notes=("=1+1 is a formula",),
    )


def write(tmp_path: Path, *images: tuple[ImageInfo, list[Finding]]) -> dict[str, list[dict[str, str]]]:
    def record(info: ImageInfo, findings: list[Finding]) -> ImageRecord:
        return ImageRecord(info, lambda: findings, lambda: None, ())

    run = Record(tuple(record(*one) for one in images), (), {"name": "m", "version": "1"}, (), "0.1")
    written = StudiesCsv().write(run, tmp_path)
    return {path.name: list(csv.DictReader(path.open(encoding="utf-8", newline=""))) for path in written}


def findings_csv(folder: Path, *images: tuple[ImageInfo, list[Finding]]) -> list[dict[str, str]]:
    def record(info: ImageInfo, findings: list[Finding]) -> ImageRecord:
        return ImageRecord(info, lambda: findings, lambda: None, ())

    run = Record(tuple(record(*one) for one in images), (), {"name": "m", "version": "1"}, (), "0.1")
    (path,) = FindingsCsv().write(run, folder)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def in_slice(number: int, x0: float, y0: float, x1: float, y1: float, label: str = "mass") -> Finding:
    """A box in a slice's own pixels."""
    return Finding(label, box(x0, y0, x1, y1), "box", 0.75, plane=number)


def test_findings_csv_has_slice_and_patient_coordinates(tmp_path: Path) -> None:
    (row,) = findings_csv(tmp_path, (stack(), [replace(in_slice(3, 1, 2, 5, 4), text="=evil()")]))
    assert set(OF_STUDIES) <= set(row)
    assert row["text"] == "'=evil()"
    assert "secret" not in (tmp_path / "findings.csv").read_text(encoding="utf-8")
    assert not {"area_m2", "area_um2", "lon", "world_x", "x_um"} & set(row), "columns of maps and slides"
    expected = {
        "image": "study1-ct1",
        "name": "study1-ct1",
        "area_mm2": "4",
        "study_uid": "2.25.1",
        "series_uid": "2.25.7",
        "sop_uid": "2.25.3",
        "frame": "1",
        "instance_number": "37",
        "slice": "4",
        "slice_position_mm": "6.000",
        "x0_px": "1.000",
        "y0_px": "2.000",
        "x1_px": "5.000",
        "y1_px": "4.000",
        "centre_lps_x_mm": "101.500",
        "centre_lps_y_mm": "203.000",
        "centre_lps_z_mm": "6.000",
        "bbox_w_mm": "2.000",
        "bbox_h_mm": "2.000",
        "spacing_source": "pixel_spacing",
        "laterality_geometry": "",
        "review_status": "",
    }
    assert {key: row[key] for key in expected} == expected
    assert re.fullmatch(r"2\.25\.[0-9]{30,39}", row["finding_uid"])


def test_finding_uids_are_unique_and_reproducible(tmp_path: Path) -> None:
    one, other = in_slice(3, 2, 2, 4, 4), in_slice(3, 2, 2, 4, 5)
    named = [
        row["finding_uid"] for row in findings_csv(tmp_path, (stack(), [one, other, one, in_slice(1, 2, 2, 4, 4)]))
    ]
    assert len(set(named)) == 4
    (row,) = findings_csv(tmp_path, (stack(), [replace(one, score=0.25)]))
    assert row["finding_uid"] == named[0]
    for by, same in ((2e-7, True), (2e-6, False)):
        (row,) = findings_csv(tmp_path, (stack(), [in_slice(3, 2 + by, 2, 4, 4)]))
        assert (row["finding_uid"] == named[0]) is same, "a millionth of a pixel is another place, and no less is"
    (row,) = findings_csv(tmp_path, (replace(stack(), study="2.25.99"), [one]))
    assert row["finding_uid"] != named[0]


def test_uids_are_the_same_in_any_version(tmp_path: Path) -> None:
    one = in_slice(3, 0, 2, 4, 4, "œdème")
    found = [one, in_slice(3, -1e-9, 2, 4, 4, "œdème"), replace(one, plane=2)]
    named = [row["finding_uid"] for row in findings_csv(tmp_path, (stack(), found))]
    assert named == [
        "2.25.198044820592052358276443417406279068970",
        "2.25.137202051002666389747085623287671150567",
        "2.25.200822665335040308221307976717193760803",
    ], "the second says what the first says"


@pytest.mark.parametrize(
    ("position", "x", "side"),
    [
        ("HFS", 100.0, "left"),
        ("FFS", -100.0, "right"),
        ("HFS", -1.5, "both"),
        ("HFS", -2.0, "right"),
        ("HFS", -1.0, "left"),
        ("HFDR", 100.0, ""),
        ("", 100.0, ""),
    ],
)
def test_laterality_follows_from_patient_coordinates_of_a_supine_patient(
    tmp_path: Path, position: str, x: float, side: str
) -> None:
    info = stack(patient_position=position)
    place = Placement(((0.5, 0.0, x), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)), "mm", frame="2.25.9", source="pixel_spacing")
    info = replace(info, planes=tuple(replace(plane, placement=place) for plane in info.planes))
    (row,) = findings_csv(tmp_path, (info, [in_slice(3, 2, 2, 4, 4)]))
    assert row["laterality_geometry"] == side


def test_without_patient_coordinates_there_is_no_centre_and_no_size(tmp_path: Path) -> None:
    def flat(source: str, place: Placement) -> ImageInfo:
        stated = {"spacing_source": source, "patient_position": "HFS", "row_mm": "2.0"}
        facts = tuple((FACTS | stated).items())
        return replace(stack(), placement=place, planes=(Plane(place, "/secret/3", 1, "2.25.3"),), facts=facts)

    finding = Finding("mass", box(2, 2, 4, 4), "box")
    nowhere, film = Placement.pixels(), Placement(((0.5, 0.0, 0.0), (0.0, 2.0, 0.0)), "mm")
    for source, place, size in (
        ("imager_plane", nowhere, ("1.000", "4.000", "4")),
        ("imager_plane", film, ("1.000", "4.000", "4")),
        ("us_region", nowhere, ("", "", "")),
    ):
        (row,) = findings_csv(tmp_path, (flat(source, place), [finding]))
        assert (row["bbox_w_mm"], row["bbox_h_mm"], row["area_mm2"]) == size
        assert row["spacing_source"] == source
        assert {row[key] for key in ("centre_lps_x_mm", "laterality_geometry", "slice_position_mm")} == {""}
        assert [row[f"{edge}_px"] for edge in ("x0", "y1")] == ["2.000", "4.000"]


def test_columns_of_scenes_and_studies_in_one_run(tmp_path: Path) -> None:
    scene = ImageInfo("a.tif", "raster", (40, 40), (Channel("1"),), Placement.pixels(), id="a")
    finding = Finding("lake", box(1, 1, 5, 5), "box")
    (row,) = findings_csv(tmp_path, (scene, [finding]))
    assert not set(OF_STUDIES) & set(row)
    rows = findings_csv(tmp_path, (scene, [finding]), (stack(), [Finding("all", box(0, 0, 10, 6), "region")]))
    assert {rows[0][key] for key in (*OF_STUDIES, "area_mm2")} == {""}
    assert {rows[1][key] for key in ("area_m2", "lon", "world_x", "crs")} == {""}
    assert (rows[1]["sop_uid"], rows[1]["study_uid"]) == ("2.25.0", "2.25.1")
    assert rows[1]["finding_uid"]


def test_a_study_sums_its_series(tmp_path: Path) -> None:
    other = stack(series_uid="2.25.8", modality="MR", study_failed="2", study_related="SR, SEG")
    tables = write(tmp_path, (stack(study_related="SR"), []), (other, [Finding("a", box(1, 1, 2, 2), "box")]))
    (study,) = tables["studies.csv"]
    assert list(study) == [column.name for column in STUDIES]
    expected = {
        "modalities": "CT MR",
        "n_series": "2",
        "n_instances": "10",
        "n_read": "5",
        "n_failed": "2",
        "related": "SR, SEG",
        "n_findings": "1",
        "status": "partial",
    }
    assert {key: study[key] for key in expected} == expected
    assert [list(row) for row in tables["series.csv"]] == [[column.name for column in SERIES]] * 2
    assert tables["series.csv"][0]["notes"] == "'=1+1 is a formula"
    assert [row["status"] for row in tables["series.csv"]] == ["complete", "complete"]


def test_the_volume_of_a_label_is_of_a_stack_that_was_annotated_as_a_volume() -> None:
    found = [Finding("mass", box(0, 0, 10, 6), "area", plane=plane) for plane in range(5)]
    outlines = ImageRecord(stack(), lambda: found, lambda: None, ())
    for image, ml in ((outlines, math.nan), (replace(outlines, label_maps=lambda: iter(())), 0.3)):
        (area,) = label_areas(Record((image,), (), {}, (), "0.1"), image)
        assert area.pixels == 300
        assert area.ml == pytest.approx(ml, nan_ok=True), "voxels of 0.5 × 1 × 2 mm"


def test_a_run_without_studies_writes_nothing(tmp_path: Path) -> None:
    scene = ImageInfo("a.tif", "raster", (4, 4), (Channel("1"),), Placement.pixels(), id="a")
    assert write(tmp_path, (scene, [])) == {}
    assert list(tmp_path.iterdir()) == []


def test_images_outside_studies_are_listed_as_omitted() -> None:
    scene = ImageInfo("a.tif", "raster", (4, 4), (Channel("1"),), Placement.pixels(), id="a")

    def omitted(*images: ImageInfo) -> dict[str, str]:
        records = tuple(ImageRecord(info, list, lambda: None, ()) for info in images)
        return dict(StudiesCsv().omitted(Record(records, (), {}, (), "0.1")))

    assert omitted(scene, stack()) == {"a": "it belongs to no study"}
    assert omitted(scene) == omitted(stack()) == {}


def test_the_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in "ab":
        write(tmp_path / name, (stack(), [Finding("m", box(1, 1, 2, 2), "box")]))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def slices_of(tmp_path: Path, image: ImageRecord, **changes: object) -> list[dict[str, str]]:
    run = replace(Record((image,), (), {"name": "m", "version": "1"}, (), "0.1"), **changes)  # type: ignore[arg-type]
    paths = StudiesCsv().write(run, tmp_path)
    assert [path.name for path in paths] == ["studies.csv", "series.csv", "slices.csv"]
    with paths[-1].open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_slices_have_their_place_values_outcome_and_findings(tmp_path: Path) -> None:
    info = stack(split_by="echo time", split_value="30 ms")
    planes = [replace(one, values=(("echo time", 30.0), ("b-value", 800.5 + k))) for k, one in enumerate(info.planes)]
    planes[4] = replace(planes[4], placement=Placement.pixels(), position_mm=None, values=())
    left = (
        UnanalysedRegion(Box(0, 0, 10, 6), "skipped", "not chosen with --slices", 1),
        UnanalysedRegion(Box(0, 0, 4, 6), "skipped", "no valid pixels", 2),
        UnanalysedRegion(Box(0, 0, 4, 6), "skipped", "no valid pixels", 3),
        UnanalysedRegion(Box(4, 0, 10, 6), "unreadable", "damaged", 3),
    )
    found = [Finding("a", box(1, 1, 2, 2), "box", plane=plane) for plane in (0, 0, 2)]
    image = ImageRecord(replace(info, planes=tuple(planes)), lambda: found, lambda: None, (), unanalysed=left)
    rows = slices_of(tmp_path, image)
    assert list(rows[0]) == [column.name for column in SLICES]
    assert [row["slice"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert {(row["study_uid"], row["image"]) for row in rows} == {("2.25.1", "study1-ct1")}
    assert [row["instance_number"] for row in rows] == ["40", "39", "38", "37", "36"]
    assert [(row["status"], row["reason"]) for row in rows] == [
        ("analysed", ""),
        ("skipped", "not chosen with --slices"),
        ("partial", "no valid pixels"),
        ("unreadable", "damaged; no valid pixels"),
        ("analysed", ""),
    ]
    assert [row["n_findings"] for row in rows] == ["2", "0", "1", "0", "0"]
    assert [row["b_value_s_mm2"] for row in rows] == ["800.5", "801.5", "802.5", "803.5", ""]
    corner = ("100.250", "200.500", "6.000")  # half a pixel of 0.5 × 1 mm from the first corner
    assert tuple(rows[3][f"corner_lps_{axis}_mm"] for axis in "xyz") == corner
    assert (rows[4]["corner_lps_x_mm"], rows[4]["slice_position_mm"], rows[4]["echo_time_ms"]) == ("", "", "")
    assert {(row["split_by"], row["split_value"]) for row in rows} == {("echo time", "30 ms")}
    without = slices_of(tmp_path, image, assessed=False)
    assert {row["n_findings"] for row in without} == {""}


def test_slices_name_only_files_that_other_tables_show(tmp_path: Path) -> None:
    sources = ["/secret/0", "scan/1.dcm", "archive.zip/2.dcm", "file-0123456789abcdef", "/secret/4"]
    info = stack()
    planes = tuple(replace(plane, source=source) for plane, source in zip(info.planes, sources, strict=True))
    files = tuple(FileRow(path, "read") for path in ("scan/1.dcm", "archive.zip"))
    image = ImageRecord(replace(info, planes=planes), tuple, lambda: None, ())
    rows = slices_of(tmp_path, image, files=files)
    assert [row["path"] for row in rows] == ["", "scan/1.dcm", "archive.zip/2.dcm", "file-0123456789abcdef", ""]


def test_every_number_that_splits_stacks_has_a_column_with_its_unit() -> None:
    digests = {"stack", "image type"}
    assert list(SLICE_VALUES) == [name for name in SPLIT_ATTRIBUTES if name not in digests]
    assert {name: unit for name, (_, unit, _) in SLICE_VALUES.items()} == {
        name: unit for name, unit in SPLIT_ATTRIBUTES.items() if name not in digests
    }
