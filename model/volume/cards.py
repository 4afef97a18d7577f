"""Models of the cards of the annotator `volume`."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np

from ...readers.errors import ModelError, excerpt
from ...readers.image import ImageInfo
from ..annotator import Cost
from ..checkpoints.cards import CardFile, VolumeCard, find_volume_card
from ..checkpoints.memory import file_bytes
from ..checkpoints.weights import locate
from ..domain import Domain
from .deepbet import DeepBet
from .hd_bet import HdBet
from .volume import LabelMap, Volume, VolumeModel, volume_affine


class Method(Protocol):
    """From voxels to labels, with the weights of a card."""

    def load(self, files: Sequence[Path]) -> None:
        """Load the networks of verified files, in the card's order. Raises `ModelError`, `MemoryError`."""
        ...

    def segment(self, volume: Volume, subject: str) -> Iterator[LabelMap]:
        """See `VolumeModel.segment`; `subject` is the model in errors."""
        ...

    def cost(self, shape: tuple[int, int, int], spacing: tuple[float, float, float], weights: float) -> Cost:
        """What a volume (slices, rows, columns) takes, of a spacing in mm, with weights of so many bytes."""
        ...


def find_volume_model(
    name_or_path: str, *, fetch: bool = False, folds: Sequence[str] = (), flips: bool = False
) -> VolumeModel:
    """The model of a card of the annotator `volume`, by the card's name or path.

    `folds` names those of a method's networks, trained alike, whose answers are averaged; with `flips` each also sees
    the volume in all mirror images. Internet is only used with `fetch`, by `check`. Raises `ModelError`: no such card,
    an invalid one, or options that its method does not have.
    """
    card = find_volume_card(name_or_path)
    subject, files = f"model {card.name}", {file.name: file for file in card.files}
    if card.method == "deepbet":
        if folds or flips:
            rule, remedy = "must be used without folds and flips, which it does not have", "Leave these options out"
            raise ModelError(subject, rule, value="folds" if folds else "flips", remedy=remedy)
        return CardModel(card, DeepBet(), card.files, fetch=fetch)
    unknown = [fold for fold in folds if fold not in files]
    if unknown:
        remedy = f"Its folds: {', '.join(files)}"
        raise ModelError(f"fold {excerpt(unknown[0])!r}", f"must be a fold of {subject}", remedy=remedy)
    chosen = tuple(file for file in card.files if file.name in folds) or card.files[:1]
    options = {"flips": "true"} if flips else {}
    return CardModel(card, HdBet(flips=flips), chosen, fetch=fetch, options=options)


class CardModel:
    """The `VolumeModel` of a card, with the networks of some of its files, and options that decide its answers."""

    def __init__(
        self,
        card: VolumeCard,
        method: Method,
        files: Sequence[CardFile],
        *,
        fetch: bool,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.card = card
        self._method, self._files, self._fetch = method, tuple(files), fetch
        self._options = dict(options or {})
        self._loaded = False

    @property
    def identity(self) -> Mapping[str, str]:
        """See `VolumeModel`."""
        return {
            "name": self.card.name,
            "version": f"card {self.card.digest[:12]}",
            "card_sha256": self.card.digest,
            "licence": self.card.licence,
            "runtime": f"torch {version('torch')}",
            **self._options,
            **{f"weights_sha256_{file.name}": file.sha256 for file in self._files},
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """The card's classes, without background."""
        return self.card.labels

    @property
    def colours(self) -> Mapping[str, str]:
        """The card's colours."""
        return {one.name: one.colour for one in self.card.classes if not one.background}

    @property
    def concepts(self) -> Mapping[str, tuple[str, str, str]]:
        """The card's codes."""
        return self.card.concepts

    @property
    def domain(self) -> Sequence[Domain]:
        """The card's."""
        return self.card.domain

    @property
    def gives_probabilities(self) -> bool:
        """See `VolumeModel`: always."""
        return True

    def suits(self, info: ImageInfo) -> None:
        """Raise `ModelError` for another modality, and for a stack too small or too large to show a head."""
        subject, modality = info.id or info.uri, dict(info.facts).get("modality", "")
        accepted = sorted({one for part in self.card.domain for one in part.modalities})
        if accepted and modality and modality not in accepted:
            rule = f"must be of the modality {' or '.join(accepted)} for {self.card.name}"
            raise ModelError(subject, rule, value=modality, remedy="Choose another series, or another model")
        counts = len(info.planes), info.size[1], info.size[0]
        extents = np.linalg.norm(volume_affine(info)[:, :3], axis=0) * counts
        least, most = self.card.extent_mm
        if extents.min() < least or extents.max() > most:
            found = " × ".join(f"{extent:.0f}" for extent in extents.tolist())
            rule = f"must extend over {least:g} to {most:g} mm along each axis for {self.card.name}"
            remedy = "Choose the series that shows the whole head"
            raise ModelError(subject, rule, value=f"{found} mm", remedy=remedy)

    def check(self) -> None:
        """See `VolumeModel`; fetches where that is allowed."""
        parts = [(file.weights, file.sha256) for file in self._files]
        for source, sha256 in parts:
            locate(source, sha256, fetch=self._fetch, name=self.card.name, beside=parts)

    def load(self) -> None:
        """See `VolumeModel`."""
        if not self._loaded:
            self._method.load(self._paths())
            self._loaded = True

    def segment(self, volume: Volume) -> Iterator[LabelMap]:
        """See `VolumeModel`."""
        self.load()
        yield from self._method.segment(volume, f"model {self.card.name}")

    def cost(self, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Cost:
        """See `VolumeModel`."""
        return self._method.cost(shape, spacing, float(file_bytes(self._paths())))

    def _paths(self) -> list[Path]:
        return [locate(file.weights, file.sha256, fetch=False, name=self.card.name) for file in self._files]
