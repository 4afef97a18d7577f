"""Files that mean harm, made small: rasters that cost too much, and virtual rasters that reach beyond their folder."""

import struct
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from rasterio.transform import from_origin

PLACE = "<SRS>EPSG:32618</SRS><GeoTransform>300000, 30, 0, 5000000, 0, -30</GeoTransform>"
SIDE = 64


def good(path: Path) -> Path:
    """A map of 64 × 64 px of one byte, which nothing is wrong with."""
    pixels = np.add.outer(np.arange(SIDE), np.arange(SIDE)).astype(np.uint8) + 60
    shape = {"width": SIDE, "height": SIDE, "count": 1, "dtype": "uint8"}
    with rasterio.open(
        path, "w", driver="GTiff", crs="EPSG:32618", transform=from_origin(3e5, 5e6, 30, 30), **shape
    ) as raster:
        raster.write(pixels, 1)
    return path


def tiff(entries: Sequence[tuple[int, int, int, int]], *, following: int = 0, data: bytes = b"") -> bytes:
    """A classic TIFF of one directory at byte 8: (tag, type, count, value) each; `data` comes behind it."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + body + struct.pack("<I", following) + data


def _tags(
    width: int, height: int, tile: tuple[int, int], bits: int, kind: int, place: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    return [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, bits),
        (259, 3, 1, 1 if kind == 1 else 8),
        (262, 3, 1, 1),
        (277, 3, 1, 1),
        (322, 4, 1, tile[0]),
        (323, 4, 1, tile[1]),
        (324, 4, 1, place[0]),
        (325, 4, 1, place[1]),
        (339, 3, 1, kind),
    ]


def looping(path: Path) -> Path:
    """Each of its directories is followed by the other."""
    data = bytes(range(256)) * 16
    first = _tags(SIDE, SIDE, (SIDE, SIDE), 8, 1, (0, 0))
    length = 8 + 2 + 12 * len(first) + 4
    place = (2 * length - 8, len(data))
    second = tiff(_tags(SIDE, SIDE, (SIDE, SIDE), 8, 1, place), following=8)[8:]
    path.write_bytes(tiff(_tags(SIDE, SIDE, (SIDE, SIDE), 8, 1, place), following=length, data=second + data))
    return path


def huge_tile(path: Path) -> Path:
    """One tile of 32752 × 65520 floats, 8.6 GB, in a file of a few bytes."""
    data = b"x\x9cc`\x18\x05\xa3`\x14\x0c\x1d\x00\x00\x04\x00\x00\x01"
    count = len(_tags(1, 1, (16, 16), 32, 3, (0, 0)))
    start = 8 + 2 + 12 * count + 4
    path.write_bytes(tiff(_tags(32752, 65520, (32752, 65520), 32, 3, (start, len(data))), data=data))
    return path


def many_bands(path: Path) -> Path:
    """32,768 bands of one pixel of which nothing was written."""
    shape = {"width": 1, "height": 1, "count": 32768, "dtype": "uint8", "sparse_ok": True, "INTERLEAVE": "PIXEL"}
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32618", transform=from_origin(3e5, 5e6, 30, 30), **shape):
        pass
    return path


def null_kernel(path: Path) -> Path:
    """A filter whose size is no number kills GDAL 3.10.3."""
    kernel = "<Kernel><Size>null</Size><Coefs>1 1 1 1 1 1 1 1 1</Coefs></Kernel>"
    return _write(
        path,
        '<VRTRasterBand dataType="Byte" band="1">'
        f"<KernelFilteredSource>{_named('good.tif')}{kernel}</KernelFilteredSource></VRTRasterBand>",
    )


def infinite(path: Path) -> Path:
    """A geotransform of infinite numbers."""
    text = _write(path, _simple("good.tif", "SimpleSource")).read_text().replace("-30<", "1e999<")
    path.write_text(text)
    return path


def _write(path: Path, bands: str, *, kind: str = "", more: str = "") -> Path:
    size = f'rasterXSize="{SIDE}" rasterYSize="{SIDE}"'
    path.write_text(f"<VRTDataset {size}{kind}>{PLACE}{bands}{more}</VRTDataset>", encoding="utf-8")
    return path


def _named(source: str, tag: str = "SourceFilename") -> str:
    """The element that names a source: beside the file where it says nothing else."""
    beside = int(not source.startswith(("/", "<")) and ":" not in source)
    return f'<{tag} relativeToVRT="{beside}">{escape(source)}</{tag}>'


def _simple(source: str, tag: str) -> str:
    named = f"<{tag}>{_named(source)}<SourceBand>1</SourceBand></{tag}>"
    return f'<VRTRasterBand dataType="Byte" band="1">{named}</VRTRasterBand>'


def simple(path: Path, source: str) -> Path:
    return _write(path, _simple(source, "SimpleSource"))


def complicated(path: Path, source: str) -> Path:
    return _write(path, _simple(source, "ComplexSource"))


def raw(path: Path, source: str) -> Path:
    """The bytes of a file as pixels."""
    offsets = f"<ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset><LineOffset>{SIDE}</LineOffset>"
    band = (
        f'<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">{_named(source)}{offsets}</VRTRasterBand>'
    )
    return _write(path, band)


def warped(path: Path, source: str) -> Path:
    transform = "300000,30,0,5000000,0,-30"
    inverse = "-10000,0.0333333333,0,166666.666,0,-0.0333333333"
    sides = "".join(
        f"<{side}GeoTransform>{transform}</{side}GeoTransform><{side}InvGeoTransform>{inverse}</{side}InvGeoTransform>"
        for side in ("Src", "Dst")
    )
    options = (
        "<BlockXSize>64</BlockXSize><BlockYSize>64</BlockYSize><GDALWarpOptions><WarpMemoryLimit>1e6</WarpMemoryLimit>"
        "<ResampleAlg>NearestNeighbour</ResampleAlg><WorkingDataType>Byte</WorkingDataType>"
        f"{_named(source, 'SourceDataset')}<Transformer><GenImgProjTransformer>{sides}"
        "</GenImgProjTransformer></Transformer>"
        '<BandList><BandMapping src="1" dst="1"/></BandList></GDALWarpOptions>'
    )
    band = '<VRTRasterBand dataType="Byte" band="1" subClass="VRTWarpedRasterBand"/>'
    return _write(path, band, kind=' subClass="VRTWarpedDataset"', more=options)


def nested(path: Path, source: str) -> Path:
    """A virtual raster of a virtual raster, in a folder below, that names the source."""
    below = path.with_suffix("")
    below.mkdir()
    simple(below / "inner.vrt", source)
    return simple(path, f"{below.name}/inner.vrt")


WRAPPERS = {make.__name__: make for make in (simple, complicated, raw, warped, nested)}
HARMFUL = {make.__name__: make for make in (looping, huge_tile, many_bands, null_kernel, infinite)}
