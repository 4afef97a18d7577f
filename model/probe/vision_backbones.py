"""Vision networks as encoders: the mean of the last layer's patch tokens, not the class token. Imports torch.

Only transformers' own classes and ours are made, never code of a checkpoint.
"""

# transformers' types do not say what its classes return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModel

from ...readers.errors import ModelError
from ..checkpoints.files import CheckpointFiles, normalisation
from ..checkpoints.loading import inference_errors, load_model
from ..vlm.fourkhd.checkpoint import FourKhdFiles
from ..vlm.fourkhd.model_config import VISION
from ..vlm.fourkhd.runtime import RuntimeOptions, load_network

Vector = npt.NDArray[np.float32]
UNUSED = ("pooler.", "head.", "classifier.")
"""Prefixes of weights that do not contribute to the features."""


class FourKhdVisionEncoder:
    """The vision encoder of a 4KHD checkpoint, in float32 on the CPU. Raises `ModelError` as loading does."""

    def __init__(self, files: FourKhdFiles, *, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._source = files.source
        self._network = load_network(files, RuntimeOptions(dtype="float32", device="cpu"), prefix=VISION)

    def __call__(self, picture: npt.NDArray[Any]) -> Vector:
        """The features (hidden,) of an image (tile, tile, 3) of values 0 to 255."""
        sizes = self._network.sizes.vision
        with inference_errors(self._source), torch.inference_mode():
            pixels = _normalised(_tensor(picture) / 255, sizes.mean, sizes.std)
            return self._network.vision_features(pixels)[0, int(sizes.class_token) :].mean(dim=0).numpy()


class Backbone:
    """A vision network that transformers knows by its model type, in float32 on the CPU.

    Images are normalised as the checkpoint's processor states, neither resized nor cropped. Raises `ModelError` where
    it cannot be loaded, a weight is missing or the processor states no normalisation.
    """

    def __init__(self, files: CheckpointFiles, *, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._source = files.source
        self._rescale, self._mean, self._std = normalisation(files.preprocessing(), files.source)
        self._model: Any = load_model(AutoModel, files, unused=UNUSED)

    def __call__(self, picture: npt.NDArray[Any]) -> Vector:
        """The features (hidden,) of an image (tile, tile, 3) of values 0 to 255."""
        with inference_errors(self._source), torch.inference_mode():
            pixels = _normalised(_tensor(picture) * self._rescale, self._mean, self._std)
            features = getattr(self._model(pixel_values=pixels), "last_hidden_state", None)
            if features is None or features.ndim not in {3, 4}:
                raise ModelError(
                    f"network of checkpoint {self._source}",
                    "must return features of patches, or a feature map",
                    remedy="Name another encoder",
                )
            return features[0].mean(dim=0 if features.ndim == 3 else (1, 2)).numpy()


def _tensor(picture: npt.NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None]


def _normalised(values: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    mean_, std_ = (torch.tensor(part, dtype=torch.float32)[:, None, None] for part in (mean, std))
    return (values - mean_) / std_
