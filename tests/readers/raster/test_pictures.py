"""PNG, JPEG, WebP and BMP: pixels, stated sizes, orientation tags, limits, and rows that are decoded once."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import limner
import numpy as np
import numpy.typing as npt
import pytest
from limner.readers.contract import ExpectedImage, check_reader, scan_with
from limner.readers.geometry import Box
from limner.readers.image import ImageInfo
from limner.readers.orientation import Orientation, image_orientation
from limner.readers.raster import geotiff, pictures
from limner.readers.raster.geotiff import RasterReader
from limner.readers.registry import scan
from PIL import Image, ImageOps

Rgb = npt.NDArray[np.uint8]
EXACT: dict[str, dict[str, Any]] = {"png": {}, "bmp": {}, "webp": {"lossless": True}}


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Rows are kept of pictures of any size, in small steps."""
    monkeypatch.setattr(pictures, "KEPT_BYTES", 0)
    monkeypatch.setattr(pictures, "_STEP_BYTES", 4000)
    pictures.KEPT.clear()
    yield
    pictures.KEPT.clear()


def pixels(height: int = 120, width: int = 150) -> Rgb:
    return np.random.default_rng(3).integers(0, 255, (height, width, 3)).astype(np.uint8)


def write(path: Path, content: Rgb, **how: Any) -> Path:
    Image.fromarray(content).save(path, **how)
    return path


def scanned(path: Path, **options: str) -> ImageInfo:
    [row] = scan([str(path)], options)
    assert row.status == "read", row.reason
    return row.infos[0]


def everywhere(content: Rgb) -> npt.NDArray[np.bool_]:
    return np.ones(content.shape[:2], dtype=bool)


@pytest.mark.parametrize("suffix", EXACT)
@pytest.mark.parametrize("options", [{}, {"microns_per_pixel": "0.5"}, {"metres_per_pixel": "0.1,0.2"}])
def test_a_picture_passes_the_contract(tmp_path: Path, suffix: str, options: dict[str, str]) -> None:
    """Without a size, as a slide, and as a map in local metres."""
    content = pixels()
    path = write(tmp_path / f"p.{suffix}", content, **EXACT[suffix])
    points = {"": ((10.0, 20.0, 10.0, 20.0),), "0.5": ((10.0, 20.0, 5.0, 10.0),), "0.1,0.2": ((10.0, 20.0, 1.0, 4.0),)}
    known = points["".join(options.values())]
    info = check_reader(RasterReader(), str(path), ExpectedImage(content, everywhere(content), known, options=options))
    unit = {"": "px", "0.5": "um", "0.1,0.2": "m"}["".join(options.values())]
    assert (info.placement.unit, info.kind, info.personal) == (
        unit,
        *(("slide", True) if unit == "um" else ("map", False)),
    )
    assert [channel.common for channel in info.channels] == ["red", "green", "blue"]
    assert scanned(path, **options).placement == info.placement


@pytest.mark.usefixtures("kept")
def test_kept_rows_pass_the_contract(tmp_path: Path) -> None:
    content = pixels()
    path = write(tmp_path / "p.png", content)
    check_reader(RasterReader(), str(path), ExpectedImage(content, everywhere(content)))
    assert len(pictures.KEPT) == 1


@pytest.mark.usefixtures("kept")
def test_a_picture_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is read of it, in whatever order, and opened however often."""
    decoded: list[int] = []
    decode = pictures.DecodedPicture.decode

    def count(self: pictures.DecodedPicture, stop: int) -> None:
        decoded.append(stop - self._rows)
        decode(self, stop)

    monkeypatch.setattr(pictures.DecodedPicture, "decode", count)
    content = pixels()
    [info] = scan_with(RasterReader(), str(write(tmp_path / "p.png", content)), {})
    for _ in range(2):
        with RasterReader().open(info) as image:
            for y in (80, 0, 40):
                seen, valid = image.read(Box(30, y, 70, y + 40), (40, 40))
                assert valid.all()
                assert np.array_equal(seen, content[y : y + 40, 30:70])
    assert sum(decoded) == len(content)
    write(tmp_path / "p.png", content[::-1].copy())
    [changed] = scan_with(RasterReader(), str(tmp_path / "p.png"), {})
    with RasterReader().open(changed) as image:
        assert np.array_equal(image.read(changed.box, changed.size)[0], content[::-1])


class Damaged:
    """A raster of 3 bands whose rows from 70 on cannot be decoded."""

    width, height, count, driver, dtypes = 150, 120, 3, "PNG", ("uint8",) * 3

    def __init__(self) -> None:
        self.content = np.moveaxis(pixels(), 2, 0)

    def read(self, *, window: tuple[tuple[int, int], tuple[int, int]]) -> Rgb:  # noqa: D102 - as rasterio's
        (y0, y1), _ = window
        if y1 > 70:
            msg = "row 70 is damaged"
            raise OSError(msg)
        return self.content[:, y0:y1]


@pytest.mark.usefixtures("kept")
def test_rows_before_a_damaged_one_are_read() -> None:
    picture = pictures.DecodedPicture(Damaged())
    for _ in range(2):
        assert np.array_equal(picture.read([1, 3], window=((20, 70), (5, 90))), Damaged().content[[0, 2], 20:70, 5:90])
        with pytest.raises(OSError, match="row 70"):
            picture.read(2, window=((20, 71), (5, 90)))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize(("value", "told"), [(6, "turned clockwise by 90°"), (3, "turned by 180°"), (1, "")])
def test_an_orientation_tag_is_told(tmp_path: Path, suffix: str, value: int, told: str) -> None:
    exif = Image.Exif()
    exif[274] = value
    how = {"tiffinfo": {274: value}} if suffix == "tif" else {"exif": exif}
    info = scanned(write(tmp_path / f"p.{suffix}", pixels(), **how))
    notes = [note for note in info.notes if "orientation tag" in note]
    assert [told in note for note in notes] == ([True] if told else [])
    assert info.size == (150, 120)


@pytest.mark.parametrize("value", range(1, 9))
def test_models_see_a_picture_as_viewers_show_it(tmp_path: Path, value: int) -> None:
    exif = Image.Exif()
    exif[274] = value
    path = write(tmp_path / "p.png", pixels(), exif=exif)
    info = scanned(path)
    with Image.open(path) as picture:
        shown = np.asarray(ImageOps.exif_transpose(picture))
    assert np.array_equal(image_orientation(info).turn(pixels()), shown)


@pytest.mark.slow
def test_a_picture_is_analysed_and_drawn_upright_at_the_pixels_of_its_file(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    path = write(tmp_path / "p.jpg", pixels(), exif=exif)
    run = limner.run(str(path), model="none", out=str(tmp_path / "out"), stretch=(0.0, 255.0))
    [image] = run.record.images
    overview = image.overview()
    assert overview is not None
    assert image.info.size == (150, 120)
    assert overview.pixels.shape[:2] == (150, 120)
    assert overview.orientation == Orientation(transposed=True, mirror_x=True)


@pytest.mark.parametrize("microns", [{}, {"microns_per_pixel": "0.5"}])
def test_pages_of_a_tiff_are_images_and_smaller_copies_are_none(tmp_path: Path, microns: dict[str, str]) -> None:
    contents = [pixels(), pixels()[::-1], pixels(40, 90), pixels(100, 125), pixels(50, 50)]  # a copy, and a label
    path = tmp_path / "p.tif"
    first, *others = map(Image.fromarray, contents)
    first.save(path, save_all=True, append_images=others)
    [row] = scan([str(path)], {**microns, "names": "show"})
    assert [info.id for info in row.infos] == ["p-page-1", "p-page-2", "p-page-3"]
    assert [dict(info.facts)["scene"] for info in row.infos] == ["1 of 3", "2 of 3", "3 of 3"]
    assert not any("only the first" in note for info in row.infos for note in info.notes)
    assert [any("2 of the 5 pages" in note for note in info.notes) for info in row.infos] == [True, False, False]
    for info, content in zip(row.infos, contents, strict=False):
        with RasterReader().open(info) as image:
            assert np.array_equal(image.read(info.box, info.size)[0], content)
    [chosen] = scan([str(path)], {**microns, "names": "show", "scene": "2"})
    assert [info.part for info in chosen.infos] == ["page 2"]


def test_of_a_tiff_with_very_many_pages_the_first_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geotiff, "MAX_SUBDATASETS", 2)
    first, *others = [Image.fromarray(pixels()) for _ in range(3)]
    first.save(tmp_path / "p.tif", save_all=True, append_images=others)
    [info] = scan_with(RasterReader(), str(tmp_path / "p.tif"), {})
    assert any("holds 3 images; only the first is read" in note for note in info.notes)


def bomb(path: Path, side: int, *, interlaced: bool = False) -> Path:
    """A PNG of a few bytes that states a square of `side` pixels of 3 bytes."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, int(interlaced))
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    parts = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


@pytest.mark.parametrize(("side", "interlaced", "refused"), [(60_000, False, "8192 MiB"), (12_000, True, "256 MiB")])
def test_a_decompression_bomb_is_refused_by_its_header(
    tmp_path: Path, *, side: int, interlaced: bool, refused: str
) -> None:
    [row] = scan([str(bomb(tmp_path / "p.png", side, interlaced=interlaced))], {})
    assert row.status == "failed"
    assert refused in row.reason
    assert "gdal_translate" in row.reason


def test_bytes_that_begin_like_a_bmp_are_none(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("BM is the beginning of a sentence, and this is the rest of it.")
    [row] = scan([str(tmp_path)], {})
    assert row.status == "skipped"


def test_the_resolution_tag_of_a_tiff_is_told_and_compared(tmp_path: Path) -> None:
    """It is never used by itself: most programs write that of a printer."""
    path = write(tmp_path / "p.tif", pixels(), dpi=(50800, 50800))
    info = scanned(path)
    assert info.placement.unit == "px"
    assert any("--microns-per-pixel 0.5" in note for note in info.notes)
    assert not any("0.5" in note for note in scanned(path, microns_per_pixel="0.5").notes)
    assert any("0.25" in note and "the file has 0.5" in note for note in scanned(path, microns_per_pixel="0.25").notes)
    printed = scanned(write(tmp_path / "q.tif", pixels(), dpi=(300, 300)))
    assert not any("Spacing" in note for note in printed.notes)


def test_a_picture_of_stated_microns_has_no_name(tmp_path: Path) -> None:
    """Nor has one that cannot be read."""
    good, bad = write(tmp_path / "DOE_JOHN.png", pixels()), tmp_path / "DOE_JANE.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n and nothing else")
    rows = scan([str(good), str(bad)], {"microns_per_pixel": "0.5"})
    assert [(row.status, row.personal) for row in rows] == [("read", True), ("failed", True)]
    assert rows[0].infos[0].id.startswith("slide-")
    assert [row.personal for row in scan([str(good), str(bad)], {})] == [False, False]
