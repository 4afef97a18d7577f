"""What all DICOM objects of a run share: original headers, UIDs, times, equipment, the algorithm, and writing.

An object belongs to the patient and the study of its originals, so it is identified, and readable by its owner only. It
is a function of the run folder and the originals: UIDs follow from the run's digest, times are when the run began.
"""
# highdicom and pydicom have values of the type of their tag:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import hashlib
import io
import json
import os
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ...readers.errors import LimnerError
from ...readers.files import atomic_path
from ...readers.image import ImageInfo
from ...readers.plugins import require_extra
from ..writer import DISCLAIMER, ImageRecord, PartlyWrittenError, Record, image_file
from .concepts import coding_schemes, long_string

if TYPE_CHECKING:
    from highdicom import AlgorithmIdentificationSequence, ContributingEquipment
    from pydicom.dataset import Dataset

KINDS: Final = ("sr", "ko", "sc", "seg", "rtstruct", "ann")
"""Kinds of objects, the prefixes of their files. Series numbers of the first are from 9000, of the next from 9100."""

_TAIL: Final = "research, not for diagnosis"
_NAMESPACE: Final = uuid.UUID("6c1f3f3e-5a0c-5f0e-9d5b-0c7b7b1d2f10")  # of limner's structures
_NO_TIME: Final = "its run does not state when it began, as a DICOM object must: run again into another folder"
_GONE: Final = "its original files are not known, which a DICOM object refers to"
_NOT_ASSESSED: Final = "the run has no model, so that there is nothing to report"
_UNFIT: Final = (ValueError, TypeError, AttributeError, KeyError, LookupError)  # of highdicom, about a header


D = TypeVar("D", bound="Dataset | None")


class DicomObjectError(LimnerError):
    """An image that a DICOM object cannot refer to, or whose findings it cannot hold."""


def report_of(name: str) -> str:
    """The kind of report, "dicom-sr" and so on, that writes files of this name; "" for all other files."""
    kind, _, rest = name.partition("-")
    return f"dicom-{kind}" if kind in KINDS and rest.endswith(".dcm") else ""


@dataclass(frozen=True)
class Originals:
    """An image of a run with the headers of its original files."""

    record: Record
    image: ImageRecord
    info: ImageInfo
    """With real paths."""
    headers: "Sequence[Dataset]"
    """One per file, in the order of planes: see `readers.dicom.originals`."""

    @property
    def first(self) -> "Dataset":
        """The first file's."""
        return self.headers[0]

    @cached_property
    def _by_source(self) -> "Mapping[str, Dataset]":
        """The header of each file, by the `source` of its planes."""
        sources = list(dict.fromkeys(plane.source for plane in self.info.planes if plane.source)) or self.info.files
        return dict(zip(sources, self.headers, strict=True))

    def header_of(self, plane: int) -> "Dataset":
        """The header of the file of a plane."""
        return self._by_source.get(self.info.planes[plane].source, self.first)

    def is_whole_frame(self, plane: int) -> bool:
        """Whether a plane is a frame of its file; slices of a mosaic are parts of one."""
        header = self.header_of(plane)
        return (int(header.Columns), int(header.Rows)) == self.info.size

    def frame_numbers(self, planes: Sequence[int]) -> list[int] | None:
        """The frames of planes of one file, from 1; None for a file of a single frame, or where all are meant."""
        count = int(self.header_of(planes[0]).get("NumberOfFrames") or 1)
        frames = sorted({self.info.planes[plane].frame for plane in planes})
        return frames if self.is_whole_frame(planes[0]) and 1 < count != len(frames) else None


def unsuitable(record: Record, kinds: Sequence[str] = ("study",)) -> dict[str, str]:
    """Why images of a run can have no DICOM object, as far as that is known without reading them."""
    found: dict[str, str] = {}
    for image in record.images:
        if image.info.kind not in kinds:
            found[image.info.id] = f"it is a {image.info.kind}, not a {' or a '.join(kinds)}"
        elif image.original is None:
            found[image.info.id] = _GONE
        elif not record.assessed:
            found[image.info.id] = _NOT_ASSESSED
        elif not record.started or not record.run:
            found[image.info.id] = _NO_TIME
    return found


def suitable(record: Record, kinds: Sequence[str] = ("study",)) -> list[ImageRecord]:
    """The images that `unsuitable` does not name."""
    left_out = unsuitable(record, kinds)
    return [image for image in record.images if image.info.id not in left_out]


def read_image(record: Record, image: ImageRecord) -> Originals:
    """An image with its original headers. Raises `LimnerError` where they are gone, have changed or lack UIDs."""
    if image.original is None:
        raise DicomObjectError(image.info.id, "must have its original files", remedy="Restore the input files")
    info = image.original()
    from ...readers.dicom.originals import read_originals

    return Originals(record, image, info, completed(read_originals(info)))


def completed(headers: "Sequence[Dataset]") -> "Sequence[Dataset]":
    """Headers with empty values for what highdicom reads of every header, and they lack or have no known code for."""
    for header in headers:
        for name in _OFTEN_ABSENT:
            if name not in header:
                setattr(header, name, None)
        if header.PatientSex not in {"M", "F", "O"}:
            header.PatientSex = None
    return headers


_OFTEN_ABSENT: Final = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName"),
)
"""Attributes that highdicom reads of every header; of type 2, so that they may be empty."""


def studies(record: Record) -> dict[str, list[ImageRecord]]:
    """The images that an object can be made of, by the name of their study for files: "study1", or an image's id."""
    grouped: dict[str, list[ImageRecord]] = {}
    for image in suitable(record):
        grouped.setdefault(image.info.study or image.info.id, []).append(image)
    names = {study: images[0].info.id.partition("-")[0] for study, images in grouped.items()}
    counts = Counter(names.values())
    return {
        names[study] if counts[names[study]] == 1 else images[0].info.id: images for study, images in grouped.items()
    }


def write_per_study(
    record: Record, folder: Path, kind: str, make: Callable[[Sequence[Originals]], "Dataset | None"]
) -> list[Path]:
    """Write an object for each study, of those of its images whose originals can be read; none where `make` gives None.

    Raises `RequestError` where packages are missing, `PartlyWrittenError` after the last study where an image could not
    be taken.
    """
    require_packages(kind)
    paths: list[Path] = []
    omitted: dict[str, str] = {}
    for name, images in studies(record).items():
        found: list[Originals] = []
        for image in images:
            try:
                found.append(read_image(record, image))
            except LimnerError as error:
                omitted[image.info.id] = str(error)
        try:
            if found and (dataset := build(found[0], lambda found=found: make(found))) is not None:
                paths.append(save(dataset, image_file(folder, f"{kind}-", name, ".dcm")))
        except LimnerError as error:
            omitted |= dict.fromkeys([one.info.id for one in found], str(error))
    if omitted:
        raise PartlyWrittenError(paths, omitted)
    return paths


def build(originals: Originals, make: Callable[[], D]) -> D:
    """What `make` makes with highdicom, without its warnings, and finished.

    Raises `DicomObjectError` for a header that it refuses.
    """
    with header_checked(originals.info.id):
        dataset = make()
    if dataset is not None:
        finish(dataset, originals)
    return dataset


@contextmanager
def header_checked(name: str) -> Generator[None]:
    """Without warnings, and with a `DicomObjectError` about `name` instead of errors of pydicom and highdicom."""
    try:
        with quiet():
            yield
    except _UNFIT as error:  # its text may quote the header
        rule = "must have a header that a DICOM object can take over"
        remedy = "Check the study with dciodvfy, or use another report"
        raise DicomObjectError(name, rule, value=type(error).__name__, remedy=remedy) from error


def require_packages(kind: str) -> None:
    """Raise `RequestError` unless the packages of the extra `dicom` are installed."""
    require_extra("dicom", f"report dicom-{kind}")


def new_uid(record: Record, *parts: str) -> str:
    """A UID 2.25.… (PS3.5 B.2) from the run's digest, this version of limner, and `parts`."""
    content = json.dumps([record.run, version("limner"), *parts], ensure_ascii=True)
    return f"2.25.{int.from_bytes(hashlib.sha256(content.encode()).digest()[:16], 'big')}"


def device_uid(record: Record) -> str:
    """The UID of the model as a device: the same in all runs of its version with the same weights."""
    content = json.dumps([model_name(record), model_version(record), record.model.get("sha256", "")])
    return f"2.25.{uuid.uuid5(_NAMESPACE, content).int}"


def structure_tracking_uid(record: Record, image: ImageRecord, label: str) -> str:
    """The tracking UID of a structure in a stack: the same in all objects, and in any run with the same key."""
    info, facts = image.info, dict(image.info.facts)
    slices = [[plane.name, plane.frame] for plane in info.planes]
    content = [info.study, facts.get("series_uid", ""), slices, label, record.model.get("name", "")]
    return f"2.25.{uuid.uuid5(_NAMESPACE, json.dumps(content, ensure_ascii=True)).int}"


def model_name(record: Record) -> str:
    """The name of the model, as VR LO holds it."""
    return long_string(record.model.get("name", "")) or "no model"


def attributes(originals: Originals, kind: str, what: str, *parts: str) -> dict[str, Any]:
    """Arguments that highdicom's constructors share, for an object of `kind` in a series of its own.

    `what`: a word or two for the series' description; `parts` tell apart objects of one kind and image.
    """
    record, place = originals.record, KINDS.index(kind)
    seed = (kind, originals.info.id, *parts)
    date, time = content_time(originals)
    room = 64 - len(f"limner : {what} - {_TAIL}")
    return {
        "series_instance_uid": new_uid(record, "series", *seed),
        "sop_instance_uid": new_uid(record, "instance", *seed),
        "series_number": 9000 + 100 * place + int(hashlib.sha256(record.run.encode()).hexdigest(), 16) % 100,
        "instance_number": 1,
        "series_description": f"limner {long_string(model_name(record), room)}: {what} - {_TAIL}",
        "manufacturer": "limner",
        "manufacturer_model_name": model_name(record),
        "software_versions": [long_string(f"limner {record.version}"), model_version(record)],
        "device_serial_number": long_string(record.model.get("sha256", "")) or "none",
        "content_date": date,
        "content_time": time,
        "contributing_equipment": [equipment(record)],
    }


def model_version(record: Record) -> str:
    """The version of the model, as a text that is not empty."""
    return long_string(record.model.get("version", "")) or "not stated"


def content_time(originals: Originals) -> tuple[str, str]:
    """Content date and time: when the run began, in UTC, or in the offset that the originals state for all times."""
    begin = datetime.fromisoformat(originals.record.started).astimezone(UTC)
    offset = str(originals.first.get("TimezoneOffsetFromUTC") or "").strip()
    if len(offset) == 5 and offset[0] in "+-" and offset[1:].isdigit() and int(offset[1:3]) < 24:
        shift = timedelta(hours=int(offset[1:3]), minutes=int(offset[3:]))
        begin = begin.astimezone(timezone(-shift if offset[0] == "-" else shift))
    return begin.strftime("%Y%m%d"), begin.strftime("%H%M%S")


_STATED_ELSEWHERE: Final = {"name", "version", "use"}  # of a model's identity, elsewhere


def parameters(record: Record, image: ImageRecord) -> dict[str, str]:
    """How an image was analysed: the window, the weights and whatever else the run states, in a fixed order."""
    facts = dict(image.info.facts)
    found = {
        "limner": record.version,
        "window": facts.get("window_used", ""),
        **{name.lower(): value for name, value in image.analysis.items()},
        **{f"model {key}": value for key, value in sorted(record.model.items()) if key not in _STATED_ELSEWHERE},
    }
    return {long_string(key): long_string(value, 1024) for key, value in found.items() if value}


def algorithm(record: Record, image: ImageRecord) -> "AlgorithmIdentificationSequence":
    """The model as Algorithm Identification Macro (PS3.3 10.16)."""
    from highdicom import AlgorithmIdentificationSequence
    from pydicom.sr.codedict import codes

    return AlgorithmIdentificationSequence(
        name=model_name(record),
        family=codes.DCM.ArtificialIntelligence,
        version=model_version(record),
        source="limner",
        parameters=parameters(record, image),
    )


def equipment(record: Record) -> "ContributingEquipment":
    """The model and limner as equipment that processed the images, with what the results may be used for."""
    from highdicom import ContributingEquipment
    from pydicom.sr.codedict import codes

    return ContributingEquipment(
        manufacturer="limner",
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=model_name(record),
        software_versions=[long_string(f"limner {record.version}"), model_version(record)],
        contribution_description=long_string(record.use or DISCLAIMER, 1024),
    )


@contextmanager
def quiet() -> Generator[None]:
    """Without warnings of pydicom and highdicom, which may quote the header."""
    import logging

    levels = {logger: logger.level for logger in map(logging.getLogger, ("highdicom", "pydicom"))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in levels:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in levels.items():
                logger.setLevel(level)


_TIMES: Final = ("ContentDate", "ContentTime", "DateOfSecondaryCapture", "TimeOfSecondaryCapture")


def finish(dataset: "Dataset", originals: Originals) -> None:
    """Replace the clock's times by the run's, and state the private coding scheme and the use for research."""
    date, time = content_time(originals)
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = date, time
    for name, value in zip(_TIMES, (date, time) * 2, strict=True):
        if name in dataset:
            setattr(dataset, name, value)
    for item in dataset.get("ContributingEquipmentSequence") or ():
        if item.get("ManufacturerModelName") == "highdicom" and "ContributionDateTime" in item:
            del item.ContributionDateTime
    if offset := originals.first.get("TimezoneOffsetFromUTC"):
        dataset.TimezoneOffsetFromUTC = offset
    dataset.CodingSchemeIdentificationSequence = coding_schemes()


def save(dataset: "Dataset", path: Path) -> Path:
    """Write an object as a DICOM file with an empty preamble, complete and readable by its owner only."""
    dataset.preamble = b"\0" * 128  # type: ignore[attr-defined] - of a file's data set
    content = io.BytesIO()
    dataset.save_as(content, enforce_file_format=True)
    with private_path(path) as part:
        part.write_bytes(content.getbuffer())
    return path


@contextmanager
def private_path(path: Path) -> Generator[Path]:
    """`atomic_path` with a file that its owner alone can read."""
    with atomic_path(path) as part:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield part
