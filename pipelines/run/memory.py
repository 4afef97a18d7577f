"""Memory of a run: what a process needs, by arithmetic, and a limit that is kept by measuring what processes hold."""

import contextlib
import ctypes
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ...model.annotator import Cost
from ...model.findings_table import BATCH_VERTICES
from ...model.views import grid_of
from ...readers.errors import RequestError
from ...readers.image import ImageInfo
from ...readers.overview import OVERVIEW_SIDE
from ...readers.registry import readers
from ...reports.overview.size import drawing_bytes
from ..config import Settings, parse_bytes
from .plan import ImagePlan
from .processes import held_bytes

MAX_OPEN: Final = 4
"""Images that a process keeps open; a batch rarely spans two images."""
LIBRARIES: Final = 60 * 2**20
"""Bytes of Python and of the libraries that read pixels, in a process without a model: measured."""
PLANNED: Final = 20 * 2**20
"""Bytes that stay with the process that has planned: the plan, and libraries that it needed: measured."""
_DECODER: Final = 45 * 2**20  # bytes of the process that decodes the slices of studies: measured
_TORCH: Final = 235 * 2**20  # bytes of torch and transformers, for networks that state no other libraries: measured
_RGB_CHANNELS = 3
_FLOAT_BYTES = 4
_TILES = 4  # float32 copies of the tile that a network has: as converted, as its input, and its first layers' output
_MASKS = 2  # bytes of a pixel's validity, and of whether its answers are kept
_PACKED = 2  # bytes of a pixel and label while its probability is masked and compressed
_ANSWERS = 9  # bytes of a pixel that is traced: its class 1, its score 4, three masks, and GDAL's copy of one
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of malloc.h
_LARGE = 16 * 2**20  # bytes, more than those of a tile
_FREED = 2 * _LARGE  # bytes that the C library keeps of what a thread has freed, of arrays that are not large
_THREADS = 2  # that allocate: the one that reads, and the one that annotates
_TABLES: Final = 90 * 2**20  # bytes of the libraries that write tables, pandas, Arrow and GDAL's of vectors: measured
REPORT_CODE: Final = 60 * 2**20
"""Bytes of the code of the same libraries, of which all processes share one copy: measured."""
_TABLE_REPORTS: Final = frozenset({"flatgeobuf", "geopackage", "geoparquet"})  # that load them
_PICTURE_REPORTS: Final = frozenset({"html", "overview-png"})
_VERTEX: Final = 400  # bytes of a vertex in all reports that are written at the same time: measured
_KEPT_VERTEX: Final = 60  # bytes of a vertex in the findings that were read last, and in the picture's layers: measured
_MOST_KEPT: Final = 2 * 64 * 2**20  # bytes of both
_DENSE: Final = 8  # analysed pixels for each vertex of a map of small patches
_LEAST_CACHE, _CACHE_SHARE = 16 * 2**20, 1 / 8  # of decoded pixels: bytes, and a part of the limit on memory
_FINER = 4  # stored pixels for each analysed one at most, where levels are halves of each other


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
    workers: int = 1,
) -> float:
    """Bytes that a process needs which annotates `batch` regions at a time and reads as many meanwhile, if there are.

    `cost` is that of its model, None where it is not known; `limit` that on all memory of the run; `probabilities` the
    number of labels whose probabilities are kept; `workers` the number of such processes.
    """
    ahead = _batches(images, batch) > workers
    kept = cache_bytes(images, MAX_OPEN, cache_limit(limit))
    decoder = _DECODER if any(image.info.kind == "study" for image in images) else 0.0
    return (
        LIBRARIES
        + decoder
        + kept
        + library_bytes(cost)
        + (cost.memory if cost is not None and cost.device == "cpu" else 0.0)
        + max(_region_bytes(image, batch, probabilities, ahead=ahead) for image in images)
    )


def library_bytes(cost: Cost | None) -> float:
    """Bytes of the libraries of a model of that cost, 0 where it is not known."""
    return 0.0 if cost is None else (_TORCH if cost.libraries is None else cost.libraries)


def started(images: Sequence[ImagePlan], *, batch: int, workers: int) -> int:
    """How many of `workers` processes have a batch to annotate."""
    return max(1, min(workers, _batches(images, batch)))


def _batches(images: Sequence[ImagePlan], batch: int) -> int:
    """How many batches there are; a stack that is annotated as a whole is one."""
    return sum(
        min(1, len(image.remaining)) if image.spec.volume else -(-len(image.remaining) // batch) for image in images
    )


def _region_bytes(image: ImagePlan, batch: int, probabilities: int, *, ahead: bool) -> float:
    """Bytes of the regions of an image that are read and annotated at a time."""
    held = max(1, min(batch, len(image.remaining)))
    canvas, view, tiles = _canvas_pixels(image), view_bytes(image), _tile_bytes(image)
    freed = tiles + (view if view < _LARGE else 0.0)
    if not ahead:  # one thread, of the tiles before
        freed = tiles if image.largest_region.tiles != (1, 1) else 0.0
    return (
        view * held * (2 if ahead else 1)
        + canvas * _reading_bytes(image)
        + canvas * _ANSWERS
        + tiles
        + canvas * probabilities * (held + _PACKED)
        + min(_FREED, freed) * (_THREADS if ahead else 1)
    )


def view_bytes(image: ImagePlan) -> float:
    """Bytes of the largest region of an image from reading to its answers."""
    return _canvas_pixels(image) * (_pixel_bytes(image) + _MASKS)


def _tile_bytes(image: ImagePlan) -> float:
    """Bytes of a tile on its way through a network."""
    channels = _RGB_CHANNELS if image.spec.bands is None else len(image.spec.bands)
    return _TILES * image.spec.tile**2 * channels * _FLOAT_BYTES


def _reading_bytes(image: ImagePlan) -> int:
    """Bytes of a pixel besides those of its view while it is read: native ones of which RGB is rendered, overall."""
    channels = image.info.channels if image.stretch is None else image.stretch.channels
    native = max(np.dtype(channel.dtype).itemsize for channel in image.info.channels) * len(channels)
    overall = _RGB_CHANNELS * _FLOAT_BYTES if image.spec.overall else 0
    return overall + (native if image.spec.bands is None else 0)


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


def cache_bytes(images: Sequence[ImagePlan], most_open: int, most: float = float("inf")) -> float:
    """Bytes of decoded pixels that a process keeps for reading images of which `most_open` are open at once.

    `most` limits each cache. None has more than what the regions that are to be read have.
    """
    each: list[float] = []
    shared: list[float] = []
    largest = 0.0
    known = readers()
    for image in images:
        reader = known[image.info.reader]
        limit = min(most if hasattr(reader, "limit_cache") else float("inf"), getattr(reader, "cache_bytes", 0))
        kept = min(limit, _stored_bytes(image))
        if getattr(reader, "shared_cache", False):
            shared.append(kept)
            largest = max(largest, limit)
        else:
            each.append(kept)
    return sum(sorted(each)[-most_open:]) + min(largest, sum(shared))


def _stored_bytes(image: ImagePlan) -> float:
    """Bytes of the pixels that are decoded for the regions to be read: those of the level next to the analysed size."""
    info = image.info
    pixel = sum(np.dtype(channel.dtype).itemsize for channel in info.channels)
    reduced = max(1.0, image.grid.scale[0] * image.grid.scale[1])
    finer = min(reduced, _FINER) if int(dict(info.facts).get("levels", "1")) > 1 else reduced
    analysed = sum(region.size[0] * region.size[1] for region in image.remaining)
    return pixel * min(info.size[0] * info.size[1] * finer / reduced, analysed * finer)


def divide(
    settings: Settings,
    images: Sequence[ImagePlan],
    cost: Cost | None,
    *,
    workers: int,
    probabilities: int = 0,
    planning: float = 0.0,
) -> Division:
    """The largest batch, and then the most of `workers` processes, that fit into `--memory`.

    `planning` are the bytes that planning has taken. Workers of Ray are on other machines, so that the limit is that of
    each. Raises `RequestError` where not even one region fits, or planning or the reports do not; it advises enough.
    """
    limit = memory_limit(settings)
    parent = parent_bytes(settings)
    batch = settings.batch

    def needs(batch: int, limit: float | None = limit) -> float:
        return worker_bytes(images, cost, batch=batch, limit=limit, probabilities=probabilities, workers=workers)

    if limit:
        least = limit
        while (more := parent + needs(1, least)) > least * (1.001 if least > limit else 1.0):
            least = more  # caches grow with the limit
        others = (
            (planning, report_bytes(settings, images, cost, pixels_per_vertex=math.inf))
            if settings.engine != "ray"
            else (0, 0)
        )
        parts = (
            (least, "must hold one region and the model", ", or lower --hd-num"),
            (others[0], "must hold what planning takes, mostly the overviews of the images", ""),
            (others[1], "must hold what the reports take", ", or choose fewer --reports"),
        )
        most, rule, otherwise = max(parts)
        if most > limit:
            value = f"{settings.memory}, where about {most / 1e6:.0f} MB are needed"
            room = max(most, others[1] and report_bytes(settings, images, cost, pixels_per_vertex=_DENSE))
            advised = math.ceil(round(room / 1e6 * 1.1, 3))
            remedy = f"Give --memory {advised}MB, which has room for the reports of many findings{otherwise}"
            raise RequestError("--memory", rule, value=value, remedy=remedy)
    while (needed := needs(batch)) and limit and parent + needed > limit:
        batch //= 2
    if limit and settings.engine != "ray":
        workers = max(1, min(workers, int((limit - parent) // needed)))
    return Division(workers, batch, parent + started(images, batch=batch, workers=workers) * needed)


def parent_bytes(settings: Settings) -> float:
    """Bytes that the process which has planned holds besides those of a worker, while regions are annotated."""
    return {"inline": PLANNED, "local": LIBRARIES + PLANNED}.get(settings.engine, 0.0)


def report_bytes(
    settings: Settings, images: Sequence[ImagePlan], cost: Cost | None, *, pixels_per_vertex: float = 200
) -> float:
    """Bytes that writing the reports of a run takes.

    How much is found is not known beforehand: assumed is a vertex of outlines for each 200 analysed pixels, as in
    smooth made scenes.
    """
    names = set(settings.reports)
    analysed = sum(region.size[0] * region.size[1] for image in images for region in image.remaining)
    vertices = analysed / pixels_per_vertex
    pictures = (drawing_bytes(_overview_size(image.info)) for image in images)
    return (
        LIBRARIES
        + PLANNED
        + (library_bytes(cost) if settings.engine == "inline" else 0.0)
        + (0.0 if names and not names & _TABLE_REPORTS else _TABLES)
        + (0.0 if names and not names & _PICTURE_REPORTS else max(pictures))
        + min(BATCH_VERTICES, vertices) * _VERTEX
        + min(_MOST_KEPT, vertices * _KEPT_VERTEX)
    )


def _overview_size(info: ImageInfo) -> tuple[int, int]:
    """Sides of the overview in pixels; a montage of slices fills it."""
    if len(info.planes) > 1:
        return OVERVIEW_SIDE, OVERVIEW_SIDE
    factor = min(1.0, OVERVIEW_SIDE / max(info.size))
    return round(info.size[0] * factor), round(info.size[1] * factor)


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
