"""The kind of a DICOM object by its SOP class (PS3.4 B.5), never by its modality alone."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .metadata import FileMetadata

_STORAGE = "1.2.840.10008.5.1.4.1.1."
DIRECTORY = "1.2.840.10008.1.3.10"
WHOLE_SLIDE = f"{_STORAGE}77.1.6"
WHOLE_SLIDE_REASON = "a whole-slide image: the slide reader opens it"

_IMAGES = (
    *("1", "2", "3", "3.1", "4", "5", "6", "6.1", "6.2", "7", "12", "13.1", "14", "20"),
    *("77.1", "128", "128.1", "130", "481.1"),
)
_NOT_IMAGES = ("4.2", "77.1.5.3")
_RELATED = {
    "4.2": "MR spectroscopy",
    "9": "waveform",
    "11": "presentation state",
    "30": "parametric map",
    "66": "spatial registration or fiducials",
    "66.4": "segmentation",
    "66.5": "surface segmentation",
    "66.6": "tractography",
    "66.7": "label map",
    "67": "real-world value mapping",
    "78": "refraction or visual acuity",
    "88": "structured report",
    "88.59": "key object selection",
    "104": "encapsulated document",
    "481.2": "radiotherapy dose",
    "481.3": "radiotherapy structures",
    "481.4": "radiotherapy treatment record",
    "481.5": "radiotherapy plan",
    "481.8": "radiotherapy plan",
}
_CROSS_SECTIONAL = ("2", "4", "20", "128", "130")
_CROSS_SECTIONAL_MODALITIES = {"CT", "MR", "PT", "NM"}


def skip_reason(file: "FileMetadata") -> str:
    """Why a file is skipped, since it is not a radiology image; "" where it is one."""
    uid = file.sop_class
    if uid == WHOLE_SLIDE:
        return WHOLE_SLIDE_REASON
    if uid == DIRECTORY:
        return "a directory of other files"
    if uid and (not _is_in(uid, _IMAGES) or _is_in(uid, _NOT_IMAGES)):
        name = _related_object(uid)
        if name:
            return f"not an image: {name}"
        if uid.startswith(_STORAGE):
            return "not an image"
    return "" if file.frames else "it has no pixel data"


def is_stackable(file: "FileMetadata") -> bool:
    """Whether single frames without a position may be one stack: slices of CT, MR, PET and nuclear medicine."""
    uid = file.sop_class
    return _is_in(uid, _CROSS_SECTIONAL) or (not uid and file.modality in _CROSS_SECTIONAL_MODALITIES)


def is_secondary(file: "FileMetadata") -> bool:
    """Whether this is a secondary capture of a screen or film, whatever its modality."""
    return _is_in(file.sop_class, ("7",)) or bool(file.conversion_type)


def burned_in_risk(file: "FileMetadata") -> str:
    """The risk of identifying text in the pixels: "yes" or "none" where stated, else "low" or "high"."""
    if file.burned_in:
        return "yes" if file.burned_in == "YES" else "none"
    original = file.image_type[:2] == ("ORIGINAL", "PRIMARY") and not is_secondary(file)
    return "low" if file.modality in _CROSS_SECTIONAL_MODALITIES and original else "high"


def _is_in(uid: str, families: tuple[str, ...]) -> bool:
    """Whether a SOP class is one of the storage classes, or belongs to one."""
    return any(uid == _STORAGE + one or uid.startswith(f"{_STORAGE}{one}.") for one in families)


def _related_object(uid: str) -> str:
    """The name of an object that is not an image, or of the nearest family that it belongs to; "" without one."""
    parts = uid.removeprefix(_STORAGE).split(".") if uid.startswith(_STORAGE) else []
    names = (_RELATED.get(".".join(parts[:count]), "") for count in range(len(parts), 0, -1))
    return next(filter(None, names), "")
