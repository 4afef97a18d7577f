"""Several single-band rasters as one image: folders, Sentinel-2 and Landsat products, variables of one NetCDF file.

Files whose names differ only in the band id are one scene. Its level-0 grid is that of its finest band.
"""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ReadError
from ..files import is_remote
from ..formats import recognise
from ..image import FolderScan, ImageInfo
from .bands import canonical_band, find_product_metadata, is_sentinel2, match_band, sensor_from_name
from .gdal import CACHE_BYTES, limit_cache
from .geotiff import RasterReader
from .joined_bands import is_raster, join_bands, scan_band
from .metadata import RasterOptions

if TYPE_CHECKING:
    from .scene_image import SceneImage
    from .stac import StacItem

MIN_BANDS = 2
NETCDF = (b"CDF\x01", b"CDF\x02", b"CDF\x05")
_RESOLUTION = re.compile(r"_(10|20|60)m(?![A-Za-z0-9])")
_SENTINEL_TILE = re.compile(r"^(L\d_)?T\d{2}[A-Z]{3}_")  # names of the files of a Sentinel-2 granule

_BandFiles = dict[str, list[str]]
"""Band id → files."""


class SceneReader:
    """The reader named "scene"."""

    name = "scene"
    kind = "map"
    cache_bytes, shared_cache = CACHE_BYTES, True
    limit_cache = staticmethod(limit_cache)
    Options = RasterOptions

    def identify(self, uri: str, head: bytes) -> int:
        """A folder that holds at least two bands of one scene, a file of variables, or an item of STAC or a list."""
        if head.startswith(NETCDF) or ((head or is_remote(uri)) and _is_stac(uri)):
            return 60
        groups = _group_bands(uri) if Path(uri).is_dir() else {}
        if not groups:
            return 60 if Path(uri).is_dir() and _items(uri) else 0
        names = {name for group in groups.values() for files in group.values() for name in files}
        product = _is_safe(uri) or any(sensor_from_name(Path(name).name) for name in names)
        return 90 if product else 60

    def scan(self, uri: str, options: RasterOptions) -> Sequence[ImageInfo]:
        """The scenes in a folder, a file of variables or of STAC. Raises `ReadError` where one cannot be read."""
        if not Path(uri).is_dir() and not self.is_archive(uri, b"{"):
            if not _is_stac(uri):
                return _scan_variables(uri, options)
            from .stac_scene import scan_file

            return [scan_file(uri, options)]
        found = self.scan_folder(uri, options)
        if found.failed:
            raise found.failed[0][1]
        if not found.infos:
            remedy = "Give the folder that holds the band files, or name a single file"
            raise ReadError(uri, "must hold at least two single-band files of one scene", remedy=remedy)
        return found.infos

    def is_archive(self, uri: str, head: bytes) -> bool:
        """Whether a file lists STAC items: a collection, a catalogue or a collection of items."""
        if not (is_remote(uri) or head.lstrip().startswith(b"{")) or not _is_stac(uri):
            return False
        from .stac import holds_items

        return holds_items(uri)

    def scan_folder(self, folder: str, options: RasterOptions) -> FolderScan:
        """The scenes in a folder or a list of STAC items, those that failed with their files, and side files.

        An item of STAC counts where its assets lie in the folder; else it is a side file, and they are other files.
        """
        from .stac_scene import scan_item, scan_items

        if not Path(folder).is_dir():
            return scan_items(folder, options)
        infos: list[ImageInfo] = []
        failed: list[tuple[tuple[str, ...], ReadError]] = []
        side: dict[str, str] = {}
        for path, item in _items(folder, remote=options.remote_assets):
            try:
                infos.append(scan_item(path, item, options))
            except ReadError as error:
                side[path] = f"a STAC item whose assets are read by their own names: it {error.rule} ({error.value})"
        groups = _group_bands(folder, {name for info in infos for name in info.files})
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
        from .scene_image import SceneImage

        return SceneImage(info, channels)


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


def _is_stac(uri: str) -> bool:
    if is_remote(uri):
        from .stac import is_item_url

        return is_item_url(uri)
    found = recognise(uri, b"{")
    return found is not None and found.key == "stac"


def _items(folder: str, *, remote: bool = False) -> "list[tuple[str, StacItem]]":
    """The STAC items in a folder that have an asset that can be read, with their files."""
    found: list[tuple[str, StacItem]] = []
    for path in sorted(Path(folder).iterdir()):
        if path.suffix.lower() in {".json", ".geojson"} and path.is_file() and _is_stac(str(path)):
            from .stac import read_item

            with suppress(ReadError):
                item = read_item(str(path), remote=remote)
                found += [(str(path), item)] if item.assets else []
    return found


def _is_safe(folder: str) -> bool:
    return (Path(folder) / "GRANULE").is_dir()


def _candidates(folder: str) -> list[str]:
    """Files that may be bands: those of the folder, and for a Sentinel-2 product those of its granules' IMG_DATA."""
    root = Path(folder)
    places = [root, *(root / f"R{r}m" for r in (10, 20, 60))]
    if _is_safe(folder):
        places = sorted(path for path in root.glob("GRANULE/*/IMG_DATA/**/") if path.is_dir())
    return [str(path) for place in places if place.is_dir() for path in sorted(place.iterdir()) if path.is_file()]


def _group_bands(folder: str, taken: Collection[str] = ()) -> dict[str, _BandFiles]:
    """Name with {} for the band id → files of its bands, for rasters that have at least one sibling band.

    Without files that are `taken` by another image.
    """
    groups: dict[str, _BandFiles] = {}
    for path in (path for path in _candidates(folder) if path not in taken):
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
            if rasters := [path for path in files if is_raster(path)]:
                bands.setdefault(canonical_band(band, sentinel=sentinel), []).extend(rasters)
        if len(bands) >= MIN_BANDS:
            kept[key] = dict(sorted(bands.items(), key=lambda item: _band_order(item[0])))
    return kept


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
    bands = {name: scan_band(path, options) for name, path in zip(group, paths, strict=True)}
    joined = join_bands(folder, bands, options, side=[str(metadata)] if metadata else [])
    named = "" if sensor is None else sensor.name
    return replace(joined, id=_scene_id(folder, key, alone=alone), part=key, sensor=named)


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
