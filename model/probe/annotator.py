"""The `probe` annotator: which of the classes that a person taught by example each tile belongs to."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...readers.errors import ModelError, ReadError, RequestError
from ...readers.image import ImageInfo
from ...readers.render import rgb_channels
from ..annotator import UNDECIDED, UNDECIDED_COLOUR, Answer, Cost, Sight, View
from ..fusion import Fusion
from ..views import Kept, kept_tiles
from ..weights import sha256_of
from .card import CARD, HEAD, ProbeCard, Seen, read_card
from .encoders import Encoder, encode, find_encoder, same_encoder
from .head import Head

OPTIONS = ("checkpoint", "encoder", "margin", "fusion", "labels", "fetch", "threads")
MARGIN = 0.1
DIGITS = 4  # of probabilities: what differs between machines and numbers of threads lies below
MILLIMETRE = 1e-3

Features = npt.NDArray[np.float64]


class Probe:
    """An annotator that `limner train probe` made: a frozen encoder, and a head of the person's own classes.

    Options: `checkpoint`, the probe's folder; `encoder`, where the encoder is now, where it is not where it was;
    `margin`, by how much the likeliest class must lead the next for a tile to be decided; `fusion` "off", or
    "attention" to let a region's tiles see each other (see `Fusion`); `labels`, the classes to report, with commas;
    `fetch` "true" lets a hub be asked; `threads` for the encoder, 0 for its own choice. Raises `RequestError` for
    options that cannot be.
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        unknown = sorted(set(options) - set(OPTIONS))
        if unknown:
            raise _wrong(unknown[0], "it must be known", "", f"Known: {', '.join(OPTIONS)}")
        if not options.get("checkpoint"):
            raise _wrong("checkpoint", "it must be named", "", "Write --model probe:FOLDER, which train probe made")
        self._folder = Path(options["checkpoint"])
        self._margin = _number("margin", options.get("margin", str(MARGIN)))
        self._fusion = Fusion.parse(options.get("fusion", "off"), of="probe")
        self._threads, self._fetch = options.get("threads", "0"), options.get("fetch", "false")
        if not self._threads.isdecimal():
            raise _wrong("threads", "it is a whole number", self._threads, "Correct it")
        if self._fetch not in {"true", "false"}:
            raise _wrong("fetch", "it is true or false", self._fetch, "Correct it")
        self._encoder_source = options.get("encoder", "")
        self._asked = tuple(label.strip() for label in options.get("labels", "").split(",") if label.strip())
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
            "margin": f"{self._margin:g}",
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
        unknown = sorted(set(self._asked) - set(known))
        if unknown:
            raise RequestError(
                "labels",
                "the probe must have been taught them",
                value=", ".join(unknown),
                remedy=f"Its labels: {', '.join(known)}",
            )
        return tuple(label for label in known if not self._asked or label in self._asked)

    @property
    def colours(self) -> Mapping[str, str]:
        """Grey for what is undecided; the others get one from a palette."""
        return {UNDECIDED: UNDECIDED_COLOUR}

    def sight(self, info: ImageInfo) -> Sight:
        """As the training tiles were seen. Raises `ModelError` where this image has other bands or quantities."""
        seen = self.card.seen
        _refuse_other_bands(info, seen)
        small = seen.metres is not None and seen.metres < MILLIMETRE
        return Sight(
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

    def check(self, sights: Sequence[Sight]) -> None:
        """Find head and encoder, and check that they are the card's. Raises `ModelError`, `RequestError`."""
        del sights
        self._ready()
        self.labels  # noqa: B018 - refuses labels that it was not taught

    def load(self) -> None:
        """See `Annotator`."""
        self._ready()[0].prepare()

    def cost(self, sights: Sequence[Sight], tiles: tuple[int, int]) -> Cost:
        """See `Costing`."""
        looks = tiles[0] * tiles[1] + any(sight.overall for sight in sights)
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
        features = np.array([encode(encoder, view.tiles[one.place], view.valid[one.place], where) for one in kept])
        standard = head.standard(features)
        if self._fusion is not None:
            standard = self._fusion(standard, self._overall(view, encoder, head))
        reported = set(self.labels)
        answers = [self._answer(chances, one) for chances, one in zip(head.chances(standard), kept, strict=True)]
        return [answer for answer in answers if answer.label in reported]

    def _overall(self, view: View, encoder: Encoder, head: Head) -> Features | None:
        """The global view's features (dimensions,), standardised; None where it holds nothing that can be seen."""
        if view.overall is None:
            msg = f"region {view.region.key}: its global view is needed, and its sight did not ask for it"
            raise ValueError(msg)
        valid = np.asarray(np.isfinite(view.overall).all(axis=2))
        if not valid.any():
            return None
        seen = view.overall if encoder.bands is not None else view.overall.clip(0, 255)
        features = encode(encoder, seen, valid, f"the global view of {view.region.key}")
        return head.standard(features[None])[0]

    def _answer(self, chances: Features, tile: Kept) -> Answer:
        rounded = [round(float(chance), DIGITS) for chance in chances]
        order = sorted(range(len(rounded)), key=lambda place: -rounded[place])  # the first of equals
        decided = rounded[order[0]] - rounded[order[1]] >= self._margin
        return Answer(
            label=self.card.labels[order[0]] if decided else UNDECIDED,
            geometry=tile.share,
            kind="tile",
            score=rounded[order[0]],
            numbers={
                **{f"p.{label}": chance for label, chance in zip(self.card.labels, rounded, strict=True)},
                "valid": round(tile.valid, 6),
            },
        )

    def _ready(self) -> tuple[Encoder, Head]:
        """Encoder and head, once it is sure that they are those of the card."""
        if self._found is None:
            card = self.card
            source = self._encoder_source or card.encoder.source
            encoder = find_encoder(source, fetch=self._fetch == "true", threads=int(self._threads))
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


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0.0 <= number <= 1.0:
        raise _wrong(name, "it is a number from 0 to 1", text, "Correct it")
    return number


def _wrong(name: str, rule: str, value: str, remedy: str) -> RequestError:
    return RequestError(f"option {name!r} of probe", rule, value=value, remedy=remedy)
