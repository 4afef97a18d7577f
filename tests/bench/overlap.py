"""How well planning, reading, the network and the reports overlap, for a scene and a slide and three networks.

Scene, slide and networks are made on the fly; the real scene is the sample, mirrored, with csmask. Each run is compared
with what it cannot do without: reading every region once, and running the network on every region once, each alone in
this process. A run whose parts overlapped entirely would take as long as the longer of the two, but never less than its
processor seconds divided by the cores: the floor. The fixed part is a run of an image of one region.

Three clocks are shown, "wall / thread / all": the wall clock, which means something on a machine with nothing else to
do; the processor seconds of the main thread, which are the wall clock's there but for what it waits for (the first
region that is read, other processes); and those of all threads and processes. Ratios are of the clock of the main
thread.

    python tests/bench/overlap.py [--side 8192] [--slide 24000] [--rounds 2] [--folder DIR] [--only scene,cheap]
"""

import argparse
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import big_scene
import numpy as np
import numpy.typing as npt
from big_scene import print_line
from end_to_end_case import BANDS, write_network, write_scene
from flat_slide import write_slide
from limner.pipelines.config import Settings
from limner.pipelines.progress import Inspecting, Message, RegionDone, Reporting, Started
from limner.pipelines.run.execute import prepare, run

HIDDEN = {"cheap": 3, "balanced": 8, "dear": 48}
"""Networks by the channels of their hidden layer."""
SMALL = 1024
"""Side of an image of one region."""
MAKERS = {"scene": write_scene, "real scene": big_scene.write_scene, "slide": write_slide}
WORDS = {
    "real scene": {"model": "csmask", "sensor": "sentinel-2-l1c", "bands": ",".join(BANDS)},
    "slide": {"microns_per_pixel": "0.5"},
}
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
Clocks = npt.NDArray[np.float64]
"""Seconds of the wall clock, the main thread, and all threads and processes."""


def now() -> Clocks:
    """What the clocks show."""
    return np.array([time.perf_counter(), time.thread_time(), sum(os.times()[:4])])


@dataclass(slots=True)
class Phases:
    """When the parts of a run began."""

    at: dict[str, Clocks] = field(default_factory=dict[str, Clocks])

    def __call__(self, event: object) -> None:
        """Take an event of a run."""
        names = {Inspecting: "planning", Started: "regions", RegionDone: "last region", Reporting: "reports"}
        name = names.get(type(event), "" if isinstance(event, Message) else "other")
        if name == "last region" or name not in self.at:
            self.at[name] = now()


def alone(settings: Settings) -> list[Clocks]:
    """What reading all regions takes, and annotating them, one after the other."""
    prepared = prepare(settings)
    job = prepared.job()
    if job is None:
        raise SystemExit("the case has no model")
    job.begin()
    read, annotated = np.zeros(3), np.zeros(3)
    for region in (region for image in prepared.plan.images for region in image.remaining):
        start = now()
        views = job.read([region])
        middle = now()
        job.annotate(views)
        read, annotated = read + middle - start, annotated + now() - middle
    job.close()
    return [read, annotated]


def whole(settings: Settings) -> list[Clocks]:
    """What planning, regions, reports and all of a run take."""
    shutil.rmtree(settings.out, ignore_errors=True)
    phases, start = Phases(), now()
    run(settings, phases)
    end = now()
    began, last = phases.at["regions"], phases.at["last region"]
    return [began - start, last - began, end - last, end - start]


def main() -> None:
    """Make, run in turn, tell."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--slide", type=int, default=24000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="limner-overlap-"))
    folder.mkdir(parents=True, exist_ok=True)
    parts = ("reading alone", "network alone", "planning", "regions", "reports", "run", "fixed part")
    titles = ("image", "network", *parts, "regions ÷ longer", "run ÷ longer", "floor ÷ longer")
    print_line(f"| {' | '.join(titles)} |")
    print_line("| --- " * len(titles) + "|")
    for image, side in {"scene": asked.side, "real scene": asked.side, "slide": asked.slide}.items():
        paths = [folder / f"{image}-{length}.tif" for length in (side, SMALL)]
        for path, length in zip(paths, (side, SMALL), strict=True):
            if not path.exists():
                MAKERS[image](path, length)
        for name in ["csmask"] if image == "real scene" else HIDDEN:
            if not {image, name} >= set(filter(None, asked.only.split(","))):
                continue
            words = {"out": str(folder / "run"), **WORDS.get(image, {})}
            if name in HIDDEN:
                card = write_network(folder / f"{image}-{name}", hidden=HIDDEN[name], slide=image == "slide")
                words["model"] = str(card)
            large, small = (Settings.resolve({**words, "inputs": [str(one)]}, source="the case") for one in paths)
            rounds = [[*alone(large), *whole(large), whole(small)[-1]] for _ in range(asked.rounds)]
            least = np.min(rounds, axis=0)  # (part, clock)
            longer = max(least[0, 1], least[1, 1])
            ratios = (least[3, 1] / longer, least[5, 1] / longer, least[5, 2] / CORES / longer)
            cells = [" / ".join(f"{one:.1f}" for one in clocks) for clocks in least]
            print_line(f"| {' | '.join([image, name, *cells, *(f'{ratio:.2f}' for ratio in ratios)])} |")
    if asked.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
