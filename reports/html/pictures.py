"""Pictures inside a page."""

import base64
import io
from dataclasses import dataclass
from typing import Final

from PIL import Image

MOST_BYTES: Final = 192 << 10
"""Most bytes of a picture in a page, before they are written as text, which takes a third more."""
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


def embed(picture: Image.Image, alt: str) -> PagePicture:
    """A picture as part of a page: without loss where that fits `MOST_BYTES`, else as JPEG, else reduced by halves."""
    content, kind = _encoded(picture, "PNG"), "png"
    for quality in _QUALITIES:
        if len(content) <= MOST_BYTES:
            break
        content, kind = _encoded(picture, "JPEG", quality=quality, subsampling=0), "jpeg"
    if len(content) > MOST_BYTES:
        return embed(picture.reduce(2), alt)
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return PagePicture(source, picture.width, picture.height, alt)


def _encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
