"""The `endpoint` annotator: a vision-language model behind a server with OpenAI's API, at the user's URL."""

import hashlib
import json
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Literal, Self, TypeVar, cast

import numpy as np
from pydantic import Field

from ...readers.errors import ModelError, did_you_mean, excerpt
from ...readers.options import NEUTRAL, invalid_option
from ..annotator import InputSpec, View
from ..options import OneLine
from ..tiling import TILE
from .annotator import OptionScores, VlmAnnotator
from .box_format import BoxFormat
from .chat_completions import (
    TOP_LOGPROBS,
    Reply,
    RequestFormat,
    match_option,
    score_by_first_token,
    wrap_schema,
)
from .dialect import Dialect
from .http_client import HttpClient, HttpRequest, Json, RetryPolicy, endpoint_address
from .question import PictureOptions, Question
from .schema import Schema
from .texts import GeneratedText, raise_limit

SEEDS = (0, 1)  # of a request, and of its one repetition after a refused answer
MAX_CACHED = 1024  # answers: after a failure a batch is annotated again, region by region

T = TypeVar("T")


class EndpointOptions(PictureOptions):
    """Options of `endpoint`, including those of the question."""

    checkpoint: str = Field(
        min_length=1, description="The server's URL.", examples=["--model endpoint:http://127.0.0.1:8000/v1"]
    )
    served: OneLine = Field(default="", description="The model's name at the server.")
    answers_as: OneLine = Field(default="", description="The name in its answers, where that is another.")
    listed: bool = Field(default=True, description="Whether the server lists its models.")
    key_variable: OneLine = Field(
        default="", description="The environment variable with the server's key.", json_schema_extra=NEUTRAL
    )
    insecure: bool = Field(
        default=False, description="Whether plain http to another machine is allowed.", json_schema_extra=NEUTRAL
    )
    timeout: float = Field(
        default=180.0, ge=0.1, le=86400, description="Seconds that a whole answer may take.", json_schema_extra=NEUTRAL
    )
    retries: int = Field(
        default=4, ge=0, le=20, description="Retries after a failure that may pass.", json_schema_extra=NEUTRAL
    )
    concurrency: int = Field(default=4, ge=1, le=256, description="Requests at a time.", json_schema_extra=NEUTRAL)
    failures: int = Field(
        default=5,
        ge=1,
        le=1000000,
        description="Failed requests in a row after which it gives up.",
        json_schema_extra=NEUTRAL,
    )
    detail: Literal["", "low", "high", "auto"] = Field(default="", description="OpenAI's detail of pictures.")
    tile: int = Field(default=TILE, ge=8, le=4096, description="Side of a tile in pixels.")
    structured: Literal["json_schema", "structured_outputs", "guided_json", "json_object", "none"] = Field(
        default="json_schema",
        description="How a request first states the schema of an answer; if refused, other ways are tried.",
    )
    likelihood: Literal["votes", "first-token"] = Field(
        default="votes", description="How labels are scored: by choices in several orders, or by first tokens."
    )


class EndpointAnnotator(VlmAnnotator):
    """The annotator `endpoint`. Raises `RequestError` for options that contradict each other."""

    Options = EndpointOptions

    def __init__(self, options: EndpointOptions) -> None:
        question = Question.from_options(options, "endpoint")
        backend = EndpointBackend(options)
        if question.schema:
            from .decoding import check_satisfiable

            Schema.parse(question.schema, of="endpoint")
            check_satisfiable(question.schema, subject="option 'json_schema' of endpoint")
        if question.answer == "locate":
            backend.check_views()
        if question.answer == "classify":
            backend.check_labels(question.labels)
        super().__init__(question, backend)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as the server lists it."""

    owner: str = ""
    root: str = ""
    """The model that it is made of."""

    @classmethod
    def read(cls, answer: Json, *, served: str) -> Self:
        """The entry of `served` in a server's list of models. Raises `ModelError` with the list where it has none."""
        data: object = answer.get("data")
        entries = cast("list[object]", data) if isinstance(data, list) else []
        listed = [cast("Json", entry) for entry in entries if isinstance(entry, dict)]
        models = {name: entry for entry in listed if isinstance(name := entry.get("id"), str)}
        if served in models:
            owner, root = (models[served].get(key) for key in ("owned_by", "root"))
            return cls(*(excerpt(text) if isinstance(text, str) else "" for text in (owner, root)))
        names = sorted(models)
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        raise ModelError(
            f"served model {served!r}" if served else "option 'served' of endpoint",
            "must be one of the server's models",
            value=f"it has {excerpt(', '.join(names[:10]), 400)}{more}" if names else "it lists none",
            remedy=f"{did_you_mean(served, map(excerpt, names))}Name one: --set model_options.served=NAME",
        )


class EndpointBackend:
    """A model behind a URL; see `VlmBackend`. Raises `RequestError` for an unusable URL."""

    def __init__(self, options: EndpointOptions) -> None:
        self._options = options
        self._answers_as = {options.answers_as or options.served}
        policy = RetryPolicy(options.timeout, options.retries, options.concurrency, options.failures)
        address = endpoint_address(options.checkpoint, insecure=options.insecure)
        self._client = HttpClient(address, policy, options.key_variable)
        self._format = RequestFormat(options.served, options.views, options.detail)
        self._dialect = Dialect(address.host, options.structured)
        self._thinks = False
        self._served: ServedModel | None = None
        self._cache: OrderedDict[str, Any] = OrderedDict()

    @property
    def identity(self) -> Mapping[str, str]:
        """The server's host, the model as it lists it, and how that is prompted. May ask the server.

        A model that is exchanged under its name cannot be detected. Raises `ModelError`.
        """
        model, options = self._served_model(), self._options
        optional = {"owner": model.owner, "root": model.root, "detail": options.detail, "boxes": options.boxes}
        if options.answers_as != options.served:
            optional["answers_as"] = options.answers_as
        scores = {
            "votes": "share of the orders that chose it",
            "first-token": "softmax of first tokens, averaged over the orders",
        }
        return {
            "name": "endpoint",
            "version": f"served {options.served}",
            "annotator": "endpoint",
            "served": options.served,
            "host": self.host,
            "licence": "not known: the served model's own",
            "runtime": ", ".join(f"{name} {version(name)}" for name in ("httpx2", "jsonschema", "pillow")),
            "decoding": "temperature 0 and seed 0 where the server takes them; seed 1 where an answer is refused",
            "views": options.views,
            "tile": str(options.tile),
            "structured": options.structured,
            "likelihood": options.likelihood,
            "score": scores[options.likelihood],
            **{key: value for key, value in optional.items() if value},
        }

    @property
    def host(self) -> str:
        """The server's host with its port."""
        return self._client.address.host

    def input_spec(self) -> InputSpec:
        """Rendered RGB at any resolution; with the global view where tiles are shown."""
        return InputSpec(tile=self._options.tile, overall=self._options.views == "tiles")

    def check(self, question: Question) -> None:
        """Find the model in the server's list, without sending a picture.

        Its tokenizer and context are unknown. Raises `ModelError`, `RequestError`.
        """
        del question
        self._served_model()

    def cost(self, tiles: tuple[int, int], question: Question) -> None:
        """Unknown."""

    def load(self) -> None:
        """Nothing: the server has the network."""

    def check_views(self) -> None:
        """Raise `RequestError` where the model would have to locate in several pictures."""
        if self._options.views != "canvas":
            rule, remedy = "must be canvas to locate, for boxes in one picture", "--set model_options.views=canvas"
            raise invalid_option("views", "endpoint", rule, value=self._options.views, remedy=remedy)

    def check_labels(self, labels: Sequence[str]) -> None:
        """Raise `RequestError` where first tokens cannot distinguish labels, since one begins another."""
        pairs = ((one, other) for one in labels for other in labels if one != other)
        begun = next((f"{a} begins {b}" for a, b in pairs if b.casefold().startswith(a.casefold())), "")
        if self._options.likelihood == "first-token" and begun:
            remedy = "Choose other words, or use votes: --set model_options.likelihood=votes"
            raise invalid_option("labels", "endpoint", "must differ in their first tokens", value=begun, remedy=remedy)

    def box_format(self, view: View) -> BoxFormat:
        """The whole canvas in the unit of the options; without one a model must answer in its family's own form."""
        width, height = view.grid.size
        return BoxFormat.of(self._options.boxes, (0.0, 0.0, float(width), float(height)), (width, height))

    def generate(
        self,
        views: Sequence[View],
        prompts: Sequence[str],
        *,
        limit: int,
        schema: str = "",
        formats: Sequence[BoxFormat] = (),
    ) -> list[GeneratedText]:
        """See `VlmBackend.generate`."""
        obeyed = Schema.parse(schema, of="endpoint") if schema and not formats else None
        content = obeyed.content if obeyed else wrap_schema(json.loads(schema), "boxes") if schema else None

        def reader(box_format: BoxFormat | None) -> Callable[[Json], GeneratedText]:
            def read(answer: Json) -> GeneratedText:
                text = self._reply(answer).text
                if obeyed is None and box_format is None:
                    return text
                if text.cut:
                    rule = "must end before its limit of tokens"
                    raise ModelError("model's answer", rule, remedy=raise_limit(limit))
                if obeyed is None:
                    return text if box_format is None else _boxes(text, box_format)
                canonical, form = obeyed.read(text.text)
                return replace(text, text=canonical, form=form)

            return read

        requests: list[HttpRequest[GeneratedText]] = []
        for view, prompt, box_format in zip(views, prompts, formats or [None] * len(views), strict=True):
            pictures = self._format.pictures(view)
            body = self._format.body(pictures, prompt, limit=limit, schema=content)
            kind = f"generate {limit} {schema}"
            requests.append(self._request(body, reader(box_format), kind, prompt, pictures))
        return self._send(requests, batch=len(views) > 1)

    def score_options(self, views: Sequence[View], prompts: Sequence[str], options: Sequence[str]) -> OptionScores:
        """See `VlmBackend.score_options`. Votes are 0 for the chosen option and -inf for the others.

        By first tokens an option has the likelihood of those that begin it and no other, -inf where there is none.
        """
        choice = wrap_schema({"type": "string", "enum": list(options)}, "label")

        def vote(answer: Json) -> tuple[list[float], str]:
            text = self._reply(answer).text
            self._thinks = self._thinks or bool(text.thought)
            chosen, form = match_option(text.marked, options)
            return [0.0 if place == chosen else -math.inf for place in range(len(options))], form

        def first_token(answer: Json) -> tuple[list[float], str]:
            return score_by_first_token(self._reply(answer).first, options), ""

        votes = self._options.likelihood == "votes"
        longest = max(len(option.encode()) for option in options) + 32  # tokens, whatever the tokenizer
        room = max(longest, self._options.max_tokens)  # for a thought before the label
        requests: list[HttpRequest[tuple[list[float], str]]] = []
        for view in views:
            pictures = self._format.pictures(view)
            for prompt in prompts:
                if votes:
                    limit = room if self._thinks else longest
                    body = self._format.body(pictures, prompt, limit=limit, schema=choice)
                else:
                    body = self._format.body(pictures, prompt, limit=1)
                    body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
                key = f"score {self._options.likelihood} {json.dumps(choice)}"
                read = vote if votes else first_token
                requests.append(self._request(body, read, key, prompt, pictures, room=room if votes else 1))
        answers = self._send(requests, batch=len(views) > 1)
        scores = np.array([likelihoods for likelihoods, _ in answers], dtype=np.float64)
        count = len(prompts)
        named = [sorted({form for _, form in answers[i : i + count] if form}) for i in range(0, len(answers), count)]
        return OptionScores(scores.reshape(len(views), count, len(options)), tuple(map(", ".join, named)))

    def _request(
        self,
        body: Json,
        read: Callable[[Json], T],
        kind: str,
        prompt: str,
        pictures: Sequence[str],
        *,
        room: int = 0,
    ) -> HttpRequest[T]:
        """A request for a chat completion, once for each of `SEEDS`, with a key of all that decides its answer.

        The second has at least `room` for tokens.
        """
        key = hashlib.sha256("\n".join([kind, prompt, *pictures]).encode()).hexdigest()
        first, second = ({**body, "seed": seed} for seed in SEEDS)
        bodies = first, {**second, "max_tokens": max(room, body["max_tokens"])}
        return HttpRequest("/chat/completions", bodies, read, key, self._dialect.encode, self._dialect.learn)

    def _reply(self, answer: Json) -> Reply:
        """A reply of the model that is meant. Raises `ModelError` where another gives it.

        Its name may be followed by a revision, as transformers writes it, or by a date, as OpenAI does: the first such
        name holds for the run.
        """
        name, served = answer.get("model"), self._options.served
        if isinstance(name, str) and name and name not in self._answers_as:
            if self._options.answers_as or len(self._answers_as) > 1 or not _same_model(name, served):
                raise ModelError(
                    "server's answer",
                    f"must come from the model {' or '.join(sorted(self._answers_as))}",
                    value=excerpt(name),
                    remedy="If that model is meant, --set model_options.served=NAME; "
                    "if one name stands for the other, --set model_options.answers_as=NAME",
                )
            self._answers_as.add(name)
            self._dialect.warn(f"the model {served} answers as {excerpt(name)}")
        return Reply.read(answer, limit=self._options.max_tokens)

    def _send(self, requests: Sequence[HttpRequest[T]], *, batch: bool) -> list[T]:
        """The answers in order, from the cache where it has them. Raises the first failure.

        After a failure in a `batch` of views each is annotated alone: the failure is then raised once more without a
        request, and the other answers come from the cache.
        """
        found: dict[str, Any] = {one.key: self._cache[one.key] for one in requests if one.key in self._cache}
        new = [one for one in requests if one.key not in found]
        for key, answer in found.items():
            if isinstance(answer, ModelError):
                del self._cache[key]
        for request, answer in zip(new, self._client.send(new), strict=True):
            found[request.key] = answer
            if batch or not isinstance(answer, ModelError):
                self._cache[request.key] = answer
        while len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
        answers = [found[request.key] for request in requests]
        for answer in answers:
            if isinstance(answer, ModelError):
                raise answer
        return answers

    def _served_model(self) -> ServedModel:
        if self._served is None and not self._options.listed:
            if not self._options.served:
                rule = "must name the model where the server lists none"
                raise invalid_option("served", "endpoint", rule, remedy="--set model_options.served=NAME")
            self._served = ServedModel()
        if self._served is None:
            request = HttpRequest(
                "/models",
                (None,),
                lambda one: ServedModel.read(one, served=self._options.served),
                without=self._not_listed if self._options.served else None,
            )
            [model] = self._client.send([request])
            if isinstance(model, ModelError):
                unlisted = "Where a server is well but does not list it, --set model_options.listed=false"
                raise ModelError(model.subject, model.rule, value=model.value, remedy=f"{model.remedy}. {unlisted}")
            self._served = model
            self._dialect.owner = model.owner
        return self._served

    def _not_listed(self, reason: str) -> ServedModel:
        """The model where the server fails to list any."""
        self._dialect.warn(f"it does not list its models ({reason}), so that {self._options.served} is not checked")
        return ServedModel()


def _boxes(text: GeneratedText, box_format: BoxFormat) -> GeneratedText:
    """A text that names boxes. Raises `ModelError` where they cannot all be placed."""
    placed, errors = box_format.read(text.text)
    if errors:
        remedy = "Ask in simpler words, or look up in what form the model names boxes"
        raise ModelError(
            "model's answer", "must name boxes that can be placed", value=excerpt(errors, 300), remedy=remedy
        )
    try:
        json.loads(text.text)
    except (ValueError, RecursionError):
        tagged = any(one.form.startswith("<") for one in placed)
        return text if tagged else replace(text, form="within other text")
    return text


def _same_model(name: str, served: str) -> bool:
    """Whether a name is that of the model, and then a revision or a date."""
    return re.fullmatch(rf"{re.escape(served)}(?:@[\w./-]+|-\d{{4}}-\d{{2}}-\d{{2}})", name) is not None
