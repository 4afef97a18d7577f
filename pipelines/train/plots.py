"""Plots of training, by matplotlib: the loss of each step, and a confusion matrix."""
# matplotlib leaves much of its interface untyped:
# pyright: reportUnknownMemberType=false

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from ...model.probe.card import Figure as Estimate
from ...model.probe.card import ProbeCard
from ...readers.files import atomic_path
from ...reports.writer import DISCLAIMER

SIZE = (1000, 600)
"""Pixels of the plot of losses."""
RIGHT, WRONG = "#0072b2", "#d55e00"
"""Blue and vermilion, which colour-blind people can tell apart."""

_DPI = 100
_WINDOW = 50  # steps of the moving mean, or a twentieth of all where there are fewer
_LEAST = 1e-12
_MOST_CLASSES = 24  # whose counts have room in their cells


def plot_losses(losses: Sequence[float], path: Path) -> None:
    """Write a PNG of the losses of steps 1, 2, … on a logarithmic axis, with their moving mean.

    The same losses give the same bytes with the same version of matplotlib.
    """
    shown = np.maximum(np.asarray(losses or [1.0], dtype=np.float64), _LEAST)
    steps, window = np.arange(1, len(shown) + 1), max(1, min(_WINDOW, len(shown) // 20))
    sums = np.cumsum(np.concatenate([[0.0], shown]))
    begun = np.maximum(0, steps - window)
    figure = Figure(figsize=(SIZE[0] / _DPI, SIZE[1] / _DPI), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, shown, color="#9ebcda", linewidth=1, marker="o" if len(shown) == 1 else "", label="each step")
    axes.plot(steps, (sums[steps] - sums[begun]) / (steps - begun), color="#08519c", label=f"mean of {window}")
    axes.set(xlabel="step", ylabel="loss of a target token", yscale="log", title=f"last loss {shown[-1]:.4g}")
    axes.grid(color="#e1e4e8")
    axes.legend()
    _save(figure, path)


def plot_confusion(card: ProbeCard, path: Path) -> None:
    """Write a PNG of the confusion matrix: rows are true classes, columns predicted ones, of held-out tiles.

    A cell's colour is its share of the row, blue on the diagonal and vermilion off it; counts and shares stand in it.
    """
    names, table = [_short(name) for name in card.labels], np.asarray(card.confusion, dtype=np.int64)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    count = len(names)
    side = min(24.0, 3.0 + count * (0.95 if count <= _MOST_CLASSES else 0.3))
    figure = Figure(figsize=(max(side, 7.0), side + 1.5), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    diagonal = np.eye(count, dtype=np.bool_)
    for where, colour in ((diagonal, RIGHT), (~diagonal, WRONG)):
        paint = LinearSegmentedColormap.from_list("share", ["#f6f6f6", colour])
        axes.imshow(np.ma.masked_array(shares, ~where), cmap=paint, vmin=0.0, vmax=1.0)
    axes.set_xticks(range(count), names, rotation=45, ha="left")
    axes.set_yticks(range(count), names)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.set(ylabel="true class", xlabel="predicted class")
    axes.xaxis.set_label_position("top")
    for row, column in np.ndindex(*table.shape) if count <= _MOST_CLASSES else ():
        text = f"{table[row, column]}\n{100 * shares[row, column]:.0f} %"
        axes.text(column, row, text, ha="center", va="center", color="white" if shares[row, column] > 0.6 else "black")
    figures, held_out = card.figures, card.validation
    figure.suptitle(f"accuracy {_words(figures.accuracy)}, balanced {_words(figures.balanced_accuracy)}")
    note = f"{table.sum()} tiles of {held_out.units} units, held out whole: {held_out.unit}. {DISCLAIMER}"
    figure.supxlabel(note, fontsize="small", wrap=True)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as part:
        FigureCanvasAgg(figure).print_png(part, metadata={"Software": None, "Comment": DISCLAIMER})


def _short(name: str, most: int = 24) -> str:
    name = name.replace("$", r"\$")  # no formula
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _words(figure: Estimate) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
