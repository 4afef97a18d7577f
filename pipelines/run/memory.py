"""Memory of a run: what a process needs, by arithmetic, and a limit that is kept by measuring what processes hold."""

import contextlib
import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ...model.annotator import Cost
from ...model.views import grid_of
from ...readers.errors import RequestError
from ...readers.image import ImageInfo
from ...readers.registry import readers
from ..config import Settings, parse_bytes
from .plan import ImagePlan
from .processes import held_bytes

MAX_OPEN: Final = 4
"""Images that a process keeps open; a batch rarely spans two images."""
LIBRARIES: Final = 0.1 * 2**30
"""Bytes of Python and of the libraries that read and write, in a process without a model: measured."""
_TORCH: Final = 0.2 * 2**30  # bytes of torch and transformers, for networks that state no other libraries
_RGB_CHANNELS = 3
_FLOAT_BYTES = 4
_TILES = 4  # float32 copies of the tile that a network has: as converted, as its input, and its first layers' output
_MASKS = 2  # bytes of a pixel's validity, and of whether its answers are kept
_PACKED = 2  # bytes of a pixel and label while its probability is masked and compressed
_ANSWERS = 16  # bytes of a pixel whose class map is traced: its class, its score, and their sums
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of malloc.h
_LARGE = 16 * 2**20  # bytes, more than those of a tile
_LEAST_CACHE, _CACHE_SHARE = 16 * 2**20, 1 / 8  # of decoded pixels: bytes, and a part of the limit on memory


@dataclass(frozen=True, slots=True)
class Division:
    """How a run is divided so that it fits."""

    workers: int
    batch: int
    memory: float
    """Bytes that all of its processes need."""


def worker_bytes(
    images: Sequence[ImagePlan],
    cost: Cost | None,
    *,
    batch: int,
    limit: float | None = None,
    probabilities: int = 0,
) -> float:
    """Bytes that a process needs which annotates `batch` regions at a time and reads as many meanwhile.

    `cost` is that of its model, None where it is not known; `limit` that on all memory of the run; `probabilities` the
    number of labels whose probabilities are kept.
    """
    kept = cache_bytes([image.info for image in images], MAX_OPEN, cache_limit(limit))
    model = 0.0 if cost is None else (_TORCH if cost.libraries is None else cost.libraries)
    model += cost.memory if cost is not None and cost.device == "cpu" else 0.0
    return (
        LIBRARIES
        + kept
        + model
        + max(
            view_bytes(image) * 2 * batch
            + _work_bytes(image)
            + _canvas_pixels(image) * probabilities * (batch + _PACKED)
            for image in images
        )
    )


def view_bytes(image: ImagePlan) -> float:
    """Bytes of the largest region of an image from reading to its answers."""
    return _canvas_pixels(image) * (_pixel_bytes(image) + _MASKS)


def _work_bytes(image: ImagePlan) -> float:
    """Bytes that annotating a region takes besides its view: tiles, and answers."""
    channels = _RGB_CHANNELS if image.spec.bands is None else len(image.spec.bands)
    tile = image.spec.tile**2 * channels * _FLOAT_BYTES
    return _canvas_pixels(image) * _ANSWERS + _TILES * tile


def _canvas_pixels(image: ImagePlan) -> int:
    columns, rows = grid_of(image.largest_region, image.spec)
    step = image.spec.tile - 2 * image.spec.halo
    return (columns * step + 2 * image.spec.halo) * (rows * step + 2 * image.spec.halo)


def _pixel_bytes(image: ImagePlan) -> int:
    """Bytes of a pixel of a view: native bands, or RGB."""
    if image.spec.bands is None:
        return _RGB_CHANNELS
    return len(image.spec.bands) * max(np.dtype(channel.dtype).itemsize for channel in image.info.channels)


def cache_limit(limit: float | None) -> float:
    """Bytes of decoded pixels that a process may keep, inf for the readers' own limits."""
    return float("inf") if limit is None else max(_LEAST_CACHE, _CACHE_SHARE * limit)


def cache_bytes(infos: Sequence[ImageInfo], most_open: int, most: float = float("inf")) -> float:
    """Bytes of decoded pixels that a process keeps for reading images of which `most_open` are open at once.

    `most` limits each cache.
    """
    each: list[float] = []
    shared: list[float] = []
    largest = 0.0
    known = readers()
    for info in infos:
        reader = known[info.reader]
        pixel = sum(np.dtype(channel.dtype).itemsize for channel in info.channels)
        limit = min(most if hasattr(reader, "limit_cache") else float("inf"), getattr(reader, "cache_bytes", 0))
        kept = min(limit, info.size[0] * info.size[1] * pixel)
        if getattr(reader, "shared_cache", False):
            shared.append(kept)
            largest = max(largest, limit)
        else:
            each.append(kept)
    return sum(sorted(each)[-most_open:]) + min(largest, sum(shared))


def divide(
    settings: Settings, images: Sequence[ImagePlan], cost: Cost | None, *, workers: int, probabilities: int = 0
) -> Division:
    """The largest batch, and then the most of `workers` processes, that fit into `--memory`.

    Workers of Ray are on other machines, so that the limit is that of each. Raises `RequestError` where not even one
    region fits.
    """
    limit = memory_limit(settings)
    parent = LIBRARIES if settings.engine == "local" else 0.0
    batch = settings.batch

    def needs(batch: int, limit: float | None = limit) -> float:
        return worker_bytes(images, cost, batch=batch, limit=limit, probabilities=probabilities)

    while (needed := needs(batch)) and limit and parent + needed > limit:
        if batch == 1:
            least = limit
            while (more := parent + needs(1, least)) > least * 1.001:  # caches grow with the limit
                least = more
            raise RequestError(
                "--memory",
                "must hold one region and the model",
                value=f"{settings.memory}, where about {least / 1e6:.0f} MB are needed",
                remedy=f"Give --memory {least / 1e6 * 1.1:.0f}MB or more, or lower --hd-num",
            )
        batch //= 2
    if limit and settings.engine != "ray":
        workers = max(1, min(workers, int((limit - parent) // needed)))
    return Division(workers, batch, parent + workers * needed)


def memory_limit(settings: Settings) -> float | None:
    """The bytes of `--memory`; None where there is no limit."""
    return parse_bytes(settings.memory) if settings.memory else None


@dataclass(frozen=True, slots=True)
class Headroom:
    """Tells whether more regions may be read ahead. Pickles."""

    limit: float | None
    """Bytes that this process and its children may hold; None for any number."""
    ahead: float = 0.0
    """Bytes that reading ahead takes."""

    def __call__(self) -> bool:
        """Whether it fits, after what was freed is given back."""
        if self.limit is None or held_bytes(os.getpid()) + self.ahead <= self.limit:
            return True
        release_freed_memory()
        return held_bytes(os.getpid()) + self.ahead <= self.limit


def release_freed_memory() -> None:
    """Give what this process has freed back to the system, where the C library can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def return_large_arrays() -> None:
    """Give arrays of the size of a region back to the system as soon as they are freed, where the C library can.

    It would keep them for others, and next to none fits where one has been. What is freed of smaller arrays, as of each
    tile, stays up to a limit, as it does by default: else every tile would ask the system for its memory anew.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_TRIM_THRESHOLD, 2 * _LARGE)
