"""The checks that every reader must pass. A plug-in calls `check_reader` in a test of its own.

    expected = ExpectedImage(native=array, valid=mask, points=((0.5, 0.5, 300005.0, 4999995.0),))
    check_reader(MyReader(), "image.xyz", expected)

A check raises `AssertionError` with the sentence of the interface in `limner.readers.image` that does not hold.
"""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import LimnerError
from .files import has_changed
from .geometry import Box
from .image import Image, ImageInfo, Mask, Pixels, Reader
from .options import options_of, parse_options
from .overrides import Overrides, PreparedOverrides
from .pseudonyms import longest_first, path_variants, redact_text


@dataclass(frozen=True, slots=True)
class ExpectedImage:
    """What a reader must return for one plane of an image, known from another source."""

    native: Pixels
    """Level-0 pixels (H, W, C)."""
    valid: Mask
    """Validity (H, W) of level 0."""
    points: tuple[tuple[float, ...], ...] = ()
    """Control points: (pixel x, pixel y, world …)."""
    tolerance_px: float = 1e-6
    """Largest error of the placement at `points`."""
    exact: bool = True
    """Whether reduced reads are area averages of `native`: not with overviews, or bands of several resolutions."""
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    """Options of the reader and of `Overrides`."""
    plane: int = 0


def check_reader(reader: Reader, uri: str, expected: ExpectedImage, *, image: int = 0) -> ImageInfo:
    """Check a reader on one plane of image number `image` of a file, and return the image's metadata."""
    info = _check_scan(reader, uri, expected, image)
    _check_privacy(reader, info)
    _check_placement(info, expected)
    with reader.open(info) as opened:
        _require(opened.info == info, "an open image has the metadata that it was opened from")
        _require(opened.channels == info.channels, "without a selection all channels are read, in order")
        _check_native(opened, expected)
        _check_outside(opened, expected)
        _check_reduced(opened, expected)
        _check_enlarged(opened, expected)
        _check_windows(opened, expected.plane)
        for plane in (-1, len(info.planes)):
            sentence = "reading a plane that an image does not have raises a LimnerError"
            _refuses(lambda plane=plane: opened.read(info.box, (1, 1), plane), sentence)
        before = _whole(opened, expected.plane)
    _refuses(lambda: opened.read(info.box, (1, 1)), "reading a closed image raises a LimnerError")
    with reader.open(info) as again:
        _same(_whole(again, expected.plane), before, "an image that is closed and opened again reads the same")
    _check_channels(reader, info, expected)
    return info


def scan_with(reader: Reader, uri: str, options: Mapping[str, object]) -> list[ImageInfo]:
    """Scan a file with one reader in this process and apply the overrides in `options`, as the registry does."""
    model = options_of(reader)
    own = {name: value for name, value in options.items() if name in model.model_fields}
    stated = {name: value for name, value in options.items() if name in Overrides.model_fields or name not in own}
    infos = reader.scan(uri, parse_options(model, own, f"reader {reader.name!r}"))
    overrides = PreparedOverrides(parse_options(Overrides, stated, "readers"))
    return [overrides.apply(info, reader) for info in infos]


def area_average(native: Pixels, valid: Mask, factor: int) -> tuple[npt.NDArray[np.float64], Mask]:
    """The mean of the valid pixels of each `factor` × `factor` block, and where at least half of a block is valid.

    Only pixels inside the image count.
    """
    height, width, channels = native.shape
    rows, columns = -(-height // factor), -(-width // factor)
    inside = np.zeros((rows * factor, columns * factor, 1))
    usable, values = np.zeros_like(inside), np.zeros((rows * factor, columns * factor, channels))
    inside[:height, :width] = 1
    usable[:height, :width, 0] = valid
    values[:height, :width][valid] = native[valid]

    def blocks(plane: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return plane.reshape(rows, factor, columns, factor, -1).sum(axis=(1, 3))

    share = blocks(usable)
    enough = (share > 0) & (2 * share >= blocks(inside))
    return np.where(enough, blocks(values) / np.maximum(share, 1), 0.0), enough[:, :, 0]


def _check_scan(reader: Reader, uri: str, expected: ExpectedImage, image: int) -> ImageInfo:
    infos = scan_with(reader, uri, expected.options)
    _require(infos == scan_with(reader, uri, expected.options), "scanning twice gives the same metadata")
    info = infos[image]
    _require(ImageInfo.from_json(info.to_json()) == info, "metadata survive JSON")
    _require(pickle.loads(pickle.dumps(info)) == info, "metadata survive pickling")  # noqa: S301 - our own bytes
    height, width, channels = expected.native.shape
    _require(info.reader == reader.name, "metadata name the reader that opens the image", info.reader)
    _require(info.size == (width, height), "size is a plane's (width, height) in level-0 pixels", info.size)
    _require(len(info.channels) == channels, "all channels are listed", len(info.channels))
    names = [channel.name for channel in info.channels]
    _require(len(set(names)) == len(names), "channel names are unique", names)
    _require(bool(info.files), "metadata list the files that the image is made of")
    _require(not has_changed(info), "the fingerprint is that of the files, or empty where they are remote")
    return info


def _check_privacy(reader: Reader, info: ImageInfo) -> None:
    kind = getattr(reader, "kind", info.kind)
    flat = info.kind == "slide" and info.placement.source in {"--microns-per-pixel", "table of slides"}
    _require(info.kind in {kind, "map"} or flat, "a reader of slides or studies declares its `kind`", kind)
    if not info.personal:
        return
    aliases = longest_first({form: "" for path in {info.uri, *info.files} for form in path_variants(path)})
    texts = [value for _, value in info.facts] + [channel.name for channel in info.channels]
    for text in (info.part, info.study, info.placement.source, *info.notes, *texts):
        sentence = "where names are personal, only uri, files and options contain a file's name"
        _require(redact_text(text, aliases) == text, sentence, text)


def _check_placement(info: ImageInfo, expected: ExpectedImage) -> None:
    _require(info.placement == info.planes[0].placement, "the placement of an image is that of its first plane")
    placement = info.planes[expected.plane].placement
    width, height = info.size
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height], [width / 3, height / 2]], dtype=np.float64)
    back = placement.to_pixel(placement.to_world(corners))
    _require(float(np.abs(back - corners).max()) < expected.tolerance_px, "to_pixel inverts to_world", back)
    if expected.points:
        table = np.asarray(expected.points, dtype=np.float64)
        miss = float(np.abs(placement.to_pixel(table[:, 2:]) - table[:, :2]).max())
        _require(miss < expected.tolerance_px, "the placement is right at known points", f"{miss:.3g} px off")
        world = placement.to_world(table[:, :2])
        _require(world.shape == table[:, 2:].shape, "the world has as many axes as the known points", world.shape)


def _check_native(image: Image, expected: ExpectedImage) -> None:
    pixels, valid = _whole(image, expected.plane)
    _require(pixels.dtype == expected.native.dtype, "pixels have the native dtype", pixels.dtype)
    _require(np.array_equal(valid, expected.valid), "validity at the native scale is as expected", valid.mean())
    sentence = "at the native scale valid pixels are unchanged"
    _require(np.array_equal(pixels[valid], expected.native[valid]), sentence)
    width, height = image.info.size
    x0, y0 = width // 3, height // 3
    part = image.read(Box(x0, y0, width, height), (width - x0, height - y0), expected.plane)
    _same(part, (expected.native[y0:, x0:], expected.valid[y0:, x0:]), "a part of the image is read as that part")


def _check_outside(image: Image, expected: ExpectedImage) -> None:
    width, height = image.info.size
    pixels, valid = image.read(Box(-3, -2, width + 5, height + 4), (width + 8, height + 6), expected.plane)
    _require(pixels.shape == (height + 6, width + 8, len(image.channels)), "pixels are (height, width, channels)")
    _require(valid.shape == (height + 6, width + 8) and valid.dtype == bool, "validity is (height, width) booleans")
    inside = np.zeros_like(valid)
    inside[2 : height + 2, 3 : width + 3] = True
    _require(not valid[~inside].any(), "pixels outside the image are invalid")
    _require(np.array_equal(valid[inside], expected.valid.ravel()), "a box beyond the image contains all of it")
    _, nowhere = image.read(Box(width + 10, height + 10, width + 14, height + 13), (4, 3), expected.plane)
    _require(nowhere.shape == (3, 4) and not nowhere.any(), "a box outside the image is invalid everywhere")


def _check_windows(image: Image, plane: int) -> None:
    """Read the same grid at once and in four windows."""
    width, height = image.info.size
    for scale in (1.0, 2.0, 3.0, 0.5, 1.7, 7 / 3):
        columns, rows = max(2, int(np.ceil(width / scale))), max(2, int(np.ceil(height / scale)))
        pixels, valid = image.read(Box(0, 0, columns * scale, rows * scale), (columns, rows), plane)
        for top, bottom in pairwise((0, rows // 2, rows)):
            for left, right in pairwise((0, columns // 2, columns)):
                box = Box(left * scale, top * scale, right * scale, bottom * scale)
                part = image.read(box, (right - left, bottom - top), plane)
                whole = pixels[top:bottom, left:right], valid[top:bottom, left:right]
                _same(part, whole, f"a pixel is the same from whatever box it is read, at a scale of {scale:g}")


def _check_enlarged(image: Image, expected: ExpectedImage) -> None:
    width, height = image.info.size
    pixels, valid = image.read(Box(0, 0, width, height), (2 * width, 2 * height), expected.plane)
    nearest = np.repeat(np.repeat(expected.valid, 2, axis=0), 2, axis=1)
    _require(np.array_equal(valid, nearest), "an enlarged pixel is valid where the pixel that it lies in is")
    if expected.valid.any():
        values, usable = expected.native[expected.valid].astype(np.float64), pixels[valid].astype(np.float64)
        near = 1e-9 * float(np.abs(values).max())
        between = (usable >= values.min(axis=0) - near).all() and (usable <= values.max(axis=0) + near).all()
        _require(bool(between), "enlarging stays between the values of valid pixels")


def _check_reduced(image: Image, expected: ExpectedImage) -> None:
    width, height = image.info.size
    for factor in (2, 5) if expected.exact else ():
        columns, rows = -(-width // factor), -(-height // factor)
        pixels, valid = image.read(Box(0, 0, columns * factor, rows * factor), (columns, rows), expected.plane)
        mean, enough = area_average(expected.native, expected.valid, factor)
        _require(np.array_equal(valid, enough), "a reduced pixel is valid where half of its footprint in the image is")
        near = 0.5 + 1e-6 if np.issubdtype(pixels.dtype, np.integer) else 1e-5 * max(1.0, float(np.abs(mean).max()))
        off = np.abs(pixels[valid].astype(np.float64) - mean[valid]).max() if valid.any() else 0.0
        _require(bool(off <= near), f"reduced {factor} times, a pixel is the mean of its valid footprint", off)


def _check_channels(reader: Reader, info: ImageInfo, expected: ExpectedImage) -> None:
    """Read all channels in reverse, the first one, and the last one renamed, as --bands does."""
    order = list(range(len(info.channels)))[::-1]
    renamed = tuple(replace(channel, name=f"named {at}") for at, channel in enumerate(info.channels))
    for described, chosen, sentence in (
        (info, order, "selected channels are read in the order of the selection"),
        (info, [0], "one selected channel is read alone"),
        (replace(info, channels=renamed), [order[0]], "channels have the names in the metadata, whatever the file has"),
    ):
        with reader.open(described, [described.channels[at].name for at in chosen]) as image:
            _require(image.channels == tuple(described.channels[at] for at in chosen), sentence)
            pixels, valid = _whole(image, expected.plane)
        _require(pixels.shape[2] == len(chosen), sentence, pixels.shape)
        sure = expected.valid & valid
        _require(np.array_equal(pixels[sure], expected.native[:, :, chosen][sure]), sentence)
    _refuses(lambda: reader.open(info, ["no such channel"]), "selecting an unknown channel raises a LimnerError")


def _whole(image: Image, plane: int) -> tuple[Pixels, Mask]:
    return image.read(image.info.box, image.info.size, plane)


def _same(one: tuple[Pixels, Mask], other: tuple[Pixels, Mask], sentence: str) -> None:
    _require(np.array_equal(one[1], other[1]), sentence, "validity differs")
    _require(np.array_equal(one[0][one[1]], other[0][other[1]]), sentence, "values differ")


def _refuses(function: Callable[[], object], sentence: str) -> None:
    try:
        function()
    except LimnerError:
        return
    raise AssertionError(sentence)


def _require(holds: bool, sentence: str, found: Any = None) -> None:
    if not holds:
        raise AssertionError(sentence if found is None else f"{sentence} (found: {found})")
