"""A run from settings to reports: scan, choose, plan, annotate what is still to do, write the reports."""

import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from ...model.annotator import Annotator, InputSpec, Remote
from ...model.finding import Result
from ...readers.errors import LimnerError, ModelError, RequestError
from ...readers.files import is_remote
from ...readers.image import ImageInfo
from ...readers.regions import Region
from ...readers.registry import check_options as check_reading
from ..config import Settings
from ..run_result import Run
from .engine import Engine, InlineEngine
from .events import Listener, Message, RegionDone, Started, plural
from .machine import cores
from .manifest import load_manifest, make_manifest, refuse_difference
from .model_selection import AnnotatorChoice, choose_annotator, choose_labels
from .plan import NO_MODEL, Plan, make_plan, reading_options, scan_inputs
from .process_pool import ProcessPoolEngine
from .redaction import Redactor, keep, key_for
from .reporting import load_writers, read_record, record_in_memory, write_reports
from .run_folder import RunFolder, as_store_errors, check_folder
from .worker import RegionJob


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan with the annotator that it was made for, if any. `labels` are the ones to keep, () for all.

    `plan` holds the paths that are opened; `names` says how they are told, and `shown` is the plan as it may be told.
    `lacking` says why the annotator cannot work on this machine yet, "" where it can or was not asked.
    """

    plan: Plan
    choice: AnnotatorChoice | None
    annotator: Annotator | None
    labels: tuple[str, ...]
    names: Redactor
    lacking: str = ""

    @property
    def shown(self) -> Plan:
        """The plan as it may be told."""
        return self.names.plan(self.plan)


def check_options(settings: Settings) -> None:
    """Raise `RequestError` for an option of a reader, the model or a writer that does not exist or does not fit.

    Looks at no input, hashes no file and asks no network.
    """
    check_reading(reading_options(settings), settings.reader or None)
    load_writers(settings.reports, settings.report_options)
    choice = choose_annotator(settings, [])
    if choice is not None:
        choice.make()


def prepare(settings: Settings, key: str = "", *, only_plan: bool = False) -> Prepared:
    """Scan the inputs, choose and check the annotator, and plan. Raises `LimnerError` where no image can be looked at.

    `key` is the path of a key for pseudonyms; without one they last as long as this process. With `only_plan` a model
    that is not on this machine is no error but `Prepared.lacking`, and a model on another machine is not asked.
    """
    check_options(settings)
    options = reading_options(settings, key)
    scanned = scan_inputs(settings, options)
    names = Redactor.of(settings, scanned, options)
    try:
        infos = [info for row in scanned for info in row.infos]
        choice = choose_annotator(settings, infos)
        annotator = None if choice is None else choice.make(threads="0")
        labels = choose_labels(settings, choice, annotator)
        lacking = "" if annotator is None else _check(annotator, infos, only_plan=only_plan)
        return Prepared(make_plan(settings, scanned, annotator), choice, annotator, labels, names, names.text(lacking))
    except LimnerError as error:
        raise names.error(error) from None


def _check(annotator: Annotator, infos: Sequence[ImageInfo], *, only_plan: bool) -> str:
    """Check an annotator for the images that suit it, before any pixel is read: see `prepare`. Raises its errors."""
    if only_plan and isinstance(annotator, Remote) and annotator.host:
        return f"It is up to {annotator.host}, which a plan does not ask"
    specs: list[InputSpec] = []
    for info in infos:
        with contextlib.suppress(LimnerError):  # the plan says so of that image
            specs.append(annotator.input_spec(info))
    try:
        annotator.check(specs)
    except ModelError as error:
        if not only_plan:
            raise
        return str(error)
    return ""


def run(settings: Settings, listen: Listener) -> Run:
    """Do everything that is asked, or go on with it where an earlier run was cut off.

    A failed region is tried again when the run is; its last outcome counts. Raises `RequestError` for settings that
    cannot be met, `ModelError`, `ReadError` where nothing can be read, `StoreError` where results cannot be kept.
    """
    if not settings.out:
        raise RequestError("out", "a folder for the results is needed", remedy="limner run INPUT... --out DIR")
    folder = Path(settings.out)
    check_folder(folder)
    _refuse_results_as_inputs(settings)
    worker_count(settings)
    listen(Message("Looking at the inputs"))
    with key_for(folder, settings) as key:
        prepared = prepare(settings, key)
        try:
            return _carry_out(settings, prepared, key, listen)
        except LimnerError as error:
            raise prepared.names.error(error) from None


def run_in_memory(settings: Settings, listen: Listener) -> Run:
    """Do everything that is asked in this process, and keep the results in memory. Raises `LimnerError` as `run` does.

    Settings of folders, reports and engines do not count.
    """
    prepared = prepare(settings)
    results = _skipped(prepared.plan)
    todo = _todo(prepared.plan, {result.region for result in results})
    listen(Started(len(prepared.plan.images), len(results) + len(todo), len(results), ""))
    if todo and prepared.choice is not None:
        job = RegionJob.of(prepared.plan, prepared.choice, labels=prepared.labels)
        for batch in InlineEngine(job).annotate(_batches(todo, settings.batch)):
            results += batch
            _tell_results(batch, listen)
    return Run(record_in_memory(_manifest(settings, prepared), results))


def worker_count(settings: Settings) -> int:
    """How many processes annotate. Raises `RequestError` for more than this machine can start with any use."""
    if settings.engine != "local":
        return 1
    most = max(64, 4 * cores())
    if settings.workers > most:
        raise RequestError(
            "workers",
            f"this machine with its {plural(cores(), 'core')} starts at most {most}",
            value=str(settings.workers),
            remedy="Leave --workers out for one a core",
        )
    return settings.workers or cores()


def _refuse_results_as_inputs(settings: Settings) -> None:
    """Raise `RequestError` where an input is, or lies in, the folder for results."""
    out = os.path.realpath(settings.out)
    for path in settings.inputs:
        real = os.path.realpath(path)
        if not is_remote(path) and os.path.exists(real) and os.path.commonpath([out, real]) == out:  # noqa: PTH110 - no error
            raise RequestError(
                path,
                "an input must lie outside of the folder for results",
                value=f"--out {settings.out}",
                remedy="Give another --out; it may lie in a folder of inputs",
            )


def _carry_out(settings: Settings, prepared: Prepared, key: str, listen: Listener) -> Run:
    """Do what is prepared, in the run's folder."""
    folder, writers = Path(settings.out), load_writers(settings.reports, settings.report_options)
    _tell(prepared.shown, listen)
    with RunFolder.open(folder) as store:
        manifest = _agreed(store, settings, prepared)
        _annotate(store, settings, prepared, listen, lambda: _record(store, manifest, prepared, key))
        listen(Message("Writing the reports"))
        record = read_record(folder)
        return Run(record, folder, tuple(write_reports(record, folder, writers)))


def _tell(plan: Plan, listen: Listener) -> None:
    """What a person should read before trusting the results: files left out, notes on images."""
    for row in plan.files:
        if row.status == "failed":
            listen(Message(f"{row.path} is left out. {row.reason}"))
    for note in sorted({f"{image.info.id}: {note}" for image in plan.images for note in image.info.notes}):
        listen(Message(note))


def _annotate(
    store: RunFolder, settings: Settings, prepared: Prepared, listen: Listener, record: Callable[[], None]
) -> None:
    """Do the regions that are not settled yet. `record` is called once the model is loaded, before any result is kept.

    A model that cannot be loaded so leaves nothing in the folder that binds another try.
    """
    plan = prepared.plan
    regions = [region for image in plan.images for region in image.regions]
    skipped = _skipped(plan)
    settled = {entry.region for entry in store.entries.values() if entry.status != "failed"}
    settled |= {result.region for result in skipped}
    todo = _todo(plan, settled)
    listen(Started(len(plan.images), len(regions), len(regions) - len(todo), str(store.folder)))
    work: Generator[list[Result], None, None] = (result for result in ())
    if todo and prepared.choice is not None:
        work = _engine(settings, prepared, prepared.choice).annotate(_batches(todo, settings.batch))
    with contextlib.closing(work):  # workers end here, come what may
        begun = next(work, list[Result]())
        record()
        store.append([result for result in skipped if result.region not in store.entries])
        for batch in chain([begun], work):
            results = prepared.names.results(batch)
            store.append(results)
            _tell_results(results, listen)


def _todo(plan: Plan, settled: set[str]) -> list[Region]:
    """The regions that are not settled."""
    return [region for image in plan.images for region in image.regions if region.key not in settled]


def _tell_results(results: Sequence[Result], listen: Listener) -> None:
    for result in results:
        listen(RegionDone(result.region, result.status, len(result.findings), result.error))


def _agreed(store: RunFolder, settings: Settings, prepared: Prepared) -> dict[str, Any]:
    """What is asked. Raises `RequestError` where the manifest in the folder asks for something else."""
    manifest = _manifest(settings, prepared)
    old = load_manifest(store.folder) if store.begun else None
    if old is not None:
        refuse_difference(old, manifest, str(store.folder))
    return manifest


def _manifest(settings: Settings, prepared: Prepared) -> dict[str, Any]:
    annotator = prepared.annotator
    return make_manifest(
        settings,
        prepared.plan,
        prepared.choice,
        names=prepared.names,
        identity={"name": NO_MODEL} if annotator is None else annotator.identity,
        labels=prepared.labels or (() if annotator is None else annotator.labels),
        colours={} if annotator is None else annotator.colours,
    )


def _record(store: RunFolder, manifest: dict[str, Any], prepared: Prepared, key: str) -> None:
    """Write what is asked into the folder, and keep what names stand for."""
    if prepared.names.pseudonyms is not None:
        with as_store_errors(store.folder):
            keep(store.folder, key, prepared.names.sources(prepared.plan))
    if not store.begun:
        store.write_manifest(manifest)


def _skipped(plan: Plan) -> list[Result]:
    """Results of the regions that need not be read."""
    return [
        Result(key, image.info.id, "skipped", error=reason)
        for image in plan.images
        for key, reason in (image.skipped or {}).items()
    ]


def crew(settings: Settings) -> tuple[int, int]:
    """How many processes annotate, and how many computing threads each has, 0 for one per core."""
    if settings.engine == "inline":
        return 1, 0
    workers = worker_count(settings)
    return workers, max(1, cores() // workers)


def _engine(settings: Settings, prepared: Prepared, choice: AnnotatorChoice) -> Engine:
    workers, threads = crew(settings)
    job = RegionJob.of(prepared.plan, choice, labels=prepared.labels, threads=threads)
    return InlineEngine(job) if settings.engine == "inline" else ProcessPoolEngine(job, workers, threads)


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
