"""The `endpoint` annotator: a vision-language model behind a server with OpenAI's API, at the user's URL."""

import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal, Self, TypeVar, cast

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ...readers.errors import ModelError, did_you_mean, excerpt
from ...readers.options import NEUTRAL, invalid_option
from ..annotator import InputSpec, View
from ..options import OneLine
from ..tiling import TILE
from .annotator import VlmAnnotator
from .box_format import BoxFormat, Unit
from .chat_completions import TOP_LOGPROBS, Reply, RequestFormat, match_option, score_by_first_token
from .http_client import Address, HttpClient, HttpRequest, Json, RetryPolicy
from .question import PictureOptions, Question
from .schema import CUT, Schema

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
    structured: Literal["json_schema", "guided_json", "none"] = Field(
        default="json_schema", description="How a request states the schema of an answer."
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
            backend.check_boxes()
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
        self._answers_as = options.answers_as or options.served
        policy = RetryPolicy(options.timeout, options.retries, options.concurrency, options.failures)
        address = Address.parse(options.checkpoint, insecure=options.insecure)
        self._client = HttpClient(address, policy, options.key_variable)
        self._format = RequestFormat(options.served, options.views, options.detail, options.structured)
        self._served: ServedModel | None = None
        self._cache: OrderedDict[str, Any] = OrderedDict()

    @property
    def identity(self) -> Mapping[str, str]:
        """The server's host, the model as it lists it, and how that is prompted. May ask the server.

        A model that is exchanged under its name cannot be detected. Raises `ModelError`.
        """
        model, options = self._served_model(), self._options
        optional = {"owner": model.owner, "root": model.root, "detail": options.detail, "boxes": options.boxes}
        if self._answers_as != options.served:
            optional["answers_as"] = self._answers_as
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
            "decoding": "temperature 0, seed 0, once more with seed 1 where an answer is refused",
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

    def check_boxes(self) -> None:
        """Raise `RequestError` where the options do not suffice to locate."""
        if not self._options.boxes:
            rule = "must be given to locate, since a URL does not tell in what unit the model names boxes"
            remedy = "See the model's own page, then --set model_options.boxes=pixels, thousandths or unit"
            raise invalid_option("boxes", "endpoint", rule, remedy=remedy)
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
        """The whole canvas in the unit of the options. Raises `RequestError` where none is given."""
        self.check_boxes()
        width, height = view.grid.size
        return BoxFormat.of(cast("Unit", self._options.boxes), (0.0, 0.0, float(width), float(height)), (width, height))

    def generate(self, views: Sequence[View], prompts: Sequence[str], *, limit: int, schema: str = "") -> list[str]:
        """See `VlmBackend.generate`."""
        obeyed = Schema.parse(schema, of="endpoint") if schema else None

        def read(answer: Json) -> str:
            reply = Reply.read(answer, model=self._answers_as)
            if obeyed is None:
                return reply.text + (CUT if reply.cut else "")
            if reply.cut:
                rule, remedy = "must end before its limit of tokens", "Raise --set model_options.max_tokens=NUMBER"
                raise ModelError("model's answer", rule, remedy=f"{remedy}, or ask for less")
            return obeyed.read(reply.text)

        content = None if obeyed is None else obeyed.content
        requests: list[HttpRequest[str]] = []
        for view, prompt in zip(views, prompts, strict=True):
            pictures = self._format.pictures(view)
            body = self._format.body(pictures, prompt, limit=limit, schema=content)
            requests.append(_request(body, read, f"generate {limit} {schema}", prompt, pictures))
        return self._send(requests, batch=len(views) > 1)

    def score_options(
        self, views: Sequence[View], prompts: Sequence[str], options: Sequence[str]
    ) -> npt.NDArray[np.float64]:
        """See `VlmBackend.score_options`. Votes are 0 for the chosen option and -inf for the others.

        By first tokens an option has the likelihood of those that begin it and no other, -inf where there is none.
        """
        enum = json.dumps({"type": "string", "enum": list(options)}, ensure_ascii=False)
        choice = Schema.parse(enum, of="endpoint")

        def vote(answer: Json) -> list[float]:
            reply = Reply.read(answer, model=self._answers_as)
            text = reply.text if self._options.structured == "none" else _unquoted(reply.text)
            chosen = match_option(text + (CUT if reply.cut else ""), options)
            return [0.0 if place == chosen else -math.inf for place in range(len(options))]

        def first_token(answer: Json) -> list[float]:
            return score_by_first_token(Reply.read(answer, model=self._answers_as).first, options)

        votes = self._options.likelihood == "votes"
        longest = max(len(option.encode()) for option in options) + 16  # tokens, whatever the tokenizer
        requests: list[HttpRequest[list[float]]] = []
        for view in views:
            pictures = self._format.pictures(view)
            for prompt in prompts:
                if votes:
                    body = self._format.body(pictures, prompt, limit=longest, schema=choice.content)
                else:
                    body = self._format.body(pictures, prompt, limit=1)
                    body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
                key = f"score {self._options.likelihood} {choice.text}"
                requests.append(_request(body, vote if votes else first_token, key, prompt, pictures))
        scores = self._send(requests, batch=len(views) > 1)
        return np.array(scores, dtype=np.float64).reshape(len(views), len(prompts), len(options))

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
            request = HttpRequest("/models", (None,), lambda one: ServedModel.read(one, served=self._options.served))
            [model] = self._client.send([request])
            if isinstance(model, ModelError):
                unlisted = "Where a server is well but does not list it, --set model_options.listed=false"
                raise ModelError(model.subject, model.rule, value=model.value, remedy=f"{model.remedy}. {unlisted}")
            self._served = model
        return self._served


def _request(
    body: Mapping[str, Any], read: Callable[[Json], T], kind: str, prompt: str, pictures: Sequence[str]
) -> HttpRequest[T]:
    """A request for a chat completion, once for each of `SEEDS`, with a key of all that decides its answer."""
    key = hashlib.sha256("\n".join([kind, prompt, *pictures]).encode()).hexdigest()
    return HttpRequest("/chat/completions", tuple({**body, "seed": seed} for seed in SEEDS), read, key)


def _unquoted(text: str) -> str:
    """The string in a JSON text; any other text unchanged, for a server that did not keep to the schema."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, str) else text
