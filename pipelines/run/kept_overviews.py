"""Overviews of maps that planning has made, kept on disk until the run ends: no map is decoded again for a picture."""

import hashlib
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np

from ...readers.overview import ReducedImage
from ...readers.render import Stretch, render

MAX_BYTES: Final = 2**30
"""Most bytes that are kept for one run; pictures of further maps are read again."""


def keep_overview(scratch: Path, image: str, overview: ReducedImage, stretch: Stretch) -> None:
    """Render an overview, whose first channels are the stretch's, and keep it for the image of this id, if it fits."""
    pixels = render(overview.pixels[..., : len(stretch.channels)], overview.valid, stretch)
    if sum(file.stat().st_size for file in scratch.iterdir()) + 2 * pixels.nbytes > MAX_BYTES:
        return
    with suppress(OSError):  # it is read again then
        np.savez(_path(scratch, image), pixels=pixels, valid=overview.valid, readable=overview.readable)


def rename_overviews(scratch: Path, names: Iterable[tuple[str, str]]) -> None:
    """Keep overviews under the ids that a run folder has: (real id, shown id)."""
    for image, shown in names:
        if image != shown and _path(scratch, image).exists():
            _path(scratch, image).replace(_path(scratch, shown))


def load_overview(scratch: Path, image: str, size: tuple[int, int]) -> ReducedImage | None:
    """The rendered overview (H, W, 3) of the image of this id and (width, height); None where it was not kept."""
    try:
        with np.load(_path(scratch, image), allow_pickle=False) as held:
            pixels, valid, readable = held["pixels"], held["valid"], held["readable"]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
    return ReducedImage(pixels, valid, readable, (size[0] / pixels.shape[1], size[1] / pixels.shape[0]))


def _path(scratch: Path, image: str) -> Path:
    return scratch / f"{hashlib.sha256(image.encode(errors='surrogateescape')).hexdigest()}.npz"
