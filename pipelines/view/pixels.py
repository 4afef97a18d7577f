"""Reads parts of images as RGB. Runs in a sandboxed process, since the files are untrusted until they are read there.

Results are (H, W, 4) bytes: red, green, blue, and what is known of the pixel.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...readers.geometry import Box
from ...readers.image import Image, ImageInfo
from ...readers.orientation import Orientation
from ...readers.overview import Montage, read_overview
from ...readers.registry import limit_caches, open_image
from ...readers.render import Stretch, render

NODATA: Final = 0
UNREADABLE: Final = 128
VALID: Final = 255
"""What is known of a pixel."""

_MOST_OPEN: Final = 8
_CACHED: Final = 256 << 20  # bytes of decoded pixels that readers keep

Rgba = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Opened:
    image: Image
    turned: Orientation
    aspect: tuple[float, float]


_images: OrderedDict[str, _Opened] = OrderedDict()


def open_picture(
    key: str, info: dict[str, Any], channels: list[str], turned: list[bool], aspect: tuple[float, float]
) -> None:
    """Open an image, which later calls name by its key, as long as it is among the last ones. Raises `ReadError`.

    turned: the fields of its `Orientation`; aspect: see `read_overview`.
    """
    limit_caches(_CACHED)
    while len(_images) >= _MOST_OPEN:
        _images.popitem(last=False)[1].image.close()
    image = open_image(ImageInfo.from_json(info), channels)
    _images[key] = _Opened(image, Orientation(*turned), (aspect[0], aspect[1]))


def read_part(key: str, plane: int, box: list[float], size: list[int], stretch: dict[str, Any]) -> Rgba:
    """Read a box of an upright plane, x0, y0, x1, y1 in shares of its width and height, as `size` (width, height) px.

    Raises `ReadError`, and `KeyError` where the image is not open.
    """
    opened, (width, height) = _used(key), (size[0], size[1])
    info = opened.image.info
    across, down = opened.turned.swap((float(info.size[0]), float(info.size[1])))
    upright = Box(box[0] * across, box[1] * down, box[2] * across, box[3] * down)
    native = opened.turned.box_to_level0(upright, (float(info.size[0]), float(info.size[1])))
    pixels, valid = opened.image.read(native, opened.turned.swap((width, height)), plane)
    shown = render(pixels, valid, Stretch.from_json(stretch))
    known = np.where(valid, np.uint8(VALID), np.uint8(NODATA))
    return opened.turned.turn(np.dstack([shown, known]))


def read_whole(key: str, plane: int, longest: int, stretch: dict[str, Any]) -> Rgba:
    """Read a whole upright plane, of at most `longest` px on its long side. Raises `KeyError` likewise."""
    opened = _used(key)
    montage = Montage(opened.image.info.size, (plane,))
    found = read_overview(opened.image, limit=longest, montage=montage, aspect=opened.aspect, enlarge=True)
    shown = render(found.pixels, found.valid, Stretch.from_json(stretch))
    known = np.where(found.valid, np.uint8(VALID), np.uint8(NODATA))
    known[~found.readable] = UNREADABLE
    return opened.turned.turn(np.dstack([shown, known]))


def _used(key: str) -> _Opened:
    _images.move_to_end(key)
    return _images[key]
