"""GeoTIFF and the other single-file rasters that GDAL reads.

Colours, nodata, masks, scale and placement are used as the file states them and never guessed.
"""

# rasterio has no type stubs
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import struct
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ReadError, did_you_mean, excerpt
from ..files import is_remote, split_variable
from ..image import ImageInfo
from ..orientation import TAG_FACT
from .gdal import CACHE_BYTES, METADATA, PAGE, PIXELS, gdal_env, gdal_errors, keep_query, limit_cache, open_raster
from .metadata import RasterOptions, describe_raster, has_mask, variable_name
from .pictures import orientation_tag

if TYPE_CHECKING:
    from .raster_image import RasterImage

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_CONFIDENCE = {
    **dict.fromkeys(_TIFF, 50),
    **dict.fromkeys((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51", b"NITF", b"EHFA_HEADER_TAG"), 50),
    **dict.fromkeys((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"), 40),
}

"""Magic number → confidence that this reader should open the file."""
_BMP_HEADERS = {struct.pack("<I", size) for size in (12, 40, 52, 56, 64, 108, 124)}
GEO_TAGS = {33550, 33922, 34264, 34735}  # ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory
MAX_SUBDATASETS = 1000
_SAME_SHAPE = 0.02  # difference of two proportions: a smaller page of the same is a reduced copy


class RasterReader:
    """The reader named "raster"."""

    name = "raster"
    kind = "map"
    cache_bytes, shared_cache = CACHE_BYTES, True
    limit_cache = staticmethod(limit_cache)
    Options = RasterOptions

    def identify(self, uri: str, head: bytes) -> int:
        """By magic number; higher for a TIFF with georeference tags, low for a remote name."""
        if not head:
            return 30 if is_remote(uri) else 0
        if head.lstrip().startswith(b"<VRTDataset"):
            return 60
        if head.startswith(_TIFF) and _first_tags(head) & GEO_TAGS:
            return 70
        if head[:4] + head[8:12] == b"RIFFWEBP" or (head[:2] == b"BM" and head[14:18] in _BMP_HEADERS):
            return 40
        return next((confidence for magic, confidence in _CONFIDENCE.items() if head.startswith(magic)), 0)

    def scan(self, uri: str, options: RasterOptions) -> Sequence[ImageInfo]:
        """One image, or one for each subdataset of a container, the one that is named, or each page of a TIFF.

        Raises `ReadError`.
        """
        uri = keep_query(uri) if is_remote(uri) else uri
        named, (uri, variable) = uri, split_variable(uri)
        with _opened(uri) as raster:
            parts = list(raster.subdatasets)
            known = [_variable(part) for part in parts] or ([found] if (found := variable_name(raster)) else [])
            if variable and variable not in known:
                listed = ", ".join(known) or f"none in a file that {raster.driver} reads"
                remedy = f"{did_you_mean(variable, known)}Name one of these after the file"
                raise ReadError(excerpt(named), "must name a variable of its file", value=listed, remedy=remedy)
            pages = _pages(raster, uri)
            if raster.count and len(pages) < 2:
                return [_scan_dataset(raster, uri, "", options)]
            every = len(parts)
            if pages:
                parts = pages
            if not parts:
                raise ReadError(uri, "must have at least one band", remedy="Give a file with pixels")
            parts = [part for part in parts if not variable or _variable(part) == variable]
        if len(parts) > MAX_SUBDATASETS:
            rule = f"must have at most {MAX_SUBDATASETS} subdatasets"
            raise ReadError(uri, rule, value=str(len(parts)), remedy="Split it with gdal_translate")
        infos: list[ImageInfo] = []
        for number, part in enumerate(parts, start=1):
            with _opened(uri, part) as raster:
                if raster.count:
                    info = _scan_dataset(raster, uri, part, options)
                    scene = (("scene", f"{number} of {len(parts)}"),) if pages else ()
                    notes = info.notes if number > 1 else (*info.notes, *_left_out(every, pages))
                    infos.append(replace(info, facts=(*info.facts, *scene), notes=notes))
        return infos

    def open(self, info: ImageInfo, channels: Sequence[str] | None = None) -> "RasterImage":
        """Open for reading the named channels. Raises `ReadError`."""
        from .raster_image import RasterImage

        return RasterImage(info, channels)


@contextmanager
def _opened(name: str, part: str = "", overview: int | None = None) -> Generator[Any]:
    with gdal_env(name), open_raster(name, part, overview=overview) as raster:
        yield raster


def _scan_dataset(raster: Any, uri: str, part: str, options: RasterOptions) -> ImageInfo:
    with gdal_errors(uri, *METADATA):
        info = describe_raster(raster, uri, options)
        if not is_remote(uri):
            _probe_levels(raster, uri, part)
    pages = len(raster.subdatasets) if raster.driver == "GTiff" and not part else 0
    others = [f"The file holds {pages} images; only the first is read."] if pages > 1 else []
    tag = orientation_tag(uri) if part in {"", PAGE.format(1)} else ""
    facts = ((TAG_FACT, tag),) if tag else ()
    info = replace(info, part=part, notes=(*info.notes, *others), facts=(*info.facts, *facts))
    if not (part and raster.driver == "netCDF"):
        return info
    variable = _variable(part)
    scene = (("scene_name", variable),)
    return replace(info, id=f"{Path(uri).stem}-{variable}", facts=(*info.facts, *scene))


def _pages(raster: Any, uri: str) -> list[str]:
    """The pages of a TIFF as parts; [] for a file without or with too many.

    Left out are smaller copies of the first, and pages of less than half its sides, which may show the label of a slide
    with a name on it.
    """
    if raster.driver != "GTiff" or not 1 < len(raster.subdatasets) <= MAX_SUBDATASETS:
        return []
    numbers = [int(part.split(":")[1]) for part in raster.subdatasets]
    pages = [PAGE.format(numbers[0])]
    for number in numbers[1:]:
        with _opened(uri, PAGE.format(number)) as page:
            across, down = raster.width / page.width, raster.height / page.height
            copy = across > 1 and abs(across / down - 1) < _SAME_SHAPE
            if not copy and min(across, down) < 2:
                pages.append(PAGE.format(number))
    return pages


def _left_out(every: int, pages: Sequence[str]) -> list[str]:
    """A note on pages of a TIFF that are not read."""
    few = every - len(pages) if pages else 0
    return (
        [f"{few} of the {every} pages of the file are left out: much smaller than the first, or copies."] if few else []
    )


def _variable(part: str) -> str:
    """The variable that a subdataset's name ends with."""
    return part.rpartition(":")[2]


def _probe_levels(raster: Any, uri: str, part: str) -> None:
    """Read one block of each level, so that a file that crashes GDAL does so in the scan; other damage may pass."""
    levels = (partial(_opened, uri, part, at) for at in range(len(raster.overviews(1))))
    for opened in (partial(nullcontext, raster), *levels):
        with suppress(ReadError), opened() as level, gdal_errors(uri, *PIXELS):
            high, wide = level.block_shapes[0]
            window = ((0, min(high, level.height)), (0, min(wide, level.width)))
            level.read(1, window=window)
            if has_mask(level.mask_flag_enums[0]):
                level.read_masks(1, window=window)


def _first_tags(head: bytes) -> set[int]:
    """The tags of a TIFF's first directory, as far as the first bytes hold it."""
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in {b"+\0", b"\0+"}
    try:
        (start,) = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), head, start)
        first, size = (start + 8, 20) if big else (start + 2, 12)
        held = min(count, (len(head) - first) // size)
        return {struct.unpack_from(order + "H", head, first + size * at)[0] for at in range(held)}
    except (struct.error, OverflowError):  # the latter: an offset that no file can have
        return set()
