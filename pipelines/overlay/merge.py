"""Joins the maps of runs into one layer, and tells which of them covers what."""
# shapely and numpy leave some of their arguments untyped:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely

from ...readers.errors import RequestError
from ...readers.files import atomic_path
from ...reports.arrow import arrow_batch, arrow_schema
from ...reports.geopackage import GEOMETRY, multipolygons, texts, write_layer, write_table
from ...reports.overlay.joining import Coverage, join_images
from ...reports.rfc7946 import to_crs
from ...reports.table import Column, Rows, write_csv
from ...reports.writer import Record
from .checks import image_differences, model_differences, refuse_doubtful
from .compare import joint_model
from .folders import new_folder, write_layers, write_statements

NAME: Final = "merged"
"""The id of the joined image."""

_METHOD: Final = (
    "Coordinates are in the CRS of the first map, on its pixels. Where several maps were analysed, the place belongs to"
    " the first of them in the order in which they were given, but maps on one pixel grid are joined with each other"
    " before others. Areas and tiles are cut there; a box belongs to the map that has its centre. Outlines of one label"
    " that meet at a border are one."
)


@dataclass(frozen=True, slots=True)
class MergedRuns:
    """Runs that were joined."""

    record: Record
    """One image, with the findings of all."""
    coverage: tuple[tuple[str, Coverage], ...]
    """The name of the run of each image, and what comes from it."""
    statements: tuple[str, ...]
    """What must be known of the result, a sentence each."""


def merge_records(runs: Sequence[tuple[str, Record]], *, accept: bool = False) -> MergedRuns:
    """Join the maps of runs, each with a name.

    Raises `RequestError` for fewer than two maps, for images that cannot be joined, and for runs that differ in what
    could be taken for a difference on the ground unless that is accepted.
    """
    images = [(name, record, image) for name, record in runs for image in record.images]
    if len(images) < 2:
        value = f"{len(images)} image{'s' if len(images) != 1 else ''}"
        raise RequestError("the runs to merge", "must have two maps or more", value=value, remedy="Name more runs")
    records = [record for _, record in runs]
    differences = model_differences(records)
    differences += image_differences([image for *_, image in images], [record for _, record, _ in images])
    statements = refuse_doubtful(differences, "the runs", accept=accept)
    joined = join_images([image for *_, image in images], NAME)
    coverage = tuple(zip([name for name, *_ in images], joined.coverage, strict=True))
    for name, one in coverage:
        if one.shape.is_empty:
            statements.append(f"Nothing comes from {one.image.id} of {name}: earlier maps cover it.")
    labels = tuple(dict.fromkeys(label for record in records for label in record.labels))
    model = dict(records[0].model)
    for record in records[1:]:
        model = joint_model(model, record.model)
    merged = replace(
        records[0],
        images=(joined.image,),
        files=(),
        model=model,
        labels=labels,
        colours={label: colour for record in reversed(records) for label, colour in record.colours.items()},
        assessed=all(record.assessed for record in records),
        run=hashlib.sha256(" ".join(record.run for record in records).encode()).hexdigest(),
    )
    return MergedRuns(merged, coverage, tuple(statements))


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """What comes from one image: a row of coverage.csv."""

    order: int
    run: str
    coverage: Coverage
    use: str


def _coverage_column(name: str, dtype: Any, description: str, value: Any, unit: str = "") -> Column[Rows[CoverageRow]]:
    return Column(name, dtype, description, lambda batch: [value(row) for row in batch.rows], unit)


COVERAGE: tuple[Column[Rows[CoverageRow]], ...] = (
    _coverage_column("order", "int64", "place in the order of the runs, from 1", lambda row: row.order),
    _coverage_column("run", "string", "the name of its run's folder", lambda row: row.run),
    _coverage_column("image", "string", "the image's id in its run", lambda row: row.coverage.image.id),
    _coverage_column("area_m2", "float64", "area that comes from it", lambda row: row.coverage.m2, "m²"),
    _coverage_column("analysed_m2", "float64", "area analysed in it", lambda row: row.coverage.analysed_m2, "m²"),
    _coverage_column("use", "category", "what these numbers may be used for", lambda row: row.use),
)
"""Columns of coverage.csv and of the layer in coverage.gpkg."""


def coverage_rows(merged: MergedRuns) -> Rows[CoverageRow]:
    """The rows of coverage.csv."""
    use = merged.record.use
    return Rows([CoverageRow(number, name, one, use) for number, (name, one) in enumerate(merged.coverage, 1)])


def write_merged(merged: MergedRuns, out: Path) -> list[Path]:
    """Write the joined findings, coverage.csv, coverage.gpkg and about.json into the new folder `out`.

    Raises `RequestError` where it exists, and `StoreError` where it cannot be written.
    """
    record = merged.record
    rows = coverage_rows(merged)
    with new_folder(out) as part:
        paths = write_layers(record, part, "findings")
        paths.append(write_csv(part / "coverage.csv", COVERAGE, [rows]))
        paths.append(_write_coverage(record, rows, part / "coverage.gpkg"))
        runs = [{"run": name, "image": one.image.id} for name, one in merged.coverage]
        paths.append(write_statements(part, record.use, merged.statements, {"method": _METHOD, "images": runs}))
    return [out / path.name for path in paths]


def _write_coverage(record: Record, rows: Rows[CoverageRow], path: Path) -> Path:
    placement = record.images[0].info.placement
    shapes = np.array([*(row.coverage.shape for row in rows.rows), None], dtype=object)[:-1]
    columns = [column for column in COVERAGE if column.name != "use"]
    outlines = multipolygons(shapely.to_wkb(to_crs(shapes, placement), byte_order=1))
    batch = arrow_batch(columns, rows, outlines, arrow_schema(columns, geometry=GEOMETRY))
    with atomic_path(path) as part:
        write_table(part, "about", {"name": texts(["use"]), "value": texts([record.use])}, append=False)
        write_layer(part, [batch], "coverage", geometry_type="MultiPolygon", crs=placement.crs)
    return path
