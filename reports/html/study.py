"""The page of a study for a radiologist: key images, findings, what was not assessed, and how it was done."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from pydantic import Field

from ...model.merged_findings import columnar
from ...readers.files import atomic_path
from ...readers.options import Options
from ..palette import Palette
from ..patient_geometry import Edges, edges, in_patient
from ..streams import Stream, write_stream
from ..structures import STRUCTURES, StackStructures, measure_labels
from ..studies import SERIES, STUDIES, StudyRow
from ..table import Column
from ..writer import ImageRecord, PartlyWrittenError, Record, image_file
from .facts import NAMED, STATUS, method_facts, model_name, no_finding, warnings_of
from .findings import findings_table, holds_in_patient
from .key_images import (
    BY_EXTENT,
    BY_SCORE,
    MOST_NUMBERS,
    MOST_OUTLINES,
    FindingsIndex,
    KeyImage,
    choose_planes,
    draw_key_image,
    fair_shares,
)
from .key_images import LONGEST as LONGEST_PX
from .left_out import coverage_table, file_table, slice_table
from .page import Head, Pairs, render_page, shorten
from .pictures import PagePicture, embed
from .tables import PageTable, Shown, Style, page_table

_GONE: Final = "The image is gone, has changed since the run, or cannot be rendered."
_IDENTIFYING: Final = "It is not shown: the file states that identifying text is burned into its pixels."
_SERIES: Final[Mapping[str, tuple[str, Style]]] = {
    "image": ("stack", ""),
    "modality": ("modality", ""),
    "body_part": ("body part", ""),
    "n_images": ("slices", "number"),
    "size": ("size of a slice", "number"),
    "voxel": ("voxel: across, down, step", "number"),
    "missing_slices": ("missing slices", "number"),
    "window_used": ("window", "text"),
    "patient_position": ("position", ""),
    "laterality": ("side stated", ""),
    "n_findings": ("findings", "number"),
    "status": ("status", ""),
    "notes": ("notes", "text"),
    "series_uid": ("series", "id"),
}
_STRUCTURES: Final = {
    "label": "structure",
    "value": "number",
    "volume_ml": "volume",
    "voxels": "voxels",
    "n_slices": "slices",
    "first_slice": "first slice",
    "last_slice": "last slice",
    "columns_mm": "along columns",
    "rows_mm": "along rows",
    "slices_mm": "along slices",
}


class StudyHtmlOptions(Options):
    """Options of the report "study-html"."""

    pictures: int = Field(default=12, ge=0, le=200, description="Most slices of a study that are shown.")
    findings: int = Field(default=1000, ge=0, le=100_000, description="Most findings of a study that are listed.")


class StudyHtml:
    """study-<study>.html for each study: one file that shows everything offline, and prints on A4."""

    name = "study-html"
    Options = StudyHtmlOptions

    def __init__(self, options: StudyHtmlOptions | None = None) -> None:
        self._options = options or StudyHtmlOptions()

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write a page per study into `folder`."""
        return write_stream(self.stream(record, folder), record)

    def stream(self, record: Record, folder: Path) -> Stream:
        """Write the pages, with the findings indexed batch by batch."""
        indexes: dict[str, FindingsIndex] = {}
        while (batch := (yield)) is not None:
            if batch.image.info.kind == "study":
                indexes.setdefault(batch.image.info.id, FindingsIndex()).add(batch)
        studies: dict[str, list[ImageRecord]] = {}
        for image in record.images:
            if image.info.kind == "study":
                studies.setdefault(image.info.study or image.info.id, []).append(image)
        paths: list[Path] = []
        omitted: dict[str, str] = {}
        for study, images in sorted(studies.items()):
            path = image_file(folder, "study-", study, ".html")
            try:
                page = _StudyPage(record, study, images, indexes, self._options)
                with atomic_path(path) as part:
                    part.write_text(page.html(), encoding="utf-8", newline="\n")
                paths.append(path)
            except OSError as error:
                why = f"the file must be writable (found: {error.strerror or error})"
                omitted |= dict.fromkeys((image.info.id for image in images), why)
        if omitted:
            raise PartlyWrittenError(paths, omitted)
        return paths

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images that belong to no study, where others do."""
        others = {one.info.id: "it belongs to no study" for one in record.images if one.info.kind != "study"}
        return others if len(others) < len(record.images) else {}


_SLICE_SIZE: Final[Column[StudyRow]] = Column("size", "string", "", lambda row: _slice_size(row.image), "px")
_VOXEL: Final[Column[StudyRow]] = Column("voxel", "string", "", lambda row: _voxel(row.image), "mm")


def _slice_size(image: ImageRecord) -> str:
    return "{} × {}".format(*image.info.size)


def _voxel(image: ImageRecord) -> str:
    """Sides of a voxel in mm, as far as they hold in the patient."""
    facts = dict(image.info.facts)
    sides = [facts.get(key, "") for key in ("col_mm", "row_mm", "step_mm_median")]
    if not holds_in_patient(image.info):
        return ""
    return " × ".join(f"{float(side):.3f}" for side in sides if side)


@dataclass(frozen=True, slots=True)
class Figure:
    """A slice of a stack on the page."""

    id: str
    title: str
    picture: PagePicture | None
    hidden: str
    """Why there is no picture."""
    findings: Sequence[tuple[int, str, str]]
    """(number, label, colour) of those that are named below it."""
    further: int
    """How many more are on it."""
    notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class StackPart:
    """What a page has of one stack."""

    id: str
    title: str
    outcome: str
    facts: Pairs
    note: str
    figures: Sequence[Figure]
    tables: Sequence[PageTable]


@dataclass(frozen=True)
class _StudyPage:
    """One study, as it becomes a page."""

    record: Record
    study: str
    images: Sequence[ImageRecord]
    indexes: Mapping[str, FindingsIndex]
    options: StudyHtmlOptions
    empty: FindingsIndex = field(default_factory=FindingsIndex)

    def html(self) -> str:
        """The whole page."""
        record = self.record
        row = StudyRow(record, self.images)
        values = {column.name: column.texts(row)[0] for column in STUDIES}
        facts = [
            ("Modalities", values["modalities"]),
            ("Series", values["n_series"]),
            ("Stacks and single images", values["n_stacks"]),
            ("Slices and frames", values["n_instances"]),
            ("Findings", values["n_findings"] if record.assessed else "not assessed"),
            ("Model", model_name(record)),
        ]
        related = [
            ("Files read", values["n_read"]),
            ("Files left out", values["n_skipped"]),
            ("Files that failed", values["n_failed"]),
            ("Objects that are not images", values["related"]),
        ]
        use = replace(record, images=tuple(self.images)).use
        return render_page(
            "study.html",
            Head(f"Study {self.study}", use, record.version),
            status=values["status"],
            status_text=STATUS[values["status"]],
            facts=[(name, value) for name, value in facts if value],
            warnings=warnings_of(self.images),
            series=self._series(),
            stacks=list(self._stacks()),
            related=[(name, value) for name, value in related if value not in {"", "0"}],
            left_out=[coverage_table(record, self.images), slice_table(self.images), file_table(record)],
            method=method_facts(record),
            assessed=record.assessed,
            most_px=LONGEST_PX,
        )

    def _series(self) -> PageTable:
        columns = {column.name: column for column in (*SERIES, _SLICE_SIZE, _VOXEL)}
        shown = [Shown(columns[name], *heading) for name, heading in _SERIES.items()]
        rows = [StudyRow(self.record, [image]) for image in self.images]
        return page_table("series", "Stacks of slices and single images", shown, rows, rest="series.csv")

    def _stacks(self) -> Iterator[StackPart]:
        """The part of each stack, with as many pictures and rows as its share allows."""
        found = [self.indexes.get(image.info.id, self.empty) for image in self.images]
        planes = [len(set(index.columns[1].tolist())) for index in found]
        pictures = fair_shares([count or 1 for count in planes], self.options.pictures)
        listed = fair_shares([len(index) for index in found], self.options.findings)
        for number, image in enumerate(self.images):
            yield self._stack(image, found[number], f"stack-{number + 1}", pictures[number], listed[number])

    def _stack(self, image: ImageRecord, index: FindingsIndex, name: str, pictures: int, listed: int) -> StackPart:
        info, volume = image.info, image.label_maps is not None
        palette = Palette.of(self.record.labels, self.record.colours)
        planes = choose_planes(index, pictures, volume=volume)
        with_findings = len(set(index.columns[1].tolist()))
        note = _choice_note(len(planes), with_findings, BY_EXTENT if volume else BY_SCORE)
        if pictures and not with_findings:
            planes = [len(info.planes) // 2]
            note = "The middle slice is shown, so that the stack can be recognised." if len(info.planes) > 1 else ""
        figures = list(self._figures(image, index, name, planes, palette))
        tables = [self._structures(image, name, palette)] if volume else []
        if len(index):
            of = {plane: figure.id for plane, figure in zip(planes, figures, strict=True)}
            to = f"{name}-findings"
            tables.append(findings_table(self.record, image, index, name=to, most=listed, palette=palette, figures=of))
        count = len(index)
        outcome = "Not assessed: no model was chosen."
        if self.record.assessed:
            found = f"{count:,} {'finding' if count == 1 else 'findings'}."
            outcome = found if count else no_finding(complete=image.complete)
        size = f"{len(info.planes)} slices" if len(info.planes) > 1 else "1 image"
        modality = dict(info.facts).get("modality", "")
        return StackPart(
            name,
            f"{info.id}: {', '.join(filter(None, (modality, size)))}",
            outcome,
            [*image.analysis.items()] if self.record.assessed else [],
            note,
            figures,
            tables,
        )

    def _figures(
        self, image: ImageRecord, index: FindingsIndex, name: str, planes: Sequence[int], palette: Palette
    ) -> Iterator[Figure]:
        """A picture of each of some planes."""
        info, findings = image.info, columnar(image.findings()) if len(index) else None
        pixels = iter(()) if image.slice_pictures is None else image.slice_pictures(planes, LONGEST_PX)
        identifying = dict(info.facts).get("burned_in_risk") == "yes"
        ranked = index.ranked()
        on_plane = index.columns[1][ranked]
        for plane in planes:
            here = ranked[on_plane == plane]
            shown = here[:MOST_OUTLINES]
            outlined = [] if findings is None else list(zip((shown + 1).tolist(), findings.take(shown), strict=True))
            picture, sides = None if identifying else next(pixels, None), edges(info, plane)
            title = f"Slice {plane + 1} of {len(info.planes)}" if len(info.planes) > 1 else "The image"
            named = sorted((number, one.label, palette[one.label]) for number, one in outlined[:NAMED])
            made = None
            if picture is not None:
                about = KeyImage(plane, f"{plane + 1}/{len(info.planes)}", _short_window(image), sides)
                alt = f"{title} of {info.id}. Outlined: {_listing(named, len(here)) or 'nothing'}. {_sides_text(sides)}"
                made = embed(draw_key_image(image, picture, outlined, palette, about), alt)
            notes = [*_slice_notes(image, plane), _sides_text(sides)]
            if len(here) > MOST_OUTLINES:
                notes.append(f"The {MOST_OUTLINES} that come first of {len(here):,} findings are outlined.")
            if len(here) > MOST_NUMBERS:
                notes.append(f"{MOST_NUMBERS} are numbered.")
            why = _IDENTIFYING if identifying else "" if made else _GONE
            yield Figure(f"{name}-slice-{plane + 1}", title, made, why, named, len(here) - len(named), notes)

    def _structures(self, image: ImageRecord, name: str, palette: Palette) -> PageTable:
        columns = {column.name: column for column in STRUCTURES}
        rows = StackStructures(self.record, image, measure_labels(image.label_maps() if image.label_maps else iter(())))
        shown: list[Shown[StackStructures]] = [
            Shown(columns[key], heading, "number")
            if key != "label"
            else Shown(columns[key], heading, "label", lambda rows: [palette[label] for label in rows.record.labels])
            for key, heading in _STRUCTURES.items()
        ]
        caption = f"Structures of {image.info.id}: volumes are voxels times the volume of a voxel"
        return page_table(f"{name}-structures", caption, shown, [rows], rest="structures.csv")


def _choice_note(shown: int, count: int, rule: str) -> str:
    """Which of the slices with findings are shown."""
    if not count:
        return ""
    if shown == count:
        return "All slices with findings are shown."
    by = f", by this rule: {rule}" if shown else ""
    return f"{shown} of {count} slices with findings are shown{by}. The others are in findings.csv."


def _short_window(image: ImageRecord) -> str:
    """Centre and width, or the values of black and white, where they fit the margin of a picture."""
    stated = dict(image.info.facts).get("window_used", "").partition(" ")[0] or image.analysis.get("Stretch", "")
    return stated if len(stated) <= 28 and stated != "red" else ""


def _slice_notes(image: ImageRecord, plane: int) -> Iterator[str]:
    """Which slice it is in its series, and how it is shown."""
    of, facts = image.info.planes[plane], dict(image.info.facts)
    several = sum(plane.source == of.source for plane in image.info.planes) > 1
    named = [f"instance {of.instance}"] if of.instance is not None else []
    named += [f"frame {of.frame}"] if several else []
    if named:
        yield f"{', '.join(named).capitalize()}."
    if of.position_mm is not None:
        yield f"At {of.position_mm:.1f} mm along the normal."
    if window := image.analysis.get("Window"):
        yield f"Window {window}."
    elif stretch := image.analysis.get("Stretch"):
        yield f"Black to white: {stretch}."
    if side := {"R": "right", "L": "left", "B": "both", "U": "unpaired"}.get(facts.get("laterality", "")):
        yield f"Side as the file states it: {side}."
    if facts.get("burned_in_risk") == "high":
        yield "Identifying text may be burned into its pixels: look before you pass it on."
    if not in_patient(of) and facts.get("spacing_source") != "pixel_spacing_calibrated":
        yield "Its pixel size in the patient is not known: no scale."


def _sides_text(sides: Edges | None) -> str:
    if sides is None:
        return "The sides of the patient are not known."
    return (
        f"Edges: left {sides.left}, right {sides.right}, top {sides.top}, bottom {sides.bottom}, from {sides.source}."
    )


def _listing(named: Sequence[tuple[int, str, str]], count: int) -> str:
    """Findings by number and label, in a sentence."""
    text = ", ".join(f"{number} {shorten(label, 80)}" for number, label, _ in named)
    return f"{text} and {count - len(named)} more" if count > len(named) else text
