"""The wire: requests to one server and their answers as JSON, however the server behaves.

It knows neither pictures nor questions. What was named is asked and nothing else: no redirect is followed, no cookie is
kept. An answer is bounded in time and size, a failure is tried again with growing pauses where that can help, and a
server that fails again and again is left alone.
"""

import asyncio
import hashlib
import http.cookiejar
import json
import math
import os
import re
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar, cast

import httpx2

from ...readers.errors import ModelError, RequestError, excerpt
from .address import Address

CONNECT = 10.0  # seconds until a connection stands
BACKOFF = 1.0  # seconds of the first pause; each further one is twice as long
LONGEST_PAUSE = 30.0
LONGEST_WAIT = 120.0  # seconds that a server may ask for; more is a failure that says so
LARGEST = 8 * 2**20  # bytes of an answer: a thousand times a long one
LARGEST_COMPLAINT = 64 * 2**10
SECRET = 12  # characters of a key; shorter ones are words such as EMPTY, which local servers are content with
_SHOWN = 200  # characters of what a server says of a failure
_AGAIN = (408, 409, 429)  # with all of 500 and above, failures that may pass
_ABOUT_A_REQUEST = (400, 413, 422)  # the server is well and cannot take this one
_OFTEN = 10**6

Json = Mapping[str, Any]
T = TypeVar("T")

_KEY = "Name the environment variable that holds a key for it: --set model_options.key_variable=NAME"
_REMEDIES = {
    401: _KEY,
    403: _KEY,
    404: "Check the URL, which often ends in /v1, and the model's name",
    413: "Lower --hd-num: the picture of a region is too large for it",
}
_REFUSED = (
    "If it is about the picture's size lower --hd-num; if about response_format, --set model_options.structured=none"
)
_NUMBERS = "Its model may compute in numbers that overflow: have the server use float32 or bfloat16"
_UNWELL = "See what the server says of itself, then give the same command: failed regions are asked again"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long a server is borne with.

    `timeout` seconds for a whole answer; `retries` after a failure that may pass, of which a time-out gets one;
    `concurrency` requests at a time. Once `failures` requests were given up one after the other, nothing more is asked.
    """

    timeout: float = 180.0
    retries: int = 4
    concurrency: int = 4
    failures: int = 5


@dataclass(frozen=True, slots=True)
class Ask(Generic[T]):
    """One thing to ask: `bodies` are sent to `path` in turn until `read` accepts an answer; None asks with GET.

    `read` raises `ModelError` for an answer that it refuses. `key` is what distinguishes this from other things.
    """

    path: str
    bodies: tuple[Json | None, ...]
    read: Callable[[Json], T]
    key: str = ""


class HttpClient:
    """Asks one server. `key_variable` names the environment variable that holds the key, "" where it wants none."""

    def __init__(self, address: Address, patience: RetryPolicy, key_variable: str = "") -> None:
        self.address = address
        self._patience = patience
        self._variable = key_variable
        self._failed = 0  # requests that were given up, one after the other
        self._last = ""

    def ask(self, asks: Sequence[Ask[T]]) -> list[T | ModelError]:
        """What each is answered, in order, or why it is not. Raises `RequestError` where nothing can be asked."""
        return _run(self._all(asks)) if asks else []

    async def _all(self, asks: Sequence[Ask[T]]) -> list[T | ModelError]:
        gate = asyncio.Semaphore(self._patience.concurrency)
        key = self._key()
        async with self._client(key) as client:
            return await asyncio.gather(*(self._one(client, gate, ask, key) for ask in asks))

    async def _one(self, client: httpx2.AsyncClient, gate: asyncio.Semaphore, ask: Ask[T], key: str) -> T | ModelError:
        refused = ModelError(f"server {self.address.host}", "it must be asked something", remedy=_UNWELL)
        async with gate:
            for body in ask.bodies:
                try:
                    return ask.read(await self._send(client, ask, body, key))
                except _GivenUpError as error:
                    return error.plain()
                except ModelError as error:
                    refused = error
        return refused

    async def _send(self, client: httpx2.AsyncClient, ask: Ask[Any], body: Json | None, key: str) -> Json:
        """The JSON that a body is answered with, after as many tries as it takes. Raises `_GivenUpError`."""
        content = None if body is None else json.dumps(body).encode()
        attempt = 0
        while True:
            if self._failed >= self._patience.failures:
                times = f"{self._failed} requests were given up one after the other, the last: {self._last}"
                raise _GivenUpError(f"server {self.address.host}", "it must answer", value=times, remedy=_UNWELL)
            try:
                async with asyncio.timeout(self._patience.timeout):
                    answer = await self._exchange(client, ask.path, content, key)
            except TimeoutError:
                fault = _FaultError(f"no whole answer within {self._patience.timeout:g} s", retries=1, remedy=_SLOW)
            except httpx2.HTTPError as error:
                fault = _FaultError(_in_words(error, key), retries=_OFTEN)
            except _FaultError as error:
                fault = error
            else:
                self._failed = 0
                return answer
            if attempt >= min(self._patience.retries, fault.retries):
                self._failed = self._failed + 1 if fault.counts else 0
                self._last = fault.reason
                raise _GivenUpError(
                    f"server {self.address.host}", "it must answer", value=fault.reason, remedy=fault.remedy
                )
            await asyncio.sleep(max(fault.wait, pause(attempt, ask.key)))
            attempt += 1

    async def _exchange(self, client: httpx2.AsyncClient, path: str, content: bytes | None, key: str) -> Json:
        """One request and its answer. Raises `_FaultError`, `httpx2.HTTPError`."""
        method = "GET" if content is None else "POST"
        headers = {} if content is None else {"Content-Type": "application/json"}
        async with client.stream(method, self.address.url + path, content=content, headers=headers) as response:
            if response.is_redirect:
                where = _clean(response.headers.get("location", "elsewhere"), key)
                remedy = "limner follows no redirect. If you trust that place, name its URL"
                raise _FaultError(f"it points elsewhere, to {where}", remedy=remedy)
            if not response.is_success:
                raise await _complaint(response, key)
            raw = await _read(response, LARGEST)
        try:
            text = raw.decode("utf-8")
            answer: object = json.loads(text, parse_constant=_no_number, parse_float=_finite)
        except _FaultError:
            raise
        except (ValueError, RecursionError):  # what is not UTF-8 is a ValueError too
            answer = None
        else:
            if len(key) >= SECRET and key in text:
                raise _FaultError("its answer repeats the key that it was sent", remedy="Do not trust this server")
        if not isinstance(answer, dict):
            raise _FaultError("its answer is not a JSON object", retries=_OFTEN, remedy=_REMEDIES[404])
        return cast("Json", answer)

    def _client(self, key: str) -> httpx2.AsyncClient:
        """A client that says no more of itself than it must. Raises `RequestError` for proxies that cannot be used."""
        headers = {"User-Agent": "limner", "Accept": "application/json", "Accept-Encoding": "identity"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        most = self._patience.concurrency
        try:
            return httpx2.AsyncClient(
                headers=headers,
                cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
                trust_env=not self.address.loopback,  # proxies: a request to this machine never leaves it
                follow_redirects=False,
                timeout=httpx2.Timeout(None, connect=min(CONNECT, self._patience.timeout)),
                limits=httpx2.Limits(max_connections=most, max_keepalive_connections=most),
            )
        except (ImportError, ValueError) as error:  # its text may hold a proxy's password
            raise RequestError(
                "proxy in the environment",
                "it must be an http or https proxy",
                value=type(error).__name__,
                remedy="Correct HTTPS_PROXY or ALL_PROXY, or name the host in NO_PROXY",
            ) from None

    def _key(self) -> str:
        """The key, "" where none is wanted. Raises `RequestError`, which never shows it."""
        if not self._variable:
            return ""
        key = os.environ.get(self._variable, "").strip()
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise RequestError(
                f"environment variable {self._variable}",
                "it must hold the key, in plain characters",
                value="" if key else "nothing",
                remedy="Set it where limner runs, or leave out key_variable where the server wants no key",
            )
        return key


class _FaultError(Exception):
    """A request that failed: why, how often it may be tried again, and how long the server asked to wait.

    It `counts` against the server, unless it is about this one request.
    """

    def __init__(
        self, reason: str, *, retries: int = 0, wait: float = 0.0, remedy: str = _UNWELL, counts: bool = True
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retries = retries
        self.wait = wait
        self.remedy = remedy
        self.counts = counts


class _GivenUpError(ModelError):
    """A server that does not answer, as opposed to an answer that is refused."""

    def plain(self) -> ModelError:
        """The same as what everybody knows."""
        return ModelError(self.subject, self.rule, value=self.value, remedy=self.remedy)


_SLOW = "Allow more: --set model_options.timeout=SECONDS; or lower --hd-num, max_tokens or concurrency"


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:  # a notebook has a loop of its own in this one
        return thread.submit(asyncio.run, work).result()


async def _read(response: httpx2.Response, limit: int) -> bytes:
    """A body as it was sent, which nothing can unpack into more. Raises `_FaultError` beyond `limit` bytes."""
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding not in {"", "identity"}:
        raise _FaultError("its answer is compressed, which it was asked not to do", retries=0)
    whole = bytearray()
    async for chunk in response.aiter_raw():
        whole += chunk
        if len(whole) > limit:
            raise _FaultError(f"its answer is longer than {limit // 2**10} KiB", remedy="Is this URL a model server's?")
    return bytes(whole)


async def _complaint(response: httpx2.Response, key: str) -> _FaultError:
    """What a status other than success means, with what the server says of it."""
    status = response.status_code
    try:
        said = _said(await _read(response, LARGEST_COMPLAINT))
    except _FaultError:
        said = ""
    reason = f"HTTP {status}" + (f", {_clean(said, key)}" if said else "")
    if status not in _AGAIN and status < 500:
        return _FaultError(reason, remedy=_REMEDIES.get(status, _REFUSED), counts=status not in _ABOUT_A_REQUEST)
    wait = _asked_to_wait(response.headers)
    if wait > LONGEST_WAIT:
        return _FaultError(f"{reason}; it asks to wait {wait:.0f} s", remedy="Give the same command again after that")
    return _FaultError(reason, retries=_OFTEN, wait=wait)


def _no_number(name: str) -> float:
    """What is no JSON: -Infinity, by which servers tell the likelihood of nothing, and others, which are refused."""
    if name == "-Infinity":
        return -math.inf
    raise _FaultError(f"its answer holds {name}, which is no number of JSON's", remedy=_NUMBERS, counts=False)


def _finite(text: str) -> float:
    number = float(text)
    return _no_number("a number beyond all bounds") if number == math.inf else number


def _said(raw: bytes) -> str:
    """The message in the body of a failure, in the forms that servers use; "" where there is none, as in a page."""
    try:
        said: object = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        return ""
    for _ in range(2):
        if isinstance(said, dict):
            parts = cast("dict[str, object]", said)
            said = next((parts[name] for name in ("error", "message", "detail") if parts.get(name)), "")
    return said if isinstance(said, str) else ""


def _asked_to_wait(headers: httpx2.Headers) -> float:
    """Seconds in a Retry-After header, which holds either seconds or a date (RFC 9110, section 10.2.3); else 0."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def pause(attempt: int, key: str) -> float:
    """Seconds before the next try: twice as long each time, spread evenly by what is asked rather than by chance."""
    spread = hashlib.sha256(f"{attempt} {key}".encode()).digest()[0] / 255
    return min(LONGEST_PAUSE, BACKOFF * 2.0 ** min(attempt, 10)) * (0.5 + 0.5 * spread)


def _in_words(error: httpx2.HTTPError, key: str) -> str:
    """What went wrong on the way: the kind of failure, and what the library says of it."""
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    said = _clean(str(error), key)
    return f"{kind}: {said}" if said else kind


def _clean(text: str, key: str) -> str:
    """What a server says, fit to be shown: one short line without the key, and without any picture it repeats."""
    if key:
        text = text.replace(key, "[key]")
    text = re.sub(r"data:[\w/+.-]*;base64,?[\w+/=]*", "[picture]", text)
    return excerpt(text, _SHOWN)
