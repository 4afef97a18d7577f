"""The command line's `limner train`. Commands import what they need when they run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .settings_options import add_command
from .terminal import Stopped, print_message, print_result, visible
from .train_probe import train_probe_command

if TYPE_CHECKING:
    from ...model.training.align import Row

train_app = typer.Typer(help="Teach a model your labels.", no_args_is_help=True, rich_markup_mode=None)
add_command(train_app, "probe")(train_probe_command)


@train_app.callback()
def train_command() -> None:
    """Teach a model your labels."""


@add_command(train_app, "align")
def train_align(  # noqa: PLR0913, PLR0917 - as many as there are flags; typer calls it by name
    model: Annotated[str, typer.Argument(help="A 4KHD checkpoint: its folder.")],
    data: Annotated[str, typer.Option("--data", help="JSONL of image, question, answer.")],
    out: Annotated[str, typer.Option("--out", help="Folder for checkpoints, losses and the new model.")],
    parts: Annotated[
        list[str] | None, typer.Option("--train", help="Train these too: encoder, language; repeatable.")
    ] = None,
    rate: Annotated[float, typer.Option("--rate", help="Highest learning rate.")] = 2e-4,
    epochs: Annotated[int, typer.Option("--epochs", help="Times that every sample is seen.")] = 2,
    steps: Annotated[int, typer.Option("--steps", help="Steps, instead of epochs.")] = 0,
    batch: Annotated[int, typer.Option("--batch", help="Samples that are read together.")] = 1,
    accumulate: Annotated[int, typer.Option("--accumulate", help="Batches of a step.")] = 1,
    warmup: Annotated[float, typer.Option("--warmup", help="Part of the steps in which the rate rises.")] = 0.01,
    layer_decay: Annotated[
        float, typer.Option("--layer-decay", help="How much slower each layer of the encoder learns than the next.")
    ] = 0.9,
    layout: Annotated[str, typer.Option("--layout", help="training, chat or benchmark.")] = "training",
    hd_num: Annotated[int, typer.Option("--hd-num", help="Most tiles of samples that do not say it.")] = 1,
    limit: Annotated[int, typer.Option("--max-length", help="Cut conversations at so many tokens.")] = 0,
    every: Annotated[int, typer.Option("--every", help="Steps between checkpoints.")] = 200,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16 what may be.")] = False,
    recompute: Annotated[bool, typer.Option("--recompute", help="Keep no activations: slower, less memory.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Decides order, variation and dropout.")] = 0,
    dtype: Annotated[str, typer.Option("--dtype", help="Of the new checkpoint. Default: the old one's.")] = "",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or a GPU such as cuda:0.")] = "auto",
    threads: Annotated[int, typer.Option("--threads", help="Computing threads. Default: torch's own.")] = 0,
) -> None:
    """Teach a 4KHD model to say what pictures show; run again to go on where a training was cut off."""
    from ...model.training.align import Alignment
    from ...model.vlm.fourkhd.tokenizer import LAYOUTS
    from ...readers.errors import RequestError
    from ..train.align import align

    unknown = sorted(set(parts or ()) - {"encoder", "language"})
    if unknown:
        raise RequestError("--train", "it is encoder or language", value=unknown[0], remedy="Correct it")
    if layout not in LAYOUTS:
        raise RequestError("--layout", f"it is {', '.join(LAYOUTS)}", value=layout, remedy="Correct it")
    settings = Alignment(
        encoder="encoder" in (parts or ()),
        language="language" in (parts or ()),
        layout=layout,
        peak=rate,
        epochs=epochs,
        steps=steps,
        batch=batch,
        accumulate=accumulate,
        warmup=warmup,
        layer_decay=layer_decay,
        limit=limit,
        bf16=bf16,
        recompute=recompute,
        seed=seed,
    )
    try:
        folder = align(
            model,
            Path(data),
            Path(out),
            settings,
            hd_num=hd_num,
            every=every,
            dtype=dtype,
            device=device,
            threads=threads,
            tell=_say,
        )
    except Stopped as stop:
        print_message("\nStopped. The same command goes on from the last checkpoint.")
        raise typer.Exit(stop.exit_code) from None
    print_result(visible(str(folder)))


def _say(row: "Row", steps: int) -> None:
    """A line on standard error, for the first steps and then now and then."""
    if row.step in {1, 2, 5, 10, 20, steps} or row.step % 50 == 0:
        print_message(f"step {row.step} of {steps}: loss {row.loss:.4f}, rate {row.rate:.2e}")
