"""The command line's `limner train probe`. It imports what it needs when it runs."""

from typing import TYPE_CHECKING, Annotated

import typer

from .settings_options import READING, with_settings
from .terminal import print_result, visible

if TYPE_CHECKING:
    from ..config import Settings


@with_settings((*READING, "out", "resolution", "stretch", "fetch"))
def train_probe_command(  # noqa: PLR0913, PLR0917 - as many as there are flags; typer calls it by name
    settings: "Settings",
    labels: Annotated[str, typer.Option("--labels", help="GeoJSON of QGIS or QuPath, a folder of it, or a CSV.")],
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            help="colour, colour:BAND,BAND, openclip:ARCHITECTURE:FILE, 4khd:CHECKPOINT, a folder, OWNER/NAME@COMMIT.",
        ),
    ] = "colour",
    label_field: Annotated[str, typer.Option("--label-field", help="Property or column with the label.")] = "",
    tile: Annotated[int, typer.Option("--tile", help="Pixels of a tile, where the encoder takes any.")] = 0,
    head: Annotated[str, typer.Option("--head", help="linear, or mlp for one hidden layer.")] = "linear",
    folds: Annotated[int, typer.Option("--folds", help="Parts that are held out in turn.")] = 5,
    block: Annotated[
        str, typer.Option("--block", help="What is never on both sides: outline, image, or 500m, 200um, 512px.")
    ] = "",
    inside: Annotated[float, typer.Option("--inside", help="Least share of a tile within its class.")] = 0.5,
    rest: Annotated[str, typer.Option("--rest", help="Class of everything that is not outlined.")] = "",
    licence: Annotated[str, typer.Option("--licence", help="Licence of the probe, for its card.")] = "not stated",
    features: Annotated[str, typer.Option("--features", help="Folder of kept features. Default: in --out.")] = "",
) -> None:
    """Teach a small head on a frozen encoder what you outlined; `limner run --model probe:OUT` then says it."""
    from ..progress import TerminalProgress
    from ..train.probe import describe_probe, train_probe
    from ..train.probe_config import ProbeConfig

    request = ProbeConfig(labels, encoder, label_field, tile, head, folds, inside, rest, block, licence, features)
    with TerminalProgress() as progress:
        trained = train_probe(settings, request, progress)
    print_result(describe_probe(trained.card))
    for path in trained.paths:
        print_result(visible(str(path)))
