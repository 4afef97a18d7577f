"""What a probe is taught: images and outlines become tiles, their features, classes, units and folds."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ...model.probe.encoders import ColourEncoder, Encoder, find_encoder
from ...model.training.folds import assign_folds, number_units
from ...model.training.training_tiles import overlaps
from ...readers.errors import LimnerError, RequestError
from ...readers.image import ImageInfo
from ..config import Settings
from ..progress import EventHandler, Message
from ..run.plan import ImagePlan, format_pixel_size, make_plan, reader_options, scan_inputs
from ..run.redaction import Redactor
from .features import FeatureStore
from .outlines import Labels, label_files, read_labels
from .probe_config import ProbeConfig
from .training_tiles import Tiles, Watcher, collect

TILE: Final = 64
"""Pixels of a tile where the encoder takes any."""

VALID: Final = 0.5
"""The least share of a tile that must hold data."""

TOLERATES: Final = 1.5
"""By what factor pixels may differ in size from those that taught: less than a doubling changes most textures."""

_ALIKE: Final = 1.02  # the same pixel size, as scales are snapped


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """The tiles that teach, in the order of images and from top to bottom.

    `features` are the encoder's (n, dimensions), `colour` the colour statistics' of the same tiles, None where the
    encoder is those. `classes` (n,) are places in `names`; `units` (n,) and `folds` (n,) as `model.training.folds` has
    them, `unit` what a unit is called. `limits` are what every picture shows black and white, None where each had its
    own. `left_out` counts tiles and outlines that teach nothing, by the reason.
    """

    names: tuple[str, ...]
    features: npt.NDArray[np.float32]
    colour: npt.NDArray[np.float32] | None
    classes: npt.NDArray[np.intp]
    units: npt.NDArray[np.intp]
    folds: npt.NDArray[np.intp]
    unit: str
    limits: tuple[float, float] | None
    left_out: Mapping[str, int]
    plans: tuple[ImagePlan, ...]
    encoder: Encoder
    digests: Mapping[str, str]

    @property
    def metres(self) -> float | None:
        """Metres of a pixel as seen; None where no image says."""
        sizes = [_seen(plan) for plan in self.plans]
        known = [size for size in sizes if size is not None]
        return float(np.exp(np.mean(np.log(known)))) if known else None


def gather(settings: Settings, request: ProbeConfig, on_event: EventHandler) -> TrainingSet:
    """Read images and labels, and encode the tiles that teach. Raises `LimnerError` for what cannot teach.

    Images are planned and read as in a run, but that a slide's glass is not left out: what is outlined is meant.
    """
    _check(request)
    settings = settings.model_copy(update={"tissue": "off"})
    options = reader_options(settings)
    scanned = scan_inputs(settings, options)
    names = Redactor.of(settings, scanned, options, further=[str(path) for path in label_files(request.labels)])
    try:
        infos = [info for row in scanned for info in row.infos]
        labels = read_labels(request.labels, infos, label_field=request.label_field)
        _tell_labels(labels, infos, names, on_event)
        taught = [replace(row, infos=tuple(i for i in row.infos if i.id in labels.outlines)) for row in scanned]
        encoder = find_encoder(request.encoder, fetch=settings.fetch)
        watcher = Watcher(encoder, _tile(encoder, request.tile))
        plan = make_plan(settings, taught, watcher)
        for row in plan.files:
            if row.status == "failed":
                on_event(Message(f"{names.path(row.path)} is left out. {names.text(row.reason)}"))
        _agree(plan.images)
        return _lesson(plan.images, labels, encoder, settings, request, on_event)
    except LimnerError as error:
        raise names.error(error) from None


def _check(request: ProbeConfig) -> None:
    if not 0 < request.inside <= 1:
        raise RequestError(
            "inside", "it is a share above 0 and up to 1", value=str(request.inside), remedy="Give --inside 0.5, say"
        )


def _tile(encoder: Encoder, asked: int) -> int:
    if encoder.tile and asked not in {0, encoder.tile}:
        raise RequestError(
            "tile",
            f"the encoder's tiles are {encoder.tile} px",
            value=str(asked),
            remedy="Leave --tile out, and choose with --resolution how much of the ground a tile shows",
        )
    return encoder.tile or asked or TILE


def _tell_labels(labels: Labels, infos: Sequence[ImageInfo], names: Redactor, on_event: EventHandler) -> None:
    """What a person should know of the labels before trusting what they teach."""
    counts = Counter(outline.label for some in labels.outlines.values() for outline in some)
    on_event(Message("Outlines: " + ", ".join(f"{name} {counts[name]}" for name in labels.classes)))
    if labels.beyond:
        on_event(Message(f"{labels.beyond} outlines lie on none of the images, and teach nothing"))
    if labels.bare:
        on_event(Message(f"{labels.bare} outlines have no label, and teach nothing"))
    without = [info.id for info in infos if info.id not in labels.outlines]
    if without:
        on_event(Message(f"No outlines, so not looked at: {names.text(', '.join(without))}"))
    shared: Counter[tuple[str, str]] = Counter()
    for some in labels.outlines.values():
        shared.update(overlaps(some).keys())
    for (one, other), images in sorted(shared.items()):
        on_event(Message(f"Outlines of {one} and {other} overlap on {images} images: tiles there teach neither"))


def _seen(plan: ImagePlan) -> float | None:
    metres = plan.analysis_metres
    return None if metres is None else float(np.sqrt(metres[0] * metres[1]))


def _agree(plans: Sequence[ImagePlan]) -> None:
    """Raise `RequestError` where an image has slices, or images are not seen alike: by resolution and channels."""
    for plan in plans:
        if len(plan.info.planes) > 1:
            raise RequestError(
                plan.info.id,
                "what is outlined on it must say on which slice, which outlines do not",
                value=f"{len(plan.info.planes)} slices",
                remedy="Leave it out, or give the slices that were outlined as images of their own",
            )
    sizes = {plan.info.id: _seen(plan) for plan in plans}
    known = [size for size in sizes.values() if size is not None]
    if len(known) not in {0, len(sizes)} or (known and max(known) / min(known) > _ALIKE):
        told = {name: "unknown" if size is None else format_pixel_size(size) for name, size in sizes.items()}
        raise RequestError(
            "images",
            "all must be seen at one pixel size, since a probe is taught at one",
            value=", ".join(f"{name} at {size}" for name, size in list(told.items())[:6]),
            remedy="Give --resolution, or train on images of one kind",
        )
    kinds = {_kind(plan): plan.info.id for plan in plans}
    if len(kinds) > 1:
        raise RequestError(
            "images",
            "all must show the same channels in the same quantity",
            value="; ".join(f"{name}: {' '.join(map(str, kind))}" for kind, name in kinds.items()),
            remedy="Train on images of one kind; --sensor and --bands say what files do not",
        )


def _kind(plan: ImagePlan) -> tuple[object, ...]:
    """(how many channels, in which quantities) an image is seen."""
    if plan.spec.bands is None:
        return (len(plan.stretch.channels) if plan.stretch else 0, "channels")
    return (len(plan.spec.bands), quantity_of(plan))


def quantity_of(plan: ImagePlan) -> str:
    """The quantity of the native bands that are seen; several with a slash. "" for rendered pictures."""
    bands = plan.spec.bands or ()
    return "/".join(sorted({one.quantity for one in plan.info.channels if one.common in bands}))


def _lesson(
    plans: Sequence[ImagePlan],
    labels: Labels,
    encoder: Encoder,
    settings: Settings,
    request: ProbeConfig,
    on_event: EventHandler,
) -> TrainingSet:
    baseline = None if isinstance(encoder, ColourEncoder) else ColourEncoder()
    encoders = [encoder] if baseline is None else [encoder, baseline]
    store = FeatureStore(Path(request.features or Path(settings.out) / "features"))
    tiles = Tiles()
    for number, plan in enumerate(plans):
        done = collect(plan, number, labels.outlines[plan.info.id], encoders, store, tiles, request)
        on_event(Message(f"{plan.info.id}: {done} regions with outlines"))
    tiles.left_out["outlines on no image"] = labels.beyond
    tiles.left_out["outlines without a label"] = labels.bare
    names = tuple(sorted(set(tiles.labels)))
    lost = sorted({*labels.classes, *([request.rest] if request.rest else [])} - set(names))
    if lost or len(names) < 2:
        why = ", ".join(f"{count} tiles {fate}" for fate, count in sorted(tiles.left_out.items()) if count)
        raise RequestError(
            "labels",
            "each class must fill some tiles" if lost else "there must be two classes or more to tell apart",
            value=(f"none of {', '.join(lost)}" if lost else f"only {', '.join(names)}") + (f"; {why}" if why else ""),
            remedy="Outline larger places, or let tiles be smaller with --tile or a finer --resolution"
            if lost
            else "Outline a second class, or name with --rest what everything else is",
        )
    unit = request.unit if request.unit in {"outline", "image"} else "block"
    order = sorted(range(len(tiles.places)), key=lambda at: tiles.places[at])  # how regions were cut decides nothing
    units = number_units([tiles.members[at] for at in order])
    classes = np.array([names.index(tiles.labels[at]) for at in order], dtype=np.intp)
    folds = assign_folds(units, classes, names, folds=request.folds, unit=unit)
    return TrainingSet(
        names,
        np.stack([tiles.features[at] for at in order]),
        np.stack([tiles.colour[at] for at in order]) if baseline is not None else None,
        classes,
        units,
        folds,
        unit,
        settings.stretch_limits(),
        {fate: count for fate, count in sorted(tiles.left_out.items()) if count},
        tuple(plans),
        encoder,
        labels.digests,
    )
