"""Executes a run: scan, select the model, plan, annotate the regions that are not done, write the reports."""

import contextlib
import os
from collections.abc import Callable, Container, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ...model.annotator import Annotator, Cost, InputSpec, RemoteAnnotator, SupportsConcepts, SupportsCost
from ...model.finding import Result
from ...model.probabilities import SupportsProbabilities
from ...model.views import grid_of
from ...readers.errors import LimnerError, ModelError, RequestError
from ...readers.files import is_remote
from ...readers.image import ImageInfo
from ...readers.mask_files import FoundMask
from ...readers.plugins import require_extra
from ...readers.processors import cores
from ...readers.regions import Region
from ...readers.registry import limit_caches
from ...readers.sandbox import release_sandbox
from ...readers.scanned_files import COUNTED_ONCE, ScannedFile
from ...reports.reference import ReferenceCsv, match_references
from ..cli.terminal import plural
from ..config import CLOUD_MODEL, Settings
from ..object_settings import OBJECTS, ObjectSettings
from ..progress import EventHandler, Message, RegionDone, Started
from ..run_result import Run
from .dicom_objects import write_run_reports
from .engines import Engine, InlineEngine, ProcessPoolEngine
from .kept_overviews import KeptOverviews
from .manifest import load_manifest, make_manifest, refuse_difference
from .memory import Division, Headroom, cache_limit, divide, memory_limit, release_freed_memory, view_bytes
from .model_selection import AnnotatorChoice, choose_annotator, choose_labels
from .option_checks import check_options
from .plan import NO_MODEL, Plan, make_plan
from .processes import forget_peak, peak_bytes
from .redaction import (
    Redactor,
    keep_refused,
    key_for,
    scan_with_redaction,
    unmatched_entries,
    where_names_are,
    write_sources,
)
from .reporting import check_objects, load_writers, read_record, record_in_memory
from .run_files import as_store_errors
from .run_folder import RunFolder, check_folder
from .worker import RegionJob

if TYPE_CHECKING:
    from .tiling_check import TilingCheck

OVERVIEW_REPORT = "overview-png"  # the report that draws overviews


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A plan with its annotator, if any."""

    plan: Plan
    """Holds real paths."""
    choice: AnnotatorChoice | None
    annotator: Annotator | None
    labels: tuple[str, ...]
    """Labels to keep; () for all."""
    redactor: Redactor
    division: Division
    """Workers and batches that fit into the memory that the run may take."""
    settings: Settings
    """Those it was prepared with."""
    unavailable: str = ""
    """Why the annotator cannot work on this machine yet, "" where it can or was not asked."""
    limit: float | None = None
    """Bytes of memory that the run may take; None for any number."""
    probabilities: int = 0
    """Number of labels whose probabilities are kept."""

    @property
    def redacted_plan(self) -> Plan:
        """The plan as it may be shown."""
        return self.redactor.plan(self.plan)

    def job(self, threads: int = 0) -> RegionJob | None:
        """The job of the run; None without an annotator."""
        if self.choice is None:
            return None
        return RegionJob.of(
            self.plan,
            self.choice,
            labels=self.labels,
            threads=threads,
            probabilities=self.probabilities > 0,
            cache=cache_limit(self.limit),
        )


def _watch_memory(settings: Settings) -> None:
    """Begin to watch what planning takes, and limit the caches of readers."""
    forget_peak()
    if settings.memory:
        limit_caches(cache_limit(memory_limit(settings)))


def prepare(
    settings: Settings,
    key: str = "",
    *,
    only_plan: bool = False,
    on_event: EventHandler = lambda _: None,
    clouds: Mapping[str, FoundMask] | None = None,
) -> PreparedRun:
    """Scan the inputs, select and check the annotator, and plan. Raises `LimnerError` where no image can be analysed.

    `key` is the path of a key for pseudonyms; without one they last as long as this process. With `only_plan` a model
    that is not on this machine is no error but `PreparedRun.unavailable`, and a remote model is not contacted.
    """
    check_options(settings)
    _watch_memory(settings)
    scanned, redactor = scan_with_redaction(settings, key)
    _report_unmatched(settings, scanned, redactor, on_event)
    return _prepare(settings, scanned, redactor, only_plan=only_plan, on_event=on_event, clouds=clouds)


def _report_unmatched(
    settings: Settings, scanned: Sequence[ScannedFile], redactor: Redactor, on_event: EventHandler
) -> None:
    if text := unmatched_entries(settings, scanned, redactor):
        on_event(Message(text))


def _prepare(
    settings: Settings,
    scanned: Sequence[ScannedFile],
    redactor: Redactor,
    *,
    only_plan: bool = False,
    on_event: EventHandler = lambda _: None,
    kept: KeptOverviews | None = None,
    clouds: Mapping[str, FoundMask] | None = None,
) -> PreparedRun:
    """See `prepare`, and `make_plan` for `kept` and `clouds`."""
    try:
        infos = [info for row in scanned for info in row.infos]
        choice = choose_annotator(settings, infos)
        annotator = None if choice is None else choice.make(threads="0")
        labels = choose_labels(settings, choice, annotator)
        scores = len(labels or annotator.labels) if annotator is not None and settings.probabilities else 0
        _check_probabilities(settings, annotator)
        unavailable = "" if annotator is None else redactor.text(_check(annotator, infos, only_plan=only_plan))
        plan = make_plan(settings, scanned, annotator, on_event, ready=not unavailable, kept=kept, clouds=clouds)
        known = labels or (() if annotator is None else annotator.labels)
        check_objects(ObjectSettings.of(settings.model_dump(include=set(OBJECTS))), plan.images, known)
        cost = _cost(plan, annotator) if settings.memory and not unavailable else None
        workers = worker_count(settings)
        if len(plan.volumes) == len(plan.images):
            workers = min(workers, len(plan.images))  # a stack is the work of one
        planning = peak_bytes() or 0.0
        division = divide(settings, plan.images, cost, workers=workers, probabilities=scores, planning=planning)
    except LimnerError as error:
        raise redactor.error(error) from None
    limit = memory_limit(settings)
    return PreparedRun(plan, choice, annotator, labels, redactor, division, settings, unavailable, limit, scores)


def _check_probabilities(settings: Settings, annotator: Annotator | None) -> None:
    """Raise `RequestError` where probabilities are asked for of a model that has none, or for a report without them."""
    if settings.probabilities and not (isinstance(annotator, SupportsProbabilities) and annotator.gives_probabilities):
        remedy = "Leave out --probabilities, or choose a model that segments"
        value = settings.model or "none"
        rule = "must come with a model that scores every pixel"
        raise RequestError("--probabilities", rule, value=value, remedy=remedy)
    named = settings.reports or settings.report_options
    writers = load_writers(settings.reports, settings.report_options) if named else []
    names = [writer.name for writer in writers if getattr(writer, "needs_probabilities", False)]
    if names and not settings.probabilities:
        remedy = "Add --probabilities, so that the run keeps them"
        raise RequestError("--reports", "must come with --probabilities", value=", ".join(names), remedy=remedy)


def _cost(plan: Plan, annotator: Annotator | None) -> Cost | None:
    """What the largest region takes, None where that is not known."""
    if not isinstance(annotator, SupportsCost):
        return None
    specs = [image.spec for image in plan.images]
    costs = [annotator.cost(specs, grid_of(image.largest_region, image.spec)) for image in plan.images]
    return max(filter(None, costs), key=lambda cost: cost.memory, default=None)


def _check(annotator: Annotator, infos: Sequence[ImageInfo], *, only_plan: bool) -> str:
    """Check an annotator for the images that suit it, before any pixel is read: see `prepare`."""
    if only_plan and isinstance(annotator, RemoteAnnotator) and annotator.host:
        return f"It depends on {annotator.host}, which a plan does not contact"
    specs: list[InputSpec] = []
    for info in infos:
        with contextlib.suppress(LimnerError):  # reported by the plan
            specs.append(annotator.input_spec(info))
    try:
        annotator.check(specs)
    except ModelError as error:
        if not only_plan:
            raise
        return str(error)
    return ""


def run(settings: Settings, on_event: EventHandler) -> Run:
    """Run, or resume a run that was interrupted; failed regions are tried again.

    Raises `RequestError` for settings that cannot be met, `ModelError`, `ReadError` where nothing can be read,
    `StoreError` where results cannot be written.
    """
    if not settings.out:
        raise RequestError("--out", "must name a folder for the results", remedy="limner run INPUT... --out DIR")
    folder = Path(settings.out)
    check_folder(folder)
    _refuse_results_as_inputs(settings)
    check_engine(settings)
    clouds = _cloud_masks(settings, folder, on_event)
    on_event(Message("Scanning the inputs"))
    check_options(settings)
    _watch_memory(settings)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's threads would wait busily between two tiles
    with key_for(folder, settings) as key, TemporaryDirectory(prefix="limner-") as temporary:
        scanned, redactor = scan_with_redaction(settings, key)
        _report_unmatched(settings, scanned, redactor, on_event)
        draws = not settings.reports or OVERVIEW_REPORT in settings.reports
        overviews = KeptOverviews(folder, Path(temporary), every=draws)
        try:
            prepared = _prepare(settings, scanned, redactor, on_event=on_event, kept=overviews, clouds=clouds)
            return _run_prepared(settings, prepared, key, on_event, overviews)
        except BaseException as error:
            if kept := keep_refused(folder, key, redactor):
                on_event(Message(kept))
            if isinstance(error, LimnerError):
                raise redactor.error(error) from None
            raise


def _cloud_masks(settings: Settings, folder: Path, on_event: EventHandler) -> dict[str, FoundMask] | None:
    """The masks of the cloud model, where the settings ask for them."""
    if settings.mask != CLOUD_MODEL:
        return None
    check_options(settings)
    on_event(Message(f"Finding cloud and shadow with {CLOUD_MODEL}"))
    from .cloud_mask import cloud_masks

    return cloud_masks(settings, folder, lambda own: run(own, on_event))


def run_in_memory(settings: Settings, on_event: EventHandler) -> Run:
    """Run in this process and keep the results in memory. Raises `LimnerError` as `run` does.

    Ignores the settings of folders, reports and engines.
    """
    with TemporaryDirectory(prefix="limner-") as temporary:
        alone = settings.model_copy(update={"engine": "inline", "workers": 0})
        clouds = _cloud_masks(alone, Path(temporary), on_event)
        return _run_in_memory(settings, clouds, on_event)


def _run_in_memory(settings: Settings, clouds: Mapping[str, FoundMask] | None, on_event: EventHandler) -> Run:
    prepared = prepare(settings, on_event=on_event, clouds=clouds)
    results = _skipped(prepared.plan)
    todo = [region for image in prepared.plan.images for region in image.remaining]
    on_event(Started(len(prepared.plan.images), len(results) + len(todo), len(results), ""))
    job = prepared.job()
    if todo and job is not None:
        for batch in InlineEngine(job).annotate(_batches(todo, settings.batch, prepared.plan.volumes)):
            results += batch
            _report_results(batch, on_event)
    return Run(record_in_memory(_make_manifest(settings, prepared), results))


def check_tiling_of_inputs(
    settings: Settings, *, shifts: Sequence[int], window: int, seed: int, on_image: Callable[[str], None]
) -> "Iterator[TilingCheck]":
    """Check how far the model's answers depend on its tiles, image by image. Raises `LimnerError`."""
    from .tiling_check import check_tiling

    prepared = prepare(settings)
    try:
        if prepared.choice is None:
            raise RequestError("--model", "must name the model to check", remedy="`limner models` lists models")
        for image, shown in zip(prepared.plan.images, prepared.redacted_plan.images, strict=True):
            on_image(f"Analysing {shown.info.id} with {len(shifts) + 1} grids of tiles, and for its halo")
            annotator = prepared.choice.make(threads="0")
            annotator.check([image.spec])
            annotator.load()
            found = check_tiling(image, annotator, shifts=shifts, window=window, seed=seed)
            yield replace(found, image=shown.info.id)
    except LimnerError as error:
        raise prepared.redactor.error(error) from None


def worker_count(settings: Settings) -> int:
    """Number of processes that annotate. Raises `RequestError` where it is far beyond the number of cores."""
    if settings.engine != "local":
        return max(1, settings.workers if settings.engine == "ray" else 1)
    most = max(64, 4 * cores())
    if settings.workers > most:
        raise RequestError(
            "--workers",
            f"must be at most {most} on this machine with {plural(cores(), 'core')}",
            value=str(settings.workers),
            remedy="Leave --workers out for one per core",
        )
    return settings.workers or cores()


def check_engine(settings: Settings) -> None:
    """Raise `RequestError` where the engine cannot work as asked, as far as that can be told at once."""
    worker_count(settings)
    for name in ("address", "gpus_per_worker"):
        if settings.engine != "ray" and (value := getattr(settings, name)):
            flag = f"--{name.replace('_', '-')}"
            raise RequestError(flag, "must come with --engine ray", value=str(value), remedy=f"Leave {flag} out")
    if settings.engine == "ray":
        require_extra("ray", "--engine ray", otherwise="or use --engine local on one machine")
        from .ray_engine import check_address

        check_address(settings.address)


def workers_and_threads(settings: Settings, prepared: PreparedRun | None = None) -> tuple[int, int]:
    """Number of processes that annotate, and of computing threads in each, 0 for one per core."""
    workers = worker_count(settings) if prepared is None else prepared.division.workers
    return workers, 0 if settings.engine != "local" else max(1, cores() // workers)


def _refuse_results_as_inputs(settings: Settings) -> None:
    """Raise `RequestError` where an input is, or lies in, the output folder."""
    out = os.path.realpath(settings.out)
    for path in settings.inputs:
        real = os.path.realpath(path)
        if not is_remote(path) and os.path.exists(real) and os.path.commonpath([out, real]) == out:  # noqa: PTH110 - no error
            raise RequestError(
                "inputs",
                "must lie outside of the output folder",
                value=f"--out {settings.out}",
                remedy="Give another --out, which may lie in a folder of inputs",
            )


def _run_prepared(
    settings: Settings, prepared: PreparedRun, key: str, on_event: EventHandler, overviews: KeptOverviews
) -> Run:
    """Annotate and report in the run folder."""
    folder, writers = Path(settings.out), load_writers(settings.reports, settings.report_options)
    if settings.reference:
        writers.append(ReferenceCsv(match_references(settings.reference, prepared.plan.volume_infos)))
    plan = prepared.redacted_plan
    _report_plan(plan, on_event)
    if prepared.redactor.pseudonyms is not None:
        on_event(Message(where_names_are(folder, key)))
    with RunFolder.open(folder) as store:
        manifest = _make_manifest(settings, prepared)
        if store.has_manifest:
            refuse_difference(load_manifest(folder), manifest, str(folder))

        def write_manifest() -> None:
            if prepared.redactor.pseudonyms is not None:
                with as_store_errors(folder):
                    write_sources(folder, key, prepared.redactor.originals)
            if not store.has_manifest:
                store.write_manifest(manifest)
            overviews.save()

        _annotate(store, settings, prepared, on_event, write_manifest)
        on_event(Message("Writing the reports"))
        release_freed_memory()
        record = read_record(folder, overviews=overviews, changes=settings.model_dump(include=set(OBJECTS)))
        reports = write_run_reports(record, folder, writers, on_event)
        overviews.save()
        return Run(record, folder, reports)


def _report_plan(plan: Plan, on_event: EventHandler) -> None:
    """Say which files are left out or counted once, and all notes and warnings."""
    for row in plan.files:
        if row.status == "failed":
            on_event(Message(f"{row.path} is left out. {row.reason}"))
        elif row.reason.endswith(COUNTED_ONCE):
            on_event(Message(f"{row.path}: {row.reason}"))
    for note in sorted({f"{image.info.id}: {note}" for image in plan.images for note in image.info.notes}):
        on_event(Message(note))
    for warning in (f"{image.info.id}: warning: {one}" for image in plan.images for one in image.warnings):
        on_event(Message(warning))


def _annotate(
    store: RunFolder,
    settings: Settings,
    prepared: PreparedRun,
    on_event: EventHandler,
    write_manifest: Callable[[], None],
) -> None:
    """Annotate the regions that are not done.

    `write_manifest` is called once the model is loaded: a model that cannot be loaded leaves no manifest, so that
    another one may be tried in the same folder.
    """
    plan = prepared.plan
    skipped = _skipped(plan)
    done = {entry.region for entry in store.entries.values() if entry.status != "failed"}
    total = sum(len(image.regions) for image in plan.images)
    todo = [region for image in plan.images for region in image.remaining if region.key not in done]
    on_event(Started(len(plan.images), total, total - len(todo), str(store.folder)))
    work: Generator[list[Result], None, None] = (result for result in ())
    _, threads = workers_and_threads(settings, prepared)
    job = prepared.job(threads)
    if todo and job is not None:
        if prepared.limit is not None or all(image.info.kind != "study" for image in plan.images):
            release_sandbox()  # it holds libraries, and may not be needed again: it decodes studies
        release_freed_memory()  # of planning, which takes more than a region
        work = _make_engine(settings, job, prepared).annotate(_batches(todo, prepared.division.batch, plan.volumes))
    with contextlib.closing(work):  # ends the workers in any case
        first = next(work, list[Result]())
        write_manifest()
        store.append([result for result in skipped if result.region not in store.entries])
        for batch in chain([first], work):
            results = prepared.redactor.results(batch)
            store.append(results)
            _report_results(results, on_event)


def _make_engine(settings: Settings, job: RegionJob, prepared: PreparedRun) -> Engine:
    room = Headroom(prepared.limit, max(map(view_bytes, prepared.plan.images)) * prepared.division.batch)
    if settings.engine == "inline":
        return InlineEngine(job, room)
    if settings.engine == "local":
        return ProcessPoolEngine(job, prepared.division.workers, job.threads, room)
    from .ray_engine import RayEngine

    return RayEngine(
        lambda threads: replace(job, threads=threads),
        settings.address,
        settings.workers,
        settings.gpus_per_worker,
        [image.info for image in job.images.values()],
    )


def _report_results(results: Sequence[Result], on_event: EventHandler) -> None:
    for result in results:
        on_event(RegionDone(result.region, result.status, len(result.findings), result.error))


def _make_manifest(settings: Settings, prepared: PreparedRun) -> dict[str, Any]:
    """The manifest, with the time at which the run began, which no result depends on: DICOM objects must state one."""
    annotator = prepared.annotator
    manifest = make_manifest(
        settings,
        prepared.plan,
        prepared.choice,
        redactor=prepared.redactor,
        identity={"name": NO_MODEL} if annotator is None else annotator.identity,
        labels=prepared.labels or (() if annotator is None else annotator.labels),
        colours={} if annotator is None else annotator.colours,
        concepts=annotator.concepts if isinstance(annotator, SupportsConcepts) else None,
    )
    return {**manifest, "started": datetime.now(UTC).isoformat(timespec="seconds")}


def _skipped(plan: Plan) -> list[Result]:
    """Results of the regions that need not be read."""
    return [
        Result(key, image.info.id, "skipped", error=reason)
        for image in plan.images
        for key, reason in (image.skipped or {}).items()
    ]


def _batches(regions: Sequence[Region], size: int, volumes: Container[str]) -> Iterator[Sequence[Region]]:
    """At most `size` regions at a time, all of one image; those of `volumes`, which are ids of images, together."""
    start = 0
    while start < len(regions):
        image = regions[start].grid.image
        most = len(regions) if image in volumes else size
        stop = start + 1
        while stop < len(regions) and stop - start < most and regions[stop].grid.image == image:
            stop += 1
        yield regions[start:stop]
        start = stop
