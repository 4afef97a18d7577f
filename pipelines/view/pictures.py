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
from ...reports.html.pictures import reduced_size
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


@dataclass(frozen=True, slots=True)
class Frame:
    """What is shown of a run: an image by its place, a plane of it, and one of the windows to show that in."""

    image: int
    plane: int = 0
    window: int = 0


IsOpen = Callable[[], bool]
"""Whether a request still waits for its answer."""
Quad = tuple[float, float, float, float]
"""x0, y0, x1, y1."""


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

    def tile(self, frame: Frame, at: tuple[int, int, int], is_open: IsOpen) -> Encoded:
        """The tile (level, column, row) of a plane; the highest level has the image's own pixels, level 0 is one tile.

        Raises `NoPictureError` where it cannot be read, `IndexError` where there is none, `OutdatedError`.
        """
        level, column, row = at
        width, height = size = picture_size(self._plans[frame.image])
        top = highest_level(size)
        step = TILE << max(0, top - level)
        left, upper = column * step, row * step
        if not (0 <= level <= top and 0 <= left < width and 0 <= upper < height):
            raise IndexError(at)
        tile = self._tiles.find((frame, at))
        if tile is None:
            box = (left, upper, min(left + step, width), min(upper + step, height))
            shown = (-(-(box[2] - left) * TILE // step), -(-(box[3] - upper) * TILE // step))
            found = self._pixels(frame, box, shown, is_open)
            tile = self._encoded(frame, self._painted(frame, found, box, (column * TILE, row * TILE)))
            self._tiles.keep((frame, at), tile)
        return tile

    def part(self, frame: Frame, box: Quad, is_open: IsOpen) -> Encoded:
        """A box of a plane in pixels of its picture, as at most 480 × 320 px. Raises as `tile` does."""
        width, height = picture_size(self._plans[frame.image])
        x0, y0, x1, y1 = max(0.0, box[0]), max(0.0, box[1]), min(width, box[2]), min(height, box[3])
        if x0 >= x1 or y0 >= y1:
            raise IndexError(box)
        zoom = min(480 / (x1 - x0), 320 / (y1 - y0), 4.0)
        shown = (max(1, round((x1 - x0) * zoom)), max(1, round((y1 - y0) * zoom)))
        found = self._pixels(frame, (x0, y0, x1, y1), shown, is_open)
        return self._encoded(frame, self._painted(frame, found, (x0, y0, x1, y1), (0, 0)))

    def overview(self, image: int, is_open: IsOpen) -> Encoded:
        """An image as a whole, of a stack its middle slice, as at most 512 px. Raises as `tile` does."""
        frame = Frame(image, len(self._plans[image].info.planes) // 2)
        width, height = size = picture_size(self._plans[image])
        box = (0.0, 0.0, float(width), float(height))
        found = self._pixels(frame, box, reduced_size(size, TILE), is_open)
        return self._encoded(frame, self._painted(frame, found, box, (0, 0)))

    def _encoded(self, frame: Frame, picture: Image.Image) -> Encoded:
        """A picture without loss where it is of a study, else as JPEG."""
        file = io.BytesIO()
        if self._plans[frame.image].info.kind == "study":
            picture.save(file, "PNG", compress_level=1)
            return Encoded(file.getvalue(), "image/png")
        picture.save(file, "JPEG", quality=90, subsampling=0)
        return Encoded(file.getvalue(), "image/jpeg")

    def _pixels(self, frame: Frame, box: Quad, shown: tuple[int, int], is_open: IsOpen) -> Rgba:
        """A box of a picture as `shown` (width, height) px: of the overview where that is as fine."""
        longest = max(picture_size(self._plans[frame.image]))
        scale = max((box[2] - box[0]) / shown[0], (box[3] - box[1]) / shown[1])
        if scale >= max(1.0, longest / OVERVIEW_SIDE) - 1e-6 or self.status(frame.image):
            return _reduced(self._whole(frame, is_open), self._share(frame, box), shown)
        return self._read(frame, "read_part", _TILE_SECONDS, (self._share(frame, box), shown), is_open)

    def _share(self, frame: Frame, box: Quad) -> Quad:
        """A box of a picture in shares of its width and height."""
        width, height = picture_size(self._plans[frame.image])
        return box[0] / width, box[1] / height, box[2] / width, box[3] / height

    def _painted(self, frame: Frame, found: Rgba, box: Quad, start: tuple[int, int]) -> Image.Image:
        """Pixels with a checkerboard on nodata, and hatching on what was not analysed or cannot be read.

        `start` is their place in the whole picture at this zoom, so that patterns go on from tile to tile.
        """
        height, width = found.shape[:2]
        picture = Image.fromarray(found[..., :3])
        known = found[..., 3]
        if (known != pixels.VALID).any():
            picture.paste(checkerboard((width, height), start), mask=Image.fromarray(known != pixels.VALID))
        share, total = self._share(frame, box), sum(start)
        skipped, unreadable = (_reduced(mask, share, (width, height)) > 0 for mask in self._masks(frame))
        picture = hatched(picture, skipped, SKIPPED, start=total)
        return hatched(picture, unreadable | (known == pixels.UNREADABLE), UNREADABLE, start=total)

    def _masks(self, frame: Frame) -> tuple[Rgba, Rgba]:
        """(skipped, unreadable) of a plane, reduced."""
        found = self._wholes.find(key := ("masks", frame.image, frame.plane))
        if found is None:
            plan = self._plans[frame.image]
            size = reduced_size(picture_size(plan), OVERVIEW_SIDE)
            masks = plane_masks(self._images[frame.image], frame.plane, plan.grid.orientation, size)
            found = np.stack(masks).view(np.uint8)
            self._wholes.keep(key, found)
        return found[0], found[1]

    def _whole(self, frame: Frame, is_open: IsOpen) -> Rgba:
        """A plane as a whole, of at most 2048 px, read once."""
        with self._lock:
            lock = self._reading.setdefault(frame, threading.Lock())
        with lock:
            found = self._wholes.find(frame)
            if found is None:
                found = self._read_whole(frame, is_open)
                self._wholes.keep(frame, found)
        return found

    def _read_whole(self, frame: Frame, is_open: IsOpen) -> Rgba:
        """The same from the image, or as an earlier session kept it where that is gone."""
        file = self._folder / f"overview-{frame.image}-{frame.window}.png"
        single = len(self._images[frame.image].info.planes) == 1
        try:
            found = self._read(frame, "read_whole", _WHOLE_SECONDS, (OVERVIEW_SIDE,), is_open)
        except NoPictureError:
            try:
                with Image.open(file) as kept:
                    return np.asarray(kept.convert("RGBA"))
            except OSError:
                pass
            raise
        if single:
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

    def _read(self, frame: Frame, what: str, seconds: float, words: tuple[Any, ...], is_open: IsOpen) -> Rgba:
        """Call a function of `pixels` in a process of ours, which opens the image where it has not."""
        info, own = self._original(frame.image)
        plan, key = self._plans[frame.image], str(frame.image)
        stretch = _stretches(plan)[frame.window].to_json()
        with self._turns.turn(is_open) as process:

            def read() -> Rgba:
                return process.call(f"{pixels.__name__}:{what}", key, frame.plane, *words, stretch, seconds=seconds)

            try:
                try:
                    return read()
                except SandboxError as error:
                    if error.value != "KeyError":
                        raise
                turned = [*asdict(plan.grid.orientation).values()]
                opening = (key, info.to_json(), list(own.channels), turned, square_aspect(plan))
                process.call(f"{pixels.__name__}:open_picture", *opening, seconds=_TILE_SECONDS)
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
