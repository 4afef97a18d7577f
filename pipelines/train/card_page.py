"""A probe's card for people: a page in Markdown with every figure."""

from ...model.probe.card import Figure, Figures, ProbeCard
from ...reports.writer import DISCLAIMER


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
        outcome = "more than chance explains" if clear else "not more than chance may explain"
        lines.append(f"The encoder adds {_words(card.gain)} to the accuracy of colour statistics: {outcome}.")
    return lines


def _words(figure: Figure) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def _length(metres: float) -> str:
    return f"{metres:.4g} m" if metres >= 1e-3 else f"{metres * 1e6:.4g} µm"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
