"""Scenes of STAC items: their assets as named bands, with what the item states of them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import ReadError
from ..files import is_remote
from ..image import FolderScan, ImageInfo
from .bands import sensor_from_name
from .geotiff import RasterReader
from .joined_bands import is_raster, join_bands, scan_band
from .metadata import RasterOptions
from .radiometry import SCALE_SOURCE
from .stac import ASK, Asset, StacItem, read_item, read_items

_MOVED = 0.01  # px by which a stated grid may differ


def scan_file(uri: str, options: RasterOptions) -> ImageInfo:
    """The scene of the item in a file or at a URL. Raises `ReadError`."""
    return scan_item(uri, read_item(uri, remote=options.remote_assets), options)


def scan_items(uri: str, options: RasterOptions) -> FolderScan:
    """The scenes of the items that a collection, a catalogue or a collection of items lists, and those that failed."""
    infos: list[ImageInfo] = []
    failed: dict[str, list[ReadError]] = {}
    for path, item in read_items(uri, remote=options.remote_assets):
        try:
            if isinstance(item, ReadError):
                raise item
            info = scan_item(path, item, options)
            infos.append(replace(info, part=item.id) if path == uri else info)
        except ReadError as error:
            failed.setdefault(path, []).append(error)
    if not infos and not failed:
        rule, remedy = "must hold STAC items or link to them", "Save the items, with their assets, in its folder"
        raise ReadError(uri, rule, value="none", remedy=remedy)
    messages = tuple(((path,), _as_one(errors)) for path, errors in failed.items())
    side = ((uri, f"it lists the STAC items of {len(infos)} images"),) if infos else ()
    return FolderScan(tuple(infos), messages, side)


def _as_one(errors: Sequence[ReadError]) -> ReadError:
    """The errors of a file as one that has the values of all."""
    first, values = errors[0], dict.fromkeys(error.value for error in errors)
    return ReadError(first.subject, first.rule, value="; ".join(values), remedy=first.remedy)


def scan_item(uri: str, item: StacItem, options: RasterOptions) -> ImageInfo:
    """The assets of an item that are bands, as one scene. Raises `ReadError`.

    Assets of one band each are joined. Without any, the only asset of several bands that the item names is read.
    """
    left_out = list(item.left_out)
    bands, several, notes = _scan_assets(item, options, left_out)
    if not bands and len(several) != 1:
        rule = "must be a STAC item with assets that are bands in files in or below its folder"
        rule += ", or that may be read from their servers" if options.remote_assets or is_remote(uri) else ""
        remedy = "Download its assets beside it under their relative hrefs, or give the downloaded files themselves"
        if any(ASK in reason for reason in left_out):
            remedy = "Let them be read from their servers with --set reader_options.remote_assets=true"
        found = [f"{asset.name}: {len(asset.bands)} bands, as others have" for asset, _ in several]
        raise ReadError(uri, rule, value="; ".join([*found, *left_out]) or "no assets", remedy=remedy)
    if bands:
        left_out += [f"{asset.name}: it must hold a single band, as part of a scene" for asset, _ in several]
        joined = join_bands(uri, bands, options, side=[uri])
    else:
        joined = replace(several[0][1], files=(*several[0][1].files, uri))
    named = sensor_from_name(item.id + "_")
    notes += [f"Assets of the STAC item that were not read: {'; '.join(left_out)}."] if left_out else []
    nodata = {asset.nodata for asset in item.assets}
    default = [("default_nodata", f"{number:g}") for number in nodata if number is not None and len(nodata) == 1]
    return replace(
        joined,
        id=item.id,
        options=tuple(sorted({**dict(default), **dict(joined.options)}.items())),
        notes=(*joined.notes, *notes, *filter(None, [item.note])),
        facts=(*joined.facts, *item.facts),
        sensor=joined.sensor if named is None else named.name,
    )


def _scan_assets(
    item: StacItem, options: RasterOptions, left_out: list[str]
) -> tuple[dict[str, ImageInfo], list[tuple[Asset, ImageInfo]], list[str]]:
    """Single bands by name, assets of several bands, and notes; adds to `left_out` what is neither."""
    bands: dict[str, ImageInfo] = {}
    several: list[tuple[Asset, ImageInfo]] = []
    differing: dict[str, list[str]] = {}
    notes: list[str] = []
    for asset in item.assets:
        name = asset.name
        try:
            if name in bands:
                left_out.append(f"{Path(asset.path).name}: another asset is the band {name}")
            elif not is_raster(asset.path):
                left_out.append(f"{name}: it is no raster")
            elif asset.bands:
                several.append((asset, _name_bands(asset, RasterReader().scan(asset.path, options))))
                notes += _against_grid(*several[-1])
            else:
                bands[name], against = _describe_asset(asset, scan_band(asset.path, options))
                differing.setdefault(against, []).append(name)
                notes += _against_grid(asset, bands[name])
        except ReadError as error:
            left_out.append(f"{name}: it {error.rule} ({error.value})")
    notes += [f"Of {', '.join(names)} {against}." for against, names in differing.items() if against]
    return bands, several, list(dict.fromkeys(notes))


def _name_bands(asset: Asset, infos: Sequence[ImageInfo]) -> ImageInfo:
    """An image of several bands with the names of its item. Raises `ReadError` where their numbers differ."""
    channels = infos[0].channels if len(infos) == 1 else ()
    names = {band.name for band in asset.bands}
    if not len(channels) == len(asset.bands) == len(names):
        rule = f"must have the {len(asset.bands)} bands of different names that its STAC item lists"
        found, remedy = f"{len(channels)} channels", "Correct the item, or give the file itself"
        raise ReadError(asset.path, rule, value=found, remedy=remedy)
    named = [
        replace(channel, name=band.name, common=band.common or channel.common)
        for channel, band in zip(channels, asset.bands, strict=True)
    ]
    stated = [
        replace(channel, scale=1.0 if band.scale is None else band.scale, offset=band.offset or 0.0)
        if (channel.scale, channel.offset) == (1.0, 0.0)
        else channel
        for channel, band in zip(named, asset.bands, strict=True)
    ]
    source = ((SCALE_SOURCE, "the STAC item"),) if stated != named else ()
    return replace(infos[0], channels=tuple(stated), facts=(*infos[0].facts, *source))


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


def _against_grid(asset: Asset, info: ImageInfo) -> Iterator[str]:
    """Notes on the grid of a file that its item contradicts."""
    from ..geodesy import parse_crs  # which brings PROJ

    grid, place = asset.grid, info.placement
    if grid.shape is not None and grid.shape != info.size[::-1]:
        yield _contradiction(asset, f"{info.size[1]} × {info.size[0]} px", f"{grid.shape[0]} × {grid.shape[1]} px")
    if grid.crs is not None and place.crs is not None:
        own = parse_crs(place.crs)
        try:
            same = own.equals(parse_crs(grid.crs), ignore_axis_order=True)
        except ReadError:
            same = False
        if not same:
            code = own.to_epsg()
            name = f"EPSG:{code}" if code else own.name
            yield _contradiction(asset, f"the CRS {name}", f"{grid.crs[:40]}")
    if grid.transform is not None and place.has_unit and place.warp is None:
        matrix = np.reshape(grid.transform, (2, 3))
        corners = np.array([[0.0, 0.0], [info.size[0], 0.0], [0.0, info.size[1]]])
        moved = place.to_pixel(corners @ matrix[:, :2].T + matrix[:, 2]) - corners
        if not np.abs(moved).max() <= _MOVED:
            own_numbers = ", ".join(f"{value:.10g}" for row in place.matrix[:2] for value in row)
            stated = ", ".join(f"{value:.10g}" for value in grid.transform)
            yield _contradiction(asset, f"the transform {own_numbers}", stated)


def _contradiction(asset: Asset, own: str, stated: str) -> str:
    return f"Of {asset.name} {own} of the file is used, against {stated} in the STAC item."
