"""Texts that other programs can open safely: no control characters, no spreadsheet formulas."""

import re
import unicodedata

_FORMULA = "=+-@＝＋－＠﹦﹢﹣﹫−"  # noqa: RUF001 - full-width and small forms, which spreadsheets fold into the plain ones
_AFTER_SEMICOLON = re.compile(rf"(;\s*)(?=[{re.escape(_FORMULA)}])")
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, format (bidirectional and zero-width), surrogate, line, paragraph
_REPLACEMENT = "\ufffd"


def clean_text(text: str) -> str:
    """`text` on one line: line breaks and tabs become spaces, other unseen characters U+FFFD.

    Unseen are Unicode's control, format (bidirectional overrides, zero-width characters), surrogate and separator
    characters: they would break rows, reorder what is read, or hide in it.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_seen(character) for character in text)


def csv_cell(text: str) -> str:
    """`text` as a spreadsheet cell that stays text: `plain`, and an apostrophe before what would be a formula.

    A formula begins with = + - @ or a full-width form of these, also after spaces, and with a tab or a line break.
    Where a spreadsheet splits cells at semicolons one could also begin there, so those get an apostrophe too.

    >>> cell("=1+1"), cell("one; =1+1"), cell("1+1")
    ("'=1+1", "one; '=1+1", '1+1')
    """
    seen = _AFTER_SEMICOLON.sub(r"\1'", clean_text(text))
    risky = seen.lstrip()[:1]
    return f"'{seen}" if (risky and risky in _FORMULA) or text[:1] in {"\t", "\r", "\n"} else seen


def _seen(character: str) -> str:
    if character in "\t\n\v\f\r\x85\u2028\u2029":
        return " "
    return _REPLACEMENT if unicodedata.category(character) in _UNSEEN else character
