"""Identifying and scanning DICOM: every file has an outcome."""

import itertools
import os
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from limner.readers import registry
from limner.readers.contract import scan_with
from limner.readers.dicom.decoder import Decoder
from limner.readers.dicom.faults import FaultError
from limner.readers.dicom.header import read_header
from limner.readers.dicom.reader import DicomReader
from limner.readers.dicom.scan import scan_input
from limner.readers.dicom.source import sniff
from limner.readers.errors import ReadError, RequestError
from limner.readers.pseudonyms import NameOptions, Pseudonyms
from limner.readers.registry import scan

READER = DicomReader()


def outcomes(path: Path) -> dict[str, tuple[str, str]]:
    """Every file below `path` → (status, reason)."""
    found = scan_input(str(path), Decoder()).outcomes
    rows = {os.path.relpath(outcome.source, path): (outcome.status, outcome.reason) for outcome in found}
    assert len(rows) == len(found)
    return rows


def test_text_is_never_dicom(tmp_path: Path) -> None:
    text = tmp_path / "hello.dcm"
    text.write_bytes(b"hello world, this is no DICOM file, whatever a forced parser makes of it " * 9)
    assert READER.identify(str(text), text.read_bytes()[:4096]) == 0
    assert sniff(b"\x08\x00") == ""
    with pytest.raises(ReadError, match="must be a DICOM file"):
        scan_with(READER, str(text), {})


def test_a_data_set_without_preamble_is_found_and_noted(tmp_path: Path, making: ModuleType) -> None:
    whole = making.save(making.slices(1)[0], tmp_path / "a.dcm").read_bytes()
    start = 132 + 12 + int.from_bytes(whole[140:144], "little")
    bare = tmp_path / "no-preamble"
    bare.write_bytes(whole[start:])
    assert READER.identify(str(bare), bare.read_bytes()[:4096]) > 0
    (info,) = scan_with(READER, str(bare), {})
    assert "its files have no DICOM preamble" in info.notes
    with READER.open(info) as image:
        assert image.read(info.box, info.size)[0][2, 3, 0] == 203 - 1024


@pytest.mark.parametrize("name", ["ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "rtstruct.dcm"])
def test_data_sets_without_preamble_in_three_encodings_are_recognised(pydicom_files: Path, name: str) -> None:
    assert sniff((pydicom_files / name).read_bytes()[:4096]) == "no-preamble"


def test_every_file_has_one_outcome(tmp_path: Path, making: ModuleType) -> None:
    images = making.slices(3)
    making.save_all(images, tmp_path)
    shutil.copy(tmp_path / "000.dcm", tmp_path / "copy.dcm")
    images[1].WindowCenter = 7
    making.save(images[1], tmp_path / "other.dcm")
    report = making.image(
        making.ramp(), sop_class="1.2.840.10008.5.1.4.1.1.88.11", number=90, PixelData=None, Rows=None
    )
    making.save(report, tmp_path / "report.dcm")
    slide = making.image(making.ramp(), sop_class="1.2.840.10008.5.1.4.1.1.77.1.6", number=91)
    making.save(slide, tmp_path / "slide.dcm")
    (tmp_path / "notes.txt").write_text("nothing\n" * 99, encoding="utf-8")
    whole = (tmp_path / "002.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[:-20])
    rows = outcomes(tmp_path)
    assert rows["copy.dcm"] == ("skipped", "a duplicate, byte for byte, of another file")
    statuses = {name: status for name, (status, _) in rows.items()}
    assert sorted([statuses["001.dcm"], statuses["other.dcm"]]) == ["failed", "read"]
    assert statuses["report.dcm"] == statuses["slide.dcm"] == statuses["notes.txt"] == "skipped"
    assert "structured report" in rows["report.dcm"][1]
    assert "slide reader" in rows["slide.dcm"][1]
    assert statuses["cut.dcm"] == "failed"
    assert "of the length that its header states" in rows["cut.dcm"][1]
    assert len(rows) == 3 + 6
    scanned = READER.scan_folder(str(tmp_path), READER.Options())
    told = [path for info in scanned.infos for path in info.files]
    told += [path for files, _ in scanned.failed for path in files] + [path for path, _ in scanned.side]
    assert sorted(map(os.path.basename, told)) == sorted(
        set(rows) - {"notes.txt", "slide.dcm"}
    )  # other readers' to account for


def test_a_slide_is_left_to_the_slide_reader(tmp_path: Path, making: ModuleType) -> None:
    slide = making.save(making.image(making.ramp(), sop_class="1.2.840.10008.5.1.4.1.1.77.1.6"), tmp_path / "s.dcm")
    assert READER.identify(str(slide), slide.read_bytes()[:4096]) == 0


def test_a_folder_is_identified_by_files_deep_in_it(tmp_path: Path, making: ModuleType) -> None:
    assert READER.identify(str(tmp_path), b"") == 0
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    making.save(making.slices(1)[0], tmp_path / "x" / "y" / "IM0")
    assert READER.identify(str(tmp_path), b"") > 0


def test_an_archive_is_scanned_like_a_folder(tmp_path: Path, making: ModuleType) -> None:
    images = making.save_all(making.slices(4), tmp_path / "study")
    members = {f"deep/{path.name}": path.read_bytes() for path in sorted(images.iterdir())}
    packed = tmp_path / "study.zip"
    packed.write_bytes(making.archive(members | {"read me.txt": b"no", "inner.zip": making.archive(members)}))
    assert READER.identify(str(packed), packed.read_bytes()[:4096]) > 0
    (folder,), (zipped,) = scan_with(READER, str(images), {}), scan_with(READER, str(packed), {})
    assert [plane.name for plane in folder.planes] == [plane.name for plane in zipped.planes]
    assert zipped.files == (str(packed),)
    assert "must not be an archive inside an archive" in zipped.notes[-1]
    with READER.open(folder) as a, READER.open(zipped) as b:
        assert (a.read(folder.box, folder.size)[0] == b.read(zipped.box, zipped.size)[0]).all()


@pytest.mark.slow
def test_missing_files_of_a_dicomdir_have_an_outcome(tmp_path: Path, pydicom_files: Path) -> None:
    tree = tmp_path / "disc"
    shutil.copytree(pydicom_files / "dicomdirtests", tree)
    for other in tree.glob("DICOMDIR-*"):
        other.unlink()
    shutil.rmtree(tree / "TINY_ALPHA")
    (tree / "77654033" / "CT2" / "17106").unlink()
    rows = outcomes(tree)
    assert rows["DICOMDIR"][0] == "skipped"
    lost = [name for name, (status, _) in rows.items() if status == "failed"]
    assert [name.replace("\\", "/") for name in lost] == ["DICOMDIR!/77654033/CT2/17106"]
    named = {plane.name for info in scan_with(READER, str(tree / "DICOMDIR"), {}) for plane in info.planes}
    assert named == {plane.name for info in scan_with(READER, str(tree), {}) for plane in info.planes}


@pytest.mark.parametrize(("option", "value"), [("columns", "5"), ("names", "maybe"), ("window", "nonsense")])
def test_an_unknown_window_is_refused(tmp_path: Path, making: ModuleType, option: str, value: str) -> None:
    path = making.save(making.slices(1)[0], tmp_path / "a.dcm")
    with pytest.raises(RequestError, match=option):
        scan_with(READER, str(path), {option: value})


def test_a_pipe_does_not_block_the_scan(tmp_path: Path, making: ModuleType) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(tmp_path / "pipe")
    making.save(making.slices(1)[0], tmp_path / "a.dcm")
    assert outcomes(tmp_path)["pipe"][0] == "skipped"


def test_a_file_of_several_stacks_keeps_them_all(
    tmp_path: Path, making: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    making.save_all(making.slices(3), tmp_path / "a")
    clip = making.enhanced([1.0, 1.0, 2.0, 2.0], slopes=[1.0] * 4, times=[1, 2, 1, 2])
    clip.SOPInstanceUID = making.uid(77)
    making.save(clip, tmp_path / "b" / "e.dcm")
    monkeypatch.setattr(registry, "readers", lambda: {"dicom": READER})
    rows = registry.scan([str(tmp_path)], {})
    assert [(Path(row.path).name, row.status, [info.id for info in row.infos]) for row in rows] == [
        ("000.dcm", "read", ["study1-ct1"]),
        ("001.dcm", "read", []),
        ("002.dcm", "read", []),
        ("e.dcm", "read", ["study1-mr1", "study1-mr2"]),
    ]


@pytest.mark.slow
def test_study_numbers_do_not_depend_on_the_order_of_inputs(tmp_path: Path, making: ModuleType) -> None:
    made = {}
    for k, (study, series, modality) in enumerate(
        [(30, 1, "CR"), (10, 2, "CR"), (10, 1, "DX"), (20, 1, "CR"), (10, 3, "CR")]
    ):
        data = making.image(
            making.ramp(add=k),
            sop_class=making.CR,
            number=k + 1,
            StudyInstanceUID=making.uid(study),
            SeriesInstanceUID=making.uid(100 * study + series),
            Modality=modality,
        )
        made[making.save(data, tmp_path / "in" / f"{'cabed'[k]}.dcm")] = (study, series)
    names = Pseudonyms.of(NameOptions())
    known = {names.uid(making.uid(100 * study + series)): (study, series) for study, series in made.values()}
    wanted = {
        (10, 1): "study1-dx1",
        (10, 2): "study1-cr1",
        (10, 3): "study1-cr2",
        (20, 1): "study2-cr1",
        (30, 1): "study3-cr1",
    }
    paths = [str(path) for path in made]
    orders = [list(order) for order in itertools.permutations(paths)][::7]
    for inputs in [[str(tmp_path / "in")], *orders, [paths[2], str(tmp_path / "in")]]:
        infos = [info for row in scan(inputs, {}) for info in row.infos]
        assert {known[dict(info.facts)["series_uid"]]: info.id for info in infos} == wanted
        assert {info.uri for info in infos} == {f"dicom:{info.study}/{info.id}" for info in infos}
    shown = [info for row in scan(paths, {"names": "show"}) for info in row.infos]
    assert {info.uri for info in shown} == set(paths)


@pytest.mark.parametrize("change", [{"rows": "many"}, {"frames": [{"position": [0, 0]}]}, {"count": None}, {}])
def test_an_invalid_answer_of_the_sandboxed_process_is_a_fault(
    change: dict[str, object], tmp_path: Path, making: ModuleType
) -> None:
    path = making.save(making.image(making.ramp(8, 8)), tmp_path / "a.dcm")
    with path.open("rb") as file:
        answer = read_header(file) | change
    if not change:
        del answer["sop"]

    class Process:
        def call(self, *_: object, **__: object) -> object:
            return answer

    with pytest.raises(FaultError, match="damaged"):
        Decoder(Process()).header("a.dcm")  # type: ignore[arg-type]
