"""Finds the masks of an image: a file that the user gives, or the quality band of its product."""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import shapely

from .annotations import in_pixels, polygons_to_pixels, read_polygons
from .errors import ReadError, RequestError
from .files import absolute, is_remote, open_regular
from .image import ImageInfo, Mask
from .masks import FLAGS, QA_PIXEL, SCL, ImageMask, MaskRaster, MaskRule, wrong_values
from .options import options_of
from .raster.bands import match_band
from .raster.gdal import with_query, without_queries
from .raster.stac import keep_queries
from .raster.stored_band import StoredBand
from .reader_calls import scan_file
from .regions import Grid
from .registry import readers
from .slide.tissue import slide_polygons
from .vectors import split_layer, vector_digest, vector_driver

Band = Literal["SCL", "QA_PIXEL"]

BANDS: Final[dict[Band, MaskRule]] = {"SCL": SCL, "QA_PIXEL": QA_PIXEL}
"""Quality bands of products, and what is masked in each."""

_WHOSE: Final[dict[Band, str]] = {
    "SCL": "the scene classification of Sentinel-2 Level-2A",
    "QA_PIXEL": "the pixel quality band of Landsat Collection 2",
}
_HEAD: Final = 512
_MOST: Final = 1 << 26  # pixels of a picture of a slide that is read whole
_LEVELS: Final = ("", "R10m", "R20m", "R60m")  # folders of a Sentinel-2 granule
_MORE: Final = 0.0005  # a smaller share of an image outside of its mask is not told


@dataclass(frozen=True, slots=True)
class FoundMask:
    """A mask of an image, and what to tell of it."""

    mask: ImageMask
    how: str
    """What is masked, in words, without a path."""
    sha256: str = ""
    """Of the file or files; "" for a band of the image's own file, which has a fingerprint."""
    warning: str = ""


def is_vector(path: str) -> bool:
    """Whether a file is one of polygons. Raises `RequestError` where it cannot be read."""
    file, layer = split_layer(path)
    try:
        if layer or vector_driver(file):
            return True
        with open_regular(file) as opened:
            head = opened.read(_HEAD)
    except OSError as error:
        remedy = "Check the path and permissions"
        raise RequestError(f"the mask {path}", "must be a readable file", value=str(error), remedy=remedy) from error
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in {b"{", b"["} or head.startswith(b"\x1f\x8b")


def mask_digest(path: str) -> str:
    """The sha256, in hexadecimal, of a mask's file or files. Raises `RequestError`."""
    if is_vector(path):
        return vector_digest(path)
    try:
        with open_regular(path) as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()
    except OSError as error:
        remedy = "Check the path and permissions"
        raise RequestError(f"the mask {path}", "must be a readable file", value=str(error), remedy=remedy) from error


def find_file_mask(path: str, info: ImageInfo, values: Sequence[int] = ()) -> FoundMask:
    """The mask of an image in a file of polygons, or in a raster: see `MaskRaster`.

    `values` are those of a raster that are masked. Raises `RequestError` or `ReadError` for a file that is none, and
    where it is not known how it lies on the image.
    """
    if is_remote(path):
        raise RequestError(f"the mask {path}", "must be a file on this machine", remedy="Download it first")
    if is_vector(path):
        if values:
            value, remedy = ", ".join(map(str, values)), "Leave --mask-values out: all polygons are masked"
            raise RequestError("--mask-values", "must come with a raster", value=value, remedy=remedy)
        return replace(_polygons(path, info), sha256=mask_digest(path))
    rule = MaskRule(values=tuple(values)) if values else FLAGS
    scanned = _scan(path)
    if len(scanned) != 1:
        remedy = "Write the mask into a file of its own, for example with gdal_translate"
        raise ReadError(path, "must hold one image to be a mask", value=f"{len(scanned)} images", remedy=remedy)
    found = scanned[0]
    raster = MaskRaster(found.uri, found.part, "", found.size, found.placement, rule, _pixel_grid(found, info))
    return replace(_checked(raster, info, f"a raster: {rule}"), sha256=mask_digest(path))


def find_band_mask(band: Band, info: ImageInfo, values: Sequence[int] = ()) -> FoundMask:
    """The mask of an image in the quality band of its product: a band of its file, or a file beside its bands.

    `values` are masked instead of those that stand for cloud and shadow. Raises `RequestError` where there is none.
    """
    rule = BANDS[band] if not values else replace(BANDS[band], values=tuple(values), bits=())
    how = f"{band}, {_WHOSE[band]}: {rule}"
    place = next((at for at, channel in enumerate(info.channels) if channel.name.upper() == band), None)
    if place is not None and info.reader == "raster":
        own = MaskRaster(info.uri, info.part, info.channels[place].name, info.size, info.placement, rule, _whole(info))
        return _checked(own, info, how)
    path = info.files[place] if place is not None and place < len(info.files) else _beside(band, info)
    if not path:
        names = ", ".join(channel.name for channel in info.channels)
        raise RequestError(
            f"{info.id or info.uri} with --mask {band}",
            f"must have {_WHOSE[band]}, as a band or in a file named like its bands",
            value=f"the bands {names}",
            remedy="Keep that file beside the bands, give the file itself, or --mask csmask-cloud",
        )
    keep_queries(info.files)
    scanned = _scan(path)
    if len(scanned) != 1:
        remedy = "Fetch the product again"
        raise ReadError(path, "must hold one image", value=f"{len(scanned)} images", remedy=remedy)
    found = scanned[0]
    raster = MaskRaster(found.uri, found.part, "", found.size, found.placement, rule, _pixel_grid(found, info))
    return replace(_checked(raster, info, how), sha256="" if is_remote(path) else mask_digest(path))


def band_files(band: Band, infos: Sequence[ImageInfo]) -> dict[str, str]:
    """The images among some that are only the quality band of another one: its URI, and that of the other."""
    named = {info.uri: _named(band).fullmatch(Path(info.uri).name) for info in infos if not is_remote(info.uri)}
    places = [(info.uri, place, prefix) for info in infos if not named.get(info.uri) for place, prefix in _places(info)]
    owners = {(place, prefix.lower()): uri for uri, place, prefix in places}
    found = {uri: (os.path.dirname(absolute(uri)), match["prefix"].lower()) for uri, match in named.items() if match}
    return {uri: owners[place] for uri, place in found.items() if place in owners}


def _scan(path: str) -> tuple[ImageInfo, ...]:
    """What the reader of rasters finds in a file, in a process of limited rights. Raises `ReadError`."""
    try:
        status = os.stat(path)
    except OSError:  # which the reader tells
        return _scanned(path, 0, 0)
    return _scanned(absolute(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=16)
def _scanned(path: str, _modified: int, _size: int) -> tuple[ImageInfo, ...]:
    reader = readers()["raster"]
    try:
        return scan_file("raster", reader, with_query(path), options_of(reader)())
    except ReadError as error:
        raise ReadError(without_queries(error.subject), error.rule, value=error.value, remedy=error.remedy) from None


def _polygons(path: str, info: ImageInfo) -> FoundMask:
    """A mask of polygons: in pixels as QuPath exports them, else in the CRS of their file."""
    subject = f"the mask {path}"
    doubt = ""
    if in_pixels(info):
        area, doubt = slide_polygons(path, info, subject)
    else:
        every = [one.geometry for one in read_polygons(path, subject, "lonlat")]
        area = shapely.union_all([one for one in polygons_to_pixels(every, info) if not one.is_empty])
    nothing = "" if area.area > 0 else "No polygon of the mask lies on the image, so that nothing of it is masked."
    return FoundMask(ImageMask(area=area), "polygons", warning=" ".join(filter(None, (doubt, nothing))))


def _whole(info: ImageInfo) -> Grid:
    """The grid whose pixels are those of the image."""
    return Grid(info.id, info.size, (1.0, 1.0))


def _pixel_grid(mask: ImageInfo, info: ImageInfo) -> Grid | None:
    """The grid of a mask whose place follows from its size; None where both are placed on the Earth."""
    if mask.placement.crs is not None and info.placement.crs is not None:
        return None
    scale = whole_scale(mask.size, info.size) if info.kind == "slide" else None
    if mask.size == info.size:
        scale = (1.0, 1.0)
    if scale is None:
        width, height = info.size
        same = "the proportions of the slide" if info.kind == "slide" else f"the image's {width} × {height} px"
        rule = f"must be georeferenced as the image is, or have {same}"
        value, remedy = f"{mask.size[0]} × {mask.size[1]} px", "Georeference it, or resize it to the image's pixels"
        raise RequestError(f"the mask {mask.uri} on {info.id or info.uri}", rule, value=value, remedy=remedy)
    return Grid(info.id, info.size, scale)


def whole_scale(reduced: tuple[int, int], size: tuple[int, int]) -> tuple[float, float] | None:
    """Level-0 pixels per pixel (x, y) of a reduced picture of a slide of `size`; None for one of other proportions.

    Its sides are those of the slide divided by one number and rounded, up or down.

    >>> whole_scale((512, 251), (2048, 1003)), whole_scale((512, 256), (2048, 1003))
    ((4.0, 3.99601593625498), None)
    """
    low = max(side / (small + 1) for side, small in zip(size, reduced, strict=True))
    high = min(side / max(small - 1, 0.5) for side, small in zip(size, reduced, strict=True))
    if low >= high:
        return None
    return size[0] / reduced[0], size[1] / reduced[1]


def read_slide_mask(path: str, info: ImageInfo) -> tuple[Mask, tuple[float, float]]:
    """A picture of a whole slide that is 0 beside something: where it is not (H, W), and its level-0 pixels per pixel.

    Raises `ReadError` or `RequestError` for a picture of another size, of too many pixels, or of other values than 0, 1
    and 255.
    """
    scanned = _scan(path)
    scale = whole_scale(scanned[0].size, info.size) if len(scanned) == 1 else None
    if scale is None:
        value = f"{scanned[0].size[0]} × {scanned[0].size[1]} px" if len(scanned) == 1 else f"{len(scanned)} images"
        rule = f"must have the proportions of the slide, {info.size[0]} × {info.size[1]} px"
        raise RequestError(
            f"the mask {path} of {info.id or info.uri}", rule, value=value, remedy="Give that of this slide"
        )
    width, height = scanned[0].size
    if width * height > _MOST:
        rule, remedy = f"must have at most {_MOST >> 20} million pixels", "Reduce it, as an overview of the slide is"
        raise ReadError(path, rule, value=f"{width} × {height} px", remedy=remedy)
    with StoredBand(scanned[0].uri, scanned[0].part) as band:
        numbers, known = band.read((0, height), (0, width))
    if wrong := FLAGS.wrong(numbers[known]):
        raise wrong_values(path, FLAGS, wrong)
    return known & FLAGS.masked(numbers), scale


def _checked(raster: MaskRaster, info: ImageInfo, how: str) -> FoundMask:
    """A raster whose numbers and place were looked at. Raises `ReadError`, `RequestError`."""
    with StoredBand(raster.uri, raster.part, raster.band) as band:
        if wrong := raster.rule.wrong(band.sample()):
            raise wrong_values(raster.uri, raster.rule, wrong)
    outside = raster.outside_share(info)
    if outside == 1:
        rule, remedy = "must overlap the image", "Give the mask of this image"
        subject = f"the mask {raster.uri} on {info.id or info.uri}"
        raise RequestError(subject, rule, value="all of the image is outside", remedy=remedy)
    warning = ""
    if outside > _MORE:
        warning = f"{100 * outside:.1f} % of the image lies outside of the mask, and counts as masked."
    return FoundMask(ImageMask(raster), how, warning=warning)


def _beside(band: Band, info: ImageInfo) -> str:
    """The file of a quality band beside the bands of a product, at its finest resolution; "" where there is none."""
    found: dict[str, int] = {}
    for folder, prefix in dict.fromkeys(_places(info)):
        for name in sorted(os.listdir(folder)):
            if (named := _named(band).fullmatch(name)) and named["prefix"].lower() == prefix.lower():
                found.setdefault(os.path.join(folder, name), int(named["metres"] or 0))
    return min(found, key=lambda path: (found[path], path), default="")


def _named(band: Band) -> re.Pattern[str]:
    """How a file of a quality band is named: as the bands are up to their own name, then this one."""
    return re.compile(rf"(?P<prefix>.*){band}(?:_(?P<metres>\d+)m)?\.(?:jp2|tiff?)", re.IGNORECASE)


def _places(info: ImageInfo) -> Iterator[tuple[str, str]]:
    """Folders that a product's files are in, and how their names begin there."""
    for path in info.files:
        if is_remote(path):
            continue
        name, folder = Path(path).name, os.path.dirname(absolute(path))
        token = match_band(name)
        prefixes = [name[: token.start()]] if token else [f"{Path(path).stem}{mark}" for mark in "_-."]
        for place in (folder, *(os.path.join(os.path.dirname(folder), level) for level in _LEVELS[1:])):
            if os.path.isdir(place):
                yield from ((place, prefix) for prefix in prefixes)
