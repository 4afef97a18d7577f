"""Reports of trainings: a probe's card as a Markdown page, and plots of the confusion matrix and of losses."""
# matplotlib leaves much of its interface untyped:
# pyright: reportUnknownMemberType=false

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from ...model.probe.card import Interval, ProbeCard
from ...readers.files import atomic_path
from ...reports.writer import DISCLAIMER
from ..pixel_size import format_pixel_size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS: Final = ("accuracy", "balanced_accuracy", "macro_f1", "calibration_error")
"""Those of a card that are shown beside the colour statistics'."""

SIZE: Final = (1000, 600)
"""Pixels of the plot of losses."""
RIGHT, WRONG = "#0072b2", "#d55e00"
"""Blue and vermilion, which colour-blind readers can tell apart."""

_DPI = 100
_WINDOW = 50  # steps of the moving mean, or a twentieth of all where there are fewer
_LEAST_LOSS = 1e-12
_MOST_LABELLED_CLASSES = 24  # with room for counts in the cells


def format_interval(one: Interval) -> str:
    """A metric with its interval: "0.912 (0.880 to 0.941)"."""
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"


def card_markdown(card: ProbeCard) -> str:
    """The card as a page in Markdown, with every metric and its interval."""
    trained, validation = card.seen, card.validation
    size = (
        "of unknown size"
        if trained.metres is None
        else f"of {format_pixel_size(trained.metres)}, within a factor {trained.tolerates:g}"
    )
    pixels = "rendered images, " + ("grey" if trained.channels == 1 else "red, green and blue")
    if trained.limits is not None:
        pixels += ", {:g} black and {:g} white".format(*trained.limits)
    if trained.bands is not None:
        pixels = f"{', '.join(trained.bands)} in {trained.quantity or 'numbers'}"
    left_out = ", ".join(f"{reason}: {count}" for reason, count in validation.left_out.items())
    classes = ((_cell(one.name), one.tiles, one.units) for one in card.classes)
    by_class = (
        (_cell(one.name), *(format_interval(each) for each in (one.precision, one.recall, one.f1)))
        for one in card.by_class
    )
    margins = ((f"{one.margin:g}", f"{100 * one.decided:.1f} %", f"{one.accuracy:.3f}") for one in card.margins)
    description = (
        f"Input: {pixels}, in tiles of {trained.tile} px, pixels {size}. A tile has a class where at least "
        f"{100 * validation.inside:g} % of it lies inside that class's outlines and no more than 10 % inside others'."
    )
    held_out = (
        f"On held-out tiles: {validation.folds} folds, none of which shares a {validation.unit} with another; "
        f"regularisation and temperature were chosen on the other folds. Intervals: {validation.interval}."
    )
    head = (
        f"- Head: {card.head.kind}, {card.head.dimensions} features, regularisation {card.head.strength}, temperature "
        f"{card.head.temperature:g}, sha256 `{card.head.sha256}`"
    )
    lines = [
        "# Probe",
        "",
        card.summary,
        "",
        f"**{DISCLAIMER}** It must not be used for:",
        "",
        *(f"- {text}" for text in card.not_for),
        "",
        "## Training data",
        "",
        *_table(("class", "tiles", f"{validation.unit}s"), classes),
        "",
        description,
        *(["", f"Left out: {left_out}."] if left_out else []),
        "",
        "## Accuracy",
        "",
        held_out,
        "",
        *_metrics_table(card),
        "",
        *_table(("class", "precision", "recall", "F1"), by_class),
        "",
        "`confusion.png` shows the confusion matrix.",
        "",
        "## Undecided tiles",
        "",
        "With `--set model_options.margin=…` a tile is undecided where the likeliest class leads the next by less.",
        "",
        *_table(("margin", "decided", "accuracy of those"), margins),
        "",
        "## Encoder and head",
        "",
        f"- Encoder: `{card.encoder.source}`; the probe refuses any other.",
        *(f"- {key}: `{value}`" for key, value in card.encoder.identity.items()),
        head,
        "- Probabilities assume that all classes are equally frequent.",
        f"- Licence of the probe: {card.licence}. Its encoder has its own.",
        "",
    ]
    return "\n".join(lines)


def _metrics_table(card: ProbeCard) -> list[str]:
    """The metrics, beside those of colour statistics where the encoder is another."""
    columns = [card.figures] if card.colour is None else [card.figures, card.colour]
    heads = ["colour statistics"] if card.colour is None else ["this probe", "colour statistics of the same tiles"]
    names = [*METRICS[:3], "calibration_error_before", METRICS[3]]
    rows = [
        (
            name.replace("_before", ", before").replace("_", " "),
            *(format_interval(getattr(one, name)) for one in columns),
        )
        for name in names
    ]
    lines = [*_table(("metric", *heads), rows), ""]
    lines.append(f"Always predicting the largest class would be right for {card.majority:.3f} of the tiles.")
    if card.gain is not None:
        outcome = "more than chance explains" if card.gain.low > 0 else "not more than chance may explain"
        lines.append(f"The encoder adds {format_interval(card.gain)} to the accuracy of colour statistics: {outcome}.")
    return lines


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    cells = (head, ["---"] * len(head), *rows)
    return [f"| {' | '.join(map(str, row))} |" for row in cells]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def plot_losses(losses: Sequence[float], path: Path) -> None:
    """Write a PNG of the losses of steps 1, 2, … on a logarithmic axis, with their moving mean.

    The same losses give the same bytes with the same version of matplotlib.
    """
    shown = np.maximum(np.asarray(losses or [1.0], dtype=np.float64), _LEAST_LOSS)
    steps, window = np.arange(1, len(shown) + 1), max(1, min(_WINDOW, len(shown) // 20))
    sums = np.cumsum(np.concatenate([[0.0], shown]))
    begun = np.maximum(0, steps - window)
    figure = _figure(SIZE[0] / _DPI, SIZE[1] / _DPI)
    axes = figure.add_subplot()
    axes.plot(steps, shown, color="#9ebcda", linewidth=1, marker="o" if len(shown) == 1 else "", label="each step")
    axes.plot(steps, (sums[steps] - sums[begun]) / (steps - begun), color="#08519c", label=f"mean of {window}")
    axes.set(xlabel="step", ylabel="loss of a target token", yscale="log", title=f"last loss {shown[-1]:.4g}")
    axes.grid(color="#e1e4e8")
    axes.legend()
    _save(figure, path)


def plot_confusion(card: ProbeCard, path: Path) -> None:
    """Write a PNG of the confusion matrix of held-out tiles: rows are true classes, columns predicted ones.

    A cell's colour is its share of the row, blue on the diagonal and vermilion off it.
    """
    from matplotlib.colors import LinearSegmentedColormap

    names, matrix = [_short(name) for name in card.labels], np.asarray(card.confusion, dtype=np.int64)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    count = len(names)
    labelled = count <= _MOST_LABELLED_CLASSES
    side = min(24.0, 3.0 + count * (0.95 if labelled else 0.3))
    figure = _figure(max(side, 7.0), side + 1.5)
    axes = figure.add_subplot()
    diagonal = np.eye(count, dtype=np.bool_)
    for where, colour in ((diagonal, RIGHT), (~diagonal, WRONG)):
        scale = LinearSegmentedColormap.from_list("share", ["#f6f6f6", colour])
        axes.imshow(np.ma.masked_array(shares, ~where), cmap=scale, vmin=0.0, vmax=1.0)
    axes.set_xticks(range(count), names, rotation=45, ha="left")
    axes.set_yticks(range(count), names)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.set(ylabel="true class", xlabel="predicted class")
    axes.xaxis.set_label_position("top")
    for row, column in np.ndindex(*matrix.shape) if labelled else ():
        share = shares[row, column]
        colour = "white" if share > 0.6 else "black"
        axes.text(column, row, f"{matrix[row, column]}\n{100 * share:.0f} %", ha="center", va="center", color=colour)
    metrics, validation = card.figures, card.validation
    accuracy, balanced = format_interval(metrics.accuracy), format_interval(metrics.balanced_accuracy)
    figure.suptitle(f"accuracy {accuracy}, balanced {balanced}")
    note = f"{matrix.sum()} held-out tiles in {validation.units} units ({validation.unit}). {DISCLAIMER}"
    figure.supxlabel(note, fontsize="small", wrap=True)
    _save(figure, path)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def _save(figure: "Figure", path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with atomic_path(path) as part:
        FigureCanvasAgg(figure).print_png(part, metadata={"Software": None, "Comment": DISCLAIMER})


def _short(name: str, most: int = 24) -> str:
    name = name.replace("$", r"\$")  # no formula
    return name if len(name) <= most else f"{name[: most - 1]}…"
