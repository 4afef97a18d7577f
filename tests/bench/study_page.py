"""What the page of a study costs: seconds, megabytes of the page, and milliseconds until Chromium has laid it out.

A made CT study of 384 slices of 512 × 512 px is run without a model; then made findings, boxes of three labels with a
short text each, are written as the report "study-html" alone. With Chromium on the machine, the page is printed to PDF.

    python tests/bench/study_page.py [--slices 384] [--findings 0 100 10000] [--listed 1000 10000]
"""

import argparse
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import shapely
from limner.model.finding import Finding
from limner.pipelines.api import run
from limner.pipelines.run.reporting import read_record
from limner.reports.html.study import StudyHtml, StudyHtmlOptions
from limner.reports.writer import Record
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SIDE = 512
LABELS = ("nodule", "cyst", "opacity")
CHROMIUM = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-pdf-header-footer")


def write_study(folder: Path, slices: int) -> None:
    """A stack with noise and a disc, so that pictures compress about as well as real ones."""
    random = np.random.default_rng(1)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    study, series = (generate_uid(entropy_srcs=[text]) for text in ("study", "series"))
    for k in range(slices):
        disc = np.hypot(x - 256, y - 256) < 200 - abs(k - slices / 2) / slices * 200
        pixels = np.where(disc, 40, -1000) + random.normal(0, 20, (SIDE, SIDE))
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(k)])
        data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = study, series, "CT"
        data.ImagePositionPatient, data.ImageOrientationPatient = [-180.0, -180.0, float(k)], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.InstanceNumber, data.PatientPosition = [0.7, 0.7], k + 1, "HFS"
        data.Rows = data.Columns = SIDE
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 15, 1, 1
        data.PhotometricInterpretation, data.RescaleSlope, data.RescaleIntercept = "MONOCHROME2", 1, 0
        data.WindowCenter, data.WindowWidth = 40, 400
        data.PixelData = pixels.astype("<i2").tobytes()
        data.save_as(folder / f"{k:04d}.dcm", enforce_file_format=True)


def with_findings(record: Record, count: int) -> Record:
    """The record with made findings in place of its own."""
    random = np.random.default_rng(2)
    (image,) = record.images
    findings: list[Finding] = []
    for plane in np.sort(random.integers(0, len(image.info.planes), count)).tolist():
        x, y, side = random.uniform(100, 380), random.uniform(100, 380), random.uniform(4, 40)
        label = LABELS[int(random.integers(3))]
        shape = shapely.box(x, y, x + side, y + side)
        findings.append(Finding(label, shape, "box", float(random.uniform()), "A rounded opacity.", plane=plane))
    model = {"name": "made", "version": "1", "sha256": "0" * 64}
    made = replace(image, findings=lambda: findings)
    return replace(record, images=(made,), labels=LABELS, model=model, assessed=True)


def main(words: Sequence[str] | None = None) -> None:
    """Print a row for each number of findings and of those that are listed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=384)
    parser.add_argument("--findings", type=int, nargs="+", default=[0, 100, 10_000])
    parser.add_argument("--listed", type=int, nargs="+", default=[1000, 10_000])
    asked = parser.parse_args(words)
    chromium = shutil.which("chromium")
    print("| findings | listed | seconds | of this process | MB | printing, s |\n| --- | --- | --- | --- | --- | --- |")  # noqa: T201
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        (place / "ct").mkdir()
        write_study(place / "ct", asked.slices)
        run(place / "ct", out=place / "run", model="none", reports="files-csv")
        record = read_record(place / "run")
        cases = [(count, most) for count in asked.findings for most in asked.listed if most <= max(1000, count)]
        for count, most in cases:
            made, out = with_findings(record, count), place / f"{count}-{most}"
            out.mkdir()
            started, own = time.perf_counter(), time.process_time()
            (page,) = StudyHtml(StudyHtmlOptions(findings=most)).write(made, out)
            seconds, own = time.perf_counter() - started, time.process_time() - own
            printed = ""
            if chromium:
                started = time.perf_counter()
                command = [
                    chromium,
                    *CHROMIUM,
                    f"--user-data-dir={place / 'profile'}",
                    f"--print-to-pdf={out / 'p.pdf'}",
                ]
                subprocess.run([*command, page.as_uri()], check=True, capture_output=True)
                printed = f"{time.perf_counter() - started:.1f}"
            megabytes = page.stat().st_size / 1e6
            print(f"| {count:,} | {min(most, count):,} | {seconds:.1f} | {own:.1f} | {megabytes:.1f} | {printed} |")  # noqa: T201


if __name__ == "__main__":
    main()
