"""Whole-slide images that OpenSlide opens: SVS, NDPI, MRXS, SCN, BIF, DICOM and others. Only this file imports it.

OpenSlide gives metadata, and the pixels that `direct_tiles` does not decode: those of slides whose levels are not plain
tiles of a TIFF, and of damaged tiles.

Label, macro and thumbnail images, barcodes and what scanners write about people are never read, and a slide's file name
is not its id: only sizes, spacing, bounds and objective power leave this file.
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
from ..geometry import MAX_SIDE
from ..image import Channel, ImageInfo, Mask, Pixels
from ..options import scan_options
from .direct_tiles import DirectTiles
from .icc import MAX_PROFILE_BYTES, ColourTransform, profile_facts
from .padding import SlideOptions
from .spacing import Spacing, slide_placement, to_micrometres
from .staining import stated_specimen
from .tiff_directories import TILE_WIDTH, Directories
from .tiled_image import TiledImage
from .tiled_pyramid import CACHE_BYTES, Level, Tile, select_channels

if TYPE_CHECKING:
    from openslide import OpenSlide

CHANNELS: Final = tuple(Channel(name, name) for name in ("red", "green", "blue"))

_WSI_CLASS: Final = b"1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image Storage
_SERIES_UID: Final = b"\x20\x00\x0e\x00UI"  # SeriesInstanceUID (0020,000E) in explicit little endian
_DICOM_HEADER_BYTES: Final = 1 << 18  # in which the series UID is searched
_MAX_LEVELS: Final = 64
_OWN_TILES: Final = range(64, 1025)  # sides of the file's tiles that are read one by one
_DEFAULT_TILE: Final = 512
_SPECIMEN: Final = ("dicom.SpecimenDescriptionSequence[", "dicom.PrimaryAnatomicStructureSequence[")
_STAIN_NAMES: Final = ("stain", "stainname", "staining", "organ", "tissue", "tissuetype")
_RECOPY: Final = "Copy it again from its source"


class SlideReader:
    """The reader named "slide": 8-bit red, green and blue through OpenSlide."""

    name = "slide"
    kind = "slide"
    cache_bytes = CACHE_BYTES
    Options = SlideOptions

    def identify(self, uri: str, head: bytes) -> int:
        """High for a scanner's format, even damaged; low for any other tiled TIFF."""
        if is_remote(uri) or not head:
            return 0
        found = recognise(uri, head)
        if found is not None and found.reader == self.name:
            return 90
        directories = None if found is not None and found.strict else Directories.read(uri, 1)
        tiled = directories is not None and any(TILE_WIDTH in page.tags for page in directories.pages)
        return 30 if tiled else 0

    def scan(self, uri: str, options: SlideOptions) -> Sequence[ImageInfo]:
        """The one slide in `uri`; every file of a DICOM series gives the same facts. Raises `ReadError`."""
        options.padding_of(len(CHANNELS), "reader 'slide'")
        require_local(uri)
        files = _slide_files(uri)
        with _Handle(files[0]) as handle:
            properties = _properties(handle.slide)
            size, levels, specimen = handle.slide.dimensions, handle.levels(properties), _specimen(handle.slide)
            handle.probe_levels()
            icc, icc_notes = profile_facts(handle.profile(properties), uri, colours=True, apply=options.icc == "apply")
            if (direct := DirectTiles.open(files[0], levels, handle.steps, handle.try_read)) is not None:
                direct.close()  # opened to decode here, where that may fail, what opening an image decodes
        placement, notes = slide_placement(_stored_spacing(properties))
        return (
            ImageInfo(
                uri=files[0],
                reader=self.name,
                size=size,
                channels=CHANNELS,
                placement=placement,
                files=files,
                fingerprint=fingerprint(files),
                options=tuple(options.texts().items()),
                notes=(*notes, *icc_notes),
                origin=_bounds(files[0], properties, size)[0],
                kind="slide",
                facts=(("levels", str(len(levels))), *_objective(properties), *icc, *specimen),
            ),
        )

    def open(self, info: ImageInfo, channels: Sequence[str] | None = None) -> "SlideImage":
        """Open for reading the named channels. Raises `ReadError`."""
        return SlideImage(info, channels)


class SlideImage(TiledImage):
    """An open slide, for one worker.

    Pixels outside the scanned area are invalid, whatever colour OpenSlide or a coarse level's padding has there. Only
    boxes that need a broken tile fail.
    """

    def _prepare(self) -> None:
        info = self._info
        self._handle = handle = self._opened.enter_context(_Handle(info.uri))
        if handle.slide.dimensions != info.size:
            rule = f"must still have {info.size[0]} × {info.size[1]} px"
            found = " × ".join(map(str, handle.slide.dimensions)) + " px"
            raise ReadError(info.uri, rule, value=found, remedy="Run again in a new folder")
        properties = _properties(handle.slide)
        start, stop = _bounds(info.uri, properties, info.size)
        levels = handle.levels(properties)
        self._scanned = tuple(zip(start, stop, strict=True))
        self._clipped = [
            not all(
                self._in_scan(level, axis, at, 1)[0] for axis, side in enumerate(level.size) for at in (0, side - 1)
            )
            for level in levels
        ]
        options = scan_options(SlideOptions, info)
        profile = handle.profile(properties) if options.icc == "apply" else None
        self._colours = None if profile is None else ColourTransform(profile, info.id or info.uri)
        self._direct = DirectTiles.open(info.uri, levels, handle.steps, handle.try_read)
        if self._direct is not None:
            self._opened.callback(self._direct.close)
            handle.close()  # it opens again for a tile that cannot be decoded directly
        self._set_levels(levels, np.dtype(np.uint8), options)

    def _fetch(self, number: int, column: int, row: int) -> Tile:
        """One tile of a level; what cannot be decoded directly is OpenSlide's to read, or to refuse."""
        x, y, *size = self._levels[number].place(column, row)
        pixels = valid = None
        if self._direct is not None:
            with contextlib.suppress(ReadError):
                pixels = self._direct.read(number, column, row)
        if pixels is None:
            pixels = self._draw(number, x, y, (size[0], size[1]))
            valid = pixels[..., 3] > 127
        if self._clipped[number]:
            across, down = (self._in_scan(self._levels[number], i, at, size[i]) for i, at in enumerate((x, y)))
            inside = down[:, None] & across
            valid = inside if valid is None else valid & inside
        if self._colours is not None:
            pixels = self._colours.convert(pixels[..., : len(CHANNELS)])
        return select_channels(pixels, self._channel_indices), None if valid is None or valid.all() else valid

    def _draw(self, number: int, x: int, y: int, size: tuple[int, int]) -> Pixels:
        """A part of a level (height, width, 4) by OpenSlide, whose level-0 positions may lie off by half a pixel."""
        step = self._handle.steps[number]
        try:
            return self._handle.read((round(x * step), round(y * step)), number, size)
        except Exception as error:  # OpenSlideError, and what openslide-python or a lack of memory raises
            raise ReadError(
                f"{self._info.id or self._info.uri}, level {number}, pixels {x}–{x + size[0]}, {y}–{y + size[1]},",
                "must be readable",
                value=excerpt(str(error), 300),
                remedy=f"{_RECOPY}; regions that need these pixels are left out",
            ) from error

    def _in_scan(self, level: Level, axis: int, start: int, length: int) -> Mask:
        """Which of `length` pixels of a level from `start` along an axis (0 is x) have their centre in the scan."""
        centres = (np.arange(start, start + length) + 0.5) * level.scale[axis]
        low, high = self._scanned[axis]
        return (centres > low) & (centres < high)


class _Handle(contextlib.AbstractContextManager["_Handle", None]):
    """OpenSlide's handle of a file, opened again after each error, since OpenSlide refuses all work after its first."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._slide: OpenSlide | None = None
        self.steps = self.slide.level_downsamples

    @property
    def slide(self) -> "OpenSlide":
        """The open slide. Raises `ReadError`."""
        self._slide = self._slide or _open_slide(self._uri)
        return self._slide

    def levels(self, properties: Mapping[str, str]) -> list[Level]:
        """The levels, finest first, with the sizes of their tiles."""
        full, sizes = self.slide.dimensions, self.slide.level_dimensions
        return [Level.of(full, size, _tile_size(properties, number)) for number, size in enumerate(sizes)]

    def read(self, at: tuple[int, int], number: int, size: tuple[int, int]) -> Pixels:
        """`read_region` as (height, width, 4). Raises whatever openslide-python does."""
        slide = self.slide
        try:
            return np.asarray(slide.read_region(at, number, size))
        except Exception:
            self.close()
            raise

    def try_read(self, at: tuple[int, int], number: int, size: tuple[int, int]) -> Pixels | None:
        """`read`, None where that fails."""
        with contextlib.suppress(Exception):
            return self.read(at, number, size)
        return None

    def probe_levels(self) -> None:
        """Read a little of each level, so that a file that hangs or crashes OpenSlide does so in the scan.

        An unreadable tile is ignored: the regions that need it report it.
        """
        width, height = self.slide.dimensions
        for number in range(len(self.steps)):
            self.try_read((width // 2, height // 2), number, (16, 16))

    def profile(self, properties: Mapping[str, str]) -> bytes | None:
        """The ICC profile, None without one. Raises `ReadError` for one that is not there or too long."""
        size = _integer(properties, "icc-size")
        if size == 0:
            return None
        if size is None or size > MAX_PROFILE_BYTES:
            rule = f"must have an ICC profile of at most {MAX_PROFILE_BYTES} bytes"
            raise ReadError(self._uri, rule, value=properties.get("openslide.icc-size", ""), remedy=_RECOPY)
        found = self.slide.read_region((0, 0), 0, (0, 0)).info.get("icc_profile")  # which decodes nothing
        if not isinstance(found, bytes):
            rule, value = "must have an ICC profile that can be read", f"{size} bytes by its header"
            raise ReadError(self._uri, rule, value=value, remedy=_RECOPY)
        return found

    def close(self) -> None:
        """Close the file."""
        if self._slide is not None:
            self._slide.close()
            self._slide = None

    def __exit__(self, *_: object) -> None:
        self.close()


def _open_slide(uri: str) -> "OpenSlide":
    """An OpenSlide handle. Raises `ReadError` with the reason, also where the slide's sizes are impossible."""
    import openslide

    try:
        if (found := Directories.read(uri)) is not None and found.unsafe:
            raise ValueError(found.fault)  # noqa: TRY301 - reported below, like OpenSlide's errors
        slide = openslide.OpenSlide(uri)
    except Exception as error:  # OpenSlideError, OSError, and for odd names ValueError
        found = _find_fault(uri) or excerpt(str(error), 300) or "an unknown format"
        remedy = "Check that the file is complete, with the files that belong beside it"
        raise ReadError(uri, "must be a slide that OpenSlide can open", value=found, remedy=remedy) from error
    size, levels, steps = slide.dimensions, slide.level_dimensions, slide.level_downsamples
    if not (
        0 < len(levels) <= _MAX_LEVELS
        and all(0 < side <= MAX_SIDE for side in size)
        and all(0 < side <= full for level in levels for side, full in zip(level, size, strict=True))
        and all(math.isfinite(step) and step > 0 for step in steps)
    ):
        slide.close()
        rule = f"must have up to {_MAX_LEVELS} levels, none empty and none larger than the first"
        found = f"{len(levels)} levels: {', '.join(f'{x} × {y}' for x, y in levels[:4])} px"[:300]
        raise ReadError(uri, rule, value=found, remedy=_RECOPY)
    return slide


def _find_fault(uri: str) -> str:
    """What is wrong with a slide's file, where that can be found without OpenSlide; else ""."""
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
    return f"the file is truncated: {directories.fault}" if directories.truncated else directories.fault


def _properties(slide: "OpenSlide") -> dict[str, str]:
    """The properties that are needed, and no others; one that is no text counts as absent."""
    names = [f"{name}-{side}" for name in ("mpp", "bounds") for side in ("x", "y")]
    names += [f"level[{number}].tile-{side}" for number in range(slide.level_count) for side in ("width", "height")]
    found: dict[str, str] = {}
    for name in ("vendor", "icc-size", "objective-power", "bounds-width", "bounds-height", *names):
        with contextlib.suppress(KeyError, UnicodeDecodeError):
            found[f"openslide.{name}"] = slide.properties[f"openslide.{name}"]
    return found


def _specimen(slide: "OpenSlide") -> tuple[tuple[str, str], ...]:
    """The known stains and organs that a header states; nothing else of the specimen may leave this file."""
    found: list[str] = []
    for name in slide.properties:
        with contextlib.suppress(KeyError, UnicodeDecodeError):
            if name.startswith(_SPECIMEN) or name.rpartition(".")[2].lower().replace(" ", "") in _STAIN_NAMES:
                found.append(slide.properties[name])
    return stated_specimen(found)


def _integer(properties: Mapping[str, str], name: str) -> int | None:
    """A property as an integer: 0 where it is absent, None where it is no integer."""
    text = properties.get(f"openslide.{name}", "0").strip()
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else None


def _objective(properties: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The objective power, where it is a number."""
    try:
        power = float(properties.get("openslide.objective-power", ""))
    except ValueError:
        return ()
    return (("objective", f"{power:g}"),) if math.isfinite(power) and power > 0 else ()


def _tile_size(properties: Mapping[str, str], number: int) -> tuple[int, int]:
    """The size of a level's own tiles where it is known and suitable, else of square blocks."""
    width, height = (_integer(properties, f"level[{number}].tile-{side}") or 0 for side in ("width", "height"))
    return (width, height) if width in _OWN_TILES and height in _OWN_TILES else (_DEFAULT_TILE, _DEFAULT_TILE)


def _stored_spacing(properties: Mapping[str, str]) -> Spacing | None:
    """The spacing in the file, and where it is stated."""
    x, y = (to_micrometres(properties.get(f"openslide.mpp-{axis}"), "µm") for axis in "xy")
    if x is None or y is None:
        return None
    vendor = properties.get("openslide.vendor", "")
    sources = {"generic-tiff": "TIFF resolution tag", "dicom": "DICOM PixelSpacing"}
    return Spacing(x, y, sources.get(vendor, f"{vendor} header"))


def _bounds(uri: str, properties: Mapping[str, str], size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last corner (x, y) of the scanned area in level-0 pixels; the whole slide where none is stated.

    Raises `ReadError` where it lies outside the slide.
    """
    x, y, width, height = (_integer(properties, f"bounds-{name}") for name in ("x", "y", "width", "height"))
    if x is not None and y is not None and width is not None and height is not None:
        stop = (x + width if width else size[0], y + height if height else size[1])
        if 0 <= x < min(stop[0], size[0]) and 0 <= y < min(stop[1], size[1]):
            return (x, y), (min(stop[0], size[0]), min(stop[1], size[1]))
    found = ", ".join(properties.get(f"openslide.bounds-{name}", "") for name in ("x", "y", "width", "height"))
    raise ReadError(uri, "must have its scanned area within the slide", value=excerpt(found), remedy=_RECOPY)


def _slide_files(uri: str) -> tuple[str, ...]:
    """The files of a slide, as far as they can be told: MRXS' folder, or a DICOM series in one folder."""
    path = Path(uri)
    folder = path.with_suffix("")
    if path.suffix.lower() == ".mrxs" and folder.is_dir():
        return (uri, *sorted(str(file) for file in folder.iterdir() if file.is_file()))
    series = _series_uid(path)
    if series is None:
        return (uri,)
    return tuple(str(file) for file in sorted(path.parent.iterdir()) if file == path or _series_uid(file) == series)


def _series_uid(path: Path) -> bytes | None:
    """The SeriesInstanceUID of a DICOM slide, read without anything else of the file; None for other files."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(4096)
        if head[128:132] != b"DICM" or _WSI_CLASS not in head:
            return None
        head += file.read(_DICOM_HEADER_BYTES)
    at = head.find(_SERIES_UID)
    if at < 0:
        return None
    start = at + len(_SERIES_UID) + 2
    return head[start : start + int.from_bytes(head[start - 2 : start], "little")]
