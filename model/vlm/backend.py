"""What can be asked: a vision-language model that tells texts, and weighs the answers that it is offered."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ...readers.errors import RequestError
from ..annotator import Cost, InputSpec, View
from .box_format import BoxFormat
from .question import Question

CUT = " […]"
"""Ends a text that reached its limit of tokens."""


class VlmBackend(Protocol):
    """A vision-language model behind one of the annotators that ask; lives in one worker.

    Making one is cheap and touches neither weights nor network. `check` verifies them and loads none.
    """

    @property
    def identity(self) -> Mapping[str, str]:
        """`name`, `version`, and whatever else decides its answers. Raises `ModelError` where that is not here."""
        ...

    def check(self, question: Question) -> None:
        """Verify that its files are here and that it can be asked this. Raises `RequestError`, `ModelError`."""
        ...

    def input_spec(self) -> InputSpec:
        """The views it wants: rendered RGB, its tile, and whether it sees the global view. Raises `ModelError`."""
        ...

    def load(self) -> None:
        """Load its network, where it has one, and keep it. Raises `ModelError`, `RequestError`, `MemoryError`."""
        ...

    def cost(self, tiles: tuple[int, int], question: Question) -> Cost | None:
        """The cost of asking that of a region of (columns, rows) tiles; None where it is not known.

        Raises `ModelError`, `RequestError`.
        """
        ...

    def box_format(self, view: View) -> BoxFormat:
        """The coordinates in which it names boxes on that view."""
        ...

    def generate(self, views: Sequence[View], prompts: Sequence[str], *, limit: int, schema: str = "") -> list[str]:
        """A text for each view and its prompt, greedily decoded: the same every time.

        At most `limit` tokens; a text that is cut off there ends with `CUT`. With a JSON `schema` the text obeys it, by
        construction or because what does not is refused. Raises `ModelError`, or `MemoryError` where the views do not
        fit into memory together.
        """
        ...

    def score_options(
        self, views: Sequence[View], prompts: Sequence[str], options: Sequence[str]
    ) -> npt.NDArray[np.float64]:
        """Natural log-likelihoods (views, prompts, options) of each option being the whole answer to each prompt.

        -inf where a model does not choose an option and cannot say more. Raises as `generate` does.
        """
        ...


def check_room(subject: str, tokens: int, context: int) -> None:
    """Raise `RequestError` where a question, its answer and the smallest picture do not fit; `context` 0: not known."""
    if context and tokens > context:
        raise RequestError(
            subject,
            f"with its answer and a region of one tile it must fit into the {context} tokens that the model reads",
            value=str(tokens),
            remedy="Shorten the question, or lower --set model_options.max_tokens",
        )
