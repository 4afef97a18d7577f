"""A study through a whole run: the label map of a volume model as NIfTI, as segmentation and as contours."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import limner
import nibabel
import numpy as np
import pydicom
import pytest
from highdicom.seg import segread
from limner.pipelines.run.reporting import load_writers, read_record, write_reports
from scipy import ndimage

OBLIQUE = (0.96, 0.28, 0.0, -0.28, 0.96, 0.0)


SHAPE, SPACING, STEP = (9, 20, 16), (1.1, 0.9), 1.3

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(making: ModuleType, make_nnunet: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of a model that labels what is bright; the study is beside it."""
    folder = tmp_path_factory.mktemp("volume")
    noise = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=SHAPE), 1.5)
    bright = np.where(noise > 0.02, 400, -400).astype(np.int16)
    slices = [
        making.image(
            pixels,
            number=number + 1,
            PatientName="Doe^Jane",
            PatientID="7",
            ImagePositionPatient=[-5.0, 4.0, 10.0 + STEP * number],
            ImageOrientationPatient=list(OBLIQUE),
            PixelSpacing=list(SPACING),
            RescaleSlope=1,
            RescaleIntercept=0,
        )
        for number, pixels in enumerate(bright)
    ]
    study = making.save_all(slices, folder / "study", order=[4, 2, 7, 0, 8, 1, 3, 6, 5])
    model = f"volume:{make_nnunet(folder / 'model')}"
    limner.run(str(study), model=model, out=str(folder / "run"), reports=["dicom-rtstruct", "dicom-seg", "nifti"])
    return folder / "run"


def test_a_volume_has_the_same_voxels_and_ml_in_all_objects(run: Path) -> None:
    [labels], [seg], [structures] = (
        list(run.glob(name)) for name in ("labels-*.nii.gz", "seg-*.dcm", "rtstruct-*.dcm")
    )
    nifti: Any = nibabel.load(labels)  # type: ignore[attr-defined]
    values = np.asarray(nifti.dataobj)
    assert 100 < np.count_nonzero(values) < 0.9 * values.size
    volume = segread(seg).get_volume(combine_segments=True)
    voxels = np.argwhere(volume.array)
    lps = volume.map_indices_to_reference(voxels)
    places = np.append(lps * [-1, -1, 1], np.ones((len(lps), 1)), axis=1) @ np.linalg.inv(nifti.affine).T
    assert np.abs(places - np.rint(places)).max() < 1e-4
    seen = np.zeros_like(values)
    seen[tuple(np.rint(places[:, :3]).astype(int).T)] = volume.array[tuple(voxels.T)]
    assert np.array_equal(seen, values)
    area = 0.0
    for contour in pydicom.dcmread(structures).ROIContourSequence[0].ContourSequence:
        points = np.reshape(np.asarray(contour.ContourData, float), (-1, 3))
        area += np.linalg.norm(np.cross(points - points[0], np.roll(points, -1, axis=0) - points[0]).sum(axis=0)) / 2
    mm3 = np.count_nonzero(values) * SPACING[0] * SPACING[1] * STEP
    assert area * STEP == pytest.approx(mm3, rel=1e-4)


def test_orthanc_files_them_in_the_study_and_gives_them_back(run: Path, orthanc: Any) -> None:
    orthanc.clear()
    originals = [orthanc.put(path) for path in sorted((run.parent / "study").iterdir())]
    objects = sorted(run.glob("*.dcm"))
    assert [path.name.partition("-")[0] for path in objects] == ["rtstruct", "seg"]
    stored = [orthanc.put(path) for path in objects]
    assert {one["ParentStudy"] for one in stored} == {one["ParentStudy"] for one in originals}
    assert len({one["ParentSeries"] for one in [*stored, *originals]}) == 3
    for one, path in zip(stored, objects, strict=True):
        assert orthanc.ask(f"/instances/{one['ID']}/file") == path.read_bytes()


def test_a_report_of_originals_that_are_gone_tells_no_path(run: Path) -> None:
    [seg] = run.glob("seg-*.dcm")
    content = seg.read_bytes()
    next((run.parent / "study").iterdir()).unlink()
    [report] = write_reports(read_record(run), run, load_writers(["dicom-seg"]))
    [reason] = report.omitted.values()
    assert str(run.parent) not in reason + report.error
    assert seg.read_bytes() == content  # that of the run
