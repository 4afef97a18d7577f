"""The `endpoint` annotator: a vision-language model that a server of OpenAI's form answers for.

The server is the one whose URL the person names, and no other is asked anything.
"""

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

from ...readers.errors import ModelError, RequestError, did_you_mean, excerpt
from ...readers.options import NEUTRAL, invalid_option
from ..annotator import InputSpec, View
from ..options import OneLine
from ..tiling import TILE
from .address import Address
from .annotator import VlmAnnotator
from .backend import CUT
from .box_format import BoxFormat, Unit
from .chat import CANDIDATES, Form, Reply, listed, pick, weigh_first
from .http_client import Ask, HttpClient, Json, RetryPolicy
from .question import Question, QuestionOptions
from .schema import Schema

Likelihood = Literal["votes", "first-token"]

SEEDS = (0, 1)  # of a question, and of the one time that it is asked again
KEPT = 1024  # replies: a batch in which one region failed is asked again region by region

T = TypeVar("T")


class EndpointOptions(QuestionOptions):
    """Options of `endpoint`, those of the question among them."""

    checkpoint: str = Field(
        min_length=1, description="The server's URL.", examples=["--model endpoint:http://127.0.0.1:8000/v1"]
    )
    served: OneLine = Field(default="", description="The model's name at the server.")
    answers_as: OneLine = Field(default="", description="The name by which it answers, where that is another.")
    listed: bool = Field(default=True, description="Whether the server lists its models.")
    key_variable: OneLine = Field(
        default="", description="The environment variable that holds the server's key.", json_schema_extra=NEUTRAL
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
    views: Literal["canvas", "tiles"] = Field(
        default="canvas",
        description="Whether a region is shown as one picture, or as its global view and then each tile.",
    )
    detail: Literal["", "low", "high", "auto"] = Field(default="", description="The detail that is asked of pictures.")
    tile: int = Field(default=TILE, ge=8, le=4096, description="Pixels a side of a tile.")
    structured: Literal["json_schema", "guided_json", "none"] = Field(
        default="json_schema", description="How the server is told that an answer must obey a schema."
    )
    likelihood: Literal["votes", "first-token"] = Field(
        default="votes", description="How labels are scored: by choices in several orders, or by first tokens."
    )
    boxes: Literal["", "pixels", "thousandths", "unit"] = Field(
        default="", description="The unit in which the model names boxes."
    )


class EndpointAnnotator(VlmAnnotator):
    """The annotator `endpoint`. Raises `RequestError` for options that do not fit together."""

    Options = EndpointOptions

    def __init__(self, options: EndpointOptions) -> None:
        question = Question.of(options, "endpoint")
        respondent = EndpointBackend(options)
        if question.schema:
            from .grammar import check_possible

            Schema.parse(question.schema, of="endpoint")
            check_possible(question.schema, subject="option 'json_schema' of endpoint")
        if question.answer == "locate":
            respondent.check_boxes()
        if question.answer == "classify":
            respondent.check_labels(question.labels)
        super().__init__(question, respondent)


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a server says of the model that is asked for, of whose it is (`owner`) and from what it is made (`root`)."""

    owner: str = ""
    root: str = ""

    @classmethod
    def read(cls, answer: Json, *, served: str) -> Self:
        """The entry of `served` in a server's list of models. Raises `ModelError` with the list where it has none."""
        models = {name: one for one in listed(answer.get("data")) if isinstance(name := one.get("id"), str)}
        if served in models:
            told = {part: models[served].get(key) for part, key in (("owner", "owned_by"), ("root", "root"))}
            return cls(**{part: excerpt(text) for part, text in told.items() if isinstance(text, str)})
        names = sorted(models)
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        raise ModelError(
            f"served model {served!r}" if served else "option 'served' of endpoint",
            "the server must have it" if served else "it must name one of the server's models",
            value=f"it has {excerpt(', '.join(names[:10]), 400)}{more}" if names else "it lists none",
            remedy=f"{did_you_mean(served, map(excerpt, names))}Name one: --set model_options.served=NAME",
        )


class EndpointBackend:
    """A respondent behind a URL. Raises `RequestError` for a URL that cannot be used."""

    def __init__(self, options: EndpointOptions) -> None:
        self._options = options
        self._answers_as = options.answers_as or options.served
        patience = RetryPolicy(options.timeout, options.retries, options.concurrency, options.failures)
        self._wire = HttpClient(
            Address.parse(options.checkpoint, insecure=options.insecure), patience, options.key_variable
        )
        self._form = Form(options.served, options.views, options.detail, options.structured)
        self._introduction: Introduction | None = None
        self._kept: OrderedDict[str, Any] = OrderedDict()

    @property
    def identity(self) -> Mapping[str, str]:
        """The server's host, what it says of the model, and how that is asked. Asks it where `check` has not.

        Raises `ModelError`. A model that is exchanged under its name cannot be told from here.
        """
        told = self._introduce()
        form = self._form
        optional = {"owner": told.owner, "root": told.root, "detail": form.detail, "boxes": self._options.boxes}
        if self._answers_as != self._options.served:
            optional["answers_as"] = self._answers_as
        return {
            "name": "endpoint",
            "version": f"served {self._options.served}",
            "annotator": "endpoint",
            "served": self._options.served,
            "host": self.host,
            "licence": "not known: the served model's own",
            "runtime": ", ".join(f"{name} {version(name)}" for name in ("httpx2", "jsonschema", "pillow")),
            "decoding": "temperature 0, seed 0, once more with seed 1 where an answer is refused",
            "views": form.layout,
            "tile": str(self._options.tile),
            "structured": form.structured,
            "likelihood": self._options.likelihood,
            "score": "share of the orders that chose it"
            if self._options.likelihood == "votes"
            else "softmax of first tokens, averaged over the orders",
            **{key: value for key, value in optional.items() if value},
        }

    @property
    def host(self) -> str:
        """The server's, with its port."""
        return self._wire.address.host

    def input_spec(self) -> InputSpec:
        """Rendered RGB at any resolution; the global view where tiles are shown."""
        return InputSpec(tile=self._options.tile, overall=self._form.layout == "tiles")

    def check(self, question: Question) -> None:
        """Ask the server for its models, and find the one that is asked for. Shows it no picture.

        Nothing is known of its tokenizer and its context. Raises `ModelError`, `RequestError`.
        """
        del question
        self._introduce()

    def cost(self, tiles: tuple[int, int], question: Question) -> None:
        """Not known."""

    def load(self) -> None:
        """Nothing: the network is the server's."""

    def check_boxes(self) -> None:
        """Raise `RequestError` where boxes cannot be asked for."""
        if not self._options.boxes:
            raise _wrong(
                "boxes",
                "locate needs it, since a URL does not say in what unit a model was trained to name boxes",
                "",
                "See the model's own page, then --set model_options.boxes=pixels, thousandths or unit",
            )
        if self._form.layout != "canvas":
            raise _wrong("views", "locate needs one picture", self._form.layout, "--set model_options.views=canvas")

    def check_labels(self, labels: Sequence[str]) -> None:
        """Raise `RequestError` where first tokens cannot tell labels apart: one begins another."""
        begun = [
            (one, other)
            for one in labels
            for other in labels
            if one != other and other.casefold().startswith(one.casefold())
        ]
        if self._options.likelihood == "first-token" and begun:
            raise _wrong(
                "labels",
                "first tokens must tell them apart",
                f"{begun[0][0]} begins {begun[0][1]}",
                "Choose other words, or ask for votes: --set model_options.likelihood=votes",
            )

    def box_format(self, view: View) -> BoxFormat:
        """The whole canvas in the unit that was named. Raises `RequestError` where none was."""
        self.check_boxes()
        width, height = view.grid.size
        return BoxFormat.of(cast("Unit", self._options.boxes), (0.0, 0.0, float(width), float(height)), (width, height))

    def generate(self, views: Sequence[View], prompts: Sequence[str], *, limit: int, schema: str = "") -> list[str]:
        """See `VlmBackend.generate`. Without a schema, a text that reached its limit ends with " […]"."""
        obeyed = Schema.parse(schema, of="endpoint") if schema else None

        def read(answer: Json) -> str:
            reply = self._read(answer)
            if obeyed is None:
                return reply.text + (CUT if reply.cut else "")
            return obeyed.read(_whole(reply).text)

        content = None if obeyed is None else obeyed.content
        shared = [self._form.pictures(view) for view in views]
        asks = [
            self._ask(pictures, prompt, read, what=f"tell {limit} {schema}", limit=limit, schema=content)
            for pictures, prompt in zip(shared, prompts, strict=True)
        ]
        return self._answers(asks, together=len(views) > 1)

    def score_options(
        self, views: Sequence[View], prompts: Sequence[str], options: Sequence[str]
    ) -> npt.NDArray[np.float64]:
        """See `VlmBackend.score_options`. Votes are 0 for the option that is chosen and -inf for the others.

        By first tokens an option has the likelihood of those that begin it and no other, -inf where there is none.
        """
        votes = self._options.likelihood == "votes"
        choice = Schema.parse(_enumeration(options), of="endpoint")

        def vote(answer: Json) -> list[float]:
            reply = self._read(answer)
            text = reply.text if self._form.structured == "none" else _unquoted(reply.text)
            chosen = pick(text + (CUT if reply.cut else ""), options)
            return [0.0 if place == chosen else -math.inf for place in range(len(options))]

        def first(answer: Json) -> list[float]:
            return weigh_first(self._read(answer).first, options)

        longest = max(len(option.encode()) for option in options) + 16  # tokens, whatever the tokenizer
        asks = [
            self._ask(
                pictures,
                prompt,
                vote if votes else first,
                what=f"weigh {self._options.likelihood} {choice.text}",
                limit=longest if votes else 1,
                schema=choice.content if votes else None,
                further={} if votes else {"logprobs": True, "top_logprobs": CANDIDATES},
            )
            for pictures in (self._form.pictures(view) for view in views)
            for prompt in prompts
        ]
        weights = self._answers(asks, together=len(views) > 1)
        return np.array(weights, dtype=np.float64).reshape(len(views), len(prompts), len(options))

    def _ask(
        self,
        pictures: Sequence[str],
        prompt: str,
        read: Callable[[Json], T],
        *,
        what: str,
        limit: int,
        schema: Mapping[str, Any] | None,
        further: Mapping[str, Any] | None = None,
    ) -> Ask[T]:
        body = self._form.body(pictures, prompt, limit=limit, schema=schema) | dict(further or {})
        key = hashlib.sha256("\n".join([what, prompt, *pictures]).encode()).hexdigest()
        return Ask("/chat/completions", tuple(body | {"seed": seed} for seed in SEEDS), read, key)

    def _answers(self, asks: Sequence[Ask[T]], *, together: bool) -> list[T]:
        """What is answered, in order; what was answered before is not asked again. Raises the first failure.

        Where views were asked about `together` and one failed, each is about to be asked for alone: then what failed
        fails once more without being asked, and the others are not paid for twice.
        """
        found: dict[str, Any] = {ask.key: self._kept[ask.key] for ask in asks if ask.key in self._kept}
        new = [ask for ask in asks if ask.key not in found]
        for key, answer in found.items():
            if isinstance(answer, ModelError):
                del self._kept[key]
        for ask, answer in zip(new, self._wire.ask(new), strict=True):
            found[ask.key] = answer
            if together or not isinstance(answer, ModelError):
                self._kept[ask.key] = answer
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        failed = [found[ask.key] for ask in asks if isinstance(found[ask.key], ModelError)]
        if failed:
            raise failed[0]
        return [found[ask.key] for ask in asks]

    def _read(self, answer: Json) -> Reply:
        return Reply.read(answer, model=self._answers_as)

    def _introduce(self) -> Introduction:
        if self._introduction is None and not self._options.listed:
            if not self._options.served:
                raise _wrong("served", "it must name the model", "", "--set model_options.served=NAME")
            self._introduction = Introduction()
        if self._introduction is None:
            ask = Ask("/models", (None,), lambda answer: Introduction.read(answer, served=self._options.served))
            [told] = self._wire.ask([ask])
            if isinstance(told, ModelError):
                unlisted = "Where a server is well but does not list it, --set model_options.listed=false"
                raise ModelError(told.subject, told.rule, value=told.value, remedy=f"{told.remedy}. {unlisted}")
            self._introduction = told
        return self._introduction


def _whole(reply: Reply) -> Reply:
    """A reply that was not cut off. Raises `ModelError`."""
    if reply.cut:
        raise ModelError(
            "model's answer",
            "it must end before its limit of tokens",
            remedy="Raise it: --set model_options.max_tokens=NUMBER; or ask for less",
        )
    return reply


def _enumeration(options: Sequence[str]) -> str:
    """The schema of one of the options."""
    return json.dumps({"type": "string", "enum": list(options)}, ensure_ascii=False)


def _unquoted(text: str) -> str:
    """The string that a JSON text is; any other text as it is, for a server that did not keep to the schema."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, str) else text


def _wrong(name: str, rule: str, value: str, remedy: str) -> RequestError:
    return invalid_option(name, "endpoint", rule, value=value, remedy=remedy)
