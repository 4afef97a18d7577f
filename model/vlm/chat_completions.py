"""Chat completions in OpenAI's format: request bodies of pictures and a prompt, and the replies in answers.

A request holds the pixels of the picture and the user's texts, and nothing else of a file. An error never quotes a
model's text, which may be about a patient.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from ...readers.errors import ModelError, excerpt
from ..annotator import View
from .annotator import Picture, PictureLayout, view_pictures

Structured = Literal["json_schema", "guided_json", "none"]

TOP_LOGPROBS = 20  # candidates of a first token: the most that servers return
_OTHER_LIKELIHOOD = "--set model_options.likelihood=votes"


class _Candidate(BaseModel):
    token: str
    logprob: Annotated[float, Field(le=1e-6)]


class _TokenLogprobs(BaseModel):
    top_logprobs: list[_Candidate] = []


class _Logprobs(BaseModel):
    content: list[_TokenLogprobs] | None = None


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Completion(BaseModel):
    choices: Annotated[list[_Choice], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class RequestFormat:
    """What all requests of a run have in common."""

    model: str
    layout: PictureLayout = "canvas"
    detail: str = ""
    """OpenAI's detail of pictures; "" to leave it out."""
    structured: Structured = "json_schema"
    """How a request states a schema."""

    def pictures(self, view: View) -> list[str]:
        """A view's pictures as data URLs, in order."""
        return [data_url(picture) for picture in view_pictures(view, self.layout)]

    def body(
        self, pictures: Sequence[str], prompt: str, *, limit: int, schema: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """A request for a text of at most `limit` tokens, decoded greedily, that obeys any `schema`."""
        detail = {"detail": self.detail} if self.detail else {}
        parts = [{"type": "image_url", "image_url": {"url": url, **detail}} for url in pictures]
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": prompt}]}],
            "temperature": 0,
            "max_tokens": limit,
        }
        if schema is not None and self.structured == "json_schema":
            json_schema = {"name": "answer", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        elif schema is not None and self.structured == "guided_json":
            body["guided_json"] = schema
        return body


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer."""

    text: str
    cut: bool
    """Whether the text ended at the limit of tokens."""
    first: tuple[tuple[str, float], ...] = ()
    """The likeliest first tokens with their natural log-likelihoods; () where the server returns none."""

    @classmethod
    def read(cls, answer: Mapping[str, Any], *, model: str) -> "Reply":
        """The reply in an answer's body. Raises `ModelError` where there is none, or another model gives it."""
        name = answer.get("model")
        if isinstance(name, str) and name and name != model:
            raise ModelError(
                "server's answer",
                f"must come from the model {model}",
                value=excerpt(name),
                remedy="If that model is meant, --set model_options.served=NAME; "
                "if one name stands for the other, --set model_options.answers_as=NAME",
            )
        try:
            choice = _Completion.model_validate(dict(answer), strict=True).choices[0]
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            value = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise _unusable("must be a chat completion", excerpt(value)) from None
        text, ended = choice.message.content or "", f"finish_reason {excerpt(str(choice.finish_reason))}"
        if choice.finish_reason == "content_filter" or choice.message.refusal:
            raise _unusable("must not be a refusal", ended)
        if not text.strip():
            raise _unusable("must hold a text", f"none, {ended}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _unusable("must be valid Unicode", "a lone surrogate") from None
        tokens = choice.logprobs.content if choice.logprobs else None
        candidates = tokens[0].top_logprobs if tokens else []
        return cls(text, choice.finish_reason == "length", tuple((c.token, c.logprob) for c in candidates))


def data_url(picture: Picture) -> str:
    """A picture as the data URL of a PNG with its pixels and no metadata."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "PNG", compress_level=3)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def match_option(text: str, options: Sequence[str]) -> int:
    """The index of the option that a text equals, exactly or except for case and surrounding spaces.

    Raises `ModelError` for any other text, and where two options differ only in case.
    """
    text = text.strip()
    found = [place for place, option in enumerate(options) if option == text]
    found = found or [place for place, option in enumerate(options) if option.casefold() == text.casefold()]
    if len(found) != 1:
        raise ModelError(
            "model's answer",
            f"must be one of {', '.join(options)}",
            value=f"another text, of {len(text)} characters",
            remedy="Ask in simpler words, or have the server enforce it: --set model_options.structured=json_schema",
        )
    return found[0]


def score_by_first_token(first: Sequence[tuple[str, float]], options: Sequence[str]) -> list[float]:
    """Natural log-likelihoods of the options by their first tokens alone; -inf where no candidate begins one.

    A candidate that begins two options does not distinguish them: such candidates may have at most a hundredth of the
    likelihood of the others. Raises `ModelError`.
    """
    if not first:
        remedy = f"Use votes instead: {_OTHER_LIKELIHOOD}"
        raise ModelError("server's answer", "must hold the log-likelihoods of tokens", value="none", remedy=remedy)
    sums = [0.0] * len(options)
    shared: list[tuple[float, str]] = []
    for token, logprob in first:
        start = token.strip().casefold()
        begun = [place for place, option in enumerate(options) if start and option.casefold().startswith(start)]
        if len(begun) == 1:
            sums[begun[0]] += math.exp(logprob)
        elif begun:
            shared.append((math.exp(logprob), token))
    if not any(sums):
        raise ModelError(
            "model's answer",
            f"must have a first word that begins one of {', '.join(options)}",
            value="none of the likeliest does",
            remedy=f"Ask in simpler words, or use votes: {_OTHER_LIKELIHOOD}",
        )
    if sum(part for part, _ in shared) > sum(sums) / 100:
        raise ModelError(
            "labels",
            "must differ in their first tokens",
            value=f"{excerpt(max(shared)[1])!r} begins two",
            remedy=f"Choose other words, or use votes: {_OTHER_LIKELIHOOD}",
        )
    return [math.log(part) if part else -math.inf for part in sums]


def _unusable(rule: str, value: str) -> ModelError:
    remedy = "Check that the model takes pictures, and the server's own log; then ask again"
    return ModelError("server's answer", rule, value=value, remedy=remedy)
