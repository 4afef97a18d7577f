"""The command line's `limner models`: cards and checkpoints. Commands import what they need when they run."""

from pathlib import Path
from typing import Annotated

import typer

models_app = typer.Typer(
    help="Model cards and checkpoints: list, show, fetch, convert.", invoke_without_command=True, rich_markup_mode=None
)


@models_app.callback()
def models_command(context: typer.Context) -> None:
    """List the model cards that ship and the annotators that are installed."""
    if context.invoked_subcommand is None:
        from .words import describe_models  # noqa: PLC0415 - see the top

        typer.echo(describe_models())


@models_app.command("show")
def models_show(name: Annotated[str, typer.Argument(help="A card's name or path.")]) -> None:
    """Show a model card: what it is, wants and gives, and what it must not be used for."""
    from .words import describe_card  # noqa: PLC0415 - see the top

    typer.echo(describe_card(name))


@models_app.command("fetch")
def models_fetch(name: Annotated[str, typer.Argument(help="A card's name or path.")]) -> None:
    """Fetch a card's weights onto this machine and check them."""
    from ..model.cards import find_card  # noqa: PLC0415 - see the top
    from ..model.weights import locate  # noqa: PLC0415 - the same

    card = find_card(name)
    for variant in card.variants:
        typer.echo(locate(variant.weights, variant.sha256, fetch=True, name=card.name))


@models_app.command("convert")
def models_convert(
    source: Annotated[str, typer.Argument(help="A 4KHD checkpoint: a folder, or OWNER/NAME@COMMIT.")],
    out: Annotated[str, typer.Argument(help="An empty folder, or one that is not there yet.")],
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16. Default: as it is.")] = "",
    fetch: Annotated[bool, typer.Option("--fetch", help="Allow the network for the checkpoint.")] = False,  # noqa: FBT002 - a flag
) -> None:
    """Write a 4KHD checkpoint as safetensors with its tokenizer, once: it loads faster, and holds no pickles."""
    from ..model.fourkhd.convert import convert  # noqa: PLC0415 - see the top
    from ..model.fourkhd.files import Files  # noqa: PLC0415 - the same

    for path in convert(Files.find(source, fetch=fetch), Path(out), dtype=dtype):
        typer.echo(path)
