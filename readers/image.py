"""The reading seam: facts about an image, and an open handle that reads pixels from it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from .errors import ReadError
from .geometry import Box, Placement

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Pixels = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Kind = Literal["map", "slide", "study"]

VALIDITY_UNKNOWN: Final = ("validity", "not stated")
"""The fact of an image whose file does not say which pixels are valid."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel of an image.

    `name` is how the format names it, `common` the STAC common name (blue, green, red, nir, swir16, …) where the
    sensor or the file states it. Physical value = native · `scale` + `offset`, and is a `quantity`: "toa_reflectance",
    "surface_reflectance", "amplitude", or "number" where the file does not say what its numbers are.
    """

    name: str
    common: str | None = None
    dtype: str = "uint8"
    scale: float = 1.0
    offset: float = 0.0
    quantity: str = "number"


@dataclass(frozen=True, slots=True)
class Plane:
    """One slice of a stack: a level-0 frame of its own. A map or a slide has one plane, of which only this is known.

    `placement` maps its pixels to the world. `source` is what the reader opens and `frame` the slice's number in it,
    from 1; `name` is its own identifier as it may be reported, `instance` its number in the series where the file
    states one, and `position_mm` its place along the stack's normal where that is known.
    """

    placement: Placement
    source: str = ""
    frame: int = 1
    name: str = ""
    position_mm: float | None = None
    instance: int | None = None


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Facts about one image; pickles, and opens nothing. A whitelist: nothing about a patient is in it.

    `uri` is what the reader named `reader` opens (a path, a folder, a `/vsi…` or `s3://` path); `part` chooses among
    several images in one file; `files` are the paths it is made of. `id` is unique in a run and names the image in
    every report; `study` groups images. `size` is a plane's (width, height) in level-0 pixels. `options` are the
    settings that the reader needs to open it the same way again. `fingerprint` identifies the bytes ("" where they are
    remote). `notes` are sentences a person should read before trusting the numbers. `origin` is the level-0 pixel that
    other programs count from, where they crop a slide to its scanned part. `planes` are the slices of a stack, in
    order, all of one size and pixel spacing, and `placement` is the first one's; other images have one plane. `facts`
    are what else the reader knows and reports may show, by the name of a report's column. `kind` is what is shown: a
    map, a slide of tissue, or a study of a patient. `personal` says that names and paths of its files may be names of
    people, so that nothing that is written or logged tells them: always so for slides and studies, and for a map unless
    its reader says otherwise. `sensor` is what took a map, one of `bands.SENSORS`, where its product's name or the user
    says so. A reader gives the channels as its file has them, and a placement without a coordinate system the unit
    "crs"; what sensor and user make of them is added by the registry.
    """

    uri: str
    reader: str
    size: tuple[int, int]
    channels: tuple[Channel, ...]
    placement: Placement
    id: str = ""
    part: str = ""
    study: str = ""
    files: tuple[str, ...] = ()
    fingerprint: str = ""
    options: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    origin: tuple[int, int] = (0, 0)
    planes: tuple[Plane, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    kind: Kind = "map"
    personal: bool = True
    sensor: str = ""

    def __post_init__(self) -> None:
        """A picture in micrometres is a slide, and names of slides and studies are personal, whatever is stated."""
        if len(self.planes) < 2 and not any(plane.source for plane in self.planes):
            object.__setattr__(self, "planes", (Plane(self.placement),))
        if self.kind == "map" and self.placement.unit == "um":
            object.__setattr__(self, "kind", "slide")
        if self.kind != "map":
            object.__setattr__(self, "personal", True)

    @property
    def box(self) -> Box:
        """The whole of a plane."""
        return Box(0.0, 0.0, float(self.size[0]), float(self.size[1]))

    def to_json(self) -> dict[str, Any]:
        """Plain values that `json` writes."""
        record: dict[str, Any] = _adapter().dump_python(self, mode="json")
        if self.planes == (Plane(self.placement),):
            del record["planes"]
        return record

    @classmethod
    def from_json(cls, record: object) -> "ImageInfo":
        """The inverse of `to_json`. Raises `ValueError` where a value has another type."""
        return _adapter().validate_python(record)

    def choose(self, names: Sequence[str] | None) -> tuple[Channel, ...]:
        """The named channels, in that order, all by default. Raises `ReadError` that lists what is there."""
        if names is None:
            return self.channels
        whose = self.id or self.uri
        if not names:
            raise ReadError(whose, "at least one channel must be asked for", remedy="Name a channel, or none for all")
        known = {channel.name: channel for channel in self.channels}
        for name in names:
            if name not in known:
                raise ReadError(
                    f"channel {name!r} of {whose}",
                    "it must be one of the image's",
                    value=", ".join(known),
                    remedy="Name channels as `limner info` shows them",
                )
        return tuple(known[name] for name in names)


@cache
def _adapter() -> "TypeAdapter[ImageInfo]":
    from pydantic import TypeAdapter

    return TypeAdapter(ImageInfo)


class Image(Protocol):
    """An open image: one handle, for one worker. `channels` are the ones that `read` delivers, in that order."""

    @property
    def info(self) -> ImageInfo:
        """The facts it was opened from."""
        ...

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels delivered, in order."""
        ...

    def read(self, box: Box, size: tuple[int, int], plane: int = 0) -> tuple[Pixels, Mask]:
        """Native pixels of `box` of a plane seen at `size` = (width, height), and where they are valid.

        Returns (height, width, channels) in one native dtype, and (height, width) booleans. A pixel is valid where at
        least half of its footprint inside the picture is; an invalid pixel's value means nothing. What lies outside
        the picture is invalid, never invented. Enlarging is bilinear and reducing averages areas, valid pixels only; at
        the picture's own scale pixels pass untouched. The value of a pixel does not depend on the box it is read with.
        Raises `ReadError` where the file cannot deliver.
        """
        ...

    def close(self) -> None:
        """Let the handle go."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class BaseImage(ABC):
    """What all open images share: facts, channels, and a handle that is let go once.

    A reader's image says how its handle is opened (`_open`), read (`_read`) and let go (`_close`). It may assume that
    `_read` is called while it is open, and must expect `_close` after an `_open` that failed half way. One of stacks
    has `_read_plane` as well.
    """

    def __init__(self, info: ImageInfo, channels: Sequence[str] | None = None) -> None:
        self._info = info
        self.channels = info.choose(channels)
        self._channel_indices = [info.channels.index(channel) for channel in self.channels]
        self._closed = False
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> ImageInfo:
        """The facts it was opened from."""
        return self._info

    def read(self, box: Box, size: tuple[int, int], plane: int = 0) -> tuple[Pixels, Mask]:
        """See `Image.read`. Raises `ReadError`, also after `close`, and for a plane that the image has not."""
        subject, count = self._info.id or self._info.uri, len(self._info.planes)
        if self._closed:
            raise ReadError(subject, "it must be open to be read", remedy="Open the image again")
        if not 0 <= plane < count:
            rule = f"its planes have the numbers 0 to {count - 1}"
            raise ReadError(subject, rule, value=str(plane), remedy="Ask for one of these")
        return self._read_plane(box, size, plane)

    def close(self) -> None:
        """Let the handle go; again, it does nothing."""
        if not self._closed:
            self._closed = True
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _open(self) -> None:
        """Open the handle. Raises `ReadError`."""

    @abstractmethod
    def _read(self, box: Box, size: tuple[int, int]) -> tuple[Pixels, Mask]:
        """See `Image.read`."""

    def _read_plane(self, box: Box, size: tuple[int, int], plane: int) -> tuple[Pixels, Mask]:
        """See `Image.read`. Most images have a single plane."""
        del plane
        return self._read(box, size)

    @abstractmethod
    def _close(self) -> None:
        """Let go of what `_open` has opened."""


class Reader(Protocol):
    """One format family behind the entry point group `limner.readers`. Cheap to import and to make.

    Its class may declare `Options` (see `options`); one that does not takes none.
    """

    name: str

    def identify(self, uri: str, head: bytes) -> int:
        """Return the confidence, 0 to 100, that this reader reads `uri`; the reader with the highest one opens it.

        `head` is the first 4 KiB of the file, empty for a folder or a remote path.
        """
        ...

    def scan(self, uri: str, options: Any) -> Sequence[ImageInfo]:
        """The images in `uri`, without reading pixels, by validated options. Raises `ReadError`."""
        ...

    def open(self, info: ImageInfo, channels: Sequence[str] | None = None) -> Image:
        """Open for reading the named channels (`Channel.name`), all of them by default. Raises `ReadError`.

        Channels are known by the names in `info`, which may be others than the file's.
        """
        ...


@dataclass(frozen=True, slots=True)
class FolderScan:
    """What a reader that reads folders as images found in one.

    `failed` are groups of files that should have been an image, with what was wrong; `side` files that belong to an
    image or product and hold none of their own, with the reason. All other files are left to the other readers.
    """

    infos: tuple[ImageInfo, ...]
    failed: tuple[tuple[tuple[str, ...], ReadError], ...] = ()
    side: tuple[tuple[str, str], ...] = ()


@runtime_checkable
class FolderReader(Protocol):
    """A reader that can claim a folder: it then accounts for each of the folder's files that it uses."""

    def scan_folder(self, folder: str, options: Any) -> FolderScan:
        """The images in a folder; one that cannot be read does not hide the others."""
        ...


@runtime_checkable
class ArchiveReader(FolderReader, Protocol):
    """A reader of files that hold files, each of which is accounted for."""

    def is_archive(self, uri: str, head: bytes) -> bool:
        """Whether a file, whose first bytes are `head`, holds or lists others: `scan_folder` then accounts for it."""
        ...


@runtime_checkable
class NumberingReader(Protocol):
    """A reader whose ids are numbers, which must run through all inputs of a scan."""

    def number(self, infos: Sequence[ImageInfo]) -> Sequence[ImageInfo]:
        """The images that this reader has found in any input, with ids that do not depend on the inputs' order."""
        ...
