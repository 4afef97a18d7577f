"""The whole picture, reduced, read in pieces."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.readers import overview
from limner.readers.geometry import Box
from limner.readers.image import StoredLevel
from limner.readers.overview import (
    Montage,
    across_channels,
    box_mean,
    dilate,
    fill_holes,
    keep_components,
    overview_bytes,
    percentiles,
    read_overview,
)

Make = Callable[..., Any]


def test_a_small_image_is_not_enlarged(array_image: Make, coordinates: Make) -> None:
    image = array_image(coordinates(30, 20))
    pixels, valid, readable, scale, _ = read_overview(image, limit=2048)
    assert (pixels == image.pixels).all()
    assert valid.all()
    assert readable.all()
    assert scale == (1.0, 1.0)


@pytest.mark.parametrize(("width", "height", "limit"), [(1000, 600, 100), (997, 31, 64), (3, 5000, 64), (64, 64, 64)])
def test_overview_pixels_are_in_place(
    array_image: Make, coordinates: Make, width: int, height: int, limit: int
) -> None:
    """The mean of a footprint's coordinates is its middle, but for the pixels at its ends that it shares."""
    pixels, valid, readable, scale, _ = read_overview(array_image(coordinates(width, height)), limit=limit)
    assert max(pixels.shape[:2]) == min(limit, max(width, height))
    assert min(pixels.shape[:2]) >= 1
    rows, columns = valid.shape
    assert scale == (width / columns, height / rows)
    x, y = (np.arange(columns) + 0.5) * scale[0], (np.arange(rows) + 0.5) * scale[1]
    assert np.abs(pixels[..., 0] - x[None, :]).max() < 1e-6 + (0.125 / scale[0] if width % columns else 0)
    assert np.abs(pixels[..., 1] - y[:, None]).max() < 1e-6 + (0.125 / scale[1] if height % rows else 0)
    assert valid.all()
    assert readable.all()


@pytest.mark.slow
def test_blocks_bound_memory_and_change_nothing(
    array_image: Make, coordinates: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = array_image(coordinates(1000, 700))
    whole = read_overview(image, limit=100)
    assert len(image.reads) == 1
    for limit_bytes in (200_000, 3_000):
        monkeypatch.setattr(overview, "_BYTES", limit_bytes)
        image.reads.clear()
        pieces = read_overview(image, limit=100)
        assert max(box.width * box.height * 16 for box, _ in image.reads) <= limit_bytes * (1 + 1e-9)
        assert np.abs(pieces.pixels - whole.pixels).max() < 1e-9
        assert (pieces.valid == whole.valid).all()
        assert all(
            a.x1 <= b.x0 + 1e-9 or b.x1 <= a.x0 + 1e-9 or a.y1 <= b.y0 + 1e-9 or b.y1 <= a.y0 + 1e-9
            for (a, _), (b, _) in itertools.combinations(image.reads, 2)
        ), "nothing is read twice"


def test_only_damaged_blocks_are_lost(array_image: Make, coordinates: Make) -> None:
    damaged = Box(300, 350, 700, 1000)
    image = array_image(coordinates(1000, 1000), damaged=[damaged])
    pixels, valid, readable, scale, _ = read_overview(image, limit=500)
    y, x = np.nonzero(~readable)
    assert scale == (2.0, 2.0)
    assert not readable[175:500, 150:350].any()
    assert x.min() >= 150 - 32
    assert x.max() < 350 + 32
    assert y.min() >= 175 - 32
    assert (valid == readable).all()
    assert (
        np.abs(pixels[readable] - np.stack(np.meshgrid(*[np.arange(500) * 2 + 1] * 2), axis=-1)[readable]).max() < 1e-6
    )


def test_an_unreadable_image_has_an_empty_overview(array_image: Make, coordinates: Make) -> None:
    image = array_image(coordinates(100, 80), damaged=[Box(-1, -1, 101, 81)])
    pixels, valid, readable, *_ = read_overview(image)
    assert pixels.shape == (80, 100, 2)
    assert not valid.any()
    assert not readable.any()


def test_validity_is_reduced_with_the_pixels(array_image: Make) -> None:
    valid = np.ones((40, 40), dtype=bool)
    valid[:20] = False
    image = array_image(np.full((40, 40, 3), 9, dtype=np.uint16), valid)
    pixels, observed, readable, *_ = read_overview(image, limit=10)
    assert pixels.dtype == np.uint16
    assert not observed[:5].any()
    assert observed[5:].all()
    assert readable.all()


def in_blocks(array_image: Make, width: int, height: int, scale: tuple[float, float] = (1.0, 1.0)) -> Any:
    """A class of images in memory that claim to be stored in blocks of `width` × `height` px of a level."""

    class Blocks(array_image):  # type: ignore[misc, valid-type] - a class that a fixture gives
        def stored_level(self, _: tuple[float, float]) -> StoredLevel:
            return StoredLevel(scale, (width, height))

        def may_hold(self, _: tuple[int, int]) -> None:
            return None

    return Blocks


def test_a_map_is_sampled_where_its_stored_level_is_too_large(
    array_image: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Levels(array_image):  # type: ignore[misc, valid-type] - a class that a fixture gives
        def stored_level(self, _: tuple[float, float]) -> StoredLevel:
            return StoredLevel((2.0, 4.0), (16, 16))

        def may_hold(self, _: tuple[int, int]) -> None:
            return None

    image = Levels(np.zeros((320, 640, 2), dtype=np.uint16))
    decoded = (640 // 2) * (320 // 4) * 2 * 2
    monkeypatch.setattr(overview, "SAMPLED_BYTES", decoded // 4)
    for limit, sampled in ((decoded, False), (decoded - 1, True)):
        monkeypatch.setattr(overview, "WHOLE_BYTES", limit)
        assert (read_overview(image, limit=80).sampled is not None) == sampled


@pytest.mark.parametrize(("block", "most"), [((64, 64), 4), ((64, 300), 2), ((640, 1), 1)])
@pytest.mark.parametrize("cores", [1, 3])
@pytest.mark.parametrize("piece", [64 << 20, 40_000])
def test_bands_are_read_at_the_same_time(
    array_image: Make,
    coordinates: Make,
    monkeypatch: pytest.MonkeyPatch,
    *,
    block: tuple[int, int],
    most: int,
    cores: int,
    piece: int,
) -> None:
    """Of an image in tiles, of which no two handles decode the same. What is found does not depend on the cores."""
    monkeypatch.setattr(overview, "_BAND_BYTES", 640 * 600 * 16 / 4)
    monkeypatch.setattr(overview, "_BYTES", piece)
    monkeypatch.setattr(overview, "cores", lambda: cores)
    kind = in_blocks(array_image, *block)

    def opened() -> Any:
        return kind(coordinates(640, 600), damaged=[Box(300, 350, 400, 400)])

    whole = read_overview(opened(), limit=160)
    images, closed, shares = [opened()], list[Any](), list[float]()

    def reopen(info: Any, channels: Any) -> Any:
        assert (info, list(channels)) == (images[0].info, [channel.name for channel in images[0].channels])
        images.append(opened())
        monkeypatch.setattr(images[-1], "close", lambda image=images[-1]: closed.append(image))
        return images[-1]

    found = read_overview(images[0], limit=160, reopen=reopen, on_progress=shares.append)
    assert (found.readable == whole.readable).all()
    assert not found.readable.all()
    assert (found.pixels == whole.pixels).all()
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(images) == min(cores, most)
    assert closed == images[:0:-1]
    rows = [{int(edge // block[1]) for box, _ in image.reads for edge in (box.y0, box.y1 - 1)} for image in images]
    assert all(max(above) < min(below) for above, below in itertools.pairwise(rows))


def test_what_a_band_raises_ends_the_others(
    array_image: Make, coordinates: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(in_blocks(array_image, 16, 16)):  # type: ignore[misc] - a class that a function gives
        def read(self, *_: Any) -> Any:
            raise MemoryError

    monkeypatch.setattr(overview, "_BAND_BYTES", 1)
    monkeypatch.setattr(overview, "_BYTES", 10_000)
    monkeypatch.setattr(overview, "cores", lambda: 2)
    first = in_blocks(array_image, 16, 16)(coordinates(640, 320))
    with pytest.raises(MemoryError):
        read_overview(first, limit=160, reopen=lambda *_: Broken(coordinates(640, 320)))


@pytest.mark.parametrize("size", [(3, 5000), (5000, 3)])
def test_an_overview_may_be_one_pixel_wide(array_image: Make, size: tuple[int, int]) -> None:
    found = read_overview(array_image(np.zeros((size[1], size[0], 1))), limit=64)
    assert sorted(found.valid.shape) == [1, 64]


@pytest.mark.parametrize("share", [0.04, 0.2, 0.9])
@pytest.mark.slow
def test_a_large_map_is_sampled_evenly_and_the_nearest_sample_stands_for_the_rest(
    array_image: Make, coordinates: Make, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """Blocks of 16 × 8 px are 4 × 2 cells."""
    width, height = 640, 320
    whole = read_overview(array_image(coordinates(width, height)), limit=160)
    allowed = int(width * height * 16 * share)  # two float64 a pixel
    monkeypatch.setattr(overview, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(overview, "SAMPLED_BYTES", allowed)
    shares: list[float] = []
    image = in_blocks(array_image, 16, 8)(coordinates(width, height))
    found = read_overview(image, limit=160, on_progress=shares.append)
    assert found.sampled is not None
    rows, columns = (np.flatnonzero(found.sampled.any(axis=axis)) for axis in (1, 0))
    assert (found.sampled == np.isin(np.arange(80), rows)[:, None] & np.isin(np.arange(160), columns)[None]).all()
    assert 0.5 * share < found.sampled.mean() <= share
    for places, cells, block in ((rows, 80, 2), (columns, 160, 4)):
        assert (places[::block] % block == 0).all(), "blocks are whole"
        gaps = np.diff([-places[0] - block, *places[::block], 2 * cells - places[-1] - 1])  # mirrored at the border
        assert gaps.max() - gaps.min() <= 2 * block
    down, right = (
        [min(places, key=lambda place: (abs(place - at), place)) for at in range(cells)]
        for places, cells in ((rows, 80), (columns, 160))
    )
    assert (found.pixels == whole.pixels[np.ix_(down, right)]).all()
    assert len(shares) == len(rows) // 2
    assert shares == pytest.approx([(at + 1) / len(shares) for at in range(len(shares))])


def test_what_may_hold_nothing_is_readable_where_a_map_is_sampled(
    array_image: Make, coordinates: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    possible = np.ones((80, 160), np.bool_)
    possible[:, :60] = False

    class Sparse(in_blocks(array_image, 16, 8)):  # type: ignore[misc] - a class that a function gives
        def may_hold(self, shape: tuple[int, int]) -> Any:
            assert shape == possible.shape
            return possible

    monkeypatch.setattr(overview, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(overview, "SAMPLED_BYTES", 640 * 320 * 4)
    monkeypatch.setattr(overview, "_BYTES", 1000)
    image = Sparse(coordinates(640, 320))
    found = read_overview(image, limit=160)
    assert found.sampled is not None
    assert found.readable.all()
    assert (found.valid == possible).all()
    assert min(box.x1 for box, _ in image.reads) > 4 * 60


@pytest.mark.parametrize("scale", [(1.0, 1.0), (4.0, 2.0)])
def test_a_sampled_block_within_a_cell_stands_for_it(
    array_image: Make, coordinates: Make, monkeypatch: pytest.MonkeyPatch, scale: tuple[float, float]
) -> None:
    monkeypatch.setattr(overview, "WHOLE_BYTES", 1000)
    stored = int(16 / scale[0]), int(8 / scale[1])
    monkeypatch.setattr(overview, "SAMPLED_BYTES", 40 * stored[0] * stored[1] * 16)
    image = in_blocks(array_image, *stored, scale)(coordinates(640, 320))
    found = read_overview(image, limit=20)
    assert found.sampled is not None
    assert found.scale == (32.0, 32.0)
    assert 20 < len(image.reads) <= 40
    boxes = [box for box, _ in image.reads]
    assert {(box.width, box.height, box.x0 % 16, box.y0 % 8) for box in boxes} == {(16.0, 8.0, 0.0, 0.0)}
    cells = {(int(box.y0 // 32), int(box.x0 // 32)): (box.x0 + 8, box.y0 + 4) for box in boxes}
    assert set(zip(*(axis.tolist() for axis in np.nonzero(found.sampled)), strict=True)) == set(cells)
    assert all(found.pixels[cell].tolist() == list(middle) for cell, middle in cells.items())


def test_each_plane_of_a_montage_is_in_its_cell(array_image: Make) -> None:
    class Stack(array_image):  # type: ignore[misc, valid-type] - a class that a fixture returns
        def read(self, box: Box, size: tuple[int, int], plane: int = 0) -> Any:
            pixels, valid = super().read(box, size)
            return pixels + plane, valid

    image = Stack(np.zeros((2, 3, 1)))
    montage = Montage((3, 2), (7, 8, 9))
    shares: list[float] = []
    found = read_overview(image, limit=100, montage=montage, on_progress=shares.append)
    assert shares == pytest.approx([1 / 3, 2 / 3, 1.0])
    cells = np.array([[7, 8], [9, 0]]).repeat(2, axis=0).repeat(3, axis=1)
    assert found.pixels[..., 0].tolist() == cells.tolist()
    assert found.valid.tolist() == (cells > 0).tolist()


def test_the_bytes_of_an_overview_are_those_of_the_stored_level(array_image: Make) -> None:
    class Levels(array_image):  # type: ignore[misc, valid-type] - a class that a fixture returns
        def stored_level(self, step: tuple[float, float]) -> StoredLevel:
            assert step == (8.0, 8.0)
            return StoredLevel((4.0, 2.0), (16, 16))

        def may_hold(self, shape: tuple[int, int]) -> None:
            del shape

    pixels = np.zeros((400, 800, 3), dtype=np.uint16)
    assert overview_bytes(Levels(pixels), 100) == (800 / 4) * (400 / 2) * 3 * 2
    assert overview_bytes(array_image(pixels), 100) == 0


@given(st.lists(st.integers(0, 255), min_size=1, max_size=60), st.floats(0, 100))
@settings(deadline=None, derandomize=True)
def test_percentiles_of_8_bits_equal_those_of_numpy(values: list[int], share: float) -> None:
    for dtype in (np.uint8, np.uint16):
        pixels = np.array([values, values[::-1]], dtype=dtype).T
        assert percentiles(pixels, share) == pytest.approx(np.percentile(pixels, share, axis=0), abs=1e-9)


def test_channels_are_combined_as_by_numpy() -> None:
    values = np.random.default_rng(1).integers(0, 255, (5, 4, 3))
    assert (across_channels(np.maximum, values) == values.max(axis=-1)).all()
    assert (across_channels(np.add, values[..., :1]) == values[..., 0]).all()


@pytest.mark.parametrize(("holds", "across", "down"), [(1.0, 20, 5), (0.5, 28, 7)])
def test_as_many_blocks_are_sampled_along_each_side_as_it_is_long(
    array_image: Make, monkeypatch: pytest.MonkeyPatch, holds: float, across: int, down: int
) -> None:
    """80 × 20 blocks of 16 px, each a cell, of which 100 may be decoded; where half may hold pixels, 200 are chosen."""

    class Blocks(array_image):  # type: ignore[misc, valid-type] - a class that a fixture gives
        def stored_level(self, _: tuple[float, float]) -> StoredLevel:
            return StoredLevel((1.0, 1.0), (16, 16))

        def may_hold(self, shape: tuple[int, int]) -> Any:
            return np.arange(shape[1])[None, :].repeat(shape[0], axis=0) < holds * shape[1]

    monkeypatch.setattr(overview, "_BYTES", 0)
    monkeypatch.setattr(overview, "WHOLE_BYTES", 0)
    monkeypatch.setattr(overview, "SAMPLED_BYTES", 100 * 16 * 16)
    found = read_overview(Blocks(np.zeros((320, 1280, 1), dtype=np.uint8)), limit=80)
    assert found.sampled is not None
    assert (found.sampled.any(axis=0).sum(), found.sampled.any(axis=1).sum()) == (across, down)


@pytest.mark.parametrize(
    ("aspect", "shape"), [((2.0, 1.0), (100, 50)), ((1.0, 2.0), (50, 100)), ((0.5, 1.0), (50, 100))]
)
def test_the_proportions_of_pixels_are_kept(array_image: Make, aspect: tuple[float, float], shape: Any) -> None:
    """Of a square picture; no side has more cells than pixels."""
    found = read_overview(array_image(np.zeros((400, 400, 1))), limit=100, aspect=aspect)
    assert found.valid.shape == shape
    small = read_overview(array_image(np.zeros((40, 40, 1))), limit=100, aspect=aspect)
    assert max(small.valid.shape) == 40


def test_a_montage_has_room_for_its_planes() -> None:
    for count in range(1, 30):
        montage = Montage((7, 5), tuple(range(3, 3 + count)))
        places = [montage.place(plane) for plane in montage.planes]
        assert places == sorted(places, key=lambda place: place[::-1] if place else ())
        assert len(set(places)) == count
        assert montage.columns * (montage.rows - 1) < count <= montage.columns * montage.rows
        assert 0 <= montage.columns - montage.rows <= 1
        assert montage.place(2) is montage.place(3 + count) is None


@pytest.mark.parametrize("radius", [(0, 0), (2, 0), (0, 1), (3, 1), (9, 9)])
def test_windows_are_clipped_at_the_border(radius: tuple[int, int]) -> None:
    values = np.random.default_rng(5).random((7, 9))
    mask = values > 0.8
    across, down = radius
    for y, x in itertools.product(range(7), range(9)):
        window = np.s_[max(0, y - down) : y + down + 1, max(0, x - across) : x + across + 1]
        assert box_mean(values, radius)[y, x] == pytest.approx(values[window].mean(), abs=1e-12)
        assert dilate(mask, radius)[y, x] == mask[window].any()


def test_components_are_kept_and_holes_filled_by_their_size() -> None:
    picture = np.array(
        [list("##....#"), list("##.###."), list("...#.#."), list("...###."), list("#..##.."), list("###.#..")]
    )
    mask = picture == "#"
    kept = keep_components(mask, mask, 4)
    assert kept.sum() == mask.sum() - 1
    assert not kept[0, 6]
    assert (keep_components(mask, mask, 5) == keep_components(mask, mask, 11)).all()
    assert not keep_components(mask, np.zeros_like(mask)).any()
    holes = np.argwhere(fill_holes(mask, 2) & ~mask).tolist()
    assert holes == [[2, 4]]
    assert (fill_holes(mask, 1) == mask).all()


def hollow(array_image: Make, width: int, height: int, *, block: tuple[int, int] | None = None) -> Any:
    """A picture of zeros of any size in 8 bits, which takes no memory, stored in blocks if given their size."""

    class Hollow(array_image):  # type: ignore[misc, valid-type] - a class that a fixture returns
        streams = False

        def read(self, box: Box, size: tuple[int, int], plane: int = 0) -> Any:
            del plane
            self.reads.append((box, size))
            return np.zeros((*size[::-1], 1), np.uint8), np.ones(size[::-1], np.bool_)

    class Stored(Hollow):
        def stored_level(self, _: tuple[float, float]) -> StoredLevel:
            return StoredLevel((1.0, 1.0), block or (0, 0))

        def may_hold(self, _: tuple[int, int]) -> None:
            return None

    shape = (height, width)
    pixels, valid = np.broadcast_to(np.uint8(0), (*shape, 1)), np.broadcast_to(np.True_, shape)
    return (Stored if block else Hollow)(pixels, valid)


MIB = 2**20


@pytest.mark.parametrize(("streams", "most"), [(False, 64 * MIB), (True, 1024 * MIB)])
def test_64_mib_are_read_at_a_time_and_1_gib_of_what_streams(array_image: Make, *, streams: bool, most: int) -> None:
    image = hollow(array_image, 2**14, 2**18)  # rows of 1 MiB
    image.streams = streams
    shares: list[float] = []
    read_overview(image, limit=2**12, on_progress=shares.append)
    assert {box.width * box.height for box, _ in image.reads} == {most}
    assert len(image.reads) == 2**32 // most
    rows = len({box.y0 for box, _ in image.reads})
    assert shares == pytest.approx([(row + 1) / rows for row in range(rows)])


def test_the_share_that_is_read_ends_at_1_where_the_last_rows_are_fewer(
    array_image: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "_BYTES", 40 * 3)
    shares: list[float] = []
    read_overview(array_image(np.zeros((10, 40, 1), np.uint8)), on_progress=shares.append)
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1.0])


@pytest.mark.parametrize(("more", "sampled"), [(0, False), (1, True)])
def test_maps_of_more_than_4_gib_are_sampled_in_512_mib(array_image: Make, more: int, *, sampled: bool) -> None:
    """Blocks of 1 MiB, 128 × 32 of them or a column more."""
    image = hollow(array_image, 2**17 + 1024 * more, 2**15, block=(1024, 1024))
    assert (read_overview(image, limit=64).sampled is not None) == sampled
    read = sum(box.width * box.height for box, _ in image.reads)
    assert 0.9 * 512 * MIB < read <= 512 * MIB if sampled else read == 4096 * MIB


@pytest.mark.parametrize(("width", "block", "read"), [(4, 16, 4096), (1024, 1024, 512)])
def test_at_most_4096_blocks_are_sampled(array_image: Make, width: int, block: int, read: int) -> None:
    """Of a column of blocks of 64 bytes, or of 1 MiB."""
    image = hollow(array_image, width, 2**33, block=(width, block))
    assert read_overview(image, limit=5000).sampled is not None
    assert len(image.reads) == read


@pytest.mark.parametrize(("side", "lost"), [(32, 32), (33, 16)])
def test_a_block_of_32_pixels_is_not_halved(array_image: Make, coordinates: Make, side: int, lost: int) -> None:
    readable = read_overview(array_image(coordinates(side, 4), damaged=[Box(0, 0, 1, 1)])).readable
    assert not readable[:, :lost].any()
    assert readable[:, lost:].all()


def test_an_overview_has_2048_pixels_and_a_montage_25_planes(array_image: Make) -> None:
    image = array_image(np.zeros((1, 5000, 1), np.uint8))
    assert read_overview(image).valid.shape == (1, 2048)
    assert len(Montage.of(replace(image.info, planes=image.info.planes * 40)).planes) == 25
    assert Montage((1, 5000)).planes == (0,)


def test_of_large_reduced_pixels_one_is_read_at_a_time(array_image: Make) -> None:
    image = hollow(array_image, 2**14, 2**14)
    read_overview(image, limit=2)  # each of 64 MiB
    assert len(image.reads) == 4
