"""The command line's `limner models`: cards and checkpoints. Commands import what they need when they run."""

from pathlib import Path
from typing import Annotated

import typer

from .settings_options import add_command, complete
from .terminal import say, talk, visible

models_app = typer.Typer(
    help="Model cards and checkpoints: list, show, fetch, convert.", invoke_without_command=True, rich_markup_mode=None
)

Card = Annotated[str, typer.Argument(help="A card's name or path.", autocompletion=complete("model"))]


@models_app.callback()
def models_command(context: typer.Context) -> None:
    """List the model cards that ship and the annotators that are installed."""
    if context.invoked_subcommand is None:
        from .text import describe_models

        say(describe_models())


@add_command(models_app, "show")
def models_show(name: Card) -> None:
    """Show a model card: what it is, wants and gives, and what it must not be used for."""
    from .text import describe_card

    say(describe_card(name))


@add_command(models_app, "fetch")
def models_fetch(name: Card) -> None:
    """Fetch a card's weights onto this machine and check them."""
    from ...model.checkpoints.cards import find_card
    from ...model.checkpoints.weights import locate

    card = find_card(name)
    for variant in card.variants:
        say(locate(variant.weights, variant.sha256, fetch=True, name=card.name))


@add_command(models_app, "convert")
def models_convert(
    source: Annotated[str, typer.Argument(help="A 4KHD checkpoint: a folder, or OWNER/NAME@COMMIT.")],
    out: Annotated[str, typer.Argument(help="An empty folder, or one that is not there yet.")],
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16. Default: as it is.")] = "",
    fetch: Annotated[bool, typer.Option("--fetch", help="Allow the network for the checkpoint.")] = False,
) -> None:
    """Write a 4KHD checkpoint as safetensors with its tokenizer, once: it loads faster, and holds no pickles."""
    from ...model.vlm.fourkhd.checkpoint import FourKhdFiles, convert

    for path in convert(FourKhdFiles.find(source, fetch=fetch), Path(out), dtype=dtype):
        say(visible(str(path)))


@add_command(models_app, "tokenizer")
def models_tokenizer(
    texts: Annotated[list[str], typer.Argument(help="Text files in UTF-8, or JSONL of an alignment.")],
    out: Annotated[str, typer.Option("--out", help="The tokenizer.model to write.")],
    vocab: Annotated[int, typer.Option("--vocab", help="Pieces of the vocabulary, at least 512.")] = 1024,
) -> None:
    """Make a vocabulary for a small 4KHD model from the texts that it will read and write."""
    from ...model.vlm.fourkhd.tokenizer import read_texts, train_tokenizer

    train_tokenizer(read_texts([Path(text) for text in texts]), vocab, Path(out))
    say(out)


@add_command(models_app, "build")
def models_build(
    vision: Annotated[str, typer.Option("--vision", help="Folder of a CLIP or SigLIP checkpoint, or new:hidden=….")],
    language: Annotated[str, typer.Option("--language", help="Folder of an InternLM2 or a 4KHD, or new:hidden=….")],
    out: Annotated[str, typer.Option("--out", help="An empty folder, or one that is not there yet.")],
    tokenizer: Annotated[str, typer.Option("--tokenizer", help="tokenizer.model of a new language model.")] = "",
    tile: Annotated[int, typer.Option("--tile", help="Pixels of a tile. Default: the encoder's own.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Decides everything that is new.")] = 0,
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")] = "float32",
) -> None:
    """Assemble a 4KHD model of another vision encoder or size, ready to be aligned."""
    from ...model.vlm.fourkhd.build import build

    built = build(vision, language, Path(out), tokenizer=tokenizer, tile=tile, seed=seed, dtype=dtype)
    for concern in built.concerns:
        talk(visible(f"warning: {concern}"))
    talk(f"{built.sizes.parameters} parameters, tiles of {built.sizes.vision.image} px")
    for path in built.paths:
        say(visible(str(path)))
