"""The `threshold` annotator: pixels above a threshold of stain or colour, without a network.

The threshold is Otsu's (1979, A threshold selection method from gray-level histograms), found once for an image, so
that one object looks the same in every region. With `--instances` it is the classical segmentation of nuclei.
"""
# scipy states no types:
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ...readers.errors import ModelError, RequestError, did_you_mean
from ...readers.image import ImageInfo, Mask, Pixels
from ...readers.options import Options
from ...readers.slide.tissue import otsu
from ..annotator import Answer, InputSpec, ReadPicture, View
from ..class_maps import ClassScores, class_map_to_polygons, fill_invalid
from .stain import Stain, fit_stain

Quantity = Literal["haematoxylin", "eosin", "density", "red", "green", "blue"]

QUANTITIES: Final[tuple[Quantity, ...]] = get_args(Quantity)
STAINS: Final = ("eosin", "haematoxylin", "density")
"""Those that are fitted to the stains of a slide, in the order of `Stain`."""

_TRUNCATE: Final = 4.0  # of the Gaussian, in standard deviations
_TILE: Final = 512
_ANY: Final = 1e6  # the factor by which the pixel size may differ from the one stated


class ThresholdOptions(Options):
    """Options of `Threshold`."""

    checkpoint: str = Field(
        min_length=1,
        description="haematoxylin, eosin or density (amounts of stain of an H&E slide), or red, green or blue, 0 to 1.",
        examples=["--model threshold:haematoxylin", "--model threshold:red --set model_options.side=below"],
    )
    label: str = Field("object", min_length=1, max_length=100, description="Label of the pixels that are found.")
    side: Literal["above", "below"] = Field("above", description="Which side of the threshold is found.")
    value: float | None = Field(
        default=None, gt=0, lt=1, description="The threshold, 0 to 1. Default: Otsu's, of the image's pixels in tissue."
    )
    sigma: float = Field(1.0, ge=0, le=50, description="Standard deviation of a Gaussian, in pixels of the analysis.")


class Threshold:
    """An annotator of pixels above or below a threshold. Raises `RequestError` for an unknown quantity."""

    Options = ThresholdOptions

    def __init__(self, options: ThresholdOptions) -> None:
        self._options = options
        if options.checkpoint not in QUANTITIES:
            remedy = f"{did_you_mean(options.checkpoint, QUANTITIES)}Quantities: {', '.join(QUANTITIES)}"
            raise RequestError("the threshold's quantity", "must be known", value=options.checkpoint, remedy=remedy)
        self._quantity: Quantity = options.checkpoint

    @property
    def identity(self) -> Mapping[str, str]:
        """The quantity and the options, which decide all answers."""
        value = self._options.value
        return {
            "name": f"threshold of {self._quantity}",
            "version": "1",
            "annotator": "threshold",
            "side": self._options.side,
            "value": "Otsu 1979, of the image" if value is None else f"{value:g}",
            "sigma": f"{self._options.sigma:g}",
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """The one label."""
        return (self._options.label,)

    @property
    def colours(self) -> Mapping[str, str]:
        """No colour of its own."""
        return {}

    def input_spec(self, info: ImageInfo) -> InputSpec:
        """Rendered RGB at the image's own pixels, unless `--resolution` says otherwise. Raises `ModelError`."""
        if self._quantity in STAINS and info.kind != "slide":
            rule, remedy = "must be a slide for an amount of stain", "Choose red, green or blue"
            raise ModelError(info.id or info.uri, rule, value=info.kind, remedy=remedy)
        halo = math.ceil(_TRUNCATE * self._options.sigma)
        of = info.placement
        resolution = abs(of.matrix[0][0]) if of.unit == "um" else None
        return InputSpec(tile=_TILE + 2 * halo, halo=halo, resolution=resolution, unit="um", tolerates=_ANY)

    def check(self, specs: Sequence[InputSpec]) -> None:
        """Nothing is needed."""

    def load(self) -> None:
        """Nothing is loaded."""

    def fit(
        self,
        spec: InputSpec,
        overview: npt.NDArray[np.uint8],
        tissue: npt.NDArray[np.bool_],
        valid: npt.NDArray[np.bool_],
    ) -> InputSpec:
        """See `SupportsFit`: the stains of a slide."""
        stain = fit_stain(overview, tissue, valid).to_json() if self._quantity in STAINS else None
        return replace(spec, fitted=json.dumps({"stain": stain}))

    def fit_picture(self, spec: InputSpec, read: ReadPicture) -> InputSpec:
        """See `SupportsPictureFit`: the threshold, of pixels that are smoothed as those of tiles are."""
        fitted: dict[str, Any] = json.loads(spec.fitted or '{"stain": null}')
        value = self._options.value
        if value is None:
            pixels, valid = read()
            amounts = self._amounts(pixels, fitted["stain"])[valid]
            value = float(np.clip(otsu(amounts), 1e-6, 1 - 1e-6)) if amounts.size else 0.5
        return replace(spec, fitted=json.dumps({**fitted, "value": value}))

    def annotate(self, views: Sequence[View]) -> Sequence[Sequence[Answer]]:
        """The areas of each view; a score is 0.5 at the threshold, and 1 for the largest value, or the least below."""
        return [self._annotate(view) for view in views]

    def _annotate(self, view: View) -> list[Answer]:
        fitted: dict[str, Any] = json.loads(view.spec.fitted or "{}")
        if "value" not in fitted:
            msg = "the threshold must be fitted to the image before it annotates"
            raise ValueError(msg)
        at: float = fitted["value"]

        def segment(tile: Pixels, valid: Mask) -> ClassScores:
            amounts = self._amounts(fill_invalid(tile, valid) if not valid.all() else tile, fitted["stain"])
            above = np.where(amounts > at, 0.5 + 0.5 * (amounts - at) / (1 - at), 0.5 * amounts / at)
            found = above if self._options.side == "above" else 1 - above
            return np.stack([1 - found, found], axis=2).astype(np.float32)

        return class_map_to_polygons(
            view, segment, classes=["none", self._options.label], background=[0], network=self.identity["name"]
        )

    def _amounts(self, pixels: npt.NDArray[np.uint8], stain: Mapping[str, Any] | None) -> npt.NDArray[np.float64]:
        """The quantity (H, W), 0 to 1, of rendered pixels (H, W, 3), smoothed."""
        from scipy.ndimage import gaussian_filter

        if stain is None:
            amounts = pixels[..., ("red", "green", "blue").index(self._quantity)] / 255.0
        else:
            amounts = Stain.from_json(stain)(pixels)[..., STAINS.index(self._quantity)].astype(np.float64)
        smooth = gaussian_filter(amounts, self._options.sigma, truncate=_TRUNCATE, mode="nearest")
        return np.clip(np.asarray(smooth, dtype=np.float64), 0.0, 1.0)
