"""limner beside other programs: the same work on the same made inputs, in turn, and whether they find the same.

    python tests/bench/peers.py [--only NAME] [--pairs 3] [--out FILE] [--environments DIR] [--folder DIR]

Each program has an environment of its own, made once with the packages that `peer_loops/requirements/NAME.txt` pins;
one that cannot be made is a line with the reason. CPU seconds and the most memory held at once are those of all
processes of a command, with the start of Python; of two programs that only read, CPU seconds are those of reading.
"""

import argparse
import csv
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
LOOPS = HERE / "peer_loops"
sys.path.insert(0, str(LOOPS))

from big_scene import print_line  # noqa: E402 - beside this file
from end_to_end import Measured, measure  # noqa: E402
from end_to_end_case import write_network, write_scene  # noqa: E402
from made import PATCH, write_classifier, write_detector, write_objects, write_slide  # noqa: E402  # pyright: ignore[reportMissingImports] - put on the path above

SAMPLE = HERE.parents[1] / "notebooks/samples/slides/CMU-1-Small-Region.svs"
SIX_BANDS = 3872  # pixels a side: a whole number of TorchGeo's chips
TORCH = "torch=="


@dataclass(frozen=True, slots=True)
class Case:
    """A program, and the work that it and limner do."""

    work: str
    module: str
    """What must be importable in its environment."""
    words: tuple[str, ...]
    """Arguments of its loop, and of limner's where limner only reads."""
    limner: tuple[str, ...]
    """Words of the command `limner`; none where limner only reads."""
    equal: Callable[[Path, Path], str]
    """Compares what both wrote, by their files. Raises `ValueError` where they did not find the same."""
    own: str
    """What limner writes, within its run folder."""
    peer: str
    """What the program writes."""


def boxes_of(own: Path, peer: Path) -> str:
    """The objects that were drawn, each found by both within a pixel, and nothing else."""
    drawn = np.load(own.parents[1] / "objects.npy")
    names = ("x0_px", "y0_px", "x1_px", "y1_px")
    mine = np.array([[float(row[name]) for name in names] for row in rows_of(own)])
    for name, found in (("limner", mine), ("the peer", np.load(peer))):
        near = np.abs(sort(found) - sort(drawn)).max() if found.shape == drawn.shape else np.inf
        if near > 1:
            msg = f"{name} finds {len(found)} objects, of which one is {near:g} px away; {len(drawn)} were drawn"
            raise ValueError(msg)
    return f"all {len(drawn)} objects, within a pixel"


def sort(rows: Any) -> Any:
    """Rows in the order of their first two numbers, rounded."""
    whole = np.rint(rows).astype(int)
    return rows[np.lexsort((whole[:, 0], whole[:, 1]))]


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def scores_of(own: Path, peer: Path) -> str:
    """The probability of each class of each patch, to the four digits that limner writes."""
    names = ("x0_px", "y0_px", "number.p.pale", "number.p.dark")
    mine = sort(np.array([[float(row[name]) for name in names] for row in rows_of(own)]))
    theirs = sort(np.load(peer))
    if mine.shape != theirs.shape or np.abs(mine - theirs).max() > 1e-4:
        msg = f"{len(mine)} and {len(theirs)} patches, or other scores"
        raise ValueError(msg)
    return f"{len(mine)} patches, all scores within 0.0001"


def classes_of(own: Path, peer: Path) -> str:
    """The class of each pixel; those where sums in another order decide may differ."""
    import rasterio

    with rasterio.open(own) as one, rasterio.open(peer) as other:
        same = float((one.read(1) == other.read(1)).mean())
    if same < 0.999:
        msg = f"only {same:.2%} of the pixels have the same class"
        raise ValueError(msg)
    return f"{same:.3%} of the pixels have the same class"


def parts_of(own: Path, peer: Path) -> str:
    """Reduced pixels, which GDAL and limner round in other ways."""
    mine, theirs = (np.load(path)["parts"].astype(int) for path in (own, peer))
    if (most := np.abs(mine - theirs).max()) > 1:
        msg = f"pixels differ by up to {most} levels"
        raise ValueError(msg)
    return f"{len(mine)} parts, pixels within a level"


def chips_of(own: Path, peer: Path) -> str:
    """The sum of each chip, by its place."""
    mine, theirs = (sort(np.load(path)["rows"]) for path in (own, peer))
    if not np.array_equal(mine, theirs):
        msg = "the chips have other places or sums"
        raise ValueError(msg)
    return f"{len(mine)} chips, with the same sums"


def on_a_slide(module: str, slide: str = "slide/mosaic.tiff") -> Case:
    """Work with the classifier."""
    words = ("run", "slide/mosaic.tiff", "--model", "wsinfer:zoo", "--reports", "findings-csv", "--tissue", "off")
    work = f"classify 1024 patches of {PATCH} px, slide of 8192 px"
    return Case(work, module, (slide, "zoo", "peer.npy"), words, scores_of, "findings.csv", "peer.npy")


CASES: Mapping[str, Case] = {
    "sahi": Case(
        "detect 6000 objects, 8192 px",
        "sahi.predict",
        ("objects.tif", "detector.onnx", "peer.npy"),
        ("run", "objects.tif", "--model", "deepness:detector.onnx", "--reports", "findings-csv"),
        boxes_of,
        "findings.csv",
        "peer.npy",
    ),
    "geoai": Case(
        f"segment six bands, {SIX_BANDS} px",
        "geoai.inference",
        ("six.tif", "tiny.npz", "peer.tif"),
        ("run", "six.tif", "--model", "tiny.yaml", "--reports", "class-map"),
        classes_of,
        "classes-six.tif",
        "peer.tif",
    ),
    "rio-tiler": Case(
        "read parts at 1 : 4, 8192 px", "rio_tiler.io", ("objects.tif", "peer.npz"), (), parts_of, "parts", "peer.npz"
    ),
    "torchgeo": Case(
        f"read chips of 512 px, six bands, {SIX_BANDS} px",
        "torchgeo.samplers",
        ("six.tif", "peer.npz"),
        (),
        chips_of,
        "chips",
        "peer.npz",
    ),
    "tiatoolbox": on_a_slide("tiatoolbox.models"),
    "lazyslide": on_a_slide("lazyslide"),
    "wsinfer": on_a_slide("wsinfer.modellib.run_inference", slide="slide"),
}


def environment(name: str, folder: Path) -> Path:
    """The Python of a program's environment, which is made first where it is not there. Raises `OSError`."""
    python, pinned = folder / name / "bin" / "python", LOOPS / "requirements" / f"{name}.txt"
    module = CASES[name].module
    setup = "import torchvision_operators; " if "torchvision==" in pinned.read_text(encoding="utf-8") else ""
    check = [str(python), "-c", f"{setup}import {module}"]
    if not (folder / name / "ready").exists():
        print_line(f"Making the environment of {name} in {folder / name}")
        run([sys.executable, "-m", "venv", "--clear", str(folder / name)])
        lines = pinned.read_text(encoding="utf-8").splitlines()
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        if torch := [line for line in lines if line.startswith(TORCH)]:
            run([*pip, *torch])  # with what its own build needs
        rest = folder / name / "without-torch.txt"
        rest.write_text("\n".join(line for line in lines if not line.startswith(TORCH)), encoding="utf-8")
        run([*pip, "--no-deps", "--requirement", str(rest)])  # as resolved: torch's version is not torchvision's
        run(check)
        (folder / name / "ready").touch()
    return python


def run(command: Sequence[str]) -> None:
    """Run a command. Raises `OSError` with the last line that it wrote where it fails."""
    paths = os.environ | {"PYTHONPATH": str(LOOPS)}
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=paths, check=False)
    if done.returncode:
        raise OSError((done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1])


def make_inputs(folder: Path, names: Sequence[str]) -> None:
    """Write what the programs need, where it is not there."""
    if {"sahi", "rio-tiler"} & set(names) and not (folder / "objects.npy").exists():
        write_objects(folder / "objects.tif")
    write_detector(folder / "detector.onnx")
    if {"geoai", "torchgeo"} & set(names) and not (folder / "six.tif").exists():
        write_scene(folder / "six.tif", SIX_BANDS)
    if "geoai" in names:
        import onnx

        write_network(folder)
        weights = onnx.load(folder / "tiny.onnx").graph.initializer
        arrays: dict[str, Any] = {one.name: onnx.numpy_helper.to_array(one) for one in weights}
        np.savez(folder / "tiny.npz", **arrays)
    if {"tiatoolbox", "lazyslide", "wsinfer"} & set(names):
        (folder / "slide").mkdir(exist_ok=True)
        if not (folder / "slide/mosaic.tiff").exists():
            write_slide(SAMPLE, folder / "slide/mosaic.tiff")
        write_classifier(folder / "zoo")


def compare(name: str, python: Path, folder: Path, pairs: int) -> list[str]:
    """Both programs in turn: lines of the table. Raises `OSError`, `ValueError`."""
    case = CASES[name]
    theirs = [str(python), str(LOOPS / f"{name.replace('-', '_')}_loop.py"), *case.words]
    own, peer = folder / "run" / case.own, folder / case.peer
    ours = [sys.executable, "-m", "limner", *case.limner, "--out", "run"]
    if not case.limner:
        own = folder / "own.npz"
        ours = [sys.executable, str(LOOPS / "limner_reading.py"), case.own, case.words[0], own.name]
    taken: dict[str, list[Measured]] = {"limner": [], name: []}
    equal = ""
    for _ in range(pairs):
        shutil.rmtree(folder / "run", ignore_errors=True)
        for program, command, written in (("limner", ours, own), (name, theirs, peer)):
            written.unlink(missing_ok=True)
            one = measure(command)
            if not case.limner:
                one = Measured(float(np.load(written)["cpu"]), one.wall, one.peak)
            taken[program].append(one)
        equal = case.equal(own, peer)
    ratios = [a.cpu / b.cpu for a, b in zip(taken["limner"], taken[name], strict=True)]
    asked = [str(python), "-c", f"from importlib.metadata import version; print(version({PACKAGES.get(name, name)!r}))"]
    version = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    titles = {"limner": "limner", name: f"{name} {version}"}
    lines: list[str] = []
    for program, several in taken.items():
        cpu, wall = (statistics.median(getattr(one, what) for one in several) for what in ("cpu", "wall"))
        ratio = f"{statistics.median(ratios):.2f}" if program == "limner" else "1.00"
        numbers = f"{cpu:.1f} | {ratio} | {wall:.1f} | {max(one.peak for one in several) / 1e6:.0f}"
        lines.append(f"| {case.work} | {titles[program]} | {numbers} | {equal} |")
    return lines


PACKAGES = {"geoai": "geoai-py"}


def machine() -> str:
    """Processor, cores, load and date, as a sentence."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    when = time.strftime("%Y-%m-%d", time.gmtime())
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} × {processor}, load {load:.1f} at the start, Python {platform.python_version()}, {when}"


def main() -> None:
    """Make, run in turn, tell."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", action="append", choices=list(CASES), default=[])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--environments", type=Path, default=Path.home() / ".cache/limner-peers")
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    names = asked.only or list(CASES)
    folder = (asked.folder or Path(tempfile.mkdtemp(prefix="limner-peers-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = f"{HERE}"
    heads = ("work", "program", "CPU, s", "÷ peer", "wall, s", "peak memory, MB", "found by both")
    lines = [machine(), "", f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    print_line("\n".join(lines))
    make_inputs(folder, names)
    os.chdir(folder)
    for name in names:
        try:
            found = compare(name, environment(name, asked.environments.resolve()), folder, asked.pairs)
        except (OSError, ValueError, SystemExit) as error:
            found = [f"| {CASES[name].work} | {name} | not measured: {error} | | | | |"]
        print_line("\n".join(found))
        lines += found
    if asked.out:
        asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if asked.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
