"""New instances that are written in parts: what the patient, the study and the series have, and frames."""
# highdicom and pydicom have values of the type of their tag:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

import numpy as np
import numpy.typing as npt

from ...readers.image import Mask
from ..measures import batches
from ..writer import ImageRecord, Record, Writer, write_per_image
from .objects import (
    DicomObjectError,
    Originals,
    attributes,
    build,
    header_checked,
    require_packages,
    suitable,
    unsuitable,
)
from .planes import item

if TYPE_CHECKING:
    from highdicom.base import SOPClass
    from pydicom.dataset import Dataset

EXPLICIT: Final = "1.2.840.10008.1.2.1"
IMPLICIT: Final = "1.2.840.10008.1.2"
MOST_BYTES: Final = 2**32 - 2
"""Of a value (PS3.5 7.1.2)."""
PARTLY: Final = "Not all of it was analysed"
_NOT_AREAS: Final = "its findings are boxes, tiles or regions, which have no outline: use dicom-sr"

CATEGORY: Final = ("309825002", "SCT", "Spatial and Relational Concept")
"""The category of properties (CID 7150) that says nothing of what a label is beyond a place."""


def new_instance(
    originals: Originals, kind: str, what: str, sop_class: str, modality: str, *parts: str, syntax: str = EXPLICIT
) -> "SOPClass":
    """A data set with the patient and the study of the originals, in a new series: see `objects.attributes`."""
    from highdicom.base import SOPClass

    header, arguments = originals.first, attributes(originals, kind, what, *parts)
    equipment = arguments.pop("contributing_equipment")
    if kind == "rtstruct":  # which has neither
        del arguments["content_date"], arguments["content_time"]

    def make() -> SOPClass:
        made = SOPClass(
            study_instance_uid=header.StudyInstanceUID,
            sop_class_uid=sop_class,
            modality=modality,
            transfer_syntax_uid=syntax,
            patient_id=header.PatientID,
            patient_name=header.PatientName,
            patient_birth_date=header.PatientBirthDate,
            patient_sex=header.PatientSex,
            accession_number=header.AccessionNumber,
            study_id=header.StudyID,
            study_date=header.StudyDate,
            study_time=header.StudyTime,
            referring_physician_name=header.ReferringPhysicianName,
            **arguments,
        )
        made.copy_patient_and_study_information(header)
        made.SpecificCharacterSet = "ISO_IR 192"
        made.ContributingEquipmentSequence = equipment
        return made

    return build(originals, make)


def described(text: str, image: ImageRecord) -> str:
    """A description, with a word on it where not all of the image was analysed: nothing found there means nothing."""
    return text if image.complete and not image.unanalysed else f"{text}. {PARTLY}"


def display_colour(rgb: tuple[int, int, int]) -> list[int]:
    """A colour as CIELab, as DICOM codes it (PS3.3 C.10.7.1.1)."""
    from highdicom.color import CIELabColor

    return list(CIELabColor.from_rgb(*rgb).value)


class FrameFile:
    """Frames one after the other in a temporary file, as Pixel Data has them: 8 bits a pixel, or one (PS3.5 8.1.1)."""

    def __init__(self, folder: Path, name: str, *, bits: int = 1) -> None:
        self._name, self._bits = name, bits
        self.file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - `close` closes it
        self._rest: npt.NDArray[np.bool_] = np.empty(0, dtype=np.bool_)
        self.bytes = 0

    def add(self, frame: Mask | npt.NDArray[np.uint8]) -> None:
        """Add a frame: frames follow each other without a gap, also within a byte."""
        if self._bits == 8:
            self._write(np.ascontiguousarray(frame, dtype=np.uint8).tobytes())
            return
        bits = np.concatenate([self._rest, frame.astype(np.bool_).ravel()])
        whole = len(bits) // 8 * 8
        self._write(_packed(bits[:whole]))
        self._rest = bits[whole:]

    def finish(self) -> IO[bytes]:
        """The file, of an even number of bytes, from its beginning."""
        self._write(_packed(self._rest))
        self._rest = self._rest[:0]
        if self.bytes % 2:
            self._write(b"\0")
        self.file.seek(0)
        return self.file

    def _write(self, content: bytes) -> None:
        self.bytes += len(content)
        if self.bytes > MOST_BYTES:
            rule, remedy = "must have masks of less than 4 GiB in a segmentation", "Use another report, such as geojson"
            raise DicomObjectError(self._name, rule, remedy=remedy)
        self.file.write(content)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def _packed(bits: Mask) -> bytes:
    return np.packbits(bits, bitorder="little").tobytes()


def write_objects(
    record: Record, folder: Path, writer: Writer, write: Callable[[Record, ImageRecord, Path], Path]
) -> list[Path]:
    """Write an object for each image that `writer` does not leave out.

    Raises `RequestError` where packages are missing, `PartlyWrittenError` after the last where some could not be
    written.
    """
    require_packages(writer.name.removeprefix("dicom-"))
    left_out = writer.omitted(record)

    def write_one(image: ImageRecord) -> Path:
        with header_checked(image.info.id):
            return write(record, image, folder)

    return write_per_image([image for image in record.images if image.info.id not in left_out], write_one)


def add_buffered(dataset: "Dataset", name: str, vr: str, file: IO[bytes]) -> None:
    """Add an element whose value is a file, which is copied when the data set is written."""
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataelem import DataElement

    dataset.add(DataElement(tag_for_keyword(name) or 0, vr, file))


def referenced_series(headers: "Iterable[Dataset]") -> "list[Dataset]":
    """The Common Instance Reference of originals: their series, each with its instances."""
    series: dict[str, list[Dataset]] = {}
    for header in headers:
        one = item(ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID)
        series.setdefault(str(header.SeriesInstanceUID), []).append(one)
    return [item(SeriesInstanceUID=uid, ReferencedInstanceSequence=found) for uid, found in series.items()]


def without_areas(record: Record, kinds: Sequence[str]) -> Mapping[str, str]:
    """Images that `unsuitable` names, and those without any area, with the reason."""
    found = unsuitable(record, kinds)
    for image in suitable(record, kinds):
        parts = batches(record, [image])
        if not any(batch.table.is_area.any() for batch in parts):
            count = len(image.findings())
            found[image.info.id] = _NOT_AREAS if count else "it has no findings"
    return found
