"""Decoding: what is seen to at each step while a network writes a text, whichever network that is.

The logits must be finite, the text keeps to its grammar where it has one, and a text that was cut off is marked. The
one logits processor of the project. Imports torch and transformers.
"""

# torch's types do not say what some of its functions return:
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import LogitsProcessor

from ...readers.errors import ModelError
from ..scores import require_finite
from .backend import CUT
from .grammar import Constraint


class Decoding(LogitsProcessor):
    """Texts of a batch while they are written, each held to its constraint; () where they are free.

    `of` names the network in errors; a text begins after `begin` tokens and ends with one of `stops`.
    """

    def __init__(
        self, of: str, *, stops: Sequence[int], begin: int = 0, constraints: Sequence[Constraint] = ()
    ) -> None:
        self._of = of
        self._begin = begin
        self._stops = frozenset(stops)
        self._constraints = constraints
        self._taken = 0
        self._ended = [False] * len(constraints)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The network's logits (B, vocab) after the tokens so far, with -inf where a token may not come next.

        Raises `ModelError` where they are not finite, or the grammar is stuck.
        """
        step = input_ids.shape[1] - self._begin + 1
        require_finite(scores, "logits", of=self._of, at=f"at token {step} of the answer")
        if not self._constraints:
            return scores
        self._take(input_ids[:, self._begin :].tolist())
        allowed = torch.zeros(scores.shape, dtype=torch.bool)
        for row, (constraint, ended) in enumerate(zip(self._constraints, self._ended, strict=True)):
            mask = np.ones(scores.shape[1], dtype=np.bool_) if ended else constraint.mask()[: scores.shape[1]]
            allowed[row, : len(mask)] = torch.from_numpy(mask)
        return scores.masked_fill(~allowed.to(scores.device), -torch.inf)

    def texts(self, written: Sequence[Sequence[int]], decode: Callable[[list[int]], str], *, limit: int) -> list[str]:
        """The texts of what was written, tokens without those before `begin`; free ones are made by `decode`.

        A free text that did not end within `limit` tokens is marked by `CUT`. Raises `ModelError` for one that was cut
        before it obeyed its schema.
        """
        if self._constraints:
            self._take(written)
            return [_whole(self._of, constraint, limit) for constraint in self._constraints]
        texts: list[str] = []
        for row in written:
            end = next((place for place, token in enumerate(row) if token in self._stops), None)
            texts.append(decode(list(row[:end])) + (CUT if end is None else ""))
        return texts

    def _take(self, rows: Sequence[Sequence[int]]) -> None:
        """Tell the constraints of the tokens that they do not know of yet."""
        for place, (row, constraint) in enumerate(zip(rows, self._constraints, strict=True)):
            for token in row[self._taken :]:
                self._ended[place] = self._ended[place] or token in self._stops
                if not self._ended[place]:
                    constraint.advance(token)
        self._taken = max(map(len, rows))


def _whole(of: str, constraint: Constraint, limit: int) -> str:
    """A text that obeys its schema. Raises `ModelError` for one that was cut before it did."""
    if not constraint.finished:
        raise ModelError(
            f"answer of {of}",
            f"it must be whole within {limit} tokens to obey its schema",
            value=f"{len(constraint.text)} characters, not at their end",
            remedy="Raise --set model_options.max_tokens, or bound texts and lists in the schema",
        )
    return constraint.text
