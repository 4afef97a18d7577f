"""Text that other programs can open safely: no control characters, no spreadsheet formulas."""

import re
import unicodedata

_FORMULA = "=+-@＝＋－＠﹦﹢﹣﹫−"  # noqa: RUF001 - full-width and small forms, which spreadsheets fold into the plain ones
_AFTER_SEMICOLON = re.compile(rf"(;\s*)(?=[{re.escape(_FORMULA)}])")
_LINE_BREAKS = dict.fromkeys(map(ord, "\t\n\v\f\r\x85\u2028\u2029"), " ")
_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, format, surrogate, line, paragraph
_BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"  # letters and marks that are drawn as nothing
_VARIATIONS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")  # of the character before
_NUMBER_SIGNS = re.compile("[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd]")  # visible
_DIRECTION_MARKS = "\u200e\u200f\u061c"
_JOINERS = "\u200c\u200d"
_TAGS = re.compile("[\U000e0020-\U000e007f]")
_FLAG = "\U0001f3f4"
_REPLACEMENT = "\ufffd"


def clean_text(text: str) -> str:
    """`text` on one line: line breaks and tabs become spaces, other invisible characters U+FFFD, one for each.

    Invisible are Unicode's control, format (embeddings and overrides of direction, zero-width characters), surrogate
    and separator characters, and letters without a shape: they would break rows, reorder text or hide in it. Those that
    writing needs stay: joiners after a letter of a script that joins, or in an emoji, direction marks where there are
    letters from right to left, one variation selector after a character, and tags of a flag.
    """
    if text.isascii() and text.isprintable():
        return text
    spaced = text.translate(_LINE_BREAKS)
    leftwards = any(unicodedata.bidirectional(one) in {"R", "AL"} and one.isalpha() for one in spaced)
    clean: list[str] = []
    for one in spaced:
        hidden = _is_hidden(one, clean[-1] if clean else " ", leftwards=leftwards)
        clean.append(_REPLACEMENT if hidden else one)
    return "".join(clean)


def _is_hidden(one: str, before: str, *, leftwards: bool) -> bool:
    """Whether a character is invisible and not one that writing needs after the character before."""
    if _VARIATIONS.match(one):
        return before.isspace() or before == _REPLACEMENT or bool(_VARIATIONS.match(before))
    if unicodedata.category(one) not in _INVISIBLE:
        return one in _BLANK or (ord(one) & 0xFFFE) == 0xFFFE or 0xFDD0 <= ord(one) <= 0xFDEF
    if one in _JOINERS:
        return not _joins(before)
    if one in _DIRECTION_MARKS:
        return not leftwards
    if _TAGS.match(one):
        return before != _FLAG and not _TAGS.match(before)
    return not _NUMBER_SIGNS.match(one)


def _joins(one: str) -> bool:
    """Whether a character may be followed by a joiner: letters of Arabic, Indic and other scripts, signs and emoji."""
    if _VARIATIONS.match(one):
        return True
    if one == _REPLACEMENT:
        return False
    return one >= "\u0590" and unicodedata.category(one)[0] in "LMS" and "LATIN" not in unicodedata.name(one, "")


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
