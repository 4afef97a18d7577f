"""The lift: an answer in canvas pixels becomes a finding in level-0 pixels. The one place where the two frames meet."""

import numpy as np
import shapely
from shapely.geometry import box

from ..readers.errors import ModelError
from ..readers.geometry import Points
from ..readers.regions import Region, Span
from .annotator import Answer, View
from .finding import Finding
from .finite import require_finite


def to_image_coordinates(answer: Answer, view: View) -> Finding:
    """An annotator's answer, where it is in the picture.

    Canvas pixels become absolute pixels of the image's analysis grid, and only those are scaled: two regions compute
    the same bits for a common seam. Coordinates are kept within the picture. An answer without geometry is about the
    region's core. Raises `ModelError` for an answer that lies wholly outside the picture or holds a number that is not
    finite, whichever annotator gave it.
    """
    region = view.region
    _check_numbers(answer, region)
    if answer.geometry is None:
        core = region.core
        geometry = box(core.x0, core.y0, core.x1, core.y1)
        cut = False
    else:
        gridded = shapely.transform(answer.geometry, lambda xy: _to_grid(xy, view))
        geometry = shapely.transform(gridded, lambda xy: _to_picture(xy, region))
        if geometry.area <= 0.0 < gridded.area:
            raise ModelError(
                f"answer {answer.label!r} on {region.key}",
                "it must lie on the picture",
                value=str(answer.geometry.bounds),
                remedy="Report this to the annotator's author: the region is listed as failed",
            )
        x0, y0, x1, y1 = gridded.bounds
        width, height = region.grid.shape
        cut = _touches(x0, x1, region.columns, width) or _touches(y0, y1, region.rows, height)
    return Finding(
        label=answer.label,
        geometry=geometry,
        kind=answer.kind,
        score=answer.score,
        text=answer.text,
        cut=cut,
        numbers=answer.numbers,
        notes=answer.notes,
        seen=_window(answer, view) if answer.kind == "box" else None,
        plane=region.plane,
    )


def _check_numbers(answer: Answer, region: Region) -> None:
    held = [*answer.numbers.values(), *([] if answer.score is None else [answer.score])]
    corners = () if answer.geometry is None else shapely.get_coordinates(answer.geometry).ravel()
    of = f"answer {answer.label!r} on {region.key}"
    require_finite(np.array([*held, *corners], dtype=np.float64), "numbers", of=of)


def _window(answer: Answer, view: View) -> tuple[float, float, float, float]:
    """Where a box was seen, in level-0 pixels within the picture."""
    x0, y0, x1, y1 = answer.seen or (0.0, 0.0, *view.grid.size)
    corners = _to_picture(_to_grid(np.array([[x0, y0], [x1, y1]]), view), view.region)
    (left, top), (right, bottom) = corners.tolist()
    return left, top, right, bottom


def _to_grid(canvas_xy: Points, view: View) -> Points:
    """Canvas pixels (N, 2) → absolute pixels of the analysis grid (N, 2)."""
    return view.grid.to_region(canvas_xy) + np.array([view.region.columns.start, view.region.rows.start])


def _to_picture(grid_xy: Points, region: Region) -> Points:
    """Pixels of the analysis grid (N, 2) → level-0 pixels (N, 2) within the picture; the last grid line is its rim."""
    size = np.asarray(region.grid.size, dtype=np.float64)
    inner = np.clip(grid_xy * np.asarray(region.grid.scale), 0.0, size)
    return np.where(grid_xy >= np.asarray(region.grid.shape), size, inner)


def _touches(low: float, high: float, span: Span, length: int) -> bool:
    """Whether something from `low` to `high` reaches a rim of the core that is not the picture's own."""
    return (low <= span.core_start and span.core_start > 0) or (high >= span.core_stop and span.core_stop < length)
