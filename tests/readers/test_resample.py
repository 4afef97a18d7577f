"""Resampling against plain loops, and its promise: a pixel is the same whatever box it is read with."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.readers import resample as module
from limner.readers.resample import AxisWeights, axis_weights, pixel_edges, resample

Array = np.ndarray[Any, Any]


def read(
    source: np.ndarray[Any, Any], valid: np.ndarray[Any, Any], box: tuple[float, ...], size: tuple[int, int]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """`source` (H, W, C) read through a box, as a reader does it."""
    y = axis_weights(pixel_edges(box[1], box[3], size[1]), source.shape[0])
    x = axis_weights(pixel_edges(box[0], box[2], size[0]), source.shape[1])
    columns = slice(x.start, x.stop)
    return resample(lambda a, b: (source[a:b, columns], valid[a:b, columns]), y, x, source.shape[2], source.dtype)


def by_loop(source: Array, valid: Array, box: tuple[float, ...], size: tuple[int, int]) -> tuple[Array, Array]:
    """The same by the definition, pixel by pixel, in plain Python."""
    height, width, channels = source.shape
    steps = (box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1]

    def areas(low: float, step: float, length: int) -> dict[int, float]:
        high = low + step
        pixels = range(max(0, int(np.floor(low))), min(length, int(np.ceil(high))))
        shares = {i: min(high, i + 1) - max(low, i) for i in pixels}
        return {i: share for i, share in shares.items() if share > 1e-9}

    def weights(low: float, step: float, length: int) -> dict[int, float]:
        if step >= 1:
            return areas(low, step, length)
        centre = low + step / 2 - 0.5
        below = int(np.floor(centre))
        found: dict[int, float] = {}
        for i, share in ((below, 1 - (centre - below)), (below + 1, centre - below)):
            at = min(max(i, 0), length - 1)
            found[at] = found.get(at, 0.0) + share
        return found

    pixels = np.zeros((size[1], size[0], channels))
    usable = np.zeros((size[1], size[0]), dtype=bool)
    for r in range(size[1]):
        for c in range(size[0]):
            top, left = box[1] + r * steps[1], box[0] + c * steps[0]
            cover = {
                (i, j): a * b
                for i, a in areas(top, steps[1], height).items()
                for j, b in areas(left, steps[0], width).items()
            }
            good = sum(share for at, share in cover.items() if valid[at])
            if not cover or good < 0.5 * sum(cover.values()) - 1e-9:
                continue
            usable[r, c] = True
            taken = {
                (i, j): a * b
                for i, a in weights(top, steps[1], height).items()
                for j, b in weights(left, steps[0], width).items()
                if valid[i, j]
            }
            pixels[r, c] = sum(source[at].astype(float) * w for at, w in taken.items()) / sum(taken.values())
    return pixels, usable


CASES = [
    ((0, 0, 12, 9), (12, 9)),
    ((0, 0, 12, 9), (6, 3)),
    ((0, 0, 12, 9), (24, 18)),
    ((0, 0, 12, 9), (5, 4)),
    ((-2, -1, 13, 11), (15, 12)),
    ((-4, -4, 16, 12), (5, 4)),
    ((2.5, 1.25, 9.5, 8.25), (7, 7)),
    ((3, 2, 7, 4), (9, 7)),
    ((0, 0, 12, 9), (3, 36)),
    ((0, 0, 12, 9), (1, 1)),
    ((11.5, 8.5, 12.5, 9.5), (1, 1)),
    ((20, 20, 24, 24), (2, 2)),
]


@pytest.mark.parametrize(("box", "size"), CASES)
@pytest.mark.parametrize("holes", [0.0, 0.4, 1.0])
def test_resampling_agrees_with_its_definition(box: tuple[float, ...], size: tuple[int, int], holes: float) -> None:
    random = np.random.default_rng(1)
    source = random.random((9, 12, 2))
    valid = random.random((9, 12)) >= holes
    pixels, usable = read(source, valid, box, size)
    expected, good = by_loop(source, valid, box, size)
    assert np.array_equal(usable, good)
    assert np.abs(pixels - expected)[good].max(initial=0) < 1e-5


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int64", "float32"])
def test_native_scale_is_unchanged(dtype: str) -> None:
    source = np.arange(9 * 12).reshape(9, 12, 1).astype(dtype)
    pixels, usable = read(source, np.ones((9, 12), dtype=bool), (3, 2, 9, 7), (6, 5))
    assert pixels.dtype == dtype
    assert np.array_equal(pixels, source[2:7, 3:9])
    assert usable.all()


def test_integers_round_half_to_even_and_stay_in_range() -> None:
    source = np.array([[0, 1, 1, 2, 255, 255, 255, 254]], dtype=np.uint8)[:, :, None]
    pixels, _ = read(source, np.ones((1, 8), dtype=bool), (0, 0, 8, 1), (4, 1))
    assert pixels[0, :, 0].tolist() == [0, 2, 255, 254]


def test_the_largest_integers_do_not_wrap() -> None:
    source = np.full((2, 2, 1), np.iinfo(np.int64).max)
    pixels, _ = read(source, np.ones((2, 2), dtype=bool), (0, 0, 2, 2), (1, 1))
    assert pixels[0, 0, 0] > np.iinfo(np.int64).max - 2048


def test_invalid_values_do_not_leak() -> None:
    source = np.ones((8, 8, 1), dtype=np.float32)
    valid = np.ones((8, 8), dtype=bool)
    source[3, 3], valid[3, 3] = np.nan, False
    for size in ((4, 4), (16, 16), (5, 5)):
        pixels, usable = read(source, valid, (0, 0, 8, 8), size)
        assert (pixels[usable] == 1).all()


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    scale=st.one_of(st.sampled_from([1.0, 2.0, 3.0, 0.5, 0.25, 10 / 3, 1 / 3, 1.7]), st.floats(0.2, 9.0)),
    start=st.integers(-40, 200),
    length=st.integers(2, 60),
    cut=st.integers(1, 59),
    holes=st.booleans(),
)
def test_a_pixel_does_not_depend_on_its_box(scale: float, start: int, length: int, cut: int, *, holes: bool) -> None:
    cut = min(cut, length - 1)
    random = np.random.default_rng(7)
    source = random.integers(0, 60000, (90, 70, 2)).astype(np.uint16)
    valid = random.random((90, 70)) >= (0.3 if holes else 0.0)
    whole = read(source, valid, (start * scale, 0, (start + length) * scale, 30 * scale), (length, 30))
    for low, high in ((0, cut), (cut, length)):
        box = ((start + low) * scale, 10 * scale, (start + high) * scale, 25 * scale)
        part = read(source, valid, box, (high - low, 15))
        assert np.array_equal(part[1], whole[1][10:25, low:high])
        assert np.array_equal(part[0], whole[0][10:25, low:high])


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    scale=st.floats(0.05, 300.0), start=st.integers(-3000, 60000), length=st.integers(1, 4000), cut=st.integers(0, 4000)
)
def test_boxes_of_one_grid_agree_on_its_edges(scale: float, start: int, length: int, cut: int) -> None:
    cut = min(cut, length - 1)
    whole = pixel_edges(start * scale, (start + length) * scale, length)
    part = pixel_edges((start + cut) * scale, (start + length) * scale, length - cut)
    assert np.abs(whole[cut:] - part).max() <= 1e-11 * max(1.0, abs(whole).max())
    assert np.abs(whole - np.arange(start, start + length + 1) * scale).max() <= 1e-6 * scale + 1e-11 * abs(whole).max()


@pytest.mark.parametrize(
    "scale", [1.0, 3.0, 0.1, 1 / 3, 10 / 3, 1.7, 29.9976, 100.01290322580645 / 30, 0.0044008110671]
)
def test_boxes_of_one_grid_agree_bit_for_bit(scale: float) -> None:
    whole = pixel_edges(0.0, 60_000 * scale, 60_000)
    for start, stop in ((0, 1), (1, 3), (59_997, 60_000), (12_345, 13_689), (41_111, 41_112), (58_999, 59_007)):
        assert np.array_equal(pixel_edges(start * scale, stop * scale, stop - start), whole[start : stop + 1])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_thousands_of_pixels_in_one_agree_with_their_mean_and_bit_for_bit(dtype: str) -> None:
    scale = 1234.56
    source = np.random.default_rng(5).uniform(0, 255, (3, 9000, 2)).astype(dtype)
    valid = np.ones(source.shape[:2], dtype=bool)
    whole, usable = read(source, valid, (scale, 0, 7 * scale, 3), (6, 1))
    assert usable.all()
    for number in range(6):
        low, high = (1 + number) * scale, (2 + number) * scale
        one, _ = read(source, valid, (low, 0, high, 3), (1, 1))
        assert one.tobytes() == whole[:, number : number + 1].tobytes()
        at = np.arange(9000)
        cover = np.clip(np.minimum(at + 1, high) - np.maximum(at, low), 0, None)
        mean = (source.mean(axis=0, dtype=np.float64) * cover[:, None]).sum(axis=0) / cover.sum()
        assert np.abs(one[0, 0] - mean).max() <= (0.5 if dtype == "uint8" else 1e-4)


def test_bands_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    source, valid = random.random((60, 50, 3)).astype(np.float32), random.random((60, 50)) > 0.2
    at_once = [read(source, valid, (0, 0, 50, 60), size) for size in ((20, 25), (75, 90), (50, 60))]
    monkeypatch.setattr(module, "READ_BYTES", 1)
    monkeypatch.setattr(module, "PART", 1)
    for size, (pixels, usable) in zip(((20, 25), (75, 90), (50, 60)), at_once, strict=True):
        again = read(source, valid, (0, 0, 50, 60), size)
        assert np.array_equal(again[0], pixels)
        assert np.array_equal(again[1], usable)


def by_weights(source: Array, valid: Array, y: AxisWeights, x: AxisWeights) -> tuple[Array, Array]:
    """Means with float64 weights, source pixel after source pixel, first along y: the bits that are due."""

    def add(values: Array, index: Array, weight: Array) -> Array:
        total = np.zeros((index.shape[1], *values.shape[1:]))
        for at, by in zip(index, weight, strict=True):
            total += values[at].astype(np.float64) * by.reshape(-1, *[1] * (values.ndim - 1))
        return total

    def both(values: Array, name: str) -> Array:
        index, weight = ("cover_index", "cover") if name == "cover" else ("index", "weight")
        tall = add(values, getattr(y, index), getattr(y, weight))
        return add(tall.swapaxes(0, 1), getattr(x, index), getattr(x, weight)).swapaxes(0, 1)

    pixels, usable = np.zeros((y.count, x.count, source.shape[2]), source.dtype), np.zeros((y.count, x.count), bool)
    here = np.s_[y.first : y.last, x.first : x.last]
    share, area = both(valid, "weight"), both(valid, "cover")
    usable[here] = (area >= (0.5 - module.SNAP) * (y.total[:, None] * x.total)) & (share > 0)
    values = both(np.where(valid[:, :, None], source, source.dtype.type(0)), "weight")
    values = values / np.where(usable[here], share, 1.0)[:, :, None] + 0.0
    values[~usable[here]] = 0
    pixels[here] = np.rint(values) if source.dtype.kind in "iu" else values
    return pixels, usable


FACTORS = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 13.0, 1.5, 2.5, 1.25, 3.75, 10 / 3, 0.5, 0.75, 1.7]


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=400)
@given(data=st.data())
def test_means_have_the_bits_of_weights_in_float64(data: st.DataObject) -> None:
    """Integers are added as such and rows are read in pieces, in any order of memory: nothing of that shows."""
    dtype = np.dtype(
        data.draw(st.sampled_from(["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]))
    )
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    height, width, channels = (data.draw(st.integers(1, most)) for most in (70, 70, 3))
    fx = data.draw(st.sampled_from(FACTORS))
    fy = data.draw(st.sampled_from([fx, *FACTORS]))
    left, top = (data.draw(st.sampled_from([0.0, 1.0, 2.0, -3.0, 0.5, 0.3])) for _ in "xy")
    columns, rows = (max(1, round(length / by)) for length, by in ((width, fx), (height, fy)))
    if dtype.kind == "f":
        source = random.normal(0, 1000, (height, width, channels)).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        source = random.integers(limits.min, limits.max, (height, width, channels), dtype, endpoint=True)
    valid = random.random((height, width)) >= data.draw(st.sampled_from([0.0, 0.01, 0.4, 1.0]))
    if dtype.kind == "f":
        source[~valid] = np.nan
    y = axis_weights(pixel_edges(top, top + rows * fy, rows), height)
    x = axis_weights(pixel_edges(left, left + columns * fx, columns), width)
    planar, block = data.draw(st.booleans()), data.draw(st.sampled_from([1, 7, 16]))

    def read_rows(y0: int, y1: int) -> tuple[Array, Array]:
        native = source[y0:y1, x.start : x.stop]
        stored = np.ascontiguousarray(native.transpose(2, 0, 1)).transpose(1, 2, 0) if planar else native.copy()
        return stored, valid[y0:y1, x.start : x.stop]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "READ_BYTES", data.draw(st.sampled_from([1, 1000, 2**21])))
        patch.setattr(module, "PART", data.draw(st.sampled_from([1, 500, 2**18])))
        pixels, usable = resample(read_rows, y, x, channels, dtype, block=block)
    if x.exact and y.exact:
        pixels = np.where(usable[:, :, None], pixels, dtype.type(0))
    expected, good = by_weights(source, valid, y, x)
    assert np.array_equal(usable, good)
    assert pixels.dtype == dtype
    assert pixels.tobytes() == expected.tobytes()


@pytest.mark.parametrize("block", [1, 16, 64])
@pytest.mark.parametrize("factor", [2.0, 3.0, 2.7, 0.4, 40.0])
def test_rows_are_read_once_and_up_to_blocks(factor: float, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_BYTES", 1000)
    rows: list[tuple[int, int]] = []
    y = axis_weights(pixel_edges(0, 200, round(200 / factor)), 200)
    x = axis_weights(pixel_edges(0, 200, round(200 / factor)), 200)

    def read_rows(y0: int, y1: int) -> tuple[Array, None]:
        rows.append((y0, y1))
        return np.ones((y1 - y0, 200, 1), np.uint8), None

    resample(read_rows, y, x, 1, np.dtype(np.uint8), block=block)
    assert [first for first, _ in rows] == [0, *(stop for _, stop in rows[:-1])]
    assert rows[-1][1] == 200
    assert all(stop % block == 0 for _, stop in rows[:-1])
    assert max(stop - first for first, stop in rows) <= max(5, factor) + 1 + block


def test_only_what_is_needed_is_read() -> None:
    y, x = axis_weights(pixel_edges(100, 120, 10), 1000), axis_weights(pixel_edges(0, 30, 60), 1000)
    assert y is not None
    assert x is not None
    assert (y.start, y.stop) == (100, 120)
    assert (x.start, x.stop) == (0, 31)


@pytest.mark.parametrize("axis", [0, 1])
def test_sums_of_many_source_pixels_are_those_of_a_loop_bit_for_bit(axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as are added in one call; also where numpy would add in another order along the last axis."""
    random = np.random.default_rng(7)
    for channels, count in ((1, 1), (1, 5), (3, 1), (3, 5)):
        source = random.normal(0, 1000, (70, 70, channels))
        edges = np.linspace(3.3, 3.3 + 13.7 * count, count + 1)
        short = np.linspace(0, 70, 4)
        y, x = (edges, short) if axis == 0 else (short, edges)
        results: list[Array] = []
        for many in (module.GATHERED_TAPS, 10**9):
            monkeypatch.setattr(module, "GATHERED_TAPS", many)
            weights = axis_weights(y, 70), axis_weights(x, 70)
            columns = slice(weights[1].start, weights[1].stop)

            def rows(y0: int, y1: int, columns: slice = columns, source: Any = source) -> Any:
                return source[y0:y1, columns], None

            results.append(resample(rows, *weights, channels, np.dtype(np.float64))[0])
            monkeypatch.undo()
        assert (results[0] == results[1]).all()
