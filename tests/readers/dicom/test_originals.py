"""Headers of original files for new objects: what is read, in which order, and what is refused."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from limner.readers.dicom.originals import pack, read_headers, read_originals
from limner.readers.errors import ReadError
from limner.readers.image import ImageInfo
from limner.readers.registry import scan

PERSON = {"PatientName": "Grün^Jörg", "PatientID": "12-34", "PatientBirthDate": "19700131", "PatientSex": "M"}


@pytest.fixture
def infos() -> Callable[[Path], list[ImageInfo]]:
    return lambda path: [info for row in scan([str(path)], {}) for info in row.infos]


def test_headers_are_in_the_order_of_planes_with_the_values_of_the_file(
    making: ModuleType, infos: Callable[[Path], list[ImageInfo]], tmp_path: Path
) -> None:
    images = making.slices(3, SpecificCharacterSet="ISO_IR 100", PixelSpacing=["0.50000000", "0.7031250"], **PERSON)
    [info] = infos(making.save_all(images, tmp_path / "a", order=[2, 0, 1]))
    found = read_originals(info)
    assert [one.SOPInstanceUID for one in found] == [one.SOPInstanceUID for one in images]
    for one, image in zip(found, images, strict=True):
        assert str(one.PatientName) == "Grün^Jörg"
        assert one.SpecificCharacterSet == "ISO_IR 192", "texts are Unicode"
        assert [str(value) for value in one.PixelSpacing] == ["0.50000000", "0.7031250"]
        assert one.ImagePositionPatient == image.ImagePositionPatient
        assert (one.Rows, one.Columns, one.StudyInstanceUID) == (image.Rows, image.Columns, image.StudyInstanceUID)
        assert "PixelData" not in one
        assert "RescaleSlope" not in one, "not in the list"


@pytest.mark.parametrize("charset", ["", None, "ISO_IR 192"])
def test_a_missing_or_empty_character_set_is_read(
    making: ModuleType, infos: Callable[[Path], list[ImageInfo]], tmp_path: Path, charset: str | None
) -> None:
    name = "Grün^Jörg" if charset else "Gruen^Joerg"
    image = making.image(making.ramp(), SpecificCharacterSet=charset, **(PERSON | {"PatientName": name}))
    [info] = infos(making.save(image, tmp_path / "a.dcm"))
    [found] = read_originals(info)
    assert (str(found.PatientName), found.SpecificCharacterSet) == (name, "ISO_IR 192")


def test_frames_of_an_enhanced_file_have_their_functional_groups(
    making: ModuleType, infos: Callable[[Path], list[ImageInfo]], tmp_path: Path
) -> None:
    path = making.save(making.enhanced([0.0, 3.0, 6.0], slopes=[1, 2, 3]), tmp_path / "a.dcm")
    [found] = read_originals(infos(path)[0])
    places = [one.PlanePositionSequence[0].ImagePositionPatient[2] for one in found.PerFrameFunctionalGroupsSequence]
    assert places == [0.0, 3.0, 6.0]
    assert "FrameVOILUTSequence" not in found.PerFrameFunctionalGroupsSequence[0], "not in the list"
    [short] = read_headers([str(path)], "a", frames=False)
    assert "PerFrameFunctionalGroupsSequence" not in short
    assert short.SharedFunctionalGroupsSequence == found.SharedFunctionalGroupsSequence


def test_a_file_without_preamble_and_one_in_an_archive_are_read(
    making: ModuleType, infos: Callable[[Path], list[ImageInfo]], tmp_path: Path
) -> None:
    image = making.image(making.ramp(), **PERSON)
    content = io.BytesIO()
    del image.file_meta, image.preamble
    image.save_as(content, implicit_vr=True, little_endian=True, enforce_file_format=False)
    (tmp_path / "bare").write_bytes(content.getvalue())
    (tmp_path / "a.zip").write_bytes(making.archive({"b/c": content.getvalue()}))
    for name in ("bare", "a.zip"):
        [found] = read_originals(infos(tmp_path / name)[0])
        assert (found.PatientID, found.SOPInstanceUID) == ("12-34", image.SOPInstanceUID)


def test_dates_and_times_of_acr_nema_get_the_form_of_dicom(
    making: ModuleType, infos: Callable[[Path], list[ImageInfo]], tmp_path: Path
) -> None:
    image = making.image(making.ramp(), StudyDate="1993.05.31", StudyTime="14:04:38")
    [found] = read_originals(infos(making.save(image, tmp_path / "a.dcm"))[0])
    assert (found.StudyDate, found.StudyTime) == ("19930531", "140438")


def test_values_without_the_form_of_their_type_are_left_empty(
    making: ModuleType, infos: Callable[[Path], list[ImageInfo]], tmp_path: Path
) -> None:
    image = making.image(making.ramp(), **(PERSON | {"PatientBirthDate": "unknown", "StudyTime": "25:99"}))
    [info] = infos(making.save(image, tmp_path / "a.dcm"))
    [found] = read_originals(info)
    assert (found.PatientBirthDate, found.StudyTime, found.PatientSex) == (None, None, "M")


@pytest.mark.parametrize("missing", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_files_without_uids_are_refused(
    making: ModuleType, infos: Callable[[Path], list[ImageInfo]], tmp_path: Path, missing: str
) -> None:
    image = making.image(making.ramp(), **(PERSON | {missing: ""}))
    [info] = infos(making.save(image, tmp_path / "a.dcm"))
    with pytest.raises(ReadError, match=f"{info.id} must have the UIDs of one study.*no {missing} in file 1"):
        read_originals(info)


def test_files_of_two_studies_are_refused(
    making: ModuleType, infos: Callable[[Path], list[ImageInfo]], tmp_path: Path
) -> None:
    [info] = infos(making.save_all(making.slices(2), tmp_path / "a"))
    other = making.save(making.image(making.ramp(), StudyInstanceUID=making.uid(77)), tmp_path / "b.dcm")
    planes = (info.planes[0], replace(info.planes[1], source=str(other)))
    with pytest.raises(ReadError, match="another study in file 2"):
        read_originals(replace(info, planes=planes))


def test_hostile_files_are_read_or_refused_by_name(making: ModuleType, tmp_path: Path) -> None:
    refused: dict[str, str] = {}
    for name, path in making.hostile(tmp_path).items():
        try:
            assert len(read_headers([str(path)], "study1-ct1")) == 1
        except ReadError as error:
            refused[name] = str(error)
    assert refused
    assert all(text.startswith("study1-ct1 must") for text in refused.values()), refused


def test_what_the_limited_process_returns_is_limited(making: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    image: Any = making.enhanced([0.0, 3.0, 6.0], slopes=[1, 2, 3])
    from limner.readers.dicom import originals
    from limner.readers.dicom.faults import FaultError

    monkeypatch.setattr(originals, "_MAX_ELEMENTS", 20)
    with pytest.raises(FaultError, match="header-size"):
        pack(image)
    image = making.image(making.ramp(), PatientName="A" * 60)
    monkeypatch.setattr(originals, "_MAX_TEXT", 50)
    with pytest.raises(FaultError, match="header-size"):
        pack(image)


@pytest.mark.parametrize(
    "answer",
    [[["00100010", "OB", ["x"]]], [["00100010", "PN", [1]]], [["xyz", "PN", ["x"]]], "text", [["00100010", "PN"]]],
)
def test_an_answer_of_another_form_is_damage(monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    from limner.readers.dicom.decoder import Decoder

    monkeypatch.setattr(Decoder, "originals", lambda *_, **__: [answer])
    with pytest.raises(ReadError, match="study1-ct1 must have a readable header"):
        read_headers(["a"], "study1-ct1")
