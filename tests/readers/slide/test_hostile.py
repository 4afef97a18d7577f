"""Damaged and malicious slides raise one `ReadError` each, within about a second and bounded memory."""

import json
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import numpy as np
import pytest
import tifffile
from limner.readers.contract import scan_with
from limner.readers.errors import ReadError
from limner.readers.slide.openslide import SlideReader
from limner.readers.slide.pyramid import PyramidReader
from limner.readers.slide.tiff import MAX_XML_BYTES, OmeMetadata, xml_bomb
from limner.readers.slide.tiff_directories import MAX_PAGES, Directories
from limner.readers.slide.tiff_tiles import codestream_size

READER = PyramidReader()


def pattern(side: int = 256) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    return np.stack([columns % 251, rows % 251, (rows + columns) % 251], axis=2).astype(np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sound pyramid of three levels in three directories."""
    made = tmp_path / "slide.tif"
    with tifffile.TiffWriter(made) as file:
        for step in (1, 2, 4):
            size = {"resolution": (20000 / step, 20000 / step), "resolutionunit": "CENTIMETER"}
            pixels = pattern()[::step, ::step].copy()
            file.write(pixels, tile=(64, 64), photometric="rgb", metadata=None, compression="deflate", **size)
    return made


def change(
    path: Path, page: int, tag: int, *, value: int | None = None, count: int | None = None, kind: int = 0
) -> None:
    """Write another value, count or type into a tag's entry."""
    with tifffile.TiffFile(path) as file:
        at = file.pages[page].aspage().tags[tag].offset
    content = bytearray(path.read_bytes())
    if kind:
        struct.pack_into("<H", content, at + 2, kind)
    if count is not None:
        struct.pack_into("<I", content, at + 4, count)
    if value is not None:
        struct.pack_into("<I", content, at + 8, value)
    path.write_bytes(content)


def refused(path: Path, why: str) -> None:
    with pytest.raises(ReadError, match=why):
        scan_with(READER, str(path), {})


@pytest.mark.parametrize(
    ("page", "tag", "how", "why"),
    [
        (0, 256, {"value": 0}, "level 0 of 0 × 256 px|tile"),
        (1, 256, {"value": 0}, ""),
        (0, 322, {"value": 0}, "0 × 64 px|"),
        (0, 323, {"value": 1 << 31, "kind": 4}, "in tiles or strips of 64 × 2147483648 px|"),
        (0, 322, {"count": 0}, "tag 322 holds 0 values of type"),
        (0, 256, {"count": 2}, "tag 256 holds 2 values of type"),
        (0, 257, {"kind": 2}, "tag 257 holds 1 values of type 2"),
        (0, 284, {"value": 0}, "planar configuration 0 instead of 1 or 2"),
        (0, 324, {"count": 1}, "offsets of 1 of 16"),
        (0, 324, {"count": 0x7FFFFFFF}, "too many values|lies at byte"),
        (0, 324, {"value": 0xFFFFFF00}, "the file is truncated"),
    ],
)
def test_inconsistent_directory_is_refused(path: Path, page: int, tag: int, how: Mapping[str, int], why: str) -> None:
    assert scan_with(READER, str(path), {})[0].size == (256, 256)
    change(path, page, tag, **how)
    if why:
        refused(path, why)
    else:  # the damaged page is no level any more, and the others are read
        (info,) = scan_with(READER, str(path), {})
        with READER.open(info) as image:
            assert np.array_equal(image.read(info.box, info.size)[0], pattern())


def test_openslide_is_not_given_impossible_byte_counts(path: Path) -> None:
    """It would reserve the byte count that a tile states, and abort the process where that fails."""
    assert scan_with(SlideReader(), str(path), {})[0].size == (256, 256)
    with tifffile.TiffFile(path) as file:
        at = file.pages[0].aspage().tags[325].valueoffset
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, at + 4, 0xFFFFFF5F)
    path.write_bytes(content)
    with pytest.raises(ReadError, match="a tile has 4294967135 bytes, and the file ends at"):
        scan_with(SlideReader(), str(path), {})
    refused(path, "a tile has 4294967135 bytes")


def test_level_larger_than_the_image_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(pattern(), tile=(64, 64), photometric="rgb", metadata=None, subifds=1)
        file.write(pattern(512), tile=(64, 64), photometric="rgb", metadata=None, subfiletype=1)
    (info,) = scan_with(READER, str(path), {})
    with READER.open(info) as image:
        assert np.array_equal(image.read(info.box, info.size)[0], pattern())


def test_level_of_another_pixel_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(pattern()[..., 0], tile=(64, 64), subifds=1, metadata={"axes": "YX"})
        file.write(pattern(128)[..., 0].astype(np.uint16), tile=(64, 64), subfiletype=1)
    refused(path, "with another pixel format")


def chain(path: Path, many: int) -> Path:
    """A TIFF of `many` small directories."""
    size, entries = 2 + 12 * 3 + 4, b""
    for tag, value in ((256, 1), (257, 1), (262, 1)):
        entries += struct.pack("<HHII", tag, 4, 1, value)
    parts = [
        struct.pack("<H", 3) + entries + struct.pack("<I", 8 + (at + 1) * size if at + 1 < many else 0)
        for at in range(many)
    ]
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + b"".join(parts))
    return path


@pytest.mark.slow
def test_number_of_directories_is_limited(tmp_path: Path) -> None:
    most = Directories.read(str(chain(tmp_path / "a.tif", MAX_PAGES)))
    assert most is not None
    assert (len(most.pages), most.fault) == (MAX_PAGES, "")
    more = chain(tmp_path / "b.tif", MAX_PAGES + 1)
    refused(more, f"more than {MAX_PAGES} directories")


def test_arrays_shared_by_directories_are_limited(tmp_path: Path) -> None:
    """Each is small enough; together they would be read as 3,000 million numbers."""
    entry = struct.pack("<HHII", 324, 4, 1 << 20, 8)
    count = 3000
    start = 8 + (4 << 20)
    body = b"".join(
        struct.pack("<H", 1) + entry + struct.pack("<I", start + (at + 1) * 18 if at + 1 < count else 0)
        for at in range(count)
    )
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", start) + bytes(4 << 20) + body)
    refused(path, "too many values")


OME = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{}</OME>'
PIXELS = (
    '<Image ID="Image:0"><Pixels DimensionOrder="XYZCT" Type="uint8" SizeX="64" SizeY="64" SizeZ="{z}" SizeC="1"'
    ' SizeT="1"{more}>{data}</Pixels></Image>'
)
BOMBS = {
    "declaration": '<!DOCTYPE x [<!ENTITY a "b">]>' + OME.format(""),
    "deep": OME.format("<a>" * 5000 + "</a>" * 5000),
    "planes": OME.format(PIXELS.format(z=2_000_000_000, more="", data="<TiffData/>")),
    "digits": OME.format(PIXELS.format(z="9" * 5000, more="", data="<TiffData/>")),
    "count": OME.format(PIXELS.format(z=1, more="", data='<TiffData IFD="0" PlaneCount="2000000000"/>')),
    "place": OME.format(PIXELS.format(z=1, more="", data='<TiffData FirstZ="2000000000" PlaneCount="1"/>')),
    "modulo": OME.format(
        '<StructuredAnnotations><XMLAnnotation ID="a" Namespace="openmicroscopy.org/omero/dimension/modulo"><Value>'
        '<Modulo><ModuloAlongZ Start="0" End="4000000000"/></Modulo></Value></XMLAnnotation></StructuredAnnotations>'
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_xml_bombs_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "slide.ome.tif"
    tifffile.imwrite(path, pattern()[..., 0], tile=(64, 64), description=BOMBS[name], metadata=None)
    refused(path, "XML")
    assert OmeMetadata.parse(BOMBS[name]) == ()


def test_long_xml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.tif"
    text = OME.format(" " * MAX_XML_BYTES)
    tifffile.imwrite(path, pattern()[..., 0], tile=(64, 64), description=text, metadata=None)
    refused(path, f"at most {MAX_XML_BYTES}")
    assert xml_bomb(text)


@pytest.mark.parametrize("size", ["0", "nan", "inf", "-1", "1e999", "x"])
def test_invalid_physical_size_is_ignored(tmp_path: Path, size: str) -> None:
    path = tmp_path / "slide.ome.tif"
    more = f' PhysicalSizeX="{size}" PhysicalSizeY="{size}"'
    text = OME.format(PIXELS.format(z=1, more=more, data='<TiffData IFD="0"/>')).replace("64", "256")
    tifffile.imwrite(path, pattern()[..., 0], tile=(64, 64), description=text.encode(), metadata=None)
    (info,) = scan_with(READER, str(path), {})
    assert not info.placement.has_unit


def test_description_that_is_no_utf8_is_ignored(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "b.tif"
    tifffile.imwrite(
        other, pattern(), tile=(64, 64), photometric="rgb", description=b"\xff\xfe\x80label", metadata=None
    )
    assert scan_with(READER, str(other), {})[0].size == (256, 256)
    assert scan_with(READER, str(path), {})[0].size == (256, 256)


def replace_tile(path: Path, content: bytes) -> Path:
    """Append bytes to a TIFF of one tile, and let its directory refer to them as that tile."""
    with tifffile.TiffFile(path) as file:
        tags = file.pages[0].aspage().tags
        places = [(tags[324].offset, path.stat().st_size), (tags[325].offset, len(content))]
    whole = bytearray(path.read_bytes()) + content
    for at, value in places:
        struct.pack_into("<HII", whole, at + 2, 4, 1, value)
    path.write_bytes(whole)
    return path


def huge_jpeg() -> bytes:
    """The header of a JPEG of 65,500 × 65,500 px."""
    return b"\xff\xd8\xff\xc0\0\x11\x08\xff\xdc\xff\xdc\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\xff\xd9"


def huge_j2k() -> bytes:
    return b"\xff\x4f\xff\x51\0\x2f\0\0" + struct.pack(">8I", 1 << 20, 1 << 20, 0, 0, 64, 64, 0, 0) + bytes(40)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compression", "content"),
    [
        ("deflate", lambda: zlib.compress(bytes(1 << 30), 1)),
        ("jpeg", huge_jpeg),
        ("jpeg2000", huge_j2k),
        ("webp", lambda: b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\x3f\0\xff\x3f\0" + bytes(20)),
        ("png", lambda: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 1 << 30, 1 << 30) + bytes(30)),
        ("jpegxl", lambda: b"\xff\x0a" + (0b11 << 1 | (1 << 29) << 3).to_bytes(8, "little") + bytes(20)),
    ],
)
def test_decompression_bomb_is_one_unreadable_tile(
    tmp_path: Path, compression: str, content: Callable[[], bytes]
) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, pattern(64), tile=(64, 64), photometric="rgb", metadata=None, compression=compression)
    (info,) = scan_with(READER, str(path), {})
    with READER.open(info) as image:
        image.read(info.box, info.size)
    replace_tile(path, content())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (info,) = scan_with(READER, str(path), {})
    with READER.open(info) as image, pytest.raises(ReadError, match="tile 0, 0"):
        image.read(info.box, info.size)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 << 10


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "webp", "png", "jpegxl"])
@pytest.mark.parametrize("size", [(64, 64), (300, 200), (1000, 17)])
def test_codestream_size(compression: str, size: tuple[int, int]) -> None:
    codecs = pytest.importorskip("imagecodecs")
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    numbers = {"jpeg": 7, "jpeg2000": 34712, "webp": 50001, "png": 34933, "jpegxl": 50002}
    data = getattr(codecs, f"{compression.replace('2000', '2k')}_encode")(pixels)
    assert codestream_size(bytes(data), numbers[compression]) == size


class FakeSlide:
    """The part of openslide-python's interface that is used."""

    def __init__(self, properties: Mapping[str, str] | None = None, **how: object) -> None:
        self.properties = {f"openslide.{key}": value for key, value in (properties or {}).items()}
        self.dimensions = (1000, 800)
        self.level_dimensions = ((1000, 800), (500, 400))
        self.level_downsamples = (1.0, 2.0)
        self.closed = False
        self.__dict__ |= how
        self.level_count = len(self.level_dimensions)

    def read_region(self, *_: object) -> object:
        """Fail as a library that is out of memory."""
        msg = "out of memory"
        raise MemoryError(msg)

    def close(self) -> None:
        """As in openslide-python, only once."""
        assert not self.closed
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Let OpenSlide open anything as `FakeSlide`."""
    path = tmp_path / "a.svs"
    path.write_bytes(b"x")

    def make(*properties: Mapping[str, str], **how: object) -> str:
        library = SimpleNamespace(OpenSlide=lambda _: FakeSlide(*properties, **how))
        monkeypatch.setitem(sys.modules, "openslide", library)
        return str(path)

    return make


@pytest.mark.parametrize(
    "how",
    [
        {"dimensions": (0, 800)},
        {"dimensions": (1 << 40, 800)},
        {"level_dimensions": (), "level_downsamples": ()},
        {"level_dimensions": ((1000, 800), (0, 0))},
        {"level_dimensions": ((1000, 800), (2000, 1600))},
        {"level_downsamples": (1.0, float("nan"))},
        {"level_downsamples": (1.0, float("inf"))},
        {"level_downsamples": (1.0, -1.0)},
        {"level_dimensions": ((1000, 800),) * 100, "level_downsamples": (1.0,) * 100},
    ],
)
def test_impossible_sizes_are_refused(fake: Callable[..., str], how: Mapping[str, object]) -> None:
    with pytest.raises(ReadError, match="must have up to 64 levels"):
        scan_with(SlideReader(), fake(**how), {})


@pytest.mark.parametrize(
    "bounds",
    [
        {"bounds-x": "x"},
        {"bounds-x": "9" * 400},
        {"bounds-x": "-1"},
        {"bounds-y": "800"},
        {"bounds-x": "nan", "bounds-width": "5"},
        {"bounds-width": "-5"},
        {"bounds-width": "1.5"},
    ],
)
def test_bounds_outside_the_slide_are_refused(fake: Callable[..., str], bounds: Mapping[str, str]) -> None:
    with pytest.raises(ReadError, match="scanned area within the slide"):
        scan_with(SlideReader(), fake(bounds), {})


@pytest.mark.parametrize("text", ["x", "nan", "inf", "0", "-0.25", "9" * 400, ""])
def test_properties_that_are_no_numbers_are_ignored(fake: Callable[..., str], text: str) -> None:
    names = ("mpp-x", "mpp-y", "level[0].tile-width", "level[0].tile-height")
    (info,) = scan_with(SlideReader(), fake(dict.fromkeys(names, text)), {})
    assert not info.placement.has_unit
    with SlideReader().open(info) as image, pytest.raises(ReadError, match="must be readable"):
        image.read(info.box, (10, 8))


def test_bounds_are_cut_to_the_slide(fake: Callable[..., str]) -> None:
    bounds = {"bounds-x": "10", "bounds-y": "20", "bounds-width": "5000", "bounds-height": "5000"}
    path = fake(bounds)
    (info,) = scan_with(SlideReader(), path, {})
    assert info.origin == (10, 20)
    SlideReader().open(info).close()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_files_found_by_fuzzing(shared_data: Path) -> None:
    """In a process of its own, whose peak memory is measured."""
    code = """
import json, re, sys, time
from limner.readers.errors import ReadError
from limner.readers.slide.pyramid import PyramidReader
results = {}
for name in sys.argv[1:]:
    start = time.monotonic()
    try:
        (info,) = PyramidReader().scan(name, PyramidReader.Options())
        with PyramidReader().open(info) as image:
            image.read(info.box, (64, 64))
        result = "read"
    except ReadError as error:
        result = str(error)
    results[name[-22:]] = [result, time.monotonic() - start]
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())
print(json.dumps([results, int(peak[1]) >> 10]))
"""
    folder = shared_data.parent / "cases" / "hostile"
    files = [folder / f"{name}.tif" for name in ("foreign_pyr125", "foreign_pyr30", "foreign_tif251", "hang_pyr27")]
    done = subprocess.run([sys.executable, "-c", code, *files], check=True, capture_output=True, text=True)
    results, megabytes = json.loads(done.stdout)
    assert all(result != "read" and seconds < 5 for result, seconds in results.values()), results
    assert megabytes < 500
