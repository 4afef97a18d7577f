"""The commands `limner train probe` and `limner train align`. Heavy imports are made when a command runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from .settings_options import READING, add_command, with_settings
from .terminal import Stopped, print_message, print_result, visible

if TYPE_CHECKING:
    from ...model.probe.card import ProbeCard
    from ...model.training.align import StepRecord
    from ...model.training.fit import HeadKind
    from ..config import Settings

train_app = typer.Typer(help="Train a model on your labels.", no_args_is_help=True, rich_markup_mode=None)


@train_app.callback()
def train_command() -> None:
    """Train a model on your labels."""


@add_command(train_app, "probe")
@with_settings((*READING, "out", "resolution", "stretch", "fetch"))
def train_probe_command(  # noqa: PLR0913, PLR0917 - as many as there are flags; typer calls it by name
    settings: "Settings",
    labels: Annotated[str, typer.Option("--labels", help="GeoJSON or GeoPackage, a folder of them, or a CSV.")] = "",
    reviews: Annotated[
        list[str] | None,
        typer.Option(
            "--review",
            metavar="RUN[=REVIEW]",
            help="A run whose reviews are labels: all of them, or a file or a reviewer's; repeatable.",
        ),
    ] = None,
    rejected: Annotated[
        str, typer.Option("--rejected", help="Class of findings that were rejected. Default: they are left out.")
    ] = "",
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
    folds: Annotated[int, typer.Option("--folds", help="Folds of the cross-validation.")] = 5,
    block: Annotated[
        str, typer.Option("--block", help="Unit that is never split over folds: outline, image, or 500m, 200um, 512px.")
    ] = "",
    inside: Annotated[float, typer.Option("--inside", help="Least share of a tile inside its class.")] = 0.5,
    rest: Annotated[str, typer.Option("--rest", help="Class of everything that is not outlined.")] = "",
    licence: Annotated[str, typer.Option("--licence", help="Licence of the probe, for its card.")] = "not stated",
    features: Annotated[str, typer.Option("--features", help="Folder of cached features. Default: in --out.")] = "",
) -> None:
    """Train a small head on a frozen encoder with your outlines, for `limner run --model probe:OUT`."""
    from ..progress import TerminalProgress
    from ..train.probe import train_probe
    from ..train.training_set import ProbeConfig

    kind = cast("HeadKind", head)  # which `ProbeConfig` checks
    several = tuple(reviews or ())
    config = ProbeConfig(
        labels, encoder, label_field, tile, kind, folds, inside, rest, block, licence, features, several, rejected
    )
    with TerminalProgress() as on_event:
        trained = train_probe(settings, config, on_event)
    print_result(_summary(trained.card))
    for path in trained.paths:
        print_result(visible(str(path)))


@add_command(train_app, "align")
def train_align(  # noqa: PLR0913, PLR0917 - as many as there are flags; typer calls it by name
    model: Annotated[str, typer.Argument(help="A 4KHD checkpoint: its folder.")],
    data: Annotated[str, typer.Option("--data", help="JSONL of image, question, answer.")],
    out: Annotated[str, typer.Option("--out", help="Folder for checkpoints, losses and the new model.")],
    parts: Annotated[
        list[str] | None, typer.Option("--train", help="Train these too: encoder, language; repeatable.")
    ] = None,
    rate: Annotated[float, typer.Option("--rate", help="Highest learning rate.")] = 2e-4,
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the samples.")] = 2,
    steps: Annotated[int, typer.Option("--steps", help="Steps, instead of epochs.")] = 0,
    batch: Annotated[int, typer.Option("--batch", help="Samples of a batch.")] = 1,
    accumulate: Annotated[int, typer.Option("--accumulate", help="Batches of a step.")] = 1,
    warmup: Annotated[float, typer.Option("--warmup", help="Share of the steps in which the rate rises.")] = 0.01,
    layer_decay: Annotated[
        float, typer.Option("--layer-decay", help="Factor between the rates of a layer of the encoder and the next.")
    ] = 0.9,
    layout: Annotated[str, typer.Option("--layout", help="training, chat or benchmark.")] = "training",
    hd_num: Annotated[int, typer.Option("--hd-num", help="Most tiles of samples that do not state it.")] = 1,
    limit: Annotated[int, typer.Option("--max-length", help="Truncate conversations to so many tokens.")] = 0,
    every: Annotated[int, typer.Option("--every", help="Steps between checkpoints.")] = 200,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16 where possible.")] = False,
    recompute: Annotated[bool, typer.Option("--recompute", help="Keep no activations: slower, less memory.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of order, augmentation and dropout.")] = 0,
    dtype: Annotated[str, typer.Option("--dtype", help="Of the new checkpoint. Default: the old one's.")] = "",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or a GPU such as cuda:0.")] = "auto",
    threads: Annotated[int, typer.Option("--threads", help="Computing threads. Default: torch's own.")] = 0,
) -> None:
    """Train a 4KHD model on images with questions and answers; run again to resume an interrupted training."""
    from ...model.training.align import AlignmentConfig
    from ...model.vlm.fourkhd.tokenizer import LAYOUTS
    from ...readers.errors import RequestError
    from ..train.align import align

    unknown = sorted(set(parts or ()) - {"encoder", "language"})
    if unknown:
        raise RequestError("--train", "must be encoder or language", value=unknown[0], remedy="Give --train encoder")
    if layout not in LAYOUTS:
        raise RequestError("--layout", f"must be {' or '.join(LAYOUTS)}", value=layout, remedy="Leave it out")
    config = AlignmentConfig(
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
            config,
            hd_num=hd_num,
            every=every,
            dtype=dtype,
            device=device,
            threads=threads,
            on_step=_print_step,
        )
    except Stopped as stop:
        print_message("\nStopped. The same command resumes from the last checkpoint.")
        raise typer.Exit(stop.exit_code) from None
    print_result(visible(str(folder)))


def _print_step(step: "StepRecord", steps: int) -> None:
    """Print a line on standard error for the first steps, and then for every fiftieth."""
    if step.step in {1, 2, 5, 10, 20, steps} or step.step % 50 == 0:
        print_message(f"step {step.step} of {steps}: loss {step.loss:.4f}, rate {step.rate:.2e}")


def _summary(card: "ProbeCard") -> str:
    """A trained probe's classes and held-out metrics as tables for a terminal."""
    from ...reports.writer import DISCLAIMER
    from ..describe import table
    from ..train.report import METRICS, format_interval

    rows = [("class", "tiles", card.validation.unit + "s", "precision", "recall")]
    for one, metrics in zip(card.classes, card.by_class, strict=True):
        shares = (f"{metrics.precision.value:.3f}", f"{metrics.recall.value:.3f}")
        rows.append((one.name, str(one.tiles), str(one.units), *shares))
    columns = [one for one in (card.figures, card.colour) if one is not None]
    compared = [("held-out tiles", "this probe", "colour")[: 1 + len(columns)]]
    compared += [
        (name.replace("_", " "), *(format_interval(getattr(one, name)) for one in columns)) for name in METRICS
    ]
    left_out = ", ".join(f"{reason} {count}" for reason, count in card.validation.left_out.items())
    closing = [f"Left out: {left_out}"] if left_out else []
    return "\n".join([table(rows, right=(1, 2, 3, 4)), "", table(compared), *closing, DISCLAIMER])
