"""A 4KHD network that has been shown views: pictures become tensors here, and prompts sequences."""

# torch's types do not say what some of its functions return:
# pyright: reportUnknownMemberType=false

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from ...annotator import View
from ...checkpoints.memory import memory_errors
from ..decoding import Decoding
from ..grammar import Constraint, Vocabulary
from . import scoring
from .files import Files
from .load import RuntimeOptions, fill
from .scoring import Part
from .sizes import VisionSizes
from .tokenizer import Prompt, Tokenizer, vocabulary


class Generator:
    """A checkpoint that is awake. Raises `ModelError`, `RequestError` where it cannot be loaded as asked.

    `overall` false leaves out the global view. `threads` 0 leaves torch's number of threads as it is; it is the whole
    process's number.
    """

    def __init__(
        self,
        files: Files,
        tokenizer: Tokenizer,
        running: Mapping[str, str],
        *,
        overall: bool = True,
        threads: int = 0,
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._tokenizer = tokenizer
        self._name = f"checkpoint {files.source}"
        self._overall = overall
        with memory_errors():
            self._network = fill(files, RuntimeOptions(**running))  # pyright: ignore[reportArgumentType] - checked before

    def generate(self, views: Sequence[View], prompts: Sequence[Prompt], *, limit: int, schema: str = "") -> list[str]:
        """A text for each view and its prompt, read together. See `VlmBackend`."""
        with memory_errors(), torch.inference_mode():
            seen = self._see(views)
            sequences = [_join(prompt, one) for prompt, one in zip(prompts, seen, strict=True)]
            longest = max(len(prompt) + len(one) for prompt, one in zip(prompts, seen, strict=True))
            scoring.check_length(self._network, longest + limit)
            stops, pad = self._tokenizer.stops, self._tokenizer.eos
            constraints = [Constraint(self._vocabulary, schema) for _ in views] if schema else []
            decoding = Decoding(self._name, stops=stops, constraints=constraints)
            told = scoring.generate(self._network, sequences, limit=limit, stops=stops, pad=pad, decoding=decoding)
        return decoding.texts(told, self._tokenizer.decode, limit=limit)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        """What the tokenizer's tokens write; those that write nothing never stand in an answer."""
        return vocabulary(self._tokenizer)

    def score_options(
        self, views: Sequence[View], prompts: Sequence[Prompt], options: Sequence[str]
    ) -> npt.NDArray[np.float64]:
        """Log-likelihoods (views, prompts, options). The prompts differ in their last part only. See `VlmBackend`."""
        last = [prompt.parts[-1] for prompt in prompts]
        shared = scoring.common(last)
        before = Prompt((*prompts[0].parts[:-1], last[0][:shared]))
        suffixes = [part[shared:] for part in last]
        tokens = [self._tokenizer.encode(option) for option in options]
        with memory_errors(), torch.inference_mode():
            seen = self._see(views)
            longest = max(map(len, seen)) + len(before) + max(map(len, suffixes)) + max(map(len, tokens))
            scoring.check_length(self._network, longest)
            sequences = [_join(before, one) for one in seen]
            end = self._tokenizer.end
            return scoring.score_options(self._network, sequences, suffixes, tokens, end=end, name=self._name)

    def _see(self, views: Sequence[View]) -> list[torch.Tensor]:
        """The visual tokens of each view; all tiles of all views go through the vision tower together."""
        tiles = torch.cat([tensor(view, self._network.sizes.vision) for view in views])
        grids = [(view.grid.rows, view.grid.cols) for view in views]
        return self._network.see(tiles, grids, overall=self._overall)


def tensor(view: View, sizes: VisionSizes) -> torch.Tensor:
    """A view as the vision tower wants it: the global view, then its tiles, float32 (1 + n, 3, tile, tile)."""
    if view.global_view is None:
        msg = f"region {view.region.key}: a 4KHD model needs the global view"
        raise ValueError(msg)
    return normalised(np.concatenate([view.global_view[None], view.tiles.astype(np.float32)]), sizes)


def normalised(pictures: npt.NDArray[np.float32], sizes: VisionSizes) -> torch.Tensor:
    """Tiles (n, tile, tile, 3) of values 0 to 255 → what the vision tower sees, float32 (n, 3, tile, tile)."""
    values = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(part, dtype=torch.float32)[:, None, None] for part in (sizes.mean, sizes.std))
    return (values - mean) / std


def _join(prompt: Prompt, picture: torch.Tensor) -> list[Part]:
    """The prompt's two parts with the picture between them; a part without tokens is left out."""
    first, last = prompt.parts
    return [part for part in (first, picture, last) if len(part)]
