"""Whole-slide images that OpenSlide opens: SVS, NDPI, MRXS, SCN, BIF, DICOM and others. The one file that imports it.

A slide's label, macro and thumbnail images, its barcode and what a scanner writes about people are never read, and its
file name is not its id: what leaves this file is a whitelist of sizes, spacing and bounds.
"""

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from ..errors import ReadError, excerpt
from ..files import fingerprint, is_remote, require_local
from ..formats import recognise
from ..geometry import MAX_SIDE, Box
from ..image import BaseImage, Channel, ImageInfo, Mask, Pixels
from ..options import Options
from .levels import Level, TiledPyramid
from .spacing import Spacing, in_micrometres, place_slide
from .tiff_directories import TILE_WIDTH, Directories

if TYPE_CHECKING:
    from openslide import OpenSlide

CHANNELS: Final = tuple(Channel(name, name) for name in ("red", "green", "blue"))

_DICOM: Final = b"1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image Storage
_SERIES: Final = b"\x20\x00\x0e\x00UI"  # SeriesInstanceUID (0020,000E) in explicit little endian
_HEADER: Final = 1 << 18  # bytes of a DICOM file in which its series is looked for
_GENERIC: Final = "generic-tiff"
_LEVELS: Final = 64  # of one slide
_OPAQUE: Final = 255
_TILES: Final = range(64, 1025)  # sides of the file's own tiles that are read one by one
_TILE: Final = 512  # else


class SlideReader:
    """Slides through OpenSlide, as red, green and blue of 8 bits."""

    name = "slide"
    kind = "slide"

    def identify(self, uri: str, head: bytes) -> int:
        """Strong for a scanner's format, whole or damaged; a tiled TIFF of no such format is left to others."""
        if is_remote(uri) or not head:
            return 0
        found = recognise(uri, head)
        if found is not None and found.reader == self.name:
            return 90
        directories = None if found is not None and found.strict else Directories.read(uri, 1)
        tiled = directories is not None and any(TILE_WIDTH in page.tags for page in directories.pages)
        return 30 if tiled else 0

    def scan(self, uri: str, options: Options) -> Sequence[ImageInfo]:
        """The one slide in `uri`. Any file of a DICOM series gives the same slide, equal in every field."""
        del options
        require_local(uri)
        files = _files(uri)
        with _open(files[0]) as slide:
            properties = _properties(slide)
            size, levels = slide.dimensions, slide.level_count
            _try_levels(slide)
        placement, notes = place_slide(_stored_spacing(properties))
        if "openslide.icc-size" in properties:
            notes = (*notes, "Colours are as stored: the file's ICC profile is not applied.")
        mark = fingerprint(files)
        return (
            ImageInfo(
                uri=files[0],
                reader=self.name,
                size=size,
                channels=CHANNELS,
                placement=placement,
                files=files,
                fingerprint=mark,
                notes=notes,
                origin=_scanned(files[0], properties, size)[0],
                kind="slide",
                facts=(("levels", str(levels)), *_objective(properties)),
            ),
        )

    def open(self, info: ImageInfo, channels: Sequence[str] | None = None) -> "Slide":
        """Open for reading."""
        return Slide(info, channels)


class Slide(BaseImage):
    """An open slide. See `Image`.

    What lies outside the scanned area is invalid, whatever colour OpenSlide would paint it, and also where a coarse
    level's tiles are filled up with some colour beyond it. OpenSlide refuses all work after its first error, so the
    file is opened anew after each, and only the boxes that need a broken tile fail.
    """

    def _open(self) -> None:
        info = self._info
        self._slide: OpenSlide | None = None
        self._slide = _open(info.uri)
        if self._slide.dimensions != info.size:
            found = self._slide.dimensions
            raise ReadError(
                info.uri,
                f"it must still be the file of {info.size[0]} × {info.size[1]} px that was looked at first",
                value=" × ".join(map(str, found)),
                remedy="Run again in a new folder",
            )
        properties = _properties(self._slide)
        start, stop = _scanned(info.uri, properties, info.size)
        self._scanned = tuple(zip(start, stop, strict=True))
        self._steps = self._slide.level_downsamples
        self._levels = [
            Level.below(info.size, size, _tile(properties, place))
            for place, size in enumerate(self._slide.level_dimensions)
        ]
        self._pyramid = TiledPyramid(self._levels, len(self._channel_indices), np.dtype(np.uint8), self._fetch)

    def _read(self, box: Box, size: tuple[int, int]) -> tuple[Pixels, Mask]:
        return self._pyramid.read(box, size)

    def _close(self) -> None:
        if self._slide is not None:
            self._slide.close()
            self._slide = None

    def _fetch(self, place: int, column: int, row: int) -> tuple[Pixels, Mask | None]:
        """One tile of a level. OpenSlide counts in level-0 pixels, so a coarse tile may lie half of one off."""
        level = self._levels[place]
        x, y = column * level.tile[0], row * level.tile[1]
        size = (min(level.tile[0], level.size[0] - x), min(level.tile[1], level.size[1] - y))
        step = self._steps[place]
        self._slide = self._slide or _open(self._info.uri)
        try:
            rgba = np.asarray(self._slide.read_region((round(x * step), round(y * step)), place, size))
        except Exception as error:  # OpenSlideError, and what openslide-python or a lack of memory raises
            self._close()
            raise ReadError(
                f"{self._info.id or self._info.uri}, level {place}, pixels {x}–{x + size[0]}, {y}–{y + size[1]}",
                "the tile must be readable",
                value=excerpt(str(error), 300),
                remedy="Copy the file again from its source; regions that need this tile are left out",
            ) from error
        valid = rgba[..., 3] > _OPAQUE // 2
        across, down = (self._inside(level, axis, start, size[axis]) for axis, start in enumerate((x, y)))
        valid &= down[:, None] & across
        return rgba[..., self._channel_indices], None if bool(valid.all()) else valid

    def _inside(self, level: Level, axis: int, start: int, length: int) -> Mask:
        """Which of `length` pixels of a level from `start` along an axis (0 is x) have their middle in the scan."""
        middles = (np.arange(start, start + length) + 0.5) * level.scale[axis]
        low, high = self._scanned[axis]
        return (middles > low) & (middles < high)


def _open(uri: str) -> "OpenSlide":
    """OpenSlide's handle, of a slide whose sizes can be. Raises `ReadError` with its reason."""
    import openslide

    try:
        if (found := Directories.read(uri)) is not None and found.unsafe:
            raise ValueError(found.fault)  # noqa: TRY301 - told below, like what OpenSlide says
        slide = openslide.OpenSlide(uri)
    except Exception as error:  # OpenSlideError, OSError, and for odd names ValueError
        raise ReadError(
            uri,
            "OpenSlide must be able to open it",
            value=_fault(uri) or excerpt(str(error), 300) or "not a format that it knows",
            remedy="Check that the file is complete, with the files that belong beside it",
        ) from error
    _check_sizes(uri, slide)
    return slide


def _fault(uri: str) -> str:
    """What is wrong with a slide's file, where that can be told without OpenSlide; else ""."""
    path = Path(uri)
    try:
        if path.stat().st_size == 0:
            return "the file is empty"
        if path.suffix.lower() == ".mrxs" and not path.with_suffix("").is_dir():
            return "the folder of the same name, which holds its pixels, is not beside it"
        directories = Directories.read(uri)
    except OSError:
        return ""
    if directories is None or not directories.fault:
        return ""
    return f"the slide is cut off: {directories.fault}" if directories.cut else directories.fault


def _check_sizes(uri: str, slide: "OpenSlide") -> None:
    """Close a slide and raise `ReadError` where its sizes cannot be."""
    size, levels, steps = slide.dimensions, slide.level_dimensions, slide.level_downsamples
    if not (
        0 < len(levels) <= _LEVELS
        and all(0 < side <= MAX_SIDE for side in size)
        and all(0 < side <= full for level in levels for side, full in zip(level, size, strict=True))
        and all(math.isfinite(step) and step > 0 for step in steps)
    ):
        slide.close()
        raise ReadError(
            uri,
            f"a slide has up to {_LEVELS} levels, none empty and none larger than the first",
            value=f"{len(levels)} levels: {', '.join(f'{x} × {y}' for x, y in levels[:4])} px"[:300],
            remedy="Copy it again from its source",
        )


def _try_levels(slide: "OpenSlide") -> None:
    """Read a little of each level, so that a file that makes OpenSlide hang or crash does so where it is scanned.

    A tile that cannot be read is no fault of the slide: the regions that need it say so.
    """
    width, height = slide.dimensions
    for level in range(slide.level_count):
        with contextlib.suppress(Exception):
            slide.read_region((width // 2, height // 2), level, (16, 16))


def _objective(properties: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The objective's magnification, where it is a number."""
    try:
        power = float(properties.get("openslide.objective-power", ""))
    except ValueError:
        return ()
    return (("objective", f"{power:g}"),) if math.isfinite(power) and power > 0 else ()


def _properties(slide: "OpenSlide") -> dict[str, str]:
    """Those of a slide's properties that are needed, and no others; one that is no text counts as absent."""
    names = [f"{name}-{side}" for name in ("mpp", "bounds") for side in ("x", "y")]
    names += [f"level[{place}].tile-{side}" for place in range(slide.level_count) for side in ("width", "height")]
    found: dict[str, str] = {}
    for name in ("vendor", "icc-size", "objective-power", "bounds-width", "bounds-height", *names):
        with contextlib.suppress(KeyError, UnicodeDecodeError):
            found[f"openslide.{name}"] = slide.properties[f"openslide.{name}"]
    return found


def _tile(properties: Mapping[str, str], place: int) -> tuple[int, int]:
    """The size of a level's own tiles where the file says so and they suit, else of blocks."""
    width, height = (_whole(properties, f"level[{place}].tile-{side}") or 0 for side in ("width", "height"))
    return (width, height) if width in _TILES and height in _TILES else (_TILE, _TILE)


def _whole(properties: Mapping[str, str], name: str) -> int | None:
    """One of OpenSlide's own properties as a whole number; 0 where it is absent, None where it is no such number."""
    text = properties.get(f"openslide.{name}", "0").strip()
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else None


def _stored_spacing(properties: Mapping[str, str]) -> Spacing | None:
    """What the file says of its spacing, through OpenSlide's standard properties, and where that came from."""
    x, y = (in_micrometres(properties.get(f"openslide.mpp-{axis}"), "µm") for axis in "xy")
    if x is None or y is None:
        return None
    vendor = properties.get("openslide.vendor", "")
    source = {_GENERIC: "TIFF resolution tag", "dicom": "DICOM PixelSpacing"}.get(vendor, f"{vendor} header")
    return Spacing(x, y, source)


def _scanned(uri: str, properties: Mapping[str, str], size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The scanned part's first corner and the one across, (x, y) in level-0 pixels: the whole where the file is silent.

    Raises `ReadError` where what the file says is no part of the picture.
    """
    x, y, width, height = (_whole(properties, f"bounds-{name}") for name in ("x", "y", "width", "height"))
    if x is not None and y is not None and width is not None and height is not None:
        stop = (x + width if width else size[0], y + height if height else size[1])
        if 0 <= x < min(stop[0], size[0]) and 0 <= y < min(stop[1], size[1]):
            return (x, y), (min(stop[0], size[0]), min(stop[1], size[1]))
    raise ReadError(
        uri,
        "the scanned part must lie within the picture",
        value=excerpt(
            ", ".join(properties.get(f"openslide.bounds-{name}", "") for name in ("x", "y", "width", "height"))
        ),
        remedy="Copy it again from its source",
    )


def _files(uri: str) -> tuple[str, ...]:
    """The files that a slide is made of, as far as they can be told: MRXS' folder, a DICOM series in one folder."""
    path = Path(uri)
    folder = path.with_suffix("")
    if path.suffix.lower() == ".mrxs" and folder.is_dir():
        return (uri, *sorted(str(file) for file in folder.iterdir() if file.is_file()))
    series = _series(path)
    if series is None:
        return (uri,)
    return tuple(str(file) for file in sorted(path.parent.iterdir()) if file == path or _series(file) == series)


def _series(path: Path) -> bytes | None:
    """The SeriesInstanceUID of a DICOM slide's file, without reading anything else of it; None for other files."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(4096)
        if head[128:132] != b"DICM" or _DICOM not in head:
            return None
        head += file.read(_HEADER)
    at = head.find(_SERIES)
    if at < 0:
        return None
    start = at + len(_SERIES) + 2
    return head[start : start + int.from_bytes(head[start - 2 : start], "little")]
