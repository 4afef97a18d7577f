"""OME-TIFF, QPTIFF and plain TIFF pyramids.

Only the tiles that a box needs are read and decoded, whatever their number, bit depth and compression.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, cast

import numpy as np
from pydantic import Field

from ..errors import ReadError
from ..files import fingerprint, is_remote, require_local
from ..formats import recognise
from ..image import Channel, ImageInfo, Pixels
from ..options import invalid_option, scan_options
from ..orientation import tag_note
from .icc import ColourTransform, profile_facts
from .padding import SlideOptions
from .scenes import Scene, find_scenes
from .spacing import Spacing, slide_placement
from .tiff import (
    damaged_tiff,
    open_tiff,
    page_descriptions,
    pyramid_levels,
    qptiff_channel,
    tag_value,
    tiff_errors,
    tile_size,
)
from .tiff_directories import MAGIC, ORIENTATION, Directories
from .tiff_tiles import read_tile, unreadable
from .tiled_image import TiledImage
from .tiled_pyramid import CACHE_BYTES, Level, Tile, select_channels

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries

_RGB: Final = ("red", "green", "blue")
_ICC_PROFILE: Final = 34675  # tag
_PAGE_AXES: Final = frozenset({"Y", "X", "S"})  # within a page
_OPTION_AXES: Final = {"Z": "z", "T": "t"}  # axes of which one position is read, and the option that chooses it


class PyramidOptions(SlideOptions):
    """Options of the reader "pyramid"."""

    z: int = Field(default=0, ge=0, description="The focal plane to read, counted from 0.")
    t: int = Field(default=0, ge=0, description="The time point to read, counted from 0.")


@dataclass(frozen=True, slots=True)
class SampleLocation:
    """Where the samples of a channel lie."""

    page: int
    plane: int
    """The plane of the page where samples are stored separately, else 0."""
    sample: int
    """The sample within a pixel where samples are interleaved, else 0."""


@dataclass(frozen=True, slots=True)
class TiffAxes:
    """How pages and samples make up channels. All of axis C is read, and one position of Z and T."""

    axes: tuple[str, ...]
    """Axes beyond those of a page, slowest first."""
    lengths: tuple[int, ...]
    samples: int
    """Samples per pixel of a page."""
    separate: bool
    """Whether each sample is stored as a plane of its own."""
    colour: bool
    """Whether the first three samples are red, green and blue."""
    alpha: bool
    """Whether the last sample is alpha."""
    dtype: str

    @classmethod
    def of(cls, series: "TiffPageSeries", uri: str) -> "TiffAxes":
        """The axes of an image. Raises `ReadError` where they do not match its pages."""
        page = series.keyframe
        pairs = [(axis, n) for axis, n in zip(series.axes, series.shape, strict=True) if axis not in _PAGE_AXES]
        if math.prod(n for _, n in pairs) != len(series.pages):
            raise damaged_tiff(uri, f"{len(series.pages)} pages for {' × '.join(f'{n} {axis}' for axis, n in pairs)}")
        return cls(
            axes=tuple(axis for axis, _ in pairs),
            lengths=tuple(n for _, n in pairs),
            samples=page.samplesperpixel,
            separate=page.planarconfig == 2,
            colour=page.photometric in {2, 6},
            alpha=page.photometric == 2 and page.samplesperpixel == 4 and tuple(page.extrasamples)[:1] in {(1,), (2,)},
            dtype=np.dtype(series.dtype).newbyteorder("=").name,
        )

    def locate(self, options: PyramidOptions) -> tuple[list[SampleLocation], SampleLocation | None]:
        """Where each channel, in order, and alpha lie. Raises `RequestError` for an option out of range."""
        position = [
            plane_position(_OPTION_AXES[axis], length, options, PyramidReader.name) if axis in _OPTION_AXES else 0
            for axis, length in zip(self.axes, self.lengths, strict=True)
        ]
        found: list[SampleLocation] = []
        for channel in range(self._channels):
            for i, axis in enumerate(self.axes):
                position[i] = channel if axis == "C" else position[i]
            page = int(np.ravel_multi_index(position, self.lengths)) if position else 0
            samples = range(self.samples)
            found += [SampleLocation(page, n, 0) if self.separate else SampleLocation(page, 0, n) for n in samples]
        return (found[: self._visible], found[self._visible]) if self.alpha else (found, None)

    def channels(self, names: Sequence[str]) -> tuple[Channel, ...]:
        """The channels, called by the header's `names`, by colour or by number; each name is unique."""
        found: list[Channel] = []
        for c in range(self._channels):
            name = names[c] if c < len(names) else ""
            if self._visible == 1:
                found.append(Channel(name or f"channel-{c + 1}", dtype=self.dtype))
                continue
            for s in range(self._visible):
                colour = _RGB[s] if self.colour and s < len(_RGB) else f"sample-{s + 1}"
                common = colour if self._channels == 1 and colour in _RGB else None
                full = f"{name or c + 1} {colour}" if self._channels > 1 else colour
                found.append(Channel(full, common, self.dtype))
        seen: set[str] = set()
        for i, channel in enumerate(found):
            if channel.name in seen:
                found[i] = replace(channel, name=f"{channel.name} ({i + 1})")
            seen.add(found[i].name)
        return tuple(found)

    def notes(self, options: PyramidOptions, z_step: float | None) -> list[str]:
        """What is not read of the file; `z_step` as for `plane_notes`."""
        notes: list[str] = []
        for axis, length in zip(self.axes, self.lengths, strict=True):
            if option := _OPTION_AXES.get(axis):
                notes += plane_notes({option: length}, options, z_step)
            elif axis != "C" and length > 1:
                notes.append(f"The file has {length} positions along axis {axis}; the first is read.")
        return notes

    @property
    def in_8_bit_colours(self) -> bool:
        """Whether the channels are red, green and blue of 8 bits, and no others."""
        return self.colour and self._visible == len(_RGB) and self._channels == 1 and self.dtype == "uint8"

    @property
    def _visible(self) -> int:
        return self.samples - self.alpha

    @property
    def _channels(self) -> int:
        return self.lengths[self.axes.index("C")] if "C" in self.axes else 1


def plane_position(axis: str, length: int, options: PyramidOptions, reader: str) -> int:
    """The position along the axis z or t that is read. Raises `RequestError` where the file has none such."""
    position = int(getattr(options, axis))
    if position >= length:
        rule = f"must be from 0 to {length - 1} for this file"
        raise invalid_option(axis, f"reader {reader!r}", rule, value=str(position))
    return position


def plane_notes(lengths: Mapping[str, int], options: PyramidOptions, z_step: float | None) -> list[str]:
    """Notes on the axes z and t of which one of several positions is read; `z_step` is in µm."""
    apart = {"z": f", {z_step:.4g} µm apart" if z_step is not None else ""}
    return [
        f"The file has {length} positions along axis {axis.upper()}{apart.get(axis, '')}; "
        f"{getattr(options, axis)} is read (--reader-options {axis}=…)."
        for axis, length in lengths.items()
        if length > 1
    ]


class PyramidReader:
    """The reader named "pyramid": every scan in OME-TIFF, the first image of QPTIFF and TIFF without georeference."""

    name = "pyramid"
    kind = "slide"
    cache_bytes = CACHE_BYTES
    Options = PyramidOptions

    def identify(self, uri: str, head: bytes) -> int:
        """High for OME-TIFF, QPTIFF and TIFF pyramids, even damaged; 0 for scanners' formats."""
        if is_remote(uri) or head[:4] not in MAGIC:
            return 0
        found = recognise(uri, head)
        if found is not None and found.reader == self.name:
            return 85 if found.strict else 80
        directories = Directories.read(uri, 1)
        return 20 if directories is not None and directories.pages else 0

    def scan(self, uri: str, options: PyramidOptions) -> Sequence[ImageInfo]:
        """The scenes of the file. Raises `ReadError`, and `RequestError` for an option out of range."""
        require_local(uri)
        with open_tiff(uri) as tiff, tiff_errors(uri):
            scenes, notes = find_scenes(tiff, uri)
            infos = [_describe(tiff, scene, uri, options) for scene in scenes]
        return [replace(info, fingerprint=fingerprint([uri]), notes=(*info.notes, *notes)) for info in infos]

    def open(self, info: ImageInfo, channels: Sequence[str] | None = None) -> "PyramidImage":
        """Open for reading the named channels. Raises `ReadError`."""
        return PyramidImage(info, channels)


class PyramidImage(TiledImage):
    """An open TIFF pyramid, for one worker. A tile that is missing in the file, or transparent, is invalid."""

    def _prepare(self) -> None:
        self._tiff = self._opened.enter_context(open_tiff(self._info.uri))
        with tiff_errors(self._info.uri):
            self._choose(self._info)

    def _choose(self, info: ImageInfo) -> None:
        """Find the scene, its channels and its levels."""
        scenes, _ = find_scenes(self._tiff, info.uri)
        series = next((scene.series for scene in scenes if scene.part == info.part), scenes[0].series)
        page = series.keyframe
        if (page.imagewidth, page.imagelength) != info.size:
            rule = f"must still have {info.size[0]} × {info.size[1]} px"
            found = f"{page.imagewidth} × {page.imagelength} px"
            raise ReadError(info.uri, rule, value=found, remedy="Run again in a new folder")
        options = scan_options(PyramidOptions, info)
        axes = TiffAxes.of(series, info.uri)
        samples, self._alpha = axes.locate(options)
        profile = _icc_profile(page) if options.icc == "apply" else None
        subject = info.id or info.uri
        self._colours = None if profile is None else ColourTransform(profile, subject, colours=axes.in_8_bit_colours)
        self._samples = samples if self._colours else [samples[place] for place in self._channel_indices]
        levels = pyramid_levels(series)
        self._pages = [level.pages for level in levels]
        frames = [level.keyframe for level in levels]
        sizes = [Level.of(info.size, (one.imagewidth, one.imagelength), tile_size(one)) for one in frames]
        self._set_levels(sizes, np.dtype(series.dtype).newbyteorder("="), options)

    def _fetch(self, number: int, column: int, row: int) -> Tile:
        """One tile of a level, the chosen channels."""
        if self._colours is None:
            return self._fetch_stored(number, column, row)
        pixels, valid = self._fetch_stored(number, column, row)
        return select_channels(self._colours.convert(pixels), self._channel_indices), valid

    def _fetch_stored(self, number: int, column: int, row: int) -> Tile:
        """One tile of a level as it is stored: the chosen channels, all for a conversion of colours."""
        level = self._levels[number]
        _, _, width, height = level.place(column, row)
        samples = self._samples if self._alpha is None else [*self._samples, self._alpha]
        where = f"{self._info.id or self._info.uri}, level {number}, tile {column}, {row},"
        across, down = level.tiles
        decoded: dict[tuple[int, int], Pixels] = {}
        for page, plane in dict.fromkeys((sample.page, sample.plane) for sample in samples):
            frame = self._pages[number][page]
            index = (plane * down + row) * across + column
            segment = None if frame is None else read_tile(self._tiff, frame, index, where)
            if segment is None:
                empty = np.zeros((height, width, len(self._samples)), dtype=self._dtype)
                return empty, np.zeros((height, width), dtype=bool)
            most = max(sample.sample for sample in samples if (sample.page, sample.plane) == (page, plane))
            if segment.shape[0] < height or segment.shape[1] < width or segment.shape[2] <= most:
                raise unreadable(
                    where, f"it holds {segment.shape[1]} × {segment.shape[0]} px of {segment.shape[2]} samples"
                )
            decoded[page, plane] = segment[:height, :width]
        if len(decoded) == 1 and self._alpha is None:
            (segment,) = decoded.values()
            return select_channels(segment, [sample.sample for sample in samples]), None
        values = [decoded[sample.page, sample.plane][..., sample.sample] for sample in samples]
        valid = None if self._alpha is None else values.pop() >= (np.iinfo(self._dtype).max + 1) // 2
        return np.stack(values, axis=2), valid


def _describe(tiff: "TiffFile", scene: Scene, uri: str, options: PyramidOptions) -> ImageInfo:
    """The metadata of a scene."""
    series, ome = scene.series, scene.ome
    page = series.keyframe
    axes = TiffAxes.of(series, uri)
    names = [qptiff_channel(text) for text in page_descriptions(series)] if tiff.is_qpi else ome.channels
    channels = axes.channels(names)
    axes.locate(options)  # refuses an option out of range
    options.padding_of(len(channels), f"reader {PyramidReader.name!r}")
    placement, spacing_notes = slide_placement(ome.spacing or _resolution_tag(page))
    profile, colours = _icc_profile(page), axes.in_8_bit_colours
    icc, icc_notes = profile_facts(profile, uri, colours=colours, apply=options.icc == "apply")
    levels = len(pyramid_levels(series))
    return ImageInfo(
        uri=uri,
        reader=PyramidReader.name,
        size=(page.imagewidth, page.imagelength),
        channels=channels,
        placement=placement,
        part=scene.part,
        files=(uri,),
        options=tuple(options.texts().items()),
        notes=(*spacing_notes, *_notes(series), *icc_notes, *axes.notes(options, ome.z_step)),
        kind="slide",
        facts=(("levels", str(levels)), *scene.facts, *icc, *ome.specimen),
    )


def _resolution_tag(page: "TiffPage") -> Spacing | None:
    """The TIFF resolution (pixels per inch or centimetre), which many programs fill with a value for printers."""
    stated = tag_value(page, 296)
    unit = {2: 25400.0, 3: 10000.0}.get(stated) if isinstance(stated, int) else None
    across = [_ratio(tag_value(page, code)) for code in (282, 283)]
    if unit is None or not all(across):
        return None
    return Spacing(unit / across[0], unit / across[1], "TIFF resolution tag")


def _icc_profile(page: "TiffPage") -> bytes | None:
    found = tag_value(page, _ICC_PROFILE)
    return found if isinstance(found, bytes) and found else None


def _ratio(value: object) -> float:
    """A TIFF rational, 0 where it is none."""
    numbers = cast("tuple[int, ...]", value) if isinstance(value, tuple) else ()
    return numbers[0] / numbers[1] if len(numbers) == 2 and numbers[1] else 0.0


def _notes(series: "TiffPageSeries") -> list[str]:
    notes: list[str] = []
    if series.keyframe.photometric == 0:
        notes.append("Zero is white in this file; its values are not inverted.")
    turned = tag_note(tag_value(series.keyframe, ORIENTATION), applied=False)
    return [*notes, turned] if turned else notes
