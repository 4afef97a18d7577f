"""The commands `limner check`: what can be verified of a model or of a finished run."""

import typer

check_app = typer.Typer(help="Check a model or a finished run.", no_args_is_help=True, rich_markup_mode=None)


@check_app.callback()
def check_command() -> None:
    """Check a model or a finished run."""
