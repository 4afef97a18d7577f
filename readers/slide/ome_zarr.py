"""OME-Zarr (NGFF 0.4 and 0.5): folders, zips, and folders on a web server that the user names.

Only the chunks that a box needs are read and decoded. Labels, and pictures of the glass, are never read as images.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from ..errors import ReadError
from ..files import fingerprint, is_remote
from ..formats import recognise, recognise_folder
from ..image import ImageInfo, Pixels
from ..options import scan_options
from .icc import profile_facts
from .ngff import NgffImage, NgffScene, find_scenes, numbered, read_image, with_spacing
from .pyramid import PyramidOptions, plane_notes, plane_position
from .spacing import slide_placement
from .tiled_image import TiledImage
from .tiled_pyramid import CACHE_BYTES, Tile
from .zarr_store import MARKS, Store, files_of, open_store

_FEW_CHUNKS: Final = 256  # files of the coarsest level that a fingerprint covers


class OmeZarrReader:
    """The reader named "ome-zarr"."""

    name = "ome-zarr"
    kind = "slide"
    cache_bytes = CACHE_BYTES
    Options = PyramidOptions

    def identify(self, uri: str, head: bytes) -> int:
        """High for what is OME-Zarr by its metadata or by its name."""
        local = not is_remote(uri)
        found = recognise_folder(uri) if local and not head else None
        found = found or recognise(uri, head)
        return 90 if found is not None and found.reader == self.name else 0

    def scan(self, uri: str, options: PyramidOptions) -> Sequence[ImageInfo]:
        """The images of the hierarchy. Raises `ReadError`, and `RequestError` for an option out of range."""
        with open_store(uri) as store:
            scenes, notes = find_scenes(store)
            infos = [_describe(store, scenes, scene, options) for scene in scenes]
        return [replace(info, uri=uri, notes=(*info.notes, *notes)) for info in infos]

    def open(self, info: ImageInfo, channels: Sequence[str] | None = None) -> "OmeZarrImage":
        """Open for reading the named channels. Raises `ReadError`."""
        return OmeZarrImage(info, channels)


class OmeZarrImage(TiledImage):
    """An open image, for one worker. Chunks that are not stored are invalid, whatever the fill value is."""

    def _prepare(self) -> None:
        info = self._info
        store = self._opened.enter_context(open_store(info.uri))
        scenes, _ = find_scenes(store)
        scene = next((one for one in scenes if numbered(scenes, one, "")[0] == info.part), scenes[0])
        self._image = image = read_image(store, scene.path)
        size = image.levels[0].size
        if size != info.size or len(image.channels) != len(info.channels):
            rule = f"must still have {info.size[0]} × {info.size[1]} px and {len(info.channels)} channels"
            found = f"{size[0]} × {size[1]} px, {len(image.channels)} channels"
            raise ReadError(info.uri, rule, value=found, remedy="Run again in a new folder")
        options = scan_options(PyramidOptions, info)
        self._position = {axis: plane_position(axis, image.length(axis), options, OmeZarrReader.name) for axis in "tz"}
        self._set_levels(image.levels, image.arrays[0].coding.dtype.newbyteorder("="), options)

    def _fetch(self, number: int, column: int, row: int) -> Tile:
        """One tile of a level, all channels: from one chunk, or from one for each channel."""
        array, axes = self._image.arrays[number], self._image.axes
        _, _, width, height = self._image.levels[number].place(column, row)
        pixels = np.zeros((height, width, len(self._channel_indices)), dtype=self._dtype)
        valid = np.ones((height, width), dtype=bool)
        chunks: dict[int, Pixels | None] = {}
        step = array.chunk[axes.index("c")] if "c" in axes else 1
        for at, channel in enumerate(self._channel_indices):
            place = {**self._position, "c": channel}
            index = {axis: place[axis] // array.chunk[axes.index(axis)] for axis in axes[:-2]} | {"y": row, "x": column}
            if (group := channel // step) not in chunks:
                chunks[group] = array.read_chunk([index[axis] for axis in axes])
            chunk = chunks[group]
            if chunk is None:
                valid[:] = False
                continue
            inside = tuple(place[axis] % array.chunk[axes.index(axis)] for axis in axes[:-2])
            pixels[..., at] = chunk[inside][:height, :width]
        return pixels, None if valid.all() else valid


def _describe(store: Store, scenes: Sequence[NgffScene], scene: NgffScene, options: PyramidOptions) -> ImageInfo:
    """The metadata of an image."""
    image = with_spacing(read_image(store, scene.path), scene)
    options.padding_of(len(image.channels), f"reader {OmeZarrReader.name!r}")
    placement, spacing_notes = slide_placement(image.spacing)
    if image.spacing is None and any("not used as the pixel size" in note for note in image.notes):
        spacing_notes = tuple(note.replace("the file states none, so sizes", "sizes") for note in spacing_notes)
    for axis in "tz":
        plane_position(axis, image.length(axis), options, OmeZarrReader.name)  # refuses an option out of range
    positions = plane_notes({axis: image.length(axis) for axis in "tz"}, options, image.z_step)
    _, icc_notes = profile_facts(None, store.root, colours=False, apply=options.icc == "apply")
    part, facts = numbered(scenes, scene, image.name)
    files = files_of(store.root, _keys(image, scene))
    return ImageInfo(
        uri=store.root,
        reader=OmeZarrReader.name,
        size=image.levels[0].size,
        channels=image.channels,
        placement=placement,
        part=part,
        files=files,
        fingerprint=fingerprint(files),
        options=tuple(options.texts().items()),
        notes=(*spacing_notes, *image.notes, *icc_notes, *positions),
        kind="slide",
        facts=(*facts, *image.facts),
    )


def _keys(image: NgffImage, scene: NgffScene) -> list[str]:
    """The keys of metadata, and of the first chunks of the coarsest level, which change with the pixels."""
    groups = ["", scene.path, *(array.path for array in image.arrays)]
    keys = [f"{group}/{name}".lstrip("/") for group in groups for name in MARKS]
    last = image.arrays[-1]
    shape = last.chunk if last.sharding is None else last.sharding.shards
    counts = [-(-side // part) for side, part in zip(last.shape, shape, strict=True)]
    places = np.ndindex(*counts)
    return [*keys, *(last.key(place) for _, place in zip(range(_FEW_CHUNKS), places, strict=False))]
