"""The picture of a training: its loss, step by step, on a scale of powers of ten."""

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from ..readers.files import replacing
from .lettering import write

SIZE = (1000, 600)
WINDOW = 50
"""Steps whose mean is the darker line, or a twentieth of all where there are fewer."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 24, 48, 64
_FINE = 2
_INK, _PALE, _GRID = (40, 44, 52), (158, 188, 218), (225, 228, 232)
_DARK = (8, 81, 156)
_LETTERS = 18
_LEAST = 1e-12
_MOST_TICKS = 8


def draw_losses(losses: Sequence[float], path: Path) -> None:
    """Write a PNG of the losses of steps 1, 2, …: each, and the mean of those around it. Same losses, same bytes."""
    shown = [max(loss, _LEAST) for loss in losses] or [1.0]
    low, high = math.log10(min(shown)), math.log10(max(shown))
    if high - low < 0.1:  # noqa: PLR2004 - a flat line still needs a scale
        low, high = low - 0.05, high + 0.05
    width, height = SIZE[0] - _LEFT - _RIGHT, SIZE[1] - _TOP - _BOTTOM

    def place(step: float, loss: float) -> tuple[float, float]:
        across = _LEFT + width * (step - 1) / max(1, len(shown) - 1)
        return across, _TOP + height * (high - math.log10(loss)) / (high - low)

    fine = Image.new("RGB", (SIZE[0] * _FINE, SIZE[1] * _FINE), (255, 255, 255))
    pen = ImageDraw.Draw(fine)
    ticks = _ticks(low, high)
    for tick in ticks:
        y = place(1, tick)[1]
        pen.line([(_LEFT * _FINE, y * _FINE), ((SIZE[0] - _RIGHT) * _FINE, y * _FINE)], fill=_GRID, width=_FINE)
    smooth = _means(shown)
    for values, colour, wide in ((shown, _PALE, 2), (smooth, _DARK, 4)):
        way = [place(step, value) for step, value in enumerate(values, start=1)]
        scaled = [(x * _FINE, y * _FINE) for x, y in way]
        if len(scaled) > 1:
            pen.line(scaled, fill=colour, width=wide, joint="curve")
        else:
            x, y = scaled[0]
            pen.ellipse((x - 6, y - 6, x + 6, y + 6), fill=colour)
    picture = fine.reduce(_FINE)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((_LEFT, _TOP, SIZE[0] - _RIGHT, SIZE[1] - _BOTTOM), outline=_INK)
    for tick in ticks:
        write(pen, (_LEFT - 10, place(1, tick)[1]), f"{tick:.3g}", _INK, _LETTERS, "rm")
    for step in sorted({1, (len(shown) + 1) // 2, len(shown)}):
        write(pen, (place(step, shown[0])[0], SIZE[1] - _BOTTOM + 8), str(step), _INK, _LETTERS, "ma")
    write(pen, (_LEFT, _TOP - 12), f"loss of a target token, last {shown[-1]:.4g}", _INK, _LETTERS, "ls")
    write(pen, (SIZE[0] - _RIGHT, SIZE[1] - 12), "step", _INK, _LETTERS, "rs")
    with replacing(path) as part:
        picture.save(part, format="PNG", optimize=True)


def _means(losses: Sequence[float]) -> list[float]:
    """The mean of each loss and those before it, within the window."""
    window = max(1, min(WINDOW, len(losses) // 20))
    parts = (losses[max(0, stop - window) : stop] for stop in range(1, len(losses) + 1))
    return [math.fsum(part) / len(part) for part in parts]


def _ticks(low: float, high: float) -> list[float]:
    """Round losses between two powers of ten: 1, 2 and 5 of each, or only 1 where those would be many."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    for heads in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 5), (1,)):
        found = [head * 10.0**decade for decade in decades for head in heads]
        found = [tick for tick in found if low <= math.log10(tick) <= high]
        if len(found) <= _MOST_TICKS:
            break
    return found
