"""The command line's `limner train probe`. It imports what it needs when it runs."""

from typing import Annotated

import typer

from .terminal import say, visible


def train_probe_command(  # noqa: PLR0913, PLR0917 - as many as there are flags; typer calls it by name
    inputs: Annotated[list[str], typer.Argument(help="Files, folders or remote paths.", show_default=False)],
    labels: Annotated[str, typer.Option("--labels", help="GeoJSON of QGIS or QuPath, a folder of it, or a CSV.")],
    out: Annotated[str, typer.Option("--out", help="Folder for the probe.")],
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            help="colour, colour:BAND,BAND, openclip:ARCHITECTURE:FILE, 4khd:CHECKPOINT, a folder, OWNER/NAME@COMMIT.",
        ),
    ] = "colour",
    label_field: Annotated[str, typer.Option("--label-field", help="Property or column with the label.")] = "",
    resolution: Annotated[
        str | None, typer.Option("--resolution", help="Pixel size as seen: 10m, 0.5um, native.")
    ] = None,
    stretch: Annotated[
        str | None, typer.Option("--stretch", help="Black and white in native numbers, for all images and later ones.")
    ] = None,
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
    sensor: Annotated[str | None, typer.Option("--sensor", help="What took the images.")] = None,
    bands: Annotated[str | None, typer.Option("--bands", help="Names of the file's channels in order.")] = None,
    crs: Annotated[
        str | None, typer.Option("--crs", help="Coordinate reference system, where a file has none.")
    ] = None,
    microns_per_pixel: Annotated[
        str | None, typer.Option("--microns-per-pixel", help="Pixel size of slides: one number, or two as x,y.")
    ] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="Settings for a kind of image.")] = None,
    config: Annotated[str | None, typer.Option("--config", help="YAML file of settings; flags win over it.")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", help="Any setting, as key=value.")] = None,
    fetch: Annotated[bool | None, typer.Option("--fetch", help="Allow the network for the encoder.")] = None,
) -> None:
    """Teach a small head on a frozen encoder what you outlined; `limner run --model probe:OUT` then says it."""
    from .config import Settings  # noqa: PLC0415 - see the top
    from .probe import describe_probe, train_probe  # noqa: PLC0415 - the same
    from .progress import Drawing  # noqa: PLC0415 - the same
    from .request import ProbeRequest  # noqa: PLC0415 - the same

    given = {
        "inputs": inputs,
        "out": out,
        "resolution": resolution,
        "stretch": stretch,
        "sensor": sensor,
        "bands": bands,
        "crs": crs,
        "microns_per_pixel": microns_per_pixel,
        "preset": preset,
        "fetch": fetch,
    }
    flags = {key: value for key, value in given.items() if value is not None}
    settings = Settings.resolve(flags, file=config or "", changes=changes or ())
    request = ProbeRequest(labels, encoder, label_field, tile, head, folds, inside, rest, block, licence, features)
    with Drawing() as drawing:
        trained = train_probe(settings, request, drawing)
    say(describe_probe(trained.card))
    for path in trained.paths:
        say(visible(str(path)))
