"""Structured reports: pydicom alone reads the rows of findings.csv from them; and what they say where there is none."""

import csv
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pydicom
import pytest
from limner.pipelines.run.reporting import read_record, write_reports
from limner.reports.csv_safety import csv_cell
from limner.reports.dicom.objects import structure_tracking_uid
from limner.reports.dicom.structured_report import StructuredReport, StructuredReportOptions
from pydicom.dataset import Dataset

pytestmark = pytest.mark.slow

MakeRun = Callable[..., Any]
STUDIES = ["duplicates", "empty", "enhanced", "greek", "japanese", "colour", "plain", "radiograph", "tilted"]


def walk(item: Dataset) -> Iterator[Dataset]:
    """A content item and all below it."""
    yield item
    for child in item.get("ContentSequence", []):
        yield from walk(child)


def name(item: Dataset) -> str:
    return item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else ""


def groups(sr: Dataset) -> list[dict[str, Any]]:
    """The measurement groups: values by name."""
    found: list[dict[str, Any]] = []
    for group in (item for item in walk(sr) if name(item) == "Measurement Group"):
        values: dict[str, Any] = {"template": group.ContentTemplateSequence[0].TemplateIdentifier, "comments": []}
        for item in group.ContentSequence:
            if item.ValueType == "NUM":
                [value] = item.MeasuredValueSequence
                unit = value.MeasurementUnitsCodeSequence[0].CodeValue
                values[name(item)] = float(value.get("FloatingPointValue", value.NumericValue)), unit
            elif item.ValueType == "CODE":
                [code] = item.ConceptCodeSequence
                values[name(item)] = code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning
                for below in item.get("ContentSequence", []):
                    values[name(below)] = below.ConceptCodeSequence[0].CodeMeaning
            elif item.ValueType == "SCOORD":
                values["outline"] = np.array(item.GraphicData).reshape(-1, 2)
                values["reference"] = item.ContentSequence[0].ReferencedSOPSequence[0]
            elif item.ValueType == "IMAGE":
                values.setdefault("images", []).append(item.ReferencedSOPSequence[0])
            elif item.ValueType == "TEXT" and name(item) == "Comment":
                values["comments"].append(item.TextValue)
            else:
                values[name(item)] = item.get("TextValue", item.get("UID"))
        found.append(values)
    return found


def finding_groups(sr: Dataset) -> list[dict[str, Any]]:
    return [one for one in groups(sr) if "Finding" in one and " finding " in one["Tracking Identifier"]]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "findings.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def report_of(run: Any, study: str) -> Dataset:
    """The structured report of the study that was made under this name."""
    folder = str(run.inputs / study)
    [image] = [one for one in run.run.record.images if Path(one.info.uri).is_relative_to(folder)]
    return run.object(f"sr-{image.info.id.partition('-')[0]}")


def objects_of(run: Any, study: str) -> list[Path]:
    """The files of a run that belong to a study."""
    paths = sorted(run.folder.glob("*.dcm"))
    return [path for path in paths if pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID == study]


@pytest.mark.parametrize("study", STUDIES)
def test_a_report_holds_the_rows_of_findings_csv(odd_run: Any, odd_studies: dict[str, Any], study: str) -> None:
    sr, originals = report_of(odd_run, study), odd_studies[study]
    mine = [row for row in rows(odd_run.folder) if row["study_uid"] == sr.StudyInstanceUID]
    found = finding_groups(sr)
    assert sr.StudyInstanceUID == originals[0].StudyInstanceUID
    assert len(mine) == len(found) > 0
    for row, group in zip(mine, found, strict=True):
        assert group["Tracking Unique Identifier"] == row["finding_uid"]
        assert group["Tracking Identifier"] == f"{row['image']} finding {row['finding']}"
        value, scheme, meaning = group["Finding"]
        assert (value, scheme, meaning) == ("12738006", "SCT", "Brain") if row["label"] == "ring" else True
        assert (scheme, meaning) == ("99LIMNER", row["label"]) if row["label"] != "ring" else True
        assert len(value) <= 16
        score = group.get("Score")
        assert score == ((float(row["score"]), "1") if row["score"] else None)
        patient = row["spacing_source"].startswith("pixel_spacing")
        area = float(row["area_mm2" if patient else "area_px"])
        assert group["Area"] == (pytest.approx(area, abs=0.006), "mm2" if patient else "{pixels}"), "2 decimals of px²"
        assert group.get("Laterality", "") == row["laterality_geometry"].replace("both", "").capitalize()
        if row["kind"] == "region":
            [reference] = group["images"]
            assert group["template"] == "1501"
            assert row["text"] in map(csv_cell, group["comments"])
        else:
            reference, outline = group["reference"], group["outline"]
            box = [float(row[key]) for key in ("x0_px", "y0_px", "x1_px", "y1_px")]
            assert group["template"] == "1410"
            assert [*outline.min(axis=0), *outline.max(axis=0)] == pytest.approx(box, abs=1e-3)
            x, y = outline.astype(np.float64).T
            assert np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2 == pytest.approx(float(row["area_px"]), abs=0.006)
        assert reference.ReferencedSOPInstanceUID == row["sop_uid"]
        frames = int(originals[0].get("NumberOfFrames", 1))
        assert reference.get("ReferencedFrameNumber") == (int(row["frame"]) if frames > 1 else None)


@pytest.mark.parametrize("study", STUDIES)
def test_dciodvfy_finds_no_error_that_the_source_has_not(
    odd_run: Any, dciodvfy: Callable[[Path], set[str]], study: str
) -> None:
    source = {error for path in (odd_run.inputs / study).iterdir() for error in dciodvfy(path)}
    sr = report_of(odd_run, study)
    objects = objects_of(odd_run, sr.StudyInstanceUID)
    assert sorted(path.name[:2] for path in objects) == ["ko", "sc", "sr"]
    assert {path.name: dciodvfy(path) - source for path in objects} == {path.name: set() for path in objects}


@pytest.mark.parametrize(
    ("study", "patient"), [("plain", "Grün^Jörg"), ("greek", "Διονυσιος"), ("japanese", "Yamada^Tarou=山田^太郎")]
)
def test_an_object_belongs_to_the_patient_and_says_what_it_is_for(odd_run: Any, study: str, patient: str) -> None:
    sr = report_of(odd_run, study)
    assert (str(sr.PatientName), sr.PatientID, sr.PatientBirthDate, sr.PatientSex, sr.StudyID) == (
        patient,
        "12-34",
        "19700131",
        "F",
        "S1",
    )
    assert (sr.Modality, sr.VerificationFlag, sr.CompletionFlag) == ("SR", "UNVERIFIED", "COMPLETE")
    assert sr.SeriesDescription.endswith("findings - research, not for diagnosis")
    assert len(sr.SeriesDescription) <= 64
    text = " ".join(item.TextValue for item in walk(sr) if item.get("ValueType") == "TEXT")
    assert "Research use only." in text
    assert f"model weights_sha256_a: {'0' * 64}" in text
    assert [item.CodingSchemeDesignator for item in sr.CodingSchemeIdentificationSequence] == ["99LIMNER"]
    made = [item for item in sr.ContributingEquipmentSequence if item.Manufacturer == "limner"]
    assert made[0].ContributionDescription.startswith("Research use only.")
    began = odd_run.run.record.started
    assert (sr.ContentDate, sr.ContentTime) == (began[:10].replace("-", ""), began[11:19].replace(":", ""))
    assert sr.InstanceCreationTime == sr.ContentTime


def test_the_same_run_gives_the_same_objects_which_only_their_owner_can_read(odd_run: Any, tmp_path: Path) -> None:
    for _ in write_reports(read_record(odd_run.folder), tmp_path, [StructuredReport()]):
        pass
    again = sorted(tmp_path.iterdir())
    assert len(again) == len(STUDIES)
    for path in again:
        assert path.read_bytes() == (odd_run.folder / path.name).read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600


def test_another_run_model_or_limit_gives_other_uids(odd_run: Any, tmp_path: Path) -> None:
    record = read_record(odd_run.folder)
    record = replace(record, images=record.images[:2])
    writers = {
        "run": (replace(record, run="another"), None),
        "limit": (record, StructuredReportOptions(most=2)),
        "same": (record, None),
    }
    uids: dict[str, set[str]] = {}
    for key, (one, options) in writers.items():
        (tmp_path / key).mkdir()
        paths = StructuredReport(options).write(one, tmp_path / key)
        uids[key] = {pydicom.dcmread(path).SOPInstanceUID for path in paths}
        assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in uids[key])
    assert not uids["run"] & uids["limit"]
    assert not uids["same"] & (uids["run"] | uids["limit"])
    assert len(uids["same"]) == 2


def test_of_many_findings_those_of_the_highest_score_are_written_and_the_number_of_others_is(
    odd_run: Any, tmp_path: Path
) -> None:
    paths = StructuredReport(StructuredReportOptions(most=6)).write(read_record(odd_run.folder), tmp_path)
    study = report_of(odd_run, "plain").StudyInstanceUID
    [path] = [one for one in paths if pydicom.dcmread(one).StudyInstanceUID == study]
    found = groups(pydicom.dcmread(path))
    kept = [one for one in found if "Finding" in one]
    assert [one["Score"][0] for one in kept if one["Finding"][2] == "box"] == [0.875] * 5
    assert [one["Finding"][2] for one in kept if one["Finding"][2] != "box"] == ["Brain"]
    assert found[0]["Number of findings"] == (20.0, "1")
    assert "14 of 20 findings are left out here: those of the lowest scores, then areas." in found[0]["comments"]


def test_a_study_without_findings_says_that_it_was_assessed(
    making: ModuleType, shapes_run: MakeRun, tmp_path: Path
) -> None:
    making.save_all(making.slices(3, WindowCenter=2000, WindowWidth=6000), tmp_path / "ct")
    run = shapes_run(tmp_path / "ct", "dicom-sr", "dicom-ko", found=False)
    [group] = groups(run.object("sr-study1"))
    assert group["Number of findings"] == (0.0, "1")
    assert group["Series Instance UID"] == making.uid(2)
    assert "Assessed; no findings." in group["comments"]
    assert "Labels without findings: ring, pair, box, picture, never." in group["comments"]
    assert not list(run.folder.glob("ko-*"))
    [report] = [one for one in run.run.reports if one.writer == "dicom-ko"]
    assert report.omitted == {"study1-ct1": "it has no findings"}


def test_images_whose_originals_are_gone_changed_or_without_uids_are_named(
    making: ModuleType, shapes_run: MakeRun, tmp_path: Path
) -> None:
    stack = making.slices(3, WindowCenter=2000, WindowWidth=6000)
    making.save_all(stack, tmp_path / "in" / "kept")
    other = {"SeriesInstanceUID": making.uid(9), "Modality": "MR", "sop_class": making.MR}
    making.save(making.image(making.ramp(add=9), number=9, **other), tmp_path / "in" / "changed.dcm")
    making.save(making.image(making.ramp(add=7), number=7, StudyInstanceUID=""), tmp_path / "in" / "bare.dcm")
    run = shapes_run(tmp_path / "in", "dicom-sr")
    [report] = run.run.reports
    assert [path.name for path in report.paths] == ["sr-study1.dcm"]
    [(image, why)] = report.omitted.items()
    assert "must have the UIDs of one study in its files" in why
    assert "no StudyInstanceUID in file 1" in why
    with (tmp_path / "in" / "changed.dcm").open("ab") as file:
        file.write(b"\0" * 8)
    again = tmp_path / "again"
    again.mkdir()
    [written] = write_reports(read_record(run.folder), again, [StructuredReport()])
    assert set(written.omitted) == {image, "study1-mr1"}
    assert "must not change between the run and its reports" in written.omitted["study1-mr1"]
    texts = [item.get("TextValue", "") for item in walk(pydicom.dcmread(again / "sr-study1.dcm"))]
    assert "Not in this report, since their originals could not be read: study1-mr1." in texts
    shutil.rmtree(tmp_path / "in")
    [written] = write_reports(read_record(run.folder), again, [StructuredReport()])
    assert set(written.omitted) == {image, "study1-mr1", "study1-ct1"}
    assert str(tmp_path) not in " ".join(written.omitted.values())


def test_a_side_is_stated_where_the_geometry_is_sure(odd_run: Any) -> None:
    """Of slices from x = -10 mm to -7 mm, of a patient who lay supine."""
    for study in STUDIES:
        sides = {one.get("Laterality") for one in finding_groups(report_of(odd_run, study))}
        assert sides == ({"Right"} if study == "plain" else {None})


def test_slices_of_a_mosaic_have_outlines_in_the_patient(
    odd_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limner.reports.dicom.objects.Originals.is_whole_frame", lambda *_: False)
    record = read_record(odd_run.folder)
    plain = [one for one in record.images if Path(one.info.uri).is_relative_to(odd_run.inputs / "plain")]
    [path] = StructuredReport().write(replace(record, images=tuple(plain)), tmp_path)
    sr = pydicom.dcmread(path)
    regions = [item for item in walk(sr) if item.get("ValueType") == "SCOORD3D"]
    assert len(regions) == 15
    frame = plain[0].info.placement.frame
    assert {(one.GraphicType, one.ReferencedFrameOfReferenceUID) for one in regions} == {("POLYGON", frame)}
    corners = [np.array(one.GraphicData).reshape(-1, 3) for one in regions]
    found = sorted([*one.min(axis=0), *one.max(axis=0)][::-1] for one in corners)
    boxes = [one for one in found if one[2] == -8.75]  # x from 0.5 to 3, y from 1 to 4.25 px; a first centre is at 0.5
    assert boxes == [[z, -18.125, -8.75, z, -19.75, -10.0] for z in (30.0, 32.5, 35.0, 37.5, 40.0)]


def test_structures_of_a_volume_have_their_volume_and_slices(
    odd_run: Any, odd_studies: dict[str, Any], tmp_path: Path
) -> None:
    record = read_record(odd_run.folder)
    [plain] = [one for one in record.images if Path(one.info.uri).is_relative_to(odd_run.inputs / "plain")]
    maps = np.zeros((5, 8, 6), dtype=np.uint8)
    maps[1:3, 2:5, 1:4] = 1
    maps[2, 0, 0] = 3
    volume = replace(plain, label_maps=lambda: iter(maps))
    changed = replace(record, images=(volume,))
    [path] = StructuredReport().write(changed, tmp_path)
    assessment, *found = groups(pydicom.dcmread(path))
    assert [one["Finding"][2] for one in found] == ["Brain", "pair", "box", "picture", "never"]
    voxel = 0.5 * 0.5 * 2.5 / 1000
    assert [one["Volume"] for one in found] == [(pytest.approx(count * voxel), "ml") for count in (18, 0, 1, 0, 0)]
    uids = [one.SOPInstanceUID for one in odd_studies["plain"]]
    assert [[one.ReferencedSOPInstanceUID for one in group.get("images", [])] for group in found] == [
        uids[1:3],
        [],
        uids[2:3],
        [],
        [],
    ]
    tracking = [structure_tracking_uid(changed, volume, label) for label in record.labels]
    assert [one["Tracking Unique Identifier"] for one in found] == tracking
    assert len(set(tracking)) == 5
    assert found[1]["comments"] == ["Assessed; no voxel of it was found."]
    centre = "its centre of mass in the patient (LPS, mm): -10.0, -20.0, 35.0."
    assert found[2]["comments"] == [f"On slices 3 to 3; {centre}"], "the centre of the first pixel of the third slice"
    assert any("outlines of the structures" in text for text in assessment["comments"])


def test_a_missing_package_is_named(odd_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limner.readers.plugins._installed", lambda name: name != "highdicom")
    [written] = write_reports(read_record(odd_run.folder), tmp_path, [StructuredReport()])
    assert written.error.startswith("report dicom-sr must have its packages installed (found: no highdicom). Install")
    assert not list(tmp_path.iterdir())


def test_an_outline_too_long_for_explicit_encoding_is_written_whole(odd_run: Any, tmp_path: Path) -> None:
    import shapely
    from limner.model.finding import Finding

    record = read_record(odd_run.folder)
    [image] = [one for one in record.images if one.info.size == (50, 40) and len(one.info.channels) == 1]
    teeth = [(4 + 40 * k / 20000, 10 + k % 2) for k in range(20001)]
    comb = Finding("comb", shapely.Polygon([*teeth, (44, 30), (4, 30)]), "area")
    [path] = StructuredReport().write(replace(record, images=(replace(image, findings=lambda: [comb]),)), tmp_path)
    sr = pydicom.dcmread(path)
    assert sr.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2"
    [group] = finding_groups(sr)
    assert len(group["outline"]) == 20004
    assert group["Area"] == (pytest.approx(comb.geometry.area), "{pixels}")
