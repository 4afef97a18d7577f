"""`limner train probe`: fit and evaluate a head on a training set, and write the probe's folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ...model.domain import Domain
from ...model.probe import card as cards
from ...model.probe.card import CARD, HEAD, Interval, ProbeCard, ProbeMetrics
from ...model.training.fit import Fitted, check_installed, fit_head, max_fits
from ...model.training.metrics import RESAMPLES, SEED, Metrics, accuracy_gain, class_weights, compute_metrics, margins
from ...readers.errors import RequestError
from ...readers.files import write_atomic
from ..config import Settings
from ..progress import EventHandler, Message
from ..run.manifest import versions
from .report import card_markdown, plot_confusion
from .training_set import TOLERATES, ProbeConfig, TrainingSet, build_training_set, quantity_of

CONFUSION: Final = "confusion.png"
README: Final = "README.md"
MARGINS: Final = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7)
_OWN_FILES: Final = {CARD, HEAD, CONFUSION, README, "features"}
_DIGITS: Final = 4


@dataclass(frozen=True, slots=True)
class TrainedProbe:
    """A trained probe."""

    card: ProbeCard
    paths: tuple[Path, ...]
    """The files that were written, in order."""


def train_probe(settings: Settings, config: ProbeConfig, on_event: EventHandler) -> TrainedProbe:
    """Train a probe and write its folder, `settings.out`; the card is written last and shows that it is complete.

    Deterministic: same images, labels and settings, same bytes. Raises `RequestError`, `ModelError`, `ReadError`.
    """
    folder = _output_folder(settings.out)
    check_installed()
    on_event(Message("Scanning the inputs"))
    data = build_training_set(settings, config, on_event)
    count, kind = len(data.names), config.head
    fits = max_fits(config.folds, kind) * (1 if data.colour is None else 2)
    units = f"{int(data.units.max()) + 1} {data.unit}s"
    on_event(Message(f"{len(data.classes)} tiles in {units}; fitting up to {fits} heads"))
    fitted = fit_head(data.features, data.classes, data.folds, count=count, kind=kind)
    colour = None
    if data.colour is not None:
        colour = fit_head(data.colour, data.classes, data.folds, count=count, kind=kind)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).unlink(missing_ok=True)
    sha256 = fitted.head.save(folder / HEAD)
    card = make_card(data, config, fitted, colour, sha256)
    plot_confusion(card, folder / CONFUSION)
    write_atomic(folder / README, card_markdown(card).encode())
    return TrainedProbe(card, (folder / HEAD, folder / CONFUSION, folder / README, cards.write_card(card, folder)))


def make_card(data: TrainingSet, config: ProbeConfig, fitted: Fitted, colour: Fitted | None, sha256: str) -> ProbeCard:
    """The card of a fitted head; `colour` is the head that was fitted on colour statistics."""
    classes, units, names = data.classes, data.units, data.names
    metrics = _compute(fitted.probabilities, data)
    plan = data.plans[0]
    return ProbeCard(
        summary=f"Tells {', '.join(names)} apart, by the features of {config.encoder}.",
        licence=config.licence,
        classes=tuple(
            cards.ProbeClass(
                name=name, tiles=int((classes == index).sum()), units=len(np.unique(units[classes == index]))
            )
            for index, name in enumerate(names)
        ),
        seen=cards.ProbeInput(
            tile=plan.spec.tile,
            metres=None if data.metres is None else float(f"{data.metres:.6g}"),
            tolerates=TOLERATES,
            bands=plan.spec.bands,
            quantity=quantity_of(plan),
            channels=len(plan.spec.bands or (plan.stretch.channels if plan.stretch is not None else ())),
            limits=data.limits if plan.spec.bands is None else None,
        ),
        domain=Domain.of_images([one.info for one in data.plans]),
        encoder=cards.EncoderRecord(source=config.encoder, identity=dict(data.encoder.identity)),
        head=cards.HeadRecord(
            kind=config.head,
            sha256=sha256,
            dimensions=fitted.head.dimensions,
            strength=f"{fitted.strength:g}",
            temperature=round(fitted.head.temperature, 6),
        ),
        validation=cards.Validation(
            folds=config.folds,
            unit=f"{data.unit} of {config.unit}" if data.unit == "block" else data.unit,
            units=int(units.max()) + 1,
            inside=config.inside,
            interval=f"95 %, percentile bootstrap over {data.unit}s, {RESAMPLES} resamples, seed {SEED}",
            left_out=dict(data.left_out),
        ),
        figures=_probe_metrics(metrics, fitted, data),
        by_class=tuple(
            cards.ClassMetrics(name=name, precision=_rounded(p), recall=_rounded(r), f1=_rounded(f))
            for name, (p, r, f) in zip(names, metrics.by_class, strict=True)
        ),
        confusion=tuple(tuple(int(cell) for cell in row) for row in metrics.confusion),
        margins=tuple(
            cards.Margin(margin=at, decided=round(decided, _DIGITS), accuracy=round(accuracy, _DIGITS))
            for at, decided, accuracy in margins(fitted.probabilities, classes, MARGINS)
        ),
        majority=round(float(np.bincount(classes).max() / len(classes)), _DIGITS),
        colour=None if colour is None else _probe_metrics(_compute(colour.probabilities, data), colour, data),
        gain=None
        if colour is None
        else _rounded(accuracy_gain(fitted.probabilities, colour.probabilities, classes, units)),
        labels_sha256=dict(data.digests),
        versions={name: text for name, text in versions().items() if name in {"limner", "numpy", "python", "torch"}},
        not_for=cards.NOT_FOR,
    )


def _compute(probabilities: npt.NDArray[np.float64], data: TrainingSet) -> Metrics:
    return compute_metrics(probabilities, data.classes, data.units, class_weights(data.classes, len(data.names)))


def _probe_metrics(metrics: Metrics, fitted: Fitted, data: TrainingSet) -> ProbeMetrics:
    return ProbeMetrics(
        accuracy=_rounded(metrics.accuracy),
        balanced_accuracy=_rounded(metrics.balanced_accuracy),
        macro_f1=_rounded(metrics.macro_f1),
        calibration_error_before=_rounded(_compute(fitted.uncalibrated, data).calibration_error),
        calibration_error=_rounded(metrics.calibration_error),
    )


def _rounded(interval: Interval) -> Interval:
    return Interval(**{name: round(value, _DIGITS) for name, value in interval.model_dump().items()})


def _output_folder(out: str) -> Path:
    """The folder to write to: a new one, an empty one, or an earlier probe's. Raises `RequestError`."""
    if not out:
        raise RequestError(
            "--out", "must name a folder for the probe", remedy="Give limner train probe INPUT... --out DIR"
        )
    folder = Path(out)
    other = sorted({one.name for one in folder.iterdir()} - _OWN_FILES) if folder.is_dir() else []
    if other or (folder.exists() and not folder.is_dir()):
        raise RequestError(
            f"output folder {folder}",
            "must be new, empty, or an earlier probe's",
            value=", ".join(other[:3]) or "a file",
            remedy="Give another --out",
        )
    return folder
