"""Peak memory of a whole run beside the side of the scene: the same tiny network on scenes of 4096 px to 32768 px.

Scenes are those of `end_to_end.py` without their noise, so that the largest takes little disk; each is deleted when it
has been measured. Memory is what all processes of the run hold at once; anonymous memory leaves out cached files and
the code of libraries. The machine's own memory does not matter: no cache is a share of it.

    python tests/bench/memory_curve.py [--sides 4096,8192,16384,32768] [--folder DIR] [-- words for the run]
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from big_scene import family, print_line, resident
from end_to_end_case import write_network, write_scene


def anonymous(pid: int) -> float:
    """Bytes of memory that a process has allocated."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0.0)


def peaks(command: list[str]) -> tuple[float, float, float]:
    """Seconds of a command, and the most bytes that its processes held: all, and anonymous ones."""
    start, most, own = time.perf_counter(), 0.0, 0.0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        pids = family(process.pid)
        most, own = max(most, sum(map(resident, pids))), max(own, sum(map(anonymous, pids)))
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}: {' '.join(command)}")
    return time.perf_counter() - start, most, own


def main() -> None:
    """Make, run, tell, delete."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--sides", default="4096,8192,16384,32768")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("words", nargs="*")
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="limner-memory-curve-"))
    card = write_network(folder)
    print_line("| side, px | all memory, MB | anonymous, MB | s | scene, MB |")
    print_line("| --- | --- | --- | --- | --- |")
    for side in map(int, asked.sides.split(",")):
        scene, out = folder / f"smooth-{side}.tif", folder / "run"
        try:
            write_scene(scene, side, noise=1)
            run = ["run", str(scene), "--out", str(out), "--model", str(card), *asked.words]
            seconds, most, own = peaks([sys.executable, "-m", "limner.pipelines.cli.main", *run])
            print_line(
                f"| {side} | {most / 1e6:.0f} | {own / 1e6:.0f} | {seconds:.0f} | {scene.stat().st_size / 1e6:.0f} |"
            )
        finally:
            shutil.rmtree(out, ignore_errors=True)
            scene.unlink(missing_ok=True)
    if asked.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
