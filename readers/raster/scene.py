"""A folder of single-band rasters as one image: plain folders, Sentinel-2 SAFE products, Landsat product folders.

Files whose names differ only in the band's id are one scene. Its level-0 grid is its finest band's; every other band is
read from its own grid straight to the size asked for, so that nothing is resampled twice.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import ReadError
from ..files import fingerprint, is_remote
from ..formats import recognise
from ..geometry import Box, Placement
from ..image import BaseImage, FolderScan, ImageInfo, Mask, Pixels
from ..options import scan_options
from ..resample import pixel_edges
from .bands import band_token, canonical, is_sentinel, sensor_of_product
from .geotiff import RasterImage, RasterReader
from .metadata import RasterOptions
from .products import metadata_beside

HEAD = 4096
FEWEST = 2  # bands that make a scene
_RESOLUTION = re.compile(r"_(10|20|60)m(?![A-Za-z0-9])")
_TILE = re.compile(r"^(L\d_)?T\d{2}[A-Z]{3}_")  # how Sentinel-2 names a granule's files
_SKEW = 1e-9


@dataclass(frozen=True, slots=True)
class Fit:
    """How a band's grid lies on its scene's: band pixel = scene pixel · `scale` + `shift`, each for x and y."""

    scale: tuple[float, float]
    shift: tuple[float, float]


class SceneReader:
    """The reader named "scene"."""

    name = "scene"
    kind = "map"
    Options = RasterOptions

    def identify(self, uri: str, head: bytes) -> int:
        """A folder that holds at least two bands of one scene."""
        del head
        if not Path(uri).is_dir():
            return 0
        groups = _groups(uri)
        if not groups:
            return 0
        names = {name for group in groups.values() for files in group.values() for name in files}
        product = _is_safe(uri) or any(sensor_of_product(Path(name).name) for name in names)
        return 90 if product else 60

    def scan(self, uri: str, options: RasterOptions) -> Sequence[ImageInfo]:
        """The scenes in a folder. Raises `ReadError` where one of them cannot be read."""
        found = self.scan_folder(uri, options)
        if found.failed:
            raise found.failed[0][1]
        if not found.infos:
            raise ReadError(
                uri,
                "it must be a folder with at least two bands of one scene, each its own file",
                remedy="Give the folder that holds the band files, or name a single file",
            )
        return found.infos

    def scan_folder(self, folder: str, options: RasterOptions) -> FolderScan:
        """The scenes in a folder, those that failed with the files they are made of, and files beside them."""
        infos: list[ImageInfo] = []
        failed: list[tuple[tuple[str, ...], ReadError]] = []
        side: dict[str, str] = {}
        groups = _groups(folder)
        for key, group in groups.items():
            files = tuple(name for names in group.values() for name in names)
            try:
                info = _describe(folder, key, group, options, alone=len(groups) == 1)
            except ReadError as error:
                failed.append((files, error))
                continue
            infos.append(info)
            bands = info.files[: len(info.channels)]
            side |= dict.fromkeys(info.files[len(bands) :], f"a side file of {info.id}")
            side |= {name: f"{info.id} has this band in a finer resolution" for name in files if name not in bands}
            side |= dict.fromkeys(_companions(folder, key), f"a file of the product {info.id} that is not a band")
        taken = {name for info in infos for name in info.files} | {name for names, _ in failed for name in names}
        if _is_safe(folder) and taken:
            side = dict.fromkeys(_all_files(folder), "a file of the product that is not a band") | side
        bands = {name for info in infos for name in info.files[: len(info.channels)]}
        side = {name: why for name, why in sorted(side.items()) if name not in bands}
        return FolderScan(tuple(infos), tuple(failed), tuple(side.items()))

    def open(self, info: ImageInfo, channels: Sequence[str] | None = None) -> "SceneImage":
        """Open for reading the named channels: only their files are opened. Raises `ReadError`."""
        return SceneImage(info, channels)


class SceneImage(BaseImage):
    """An open scene: one open raster for each channel, for one worker."""

    def _open(self) -> None:
        info = self._info
        self._dtype = np.result_type(*(np.dtype(channel.dtype) for channel in self.channels))
        self._bands: list[tuple[RasterImage, Fit]] = []
        options = scan_options(RasterOptions, info)
        place = dict(info.facts).get("grid", "")
        if not (place.isdecimal() and int(place) < len(info.files)):
            raise ReadError(info.uri, "its facts must be those of its scan", value=place, remedy="Scan it again")
        grid = _scan_band(info.files[int(place)], options)
        for place in self._channel_indices:
            band = _scan_band(info.files[place], options)
            fit = _fit(grid.uri, grid.placement, grid.size, band)
            self._bands.append((RasterImage(band), fit))

    def _read(self, box: Box, size: tuple[int, int]) -> tuple[Pixels, Mask]:
        """See `Image.read`. A pixel is valid where every delivered band is."""
        x, y = pixel_edges(box.x0, box.x1, size[0]), pixel_edges(box.y0, box.y1, size[1])
        pixels = np.zeros((size[1], size[0], len(self._bands)), dtype=self._dtype)
        valid = np.ones((size[1], size[0]), dtype=bool)
        for at, (band, fit) in enumerate(self._bands):
            (across, down), (right, below) = fit.scale, fit.shift
            width, height = self._info.size
            picture = (right, below, width * across + right, height * down + below)
            try:
                values, usable = band.sample(y * down + below, x * across + right, picture=picture)
            except ReadError as error:
                where = f"box x {box.x0:g}…{box.x1:g}, y {box.y0:g}…{box.y1:g} of {band.info.uri}"
                raise ReadError(where, error.rule, value=error.value, remedy=error.remedy) from error
            pixels[:, :, at] = values[:, :, 0]
            valid &= usable
        return pixels, valid

    def _close(self) -> None:
        for band, _ in self._bands:
            band.close()
        self._bands.clear()


def _is_safe(folder: str) -> bool:
    return (Path(folder) / "GRANULE").is_dir()


def _all_files(folder: str) -> list[str]:
    return sorted(os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)


def _candidates(folder: str) -> list[str]:
    """Files that may be bands: those of the folder, and for a Sentinel-2 product those of its granules' IMG_DATA."""
    root = Path(folder)
    places = [root, *(root / f"R{r}m" for r in (10, 20, 60))]
    if _is_safe(folder):
        places = sorted(path for path in root.glob("GRANULE/*/IMG_DATA/**/") if path.is_dir())
    return [str(path) for place in places if place.is_dir() for path in sorted(place.iterdir()) if path.is_file()]


def _groups(folder: str) -> dict[str, dict[str, list[str]]]:
    """Name with the band's id replaced by {} → band id → files, of rasters that have at least one sibling band."""
    groups: dict[str, dict[str, list[str]]] = {}
    for path in _candidates(folder):
        name = Path(path).name
        token = band_token(name)
        if token is None:
            continue
        resolution = _RESOLUTION.match(name, token.end())
        end = resolution.end() if resolution else token.end()
        groups.setdefault(f"{name[: token.start()]}{{}}{name[end:]}", {}).setdefault(token[0].upper(), []).append(path)
    kept: dict[str, dict[str, list[str]]] = {}
    for key, group in sorted(groups.items()):
        sentinel = is_sentinel(None, group)
        bands: dict[str, list[str]] = {}
        for band, files in group.items():
            if rasters := [path for path in files if _is_raster(path)]:
                bands.setdefault(canonical(band, sentinel=sentinel), []).extend(rasters)
        if len(bands) >= FEWEST:
            kept[key] = dict(sorted(bands.items(), key=lambda item: _band_order(item[0])))
    return kept


def _is_raster(path: str) -> bool:
    with Path(path).open("rb") as file:
        head = file.read(HEAD)
    found = recognise(path, head)
    return (found is None or not found.strict) and RasterReader().identify(path, head) > 0


def _band_order(band: str) -> tuple[str, float, str]:
    """B8A comes after B08, B10 after B9, SR_ before ST_."""
    found = re.fullmatch(r"(\w*?)B(\d+)(\w*)", band)
    return (found[1], int(found[2]) + (0.5 if found[3] == "A" else 0), found[3]) if found else (band, 0.0, "")


def _companions(folder: str, key: str) -> list[str]:
    """Files of a product that are named like its bands and are none: quality layers, true-colour pictures, metadata."""
    prefix = key.partition("{}")[0]
    if not (sensor_of_product(prefix) or _TILE.match(prefix)):
        return []
    names = ((path, Path(path).name) for path in _candidates(folder))
    return [path for path, name in names if name.startswith(prefix) and not band_token(name)]


def _describe(
    folder: str, key: str, group: Mapping[str, list[str]], options: RasterOptions, *, alone: bool
) -> ImageInfo:
    paths = [_only(band, files) for band, files in group.items()]
    places = reversed(Path(paths[0]).resolve().parts)
    sensor = next((found for part in places if (found := sensor_of_product(part))), None)
    bands = [_scan_band(path, options) for path in paths]
    finest = min(bands, key=lambda band: (_pixel_area(band.placement), -band.size[0] * band.size[1]))
    for band in bands:
        _fit(finest.uri, finest.placement, finest.size, band)
    channels = [replace(band.channels[0], name=name) for name, band in zip(group, bands, strict=True)]
    metadata = None if sensor is None else metadata_beside(paths[0], sensor)
    side = {name for band in bands for name in band.files[1:]}
    if metadata is not None:
        side.add(str(metadata))
    files = (*paths, *sorted(side))
    return ImageInfo(
        uri=folder,
        reader="scene",
        size=finest.size,
        channels=tuple(channels),
        placement=finest.placement,
        id=_title(folder, key, alone=alone),
        part=key,
        files=files,
        fingerprint=fingerprint([name for name in files if is_remote(name) or Path(name).is_file()]),
        options=tuple(options.texts().items()),
        notes=tuple(dict.fromkeys(note for band in bands for note in band.notes)),
        facts=(("grid", str(bands.index(finest))), *dict.fromkeys(fact for band in bands for fact in band.facts)),
        personal=False,
        sensor="" if sensor is None else sensor.name,
    )


def _title(folder: str, key: str, *, alone: bool) -> str:
    """A name for people: the product's; else the folder's, where it holds this scene alone; else the files' stem."""
    stem = re.sub(r"[_\-. ]+$", "", key.partition("{}")[0])
    if sensor_of_product(stem + "_"):
        return stem
    here = Path(folder).resolve()
    for place in (here, *here.parents):
        if place.suffix == ".SAFE":
            return place.stem
    return here.name if alone or not stem else stem


def _only(band: str, files: Sequence[str]) -> str:
    """The file of a band: the finest where a product has it in several resolutions. Raises where two claim to be it."""
    resolutions = {path: _RESOLUTION.search(Path(path).name) for path in files}
    ranked = sorted(files, key=lambda path: int(found[1]) if (found := resolutions[path]) else 0)
    if len(files) > 1 and len({found[1] if found else "" for found in resolutions.values()}) < len(files):
        raise ReadError(
            f"band {band}",
            "a scene has one file for each band",
            value=" and ".join(files),
            remedy="Keep one of them in the folder",
        )
    return ranked[0]


def _scan_band(path: str, options: RasterOptions) -> ImageInfo:
    infos = RasterReader().scan(path, options)
    if len(infos) != 1 or len(infos[0].channels) != 1:
        raise ReadError(
            path,
            "a band's file must hold one band",
            value=f"{sum(len(info.channels) for info in infos)} channels",
            remedy="Give multi-band files on their own, outside a folder of bands",
        )
    return infos[0]


def _pixel_area(placement: Placement) -> float:
    return abs(float(np.linalg.det(np.asarray(placement.matrix)[:2, :2])))


def _fit(uri: str, placement: Placement, size: tuple[int, int], band: ImageInfo) -> Fit:
    """How a band lies on the grid of `placement` and `size`, `uri`'s. Raises `ReadError` that names both files."""

    def mismatch(rule: str, value: str) -> ReadError:
        return ReadError(
            f"{band.uri} and {uri}", rule, value=value, remedy="Keep only bands of one scene in the folder, or warp one"
        )

    if band.placement.crs != placement.crs:
        raise mismatch("bands of a scene must share a coordinate system", "two different ones")
    if placement.warp is not None and (band.placement, band.size) != (placement, size):
        raise mismatch("bands placed by control points must share them and their size", f"{band.size} and {size}")
    if not placement.has_unit and band.size != size:
        raise mismatch("bands without a place on Earth must have the same size", f"{band.size} and {size}")
    own, scene = (np.vstack([p.matrix, [0, 0, 1]]) for p in (band.placement, placement))
    joint = np.linalg.solve(own, scene)
    (across, skew_x, right), (skew_y, down, below) = joint[:2].tolist()
    if not (across > 0 and down > 0 and max(abs(skew_x), abs(skew_y)) < _SKEW):
        raise mismatch("bands of a scene must have parallel axes", f"grids turned by {skew_x:g}, {skew_y:g}")
    for scale, shift, length, whole in ((across, right, band.size[0], size[0]), (down, below, band.size[1], size[1])):
        pixel = max(1.0, 1 / scale)  # the coarser of the two grids, in scene pixels
        start, stop = -shift / scale, (length - shift) / scale
        if abs(start) >= pixel or abs(stop - whole) >= pixel:
            raise mismatch(
                "bands of a scene must cover the same ground within one pixel of the coarser",
                f"{start:g}…{stop:g} and 0…{whole} px",
            )
    return Fit((across, down), (right, below))
