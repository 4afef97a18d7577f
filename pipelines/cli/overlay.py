"""The commands `limner zones`, `limner compare` and `limner merge`, on finished runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ...readers.errors import RequestError
from .settings_options import add_command
from .terminal import plural, print_message, print_result, table, visible

_RUN = typer.Argument(metavar="RUN", help="The folder of a run.")
_ACCEPT = typer.Option("--accept", help="Go on where runs differ in model, sensor, season or pixel size, and say so.")


def add_overlay_commands(app: typer.Typer) -> None:
    """Register the commands."""
    for name, command in (("zones", zones_command), ("compare", compare_command), ("merge", merge_command)):
        add_command(app, name)(command)


def zones_command(
    run_folder: Annotated[str, _RUN],
    zones: Annotated[
        str,
        typer.Option(
            "--zones",
            metavar="FILE",
            help="Polygons: GeoPackage, GeoJSON, FlatGeobuf, Shapefile or KML; in pixels for slides, as of QuPath.",
        ),
    ],
    *,
    layer: Annotated[str, typer.Option("--layer", metavar="NAME", help="The layer, where the file has several.")] = "",
    column: Annotated[
        str, typer.Option("--id", metavar="COLUMN", help="The column with a different name for each zone.")
    ] = "",
    image: Annotated[str, typer.Option("--image", metavar="ID", help="One image of the run, by its id.")] = "",
    out: Annotated[str, typer.Option("--out", metavar="FOLDER", help="A new folder. Default: RUN-zones.")] = "",
) -> None:
    """Add up areas, shares, counts and scores of a run by label in each polygon of a file."""
    from ..overlay.zones import run_zones, write_zone_files
    from ..progress import Reporting, TerminalProgress
    from ..run.reporting import read_record

    folder = Path(run_folder)
    path = _new(out or f"{folder.resolve()}-zones")
    record = read_record(folder)
    with TerminalProgress() as on_event:
        found, statements = run_zones(
            record,
            zones,
            layer=layer,
            column=column,
            image=image,
            on_share=lambda share: on_event(Reporting("zones", share)),
        )
        written = write_zone_files(found, path)
    _print(statements, written, record.use)


def compare_command(
    first: Annotated[str, typer.Argument(metavar="RUN_A", help="The folder of the first run.")],
    second: Annotated[str, typer.Argument(metavar="RUN_B", help="The folder of the second run.")],
    *,
    images: Annotated[
        str, typer.Option("--images", metavar="A,B", help="The image of each run, by id, where a run has several.")
    ] = "",
    accept: Annotated[bool, _ACCEPT] = False,
    out: Annotated[str, typer.Option("--out", metavar="FOLDER", help="A new folder. Default: RUN_A-to-RUN_B.")] = "",
) -> None:
    """Compare two runs of one place: a matrix of which label became which in m², and a layer of changes."""
    from ..overlay.compare import compare_records, write_comparison
    from ..progress import Reporting, TerminalProgress
    from ..run.reporting import read_record

    path = _new(out or f"{Path(first).resolve()}-to-{Path(second).resolve().name}")
    ids = tuple(images.split(",")) if images else ("", "")
    if len(ids) != 2:
        remedy = "For example --images scene-1,scene-2"
        raise RequestError(
            "--images", "must be the ids of two images with a comma between", value=images, remedy=remedy
        )
    records = read_record(Path(first)), read_record(Path(second))
    with TerminalProgress() as on_event:
        found = compare_records(
            *records,
            accept=accept,
            images=(ids[0], ids[1]),
            on_share=lambda share: on_event(Reporting("comparison", share)),
        )
        found = write_comparison(found, path)
    rows, columns, cells = found.cells
    numbers = [[row, *(f"{cell:,.0f}" for cell in values)] for row, values in zip(rows, cells, strict=True)]
    print_result(f"Areas in {found.unit}, from the first run (rows) to the second (columns)")
    print_result(table([["", *columns], *numbers], right=range(1, len(columns) + 1)))
    _print(found.statements, found.paths, found.record.use)


def merge_command(
    runs: Annotated[list[str], typer.Argument(metavar="RUN_A RUN_B …", help="The folders of runs, in order.")],
    *,
    out: Annotated[str, typer.Option("--out", metavar="FOLDER", help="A new folder.")],
    accept: Annotated[bool, _ACCEPT] = False,
) -> None:
    """Join the maps of runs into one layer: no place counts twice, and the first run has what several cover."""
    from ..overlay.merge import merge_records, write_merged
    from ..run.reporting import read_record

    path = _new(out)
    found = merge_records([(Path(one).resolve().name, read_record(Path(one))) for one in runs], accept=accept)
    written = write_merged(found, path)
    rows = [(name, one.image.id, f"{one.m2:,.0f} m²", f"of {one.analysed_m2:,.0f} m²") for name, one in found.coverage]
    print_result(table(rows, right=(2, 3)))
    _print(found.statements, written, found.record.use)


def _new(path: str) -> Path:
    """A folder that does not exist, told before anything is read. Raises `RequestError`."""
    out = Path(path)
    if out.is_symlink() or out.exists():
        raise RequestError(str(out), "must be a new folder", remedy="Remove it, or give another --out")
    return out


def _print(statements: Sequence[str], paths: Sequence[Path], use: str) -> None:
    for statement in statements:
        print_message(visible(statement))
    for path in paths:
        print_result(visible(str(path)))
    print_message(visible(f"{plural(len(paths), 'file')}. {use}"))
