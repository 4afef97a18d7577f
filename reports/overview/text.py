"""Text on pictures, in the font that comes with Pillow, so that the picture is the same on every machine.

That font (Aileron) has ASCII only. Accents are dropped, a superscript two and the micro sign are composed of its
letters, and other scripts show as question marks. The tables hold every text unchanged.
"""

import re
import unicodedata
from functools import lru_cache

from PIL import ImageDraw, ImageFont

from ..csv_safety import clean_text

Colour = tuple[int, int, int]

_SPELLED = str.maketrans(
    {"×": "x", "μ": "µ", "–": "-", "—": "-", "−": "-", "…": "...", "·": "-", "ß": "ss", "ø": "o", "Ø": "O"}
)
_COMPOSED = {"²": "2", "µ": "u"}
_SUPERSCRIPT_SIZE, _SUPERSCRIPT_RISE = 0.62, 0.3  # of the font size


def to_font_characters(text: str) -> str:
    """`text` in the characters that can be drawn: ASCII, ² and µ."""
    kept: list[str] = []
    for character in clean_text(text).translate(_SPELLED):
        if character in _COMPOSED or character.isascii():
            kept.append(character)
        else:
            bases = [c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c)]
            kept += [c if c.isascii() else "?" for c in bases]
    return "".join(kept)


def text_width(text: str, size: int) -> float:
    """The width of `text` in px at a font size."""
    return sum(_run_font(run, size).getlength(_COMPOSED.get(run, run)) for run in _runs(text))


def draw_text(
    pen: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, colour: Colour, size: int, anchor: str = "la"
) -> None:
    """Draw one line; `anchor` as in Pillow: l, m or r for the side that `xy` is, then a, m or s for the height."""
    x, y = xy
    x -= {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]] * text_width(text, size)
    for run in _runs(text):
        font, letters = _run_font(run, size), _COMPOSED.get(run, run)
        top = y - (_SUPERSCRIPT_RISE * size if run == "²" else 0.0)
        pen.text((x, top), letters, colour, font, anchor=f"l{anchor[1]}")
        if run == "µ":  # the left stem of the u goes on below the baseline
            left, _, _, base = pen.textbbox((x, top), letters, font, anchor=f"l{anchor[1]}")
            stem = max(1, round(size / 12))
            pen.rectangle((round(left), base - size // 4, round(left) + stem - 1, base + size // 4), fill=colour)
        x += font.getlength(letters)


def wrap(text: str, size: int, width: float) -> list[str]:
    """All of `text` on lines of at most `width` px, broken at spaces, and inside a word only where it is too long."""
    lines = [""]
    for word in re.findall(r"\S+\s*", to_font_characters(text)):
        rest = word
        if lines[-1] and text_width((lines[-1] + rest).rstrip(), size) > width:
            lines.append("")
        while text_width((lines[-1] + rest).rstrip(), size) > width and len(rest.rstrip()) > 1:
            fits = next(n for n in range(len(rest) - 1, 0, -1) if n == 1 or text_width(rest[:n], size) <= width)
            lines[-1:] = [rest[:fits], ""]
            rest = rest[fits:]
        lines[-1] += rest
    return [line.rstrip() for line in lines]


def _runs(text: str) -> list[str]:
    return [run for run in re.split("([²µ])", to_font_characters(text)) if run]


def _run_font(run: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return _font(round(size * _SUPERSCRIPT_SIZE) if run == "²" else size)


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
