"""Text that other programs can open safely: no control characters, no spreadsheet formulas."""

import re
import unicodedata

_FORMULA = "=+-@＝＋－＠﹦﹢﹣﹫−"  # noqa: RUF001 - full-width and small forms, which spreadsheets fold into the plain ones
_AFTER_SEMICOLON = re.compile(rf"(;\s*)(?=[{re.escape(_FORMULA)}])")
_LINE_BREAKS = dict.fromkeys(map(ord, "\t\n\v\f\r\x85\u2028\u2029"), " ")
_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, format (bidirectional, zero-width), surrogate, line, paragraph


def clean_text(text: str) -> str:
    """`text` on one line: line breaks and tabs become spaces, other invisible characters U+FFFD.

    Invisible are Unicode's control, format (bidirectional overrides, zero-width characters), surrogate and separator
    characters: they would break rows, reorder text or hide in it.
    """
    if text.isascii() and text.isprintable():
        return text
    spaced = text.translate(_LINE_BREAKS)
    return "".join("\ufffd" if unicodedata.category(character) in _INVISIBLE else character for character in spaced)


def csv_cell(text: str) -> str:
    """`text` as a spreadsheet cell that stays text: `clean_text`, and an apostrophe before what would be a formula.

    A formula begins with = + - @ or a full-width form of these, also after spaces, and with a tab or a line break.
    Where a spreadsheet splits cells at semicolons one could also begin there, so those get an apostrophe too.

    >>> csv_cell("=1+1"), csv_cell("one; =1+1"), csv_cell("1+1")
    ("'=1+1", "one; '=1+1", '1+1')
    """
    clean = _AFTER_SEMICOLON.sub(r"\1'", clean_text(text))
    first = clean.lstrip()[:1]
    return f"'{clean}" if (first and first in _FORMULA) or text[:1] in {"\t", "\r", "\n"} else clean
