"""Key objects, overviews as secondary captures, and what a check of the run says of identified objects."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from limner.pipelines.run.reporting import load_writers, read_record
from limner.pipelines.run.verify import verify
from limner.reports.dicom.key_objects import KeyObjects, KeyObjectsOptions
from limner.reports.overview.writer import overview_page
from pydicom.dataset import Dataset

pytestmark = pytest.mark.slow


def object_of(run: Any, kind: str, study: str) -> Dataset:
    """The object of the study that was made under this name."""
    folder = str(run.inputs / study)
    [image] = [one for one in run.run.record.images if Path(one.info.uri).is_relative_to(folder)]
    return run.object(f"{kind}-{image.info.id if kind == 'sc' else image.info.id.partition('-')[0]}")


def references(ko: Dataset) -> list[tuple[str, Any]]:
    """(SOP instance, frames) of the key images, in order."""
    items = [item for item in ko.ContentSequence if item.ValueType == "IMAGE"]
    found = [item.ReferencedSOPSequence[0] for item in items]
    return [(one.ReferencedSOPInstanceUID, one.get("ReferencedFrameNumber")) for one in found]


def test_key_images_are_the_slices_with_findings_in_their_order(
    odd_run: Any, odd_studies: dict[str, Sequence[Dataset]]
) -> None:
    ko = object_of(odd_run, "ko", "plain")
    assert (ko.Modality, ko.ConceptNameCodeSequence[0].CodeMeaning) == ("KO", "For Research")
    assert references(ko) == [(one.SOPInstanceUID, None) for one in odd_studies["plain"]]
    texts = [item.get("TextValue", "") for item in ko.ContentSequence]
    assert any(text.startswith("5 of 5 slices with findings of shapes. Research use only.") for text in texts)


def test_key_images_of_a_file_with_frames_are_one_reference(
    odd_run: Any, odd_studies: dict[str, Sequence[Dataset]], tmp_path: Path
) -> None:
    uid = odd_studies["enhanced"][0].SOPInstanceUID
    assert references(object_of(odd_run, "ko", "enhanced")) == [(uid, None)], "all of its frames"
    study = object_of(odd_run, "ko", "enhanced").StudyInstanceUID
    paths = KeyObjects(KeyObjectsOptions(most=2)).write(read_record(odd_run.folder), tmp_path)
    [ko] = [one for path in paths if (one := pydicom.dcmread(path)).StudyInstanceUID == study]
    assert references(ko) == [(uid, [1, 2])], "of equal scores and areas the first"


def test_an_overview_is_a_derived_image_with_what_is_drawn_in_it(odd_run: Any) -> None:
    record = read_record(odd_run.folder)
    for study in ("plain", "colour", "japanese"):
        sc = object_of(odd_run, "sc", study)
        folder = str(odd_run.inputs / study)
        [image] = [one for one in record.images if Path(one.info.uri).is_relative_to(folder)]
        assert np.array_equal(sc.pixel_array, np.asarray(overview_page(record, image)))
        assert (sc.BurnedInAnnotation, sc.ImageType[:2]) == ("YES", ["DERIVED", "SECONDARY"])
        assert "Research use only." in sc.DerivationDescription
        assert sc.DateOfSecondaryCapture == record.started[:10].replace("-", "")
        own = {plane.name for plane in image.info.planes}
        assert {one.ReferencedSOPInstanceUID for one in sc.SourceImageSequence} == own


def test_objects_are_written_only_where_they_are_named() -> None:
    assert not [writer.name for writer in load_writers([]) if writer.name.startswith("dicom-")]
    assert [writer.name for writer in load_writers(["dicom-sr"])] == ["dicom-sr"]


def test_a_check_of_the_run_says_that_objects_identify_the_patient(
    making: Any, shapes_run: Callable[..., Any], tmp_path: Path
) -> None:
    person = {"PatientName": "Doe^Jane", "WindowCenter": 2000, "WindowWidth": 6000}
    making.save_all(making.slices(3, **person), tmp_path / "Doe Jane")
    run = shapes_run(tmp_path / "Doe Jane", "dicom-sr", "findings-csv")
    assert str(run.object("sr-study1").PatientName) == "Doe^Jane"
    found = {(one.status, one.check, one.text) for one in verify(run.folder)}
    assert not [one for one in found if one[0] == "fault"], found
    text = "sr-study1.dcm identifies the patient, as was asked for with --reports dicom-sr"
    assert ("note", "names", f"{text}: do not pass it on with the other reports") in found
    assert ("right", "private files", "sr-study1.dcm can be read by its owner only") in found
    assert ("right", "reports", "sr-study1.dcm is the same when it is written again") in found
    (run.folder / "sr-study1.dcm").chmod(0o644)
    wrong = [one for one in verify(run.folder) if one.status == "fault"]
    assert [(one.check, one.text) for one in wrong] == [
        ("private files", "sr-study1.dcm can be read by others: chmod 600 sr-study1.dcm")
    ]
