"""The window of CT whose file states none: by body part, from its code, a coded region or a coded procedure."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from limner.readers.contract import scan_with
from limner.readers.dicom.anatomy import BODY_PARTS, REGIONS
from limner.readers.dicom.reader import DicomReader
from limner.readers.dicom.voi_lut import PRESET_OF_BODY_PART, PRESETS
from pydicom.sr.codedict import codes

READER = DicomReader()
HEAD = {"CodeValue": "69536005", "CodingSchemeDesignator": "SCT", "CodeMeaning": "x"}


def window(making: ModuleType, path: Path, **tags: object) -> tuple[str, str, list[str]]:
    """(the window, the body part, notes on the window) of a CT slice."""
    (info,) = scan_with(READER, str(making.save(making.slices(1, **tags)[0], path)), {})
    facts = dict(info.facts)
    return facts.get("window_used", ""), facts.get("body_part", ""), [note for note in info.notes if "window" in note]


def procedure(making: ModuleType, meaning: str) -> dict[str, Any]:
    code = making.item(CodeValue="X", CodingSchemeDesignator="99LOCAL", CodeMeaning=meaning)
    return {"RequestedProcedureCodeSequence": code}


@pytest.mark.parametrize(
    ("how", "preset", "why"),
    [
        ("examined HEAD", "brain", " for body part examined HEAD"),
        ("examined BRAIN", "brain", " for body part examined BRAIN"),
        ("examined LUNG", "lung", " for body part examined LUNG"),
        ("examined TSPINE", "bone", " for body part examined TSPINE"),
        ("examined NECK", "soft_tissue", " for body part examined NECK"),
        ("examined JOHNDOE", "soft_tissue", ", whatever its body part,"),
        ("region 69536005 SCT", "brain", " for anatomic region HEAD"),
        ("region T-D1100 SRT", "brain", " for anatomic region HEAD"),
        ("region 69536005 99LOCAL", "soft_tissue", ", whatever its body part,"),
        ("procedure CT Head WO contrast", "brain", " for procedure HEAD"),
        ("procedure Computed tomography of the brain", "brain", " for procedure BRAIN"),
        ("procedure CT of femoral head", "soft_tissue", ", whatever its body part,"),
        ("procedure CT head and neck", "soft_tissue", ", whatever its body part,"),
        ("procedure MR head", "soft_tissue", ", whatever its body part,"),
    ],
)
def test_ct_without_a_window_is_shown_by_body_part(
    tmp_path: Path, making: ModuleType, how: str, preset: str, why: str
) -> None:
    kind, _, text = how.partition(" ")
    if kind == "examined":
        tags: dict[str, Any] = {"BodyPartExamined": text}
    elif kind == "region":
        value, scheme = text.split()
        tags = {"AnatomicRegionSequence": making.item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning="x")}
    else:
        tags = procedure(making, text)
    used, _, notes = window(making, tmp_path / "a.dcm", **tags)
    centre, width = PRESETS[preset]
    assert used == f"{centre}/{width} LINEAR (preset {preset}{why} as the file has no window)"
    advice = "choose another with --set reader_options.window=NAME"
    assert notes == [f"it is shown in preset {preset}{why} as the file has no window: {advice}"]


def test_a_code_of_its_own_comes_first_and_a_window_of_the_file_before_all(tmp_path: Path, making: ModuleType) -> None:
    head = {"AnatomicRegionSequence": making.item(**HEAD)}
    used, part, _ = window(making, tmp_path / "a.dcm", BodyPartExamined="LUNG", **head)
    assert (used.startswith("-600/1500"), part) == (True, "LUNG")
    used, part, notes = window(making, tmp_path / "b.dcm", WindowCenter=300, WindowWidth=1500, **head)
    assert (used, part, notes) == ("300/1500 LINEAR (file, first window)", "HEAD", [])


def test_a_window_without_a_width_is_not_used_and_noted(tmp_path: Path, making: ModuleType) -> None:
    for width in (0, -400, None):
        used, _, notes = window(making, tmp_path / f"{width}.dcm", WindowCenter=40, WindowWidth=width)
        assert used.startswith("40/400 LINEAR (preset soft_tissue")
        assert "a window of its file has no width above 0 and was not used" in notes


def test_other_modalities_have_no_preset(tmp_path: Path, making: ModuleType) -> None:
    used, _, notes = window(making, tmp_path / "a.dcm", sop_class=making.MR, BodyPartExamined="HEAD")
    assert (used, notes) == ("", ["the file states no window: its pixels decide"])


def test_the_codes_of_regions_are_those_of_the_standard() -> None:
    """Names of pydicom's copy of CID 4031 and others, for those of SNOMED CT that it holds."""
    names = {
        "BRAIN": "Brain",
        "CHESTABDOMEN": "ChestAndAbdomen",
        "CSPINE": "CervicalSpine",
        "HEAD": "Head",
        "HEADNECK": "HeadAndNeck",
        "HEART": "Heart",
        "LIVER": "Liver",
        "LUNG": "Lung",
        "NECK": "Neck",
        "SKULL": "Skull",
        "TSPINE": "ThoracicSpine",
        "LSPINE": "LumbarSpine",
        "ABDOMEN": "Abdomen",
        "CHEST": "Chest",
        "PELVIS": "Pelvis",
        "SPINE": "Spine",
    }
    for part, name in names.items():
        assert str(getattr(codes.SCT, name).value) in REGIONS[part].split(), part
    assert set(REGIONS) <= BODY_PARTS
    assert set(PRESET_OF_BODY_PART) <= BODY_PARTS
    assert set(PRESET_OF_BODY_PART.values()) <= set(PRESETS)
