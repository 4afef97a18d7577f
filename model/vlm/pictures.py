"""The pictures that a vision-language model is shown of a view, whichever model it is."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from ..annotator import View
from ..tiling import WHITE, join_tiles

Layout = Literal["canvas", "tiles"]
"""A region as one picture of the whole canvas, or its global view and then its tiles row by row."""


def pictures_of(view: View, layout: Layout) -> list[npt.NDArray[np.uint8]]:
    """A view's RGB pictures (H, W, 3) in the order in which they are shown."""
    if layout == "canvas":
        return [join_tiles(view.tiles, view.grid)]
    if view.global_view is None:
        msg = f"region {view.region.key}: tiles are shown after their global view"
        raise ValueError(msg)
    whole = np.clip(np.rint(view.global_view), 0, WHITE).astype(np.uint8)  # bicubic filtering overshoots
    return [whole, *view.tiles]
