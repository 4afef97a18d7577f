"""A series of 384 slices from its files to a plan, beside SimpleITK's series reader and dcm2niix.

    python series_scan.py [FOLDER]

Without a folder, 384 files of 512 × 512 px of CT are made. Each tool runs in a process of its own, from the start of
the interpreter on, in turns; the least of five times counts, and the most memory. Processor time is that of all
processes of a tool, which a busy machine changes less than the time on the clock. limner scans and plans (model none),
for which it reads every header and the pixels of up to 25 slices; SimpleITK sorts the files of the series (GDCM) and
reads all pixels; dcm2niix writes an uncompressed NIfTI. Memory is the most that the processes of a tool hold together
(proportional set size). Files are in the system's cache. A tool that is not installed is left out: pip install
SimpleITK dcm2niix.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

COUNT, SIDE, ROUNDS = 384, 512, 5
CT = "1.2.840.10008.5.1.4.1.1.2"

LIMNER = "import sys, limner; print(len(limner.plan(sys.argv[1], model='none').images[0].regions), 'slices')"
SIMPLE_ITK = """
import sys, os, SimpleITK as sitk
folder = sys.argv[1]
reader = sitk.ImageSeriesReader()
found = [(series, name) for name, _, _ in os.walk(folder) for series in reader.GetGDCMSeriesIDs(name)]
reader.SetFileNames(reader.GetGDCMSeriesFileNames(found[0][1], found[0][0]))
print(reader.Execute().GetSize()[2], "slices")
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a tool took."""

    seconds: float
    processor: float
    """Seconds of all its processes."""
    megabytes: float


def make_series(folder: Path) -> Path:
    """Files of one CT series in shuffled order, with a window, HU and places."""
    chance = np.random.default_rng(7)
    study, series, frame = generate_uid(entropy_srcs=["a"]), generate_uid(entropy_srcs=["b"]), generate_uid()
    base = chance.integers(-1000, 1500, (SIDE, SIDE), dtype=np.int16)
    for name, number in enumerate(chance.permutation(COUNT).tolist()):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, UID(CT)
        data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = CT, generate_uid()
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
        meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.Modality, data.ImageType, data.InstanceNumber = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], number + 1
        data.PatientName, data.PatientID, data.SeriesNumber = "bench", "bench", 1
        data.StudyDate = data.SeriesDate = data.AcquisitionDate = "20200101"
        data.StudyTime = data.SeriesTime = data.AcquisitionTime = "100000"
        data.Rows = data.Columns = SIDE
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 1
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, 0, "HU"
        data.WindowCenter, data.WindowWidth = 40, 400
        data.PixelSpacing, data.SliceThickness = [0.75, 0.75], 1.25
        data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-192, -192, 1.25 * number]
        data.PixelData = (base + np.int16(number)).tobytes()
        data.save_as(folder / f"{name:04}.dcm")
    return folder


def held(pid: int) -> float:
    """The proportional set size in MiB of a process and its children."""
    total = 0.0
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        total += sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(held(int(child)) for child in (task / "children").read_text(encoding="ascii").split())
    except (OSError, ValueError):
        pass
    return total


def measure(command: list[str]) -> Cost:
    """Run a command to its end, twice: once for its time, once watched for its memory."""
    start, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, capture_output=True)
    seconds, after = time.perf_counter() - start, os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    most = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            most = max(most, held(process.pid))
            time.sleep(0.01)
    return Cost(seconds, processor, most)


def commands(folder: Path, out: Path) -> dict[str, list[str]]:
    """Name of a tool that is installed → its command."""
    found = {"limner": [sys.executable, "-c", LIMNER, str(folder)]}
    if importlib.util.find_spec("SimpleITK"):
        found["SimpleITK"] = [sys.executable, "-c", SIMPLE_ITK, str(folder)]
    if binary := shutil.which("dcm2niix", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])):
        found["dcm2niix"] = [binary, "-b", "n", "-z", "n", "-w", "1", "-o", str(out), str(folder)]
    return found


def main() -> None:
    """Print a row per tool."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    given = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as room:
        out = Path(room) / "out"
        out.mkdir()
        if given is None:
            (Path(room) / "series").mkdir()
        folder = given or make_series(Path(room) / "series")
        tools = commands(folder, out)
        for command in tools.values():  # files and libraries are read into the system's cache
            subprocess.run(command, check=True, capture_output=True)
        costs = [{name: measure(command) for name, command in tools.items()} for _ in range(ROUNDS)]
        first = pydicom.dcmread(next(path for path in folder.rglob("*") if path.is_file()), stop_before_pixels=True)
        lines = [f"{first.Columns} × {first.Rows} px, {sum(one.is_file() for one in folder.rglob('*'))} files", ""]
        lines += [
            "| tool | seconds | processor, s | of limner's | MiB |",
            "| --- | --- | --- | --- | --- |",
        ]
        base = min(one["limner"].processor for one in costs)
        for name in tools:
            seconds, processor = (min(getattr(one[name], key) for one in costs) for key in ("seconds", "processor"))
            most = max(one[name].megabytes for one in costs)
            lines.append(f"| {name} | {seconds:.2f} | {processor:.2f} | {processor / base:.2f} | {most:.0f} |")
        sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
