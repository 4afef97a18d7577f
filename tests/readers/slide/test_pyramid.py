"""OME-TIFF and plain TIFF pyramids, against known pixels."""

import gc
import logging
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.readers.contract import ExpectedImage, check_reader, scan_with
from limner.readers.errors import ReadError, RequestError
from limner.readers.geometry import Box
from limner.readers.slide import tiled_pyramid
from limner.readers.slide.pyramid import PyramidReader
from limner.readers.slide.tiff import OmeMetadata
from limner.readers.slide.tiled_pyramid import Level, TiledPyramid


def coordinates(height: int, width: int, dtype: str = "uint8") -> npt.NDArray[np.generic]:
    """(H, W, 3): column, row, and a mixture of both."""
    rows, columns = np.mgrid[:height, :width]
    top = np.iinfo(dtype).max
    return np.stack([columns * 7 % top, rows * 5 % top, (rows * 31 + columns * 17) % top], axis=2).astype(dtype)


def halved(pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The mean of 2 × 2 pixels; an odd last row or column is dropped, as most programs do."""
    height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
    blocks = pixels[:height, :width].reshape(height // 2, 2, width // 2, 2, -1).astype(np.float64)
    return np.rint(blocks.mean(axis=(1, 3))).astype(pixels.dtype)


def plain(
    path: Path,
    pixels: npt.NDArray[np.generic],
    *,
    levels: int = 3,
    subifds: bool = False,
    **how: Any,
) -> Path:
    """A pyramidal TIFF of RGB in tiles of 64, its levels as pages or as SubIFDs."""
    with tifffile.TiffWriter(path) as file:
        for level in range(levels):
            reduced: dict[str, Any] = {"subfiletype": 1} if level else {"subifds": levels - 1 if subifds else None}
            file.write(pixels, photometric="rgb", tile=(64, 64), metadata=None, **reduced, **how)
            pixels = halved(pixels)
    return path


def everywhere(pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    return np.ones(pixels.shape[:2], dtype=bool)


def test_a_closed_image_holds_no_tiles(tmp_path: Path) -> None:
    """Which Python would free with the next collection of cyclic garbage only."""
    path = plain(tmp_path / "plain.tif", coordinates(2048, 2048))
    (info,) = scan_with(PyramidReader(), str(path), {})
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        image = PyramidReader().open(info)
        image.read(Box(0, 0, 2048, 2048), (2048, 2048))
        assert tracemalloc.get_traced_memory()[0] > 2048 * 2048 * 3
        image.close()
        assert tracemalloc.get_traced_memory()[0] < 2048 * 2048
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.parametrize("subifds", [False, True])
@pytest.mark.parametrize("compression", [None, "deflate", "lzw"])
def test_plain_pyramid_passes_the_contract(tmp_path: Path, *, subifds: bool, compression: str | None) -> None:
    pixels = coordinates(151, 203)
    path = plain(tmp_path / "p.tif", pixels, subifds=subifds, compression=compression)
    info = check_reader(PyramidReader(), str(path), ExpectedImage(pixels, everywhere(pixels), exact=False))
    assert [(c.name, c.common, c.dtype) for c in info.channels] == [(n, n, "uint8") for n in ("red", "green", "blue")]


@pytest.mark.parametrize("kind", ["strips", "planes", "big-endian", "bigtiff", "one level"])
def test_tiff_layouts_pass_the_contract(tmp_path: Path, kind: str) -> None:
    pixels = coordinates(97, 130, "uint16")
    path = tmp_path / "p.tif"
    how = {
        "strips": {"rowsperstrip": 10},
        "planes": {"planarconfig": "separate", "tile": (32, 48)},
        "big-endian": {"tile": (32, 48)},
        "bigtiff": {"tile": (32, 48)},
        "one level": {"tile": (256, 256), "compression": "zlib", "predictor": True},
    }[kind]
    data = np.moveaxis(pixels, 2, 0) if kind == "planes" else pixels
    order = ">" if kind == "big-endian" else "<"
    with tifffile.TiffWriter(path, byteorder=order, bigtiff=kind == "bigtiff") as file:
        file.write(data, photometric="rgb", metadata=None, **how)
    check_reader(PyramidReader(), str(path), ExpectedImage(pixels, everywhere(pixels)))


def test_alpha_is_a_mask_and_no_channel(tmp_path: Path) -> None:
    pixels = coordinates(70, 90)
    valid = np.zeros((70, 90), dtype=bool)
    valid[10:60, 5:80] = True
    rgba = np.concatenate([pixels, np.where(valid, 255, 0).astype(np.uint8)[..., None]], axis=2)
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=["unassalpha"], tile=(32, 32), metadata=None)
    check_reader(PyramidReader(), str(path), ExpectedImage(pixels, valid))


def fluorescence(path: Path, pixels: npt.NDArray[np.generic], **metadata: object) -> Path:
    """OME-TIFF of axes C Z Y X in 16 bits with one reduced level as SubIFDs, and a second image."""
    names = {"Channel": {"Name": ["DAPI", "FITC", "DAPI"]}}
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(pixels, tile=(64, 64), subifds=1, metadata={"axes": "CZYX", **names, **metadata})
        file.write(pixels[..., ::2, ::2], tile=(64, 64), subfiletype=1)
        file.write(np.zeros((16, 16, 3), dtype=np.uint8), photometric="rgb", metadata={"axes": "YXS"})
    return path


def test_ome_tiff_passes_the_contract(tmp_path: Path) -> None:
    stack = (
        np.moveaxis(coordinates(151, 203, "uint16"), 2, 0)[:, None].astype(np.uint16)
        + np.array([0, 7], dtype=np.uint16)[:, None, None]
    )
    size = {"PhysicalSizeX": 500.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.51, "PhysicalSizeYUnit": "µm"}
    path = fluorescence(tmp_path / "p.ome.tif", stack, **size)
    points = ((10.0, 20.0, 5.0, 10.2),)
    for z, options in ((0, {}), (1, {"z": "1"})):
        native = np.moveaxis(stack[:, z], 0, 2)
        truth = ExpectedImage(native, everywhere(native), points, exact=False, options=options)
        info = check_reader(PyramidReader(), str(path), truth)
        assert [c.name for c in info.channels] == ["DAPI", "FITC", "DAPI (3)"]
        assert (info.placement.unit, info.placement.source) == ("um", "OME-XML PhysicalSize")
        assert f"The file has 2 positions along axis Z; {z} is read (--reader-options z=…)." in info.notes
        assert "1 of the 2 images in the file is never read: of the label or the glass." in info.notes
    with pytest.raises(RequestError, match="must be from 0 to 1 for this file"):
        scan_with(PyramidReader(), str(path), {"z": "2"})
    [named] = scan_with(PyramidReader(), str(path), {"bands": "blue,green,red"})
    assert [c.common for c in named.channels] == ["blue", "green", "red"]
    with pytest.raises(ReadError, match="each of the 3 channels"):
        scan_with(PyramidReader(), str(path), {"bands": "blue"})


OME = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels PhysicalSizeX="{x}"'
    ' PhysicalSizeY="0.5" PhysicalSizeYUnit="{unit}"><Channel Name="a"/></Pixels></Image></OME>'
)


@pytest.mark.parametrize(
    ("text", "spacing"),
    [
        (OME.format(x="0.25", unit="µm"), (0.25, 0.5)),
        (OME.format(x="0.25", unit="mm"), (0.25, 500.0)),
        (OME.format(x="0.25", unit="pixel"), None),
        (OME.format(x="nan", unit="µm"), None),
        (OME.format(x="", unit="µm"), None),
        ("<!DOCTYPE a>" + OME.format(x="0.25", unit="µm"), ()),
        (OME.format(x="0.25", unit="µm")[:-3], ()),
        ("<OME/>", ()),
    ],
)
def test_spacing_of_ome_xml(text: str, spacing: tuple[float, ...] | None) -> None:
    found = [one.spacing for one in OmeMetadata.parse(text)]
    assert [one and (one.x, one.y) for one in found] == ([] if spacing == () else [spacing])


@pytest.mark.slow
def test_reduced_reads_are_aligned(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:2500, :2500]
    pixels = np.stack([columns / 10, rows / 10, (rows + columns) / 20], axis=2).astype(np.uint8)
    path = plain(tmp_path / "p.tif", pixels, levels=5)
    [info] = scan_with(PyramidReader(), str(path), {})
    with PyramidReader().open(info) as image:
        for factor in (8, 11.3, 16):
            n = int(2500 // factor)
            seen, valid = image.read(Box(0, 0, n * factor, n * factor), (n, n))
            assert valid.all()
            ramp = (np.arange(n) + 0.5) * factor / 10 - 0.5
            assert np.abs(seen[:, :, 0] - ramp).max() < 1.0
            assert np.abs(seen[:, :, 1] - ramp[:, None]).max() < 1.0


@pytest.mark.parametrize("full", [(2500, 1333), (46000, 32914), (1101, 1101), (1000, 1)])
def test_levels_made_by_halving_have_integer_scales(full: tuple[int, int]) -> None:
    down = up = full
    for level in range(1, 12):
        down = (max(1, down[0] // 2), max(1, down[1] // 2))
        up = (-(-up[0] // 2), -(-up[1] // 2))
        if max(down) < 8:
            break  # a handful of pixels fits several factors
        if min(full) >> level:
            assert Level.of(full, down, (64, 64)).scale == (2**level, 2**level)
        assert Level.of(full, up, (64, 64)).scale == (2**level, 2**level)
    assert Level.of(full, full, (64, 64)).scale == (1, 1)


def test_level_of_another_factor_spans_the_image() -> None:
    assert Level.of((1000, 500), (700, 350), (64, 64)).scale == (1000 / 700, 500 / 350)


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    scale=st.floats(0.4, 40),
    at=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
)
def test_pixel_does_not_depend_on_the_box(
    tmp_path_factory: pytest.TempPathFactory, scale: float, at: tuple[int, int], size: tuple[int, int]
) -> None:
    path = tmp_path_factory.getbasetemp() / "same.tif"
    if not path.exists():
        plain(path, coordinates(300, 420))
    [info] = scan_with(PyramidReader(), str(path), {})
    (column, row), (columns, rows) = at, size
    with PyramidReader().open(info) as image:
        whole, usable = image.read(Box(0, 0, 70 * scale, 70 * scale), (70, 70))
        box = Box(column * scale, row * scale, (column + columns) * scale, (row + rows) * scale)
        part, valid = image.read(box, size)
    here = np.s_[row : row + rows, column : column + columns]
    assert np.array_equal(valid, usable[here])
    assert np.array_equal(part[valid], whole[here][valid])


@pytest.mark.parametrize("factors", [(2, 2), (3, 3), (4, 2), (1, 5), (16, 16), (7, 3)])
@pytest.mark.parametrize("origin", [(0, 0), (1, 2), (-1, -2)])
def test_blocks_of_whole_factors_have_the_bits_of_the_general_resampling(
    monkeypatch: pytest.MonkeyPatch, factors: tuple[int, int], origin: tuple[int, int]
) -> None:
    """Also where the box begins before the image or ends behind it."""
    random = np.random.default_rng(0)
    tile = (2 * 3 * 7 * 16, 3 * 5 * 16)
    picture = random.integers(0, 256, (3 * tile[1], 2 * tile[0], 3), dtype=np.uint8)
    picture[::3] = random.integers(254, 256, picture[::3].shape)
    level = Level((2 * tile[0], 3 * tile[1]), (1.0, 1.0), tile)

    def fetch(_: int, column: int, row: int) -> tuple[npt.NDArray[np.uint8], None]:
        return picture[row * tile[1] : (row + 1) * tile[1], column * tile[0] : (column + 1) * tile[0]], None

    size = 61, 53
    x, y = (at * factor for at, factor in zip(origin, factors, strict=True))
    far = tuple(side - 40 * factor for side, factor in zip(level.size, factors, strict=True))
    boxes = [Box(x, y, x + size[0] * factors[0], y + size[1] * factors[1]) for x, y in ((x, y), far)]
    found = [TiledPyramid([level], 3, np.dtype(np.uint8), fetch).read(box, size) for box in boxes]
    monkeypatch.setattr(tiled_pyramid, "_MOST_ADDED", 0)
    for box, (pixels, valid) in zip(boxes, found, strict=True):
        want, of_image = TiledPyramid([level], 3, np.dtype(np.uint8), fetch).read(box, size)
        assert np.array_equal(valid, of_image)
        assert np.array_equal(pixels[valid], want[valid])


@pytest.mark.parametrize("masked", [None, (1, 1)])
def test_neighbouring_reads_decode_a_tile_once(masked: tuple[int, int] | None) -> None:
    """Once more where the first tile with invalid pixels is met, for those whose means alone were kept."""
    picture = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    usable = np.ones((90, 90), np.bool_)
    fetched: list[tuple[int, int]] = []
    if masked is not None:
        usable[32:39, 33:37] = False

    def fetch(_: int, column: int, row: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_] | None]:
        fetched.append((column, row))
        place = np.s_[row * 30 : row * 30 + 30, column * 30 : column * 30 + 30]
        return picture[place], usable[place] if (column, row) == masked else None

    pyramid = TiledPyramid([Level((90, 90), (1.0, 1.0), (30, 30))], 3, np.dtype(np.uint8), fetch)
    for y in (0, 20, 40):
        for x in (0, 20, 40):
            pixels, valid = pyramid.read(Box(x, y, x + 50, y + 50), (25, 25))
            here = np.s_[y : y + 50, x : x + 50]
            shares = usable[here].reshape(25, 2, 25, 2).sum(axis=(1, 3))
            total = (picture[here] * usable[here][..., None]).reshape(25, 2, 25, 2, 3).sum(axis=(1, 3), dtype=np.int64)
            assert np.array_equal(valid, shares >= 2)
            assert np.array_equal(pixels[valid], np.rint(total[valid] / shares[valid][:, None]))
    assert len(set(fetched)) == 9
    assert len(fetched) == (9 if masked is None else 12)
    assert np.array_equal(pyramid.read(Box(0, 0, 90, 90), (90, 90))[0], picture)


def test_unreadable_tile_fails_only_boxes_that_need_it(tmp_path: Path) -> None:
    pixels = coordinates(256, 256)
    path = plain(tmp_path / "p.tif", pixels, levels=2, compression="deflate")
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        offset, count = page.dataoffsets[5], page.databytecounts[5]  # column 1, row 1
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = b"\xff" * count
    path.write_bytes(content)
    [info] = scan_with(PyramidReader(), str(path), {})
    with PyramidReader().open(info) as image:
        lost = []
        for row in range(4):
            for column in range(4):
                x, y = column * 64, row * 64
                try:
                    seen, valid = image.read(Box(x, y, x + 64, y + 64), (64, 64))
                except ReadError as error:
                    lost.append((column, row, "level 0, tile 1, 1" in str(error)))
                else:
                    assert valid.all()
                    assert np.array_equal(seen, pixels[y : y + 64, x : x + 64])
        assert lost == [(1, 1, True)]
        with pytest.raises(ReadError):
            image.read(Box(100, 100, 140, 140), (40, 40))
        assert image.read(info.box, (128, 128))[1].all()  # the level below is whole


def test_truncated_file_is_readable_up_to_its_end(tmp_path: Path) -> None:
    pixels = coordinates(256, 256)
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(64, 64), metadata=None)
    with tifffile.TiffFile(path) as tiff:
        last = max(tiff.pages[0].dataoffsets)
    path.write_bytes(path.read_bytes()[: last + 100])
    [info] = scan_with(PyramidReader(), str(path), {})
    with PyramidReader().open(info) as image:
        assert np.array_equal(image.read(Box(0, 0, 192, 256), (192, 256))[0], pixels[:, :192])
        with pytest.raises(ReadError, match="100 of its 12288 bytes are there"):
            image.read(Box(192, 192, 256, 256), (64, 64))


def test_missing_tile_is_invalid(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    pixels = coordinates(64, 128)
    tiles = [pixels[:, :64], None]
    tifffile.imwrite(
        path,
        iter(tiles),
        shape=(64, 128, 3),
        dtype="uint8",
        photometric="rgb",
        tile=(64, 64),
        compression="deflate",
        metadata=None,
    )
    [info] = scan_with(PyramidReader(), str(path), {})
    with PyramidReader().open(info) as image:
        seen, valid = image.read(info.box, info.size)
    assert valid[:, :64].all()
    assert not valid[:, 64:].any()
    assert np.array_equal(seen[:, :64], pixels[:, :64])


def test_single_giant_strip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, shape=(20000, 20000), dtype="uint8", rowsperstrip=20000, metadata=None)
    with pytest.raises(ReadError, match="one strip or tile of 381 MiB"):
        scan_with(PyramidReader(), str(path), {})


def confidence(path: Path) -> int:
    return PyramidReader().identify(str(path), path.read_bytes()[:4096])


def test_identify(tmp_path: Path) -> None:
    pixels = coordinates(256, 256)
    assert confidence(plain(tmp_path / "p.tif", pixels)) == 80
    assert confidence(plain(tmp_path / "one.tif", pixels, levels=1)) < 70
    georeferenced = plain(tmp_path / "map.tif", pixels, extratags=[(33550, 12, 3, (10.0, 10.0, 0.0), True)])
    assert confidence(georeferenced) < 70
    tifffile.imwrite(tmp_path / "o.ome.tif", pixels, photometric="rgb")
    assert confidence(tmp_path / "o.ome.tif") == 85
    aperio = plain(tmp_path / "a.svs", pixels, description="Aperio Image Library v1|MPP = 0.25")
    assert confidence(aperio) < 70
    (tmp_path / "text.tif").write_bytes(b"II*\0 this is no TIFF")
    logging.disable(logging.CRITICAL)
    assert confidence(tmp_path / "text.tif") == 0
    logging.disable(logging.NOTSET)
    assert PyramidReader().identify("/vsicurl/http://example.com/p.tif", b"") == 0


@pytest.mark.slow
def test_real_slides(shared_data: Path) -> None:
    slides = shared_data / "slides"
    for name, size, spacing in (
        ("ometiff_os1_he/OS-1-detail.ome.tif", (1101, 1101), 0.2270972),
        ("ometiff_os2_ki67/OS-2-vsi.ome.tif", (1445, 1445), 0.3460533),
    ):
        [info] = scan_with(PyramidReader(), str(slides / name), {})
        assert confidence(slides / name) == 85
        assert info.size == size
        assert info.placement.matrix[0][0] == pytest.approx(spacing, abs=1e-6)
        assert (info.kind, info.personal) == ("slide", True)
        truth = tifffile.imread(slides / name)
        check_reader(PyramidReader(), str(slides / name), ExpectedImage(truth, everywhere(truth), exact=False))
    prostate = slides / "generic_pyramid_prostate" / "slide.tiff"
    assert confidence(prostate) == 80
    [info] = scan_with(PyramidReader(), str(prostate), {})
    assert not info.placement.has_unit
    assert any("896" in note and "implausible" in note for note in info.notes)
    with PyramidReader().open(info) as image:
        seen, valid = image.read(Box(0, 0, 2496, 2496), (312, 312))
        near, _ = image.read(Box(0, 0, 2496, 2496), (624, 624))
    assert valid.all()
    assert np.array_equal(seen, tifffile.imread(prostate, level=3))
    averaged = near.reshape(312, 2, 312, 2, 3).astype(np.float64).mean(axis=(1, 3))
    assert np.sqrt(np.mean((seen - averaged) ** 2)) < 10
