"""Single bands, each on a grid of its own, as one scene on the grid of its finest band."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import ReadError
from ..files import fingerprint, is_remote
from ..formats import recognise
from ..image import ImageInfo
from .geotiff import RasterReader
from .metadata import RasterOptions

_HEAD_BYTES = 4096
_MAX_SKEW = 1e-9
_REMOTE_SUFFIXES = (".tif", ".tiff", ".jp2")


@dataclass(frozen=True, slots=True)
class BandGrid:
    """Where a band's grid lies on its scene's: band pixel = scene pixel · `scale` + `shift`, each for x and y."""

    scale: tuple[float, float]
    shift: tuple[float, float]


def is_raster(path: str) -> bool:
    """Whether the first bytes of a local file are those of a raster that is no slide; of a URL, whether it may be."""
    if is_remote(path):
        return path.lower().endswith(_REMOTE_SUFFIXES)
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    found = recognise(path, head)
    return (found is None or not found.strict) and RasterReader().identify(path, head) > 0


def join_bands(uri: str, bands: Mapping[str, ImageInfo], options: RasterOptions, side: Sequence[str]) -> ImageInfo:
    """A scene of bands by name, on the grid of the finest. `side` are files that belong to it. Raises `ReadError`."""
    infos = list(bands.values())
    finest = min(infos, key=lambda band: (_pixel_area(band), -band.size[0] * band.size[1]))
    for band in infos:
        align(finest, band)
    beside = {name for band in infos for name in band.files[1:]} | {*side}
    files = (*(band.uri for band in infos), *sorted(beside))
    return ImageInfo(
        uri=uri,
        reader="scene",
        size=finest.size,
        channels=tuple(replace(band.channels[0], name=name) for name, band in bands.items()),
        placement=finest.placement,
        files=files,
        fingerprint=fingerprint([name for name in files if is_remote(name) or Path(name).is_file()]),
        options=tuple(options.texts().items()),
        notes=tuple(dict.fromkeys(note for band in infos for note in band.notes)),
        facts=(("grid", str(infos.index(finest))), *dict.fromkeys(fact for band in infos for fact in band.facts)),
        personal=False,
    )


def scan_band(path: str, options: RasterOptions) -> ImageInfo:
    """The metadata of a file of one band. Raises `ReadError` where it has more."""
    infos = RasterReader().scan(path, options)
    if len(infos) != 1 or len(infos[0].channels) != 1:
        found = f"{sum(len(info.channels) for info in infos)} channels"
        remedy = "Give multi-band files on their own, outside a folder of bands"
        raise ReadError(path, "must hold a single band, as part of a scene", value=found, remedy=remedy)
    return infos[0]


def _pixel_area(info: ImageInfo) -> float:
    return abs(float(np.linalg.det(np.asarray(info.placement.matrix)[:2, :2])))


def align(scene: ImageInfo, band: ImageInfo) -> BandGrid:
    """The grid of a band on that of the scene's finest band. Raises `ReadError` that names both files."""

    def mismatch(rule: str, value: str) -> ReadError:
        remedy = "Keep only bands of one scene in the folder, or warp one to the other"
        return ReadError(f"{band.uri} and {scene.uri}", rule, value=value, remedy=remedy)

    place, size = scene.placement, scene.size
    if band.placement.crs != place.crs:
        raise mismatch("must share a CRS as bands of a scene", "two different ones")
    if place.warp is not None and (band.placement, band.size) != (place, size):
        raise mismatch("must share control points and size as bands of a scene", f"{band.size} and {size}")
    if not place.has_unit and band.size != size:
        raise mismatch("must have the same size, being bands without georeference", f"{band.size} and {size}")
    own, joint = (np.vstack([p.matrix, [0, 0, 1]]) for p in (band.placement, place))
    (across, skew_x, right), (skew_y, down, below) = np.linalg.solve(own, joint)[:2].tolist()
    if not (across > 0 and down > 0 and max(abs(skew_x), abs(skew_y)) < _MAX_SKEW):
        raise mismatch("must have parallel axes as bands of a scene", f"grids turned by {skew_x:g}, {skew_y:g}")
    for scale, shift, length, whole in ((across, right, band.size[0], size[0]), (down, below, band.size[1], size[1])):
        pixel = max(1.0, 1 / scale)  # the coarser of the two grids, in scene pixels
        start, stop = -shift / scale, (length - shift) / scale
        if abs(start) >= pixel or abs(stop - whole) >= pixel:
            rule = "must cover the same extent within one pixel of the coarser band"
            raise mismatch(rule, f"{start:g}…{stop:g} and 0…{whole} px")
    return BandGrid((across, down), (right, below))
