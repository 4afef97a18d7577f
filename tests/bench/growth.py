"""Time and storage of three very large tasks, computed from what was measured on two cores; nothing is run.

    python tests/bench/growth.py

prints the table of docs/scaling.md, "On paper". The constants are those of docs/figures.md.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

CSMASK_S: Final = 214 * 2 / (20_000 / 3) ** 2
"""Core-seconds of `csmask` for a pixel that counts, reading included: the large scene, without its reports."""
GLAND_S: Final = 14 / 2e6 * 512**2 / (512 - 2 * 96) ** 2
"""Core-seconds of `gland` for a pixel that counts: the network on 2 million pixels, and the halos of its tiles."""
SLIDE_PLAN_S: Final = 59.0
"""Core-seconds of planning a slide of 40,000 × 40,000 px without smaller levels."""
FINDINGS: Final = 86_734 / (20_000 / 3) ** 2
"""Findings of `csmask` for a pixel that counts: the large scene."""
REPORT_S: Final = 124 / 1e6
"""Core-seconds of all reports for a finding."""
STORE_BYTES: Final = 38e6 / 1e5
"""Bytes of the run folder for a finding."""
ORDER_BYTES: Final = 40.0
"""Bytes of memory for a finding that is joined and put in order for reports: GeoParquet of ten million."""
GLAND_FINDINGS: Final = 20_000.0
"""Findings for a slide: assumed."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task, and what it takes."""

    name: str
    pixels: float
    """Analysed pixels that count."""
    core_s: float
    """Core-seconds of reading and of the network."""
    plan_s: float
    """Core-seconds of planning, in one process for each run."""
    findings: float


ROWS: Final[Mapping[str, Callable[[Task], str]]] = {
    "analysed pixels": lambda task: f"{task.pixels:.1e}",
    "core-hours of the network and of reading": lambda task: f"{task.core_s / 3600:,.0f}",
    "on 2 cores": lambda task: f"{task.core_s / 2 / 86400:,.1f} days",
    "on 128 cores": lambda task: f"{task.core_s / 128 / 3600:,.1f} h",
    "planning, in one process": lambda task: f"{task.plan_s / 3600:,.1f} h",
    "findings": lambda task: f"{task.findings:.1e}",
    "all reports, in one process": lambda task: f"{task.findings * REPORT_S / 3600:,.1f} h",
    "results in the run folder": lambda task: f"{task.findings * STORE_BYTES / 1e9:,.0f} GB",
    "joining and order of the findings, in memory": lambda task: f"{task.findings * ORDER_BYTES / 1e9:,.1f} GB",
}


def tasks() -> list[Task]:
    """Sentinel-2 over Switzerland, a mosaic of a country, and an archive of slides."""
    fields, mosaic, slides = 4e8 * 12, 1e12, 100_000
    slide = 100_000 * 80_000 * 0.3 / 8**2  # 30 % tissue at 0.25 µm, analysed at 2 µm
    return [
        Task("Switzerland at 10 m, 12 dates", fields, fields * CSMASK_S, 12 * 60, fields * FINDINGS),
        Task("a mosaic of 10¹² px", mosaic, mosaic * CSMASK_S, 60, mosaic * FINDINGS),
        Task(
            "100,000 slides at 2 µm",
            slides * slide,
            slides * slide * GLAND_S,
            slides * SLIDE_PLAN_S,
            slides * GLAND_FINDINGS,
        ),
    ]


def table() -> str:
    """The tasks side by side."""
    columns = tasks()
    lines = [f"| | {' | '.join(task.name for task in columns)} |", "| --- |" + " --- |" * len(columns)]
    lines += [f"| {name} | {' | '.join(map(value, columns))} |" for name, value in ROWS.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
