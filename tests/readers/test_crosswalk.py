"""A project's own pseudonyms: what a crosswalk may hold, and that errors quote nothing of it."""

import os
from pathlib import Path

import pytest
from limner.readers.crosswalk import read_crosswalk
from limner.readers.errors import RequestError
from limner.readers.pseudonyms import NameOptions, Pseudonyms

KEY = "0123456789abcdef0123456789abcdef"
UID = "1.2.826.0.1.3680043.8.498.1"


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pseudonyms:
    """Pseudonyms under a key, with a crosswalk of a path, a study and a UID of any kind."""
    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", KEY)
    path = tmp_path / "list.csv"
    path.write_text(f"kind,original,pseudonym\nfile,/data/DOE.svs,case-17\nstudy,{UID},P001\n,{UID}.5,S.5\n")
    return Pseudonyms.of(NameOptions(crosswalk=str(path)))


def test_chosen_names_come_before_those_under_the_key(names: Pseudonyms) -> None:
    assert names.path("/data/DOE.svs") == names.path("/data/x/../DOE.svs") == "case-17"
    assert names.path("/data/DOE2.svs").startswith("file-")
    assert names.uid(UID, "study") == "P001"
    assert names.uid(UID, "series").startswith("2.25."), "the table states that it is a study"
    assert {names.uid(f"{UID}.5", kind) for kind in ("study", "series", "instance")} == {"S.5"}
    assert names.uid(f"{UID}.6", "study").startswith("2.25.")
    assert "DOE" not in repr(names)


def test_the_id_of_a_crosswalk_follows_from_its_content_and_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: Pseudonyms
) -> None:
    other = tmp_path / "elsewhere.csv"
    other.write_text(f"pseudonym;note;original;kind\nP001;x;{UID};study\ncase-17;;/data/DOE.svs;file\nS.5;;{UID}.5;\n")
    assert Pseudonyms.of(NameOptions(crosswalk=str(other))).crosswalk_id == names.crosswalk_id
    other.write_text("original,pseudonym\n/data/DOE.svs,case-18\n")
    os.utime(other, (1, 1))
    assert Pseudonyms.of(NameOptions(crosswalk=str(other))).crosswalk_id != names.crosswalk_id
    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", KEY[::-1])
    assert Pseudonyms.of(NameOptions(crosswalk=str(tmp_path / "list.csv"))).crosswalk_id != names.crosswalk_id
    assert Pseudonyms.of(NameOptions()).crosswalk_id == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("original,pseudonym\n/d/DOE.svs,DOE\n/d/ROE_1.svs,see-ROE_1\n", "that do not contain an original"),
        ("original,pseudonym\n/d/DOE1.svs,P1\n/d/ROE1.svs,doe1\n", "that do not contain an original"),
        (f"original,pseudonym\n{UID},x{UID}\n", "that do not contain an original"),
        ("original,pseudonym\n/d/DOE.svs,P1\n/d/ROE.svs,p1\n", "a pseudonym of its own for each original"),
        ("original,pseudonym\n/d/DOE.svs,P1\n/d/DOE.svs,P2\n", "each original once"),
        (f"kind,original,pseudonym\nstudy,{UID},P1\nseries,{UID},P2\n", "each original once"),
        ("original,pseudonym\n/d/DOE.svs,../P1\n", "letters, digits, dots, dashes"),
        ("original,pseudonym\n/d/DOE.svs,\n", "letters, digits, dots, dashes"),
        ("original,pseudonym\n/d/DOE.svs,=P1\n", "letters, digits, dots, dashes"),
        ("original,pseudonym\n/d/DOE.svs,.P1\n", "letters, digits, dots, dashes"),
        ("original,pseudonym\n,P1\n", "an original in each row"),
        ("kind,original,pseudonym\npatient,DOE,P1\n", "the kinds file, study, series, instance only"),
        ("DOE,name\n/d/DOE.svs,P1\n", "must have the columns original and pseudonym"),
        ("original,pseudonym\n/d/DOE.svs,P1,x\n", "a cell for each column"),
        ('original,pseudonym\n"/d/DOE.svs,P1\n', "must be valid CSV"),
        ("original,original,pseudonym\nDOE,x,P1\n", "each once"),
        ("", "must have a header"),
        ("original,pseudonym\n", "must have an entry"),
    ],
)
def test_an_error_names_lines_and_no_patient(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "DOE.csv"
    path.write_text(text)
    with pytest.raises(RequestError, match=expected) as raised:
        read_crosswalk(str(path))
    assert "DOE" not in str(raised.value)
    assert UID not in str(raised.value)


def test_a_pseudonym_has_at_most_64_characters(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    for length, valid in ((64, True), (65, False)):
        path.write_text(f"original,pseudonym\n/d/DOE.svs,{'P' * length}\n")
        if valid:
            assert read_crosswalk(str(path)).path("/d/DOE.svs") == "P" * 64
        else:
            with pytest.raises(RequestError, match="1 to 64 letters"):
                read_crosswalk(str(path))


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("original,pseudonym\n/d/Müller.svs,P1\n".encode("latin-1"))
    with pytest.raises(RequestError, match="UTF-8"):
        read_crosswalk(str(tmp_path / "latin.csv"))
    for path in (tmp_path, tmp_path / "none.csv", "a\0b"):
        with pytest.raises(RequestError, match="must be a readable file"):
            read_crosswalk(str(path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RequestError, match="must be a readable file"):
        read_crosswalk(str(tmp_path / "pipe"))


def test_a_spreadsheet_with_a_mark_blanks_and_empty_rows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f"\ufeffkind\toriginal\tpseudonym\r\n study \t {UID} \t P001 \r\n\t\t\r\n")
    assert read_crosswalk(str(path)).uid(UID, "study") == "P001"
