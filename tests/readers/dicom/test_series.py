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


@pytest.mark.parametrize(("noise", "rows", "stacks"), [(2e-3, 64, 1), (2e-3, 512, 1), (6e-3, 512, 2), (3e-2, 8, 2)])
def test_orientations_that_differ_by_noise_are_one_stack(
    tmp_path: Path, making: ModuleType, noise: float, rows: int, stacks: int
) -> None:
    """One stack where pixels move by less than half of one on average, and the angle is less than half a degree."""
    images = making.slices(6, WindowCenter=0, WindowWidth=9000)
    for k, data in enumerate(images):
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, noise * (k % 2)]
        data.Rows = data.Columns = rows
        data.PixelData = bytes(2 * rows * rows)
    infos = scan(making.save_all(images, tmp_path))
    assert [len(info.planes) for info in infos] == [6 // stacks] * stacks
    facts = [dict(info.facts) for info in infos]
    assert {one.get("split_by", "") for one in facts} == ({""} if stacks == 1 else {"orientation"})
    if stacks == 1:
        assert (
            f"orientations of slices differ by up to {np.degrees(noise):.2g}°: each is placed by its own"
            in infos[0].notes
        )
        tilted = infos[0].planes[1].placement
        assert np.allclose(np.subtract(*tilted.to_world([[0, 1], [0, 0]])), [0, 0.5, 0.5 * noise], atol=1e-5)


def test_a_series_says_by_what_it_was_split(tmp_path: Path, making: ModuleType) -> None:
    images = [
        *making.slices(3),
        *making.slices(2, orientation=making.SAGITTAL),
        *making.slices(2, PixelSpacing=[0.75, 0.6]),
        *making.slices(2, orientation=(1, 0, 0, 0, 0.9396926, 0.3420201)),
    ]
    for k, data in enumerate(images):
        data.SOPInstanceUID, data.InstanceNumber = making.uid(5000 + k), k + 1
    infos = scan(making.save_all(images, tmp_path))
    assert [len(info.planes) for info in infos] == [3, 2, 2, 2]
    facts = [dict(info.facts) for info in infos]
    assert {one["split_by"] for one in facts} == {"orientation, pixel size"}
    assert [one["split_value"] for one in facts] == [
        "axial; 0.5 × 0.5 mm",
        "sagittal; 0.5 × 0.5 mm",
        "axial; 0.6 × 0.75 mm",
        "axial, 20.0° oblique; 0.5 × 0.5 mm",
    ]
    assert all(any("the series was split by orientation (here: " in note for note in info.notes) for info in infos)


def test_phases_are_in_the_order_of_trigger_times_that_differ_between_slices(
    tmp_path: Path, making: ModuleType
) -> None:
    """Each slice has heartbeats of its own length, so that no two have a trigger time in common."""
    images, numbers = [], list(range(1, 13))
    random.Random(5).shuffle(numbers)  # noqa: S311 - only an order
    for place in range(3):
        for phase in range(4):
            data = making.slices(3, sop_class=making.MR, TriggerTime=(200.0 + 7 * place) * phase + place)[place]
            data.PixelData = making.ramp(add=1000 * phase).tobytes()
            data.InstanceNumber = numbers[len(images)]
            data.SOPInstanceUID = making.uid(6000 + len(images))
            images.append(data)
    infos = scan(making.save_all(images, tmp_path))
    assert [len(info.planes) for info in infos] == [3] * 4
    facts = [dict(info.facts) for info in infos]
    assert [(one["split_by"], one["split_value"]) for one in facts] == [
        ("trigger time", f"from {200 * phase} ms") for phase in range(4)
    ]
    for phase, info in enumerate(infos):
        with READER.open(info) as image:
            firsts = {float(image.read(info.box, info.size, k)[0][0, 0, 0]) for k in range(3)}
        assert firsts == {1000.0 * phase - 1024}


def test_acquisitions_across_midnight_are_in_the_order_of_time(tmp_path: Path, making: ModuleType) -> None:
    images = []
    for turn, (day, time) in enumerate((("20200102", "000010"), ("20200101", "235950.5"))):
        for data in making.slices(3, sop_class=making.MR, AcquisitionDate=day, AcquisitionTime=time):
            data.SOPInstanceUID = making.uid(7000 + len(images))
            data.PixelData = making.ramp(add=1000 * turn).tobytes()
            images.append(data)
    infos = scan(making.save_all(images, tmp_path))
    assert [dict(info.facts)["split_value"] for info in infos] == ["0 s", "19.5 s"]
    with READER.open(infos[0]) as image:
        assert image.read(infos[0].box, infos[0].size)[0][0, 0, 0] == 1000 - 1024
