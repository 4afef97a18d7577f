"""DICOM headers into facts. Runs in the limited process; nothing but `FileMetadata` leaves it.

Sources: PS3.3 C.7.6 (image modules), C.7.6.16 (functional groups), C.11 (grey transformations).
"""
# pydicom's values have the type of their tag, which is known only when it is read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, BinaryIO

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from .codecs import decoders
from .faults import FaultError
from .metadata import SPLITS, FrameMetadata, Vector, Window
from .source import FRAME_PIXELS, FRAMES, inflated, sniff

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
_PIXELS = {0x7FE00008, 0x7FE00009, 0x7FE00010}

_RLE = "1.2.840.10008.1.2.5"
_RLE_GROWTH = 64  # two bytes become at most 128 (PS3.5 G.3)
_UID = re.compile(r"^[0-9]+(\.[0-9]+)*$")
_ORIENTATION = re.compile(r"^[ALRHFP]{1,3}$")


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


MODALITIES = words(
    "AR BDUS BI BMD CR CT CTPROTOCOL DG DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT IVUS KER KO LEN LS M3D MG"
    " MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE RTINTENT"
    " RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA XA XAPROTOCOL XC"
)
BODY_PARTS = words(
    "ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA ARM BACK BLADDER BRAIN BREAST CALF CARDIAC CAROTID CHEST CHESTABDOMEN"
    " CHESTABDPELVIS CLAVICLE COCCYX COLON CSPINE ELBOW EXTREMITY EYE FACE FEMUR FINGER FOOT FOREARM GALLBLADDER HAND"
    " HEAD HEADNECK HEART HIP HUMERUS JAW KIDNEY KNEE LEG LIVER LSPINE LSSPINE LUNG MANDIBLE MAXILLA NECK ORBIT"
    " PANCREAS PATELLA PELVIS PROSTATE RIB SCAPULA SHOULDER SKULL SPINE SPLEEN STERNUM TESTIS THIGH"
    " THYROID TIBIA TOE TSPINE UTERUS WHOLEBODY WRIST"
)
IMAGE_TYPES = words(
    "ORIGINAL DERIVED PRIMARY SECONDARY AXIAL LOCALIZER MPR MIP M P R I M_FFE M_SE PROJECTION SINGLE BIPLANE VOLUME"
    " RESAMPLED SAVE REFORMATTED CSA OTHER NONE ADC EPI NORM ND DIFFUSION TRACEW FA"
)
VIEWS = words("AP PA LL RL RLD LLD RLO LLO CC MLO ML LM LMO XCCL XCCM FB SIO LAO RAO LPO RPO LATERAL")
RESCALES = words("HU OD HGML Z_EFF ED EDW HU_MOD PCT US")
UNITS = {"BQML": "Bq/ml", "CNTS": "counts", "GML": "g/ml", "PROPCNTS": "counts"}
WINDOW_NAMES = words(
    "WINDOW1 WINDOW2 WINDOW3 ABDOMEN BONE BRAIN LIVER LUNG MEDIASTINUM PELVIS SOFT_TISSUE SPINE NORMAL HARDER SOFTER"
    " HARD SOFT USER DEFAULT"
)


def read_header(file: BinaryIO) -> dict[str, Any]:
    """A file's facts as plain values. Raises `FaultError`."""
    file.seek(0)
    kind = sniff(file.read(4096))
    if kind not in {"dicom", "bare"}:
        raise FaultError("not-dicom")
    dataset, pixels = parse(file)
    return _facts(dataset, pixels, file.seek(0, 2), header=kind == "dicom")


def parse(file: BinaryIO) -> tuple[Dataset, int | None]:
    """The data set up to its pixels, and the pixels' length in bytes (-1 where encapsulated, None without any)."""
    file = inflated(file)
    found: list[int] = []

    def at_pixels(tag: BaseTag, _: str | None, length: int) -> bool:
        if int(tag) in _PIXELS:
            found.append(-1 if length == 0xFFFFFFFF else length)
        return int(tag) in _PIXELS

    end = file.seek(0, 2)
    file.seek(0)
    try:
        dataset = read_partial(file, stop_when=at_pixels, force=True)
    except InvalidDicomError as error:
        raise FaultError("not-dicom") from error
    left = end - file.tell() - 8  # the reader has gone back to the tag of the pixels
    if found and found[0] > left:
        raise FaultError("short", f"{found[0]} bytes stated, {left} bytes left in the file")
    return dataset, found[0] if found else None


def syntax_of(dataset: Dataset) -> str:
    """The transfer syntax: what the file states, else how it was found to be encoded."""
    stated = str(getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID", "") or "")
    if _UID.match(stated):
        return EXPLICIT if stated == "1.2.840.10008.1.2.1.99" else stated
    implicit, little = dataset.original_encoding
    return IMPLICIT if implicit else EXPLICIT if little else BIG


def _facts(dataset: Dataset, pixels: int | None, size: int, *, header: bool) -> dict[str, Any]:
    meta = getattr(dataset, "file_meta", Dataset())
    sop_class = _uid(dataset, "SOPClassUID") or _uid(meta, "MediaStorageSOPClassUID")
    sop = _uid(dataset, "SOPInstanceUID")
    rows, columns = whole(dataset, "Rows") or 0, whole(dataset, "Columns") or 0
    image = pixels is not None and rows > 0 and columns > 0
    if not image and not sop_class:
        raise FaultError("no-pixels" if sop or header else "not-dicom")
    if not header and not (sop_class and sop) and not image:
        raise FaultError("not-dicom")
    count = max(1, whole(dataset, "NumberOfFrames") or 1) if image else 0
    syntax = syntax_of(dataset)
    if image:
        _check_budget(dataset, rows, columns, count)
        _check_length(dataset, pixels or 0, rows * columns * count)
        check_growth(dataset, syntax, size)
    frames = _frames(dataset, count) if image else []
    return {
        "sop_class": sop_class,
        "sop": sop,
        "study": _uid(dataset, "StudyInstanceUID"),
        "series": _uid(dataset, "SeriesInstanceUID"),
        "frame_of_reference": _uid(dataset, "FrameOfReferenceUID"),
        "identity": _digest(
            dataset, "PatientID", "PatientName", "StudyID", "StudyDate", "StudyTime", "AccessionNumber"
        ),
        "modality": _code(dataset, "Modality", MODALITIES),
        "transfer_syntax": syntax,
        "decoder": "; ".join(decoders(syntax)),
        "header": header,
        "rows": rows,
        "columns": columns,
        "samples": whole(dataset, "SamplesPerPixel") or 1,
        "photometric": _photometric(dataset),
        "bits": whole(dataset, "BitsStored") or whole(dataset, "BitsAllocated") or 0,
        "image_type": [text if text in IMAGE_TYPES else "" for text in _texts(dataset, "ImageType")][:8],
        "conversion_type": _code(
            dataset, "ConversionType", frozenset(("DV", "DI", "DF", "WSD", "SD", "SI", "DRW", "SYN"))
        ),
        "quantity": _quantity(dataset),
        "instance": whole(dataset, "InstanceNumber"),
        "body_part": _code(dataset, "BodyPartExamined", BODY_PARTS),
        "laterality": _laterality(dataset),
        "view": _code(dataset, "ViewPosition", VIEWS),
        "patient_orientation": _orientation_letters(dataset),
        "patient_position": _code(
            dataset, "PatientPosition", frozenset(("HFS", "HFP", "FFS", "FFP", "HFDR", "HFDL", "FFDR", "FFDL"))
        ),
        "lossy": _code(dataset, "LossyImageCompression", frozenset(("00", "01"))),
        "burned_in": _code(dataset, "BurnedInAnnotation", frozenset(("YES", "NO"))),
        "recognisable": _code(dataset, "RecognizableVisualFeatures", frozenset(("YES", "NO"))),
        "identity_removed": _code(dataset, "PatientIdentityRemoved", frozenset(("YES", "NO"))),
        "padding": "PixelPaddingValue" in dataset,
        "pixel_spacing": _positive(dataset, "PixelSpacing"),
        "imager_spacing": _positive(dataset, "ImagerPixelSpacing"),
        "magnification": _number(dataset, "EstimatedRadiographicMagnificationFactor"),
        "calibration": _code(dataset, "PixelSpacingCalibrationType", frozenset(("GEOMETRY", "FIDUCIAL"))),
        "us_region": _us_region(dataset),
        "spacing_between": _number(dataset, "SpacingBetweenSlices"),
        "presentation": _code(dataset, "PresentationIntentType", frozenset(("FOR PRESENTATION", "FOR PROCESSING"))),
        "scaled": "RealWorldValueMappingSequence" in dataset,
        "count": count,
        "frames": [asdict(frame) for frame in frames],
    }


def _check_budget(dataset: Dataset, rows: int, columns: int, count: int) -> None:
    samples, bits = whole(dataset, "SamplesPerPixel") or 1, whole(dataset, "BitsAllocated")
    if not bits:
        raise FaultError("no-size")
    if rows * columns * samples > FRAME_PIXELS or samples > 4 or bits > 64:
        raise FaultError("too-large", f"{columns} × {rows} pixels of {samples} × {bits} bits")
    if count > FRAMES:
        raise FaultError("too-many-frames", str(count))


def _check_length(dataset: Dataset, length: int, positions: int) -> None:
    """Refuse pixels that are not encapsulated and shorter than the header says; YBR_FULL_422 stores two of three."""
    samples, bits = whole(dataset, "SamplesPerPixel") or 1, whole(dataset, "BitsAllocated") or 0
    expected = positions * samples * bits // 8
    if _photometric(dataset) == "YBR_FULL_422":
        expected = expected * 2 // 3
    if 0 <= length < expected:
        raise FaultError("short", f"{length} of {expected} bytes")


def check_growth(dataset: Dataset, syntax: str, size: int) -> None:
    """Refuse run-length pixels that could not come from a file of `size` bytes, before anything is allocated."""
    frame = (
        math.prod(whole(dataset, name) or 1 for name in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")) // 8
    )
    if syntax == _RLE and frame > size * _RLE_GROWTH:
        raise FaultError("ratio", f"{frame} bytes from at most {size}")


def groups(dataset: Dataset, count: int) -> list[Sequence[Dataset]]:
    """For each frame its own functional groups and the shared ones, in that order; empty for a plain image."""
    shared = _items(dataset, "SharedFunctionalGroupsSequence")[:1]
    own = _items(dataset, "PerFrameFunctionalGroupsSequence")
    if not shared and not own:
        return []
    return [[*own[at : at + 1], *shared] for at in range(count)]


def macro(places: Sequence[Dataset], name: str, within: Dataset) -> Dataset:
    """The item of functional group `name` for a frame, or the data set itself where the file has no such groups."""
    for place in places:
        if items := _items(place, name):
            return items[0]
    return Dataset() if places else within


def _frames(dataset: Dataset, count: int) -> list[FrameMetadata]:
    """Facts of each frame; of one frame where all are alike."""
    if not (places := groups(dataset, count)):
        return [_frame(dataset, [])]
    return [_frame(dataset, place) for place in places]


def _frame(dataset: Dataset, places: Sequence[Dataset]) -> FrameMetadata:
    voi = macro(places, "FrameVOILUTSequence", dataset)
    content = macro(places, "FrameContentSequence", dataset)
    function = _code(voi, "VOILUTFunction", frozenset(("LINEAR", "LINEAR_EXACT", "SIGMOID"))) or "LINEAR"
    orientation = _numbers(macro(places, "PlaneOrientationSequence", dataset), "ImageOrientationPatient", 6)
    position = _numbers(macro(places, "PlanePositionSequence", dataset), "ImagePositionPatient", 3)
    kinds = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")
    typed = next((item for kind in kinds for item in [macro(places, kind, Dataset())] if "FrameType" in item), dataset)
    splits = {
        "stack": _digest(content, "StackID"),
        "acquisition": _digest(content if places else dataset, "FrameAcquisitionNumber", "AcquisitionNumber"),
        "echo time": _digest(macro(places, "MREchoSequence", dataset), "EffectiveEchoTime", "EchoTime"),
        "temporal position": _digest(content, "TemporalPositionIndex", "TemporalPositionIdentifier"),
        "trigger time": _digest(
            macro(places, "CardiacSynchronizationSequence", dataset), "NominalCardiacTriggerDelayTime", "TriggerTime"
        ),
        "b-value": _digest(macro(places, "MRDiffusionSequence", dataset), "DiffusionBValue"),
        "image type": _digest(typed, "FrameType", "ImageType"),
        "content time": _digest(dataset, "ContentTime"),
    }
    return FrameMetadata(
        position=None if position is None else _vector(position),
        orientation=None if orientation is None else (_vector(orientation[:3]), _vector(orientation[3:])),
        spacing=_positive(macro(places, "PixelMeasuresSequence", dataset), "PixelSpacing"),
        windows=tuple(_windows(voi)),
        voi=function,
        splits=tuple(splits[name] for name in SPLITS),
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
    """What the modality values are, in words that are known: HU only where the file says so, or is a CT's original."""
    stated = _code(dataset, "RescaleType", RESCALES)
    if not stated and (items := _items(dataset, "PixelValueTransformationSequence")):
        stated = _code(items[0], "RescaleType", RESCALES)
    modality = _code(dataset, "Modality", MODALITIES)
    original = _texts(dataset, "ImageType")[:1] == ["ORIGINAL"]
    if stated and stated != "US":
        return stated
    if modality == "PT":
        return UNITS.get(_code(dataset, "Units", frozenset(UNITS)), "number")
    plain_ct = str(dataset.get("SOPClassUID", "")) == "1.2.840.10008.5.1.4.1.1.2" and "RescaleIntercept" in dataset
    return "HU" if not stated and modality == "CT" and plain_ct and original else "number"


def _us_region(dataset: Dataset) -> tuple[float, float] | None:
    """The mm (between rows, between columns) of an ultrasound's only region, where it is in centimetres both ways."""
    regions = _items(dataset, "SequenceOfUltrasoundRegions")
    if len(regions) != 1 or [whole(regions[0], f"PhysicalUnits{axis}Direction") for axis in "XY"] != [3, 3]:
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
    known = "MONOCHROME1 MONOCHROME2 RGB YBR_FULL YBR_FULL_422 YBR_PARTIAL_420 YBR_ICT YBR_RCT"
    found = _texts(dataset, "PhotometricInterpretation")[:1]
    return "PALETTE COLOR" if found == ["PALETTE COLOR"] else _known(found, words(known))


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


def whole(dataset: Dataset, name: str) -> int | None:
    """A tag's first value as a whole number; None where there is none, or no number."""
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
    """What the data set says under those names as a digest; "" where it says nothing."""
    said = [[str(value) for value in _values(dataset, name)] for name in names]
    return hashlib.sha256(repr(said).encode("utf-8", "replace")).hexdigest()[:16] if any(said) else ""
