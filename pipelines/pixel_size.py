"""The size of an image's pixels, and how it is written."""

from ..readers.geodesy import metres_per_pixel
from ..readers.image import ImageInfo, Kind


def ground_metres(info: ImageInfo) -> tuple[float, float] | None:
    """Metres on the ground per level-0 pixel along x and y, at the image centre; None where not known."""
    return metres_per_pixel(info.placement, (info.size[0] / 2, info.size[1] / 2))


def format_pixel_size(metres: float, kind: Kind = "map") -> str:
    """A pixel size in the unit of its kind of image, to four digits: 30 m, 0.5 µm, 0.6615 mm."""
    if kind == "study":
        return f"{metres * 1e3:.4g} mm"
    return f"{metres:.4g} m" if kind == "map" and metres >= 1e-3 else f"{metres * 1e6:.4g} µm"


def pixel_aspect(info: ImageInfo) -> tuple[float, float]:
    """The sides (x, y) of a pixel in any unit, where no placement states its size: square unless a study says more."""
    sides = [float(side) for side in map(dict(info.facts).get, ("col_mm", "row_mm")) if side]
    return (sides[0], sides[1]) if sides else (1.0, 1.0)
