"""Label maps compared with reference masks: Dice, surface distances, and the grids that are refused."""

import csv
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import pytest
from limner.model.volume.orientation import closest_axes, directions
from limner.model.volume.volume import volume_affine
from limner.readers.contract import scan_with
from limner.readers.dicom.reader import DicomReader
from limner.readers.errors import RequestError
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo, Plane
from limner.reports.reference import ReferenceCsv, compare, match_references
from limner.reports.writer import Area, ImageRecord, Record

SHAPE = (5, 8, 6)  # slices, rows, columns
OBLIQUE = np.array([[0.8, -0.36], [0.6, 0.48], [0.0, -0.8]])  # directions of a row and a column


def stack(name: str = "ct", *, step: float = 2.5, shift: float = 0.0) -> ImageInfo:
    normal = np.cross(OBLIQUE[:, 0], OBLIQUE[:, 1])
    planes = []
    for number in range(SHAPE[0]):
        corner = np.array([-10.0 + shift, 20.0, 30.0]) + normal * step * number
        matrix = np.column_stack([OBLIQUE * [0.75, 0.5], corner])
        placement = Placement(tuple(map(tuple, matrix.tolist())), "mm")  # pyright: ignore[reportArgumentType]
        planes.append(Plane(placement, "file", 1, str(number)))
    grey = (Channel("grey", dtype="float32", quantity="HU"),)
    return ImageInfo(
        "uri", "dicom", (SHAPE[2], SHAPE[1]), grey, planes[0].placement, id=name, planes=tuple(planes), kind="study"
    )


def affine_ras(info: ImageInfo) -> Any:
    """The affine (4, 4) of voxel (column, row, slice) → RAS, from the placements of the first and the last slice."""
    first, last = (np.array(plane.placement.matrix) for plane in (info.planes[0], info.planes[-1]))
    centre = first[:, 2] + first[:, :2].sum(axis=1) / 2
    step = (last[:, 2] - first[:, 2]) / (len(info.planes) - 1)
    affine = np.eye(4)
    affine[:3] = np.column_stack([first[:, 0], first[:, 1], step, centre])
    return np.diag([-1, -1, 1, 1]) @ affine


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    def write(labels: Any, affine: Any, name: str = "mask.nii.gz") -> str:
        image = nibabel.Nifti1Image(labels, affine)
        image.set_sform(affine, code=1)
        nibabel.save(image, tmp_path / name)
        return str(tmp_path / name)

    return write


@pytest.fixture
def labels() -> Any:
    """(slices, rows, columns) with two structures."""
    found = np.zeros(SHAPE, np.uint8)
    found[1:4, 2:6, 1:4] = 1
    found[4, 0, 5] = 2
    return found


def record(info: ImageInfo, maps: Any) -> Record:
    areas = (Area("analysed", "", 1.0, None, 1),)
    image = ImageRecord(info, list, lambda: None, areas, label_maps=lambda: iter(maps))
    return Record((image,), (), {"name": "model"}, ("one", "two"), "0")


@pytest.mark.parametrize("order", [(2, 1, 0), (0, 1, 2), (1, 2, 0)])
@pytest.mark.parametrize("flip", [(), (0,), (0, 1, 2)])
def test_a_reference_may_have_its_axes_in_any_order(
    tmp_path: Path, save: Callable[..., str], labels: Any, order: tuple[int, int, int], flip: tuple[int, ...]
) -> None:
    """The same voxels, permuted and flipped as other programs write them."""
    info = stack()
    straight = affine_ras(info)[:, [2, 1, 0, 3]]  # of (slice, row, column)
    affine, turned = straight[:, [*order, 3]], labels.transpose(order)
    for axis in flip:
        turned = np.flip(turned, axis)
        affine[:, 3] += affine[:, axis] * (turned.shape[axis] - 1)
        affine[:, axis] *= -1
    path = save(np.ascontiguousarray(turned), affine)
    assert match_references([path], [stack("other", shift=1.0), info]) == {"ct": path}
    table = ReferenceCsv({"ct": path}).write(record(info, labels), tmp_path)[0]
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["label"], row["dice"], row["hausdorff_mm"]) for row in rows] == [
        ("one", "1.000000", "0.000"),
        ("two", "1.000000", "0.000"),
    ]
    assert float(rows[0]["reference_ml"]) == pytest.approx(36 * 0.75 * 0.5 * 2.5 / 1000, abs=5e-4)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="needs dcm2niix")
@pytest.mark.parametrize("orientation", ["AXIAL", "SAGITTAL", "OBLIQUE"])
def test_a_volume_that_dcm2niix_has_made_lies_where_the_stack_does(
    tmp_path: Path, making: ModuleType, orientation: str
) -> None:
    """Its voxels, turned, are those of the slices; so a mask that was drawn on it can be a reference."""
    axes = OBLIQUE.T.ravel().tolist() if orientation == "OBLIQUE" else getattr(making, orientation)
    images = making.slices(7, orientation=axes, PixelSpacing=[0.5, 0.75], PatientPosition="HFS", Manufacturer="SIEMENS")
    folder = making.save_all(images, tmp_path / "ct", order=[4, 1, 0, 6, 3, 5, 2])
    subprocess.run(["dcm2niix", "-z", "y", "-o", tmp_path, folder], check=True, capture_output=True)  # noqa: S607
    (path,) = map(str, tmp_path.glob("*.nii.gz"))
    [info] = scan_with(DicomReader(), str(folder), {"names": "show"})
    assert match_references([path], [info]) == {info.id: path}
    turn = closest_axes(np.diag([-1.0, -1.0, 1.0]) @ nibabel.load(path).affine[:3], directions(volume_affine(info)))  # pyright: ignore[reportAttributeAccessIssue]
    voxels = turn.apply(np.asarray(nibabel.load(path).dataobj))  # pyright: ignore[reportAttributeAccessIssue]
    with DicomReader().open(info) as image:
        for plane, one in enumerate(voxels):
            assert np.array_equal(image.read(info.box, info.size, plane)[0][..., 0], one)


def test_distances_are_those_of_all_pairs_of_surface_voxels() -> None:
    """By comparing every voxel of one surface with every voxel of the other."""
    random = np.random.default_rng(3)
    spacing = np.array([2.5, 0.5, 0.75])
    for _ in range(20):
        found, reference = (random.random(SHAPE) < share for share in (0.1, 0.3))
        if not (found.any() and reference.any()):
            continue
        surfaces = []
        for mask in (found, reference):
            padded = np.pad(mask, 1)
            hidden = np.ones(SHAPE, dtype=bool)
            for axis in range(3):
                for step in (-1, 1):
                    hidden &= np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
            surfaces.append(np.argwhere(mask & ~hidden) * spacing)
        apart = np.linalg.norm(surfaces[0][:, None] - surfaces[1][None], axis=2)
        there, back = apart.min(axis=1), apart.min(axis=0)
        got = compare(found, reference, spacing.tolist())
        assert got.dice == pytest.approx(2 * (found & reference).sum() / (found.sum() + reference.sum()))
        assert got.mean_mm == pytest.approx(np.concatenate([there, back]).mean())
        assert got.p95_mm == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
        assert got.hausdorff_mm == pytest.approx(max(there.max(), back.max()))


def test_nothing_on_one_side_or_both() -> None:
    some, none = np.ones(SHAPE, dtype=bool), np.zeros(SHAPE, dtype=bool)
    one, both = compare(some, none, (1, 1, 1)), compare(none, none, (1, 1, 1))
    assert (one.voxels, one.reference_voxels, one.dice) == (some.size, 0, 0.0)
    assert np.isnan([one.mean_mm, one.p95_mm, one.hausdorff_mm, both.dice, both.mean_mm]).all()


def test_references_of_other_grids_are_refused(save: Callable[..., str], labels: Any, tmp_path: Path) -> None:
    info = stack()
    voxels = labels.transpose(2, 1, 0)
    affine = affine_ras(info)
    elsewhere = affine.copy()
    elsewhere[0, 3] += 0.2
    coarse = affine @ np.diag([1, 1, 1.1, 1])
    others = {"short": (voxels[:, :, 1:], affine), "elsewhere": (voxels, elsewhere), "coarse": (voxels, coarse)}
    for name, (labels_there, place) in others.items():
        path = save(labels_there, place, f"{name}.nii.gz")
        with pytest.raises(RequestError, match=r"the grid of a stack, voxel for voxel .*ct 6 × 8 × 5"):
            match_references([path], [info])
    path = save(voxels, affine)
    twins = [info, replace(info, id="ct2")]
    with pytest.raises(RequestError, match=r"the grid of one stack only.*ct, ct2.*--reference ct="):
        match_references([path], twins)
    assert match_references([f"ct2={path}"], twins) == {"ct2": path}
    with pytest.raises(RequestError, match="must be one for each stack"):
        match_references([path, path], [info])
    with pytest.raises(RequestError, match=r"the grid of a stack.*stacks: none"):
        match_references([path], [])
    (tmp_path / "no.nii.gz").write_bytes(b"no")
    for other, why in (("no.nii.gz", "readable NIfTI"), ("none.nii", "readable NIfTI"), ("mask.nrrd", "a NIfTI file")):
        with pytest.raises(RequestError, match=why):
            match_references([str(tmp_path / other)], [info])
    unplaced = nibabel.Nifti1Image(voxels, None)
    nibabel.save(unplaced, tmp_path / "unplaced.nii")
    with pytest.raises(RequestError, match="must state its place"):
        match_references([str(tmp_path / "unplaced.nii")], [info])
    with pytest.raises(RequestError, match="three axes"):
        match_references([save(np.zeros((2, 2, 2, 3), np.uint8), affine)], [info])


@pytest.mark.parametrize("value", [3, -1, 0.5])
def test_numbers_that_are_no_labels_are_refused(
    tmp_path: Path, save: Callable[..., str], labels: Any, value: float
) -> None:
    info = stack()
    voxels = labels.transpose(2, 1, 0).astype(np.float32)
    voxels[0, 0, 0] = value
    path = save(voxels, affine_ras(info))
    with pytest.raises(RequestError, match="numbers of the run's labels, 0 to 2"):
        ReferenceCsv({"ct": path}).write(record(info, labels), tmp_path)
    assert not list(tmp_path.glob("*.csv"))
