"""A probe's card for people: a page of words, and the confusion matrix as a picture."""

from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, PngImagePlugin

from ..model.probe.card import Figure, Figures, ProbeCard
from ..readers.files import replacing
from .lettering import Colour, cut, width, write
from .writer import DISCLAIMER

INK, QUIET, HAIRLINE, PAPER = (28, 31, 35), (104, 110, 118), (217, 220, 224), (255, 255, 255)
RIGHT, WRONG = (0, 114, 178), (213, 94, 0)
"""Blue and vermilion, which colour-blind people can tell apart."""

_MARGIN: Final = 40
_SIZE: Final = 20
_MOST: Final = 24  # classes whose names and counts have room
_PALE: Final = 0.6  # of a row: above it, words on its colour are white


def draw_confusion(card: ProbeCard, path: Path) -> None:
    """The confusion matrix as a PNG: rows are what held-out tiles are, columns what was said.

    Each row's colour is its share; blue on the diagonal, vermilion off it. Counts and shares of the row stand in the
    cells.
    """
    names = list(card.labels)
    cell = 104 if len(names) <= 8 else 72 if len(names) <= _MOST else 24  # noqa: PLR2004 - what has room on a page
    words = min(260, max(130, round(max(width(name, _SIZE) for name in names)) + 16))
    left, top = _MARGIN + words, _MARGIN + 190
    side = cell * len(names)
    wide = max(left + side + _MARGIN, 760)
    sheet = Image.new("RGB", (wide, top + side + 150), PAPER)
    pen = ImageDraw.Draw(sheet)
    write(pen, (_MARGIN, _MARGIN - 8), "What held-out tiles are, and what was said of them", INK, 26)
    figures = card.figures
    line = f"accuracy {_words(figures.accuracy)}   balanced {_words(figures.balanced_accuracy)}"
    write(pen, (_MARGIN, _MARGIN + 30), line, QUIET, 18)
    write(pen, (left, top - 124), "what was said", QUIET, 18)
    write(pen, (left - 12, top - 12), "what they are", QUIET, 18, "rs")
    for place, name in enumerate(names):
        short = cut(name, _SIZE, words - 12)[0]
        write(pen, (left - 12, top + (place + 0.5) * cell), short, INK, _SIZE, "rm")
        _slanted(sheet, (left + round((place + 0.5) * cell), top - 10), cut(name, 18, 110)[0])
    for row, counts in enumerate(card.confusion):
        whole = sum(counts)
        for column, count in enumerate(counts):
            share = count / whole if whole else 0.0
            x, y = left + column * cell, top + row * cell
            colour = _mixed(RIGHT if row == column else WRONG, share)
            pen.rectangle((x, y, x + cell - 2, y + cell - 2), colour)
            if cell > 24:  # noqa: PLR2004 - where letters have room
                ink = PAPER if share > _PALE else INK if count else QUIET
                write(pen, (x + cell / 2 - 1, y + cell / 2 - 10), str(count), ink, 22, "mm")
                write(pen, (x + cell / 2 - 1, y + cell / 2 + 16), f"{100 * share:.0f} %", ink, 15, "mm")
    pen.rectangle((left - 1, top - 1, left + side - 1, top + side - 1), outline=HAIRLINE)
    low = top + side + 24
    for text in (
        f"{sum(map(sum, card.confusion))} tiles; {card.validation.units} units, held out whole: {card.validation.unit}",
        f"Intervals: {card.validation.interval}",
        DISCLAIMER,
    ):
        for part in cut(text, 16, wide - 2 * _MARGIN, 2):
            write(pen, (_MARGIN, low), part, QUIET, 16)
            low += 24
    facts = PngImagePlugin.PngInfo()
    facts.add_text("Comment", DISCLAIMER)
    with replacing(path) as part_path:
        sheet.save(part_path, "PNG", pnginfo=facts, compress_level=6)


def card_words(card: ProbeCard) -> str:
    """The card as a page in Markdown, with every figure and its interval."""
    seen, figures = card.seen, card.figures
    size = (
        "of unknown size" if seen.metres is None else f"of {_length(seen.metres)}, within a factor {seen.tolerates:g}"
    )
    what = "rendered pictures, " + ("grey" if seen.channels == 1 else "red, green and blue")
    if seen.limits is not None:
        what += ", {:g} black and {:g} white".format(*seen.limits)
    if seen.bands is not None:
        what = f"{', '.join(seen.bands)} in {seen.quantity or 'numbers'}"
    inside = 100 * card.validation.inside
    taught = (
        f"It sees {what}, in tiles of {seen.tile} px, pixels {size}. A tile teaches a class where at least {inside:g} %"
        " of it lies inside that class's outlines and no more than 10 % inside any other's."
    )
    held_out = (
        f"On tiles that were held out: {card.validation.folds} folds, in which no {card.validation.unit} stands on both"
        f" sides; regularisation and temperature were chosen on the other folds. Intervals: {card.validation.interval}."
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
        "## What it was taught",
        "",
        "| class | tiles | of how many units |",
        "| --- | --- | --- |",
        *(f"| {_cell(one.name)} | {one.tiles} | {one.units} |" for one in card.classes),
        "",
        taught,
    ]
    if card.validation.left_out:
        left = ", ".join(f"{what}: {count}" for what, count in card.validation.left_out.items())
        lines += ["", f"Left out: {left}."]
    lines += [
        "",
        "## How well it does",
        "",
        held_out,
        "",
        *_table(figures, card),
        "",
        "| class | precision | recall | F1 |",
        "| --- | --- | --- | --- |",
        *(
            f"| {_cell(one.name)} | {_words(one.precision)} | {_words(one.recall)} | {_words(one.f1)} |"
            for one in card.by_class
        ),
        "",
        "`confusion.png` shows which classes are taken for which.",
        "",
        "## Tiles that are left undecided",
        "",
        "With `--set model_options.margin=…` a tile is undecided where the likeliest class leads the next by less.",
        "",
        "| margin | decided | accuracy of those |",
        "| --- | --- | --- |",
        *(f"| {one.margin:g} | {100 * one.decided:.1f} % | {one.accuracy:.3f} |" for one in card.margins),
        "",
        "## What it stands on",
        "",
        f"- Encoder: `{card.encoder.source}`; the probe refuses any other.",
        *(f"- {key}: `{value}`" for key, value in card.encoder.identity.items()),
        head,
        "- Probabilities are those of a place where each class is as frequent as any other.",
        f"- Licence of the probe: {card.licence}. Its encoder has its own.",
        "",
    ]
    return "\n".join(lines)


def _table(figures: Figures, card: ProbeCard) -> list[str]:
    """The figures, beside those of colour statistics where the encoder is more."""
    rows = (
        ("accuracy", "accuracy"),
        ("balanced accuracy", "balanced_accuracy"),
        ("macro F1", "macro_f1"),
        ("calibration error, before", "calibration_error_before"),
        ("calibration error", "calibration_error"),
    )
    if card.colour is None:
        lines = ["| figure | this probe, which is colour statistics |", "| --- | --- |"]
        lines += [f"| {name} | {_words(getattr(figures, key))} |" for name, key in rows]
    else:
        lines = ["| figure | this probe | colour statistics of the same tiles |", "| --- | --- | --- |"]
        lines += [
            f"| {name} | {_words(getattr(figures, key))} | {_words(getattr(card.colour, key))} |" for name, key in rows
        ]
    lines += ["", f"Always naming the largest class would be right for {card.majority:.3f} of the tiles."]
    if card.gain is not None:
        clear = card.gain.low > 0
        verdict = "more than chance explains" if clear else "not more than chance may explain"
        lines.append(f"The encoder adds {_words(card.gain)} to the accuracy of colour statistics: {verdict}.")
    return lines


def _words(figure: Figure) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def _length(metres: float) -> str:
    return f"{metres:.4g} m" if metres >= 1e-3 else f"{metres * 1e6:.4g} µm"  # noqa: PLR2004 - a millimetre


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _mixed(colour: Colour, share: float) -> Colour:
    """A colour thinned with paper: a share of 0 is nearly white."""
    kept = share**0.7
    red, green, blue = (round(255 + (part - 255) * kept) if share else 246 for part in colour)
    return red, green, blue


def _slanted(sheet: Image.Image, foot: tuple[int, int], words: str) -> None:
    """Words that rise to the right from a foot."""
    label = Image.new("RGB", (170, 170))
    write(ImageDraw.Draw(label), (30, 140), words, PAPER, 18, "ls")
    turned = label.convert("L").rotate(45, center=(30, 140), resample=Image.Resampling.BICUBIC)
    sheet.paste(INK, (foot[0] - 30, foot[1] - 140), turned)
