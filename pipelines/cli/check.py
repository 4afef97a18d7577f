"""The commands `limner check`: what can be verified of a model or of a finished run."""

from pathlib import Path
from typing import Annotated

import typer

from .settings_options import add_command
from .terminal import print_result

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
