"""A TorchScript network of tiles. Imports torch.

A TorchScript file is a program: whoever loads one runs it. It is loaded only from the folder that a person named, from
the bytes whose sha256 goes into the manifest.
"""

# torch's types of numpy arrays are not complete:
# pyright: reportUnknownMemberType=false

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from ...readers.errors import ModelError
from ..finite import require_choice
from ..verdicts import Chances


class Script:
    """A script that answers (1, `classes`) logits for a tile (1, 3, side, side); a single one is a sigmoid's.

    `threads` 0 leaves torch's number of threads as it is. Raises `ModelError` where torch cannot load it.
    """

    def __init__(self, path: Path, classes: int, *, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._path = path
        self._classes = classes
        self._script: Any
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # the format's successor is another format
                self._script = cast("Any", torch.jit).load(io.BytesIO(path.read_bytes()), map_location="cpu")
        except Exception as error:  # torch and the archive's reader raise their own
            raise ModelError(
                f"network {path.name}",
                "torch must be able to load it as TorchScript",
                value=(str(error).strip().splitlines() or [type(error).__name__])[0][:300],
                remedy="Check that the file is whole",
            ) from error
        self._script.eval()

    def __call__(self, tile: npt.NDArray[np.uint8], *, mean: Sequence[float], std: Sequence[float]) -> Chances:
        """A tile (side, side, 3) → a score for each class: (value / 255 - mean) / std is shown, alone.

        The script is run as it is written, without the optimisations that would change its sums after a few calls.
        Raises `ModelError` where the answer is not of that many classes, or not finite.
        """
        values = torch.from_numpy(np.array(tile)).permute(2, 0, 1).to(torch.float32) / 255
        shown = (values - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        try:
            with torch.inference_mode(), cast("Any", torch.jit).optimized_execution(False):  # noqa: FBT003 - torch's own
                logits = self._script(shown[None].to(torch.float32))
        except Exception as error:  # whatever the script does
            raise ModelError(
                f"network {self._path.name}",
                f"it must take tiles of {tuple(shown.shape)}",
                value=(str(error).strip().splitlines() or [type(error).__name__])[-1][:300],
                remedy="Correct patch_size_pixels or Resize in config.json",
            ) from error
        found = cast("torch.Tensor", logits).reshape(-1).to(torch.float64)
        if len(found) != self._classes:
            raise ModelError(
                f"network {self._path.name}",
                f"it must answer {self._classes} numbers a tile, as config.json says",
                value=str(len(found)),
                remedy="Correct num_classes and class_names",
            )
        require_choice(found, of=f"network {self._path.name}")
        return (torch.sigmoid(found) if self._classes == 1 else torch.softmax(found, dim=0)).numpy()
