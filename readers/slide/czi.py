"""Zeiss CZI: mosaics of sub-blocks with their pyramid, a scene as an image of its own.

A box is put together from the sub-blocks that it meets, at the level that it needs; where none lies there is no data.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from ..errors import ReadError
from ..files import fingerprint, is_remote, require_local
from ..formats import recognise
from ..geometry import MAX_SIDE
from ..image import Channel, ImageInfo, Mask, Pixels
from ..options import scan_options
from ..pseudonyms import harmless_name
from .czi_file import PIXELS, CziFile, CziMetadata, SubBlock
from .icc import profile_facts
from .pyramid import PyramidOptions, plane_notes, plane_position
from .spacing import Spacing, slide_placement
from .tiled_image import TiledImage
from .tiled_pyramid import CACHE_BYTES, Level, Tile

_TILE: Final = 512  # pixels a side of what is put together at once
_BLOCK_BYTES: Final = 64 << 20  # of decoded sub-blocks that stay in memory
_COVER: Final = 64  # cells a side of the grid on which a level is compared with the first
_AXES: Final = frozenset("CZTSM")  # that are read; others must have one position
_RGB: Final = ("red", "green", "blue")
_CONVERT: Final = "Export the part that you need from ZEN as OME-TIFF"

Corners = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CziScene:
    """One scene: its sub-blocks by level, finest first."""

    number: int
    """In the file; -1 for the only one of a file without scenes."""
    origin: tuple[int, int]
    """Of its corner in level-0 pixels of the file."""
    size: tuple[int, int]
    levels: tuple[tuple[float, tuple[SubBlock, ...]], ...]
    """Level-0 pixels per pixel, and the sub-blocks in the order in which they are drawn."""
    channels: tuple[int, ...]
    """Positions along the axis C."""
    depths: tuple[int, ...]
    times: tuple[int, ...]
    notes: tuple[str, ...] = ()

    @property
    def pixel_type(self) -> int:
        """That of all sub-blocks."""
        return self.levels[0][1][0].pixel_type


def find_scenes(file: CziFile, uri: str) -> list[CziScene]:
    """The scenes of a file in their order. Raises `ReadError` for axes and mixtures that are not read."""
    positions: dict[str, set[int]] = defaultdict(set)
    groups: dict[int, list[SubBlock]] = defaultdict(list)
    for block in file.blocks:
        for axis, at in block.axes:
            positions[axis].add(at)
        groups[dict(block.axes).get("S", -1)].append(block)
    for axis, found in positions.items():
        if axis not in _AXES and len(found) > 1:
            rule, value = f"must have one position along the axis {axis}", f"{len(found)}"
            raise ReadError(uri, rule, value=value, remedy=_CONVERT)
    if len(groups) > 1:
        groups.pop(-1, None)  # a level of the pyramid that covers several scenes
    scenes = [_scene(number, blocks, uri) for number, blocks in sorted(groups.items())]
    found = [scene for scene in scenes if scene is not None]
    if not found:
        raise ReadError(uri, "must hold pixels at level 0", value="none", remedy=_CONVERT)
    return found


def _scene(number: int, blocks: Sequence[SubBlock], uri: str) -> CziScene | None:
    levels: dict[int, list[SubBlock]] = defaultdict(list)
    for block in blocks:
        levels[1 if block.covers == block.stored else max(2, round(block.factor))].append(block)
    if 1 not in levels:
        return None
    if len({block.pixel_type for block in blocks}) > 1:
        kinds = ", ".join(sorted({PIXELS[block.pixel_type][0] for block in blocks}))
        raise ReadError(uri, "must have pixels of one type", value=f"several: {kinds}", remedy=_CONVERT)
    corners = _corners(levels[1])
    (x0, y0), (x1, y1) = corners[:, :2].min(axis=0).tolist(), corners[:, 2:].max(axis=0).tolist()
    size = x1 - x0, y1 - y0
    if max(size) > MAX_SIDE:
        rule = f"must have sides of at most {MAX_SIDE} px"
        raise ReadError(uri, rule, value=f"{size[0]} × {size[1]} px", remedy=_CONVERT)
    whole, notes = _cover(levels[1], (x0, y0), size), list[str]()
    kept: list[tuple[float, tuple[SubBlock, ...]]] = []
    for factor, own in sorted(levels.items()):
        if factor > 1 and (whole & ~_cover(own, (x0, y0), size)).any():
            notes.append(f"The level of 1/{factor} in the file is incomplete and not used.")
            continue
        kept.append((float(factor), tuple(sorted(own, key=lambda block: (block.at("M"), block.position)))))
    axes = {axis: tuple(sorted({block.at(axis) for block in levels[1]})) for axis in "CZT"}
    return CziScene(number, (x0, y0), size, tuple(kept), axes["C"], axes["Z"], axes["T"], tuple(notes))


def _corners(blocks: Sequence[SubBlock]) -> Corners:
    """(x0, y0, x1, y1) of each block in level-0 pixels of the file."""
    return np.array(
        [[*block.place, *(a + b for a, b in zip(block.place, block.covers, strict=True))] for block in blocks]
    )


def _cover(blocks: Sequence[SubBlock], origin: tuple[int, int], size: tuple[int, int]) -> Mask:
    """Which cells of a grid over a scene have their middle in a block of each channel and plane."""
    groups: dict[tuple[int, ...], Mask] = {}
    step = [side / _COVER for side in size]
    for block, (x0, y0, x1, y1) in zip(blocks, _corners(blocks).tolist(), strict=True):
        key = tuple(block.at(axis) for axis in "CZT")
        mask = groups.setdefault(key, np.zeros((_COVER, _COVER), dtype=bool))
        columns, rows = (
            slice(*(max(0, round((at - start) / length)) for at in ends))
            for ends, start, length in (((x0, x1), origin[0], step[0]), ((y0, y1), origin[1], step[1]))
        )
        mask[rows, columns] = True
    found = np.ones((_COVER, _COVER), dtype=bool)
    for mask in groups.values():
        found &= mask
    return found


class CziReader:
    """The reader named "czi"."""

    name = "czi"
    kind = "slide"
    cache_bytes = CACHE_BYTES + _BLOCK_BYTES
    Options = PyramidOptions

    def identify(self, uri: str, head: bytes) -> int:
        """High for CZI."""
        found = None if is_remote(uri) else recognise(uri, head)
        return 90 if found is not None and found.reader == self.name else 0

    def scan(self, uri: str, options: PyramidOptions) -> Sequence[ImageInfo]:
        """The scenes of the file. Raises `ReadError`, and `RequestError` for an option out of range."""
        require_local(uri)
        with CziFile(uri) as file:
            scenes = find_scenes(file, uri)
            metadata = CziMetadata.of(file.metadata())
            infos = [_describe(scene, scenes, metadata, uri, options) for scene in scenes]
        return [replace(info, fingerprint=fingerprint([uri])) for info in infos]

    def open(self, info: ImageInfo, channels: Sequence[str] | None = None) -> "CziImage":
        """Open for reading the named channels. Raises `ReadError`."""
        return CziImage(info, channels)


class CziImage(TiledImage):
    """An open scene, for one worker."""

    def _prepare(self) -> None:
        info = self._info
        self._file = CziFile(info.uri)
        self._opened.callback(self._file.close)
        scenes = find_scenes(self._file, info.uri)
        self._scene = scene = next((one for one in scenes if _part(one, scenes) == info.part), scenes[0])
        if scene.size != info.size:
            rule, found = f"must still have {info.size[0]} × {info.size[1]} px", f"{scene.size[0]} × {scene.size[1]} px"
            raise ReadError(info.uri, rule, value=found, remedy="Run again in a new folder")
        options = scan_options(PyramidOptions, info)
        z, t = (_position(scene, axis, options) for axis in "zt")
        dtype, self._samples = PIXELS[scene.pixel_type]
        self._blocks = [
            {
                channel: [block for block in blocks if (block.at("C"), block.at("Z"), block.at("T")) == (channel, z, t)]
                for channel in scene.channels
            }
            for _, blocks in scene.levels
        ]
        self._places = [
            {channel: _placed(own, scene, factor) for channel, own in level.items()}
            for level, (factor, _) in zip(self._blocks, scene.levels, strict=True)
        ]
        self._decoded: OrderedDict[int, Pixels] = OrderedDict()
        self._bytes = 0
        self._set_levels([_level(scene, factor) for factor, _ in scene.levels], np.dtype(dtype), options)

    def may_hold(self, shape: tuple[int, int]) -> Mask | None:
        """See `SupportsLevels`: where sub-blocks lie."""
        found = np.zeros(shape, dtype=bool)
        step = self._info.size[0] / shape[1], self._info.size[1] / shape[0]
        for place in self._places[0].values():
            for x0, y0, x1, y1 in place.tolist():
                columns = slice(int(max(0, x0) // step[0]), int(-(-x1 // step[0])))
                found[int(max(0, y0) // step[1]) : int(-(-y1 // step[1])), columns] = True
        return found

    def _fetch(self, number: int, column: int, row: int) -> Tile:
        """One square of a level, put together from the sub-blocks that it meets, later ones over earlier ones."""
        left, top, width, height = self._levels[number].place(column, row)
        pixels = np.zeros((height, width, len(self._channel_indices)), dtype=self._dtype)
        valid = np.ones((height, width), dtype=bool)
        for channel in dict.fromkeys(at // self._samples for at in self._channel_indices):
            name = self._scene.channels[channel]
            filled = np.zeros((height, width), dtype=bool)
            place = self._places[number][name]
            meets = (place[:, 0] < left + width) & (place[:, 1] < top + height)
            meets &= (place[:, 2] > left) & (place[:, 3] > top)
            for index in np.flatnonzero(meets).tolist():
                x0, y0, x1, y1 = place[index].tolist()
                stored = self._decode(self._blocks[number][name][index])
                x, y = max(x0, left), max(y0, top)
                right, bottom = min(x1, left + width), min(y1, top + height)
                target = np.s_[y - top : bottom - top, x - left : right - left]
                part = stored[y - y0 : bottom - y0, x - x0 : right - x0]
                for to, at in enumerate(self._channel_indices):
                    if at // self._samples == channel:
                        pixels[..., to][target] = part[..., at % self._samples]
                filled[target] = True
            valid &= filled
        return pixels, None if valid.all() else valid

    def _decode(self, block: SubBlock) -> Pixels:
        if block.position in self._decoded:
            self._decoded.move_to_end(block.position)
            return self._decoded[block.position]
        found = self._decoded[block.position] = self._file.read(block)
        self._bytes += found.nbytes
        while self._bytes > _BLOCK_BYTES and len(self._decoded) > 1:
            self._bytes -= self._decoded.popitem(last=False)[1].nbytes
        return found


def _placed(blocks: Sequence[SubBlock], scene: CziScene, factor: float) -> Corners:
    """(x0, y0, x1, y1) of each block in pixels of a level; a corner between two pixels is rounded."""
    places = np.array([block.place for block in blocks], dtype=np.int64).reshape(-1, 2)
    starts = np.rint((places - scene.origin) / factor).astype(np.int64)
    sides = np.array([block.stored for block in blocks], dtype=np.int64).reshape(-1, 2)
    return np.concatenate([starts, starts + sides], axis=1)


def _level(scene: CziScene, factor: float) -> Level:
    width, height = (max(1, -(-side // int(factor))) for side in scene.size)
    return Level((width, height), (factor, factor), (_TILE, _TILE))


def _part(scene: CziScene, scenes: Sequence[CziScene]) -> str:
    return f"scene {scenes.index(scene) + 1}" if len(scenes) > 1 else ""


def _position(scene: CziScene, axis: str, options: PyramidOptions) -> int:
    """The position of the file along z or t that is read. Raises `RequestError` where there is none such."""
    positions = scene.depths if axis == "z" else scene.times
    return positions[plane_position(axis, len(positions), options, CziReader.name)]


def _channel_list(scene: CziScene, names: Sequence[str]) -> tuple[Channel, ...]:
    """The channels by their names in the file, each once; colours are red, green and blue."""
    dtype, samples = PIXELS[scene.pixel_type]
    found: list[Channel] = []
    for at in scene.channels:
        name = (names[at] if 0 <= at < len(names) else "") or f"channel-{at + 1}"
        alone = len(scene.channels) == 1
        colours = [(colour, colour) if alone else (f"{name} {colour}", None) for colour in _RGB]
        for own, common in colours if samples == 3 else [(name, None)]:
            unique = own if all(one.name != own for one in found) else f"{own} ({len(found) + 1})"
            found.append(Channel(unique, common, dtype))
    return tuple(found)


def _describe(
    scene: CziScene, scenes: Sequence[CziScene], metadata: CziMetadata, uri: str, options: PyramidOptions
) -> ImageInfo:
    """The metadata of a scene."""
    channels = _channel_list(scene, metadata.channels)
    options.padding_of(len(channels), f"reader {CziReader.name!r}")
    for axis in "zt":
        _position(scene, axis, options)  # refuses an option out of range
    notes = plane_notes({"t": len(scene.times), "z": len(scene.depths)}, options, metadata.step)
    placement, spacing_notes = slide_placement(
        None if metadata.microns is None else Spacing(*metadata.microns, "CZI Scaling")
    )
    _, icc_notes = profile_facts(None, uri, colours=False, apply=options.icc == "apply")
    part = _part(scene, scenes)
    name = harmless_name(metadata.scenes[scene.number]) if 0 <= scene.number < len(metadata.scenes) else ""
    facts = [("levels", str(len(scene.levels)))]
    if part:
        facts += [("scene", f"{scenes.index(scene) + 1} of {len(scenes)}"), *([("scene_name", name)] if name else [])]
    return ImageInfo(
        uri=uri,
        reader=CziReader.name,
        size=scene.size,
        channels=channels,
        placement=placement,
        part=part,
        files=(uri,),
        options=tuple(options.texts().items()),
        notes=(*spacing_notes, *scene.notes, *notes, *icc_notes),
        kind="slide",
        facts=tuple(facts),
    )
