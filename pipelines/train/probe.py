"""`limner train probe`: a lesson becomes a probe's folder. How a head is fitted and judged is `model.training`'s."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ...model.probe.card import (
    CARD,
    HEAD,
    NOT_FOR,
    ClassFigures,
    EncoderPart,
    Figure,
    Figures,
    HeadPart,
    Margin,
    ProbeCard,
    Seen,
    TaughtClass,
    Validation,
    write_card,
)
from ...model.training.probe import Fitted, check_installed, fit, fits
from ...model.training.scores import RESAMPLES, SEED, Interval, Scores, balance, difference, margins, score
from ...readers.errors import RequestError
from ...readers.files import write_atomic
from ...reports.writer import DISCLAIMER
from ..config import Settings
from ..describe import table
from ..progress import EventHandler, Message
from ..run.manifest import versions
from .card_page import card_words
from .probe_config import ProbeConfig
from .training_set import TOLERATES, TrainingSet, gather, quantity_of

CONFUSION: Final = "confusion.png"
WORDS: Final = "README.md"
MARGINS: Final = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7)
_OURS: Final = {CARD, HEAD, CONFUSION, WORDS, "features"}
_DIGITS: Final = 4


@dataclass(frozen=True, slots=True)
class Trained:
    """A probe that is done: its card, and the files that were written, in order."""

    card: ProbeCard
    paths: tuple[Path, ...]


def train_probe(settings: Settings, request: ProbeConfig, on_event: EventHandler) -> Trained:
    """Teach a probe and write its folder, `settings.out`; the card comes last, so that it being there means complete.

    Same images, labels and settings, same bytes. Raises `RequestError` for what cannot be taught, `ModelError` for an
    encoder that cannot be used, `ReadError` where images cannot be read.
    """
    folder, kind = _folder(settings.out), request.kind
    check_installed()  # before anything is read
    from .plots import plot_confusion

    on_event(Message("Looking at the inputs"))
    lesson = gather(settings, request, on_event)
    count = len(lesson.names)
    heads = fits(request.folds, kind) * (1 if lesson.colour is None else 2)
    on_event(
        Message(
            f"{len(lesson.classes)} tiles in {int(lesson.units.max()) + 1} {lesson.unit}s; fitting up to {heads} heads"
        )
    )
    fitted = fit(lesson.features, lesson.classes, lesson.folds, count=count, kind=kind)
    colour = None
    if lesson.colour is not None:
        colour = fit(lesson.colour, lesson.classes, lesson.folds, count=count, kind=kind)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).unlink(missing_ok=True)
    sha256 = fitted.head.save(folder / HEAD)
    card = make_card(lesson, request, fitted, colour, sha256)
    plot_confusion(card, folder / CONFUSION)
    write_atomic(folder / WORDS, card_words(card).encode())
    return Trained(card, (folder / HEAD, folder / CONFUSION, folder / WORDS, write_card(card, folder)))


def make_card(
    lesson: TrainingSet, request: ProbeConfig, fitted: Fitted, colour: Fitted | None, sha256: str
) -> ProbeCard:
    """The card of a head that was fitted on a lesson; `colour` is what the colour statistics gave."""
    classes, units, names = lesson.classes, lesson.units, lesson.names
    scores = _score(fitted.chances, lesson)
    plan = lesson.plans[0]
    identity = dict(lesson.encoder.identity)
    return ProbeCard(
        summary=f"Tells {', '.join(names)} apart, by the features of {request.encoder}.",
        licence=request.licence,
        classes=tuple(
            TaughtClass(name=name, tiles=int((classes == place).sum()), units=len(np.unique(units[classes == place])))
            for place, name in enumerate(names)
        ),
        seen=Seen(
            tile=plan.spec.tile,
            metres=None if lesson.metres is None else float(f"{lesson.metres:.6g}"),
            tolerates=TOLERATES,
            bands=plan.spec.bands,
            quantity=quantity_of(plan),
            channels=len(plan.spec.bands or (plan.stretch.channels if plan.stretch is not None else ())),
            limits=lesson.limits if plan.spec.bands is None else None,
        ),
        encoder=EncoderPart(source=request.encoder, identity=identity),
        head=HeadPart(
            kind=request.kind,
            sha256=sha256,
            dimensions=fitted.head.dimensions,
            strength=f"{fitted.strength:g}",
            temperature=round(fitted.head.temperature, 6),
        ),
        validation=Validation(
            folds=request.folds,
            unit=f"{lesson.unit} of {request.block}" if lesson.unit == "block" else lesson.unit,
            units=int(units.max()) + 1,
            inside=request.inside,
            interval=f"95 %, percentile bootstrap over {lesson.unit}s, {RESAMPLES} resamples, seed {SEED}",
            left_out=dict(lesson.left_out),
        ),
        figures=_figures(scores, _score(fitted.before, lesson)),
        by_class=tuple(
            ClassFigures(name=name, precision=_figure(p), recall=_figure(r), f1=_figure(f))
            for name, (p, r, f) in zip(names, scores.by_class, strict=True)
        ),
        confusion=tuple(tuple(int(cell) for cell in row) for row in scores.confusion),
        margins=tuple(
            Margin(margin=at, decided=round(decided, _DIGITS), accuracy=round(right, _DIGITS))
            for at, decided, right in margins(fitted.chances, classes, MARGINS)
        ),
        majority=round(float(np.bincount(classes).max() / len(classes)), _DIGITS),
        colour=None if colour is None else _figures(_score(colour.chances, lesson), _score(colour.before, lesson)),
        gain=None if colour is None else _figure(difference(fitted.chances, colour.chances, classes, units)),
        labels_sha256=dict(lesson.digests),
        versions=_versions(),
        not_for=NOT_FOR,
    )


def describe_probe(card: ProbeCard) -> str:
    """A trained probe in words: what it was taught, and how well it does on what was held out."""
    rows = [("class", "tiles", card.validation.unit + "s", "precision", "recall")]
    for taught, fared in zip(card.classes, card.by_class, strict=True):
        shares = (f"{fared.precision.value:.3f}", f"{fared.recall.value:.3f}")
        rows.append((taught.name, str(taught.tiles), str(taught.units), *shares))
    kinds: list[tuple[str, ...]] = [("held-out tiles", "this probe", *(() if card.colour is None else ("colour",)))]
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "calibration_error"):
        each = [getattr(one, name) for one in (card.figures, card.colour) if one is not None]
        kinds.append((name.replace("_", " "), *(f"{f.value:.3f} ({f.low:.3f} to {f.high:.3f})" for f in each)))
    left = ", ".join(f"{what} {count}" for what, count in card.validation.left_out.items())
    closing = [f"Left out: {left}"] if left else []
    return "\n".join([table(rows, right=(1, 2, 3, 4)), "", table(kinds), *closing, DISCLAIMER])


def _score(chances: npt.NDArray[np.float64], lesson: TrainingSet) -> Scores:
    return score(chances, lesson.classes, lesson.units, balance(lesson.classes, len(lesson.names)))


def _figures(after: Scores, before: Scores) -> Figures:
    return Figures(
        accuracy=_figure(after.accuracy),
        balanced_accuracy=_figure(after.balanced_accuracy),
        macro_f1=_figure(after.macro_f1),
        calibration_error_before=_figure(before.calibration_error),
        calibration_error=_figure(after.calibration_error),
    )


def _figure(interval: Interval) -> Figure:
    value, low, high = (round(one, _DIGITS) for one in (interval.value, interval.low, interval.high))
    return Figure(value=value, low=low, high=high)


def _versions() -> dict[str, str]:
    return {name: text for name, text in versions().items() if name in {"limner", "numpy", "python", "torch"}}


def _folder(out: str) -> Path:
    """The folder to write to: a new one, an empty one, or an earlier probe's. Raises `RequestError`."""
    if not out:
        raise RequestError("out", "a folder for the probe is needed", remedy="limner train probe INPUT... --out DIR")
    folder = Path(out)
    other = sorted({one.name for one in folder.iterdir()} - _OURS) if folder.is_dir() else []
    if other or (folder.exists() and not folder.is_dir()):
        raise RequestError(
            f"out {folder}",
            "it must be empty, new, or an earlier probe's folder: nothing else is written over",
            value=", ".join(other[:3]) or "a file",
            remedy="Give another --out",
        )
    return folder
