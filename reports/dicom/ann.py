"""DICOM annotations of slides (Microscopy Bulk Simple Annotations): outlines with measurements, a group for each label.

Coordinates are level-0 pixels from the corner of the total pixel matrix. A ring is an annotation: a finding of several
parts has several, with its number, and holes are joined to their outer ring by a keyhole.
"""
# pydicom's values have the type of their tag:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from ...model.findings_table import FindingsTable
from ...readers.image import ImageInfo
from ..measures import areas_m2
from ..palette import Palette, rgb
from ..writer import ImageRecord, Record, image_file
from .concepts import concept, long_string, private_code
from .instances import (
    CATEGORY,
    MOST_BYTES,
    add_buffered,
    described,
    display_colour,
    new_instance,
    referenced_series,
    write_objects,
)
from .masks import by_label, runs
from .objects import DicomObjectError, algorithm, new_uid, private_path, suitable, unsuitable
from .outlines import rings
from .planes import code, item
from .slides import SlideLevel, other_slides
from .streaming import Item, write_streamed

if TYPE_CHECKING:
    from highdicom.base import SOPClass
    from pydicom.dataset import Dataset

ANNOTATIONS: Final = "1.2.840.10008.5.1.4.1.1.91.1"

_SINGLE: Final = 2**18  # pixels: up to here, single precision is exact to 1/128 px
_KINDS: Final = {"area": "areas traced from a class map", "box": "boxes", "tile": "tiles", "region": "regions"}


@dataclass(frozen=True, slots=True)
class DicomAnn:
    """ann-<image id>.dcm: the findings of each DICOM slide as polygons, with a group for each label and kind."""

    name: str = "dicom-ann"
    on_request: bool = True

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write a file per slide that has findings into `folder`."""
        return write_objects(record, folder, self, _write)

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Maps and studies, slides whose files are not DICOM, and those without findings."""
        kinds = ("slide",)
        empty = {one.info.id: "it has no findings" for one in suitable(record, kinds) if not len(one.findings())}
        return {**unsuitable(record, kinds), **empty, **other_slides(record)}


def _write(record: Record, image: ImageRecord, folder: Path) -> Path:
    level = SlideLevel.of(record, image)
    path = image_file(folder, "ann-", image.info.id, ".dcm")
    with private_path(path) as part:
        write_streamed(_elements(level), {"AnnotationGroupSequence": _groups(level, folder)}, part)
    return path


def _elements(level: SlideLevel) -> "SOPClass":
    """The object without its groups."""
    made = new_instance(level.originals, "ann", "annotations", ANNOTATIONS, "ANN")
    made.ContentLabel, made.ContentCreatorName = "ANNOTATIONS", None
    made.ContentDescription = described("Findings by label", level.originals.image)
    made.AnnotationCoordinateType, made.PixelOriginInterpretation = "2D", "VOLUME"
    made.ReferencedImageSequence = [level.reference()]
    made.ReferencedSeriesSequence = referenced_series([level.header])
    made.update(level.specimen())
    if "SpecimenDescriptionSequence" not in made:  # a specimen has no side
        made.Laterality = level.header.get("Laterality") or None
    return made


def _groups(level: SlideLevel, folder: Path) -> Iterator[Item]:
    """The groups of annotations, one in memory and on disk at a time."""
    record, image = level.originals.record, level.originals.image
    palette, numbering = Palette.of(record.labels, record.colours), iter(range(1, 2**31))
    for label, tables in groupby(_tables(image), key=lambda found: found[0]):
        groups: dict[str, _Group] = {}
        try:
            for _, numbers, table in tables:
                for kind in dict.fromkeys(table.kind.tolist()):
                    rows = np.flatnonzero(table.kind == kind)
                    if kind not in groups:
                        groups[kind] = _Group(image.info, folder)
                    groups[kind].add(table.take(rows), numbers[rows])
            for kind in sorted(kind for kind, group in groups.items() if group.counts):
                elements = groups[kind].elements()
                elements.AnnotationGroupNumber = next(numbering)
                elements.AnnotationGroupUID = new_uid(record, "group", level.originals.info.id, label, kind)
                elements.AnnotationGroupLabel = long_string(label) or "no label"
                elements.AnnotationGroupDescription = long_string(f"{_KINDS.get(kind, kind)}. {record.use}", 1024)
                elements.AnnotationGroupGenerationType = "AUTOMATIC"
                elements.AnnotationGroupAlgorithmIdentificationSequence = algorithm(record, image)
                elements.AnnotationPropertyCategoryCodeSequence = [code(*CATEGORY)]
                elements.AnnotationPropertyTypeCodeSequence = [concept(record, label)]
                elements.RecommendedDisplayCIELabValue = display_colour(rgb(palette[label]))
                yield Item(elements)
        finally:
            for group in groups.values():
                group.close()


def _tables(image: ImageRecord) -> Iterator[tuple[str, npt.NDArray[np.int64], FindingsTable]]:
    for numbers, table in by_label(image):
        for rows in runs(table.label):
            yield str(table.label[rows.start]), numbers[rows], table[rows]


@dataclass
class _Group:
    """The annotations of one label and kind: vertices in a temporary file, and some 16 bytes each in memory."""

    info: ImageInfo
    folder: Path
    counts: list[npt.NDArray[np.intp]] = field(default_factory=list[npt.NDArray[np.intp]])
    """Vertices of each annotation."""
    values: dict[str, list[npt.NDArray[np.float32]]] = field(default_factory=dict[str, list[npt.NDArray[np.float32]]])
    """Measurements of each, by name; NaN where not known."""
    size: int = 0

    def __post_init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115 - `close` closes it
        self._double = max(self.info.size) > _SINGLE

    def add(self, findings: FindingsTable, numbers: npt.NDArray[np.int64]) -> None:
        """Add findings with their numbers. Raises `DicomObjectError` where there are too many for an object."""
        found = rings(findings.geometries)
        content = found.vertices.astype("<f8" if self._double else "<f4").tobytes()
        self.size += len(content)
        if self.size > MOST_BYTES:
            rule, remedy = "must have less than 4 GiB of vertices of a label", "Use another report, such as qupath-gz"
            raise DicomObjectError(self.info.id, rule, remedy=remedy)
        self._file.write(content)
        self.counts.append(found.counts)
        values = areas_m2(found.polygons, self.info) * 1e12, findings.score[found.owners], numbers[found.owners]
        for name, column in zip(_MEASUREMENTS, values, strict=True):
            self.values.setdefault(name, []).append(column.astype("<f4"))

    def elements(self) -> "Dataset":
        """The group's graphic data and measurements."""
        self._file.seek(0)
        counts = np.concatenate(self.counts)
        first = 1 + 2 * (np.cumsum(counts) - counts)
        made = item(NumberOfAnnotations=len(counts), GraphicType="POLYGON", AnnotationAppliesToAllOpticalPaths="YES")
        name = "DoublePointCoordinatesData" if self._double else "PointCoordinatesData"
        add_buffered(made, name, "OD" if self._double else "OF", self._file)
        made.LongPrimitivePointIndexList = first.astype("<u4").tobytes()
        made.MeasurementsSequence = [
            _measurements(name, values)
            for name in _MEASUREMENTS
            if not np.isnan(values := np.concatenate(self.values[name])).all()
        ]
        return made

    def close(self) -> None:
        """Remove the temporary file."""
        self._file.close()


_MEASUREMENTS: Final[Mapping[str, tuple[str, str]]] = {
    "area": ("um2", "square micrometer"),
    "score": ("1", "no units"),
    "finding": ("1", "no units"),
}
"""Measurements of annotations → the code and meaning of their units (UCUM)."""


def _measurements(name: str, values: npt.NDArray[np.float32]) -> "Dataset":
    """A kind of measurement; annotations without a value are not in its list."""
    known = np.flatnonzero(~np.isnan(values))
    content = item(FloatingPointValues=values[known].tobytes())
    if len(known) < len(values):
        content.AnnotationIndexList = (known + 1).astype("<u4").tobytes()
    return item(
        ConceptNameCodeSequence=[code("42798000", "SCT", "Area") if name == "area" else private_code(name)],
        MeasurementUnitsCodeSequence=[code(_MEASUREMENTS[name][0], "UCUM", _MEASUREMENTS[name][1])],
        MeasurementValuesSequence=[content],
    )
