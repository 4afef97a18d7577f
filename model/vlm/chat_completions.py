"""Chat completions in OpenAI's format: request bodies of pictures and a prompt, and the replies in answers.

A request holds the pixels of the picture and the user's texts, and nothing else of a file. An error never quotes a
model's text, which may be about a patient.
"""

import base64
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from ...readers.errors import ModelError, excerpt
from ..annotator import View
from .annotator import Picture, PictureLayout, view_pictures
from .texts import GeneratedText, unfence, unwrap

if TYPE_CHECKING:
    from .dialect import Json

_AROUND = " \t\n*_`~#\"'.,;:!()[]{}<>\u201c\u201d\u2018\u2019\u201e\u00ab\u00bb\u3002\uff01"
_INTRODUCTION = re.compile(
    r"^(?:the )?(?:final |correct )?(?:answer|label|option|class)(?: is)?\s*[*_]*:", re.IGNORECASE
)
TOP_LOGPROBS = 20  # candidates of a first token: the most that servers return
_OTHER_LIKELIHOOD = "--set model_options.likelihood=votes"


class _Candidate(BaseModel):
    token: str
    logprob: Annotated[float, Field(le=1e-6)]


class _TokenLogprobs(BaseModel):
    top_logprobs: list[_Candidate] = []


class _Logprobs(BaseModel):
    content: list[_TokenLogprobs] | None = None


class _Part(BaseModel):
    type: str
    text: str = ""
    thinking: Any = None


class _Message(BaseModel):
    content: str | list[_Part] | None = None
    refusal: str | None = None
    reasoning: Any = None
    reasoning_content: Any = None

    def texts(self) -> tuple[str, str]:
        """(answer, thought): servers write the thought into one of two fields, or into parts of the content."""
        content, thoughts = self.content, [self.reasoning, self.reasoning_content]
        if isinstance(content, list):
            thoughts += [text for part in content for text in _texts(part.thinking)]
            content = "".join(part.text for part in content if part.type == "text")
        stated = dict.fromkeys(one.strip() for one in thoughts if isinstance(one, str) and one.strip())
        return content or "", "\n".join(stated)


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

    def pictures(self, view: View) -> list[str]:
        """A view's pictures as data URLs, in order."""
        return [data_url(picture) for picture in view_pictures(view, self.layout)]

    def body(
        self, pictures: Sequence[str], prompt: str, *, limit: int, schema: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """A request for a text of at most `limit` tokens, decoded greedily, that obeys any `schema` of an object.

        `Dialect` writes it in the form that a server takes.
        """
        detail = {"detail": self.detail} if self.detail else {}
        parts = [{"type": "image_url", "image_url": {"url": url, **detail}} for url in pictures]
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": prompt}]}],
            "temperature": 0,
            "max_tokens": limit,
        }
        if schema is not None:
            body["response_format"] = {"type": "json_schema", "json_schema": {"schema": schema}}
        return body


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer."""

    text: GeneratedText
    first: tuple[tuple[str, float], ...] = ()
    """The likeliest first tokens with their natural log-likelihoods; () where the server returns none."""

    @classmethod
    def read(cls, answer: Mapping[str, Any], *, limit: int) -> "Reply":
        """The reply in an answer's body. Raises `ModelError` where there is none; `limit` is the option max_tokens."""
        try:
            choice = _Completion.model_validate(dict(answer), strict=True).choices[0]
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            value = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise _unusable("must be a chat completion", excerpt(value)) from None
        ended = f"finish_reason {excerpt(str(choice.finish_reason))}"
        if choice.finish_reason == "content_filter" or choice.message.refusal:
            raise _unusable("must not be a refusal", ended)
        content, thought = choice.message.texts()
        text = GeneratedText.read(content, cut=choice.finish_reason == "length", thought=thought)
        if not (text.text.strip() or text.thought or text.cut):
            raise _unusable("must hold a text", f"none, {ended}")
        text.check(limit, subject="server's answer")
        try:
            (text.text + text.thought).encode()
        except UnicodeEncodeError:
            raise _unusable("must be valid Unicode", "a lone surrogate") from None
        tokens = choice.logprobs.content if choice.logprobs else None
        candidates = tokens[0].top_logprobs if tokens else []
        return cls(text, tuple((c.token, c.logprob) for c in candidates))


def wrap_schema(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The schema of an object with one member: strict servers take no other at the root."""
    return {"type": "object", "properties": {name: schema}, "required": [name], "additionalProperties": False}


def data_url(picture: Picture) -> str:
    """A picture as the data URL of a PNG with its pixels and no metadata."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "PNG", compress_level=3)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def match_option(text: str, options: Sequence[str]) -> tuple[int, str]:
    """(index, form) of the option that a text is; form is "" where it is nothing else, as asked for.

    Case and spaces around it do not count. Marks around it, a word such as "Answer:" before it and JSON with one text
    are understood. Raises `ModelError` for any other text, and where two options are meant as well.
    """
    plain = unwrap(text).strip()
    for read, form in ((_inner_text, "between marks" if plain != text.strip() else ""), (_plain, "with punctuation")):
        said, known = read(plain), [read(option) for option in options]
        found = [place for place, option in enumerate(known) if option == said]
        found = found or [place for place, option in enumerate(known) if option.casefold() == said.casefold()]
        if said and len(found) == 1:
            return found[0], form
    raise ModelError(
        "model's answer",
        f"must be one of {', '.join(options)}",
        value=f"another text, of {len(text)} characters",
        remedy="Ask in simpler words, or name another model",
    )


def _inner_text(text: str) -> str:
    """The one text in JSON such as {"label": "quay"}; any other text unchanged."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, dict) and len(cast("Json", value)) == 1:
        [value] = cast("Json", value).values()
    return value.strip() if isinstance(value, str) else text


def _plain(text: str) -> str:
    """A text without a fence, emphasis, quotes and punctuation around it, and without "Answer:" or such before it."""
    return _INTRODUCTION.sub("", _inner_text(unfence(text)).strip(_AROUND)).strip(_AROUND)


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


def _texts(value: Any) -> list[str]:
    """The texts of a part's thinking: one, or those of further parts."""
    if isinstance(value, str):
        return [value]
    parts = cast("list[Any]", value) if isinstance(value, list) else []
    texts = [cast("Json", part).get("text") for part in parts if isinstance(part, dict)]
    return [text for text in texts if isinstance(text, str)]


def _unusable(rule: str, value: str) -> ModelError:
    remedy = "Check that the model takes pictures, and the server's own log; then ask again"
    return ModelError("server's answer", rule, value=value, remedy=remedy)
