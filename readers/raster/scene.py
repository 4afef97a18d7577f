"""Several single-band rasters as one image: folders, Sentinel-2 and Landsat products, variables of one NetCDF file.

Files whose names differ only in the band id are one scene. Its level-0 grid is that of its finest band; every other
band is resampled once, from its own grid straight to the requested size.
"""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import ReadError
from ..files import fingerprint, is_remote
from ..formats import recognise
from ..geometry import Box
from ..image import BaseImage, FolderScan, ImageInfo, Mask, Pixels, StoredLevel
from ..options import scan_options
from ..overview import dilate
from ..resample import pixel_edges
from .bands import canonical_band, find_product_metadata, is_sentinel2, match_band, sensor_from_name
from .gdal import CACHE_BYTES, limit_cache
from .geotiff import RasterImage, RasterReader
from .metadata import RasterOptions
from .radiometry import SCALE_SOURCE
from .stac import Asset, read_item

HEAD_BYTES = 4096
MIN_BANDS = 2
NETCDF = (b"CDF\x01", b"CDF\x02", b"CDF\x05")
_RESOLUTION = re.compile(r"_(10|20|60)m(?![A-Za-z0-9])")
_SENTINEL_TILE = re.compile(r"^(L\d_)?T\d{2}[A-Z]{3}_")  # names of the files of a Sentinel-2 granule
_MAX_SKEW = 1e-9

_BandFiles = dict[str, list[str]]
"""Band id → files."""


@dataclass(frozen=True, slots=True)
class BandGrid:
    """Where a band's grid lies on its scene's: band pixel = scene pixel · `scale` + `shift`, each for x and y."""

    scale: tuple[float, float]
    shift: tuple[float, float]


class SceneReader:
    """The reader named "scene"."""

    name = "scene"
    kind = "map"
    cache_bytes, shared_cache = CACHE_BYTES, True
    limit_cache = staticmethod(limit_cache)
    Options = RasterOptions

    def identify(self, uri: str, head: bytes) -> int:
        """A folder that holds at least two bands of one scene, a file of variables, or a STAC item."""
        if head.startswith(NETCDF) or (head and _is_item(uri)):
            return 60
        groups = _group_bands(uri) if Path(uri).is_dir() else {}
        if not groups:
            return 0
        names = {name for group in groups.values() for files in group.values() for name in files}
        product = _is_safe(uri) or any(sensor_from_name(Path(name).name) for name in names)
        return 90 if product else 60

    def scan(self, uri: str, options: RasterOptions) -> Sequence[ImageInfo]:
        """The scenes in a folder, a file of variables or a STAC item. Raises `ReadError` where one cannot be read."""
        if not Path(uri).is_dir():
            return [_scan_item(uri, options)] if _is_item(uri) else _scan_variables(uri, options)
        found = self.scan_folder(uri, options)
        if found.failed:
            raise found.failed[0][1]
        if not found.infos:
            remedy = "Give the folder that holds the band files, or name a single file"
            raise ReadError(uri, "must hold at least two single-band files of one scene", remedy=remedy)
        return found.infos

    def scan_folder(self, folder: str, options: RasterOptions) -> FolderScan:
        """The scenes in a folder, those that failed with their files, and side files."""
        infos: list[ImageInfo] = []
        failed: list[tuple[tuple[str, ...], ReadError]] = []
        side: dict[str, str] = {}
        groups = _group_bands(folder)
        for key, group in groups.items():
            files = tuple(name for names in group.values() for name in names)
            try:
                info = _describe_scene(folder, key, group, options, alone=len(groups) == 1)
            except ReadError as error:
                failed.append((files, error))
                continue
            infos.append(info)
            bands = info.files[: len(info.channels)]
            side |= dict.fromkeys(info.files[len(bands) :], f"a side file of {info.id}")
            side |= {name: f"{info.id} has this band at a finer resolution" for name in files if name not in bands}
            side |= dict.fromkeys(_product_files(folder, key), f"a file of the product {info.id} that is not a band")
        taken = {name for info in infos for name in info.files} | {name for names, _ in failed for name in names}
        if _is_safe(folder) and taken:
            walked = (os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)
            side = dict.fromkeys(sorted(walked), "a file of the product that is not a band") | side
        bands = {name for info in infos for name in info.files[: len(info.channels)]}
        side = {name: why for name, why in sorted(side.items()) if name not in bands}
        return FolderScan(tuple(infos), tuple(failed), tuple(side.items()))

    def open(self, info: ImageInfo, channels: Sequence[str] | None = None) -> "SceneImage":
        """Open for reading the named channels; only their files are opened. Raises `ReadError`."""
        return SceneImage(info, channels)


class SceneImage(BaseImage):
    """An open scene: one open raster for each channel, for one worker."""

    streams = True

    def _open(self) -> None:
        info = self._info
        self._dtype = np.result_type(*(np.dtype(channel.dtype) for channel in self.channels))
        self._bands: list[tuple[RasterImage, BandGrid]] = []
        options = scan_options(RasterOptions, info)
        finest = dict(info.facts).get("grid", "")
        if not (finest.isdecimal() and int(finest) < len(info.files)):
            raise ReadError(info.uri, "must have the facts of its scan", value=finest, remedy="Scan it again")
        grid = _scan_band(info.files[int(finest)], options)
        for place in self._channel_indices:
            band = _scan_band(info.files[place], options)
            self._bands.append((RasterImage(band), _align(grid, band)))

    def _read(self, box: Box, size: tuple[int, int]) -> tuple[Pixels, Mask]:
        """See `Image.read`. A pixel is valid where all its channels are."""
        x, y = pixel_edges(box.x0, box.x1, size[0]), pixel_edges(box.y0, box.y1, size[1])
        width, height = self._info.size
        pixels = np.zeros((size[1], size[0], len(self._bands)), dtype=self._dtype)
        valid = np.ones((size[1], size[0]), dtype=bool)
        for i, (band, grid) in enumerate(self._bands):
            (across, down), (right, below) = grid.scale, grid.shift
            bounds = (right, below, width * across + right, height * down + below)
            try:
                values, usable = band.sample(y * down + below, x * across + right, bounds=bounds)
            except ReadError as error:
                where = f"box x {box.x0:g}…{box.x1:g}, y {box.y0:g}…{box.y1:g} of {band.info.uri}"
                raise ReadError(where, error.rule, value=error.value, remedy=error.remedy) from error
            pixels[:, :, i] = values[:, :, 0]
            valid &= usable
        return pixels, valid

    def stored_level(self, step: tuple[float, float]) -> StoredLevel:
        """See `SupportsLevels`: the blocks of the band that has most pixels stored, and the mean scale of all bands."""
        levels: list[StoredLevel] = []
        for band, grid in self._bands:
            level = band.stored_level((step[0] * grid.scale[0], step[1] * grid.scale[1]))
            across, down = (one / scale for one, scale in zip(level.scale, grid.scale, strict=True))
            levels.append(StoredLevel((across, down), level.block))
        finest = min(levels, key=lambda level: level.scale[0] * level.scale[1])
        area = finest.scale[0] * finest.scale[1]
        mean = math.sqrt(len(levels) / sum(area / (level.scale[0] * level.scale[1]) for level in levels))
        across, down = (one * mean for one in finest.scale)
        block = [max(1, round(side / mean)) for side in finest.block]
        return StoredLevel((across, down), (block[0], block[1]))

    def may_hold(self, shape: tuple[int, int]) -> Mask | None:
        """See `SupportsLevels`: what all bands may hold of which that is known, as a pixel is valid where all are."""
        found: Mask | None = None
        for band, grid in self._bands:
            here = band.may_hold(shape)
            if here is None:
                continue
            radius = [
                _reach(grid.scale[axis], grid.shift[axis], band.info.size[axis], whole, whole / shape[1 - axis])
                for axis, whole in enumerate(self._info.size)
            ]
            here = dilate(here, (radius[0], radius[1]))
            found = here if found is None else found & here
        return found

    def _close(self) -> None:
        for band, _ in self._bands:
            band.close()
        self._bands.clear()


def _reach(scale: float, shift: float, length: int, whole: int, cell: float) -> int:
    """How many cells of `cell` scene pixels may lie between a place on a band's own grid and on the scene's."""
    ends = abs(shift / scale), abs((length - shift) / scale - whole)
    interpolated = 1 / scale if scale < 1 else 0.0  # from the neighbouring pixel
    return math.ceil((max(ends) + interpolated) / cell - 1e-9)


def _scan_variables(uri: str, options: RasterOptions) -> list[ImageInfo]:
    """The images in a file of variables: those of one band that share a grid are the bands of one scene."""
    infos = RasterReader().scan(uri, options)
    grids: dict[object, list[ImageInfo]] = {}
    for info in infos:
        grids.setdefault((info.size, info.placement) if len(info.channels) == 1 else info.part, []).append(info)
    return [group[0] if len(group) == 1 else _join_variables(group) for group in grids.values()]


def _join_variables(group: Sequence[ImageInfo]) -> ImageInfo:
    first = group[0]
    names = [f'NETCDF:"{info.uri}":{info.channels[0].name}' for info in group]
    return replace(
        first,
        reader="scene",
        id="",
        part=",".join(info.channels[0].name for info in group),
        channels=tuple(info.channels[0] for info in group),
        files=(*names, *first.files),
        notes=tuple(dict.fromkeys(note for info in group for note in info.notes)),
        facts=(("grid", "0"), *dict.fromkeys(fact for info in group for fact in info.facts if fact[0] != "scene_name")),
    )


def _is_item(uri: str) -> bool:
    found = None if is_remote(uri) else recognise(uri, b"{")
    return found is not None and found.key == "stac"


def _is_safe(folder: str) -> bool:
    return (Path(folder) / "GRANULE").is_dir()


def _candidates(folder: str) -> list[str]:
    """Files that may be bands: those of the folder, and for a Sentinel-2 product those of its granules' IMG_DATA."""
    root = Path(folder)
    places = [root, *(root / f"R{r}m" for r in (10, 20, 60))]
    if _is_safe(folder):
        places = sorted(path for path in root.glob("GRANULE/*/IMG_DATA/**/") if path.is_dir())
    return [str(path) for place in places if place.is_dir() for path in sorted(place.iterdir()) if path.is_file()]


def _group_bands(folder: str) -> dict[str, _BandFiles]:
    """Name with {} for the band id → files of its bands, for rasters that have at least one sibling band."""
    groups: dict[str, _BandFiles] = {}
    for path in _candidates(folder):
        name = Path(path).name
        token = match_band(name)
        if token is None:
            continue
        resolution = _RESOLUTION.match(name, token.end())
        end = resolution.end() if resolution else token.end()
        groups.setdefault(f"{name[: token.start()]}{{}}{name[end:]}", {}).setdefault(token[0].upper(), []).append(path)
    kept: dict[str, _BandFiles] = {}
    for key, group in sorted(groups.items()):
        sentinel = is_sentinel2(None, group)
        bands: _BandFiles = {}
        for band, files in group.items():
            if rasters := [path for path in files if _is_raster(path)]:
                bands.setdefault(canonical_band(band, sentinel=sentinel), []).extend(rasters)
        if len(bands) >= MIN_BANDS:
            kept[key] = dict(sorted(bands.items(), key=lambda item: _band_order(item[0])))
    return kept


def _is_raster(path: str) -> bool:
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    found = recognise(path, head)
    return (found is None or not found.strict) and RasterReader().identify(path, head) > 0


def _band_order(band: str) -> tuple[str, float, str]:
    """B8A comes after B08, B10 after B9, SR_ before ST_."""
    found = re.fullmatch(r"(\w*?)B(\d+)(\w*)", band)
    return (found[1], int(found[2]) + (0.5 if found[3] == "A" else 0), found[3]) if found else (band, 0.0, "")


def _product_files(folder: str, key: str) -> list[str]:
    """Files of a product with the name of its bands that are no bands: quality layers, previews, metadata."""
    prefix = key.partition("{}")[0]
    if not (sensor_from_name(prefix) or _SENTINEL_TILE.match(prefix)):
        return []
    names = ((path, Path(path).name) for path in _candidates(folder))
    return [path for path, name in names if name.startswith(prefix) and not match_band(name)]


def _describe_scene(
    folder: str, key: str, group: Mapping[str, list[str]], options: RasterOptions, *, alone: bool
) -> ImageInfo:
    paths = [_finest_file(folder, band, files) for band, files in group.items()]
    names = reversed(Path(paths[0]).resolve().parts)
    sensor = next((found for name in names if (found := sensor_from_name(name))), None)
    metadata = None if sensor is None else find_product_metadata(paths[0], sensor)
    bands = {name: _scan_band(path, options) for name, path in zip(group, paths, strict=True)}
    joined = _join_bands(folder, bands, options, side=[str(metadata)] if metadata else [])
    named = "" if sensor is None else sensor.name
    return replace(joined, id=_scene_id(folder, key, alone=alone), part=key, sensor=named)


def _join_bands(uri: str, bands: Mapping[str, ImageInfo], options: RasterOptions, side: Sequence[str]) -> ImageInfo:
    """A scene of bands by name, on the grid of the finest. `side` are files that belong to it. Raises `ReadError`."""
    infos = list(bands.values())
    finest = min(infos, key=lambda band: (_pixel_area(band), -band.size[0] * band.size[1]))
    for band in infos:
        _align(finest, band)
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


def _scan_item(uri: str, options: RasterOptions) -> ImageInfo:
    """The assets of a STAC item that are single bands in local files, as one scene. Raises `ReadError`."""
    item = read_item(uri)
    bands: dict[str, ImageInfo] = {}
    left_out = list(item.left_out)
    differing: dict[str, list[str]] = {}
    for asset in item.assets:
        name = asset.name
        try:
            if name in bands:
                left_out.append(f"{Path(asset.path).name}: another asset is the band {name}")
            elif _is_raster(asset.path):
                bands[name], against = _describe_asset(asset, _scan_band(asset.path, options))
                differing.setdefault(against, []).append(name)
            else:
                left_out.append(f"{name}: it is no raster")
        except ReadError as error:
            left_out.append(f"{name}: it {error.rule} ({error.value})")
    if not bands:
        rule = "must be a STAC item with assets that are single bands in files in or below its folder"
        remedy = "Download its assets beside it under their relative hrefs, or give the downloaded files themselves"
        raise ReadError(uri, rule, value="; ".join(left_out) or "no assets", remedy=remedy)
    joined = _join_bands(uri, bands, options, side=[uri])
    named = sensor_from_name(item.id + "_")
    notes = [f"Of {', '.join(names)} {against}." for against, names in differing.items() if against]
    notes += [f"Assets of the STAC item that were not read: {'; '.join(left_out)}."] if left_out else []
    nodata = {asset.nodata for asset in item.assets}
    default = [("default_nodata", f"{number:g}") for number in nodata if number is not None and len(nodata) == 1]
    return replace(
        joined,
        id=item.id,
        options=tuple(sorted({**dict(default), **dict(joined.options)}.items())),
        notes=(*joined.notes, *notes, *filter(None, [item.note])),
        facts=(*joined.facts, *item.facts),
        sensor="" if named is None else named.name,
    )


def _describe_asset(asset: Asset, band: ImageInfo) -> tuple[ImageInfo, str]:
    """A band with what its item states; and what of that the tags of the file contradict, which win."""
    channel, against = replace(band.channels[0], common=asset.common or band.channels[0].common), ""
    own = channel.scale, channel.offset
    stated = 1.0 if asset.scale is None else asset.scale, asset.offset or 0.0
    if own == (1.0, 0.0) != stated:
        channel = replace(channel, scale=stated[0], offset=stated[1])
        band = replace(band, facts=(*band.facts, (SCALE_SOURCE, "the STAC item")))
    elif own != stated and (asset.scale, asset.offset) != (None, None):
        numbers = "scale {:g} and offset {:g} in the file are used, against {:g} and {:g} in the STAC item"
        against = numbers.format(*own, *stated)
    return replace(band, channels=(channel,)), against


def _scene_id(folder: str, key: str, *, alone: bool) -> str:
    """The product's name; else the folder's, where it holds this scene alone; else the common stem of the files."""
    stem = re.sub(r"[_\-. ]+$", "", key.partition("{}")[0])
    if sensor_from_name(stem + "_"):
        return stem
    here = Path(folder).resolve()
    for place in (here, *here.parents):
        if place.suffix == ".SAFE":
            return place.stem
    return here.name if alone or not stem else stem


def _finest_file(folder: str, band: str, files: Sequence[str]) -> str:
    """The file of a band at its finest resolution. Raises `ReadError` where two have the same."""
    resolutions = [int(found[1]) if (found := _RESOLUTION.search(Path(path).name)) else 0 for path in files]
    if len(set(resolutions)) < len(files):
        value, remedy = " and ".join(files), "Keep one of them in the folder"
        raise ReadError(f"band {band} of {folder}", "must be one file of the scene", value=value, remedy=remedy)
    return files[resolutions.index(min(resolutions))]


def _scan_band(path: str, options: RasterOptions) -> ImageInfo:
    infos = RasterReader().scan(path, options)
    if len(infos) != 1 or len(infos[0].channels) != 1:
        found = f"{sum(len(info.channels) for info in infos)} channels"
        remedy = "Give multi-band files on their own, outside a folder of bands"
        raise ReadError(path, "must hold a single band, as part of a scene", value=found, remedy=remedy)
    return infos[0]


def _pixel_area(info: ImageInfo) -> float:
    return abs(float(np.linalg.det(np.asarray(info.placement.matrix)[:2, :2])))


def _align(scene: ImageInfo, band: ImageInfo) -> BandGrid:
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
