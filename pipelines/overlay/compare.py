"""Compares two runs of one place: the area of every transition between labels, and a layer of what differs."""

import hashlib
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ...model.merged_findings import MergedFindings
from ...model.merging import merge_chunks
from ...readers.errors import RequestError
from ...reports.overlay.transitions import NOT_ANALYSED, Transitions, changed_labels, labels_of, transitions
from ...reports.table import Column, Dtype, Rows, attribute, write_csv
from ...reports.writer import Area, ImageRecord, Record
from ..run.parts import Part, PartWriter, chunks_of
from .checks import acquired, image_differences, model_differences, refuse_doubtful
from .folders import new_folder, write_layers, write_statements

if TYPE_CHECKING:
    import pandas as pd  # pyright: ignore[reportMissingTypeStubs]

    from ...model.finding import Finding

_SPILLED: Final = 5_000  # changes that are in memory at a time
_METHOD: Final = (
    "Outlines of each label in both runs are intersected exactly, on the pixels of the first image. Areas of maps are"
    " on the ellipsoid. A row adds up to the area of its label in the first run, and all that is of both runs to the"
    " area that both analysed."
)


@dataclass(frozen=True, slots=True)
class TransitionRow:
    """One transition."""

    before: str
    after: str
    area_px: float
    area_m2: float
    share: float
    """Of the area that was analysed in both runs; NaN for what was analysed in one."""


@dataclass(frozen=True)
class Comparison:
    """What became what between two runs, as `limner.compare` returns it."""

    record: Record
    """The changes as findings, whose labels are those of both runs."""
    runs: tuple[Record, Record]
    found: Transitions
    statements: tuple[str, ...]
    """What must be known of the numbers, a sentence each."""
    paths: tuple[Path, ...] = ()
    """The files that were written."""
    scratch: object = None
    """The folder of the changes, which is deleted with this object."""

    @property
    def rows(self) -> list[str]:
        """The labels of the first run, and those for no label and for what it did not analyse."""
        return labels_of(self.found, self.runs[0], side=0)

    @property
    def columns(self) -> list[str]:
        """The labels of the second run, likewise."""
        return labels_of(self.found, self.runs[1], side=1)

    @cached_property
    def transitions(self) -> list[TransitionRow]:
        """All transitions, by label of the first run, then of the second."""
        by = 0 if math.isnan(self.found.total()[1]) else 1
        total = self.found.total()[by]
        pairs = [(a, b) for a in self.rows for b in self.columns if (a, b) in self.found.pixels]
        areas = {pair: self.found.area(pair) for pair in pairs}
        return [
            TransitionRow(a, b, *area, math.nan if NOT_ANALYSED in {a, b} else area[by] / total)
            for (a, b), area in areas.items()
        ]

    @property
    def unit(self) -> str:
        """The unit of the matrix: m², or px² where areas on the ground are not known."""
        return "px²" if math.isnan(self.found.total()[1]) else "m²"

    @cached_property
    def matrix(self) -> "pd.DataFrame":
        """Areas in m², in px² where that is not known: labels of the first run by those of the second, with totals."""
        from ...reports.dataframes import matrix_frame

        return matrix_frame(*self.cells)

    @property
    def cells(self) -> tuple[list[str], list[str], list[list[float]]]:
        """The names of rows and columns of the matrix, and its cells, with a total of each row and column."""
        by = 0 if math.isnan(self.found.total()[1]) else 1
        cells = [[self.found.area((a, b))[by] for b in self.columns] for a in self.rows]
        cells = [[*row, math.fsum(row)] for row in cells]
        cells.append([math.fsum(column) for column in zip(*cells, strict=True)])
        return [*self.rows, "total"], [*self.columns, "total"], cells

    @cached_property
    def changes(self) -> "pd.DataFrame":
        """A row per change: a GeoDataFrame for maps, as the findings of a run."""
        from ...reports.dataframes import findings_frame

        return findings_frame(self.record)


def compare_records(
    first: Record,
    second: Record,
    *,
    accept: bool = False,
    images: tuple[str, str] = ("", ""),
    on_share: Callable[[float], None] = lambda _: None,
) -> Comparison:
    """Compare two runs. `images` are the ids of the image of each, needed where there are several.

    Raises `RequestError` for runs that differ in what could be taken for a change unless that is accepted, for images
    without a place in common and for findings that are no areas; `LimnerError` where images cannot be read again.
    """
    a, b = _choose(first, images[0], "first"), _choose(second, images[1], "second")
    if a.info.kind == "slide" and (a.info.size, a.info.placement) != (b.info.size, b.info.placement):
        rule, remedy = "must be one slide", "Register the slides first: sections of one block do not lie on each other"
        raise RequestError(f"{a.info.id} and {b.info.id}", rule, remedy=remedy)
    differences = [*model_differences([first, second]), *image_differences([a, b], [first, second])]
    statements = refuse_doubtful(differences, "the two runs", accept=accept)
    days = acquired(a.info), acquired(b.info)
    if days[0] is not None and days[1] is not None and days[0] > days[1]:
        statements.append("The first run is of the later day: transitions go back in time.")
    scratch = tempfile.TemporaryDirectory(prefix="limner-")
    found, folder = Transitions(), Path(scratch.name)
    merged = _spilled(folder, transitions((first, a), (second, b), found, on_share), a)
    pixels, m2 = found.total()
    area = Area("analysed", "", pixels, None if math.isnan(m2) else m2, 1)
    image = ImageRecord(
        info=a.info,
        findings=lambda: merged,
        overview=lambda: None,
        areas=(area,),
        analysis={},
        scale=a.scale,
        name=a.name,
        warnings=(*a.warnings, *b.warnings),
    )
    record = replace(
        first,
        images=(image,),
        files=(),
        model=joint_model(first.model, second.model),
        labels=tuple(changed_labels(found, first, second)),
        colours={},
        concepts={},
        run=hashlib.sha256(f"{first.run} {second.run}".encode()).hexdigest(),
    )
    return Comparison(record, (first, second), found, tuple(statements), scratch=scratch)


def _choose(record: Record, image: str, which: str) -> ImageRecord:
    chosen = [one for one in record.images if image in {"", one.info.id}]
    if len(chosen) != 1:
        ids = ", ".join(one.info.id for one in record.images[:20])
        remedy = f"Name one with --images A,B, or join neighbouring scenes with limner merge. Images: {ids or 'none'}"
        value = f"{len(chosen)} images"
        raise RequestError(f"the {which} run", "must have one image to compare", value=value, remedy=remedy)
    if chosen[0].info.kind == "study":
        remedy = "Compare maps, or two models on one slide"
        rule = "must be no study, since two series do not lie on each other"
        raise RequestError(chosen[0].info.id, rule, remedy=remedy)
    return chosen[0]


def _spilled(folder: Path, blocks: "Iterator[list[Finding]]", image: ImageRecord) -> MergedFindings:
    """Changes, written to disk in parts, and joined across blocks."""
    places: list[tuple[Part, int, int]] = []
    waiting: list[Finding] = []
    with PartWriter(folder) as parts:

        def flush() -> None:
            if waiting:
                places.append((parts.write_findings(waiting), 0, len(waiting)))
                waiting.clear()

        for changes in blocks:
            waiting += changes
            if len(waiting) >= _SPILLED:
                flush()
        flush()
    return merge_chunks(chunks_of(folder, places), image.info)


def joint_model(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, str]:
    """The identity of both models: one value where they have the same, else both."""
    both = {key: (first.get(key, ""), second.get(key, "")) for key in [*first, *(set(second) - set(first))]}
    return {key: a if a == b else " | ".join(filter(None, (a, b))) for key, (a, b) in both.items()}


_AREA = "area, on the ellipsoid for maps"
_SHARE = "of what was analysed in both runs; empty for what was analysed in one"

TRANSITIONS: tuple[Column[Rows[TransitionRow]], ...] = (
    Column("from", "category", "label in the first run; none, or not analysed", attribute("before")),
    Column("to", "category", "label in the second run, likewise", attribute("after")),
    Column("area_m2", "float64", _AREA, attribute("area_m2"), "m²"),
    Column("area_px", "float64", "area in level-0 pixels of the first image", attribute("area_px"), "px²", 2),
    Column("share", "float64", _SHARE, attribute("share"), decimals=6),
)
"""Columns of transitions.csv; the last one is `use`."""


def write_comparison(comparison: Comparison, out: Path) -> Comparison:
    """Write transitions.csv, matrix.csv, about.json and the layers of changes into the new folder `out`.

    Raises `RequestError` where it exists, and `StoreError` where it cannot be written.
    """
    use = comparison.record.use
    with new_folder(out) as part:
        columns = [*TRANSITIONS, _column("use", "category", lambda _: use)]
        paths = [write_csv(part / "transitions.csv", columns, [Rows(comparison.transitions)])]
        paths.append(_write_matrix(comparison, part / "matrix.csv"))
        paths += write_layers(comparison.record, part, "changes")
        more = {
            "method": _METHOD,
            "runs": [{"run": one.run, "model": dict(one.model), "limner": one.version} for one in comparison.runs],
        }
        paths.append(write_statements(part, use, comparison.statements, more))
    return replace(comparison, paths=tuple(out / path.name for path in paths))


def _write_matrix(comparison: Comparison, path: Path) -> Path:
    rows, columns, cells = comparison.cells
    use = comparison.record.use
    frame = [_column(f"from \\ to ({comparison.unit})", "string", lambda _: rows)]
    for at, name in enumerate(columns):
        frame.append(_column(name, "float64", lambda _, values=[row[at] for row in cells]: values))
    return write_csv(path, [*frame, _column("use", "category", lambda _: use)], [Rows(rows)])


def _column(name: str, dtype: Dtype, values: Callable[[Any], object]) -> Column[Any]:
    return Column(name, dtype, "", values)
