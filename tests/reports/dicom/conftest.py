"""Runs of studies whose annotator finds the same shapes in every region, and what dciodvfy says of files."""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import limner
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

SHOWN = {"WindowCenter": 2000, "WindowWidth": 6000}  # a window in which all of `making.slices` shows something
PERSON = {"PatientID": "12-34", "PatientBirthDate": "19700131", "PatientSex": "F", "StudyID": "S1"}

ANNOTATOR = '''
import numpy as np
from limner.model.annotator import Answer, InputSpec
from shapely import MultiPolygon, box


class Shapes:
    """A ring, two parts, a box with a score, and a text in every region."""

    identity = {"name": "shapes", "version": "VERSION", "weights_sha256_a": "0" * 64}
    labels = ("ring", "pair", "box", "picture", "never")
    colours = {}
    concepts = {"ring": ("12738006", "SCT", "Brain")}

    def input_spec(self, info):
        return InputSpec(tile=336)

    def check(self, specs):
        pass

    def load(self):
        pass

    def annotate(self, views):
        return [self._answers(view.keep_mask) if FOUND else [] for view in views]

    def _answers(self, keep):
        height, width = (int(np.flatnonzero(keep.any(axis=axis))[-1]) + 1 for axis in (1, 0))
        ring = box(1, 1, width - 1, height - 1).difference(box(2, 2, width - 2, height - 2))
        pair = MultiPolygon([box(0, 0, 1, 1), box(2, 3, 4, 5)])
        return [
            Answer("ring", ring, "area", score=0.25),
            Answer("pair", pair, "area"),
            Answer("box", box(0.5, 1, 3, 4.25), "box", score=0.875),
            Answer("picture", None, "region", text="Größe < 5 mm & \\"rund\\"; =1+1"),
        ]
'''


@dataclass(frozen=True)
class Made:
    """A run, with its inputs."""

    run: Any
    folder: Path
    inputs: Path

    def object(self, name: str) -> Dataset:
        """An object of the run, with its preamble checked."""
        path = self.folder / f"{name}.dcm"
        assert path.read_bytes()[:132] == b"\0" * 128 + b"DICM"
        return pydicom.dcmread(path)


MakeRun = Callable[..., Made]


@pytest.fixture(scope="session")
def shapes_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeRun]:
    """Run "shapes" on a folder of studies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMNER_PSEUDONYM_KEY", "a key that is only good for tests")
        installed = 0

        def run(inputs: Path, *reports: str, found: bool = True, version: str = "1", **settings: Any) -> Made:
            nonlocal installed
            installed += 1
            name = f"shapes{installed}"
            site = tmp_path_factory.mktemp("site")
            source = ANNOTATOR.replace("VERSION", version).replace("FOUND", str(found))
            (site / f"{name}_plugin.py").write_text(source, encoding="utf-8")
            about = site / f"{name}_plugin-1.dist-info"
            about.mkdir()
            (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-plugin\nVersion: 1\n")
            (about / "entry_points.txt").write_text(f"[limner.annotators]\n{name} = {name}_plugin:Shapes\n")
            patch.syspath_prepend(str(site))
            out = tmp_path_factory.mktemp("out") / "run"
            names = reports or ("dicom-sr", "dicom-ko", "dicom-sc", "findings-csv")
            made = limner.run(str(inputs), model=name, out=str(out), reports=names, engine="inline", **settings)
            return Made(made, out, inputs)

        yield run


@pytest.fixture(scope="session")
def odd_studies(making: ModuleType) -> dict[str, Sequence[Dataset]]:
    """Studies that are odd in one way each, by name."""
    tilted = making.slices(5, **SHOWN)
    for number, one in enumerate(tilted):
        one.ImagePositionPatient = [-10.0, -20.0 + number, 30.0 + 2.5 * number]
    colour = np.random.default_rng(1).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    us = {"Modality": "US", "SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB"}
    enhanced = making.enhanced([0.0, 3.0, 6.0], slopes=[1, 2, 3])
    for frame in enhanced.PerFrameFunctionalGroupsSequence:
        frame.FrameVOILUTSequence[0].WindowCenter, frame.FrameVOILUTSequence[0].WindowWidth = 4000, 10000
    doubled = making.slices(5, **SHOWN)
    studies = {
        "plain": making.slices(
            5, SpecificCharacterSet="ISO_IR 100", PatientName="Grün^Jörg", PatientPosition="HFS", **SHOWN
        ),
        "tilted": tilted,
        "duplicates": [*doubled, doubled[2]],
        "empty": making.slices(3, SpecificCharacterSet="", **SHOWN),
        "enhanced": [enhanced],
        "radiograph": [making.image(making.ramp(40, 50), sop_class=making.CR)],
        "colour": [making.image(colour, sop_class="1.2.840.10008.5.1.4.1.1.6.1", FrameOfReferenceUID=None, **us)],
        "greek": making.slices(3, SpecificCharacterSet="ISO_IR 126", PatientName="Διονυσιος", **SHOWN),
        "japanese": making.slices(
            3, SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎", **SHOWN
        ),
    }
    for number, images in enumerate(studies.values(), 1):
        for one in images:
            one.StudyInstanceUID, one.SeriesInstanceUID = making.uid(100 * number), making.uid(100 * number + 1)
            one.SOPInstanceUID = making.uid(10000 * number + int(one.InstanceNumber))
            for name, value in PERSON.items():
                setattr(one, name, value)
    return studies


@pytest.fixture(scope="session")
def odd_run(
    odd_studies: dict[str, Sequence[Dataset]],
    making: ModuleType,
    shapes_run: MakeRun,
    tmp_path_factory: pytest.TempPathFactory,
) -> Made:
    """One run of all odd studies, in which UIDs are shown."""
    folder = tmp_path_factory.mktemp("studies")
    for name, images in odd_studies.items():
        making.save_all(images, folder / name)
    return shapes_run(folder, names="show")


@pytest.fixture(scope="session")
def dciodvfy() -> Callable[[Path], set[str]]:
    """The errors that dciodvfy finds in a file."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed: Debian has it in the package dicom3tools")

    def check(path: Path) -> set[str]:
        done = subprocess.run([program, path], capture_output=True, check=False)
        return {line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.startswith("Error")}

    return check
