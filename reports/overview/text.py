"""Words on pictures, in the font that comes with Pillow, so that every machine sets the same letters.

That font (Aileron) has the letters of ASCII and few more: accents are left away, raised twos are drawn as such, and
other scripts show as question marks. The tables hold every text whole.
"""

import re
import unicodedata
from functools import lru_cache

from PIL import ImageDraw, ImageFont

from ..csv_safety import clean_text

Colour = tuple[int, int, int]

_SPELLED = str.maketrans({"×": "x", "µ": "u", "μ": "u", "–": "-", "—": "-", "−": "-", "ß": "ss", "ø": "o", "Ø": "O"})
_RAISED = "²"
_RAISED_SIZE, _RAISED_BY = 0.62, 0.3  # of the size


def to_font_characters(words: str) -> str:
    """`words` in the letters that the font has."""
    kept: list[str] = []
    for character in clean_text(words).translate(_SPELLED):
        if character == _RAISED or character.isascii():
            kept.append(character)
            continue
        bare = [c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c)]
        kept += [c if c.isascii() else "?" for c in bare]
    return "".join(kept)


def text_width(words: str, size: int) -> float:
    """How wide `words` are at `size` px."""
    return sum(_font(_height(run, size)).getlength("2" if run == _RAISED else run) for run in _runs(words))


def write(
    pen: ImageDraw.ImageDraw, place: tuple[float, float], words: str, colour: Colour, size: int, anchor: str = "la"
) -> None:
    """Write one line; `anchor` as in Pillow: l, m or r says which side `place` is, then a, m or s which height."""
    x, y = place
    x -= {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]] * text_width(words, size)
    for run in _runs(words):
        font = _font(_height(run, size))
        lifted = y - (_RAISED_BY * size if run == _RAISED else 0.0)
        pen.text((x, lifted), "2" if run == _RAISED else run, colour, font, anchor=f"l{anchor[1]}")
        x += font.getlength("2" if run == _RAISED else run)


def wrap(words: str, size: int, room: float, lines: int = 1) -> list[str]:
    """Words on at most `lines` lines of `room` px, cut where they must be; the last ends in "..." if more was left."""
    rest = to_font_characters(words)
    result: list[str] = []
    while rest and len(result) < lines:
        fits = len(rest)
        while fits > 1 and text_width(rest[:fits], size) > room:
            fits -= 1
        result.append(rest[:fits])
        rest = rest[fits:]
    if rest:
        last = result[-1]
        while last and text_width(f"{last}...", size) > room:
            last = last[:-1]
        result[-1] = f"{last}..."
    return result or [""]


def _runs(words: str) -> list[str]:
    return [run for run in re.split(f"({_RAISED})", to_font_characters(words)) if run]


def _height(run: str, size: int) -> int:
    return round(size * _RAISED_SIZE) if run == _RAISED else size


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
