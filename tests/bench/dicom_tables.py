"""Three tables about DICOM: renderings against dcmj2pnm, places against SimpleITK, hostile files and what they cost.

Run: python tests/bench/dicom_tables.py [FOLDER...]. Without folders, pydicom's own test files are looked at. A table
whose oracle is not installed says so. Compressed files are decompressed first for dcmj2pnm, which knows fewer codecs.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
from limner.readers.contract import scan_with
from limner.readers.dicom.reader import DicomReader
from limner.readers.errors import LimnerError
from limner.readers.image import ImageInfo
from limner.readers.render import Stretch, render, window_stretch
from pydicom.uid import ImplicitVRLittleEndian

HERE = Path(__file__).resolve().parent
DICOM_TESTS = HERE.parent / "readers" / "dicom"
READER = DicomReader()


def images(folders: list[Path]) -> Iterator[tuple[str, Path, ImageInfo]]:
    """(name, path, facts) of every single file that is one grey image or stack."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if not path.is_file() or path.suffix in {".zip", ".md", ".txt"} or path.name.startswith("DICOMDIR"):
                continue
            try:
                infos = scan_with(READER, str(path), {})
            except LimnerError:
                continue
            if len(infos) == 1 and len(infos[0].channels) == 1:
                yield path.relative_to(folder).as_posix(), path, infos[0]


def rendering(name: str, path: Path, info: ImageInfo, room: Path) -> str:
    """One row: the most that two renderings of the first frame differ, in grey levels."""
    with READER.open(info) as image:
        try:
            values, valid = image.read(info.box, info.size)
        except LimnerError as error:
            return f"{name}: not read: {error.rule}"
    stretch = window_stretch(info)
    option = ["+Wl" if stretch is not None and " LUT (" in stretch.source else "+Wi", "1"]
    if stretch is None or "(file" not in stretch.source:
        low, high = float(values[valid].min()), float(values[valid].max())
        centre, span = round((low + high) / 2), max(2, round(high - low) + 1)
        stretch = Stretch(("grey",), (centre - 0.5 - (span - 1) / 2,), (centre - 0.5 + (span - 1) / 2,), "")
        option = ["+Ww", str(centre), str(span)]
    ours = render(values, valid, stretch)[..., 0].astype(int)
    flat, out = _flat(path, room), room / "out.pgm"
    if flat is None:
        return f"{name}: cannot be decompressed for dcmj2pnm"
    program = shutil.which("dcmj2pnm") or ""
    done = subprocess.run([program, "-O", *option, "+op", str(flat), str(out)], capture_output=True, check=False)
    if done.returncode:
        return f"{name}: dcmj2pnm cannot read it"
    whole = out.read_bytes()
    head = re.match(rb"P5\s(?:#.*\n)*(\d+)\s+(\d+)\s+255\s", whole)
    if head is None:
        return f"{name}: dcmj2pnm gives no grey picture"
    theirs = np.frombuffer(whole[head.end() :], np.uint8).reshape(int(head[2]), int(head[1])).astype(int)
    if ours.shape != theirs.shape:  # a cell is square, a slice need not be
        top, left = (ours.shape[0] - theirs.shape[0]) // 2, (ours.shape[1] - theirs.shape[1]) // 2
        part = slice(top, top + theirs.shape[0]), slice(left, left + theirs.shape[1])
        ours, valid = ours[part], valid[part]
    return f"{name}: {np.abs(ours - theirs)[valid].max()}"


def _flat(path: Path, room: Path) -> Path | None:
    """The file, or where its pixels are compressed a copy in which they are not; None where that fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pydicom.dcmread(path, force=True)
        if not data.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian).is_compressed:
            return path
        try:
            data.decompress(generate_instance_uid=False)
            data.save_as(room / "flat.dcm")
        except (ValueError, RuntimeError, AttributeError):
            return None
    return room / "flat.dcm"


def geometry(name: str, path: Path, info: ImageInfo) -> str | None:
    """One row: the furthest that two answers to where a pixel is lie apart, in mm; None for what has no place."""
    import SimpleITK as itk  # noqa: N813 - an oracle, not a dependency

    itk.ProcessObject.SetGlobalWarningDisplay(False)
    if info.placement.unit != "mm" or len(info.placement.matrix) != 3:
        return None
    picture = itk.ReadImage(str(path))
    width, height = info.size
    worst = 0.0
    for x, y in ((0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1), (width // 2, height // 3)):
        theirs = picture.TransformIndexToPhysicalPoint((x, y, 0))
        worst = max(worst, float(np.abs(info.placement.to_world([[x + 0.5, y + 0.5]])[0] - theirs).max()))
    return f"{name}: {worst:.1e}"


def hostile(room: Path) -> Iterator[str]:
    """Rows of the hostile table: case, outcome, peak memory of the reading process and of its limited ones."""
    spec = importlib.util.spec_from_file_location("dicom_making", DICOM_TESTS / "making.py")
    if spec is None or spec.loader is None:
        return
    making = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(making)
    making.hostile(room / "hostile")
    command = [sys.executable, str(DICOM_TESTS / "attack.py"), str(room / "hostile")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for case, outcome, mine, theirs in json.loads(done.stdout):
        yield f"{case} | {outcome} | {mine} | {theirs}"


def main(folders: list[Path]) -> None:
    """Print the tables."""
    found = list(images(folders))
    talk = sys.stdout.write
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        talk("Rendering: file, most that it differs from dcmj2pnm (grey levels of 255)\n")
        if shutil.which("dcmj2pnm"):
            for one in found:
                talk(rendering(*one, room) + "\n")
        else:
            talk("dcmj2pnm is not installed\n")
        talk("\nGeometry: file, furthest from SimpleITK (mm)\n")
        if importlib.util.find_spec("SimpleITK"):
            for row in (geometry(*one) for one in found):
                talk(f"{row}\n" if row else "")
        else:
            talk("SimpleITK is not installed\n")
        talk("\nHostile: case | outcome | peak MB of the reader so far | of its limited processes so far\n")
        for row in hostile(room):
            talk(row + "\n")


if __name__ == "__main__":
    os.environ.setdefault("LIMNER_PSEUDONYM_KEY", "a key for tables that nobody keeps")
    main([Path(name) for name in sys.argv[1:]] or [Path(pydicom.data.__file__).parent / "test_files"])
