"""Synthetic MIRAX and Leica slides with bounds: scans that cover a part of a larger glass.

Each is as small as OpenSlide accepts; no other specification of these formats is public.
"""

import base64
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

Rgb = npt.NDArray[np.uint8]
PLANTED = "DOE^JANE"

_MIRAX_TILE = 64
_MIRAX_ID = "0123456789ABCDEF0123456789ABCDEF"


def smooth(height: int, width: int) -> Rgb:
    """Ramps of x, y and their sum: pixels encode their position, and JPEG hardly changes them."""
    rows, columns = np.mgrid[:height, :width]
    ramps = [columns * 200 / width + 30, rows * 200 / height + 30, (columns / width + rows / height) * 90 + 60]
    return np.stack(ramps, axis=2).astype(np.uint8)


def jpeg(pixels: Rgb) -> bytes:
    """One JPEG of the best quality, without subsampled colours."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=100, subsampling=0)
    return buffer.getvalue()


def mirax(
    path: Path,
    pixels: Rgb,
    *,
    grid: tuple[int, int] = (8, 6),
    first: tuple[int, int] = (2, 2),
    overlap: int = 0,
    microns: float = 0.25,
    levels: int = 2,
    beside: int = 0,
) -> Path:
    """A MIRAX slide (.mrxs and the folder beside it) of `grid` camera images of 64 px, most of which were not taken.

    `pixels` is cut into whole images from image `first` = (column, row) on; neighbours share `overlap` px. Each further
    level halves the one before and joins 2 × 2 of its images into one. The images lie between `beside` bytes of
    padding, in place of a scanner's other records.
    """
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(np.full((8, 8, 3), 200, dtype=np.uint8)))
    step = _MIRAX_TILE - overlap
    taken = tuple((side - overlap) // step for side in pixels.shape[1::-1])
    data, pages = bytearray(b"data".ljust(64 + beside, b"\0")), list[bytes]()
    images = {
        (column, row): pixels[row * step : row * step + _MIRAX_TILE, column * step : column * step + _MIRAX_TILE]
        for row in range(taken[1])
        for column in range(taken[0])
    }
    images = {(first[0] + column, first[1] + row): image for (column, row), image in images.items()}
    for level in range(levels):
        entries = b""
        for (column, row), image in sorted(images.items(), key=lambda item: (item[0][1], item[0][0])):
            content = jpeg(image)
            entries += struct.pack("<4i", row * grid[0] + column, len(data), len(content), 0)
            data += content
        pages.append(struct.pack("<2i", len(images), 0) + entries)
        images = _joined(images, 2 << level)
    (folder / "Data0000.dat").write_bytes(data + bytes(beside))
    (folder / "Index.dat").write_bytes(_mirax_index(pages))
    (folder / "Slidedat.ini").write_text(_mirax_ini(grid, overlap, microns, levels), encoding="utf-8", newline="\r\n")
    return path


def mirax_images(path: Path, columns: int, level: int = 0) -> dict[tuple[int, int], tuple[int, int]]:
    """Where the JPEGs of a level lie: (column, row) → (offset, length) in Data0000.dat; `columns` are the grid's."""
    index = (path.with_suffix("") / "Index.dat").read_bytes()
    (pointers,) = struct.unpack_from("<i", index, 5 + len(_MIRAX_ID))
    (listed,) = struct.unpack_from("<i", index, pointers + 4 * level)
    (page,) = struct.unpack_from("<i", index, listed + 4)
    (count,) = struct.unpack_from("<i", index, page)
    entries = [struct.unpack_from("<4i", index, page + 8 + 16 * at) for at in range(count)]
    return {(number % columns, number // columns): (offset, length) for number, offset, length, _ in entries}


def _joined(images: dict[tuple[int, int], Rgb], side: int) -> dict[tuple[int, int], Rgb]:
    """Four images halved and joined into one; where there is none it has the colour of the glass."""
    found: dict[tuple[int, int], Rgb] = {}
    half = _MIRAX_TILE // 2
    for (column, row), image in images.items():
        place = column // side * side, row // side * side
        whole = found.setdefault(place, np.full((_MIRAX_TILE, _MIRAX_TILE, 3), 255, dtype=np.uint8))
        x, y = (half * ((here - at) * 2 // side) for here, at in zip((column, row), place, strict=True))
        small = image.reshape(half, 2, half, 2, 3).mean(axis=(1, 3))
        whole[y : y + half, x : x + half] = np.floor(small + 0.5)
    return found


def _mirax_index(pages: list[bytes]) -> bytes:
    """Index.dat: version, id, two roots; a pointer to each level's list, and that to its first page of images."""
    head = b"01.02" + _MIRAX_ID.encode()
    roots = len(head)
    pointers = roots + 8
    lists = pointers + 4 * len(pages)
    start = lists + 8 * len(pages)
    body, at = b"", start
    listed = b""
    for page in pages:
        listed += struct.pack("<2i", 0, at)
        body += page
        at += len(page)
    table = b"".join(struct.pack("<i", lists + 8 * level) for level in range(len(pages)))
    return head + struct.pack("<2i", pointers, 0) + table + listed + body


def _mirax_ini(grid: tuple[int, int], overlap: int, microns: float, levels: int) -> str:
    sections: list[tuple[str, dict[str, Any]]] = [
        (
            "GENERAL",
            {
                "SLIDE_VERSION": "01.02",
                "SLIDE_ID": _MIRAX_ID,
                "SLIDE_NAME": PLANTED,
                "SLIDE_CREATIONDATETIME": "29/12/2009 10:00:00",
                "IMAGENUMBER_X": grid[0],
                "IMAGENUMBER_Y": grid[1],
                "OBJECTIVE_MAGNIFICATION": 40,
                "CameraImageDivisionsPerSide": 1,
            },
        ),
        (
            "HIERARCHICAL",
            {
                "HIER_COUNT": 1,
                "NONHIER_COUNT": 0,
                "INDEXFILE": "Index.dat",
                "HIER_0_NAME": "Slide zoom level",
                "HIER_0_COUNT": levels,
                **{f"HIER_0_VAL_{n}": f"ZoomLevel_{n}" for n in range(levels)},
                **{f"HIER_0_VAL_{n}_SECTION": f"LAYER_0_LEVEL_{n}_SECTION" for n in range(levels)},
            },
        ),
        ("DATAFILE", {"FILE_COUNT": 1, "FILE_0": "Data0000.dat"}),
    ]
    sections += [
        (
            f"LAYER_0_LEVEL_{n}_SECTION",
            {
                "OVERLAP_X": overlap / 2**n,
                "OVERLAP_Y": overlap / 2**n,
                "MICROMETER_PER_PIXEL_X": microns * 2**n,
                "MICROMETER_PER_PIXEL_Y": microns * 2**n,
                "IMAGE_FORMAT": "JPEG",
                "IMAGE_FILL_COLOR_BGR": 0xFFFFFF,
                "DIGITIZER_WIDTH": _MIRAX_TILE,
                "DIGITIZER_HEIGHT": _MIRAX_TILE,
                "IMAGE_CONCAT_FACTOR": min(n, 1),
            },
        )
        for n in range(levels)
    ]
    return "".join(f"[{name}]\n" + "".join(f"{k} = {v}\n" for k, v in keys.items()) for name, keys in sections)


_LEICA = """<?xml version="1.0"?>
<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">
<collection name="{planted}" sizeX="{across}" sizeY="{down}">
<barcode>{barcode}</barcode>
<image name="macro"><creationDate>2009-12-29T10:00:00Z</creationDate><device model="made" version="1"/>
<pixels sizeX="{macro_x}" sizeY="{macro_y}"><dimension sizeX="{macro_x}" sizeY="{macro_y}" ifd="0"/></pixels>
<view sizeX="{across}" sizeY="{down}" offsetX="0" offsetY="0"/><scanSettings><objectiveSettings><objective>1</objective>
</objectiveSettings><illuminationSettings><illuminationSource>brightfield</illuminationSource></illuminationSettings>
</scanSettings></image>
<image name="{planted}"><creationDate>2009-12-29T10:00:00Z</creationDate><device model="made" version="1"/>
<pixels sizeX="{x}" sizeY="{y}"><dimension sizeX="{x}" sizeY="{y}" ifd="1"/><dimension sizeX="{half_x}" sizeY="{half_y}"
ifd="2"/></pixels><view sizeX="{view_x}" sizeY="{view_y}" offsetX="{offset_x}" offsetY="{offset_y}"/>
<scanSettings><objectiveSettings><objective>40</objective></objectiveSettings><illuminationSettings>
<numericalAperture>0.65</numericalAperture><illuminationSource>brightfield</illuminationSource></illuminationSettings>
</scanSettings></image></collection></scn>"""


def leica(
    path: Path,
    pixels: Rgb,
    *,
    glass: tuple[int, int] = (600, 500),
    first: tuple[int, int] = (140, 90),
    nanometres: int = 250,
) -> Path:
    """A Leica slide (.scn) whose one scan lies at pixel `first` = (x, y) of a `glass` of so many level-0 pixels.

    A BigTIFF: an image of the whole glass, the scan, and the scan at half size, placed by XML.
    """
    height, width = (side // 2 * 2 for side in pixels.shape[:2])
    pixels = pixels[:height, :width]
    half = np.floor(pixels.reshape(height // 2, 2, width // 2, 2, 3).mean(axis=(1, 3)) + 0.5).astype(np.uint8)
    macro = np.full((64, 96, 3), 77, dtype=np.uint8)
    xml = _LEICA.format(
        planted=PLANTED,
        barcode=base64.b64encode(PLANTED.encode()).decode(),
        across=glass[0] * nanometres,
        down=glass[1] * nanometres,
        macro_x=macro.shape[1],
        macro_y=macro.shape[0],
        x=width,
        y=height,
        half_x=width // 2,
        half_y=height // 2,
        view_x=width * nanometres,
        view_y=height * nanometres,
        offset_x=first[0] * nanometres,
        offset_y=first[1] * nanometres,
    )
    common = {"tile": (64, 64), "photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": 98}}
    per_cm = 1e7 / nanometres
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(macro, description=xml, metadata=None, **common)
        for level, image in enumerate((pixels, half)):
            resolution = {"resolution": (per_cm / 2**level,) * 2, "resolutionunit": "CENTIMETER"}
            file.write(image, metadata=None, **common, **resolution)
    return path
