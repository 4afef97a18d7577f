"""reference.csv: label maps of stacks compared with reference masks, which are NIfTI files on the same voxels.

Dice, and distances between surfaces in mm. A surface voxel is one of a structure that has a face on the outside. The
distances are those from the surface voxels of each of two structures to the nearest one of the other, all together for
the mean (average symmetric surface distance); for the Hausdorff distance and its 95th percentile each direction by
itself, and the greater of the two (Taha and Hanbury 2015, BMC Medical Imaging 15:29).
"""
# nibabel and scipy state too few types:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportPrivateImportUsage=false

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NoReturn, cast

import numpy as np
import numpy.typing as npt

from ..model.volume.orientation import Turn
from ..model.volume.volume import volume_affine, voxel_ml
from ..readers.errors import LimnerError, RequestError, excerpt
from ..readers.image import ImageInfo, Kind
from .columns import IMAGE, MODEL, NAME
from .structures import without_label_maps
from .table import Column, write_csv
from .writer import ImageRecord, Record

Labels = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.float64]

_NEAR_MM: Final = 0.05  # between the places of a voxel of a stack and of its reference
_SUFFIXES: Final = (".nii", ".nii.gz")


def match_references(paths: Sequence[str], infos: Sequence[ImageInfo]) -> dict[str, str]:
    """Image id → path of its reference, for paths or "IMAGE=PATH", by the grids of stacks. Reads headers only.

    Raises `RequestError` where a file is no NIfTI label map of the grid of exactly one of the stacks.
    """
    found: dict[str, str] = {}
    for text in paths:
        name, equals, rest = text.partition("=")
        named = [info for info in infos if equals and info.id == name]
        path = rest if named else text
        header = _Reference(path)
        stacks = named or [info for info in infos if info.kind == "study" and len(info.planes) > 1]
        matching = [info for info in stacks if header.turn(info) is not None]
        if len(matching) != 1:
            _refuse(path, matching, stacks, header)
        if matching[0].id in found:
            rule, value = "must be one for each stack", f"two for {matching[0].id}"
            raise RequestError("--reference", rule, value=value, remedy="Leave one out")
        found[matching[0].id] = path
    return found


def _refuse(path: str, matching: Sequence[ImageInfo], stacks: Sequence[ImageInfo], header: "_Reference") -> NoReturn:
    if matching:
        rule, value = "must have the grid of one stack only", ", ".join(info.id for info in matching[:5])
        remedy = f"Name the one that it is of: --reference {matching[0].id}={path}"
    else:
        rule = "must have the grid of a stack, voxel for voxel"
        grids = ", ".join(f"{info.id} {info.size[0]} × {info.size[1]} × {len(info.planes)}" for info in stacks[:5])
        value = f"{' × '.join(map(str, header.shape))} voxels of {header.spacing_text} mm; stacks: {grids or 'none'}"
        remedy = "Resample the mask to the stack's own voxels, with nearest neighbours, or choose the right series"
    raise RequestError(f"reference {path}", rule, value=value, remedy=remedy)


class _Reference:
    """A NIfTI file. Raises `RequestError` where it is none of three axes with a place."""

    def __init__(self, path: str) -> None:
        import nibabel as nib

        self._path = path
        if not path.endswith(_SUFFIXES):
            self._wrong("must be a NIfTI file, .nii or .nii.gz", Path(path).name)
        try:
            self._image: Any = nib.Nifti1Image.from_filename(path)
            shape = tuple(int(side) for side in self._image.shape)
            self.affine = np.asarray(self._image.affine, dtype=np.float64)
        except Exception as error:  # noqa: BLE001 - nibabel raises its own errors and the system's
            self._wrong("must be a readable NIfTI file", f"{type(error).__name__}: {excerpt(str(error))}")
        shape = (*shape[:3], *(side for side in shape[3:] if side != 1))
        if len(shape) != 3 or not np.isfinite(self.affine).all() or abs(np.linalg.det(self.affine[:3, :3])) < 1e-9:
            self._wrong("must have three axes with a place in the patient", f"{' × '.join(map(str, shape))} voxels")
        if not int(self._image.header["sform_code"]) and not int(self._image.header["qform_code"]):
            self._wrong("must state its place in the patient", "neither sform nor qform")
        self.shape: tuple[int, int, int] = (shape[0], shape[1], shape[2])

    @property
    def spacing_text(self) -> str:
        """Its voxel size."""
        return " × ".join(f"{side:.4g}" for side in np.linalg.norm(self.affine[:3, :3], axis=0))

    def turn(self, info: ImageInfo) -> Turn | None:
        """How its axes are turned to be (slice, row, column) of a stack; None where it has other voxels."""
        try:
            stack = volume_affine(info)
        except LimnerError:
            return None
        shape = (len(info.planes), info.size[1], info.size[0])
        own = (self.affine * [[-1.0], [-1.0], [1.0], [1.0]])[:3]  # RAS → LPS
        cosines = np.linalg.solve(stack[:, :3], own[:, :3])  # (stack's axis, own axis)
        order = [int(np.argmax(np.abs(row))) for row in cosines]
        if sorted(order) != [0, 1, 2]:
            return None
        flips = [bool(cosines[axis, source] < 0) for axis, source in enumerate(order)]
        turn = Turn((order[0], order[1], order[2]), (flips[0], flips[1], flips[2]))
        if turn.shape(self.shape) != shape:
            return None
        corners = np.array(
            [[i, j, k, 1] for i in (0, shape[0] - 1) for j in (0, shape[1] - 1) for k in (0, shape[2] - 1)]
        )
        off = np.linalg.norm(corners @ (turn.affine(own, self.shape) - stack).T, axis=1).max()
        return turn if off <= _NEAR_MM else None

    def labels(self, turn: Turn, most: int) -> Labels:
        """(slices, rows, columns) of a stack. Raises `RequestError` for values other than whole numbers 0 to `most`."""
        try:
            values = np.asarray(self._image.dataobj).reshape(self.shape)
        except Exception as error:  # noqa: BLE001 - as above, from damaged data
            self._wrong("must be a readable NIfTI file", f"{type(error).__name__}: {excerpt(str(error))}")
        numbers = np.unique(values)
        if not np.isin(numbers, np.arange(most + 1)).all():
            found = ", ".join(f"{number:g}" for number in numbers[:10])
            self._wrong(f"must have the numbers of the run's labels, 0 to {most}", found)
        return turn.apply(values.astype(np.uint8))

    def _wrong(self, rule: str, value: str) -> NoReturn:
        remedy = "Give a label map as NIfTI on the stack's own voxels; structures.csv has the numbers of labels"
        raise RequestError(f"reference {self._path}", rule, value=value, remedy=remedy)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a structure agrees with its reference; NaN where either has no voxel, Dice where both have none."""

    voxels: int
    reference_voxels: int
    dice: float
    mean_mm: float
    """Average symmetric surface distance."""
    p95_mm: float
    """95th percentile of the Hausdorff distance."""
    hausdorff_mm: float


def compare(found: Flags, reference: Flags, spacing: Sequence[float]) -> Agreement:
    """Compare two masks (slices, rows, columns) of the same voxels; spacing in mm along the axes."""
    counts = int(np.count_nonzero(found)), int(np.count_nonzero(reference))
    both = int(np.count_nonzero(found & reference))
    dice = 2 * both / sum(counts) if sum(counts) else math.nan
    if not all(counts):
        return Agreement(*counts, dice, math.nan, math.nan, math.nan)
    from scipy import ndimage

    box = cast("tuple[slice, ...]", ndimage.find_objects((found | reference).astype(np.uint8))[0])
    surfaces = [_surface(np.pad(mask[box], 1)) for mask in (found, reference)]
    distances = [_distances(one, other, spacing) for one, other in (surfaces, surfaces[::-1])]
    return Agreement(
        *counts,
        dice,
        float(np.concatenate(distances).mean()),
        max(float(np.percentile(one, 95)) for one in distances),
        max(float(one.max()) for one in distances),
    )


def _distances(one: Flags, other: Flags, spacing: Sequence[float]) -> Numbers:
    """Of each voxel of one surface to the nearest of the other."""
    from scipy import ndimage

    outside: Flags = ~other
    return np.asarray(ndimage.distance_transform_edt(outside, sampling=spacing), dtype=np.float64)[one]


def _surface(mask: Flags) -> Flags:
    from scipy import ndimage

    inner = np.asarray(ndimage.binary_erosion(mask), dtype=np.bool_)
    return mask & ~inner


@dataclass(frozen=True)
class StackAgreement:
    """One stack and its reference: a row for each label."""

    record: Record
    image: ImageRecord
    rows: Sequence[Agreement]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def kind(self) -> Kind:
        """Always a study."""
        return "study"

    @cached_property
    def voxel_ml(self) -> float:
        """The volume of a voxel."""
        return voxel_ml(self.image.info)

    def numbers(self, name: str) -> list[float]:
        """One number of each row."""
        return [getattr(row, name) for row in self.rows]


def _column(name: str, description: str, unit: str = "", decimals: int = 3) -> Column[StackAgreement]:
    return Column(name, "float64", description, lambda rows: rows.numbers(name), unit, decimals)


REFERENCE: tuple[Column[StackAgreement], ...] = (
    Column("study_uid", "category", "the study, as a pseudonym", lambda rows: rows.image.info.study),
    IMAGE,
    NAME,
    Column("label", "category", "the structure", lambda rows: rows.record.labels),
    Column(
        "volume_ml",
        "float64",
        "its volume in the run",
        lambda rows: [row.voxels * rows.voxel_ml for row in rows.rows],
        "ml",
        3,
    ),
    Column(
        "reference_ml",
        "float64",
        "its volume in the reference",
        lambda rows: [row.reference_voxels * rows.voxel_ml for row in rows.rows],
        "ml",
        3,
    ),
    _column("dice", "2 · common voxels / voxels of both; empty where neither has any", decimals=6),
    _column("mean_mm", "average symmetric surface distance; empty where one has no voxel", "mm"),
    _column("p95_mm", "95th percentile of the Hausdorff distance", "mm"),
    _column("hausdorff_mm", "Hausdorff distance", "mm"),
    *MODEL,
)
"""Columns of reference.csv."""


@dataclass(frozen=True, slots=True)
class ReferenceCsv:
    """reference.csv: a row for each label of each stack that has a reference mask."""

    references: Mapping[str, str]
    """Image id → path."""
    name: str = "reference-csv"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write the table. Raises `RequestError` where a reference has numbers that are no labels."""
        compared = [self._compare(record, image) for image in record.images if image.info.id in self.references]
        return [write_csv(folder / "reference.csv", REFERENCE, compared)]

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images without label maps, or without a reference, where others have one."""
        missing = [one.info.id for one in record.images if one.info.id not in self.references]
        return {**dict.fromkeys(missing, "no reference mask was given for it"), **without_label_maps(record)}

    def _compare(self, record: Record, image: ImageRecord) -> StackAgreement:
        if image.label_maps is None:
            rule, remedy = "must be annotated as a volume to have a reference", "Leave --reference out"
            raise RequestError(image.info.id, rule, remedy=remedy)
        header = _Reference(self.references[image.info.id])
        turn = header.turn(image.info)
        if turn is None:
            _refuse(self.references[image.info.id], [], [image.info], header)
        reference = header.labels(turn, len(record.labels))
        found = np.stack(list(image.label_maps()))
        spacing = np.linalg.norm(volume_affine(image.info)[:, :3], axis=0).tolist()
        numbers = range(1, len(record.labels) + 1)
        return StackAgreement(
            record, image, [compare(found == number, reference == number, spacing) for number in numbers]
        )
