"""Images that are arrays in memory: numpy, or xarray with its coordinates."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, cast
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from .errors import RequestError
from .geometry import Box, Placement
from .image import BaseImage, Channel, ImageInfo, Mask, Pixels

SCHEME: Final = "memory://"
_MAX_CHANNELS: Final = 512
_RGB: Final = ("red", "green", "blue")
_X_NAMES, _Y_NAMES = ("x", "lon", "longitude"), ("y", "lat", "latitude")
_UNEVEN: Final = 1e-3  # of a step: deviation of coordinates from an even spacing


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class ArrayHandle:
    """An array with its metadata, which `ArrayReader` reads as `info.uri` for as long as this object lives."""

    info: ImageInfo
    pixels: Pixels
    valid: Mask | None


_ARRAYS: WeakValueDictionary[str, ArrayHandle] = WeakValueDictionary()
_COUNTER = count(1)


def register_array(
    array: Any,
    *,
    name: str = "array",
    transform: Sequence[float] | None = None,
    microns_per_pixel: Sequence[float] | None = None,
) -> ArrayHandle:
    """Register an array, (H, W) or (H, W, C) numbers or an xarray.DataArray of y, x and one more at most, as an image.

    Three channels of uint8 are red, green and blue; others have no colours until they are named. Masked pixels, NaN and
    the `_FillValue` of an xarray are nodata.

    transform: maps (column, row, 1) of pixel corners to the world, as `affine.Affine` does. By default the transform
        of an xarray's `spatial_ref` or coordinates.
    microns_per_pixel: (x, y), which makes the image a slide.

    Raises `RequestError` for any other array.
    """
    found = _ArrayMetadata.of(array) if hasattr(array, "dims") and hasattr(array, "coords") else _ArrayMetadata(array)
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
    count, dtype = pixels.shape[2], str(pixels.dtype)
    channels = [Channel(str(number + 1), dtype=dtype) for number in range(count)]
    if len(names) == count:
        common = _RGB if tuple(names) == _RGB else (None,) * count
        channels = [Channel(name, colour, dtype) for name, colour in zip(names, common, strict=True)]
    digest = hashlib.sha256(repr((pixels.shape, str(pixels.dtype))).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    info = ImageInfo(
        uri=f"{SCHEME}{next(_COUNTER)}/{name}",
        reader=ArrayReader.name,
        size=(pixels.shape[1], pixels.shape[0]),
        channels=tuple(channels),
        placement=placement,
        id=name,
        fingerprint=digest.hexdigest(),
        kind="map" if microns_per_pixel is None or matrix is not None else "slide",
        personal=False,
    )
    handle = ArrayHandle(info, pixels, valid)
    _ARRAYS[info.uri] = handle
    return handle


class ArrayReader:
    """Reads the arrays that are registered in this process, and no files."""

    name = "array"
    isolated = True  # nothing is parsed, and no other process has the array

    def identify(self, uri: str, head: bytes) -> int:  # noqa: ARG002 - an array has no bytes of a file
        """Return 100 for an array that is registered here."""
        return 100 if uri in _ARRAYS else 0

    def scan(self, uri: str, options: object) -> Sequence[ImageInfo]:  # noqa: ARG002 - an array has none
        """Return the metadata of an array. Raises `RequestError` where it is gone."""
        return (_find(uri).info,)

    def open(self, info: ImageInfo, channels: Sequence[str] | None = None) -> "ArrayImage":
        """Open for reading."""
        return ArrayImage(info, channels)


class ArrayImage(BaseImage):
    """An array, open. See `Image`."""

    def _open(self) -> None:
        self._array = _find(self._info.uri)

    def _read(self, box: Box, size: tuple[int, int]) -> tuple[Pixels, Mask]:
        from .resample import axis_weights, pixel_edges, resample

        array = self._array
        height, width = array.pixels.shape[:2]
        x = axis_weights(pixel_edges(box.x0, box.x1, size[0]), width)
        y = axis_weights(pixel_edges(box.y0, box.y1, size[1]), height)
        columns = slice(x.start, x.stop)

        def rows(top: int, bottom: int) -> tuple[Pixels, Mask | None]:
            native = array.pixels[top:bottom, columns][..., self._channel_indices]
            return native, None if array.valid is None else array.valid[top:bottom, columns]

        return resample(rows, y, x, len(self._channel_indices), array.pixels.dtype)

    def _close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _ArrayMetadata:
    """An array with the axes y, x and, where there is one, channels, and its metadata."""

    values: Any
    names: tuple[str, ...] = ()
    """Names of the channels."""
    transform: tuple[float, ...] | None = None
    fill: float | None = None
    """Nodata value."""

    @classmethod
    def of(cls, array: Any) -> "_ArrayMetadata":
        """The metadata of an xarray.DataArray."""
        dims = [str(dim) for dim in array.dims]
        y = next((dim for dim in dims if dim.lower() in _Y_NAMES), None)
        x = next((dim for dim in dims if dim.lower() in _X_NAMES), None)
        others = [dim for dim in dims if dim not in {x, y}]
        if y is None or x is None or len(others) > 1:
            rule = "must have the dimensions y and x, and at most one more"
            remedy = "Rename or select dimensions of the xarray"
            raise RequestError("the array", rule, value=", ".join(dims), remedy=remedy)
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
        if not step or float(np.abs(np.diff(middles) - step).max()) > _UNEVEN * abs(step):
            rule = f"must have evenly spaced coordinates along {axis}"
            remedy = "Resample it to a regular grid, or drop these coordinates and give a transform"
            raise RequestError("the array", rule, remedy=remedy)
        steps.append((step, float(middles[0]) - step / 2))
    (a, c), (e, f) = steps
    return a, 0.0, c, 0.0, e, f


def crs_of(array: object) -> str:
    """The CRS of an xarray's `spatial_ref` as WKT, "" if it has none."""
    reference = _reference(array)
    return str(reference.get("crs_wkt") or reference.get("spatial_ref") or "")


def _reference(array: object) -> Mapping[str, object]:
    """The attributes of an xarray's coordinate `spatial_ref`."""
    coords: Any = getattr(array, "coords", {})
    return dict(coords["spatial_ref"].attrs) if "spatial_ref" in coords else {}


def _pixels(found: _ArrayMetadata) -> tuple[Pixels, Mask | None]:
    """Pixels (H, W, C) and their validity (H, W), None where all are valid."""
    mask = cast("Any", np.ma.getmask(found.values))
    values: npt.NDArray[Any] = np.asarray(cast("Any", np.ma.getdata(found.values)))
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or 0 in values.shape or values.dtype.kind not in "uif" or values.shape[2] > _MAX_CHANNELS:
        rule = f"must be numbers (height, width) or (height, width, channels) with at most {_MAX_CHANNELS} channels"
        value = f"{np.shape(found.values)} of {values.dtype}"
        raise RequestError("the array", rule, value=value, remedy="Put channels last: numpy.moveaxis(array, 0, -1)")
    valid = np.ones(values.shape[:2], dtype=np.bool_)
    if mask is not np.ma.nomask:
        valid &= ~np.asarray(mask).reshape(values.shape).any(axis=2)
    if values.dtype.kind == "f":
        valid &= ~np.isnan(values).any(axis=2)
    if found.fill is not None:
        valid &= ~(values == found.fill).all(axis=2)
    return values, None if bool(valid.all()) else valid


def _find(uri: str) -> ArrayHandle:
    found = _ARRAYS.get(uri)
    if found is None:
        raise RequestError(uri, "must still be in memory", remedy="Keep what limner.annotate returned")
    return found
