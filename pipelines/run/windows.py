"""Windows of studies: what an overview shows in its window, and the window that a model states."""

from collections import Counter
from dataclasses import replace
from typing import Final

import numpy as np

from ...model.annotator import InputSpec
from ...readers.errors import ModelError, ReadError, RequestError
from ...readers.image import ImageInfo
from ...readers.overview import Montage, ReducedImage, read_overview
from ...readers.registry import open_image
from ...readers.render import Stretch, Visibility, display_stretch, fit_stretch, visibility, with_window
from ..config import Settings

NOT_VISIBLE: Final = "nothing visible in this window"
"""Why a region is unreadable that its window shows all black or all white."""


def visibility_note(info: ImageInfo, overview: ReducedImage, montage: Montage, stretch: Stretch) -> str:
    """A note on the slices of a study's overview that show nothing or a single grey; "" where all show more."""
    if info.kind != "study":
        return ""
    if not overview.valid.any():
        return "" if not overview.readable.all() else "it has no valid pixels: all are padding"
    rows, columns = (
        length // count for length, count in zip(overview.valid.shape, (montage.rows, montage.columns), strict=True)
    )
    found: Counter[Visibility] = Counter()
    for plane in montage.planes:
        column, row = montage.place(plane) or (0, 0)
        part = np.s_[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
        found[visibility(info, overview.pixels[part], overview.valid[part], stretch)] += 1
    if not found["nothing"] and not found["one grey"]:
        return ""
    what, count = (NOT_VISIBLE, found["nothing"]) if found["nothing"] else ("a single grey", found["one grey"])
    where = "" if count == len(info.planes) else f" in {count} of {len(montage.planes)} slices checked"
    advice = "" if "flat" in dict(info.facts) else ": choose another with --set reader_options.window=CENTRE,WIDTH"
    return f"{what}{where}, {stretch.source}{advice}"


def with_visibility_note(info: ImageInfo) -> ImageInfo:
    """A study with a note where its middle slice shows nothing; unchanged where that cannot be read."""
    if info.kind != "study":
        return info
    montage = Montage(info.size, (len(info.planes) // 2,))
    try:
        with open_image(info) as image:
            overview = read_overview(image, montage=montage)
        fitted = fit_stretch(overview.pixels, overview.valid, info.channels)
        note = visibility_note(info, overview, montage, display_stretch(info, fitted))
    except ReadError:
        return info
    return replace(info, notes=(*info.notes, note)) if note else info


def with_model_window(info: ImageInfo, spec: InputSpec, settings: Settings) -> ImageInfo:
    """A study in Hounsfield units shown in the window that the model states, where it does; any other image as it is.

    Raises `ModelError` for a study of other values, `RequestError` where the user states a window, too, or one for
    colours.
    """
    stated_window = _stated_window(info, settings)
    if info.kind != "study" or spec.bands is not None or not isinstance(spec.limits, tuple):
        return info
    stated = "{:g} to {:g}".format(*spec.limits)
    if info.channels[0].quantity != "HU":
        remedy = "Choose a model that states no window"
        raise ModelError(
            info.uri,
            f"must have values in HU, as the model's window ({stated})",
            value=info.channels[0].quantity,
            remedy=remedy,
        )
    if stated_window:
        rule = f"must be the window of the model's training images ({stated} HU)"
        raise RequestError("reader_options.window", rule, value=stated_window, remedy="Leave it out")
    return with_window(info, spec.limits, "the window of the model's training images")


def _stated_window(info: ImageInfo, settings: Settings) -> str:
    """The reader option `window`. Raises `RequestError` for a study in colour, which has none."""
    window = settings.stated_options().get("window", "")
    if window and info.kind == "study" and len(info.channels) > 1:
        remedy = "Leave the window out, or give pictures in colour a run of their own"
        found = f"colours, window {window}"
        raise RequestError(info.uri, "must be grey to be shown in a window", value=found, remedy=remedy)
    return window
