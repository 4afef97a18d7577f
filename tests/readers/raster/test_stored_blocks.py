"""Sparse and huge maps: what is known to be empty is not read, and what was not read is never called empty."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from limner.pipelines.config import Settings
from limner.pipelines.run import overview_stats
from limner.readers import overview, resample
from limner.readers.contract import scan_with
from limner.readers.geometry import Box
from limner.readers.image import ImageInfo
from limner.readers.overview import ReducedImage, read_overview
from limner.readers.raster import gdal, raster_image
from limner.readers.raster.geotiff import RasterReader
from limner.readers.raster.metadata import RasterOptions
from limner.readers.raster.scene import SceneReader
from limner.readers.raster.stored_blocks import StoredBlocks
from rasterio.windows import Window

LAYOUTS: list[dict[str, Any]] = [
    {"tiled": True, "blockxsize": 64, "blockysize": 32, "interleave": "pixel"},
    {"tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": "band", "BIGTIFF": "YES"},
    {"blockysize": 7, "interleave": "pixel", "BIGTIFF": "YES"},
    {"blockysize": 300, "interleave": "band"},
    {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate", "ENDIANNESS": "BIG"},
]
SIDE = (500, 300)


def write(path: Path, layout: dict[str, Any], *, nodata: float | None = 0, size: tuple[int, int] = SIDE) -> Path:
    """Two bands of which a few windows were written, each with one pixel of no data in it."""
    shape = {"width": size[0], "height": size[1], "count": 2, "dtype": "uint16", "nodata": nodata}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)}
    random = np.random.default_rng(3)
    with rasterio.open(path, "w", driver="GTiff", **shape, **place, sparse_ok=True, **layout) as raster:
        for x, y in ((0, 0), (130, 70), (size[0] - 9, size[1] - 9)):
            pixels = random.integers(1, 5000, (2, 9, 9)).astype(np.uint16)
            pixels[:, 4, 4] = 0
            raster.write(pixels, window=Window(x, y, 9, 9))  # pyright: ignore[reportCallIssue] - rasterio states no types
    return path


def scanned(path: Path) -> ImageInfo:
    (info,) = scan_with(RasterReader(), str(path), {})
    return info


def reduced(info: ImageInfo, *, limit: int = 100) -> ReducedImage:
    with RasterReader().open(info) as image:
        return read_overview(image, limit=limit)


@pytest.mark.parametrize("layout", LAYOUTS, ids=" ".join)
def test_stored_blocks_are_those_that_gdal_has(tmp_path: Path, layout: dict[str, Any]) -> None:
    path = write(tmp_path / "sparse.tif", layout)
    found = StoredBlocks.read(str(path))
    assert found is not None
    with rasterio.open(path) as raster:
        high, wide = raster.block_shapes[0]
        assert (found.size, found.block) == ((raster.width, raster.height), (wide, high))
        expected = np.zeros_like(found.stored)
        for y, x in np.ndindex(expected.shape):
            tags = (raster.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=band) for band in (1, 2))
            expected[y, x] = any(tag is not None for tag in tags)
    assert (found.stored == expected).all()
    assert layout.get("blockysize") == 300 or not expected.all()


@pytest.mark.parametrize("shape", [(3, 5), (100, 60), (299, 500), (300, 500)])
def test_a_cell_may_hold_what_its_blocks_hold(tmp_path: Path, shape: tuple[int, int]) -> None:
    """Where a block is stored, every cell that a pixel of it lies in counts."""
    found = StoredBlocks.read(str(write(tmp_path / "sparse.tif", LAYOUTS[0])))
    assert found is not None
    pixels = found.stored.repeat(32, axis=0).repeat(64, axis=1)[: SIDE[1], : SIDE[0]]
    y, x = np.nonzero(pixels)
    cells = np.zeros(shape, dtype=np.bool_)
    for dy, dx in ((0.001, 0.001), (0.999, 0.999), (0.001, 0.999), (0.999, 0.001)):
        at = ((y + dy) * shape[0] / SIDE[1]).astype(int), ((x + dx) * shape[1] / SIDE[0]).astype(int)
        cells[at] = True
    held = found.may_hold(shape)
    assert not (cells & ~held).any()
    assert (held & ~cells).mean() < 0.05


@pytest.mark.parametrize("layout", LAYOUTS, ids=" ".join)
@pytest.mark.slow
def test_the_overview_is_the_same_whether_empty_blocks_are_skipped_or_read(
    tmp_path: Path, layout: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    info = scanned(write(tmp_path / "sparse.tif", layout))
    monkeypatch.setattr(overview, "_BYTES", 4000)
    monkeypatch.setattr(overview, "_STREAMED_BYTES", 4000)
    read: list[Box] = []
    inner = raster_image.RasterImage.read
    monkeypatch.setattr(raster_image.RasterImage, "read", lambda *a: (read.append(a[1]), inner(*a))[1])
    skipping = reduced(info)
    few = len(read)
    monkeypatch.setattr(raster_image.RasterImage, "may_hold", lambda *_: None)
    whole = reduced(info)
    for one, other in zip(skipping[:3], whole[:3], strict=True):
        assert (np.asarray(one) == np.asarray(other)).all()
    assert few < len(read) - few or layout.get("blockysize") == 300
    assert whole.valid.any()


@pytest.mark.parametrize("shift", [0.0, 0.4, -0.9])
def test_of_a_scene_of_sparse_files_only_what_all_may_hold_is_read(
    tmp_path: Path, shift: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bands of 10 and 40 m whose grids differ by less than a pixel of the coarser one."""
    for name, step, moved in (("B02", 1, 0.0), ("B11", 4, shift)):
        sides = SIDE[0] // step, SIDE[1] // step
        shape = {"width": sides[0], "height": sides[1], "count": 1, "dtype": "uint16", "nodata": 0}
        place = rasterio.Affine(10 * step, 0, 5e5 + 40 * moved, 0, -10 * step, 5e6 - 40 * moved)
        with rasterio.open(
            tmp_path / f"scene_{name}.tif", "w", driver="GTiff", **shape, crs="EPSG:32633", transform=place,
            sparse_ok=True, tiled=True, blockxsize=32, blockysize=32,
        ) as raster:  # fmt: skip
            random = np.random.default_rng(3)
            for x, y in ((0, 0), (256, 128)):
                pixels = random.integers(1, 5000, (1, 64 // step, 96 // step)).astype(np.uint16)
                raster.write(pixels, window=Window(x // step, y // step, 96 // step, 64 // step))  # pyright: ignore[reportCallIssue] - rasterio states no types
    (info,) = SceneReader().scan(str(tmp_path), RasterOptions())
    monkeypatch.setattr(overview, "_BYTES", 4000)
    with SceneReader().open(info) as image:
        level = image.stored_level((1.0, 1.0))
        assert level.scale == pytest.approx((1.372, 1.372), abs=1e-3)  # (1 + 1/16) / 2 of all pixels are stored
        held = image.may_hold((150, 250))
        assert held is not None
        assert 0.03 < held.mean() < 0.6
        skipping = read_overview(image, limit=250)
        monkeypatch.setattr(image, "may_hold", lambda _: None)
        whole = read_overview(image, limit=250)
    assert (skipping.valid == whole.valid).all()
    assert (skipping.pixels[whole.valid] == whole.pixels[whole.valid]).all()
    assert skipping.readable.all() == whole.readable.all()
    assert whole.valid.any()


def test_blocks_that_are_left_out_are_data_where_no_value_is_no_data(tmp_path: Path) -> None:
    info = scanned(write(tmp_path / "zeros.tif", LAYOUTS[0], nodata=None))
    with RasterReader().open(info) as image:
        assert image.may_hold((10, 10)) is None
    assert reduced(info).valid.all()


@pytest.mark.parametrize("content", [b"", b"II*\0", b"II*\0\x08\0\0\0\xff\xff" + bytes(40), b"MM\0*" + bytes(400)])
def test_other_files_are_not_judged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.tif"
    path.write_bytes(content)
    assert StoredBlocks.read(str(path)) is None
    assert StoredBlocks.read(str(tmp_path / "none.tif")) is None


@pytest.mark.parametrize("layout", LAYOUTS[:3], ids=" ".join)
def test_of_a_map_too_large_to_read_samples_are_read_and_nothing_else_is_called_empty(
    tmp_path: Path, layout: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    info = scanned(write(tmp_path / "zeros.tif", layout, nodata=0))
    whole = reduced(info)
    monkeypatch.setattr(raster_image.RasterImage, "may_hold", lambda *_: None)
    monkeypatch.setattr(overview, "WHOLE_BYTES", 100_000)
    monkeypatch.setattr(overview, "SAMPLED_BYTES", 60_000)
    found = reduced(info)
    seen = found.sampled
    assert seen is not None
    assert 0.01 < seen.mean() < 0.7
    filled: npt.NDArray[np.bool_] = seen if layout["blockysize"] >= 32 else np.zeros_like(seen)
    assert (found.valid[filled] == whole.valid[filled]).all()
    assert (found.pixels[filled & whole.valid] == whole.pixels[filled & whole.valid]).all()
    assert found.readable.all()
    roi = overview_stats.find_roi(info, Settings.resolve({}, source="a test"), found)
    assert roi.valid_mask is not None
    assert roi.valid_mask[~seen].all()
    assert not roi.valid_mask.all() or layout["blockysize"] == 7


@pytest.mark.slow
def test_a_plan_tells_that_it_sampled_and_shows_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from limner.pipelines.progress import Inspecting
    from limner.pipelines.run.execute import prepare

    path = write(tmp_path / "large.tif", LAYOUTS[0], nodata=None)
    events: list[object] = []
    settings = Settings.resolve({"inputs": [str(path), str(path.parent)], "model": "none"}, source="a test")
    prepared = prepare(settings, only_plan=True, on_event=events.append)
    shares = [event.share for event in events if isinstance(event, Inspecting)]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert not any("too large to be read whole" in note for note in prepared.plan.images[0].info.notes)
    monkeypatch.setattr(overview, "WHOLE_BYTES", 1000)
    prepared = prepare(settings, only_plan=True)
    assert any("too large to be read whole" in note for note in prepared.plan.images[0].info.notes)
    assert not prepared.plan.images[0].skipped or set(prepared.plan.images[0].skipped.values()) == {"no model"}


def test_gdals_cache_has_the_stated_size_while_limner_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rasterio._env import get_gdal_config  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

    sizes: list[int] = []
    inner = raster_image.resample

    def spy(*words: Any, **named: Any) -> Any:
        sizes.append(get_gdal_config("GDAL_CACHEMAX"))
        return inner(*words, **named)

    monkeypatch.setattr(raster_image, "resample", spy)
    reduced(scanned(write(tmp_path / "sparse.tif", LAYOUTS[0])))
    assert set(sizes) == {gdal.CACHE_BYTES} == {64 * 2**20}
    monkeypatch.setattr(gdal, "_limits", {"cache": gdal.MAX_BLOCK_BYTES, "block": 0})  # a block that is larger fits
    reduced(scanned(write(tmp_path / "sparse.tif", LAYOUTS[0])))
    assert 0 < sizes[-1] < 2**20


@pytest.mark.parametrize("layout", LAYOUTS, ids=" ".join)
@pytest.mark.parametrize("size", [(97, 24), (485, 120), (1, 1)])
def test_a_read_asks_for_every_block_once(
    tmp_path: Path, layout: dict[str, Any], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever GDAL keeps: windows begin and end at blocks, and no two of them share a pixel."""
    info = scanned(write(tmp_path / "blocks.tif", layout, size=(900, 200)))
    box = Box(-20, -10, 950, 230)
    windows: list[Any] = []
    inner = vars(raster_image.RasterImage)["_read_window"]  # what GDAL is asked for
    monkeypatch.setattr(raster_image.RasterImage, "_read_window", lambda *a: (windows.append(a[2]), inner(*a))[1])
    with RasterReader().open(info) as image:
        whole = image.read(box, size)
        monkeypatch.setattr(resample, "READ_BYTES", 1)
        windows.clear()
        parts = image.read(box, size)
        high = image.stored_level((1, 1)).block[1]
    assert (whole[0] == parts[0]).all()
    assert (whole[1] == parts[1]).all()
    count = np.zeros((200, 900), dtype=np.uint8)
    for (y0, y1), (x0, x1) in windows:
        count[y0:y1, x0:x1] += 1
        assert y0 % high == 0
        assert y1 % high == 0 or y1 == 200
    assert (count == 1).all()
    assert len(windows) > 1 or high >= 200 or size == (1, 1)


@pytest.mark.parametrize(("size", "again"), [((97, 24), 0.2), ((485, 120), 0.0)])
def test_wide_rows_of_blocks_are_read_in_parts(
    tmp_path: Path, size: tuple[int, int], again: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are cut at blocks, and only pixels that lie in two parts are read twice."""
    info = scanned(write(tmp_path / "wide.tif", LAYOUTS[1], size=(900, 200)))
    box = Box(-20, -10, 950, 230)
    windows: list[Any] = []
    inner = vars(raster_image.RasterImage)["_read_window"]  # what GDAL is asked for
    monkeypatch.setattr(raster_image.RasterImage, "_read_window", lambda *a: (windows.append(a[2]), inner(*a))[1])
    with RasterReader().open(info) as image:
        whole = image.read(box, size)
        monkeypatch.setattr(raster_image, "ROW_BYTES", 64 * 4 * 200)
        windows.clear()
        parts = image.read(box, size)
    assert (whole[0] == parts[0]).all()
    assert (whole[1] == parts[1]).all()
    starts = sorted({x0 for _, (x0, _) in windows})
    assert len(starts) > 3
    assert all(x % 64 <= 10 or x % 64 >= 54 for x in starts)
    assert sum((y1 - y0) * (x1 - x0) for (y0, y1), (x0, x1) in windows) <= 200 * 900 * (1 + again)
