"""The method of HD-BET: the brain in MR of any usual weighting, in one pass over the whole head at 1.5 mm.

    slices ── cubic splines, 1.5 mm ──▶ standardised, padded ──▶ networks, averaged ──▶ largest part ── nearest ──▶ mask

Isensee, F. et al. Automated brain extraction of multisequence MRI using artificial neural networks. Human Brain
Mapping, 2019, 40, 4952-4964. https://doi.org/10.1002/hbm.24750
"""

# torch's and scipy's types do not cover what is used here:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...readers.errors import ModelError
from ...readers.scratch import scratch_array
from ..annotator import TORCH_BYTES, Cost
from ..checkpoints.memory import memory_errors
from ..checkpoints.tensors import read_tensors
from ..checkpoints.untrusted import wrap_errors
from .masks import largest_component, spread_slices
from .orientation import closest_axes
from .volume import LabelMap, Volume, Voxels

AXES: Final = "SAR"
"""Of the networks' input: its authors ask for the orientation of the MNI templates. Left and right do not matter, since
the networks were trained with mirror images."""
SPACING_MM: Final = 1.5
LEAST: Final = 128
"""Voxels a side of the networks' input."""
_DIVISOR: Final = 16  # of its sides
_SLABS: Final = 0.45 * 2**30  # bytes of what is worked on at once, with the libraries' copies: measured
_LEVELS: Final = 1.4  # of the two halves of the level of full resolution: those of all levels at the peak


class HdBet:
    """Networks of one kind, trained on different parts of the data, whose probabilities are averaged."""

    def __init__(self, *, flips: bool = False, least: int = LEAST) -> None:
        """With `flips`, each also sees the volume in its seven mirror images; `least` voxels are a side at least."""
        self._flips, self._least = flips, least
        self._networks: list[Any] = []

    def load(self, files: Sequence[Path]) -> None:
        """The networks. Raises `ModelError`."""
        self._networks = [_load(path) for path in files]

    def segment(self, volume: Volume, subject: str) -> Iterator[LabelMap]:
        """Label 1 is the brain. Raises `ModelError` where all voxels have one value."""
        turn = closest_axes(volume.affine, AXES)
        voxels = turn.apply(resize(volume, SPACING_MM))
        mean, std = float(voxels.mean()), float(voxels.std())
        if not std > 0:
            rule, remedy = "must have voxels of different values", "Choose another series"
            raise ModelError(subject, rule, value=f"{mean:g}", remedy=remedy)
        probability = self._probability((voxels - mean) / std)
        mask = largest_component(probability > 0.5)
        if volume.probabilities is not None:
            for number, plane in enumerate(spread_slices(probability, turn, volume.shape)):
                volume.probabilities.put(1, number, plane)
        yield from spread_slices(mask.view(np.uint8), turn, volume.shape)

    def _probability(self, voxels: Voxels) -> Voxels:
        import torch

        depth, height, width = voxels.shape
        x = torch.zeros(1, 1, *(_padded(length, self._least) for length in voxels.shape))
        x[0, 0, :depth, :height, :width] = torch.from_numpy(np.ascontiguousarray(voxels))
        total = torch.zeros(x.shape[2:])
        mirrors = list(product((False, True), repeat=3)) if self._flips else [(False,) * 3]
        with torch.inference_mode(), memory_errors():
            for network in self._networks:
                for mirror in mirrors:
                    axes = [axis for axis, flip in enumerate(mirror) if flip]
                    total += network(x.flip([axis + 2 for axis in axes])).flip(axes)
        total /= len(self._networks) * len(mirrors)
        return total[:depth, :height, :width].numpy()

    @staticmethod
    def cost(shape: tuple[int, int, int], spacing: tuple[float, float, float], weights: float) -> Cost:
        """Of a volume of that shape (slices, rows, columns), spacing in mm, and weights of so many bytes."""
        sides = [_padded(round(count * step / SPACING_MM), LEAST) for count, step in zip(shape, spacing, strict=True)]
        voxels = float(np.prod(sides))
        level = 4 * 2 * 21 * voxels
        return Cost(weights, "float32", work=voxels, activations=_LEVELS * level + _SLABS, libraries=TORCH_BYTES)


def _padded(length: int, least: int) -> int:
    return max(least, -(-length // _DIVISOR) * _DIVISOR)


def resize(volume: Volume, spacing: float) -> Voxels:
    """The volume at a spacing in mm along all axes, by cubic splines; 0 stands for what is not valid.

    The grid has the same corners and a whole number of voxels. Splines are separable: each slice is resized when it is
    read. Values stay within those of the volume, as scikit-image's `resize` keeps them.
    """
    shape = [int(np.round(step / spacing * count)) for count, step in zip(volume.shape, volume.spacing, strict=True)]
    slices, rows, columns = (spline_weights(*pair) for pair in zip(volume.shape, shape, strict=True))
    out = scratch_array((volume.shape[0], shape[1], shape[2]), dtype=np.float32)
    least, most = np.inf, -np.inf
    for number, values in enumerate(volume.slices()):
        valid = np.nan_to_num(values)
        least, most = min(least, float(valid.min())), max(most, float(valid.max()))
        out[number] = rows @ valid @ columns.T
    return np.tensordot(slices, out, axes=1).clip(least, most)


def spline_weights(length: int, count: int) -> npt.NDArray[np.float32]:
    """The weights (count, length) of values at the centres of equal voxels in those at as many others between the ends.

    Cubic B-splines; beyond the ends the last value is repeated.
    """
    from scipy import ndimage

    if length == count:
        return np.eye(length, dtype=np.float32)
    units = np.eye(length)
    zoomed: Any = ndimage.zoom(units, (count / length, 1), order=3, mode="nearest", grid_mode=True)
    return zoomed.astype(np.float32)


def _load(path: Path) -> Any:
    import torch

    from .hd_bet_network import HdBetNetwork

    subject = f"network {path.name}"
    weights = read_tensors(path, subject)
    remedy = "Check that it is the file that the card means"
    with wrap_errors(subject, "must have the weights of HD-BET's network", remedy=remedy):
        with torch.device("meta"):
            network = HdBetNetwork(len(weights["init_conv.bias"]))
        network.load_state_dict({name: value.float() for name, value in weights.items()}, assign=True)
    return network.eval()
