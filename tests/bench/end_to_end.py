"""One scene and one small network end to end, beside a hand-written loop of rasterio and onnxruntime.

The scene (six bands of 16 bits, tiles with deflate) and the network (two convolutions) are made on the fly. limner and
the loop run in turn, each a process of its own; the polygons must be as many. CPU seconds are those of all processes
of a run; peak memory is the most that they were seen to hold at once, of which libraries and cached files are a part.

    python tests/bench/end_to_end.py [--sides 8192] [--pairs 3] [--folder DIR] [--before PYTHON] [-- words for the run]

Several sides, such as 4096,8192,16384, give the curve of peak memory. `--before` names the Python of an environment
with another version of limner, which takes its turn too.
"""

import argparse
import csv
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from big_scene import family, print_line, resident
from end_to_end_case import write_network, write_scene

HERE = Path(__file__).parent
LOOP = "hand-written loop"
ROUNDED = 0.002  # share of polygons: tiles lie elsewhere in the loop, so that sums of a pixel are rounded otherwise


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run took."""

    cpu: float
    """Seconds of all processes."""
    wall: float
    """Seconds."""
    peak: float
    """Bytes."""


def measure(command: Sequence[str]) -> Measured:
    """Run a command to its end."""
    peak, ended = 0, threading.Event()
    before, start = os.times(), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.05):
            peak = max(peak, sum(resident(pid) for pid in family(process.pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    wall = time.perf_counter() - start
    ended.set()
    watcher.join()
    after = os.times()
    if code:
        raise SystemExit(f"exit code {code}: {' '.join(command)}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Measured(cpu, wall, peak)


def counts(path: Path) -> Counter[str]:
    """Number of polygons by label."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return Counter(row["label"] for row in csv.DictReader(file))


def compare(side: int, commands: Mapping[str, Sequence[str]], out: Path, peer: Path, pairs: int) -> None:
    """Run the commands in turn, and print a line for each and for its ratio to the loop."""
    taken: dict[str, list[Measured]] = {name: [] for name in commands}
    found: dict[str, Counter[str]] = {}
    for _ in range(pairs):
        for name, command in commands.items():
            shutil.rmtree(out, ignore_errors=True)
            taken[name].append(measure(command))
            found[name] = counts(peer if name == LOOP else out / "findings.csv")
    for label, count in found[LOOP].items():
        if any(abs(one[label] - count) > ROUNDED * count for one in found.values()):
            raise SystemExit(f"the polygons differ: {found}")
    for name, several in taken.items():
        cpu, wall = (statistics.median(getattr(one, what) for one in several) for what in ("cpu", "wall"))
        peak = max(one.peak for one in several)
        ratio = statistics.median(a.cpu / b.cpu for a, b in zip(several, taken[LOOP], strict=True))
        numbers = f"{cpu:.2f} | {ratio:.2f} | {wall:.1f} | {peak / 1e6:.0f} | {found[name].total()}"
        print_line(f"| {side} | {name} | {numbers} |")


def main() -> None:
    """Make, run in turn, tell."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--sides", default="8192")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--before")
    parser.add_argument("words", nargs="*")
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="limner-end-to-end-"))
    folder.mkdir(parents=True, exist_ok=True)
    card, out, peer = write_network(folder), folder / "run", folder / "peer.csv"
    print_line("| side, px | program | CPU, s | ÷ loop | wall, s | peak memory, MB | polygons |")
    print_line("| --- | --- | --- | --- | --- | --- | --- |")
    for side in map(int, asked.sides.split(",")):
        scene = folder / f"scene-{side}.tif"
        if not scene.exists():
            write_scene(scene, side)
        loop = [sys.executable, str(HERE / "rasterio_loop.py"), str(scene), str(folder / "tiny.onnx"), str(peer)]
        run = ["-m", "limner", "run", str(scene), "--out", str(out), "--model", str(card)]
        run += asked.words
        commands = {
            LOOP: loop,
            "limner, all reports": [sys.executable, *run],
            "limner, findings.csv": [sys.executable, *run, "--reports", "findings-csv"],
        }
        if asked.before:
            commands["before, all reports"] = [asked.before, *run]
        compare(side, commands, out, peer, asked.pairs)
    if asked.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
