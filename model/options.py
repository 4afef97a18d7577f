"""Options that several annotators have in common, and the choice among a model's labels."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from ..readers.errors import ModelError, did_you_mean
from ..readers.options import NEUTRAL, Options


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"each may be named once, and {', '.join(twice)} is named again"
        raise ValueError(msg)
    return names


def _one_line(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        msg = "it is one line of text"
        raise ValueError(msg)
    return text


Redactor = Annotated[tuple[str, ...], AfterValidator(_each_once)]
"""Names with commas between, each once."""

OneLine = Annotated[str, AfterValidator(_one_line)]
"""Text of one line without spaces around it."""


class NetworkOptions(Options):
    """Options of every annotator that loads a network."""

    fetch: bool = Field(
        default=False, description="Whether weights may be fetched; `--fetch` sets it.", json_schema_extra=NEUTRAL
    )
    threads: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="Threads of the network; 0 is its library's choice.",
        json_schema_extra=NEUTRAL,
    )


def among(asked: Sequence[str], labels: Sequence[str], model: str) -> tuple[str, ...]:
    """The labels that were asked for, in the model's order; all where none was. Raises `ModelError` for another."""
    unknown = [label for label in asked if label not in labels]
    if unknown:
        some = f"{', '.join(labels[:20])}{', …' if len(labels) > 20 else ''}"
        raise ModelError(
            f"label {unknown[0]!r}",
            f"it must be one that {model} knows",
            remedy=f"{did_you_mean(unknown[0], labels)}Its labels: {some}",
        )
    return tuple(label for label in dict.fromkeys(labels) if not asked or label in asked)
