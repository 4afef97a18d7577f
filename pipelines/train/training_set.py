"""Build a probe's training set: label the tiles of the images by the user's outlines, encode them, assign folds."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ...model.annotator import Answer, InputSpec, View
from ...model.probe.encoders import COLOUR, ColourEncoder, Encoder, find_encoder
from ...model.training.fit import HeadKind, assign_folds, number_units
from ...model.training.tile_labels import INSIDE, Outline, block_of, label_tiles, overlapping_classes, tile_boxes
from ...readers.errors import LimnerError, ModelError, RequestError
from ...readers.geometry import Box
from ...readers.image import ImageInfo
from ...readers.regions import Region
from ..config import Resolution, Settings
from ..pixel_size import format_pixel_size, ground_metres
from ..progress import EventHandler, Message
from ..run.plan import ImagePlan, make_plan
from ..run.redaction import Redactor, scan_with_redaction
from ..run.worker import RegionJob
from .feature_cache import FeatureCache, TileFeatures, encode_tiles
from .outlines import Labels, label_files, read_labels
from .reviews import BLOCK_TILES, add_reviews, review_files

TILE: Final = 64
"""Side of a tile in pixels where the encoder takes any."""
VALID: Final = 0.5
"""Minimum share of valid pixels in a tile."""
TOLERATES: Final = 1.5
"""Factor by which the pixel size of later images may differ: less than a doubling changes most textures."""
_SAME_SIZE: Final = 1.02
"""Factor within which pixel sizes count as equal, as scales are snapped."""


@dataclass(frozen=True, slots=True)
class ProbeConfig:
    """A probe's settings, apart from those that say which images are read, and how."""

    labels: str = ""
    """A file, or a folder of GeoJSON files; "" where there are reviews."""
    encoder: str = COLOUR
    label_field: str = ""
    """Property or column with the label; "" for the usual names."""
    tile: int = 0
    """Side of a tile in pixels where the encoder takes any; 0 for `TILE`."""
    head: HeadKind = "linear"
    folds: int = 5
    inside: float = INSIDE
    """Minimum share of a tile inside the outlines of its class."""
    rest: str = ""
    """Class of everything that is not outlined; "" for none."""
    block: str = ""
    """Cross-validation unit: "outline", "image", or the size of blocks (500m, 200um, 512px)."""
    licence: str = "not stated"
    features: str = ""
    """Folder of cached features; "" for one in the probe's folder."""
    reviews: tuple[str, ...] = ()
    """Runs whose reviews are labels too: RUN, or RUN=REVIEW with a review's file or a reviewer."""
    rejected: str = ""
    """Class of findings that were rejected; "" to leave them out."""

    def __post_init__(self) -> None:
        """Raise `RequestError` for a value that is not allowed."""
        if self.head not in {"linear", "mlp"}:
            raise RequestError("--head", "must be linear or mlp", value=self.head, remedy="Give --head linear")
        if not self.labels and not self.reviews:
            remedy = "Give --labels FILE, or --review RUN, or both"
            raise RequestError("--labels", "must name outlines where there is no review", remedy=remedy)
        if not 0 < self.inside <= 1:
            raise RequestError(
                "--inside",
                "must be a share above 0 and up to 1",
                value=str(self.inside),
                remedy="Give --inside 0.5, say",
            )

    @property
    def unit(self) -> str:
        """`block` or its default.

        That is images where there is a `rest`, which no outline bounds, squares of some tiles where there are reviews,
        maybe of tiles, else outlines.
        """
        return self.block or ("image" if self.rest else f"{BLOCK_TILES} tiles" if self.reviews else "outline")


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Labelled tiles with features, sorted by image and then from top to bottom."""

    names: tuple[str, ...]
    """The classes."""
    features: npt.NDArray[np.float32]
    """The encoder's, (n, dimensions)."""
    colour: npt.NDArray[np.float32] | None
    """Colour statistics of the same tiles; None where they are the encoder's features."""
    classes: npt.NDArray[np.intp]
    """Indices into `names`, (n,)."""
    units: npt.NDArray[np.intp]
    """Cross-validation units, (n,)."""
    folds: npt.NDArray[np.intp]
    unit: str
    """"outline", "image" or "block"."""
    limits: tuple[float, float] | None
    """Native values that are rendered black and white in every image; None where each has its own."""
    left_out: Mapping[str, int]
    """Number of tiles and outlines that are not used, by reason."""
    plans: tuple[ImagePlan, ...]
    encoder: Encoder
    digests: Mapping[str, str]
    """The sha256 of each label file."""

    @property
    def metres(self) -> float | None:
        """The pixel size; None where no image states one."""
        known = [size for size in map(_pixel_size, self.plans) if size is not None]
        return float(np.exp(np.mean(np.log(known)))) if known else None


@dataclass(frozen=True, slots=True)
class _Tile:
    """A labelled tile."""

    position: tuple[int, float, float]
    """(index of the image, y, x)."""
    features: Sequence[npt.NDArray[np.float32]]
    """Of each encoder."""
    label: str
    groups: Sequence[Hashable]
    """The outlines, block or image that it belongs to."""


@dataclass(frozen=True, slots=True)
class _EncoderInput:
    """An annotator without answers, for planning and reading images as in a run."""

    encoder: Encoder
    tile: int
    identity: Mapping[str, str] = field(default_factory=dict[str, str])
    labels: tuple[str, ...] = ()
    colours: Mapping[str, str] = field(default_factory=dict[str, str])

    def input_spec(self, info: ImageInfo) -> InputSpec:
        del info
        return InputSpec(tile=self.tile, bands=self.encoder.bands, variant="probe")

    def check(self, specs: Sequence[InputSpec]) -> None:
        pass

    def load(self) -> None:
        pass

    def annotate(self, views: Sequence[View]) -> Sequence[Sequence[Answer]]:
        return [[] for _ in views]


def build_training_set(settings: Settings, config: ProbeConfig, on_event: EventHandler) -> TrainingSet:
    """Read images and labels, and encode the labelled tiles. Raises `LimnerError` where they cannot be used.

    Images are planned and read as in a run, but without tissue detection on slides.
    """
    settings = settings.model_copy(update={"tissue": "off"})
    files = label_files(config.labels) if config.labels else []
    reviews = review_files(config.reviews)
    files += [path for run, several in reviews for path in (run, *several)]
    scanned, names = scan_with_redaction(settings, further=list(map(str, files)))
    try:
        infos = [info for row in scanned for info in row.infos]
        labels = Labels({}, 0, 0, {})
        if config.labels:
            labels = read_labels(config.labels, infos, label_field=config.label_field)
        if reviews:
            labels = add_reviews(labels, reviews, infos, rejected=config.rejected)
        _report_labels(labels, infos, names, on_event)
        outlined = [replace(row, infos=tuple(i for i in row.infos if i.id in labels.outlines)) for row in scanned]
        encoder = find_encoder(config.encoder, fetch=settings.fetch)
        plan = make_plan(settings, outlined, _EncoderInput(encoder, _tile_size(encoder, config.tile)), on_event)
        for row in plan.files:
            if row.status == "failed":
                on_event(Message(f"{names.path(row.path)} is left out. {names.text(row.reason)}"))
        _check_alike(plan.images)
        return _encode(plan.images, labels, encoder, settings, config, on_event)
    except LimnerError as error:
        raise names.error(error) from None


def quantity_of(plan: ImagePlan) -> str:
    """The quantities of the native bands of a plan, joined by a slash; "" for rendered images."""
    bands = plan.spec.bands or ()
    return "/".join(sorted({one.quantity for one in plan.info.channels if one.common in bands}))


def _tile_size(encoder: Encoder, tile: int) -> int:
    if encoder.tile and tile not in {0, encoder.tile}:
        raise RequestError(
            "--tile",
            f"must be {encoder.tile}, the encoder's own size",
            value=str(tile),
            remedy="Leave --tile out, and choose with --resolution how much of the ground a tile shows",
        )
    return encoder.tile or tile or TILE


def _report_labels(labels: Labels, infos: Sequence[ImageInfo], names: Redactor, on_event: EventHandler) -> None:
    counts = Counter(outline.label for several in labels.outlines.values() for outline in several)
    on_event(Message("Outlines: " + ", ".join(f"{name} {counts[name]}" for name in labels.classes)))
    if labels.outside:
        on_event(Message(f"{labels.outside} outlines lie on none of the images and are not used"))
    for reason, count in sorted(labels.left_out.items()):
        if count:
            on_event(Message(f"{count} {reason} are not used"))
    if labels.unlabelled:
        on_event(Message(f"{labels.unlabelled} outlines have no label and are not used"))
    without = [info.id for info in infos if info.id not in labels.outlines]
    if without:
        on_event(Message(f"Images without outlines, not used: {names.text(', '.join(without))}"))
    shared: Counter[tuple[str, str]] = Counter()
    for several in labels.outlines.values():
        shared.update(overlapping_classes(several))
    for (one, other), images in sorted(shared.items()):
        on_event(Message(f"Outlines of {one} and {other} overlap on {images} images: tiles there are not used"))


def _pixel_size(plan: ImagePlan) -> float | None:
    metres = plan.analysis_metres
    return None if metres is None else float(np.sqrt(metres[0] * metres[1]))


def _check_alike(plans: Sequence[ImagePlan]) -> None:
    """Raise `RequestError` for a stack, or for images that differ in pixel size or channels."""
    for plan in plans:
        if len(plan.info.planes) > 1:
            raise RequestError(
                plan.info.id,
                "must have one slice, since outlines do not name a slice",
                value=f"{len(plan.info.planes)} slices",
                remedy="Leave it out, or give the slices that were outlined as images of their own",
            )
    sizes = {plan.info.id: _pixel_size(plan) for plan in plans}
    known = [size for size in sizes.values() if size is not None]
    if len(known) not in {0, len(sizes)} or (known and max(known) / min(known) > _SAME_SIZE):
        texts = [f"{name} at {'unknown' if size is None else format_pixel_size(size)}" for name, size in sizes.items()]
        raise RequestError(
            "training images",
            "must have one pixel size",
            value=", ".join(texts[:6]),
            remedy="Give --resolution, or train on images of one kind",
        )
    kinds: dict[tuple[int, str], str] = {}
    for plan in plans:
        channels = plan.spec.bands or (plan.stretch.channels if plan.stretch else ())
        kinds[len(channels), quantity_of(plan) or "channels"] = plan.info.id
    if len(kinds) > 1:
        raise RequestError(
            "training images",
            "must have the same channels in the same quantity",
            value="; ".join(f"{name}: {count} {quantity}" for (count, quantity), name in kinds.items()),
            remedy="Train on images of one kind, and state with --sensor and --bands what files do not",
        )


def _encode(
    plans: Sequence[ImagePlan],
    labels: Labels,
    encoder: Encoder,
    settings: Settings,
    config: ProbeConfig,
    on_event: EventHandler,
) -> TrainingSet:
    encoders = [encoder] if isinstance(encoder, ColourEncoder) else [encoder, ColourEncoder()]
    cache = FeatureCache(Path(config.features or Path(settings.out) / "features"))
    tiles: list[_Tile] = []
    left_out: Counter[str] = Counter()
    for number, plan in enumerate(plans):
        done = _add_image(tiles, left_out, plan, number, labels.outlines[plan.info.id], encoders, cache, config)
        on_event(Message(f"{plan.info.id}: {done} regions with outlines"))
    left_out.update(labels.left_out)
    left_out["outlines on no image"] = labels.outside
    left_out["outlines without a label"] = labels.unlabelled
    names = tuple(sorted({tile.label for tile in tiles}))
    _check_classes(names, {*labels.classes, *filter(None, [config.rest])}, left_out)
    unit = config.unit if config.unit in {"outline", "image"} else "block"
    tiles.sort(key=lambda tile: tile.position)  # independent of the regions
    units = number_units([tile.groups for tile in tiles])
    classes = np.array([names.index(tile.label) for tile in tiles], dtype=np.intp)
    features = [np.stack(one) for one in zip(*(tile.features for tile in tiles), strict=True)]
    return TrainingSet(
        names=names,
        features=features[0],
        colour=features[1] if len(features) > 1 else None,
        classes=classes,
        units=units,
        folds=assign_folds(units, classes, names, folds=config.folds, unit=unit),
        unit=unit,
        limits=settings.stretch_limits(),
        left_out={reason: count for reason, count in sorted(left_out.items()) if count},
        plans=tuple(plans),
        encoder=encoder,
        digests=labels.digests,
    )


def _check_classes(names: Sequence[str], expected: set[str], left_out: Mapping[str, int]) -> None:
    """Raise `RequestError` where a class has no tiles, or there are fewer than two classes."""
    lost = sorted(expected - set(names))
    if not lost and len(names) > 1:
        return
    reasons = [f"{count} tiles {reason}" for reason, count in sorted(left_out.items()) if count]
    found = f"none of {', '.join(lost)}" if lost else f"only {', '.join(names)}"
    raise RequestError(
        "labels",
        "must fill some tiles with each class" if lost else "must have two classes or more",
        value=f"{found}; {', '.join(reasons)}" if reasons else found,
        remedy="Outline larger places, or make tiles smaller with --tile or a finer --resolution"
        if lost
        else "Outline a second class, or name with --rest the class of everything else",
    )


def _add_image(
    tiles: list[_Tile],
    left_out: Counter[str],
    plan: ImagePlan,
    number: int,
    outlines: Sequence[Outline],
    encoders: Sequence[Encoder],
    cache: FeatureCache,
    config: ProbeConfig,
) -> int:
    """Add the labelled tiles of one image, the `number`th, with their features; returns how many regions have some.

    Raises `LimnerError` where a region with labelled tiles cannot be read or encoded.
    """
    block = _block_size(plan, config.unit)
    job = RegionJob({plan.info.id: plan})
    done = 0
    try:
        for region in plan.regions:
            boxes = tile_boxes(region, plan.spec)
            found = label_tiles(boxes, outlines, image=plan.info.box, inside=config.inside, rest=config.rest)
            left_out.update(one.outcome for one in found if one.outcome in {"at an edge", "two classes"})
            labelled = [index for index, one in enumerate(found) if one.outcome == "labelled"]
            if not labelled:
                continue
            encoded = _encode_region(plan, region, labelled, encoders, cache, job)
            done += 1
            for index in labelled:
                if encoded[0].valid[index] < VALID:
                    left_out["without data"] += 1
                    continue
                position = (number, boxes[index].y0, boxes[index].x0)
                groups = _groups(plan, boxes[index], found[index].outlines, block)
                features = [one.features[index] for one in encoded]
                tiles.append(_Tile(position, features, found[index].label, groups))
    finally:
        job.close()
    return done


def _encode_region(
    plan: ImagePlan,
    region: Region,
    indices: Sequence[int],
    encoders: Sequence[Encoder],
    cache: FeatureCache,
    job: RegionJob,
) -> list[TileFeatures]:
    """Each encoder's features of a region's tiles, from the cache or from its pixels."""
    cached = [cache.read(plan, region, encoder) for encoder in encoders]
    if all(set(indices) <= set(one.valid) for one in cached):
        return cached
    view = job.read_region(region)
    if not isinstance(view, View):
        if view.status == "failed":
            raise ModelError(
                f"region {region.key}",
                "must be readable, since outlines lie on it",
                value=view.error,
                remedy="Repair the file, or leave those outlines out",
            )
        return [TileFeatures({}, dict.fromkeys(indices, 0.0)) for _ in encoders]
    result: list[TileFeatures] = []
    for encoder, known in zip(encoders, cached, strict=True):
        fresh = encode_tiles(view, [index for index in indices if index not in known.valid], encoder)
        whole = TileFeatures({**known.features, **fresh.features}, {**known.valid, **fresh.valid})
        cache.write(plan, region, encoder, whole)
        result.append(whole)
    return result


def _groups(plan: ImagePlan, box: Box, outlines: Sequence[str], block: tuple[float, float] | str) -> list[Hashable]:
    """What a tile belongs to that must stay in one fold."""
    image = plan.info.id
    if isinstance(block, tuple):
        return [(image, *block_of(box, block))]
    if block == "outline" and outlines:
        return [(image, name) for name in outlines]
    return [(image,)]


def _block_size(plan: ImagePlan, text: str) -> tuple[float, float] | str:
    """The size of blocks in level-0 pixels (x, y), or "outline" or "image". Raises `RequestError` for anything else."""
    if text in {"outline", "image"}:
        return text
    if text == f"{BLOCK_TILES} tiles":
        across, down = plan.grid.scale
        return BLOCK_TILES * plan.spec.tile * across, BLOCK_TILES * plan.spec.tile * down
    try:
        pixels = float(text.removesuffix("px")) if text.endswith("px") else 0.0
        length = None if pixels > 0 else Resolution.parse(text)
    except (ValueError, RequestError):
        pixels, length = 0.0, None
    if pixels > 0:
        return pixels, pixels
    if length is None or length.metres is None:
        raise RequestError(
            "--block",
            "must be outline, image, or a length",
            value=text,
            remedy="Give --block 500m, 200um or 512px, say",
        )
    actual = ground_metres(plan.info)
    if actual is None:
        raise RequestError(
            plan.info.id,
            f"must have a known pixel size for blocks of {text}",
            remedy="State blocks in pixels, such as --block 512px",
        )
    return length.metres / actual[0], length.metres / actual[1]
