"""The command line's `limner train`. Commands import what they need when they run."""

import typer

from .cli_probe import train_probe_command

train_app = typer.Typer(help="Teach a model your labels.", no_args_is_help=True, rich_markup_mode=None)
train_app.command("probe")(train_probe_command)


@train_app.callback()
def train_command() -> None:
    """Teach a model your labels."""
