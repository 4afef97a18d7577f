"""Pseudonyms: reproducible with the key, meaningless without it."""

import stat
from pathlib import Path

import pytest
from limner.readers.errors import RequestError
from limner.readers.pseudonyms import NameOptions, Pseudonyms, check_key, path_variants, run_key_file

ONE, OTHER = Pseudonyms(b"0123456789abcdef"), Pseudonyms(b"fedcba9876543210")


def test_pseudonyms_depend_on_the_key_only() -> None:
    assert ONE.uid("1.2.3") == Pseudonyms(b"0123456789abcdef").uid("1.2.3")
    assert len({ONE.uid("1.2.3"), OTHER.uid("1.2.3"), ONE.uid("1.2.4"), ONE.path("1.2.3")}) == 4
    assert Pseudonyms(b"0123456789abcdef", show=True).uid("1.2.3") == "1.2.3"


def test_a_pseudonymous_uid_is_valid() -> None:
    for number in range(50):
        name = ONE.uid(str(number))
        value = int(name.removeprefix("2.25."))
        assert len(name) <= 64
        assert value < 2**128
        assert (value >> 76) & 0xF == 8
        assert (value >> 62) & 0x3 == 2


def test_only_suffixes_of_formats_are_kept() -> None:
    assert ONE.path("/data/DOE^JOHN/scan.DCM").endswith(".dcm")
    assert "." not in ONE.path("/data/scan.DOE")


def test_a_weak_key_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for weak in (b"short", b"aaaaaaaaaaaaaaaaaaaaaaaa", b"abababababababababababab"):
        with pytest.raises(RequestError) as error:
            check_key(weak, "key")
        assert weak.decode() not in str(error.value)
    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", "password")
    with pytest.raises(RequestError, match="LIMNER_PSEUDONYM_KEY"):
        Pseudonyms.of(NameOptions())
    with pytest.raises(RequestError, match="key_file"):
        Pseudonyms.of(NameOptions(key_file=str(tmp_path / "none")))


def test_the_key_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = run_key_file(tmp_path / "run")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert run_key_file(tmp_path / "run").read_bytes() == path.read_bytes()
    assert run_key_file(tmp_path / "other").read_bytes() != path.read_bytes()
    options = NameOptions(key_file=str(path))
    assert Pseudonyms.of(options) == Pseudonyms.of(options)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_key_is_not_in_the_repr() -> None:
    assert "0123456789abcdef" not in repr(ONE)


@pytest.mark.parametrize("path", [".", "..", "in", "scans"])
def test_a_path_that_may_be_any_word_is_no_form(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert path not in path_variants(path)
    assert str(Path(path).absolute()) in path_variants(path) or path in {".", ".."}


@pytest.mark.parametrize("path", ["Doe^John", "DOE_JOHN", "in/scans", "doe.dcm", "/doe"])
def test_a_path_that_may_be_a_name_is_one(path: str) -> None:
    assert path in path_variants(path)


def test_a_name_that_no_file_can_have_has_forms_too() -> None:
    assert path_variants("study.zip!/a\0b.dcm")[0] == "study.zip!/a\0b.dcm"
