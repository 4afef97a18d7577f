"""The method of deepbet: the brain in T1-weighted MR, found in the whole volume and outlined in its box.

    volume, RAS ── nearest, 128³ ──▶ network ──▶ box, 10 % wider at each side ── nearest, 256³ ──▶ network ──▶ mask

Fisch, L. et al. deepbet: Fast brain extraction of T1-weighted MRI using convolutional neural networks. Computers in
Biology and Medicine, 2024, 179, 108845. https://doi.org/10.1016/j.compbiomed.2024.108845
"""

# torch's types do not cover what is used here:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...readers.errors import ModelError
from ...readers.scratch import scratch_array
from ..annotator import TORCH_BYTES, Cost
from ..checkpoints.memory import memory_errors
from ..checkpoints.torchscript import read_torchscript
from ..checkpoints.untrusted import wrap_errors
from ..scores import sigmoid
from .masks import Box, Mask, fill_holes, largest_component, sample, spread_slices
from .orientation import UNTURNED, AxesTriple, closest_axes
from .volume import LabelMap, Volume, Voxels

AXES: Final = "RAS"
_QUANTILES: Final = (0.005, 0.995)  # of the coarse volume: black and white
_MEAN, _STD = 0.449, 0.226  # to which volumes are normalised
_MARGIN: Final = 0.1  # of the box, at each side
_FILLED: Final = 0.02  # of a plane of the coarse volume: how much of it must be brain
_ACTIVATIONS: Final = 0.5 * 2**30  # bytes at the peak of the networks: measured


class DeepBet:
    """Two networks: one finds the brain's box, one outlines the brain in it."""

    def __init__(self, *, coarse: int = 128, fine: int = 256) -> None:
        """`coarse` and `fine` are the sides of the two networks' cubes, in voxels."""
        self._coarse, self._fine = (coarse,) * 3, (fine,) * 3
        self._networks: list[Any] = []

    def load(self, files: Sequence[Path]) -> None:
        """The network of the box, then that of the outline. Raises `ModelError`."""
        self._networks = [_load(path) for path in files]

    def segment(self, volume: Volume, subject: str) -> Iterator[LabelMap]:
        """Label 1 is the brain. Raises `ModelError` where all voxels have one value."""
        turn = closest_axes(volume.affine, AXES)
        shape = turn.shape(volume.shape)
        coarse = sample(volume, turn, (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2])), self._coarse)
        limits = _limits(coarse, subject)
        box = find_box(largest_component(self._run(0, coarse, limits) > 0), shape)
        labels = scratch_array(shape)
        if box is not None:
            logits, sides = self._run(1, sample(volume, turn, box, self._fine), limits), _sides(box)
            mask = scratch_array(sides, dtype=np.bool_)
            for number, plane in enumerate(spread_slices(logits > 0, UNTURNED, sides)):
                mask[number] = plane
            labels[box] = fill_holes(largest_component(mask))
            if volume.probabilities is not None:
                room = volume.probabilities.turned(turn).within(box)
                for number, plane in enumerate(spread_slices(sigmoid(logits), UNTURNED, sides)):
                    room.put(1, number, plane)
        straight = turn.invert(labels)
        for number in range(volume.shape[0]):
            yield np.ascontiguousarray(straight[number])

    def _run(self, number: int, voxels: Voxels, limits: tuple[float, float]) -> Voxels:
        import torch

        low, high = limits
        with torch.inference_mode(), memory_errors():
            x = torch.from_numpy(voxels).sub_(low).div_(high - low).clamp_(0, 1)
            x = x.sub_(x.mean()).div_(x.std()).mul_(_STD).add_(_MEAN)
            return self._networks[number](x[None, None])[0, 0].numpy()

    @staticmethod
    def cost(shape: tuple[int, int, int], spacing: tuple[float, float, float], weights: float) -> Cost:
        """Of a volume of that shape (slices, rows, columns) and weights of so many bytes."""
        del shape, spacing
        return Cost(weights, "float32", work=256**3, activations=_ACTIVATIONS, libraries=TORCH_BYTES)


def _sides(box: Box) -> AxesTriple:
    first, second, third = (part.stop - part.start for part in box)
    return first, second, third


def _limits(coarse: Voxels, subject: str) -> tuple[float, float]:
    import torch

    low, high = map(float, torch.from_numpy(coarse).quantile(torch.tensor(_QUANTILES)))
    if not low < high:
        rule = "must have voxels of different values"
        raise ModelError(subject, rule, value=f"{low:g}", remedy="Choose another series")
    return low, high


def find_box(coarse: Mask, shape: Sequence[int]) -> Box | None:
    """The box of a coarse mask in a volume of `shape`, with its margin; None where there is too little of it."""
    box: list[slice] = []
    for axis, length in enumerate(shape):
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(coarse.mean(axis=others) > _FILLED)
        if not len(found):
            return None
        first, last = int(found[0]), int(found[-1]) + 1
        scale = np.float32(length) / np.float32(coarse.shape[axis])
        centre = float(np.round(scale * np.float32((first + last) / 2)))
        size = float(np.round(np.float32(1 + 2 * _MARGIN) * (scale * np.float32(last - first))))
        box.append(slice(max(0, int(centre - size / 2)), min(length, int(centre + size / 2))))
    return box[0], box[1], box[2]


def _load(path: Path) -> Any:
    import torch

    from .linknet import LinkNet

    subject = f"network {path.name}"
    weights = read_torchscript(path, subject)
    remedy = "Check that it is the file that the card means"
    with wrap_errors(subject, "must have the weights of deepbet's network", remedy=remedy):
        with torch.device("meta"):
            network = LinkNet(len(weights["init.0.weight"]), len(weights["conv.0.weight"]))
        network.load_state_dict({name: value.float() for name, value in weights.items()}, assign=True)
    return network.eval()
