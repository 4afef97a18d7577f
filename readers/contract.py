"""What every reader must do, ours or a plug-in's: run `check_reader` in a test of your own.

    truth = Truth(native=array, valid=mask, points=((0.5, 0.5, 300005.0, 4999995.0),))
    check_reader(MyReader(), "picture.xyz", truth)

Each check is a sentence of the seam in `limner.readers.image`, and raises `AssertionError` with that sentence.
"""

import pickle
from collections.abc import Mapping
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
    """What the picture holds: `native` (H, W, C) and `valid` (H, W) of level 0, known from elsewhere.

    `points` are rows (pixel x, pixel y, world …) that the placement must give within `tolerance_px`. `exact` says that
    reduced reads are area averages of `native`; False where the file has overviews, or bands of several resolutions.
    All of this is of one `plane`. `options` are the reader's own and those of `Overrides`.
    """

    native: Pixels
    valid: Mask
    points: tuple[tuple[float, ...], ...] = ()
    tolerance_px: float = 1e-6
    exact: bool = True
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    plane: int = 0


def check_reader(reader: Reader, uri: str, truth: ExpectedImage, *, image: int = 0) -> ImageInfo:
    """Hold a reader to the seam on one file, of which image number `image` is the one in `truth`; returns its facts.

    Of a stack each plane is checked by a call with a truth of its own.
    """
    info = _check_scan(reader, uri, truth, image)
    _check_privacy(reader, info)
    _check_placement(info, truth)
    with reader.open(info) as opened:
        _require(opened.info == info, "an open image has the facts that it was opened from")
        _require(opened.channels == info.channels, "an image opened without a choice delivers all channels in order")
        _check_native(opened, truth)
        _check_beyond(opened, truth)
        _check_reduced(opened, truth)
        _check_enlarged(opened, truth)
        _check_windows(opened, truth.plane)
        _check_planes(opened)
        again = _whole(opened, truth.plane)
    _check_closed(opened)
    with reader.open(info) as scan_options:
        _same(_whole(scan_options, truth.plane), again, "an image that was closed and opened again reads the same")
    _check_channels(reader, info, truth)
    _check_renamed(reader, info, truth)
    return info


def scan_with(reader: Reader, uri: str, options: Mapping[str, object]) -> list[ImageInfo]:
    """What the registry makes of one file's images with that reader, in this process: for tests of a reader."""
    model = options_of(reader)
    own = {name: value for name, value in options.items() if name in model.model_fields}
    stated = {name: value for name, value in options.items() if name in Overrides.model_fields or name not in own}
    infos = reader.scan(uri, parse_options(model, own, f"reader {reader.name!r}"))
    applied = PreparedOverrides(parse_options(Overrides, stated, "readers"))
    return [applied.apply(info, reader) for info in infos]


def area_average(native: Pixels, valid: Mask, factor: int) -> tuple[npt.NDArray[np.float64], Mask]:
    """The mean of the valid pixels of each `factor` × `factor` block, and where at least half of a block is valid.

    Blocks at the far edges count only what lies inside the picture.
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


def _check_scan(reader: Reader, uri: str, truth: ExpectedImage, image: int) -> ImageInfo:
    infos = scan_with(reader, uri, truth.options)
    _require(infos == scan_with(reader, uri, truth.options), "scanning twice gives the same facts")
    info = infos[image]
    _require(ImageInfo.from_json(info.to_json()) == info, "facts survive JSON")
    _require(pickle.loads(pickle.dumps(info)) == info, "facts survive pickling")  # noqa: S301 - our own bytes
    height, width, channels = truth.native.shape
    _require(info.reader == reader.name, "facts name the reader that opens the image", info.reader)
    _require(info.size == (width, height), "size is a plane's (width, height) in level-0 pixels", info.size)
    _require(len(info.channels) == channels, "there is one channel for each plane", len(info.channels))
    names = [channel.name for channel in info.channels]
    _require(len(set(names)) == len(names), "channel names are unique", names)
    _require(bool(info.files), "facts name the files that the image is made of")
    _require(not has_changed(info), "the fingerprint is that of the files, or empty where they are remote")
    return info


def _check_privacy(reader: Reader, info: ImageInfo) -> None:
    """The names of slides' and studies' files are told only where limner looks for them to hide them."""
    stated = getattr(reader, "kind", info.kind)
    _require(info.kind in {stated, "map"}, "a reader of slides or studies states its `kind`", stated)
    if not info.personal:
        return
    facts = [value for _, value in info.facts]
    names = [channel.name for channel in info.channels]
    for text in (info.part, info.study, info.placement.source, *info.notes, *facts, *names):
        told = dict.fromkeys((form for path in {info.uri, *info.files} for form in path_variants(path)), "")
        _require(
            redact_text(text, longest_first(told)) == text,
            "where names are personal, no fact but uri, files and options tells a file's name",
            text,
        )


def _check_placement(info: ImageInfo, truth: ExpectedImage) -> None:
    _require(info.placement == info.planes[0].placement, "the placement of an image is that of its first plane")
    placement = info.planes[truth.plane].placement
    width, height = info.size
    picture = np.array([[0, 0], [width, 0], [width, height], [0, height], [width / 3, height / 2]], dtype=np.float64)
    back = placement.to_pixel(placement.to_world(picture))
    _require(float(np.abs(back - picture).max()) < truth.tolerance_px, "pixel → world → pixel comes back", back)
    if truth.points:
        table = np.asarray(truth.points, dtype=np.float64)
        found = placement.to_pixel(table[:, 2:])
        miss = float(np.abs(found - table[:, :2]).max())
        _require(miss < truth.tolerance_px, "the placement puts known points where they are", f"{miss:.3g} px off")
        world = placement.to_world(table[:, :2])
        _require(world.shape == table[:, 2:].shape, "the world has as many axes as the known points", world.shape)


def _check_native(image: Image, truth: ExpectedImage) -> None:
    info = image.info
    pixels, valid = _whole(image, truth.plane)
    _require(pixels.dtype == truth.native.dtype, "pixels come in the native dtype", pixels.dtype)
    _require(np.array_equal(valid, truth.valid), "validity at the picture's own scale is the truth's", valid.mean())
    _require(
        np.array_equal(pixels[valid], truth.native[valid]), "at the picture's own scale valid pixels pass untouched"
    )
    width, height = info.size
    x0, y0 = width // 3, height // 3
    part, usable = image.read(Box(x0, y0, width, height), (width - x0, height - y0), truth.plane)
    _require(np.array_equal(usable, truth.valid[y0:, x0:]), "a part of the picture has the validity of that part")
    _require(np.array_equal(part[usable], truth.native[y0:, x0:][usable]), "a part of the picture is that part")


def _check_beyond(image: Image, truth: ExpectedImage) -> None:
    width, height = image.info.size
    pixels, valid = image.read(Box(-3, -2, width + 5, height + 4), (width + 8, height + 6), truth.plane)
    _require(pixels.shape == (height + 6, width + 8, len(image.channels)), "pixels are (height, width, channels)")
    _require(valid.shape == (height + 6, width + 8) and valid.dtype == bool, "validity is (height, width) booleans")
    inside = np.zeros_like(valid)
    inside[2 : height + 2, 3 : width + 3] = True
    _require(not valid[~inside].any(), "what lies outside the picture is invalid")
    _require(np.array_equal(valid[inside], truth.valid.ravel()), "a box beyond the picture still holds all of it")
    _, nowhere = image.read(Box(width + 10, height + 10, width + 14, height + 13), (4, 3), truth.plane)
    _require(nowhere.shape == (3, 4) and not nowhere.any(), "a box outside the picture is invalid everywhere")


def _check_windows(image: Image, plane: int) -> None:
    """The same lattice in one piece and in four: every pixel must come out the same."""
    width, height = image.info.size
    for scale in (1.0, 2.0, 3.0, 0.5, 1.7, 7 / 3):
        columns, rows = max(2, int(np.ceil(width / scale))), max(2, int(np.ceil(height / scale)))
        pixels, valid = image.read(Box(0, 0, columns * scale, rows * scale), (columns, rows), plane)
        across, down = (0, columns // 2, columns), (0, rows // 2, rows)
        for top, bottom in pairwise(down):
            for left, right in pairwise(across):
                box = Box(left * scale, top * scale, right * scale, bottom * scale)
                part = image.read(box, (right - left, bottom - top), plane)
                whole = pixels[top:bottom, left:right], valid[top:bottom, left:right]
                _same(part, whole, f"a pixel is the same from whatever box it is read, at {scale:g} px a pixel")


def _check_enlarged(image: Image, truth: ExpectedImage) -> None:
    width, height = image.info.size
    pixels, valid = image.read(Box(0, 0, width, height), (2 * width, 2 * height), truth.plane)
    nearest = np.repeat(np.repeat(truth.valid, 2, axis=0), 2, axis=1)
    _require(np.array_equal(valid, nearest), "enlarged, a pixel is valid where the pixel it lies in is")
    if truth.valid.any():
        values, usable = truth.native[truth.valid].astype(np.float64), pixels[valid].astype(np.float64)
        near = 1e-9 * float(np.abs(values).max())
        _require(
            bool((usable >= values.min(axis=0) - near).all() and (usable <= values.max(axis=0) + near).all()),
            "enlarging stays between the values of valid pixels",
        )


def _check_reduced(image: Image, truth: ExpectedImage) -> None:
    if not truth.exact:
        return
    width, height = image.info.size
    for factor in (2, 5):
        columns, rows = -(-width // factor), -(-height // factor)
        pixels, valid = image.read(Box(0, 0, columns * factor, rows * factor), (columns, rows), truth.plane)
        mean, enough = area_average(truth.native, truth.valid, factor)
        _require(np.array_equal(valid, enough), "reduced, a pixel is valid where half of its ground in the picture is")
        near = 0.5 + 1e-6 if np.issubdtype(pixels.dtype, np.integer) else 1e-5 * max(1.0, float(np.abs(mean).max()))
        off = np.abs(pixels[valid].astype(np.float64) - mean[valid]).max() if valid.any() else 0.0
        _require(bool(off <= near), f"reduced {factor} times, a pixel is the mean of its valid ground", off)


def _check_planes(image: Image) -> None:
    for plane in (-1, len(image.info.planes)):
        try:
            image.read(image.info.box, (1, 1), plane)
        except LimnerError:
            continue
        _require(False, "a plane that an image has not is refused with an error of limner's", plane)


def _check_closed(image: Image) -> None:
    try:
        image.read(image.info.box, (1, 1))
    except LimnerError:
        return
    _require(False, "a closed image refuses to be read with an error of limner's")


def _check_channels(reader: Reader, info: ImageInfo, truth: ExpectedImage) -> None:
    order = list(range(len(info.channels)))[::-1]
    with reader.open(info, [info.channels[at].name for at in order]) as image:
        _require(image.channels == tuple(info.channels[at] for at in order), "chosen channels come in the order asked")
        pixels, valid = _whole(image, truth.plane)
    _require(np.array_equal(pixels[valid], truth.native[:, :, order][valid]), "chosen channels hold their own pixels")
    with reader.open(info, [info.channels[0].name]) as image:
        pixels, valid = _whole(image, truth.plane)
    _require(pixels.shape[2] == 1, "one chosen channel is one plane", pixels.shape)
    sure = truth.valid & valid
    _require(np.array_equal(pixels[sure][:, 0], truth.native[:, :, 0][sure]), "one chosen channel holds its own pixels")
    try:
        reader.open(info, ["no such channel"])
    except LimnerError:
        return
    _require(False, "an unknown channel is refused with an error of limner's")


def _check_renamed(reader: Reader, info: ImageInfo, truth: ExpectedImage) -> None:
    """The user names channels with --bands: then they are known by those names."""
    renamed = tuple(replace(channel, name=f"named {at}") for at, channel in enumerate(info.channels))
    with reader.open(replace(info, channels=renamed), [renamed[-1].name]) as image:
        pixels, valid = _whole(image, truth.plane)
    sure = truth.valid & valid
    same = np.array_equal(pixels[sure][:, 0], truth.native[:, :, -1][sure])
    _require(same, "channels are known by the names in the facts, whatever the file calls them")


def _whole(image: Image, plane: int) -> tuple[Pixels, Mask]:
    return image.read(image.info.box, image.info.size, plane)


def _same(one: tuple[Pixels, Mask], other: tuple[Pixels, Mask], sentence: str) -> None:
    _require(np.array_equal(one[1], other[1]), sentence, "validity differs")
    _require(np.array_equal(one[0][one[1]], other[0][other[1]]), sentence, "values differ")


def _require(holds: bool, sentence: str, found: Any = None) -> None:
    if not holds:
        raise AssertionError(sentence if found is None else f"{sentence} (found: {found})")
