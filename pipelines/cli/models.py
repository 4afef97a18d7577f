"""The commands `limner models`: model cards and checkpoints."""

from pathlib import Path
from typing import Annotated

import typer

from .settings_options import add_command, complete
from .terminal import print_message, print_result, visible

models_app = typer.Typer(
    help="Model cards and checkpoints: list, show, fetch, convert.", invoke_without_command=True, rich_markup_mode=None
)

Card = Annotated[str, typer.Argument(help="Model card, by name or path.", autocompletion=complete("model"))]


@models_app.callback()
def models_command(context: typer.Context) -> None:
    """List the models that ship and the annotators that are installed."""
    if context.invoked_subcommand is None:
        from .listings import models_text

        print_result(models_text())


@add_command(models_app, "show")
def models_show(name: Card) -> None:
    """Show a model card: inputs, labels, licence, known errors, and what the model must not be used for."""
    from .listings import model_text

    print_result(model_text(name))


@add_command(models_app, "fetch")
def models_fetch(name: Card) -> None:
    """Download the weights of a model card and verify their checksums."""
    from ...model.checkpoints.cards import find_any_card
    from ...model.checkpoints.weights import locate

    card = find_any_card(name)
    parts = [(file.weights, file.sha256) for files in card.weight_files.values() for file in files]
    for source, sha256 in parts:
        print_result(locate(source, sha256, fetch=True, name=card.name, beside=parts))


@add_command(models_app, "convert")
def models_convert(
    source: Annotated[
        str, typer.Argument(help="4KHD checkpoint: a folder, or OWNER/NAME@COMMIT on the Hugging Face Hub.")
    ],
    out: Annotated[str, typer.Argument(help="Output folder, new or empty.")],
    dtype: Annotated[
        str, typer.Option("--dtype", help="float32, bfloat16 or float16. Default: that of the checkpoint.")
    ] = "",
    fetch: Annotated[bool, typer.Option("--fetch", help="Allow downloading the checkpoint.")] = False,
) -> None:
    """Convert a 4KHD checkpoint to safetensors, which load faster and contain no pickles."""
    from ...model.vlm.fourkhd.checkpoint import FourKhdFiles, convert

    for path in convert(FourKhdFiles.find(source, fetch=fetch), Path(out), dtype=dtype):
        print_result(visible(str(path)))


@add_command(models_app, "tokenizer")
def models_tokenizer(
    texts: Annotated[
        list[str], typer.Argument(help="Text files in UTF-8, or JSONL training data of `limner train align`.")
    ],
    out: Annotated[str, typer.Option("--out", help="Path of the tokenizer.model to write.")],
    vocab: Annotated[int, typer.Option("--vocab", help="Vocabulary size, at least 512.")] = 1024,
) -> None:
    """Train a SentencePiece tokenizer for a small 4KHD model."""
    from ...model.vlm.fourkhd.tokenizer import read_texts, train_tokenizer

    train_tokenizer(read_texts([Path(text) for text in texts]), vocab, Path(out))
    print_result(out)


@add_command(models_app, "build")
def models_build(
    vision: Annotated[
        str, typer.Option("--vision", help="Vision encoder: folder of a CLIP or SigLIP checkpoint, or new:hidden=….")
    ],
    language: Annotated[
        str,
        typer.Option("--language", help="Language model: folder of an InternLM2 or 4KHD checkpoint, or new:hidden=…."),
    ],
    out: Annotated[str, typer.Option("--out", help="Output folder, new or empty.")],
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", help="Path of the tokenizer.model of a new language model.")
    ] = "",
    tile: Annotated[int, typer.Option("--tile", help="Tile size in pixels. Default: that of the vision encoder.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Random seed of new weights.")] = 0,
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")] = "float32",
) -> None:
    """Assemble a 4KHD model from a vision encoder and a language model, ready for `limner train align`."""
    from ...model.vlm.fourkhd.build import build

    built = build(vision, language, Path(out), tokenizer=tokenizer, tile=tile, seed=seed, dtype=dtype)
    for concern in built.concerns:
        print_message(visible(f"warning: {concern}"))
    print_message(f"{built.sizes.parameters} parameters, tiles of {built.sizes.vision.image} px")
    for path in built.paths:
        print_result(visible(str(path)))
