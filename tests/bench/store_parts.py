"""Prints what storing a run's results costs: parts appended to a few files, or each in a file that is then renamed.

    python tests/bench/store_parts.py [--folder FOLDER]

Both ways write the same parts, made as a run makes them, and then the same lines of `results.jsonl`, and sync each
before the next batch of results. Ways take turns; time is by the clock, since most of it is waiting for the disk.
"""

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import shapely
from limner.model.finding import Coverage, Finding, Result
from limner.pipelines.run.parts import PARTS, Part, PartWriter
from limner.pipelines.run.run_folder import RunFolder

# name, results, findings of each, vertices of each, results that arrive together
CASES = (
    ("detector, small regions", 2000, 5, 5, 1),
    ("the same, eight at a time", 2000, 5, 5, 8),
    ("class map, regions of 1,000 areas", 200, 1000, 20, 1),
    ("class map, regions of 20,000 areas", 20, 20_000, 20, 1),
)
TURNS = 3


class Renamed(PartWriter):
    """Writes each part aside, syncs it, and gives it its name, which is on disk before its line is."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._parts, self._count = folder / PARTS, 0

    def _write(self, kind: str, content: bytes) -> Part:
        self._count += 1
        self._parts.mkdir(exist_ok=True)
        name = f"{kind}-{self._count:06}.arrows"
        aside = self._parts / f".{name}"
        with aside.open("wb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
        aside.replace(self._parts / name)
        return Part(name, 0, len(content), hashlib.sha256(content).hexdigest()[:16])

    def sync(self) -> None:
        """Wait until the names are on disk."""
        descriptor = os.open(self._parts, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def results(number: int, findings: int, vertices: int) -> list[Result]:
    """Results of regions, all alike but for their keys."""
    angle = np.linspace(0, 2 * np.pi, vertices)
    ring = np.round(10 * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    ring[-1] = ring[0]
    found = [Finding("x", shapely.Polygon(ring + at), "area", 0.5) for at in range(findings)]
    cover = Coverage(1.0, 1.0, 1.0)
    return [Result(f"a:{at}", "a", "done", tuple(found), cover) for at in range(number)]


def store(folder: Path, writer: type[PartWriter], every: Sequence[Result], batch: int) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    with RunFolder.open(folder) as run:
        run.write_manifest({"format": 3})
        run._parts = writer(folder)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - the way that is compared
        clock, processor = time.perf_counter(), time.process_time()
        for start in range(0, len(every), batch):
            run.append(every[start : start + batch])
        return time.perf_counter() - clock, time.process_time() - processor


def read(folder: Path) -> float:
    """Seconds by the clock to read every part, as reports do."""
    from limner.pipelines.run.run_folder import read_chunks, read_entries

    start = time.perf_counter()
    for chunk in read_chunks(folder, list(read_entries(folder).values())):
        chunk.read()
    return time.perf_counter() - start


def main() -> None:
    """Print a row for each case and way."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--folder")
    given = parser.parse_args()
    sys.stdout.write("| results | way | clock, s | processor, s | read again, s | files | MB | MB on disk |\n")
    sys.stdout.write("| --- | --- | --- | --- | --- | --- | --- | --- |\n")
    ways = {"appended": PartWriter, "each renamed": Renamed}
    for name, number, findings, vertices, batch in CASES:
        every = results(number, findings, vertices)
        times: dict[str, list[tuple[float, ...]]] = {way: [] for way in ways}
        for _ in range(TURNS):
            for way, writer in ways.items():
                with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
                    folder = Path(temporary) / "run"
                    took = store(folder, writer, every, batch)
                    parts = [path.stat() for path in (folder / PARTS).iterdir()]
                    sizes = sum(one.st_size for one in parts), sum(one.st_blocks * 512 for one in parts)
                    times[way].append((*took, read(folder), len(parts), *sizes))
        for way, rows in times.items():
            clock, processor, again, files, size, blocks = np.median(rows, axis=0)
            figures = (
                f"{clock:.2f} | {processor:.2f} | {again:.2f} | {files:.0f} | {size / 1e6:.1f} | {blocks / 1e6:.1f}"
            )
            sys.stdout.write(f"| {name} | {way} | {figures} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
