"""Probabilities of labels pixel by pixel, which segmentation models leave behind where a run keeps them.

They are the network's own, after the averaging of tiles, folds and mirror images and before the choice of a label. Kept
in whole steps, so that reports of all formats hold the same numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from .volume.orientation import Turn

STEPS: Final = 250
"""The value that stands for a probability of 1; 0 stands for 0."""

NODATA: Final = 255
"""The value of pixels that were not analysed, or have no data."""

Steps = npt.NDArray[np.uint8]
"""Probabilities in steps of 1 / `STEPS`, or `NODATA`."""


@dataclass(frozen=True, slots=True)
class LabelProbabilities:
    """Where a model puts the probabilities of the labels that a run keeps."""

    places: Mapping[str | int, int]
    """The name of each label, or its number in label maps from 1 → its place in `values`."""
    values: Steps
    """(labels, H, W) of a view's canvas, or (labels, slices, rows, columns) of a volume."""

    def put(self, label: str | int, where: Any, probabilities: npt.NDArray[np.floating[Any]]) -> None:
        """Keep those of one label, 0 to 1, at an index of the axes behind the first; no matter for other labels."""
        place = self.places.get(label)
        if place is not None:
            self.values[place][where] = np.rint(probabilities * np.float32(STEPS))

    def turned(self, turn: Turn) -> Self:
        """The same values on the axes of a turned volume."""
        return replace(self, values=turn.apply(self.values))

    def within(self, box: tuple[slice, slice, slice]) -> Self:
        """The same values in a box of a volume."""
        return replace(self, values=self.values[(slice(None), *box)])


@runtime_checkable
class SupportsProbabilities(Protocol):
    """An annotator that can give a probability of each of its labels for each pixel.

    It fills `View.probabilities` where that is not None, or `Volume.probabilities`.
    """

    @property
    def gives_probabilities(self) -> bool:
        """Whether its network does. Raises `ModelError`."""
        ...
