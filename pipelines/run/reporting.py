"""Writes reports from a run folder: a function of the manifest and the results, which may be repeated at any time."""

import gc
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import shapely

from ...model.checkpoints.files import HUB_ID
from ...model.finding import PackedRaster, Result
from ...model.findings_table import Chunk, FindingsTable
from ...model.probabilities import Steps
from ...model.volume.volume import LabelMap
from ...readers.errors import LimnerError, ReadError, RequestError, did_you_mean, excerpt
from ...readers.files import has_changed
from ...readers.image import ImageInfo
from ...readers.options import make_plugin
from ...readers.plugins import installed, load
from ...readers.regions import Region
from ...reports.csv_safety import clean_text
from ...reports.measures import areas_m2, batches
from ...reports.streams import Stream, StreamingWriter, send
from ...reports.writer import (
    NOT_RUN,
    FileRow,
    ImageRecord,
    PartlyWrittenError,
    Record,
    UnanalysedRegion,
    Writer,
)
from ..object_settings import Amount, ObjectSettings
from ..progress import EventHandler, Reporting
from .analysed import analysed_cores, masked_cores
from .areas import image_areas, nothing_analysed
from .features import ReadRaster, feature_shape, read_features
from .findings_cache import FindingsCache
from .kept_overviews import KeptOverviews
from .manifest import load_manifest
from .model_selection import NONE
from .overview_stats import EMPTY
from .parts import PARTS, placeless, unpack_raster
from .plan import NO_MODEL, NOT_CHOSEN, ImagePlan
from .record_pictures import overview_picture, part_pictures, slice_pictures, with_shared_overviews
from .redaction import Redactor, read_sources, restore_paths
from .run_files import StoreError
from .run_folder import Entry, read_chunks, read_entries, read_raster
from .stack_job import LABEL_MAP, PROBABILITIES
from .windows import NOT_VISIBLE


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """What one writer wrote."""

    writer: str
    paths: tuple[Path, ...] = ()
    omitted: Mapping[str, str] = field(default_factory=dict[str, str])
    """Reasons by id of the images that are not in the report."""
    error: str = ""
    """Why the writer failed."""


def load_writers(names: Sequence[str], options: Mapping[str, str] | None = None) -> list[Writer]:
    """The writers of these names, sorted, or all that are installed but those on request.

    `options` have keys "WRITER.OPTION". Raises `RequestError` for an unknown writer or option.
    """
    known = list(installed("limner.writers"))
    given: dict[str, dict[str, str]] = {}
    for key, value in (options or {}).items():
        name, _, option = key.partition(".")
        if name not in known or not option:
            remedy = f"{did_you_mean(name, known)}Writers: {', '.join(known)}"
            raise RequestError(f"setting report_options.{key}", "must be report_options.WRITER.OPTION", remedy=remedy)
        given.setdefault(name, {})[option] = value
    makers = {
        name: cast("Callable[..., Writer]", load("limner.writers", name))
        for name in sorted({*(names or known), *given})
    }
    made = {name: make_plugin(maker, given.get(name, {}), f"writer {name!r}") for name, maker in makers.items()}
    chosen = set(names) or {name for name in known if not getattr(made[name], "on_request", False)}
    return [made[name] for name in sorted(chosen)]


def write_reports(
    record: Record, folder: Path, writers: Sequence[Writer], on_event: EventHandler = lambda _: None
) -> Iterator[WrittenReport]:
    """Write every report, in one pass over the findings those that can. A writer that fails does not prevent others."""
    streaming = [writer for writer in writers if isinstance(writer, StreamingWriter)]
    passes = len(writers) - len(streaming) + 1
    outcomes = _write_streams(record, folder, streaming, lambda share: on_event(Reporting("reports", share / passes)))
    for writer in sorted(writers, key=lambda writer: getattr(writer, "last", False)):
        if writer.name not in outcomes:
            on_event(Reporting(writer.name, (1 + len(outcomes) - len(streaming)) / passes))
            outcomes[writer.name] = _outcome(lambda writer=writer: writer.write(record, folder))
        yield _written(record, folder, writer, outcomes[writer.name])
    on_event(Reporting("", 1.0))


_Outcome = Sequence[Path] | Exception
"""The files of a report, or why there are none."""


@contextmanager
def _rare_collections() -> Generator[None]:
    """Let Python look for cyclic garbage after 100,000 new objects, not 700: a batch has as many geometries."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@_rare_collections()
def _outcome(write: Callable[[], Sequence[Path]]) -> _Outcome:
    try:
        return write()
    except Exception as error:  # noqa: BLE001 - `_written` tells it
        return error


@_rare_collections()
def _write_streams(
    record: Record, folder: Path, writers: Sequence[StreamingWriter], on_share: Callable[[float], None]
) -> dict[str, _Outcome]:
    """Send all findings, batch by batch, to every writer."""
    streams = {writer.name: writer.stream(record, folder) for writer in writers}
    outcomes: dict[str, _Outcome] = {}

    def advance(step: Callable[[Stream], Sequence[Path] | None], *, last: bool = False) -> None:
        """Let each go on that has not failed."""
        for name, stream in streams.items():
            if name not in outcomes:
                outcome = _outcome(lambda stream=stream: step(stream) or ())
                if last or isinstance(outcome, Exception):
                    outcomes[name] = outcome

    images = {image.info.id: place for place, image in enumerate(record.images)}
    with ExitStack() as stack:
        for stream in streams.values():
            stack.callback(stream.close)
        advance(next)
        try:
            for batch in batches(record) if streams else ():
                advance(lambda stream, batch=batch: send(stream, batch))
                share = (batch.first - 1 + len(batch)) / max(1, len(batch.image.findings()))
                on_share((images[batch.image.info.id] + share) / len(images))
            advance(lambda stream: send(stream, None), last=True)
        except Exception as error:  # noqa: BLE001 - the findings cannot be read, which each writer tells
            outcomes = dict[str, _Outcome].fromkeys(streams, error) | outcomes
    return outcomes


def _written(record: Record, folder: Path, writer: Writer, outcome: _Outcome) -> WrittenReport:
    """What a writer wrote, or why it failed."""
    if not isinstance(outcome, Exception):
        return WrittenReport(writer.name, tuple(outcome), writer.omitted(record))
    if isinstance(outcome, PartlyWrittenError):
        failed = {image: _redact(folder, why) for image, why in outcome.omitted.items()}
        return WrittenReport(writer.name, outcome.paths, {**writer.omitted(record), **failed}, str(outcome))
    if isinstance(outcome, LimnerError):
        return WrittenReport(writer.name, error=_redact(folder, str(outcome)))
    if isinstance(outcome, OSError):
        found = _redact(folder, str(outcome))
        where = f"{folder} and the folder of temporary files, {tempfile.gettempdir()},"
        why = f"{where} must be writable (found: {found}). Free disk space, then run `limner report {folder}`."
        return WrittenReport(writer.name, error=why)
    found = excerpt(_redact(folder, f"{type(outcome).__name__}: {outcome}"), 200)
    why = f"The writer must not fail (found: {found}). Report this as a bug of the writer."
    return WrittenReport(writer.name, error=why)


def _redact(folder: Path, text: str) -> str:
    """A message without the paths of a run: a picture reads the images again, from where they are."""
    try:
        return Redactor.of_sources(read_sources(folder)).text(text)
    except StoreError:
        return "the reason may hold a name"


def read_record(
    folder: Path, *, overviews: KeptOverviews | None = None, changes: Mapping[str, object] | None = None
) -> Record:
    """The run in a folder, as writers need it; findings are read when needed, and overviews unless they were kept.

    `changes` are settings of objects that differ from the manifest's. An interrupted run is reported as far as it went.
    Raises `RequestError` and `StoreError`.
    """
    manifest = load_manifest(folder)
    if changes:
        manifest = {**manifest, "config": {**manifest["config"], **changes}}
    cache = FindingsCache(str(folder / PARTS), lambda entries: read_chunks(folder, entries))

    def raster(entry: Entry, name: str) -> npt.NDArray[Any] | None:
        return read_raster(folder, entry, name) if name in entry.rasters else None

    return _make_record(
        manifest, read_entries(folder), cache, raster, read_sources(folder), overviews or KeptOverviews(folder)
    )


def record_in_memory(manifest: Mapping[str, Any], results: Iterable[Result]) -> Record:
    """A run without a folder; images are read from the paths in the manifest."""
    found = {result.region: result for result in results}
    entries = {
        key: Entry(key, one.image, one.status, one.error, one.coverage, rasters=placeless(one.rasters))
        for key, one in found.items()
    }

    def chunks(entries: Sequence[Entry]) -> list[Chunk]:
        return [FindingsTable.of(finding for entry in entries for finding in found[entry.region].findings)]

    def raster(entry: Entry, name: str) -> npt.NDArray[Any] | None:
        kept = found[entry.region].rasters.get(name)
        return unpack_raster(kept) if isinstance(kept, PackedRaster) else kept

    return _make_record(manifest, entries, FindingsCache("memory", chunks), raster, {}, KeptOverviews())


def _make_record(
    manifest: Mapping[str, Any],
    entries: Mapping[str, Entry],
    cache: FindingsCache,
    raster: "_ReadRaster",
    sources: Mapping[str, str],
    overviews: KeptOverviews,
) -> Record:
    plans = [ImagePlan.from_json(image) for image in manifest["images"]]
    annotator = cast("dict[str, Any]", manifest["annotator"])
    cache.settings = ObjectSettings.of(manifest["config"])
    labels = [clean_text(label) for label in annotator["labels"]]
    check_objects(cache.settings, plans, labels)
    names = _image_names([plan.info for plan in plans], show=manifest["config"].get("names") == "show")
    identity = cast("dict[str, str]", annotator["identity"])
    if (source := identity.get("checkpoint", "")) and not HUB_ID.fullmatch(source):  # a path of who ran it
        identity = {**identity, "checkpoint": Path(source).name or source}
    variants = sorted({plan.spec.variant for plan in plans})
    kept = bool(manifest["config"].get("probabilities"))
    weights = [identity[key] for variant in variants if (key := f"weights_sha256_{variant}") in identity]
    return Record(
        images=with_shared_overviews(
            _image_record(plan, entries, cache, raster, sources, name=name, overviews=overviews, kept=kept)
            for plan, name in zip(plans, names, strict=True)
        ),
        files=tuple(FileRow(**row) for row in manifest["files"]),
        model={"sha256": " ".join(weights), **identity, **({"objects": text} if (text := cache.settings.text) else {})},
        labels=tuple(labels),
        version=manifest["versions"]["limner"],
        preset=manifest["config"]["preset"],
        colours={clean_text(label): colour for label, colour in annotator["colours"].items()},
        assessed=annotator["name"] != NONE,
        concepts={
            clean_text(label): (code[0], code[1], code[2]) for label, code in annotator.get("concepts", {}).items()
        },
        started=str(manifest.get("started", "")),
        run=_run_digest(manifest, entries),
    )


def _run_digest(manifest: Mapping[str, Any], entries: Mapping[str, Entry]) -> str:
    """The sha256 of the manifest and of what became of each region: another one once an interrupted run goes on."""
    outcomes = [[key, entry.status, entry.error, entry.findings] for key, entry in sorted(entries.items())]
    return hashlib.sha256(json.dumps([manifest, outcomes], sort_keys=True).encode()).hexdigest()


_ReadRaster = Callable[[Entry, str], npt.NDArray[Any] | None]
"""The raster of a region by its name; None where it has none."""


def _kept(raster: _ReadRaster) -> ReadRaster:
    """Reads rasters that a run has kept. Raises `StoreError` where one is missing."""

    def read(entry: Entry, name: str) -> npt.NDArray[Any]:
        found = raster(entry, name)
        if found is None:
            remedy = "Restore it from a backup, or run again into another folder"
            raise StoreError(f"{name} of {entry.region}", "must be in the run folder", remedy=remedy)
        return found

    return read


def _image_record(
    plan: ImagePlan,
    entries: Mapping[str, Entry],
    cache: FindingsCache,
    raster: _ReadRaster,
    sources: Mapping[str, str],
    *,
    name: str,
    overviews: KeptOverviews,
    kept: bool,
) -> ImageRecord:
    found = [entries.get(region.key) for region in plan.regions]
    done = [entry for entry in found if entry is not None and entry.status == "done"]
    unanalysed = [
        UnanalysedRegion(
            box,
            "unreadable" if entry and (entry.status == "failed" or entry.error == NOT_VISIBLE) else "skipped",
            entry.error if entry else NOT_RUN,
            plane,
        )
        for region, entry in zip(plan.regions, found, strict=True)
        if entry is None or (entry.status != "done" and entry.error not in {NO_MODEL, EMPTY})
        for box, plane in plan.reported_boxes(region)
    ]
    unanalysed += [UnanalysedRegion(plan.info.box, "skipped", NOT_CHOSEN, plane) for plane in plan.left_out]
    areas, shape = image_areas(plan, found), feature_shape(found)

    def original() -> ImageInfo:
        info, remedy = restore_paths(plan.info, sources), "Restore the file as it was, or run again into another folder"
        try:
            changed = has_changed(info)
        except ReadError as error:
            if error.subject == plan.info.id:  # fetched files, of which some are gone
                raise
            # others are told with their path
            raise ReadError(plan.info.id, "must still be where the run read it", remedy=remedy) from None
        if changed:
            raise ReadError(plan.info.id, "must not change between the run and its reports", remedy=remedy)
        return info

    def label_maps() -> Iterator[LabelMap]:
        for entry in found:
            read = None if entry is None else raster(entry, LABEL_MAP)
            yield np.zeros(plan.info.size[::-1], dtype=np.uint8) if read is None else read

    def probabilities() -> Iterator[tuple[Region, Steps]]:
        for region, entry in zip(plan.regions, found, strict=True):
            read = None if entry is None else raster(entry, PROBABILITIES)
            if read is not None:
                yield region, read

    masked = None if plan.mask is None else partial(masked_cores, plan, found, _kept(raster))
    excluded = masked if plan.mask is not None and plan.mask.excludes else None
    objects = partial(cache.get, plan, done, original, excluded)
    return ImageRecord(
        info=plan.info,
        findings=lambda: objects()[0],
        changes=lambda: objects()[1],
        overview=lambda: overview_picture(plan, original, lambda: objects()[0].planes, overviews),
        areas=areas,
        failures=tuple((entry.region, entry.error) for entry in found if entry and entry.status == "failed"),
        analysis=_analysis_summary(plan) | ({"Objects": text} if (text := cache.settings.text) else {}),
        scale=plan.grid.scale,
        unanalysed=tuple(unanalysed),
        roi=plan.area,
        tissue=plan.tissue_area,
        name=name,
        label_maps=None if plan.spec.volume is None else label_maps,
        analysed=None if plan.info.kind == "study" else lambda: analysed_cores(plan, found, original, _kept(raster)),
        masked=masked,
        mask_excludes=plan.mask is None or plan.mask.excludes,
        grid=plan.grid,
        probabilities=probabilities if kept else None,
        original=original,
        slice_pictures=lambda planes, longest: slice_pictures(plan, original, planes, longest),
        part_pictures=lambda parts, longest: part_pictures(plan, original, parts, longest),
        spec=plan.spec,
        forced=plan.forced,
        tile=plan.spec.tile,
        features=(lambda: read_features(plan, found, _kept(raster))) if shape[0] else None,
        feature_shape=shape,
        warnings=plan.warnings or nothing_analysed(areas),
    )


def check_objects(settings: ObjectSettings, plans: Sequence[ImagePlan], labels: Sequence[str]) -> None:
    """Raise `RequestError` where settings of objects do not suit the labels, or an image of a run."""
    settings.check_labels(labels)
    for plan in plans:
        info = plan.info
        if settings.chosen and plan.spec.volume is not None:
            rule, remedy = "must not be made of a stack that is annotated as a volume", "Leave these settings out"
            raise RequestError(f"objects of {info.id}", rule, value=settings.text, remedy=remedy)
        placed = bool(np.isfinite(areas_m2(np.array([shapely.box(0, 0, 1, 1)]), info)).all())
        for amount in (settings.min_area, settings.fill_holes, settings.simplify):
            if isinstance(amount, Amount):
                amount.check(info.id, info.kind, placed=placed)


def _image_names(infos: Sequence[ImageInfo], *, show: bool) -> list[str]:
    """The name of each image's file, or of the folder of a stack, with as many folders as tell different ones apart.

    "" where it would name a study under a pseudonym, whose URI ends with its id.
    """
    paths = [PurePosixPath(info.uri).parts[: -1 if len(info.planes) > 1 else None] for info in infos]
    distinct, names = set(paths), dict[tuple[str, ...], str]()
    for length in range(1, 1 + max(map(len, paths), default=0)):
        counts = Counter(path[-length:] for path in distinct)
        for path in distinct - names.keys():
            if counts[path[-length:]] == 1 or length == len(path):
                names[path] = str(PurePosixPath(*path[-length:]))
    hidden = [info.kind == "study" and not show for info in infos]
    return ["" if hide else names.get(path, "") for path, hide in zip(paths, hidden, strict=True)]


def _analysis_summary(plan: ImagePlan) -> dict[str, str]:
    """How the image was analysed, as rows of a report."""
    rows: dict[str, str] = {}
    if plan.spec.volume is not None:
        rows["Voxels"] = f"{' × '.join(f'{side:.4g}' for side in plan.spec.volume.spacing)} mm, all slices at once"
    else:
        region = plan.largest_region
        rows["Regions"] = f"{len(plan.regions)} (up to {region.size[0]} × {region.size[1]} px)"
        rows["Tiles"] = f"{plan.spec.tile} px, halo {plan.spec.halo} px"
        rows["Bands"] = "RGB" if plan.spec.bands is None else ", ".join(plan.spec.bands)
    facts = dict(plan.info.facts)
    if len(plan.info.planes) > 1:
        rows["Slices"] = str(len(plan.info.planes))
    if plan.montage is not None:
        rows["Montages"] = f"of up to {plan.montage.columns} × {plan.montage.rows} slices, in order, row by row"
    if plan.tissue:
        rows["Tissue"] = plan.tissue
    if plan.mask is not None:
        rows["Mask"] = plan.mask.how if plan.mask.excludes else f"{plan.mask.how}; flagged, not excluded"
    if "window_used" in facts:
        rows["Window"] = facts["window_used"]
    elif plan.stretch is not None:
        limits = zip(plan.stretch.channels, plan.stretch.low, plan.stretch.high, strict=True)
        rows["Stretch"] = ", ".join(f"{name} {low:.6g} to {high:.6g}" for name, low, high in limits)
    return rows
