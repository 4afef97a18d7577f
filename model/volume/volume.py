"""A stack of slices as a volume in the patient, and the contract of the models that label its voxels.

    voxel (slice, row, column), from 0, at the voxel's centre ── affine ──▶ mm in the patient (LPS)

A stack is a volume where its slices lie in the patient at equal steps along their common normal. Others are refused
with the reason: a network that takes every step as equal would measure them wrongly.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ...readers.errors import ModelError
from ...readers.image import ImageInfo
from ..annotator import Cost, VoxelGrid
from ..domain import Domain
from ..probabilities import LabelProbabilities

Voxels = npt.NDArray[np.float32]
"""Values of a slice or a volume: HU of CT, the files' own numbers of other modalities; NaN where not valid."""

LabelMap = npt.NDArray[np.uint8]
"""(rows, columns) of one slice: 0 for background, else the number of a label from 1."""

ReadSlice = Callable[[int], Voxels]
"""The values (rows, columns) of a slice by its number from 0; NaN where they are not valid. Raises `ReadError`."""

MIN_SLICES: Final = 3
_STEP: Final = 0.02  # of a step: how far a slice may lie from its place among equal steps
_SHEAR: Final = 1.0  # degrees between the direction of the stack and the slices' normal
_TURN: Final = 0.1  # degrees between the orientations of two slices


@dataclass(frozen=True, slots=True)
class Volume:
    """The voxels of a stack, which are read slice by slice, and their place in the patient."""

    shape: tuple[int, int, int]
    """(slices, rows, columns)."""
    affine: npt.NDArray[np.float64]
    """(3, 4): mm (LPS) = affine @ (slice, row, column, 1)."""
    read: ReadSlice
    facts: Mapping[str, str] = field(default_factory=dict[str, str])
    """What the reader states of the stack: see `ImageInfo.facts`."""
    probabilities: LabelProbabilities | None = None
    """Where a model puts the probabilities of its voxels; None where the run keeps none."""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distances in mm between the centres of neighbouring (slices, rows, columns)."""
        slices, rows, columns = np.linalg.norm(self.affine[:, :3], axis=0).tolist()
        return slices, rows, columns

    @property
    def grid(self) -> VoxelGrid:
        """Its voxels without a place."""
        return VoxelGrid(self.shape, self.spacing)

    @classmethod
    def of(cls, info: ImageInfo, read: ReadSlice) -> "Volume":
        """The volume of a stack. Raises `ModelError` where its slices are not one."""
        return cls((len(info.planes), info.size[1], info.size[0]), volume_affine(info), read, dict(info.facts))

    def slices(self) -> Iterator[Voxels]:
        """All slices in order."""
        return map(self.read, range(self.shape[0]))


class VolumeModel(Protocol):
    """A network, or several, that labels the voxels of volumes; made by a family of `limner.model.volume`.

    Cheap to make: `check` finds and verifies files, and `load` reads them.
    """

    @property
    def identity(self) -> Mapping[str, str]:
        """`name`, `version`, and whatever else decides its answers, with the weights' sha256 and licence."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of labels 1, 2, … of its label maps."""
        ...

    @property
    def colours(self) -> Mapping[str, str]:
        """Label → `#rrggbb`; a label without one gets one from a palette."""
        ...

    @property
    def domain(self) -> Sequence[Domain]:
        """The studies that it was made for, of which one is enough; empty where that is not known."""
        ...

    @property
    def gives_probabilities(self) -> bool:
        """Whether `segment` fills `Volume.probabilities`."""
        ...

    def suits(self, info: ImageInfo) -> None:
        """Raise `ModelError` where the model cannot work on a stack, beyond what `volume_affine` refuses."""
        ...

    def check(self) -> None:
        """Verify that all files are here and unchanged, without loading networks. Raises `ModelError`."""
        ...

    def load(self) -> None:
        """Load the networks, once. Raises `ModelError`, or `MemoryError`."""
        ...

    def segment(self, volume: Volume) -> Iterator[LabelMap]:
        """The label map of each slice in order, on the slices' own pixels. Raises `LimnerError`.

        Slices are read once in order where possible; no more of a volume is held than the method needs. Those of
        `volume.probabilities` are filled before a slice is given.
        """
        ...

    def cost(self, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Cost | None:
        """What a volume takes, estimated before anything is loaded; None where it is not known."""
        ...


@runtime_checkable
class SupportsVolumes(Protocol):
    """An annotator that gets a stack as a whole: where its spec has `volume`, `segment` is called, not `annotate`."""

    def segment(self, volume: Volume) -> Iterator[LabelMap]:
        """See `VolumeModel.segment`; labels are numbered as in `Annotator.labels`, from 1."""
        ...


def volume_grid(info: ImageInfo) -> VoxelGrid:
    """The voxels of a stack. Raises as `volume_affine`."""
    return Volume.of(info, _unread).grid


def voxel_ml(info: ImageInfo) -> float:
    """The volume of a voxel of a stack in ml. Raises as `volume_affine`."""
    return abs(float(np.linalg.det(volume_affine(info)[:, :3]))) * 1e-3


def _unread(plane: int) -> Voxels:
    raise NotImplementedError(plane)


def volume_affine(info: ImageInfo) -> npt.NDArray[np.float64]:
    """The `Volume.affine` of a stack.

    Raises `ModelError` unless it is grey, has at least `MIN_SLICES` slices, and each lies in the patient where equal
    steps along the normal put it.
    """
    subject, count = info.id or info.uri, len(info.planes)
    facts = dict(info.facts)
    if info.kind != "study" or len(info.channels) != 1:
        found = "colour pictures" if info.kind == "study" else f"a {info.kind}"
        raise _refused(subject, "must be a stack of grey slices of a study for a volume model", found)
    if count < MIN_SLICES:
        found = f"{count} slice{'s' if count > 1 else ''}" + ("" if facts.get("is_localiser") != "yes" else ", a scout")
        raise _refused(subject, f"must have at least {MIN_SLICES} slices for a volume model", found)
    placed = [plane.placement for plane in info.planes]
    if not all(one.unit == "mm" and len(one.matrix) == 3 for one in placed):
        raise _refused(subject, "must have slices with a place in the patient", facts.get("spacing_source", "none"))
    matrices = np.array([one.matrix for one in placed], dtype=np.float64)
    centres = matrices[:, :, 2] + matrices[:, :, :2].sum(axis=2) / 2
    column, row = matrices[0, :, 0], matrices[0, :, 1]
    turned = np.degrees(np.abs(matrices[:, :, :2] - matrices[0, :, :2]).max() / np.linalg.norm(column))
    if turned > _TURN:
        raise _refused(subject, "must have slices of one orientation", f"up to {turned:.2g}° apart")
    step = (centres[-1] - centres[0]) / (count - 1)
    length = float(np.linalg.norm(step))
    off = np.linalg.norm(centres - (centres[0] + np.arange(count)[:, None] * step), axis=1)
    if length <= 0 or off.max() > max(_STEP * length, 0.01):
        missing = int(facts.get("missing_slices", "0") or 0)
        found = f"{missing} missing" if missing else f"a slice is {off.max():.3g} mm off equal steps of {length:.4g} mm"
        raise _refused(subject, "must have slices at equal steps, none missing", found)
    normal = np.cross(column, row)
    shear = math.degrees(math.acos(min(1.0, abs(float(normal @ step)) / float(np.linalg.norm(normal) * length))))
    if shear > _SHEAR:
        rule = "must be stacked along the normal of its slices"
        raise _refused(subject, rule, f"sheared by {shear:.1f}°, as by a tilted gantry")
    return np.column_stack([step, row, column, centres[0]])


def _refused(subject: str, rule: str, found: str) -> ModelError:
    return ModelError(subject, rule, value=found, remedy="Choose another series, or a model that works slice by slice")
