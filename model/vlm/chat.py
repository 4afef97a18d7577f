"""Chat completions in OpenAI's form: a view and a prompt as a request's body, and what an answer's body says.

Nothing of a file enters a body: its pictures are pixels alone, its words are the question's. An error never quotes what
a model says, which may be of a patient.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from ...readers.errors import ModelError, excerpt
from ..annotator import View
from .pictures import Layout, pictures_of

Structured = Literal["json_schema", "guided_json", "none"]

_NEVER = -1e4  # a log-likelihood of nothing
CANDIDATES = 20  # of a first token: the most that servers tell


@dataclass(frozen=True, slots=True)
class Form:
    """What every body of a run has in common.

    `layout` is what is shown of a view. `detail` is passed on where given. `structured` is how the server is told of a
    schema.
    """

    model: str
    layout: Layout = "canvas"
    detail: str = ""
    structured: Structured = "json_schema"

    def pictures(self, view: View) -> list[str]:
        """A view's pictures as data URLs, in the order in which they are shown."""
        return [data_url(one) for one in pictures_of(view, self.layout)]

    def body(
        self,
        pictures: Sequence[str],
        prompt: str,
        *,
        limit: int,
        seed: int = 0,
        schema: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """A body that asks for a text of at most `limit` tokens, greedily; with a `schema`, for JSON that obeys it."""
        detail = {"detail": self.detail} if self.detail else {}
        parts = [{"type": "image_url", "image_url": {"url": url, **detail}} for url in pictures]
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": prompt}]}],
            "temperature": 0,
            "seed": seed,
            "max_tokens": limit,
        }
        if schema is not None and self.structured == "json_schema":
            wanted = {"name": "answer", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": wanted}
        elif schema is not None and self.structured == "guided_json":
            body["guided_json"] = schema
        return body


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered. `cut` is true where the text ended at the limit of tokens.

    `first` are the likeliest first tokens with their natural log-likelihoods; () where the server tells none.
    """

    text: str
    cut: bool
    first: tuple[tuple[str, float], ...] = ()

    @classmethod
    def read(cls, answer: Mapping[str, Any], *, model: str) -> "Reply":
        """The reply in an answer's body. Raises `ModelError` where there is none, or another model gives it."""
        told = answer.get("model")
        if isinstance(told, str) and told and told != model:
            raise ModelError(
                "server's model",
                f"the answer must be that of {model}, and of no other",
                value=excerpt(told),
                remedy="Name that one if you mean it: --set model_options.served=NAME; or --set "
                "model_options.answers_as=NAME if one stands for the other",
            )
        choice = _first(answer.get("choices"))
        parts = _mapping(choice.get("message"))
        text, ended = parts.get("content"), choice.get("finish_reason")
        refusal = parts.get("refusal")
        if ended == "content_filter" or (isinstance(refusal, str) and refusal):
            raise _empty("there must be an answer", f"a refusal, finish_reason {excerpt(str(ended))}")
        if not isinstance(text, str) or not text.strip():
            raise _empty("the answer must hold a text", f"none, finish_reason {excerpt(str(ended))}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _empty("the answer must be of whole characters", "halves of one") from None
        return cls(text, ended == "length", _candidates(choice.get("logprobs")))


def data_url(picture: npt.NDArray[np.uint8]) -> str:
    """An RGB picture (H, W, 3) as the data URL of a PNG that holds its pixels and nothing else."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "PNG", compress_level=3)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def pick(text: str, options: Sequence[str]) -> int:
    """The place of the option that a text is: as it is, or but for case and the spaces around it.

    Raises `ModelError` for anything else, and where two options differ by nothing but case.
    """
    said = text.strip()
    found = [place for place, option in enumerate(options) if option == said]
    found = found or [place for place, option in enumerate(options) if option.casefold() == said.casefold()]
    if len(found) != 1:
        raise ModelError(
            "model's answer",
            f"it must be one of {', '.join(options)}",
            value=f"another text, of {len(said)} characters",
            remedy="Ask in simpler words, or let the server keep to them: --set model_options.structured=json_schema",
        )
    return found[0]


def weigh_first(first: Sequence[tuple[str, float]], options: Sequence[str]) -> list[float]:
    """Natural log-likelihoods of the options by their first tokens alone; -inf where none of these begins one.

    A candidate that begins two options tells them not apart: its likelihood may be at most a hundredth of what the
    others have together. Raises `ModelError`.
    """
    if not first:
        remedy = "Ask for votes instead: --set model_options.likelihood=votes"
        raise ModelError("server", "it must tell the likelihoods of tokens", value="none", remedy=remedy)
    sums = [0.0] * len(options)
    shared: list[tuple[float, str]] = []
    for token, likelihood in first:
        start = token.strip().casefold()
        begun = [place for place, option in enumerate(options) if start and option.casefold().startswith(start)]
        if len(begun) == 1:
            sums[begun[0]] += math.exp(likelihood)
        elif begun:
            shared.append((math.exp(likelihood), token))
    if not any(sums):
        raise ModelError(
            "model's answer",
            f"its first word must begin one of {', '.join(options)}",
            value="none of the likeliest does",
            remedy="Ask in simpler words, or for votes: --set model_options.likelihood=votes",
        )
    if sum(part for part, _ in shared) > sum(sums) / 100:
        raise ModelError(
            "labels",
            "first tokens must tell them apart",
            value=f"{excerpt(max(shared)[1])!r} begins two",
            remedy="Choose other words, or ask for votes: --set model_options.likelihood=votes",
        )
    return [math.log(part) if part else -math.inf for part in sums]


def listed(content: object) -> list[Mapping[str, Any]]:
    """The JSON objects in what ought to be a list of them; what else lies there is no use to anybody."""
    return [_mapping(one) for one in cast("list[object]", content) if one] if isinstance(content, list) else []


def _mapping(content: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", content) if isinstance(content, dict) else {}


def _first(choices: object) -> Mapping[str, Any]:
    """The first choice. Raises `ModelError` where there is none."""
    for choice in listed(choices):
        return choice
    raise _empty("the answer must hold a choice", "none")


def _candidates(logprobs: object) -> tuple[tuple[str, float], ...]:
    """Likeliest first tokens, as far as they are told. Raises `ModelError` for likelihoods that cannot be."""
    tokens = listed(_mapping(logprobs).get("content"))
    candidates: list[tuple[str, float]] = []
    for one in listed(tokens[0].get("top_logprobs")) if tokens else []:
        token, likelihood = one.get("token"), one.get("logprob")
        if not isinstance(token, str) or not isinstance(likelihood, (int, float)) or not likelihood <= 1e-6:
            raise _empty("each token must have a likelihood of at most 1", excerpt(str(likelihood)))
        candidates.append((token, float(max(likelihood, _NEVER))))
    return tuple(candidates)


def _empty(rule: str, value: str) -> ModelError:
    return ModelError(
        "server's answer",
        rule,
        value=value,
        remedy="See whether the model takes pictures, and what the server says of itself; then ask again",
    )
