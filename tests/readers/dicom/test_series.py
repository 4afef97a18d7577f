"""Grouping and sorting: the same stacks for any order of files, with notes on irregularities."""

import random
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from limner.readers.contract import scan_with
from limner.readers.dicom.reader import DicomReader
from limner.readers.image import ImageInfo

READER = DicomReader()


def scan(path: Path) -> list[ImageInfo]:
    return list(scan_with(READER, str(path), {}))


def positions(info: ImageInfo) -> list[float]:
    return [plane.position_mm for plane in info.planes if plane.position_mm is not None]


@pytest.mark.parametrize("plane", ["AXIAL", "SAGITTAL"])
def test_slices_are_ordered_along_their_normal(tmp_path: Path, making: ModuleType, plane: str) -> None:
    images = making.slices(7, orientation=getattr(making, plane))
    for k, data in enumerate(images):
        data.InstanceNumber = 100 - k  # which must not matter
    (info,) = scan(making.save_all(images, tmp_path, order=[3, 0, 6, 2, 5, 1, 4]))
    assert np.allclose(np.diff(positions(info)), 2.5)
    assert dict(info.facts)["sort_basis"] == "position along the normal"
    with READER.open(info) as image:
        firsts = [image.read(info.box, info.size, k)[0][0, 0, 0] for k in range(len(info.planes))]
    assert np.allclose(firsts, [1000 * k - 1024 for k in range(7)])


@pytest.mark.slow
def test_shuffled_files_give_identical_facts(tmp_path: Path, making: ModuleType) -> None:
    images = making.slices(12) + making.slices(4, SeriesInstanceUID=making.uid(5), orientation=making.SAGITTAL)
    for k, data in enumerate(images):
        data.SOPInstanceUID = making.uid(3000 + k)
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    seen = []
    for turn in range(3):
        order = list(range(len(images)))
        random.Random(turn).shuffle(order)  # noqa: S311 - only an order
        infos = scan(making.save_all(images, tmp_path / str(turn), order=order))
        seen.append(
            [
                (
                    i.id,
                    i.study,
                    i.size,
                    i.placement,
                    i.facts,
                    i.notes,
                    [(p.name, p.frame, p.placement) for p in i.planes],
                )
                for i in infos
            ]
        )
    assert seen[0] == seen[1] == seen[2]
    assert [len(one[6]) for one in seen[0]] == [12, 4]


def test_gaps_and_uneven_steps_are_reported(tmp_path: Path, making: ModuleType) -> None:
    images = making.slices(9)
    (gap,) = scan(making.save_all(images[:3] + images[5:], tmp_path / "gap"))
    assert dict(gap.facts)["missing_slices"] == "2"
    assert any("2 slices are missing" in note for note in gap.notes)
    images[4].ImagePositionPatient[2] += 0.6
    (uneven,) = scan(making.save_all(images, tmp_path / "uneven"))
    assert dict(uneven.facts)["irregular_spacing"] == "yes"
    assert dict(uneven.facts)["missing_slices"] == "0"
    shown = {"WindowCenter": 40, "WindowWidth": 400}
    (even,) = scan(making.save_all(making.slices(9, **shown), tmp_path / "even"))
    assert dict(even.facts)["irregular_spacing"] == "no"
    assert even.notes == ()


def test_a_tilted_gantry_is_measured(tmp_path: Path, making: ModuleType) -> None:
    images = making.slices(5)
    for k, data in enumerate(images):
        data.ImagePositionPatient[1] += k * 2.5 * np.tan(np.radians(14.1))
    (info,) = scan(making.save_all(images, tmp_path))
    assert float(dict(info.facts)["tilt_deg"]) == pytest.approx(14.1, abs=1e-3)
    assert any("tilted gantry" in note for note in info.notes)


def test_repeated_positions_are_split_by_the_distinguishing_attribute(tmp_path: Path, making: ModuleType) -> None:
    images = []
    for echo in (30.0, 60.0, 90.0):
        for k, data in enumerate(making.slices(4, sop_class=making.MR, EchoTime=echo)):
            number = int(echo) * 10 + k
            data.SOPInstanceUID, data.InstanceNumber = making.uid(4000 + number), k * 3 + int(echo // 30)
            data.ContentTime = f"12{number // 60:02d}{number % 60:02d}"  # each its own
            images.append(data)

    def splits(name: str) -> list[tuple[str, str]]:
        infos = scan(making.save_all(images, tmp_path / name))
        assert [len(info.planes) for info in infos] == [4, 4, 4]
        return [(facts["split_by"], facts["split_value"]) for facts in (dict(info.facts) for info in infos)]

    assert splits("echo") == [("echo time", "30 ms"), ("echo time", "60 ms"), ("echo time", "90 ms")]
    for data in images:
        data.EchoTime = 1
    assert splits("clock") == [("content time", f"from {seconds} s") for seconds in (0, 300, 600)]
    for data in images:
        del data.ContentTime
    assert splits("order") == [("instance number", str(turn)) for turn in (1, 2, 3)]


@pytest.mark.slow
def test_real_time_series_become_one_stack_per_time(shared_data: Path) -> None:
    infos = scan(shared_data / "dicom" / "mr_brain_epi_ge" / "mr_0004.zip")
    assert [len(info.planes) for info in infos] == [15] * 10
    assert all(np.allclose(np.diff(positions(info)), 5.0, atol=1e-3) for info in infos)


def test_orientations_in_one_series_are_separate_stacks(pydicom_files: Path) -> None:
    infos = scan(pydicom_files / "dicomdirtests" / "98892003")
    assert len(infos) == 17
    assert all(len(info.planes) == 1 for info in infos)


def test_empty_uids_do_not_merge_folders(tmp_path: Path, making: ModuleType) -> None:
    empty = {"SOPInstanceUID": None, "StudyInstanceUID": "", "SeriesInstanceUID": "", "SOPClassUID": None}
    for name in ("a", "b"):
        making.save_all(making.slices(3, PatientID=name, **empty), tmp_path / name)
    infos = scan(tmp_path)
    assert [len(info.planes) for info in infos] == [3, 3]
    assert len({info.study for info in infos}) == 2
    assert all(dict(info.facts)["uid_synthesised"] == "yes" for info in infos)
    renamed = tmp_path / "elsewhere"
    (tmp_path / "a").rename(renamed)
    (again,) = scan(renamed)
    assert [plane.name for plane in again.planes] in [[plane.name for plane in info.planes] for info in infos]


def test_a_real_series_with_empty_uids_is_one_stack(shared_data: Path) -> None:
    (info,) = scan(shared_data / "dicom" / "ct_abdomen_20slice" / "ct_abdomen_20slice.zip")
    assert len(info.planes) == 20
    assert np.allclose(np.diff(positions(info)), 2.0)
    assert info.channels[0].quantity == "HU"


def test_radiographs_of_one_series_are_separate_images(tmp_path: Path, making: ModuleType) -> None:
    for k in (1, 2):
        making.save(making.image(making.ramp(), sop_class=making.CR, number=k), tmp_path / f"{k}.dcm")
    infos = scan(tmp_path)
    assert [info.size for info in infos] == [(6, 8), (6, 8)]
    assert [len(info.planes) for info in infos] == [1, 1]


def test_screen_captures_are_not_slices_in_hounsfield_units(tmp_path: Path, making: ModuleType) -> None:
    capture = making.image(making.ramp(), sop_class=making.SC, Modality="CT", RescaleIntercept=-1024, RescaleSlope=1)
    (info,) = scan(making.save(capture, tmp_path / "a.dcm"))
    facts = dict(info.facts)
    assert (info.channels[0].quantity, facts["is_secondary"], facts["burned_in_risk"]) == ("number", "yes", "high")
