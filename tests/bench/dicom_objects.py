"""DICOM objects of many studies, checked by dciodvfy: a table for docs/figures.md.

    python tests/bench/dicom_objects.py [--reports dicom-sr,dicom-seg] [FOLDER...]

It takes the test files that come with pydicom and nibabel, odd studies that it makes, and the given folders. A made
annotator finds a ring, two parts, a box with a score, and a text in every region. Errors are dciodvfy's (Debian's
dicom3tools); those that the source has as well are not the object's own.
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import limner
import nibabel
import numpy as np
import pydicom.data
from limner.pipelines.run.redaction import read_sources, restore_paths
from limner.readers.dicom.source import split_member
from limner.readers.errors import LimnerError

ANNOTATOR = '''
import numpy as np
from limner.model.annotator import Answer, InputSpec
from shapely import MultiPolygon, Point, box


class Shapes:
    """The same shapes in every region."""

    identity = {"name": "shapes", "version": "1"}
    labels = ("ring", "pair", "box", "picture", "never")
    colours = {}

    def input_spec(self, info):
        return InputSpec(tile=336)

    def check(self, specs):
        pass

    def load(self):
        pass

    def annotate(self, views):
        return [self._answers(view.keep_mask) for view in views]

    def _answers(self, keep):
        height, width = (int(np.flatnonzero(keep.any(axis=axis))[-1]) + 1 for axis in (1, 0))
        size, x, y = min(height, width), width / 2, height / 2
        ring = Point(x, y).buffer(0.3 * size).difference(Point(x, y).buffer(0.1 * size))
        pair = MultiPolygon([box(1, 1, 2, 2), box(3, 3, 4, 5)])
        return [
            Answer("ring", ring, "area", score=0.25),
            Answer("pair", pair, "area"),
            Answer("box", box(0.1 * width, 0.2 * height, 0.6 * width, 0.7 * height), "box", score=0.875),
            Answer("picture", None, "region", text="Größe < 5 mm & \\"rund\\""),
        ]
'''


DCIODVFY = shutil.which("dciodvfy") or ""

_PLACE = re.compile(r" in \(0x[0-9a-f]{4},0x[0-9a-f]{4}\).*")  # an invalid UID is the source's wherever it stands


def errors(path: Path) -> Counter[str]:
    """The errors that dciodvfy finds in a file."""
    done = subprocess.run([DCIODVFY, path], capture_output=True, check=False)
    lines = done.stderr.decode("utf-8", "replace").splitlines()
    return Counter(_PLACE.sub("", line) for line in lines if line.startswith("Error"))


def say(text: str, file: TextIO = sys.stdout) -> None:
    """Print a line."""
    file.write(f"{text}\n")
    file.flush()


def odd_studies(folder: Path) -> list[str]:
    """Studies that are odd in one way each; returns their folders."""
    path = Path(__file__).parents[1] / "readers" / "dicom" / "making.py"
    spec = importlib.util.spec_from_file_location("making", path)
    assert spec is not None
    assert spec.loader is not None
    making = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(making)
    side = {"WindowCenter": 2000, "WindowWidth": 6000}
    person = {"PatientName": "Grün^Jörg", "PatientID": "1", "SpecificCharacterSet": "ISO_IR 100"}
    greek = {"PatientName": "Διονυσιος", "SpecificCharacterSet": "ISO_IR 126"}
    japanese = {"PatientName": "Yamada^Tarou=山田^太郎", "SpecificCharacterSet": ["", "ISO 2022 IR 87"]}
    tilted = making.slices(5, **side)
    for number, one in enumerate(tilted):
        one.ImagePositionPatient = [-10.0, -20.0 + number, 30.0 + 2.5 * number]
    radiograph = making.image(making.ramp(40, 50), sop_class=making.CR)
    colour = np.random.default_rng(1).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    ultrasound = making.image(
        colour,
        sop_class="1.2.840.10008.5.1.4.1.1.6.1",
        Modality="US",
        SamplesPerPixel=3,
        PlanarConfiguration=0,
        PhotometricInterpretation="RGB",
        FrameOfReferenceUID=None,
    )
    made = {
        "plain": making.slices(5, **side),
        "tilted": tilted,
        "duplicates": [*(stack := making.slices(5, **side)), stack[2]],
        "empty-character-set": making.slices(3, SpecificCharacterSet="", **side),
        "enhanced": [making.enhanced([0.0, 3.0, 6.0], slopes=[1, 2, 3])],
        "no-spacing": [radiograph],
        "colour": [ultrasound],
        "latin": making.slices(3, **side, **person),
        "greek": making.slices(3, **side, **greek),
        "japanese": making.slices(3, **side, **japanese),
    }
    return [str(making.save_all(images, folder / name)) for name, images in made.items()]


def install(folder: Path) -> None:
    """Install the annotator, for this process and those that it starts."""
    (folder / "shapes_plugin.py").write_text(ANNOTATOR, encoding="utf-8")
    about = folder / "shapes_plugin-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shapes-plugin\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[limner.annotators]\nshapes = shapes_plugin:Shapes\n")
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = str(folder)


def check(inputs: Sequence[str], out: Path, reports: Sequence[str]) -> Counter[str]:
    """Run, check every object, and print a row for each study; returns totals."""
    run = limner.run(list(inputs), model="shapes", out=str(out), reports=list(reports))
    totals: Counter[str] = Counter()
    sources = read_sources(out)
    grouped: dict[str, list[str]] = {}
    own: dict[str, Counter[str]] = {}
    for image in run.record.images:
        study = image.info.id.partition("-")[0]
        grouped.setdefault(study, []).append(image.info.id)
        for name in sorted({plane.source for plane in restore_paths(image.info, sources).planes})[:5]:
            path, member = split_member(name)
            if member:
                content, path = zipfile.ZipFile(path).read(member), out / "source.bin"
                path.write_bytes(content)
            own.setdefault(study, Counter()).update(errors(path))
    reasons = {name: why for report in run.reports for name, why in report.omitted.items()}
    for study, images in grouped.items():
        cells: list[str] = []
        for report in reports:
            kind = report.removeprefix("dicom-")
            objects = [*out.glob(f"{kind}-{study}.dcm"), *out.glob(f"{kind}-{study}-*.dcm")]
            found = [line for path in objects for line in errors(path)]
            new = [line for line in found if line not in own[study]]
            totals.update({f"{kind} objects": len(objects), f"{kind} errors not in the source": len(new)})
            cells.append(f"{len(objects)}: {len(found)}, {len(new)}")
            for line in new:
                say(f"  {study} {kind}: {line}", sys.stderr)
        totals["studies"] += 1
        why = "; ".join(sorted({reasons[name] for name in images if name in reasons}))
        kinds = ", ".join(f"{name.partition('-')[2]}" for name in images[:4]) + (" …" if len(images) > 4 else "")
        place = Path(inputs[0]).name
        say(f"| {place}, {study} | {kinds} | {len(own[study])} | {' | '.join(cells)} | {why} |")
    for report in run.reports:
        if report.error:
            say(f"  {report.writer}: {report.error}", sys.stderr)
    return totals


def main() -> None:
    """Check all inputs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", default="dicom-sr,dicom-ko,dicom-sc,dicom-seg,dicom-rtstruct")
    parser.add_argument("--keep", help="a folder for the runs")
    parser.add_argument("inputs", nargs="*")
    given = parser.parse_args()
    if not DCIODVFY:
        say("dciodvfy is not installed: Debian has it in the package dicom3tools")
        return
    reports = given.reports.split(",")
    warnings.simplefilter("ignore")
    say(f"| study | images | source errors | {' | '.join(f'{one}: errors, own' for one in reports)} | left out |")
    say(f"| --- | --- | --- | {'--- | ' * len(reports)}--- |")
    totals: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="limner-") as temporary:
        install(Path(temporary))
        keep = Path(given.keep or temporary)
        packages = [Path(pydicom.data.__file__).parent / "test_files", Path(nibabel.__file__).parent / "nicom"]
        inputs = [*map(str, packages), *odd_studies(keep / "odd"), *given.inputs]
        for number, one in enumerate(inputs):
            try:
                totals += check([one], keep / f"run{number}", reports)
            except LimnerError as error:
                say(f"  {one}: {error}", sys.stderr)
    say(str(dict(totals)))


if __name__ == "__main__":
    main()
