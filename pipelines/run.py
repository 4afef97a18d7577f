"""A run from settings to reports: scan, choose, plan, annotate what is still to do, write the reports."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..model.annotator import Annotator
from ..model.finding import Result, Status
from ..readers.errors import RequestError
from ..readers.regions import Region
from ..reports.writer import FileRow, Record
from .choice import AnnotatorChoice, choose_annotator, choose_labels
from .config import Settings
from .engine import Engine, InlineEngine
from .events import Listener, RegionDone, Started, Told
from .local import LocalEngine
from .manifest import make_manifest, refuse_difference
from .plan import Plan, make_plan, scan_inputs
from .report import Made, load_writers, read_record, write_reports
from .store import Store, check_folder, read_entries
from .work import RegionJob

ALL_DONE, SOME_FAILED, NOTHING_READ = 0, 1, 3


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan with the annotator that it was made for. `labels` are the ones to keep, () for all."""

    plan: Plan
    choice: AnnotatorChoice
    annotator: Annotator
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run: regions by status, failed files, the reports made, and the record they were made of."""

    record: Record
    regions: Counter[Status]
    failed_files: tuple[FileRow, ...]
    made: tuple[Made, ...]

    @property
    def exit_code(self) -> int:
        """0 all regions; 1 some failed; 3 nothing could be read."""
        if self.regions["failed"] and not self.regions["done"]:
            return NOTHING_READ
        failed = self.regions["failed"] or self.failed_files or any(one.error for one in self.made)
        return SOME_FAILED if failed else ALL_DONE


def prepare(settings: Settings) -> Prepared:
    """Scan the inputs, choose the annotator and plan. Raises `LimnerError` where no image can be looked at."""
    scanned = scan_inputs(settings)
    infos = [info for row in scanned for info in row.infos]
    choice = choose_annotator(settings, infos)
    annotator = choice.make(threads="0")
    labels = choose_labels(settings, annotator)
    return Prepared(make_plan(settings, scanned, annotator), choice, annotator, labels)


def run(settings: Settings, listen: Listener) -> Outcome:
    """Do everything that is asked, or go on with it where an earlier run was cut off.

    A failed region is tried again when the run is; its last outcome counts. Raises `RequestError` for settings that
    cannot be met, `ModelError`, `ReadError` where nothing can be read, `StoreError` where results cannot be kept.
    """
    if not settings.out:
        raise RequestError("out", "a folder for the results is needed", remedy="limner run INPUT... --out DIR")
    folder = Path(settings.out)
    check_folder(folder)
    writers = load_writers(settings.reports)
    listen(Told("Looking at the inputs"))
    prepared = prepare(settings)
    plan = prepared.plan
    for row in plan.files:
        if row.status == "failed":
            listen(Told(f"{row.path} is left out. {row.reason}"))
    for note in sorted({f"{image.info.id}: {note}" for image in plan.images for note in image.info.notes}):
        listen(Told(note))
    prepared.annotator.prepare([image.sight for image in plan.images])
    regions = [region for image in plan.images for region in image.regions]
    with Store.open(folder) as store:
        _agree(store, settings, prepared)
        store.append([result for result in _skipped(plan) if result.region not in store.entries])
        settled = {entry.region for entry in store.entries.values() if entry.status != "failed"}
        settled |= {result.region for result in _skipped(plan)}
        todo = [region for region in regions if region.key not in settled]
        listen(Started(len(plan.images), len(regions), len(regions) - len(todo), str(folder)))
        for results in _engine(settings, prepared).annotate(_batches(todo, settings.batch)):
            store.append(results)
            for result in results:
                listen(RegionDone(result.region, result.status, len(result.findings), result.error))
        statuses: Counter[Status] = Counter(entry.status for entry in read_entries(folder).values())
        listen(Told("Writing the reports"))
        record = read_record(folder)
        made = tuple(write_reports(record, folder, writers))
    failed_files = tuple(row for row in plan.files if row.status == "failed")
    return Outcome(record, statuses, failed_files, made)


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _agree(store: Store, settings: Settings, prepared: Prepared) -> None:
    """Write the manifest, or check that the one in the folder asks for the same."""
    annotator = prepared.annotator
    manifest = make_manifest(
        settings,
        prepared.plan,
        prepared.choice,
        identity=annotator.identity,
        labels=prepared.labels or annotator.labels,
        colours=annotator.colours,
    )
    old = store.manifest
    if old is None:
        store.write_manifest(manifest)
    else:
        refuse_difference(old, manifest, str(store.folder))


def _skipped(plan: Plan) -> list[Result]:
    """Results of the regions that need not be read."""
    return [
        Result(key, image.info.id, "skipped", error=reason)
        for image in plan.images
        for key, reason in (image.skipped or {}).items()
    ]


def _engine(settings: Settings, prepared: Prepared) -> Engine:
    if settings.engine == "inline":
        return InlineEngine(RegionJob.of(prepared.plan, prepared.choice, labels=prepared.labels))
    workers = settings.workers or cores()
    threads = max(1, cores() // workers)
    job = RegionJob.of(prepared.plan, prepared.choice, labels=prepared.labels, threads=threads)
    return LocalEngine(job, workers, threads)


def _batches(regions: Sequence[Region], size: int) -> Iterator[Sequence[Region]]:
    """At most `size` regions at a time, never of two images."""
    start = 0
    while start < len(regions):
        image = regions[start].grid.image
        stop = start + 1
        while stop < len(regions) and stop - start < size and regions[stop].grid.image == image:
            stop += 1
        yield regions[start:stop]
        start = stop
