"""Parsing of DICOM headers. Runs in the sandboxed process; nothing but `FileMetadata` leaves it.

Sources: PS3.3 C.7.6 (image modules), C.7.6.16 (functional groups), C.11 (grey transformations).
"""
# pydicom's values have the type of their tag, which is known only when it is read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, BinaryIO

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from .codecs import codec_versions
from .faults import FaultError
from .metadata import SPLIT_ATTRIBUTES, FrameMetadata, Vector, Window
from .source import HEAD_BYTES, MAX_FRAME_PIXELS, MAX_FRAMES, inflate, sniff

IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
_PIXEL_DATA = {0x7FE00008, 0x7FE00009, 0x7FE00010}

_RLE = "1.2.840.10008.1.2.5"
_RLE_RATIO = 64  # two bytes become at most 128 (PS3.5 G.3)
_UID = re.compile(r"^[0-9]+(\.[0-9]+)*$")
_ORIENTATION = re.compile(r"^[ALRHFP]{1,3}$")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MODALITIES = _words(
    "AR BDUS BI BMD CR CT CTPROTOCOL DG DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT IVUS KER KO LEN LS M3D MG"
    " MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE RTINTENT"
    " RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA XA XAPROTOCOL XC"
)
BODY_PARTS = _words(
    "ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA ARM BACK BLADDER BRAIN BREAST CALF CARDIAC CAROTID CHEST CHESTABDOMEN"
    " CHESTABDPELVIS CLAVICLE COCCYX COLON CSPINE ELBOW EXTREMITY EYE FACE FEMUR FINGER FOOT FOREARM GALLBLADDER HAND"
    " HEAD HEADNECK HEART HIP HUMERUS JAW KIDNEY KNEE LEG LIVER LSPINE LSSPINE LUNG MANDIBLE MAXILLA NECK ORBIT"
    " PANCREAS PATELLA PELVIS PROSTATE RIB SCAPULA SHOULDER SKULL SPINE SPLEEN STERNUM TESTIS THIGH"
    " THYROID TIBIA TOE TSPINE UTERUS WHOLEBODY WRIST"
)
IMAGE_TYPES = _words(
    "ORIGINAL DERIVED PRIMARY SECONDARY AXIAL LOCALIZER MPR MIP M P R I M_FFE M_SE PROJECTION SINGLE BIPLANE VOLUME"
    " RESAMPLED SAVE REFORMATTED CSA OTHER NONE ADC EPI NORM ND DIFFUSION TRACEW FA"
)
VIEWS = _words("AP PA LL RL RLD LLD RLO LLO CC MLO ML LM LMO XCCL XCCM FB SIO LAO RAO LPO RPO LATERAL")
RESCALE_TYPES = _words("HU OD HGML Z_EFF ED EDW HU_MOD PCT US")
PET_UNITS = {"BQML": "Bq/ml", "CNTS": "counts", "GML": "g/ml", "PROPCNTS": "counts"}
WINDOW_NAMES = _words(
    "WINDOW1 WINDOW2 WINDOW3 ABDOMEN BONE BRAIN LIVER LUNG MEDIASTINUM PELVIS SOFT_TISSUE SPINE NORMAL HARDER SOFTER"
    " HARD SOFT USER DEFAULT"
)


_CODES: Mapping[str, tuple[str, frozenset[str]]] = {
    "modality": ("Modality", MODALITIES),
    "conversion_type": ("ConversionType", _words("DV DI DF WSD SD SI DRW SYN")),
    "body_part": ("BodyPartExamined", BODY_PARTS),
    "view": ("ViewPosition", VIEWS),
    "patient_position": ("PatientPosition", _words("HFS HFP FFS FFP HFDR HFDL FFDR FFDL")),
    "lossy": ("LossyImageCompression", _words("00 01")),
    "burned_in": ("BurnedInAnnotation", _words("YES NO")),
    "recognisable": ("RecognizableVisualFeatures", _words("YES NO")),
    "identity_removed": ("PatientIdentityRemoved", _words("YES NO")),
    "calibration": ("PixelSpacingCalibrationType", _words("GEOMETRY FIDUCIAL")),
    "presentation": ("PresentationIntentType", frozenset(("FOR PRESENTATION", "FOR PROCESSING"))),
}
"""Field of `FileMetadata` → (attribute, values that may leave the sandboxed process)."""


def read_header(file: BinaryIO) -> dict[str, Any]:
    """A file's metadata as plain values: see `FileMetadata.from_json`. Raises `FaultError`."""
    file.seek(0)
    kind = sniff(file.read(HEAD_BYTES))
    if kind not in {"dicom", "no-preamble"}:
        raise FaultError("not-dicom")
    dataset, pixels = parse(file)
    return _metadata(dataset, pixels, file.seek(0, 2), header=kind == "dicom")


def parse(file: BinaryIO) -> tuple[Dataset, int | None]:
    """The data set up to its pixel data, and the length of that in bytes (-1 where encapsulated, None without any)."""
    file = inflate(file)
    found: list[int] = []

    def at_pixels(tag: BaseTag, _: str | None, length: int) -> bool:
        if int(tag) in _PIXEL_DATA:
            found.append(-1 if length == 0xFFFFFFFF else length)
        return int(tag) in _PIXEL_DATA

    end = file.seek(0, 2)
    file.seek(0)
    try:
        dataset = read_partial(file, stop_when=at_pixels, force=True)
    except InvalidDicomError as error:
        raise FaultError("not-dicom") from error
    left = end - file.tell() - 8  # the reader has gone back to the tag of the pixel data
    if found and found[0] > left:
        raise FaultError("short", f"{found[0]} bytes stated, {left} bytes left in the file")
    return dataset, found[0] if found else None


def transfer_syntax_of(dataset: Dataset) -> str:
    """The transfer syntax: as stated, else as the data set was found to be encoded."""
    stated = str(getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID", "") or "")
    if _UID.match(stated):
        return EXPLICIT_LITTLE if stated == "1.2.840.10008.1.2.1.99" else stated
    implicit, little = dataset.original_encoding
    return IMPLICIT_LITTLE if implicit else EXPLICIT_LITTLE if little else EXPLICIT_BIG


def _metadata(dataset: Dataset, pixels: int | None, size: int, *, header: bool) -> dict[str, Any]:
    meta = getattr(dataset, "file_meta", Dataset())
    sop_class = _uid(dataset, "SOPClassUID") or _uid(meta, "MediaStorageSOPClassUID")
    sop = _uid(dataset, "SOPInstanceUID")
    rows, columns = integer(dataset, "Rows") or 0, integer(dataset, "Columns") or 0
    image = pixels is not None and rows > 0 and columns > 0
    if not image and not sop_class:
        raise FaultError("no-pixels" if sop or header else "not-dicom")
    if not header and not (sop_class and sop) and not image:
        raise FaultError("not-dicom")
    count = max(1, integer(dataset, "NumberOfFrames") or 1) if image else 0
    syntax = transfer_syntax_of(dataset)
    if image:
        _check_limits(dataset, rows, columns, count)
        _check_length(dataset, pixels or 0, rows * columns * count)
        check_compression_ratio(dataset, syntax, size)
    frames = _frames(dataset, count) if image else []
    return {
        **{name: _code(dataset, attribute, known) for name, (attribute, known) in _CODES.items()},
        "sop_class": sop_class,
        "sop": sop,
        "study": _uid(dataset, "StudyInstanceUID"),
        "series": _uid(dataset, "SeriesInstanceUID"),
        "frame_of_reference": _uid(dataset, "FrameOfReferenceUID"),
        "identity": _digest(
            dataset, "PatientID", "PatientName", "StudyID", "StudyDate", "StudyTime", "AccessionNumber"
        ),
        "transfer_syntax": syntax,
        "decoder": "; ".join(codec_versions(syntax)),
        "header": header,
        "rows": rows,
        "columns": columns,
        "samples": integer(dataset, "SamplesPerPixel") or 1,
        "photometric": _photometric(dataset),
        "bits": integer(dataset, "BitsStored") or integer(dataset, "BitsAllocated") or 0,
        "image_type": [text if text in IMAGE_TYPES else "" for text in _texts(dataset, "ImageType")][:8],
        "quantity": _quantity(dataset),
        "instance": integer(dataset, "InstanceNumber"),
        "laterality": _laterality(dataset),
        "patient_orientation": _orientation_letters(dataset),
        "padding": "PixelPaddingValue" in dataset,
        "pixel_spacing": _positive(dataset, "PixelSpacing"),
        "imager_spacing": _positive(dataset, "ImagerPixelSpacing"),
        "magnification": _number(dataset, "EstimatedRadiographicMagnificationFactor"),
        "us_region": _us_region(dataset),
        "scaled": "RealWorldValueMappingSequence" in dataset,
        "count": count,
        "frames": [asdict(frame) for frame in frames],
    }


def _check_limits(dataset: Dataset, rows: int, columns: int, count: int) -> None:
    samples, bits = integer(dataset, "SamplesPerPixel") or 1, integer(dataset, "BitsAllocated")
    if not bits:
        raise FaultError("no-size")
    if rows * columns * samples > MAX_FRAME_PIXELS or samples > 4 or bits > 64:
        raise FaultError("too-large", f"{columns} × {rows} pixels of {samples} × {bits} bits")
    if count > MAX_FRAMES:
        raise FaultError("too-many-frames", str(count))


def _check_length(dataset: Dataset, length: int, positions: int) -> None:
    """Refuse native pixel data shorter than the header states; YBR_FULL_422 stores two samples of three."""
    samples, bits = integer(dataset, "SamplesPerPixel") or 1, integer(dataset, "BitsAllocated") or 0
    expected = positions * samples * bits // 8
    if _photometric(dataset) == "YBR_FULL_422":
        expected = expected * 2 // 3
    if 0 <= length < expected:
        raise FaultError("short", f"{length} of {expected} bytes")


def check_compression_ratio(dataset: Dataset, syntax: str, size: int) -> None:
    """Refuse run-length pixel data that a file of `size` bytes cannot hold, before anything is allocated."""
    frame = (
        math.prod(integer(dataset, name) or 1 for name in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")) // 8
    )
    if syntax == _RLE and frame > size * _RLE_RATIO:
        raise FaultError("ratio", f"{frame} bytes from at most {size}")


def functional_groups(dataset: Dataset, count: int) -> list[Sequence[Dataset]]:
    """For each frame its own functional groups and the shared ones; [] for files without functional groups."""
    shared = _items(dataset, "SharedFunctionalGroupsSequence")[:1]
    own = _items(dataset, "PerFrameFunctionalGroupsSequence")
    if not shared and not own:
        return []
    return [[*own[at : at + 1], *shared] for at in range(count)]


def functional_group(groups: Sequence[Dataset], name: str, within: Dataset) -> Dataset:
    """The item of functional group `name` for a frame, or the data set itself in files without functional groups."""
    for group in groups:
        if items := _items(group, name):
            return items[0]
    return Dataset() if groups else within


def _frames(dataset: Dataset, count: int) -> list[FrameMetadata]:
    """The metadata of each frame; of one frame where all are alike."""
    if not (groups := functional_groups(dataset, count)):
        return [_frame(dataset, [])]
    return [_frame(dataset, group) for group in groups]


def _frame(dataset: Dataset, groups: Sequence[Dataset]) -> FrameMetadata:
    voi = functional_group(groups, "FrameVOILUTSequence", dataset)
    content = functional_group(groups, "FrameContentSequence", dataset)
    function = _code(voi, "VOILUTFunction", frozenset(("LINEAR", "LINEAR_EXACT", "SIGMOID"))) or "LINEAR"
    orientation = _numbers(functional_group(groups, "PlaneOrientationSequence", dataset), "ImageOrientationPatient", 6)
    position = _numbers(functional_group(groups, "PlanePositionSequence", dataset), "ImagePositionPatient", 3)
    types = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")
    typed = next(
        (item for kind in types for item in [functional_group(groups, kind, Dataset())] if "FrameType" in item), dataset
    )
    splits = {
        "stack": _digest(content, "StackID"),
        "acquisition": _digest(content if groups else dataset, "FrameAcquisitionNumber", "AcquisitionNumber"),
        "echo time": _digest(functional_group(groups, "MREchoSequence", dataset), "EffectiveEchoTime", "EchoTime"),
        "temporal position": _digest(content, "TemporalPositionIndex", "TemporalPositionIdentifier"),
        "trigger time": _digest(
            functional_group(groups, "CardiacSynchronizationSequence", dataset),
            "NominalCardiacTriggerDelayTime",
            "TriggerTime",
        ),
        "b-value": _digest(functional_group(groups, "MRDiffusionSequence", dataset), "DiffusionBValue"),
        "image type": _digest(typed, "FrameType", "ImageType"),
        "content time": _digest(dataset, "ContentTime"),
    }
    return FrameMetadata(
        position=None if position is None else _vector(position),
        orientation=None if orientation is None else (_vector(orientation[:3]), _vector(orientation[3:])),
        spacing=_positive(functional_group(groups, "PixelMeasuresSequence", dataset), "PixelSpacing"),
        windows=tuple(_windows(voi)),
        voi=function,
        splits=tuple(splits[name] for name in SPLIT_ATTRIBUTES),
        tables=tuple(_digest(item, "LUTDescriptor", "LUTData") for item in _items(voi, "VOILUTSequence")),
    )


def _windows(voi: Dataset) -> list[Window]:
    centres, widths = _many(voi, "WindowCenter"), _many(voi, "WindowWidth")
    names = _texts(voi, "WindowCenterWidthExplanation")
    return [
        Window(centre, width, _known(names[at : at + 1], WINDOW_NAMES))
        for at, (centre, width) in enumerate(zip(centres, widths, strict=False))
        if width > 0
    ][:16]


def _quantity(dataset: Dataset) -> str:
    """The unit of modality values: HU only where the file states it, or for original slices of CT."""
    stated = _code(dataset, "RescaleType", RESCALE_TYPES)
    if not stated and (items := _items(dataset, "PixelValueTransformationSequence")):
        stated = _code(items[0], "RescaleType", RESCALE_TYPES)
    modality = _code(dataset, "Modality", MODALITIES)
    original = _texts(dataset, "ImageType")[:1] == ["ORIGINAL"]
    if stated and stated != "US":
        return stated
    if modality == "PT":
        return PET_UNITS.get(_code(dataset, "Units", frozenset(PET_UNITS)), "number")
    plain_ct = str(dataset.get("SOPClassUID", "")) == "1.2.840.10008.5.1.4.1.1.2" and "RescaleIntercept" in dataset
    return "HU" if not stated and modality == "CT" and plain_ct and original else "number"


def _us_region(dataset: Dataset) -> tuple[float, float] | None:
    """Mm (between rows, between columns) of an ultrasound's only region, where its units are centimetres."""
    regions = _items(dataset, "SequenceOfUltrasoundRegions")
    if len(regions) != 1 or [integer(regions[0], f"PhysicalUnits{axis}Direction") for axis in "XY"] != [3, 3]:
        return None
    x, y = _number(regions[0], "PhysicalDeltaX"), _number(regions[0], "PhysicalDeltaY")
    return (abs(y) * 10, abs(x) * 10) if x and y else None


def _laterality(dataset: Dataset) -> str:
    for name in ("ImageLaterality", "Laterality"):
        if found := _code(dataset, name, frozenset("RLUB")):
            return found
    return ""


def _orientation_letters(dataset: Dataset) -> str:
    letters = _texts(dataset, "PatientOrientation")
    return "\\".join(letters) if len(letters) == 2 and all(map(_ORIENTATION.match, letters)) else ""


def _photometric(dataset: Dataset) -> str:
    known = _words("MONOCHROME1 MONOCHROME2 RGB YBR_FULL YBR_FULL_422 YBR_PARTIAL_420 YBR_ICT YBR_RCT")
    found = _texts(dataset, "PhotometricInterpretation")[:1]
    return "PALETTE COLOR" if found == ["PALETTE COLOR"] else _known(found, known)


def _items(dataset: Dataset, name: str) -> list[Dataset]:
    try:
        return list(dataset.get(name) or [])
    except (TypeError, ValueError, NotImplementedError):
        return []


def _values(dataset: Dataset, name: str) -> list[Any]:
    try:
        value = dataset.get(name)
    except (TypeError, ValueError, NotImplementedError, OverflowError):
        return []
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]


def _many(dataset: Dataset, name: str) -> list[float]:
    try:
        values = [float(value) for value in _values(dataset, name)]
    except (TypeError, ValueError, OverflowError):
        return []
    return values if all(map(math.isfinite, values)) else []


def _numbers(dataset: Dataset, name: str, count: int) -> list[float] | None:
    values = _many(dataset, name)
    return values if len(values) == count else None


def _number(dataset: Dataset, name: str) -> float | None:
    values = _many(dataset, name)
    return values[0] if values else None


def integer(dataset: Dataset, name: str) -> int | None:
    """A tag's first value as an integer; None without a number."""
    value = _number(dataset, name)
    return None if value is None else int(value)


def _positive(dataset: Dataset, name: str) -> tuple[float, float] | None:
    values = _numbers(dataset, name, 2)
    return (values[0], values[1]) if values and min(values) > 0 else None


def _texts(dataset: Dataset, name: str) -> list[str]:
    return [str(value).strip().upper() for value in _values(dataset, name)]


def _code(dataset: Dataset, name: str, known: frozenset[str]) -> str:
    return _known(_texts(dataset, name)[:1], known)


def _known(texts: list[str], known: frozenset[str]) -> str:
    return texts[0] if texts and texts[0] in known else ""


def _uid(dataset: Dataset, name: str) -> str:
    text = str(dataset.get(name) or "").strip("\0 ")
    return text if len(text) <= 64 and _UID.match(text) else ""


def _vector(values: Sequence[float]) -> Vector:
    return values[0], values[1], values[2]


def _digest(dataset: Dataset, *names: str) -> str:
    """The values of attributes as a digest; "" where there are none."""
    values = [[str(value) for value in _values(dataset, name)] for name in names]
    return hashlib.sha256(repr(values).encode("utf-8", "replace")).hexdigest()[:16] if any(values) else ""
