"""The form in which a server takes requests: learned from what it says when it refuses one, and kept for the run.

Servers with OpenAI's API differ in the parameters that they take and in how a request states a JSON schema. A request
is first sent in the most common form. What the server's message names is then changed, one step at a time.
"""

import logging
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, Literal, get_args

Json = Mapping[str, Any]
Structured = Literal["json_schema", "json_schema-loose", "structured_outputs", "guided_json", "json_object", "none"]
"""How a request states a schema: as OpenAI's response_format, strict or not; as vLLM's structured_outputs (from 0.12)
or guided_json (before); as llama.cpp's response_format json_object with a schema; or not at all."""

_WAYS: Final[tuple[Structured, ...]] = get_args(Structured)  # in the order in which they are tried
_UNUSUAL: Final[Mapping[bool, frozenset[Structured]]] = {
    True: frozenset({"json_schema-loose", "json_object"}),
    False: frozenset({"structured_outputs", "guided_json"}),
}
"""Forms that are left out for vLLM, and for all others unless their message names them."""
_ABOUT_SCHEMAS: Final = re.compile(
    "response_format|json_schema|json_object|schema|guided_|structured.outputs?|grammar", re.IGNORECASE
)
_LOSSES: Final = {
    "temperature": "it takes no temperature, so that its answers may differ from run to run",
    "seed": "it takes no seed, so that its answers may differ from run to run",
}
"""Parameters that a request can do without, and what that means."""


class Dialect:
    """What the server at `host` takes. Requests are made in OpenAI's form, which `encode` changes into the server's.

    `structured` is the first form of schemas to try.
    """

    def __init__(self, host: str, structured: Structured = "json_schema") -> None:
        self._host = host
        self._structured: Structured = structured
        self._refused: set[Structured] = set()
        self._completion_tokens = False
        self._without: set[str] = set()
        self.owner = ""
        """The owner of the model as the server states it, such as vllm."""

    def encode(self, body: Json) -> Json:
        """A request in the form that the server is known to take."""
        sent = {name: value for name, value in body.items() if name not in self._without}
        if self._completion_tokens and "max_tokens" in sent:
            sent["max_completion_tokens"] = sent.pop("max_tokens")
        stated = sent.pop("response_format", None)
        return sent if stated is None else sent | self._schema_fields(stated["json_schema"]["schema"])

    def learn(self, sent: Json, why: str) -> bool:
        """Change the form after a refusal of `sent` with that message; whether it is to be sent again."""
        if "max_tokens" in sent and "max_completion_tokens" in why:
            self._completion_tokens = True
            return True
        for name, loss in _LOSSES.items():
            if name in sent and re.search(rf"(?<![\w-]){name}(?![\w-])", why):
                if name not in self._without:
                    self._without.add(name)
                    self.warn(loss)
                return True
        form = _form_of(sent)
        if form is None or not _ABOUT_SCHEMAS.search(why):
            return False
        if form == self._structured:  # else another request has changed it meanwhile
            self._refused.add(form)
            self._structured = self._next(why)
            if self._structured == "none":
                self.warn("it takes no schemas, so that answers are only checked after they are written")
        return True

    def warn(self, what: str) -> None:
        """Warn the user of what was found out about the server, once in a process."""
        _warn(self._host, what)

    def _next(self, why: str) -> Structured:
        """The form to try next: one of vLLM's that the message names, else in order."""
        left: list[Structured] = [form for form in _WAYS if form not in self._refused]
        unusual = _UNUSUAL[self.owner == "vllm"]
        named: list[Structured] = [form for form in left if form in _UNUSUAL[False] and form in why]
        usual: list[Structured] = [form for form in left if form not in unusual]
        return named[0] if named else usual[0]

    def _schema_fields(self, schema: Json) -> dict[str, Any]:
        if self._structured in {"json_schema", "json_schema-loose"}:
            stated = {"name": "answer", "strict": self._structured == "json_schema", "schema": schema}
            return {"response_format": {"type": "json_schema", "json_schema": stated}}
        fields: dict[str, dict[str, Any]] = {
            "structured_outputs": {"structured_outputs": {"json": schema}},
            "guided_json": {"guided_json": schema},
            "json_object": {"response_format": {"type": "json_object", "schema": schema}},
        }
        return fields.get(self._structured, {})


def _form_of(sent: Json) -> Structured | None:
    """How a request states its schema, None where it states none."""
    stated = sent.get("response_format")
    if stated is None:
        named: Structured | None = next((form for form in _WAYS if form in sent), None)
        return named
    if stated["type"] == "json_object":
        return "json_object"
    return "json_schema" if stated["json_schema"]["strict"] else "json_schema-loose"


@cache
def _warn(host: str, what: str) -> None:
    logging.getLogger("limner").warning("endpoint %s: %s.", host, what)
