"""From a run's folder to its reports: a pure function of the manifest and the results, to be made again at any time."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, cast

import shapely
from shapely.errors import ShapelyError

from ...model.finding import Finding, Result
from ...model.merging import join
from ...readers.errors import LimnerError, RequestError, did_you_mean, excerpt
from ...readers.files import has_changed
from ...readers.geodesy import box_areas_m2
from ...readers.image import ImageInfo
from ...readers.options import make_plugin
from ...readers.overview import Montage, read_overview
from ...readers.plugins import installed, load
from ...readers.registry import open_image
from ...readers.render import render
from ...reports.patient_geometry import pixel_area_m2
from ...reports.writer import (
    Area,
    AreaStatus,
    FileRow,
    ImageRecord,
    Overview,
    PartlyWrittenError,
    Record,
    UnanalysedRegion,
    Writer,
)
from .manifest import load_manifest
from .model_selection import NONE
from .plan import NO_MODEL, ImagePlan
from .redaction import read_sources, reveal
from .roi import EMPTY
from .run_folder import RESULTS, Entry, StoreError, read_entries, read_findings

NOT_RUN = "not run yet"
OVERVIEW = 2048  # pixels on the long side of a picture


@dataclass(frozen=True, slots=True)
class Made:
    """What one writer made: `paths`, and per image the reason why it is not in them; `error` where it failed."""

    writer: str
    paths: tuple[Path, ...] = ()
    omitted: Mapping[str, str] = field(default_factory=dict[str, str])
    error: str = ""


def load_writers(names: Sequence[str], options: Mapping[str, str] | None = None) -> list[Writer]:
    """The writers of those names, or all that are installed, sorted; `options` are by "WRITER.OPTION".

    Raises `RequestError` for an unknown writer or option.
    """
    known = list(installed("limner.writers"))
    given: dict[str, dict[str, str]] = {}
    for key, value in (options or {}).items():
        name, _, option = key.partition(".")
        if name not in known or not option:
            raise RequestError(
                f"setting report_options.{key}",
                "it must be report_options.WRITER.OPTION",
                remedy=f"{did_you_mean(name, known)}Writers: {', '.join(known)}",
            )
        given.setdefault(name, {})[option] = value
    chosen = {name: load("limner.writers", name) for name in sorted({*(names or known), *given})}
    makers = {name: cast("Callable[..., Writer]", maker) for name, maker in chosen.items()}
    made = {name: make_plugin(one, given.get(name, {}), f"writer {name!r}") for name, one in makers.items()}
    return [made[name] for name in sorted(set(names or known))]


def write_reports(record: Record, folder: Path, writers: Sequence[Writer]) -> Iterator[Made]:
    """Write every report; one that fails says so and does not keep the others from being made."""
    for writer in writers:
        try:
            paths = tuple(writer.write(record, folder))
            yield Made(writer.name, paths, writer.omitted(record))
        except PartlyWrittenError as error:
            yield Made(writer.name, error.paths, {**writer.omitted(record), **error.omitted}, str(error))
        except LimnerError as error:
            yield Made(writer.name, error=str(error))
        except OSError as error:
            yield Made(
                writer.name, error=f"{folder}: it must be writable (found: {error}). Make room, then: limner report"
            )
        except Exception as error:  # noqa: BLE001 - a library's, over values that no check foresaw, or a plug-in's own
            why = excerpt(f"{type(error).__name__}: {error}", 200)
            yield Made(
                writer.name,
                error=f"{folder}: the writer must be able to make sense of the results (found: {why}). "
                "Report this as a mistake of the writer; the other reports are made",
            )


def read_record(folder: Path) -> Record:
    """The run in a folder, as writers see it; findings stay on the disk until they are asked for.

    A run that was cut off is reported as far as it went. Raises `RequestError` and `StoreError`.
    """
    manifest = load_manifest(folder)
    shelf = _Shelf(str(folder / RESULTS), lambda entries: read_findings(folder, entries))
    return _make_record(manifest, read_entries(folder), shelf, read_sources(folder))


def record_in_memory(manifest: Mapping[str, Any], results: Iterable[Result]) -> Record:
    """A run that has no folder, of its manifest and its results; images are read under the paths that these tell."""
    found = {result.region: result for result in results}
    entries = {key: Entry(key, one.image, one.status, one.error, one.coverage, 0, 0) for key, one in found.items()}
    shelf = _Shelf("memory", lambda chosen: [finding for one in chosen for finding in found[one.region].findings])
    return _make_record(manifest, entries, shelf, {})


def _make_record(
    manifest: Mapping[str, Any], entries: Mapping[str, Entry], shelf: "_Shelf", sources: Mapping[str, str]
) -> Record:
    plans = [ImagePlan.from_json(image) for image in manifest["images"]]
    annotator = cast("dict[str, Any]", manifest["annotator"])
    shown = manifest["config"].get("names") == "show"
    return Record(
        images=tuple(
            replace(_image_record(plan, entries, shelf, sources), name=_file_name(plan.info, shown=shown))
            for plan in plans
        ),
        files=tuple(FileRow(**row) for row in manifest["files"]),
        model=_model(annotator, plans),
        labels=tuple(annotator["labels"]),
        version=manifest["versions"]["limner"],
        preset=manifest["config"]["preset"],
        colours=annotator["colours"],
        assessed=annotator["name"] != NONE,
    )


@dataclass(slots=True)
class _Shelf:
    """One image's findings at a time: writers ask for the same ones several times in a row."""

    place: str
    read: Callable[[Sequence[Entry]], Sequence[Finding]]
    image: str = ""
    findings: Sequence[Finding] = ()

    def take(self, plan: ImagePlan, entries: Sequence[Entry]) -> Sequence[Finding]:
        if plan.info.id != self.image:
            self.image, self.findings = "", ()  # never two images' at once
            findings = self.read(entries)
            try:
                _check_places(findings, plan.info)
                self.findings = tuple(join(findings, plan.info, plan.area))
            except (ShapelyError, ValueError) as error:
                raise StoreError(
                    self.place,
                    f"its findings on {plan.info.id} must be shapes on it that can be joined, as they were written",
                    value=excerpt(str(error)),
                    remedy="Restore it from a copy, or run again into another folder",
                ) from error
            self.image = plan.info.id
        return self.findings


def _check_places(findings: Sequence[Finding], info: ImageInfo) -> None:
    """Raise `ValueError` for a finding on no plane of its image, or further outside than any region or box reaches."""
    width, height = info.size
    whole = shapely.box(-width, -height, 2 * width, 2 * height)
    for finding in findings:
        if not 0 <= finding.plane < len(info.planes):
            msg = f"a {finding.label} on plane {finding.plane} of {len(info.planes)}"
            raise ValueError(msg)
        if not (finding.geometry.is_empty or whole.covers(shapely.box(*finding.geometry.bounds))):
            msg = f"a {finding.label} at {finding.geometry.bounds}"
            raise ValueError(msg)


def _image_record(
    plan: ImagePlan, entries: Mapping[str, Entry], shelf: _Shelf, sources: Mapping[str, str]
) -> ImageRecord:
    regions = plan.regions
    found = [entries.get(region.key) for region in regions]
    done = [entry for entry in found if entry is not None and entry.status == "done"]
    unanalysed = [
        UnanalysedRegion(
            region.core,
            "unreadable" if entry and entry.status == "failed" else "skipped",
            entry.error if entry else NOT_RUN,
            region.plane,
        )
        for region, entry in zip(regions, found, strict=True)
        if entry is None or (entry.status != "done" and entry.error not in {NO_MODEL, EMPTY})
    ]
    return ImageRecord(
        info=plan.info,
        findings=lambda: shelf.take(plan, done),
        overview=lambda: _overview(plan, sources, lambda: shelf.take(plan, done)),
        areas=_areas(plan, found),
        failures=tuple((entry.region, entry.error) for entry in found if entry and entry.status == "failed"),
        analysis=_analysis(plan),
        scale=plan.grid.scale,
        unanalysed=tuple(unanalysed),
        roi=plan.area,
    )


def _file_name(info: ImageInfo, *, shown: bool) -> str:
    """The name of an image's file, or of a stack's folder, as the run tells it; empty where it may be a person's."""
    if info.personal and not shown:
        return ""
    path = PurePosixPath(info.uri)
    return path.parent.name if len(info.planes) > 1 else path.name


def _areas(plan: ImagePlan, found: Sequence[Entry | None]) -> tuple[Area, ...]:
    """What became of the image's area; the parts sum to it, since cores partition it."""
    cores = [region.core for region in plan.regions]
    m2 = box_areas_m2([(core.x0, core.y0, core.x1, core.y1) for core in cores], plan.info.placement)
    pixel = pixel_area_m2(plan.info)
    parts: dict[tuple[AreaStatus, str], list[tuple[float, float | None, int]]] = {("analysed", ""): []}
    for i, (core, entry) in enumerate(zip(cores, found, strict=True)):
        whole = (core.width * core.height, None if m2 is None else float(m2[i]))
        for key, pixels, metres, count in _parts(entry, whole, plan.beyond):
            parts.setdefault(key, []).append((pixels, metres, count))

    def area(status: AreaStatus, reason: str, shares: list[tuple[float, float | None, int]]) -> Area:
        pixels = math.fsum(pixels for pixels, _, _ in shares)
        metres = math.fsum(metres or 0.0 for _, metres, _ in shares)
        known = metres if m2 is not None else None if pixel is None else pixels * pixel
        return Area(status, reason, pixels, known, sum(count for _, _, count in shares))

    return tuple(
        area(status, reason, shares)
        for (status, reason), shares in sorted(parts.items(), key=lambda item: (_ORDER.index(item[0][0]), item[0][1]))
    )


_ORDER: tuple[AreaStatus, ...] = ("analysed", "no data", "skipped", "unreadable")
_Part = tuple[tuple[AreaStatus, str], float, float | None, int]


def _parts(entry: Entry | None, whole: tuple[float, float | None], beyond: str) -> list[_Part]:
    """How one region's core is divided; the region itself counts once. `beyond` is why a part was left out."""
    if entry is None:
        return [(("skipped", NOT_RUN), *whole, 1)]
    if entry.status == "failed":
        return [(("unreadable", "failed: the reasons are listed with the regions"), *whole, 1)]
    cover = entry.coverage
    if cover is None:
        return [(("no data", EMPTY) if entry.error == EMPTY else ("skipped", entry.error), *whole, 1)]
    parts: list[_Part] = [
        (("analysed", ""), cover.valid_px, cover.valid_m2, int(entry.status == "done")),
        (
            ("no data", EMPTY),
            cover.invalid_px,
            cover.invalid_m2,
            int(entry.status == "skipped" and entry.error == EMPTY),
        ),
        (
            ("skipped", beyond),
            cover.outside_px,
            cover.outside_m2,
            int(entry.status == "skipped" and entry.error != EMPTY),
        ),
    ]
    return [part for part in parts if part[1] > 0 or part[3]]


def _analysis(plan: ImagePlan) -> dict[str, str]:
    """How the image was analysed: rows of the overview picture."""
    region = max(plan.regions, key=lambda one: one.tiles[0] * one.tiles[1])
    words = {
        "Regions": f"{len(plan.regions)} of {region.size[0]} × {region.size[1]} px",
        "Tiles": f"{plan.spec.tile} px, halo {plan.spec.halo} px",
        "Bands": "RGB" if plan.spec.bands is None else ", ".join(plan.spec.bands),
    }
    facts = dict(plan.info.facts)
    if len(plan.info.planes) > 1:
        words["Slices"] = str(len(plan.info.planes))
    if plan.tissue:
        words["Tissue"] = plan.tissue
    if "window_used" in facts:
        words["Window"] = facts["window_used"]
    elif plan.stretch is not None:
        limits = zip(plan.stretch.channels, plan.stretch.low, plan.stretch.high, strict=True)
        words["Stretch"] = ", ".join(f"{name} {low:.6g} to {high:.6g}" for name, low, high in limits)
    return words


def _model(annotator: Mapping[str, Any], plans: Sequence[ImagePlan]) -> dict[str, str]:
    """The annotator's identity, with the sha256 of the weights that were used."""
    identity = cast("dict[str, str]", annotator["identity"])
    used = sorted({plan.spec.variant for plan in plans})
    weights = [identity[key] for variant in used if (key := f"weights_sha256_{variant}") in identity]
    return {"sha256": " ".join(weights), **identity}


def _overview(
    plan: ImagePlan, sources: Mapping[str, str], findings: Callable[[], Sequence[Finding]]
) -> Overview | None:
    """The picture at a glance, read again; None where it has none, is gone, or is not what was analysed.

    Of a stack a montage, of slices with `findings` first. `sources` are paths that the record does not tell, and so
    does no error.
    """
    info, stretch = reveal(plan.info, sources), plan.stretch
    if stretch is None:
        return None
    try:
        if has_changed(info):
            return None
        montage, square = Montage.of(info), (1.0, 1.0)
        if info.kind == "study":
            montage = Montage.of(info, (finding.plane for finding in findings()))
            square = tuple(side / min(plan.grid.scale) for side in plan.grid.scale)
        with open_image(info, stretch.channels) as image:
            seen = read_overview(image, limit=OVERVIEW, montage=montage, aspect=(square[0], square[1]))
    except LimnerError:
        return None
    return Overview(render(seen.pixels, seen.valid, stretch), seen.valid, seen.readable, seen.scale, montage)
