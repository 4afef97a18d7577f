"""Tiles decoded without OpenSlide: the same pixels as OpenSlide's, and its verdict on damaged and unusual files."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import openslide
import pytest
import tifffile
from limner.readers.contract import scan_with
from limner.readers.errors import ReadError
from limner.readers.geometry import Box
from limner.readers.slide import direct_tiles
from limner.readers.slide.openslide import SlideReader
from limner.readers.slide.pyramid import PyramidReader
from limner.readers.slide.tiff_tiles import read_tile, ycbcr_to_rgb
from PIL import Image

Rgb = npt.NDArray[np.uint8]
APERIO = "Aperio Image Library v11.2.1 \n200x150 (64x64) Q=90|AppMag = 40|MPP = 0.25"


def picture(height: int = 150, width: int = 200) -> Rgb:
    """Ramps with stripes: all tiles differ, and so do red, green and blue."""
    rows, columns = np.mgrid[:height, :width]
    ramps = [columns * 200 / width + 20, rows * 200 / height + 20, (columns // 5 + rows // 7) % 2 * 90 + 60]
    return np.stack(ramps, axis=2).astype(np.uint8)


def cut(pixels: Rgb) -> Iterator[Rgb]:
    """Tiles of 64 px, row by row, filled up at the edges."""
    rows, columns = (-(-side // 64) * 64 for side in pixels.shape[:2])
    whole = np.pad(pixels, ((0, rows - len(pixels)), (0, columns - pixels.shape[1]), (0, 0)), mode="edge")
    return (whole[y : y + 64, x : x + 64] for y in range(0, rows, 64) for x in range(0, columns, 64))


def jpeg(pixels: Rgb, **how: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **{"quality": 80} | how)
    return buffer.getvalue()


def jpeg_2000(pixels: Rgb) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(np.ascontiguousarray(pixels), level=45, codecformat="J2K", mct=False))


def luminance(pixels: Rgb) -> Rgb:
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("YCbCr"))


def write(path: Path, *levels: Rgb, description: str | None = None, **how: Any) -> Path:
    """A tiled TIFF of these levels; `encode` makes the bytes of a tile, else tifffile does."""
    encode: Callable[[Rgb], bytes] | None = how.pop("encode", None)
    how = {"photometric": "rgb", "tile": (64, 64), "metadata": None, "description": description} | how
    with tifffile.TiffWriter(path) as file:
        for number, pixels in enumerate(levels):
            data = pixels if encode is None else iter([encode(tile) for tile in cut(pixels)])
            file.write(data, shape=pixels.shape, dtype=np.uint8, subfiletype=int(number > 0), **how)
    return path


def whole_level(path: Path, number: int = 0) -> Rgb:
    """A level by openslide-python itself."""
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), number, slide.level_dimensions[number]))[..., :3]


@contextmanager
def counted_regions(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What OpenSlide is asked to read meanwhile."""
    asked: list[object] = []
    read = openslide.OpenSlide.read_region

    def read_region(self: openslide.OpenSlide, *what: Any) -> object:
        asked.append(what)
        return read(self, *what)

    with monkeypatch.context() as patch:
        patch.setattr(openslide.OpenSlide, "read_region", read_region)
        yield asked


@pytest.mark.parametrize(
    ("tolerance", "how"),
    [
        (0, {"compression": "jpeg", "description": APERIO}),
        (0, {"compression": "jpeg", "photometric": "ycbcr", "encode": jpeg}),
        (0, {"compression": 33005, "description": APERIO, "encode": jpeg_2000}),
        (1, {"compression": 33003, "description": APERIO, "encode": lambda tile: jpeg_2000(luminance(tile))}),
        (0, {"compression": "deflate", "predictor": True}),
        (0, {}),
    ],
    ids=["jpeg of rgb", "jpeg of ycbcr", "jpeg 2000 of rgb", "jpeg 2000 of ycbcr", "deflate", "uncompressed"],
)
def test_tiles_are_decoded_to_the_pixels_of_openslide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tolerance: int, how: dict[str, Any]
) -> None:
    path = write(tmp_path / "a.svs", picture(), **how)
    [info] = scan_with(SlideReader(), str(path), {})
    with SlideReader().open(info) as image, counted_regions(monkeypatch) as asked:
        seen, valid = image.read(info.box, info.size)
    assert not asked
    assert valid.all()
    assert np.abs(seen.astype(int) - whole_level(path)).max() <= tolerance
    assert np.abs(seen.astype(int) - picture()).mean() < 12


def test_coarse_levels_are_not_interpolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSlide shifts tiles of a level whose factor is not whole by a part of a pixel."""
    coarse = picture(49, 66)
    path = write(tmp_path / "a.tif", picture(149, 200), coarse)
    [info] = scan_with(SlideReader(), str(path), {})
    with SlideReader().open(info) as image, counted_regions(monkeypatch) as asked:
        tiles = [image._fetch(1, column, 0)[0] for column in (0, 1)]  # noqa: SLF001 - reads are resampled
    assert not asked
    assert np.array_equal(np.concatenate(tiles, axis=1), coarse)


def without_a_tile(path: Path) -> None:
    tiles = [*list(cut(picture()))[1:], None]
    how: dict[str, Any] = {"photometric": "rgb", "tile": (64, 64), "metadata": None, "compression": "deflate"}
    tifffile.imwrite(path, iter(tiles), shape=(150, 200, 3), dtype="uint8", **how)


UNUSUAL: dict[str, Callable[[Path], object]] = {
    "a missing tile": without_a_tile,
    "two pages of a size": lambda path: write(path, picture(), picture(), description=APERIO, compression="jpeg"),
    "huge tiles": lambda path: write(path, picture(), tile=(1040, 1040), compression="deflate"),
    "planes": lambda path: write(path, np.moveaxis(picture(), 2, 0), planarconfig="separate", compression="deflate"),
    "grey": lambda path: write(path, picture()[..., 0], photometric="minisblack", compression="jpeg"),
    "packbits": lambda path: write(path, picture(), compression="packbits"),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_other_layouts_are_left_to_openslide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = tmp_path / "a.tif"
    UNUSUAL[kind](path)
    truth = whole_level(path)
    [info] = scan_with(SlideReader(), str(path), {})
    with SlideReader().open(info) as image, counted_regions(monkeypatch) as asked:
        seen, valid = image.read(info.box, info.size)
    assert asked
    assert np.array_equal(seen[valid], truth[valid])


@pytest.mark.parametrize("level", [0, 1])
def test_slides_whose_pixels_differ_are_left_to_openslide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    path = write(tmp_path / "a.tif", picture(), picture(75, 100))
    decode = direct_tiles.read_tile

    def wrong(tiff: Any, page: Any, *where: Any) -> Any:
        pixels = decode(tiff, page, *where)
        assert pixels is not None
        return pixels[..., ::-1] if page.index == level else pixels

    monkeypatch.setattr(direct_tiles, "read_tile", wrong)
    [info] = scan_with(SlideReader(), str(path), {})
    with SlideReader().open(info) as image, counted_regions(monkeypatch) as asked:
        seen, _ = image.read(info.box, info.size)
    assert asked
    assert np.array_equal(seen, picture())


def replace(path: Path, spoil: Callable[[bytes], bytes]) -> tuple[int, int, int, int]:
    """Change the bytes of the tile in column 1, row 1; return its box."""
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[0]
        side, index = page.tilewidth, -(-page.imagewidth // page.tilewidth) + 1
        offset, count = page.dataoffsets[index], page.databytecounts[index]
    content = bytearray(path.read_bytes())
    spoilt = spoil(bytes(content[offset : offset + count]))
    assert len(spoilt) <= count
    content[offset : offset + count] = spoilt.ljust(count, b"\0")
    path.write_bytes(content)
    return side, side, 2 * side, 2 * side


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "nothing there": lambda _: b"",
    "second half lost": lambda data: data[: len(data) // 2],
    "second half lost before an end": lambda data: data[: len(data) // 2] + b"\xff\xd9",
    "an end amid": lambda data: data[: len(data) // 2] + b"\xff\xd9" + data[len(data) // 2 + 2 :],
    "last bytes lost": lambda data: data[:-8] + b"\xff\xd9",
}


@pytest.mark.parametrize("reader", [SlideReader(), PyramidReader()], ids=["slide", "pyramid"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_jpeg_fails_only_boxes_that_need_it(
    tmp_path: Path, reader: SlideReader | PyramidReader, damage: str
) -> None:
    """The decoder gives grey for what is missing; no pixel of such a tile may be read."""
    path = write(tmp_path / "a.tif", picture(), picture(75, 100), photometric="ycbcr", compression="jpeg", encode=jpeg)
    truth = whole_level(path)
    x0, y0, x1, y1 = replace(path, DAMAGE[damage])
    [info] = scan_with(reader, str(path), {})
    with reader.open(info) as image:
        for _ in range(2):
            with pytest.raises(ReadError):
                image.read(Box(x0, y0, x0 + 1, y0 + 1), (1, 1))
            with pytest.raises(ReadError):
                image.read(Box(x0 - 8, y0 - 8, x1, y1), (72, 72))
            beside, valid = image.read(Box(x1, y0, 200, y1), (200 - x1, y1 - y0))
            assert valid.all()
            assert np.array_equal(beside, truth[y0:y1, x1:])


@pytest.mark.slow
def test_random_damage_of_a_real_tile_is_found_as_by_openslide(root: Path, tmp_path: Path) -> None:
    sample = (root / "notebooks/samples/slides/CMU-1-Small-Region.svs").read_bytes()
    random, path = np.random.default_rng(5), tmp_path / "a.svs"

    def flip(data: bytes) -> bytes:
        spoilt, at = bytearray(data), int(random.integers(32, len(data) - 2))
        length = int(random.integers(1, 5))
        spoilt[at : at + length] = random.bytes(length)
        return bytes(spoilt[: len(data)])

    def by_limner(x: int, y: int) -> Rgb | None:
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            try:
                return read_tile(tiff, page, y // 240 * 10 + x // 240, "a tile")
            except ReadError:
                return None

    verdicts: list[tuple[bool, bool]] = []
    for _ in range(60):
        path.write_bytes(sample)
        x, y, *_ = replace(path, flip)
        with openslide.OpenSlide(path) as slide:
            try:
                want: Any = np.asarray(slide.read_region((x, y), 0, (240, 240)))[..., :3]
            except openslide.OpenSlideError:
                want = None
        here = by_limner(x, y)
        verdicts.append((want is None, here is None))
        assert want is None or here is None or np.array_equal(here, want)
    assert sum(slide for slide, _ in verdicts) > 20
    assert sum(slide and not here for slide, here in verdicts) <= 1


def test_intact_jpegs_are_read_whatever_they_show(tmp_path: Path) -> None:
    """Pictures whose last pixels look like those of damage, and streams that are checked in another way."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 2, (150, 200, 1), dtype=np.uint8).repeat(3, axis=2) * 255
    for name, pixels, how in (
        ("grey", np.full((150, 200, 3), 128, dtype=np.uint8), {}),
        ("contrast", noise, {"quality": 95}),
        ("restarts", picture(), {"restart_marker_blocks": 3}),
        ("restarts, grey", np.full((150, 200, 3), 128, dtype=np.uint8), {"restart_marker_rows": 1}),
        ("progressive", picture(), {"progressive": True}),
        ("own tables", picture(), {"optimize": True}),
    ):
        path = tmp_path / f"{name}.tif"
        write(path, pixels, photometric="ycbcr", compression="jpeg", encode=lambda tile, how=how: jpeg(tile, **how))
        [info] = scan_with(PyramidReader(), str(path), {})
        with PyramidReader().open(info) as image:
            seen, valid = image.read(info.box, info.size)
        assert valid.all(), name
        assert np.array_equal(seen, whole_level(path)), name


@pytest.mark.parametrize("lost", [0.2, 0.5, 0.95])
def test_a_damaged_restart_interval_is_found(tmp_path: Path, lost: float) -> None:
    def encode(tile: Rgb) -> bytes:
        return jpeg(tile, restart_marker_rows=1)

    def spoil(data: bytes) -> bytes:
        start = data.find(b"\xff\xda")
        places = [at for at in range(start, len(data) - 1) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]
        at = places[int(lost * len(places))]
        return data[: at - 6] + data[at:]

    path = write(tmp_path / "a.tif", picture(), photometric="ycbcr", compression="jpeg", encode=encode)
    x0, y0, x1, y1 = replace(path, spoil)
    [info] = scan_with(PyramidReader(), str(path), {})
    with PyramidReader().open(info) as image, pytest.raises(ReadError, match="ends before its last pixel"):
        image.read(Box(x0, y0, x1, y1), (x1 - x0, y1 - y0))


def test_luminance_and_colour_differences_are_converted_as_in_jpeg() -> None:
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    want = np.asarray(Image.fromarray(values, "YCbCr").convert("RGB")).astype(int)
    assert np.abs(ycbcr_to_rgb(values) - want).max() <= 1
