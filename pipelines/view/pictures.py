"""Pictures of a run's images for the server: tiles at any zoom, overviews and parts, read as they are asked for.

Where a pixel of a tile is at least one of the overview's, the tile is cut from the overview, which is read once: it is
the whole plane, at most 2048 px wide. Finer tiles are read from the image. All are rendered with the stretch or window
that the run recorded.
"""

import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from PIL import Image

from ...readers.errors import LimnerError, ReadError
from ...readers.files import is_remote
from ...readers.image import ImageInfo
from ...readers.overview import OVERVIEW_SIDE
from ...readers.render import Stretch
from ...readers.sandbox import SandboxedProcess, SandboxError
from ...reports.html.live_page import LivePicture
from ...reports.html.run_values import IDENTIFYING, is_identifying
from ...reports.overview.painting import SKIPPED, UNREADABLE, checkerboard, hatched, plane_masks
from ...reports.writer import ImageRecord
from ..run.plan import ImagePlan
from ..run.record_pictures import square_aspect
from . import pixels
from .pixels import Rgba
from .turns import Turns

TILE: Final = 512
"""Pixels of a tile's side."""

_READERS: Final = 2
_WAITING: Final = 32  # requests for tiles: of more the oldest are dropped
_TILE_SECONDS: Final = 20.0
_WHOLE_SECONDS: Final = 60.0
_CACHED: Final = 128 << 20  # bytes of encoded tiles, and again of overviews
_GONE: Final = "Its pixels cannot be shown: {}. The findings are those of the run."
_SERVER: Final = "it was read from a server, and this page asks no other one"
_CHANGED: Final = "the image is gone, or has changed since the run"
_FAULTS: Final = {"time": "reading took too long", "memory": "reading took too much memory"}

Item = TypeVar("Item")


class NoPictureError(Exception):
    """There are no pixels to show; the message is a sentence that says why."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture as a browser takes it."""

    content: bytes
    kind: str
    """Its media type."""


class _Kept(OrderedDict[Any, Item]):
    """What was used last, of at most so many bytes."""

    def __init__(self, size: Callable[[Item], int]) -> None:
        super().__init__()
        self._size, self._held, self._lock = size, 0, threading.Lock()

    def find(self, key: object) -> Item | None:
        with self._lock:
            if key in self:
                self.move_to_end(key)
            return super().get(key)

    def keep(self, key: object, item: Item) -> None:
        with self._lock:
            if key not in self:
                self._held += self._size(item)
            self[key] = item
            while self._held > _CACHED and len(self) > 1:
                self._held -= self._size(self.popitem(last=False)[1])


class Pictures:
    """The pictures of a run's images, by their place in the run. Thread-safe; close it at the end."""

    def __init__(self, plans: list[ImagePlan], images: tuple[ImageRecord, ...], kept: Path) -> None:
        self._plans, self._images, self._folder = plans, images, kept
        self._processes = [SandboxedProcess() for _ in range(_READERS)]
        self._turns = Turns(self._processes, _WAITING)
        self._tiles = _Kept[Encoded](lambda one: len(one.content))
        self._wholes = _Kept[Rgba](lambda one: one.nbytes)
        self._reading: dict[object, threading.Lock] = {}
        self._infos: dict[int, ImageInfo | str] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the processes that read, which takes a second, before they are needed."""
        for process in self._processes:
            process.start()

    def close(self) -> None:
        """End the processes that read."""
        for process in self._processes:
            process.close()

    def status(self, number: int) -> str:
        """Why the image itself cannot be read, as a sentence; "" where it can."""
        try:
            self._original(number)
        except NoPictureError as error:
            return str(error)
        return ""

    def tile(
        self, number: int, plane: int, window: int, at: tuple[int, int, int], is_open: Callable[[], bool]
    ) -> Encoded:
        """The tile (level, column, row) of a plane; the highest level has the image's own pixels, level 0 is one tile.

        Raises `NoPictureError` where it cannot be read, `IndexError` where there is none, `OutdatedError`.
        """
        level, column, row = at
        width, height = size = picture_size(self._plans[number])
        top = highest_level(size)
        if not 0 <= level <= top:
            raise IndexError(level)
        step = TILE << (top - level)
        left, upper = column * step, row * step
        if not (0 <= left < width and 0 <= upper < height):
            raise IndexError(at)
        box = (left, upper, min(left + step, width), min(upper + step, height))
        key = (number, plane, window, at)
        tile = self._tiles.find(key)
        if tile is None:
            shown = (max(1, -(-(box[2] - left) * TILE // step)), max(1, -(-(box[3] - upper) * TILE // step)))
            start = (column * TILE, row * TILE)
            tile = self._encoded(number, self._painted(number, plane, window, box, shown, start, is_open))
            self._tiles.keep(key, tile)
        return tile

    def part(
        self, number: int, plane: int, window: int, box: tuple[int, int, int, int], is_open: Callable[[], bool]
    ) -> Encoded:
        """A box of a plane in pixels of its picture, at most 480 × 320 px of it. Raises as `tile` does."""
        width, height = picture_size(self._plans[number])
        x0, y0, x1, y1 = max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])
        if x0 >= x1 or y0 >= y1:
            raise IndexError(box)
        zoom = min(480 / (x1 - x0), 320 / (y1 - y0), 4.0)
        shown = (max(1, round((x1 - x0) * zoom)), max(1, round((y1 - y0) * zoom)))
        return self._encoded(number, self._painted(number, plane, window, (x0, y0, x1, y1), shown, (0, 0), is_open))

    def overview(self, number: int, plane: int, is_open: Callable[[], bool]) -> Encoded:
        """A plane as a whole, of at most 512 px. Raises as `tile` does."""
        found = self._whole(number, plane, 0, is_open)
        height, width = found.shape[:2]
        factor = min(1.0, TILE / max(width, height))
        shown = (max(1, round(width * factor)), max(1, round(height * factor)))
        return self._encoded(
            number, self._paint(number, plane, _reduced(found, (0, 0, 1, 1), shown), (0, 0, 1, 1), (0, 0))
        )

    def _encoded(self, number: int, picture: Image.Image) -> Encoded:
        """A picture without loss where it is of a study, else as JPEG."""
        file = io.BytesIO()
        if self._plans[number].info.kind == "study":
            picture.save(file, "PNG", compress_level=1)
            return Encoded(file.getvalue(), "image/png")
        picture.save(file, "JPEG", quality=90, subsampling=0)
        return Encoded(file.getvalue(), "image/jpeg")

    def _painted(
        self,
        number: int,
        plane: int,
        window: int,
        box: tuple[int, int, int, int],
        shown: tuple[int, int],
        start: tuple[int, int],
        is_open: Callable[[], bool],
    ) -> Image.Image:
        """A box of a picture as `shown` (width, height) px, of which `start` is the place in the whole at that zoom."""
        width, height = picture_size(self._plans[number])
        share = (box[0] / width, box[1] / height, box[2] / width, box[3] / height)
        scale = max((box[2] - box[0]) / shown[0], (box[3] - box[1]) / shown[1])
        if scale >= max(1.0, max(width, height) / OVERVIEW_SIDE) - 1e-6 or self.status(number):
            found = _reduced(self._whole(number, plane, window, is_open), share, shown)
        else:
            found = self._read(number, "read_part", is_open, _TILE_SECONDS, plane, share, shown, window=window)
        return self._paint(number, plane, found, share, start)

    def _paint(
        self, number: int, plane: int, found: Rgba, share: tuple[float, float, float, float], start: tuple[int, int]
    ) -> Image.Image:
        """Pixels with a checkerboard on nodata, and hatching on what was not analysed or cannot be read."""
        height, width = found.shape[:2]
        picture = Image.fromarray(found[..., :3])
        known = found[..., 3]
        if (known != pixels.VALID).any():
            picture.paste(checkerboard((width, height), start), mask=Image.fromarray(known != pixels.VALID))
        skipped, unreadable = (_reduced(mask, share, (width, height)) > 0 for mask in self._masks(number, plane))
        total = start[0] + start[1]
        picture = hatched(picture, skipped, SKIPPED, start=total)
        return hatched(picture, unreadable | (known == pixels.UNREADABLE), UNREADABLE, start=total)

    def _masks(self, number: int, plane: int) -> tuple[Rgba, Rgba]:
        """(skipped, unreadable) of a plane, reduced."""
        plan = self._plans[number]
        width, height = picture_size(plan)
        factor = min(1.0, OVERVIEW_SIDE / max(width, height))
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        found = self._wholes.find(key := ("masks", number, plane))
        if found is None:
            masks = plane_masks(self._images[number], plane, plan.grid.orientation, size)
            found = np.stack(masks).view(np.uint8)
            self._wholes.keep(key, found)
        return found[0], found[1]

    def _whole(self, number: int, plane: int, window: int, is_open: Callable[[], bool]) -> Rgba:
        """A plane as a whole, of at most 2048 px, read once; as the last session kept it where the image is gone."""
        key = (number, plane, window)
        with self._lock:
            lock = self._reading.setdefault(key, threading.Lock())
        with lock:
            found = self._wholes.find(key)
            if found is None:
                found = self._read_whole(number, plane, window, is_open)
                self._wholes.keep(key, found)
        return found

    def _read_whole(self, number: int, plane: int, window: int, is_open: Callable[[], bool]) -> Rgba:
        file = self._folder / f"overview-{number}-{plane}-{window}.png"
        try:
            found = self._read(number, "read_whole", is_open, _WHOLE_SECONDS, plane, OVERVIEW_SIDE, window=window)
        except NoPictureError:
            try:
                with Image.open(file) as kept:
                    return np.asarray(kept.convert("RGBA"))
            except OSError:
                raise NoPictureError(self.status(number) or _GONE.format(_FAULTS["time"])) from None
        if len(self._images[number].info.planes) == 1:
            Image.fromarray(found).save(file, "PNG", compress_level=1)
        return found

    def _original(self, number: int) -> tuple[ImageInfo, Stretch]:
        """The image's metadata with real paths, once it was checked that it is as the run read it."""
        plan, image = self._plans[number], self._images[number]
        if (hidden := live_picture(plan).hidden) or plan.stretch is None:
            raise NoPictureError(hidden)
        with self._lock:
            if number not in self._infos:
                try:
                    info = plan.info if image.original is None else image.original()
                    self._infos[number] = _GONE.format(_SERVER) if _is_served(info) else info
                except LimnerError:  # which names the real path
                    self._infos[number] = _GONE.format(_CHANGED)
            found = self._infos[number]
        if isinstance(found, str):
            raise NoPictureError(found)
        return found, plan.stretch

    def _read(
        self, number: int, what: str, is_open: Callable[[], bool], seconds: float, plane: int, *more: Any, window: int
    ) -> Rgba:
        """Call a function of `pixels` in a process of ours, which opens the image where it has not."""
        info, own = self._original(number)
        stretch = _stretches(self._plans[number])[window]
        plan, key = self._plans[number], str(number)
        with self._turns.turn(is_open) as process:

            def read() -> Rgba:
                return process.call(f"{pixels.__name__}:{what}", key, plane, *more, stretch.to_json(), seconds=seconds)

            try:
                try:
                    return read()
                except SandboxError as error:
                    if error.value != "KeyError":
                        raise
                turned = [*asdict(plan.grid.orientation).values()]
                words = (key, info.to_json(), list(own.channels), turned, square_aspect(plan))
                process.call(f"{pixels.__name__}:open_picture", *words, seconds=_TILE_SECONDS)
                return read()
            except SandboxError as error:
                raise NoPictureError(_GONE.format(_FAULTS.get(error.code, "its file cannot be read"))) from error
            except LimnerError as error:  # whose message names the real path
                why = "this part of its file cannot be read" if isinstance(error, ReadError) else "reading it failed"
                raise NoPictureError(_GONE.format(why)) from None


def live_picture(plan: ImagePlan) -> LivePicture:
    """What a page needs to know of the picture of an image."""
    hidden = IDENTIFYING if is_identifying(plan.info) else plan.no_rgb_reason if plan.stretch is None else ""
    windows = [one.source for one in _stretches(plan)]
    return LivePicture(picture_size(plan), plan.grid.orientation, hidden, windows if len(windows) > 1 else ())


def _stretches(plan: ImagePlan) -> list[Stretch]:
    """The run's own stretch; of three windows also each alone."""
    stretch = plan.stretch
    if stretch is None or len(stretch.channels) == len(stretch.low):
        return [] if stretch is None else [stretch]
    names = stretch.source.split("; ")
    names = names if len(names) == len(stretch.low) else ["the first window", "the second window", "the third window"]
    parts = zip(stretch.low, stretch.high, names, strict=True)
    return [stretch, *(replace(stretch, low=(low,), high=(high,), source=name) for low, high, name in parts)]


def picture_size(plan: ImagePlan) -> tuple[int, int]:
    """(width, height) of the upright picture of a plane: its own pixels, those of a study square in the patient."""
    x, y = square_aspect(plan)
    width, height = plan.info.size
    most = max(x, y)
    return plan.grid.orientation.swap((max(1, round(width * most / x)), max(1, round(height * most / y))))


def highest_level(size: tuple[int, int]) -> int:
    """The level of tiles that has the pixels of a picture as they are: at level 0 it fits into one tile."""
    level = 0
    while TILE << level < max(size):
        level += 1
    return level


def _is_served(info: ImageInfo) -> bool:
    return any(map(is_remote, info.files or (info.uri,)))


def _reduced(found: Rgba, share: tuple[float, float, float, float], size: tuple[int, int]) -> Rgba:
    """A box of pixels (H, W, …), in shares of their width and height, as `size` (width, height) px."""
    height, width = found.shape[:2]
    box = (share[0] * width, share[1] * height, share[2] * width, share[3] * height)
    finer = (box[2] - box[0]) > size[0] * 1.001 and found.ndim == 3
    picture = Image.fromarray(found if found.ndim == 2 else found[..., :3])
    resampling = Image.Resampling.BOX if finer else Image.Resampling.NEAREST
    shown = np.asarray(picture.resize(size, resampling, box=box))
    if found.ndim == 2:
        return shown
    known = Image.fromarray(np.ascontiguousarray(found[..., 3])).resize(size, Image.Resampling.NEAREST, box=box)
    return np.dstack([shown, np.asarray(known)])
