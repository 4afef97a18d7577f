"""A volume model from the command line: plan, run with workers, and the numbers that come out."""

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_nnunet: Callable[..., Path]) -> Path:
    """A folder of nnU-Net that labels what is brighter than 100 HU."""
    return make_nnunet(tmp_path_factory.mktemp("model") / "Dataset001_Bright")


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory, making: ModuleType) -> tuple[Path, Any]:
    """Two stacks of CT with voxels of 1 mm, and their values (slices, rows, columns) in HU."""
    folder = tmp_path_factory.mktemp("studies")
    values = np.random.default_rng(5).integers(-500, 500, (2, 12, 16, 14)).astype(np.int16)
    for number, voxels in enumerate(values):
        images = making.slices(12, step=1.0, PixelSpacing=[1.0, 1.0], SeriesInstanceUID=making.uid(20 + number))
        for k, one in enumerate(images):
            one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = making.uid(5000 + 100 * number + k)
            one.Rows, one.Columns = voxels[k].shape
            one.PixelData = (voxels[k] + 1024).astype(np.int16).tobytes()
        making.save_all(images, folder / str(number))
    return folder, values


def limner(*words: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "limner", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_run_with_workers_labels_every_voxel(tmp_path: Path, model: Path, stacks: tuple[Path, Any]) -> None:
    folder, values = stacks
    out = tmp_path / "out"
    text = limner("run", folder, "--model", f"volume:{model}", "--engine", "local", "--workers", 2, "--out", out)
    with (out / "structures.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["bright"] * 2
    maps = sorted(out.glob("labels-*.nii.gz"))
    for row, path, voxels in zip(rows, maps, values, strict=True):
        bright = voxels > 100
        image: Any = nibabel.load(path)
        assert np.array_equal(np.asarray(image.dataobj), bright.transpose(2, 1, 0))
        assert float(row["volume_ml"]) == pytest.approx(np.count_nonzero(bright) / 1000)
        assert f"{np.count_nonzero(bright) / 1000:.3g} ml" in text
    alone = tmp_path / "alone"
    limner("run", folder, "--model", f"volume:{model}", "--out", alone, "--reports", "structures-csv,findings-csv")
    places = ("volume_ml", "voxels", "x_mm", "y_mm", "z_mm")
    with (alone / "structures.csv").open(encoding="utf-8", newline="") as file:
        assert [[row[name] for name in places] for row in csv.DictReader(file)] == [
            [row[name] for name in places] for row in rows
        ]


def test_a_plan_times_a_whole_stack(model: Path, stacks: tuple[Path, Any]) -> None:
    text = limner("plan", stacks[0], "--model", f"volume:{model}")
    assert "analysed as  one volume of 12 slices, with voxels of 1 × 1 × 1 mm" in text
    assert "stacks to analyse    2" in text
    assert "extrapolated from the stack" in text
    assert "on one stack" in text


def test_shifted_tiles_are_not_for_volumes(model: Path, stacks: tuple[Path, Any]) -> None:
    command = [sys.executable, "-m", "limner", "check", "seams", stacks[0], "--model", f"volume:{model}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "must get whole stacks of slices" in done.stderr
    assert "Traceback" not in done.stderr
