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
from scipy import ndimage

OBLIQUE = (0.96, 0.28, 0.0, -0.28, 0.96, 0.0)


@pytest.mark.slow
def test_a_volume_has_the_same_voxels_and_ml_in_all_objects(
    making: ModuleType, make_nnunet: Callable[..., Path], tmp_path: Path
) -> None:
    shape, spacing, step = (9, 20, 16), (1.1, 0.9), 1.3
    noise = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=shape), 1.5)
    bright = np.where(noise > 0.02, 400, -400).astype(np.int16)
    slices = [
        making.image(
            pixels,
            number=number + 1,
            PatientName="Doe^Jane",
            PatientID="7",
            ImagePositionPatient=[-5.0, 4.0, 10.0 + step * number],
            ImageOrientationPatient=list(OBLIQUE),
            PixelSpacing=list(spacing),
            RescaleSlope=1,
            RescaleIntercept=0,
        )
        for number, pixels in enumerate(bright)
    ]
    study = making.save_all(slices, tmp_path / "study", order=[4, 2, 7, 0, 8, 1, 3, 6, 5])
    out = tmp_path / "run"
    reports = ["dicom-rtstruct", "dicom-seg", "nifti"]
    limner.run(str(study), model=f"volume:{make_nnunet(tmp_path / 'model')}", out=str(out), reports=reports)
    [labels], [seg], [structures] = (
        list(out.glob(name)) for name in ("labels-*.nii.gz", "seg-*.dcm", "rtstruct-*.dcm")
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
    mm3 = np.count_nonzero(values) * spacing[0] * spacing[1] * step
    assert area * step == pytest.approx(mm3, rel=1e-4)
