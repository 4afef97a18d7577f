"""Nuclear medicine: reconstructed slices have the places of the detector's sequence; projections have none."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from limner.readers.contract import scan_with
from limner.readers.dicom.reader import DicomReader
from limner.readers.image import ImageInfo
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

READER = DicomReader()
NM = "1.2.840.10008.5.1.4.1.1.20"


def detector(position: list[float] | None = None, orientation: list[float] | None = None) -> Dataset:
    made = Dataset()
    made.ImagePositionPatient = [-10, -20, 50] if position is None else position
    made.ImageOrientationPatient = [1, 0, 0, 0, 1, 0] if orientation is None else orientation
    return made


def scan(
    making: ModuleType, path: Path, *, kind: str = "RECON TOMO", detectors: list[Dataset] | None = None, **tags: object
) -> list[ImageInfo]:
    """Six frames, whose pixels are the ramp plus 1000 · frame."""
    whole: dict[str, object] = {
        "Modality": "NM",
        "ImageType": ["ORIGINAL", "PRIMARY", kind, "EMISSION"],
        "PixelSpacing": [4, 3],
        "SpacingBetweenSlices": 5,
        "SliceVector": [1, 2, 3, 4, 5, 6],
        "DetectorInformationSequence": Items(detectors if detectors is not None else [detector()]),
    }
    pixels = np.stack([making.ramp(add=1000 * k) for k in range(6)])
    data = making.image(pixels, sop_class=NM, frames=6, **whole | tags)
    return scan_with(READER, str(making.save(data, path)), {})


def corners(info: ImageInfo) -> dict[int, list[float]]:
    """Frame → the centre of its first pixel."""
    return {plane.frame: plane.placement.to_world([[0.5, 0.5]])[0].tolist() for plane in info.planes}


@pytest.mark.parametrize("step", [5, -5])
def test_the_sign_of_the_step_is_the_direction_of_stacking(tmp_path: Path, making: ModuleType, step: int) -> None:
    (info,) = scan(making, tmp_path / "a.dcm", SpacingBetweenSlices=step)
    assert corners(info) == {k + 1: [-10, -20, 50 + step * k] for k in range(6)}
    assert (info.placement.source, dict(info.facts)["step_mm_median"]) == ("pixel_spacing", "5.000000")
    assert np.allclose(info.placement.to_world([[1.5, 2.5]]), [[-10 + 3, -20 + 8, min(50, 50 + 5 * step)]])


def test_slices_lie_where_the_slice_vector_says_along_any_normal(tmp_path: Path, making: ModuleType) -> None:
    both = [detector(orientation=[1, 0, 0, 0, 0, -1]) for _ in range(2)]  # which state one place
    (info,) = scan(making, tmp_path / "a.dcm", SliceVector=[6, 5, 4, 3, 2, 1], detectors=both)
    assert corners(info) == {k + 1: [-10, -20 + 5 * (5 - k), 50] for k in range(6)}


@pytest.mark.parametrize("step", [5, -5])
@pytest.mark.parametrize("orientation", [[1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [0.6, 0.8, 0, 0, 0, -1]])
def test_places_equal_simpleitk(tmp_path: Path, making: ModuleType, orientation: list[float], step: int) -> None:
    itk = pytest.importorskip("SimpleITK")
    detectors = [detector(orientation=orientation)]
    (info,) = scan(making, tmp_path / "a.dcm", detectors=detectors, SpacingBetweenSlices=step)
    picture = itk.ReadImage(str(tmp_path / "a.dcm"))
    for plane in info.planes:
        for x, y in ((0, 0), (5, 0), (2, 7)):
            theirs = picture.TransformIndexToPhysicalPoint((x, y, plane.frame - 1))
            assert np.allclose(plane.placement.to_world([[x + 0.5, y + 0.5]])[0], theirs, atol=1e-3)


def test_gates_are_stacks_in_their_order(tmp_path: Path, making: ModuleType) -> None:
    tags: dict[str, Any] = {"SliceVector": [1, 2, 3, 1, 2, 3], "TimeSlotVector": [2, 2, 2, 1, 1, 1]}
    infos = scan(making, tmp_path / "a.dcm", kind="RECON GATED TOMO", **tags)
    assert [[plane.frame for plane in info.planes] for info in infos] == [[4, 5, 6], [1, 2, 3]]
    assert [(dict(i.facts)["split_by"], dict(i.facts)["split_value"]) for i in infos] == [
        ("time slot", "1"),
        ("time slot", "2"),
    ]


@pytest.mark.parametrize(
    "tags",
    [
        {"kind": "TOMO"},
        {"kind": "WHOLE BODY"},
        {"kind": "STATIC"},
        {"SpacingBetweenSlices": None},
        {"SliceVector": None},
        {"detectors": []},
        {"detectors": [detector(), detector(position=[0, 0, 0])]},
        {"detectors": [detector(orientation=[1, 0, 0, 1, 0, 0])]},
    ],
)
def test_what_does_not_state_its_places_has_none_and_says_so(
    tmp_path: Path, making: ModuleType, tags: dict[str, Any]
) -> None:
    (info,) = scan(making, tmp_path / "a.dcm", **tags)
    assert {plane.placement.unit for plane in info.planes} == {"px"}
    assert {plane.position_mm for plane in info.planes} == {None}
    assert any("no place in the patient" in note for note in info.notes)
