"""How finely an image is looked at: as was asked, as the annotator was made for, or at the picture's own size."""

import math

from ...model.annotator import InputSpec
from ...readers.errors import ModelError, RequestError
from ...readers.geodesy import metres_per_pixel
from ...readers.image import ImageInfo
from ...readers.regions import snap_scale
from ..config import Settings
from .resolution import Resolution, format_metres

MOST_ENLARGED = 16


def ground_metres(info: ImageInfo) -> tuple[float, float] | None:
    """Metres on the ground of a level-0 pixel along x and y in the image's middle; None where nothing tells."""
    return metres_per_pixel(info.placement, (info.size[0] / 2, info.size[1] / 2))


def grid_scale(info: ImageInfo, spec: InputSpec, settings: Settings) -> tuple[float, float]:
    """Level-0 pixels a grid pixel. Raises where the ground size must be known and is not, or does not suit the model.

    What was asked for comes first, then what the annotator was made for, then the picture's own. Pixels that are not
    square, also where only the shape of a study's is known, are seen as if they were, at the finer side's size.
    """
    made_for = spec.resolution
    if made_for is not None and spec.unit == "um":
        made_for *= 1e-6
    wanted = Resolution.parse(settings.resolution) or Resolution(made_for)
    actual = ground_metres(info)
    if actual is None:
        if wanted.metres is None and made_for is None:
            sides = [float(side) for side in map(dict(info.facts).get, ("col_mm", "row_mm")) if side]
            return snap_scale(min(sides), (sides[0], sides[1])) if sides else (1.0, 1.0)
        asked = f"--resolution {settings.resolution}" if wanted.metres and settings.resolution else "the model"
        raise RequestError(
            info.uri,
            f"the size of its pixels must be known, since {asked} needs it",
            value=f"no size in {'its placement' if info.kind == 'map' else 'the file'} ({info.placement.source})",
            remedy=_way_out(info),
        )
    scale = snap_scale(min(actual) if wanted.metres is None else wanted.metres, actual)
    if min(scale) < 1 / MOST_ENLARGED:
        raise RequestError(
            info.uri,
            f"pixels are not enlarged more than {MOST_ENLARGED} times, since that shows nothing more",
            value=f"pixels of {format_metres(max(actual))} to be seen at {format_metres(wanted.metres or min(actual))}",
            remedy="Give a coarser --resolution",
        )
    if made_for is not None:
        _refuse_unsuited(info, actual, scale, made_for, spec.tolerates)
    return scale


def _way_out(info: ImageInfo) -> str:
    """What a person can do where an image does not say how large its pixels are."""
    if info.kind == "slide":
        return (
            "State it with --microns-per-pixel, for example --microns-per-pixel 0.5, "
            "or for many slides with --set reader_options.spacing_csv=slides.csv"
        )
    if info.kind == "study":
        return "Leave --resolution out, or choose a model that works at any pixel size"
    return "State it with --crs, for example --crs EPSG:32618, where the file has a geotransform"


def _refuse_unsuited(
    info: ImageInfo, actual: tuple[float, float], scale: tuple[float, float], made_for: float, tolerates: float
) -> None:
    """Raise `ModelError` where pixels as seen, or the detail in them where they are enlarged, do not suit the model."""
    seen = math.sqrt(actual[0] * scale[0] * actual[1] * scale[1])
    detail = math.sqrt(actual[0] * actual[1] * max(1.0, scale[0]) * max(1.0, scale[1]))
    slack = tolerates * (1.0 + 1e-6)
    for metres, word in ((seen, "pixels seen at"), (detail, "pixels of the picture of")):
        if not 1 / slack <= metres / made_for <= slack:
            raise ModelError(
                info.uri,
                f"the model was made for pixels of {format_metres(made_for)} and works within a factor {tolerates:g}",
                value=f"{word} {format_metres(metres)}",
                remedy="Leave --resolution out where the picture is fine enough, or choose another model",
            )
