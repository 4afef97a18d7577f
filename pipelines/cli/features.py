"""The command `limner features`."""

from typing import TYPE_CHECKING, Annotated

import typer

from ...readers.errors import RequestError
from ...readers.plugins import require_extra
from .settings_options import READING, add_command, with_settings
from .terminal import Stopped, print_message, print_result, visible

if TYPE_CHECKING:
    from ..config import Settings

FORMATS = ("h5", "parquet")
_SETTINGS = (
    *READING,
    *("out", "resolution", "stretch", "hd_num", "area", "tissue", "mask", "mask_values", "skip_empty"),
    *("engine", "address", "workers", "gpus_per_worker", "batch", "memory", "fetch"),
)


def add_features(app: typer.Typer) -> None:
    """Add the command to an application."""

    @add_command(app, "features")
    @with_settings(_SETTINGS)
    def features_command(  # pyright: ignore[reportUnusedFunction] - typer calls it
        settings: "Settings",
        encoder: Annotated[
            str,
            typer.Option(
                "--encoder",
                help="colour, colour:BAND,BAND, openclip:ARCHITECTURE:FILE, 4khd:CHECKPOINT, a folder, "
                "OWNER/NAME@COMMIT.",
            ),
        ],
        formats: Annotated[
            str, typer.Option("--format", metavar="|".join(FORMATS), help="Of the files; several with commas.")
        ] = "h5",
        tile: Annotated[int, typer.Option("--tile", help="Pixels of a tile, where the encoder takes any.")] = 0,
    ) -> None:
        """Write the features of each tile by a frozen encoder, as CLAM and TRIDENT read them; resumes as a run."""
        from ..progress import TerminalProgress
        from ..run.execute import run

        try:
            with TerminalProgress() as progress:
                result = run(features_settings(settings, encoder, formats, tile), progress)
        except Stopped as stop:
            print_message("\nStopped. Features so far are kept; the same command resumes.")
            raise typer.Exit(stop.exit_code) from None
        for report in result.reports:
            for image, reason in sorted(report.omitted.items()):
                print_message(visible(f"{report.writer} omits {image}: {reason}"))
        for what, why in result.failures:
            print_message(visible(f"{what}: {why}"))
        for path in result.paths:
            print_result(visible(str(path)))
        print_message(result.record.use)
        raise typer.Exit(result.exit_code)


def features_settings(settings: "Settings", encoder: str, formats: str, tile: int) -> "Settings":
    """The settings of a run that writes features. Raises `RequestError`."""
    chosen = [name.strip() for name in formats.split(",") if name.strip()]
    if not chosen or not set(chosen) <= set(FORMATS):
        rule = f"must be {' or '.join(FORMATS)}, or both with a comma"
        raise RequestError("--format", rule, value=formats, remedy="Give --format h5")
    if "h5" in chosen:
        require_extra("features", "--format h5", otherwise="or give --format parquet")
    reports = ("summary-csv", "files-csv", *(f"features-{name}" for name in chosen))
    options = {"tile": str(tile)} if tile else {}
    return settings.model_copy(update={"model": f"encoder:{encoder}", "model_options": options, "reports": reports})
