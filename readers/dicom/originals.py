"""Headers of original files, for new objects that belong to the same patient and study.

The files are parsed in the sandboxed process. A whitelist of attributes without pixels, private elements and binary
values comes back as plain values, whose number and depth are limited. It identifies the patient: only reports that are
asked for by name use it.
"""
# pydicom's values have the type of their tag, which is known only when it is read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from ..errors import ReadError
from ..image import ImageInfo
from .decoder import Decoder
from .faults import FaultError, as_error

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PATIENT = (
    "PatientName PatientID IssuerOfPatientID IssuerOfPatientIDQualifiersSequence PatientBirthDate PatientSex"
    " PatientSpeciesDescription PatientSpeciesCodeSequence PatientBreedDescription PatientBreedCodeSequence"
    " BreedRegistrationSequence ResponsiblePerson ResponsibleOrganization PatientIdentityRemoved DeidentificationMethod"
    " DeidentificationMethodCodeSequence ClinicalTrialSponsorName ClinicalTrialProtocolID ClinicalTrialProtocolName"
    " ClinicalTrialSiteID ClinicalTrialSiteName ClinicalTrialSubjectID ClinicalTrialSubjectReadingID"
)
_STUDY = (
    "StudyInstanceUID StudyDate StudyTime ReferringPhysicianName StudyID AccessionNumber"
    " IssuerOfAccessionNumberSequence StudyDescription PatientAge PatientSize PatientWeight PatientSexNeutered"
    " ClinicalTrialTimePointID ClinicalTrialTimePointDescription"
)
_SERIES = (
    "SeriesInstanceUID SeriesNumber SeriesDescription SeriesDate SeriesTime Modality Laterality BodyPartExamined"
    " PatientPosition FrameOfReferenceUID PositionReferenceIndicator Manufacturer ManufacturerModelName"
    " SoftwareVersions DeviceSerialNumber InstitutionName"
)
_IMAGE = (
    "SOPClassUID SOPInstanceUID SpecificCharacterSet TimezoneOffsetFromUTC InstanceNumber ImageType AcquisitionNumber"
    " AcquisitionDate AcquisitionTime AcquisitionDateTime ImageLaterality AnatomicRegionSequence PatientOrientation"
    " BurnedInAnnotation LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod Rows Columns"
    " SamplesPerPixel PhotometricInterpretation PlanarConfiguration BitsAllocated BitsStored HighBit"
    " PixelRepresentation NumberOfFrames PixelSpacing ImageOrientationPatient ImagePositionPatient SliceThickness"
    " SpacingBetweenSlices SliceLocation"
)
_SLIDE = (
    "ImagedVolumeWidth ImagedVolumeHeight ImagedVolumeDepth TotalPixelMatrixColumns TotalPixelMatrixRows"
    " TotalPixelMatrixFocalPlanes TotalPixelMatrixOriginSequence ImageOrientationSlide SpecimenDescriptionSequence"
    " ContainerIdentifier IssuerOfTheContainerIdentifierSequence ContainerTypeCodeSequence"
    " AlternateContainerIdentifierSequence ContainerComponentSequence SpecimenLabelInImage NumberOfOpticalPaths"
    " OpticalPathSequence VolumetricProperties PyramidUID"
)
_SHARED, _OWN = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_FRAMES = f"{_SHARED} {_OWN} DimensionOrganizationSequence DimensionOrganizationType DimensionIndexSequence"
_GROUPS = (
    "PixelMeasuresSequence PlanePositionSequence PlaneOrientationSequence PlanePositionSlideSequence"
    " FrameContentSequence FrameAnatomySequence OpticalPathIdentificationSequence"
)
ATTRIBUTES: Final = frozenset(f"{_PATIENT} {_STUDY} {_SERIES} {_IMAGE} {_SLIDE} {_FRAMES}".split())
"""Keywords of the attributes that are read; of functional groups only those in `_GROUPS`."""

UIDS: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
"""Without these a new object could not be filed in the study, nor refer to its images."""

_IDENTITY: Final = frozenset((*UIDS, "PatientID", "PatientName"))  # are never left out where they cannot be read
_TEXTS: Final = frozenset(
    ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT")
)
_NUMBERS: Final = frozenset(re.findall("..", "ATFDFLSLSSSVULUSUV"))
_PATTERNS: Final = {
    "AS": re.compile(r"\d{3}[DWMY]"),
    "DA": re.compile(r"\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"),
    "TM": re.compile(r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?"),
    "UI": re.compile(r"[0-9]+(\.[0-9]+)*"),
}
_OLD_FORM: Final = {"DA": {ord("."): ""}, "TM": {ord(":"): ""}}  # 1993.05.31 and 14:04:38 of ACR-NEMA
_MAX_DEPTH: Final = 8  # of sequences
_MAX_ELEMENTS: Final = 1_000_000
_MAX_TEXT: Final = 2**24  # characters
_BATCH: Final = 16  # files in one call


def read_originals(info: ImageInfo) -> "list[Dataset]":
    """The headers of the files of a study image's planes: one per file, in the order of planes.

    `info` has real paths. Raises `ReadError` where a file cannot be read, or lacks UIDs, so that no object could refer
    to it.
    """
    sources = list(dict.fromkeys(plane.source for plane in info.planes if plane.source))
    found = read_headers(sources or info.files, info.id)
    for number, dataset in enumerate(found, 1):
        missing = [name for name in UIDS if not dataset.get(name)]
        if missing or dataset.StudyInstanceUID != found[0].StudyInstanceUID:
            value = f"no {', '.join(missing)} in file {number}" if missing else f"another study in file {number}"
            rule = "must have the UIDs of one study in its files, so that new objects can be filed in it"
            remedy = "Use another report, such as findings-csv, or give the files their UIDs back"
            raise ReadError(info.id, rule, value=value, remedy=remedy)
    return found


def read_headers(paths: Sequence[str], name: str, *, frames: bool = True) -> "list[Dataset]":
    """The headers of DICOM files, in order, with the attributes in `ATTRIBUTES`, texts as Unicode.

    `SpecificCharacterSet` becomes UTF-8 (ISO_IR 192). Dates and times of ACR-NEMA get DICOM's form; a date, time, age
    or UID that has no such form is left empty. `frames`: also the functional groups of each frame. Raises `ReadError`
    about `name`, which may be shown.
    """
    decoder, found = Decoder(), list["Dataset"]()
    for start in range(0, len(paths), _BATCH):
        try:
            answers = decoder.originals(paths[start : start + _BATCH], frames=frames)
            found += [_unpack(one) for one in answers]
        except FaultError as fault:
            raise as_error(name, fault) from None
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise as_error(name, FaultError("damaged", type(error).__name__)) from None
    return found


def pack(dataset: "Dataset", *, frames: bool = True) -> list[Any]:
    """The attributes of a header as values for JSON; runs in the sandboxed process. Raises `FaultError`."""
    left = [_MAX_ELEMENTS, _MAX_TEXT]
    names = ATTRIBUTES if frames else ATTRIBUTES - {_OWN}
    return _packed(dataset, names, left, 0)


def _packed(dataset: "Dataset", names: frozenset[str] | None, left: list[int], depth: int) -> list[Any]:
    """The elements of a data set, those of `names` where given: [tag, vr, values] each, values of SQ being such lists.

    `left` are the elements and characters that may still come.
    """
    from pydicom.datadict import keyword_for_tag

    found: list[Any] = []
    if depth > _MAX_DEPTH:
        raise FaultError("nested")
    for tag in sorted(dataset.keys()):
        keyword = keyword_for_tag(tag)
        if tag.is_private or not keyword or (names is not None and keyword not in names):
            continue
        try:
            element = dataset[tag]
            vr, value = element.VR, element.value
        except Exception as error:
            if keyword in _IDENTITY:
                raise FaultError("damaged", keyword) from error
            continue
        many = list(value) if vr == "SQ" or element.VM > 1 else [] if value is None or value == "" else [value]
        if vr == "SQ":
            inner = frozenset(_GROUPS.split()) if keyword in {_SHARED, _OWN} else None
            many = [_packed(item, inner, left, depth + 1) for item in many]
        elif vr in _TEXTS:
            many = [text for one in many if _has_form(vr, text := str(one).translate(_OLD_FORM.get(vr, {})))]
            left[1] -= sum(map(len, many))
        elif vr in _NUMBERS:
            many = [float(one) if vr in {"FD", "FL"} else int(one) for one in many]
        else:
            continue
        left[0] -= 1 + len(many)
        if min(left) < 0:
            raise FaultError("header-size")
        found.append([f"{int(tag):08X}", vr, many])
    return found


def _has_form(vr: str, text: str) -> bool:
    pattern = _PATTERNS.get(vr)
    return pattern is None or pattern.fullmatch(text.strip("\0 ")) is not None


def _unpack(elements: object, depth: int = 0) -> "Dataset":
    """The data set that was packed. Raises `ValueError` or `TypeError` for anything else."""
    from pydicom import config
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence as Items

    if depth > _MAX_DEPTH + 1:
        msg = "nested"
        raise ValueError(msg)
    dataset = Dataset()
    for tag, vr, values in _rows(elements):
        if vr == "SQ":
            value: Any = Items([_unpack(item, depth + 1) for item in values])
        else:
            expected = str if vr in _TEXTS else int | float
            if vr not in _TEXTS | _NUMBERS or not all(isinstance(one, expected) for one in values):
                raise ValueError(vr)
            value = None if not values else values[0] if len(values) == 1 else values
        dataset.add(DataElement(int(tag, 16), vr, value, validation_mode=config.IGNORE))
    if depth == 0:
        dataset.SpecificCharacterSet = "ISO_IR 192"
    return dataset


def _rows(elements: object) -> Iterator[tuple[str, str, list[Any]]]:
    for row in cast("list[object]", elements):
        tag, vr, values = cast("list[Any]", row)
        if not (isinstance(tag, str) and isinstance(vr, str) and isinstance(values, list)):
            msg = "not packed"
            raise TypeError(msg)
        yield tag, vr, cast("list[Any]", values)
