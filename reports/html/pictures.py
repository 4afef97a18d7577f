"""Pictures inside a page."""

import base64
import io
from dataclasses import dataclass
from typing import Final

from PIL import Image

MOST_BYTES: Final = 192 << 10
"""Most bytes of a picture in a page, before they are written as text, which takes a third more."""
_LARGE: Final = 1200 * 1200  # pixels
_QUALITIES: Final = (92, 80, 65, 45, 25)  # of JPEG, tried in this order


@dataclass(frozen=True, slots=True)
class PagePicture:
    """A picture as `parts.html` takes it."""

    source: str
    """A data URI."""
    width: int
    height: int
    alt: str
    """What it shows, for who cannot see it."""


def reduced_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(width, height) with the same proportions and at most so many px on the long side."""
    factor = min(1.0, longest / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def embed(picture: Image.Image, alt: str, most: int = MOST_BYTES) -> PagePicture:
    """A picture as part of a page: without loss where that fits `most` bytes, else as JPEG, else reduced by halves.

    Whether it fits without loss is not tried of large pictures, since it takes a second, and hardly any does.
    """
    content, kind = b"", ""
    if picture.width * picture.height <= _LARGE:
        content, kind = _encoded(picture, "PNG"), "png"
    for quality in _QUALITIES:
        if content and len(content) <= most:
            break
        content, kind = _encoded(picture, "JPEG", quality=quality, subsampling=0), "jpeg"
    if len(content) > most and max(picture.size) > 1:
        return embed(picture.reduce(2), alt, most)
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return PagePicture(source, picture.width, picture.height, alt)


def _encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
