"""Probabilities of whole runs: those of the network at each analysed pixel, in all formats the same."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import rasterio
import tifffile
from limner.model.probabilities import NODATA, STEPS
from limner.pipelines.run.reporting import load_writers, read_record, write_reports
from scipy import ndimage

Limner = Callable[..., Any]  # of conftest, which tests cannot import
SAME_NAMES = "0123456789abcdef0123456789abcdef"


def expected(pixels: npt.NDArray[np.uint16], mean: float, std: float) -> npt.NDArray[np.float64]:
    """The toy network's probabilities of "bright" and "ridge" of a band, without what borders change."""
    values = (pixels.astype(np.float64) - mean) / std
    ridge = ndimage.convolve(values, np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]]))
    logits = np.stack([-values, values, ridge])
    shares = np.exp(logits - logits.max(axis=0))
    return (shares / shares.sum(axis=0))[1:]


@pytest.mark.parametrize(
    "words",
    [(), ("--hd-num", "1"), ("--labels", "ridge"), ("--set", "model_options.blend=true")],
    ids=["one region", "a region for each tile", "one label", "blended"],
)
def test_a_map_has_the_probabilities_of_its_network(
    tmp_path: Path, scene: Path, card: Path, limner: Limner, words: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    asked = ("--probabilities", "--reports", "probabilities,class-map")
    said = limner("run", scene, "--model", card, "--out", out, *asked, *words)
    assert said.code == 0, said.err
    with rasterio.open(scene) as raster:
        pixels = raster.read(1)
    with rasterio.open(out / "probabilities-scene.tif") as raster:
        steps, names = raster.read(), raster.descriptions
        assert raster.transform == rasterio.Affine(10.0, 0.0, 500000.0, 0.0, -10.0, 5200000.0)
        assert raster.scales == (1 / STEPS,) * len(names)
        assert raster.tags()["USE"].startswith("Research use only")
    labels = ("ridge",) if "ridge" in words else ("bright", "ridge")
    assert names == labels
    y, x = np.mgrid[:110, :150]
    assert ((steps == NODATA) == ((x < 40) & (y < 40))).all()
    inner = (slice(45, 105), slice(45, 145))  # where neither a border nor filled pixels are near
    shares = expected(pixels, 1000, 256)[-len(labels) :]
    off = np.abs(steps[:, *inner] / STEPS - shares[:, *inner])
    assert off.max() < (0.01 if "model_options.blend=true" in words else 0.5 / STEPS + 1e-5)  # edges of tiles count
    assert off.mean() < 0.3 / STEPS
    with rasterio.open(out / "classes-scene.tif") as raster:
        classes = raster.read(1)
    if len(labels) == 2:
        ground = STEPS - steps.astype(int).sum(axis=0)
        shares = np.concatenate([ground[None], steps])[:, classes != NODATA]
        chosen = np.take_along_axis(shares, classes[classes != NODATA][None], axis=0)
        assert (chosen >= shares.max(axis=0) - 2).all()


def test_probabilities_are_the_same_for_any_engine(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    asked = ("--probabilities", "--reports", "probabilities", "--hd-num", "1")
    for name, engine in {"a": "inline", "b": "local"}.items():
        said = limner("run", scene, "--model", card, "--out", tmp_path / name, "--engine", engine, *asked)
        assert said.code == 0, said.err
    a, b = (tmp_path / name / "probabilities-scene.tif" for name in "ab")
    assert a.read_bytes() == b.read_bytes()


def test_what_was_not_kept_is_not_reported(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    out, run = tmp_path / "out", ("run", scene, "--out", tmp_path / "out")
    said = limner(*run, "--model", card, "--reports", "probabilities")
    assert said.code == 2
    assert "--reports must come with --probabilities.\n  found:  probabilities\n  try:    Add" in said.err
    said = limner(*run, "--model", "none", "--probabilities")
    assert said.code == 2
    assert "--probabilities must come with a model that scores every pixel.\n  found:  none\n" in said.err
    assert not out.exists()
    assert limner(*run, "--model", card, "--reports", "findings-csv").code == 0
    said = limner("report", out, "--reports", "probabilities")
    assert "the run kept no probabilities: run again into another folder with --probabilities" in said.err + said.out
    assert not list(out.glob("probabilities-*"))
    said = limner(*run, "--model", card, "--probabilities")
    assert said.code == 2
    assert "must not hold another run.\n  found:  probabilities: False there, True now\n" in said.err


def test_a_slide_has_an_ome_tiff_with_a_channel_for_each_label(
    tmp_path: Path, make_slide: Callable[..., Path], slide_card: Callable[[Path], Path], limner: Limner
) -> None:
    slide, out = make_slide(tmp_path / "slide.tif"), tmp_path / "out"
    asked = ("--names", "show", "--probabilities", "--reports", "probabilities,class-map")
    said = limner("run", slide, "--model", slide_card(tmp_path), "--out", out, *asked)
    assert said.code == 0, said.err
    [path], [classes_path] = out.glob("probabilities-*.ome.tif"), out.glob("classes-*.ome.tif")
    with tifffile.TiffFile(path) as file:
        steps = file.asarray()
        pixels = tifffile.xml2dict(file.ome_metadata or "")["OME"]["Image"]["Pixels"]
    classes = tifffile.imread(classes_path)
    assert [one["Name"] for one in pixels["Channel"]] == ["bright", "ridge"]
    assert float(pixels["PhysicalSizeX"]) == float(pixels["PhysicalSizeY"]) == 1.0
    assert (((steps == NODATA).all(axis=0)) == (classes == NODATA)).all()
    for number, (own, other) in enumerate([(0, 1), (1, 0)], 1):
        there = classes == number
        assert there.sum() > 100
        assert (steps[own][there] >= steps[other][there]).all()


SHAPE, SPACING, STEP = (9, 20, 16), (1.1, 0.9), 1.3


def values() -> npt.NDArray[np.int16]:
    """Values (slices, rows, columns) around 100, at which the network is undecided."""
    noise = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=SHAPE), 1.5)
    return (100 + 60 * noise / np.abs(noise).max()).astype(np.int16)


@pytest.fixture
def volume(tmp_path: Path, making: ModuleType, make_nnunet: Callable[..., Path], monkeypatch: Any) -> tuple[Any, ...]:
    """The words to run a volume model on an oblique stack, into the folder `run`."""
    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", SAME_NAMES)
    slices = [
        making.image(
            pixels,
            number=number + 1,
            PatientName="Doe^Jane",
            PatientID="7",
            ImagePositionPatient=[-5.0, 4.0, 10.0 + STEP * number],
            ImageOrientationPatient=[0.96, 0.28, 0.0, -0.28, 0.96, 0.0],
            PixelSpacing=list(SPACING),
            RescaleSlope=1,
            RescaleIntercept=0,
        )
        for number, pixels in enumerate(values())
    ]
    study = making.save_all(slices, tmp_path / "study", order=[4, 2, 7, 0, 8, 1, 3, 6, 5])
    model = f"volume:{make_nnunet(tmp_path / 'model')}"
    return "run", study, "--model", model, "--out", tmp_path / "run", "--probabilities"


@pytest.fixture
def volume_run(volume: tuple[Any, ...], tmp_path: Path, limner: Limner) -> Path:
    """The folder of that run."""
    reports = ("--reports", "probabilities,nifti,dicom-seg", "--set", "report_options.dicom-seg.type=fractional")
    said = limner(*volume, *reports)
    assert said.code == 0, said.err
    return tmp_path / "run"


def on_voxels(volume: Any, nifti: Any) -> npt.NDArray[np.float32]:
    """The values of a volume of highdicom at the voxels of a NIfTI file that lie at the same places in the patient."""
    voxels = np.argwhere(volume.array[..., 0] > 0)
    places = volume.map_indices_to_reference(voxels) * [-1, -1, 1]
    indices = np.append(places, np.ones((len(places), 1)), axis=1) @ np.linalg.inv(nifti.affine).T
    assert np.abs(indices - np.rint(indices)).max() < 1e-3
    seen = np.zeros(nifti.shape, np.float32)
    seen[tuple(np.rint(indices[:, :3]).astype(int).T)] = volume.array[(*voxels.T, 0)]
    return seen


def test_a_study_has_its_probabilities_as_nifti_and_as_a_fractional_segmentation(volume_run: Path) -> None:
    from highdicom.seg import segread

    [labels], [shares_path], [segmentation] = (
        list(volume_run.glob(name)) for name in ("labels-*.nii.gz", "probabilities-*.nii.gz", "*.dcm")
    )
    assert segmentation.name.startswith("seg-fractional-")
    label_map: Any = nibabel.load(labels)  # type: ignore[attr-defined]
    nifti: Any = nibabel.load(shares_path)  # type: ignore[attr-defined]
    shares = np.asarray(nifti.dataobj)
    assert (nifti.affine == label_map.affine).all()
    assert shares.dtype == np.float32
    found = np.asarray(label_map.dataobj)
    assert 100 < (found == 1).sum() < found.size - 100
    assert len(np.unique(shares)) > 20  # no mask
    assert (shares[found == 1] >= 0.5 - 0.5 / STEPS).all()
    assert (shares[found == 0] <= 0.5 + 0.5 / STEPS).all()

    dataset = pydicom.dcmread(segmentation)
    assert (dataset.SegmentationType, dataset.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    assert (dataset.BitsAllocated, dataset.MaximumFractionalValue) == (8, STEPS)
    volume = segread(segmentation).get_volume(rescale_fractional=True)
    assert on_voxels(volume, nifti) == pytest.approx(shares, abs=1e-6)


def test_voxels_outside_of_the_region_of_interest_have_no_probability(
    volume: tuple[Any, ...], tmp_path: Path, limner: Limner
) -> None:
    ring = [[0, 0], [6, 0], [6, 20], [0, 20], [0, 0]]
    (tmp_path / "left.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}), encoding="utf-8")
    said = limner(*volume, "--area", tmp_path / "left.geojson", "--reports", "probabilities")
    assert said.code == 0, said.err
    [path] = (tmp_path / "run").glob("probabilities-*.nii.gz")
    nifti: Any = nibabel.load(path)  # type: ignore[attr-defined]
    known = np.isfinite(np.asarray(nifti.dataobj))
    assert known[:6].all()
    assert not known[6:].any()


def test_dciodvfy_finds_no_error_of_ours(volume_run: Path) -> None:
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy of Debian's dicom3tools is not installed")

    def errors(path: Path) -> set[str]:
        done = subprocess.run([program, str(path)], capture_output=True, text=True, check=False)
        return {line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")}

    [segmentation] = volume_run.glob("*.dcm")
    assert errors(segmentation) <= errors(next((volume_run.parent / "study").iterdir()))


def test_masks_and_probabilities_are_different_objects(volume_run: Path) -> None:
    record = read_record(volume_run)
    for kind in ("binary", "fractional"):
        [written] = write_reports(record, volume_run, load_writers(["dicom-seg"], {"dicom-seg.type": kind}))
        assert not written.error
    objects = [pydicom.dcmread(path) for path in volume_run.glob("seg-*.dcm")]
    assert {one.SegmentationType for one in objects} == {"BINARY", "FRACTIONAL"}
    for name in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert len({one[name].value for one in objects}) == 2


def test_slices_seen_reduced_keep_their_corners(
    tmp_path: Path, making: ModuleType, zoo_folder: Callable[[str], Path], limner: Limner, monkeypatch: Any
) -> None:
    from highdicom.seg import segread

    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", SAME_NAMES)
    rows, columns, step = 96, 144, 2.5
    stack = [
        making.image(
            making.ramp(rows, columns, add=700 * number),
            number=number + 1,
            ImagePositionPatient=[-10.0, -20.0, 30.0 + step * number],
            ImageOrientationPatient=list(making.AXIAL),
            PixelSpacing=[0.5, 0.75],
        )
        for number in range(4)
    ]
    study, model = making.save_all(stack, tmp_path / "study", order=[2, 0, 3, 1]), zoo_folder("segformer")
    asked = ("--probabilities", "--whole", "--hd-num", "1", "--reports", "probabilities,dicom-seg")
    fractional = ("--set", "report_options.dicom-seg.type=fractional")
    words = ("run", study, "--model", f"transformers:{model}", "--out", tmp_path / "run", *asked, *fractional)
    said = limner(*words)
    assert said.code == 0, said.err
    paths = sorted((tmp_path / "run").glob("probabilities-*.nii.gz"))
    nifti: list[Any] = [nibabel.load(path) for path in paths]  # type: ignore[attr-defined]
    assert nifti[0].shape[0] < columns
    corner = nifti[0].affine @ [-0.5, -0.5, 0, 1] * [-1, -1, 1, 1]
    assert corner[:3] == pytest.approx([-10 - 0.75 / 2, -20 - 0.5 / 2, 30], abs=1e-4)
    [segmentation] = (tmp_path / "run").glob("seg-*.dcm")
    read = segread(segmentation)
    assert 1 <= len(read.SegmentSequence) <= len(paths)
    for segment in read.SegmentSequence:
        [shares] = [one for one, path in zip(nifti, paths, strict=True) if f"-{segment.SegmentLabel}" in path.name]
        volume = read.get_volume(segment_numbers=[segment.SegmentNumber], rescale_fractional=True)
        assert on_voxels(volume, shares) == pytest.approx(np.asarray(shares.dataobj), abs=1e-6)
