"""The `probe` annotator: classify tiles with a head that `limner train probe` fitted on a frozen encoder's features."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ...readers.errors import ModelError, ReadError, RequestError
from ...readers.image import ImageInfo
from ...readers.render import rgb_channels
from ..annotator import UNDECIDED, UNDECIDED_COLOUR, Answer, Cost, InputSpec, View
from ..checkpoints.weights import sha256_of
from ..clip.annotator import global_view_of
from ..clip.fusion import Fusion, FusionText
from ..domain import Domain
from ..options import CheckpointAnnotator, CheckpointOptions, Names
from ..views import KeptTile, kept_tiles
from .card import CARD, HEAD, ProbeCard, ProbeInput, read_card
from .encoders import Encoder, encode, encoder_difference, find_encoder
from .head import Head

DIGITS = 4
"""Of probabilities: further digits depend on the machine and the number of threads."""
MILLIMETRE = 1e-3

Features = npt.NDArray[np.float64]


class ProbeOptions(CheckpointOptions):
    """Options of `Probe`."""

    checkpoint: str = Field(
        min_length=1, description="The folder that `limner train probe` made.", examples=["--model probe:FOLDER"]
    )
    encoder: str = Field(
        default="", description="Where the encoder is now, if not where it was when the probe was trained."
    )
    margin: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Probability by which the likeliest class must lead the next to be reported.",
    )
    fusion: FusionText = "off"
    labels: Names = Field(default=(), description="The classes to report; all by default.")


class Probe(CheckpointAnnotator[ProbeOptions]):
    """A frozen encoder with a trained head."""

    Options = ProbeOptions

    def __init__(self, options: ProbeOptions) -> None:
        super().__init__(options)
        self._folder = Path(options.checkpoint)
        self._fusion = Fusion.parse(options.fusion)
        self._card: ProbeCard | None = None
        self._found: tuple[Encoder, Head] | None = None

    @property
    def card(self) -> ProbeCard:
        """Its card. Raises `ModelError`."""
        if self._card is None:
            self._card = read_card(self._folder)
        return self._card

    @property
    def identity(self) -> Mapping[str, str]:
        """Card, head and encoder, each with its sha256. Raises `ModelError` where one is missing."""
        card = self.card
        digest = sha256_of(self._folder / CARD)
        encoder, _ = self._parts()
        return {
            "name": "probe",
            "version": f"card {digest[:12]}",
            "annotator": "probe",
            "checkpoint": str(self._folder),
            "licence": card.licence,
            "score": "softmax over the classes, calibrated; each class as frequent as any other",
            "margin": f"{self._options.margin:g}",
            "fusion": str(self._fusion or "off"),
            "classes": ", ".join(card.labels),
            "not_for": " ".join(card.not_for),
            "weights_sha256_probe": card.head.sha256,
            "sha256_card": digest,
            "sha256_head": card.head.sha256,
            **{f"encoder_{key}": value for key, value in encoder.identity.items()},
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes to report, and "undecided". Raises `RequestError` for an unknown one."""
        known = (*self.card.labels, UNDECIDED)
        unknown = sorted(set(self._options.labels) - set(known))
        if unknown:
            raise RequestError(
                "option 'labels' of probe",
                "must name classes of the probe",
                value=", ".join(unknown),
                remedy=f"Choose among {', '.join(known)}",
            )
        return tuple(label for label in known if not self._options.labels or label in self._options.labels)

    @property
    def domain(self) -> Sequence[Domain]:
        """The images that it was trained on. Raises `ModelError`."""
        return self.card.domain

    @property
    def colours(self) -> Mapping[str, str]:
        """Grey for undecided tiles."""
        return {UNDECIDED: UNDECIDED_COLOUR}

    def input_spec(self, info: ImageInfo) -> InputSpec:
        """The spec of the training images. Raises `ModelError` for an image with other bands or quantities."""
        trained = self.card.seen
        _check_bands(info, trained)
        small = trained.metres is not None and trained.metres < MILLIMETRE
        return InputSpec(
            tile=trained.tile,
            bands=trained.bands,
            quantity=trained.quantity if trained.bands is not None else "",
            resolution=None if trained.metres is None else round(trained.metres * (1e6 if small else 1.0), 9),
            unit="um" if small else "m",
            tolerates=trained.tolerates,
            limits=None if trained.bands is not None else trained.limits or "own",
            overall=self._fusion is not None,
            variant="probe",
        )

    def check(self, specs: Sequence[InputSpec]) -> None:
        """Find head and encoder, and compare them with the card. Raises `ModelError`, `RequestError`."""
        self._parts()
        super().check(specs)

    def load(self) -> None:
        """See `Annotator`."""
        self._parts()[0].prepare()

    def cost(self, specs: Sequence[InputSpec], tiles: tuple[int, int]) -> Cost:
        """See `SupportsCost`."""
        images = tiles[0] * tiles[1] + any(spec.overall for spec in specs)
        return Cost(self._parts()[0].weight_bytes(), "float32", work=images)

    def answer(self, view: View) -> list[Answer]:
        """One answer for each tile that is kept. Raises `ModelError`."""
        encoder, head = self._parts()
        kept = kept_tiles(view)
        if not kept:
            return []
        where = f"region {view.region.key}"
        features = np.array([encode(encoder, view.tiles[one.index], view.valid[one.index], where) for one in kept])
        standard = head.standardise(features)
        if self._fusion is not None:
            standard = self._fusion(standard, _overall_features(view, encoder, head))
        return [self._answer(each, tile) for each, tile in zip(head.probabilities(standard), kept, strict=True)]

    def _answer(self, probabilities: Features, tile: KeptTile) -> Answer:
        rounded = [round(float(one), DIGITS) for one in probabilities]
        order = sorted(range(len(rounded)), key=lambda index: -rounded[index])  # the first of equals
        decided = rounded[order[0]] - rounded[order[1]] >= self._options.margin
        return Answer(
            label=self.card.labels[order[0]] if decided else UNDECIDED,
            geometry=tile.core,
            kind="tile",
            score=rounded[order[0]],
            numbers={
                **{f"p.{label}": one for label, one in zip(self.card.labels, rounded, strict=True)},
                "valid": round(tile.valid_share, 6),
            },
        )

    def _parts(self) -> tuple[Encoder, Head]:
        """Encoder and head, after a comparison with the card."""
        if self._found is None:
            card = self.card
            source = self._options.encoder or card.encoder.source
            encoder = find_encoder(source, fetch=self._options.fetch, threads=self._options.threads)
            difference = encoder_difference(card.encoder.identity, encoder.identity)
            if difference is not None:
                key, before, now = difference
                raise ModelError(
                    f"encoder {source}",
                    f"must be the one that the probe {self._folder} was trained with",
                    value=f"its {key} is {now} instead of {before}",
                    remedy="Name that encoder with --set model_options.encoder=…, or train the probe again",
                )
            head = Head.load(self._folder / HEAD, card.head.sha256)
            if (head.dimensions, head.classes) != (card.head.dimensions, len(card.labels)):
                raise ModelError(
                    f"head of {self._folder}",
                    f"must have {card.head.dimensions} features and {len(card.labels)} classes, as its card states",
                    value=f"{head.dimensions} and {head.classes}",
                    remedy="Train the probe again, or copy its whole folder again",
                )
            self._found = encoder, head
        return self._found


def _overall_features(view: View, encoder: Encoder, head: Head) -> Features | None:
    """The standardised features (dimensions,) of the global view; None where all of it is nodata."""
    overall = global_view_of(view)
    valid = np.asarray(np.isfinite(overall).all(axis=2))
    if not valid.any():
        return None
    pixels = overall if encoder.bands is not None else overall.clip(0, 255)
    features = encode(encoder, pixels, valid, f"the global view of {view.region.key}")
    return head.standardise(features[None])[0]


def _check_bands(info: ImageInfo, trained: ProbeInput) -> None:
    """Raise `ModelError` for an image with other channels than the training images."""
    if trained.bands is None:
        try:
            count = len(rgb_channels(info.channels))
        except ReadError:
            return  # planning raises it again
        kinds = {1: "one grey channel", 3: "red, green and blue"}
        needed, found = kinds.get(trained.channels, "other channels"), kinds.get(count, str(count))
        if count == trained.channels:
            return
    else:
        known = {channel.common: channel.quantity for channel in info.channels if channel.common}
        missing = [band for band in trained.bands if band not in known]
        other = sorted({known[band] for band in trained.bands if band in known} - {trained.quantity})
        needed = f"{', '.join(trained.bands)} in {trained.quantity or 'any quantity'}"
        found = f"no {', '.join(missing)}" if missing else f"values are {', '.join(other)}"
        if not missing and not (other and trained.quantity):
            return
    raise ModelError(
        info.uri,
        f"must have the channels that the probe was trained on: {needed}",
        value=found,
        remedy="State what the file holds with --sensor or --bands, or train a probe on images of this kind",
    )
