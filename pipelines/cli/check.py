"""The commands `limner check`: what can be verified of a model or of a finished run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .settings_options import PLANNING, add_command, with_settings
from .terminal import print_message, print_result, visible

if TYPE_CHECKING:
    from ..config import Settings

FAULTS_FOUND = 1

check_app = typer.Typer(help="Check a model or a finished run.", no_args_is_help=True, rich_markup_mode=None)


@check_app.callback()
def check_command() -> None:
    """Check a model or a finished run."""


@add_command(check_app, "run")
def check_run(run_folder: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")]) -> None:
    """Verify a run: its files, version, inputs and reports, and that no file holds a name or shows a slide's label."""
    from ..describe import table
    from ..run.verify import verify

    found = verify(Path(run_folder))
    print_result(table([(one.status, one.check, one.text) for one in found]))
    if any(one.status == "fault" for one in found):
        raise typer.Exit(FAULTS_FOUND)


@add_command(check_app, "seams")
@with_settings(tuple(name for name in PLANNING if name not in {"workers", "engine", "batch"}))
def check_tiling_command(
    settings: "Settings",
    out: Annotated[str, typer.Option("--out", help="Folder for seams.json, seams.txt and the card's block.")] = "",
    shifts: Annotated[str, typer.Option("--shifts", help="Shifts of the grid of tiles, in analysed pixels.")] = "",
    window: Annotated[
        int, typer.Option("--window", min=64, help="Side of the part of an image to look at, in analysed pixels.")
    ] = 1024,
    seed: Annotated[int, typer.Option("--seed", help="Random seed of the intervals.")] = 0,
) -> None:
    """Measure how far a model's answers depend on where its tiles meet, and propose a halo."""
    from ..run.execute import check_tiling_of_inputs
    from ..run.tiling_check import SHIFTS, TilingCheck, parse_shifts
    from ..run.tiling_report import card_block, tiling_text, write_reports

    numbers = parse_shifts(shifts) if shifts else SHIFTS
    found: list[TilingCheck] = []
    for one in check_tiling_of_inputs(settings, shifts=numbers, window=window, seed=seed, on_image=print_message):
        found.append(one)
        _print_lines(tiling_text(one))
    _print_lines(f"\nFor the model's card:\n{card_block(found)}")
    for path in write_reports(found, Path(out)) if out else ():
        print_result(visible(str(path)))
    if not all(one.met for one in found):
        raise typer.Exit(1)


def _print_lines(text: str) -> None:
    for line in text.splitlines():
        print_result(visible(line))
