"""Pictures that are arrays in memory: numpy, or xarray by its attributes. They are held while somebody uses them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final, cast
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from .errors import RequestError
from .geometry import Box, Placement
from .image import BaseImage, Channel, ImageInfo, Mask, Pixels
from .resample import axis_weights, pixel_edges, resample

SCHEME: Final = "memory://"
_MOST_CHANNELS: Final = 512
_RGB: Final = ("red", "green", "blue")
_ACROSS, _DOWN = ("x", "lon", "longitude"), ("y", "lat", "latitude")
_EVEN: Final = 1e-3  # of a step: how far coordinates may lie from an even spacing


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class ArrayHandle:
    """An array with its facts, readable by `ArrayReader` as `info.uri` for as long as this object lives."""

    info: ImageInfo
    pixels: Pixels
    valid: Mask | None


_HELD: WeakValueDictionary[str, ArrayHandle] = WeakValueDictionary()
_NUMBERS = count(1)


def register_array(
    array: Any,
    *,
    name: str = "array",
    transform: Sequence[float] | None = None,
    microns_per_pixel: Sequence[float] | None = None,
) -> ArrayHandle:
    """Hold an array for reading: (H, W) or (H, W, C) of numbers, or an xarray.DataArray of y, x and at most one more.

    Three channels of uint8 are red, green and blue, as image libraries have them; others have no colour until they are
    named. Masked pixels, NaN and an xarray's `_FillValue` are no data. `transform` maps (column, row, 1) of pixel
    corners to the world, as in `affine.Affine`; without one an xarray's `spatial_ref` or coordinates do.
    `microns_per_pixel` (x, y) makes it a slide. Raises `RequestError` for what is no such array.
    """
    found = _Labelled.of(array) if hasattr(array, "dims") and hasattr(array, "coords") else _Labelled(array)
    pixels, valid = _pixels(found)
    placement = Placement.pixels("none: an array")
    matrix = transform or found.transform
    if matrix is not None:
        a, b, c, d, e, f = (float(number) for number in list(matrix)[:6])
        placement = Placement(((a, b, c), (d, e, f)), "crs", source="transform of the array")
    elif microns_per_pixel is not None:
        x, y = microns_per_pixel
        placement = Placement(((x, 0.0, 0.0), (0.0, y, 0.0)), "um", source="microns_per_pixel")
    names = found.names or (_RGB if pixels.dtype == np.uint8 and pixels.shape[2] == len(_RGB) else ())
    channels = [Channel(str(number + 1), dtype=str(pixels.dtype)) for number in range(pixels.shape[2])]
    if len(names) == len(channels):
        common = _RGB if tuple(names) == _RGB else (None,) * len(names)
        channels = [
            replace(channel, name=name, common=colour)
            for channel, name, colour in zip(channels, names, common, strict=True)
        ]
    digest = hashlib.sha256(repr((pixels.shape, str(pixels.dtype))).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    info = ImageInfo(
        uri=f"{SCHEME}{next(_NUMBERS)}/{name}",
        reader=ArrayReader.name,
        size=(pixels.shape[1], pixels.shape[0]),
        channels=tuple(channels),
        placement=placement,
        id=name,
        fingerprint=digest.hexdigest(),
        kind="map" if microns_per_pixel is None or matrix is not None else "slide",
        personal=False,
    )
    held = ArrayHandle(info, pixels, valid)
    _HELD[info.uri] = held
    return held


class ArrayReader:
    """Arrays that are held in this process. It claims nothing else, and no file."""

    name = "array"
    isolated = True  # there is nothing to parse, and no other process has the array

    def identify(self, uri: str, head: bytes) -> int:  # noqa: ARG002 - an array has no bytes of a file
        """Certain of what is held here."""
        return 100 if uri in _HELD else 0

    def scan(self, uri: str, options: object) -> Sequence[ImageInfo]:  # noqa: ARG002 - an array has none
        """The array's facts. Raises `RequestError` where it is gone."""
        return (_held(uri).info,)

    def open(self, info: ImageInfo, channels: Sequence[str] | None = None) -> "ArrayImage":
        """Open for reading."""
        return ArrayImage(info, channels)


class ArrayImage(BaseImage):
    """An array, open. See `Image`."""

    def _open(self) -> None:
        self._held = _held(self._info.uri)

    def _read(self, box: Box, size: tuple[int, int]) -> tuple[Pixels, Mask]:
        held = self._held
        height, width = held.pixels.shape[:2]
        x = axis_weights(pixel_edges(box.x0, box.x1, size[0]), width)
        y = axis_weights(pixel_edges(box.y0, box.y1, size[1]), height)
        if x is None or y is None:
            blank = np.zeros((size[1], size[0], len(self._channel_indices)), dtype=held.pixels.dtype)
            return blank, np.zeros(blank.shape[:2], dtype=np.bool_)
        columns = slice(x.start, x.stop)

        def rows(top: int, bottom: int) -> tuple[Pixels, Mask | None]:
            native = held.pixels[top:bottom, columns][..., self._channel_indices]
            return native, None if held.valid is None else held.valid[top:bottom, columns]

        return resample(rows, y, x, len(self._channel_indices), held.pixels.dtype)

    def _close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _Labelled:
    """What an array says of itself besides its numbers, with the axes y, x and, where there is one, channels."""

    values: Any
    names: tuple[str, ...] = ()
    transform: tuple[float, ...] | None = None
    fill: float | None = None

    @classmethod
    def of(cls, array: Any) -> "_Labelled":
        """An xarray.DataArray's."""
        dims = [str(dim) for dim in array.dims]
        y = next((dim for dim in dims if dim.lower() in _DOWN), None)
        x = next((dim for dim in dims if dim.lower() in _ACROSS), None)
        others = [dim for dim in dims if dim not in {x, y}]
        if y is None or x is None or len(others) > 1:
            raise RequestError(
                "array",
                "an xarray has the dimensions y and x, and at most one more",
                value=", ".join(dims),
                remedy="Rename or select its dimensions",
            )
        ordered = array.transpose(y, x, *others)
        names: Sequence[object] = ()
        if others and others[0] in array.coords:
            names = list(array.coords[others[0]].values)
        stated = array.attrs.get("long_name")
        if isinstance(stated, list | tuple):
            names = cast("Sequence[object]", stated)
        texts = tuple(names) if all(isinstance(one, str) for one in names) else ()
        fill = array.attrs.get("_FillValue", getattr(array, "encoding", {}).get("_FillValue"))
        return cls(ordered.values, cast("tuple[str, ...]", texts), _transform_of(array, x, y), fill)


def _transform_of(array: Any, x: str, y: str) -> tuple[float, ...] | None:
    """The transform in an array's `spatial_ref`, else that of its coordinates where these are evenly spaced."""
    if text := str(_reference(array).get("GeoTransform", "")):
        c, a, b, f, d, e = (float(number) for number in text.split())
        return a, b, c, d, e, f
    if x not in array.coords or y not in array.coords:
        return None
    steps: list[tuple[float, float]] = []
    for axis in (x, y):
        middles = np.asarray(array.coords[axis].values, dtype=np.float64)
        if len(middles) < 2:
            return None
        step = float(middles[-1] - middles[0]) / (len(middles) - 1)
        if not step or float(np.abs(np.diff(middles) - step).max()) > _EVEN * abs(step):
            raise RequestError(
                "array",
                f"its coordinates along {axis} must be evenly spaced",
                remedy="Resample it to a regular grid, or drop these coordinates and give a transform",
            )
        steps.append((step, float(middles[0]) - step / 2))
    (a, c), (e, f) = steps
    return a, 0.0, c, 0.0, e, f


def crs_of(array: object) -> str:
    """The coordinate system that an xarray's `spatial_ref` names, as WKT; "" where it names none."""
    reference = _reference(array)
    return str(reference.get("crs_wkt") or reference.get("spatial_ref") or "")


def _reference(array: object) -> Mapping[str, object]:
    """The attributes of an xarray's coordinate `spatial_ref`, which says where it lies."""
    coords: Any = getattr(array, "coords", {})
    return dict(coords["spatial_ref"].attrs) if "spatial_ref" in coords else {}


def _pixels(found: _Labelled) -> tuple[Pixels, Mask | None]:
    """Pixels (H, W, C) and where they are valid, None for everywhere."""
    mask = cast("Any", np.ma.getmask(found.values))
    values: npt.NDArray[Any] = np.asarray(cast("Any", np.ma.getdata(found.values)))
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or 0 in values.shape or values.dtype.kind not in "uif" or values.shape[2] > _MOST_CHANNELS:
        raise RequestError(
            "array",
            f"it is numbers of shape (height, width) or (height, width, channels), at most {_MOST_CHANNELS} channels",
            value=f"{np.shape(found.values)} of {values.dtype}",
            remedy="Put channels last: numpy.moveaxis(array, 0, -1)",
        )
    valid = np.ones(values.shape[:2], dtype=np.bool_)
    if mask is not np.ma.nomask:
        valid &= ~np.asarray(mask).reshape(values.shape).any(axis=2)
    if values.dtype.kind == "f":
        valid &= ~np.isnan(values).any(axis=2)
    if found.fill is not None:
        valid &= ~(values == found.fill).all(axis=2)
    return values, None if bool(valid.all()) else valid


def _held(uri: str) -> ArrayHandle:
    held = _HELD.get(uri)
    if held is None:
        raise RequestError(uri, "the array must still be in memory", remedy="Keep what limner.annotate returned")
    return held
