"""Parsing of DICOM headers. Runs in the sandboxed process; nothing but `FileMetadata` leaves it.

Sources: PS3.3 C.7.6 (image modules), C.7.6.16 (functional groups), C.11 (grey transformations).
"""
# pydicom's values have the type of their tag, which is known only when it is read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, BinaryIO

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from .anatomy import body_part
from .attributes import code, digest, integer, is_uid, items, number, positive_pair, texts, uid, words
from .codecs import codec_versions
from .faults import FaultError
from .frames import functional_groups, read_frames
from .mosaic import mosaic_note, mosaic_of
from .source import HEAD_BYTES, MAX_FRAME_PIXELS, MAX_FRAMES, inflate, sniff
from .suv import suv_factor

IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
_PIXEL_DATA = {0x7FE00008, 0x7FE00009, 0x7FE00010}

_RLE = "1.2.840.10008.1.2.5"
_RLE_RATIO = 64  # two bytes become at most 128 (PS3.5 G.3)
_ORIENTATION = re.compile(r"^[ALRHFP]{1,3}$")


MODALITIES = words(
    "AR BDUS BI BMD CR CT CTPROTOCOL DG DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT IVUS KER KO LEN LS M3D MG"
    " MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE RTINTENT"
    " RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA XA XAPROTOCOL XC"
)
IMAGE_TYPES = words(
    "ORIGINAL DERIVED PRIMARY SECONDARY AXIAL LOCALIZER MPR MIP M P R I M_FFE M_SE PROJECTION SINGLE BIPLANE VOLUME"
    " RESAMPLED SAVE REFORMATTED CSA OTHER NONE ADC EPI NORM ND DIFFUSION TRACEW FA MOSAIC"
)
VIEWS = words("AP PA LL RL RLD LLD RLO LLO CC MLO ML LM LMO XCCL XCCM FB SIO LAO RAO LPO RPO LATERAL")
RESCALE_TYPES = words("HU OD HGML Z_EFF ED EDW HU_MOD PCT US")
PET_UNITS = {"BQML": "Bq/ml", "CNTS": "counts", "GML": "g/ml", "PROPCNTS": "counts"}

_CODES: Mapping[str, tuple[str, frozenset[str]]] = {
    "modality": ("Modality", MODALITIES),
    "conversion_type": ("ConversionType", words("DV DI DF WSD SD SI DRW SYN")),
    "view": ("ViewPosition", VIEWS),
    "patient_position": ("PatientPosition", words("HFS HFP FFS FFP HFDR HFDL FFDR FFDL")),
    "lossy": ("LossyImageCompression", words("00 01")),
    "burned_in": ("BurnedInAnnotation", words("YES NO")),
    "recognisable": ("RecognizableVisualFeatures", words("YES NO")),
    "identity_removed": ("PatientIdentityRemoved", words("YES NO")),
    "calibration": ("PixelSpacingCalibrationType", words("GEOMETRY FIDUCIAL")),
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
    if is_uid(stated):
        return EXPLICIT_LITTLE if stated == "1.2.840.10008.1.2.1.99" else stated
    implicit, little = dataset.original_encoding
    return IMPLICIT_LITTLE if implicit else EXPLICIT_LITTLE if little else EXPLICIT_BIG


def _metadata(dataset: Dataset, pixels: int | None, size: int, *, header: bool) -> dict[str, Any]:
    meta = getattr(dataset, "file_meta", Dataset())
    sop_class = uid(dataset, "SOPClassUID") or uid(meta, "MediaStorageSOPClassUID")
    sop = uid(dataset, "SOPInstanceUID")
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
    mosaic = mosaic_of(dataset) if image else None
    if mosaic is not None:
        rows, columns, count = mosaic.rows, mosaic.columns, mosaic.count
    frames = read_frames(dataset, count, mosaic) if image else []
    part, part_source = body_part(dataset, next(iter(functional_groups(dataset, 1)), []))
    return {
        **{name: code(dataset, attribute, known) for name, (attribute, known) in _CODES.items()},
        "sop_class": sop_class,
        "sop": sop,
        "study": uid(dataset, "StudyInstanceUID"),
        "series": uid(dataset, "SeriesInstanceUID"),
        "frame_of_reference": uid(dataset, "FrameOfReferenceUID"),
        "identity": digest(dataset, "PatientID", "PatientName", "StudyID", "StudyDate", "StudyTime", "AccessionNumber"),
        "transfer_syntax": syntax,
        "decoder": "; ".join(codec_versions(syntax)),
        "header": header,
        "body_part": part,
        "body_part_source": part_source,
        "mosaic": mosaic_note(dataset, mosaic) if image else "",
        "rows": rows,
        "columns": columns,
        "samples": integer(dataset, "SamplesPerPixel") or 1,
        "photometric": _photometric(dataset),
        "bits": integer(dataset, "BitsStored") or integer(dataset, "BitsAllocated") or 0,
        "image_type": [text if text in IMAGE_TYPES else "" for text in texts(dataset, "ImageType")][:8],
        "quantity": _quantity(dataset),
        "instance": integer(dataset, "InstanceNumber"),
        "laterality": _laterality(dataset),
        "patient_orientation": _orientation_letters(dataset),
        "padding": "PixelPaddingValue" in dataset,
        "pixel_spacing": positive_pair(dataset, "PixelSpacing"),
        "imager_spacing": positive_pair(dataset, "ImagerPixelSpacing"),
        "magnification": number(dataset, "EstimatedRadiographicMagnificationFactor"),
        "us_region": _us_region(dataset),
        "scaled": "RealWorldValueMappingSequence" in dataset,
        **_suv(dataset),
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


def _quantity(dataset: Dataset) -> str:
    """The unit of modality values: HU only where the file states it, or for original slices of CT."""
    stated = code(dataset, "RescaleType", RESCALE_TYPES)
    if not stated and (found := items(dataset, "PixelValueTransformationSequence")):
        stated = code(found[0], "RescaleType", RESCALE_TYPES)
    modality = code(dataset, "Modality", MODALITIES)
    original = texts(dataset, "ImageType")[:1] == ["ORIGINAL"]
    if stated and stated != "US":
        return stated
    if modality == "PT":
        return PET_UNITS.get(code(dataset, "Units", frozenset(PET_UNITS)), "number")
    plain_ct = str(dataset.get("SOPClassUID", "")) == "1.2.840.10008.5.1.4.1.1.2" and "RescaleIntercept" in dataset
    return "HU" if not stated and modality == "CT" and plain_ct and original else "number"


def _suv(dataset: Dataset) -> dict[str, Any]:
    """Whether SUV can be computed; the factor stays here."""
    if code(dataset, "Modality", MODALITIES) != "PT":
        return {"suv": "", "suv_notes": []}
    try:
        return {"suv": "", "suv_notes": list(suv_factor(dataset).notes)}
    except FaultError as fault:
        return {"suv": fault.value, "suv_notes": []}


def _us_region(dataset: Dataset) -> tuple[float, float] | None:
    """Mm (between rows, between columns) of an ultrasound's only region, where its units are centimetres."""
    regions = items(dataset, "SequenceOfUltrasoundRegions")
    if len(regions) != 1 or [integer(regions[0], f"PhysicalUnits{axis}Direction") for axis in "XY"] != [3, 3]:
        return None
    x, y = number(regions[0], "PhysicalDeltaX"), number(regions[0], "PhysicalDeltaY")
    return (abs(y) * 10, abs(x) * 10) if x and y else None


def _laterality(dataset: Dataset) -> str:
    for name in ("ImageLaterality", "Laterality"):
        if found := code(dataset, name, frozenset("RLUB")):
            return found
    return ""


def _orientation_letters(dataset: Dataset) -> str:
    letters = texts(dataset, "PatientOrientation")
    return "\\".join(letters) if len(letters) == 2 and all(map(_ORIENTATION.match, letters)) else ""


def _photometric(dataset: Dataset) -> str:
    known = words("MONOCHROME1 MONOCHROME2 RGB YBR_FULL YBR_FULL_422 YBR_PARTIAL_420 YBR_ICT YBR_RCT")
    return code(dataset, "PhotometricInterpretation", known | {"PALETTE COLOR"})
