"""What kind of object a DICOM file is, by its SOP class (PS3.4 B.5), never by its modality alone."""

from .metadata import FileMetadata

_STORAGE = "1.2.840.10008.5.1.4.1.1."
DIRECTORY = "1.2.840.10008.1.3.10"
WHOLE_SLIDE = f"{_STORAGE}77.1.6"
FOR_SLIDES = "a whole-slide image: the slide reader opens it"

_IMAGES = (
    "1",
    "2",
    "3",
    "3.1",
    "4",
    "5",
    "6",
    "6.1",
    "6.2",
    "7",
    "12",
    "13.1",
    "14",
    "20",
    "77.1",
    "128",
    "128.1",
    "130",
)
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
_SECONDARY = f"{_STORAGE}7"
_RADIOTHERAPY_IMAGE = f"{_STORAGE}481.1"


def why_skipped(facts: FileMetadata) -> str:
    """Why a file is no image to be looked at here; "" where it is one."""
    uid = facts.sop_class
    if uid == WHOLE_SLIDE:
        return FOR_SLIDES
    if uid == DIRECTORY:
        return "a directory of other files"
    if uid and not _is_image(uid):
        name = next((name for name in _nearest(uid) if name), "")
        if name:
            return f"not an image: {name}"
        if uid.startswith(_STORAGE):
            return "not an image"
    return "" if facts.frames else "it holds no pixels"


def is_stackable(facts: FileMetadata) -> bool:
    """Whether single frames without a position may still be one stack: slices of CT, MR, PET and nuclear medicine."""
    uid = facts.sop_class
    known = any(uid == _STORAGE + one or uid.startswith(f"{_STORAGE}{one}.") for one in _CROSS_SECTIONAL)
    return known or (not uid and facts.modality in {"CT", "MR", "PT", "NM"})


def is_secondary(facts: FileMetadata) -> bool:
    """Whether this is a capture of a screen or film, whatever modality it names."""
    return facts.sop_class == _SECONDARY or facts.sop_class.startswith(f"{_SECONDARY}.") or bool(facts.conversion_type)


def burned_in_risk(facts: FileMetadata) -> str:
    """How likely identifying text is drawn in the pixels: "none" (stated), "low" or "high"; "yes" where stated."""
    if facts.burned_in:
        return "yes" if facts.burned_in == "YES" else "none"
    original = facts.image_type[:2] == ("ORIGINAL", "PRIMARY") and not is_secondary(facts)
    return "low" if facts.modality in {"CT", "MR", "PT", "NM"} and original else "high"


def _is_image(uid: str) -> bool:
    if uid == _RADIOTHERAPY_IMAGE:
        return True
    if uid in {f"{_STORAGE}4.2", f"{_STORAGE}77.1.5.3"}:
        return False
    return any(uid == _STORAGE + one or uid.startswith(f"{_STORAGE}{one}.") for one in _IMAGES)


def _nearest(uid: str) -> list[str]:
    """Names of the object and of the families that it belongs to, nearest first."""
    parts = uid.removeprefix(_STORAGE).split(".") if uid.startswith(_STORAGE) else []
    return [_RELATED.get(".".join(parts[:count]), "") for count in range(len(parts), 0, -1)]
