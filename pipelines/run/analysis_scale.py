"""The pixel size at which an image is analysed: as asked for, as the model was made for, or the image's own."""

import math

from ...model.annotator import InputSpec
from ...model.montage import MAX_ENLARGEMENT, StackMontage
from ...readers.errors import ModelError, RequestError
from ...readers.image import ImageInfo
from ...readers.regions import snap_scale, whole_scale
from ..config import Settings
from ..pixel_size import format_pixel_size, ground_metres, pixel_aspect
from ..resolution import Resolution


def analysis_scale(
    info: ImageInfo, spec: InputSpec, settings: Settings, whole: int, montage: StackMontage | None
) -> tuple[float, float]:
    """Level-0 pixels per grid pixel: see `grid_scale`; those at which a cell of a montage is a tile."""
    if montage is None:
        return grid_scale(info, spec, settings.resolution, whole)
    scale, actual = montage.scale(spec.tile), ground_metres(info)
    if spec.resolution is not None and actual is not None:
        metres = spec.resolution * (1e-6 if spec.unit == "um" else 1.0)
        _check_model_resolution(info, actual, scale, metres, spec.tolerates)
    return scale


def grid_scale(info: ImageInfo, spec: InputSpec, resolution: str, whole: int = 0) -> tuple[float, float]:
    """Level-0 pixels per grid pixel along x and y.

    An image that is shown `whole`, in at most so many tiles, is reduced until it fits. Otherwise the requested
    resolution comes first, then the annotator's, then the image's own. Pixels that are not square are
    made so, at the size of their shorter side, also where only the pixel aspect of a study is known. Raises
    `RequestError` where the pixel size must be known and is not, `ModelError` where it does not suit the model.
    """
    if spec.volume is not None:
        return 1.0, 1.0
    model_metres = spec.resolution
    if model_metres is not None and spec.unit == "um":
        model_metres *= 1e-6
    requested = Resolution.parse(resolution) or Resolution(model_metres)
    actual = ground_metres(info)
    if whole:
        pixel = actual or pixel_aspect(info)
        scale = whole_scale(info.size, pixel, tile=spec.tile, halo=spec.halo, hd_num=whole)
        if model_metres is not None and actual is not None:
            _check_model_resolution(info, actual, scale, model_metres, spec.tolerates)
        return scale
    if actual is None:
        if requested.metres is None and (model_metres is None or resolution):
            pixel = pixel_aspect(info)
            return snap_scale(min(pixel), pixel)
        cause = f"--resolution {resolution}" if requested.metres and resolution else "the model"
        raise RequestError(
            info.uri,
            f"must have a known pixel size, since {cause} needs it",
            value=f"no pixel size in {'its placement' if info.kind == 'map' else 'the file'} ({info.placement.source})",
            remedy=STATE_PIXEL_SIZE[info.kind] if "CRS" not in info.placement.source else STATE_CRS,
        )
    metres = min(actual) if requested.metres is None else requested.metres
    scale = snap_scale(metres, actual)
    if min(scale) < 1 / MAX_ENLARGEMENT:
        raise RequestError(
            info.uri,
            f"must not be enlarged more than {MAX_ENLARGEMENT} times",
            value=f"pixels of {format_pixel_size(max(actual))} to be analysed at {format_pixel_size(metres)}",
            remedy="Give a coarser --resolution",
        )
    if model_metres is not None:
        _check_model_resolution(info, actual, scale, model_metres, spec.tolerates)
    return scale


STATE_CRS = "State the coordinate reference system with --crs, such as --crs EPSG:32618"
"""What a user may do where a map has no coordinate reference system."""
_OWN_PIXELS = "--resolution native shows the model the picture's own pixels, unchecked"
STATE_PIXEL_SIZE = {
    "map": f"State --microns-per-pixel for a slide, or --metres-per-pixel for a map; {_OWN_PIXELS}",
    "slide": "State it with --microns-per-pixel, such as --microns-per-pixel 0.5, "
    f"or for many slides with --set reader_options.spacing_csv=slides.csv; {_OWN_PIXELS}",
    "study": "Leave --resolution out, give --whole, or choose a model that works at any pixel size",
}
"""What a user may do where the pixel size of a kind of image is not known."""


def _check_model_resolution(
    info: ImageInfo, actual: tuple[float, float], scale: tuple[float, float], model_metres: float, tolerance: float
) -> None:
    """Raise `ModelError` where the analysed pixels, or the detail in them where enlarged, do not suit the model."""
    analysed = math.sqrt(actual[0] * scale[0] * actual[1] * scale[1])
    detail = math.sqrt(actual[0] * actual[1] * max(1.0, scale[0]) * max(1.0, scale[1]))
    limit = tolerance * (1.0 + 1e-6)
    for metres, name in ((analysed, "analysed"), (detail, "image")):
        if not 1 / limit <= metres / model_metres <= limit:
            raise ModelError(
                info.uri,
                f"must have pixels within a factor {tolerance:g} of the {format_pixel_size(model_metres)} of the model",
                value=f"{name} pixels of {format_pixel_size(metres)}",
                remedy="Leave out --resolution and --whole if the image is fine enough, or choose another model",
            )
