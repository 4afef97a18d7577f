"""Overviews of maps and slides, kept in the run folder: reports and a resumed run do not decode an image again.

A file is written aside and renamed when it is whole. It states what it was read from and has a checksum: one that is
damaged, or of another image or version of limner, is read from the image again. Those of studies, which show a patient,
are not kept.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...model.finding import PackedRaster
from ...readers.files import parse_json, read_file, write_atomic
from ...readers.image import Image, ImageInfo, Pixels
from ...readers.overview import OVERVIEW_SIDE, ReducedImage, overview_bytes, read_overview
from ...readers.registry import open_image
from ...reports.writer import image_file
from .parts import pack_raster, unpack_raster
from .run_files import OVERVIEWS

MAX_BYTES: Final = 2**30
"""Most bytes that are kept for one run; overviews of further images are read again."""
MAX_OVERVIEW_BYTES: Final = 2**27
"""Most bytes of the pixels of one, before they are compressed."""
LEAST_TIMES: Final = 4
"""Times its own bytes that must be decoded for an overview that lasts: with a pyramid in the file it seldom does."""
LEAST_BYTES: Final = 2**24
"""Bytes that must be decoded for it, which take a tenth of a second."""
_DIGEST: Final = 32  # bytes of the sha256 at the beginning of a file


class KeptOverviews:
    """Keeps what it reads in the folder `scratch` and then, if that was costly, in the folder `run`.

    Without `run` nothing lasts, and without `scratch` nothing is kept. With `every` others that reports draw on
    are kept in `scratch` too.
    """

    def __init__(self, run: Path | None = None, scratch: Path | None = None, *, every: bool = False) -> None:
        self._folder = None if run is None else run / OVERVIEWS
        self._scratch = scratch
        self._every = every
        self._bytes = 0  # in `scratch`
        self._costly: dict[str, bool] = {}  # whether it is personal, by name

    def load(
        self, info: ImageInfo, channels: Sequence[str], limit: int, *, first: int | None = None
    ) -> ReducedImage | None:
        """What `read_overview` gives of the named channels with that limit; None where it was not kept.

        With `first` it has only so many of the channels, which takes less time.
        """
        for folder in (self._scratch, self._folder):
            if folder is not None and info.kind != "study":
                with suppress(OSError, ValueError, KeyError, TypeError):
                    return _decode(_read(folder / _name(info, channels, limit)), _source(info), first)
        return None

    def read(self, image: Image, limit: int, on_progress: Callable[[float], None] = lambda _: None) -> ReducedImage:
        """What was kept, or `read_overview` gives, of an image with that limit."""
        channels = [channel.name for channel in image.channels]
        found = self.load(image.info, channels, limit)
        if found is None:
            found = read_overview(image, limit=limit, on_progress=on_progress, reopen=open_image)
            if self._scratch is not None and image.info.kind != "study":
                self._keep(self._scratch, image, _name(image.info, channels, limit), limit, found)
        return found

    def _keep(self, scratch: Path, image: Image, name: str, limit: int, found: ReducedImage) -> None:
        size = found.pixels.nbytes
        decoded = overview_bytes(image, limit) or math.prod(image.info.size) * size / found.valid.size
        costly = self._folder is not None and bool(image.info.fingerprint)
        costly &= decoded > max(LEAST_TIMES * size, LEAST_BYTES)
        shared = costly or (self._every and limit == OVERVIEW_SIDE)
        if not shared or size > MAX_OVERVIEW_BYTES or found.pixels.dtype.kind not in "uif":
            return
        content = _encode(found, _source(image.info))
        if self._bytes + len(content) <= MAX_BYTES:
            with suppress(OSError):  # it is read again then
                (scratch / name).write_bytes(content)
                self._bytes += len(content)
                self._costly |= {name: image.info.personal} if costly else {}

    def save(self) -> None:
        """Move what was costly to the run folder."""
        if self._folder is not None and self._scratch is not None and self._costly:
            with suppress(OSError):  # they are read again then
                self._folder.mkdir(exist_ok=True)
                held = sum(path.stat().st_size for path in self._folder.iterdir())
                for name, personal in self._costly.items():
                    content = (self._scratch / name).read_bytes()
                    if held + len(content) <= MAX_BYTES:
                        write_atomic(self._folder / name, content, private=personal)
                        (self._scratch / name).unlink()
                        held += len(content)
            self._costly.clear()


def damaged_overviews(folder: Path) -> dict[str, bool]:
    """Whether each overview that is kept in a run folder is damaged, by its name."""
    found: dict[str, bool] = {}
    for path in sorted((folder / OVERVIEWS).glob("*.zst")) if (folder / OVERVIEWS).is_dir() else ():
        try:
            _body(_read(path))
            found[path.name] = False
        except (OSError, ValueError):
            found[path.name] = True
    return found


def _read(path: Path) -> bytes:
    return read_file(path, max_bytes=2 * MAX_OVERVIEW_BYTES, regular=True)


def _sha256(values: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _name(info: ImageInfo, channels: Sequence[str], limit: int) -> str:
    """The file of an overview: another version of the same replaces it."""
    return image_file(Path(), "", info.id, f"-{_sha256([list(channels), info.options, limit])[:16]}.zst").name


def _source(info: ImageInfo) -> str:
    """What an overview was read from, and by what."""
    return _sha256([version("limner"), info.reader, info.part, info.size, info.fingerprint])


def _encode(found: ReducedImage, source: str) -> bytes:
    """A sha256 of the rest, a line of JSON, then each channel and mask."""
    channels = [found.pixels[..., channel] for channel in range(found.pixels.shape[2])]
    masks = [found.valid, found.readable, *(() if found.sampled is None else (found.sampled,))]
    parts = [_pack(part) for part in (*channels, *masks)]
    header = {
        "source": source,
        "dtype": found.pixels.dtype.str,
        "shape": found.pixels.shape,
        "scale": found.scale,
        "lengths": [len(part) for part in parts],
    }
    body = b"".join([json.dumps(header).encode(), b"\n", *parts])
    return hashlib.sha256(body).digest() + body


def _body(content: bytes) -> bytes:
    """What follows the sha256. Raises `ValueError` where it is not as it was written."""
    body = content[_DIGEST:]
    if hashlib.sha256(body).digest() != content[:_DIGEST]:
        msg = "the checksum does not match"
        raise ValueError(msg)
    return body


def _decode(content: bytes, source: str, first: int | None = None) -> ReducedImage:
    """The inverse of `_encode`, of so many channels, or all.

    Raises `ValueError`, `KeyError`, `TypeError` or `OSError` for anything else.
    """
    body = _body(content)
    line, _, packed = body.partition(b"\n")
    header: dict[str, Any] = parse_json(line)
    (height, width, count), dtype = header["shape"], np.dtype(header["dtype"])
    if header["source"] != source or not 0 < height * width * count * dtype.itemsize <= MAX_OVERVIEW_BYTES:
        msg = "it is of another image, or none"
        raise ValueError(msg)
    pixels: Pixels = np.empty((height, width, min(first or count, count)), dtype)
    masks: list[npt.NDArray[np.bool_]] = []
    start = 0
    for number, length in enumerate(header["lengths"]):
        part = packed[start : start + length]
        start += length
        if number < pixels.shape[2]:
            pixels[..., number] = _unpack(part, (height, width), dtype)
        elif number >= count:
            masks.append(_unpack(part, (height, width), np.dtype(np.bool_)))
    valid, readable, *sampled = masks
    return ReducedImage(pixels, valid, readable, (header["scale"][0], header["scale"][1]), *sampled)


def _pack(values: npt.NDArray[Any]) -> bytes:
    """Compress (H, W) as differences of neighbours in a row, byte by byte: two thirds of what it is without."""
    numbers = np.ascontiguousarray(values).view(f"u{values.itemsize}")
    steps = np.diff(numbers, axis=1, prepend=numbers.dtype.type(0))
    return pack_raster(steps.view(np.uint8).reshape(-1, values.itemsize).T).content


def _unpack(content: bytes, shape: tuple[int, int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The inverse of `_pack`."""
    planes = unpack_raster(PackedRaster("|u1", (dtype.itemsize, math.prod(shape)), content))
    steps = np.ascontiguousarray(planes.T).view(f"u{dtype.itemsize}").reshape(shape)
    return np.cumsum(steps, axis=1, dtype=steps.dtype).view(dtype)
