"""From a network's scores, row by row on its own voxels, to labels on the voxels of the series."""

# torch's types do not cover arrays:
# pyright: reportUnknownMemberType=false

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from ..checkpoints.memory import memory_errors
from ..checkpoints.untrusted import wrap_errors
from ..probabilities import LabelProbabilities
from .resampling import Resampler

CHUNK: Final = 2**23
"""Voxels of scores that are resampled at a time."""


def over_half(scores: torch.Tensor) -> torch.Tensor:
    """Where the sigmoid of logits is over a half, as nnU-Net decides on regions."""
    return torch.sigmoid(scores.float()) > 0.5


@dataclass(frozen=True, slots=True)
class Decision:
    """How scores become labels."""

    numbers: tuple[int, ...]
    """Label of each class or region; 0 for background."""
    regions: Callable[[torch.Tensor], torch.Tensor] | None = None
    """Which scores mark a region, of which later ones are painted over earlier ones; None for the highest class."""
    to_probabilities: Callable[[torch.Tensor], torch.Tensor] = lambda scores: scores
    """What makes probabilities of the scores (classes, height, width) of a row."""


@contextmanager
def running_errors(source: str) -> Generator[None]:
    """Turn what a network raises on a patch into a `ModelError` about its source, except for `MemoryError`."""
    remedy = "Check that its files belong together, or name another checkpoint"
    with wrap_errors(source, "must run on a patch", remedy=remedy, running=True), memory_errors():
        yield


def label_rows(
    scores: Iterator[torch.Tensor],
    back: Resampler,
    decision: Decision,
    source: str,
    probabilities: LabelProbabilities | None = None,
) -> Iterator[npt.NDArray[np.uint8]]:
    """The labels of each row that `back` makes of rows of scores (classes, height, width), in order.

    Scores keep their number type through the resampling. `probabilities`, on the axes of the rows, are filled where
    they are given. Raises `ModelError` about the source, `MemoryError`.
    """
    waiting: deque[torch.Tensor] = deque()
    first = 0  # of the rows that wait
    for row in range(back.target[0]):
        low, high = back.needs(row, row + 1)
        while first + len(waiting) < high:
            with running_errors(source), torch.inference_mode():
                waiting.append(next(scores))
        for _ in range(low - first):
            waiting.popleft()
        first = low
        yield _decide(back, torch.stack(tuple(waiting)[: high - low], dim=1), row, decision, probabilities)


@torch.inference_mode()
def _decide(
    back: Resampler,
    scores: torch.Tensor,
    row: int,
    decision: Decision,
    probabilities: LabelProbabilities | None,
) -> npt.NDArray[np.uint8]:
    """The labels of a row from the scores (classes, rows, height, width) that it needs."""
    kept: list[torch.Tensor] = []
    height, width = back.target[1:]
    labels = torch.zeros((height, width), dtype=torch.uint8)
    best = torch.full((height, width), -torch.inf, dtype=scores.dtype)
    chunk = max(1, CHUNK // (height * width))
    numbers = torch.tensor(decision.numbers, dtype=torch.uint8)
    for start in range(0, len(scores), chunk):
        part = scores[start : start + chunk]
        there = part[:, 0] if back.unchanged else back.row(part, row).to(scores.dtype)
        if probabilities is not None:
            kept.append(there)
        if decision.regions is not None:
            for number, found in zip(decision.numbers[start:], there, strict=False):
                labels[decision.regions(found)] = number
            continue
        highest, which = there.max(dim=0)
        better = highest > best
        labels = torch.where(better, numbers[which + start], labels)
        best = torch.where(better, highest, best)
    if probabilities is not None:
        shares = decision.to_probabilities(torch.cat(kept).float()).clamp_(0, 1).numpy()
        for number, share in zip(decision.numbers, shares, strict=True):
            probabilities.put(number, row, share)
    return labels.numpy()
