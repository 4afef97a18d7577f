"""Places of reconstructed slices of nuclear medicine, which stand in the detector's sequence.

Runs in the sandboxed process. Sources: PS3.3 C.8.4.11 (NM detector: position and orientation of the first slice),
C.8.4.15 (NM reconstruction: the spacing between slices, positive along row × column), C.8.4.8 (frame vectors).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from pydicom.dataset import Dataset

from .attributes import items, number, numbers, texts, vector
from .geometry import normal
from .metadata import Vector

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.20"
_RECONSTRUCTED: Final = ("RECON TOMO", "RECON GATED TOMO")
_VECTORS: Final = {
    "energy window": "EnergyWindowVector",
    "R-R interval": "RRIntervalVector",
    "time slot": "TimeSlotVector",
}


@dataclass(frozen=True, slots=True)
class PlacedFrame:
    """A reconstructed slice."""

    position: Vector
    orientation: tuple[Vector, Vector]
    splits: Mapping[str, float] = field(default_factory=dict[str, float])
    """Attributes of `SPLIT_ATTRIBUTES` that its frame vectors state."""


def reconstruction(dataset: Dataset, count: int) -> list[PlacedFrame]:
    """The place of each of `count` slices; [] for other objects, and where the file does not state what it takes.

    Projections and whole-body pictures of a gamma camera have no place in the patient.
    """
    kind = texts(dataset, "ImageType")[2:3]
    if str(dataset.get("SOPClassUID", "")) != _STORAGE or not kind or kind[0] not in _RECONSTRUCTED:
        return []
    detectors = items(dataset, "DetectorInformationSequence")
    places = {
        (*position, *orientation)
        for item in detectors
        if (position := vector(item, "ImagePositionPatient", 3))
        and (orientation := vector(item, "ImageOrientationPatient", 6))
    }
    step, order = number(dataset, "SpacingBetweenSlices"), numbers(dataset, "SliceVector")
    order = order if len(order) == count else [1.0] if count == 1 else []
    if len(places) != 1 or not order or (max(order) > 1 and not step):
        return []
    x, y, z, *cosines = next(iter(places))
    orientation = (cosines[0], cosines[1], cosines[2]), (cosines[3], cosines[4], cosines[5])
    along = normal(orientation)
    if along is None:
        return []
    vectors = {name: numbers(dataset, attribute) for name, attribute in _VECTORS.items()}
    corners = ((x, y, z) + along * (step or 0.0) * (np.asarray(order)[:, None] - 1)).tolist()
    return [
        PlacedFrame((a, b, c), orientation, {name: own[at] for name, own in vectors.items() if len(own) == count})
        for at, (a, b, c) in enumerate(corners)
    ]
