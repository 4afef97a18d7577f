"""How well planning, reading, the network and the reports overlap, for a scene and a slide and three networks.

Scene, slide and networks are made on the fly. Each run is compared with what it cannot do without: reading every region
once, and running the network on every region once, each alone in this process. A run whose parts overlapped entirely
would take as long as the longer of the two, but never less than its processor seconds divided by the cores: the floor.
The fixed cost is that of a run of an image of one region. Wall time: the ratios mean something on a machine with
nothing else to do.

    python tests/bench/overlap.py [--side 8192] [--slide 24000] [--rounds 2] [--folder DIR] [--only scene,cheap]
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from big_scene import print_line
from end_to_end_case import write_network, write_scene
from flat_slide import write_slide
from limner.pipelines.config import Settings
from limner.pipelines.progress import Inspecting, Message, RegionDone, Reporting, Started
from limner.pipelines.run.execute import prepare, run
from limner.readers.processors import cores

HIDDEN = {"cheap": 3, "balanced": 8, "dear": 48}
"""Networks by the channels of their hidden layer."""
SMALL = 512
"""Side of an image of one region."""


@dataclass(slots=True)
class Phases:
    """Seconds at which the parts of a run began, from its own beginning."""

    start: float = field(default_factory=time.perf_counter)
    at: dict[str, float] = field(default_factory=dict[str, float])

    def __call__(self, event: object) -> None:
        """Take an event of a run."""
        names = {Inspecting: "planning", Started: "regions", RegionDone: "last region", Reporting: "reports"}
        name = names.get(type(event), "" if isinstance(event, Message) else "other")
        if name == "last region" or name not in self.at:
            self.at[name] = time.perf_counter() - self.start


def alone(settings: Settings) -> tuple[float, float]:
    """Seconds of reading all regions, and of annotating them, one after the other."""
    prepared = prepare(settings)
    job = prepared.job()
    if job is None:
        raise SystemExit("the case has no model")
    job.begin()
    read = annotated = 0.0
    for region in (region for image in prepared.plan.images for region in image.remaining):
        start = time.perf_counter()
        views = job.read([region])
        middle = time.perf_counter()
        job.annotate(views)
        read, annotated = read + middle - start, annotated + time.perf_counter() - middle
    job.close()
    return read, annotated


def whole(settings: Settings) -> tuple[float, ...]:
    """Seconds of a run: planning, regions, reports, all of it, and its processor seconds divided by the cores."""
    shutil.rmtree(settings.out, ignore_errors=True)
    phases, before = Phases(), sum(os.times()[:4])
    run(settings, phases)
    end = time.perf_counter() - phases.start
    began, last = phases.at["regions"], phases.at["last region"]
    return began, last - began, end - last, end, (sum(os.times()[:4]) - before) / cores()


def least(several: Sequence[tuple[float, ...]]) -> list[float]:
    """The least of each number."""
    return [min(column) for column in zip(*several, strict=True)]


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
    images = {"scene": folder / f"scene-{asked.side}.tif", "slide": folder / f"slide-{asked.slide}.tif"}
    makers = {"scene": write_scene, "slide": write_slide}
    for image, side in (("scene", asked.side), ("slide", asked.slide)):
        if not images[image].exists():
            makers[image](images[image], side)
    print_line(
        "| image | network | reading alone, s | network alone, s | planning, s | regions, s | reports, s | run, s "
        "| floor, s | fixed, s | regions ÷ longer | run ÷ longer | run ÷ longer or floor |"
    )
    print_line("| --- " * 13 + "|")
    for image, path in images.items():
        small = folder / f"{image}-{SMALL}.tif"
        if not small.exists():
            makers[image](small, SMALL)
        for name, hidden in HIDDEN.items():
            if not {image, name} >= set(filter(None, asked.only.split(","))):
                continue
            card = write_network(folder / f"{image}-{name}", hidden=hidden, slide=image == "slide")
            extra = {"microns_per_pixel": "0.5"} if image == "slide" else {}
            words = {"model": str(card), "out": str(folder / "run"), **extra}
            settings, few = (
                Settings.resolve({**words, "inputs": [str(one)]}, source="the case") for one in (path, small)
            )
            taken = [(*alone(settings), *whole(settings), whole(few)[3]) for _ in range(asked.rounds)]
            seconds = least(taken)
            read, annotated, _, regions, _, every, floor, _ = seconds
            longer = max(read, annotated)
            ratios = (regions / longer, every / longer, every / max(longer, floor))
            numbers = [*(f"{one:.1f}" for one in seconds), *(f"{one:.2f}" for one in ratios)]
            print_line(f"| {image} | {name} | {' | '.join(numbers)} |")
    if asked.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
