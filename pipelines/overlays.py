"""`limner.compare` and `limner.merge`: finished runs laid on each other."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .overlay.compare import Comparison, compare_records, write_comparison
from .overlay.merge import MergedRuns, merge_records, write_merged
from .progress import Reporting, progress_display
from .run_result import Run

if TYPE_CHECKING:
    import pandas as pd  # pyright: ignore[reportMissingTypeStubs]

AnyRun = Run | str | os.PathLike[str]


@dataclass(frozen=True)
class Merged:
    """Runs that were joined into one image, as `limner.merge` returns them."""

    run: Run
    """One image with the findings of all runs; it has no picture."""
    joined: MergedRuns
    paths: tuple[Path, ...] = ()
    """The files that were written."""

    @property
    def statements(self) -> tuple[str, ...]:
        """What must be known of the result, a sentence each."""
        return self.joined.statements

    @property
    def coverage(self) -> "pd.DataFrame":
        """Which image covers what: a GeoDataFrame with the columns of coverage.csv."""
        from ..reports.dataframes import shapes_frame
        from .overlay.merge import COVERAGE, coverage_rows

        shapes = [one.shape for _, one in self.joined.coverage]
        return shapes_frame(COVERAGE, coverage_rows(self.joined), shapes, self.run.record.images[0].info.placement)


def compare(
    first: AnyRun,
    second: AnyRun,
    *,
    images: tuple[str, str] = ("", ""),
    accept: bool = False,
    out: str | os.PathLike[str] | None = None,
) -> Comparison:
    """Compare two runs of one place, or their folders: which label became which, and where.

    `images` are the ids of the image of each run, where they have several. Runs that differ in model, sensor, season or
    pixel size are compared with `accept` only. Files are written into the new folder `out`. Raises `RequestError` where
    the runs cannot be compared, and `ReadError` where an image that was analysed in part cannot be read again.
    """
    with progress_display() as on_event:
        found = compare_records(
            _run(first).record,
            _run(second).record,
            accept=accept,
            images=images,
            on_share=lambda share: on_event(Reporting("comparison", share)),
        )
        return found if out is None else write_comparison(found, Path(out))


def merge(runs: Sequence[AnyRun], *, accept: bool = False, out: str | os.PathLike[str] | None = None) -> Merged:
    """Join the maps of runs, or of their folders, into one image: no place counts twice, and areas go on over borders.

    Where several maps were analysed, the place belongs to the first of them. Coordinates are in the CRS of the first.
    Runs that differ in model, sensor, season or pixel size are joined with `accept` only. Files are written into the
    new folder `out`. Raises as `compare` does.
    """
    named = [(_name(run, number), _run(run).record) for number, run in enumerate(runs, 1)]
    joined = merge_records(named, accept=accept)
    paths = () if out is None else tuple(write_merged(joined, Path(out)))
    return Merged(Run(joined.record), joined, paths)


def _run(run: AnyRun) -> Run:
    return run if isinstance(run, Run) else Run.open(run)


def _name(run: AnyRun, number: int) -> str:
    """The name of a run's folder."""
    folder = run.folder if isinstance(run, Run) else Path(run)
    return f"run {number}" if folder is None else folder.resolve().name
