"""Texts that other programs can open safely: no control characters, no spreadsheet formulas, numbers in fixed forms."""

import math
import re
import unicodedata
from collections.abc import Iterable

import numpy as np

_FORMULA = "=+-@＝＋－＠﹦﹢﹣﹫−"  # noqa: RUF001 - full-width and small forms, which spreadsheets fold into the plain ones
_AFTER_SEMICOLON = re.compile(rf"(;\s*)(?=[{re.escape(_FORMULA)}])")
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, format (bidirectional and zero-width), surrogate, line, paragraph
_REPLACEMENT = "\ufffd"


def plain(text: str) -> str:
    """`text` on one line: line breaks and tabs become spaces, other unseen characters U+FFFD.

    Unseen are Unicode's control, format (bidirectional overrides, zero-width characters), surrogate and separator
    characters: they would break rows, reorder what is read, or hide in it.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_seen(character) for character in text)


def cell(text: str) -> str:
    """`text` as a spreadsheet cell that stays text: `plain`, and an apostrophe before what would be a formula.

    A formula begins with = + - @ or a full-width form of these, also after spaces, and with a tab or a line break.
    Where a spreadsheet splits cells at semicolons one could also begin there, so those get an apostrophe too.

    >>> cell("=1+1"), cell("one; =1+1"), cell("1+1")
    ("'=1+1", "one; '=1+1", '1+1')
    """
    seen = _AFTER_SEMICOLON.sub(r"\1'", plain(text))
    risky = seen.lstrip()[:1]
    return f"'{seen}" if (risky and risky in _FORMULA) or text[:1] in {"\t", "\r", "\n"} else seen


def fixed(values: Iterable[float], decimals: int) -> list[str]:
    """Numbers with `decimals` places, empty where not finite; never "-0".

    >>> fixed([2.5, -0.001, float("nan")], 2)
    ['2.50', '0.00', '']
    """
    zero = f"{0.0:.{decimals}f}"
    texts = [f"{value:.{decimals}f}" if math.isfinite(value) else "" for value in values]
    return [zero if text.startswith("-") and text[1:] == zero else text for text in texts]


def significant(values: Iterable[float], digits: int = 9) -> list[str]:
    """Numbers with `digits` significant digits and no exponent, empty where not finite.

    >>> significant([101053471.9812, 0.00123456789123])
    ['101053472', '0.00123456789']
    """
    return [
        np.format_float_positional(value, precision=digits, unique=False, fractional=False, trim="-")
        if math.isfinite(value)
        else ""
        for value in values
    ]


def _seen(character: str) -> str:
    if character in "\t\n\v\f\r\x85\u2028\u2029":
        return " "
    return _REPLACEMENT if unicodedata.category(character) in _UNSEEN else character
