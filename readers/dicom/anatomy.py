"""The body part that a file states: as a code of its own, as a coded region, or in the name of a coded procedure.

Runs in the sandboxed process: only a word of `BODY_PARTS` leaves it. Sources: PS3.16 annex L (correspondence of region
codes and body parts), CID 4031.
"""

import re
from collections.abc import Sequence
from typing import Final

from pydicom.dataset import Dataset

from .attributes import code, items, texts, words

BODY_PARTS: Final = words(
    "ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA ARM BACK BLADDER BRAIN BREAST CALF CARDIAC CAROTID CHEST CHESTABDOMEN"
    " CHESTABDPELVIS CLAVICLE COCCYX COLON CSPINE ELBOW EXTREMITY EYE FACE FEMUR FINGER FOOT FOREARM GALLBLADDER HAND"
    " HEAD HEADNECK HEART HIP HUMERUS JAW KIDNEY KNEE LEG LIVER LSPINE LSSPINE LUNG MANDIBLE MAXILLA NECK ORBIT"
    " PANCREAS PATELLA PELVIS PROSTATE RIB SCAPULA SHOULDER SKULL SPINE SPLEEN STERNUM TESTIS THIGH"
    " THYROID TIBIA TOE TSPINE UTERUS WHOLEBODY WRIST"
)

REGIONS: Final = {
    "ABDOMEN": "818981001 818983003 113345001 T-D4000",
    "ABDOMENPELVIS": "818982008 416949008 R-FAB57",
    "BRAIN": "12738006 T-A0100",
    "CHEST": "816094009 51185008 T-D3000",
    "CHESTABDOMEN": "416550000 R-FAB55",
    "CHESTABDPELVIS": "416775004 R-FAB56",
    "CSPINE": "122494005 T-11501",
    "HEAD": "69536005 T-D1100",
    "HEADNECK": "774007 T-D1000",
    "HEART": "80891009 T-32000",
    "LIVER": "10200004 T-62000",
    "LSPINE": "122496007 T-11503",
    "LUNG": "39607008 T-28000",
    "NECK": "45048000 T-D1600",
    "PELVIS": "816092008 12921003 T-D6000",
    "SKULL": "89546000 T-11100",
    "SPINE": "421060004 T-D04FF",
    "TSPINE": "122495006 T-11502",
    "WHOLEBODY": "38266002 T-D0010",
}
"""Body part → its codes in SNOMED CT and SNOMED RT."""

_PART_OF_CODE: Final = {one: part for part, codes in REGIONS.items() for one in codes.split()}
_SCHEMES: Final = words("SCT SRT SNM3 99SDM")
_PROCEDURES: Final = ("ProcedureCodeSequence", "RequestedProcedureCodeSequence", "PerformedProtocolCodeSequence")
_PROCEDURE: Final = re.compile(r"(?:CT|COMPUTED TOMOGRAPHY)\W+(?:SCAN\W+)?(?:OF\W+)?(?:THE\W+)?([A-Z]+)\b(.*)")


def body_part(dataset: Dataset, groups: Sequence[Dataset]) -> tuple[str, str]:
    """(body part, what states it) of a file; ("", "") where nothing states one that is known.

    groups: the functional groups of its first frame. A procedure counts where its name begins with one body part, such
    as "CT Head WO contrast", and names no other.
    """
    if part := code(dataset, "BodyPartExamined", BODY_PARTS):
        return part, "body part examined"
    anatomy = [dataset, *(found for group in groups for found in items(group, "FrameAnatomySequence"))]
    coded = {_region(item) for one in anatomy for item in items(one, "AnatomicRegionSequence")} - {""}
    if len(coded) == 1:
        return coded.pop(), "anatomic region"
    named = {_procedure(item) for name in _PROCEDURES for item in items(dataset, name)} - {""}
    return (named.pop(), "procedure") if len(named) == 1 else ("", "")


def _region(item: Dataset) -> str:
    value = texts(item, "CodeValue")[:1]
    return _PART_OF_CODE.get(value[0], "") if value and code(item, "CodingSchemeDesignator", _SCHEMES) else ""


def _procedure(item: Dataset) -> str:
    meaning = " ".join(texts(item, "CodeMeaning"))[:256]
    match = _PROCEDURE.match(meaning)
    if match is None or match[1] not in BODY_PARTS or words(re.sub(r"\W", " ", match[2])) & (BODY_PARTS | {"AND"}):
        return ""
    return match[1]
