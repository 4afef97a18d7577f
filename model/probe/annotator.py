"""The `probe` annotator: which of the classes that a person taught by example each tile belongs to."""

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
from ..clip.fusion import Fusion, FusionText
from ..options import Names, NetworkOptions
from ..views import KeptTile, kept_tiles
from .card import CARD, HEAD, ProbeCard, Seen, read_card
from .encoders import Encoder, encode, find_encoder, same_encoder
from .head import Head

DIGITS = 4  # of probabilities: what differs between machines and numbers of threads lies below
MILLIMETRE = 1e-3

Features = npt.NDArray[np.float64]


class ProbeOptions(NetworkOptions):
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


class Probe:
    """An annotator that `limner train probe` made: a frozen encoder, and a head of the user's own classes."""

    Options = ProbeOptions

    def __init__(self, options: ProbeOptions) -> None:
        self._options = options
        self._folder = Path(options.checkpoint)
        self._fusion = Fusion.parse(options.fusion)
        self._read: ProbeCard | None = None
        self._found: tuple[Encoder, Head] | None = None

    @property
    def card(self) -> ProbeCard:
        """Its card. Raises `ModelError`."""
        if self._read is None:
            self._read = read_card(self._folder)
        return self._read

    @property
    def identity(self) -> Mapping[str, str]:
        """The card, the head and the encoder, each by its sha256. Raises `ModelError` where one is not here."""
        card = self.card
        digest = sha256_of(self._folder / CARD)
        encoder, _ = self._ready()
        return {
            "name": "probe",
            "version": f"card {digest[:12]}",
            "annotator": "probe",
            "checkpoint": str(self._folder),
            "licence": card.licence,
            "score": "softmax over the classes, calibrated; each class as frequent as any other",
            "margin": f"{self._options.margin:g}",
            "fusion": "off" if self._fusion is None else self._fusion.words(),
            "classes": ", ".join(card.labels),
            "not_for": " ".join(card.not_for),
            "weights_sha256_probe": card.head.sha256,
            "sha256_card": digest,
            "sha256_head": card.head.sha256,
            **{f"encoder_{key}": value for key, value in encoder.identity.items()},
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that are reported, and "undecided". Raises `RequestError` for one that it was not taught."""
        known = (*self.card.labels, UNDECIDED)
        unknown = sorted(set(self._options.labels) - set(known))
        if unknown:
            raise RequestError(
                "labels",
                "the probe must have been taught them",
                value=", ".join(unknown),
                remedy=f"Its labels: {', '.join(known)}",
            )
        return tuple(label for label in known if not self._options.labels or label in self._options.labels)

    @property
    def colours(self) -> Mapping[str, str]:
        """Grey for what is undecided; the others get one from a palette."""
        return {UNDECIDED: UNDECIDED_COLOUR}

    def input_spec(self, info: ImageInfo) -> InputSpec:
        """As the training tiles were seen. Raises `ModelError` where this image has other bands or quantities."""
        seen = self.card.seen
        _refuse_other_bands(info, seen)
        small = seen.metres is not None and seen.metres < MILLIMETRE
        return InputSpec(
            tile=seen.tile,
            bands=seen.bands,
            quantity=seen.quantity if seen.bands is not None else "",
            resolution=None if seen.metres is None else round(seen.metres * (1e6 if small else 1.0), 9),
            unit="um" if small else "m",
            tolerates=seen.tolerates,
            limits=None if seen.bands is not None else seen.limits or "own",
            overall=self._fusion is not None,
            variant="probe",
        )

    def check(self, specs: Sequence[InputSpec]) -> None:
        """Find head and encoder, and check that they are the card's. Raises `ModelError`, `RequestError`."""
        del specs
        self._ready()
        self.labels  # noqa: B018 - refuses labels that it was not taught

    def load(self) -> None:
        """See `Annotator`."""
        self._ready()[0].prepare()

    def cost(self, specs: Sequence[InputSpec], tiles: tuple[int, int]) -> Cost:
        """See `Costing`."""
        looks = tiles[0] * tiles[1] + any(spec.overall for spec in specs)
        return Cost(self._ready()[0].held(), "float32", work=looks)

    def annotate(self, views: Sequence[View]) -> Sequence[Sequence[Answer]]:
        """One answer for each tile with a wanted pixel. Raises `ModelError`."""
        return [self._answers(view) for view in views]

    def _answers(self, view: View) -> list[Answer]:
        encoder, head = self._ready()
        kept = kept_tiles(view)
        if not kept:
            return []
        where = f"region {view.region.key}"
        features = np.array([encode(encoder, view.tiles[one.index], view.valid[one.index], where) for one in kept])
        standard = head.standard(features)
        if self._fusion is not None:
            standard = self._fusion(standard, self._overall(view, encoder, head))
        reported = set(self.labels)
        answers = [self._answer(chances, one) for chances, one in zip(head.chances(standard), kept, strict=True)]
        return [answer for answer in answers if answer.label in reported]

    def _overall(self, view: View, encoder: Encoder, head: Head) -> Features | None:
        """The global view's features (dimensions,), standardised; None where it holds nothing that can be seen."""
        if view.global_view is None:
            msg = f"region {view.region.key}: its global view is needed, and its spec did not ask for it"
            raise ValueError(msg)
        valid = np.asarray(np.isfinite(view.global_view).all(axis=2))
        if not valid.any():
            return None
        seen = view.global_view if encoder.bands is not None else view.global_view.clip(0, 255)
        features = encode(encoder, seen, valid, f"the global view of {view.region.key}")
        return head.standard(features[None])[0]

    def _answer(self, chances: Features, tile: KeptTile) -> Answer:
        rounded = [round(float(chance), DIGITS) for chance in chances]
        order = sorted(range(len(rounded)), key=lambda place: -rounded[place])  # the first of equals
        decided = rounded[order[0]] - rounded[order[1]] >= self._options.margin
        return Answer(
            label=self.card.labels[order[0]] if decided else UNDECIDED,
            geometry=tile.core,
            kind="tile",
            score=rounded[order[0]],
            numbers={
                **{f"p.{label}": chance for label, chance in zip(self.card.labels, rounded, strict=True)},
                "valid": round(tile.valid_share, 6),
            },
        )

    def _ready(self) -> tuple[Encoder, Head]:
        """Encoder and head, once it is sure that they are those of the card."""
        if self._found is None:
            card = self.card
            source = self._options.encoder or card.encoder.source
            encoder = find_encoder(source, fetch=self._options.fetch, threads=self._options.threads)
            differs = same_encoder(card.encoder.identity, encoder.identity)
            if differs is not None:
                what, before, now = differs
                raise ModelError(
                    f"encoder {source}",
                    f"its {what} must be {before}, as when the probe {self._folder} was trained",
                    value=now,
                    remedy="Name that encoder with --set model_options.encoder=…, or train the probe again",
                )
            head = Head.load(self._folder / HEAD, card.head.sha256)
            if (head.dimensions, head.classes) != (card.head.dimensions, len(card.labels)):
                raise ModelError(
                    f"head of {self._folder}",
                    f"it must take {card.head.dimensions} features and know {len(card.labels)} classes, as on its card",
                    value=f"{head.dimensions} and {head.classes}",
                    remedy="Train the probe again, or get its whole folder from where it was trained",
                )
            self._found = encoder, head
        return self._found


def _refuse_other_bands(info: ImageInfo, seen: Seen) -> None:
    """Raise `ModelError` where an image cannot be seen as the training images were."""
    if seen.bands is None:
        try:
            shown = len(rgb_channels(info.channels))
        except ReadError:
            return  # the planner says what is missing
        if shown != seen.channels:
            words = {1: "one channel, as grey", 3: "red, green and blue"}
            raise ModelError(
                info.uri,
                f"the probe was taught on {words.get(seen.channels, 'other channels')}",
                value=words.get(shown, str(shown)),
                remedy="Train a probe on images of this kind, or name the file's channels with --bands",
            )
        return
    known = {channel.common: channel.quantity for channel in info.channels if channel.common}
    absent = [band for band in seen.bands if band not in known]
    other = sorted({known[band] for band in seen.bands if band in known} - {seen.quantity})
    if absent or (other and seen.quantity):
        raise ModelError(
            info.uri,
            f"the probe was taught on {', '.join(seen.bands)} in {seen.quantity or 'any quantity'}",
            value=f"no {', '.join(absent)}" if absent else f"values are {', '.join(other)}",
            remedy="Say what the file holds with --sensor or --bands, or train a probe on images of this kind",
        )
