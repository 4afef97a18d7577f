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
from ..checkpoints.foreign import foreign
from ..checkpoints.memory import memory
from ..checkpoints.untrusted import check_archive, read_bytes
from ..finite import require_choice
from ..top_label import Chances

MOST = 2**32
"""Bytes of a script's file."""


class Script:
    """A script that answers (1, `classes`) logits for a tile (1, 3, side, side); a single one is a sigmoid's.

    `threads` 0 leaves torch's number of threads as it is. Raises `ModelError` where torch cannot load it.
    """

    def __init__(self, path: Path, classes: int, *, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._classes = classes
        self._script: Any
        self._thing = f"network {path.name}"
        content = read_bytes(path, self._thing, most=MOST)
        with (
            foreign(self._thing, "torch must be able to load it as TorchScript", remedy="Check that the file is whole"),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", DeprecationWarning)  # the format's successor is another format
            check_archive(io.BytesIO(content))
            self._script = cast("Any", torch.jit).load(io.BytesIO(content), map_location="cpu")
            self._script.eval()

    def __call__(self, tile: npt.NDArray[np.uint8], *, mean: Sequence[float], std: Sequence[float]) -> Chances:
        """A tile (side, side, 3) → a score for each class: (value / 255 - mean) / std is shown, alone.

        The script is run as it is written, without the optimisations that would change its sums after a few calls.
        Raises `ModelError` where the answer is not of that many classes, or not finite.
        """
        values = torch.from_numpy(np.array(tile)).permute(2, 0, 1).to(torch.float32) / 255
        shown = (values - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        with (
            foreign(
                self._thing,
                f"it must take tiles of {tuple(shown.shape)} and answer with numbers",
                remedy="Correct patch_size_pixels or Resize in config.json",
                running=True,
            ),
            memory(),
            torch.inference_mode(),
            cast("Any", torch.jit).optimized_execution(False),
        ):
            logits = self._script(shown[None].to(torch.float32))
            found = cast("torch.Tensor", logits).reshape(-1).to(torch.float64)
        if len(found) != self._classes:
            raise ModelError(
                self._thing,
                f"it must answer {self._classes} numbers a tile, as config.json says",
                value=str(len(found)),
                remedy="Correct num_classes and class_names",
            )
        require_choice(found, of=self._thing)
        return (torch.sigmoid(found) if self._classes == 1 else torch.softmax(found, dim=0)).numpy()
