"""DICOM structure sets of studies: the outlines of areas, slice by slice, in the patient.

An outline is where the area is traced: along the edges of pixels, or wherever the model put it. Holes are joined to
their outer ring by a keyhole (PS3.3 C.8.8.6.3).
"""
# pydicom's values have the type of their tag:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from ..measures import all_labels, batches
from ..palette import Palette, rgb
from ..patient_geometry import in_patient
from ..writer import ImageRecord, Record, image_file
from .concepts import concept, long_string
from .instances import IMPLICIT, described, new_instance, without_areas, write_objects
from .masks import area_outlines
from .objects import DicomObjectError, content_time, private_path, read_image
from .outlines import rings
from .planes import Planes, item
from .streaming import Item, write_streamed

if TYPE_CHECKING:
    from highdicom.base import SOPClass
    from pydicom.dataset import Dataset

STRUCTURES: Final = "1.2.840.10008.5.1.4.1.1.481.3"

_STUDY: Final = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management, the class by which structure sets name a study
_DECIMALS: Final = 4  # of mm
_UNPLACED: Final = "its pictures have no place in the patient: use dicom-seg, which needs none"


@dataclass(frozen=True, slots=True)
class DicomRtStruct:
    """rtstruct-<image id>.dcm: the outlines of each study's areas, with a region of interest for each label found."""

    name: str = "dicom-rtstruct"
    on_request: bool = True

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write a file per study that has an area into `folder`."""
        return write_objects(record, folder, self, _write)

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Maps and slides, and studies without any area or without a place in the patient."""
        placed = {image.info.id: all(map(in_patient, image.info.planes)) for image in record.images}
        found = without_areas(record, ("study",))
        return {**found} | {name: _UNPLACED for name, known in placed.items() if not known and name not in found}


def _write(record: Record, image: ImageRecord, folder: Path) -> Path:
    planes = Planes(read_image(record, image))
    if not planes.frame_of_reference:
        rule = "must have slices in one frame of reference of the patient, for a structure set"
        raise DicomObjectError(image.info.id, rule, remedy="Use dicom-seg, which needs none")
    areas = (batch.table.take(np.flatnonzero(batch.table.is_area)).label.tolist() for batch in batches(record, [image]))
    found = {label for labels in areas for label in labels}
    labels = [label for label in all_labels(record, sorted(found)) if label in found]
    path = image_file(folder, "rtstruct-", image.info.id, ".dcm")
    with private_path(path) as part:
        write_streamed(_elements(planes, labels), {"ROIContourSequence": _contours(planes, labels)}, part)
    return path


def _elements(planes: Planes, labels: Sequence[str]) -> "SOPClass":
    """The structure set without its contours."""
    originals = planes.originals
    record, first = originals.record, originals.first
    made = new_instance(originals, "rtstruct", "structures", STRUCTURES, "RTSTRUCT", syntax=IMPLICIT)
    made.OperatorsName = None
    made.StructureSetLabel = "limner"
    made.StructureSetName = made.SeriesDescription
    made.StructureSetDescription = long_string(described(record.use, originals.image), 1024)
    made.StructureSetDate, made.StructureSetTime = content_time(originals)
    frame = planes.frame_of_reference
    made.FrameOfReferenceUID, made.PositionReferenceIndicator = frame, first.get("PositionReferenceIndicator") or None
    images = [planes.reference(number) for number in range(len(originals.info.planes))]
    series = item(SeriesInstanceUID=first.SeriesInstanceUID, ContourImageSequence=images)
    study = item(ReferencedSOPClassUID=_STUDY, ReferencedSOPInstanceUID=first.StudyInstanceUID)
    study.RTReferencedSeriesSequence = [series]
    made.ReferencedFrameOfReferenceSequence = [item(FrameOfReferenceUID=frame, RTReferencedStudySequence=[study])]
    names = [long_string(label) or "no label" for label in labels]
    made.StructureSetROISequence = [
        item(
            ROINumber=number,
            ReferencedFrameOfReferenceUID=frame,
            ROIName=name,
            ROIGenerationAlgorithm="AUTOMATIC",
            ROIGenerationDescription=made.ManufacturerModelName,
        )
        for number, name in enumerate(names, 1)
    ]
    made.RTROIObservationsSequence = [
        item(
            ObservationNumber=number,
            ReferencedROINumber=number,
            RTROIIdentificationCodeSequence=[concept(record, label)],
            RTROIInterpretedType=None,
            ROIInterpreter=None,
        )
        for number, label in enumerate(labels, 1)
    ]
    made.ApprovalStatus = "UNAPPROVED"
    return made


def _contours(planes: Planes, labels: Sequence[str]) -> Iterator[Item]:
    """The contours of each label."""
    record, image = planes.originals.record, planes.originals.image
    palette, numbers = Palette.of(record.labels, record.colours), {label: n for n, label in enumerate(labels, 1)}
    for label, parts in groupby(area_outlines(image), key=lambda part: part[0][0]):
        roi = item(ReferencedROINumber=numbers[label], ROIDisplayColor=list(rgb(palette[label])))
        contours = (
            Item(_contour(planes, plane, ring))
            for (_, plane), outlines in parts
            for geometries in outlines
            for ring in rings(geometries).each()
        )
        yield Item(roi, {"ContourSequence": contours})


def _contour(planes: Planes, plane: int, ring: npt.NDArray[np.float64]) -> "Dataset":
    points = planes.originals.info.planes[plane].placement.to_world(ring)
    return item(
        ContourImageSequence=[planes.reference(plane)],
        ContourGeometricType="CLOSED_PLANAR",
        NumberOfContourPoints=len(points),
        ContourData=(np.round(points, _DECIMALS) + 0.0).ravel().tolist(),
    )
