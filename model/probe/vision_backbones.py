"""Vision networks as encoders: a picture in, one vector out. Only transformers' and our own classes are made.

A picture's vector is the mean over its patches after the last layer: a class token learns its task, and a probe's is
another.
"""

# transformers' types do not say what its classes return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModel

from ...readers.errors import ModelError
from ..checkpoints.files import CheckpointFiles, normalisation
from ..checkpoints.loading import inference_errors, load_model
from ..vlm.fourkhd.files import CheckpointFiles as FourKhdFiles
from ..vlm.fourkhd.load import RuntimeOptions, fill
from ..vlm.fourkhd.sizes import VISION

Vector = npt.NDArray[np.float32]
POOLERS = ("pooler.", "head.", "classifier.")  # what stands behind the features, and is not used


class FourKhdVisionEncoder:
    """The vision tower of a 4KHD checkpoint, in float32 on the processor. Raises `ModelError` as loading does."""

    def __init__(self, files: FourKhdFiles, *, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._source = files.source
        self._network = fill(files, RuntimeOptions(dtype="float32", device="cpu"), only=VISION)

    def __call__(self, picture: npt.NDArray[Any]) -> Vector:
        """A picture (tile, tile, 3) of values 0 to 255 → the mean over its patches (hidden,)."""
        sizes = self._network.sizes.vision
        with inference_errors(self._source), torch.inference_mode():
            values = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None] / 255
            seen = self._network.features(_normal(values, sizes.mean, sizes.std))[0, int(sizes.class_token) :]
            return seen.mean(dim=0).numpy()


class Backbone:
    """Any vision network that transformers knows by its model type, in float32 on the processor.

    Red, green and blue become (value · rescale - mean) / std by what the checkpoint's processor says; it is not resized
    or cropped. Raises `ModelError` where it cannot be loaded, a weight is absent or the processor states no colours.
    """

    def __init__(self, files: CheckpointFiles, *, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._files = files
        self._rescale, self._mean, self._std = normalisation(files.preprocessing(), files.source)
        self._model: Any = load_model(AutoModel, files, unused=POOLERS)

    def __call__(self, picture: npt.NDArray[Any]) -> Vector:
        """A picture (tile, tile, 3) of values 0 to 255 → the mean over its patches or places (hidden,)."""
        with inference_errors(self._files.source), torch.inference_mode():
            values = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None] * self._rescale
            seen = getattr(self._model(pixel_values=_normal(values, self._mean, self._std)), "last_hidden_state", None)
            if seen is None or seen.ndim not in {3, 4}:
                raise ModelError(
                    f"checkpoint {self._files.source}",
                    "its network must answer a picture with features of its patches or places",
                    remedy="Name another encoder",
                )
            if seen.ndim == 4:
                return seen[0].mean(dim=(1, 2)).numpy()
            return seen[0].mean(dim=0).numpy()


def _normal(values: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    by_channel = (torch.tensor(part, dtype=torch.float32)[:, None, None] for part in (mean, std))
    return (values - next(by_channel)) / next(by_channel)
