"""The reader interface: metadata of an image, and an open image that reads pixels."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from .errors import ReadError
from .geometry import Box, Placement
from .kinds import Kind

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Pixels = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
VALIDITY_UNKNOWN: Final = ("validity", "not stated")
"""The entry of `ImageInfo.facts` for a file with neither a nodata value nor a mask."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel of an image. Physical value = native · `scale` + `offset`."""

    name: str
    """The name in the file."""
    common: str | None = None
    """STAC common name (blue, green, red, nir, swir16, …) if the sensor or the file defines it."""
    dtype: str = "uint8"
    scale: float = 1.0
    offset: float = 0.0
    quantity: str = "number"
    """"toa_reflectance", "surface_reflectance" or "amplitude"; "number" if the file does not define it."""


@dataclass(frozen=True, slots=True)
class Plane:
    """One slice of a stack, a level-0 frame of its own. Maps and slides have one plane, with a `placement` only."""

    placement: Placement
    source: str = ""
    """The file that the reader opens."""
    frame: int = 1
    """Frame number in `source`, from 1."""
    name: str = ""
    """Identifier of the slice as reports may show it."""
    position_mm: float | None = None
    """Position along the normal of the stack."""
    instance: int | None = None
    """Instance number in the series."""
    values: tuple[tuple[str, float], ...] = ()
    """What may tell it from other slices at its position, by name: echo time, b-value and the like."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Metadata of one image: it pickles, opens nothing, and is a whitelist that holds nothing about a patient.

    Readers return channels as the file defines them, and the unit "crs" for a placement without a CRS; the registry
    then applies the sensor and the user's overrides.
    """

    uri: str
    """What the reader opens: a path, a folder, a `/vsi…` or `s3://` path."""
    reader: str
    """Name of the reader."""
    size: tuple[int, int]
    """(width, height) of a plane in level-0 pixels."""
    channels: tuple[Channel, ...]
    placement: Placement
    """Placement of the first plane."""
    id: str = ""
    """Name in reports, unique in a run."""
    part: str = ""
    """Which image of a file that holds several."""
    study: str = ""
    """Identifier that groups images."""
    files: tuple[str, ...] = ()
    """Paths of all files that the image is made of."""
    fingerprint: str = ""
    """`files.fingerprint` of `files`, "" for remote ones."""
    options: tuple[tuple[str, str], ...] = ()
    """Reader options that `open` needs."""
    notes: tuple[str, ...] = ()
    """Sentences that a user should read before trusting the numbers."""
    origin: tuple[int, int] = (0, 0)
    """Level-0 pixel that other programs count from, where they crop a slide to its scanned part."""
    planes: tuple[Plane, ...] = ()
    """Slices in order, all of one size and spacing; a single one for maps and slides."""
    facts: tuple[tuple[str, str], ...] = ()
    """Other metadata for reports, by column name."""
    kind: Kind = "map"
    """A map, a slide of tissue, or a study of a patient."""
    personal: bool = True
    """Whether file names may be names of people, so that they are redacted; always True for slides and studies."""
    sensor: str = ""
    """Sensor of a map, one of `bands.SENSORS`, from the product's name or `--sensor`."""

    def __post_init__(self) -> None:
        if len(self.planes) < 2 and not any(plane.source for plane in self.planes):
            object.__setattr__(self, "planes", (Plane(self.placement),))
        if self.kind == "map" and self.placement.unit == "um":
            object.__setattr__(self, "kind", "slide")
        if self.kind != "map":
            object.__setattr__(self, "personal", True)

    @property
    def box(self) -> Box:
        """The box of a whole plane."""
        return Box(0.0, 0.0, float(self.size[0]), float(self.size[1]))

    def to_json(self) -> dict[str, Any]:
        """Convert to values that `json` writes."""
        record: dict[str, Any] = _adapter().dump_python(self, mode="json")
        if self.planes == (Plane(self.placement),):
            del record["planes"]
        return record

    @classmethod
    def from_json(cls, record: object) -> "ImageInfo":
        """Invert `to_json`. Raises `ValueError` for a value of a wrong type."""
        return _adapter().validate_python(record)

    def select_channels(self, names: Sequence[str] | None) -> tuple[Channel, ...]:
        """The named channels in that order, all by default. Raises `ReadError` for an unknown name."""
        if names is None:
            return self.channels
        image = self.id or self.uri
        if not names:
            remedy = "Name a channel, or pass None for all channels"
            raise ReadError(f"the channels to read of {image}", "must be at least one", remedy=remedy)
        known = {channel.name: channel for channel in self.channels}
        for name in names:
            if name not in known:
                rule = f"must be one of {', '.join(known)}"
                remedy = "Name channels as `limner info` shows them"
                raise ReadError(f"the channel to read of {image}", rule, value=name, remedy=remedy)
        return tuple(known[name] for name in names)


@cache
def _adapter() -> "TypeAdapter[ImageInfo]":
    from pydantic import TypeAdapter

    return TypeAdapter(ImageInfo)


class Image(AbstractContextManager["Image", None], Protocol):
    """An open image: one handle, for one worker."""

    @property
    def info(self) -> ImageInfo:
        """The metadata that it was opened with."""
        ...

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels that `read` returns, in order."""
        ...

    def read(self, box: Box, size: tuple[int, int], plane: int = 0) -> tuple[Pixels, Mask]:
        """Read `box` of a plane, resampled to `size` = (width, height).

        Returns pixels (height, width, channels) in the native dtype and a validity mask (height, width). A pixel is
        valid where at least half of its footprint inside the image is; values of invalid pixels mean nothing. Pixels
        outside the image are invalid. Enlarging is bilinear and reducing averages areas, of valid pixels only; at the
        native scale values are unchanged. The value of a pixel does not depend on the box it is read with. Raises
        `ReadError` where the file cannot be read.
        """
        ...

    def close(self) -> None:
        """Release the handle."""
        ...


@dataclass(frozen=True, slots=True)
class StoredLevel:
    """What an image has stored for reads at some scale."""

    scale: tuple[float, float]
    """Level-0 pixels (x, y) per stored pixel."""
    block: tuple[int, int]
    """(width, height) in stored pixels of what is decoded at once."""


@runtime_checkable
class SupportsLevels(Protocol):
    """An open image that tells what reading costs, so that the overview of a huge one takes bounded time.

    For an overview several handles of such an image are read at the same time, each in a thread of its own.
    """

    def stored_level(self, step: tuple[float, float]) -> StoredLevel:
        """What `read` uses for pixels of `step` level-0 pixels (x, y)."""
        ...

    def may_hold(self, shape: tuple[int, int]) -> Mask | None:
        """Which cells (H, W) of a grid of that shape over the whole image may hold valid pixels.

        A cell that is False holds none for certain. None where that is not known without reading.
        """
        ...


class BaseImage(ABC):
    """Base class of open images: metadata, channel selection, and a handle that is released once.

    A reader implements `_open`, `_close` and `_read`, or `_read_plane` for stacks. `_read` is called only while the
    image is open; `_close` also after an `_open` that failed half way.
    """

    streams: ClassVar[bool] = False
    """Whether `read` holds few of the source pixels at a time, however large the box is."""

    def __init__(self, info: ImageInfo, channels: Sequence[str] | None = None) -> None:
        self._info = info
        self.channels = info.select_channels(channels)
        self._channel_indices = [info.channels.index(channel) for channel in self.channels]
        self._closed = False
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> ImageInfo:
        """The metadata that it was opened with."""
        return self._info

    def read(self, box: Box, size: tuple[int, int], plane: int = 0) -> tuple[Pixels, Mask]:
        """See `Image.read`. Raises `ReadError`, also after `close` and for a plane that does not exist."""
        subject, count = self._info.id or self._info.uri, len(self._info.planes)
        if self._closed:
            raise ReadError(subject, "must be open to be read", remedy="Open the image again")
        if not 0 <= plane < count:
            rule = f"must be read at a plane from 0 to {count - 1}"
            raise ReadError(subject, rule, value=f"plane {plane}", remedy="Choose one of these planes")
        return self._read_plane(box, size, plane)

    def close(self) -> None:
        """Release the handle; calling it again does nothing."""
        if not self._closed:
            self._closed = True
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _open(self) -> None:
        """Open the handle. Raises `ReadError`."""

    @abstractmethod
    def _read(self, box: Box, size: tuple[int, int]) -> tuple[Pixels, Mask]:
        """See `Image.read`."""

    def _read_plane(self, box: Box, size: tuple[int, int], plane: int) -> tuple[Pixels, Mask]:
        """See `Image.read`; stacks override it."""
        del plane
        return self._read(box, size)

    @abstractmethod
    def _close(self) -> None:
        """Release what `_open` opened."""


class Reader(Protocol):
    """A reader of one family of formats, registered under the entry point group `limner.readers`.

    Cheap to import and to construct. It may define `Options`, a subclass of `options.Options`; without one it takes no
    options. `cache_bytes`, where defined, are the most bytes of decoded pixels that an open image keeps; with
    `shared_cache` all images of a process together.
    """

    name: str

    def identify(self, uri: str, head: bytes) -> int:
        """Return the confidence, 0 to 100, that this reader reads `uri`; the reader with the highest one opens it.

        `head` is the first 4 KiB of the file, empty for a folder or a remote path.
        """
        ...

    def scan(self, uri: str, options: Any) -> Sequence[ImageInfo]:
        """List the images in `uri` without reading pixels; `options` are validated. Raises `ReadError`."""
        ...

    def open(self, info: ImageInfo, channels: Sequence[str] | None = None) -> Image:
        """Open an image to read the named channels, all by default. Raises `ReadError`.

        Channels have the names in `info`, which may differ from those in the file.
        """
        ...


@dataclass(frozen=True, slots=True)
class FolderScan:
    """The images that a `FolderReader` found in a folder. Files it does not list are left to other readers."""

    infos: tuple[ImageInfo, ...]
    failed: tuple[tuple[tuple[str, ...], ReadError], ...] = ()
    """Groups of files that should have been an image, with the error."""
    side: tuple[tuple[str, str], ...] = ()
    """Files that belong to an image or a product without being one, with the reason; also the folder, with what it is,
    where it is a name for files that are elsewhere.
    """


@runtime_checkable
class FolderReader(Protocol):
    """A reader that can read a folder as images; it lists each file of the folder that it uses."""

    def scan_folder(self, folder: str, options: Any) -> FolderScan:
        """List the images in a folder; one that cannot be read does not hide the others."""
        ...


@runtime_checkable
class ArchiveReader(FolderReader, Protocol):
    """A reader of archives, whose `scan_folder` lists the files inside."""

    def is_archive(self, uri: str, head: bytes) -> bool:
        """Whether a file, whose first bytes are `head`, contains or lists other files."""
        ...


@runtime_checkable
class CheckingReader(Protocol):
    """A reader that can tell that an input is wrong before anything is read."""

    def check_input(self, uri: str, options: Any) -> None:
        """Raise `RequestError` for an input of this reader's that cannot be meant; do nothing about others."""
        ...


@runtime_checkable
class NumberingReader(Protocol):
    """A reader whose ids are numbers, counted over all inputs of a scan."""

    def number(self, infos: Sequence[ImageInfo]) -> Sequence[ImageInfo]:
        """Give ids to all images of this reader; they do not depend on the order of the inputs."""
        ...
