"""Label maps of stacks: structures.csv with the volume and place of each structure, and label maps as NIfTI.

A label map has the stack's own voxels, so that a volume is a count of them times the volume of one.
"""

# nibabel and scipy state too few types:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportPrivateImportUsage=false

import gzip
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from ..model.volume.volume import LabelMap, volume_affine, voxel_ml
from ..readers.files import atomic_path
from ..readers.image import Kind
from .columns import IMAGE, MODEL, NAME, fact
from .csv_safety import clean_text
from .table import Column, write_csv
from .writer import DISCLAIMER, AnalysisStatus, ImageRecord, Record, image_file, write_per_image

Numbers = npt.NDArray[np.float64]

_COMPRESSION = 6


@dataclass(slots=True)
class Extent:
    """Where the voxels of one label lie, gathered slice by slice."""

    voxels: int
    total: Numbers
    """(3,) sums of their (slice, row, column)."""
    low: Numbers
    """(3,) the least slice, row and column."""
    high: Numbers
    """(3,) the greatest."""
    slices: int

    @property
    def centre(self) -> Numbers:
        """(3,) mean slice, row and column."""
        return self.total / self.voxels

    @property
    def corners(self) -> Numbers:
        """(8, 3) corners of the box of voxels, whose sides are half a voxel outside of the outermost centres."""
        sides = np.stack([self.low - 0.5, self.high + 0.5])
        return np.array([[sides[a, 0], sides[b, 1], sides[c, 2]] for a in (0, 1) for b in (0, 1) for c in (0, 1)])


def measure_labels(label_maps: Iterator[LabelMap]) -> dict[int, Extent]:
    """The extent of each label, by its number, in the label maps of a stack's slices in order."""
    from scipy import ndimage

    found: dict[int, Extent] = {}
    for number, label_map in enumerate(label_maps):
        for label, box in enumerate(ndimage.find_objects(label_map), 1):
            if box is None:
                continue
            inside = label_map[box] == label
            rows, columns = np.count_nonzero(inside, axis=1), np.count_nonzero(inside, axis=0)
            count, (top, left) = int(rows.sum()), (box[0].start, box[1].start)
            sums = [
                number * count,
                rows @ np.arange(top, top + len(rows)),
                columns @ np.arange(left, left + len(columns)),
            ]
            low, high = [number, top, left], [number, box[0].stop - 1, box[1].stop - 1]
            total, least, most = np.array([sums, low, high], dtype=np.float64)
            here = Extent(count, total, least, most, 1)
            found[label] = here if label not in found else _joined(found[label], here)
    return found


def _joined(one: Extent, other: Extent) -> Extent:
    return Extent(
        one.voxels + other.voxels,
        one.total + other.total,
        np.minimum(one.low, other.low),
        np.maximum(one.high, other.high),
        one.slices + other.slices,
    )


@dataclass(frozen=True)
class StackStructures:
    """The structures of one stack: a row for each label of the model, found or not."""

    record: Record
    image: ImageRecord
    extents: Mapping[int, Extent]

    def __len__(self) -> int:
        return len(self.record.labels)

    @property
    def kind(self) -> Kind:
        """Always a study."""
        return "study"

    @property
    def status(self) -> AnalysisStatus:
        """Whether all of the stack was analysed."""
        return self.record.status_of([self.image])

    @cached_property
    def affine(self) -> Numbers:
        """(3, 4): mm (LPS) = affine @ (slice, row, column, 1)."""
        return volume_affine(self.image.info)

    @cached_property
    def found(self) -> list[Extent | None]:
        """The extent of each label; None where there is none of it."""
        return [self.extents.get(number) for number in range(1, len(self) + 1)]

    @property
    def volumes_ml(self) -> Numbers:
        """(N,) volumes: voxels of the stack's own grid times the volume of one."""
        voxel = voxel_ml(self.image.info)
        return np.array([one.voxels * voxel if one else 0.0 for one in self.found])

    @cached_property
    def centres_mm(self) -> Numbers:
        """(N, 3) centres of mass in mm (LPS), NaN without any voxel."""
        return np.array([self._place(one.centre[None])[0] if one else [np.nan] * 3 for one in self.found])

    @cached_property
    def sizes_mm(self) -> Numbers:
        """(N, 3) sides in mm of the box along columns, rows and slices, NaN without any voxel."""
        spacing = np.linalg.norm(self.affine[:, 2::-1], axis=0)
        return np.array([((one.high - one.low + 1)[::-1] * spacing) if one else [np.nan] * 3 for one in self.found])

    @cached_property
    def ranges_mm(self) -> Numbers:
        """(N, 3, 2) least and greatest coordinate (LPS) of the box of voxels, NaN without any voxel."""
        return np.array(
            [
                np.stack([(at := self._place(one.corners)).min(axis=0), at.max(axis=0)], axis=1)
                if one
                else np.full((3, 2), np.nan)
                for one in self.found
            ]
        )

    def _place(self, voxels: Numbers) -> Numbers:
        return voxels @ self.affine[:, :3].T + self.affine[:, 3]


def _of_each(value: Callable[[Extent], object], without: object) -> Callable[[StackStructures], object]:
    """A value of each label's extent, and that of a label without any voxel."""
    return lambda rows: [without if one is None else value(one) for one in rows.found]


def _axes(names: str, description: str, values: Callable[[StackStructures], Numbers]) -> list[Column[StackStructures]]:
    return [
        Column(name, "float64", description, lambda rows, at=at: values(rows)[:, at], "mm", 3)
        for at, name in enumerate(names.split())
    ]


STRUCTURES: tuple[Column[StackStructures], ...] = (
    Column("study_uid", "category", "the study, as a pseudonym", lambda rows: rows.image.info.study),
    Column("series_uid", "category", "the series, as a pseudonym", fact("series_uid")),
    IMAGE,
    NAME,
    Column("label", "category", "the structure", lambda rows: rows.record.labels),
    Column("value", "int64", "its number in the label map", lambda rows: range(1, len(rows) + 1)),
    Column("status", "category", "of the stack, as in summary.csv", lambda rows: rows.status),
    Column("volume_ml", "float64", "voxels times the volume of a voxel", lambda rows: rows.volumes_ml, "ml", 3),
    Column("voxels", "Int64", "voxels of the stack's own grid", _of_each(lambda one: one.voxels, 0)),
    Column("n_slices", "Int64", "slices that it touches", _of_each(lambda one: one.slices, 0)),
    Column("first_slice", "Int64", "the first of them, from 1", _of_each(lambda one: int(one.low[0]) + 1, None)),
    Column("last_slice", "Int64", "the last of them", _of_each(lambda one: int(one.high[0]) + 1, None)),
    *_axes("x_mm y_mm z_mm", "centre of mass in the patient (LPS)", lambda rows: rows.centres_mm),
    *_axes("x0_mm y0_mm z0_mm", "least coordinate in the patient (LPS)", lambda rows: rows.ranges_mm[:, :, 0]),
    *_axes("x1_mm y1_mm z1_mm", "greatest coordinate in the patient (LPS)", lambda rows: rows.ranges_mm[:, :, 1]),
    *_axes("columns_mm rows_mm slices_mm", "side of its box of voxels", lambda rows: rows.sizes_mm),
    *MODEL,
)
"""Columns of structures.csv."""


@dataclass(frozen=True, slots=True)
class StructuresCsv:
    """structures.csv: a row for each label of the model in each stack that was annotated as a volume."""

    name: str = "structures-csv"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write the table; nothing where no stack was annotated as a volume."""
        stacks = [
            StackStructures(record, image, measure_labels(image.label_maps()))
            for image in record.images
            if image.label_maps is not None
        ]
        return [write_csv(folder / "structures.csv", STRUCTURES, stacks)] if stacks else []

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images that were not annotated as volumes, where others were."""
        return without_label_maps(record)


@dataclass(frozen=True, slots=True)
class Nifti:
    """labels-<image id>.nii.gz: the label map of each stack that was annotated as a volume, on its own voxels.

    The affine (sform) is the stack's, in RAS as NIfTI has it. A comment in the header names labels, model and use.
    """

    name: str = "nifti"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write a file per stack into `folder`."""
        stacks = [image for image in record.images if image.label_maps is not None]
        return write_per_image(stacks, lambda image: self._write(record, image, folder))

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images that were not annotated as volumes, where others were."""
        return without_label_maps(record)

    @staticmethod
    def _write(record: Record, image: ImageRecord, folder: Path) -> Path:
        path = image_file(folder, "labels-", image.info.id, ".nii.gz")
        with atomic_path(path) as part, nifti_writer(part, record, image, np.uint8, record.labels) as file:
            for label_map in image.label_maps() if image.label_maps is not None else ():
                file.write(np.ascontiguousarray(label_map).tobytes())
        return path


def stack_affine(image: ImageRecord) -> Numbers:
    """The `Volume.affine` of a stack on its analysis grid. Raises `ModelError` where its slices are no volume."""
    affine = volume_affine(image.info)
    if image.grid is None:
        return affine
    scales = np.array(image.grid.scale[::-1])  # of rows and columns, whose first pixel keeps its corner
    affine[:, 3] += affine[:, 1:3] @ (scales - 1) / 2
    affine[:, 1:3] *= scales
    return affine


@contextmanager
def nifti_writer(
    path: Path, record: Record, image: ImageRecord, dtype: type[np.generic], labels: Sequence[str]
) -> Generator[gzip.GzipFile]:
    """A compressed NIfTI file of a stack on its analysis grid, into which the values of each slice are to be written.

    Its affine is the stack's, in RAS. A comment in its header names the labels, by their values, the model and the use.
    """
    from nibabel.nifti1 import Nifti1Extension, Nifti1Header

    header = Nifti1Header()
    header.set_data_dtype(dtype)
    width, height = image.info.size if image.grid is None else image.grid.shape
    header.set_data_shape((width, height, len(image.info.planes)))
    header.set_xyzt_units("mm")
    affine = np.eye(4)
    affine[:3] = stack_affine(image)[:, [2, 1, 0, 3]]
    affine[:2] *= -1.0  # LPS → RAS
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner")
    header["descrip"] = DISCLAIMER.encode()
    names = {str(number): label for number, label in enumerate(labels, 1)}
    about = {"labels": names, "model": dict(record.model), "use": record.use, "limner": record.version}
    text = json.dumps(_clean(about), ensure_ascii=True, sort_keys=True)
    header.extensions.append(Nifti1Extension("comment", text.encode()))
    header.set_data_offset(0)
    with path.open("wb") as file, gzip.GzipFile("", "wb", _COMPRESSION, file, mtime=0) as packed:
        header.write_to(packed)
        packed.write(b"\0" * (int(header["vox_offset"]) - packed.tell()))
        yield packed


def without_label_maps(record: Record) -> Mapping[str, str]:
    """Images that were not annotated as volumes, with the reason, where others were."""
    others = {one.info.id: "it was not annotated as a volume" for one in record.images if one.label_maps is None}
    return others if len(others) < len(record.images) else {}


def _clean(value: object) -> object:
    """JSON values whose texts hold no control characters."""
    if isinstance(value, dict):
        return {clean_text(str(key)): _clean(one) for key, one in cast("dict[object, object]", value).items()}
    return clean_text(str(value))
