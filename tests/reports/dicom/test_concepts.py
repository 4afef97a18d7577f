"""Coded concepts: those of cards, private ones, and what a card may not state."""

import re
from typing import Any

import pytest
from limner.model.checkpoints.cards import CardClass
from limner.reports.contract import hostile_record
from limner.reports.dicom.concepts import concept, long_string, private_code
from limner.reports.dicom.objects import new_uid, report_of
from pydantic import ValidationError
from pydicom.sr.codedict import codes


@pytest.mark.parametrize("label", ["lymphocyte", "", "=1+1\n\t</script>\u202e\ud800\x00", "long " * 60, "a\\b"])
def test_a_label_without_a_code_has_a_private_one(label: str) -> None:
    code = private_code(label)
    assert re.fullmatch("[A-Z2-7]{16}", code.CodeValue)
    assert code.CodingSchemeDesignator == "99LIMNER"
    assert 0 < len(code.CodeMeaning) <= 64
    assert code.CodeMeaning.isprintable()
    assert "\\" not in code.CodeMeaning
    assert private_code(label) == code
    assert private_code(f"{label}.").CodeValue != code.CodeValue


def test_a_label_with_a_code_has_that() -> None:
    from dataclasses import replace

    record = replace(hostile_record(), concepts={"brain": ("12738006", "SCT", "Brain")})
    assert concept(record, "brain") == codes.SCT.Brain
    assert concept(record, "lymphocyte").CodingSchemeDesignator == "99LIMNER"


@pytest.mark.parametrize(
    "code",
    [
        {"value": "", "scheme": "SCT", "meaning": "Brain"},
        {"value": "1" * 17, "scheme": "SCT", "meaning": "Brain"},
        {"value": "1\\2", "scheme": "SCT", "meaning": "Brain"},
        {"value": "12738006", "scheme": "", "meaning": "Brain"},
        {"value": "12738006", "scheme": "SCT", "meaning": "B" * 65},
        {"value": "12738006", "scheme": "SCT", "meaning": "B\nrain"},
        {"value": "12738006", "scheme": "SCT"},
    ],
)
def test_a_code_that_dicom_cannot_hold_is_refused_in_a_card(code: dict[str, Any]) -> None:
    CardClass(name="brain", colour="#e69f00", concept={"value": "12738006", "scheme": "SCT", "meaning": "Brain"})  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValidationError):
        CardClass(name="brain", colour="#e69f00", concept=code)  # pyright: ignore[reportArgumentType]


def test_the_codes_of_shipped_cards_are_those_of_the_dictionary(root: Any) -> None:
    import yaml

    every = (getattr(codes.SCT, name) for name in codes.SCT.dir())
    known = {(code.value, code.scheme_designator): code.meaning for code in every}
    found = [
        one["concept"]
        for path in sorted((root / "model" / "checkpoints" / "cards").glob("*.yaml"))
        for one in yaml.safe_load(path.read_text(encoding="utf-8"))["classes"]
        if "concept" in one
    ]
    assert len(found) == 3
    for one in found:
        meaning = known[one["value"], one["scheme"]]
        assert one["meaning"].lower() in meaning.lower()


def test_texts_fit_their_type() -> None:
    assert long_string("a\\b\n c") == "a/b c"
    assert long_string("x" * 70) == "x" * 61 + "..."


def test_uids_follow_from_the_run_and_the_parts() -> None:
    record = hostile_record()
    uids = {new_uid(record, *parts) for parts in ([], ["a"], ["a", "b"], ["ab"])}
    assert len(uids) == 4
    assert all(re.fullmatch(r"2\.25\.(0|[1-9][0-9]{0,38})", uid) for uid in uids)


def test_names_of_objects_are_known() -> None:
    assert report_of("sr-study1.dcm") == "dicom-sr"
    assert report_of("seg-study1-ct1.dcm") == "dicom-seg"
    assert [report_of(name) for name in ("findings.csv", "other-1.dcm", "sr-1.csv", "sr.dcm")] == [""] * 4
