"""What a large review costs: processor seconds and peak memory to open its log, to add to it, to join and to export it.

    python tests/bench/review_table.py [--findings 100000] [--events 100000] [--folder DIR]

The run is that of reports_table.py. The log has an event for each of as many findings as there are events: accepted,
rejected and given another label in turn. Every row is a process of its own; findings-csv is the run's own table,
beside which the export is to be seen.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import reports_table

ROWS = ("open", "act", "findings-csv", "csv", "qgis")
ACTED = 50


def write_log(folder: Path, count: int) -> None:
    """The log of a review of the first findings, as `Review` writes it, but not synced to disk for each event."""
    from limner.model.merged_findings import columnar
    from limner.pipelines.review.actions import Action
    from limner.pipelines.review.decisions import Event
    from limner.pipelines.review.log import Header, event_line, header_line
    from limner.pipelines.review.review import finding_checks, reviews_folder
    from limner.pipelines.run.reporting import read_record

    record = read_record(folder / "run")
    [image] = record.images
    table = columnar(image.findings()).take(np.arange(min(count, len(image.findings()))))
    path = reviews_folder(folder / "run") / "anna.jsonl"
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.write(header_line(Header(record.run, ("anna",))))
        rows = zip(table.label.tolist(), finding_checks(table), strict=True)
        for number, (label, check) in enumerate(rows, 1):
            keys = (f"{image.info.id}/{number}",)
            actions = Action("accept", keys), Action("reject", keys), Action("relabel", keys, label="other")
            event = Event(number, "2026-12-01T00:00:00.000Z", "anna", actions[number % 3], 0, (label,), (check,))
            file.write(event_line(event))


def step(folder: Path, name: str) -> None:
    """One row."""
    from limner.pipelines.review.export import export_review
    from limner.pipelines.review.joint import find_reviews, read_joint
    from limner.pipelines.review.review import Review
    from limner.pipelines.run.reporting import read_record

    run = folder / "run"
    if name.startswith("make "):
        _, findings, events = name.split()
        if not (run / "manifest.json").exists():
            reports_table.make(folder, int(findings), slide=False)
        write_log(folder, int(events))
        return
    if name in {"open", "act"}:
        with Review.open(run, "anna") as review:
            image = read_record(run).images[0].info.id
            began = time.process_time()
            for number in range(1, 1 + ACTED * (name == "act")):
                review.act({"action": "reject", "findings": [f"{image}/{number}"]})
                review.undo()
            if name == "act":
                milliseconds = (time.process_time() - began) / (2 * ACTED) * 1e3
                sys.stdout.write(f"an action or its undo: {milliseconds:.1f} ms, with the first one's reading\n")
        return
    if name == "findings-csv":
        reports_table.write(folder, [name])
        return
    record = read_record(run)
    joint = read_joint(find_reviews(run), record=record)
    out = folder / f"reviewed-{name}"
    export_review(record, joint, out, [name], rejected=True)
    shutil.rmtree(out)


def main() -> None:
    """Make the run and the log, measure, and print a table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--findings", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--step", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        step(asked.folder, asked.step)
        return
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="limner-review-"))
    try:
        (folder / "out").mkdir(parents=True, exist_ok=True)
        sys.stdout.write(f"{asked.findings} findings, {asked.events} events\n")
        sys.stdout.write("| | processor s | peak MiB |\n| --- | --- | --- |\n")
        for name in (f"make {asked.findings} {asked.events}", *ROWS):
            seconds, _, peak = reports_table.measured(["--folder", str(folder), "--step", name], __file__)
            sys.stdout.write(f"| {name} | {seconds:.1f} | {peak:.0f} |\n")
            sys.stdout.flush()
    finally:
        if asked.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
