"""A client that sends JSON requests to one server, however the server behaves.

It sends to the named address and nowhere else: it follows no redirect and keeps no cookie. An answer is limited in time
and size, a failure is retried with growing pauses where that can help, and after failures in a row it gives up.
"""

import asyncio
import http.cookiejar
import json
import math
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import httpx2

from ...readers.errors import ModelError, RequestError, excerpt
from ...readers.servers import MAX_RETRY_AFTER, Address, AddressTerms, pause, retry_after, secret

CONNECT_TIMEOUT = 10.0  # seconds
MAX_ANSWER = 8 * 2**20  # bytes: a thousand times a long one
MAX_ERROR_BODY = 64 * 2**10
MIN_KEY = 12  # characters of a secret key; shorter ones are placeholders such as EMPTY, for local servers
_SHOWN = 200  # characters of a server's error message
_RETRIED = (408, 409, 429)  # and all from 500
_ABOUT_THE_FORM = (400, 422)  # the server is well and refuses this request, perhaps for its form
_ABOUT_THE_REQUEST = (*_ABOUT_THE_FORM, 413)
_ABOUT_THE_SENDER = (0, 401, 403, 429)  # 0 is no status at all
_UNLIMITED = 10**6

Json = Mapping[str, Any]
T = TypeVar("T")

_KEY = "Name the environment variable with its key: --set model_options.key_variable=NAME"
_CHECK_URL = "Check the URL, which often ends in /v1, and the model's name"
_REMEDIES = {404: _CHECK_URL, 413: "Lower --hd-num: the picture of a region is too large for it"}
_REFUSED = "Do what its message asks for; if the picture is too large, lower --hd-num"
_NUMBERS = "Its model may compute in numbers that overflow: have the server use float32 or bfloat16"
_UNWELL = "See the server's own log, then give the same command again: failed regions are retried"


_TERMS = AddressTerms(
    server="endpoint",
    example="For example --model endpoint:http://127.0.0.1:8000/v1",
    remedy="Put the key into an environment variable: --set model_options.key_variable=NAME",
    content="pictures, which may be of patients, and the key",
    insecure="Give an https URL, or where the network is safe --set model_options.insecure=true",
)


def endpoint_address(text: str, *, insecure: bool) -> Address:
    """The address of a model server. Raises `RequestError` as `Address.parse` does."""
    address = Address.parse(text, _TERMS, insecure=insecure)
    if address.url.endswith("/chat/completions"):
        raise RequestError("endpoint's URL", "must end before /chat/completions", remedy=_TERMS.example)
    return address


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long a failing server is retried."""

    timeout: float = 180.0
    """Seconds for a whole answer."""
    retries: int = 4
    """After a failure that may pass; a timeout gets one."""
    concurrency: int = 4
    """Requests at a time."""
    failures: int = 5
    """Requests given up in a row, after which no more are sent."""

    @property
    def slow_remedy(self) -> str:
        """The advice after a timeout."""
        others = "--hd-num, max_tokens or concurrency" if self.concurrency > 1 else "--hd-num or max_tokens"
        return f"Allow more than {self.timeout:g}: --set model_options.timeout=SECONDS; or lower {others}"


@dataclass(frozen=True, slots=True)
class HttpRequest(Generic[T]):
    """A request to a path of the server."""

    path: str
    bodies: tuple[Json | None, ...]
    """Sent in turn until `read` accepts an answer; None is a GET request."""
    read: Callable[[Json], T]
    """Raises `ModelError` for an answer that it refuses."""
    key: str = ""
    """Distinguishes this request from others."""
    encode: Callable[[Json], Json] = dict
    """The body as it is sent, in the form that the server is known to take at that moment."""
    learn: Callable[[Json, str], bool] = lambda _sent, _why: False
    """Whether a refusal of a sent body, with the server's message, says in what other form it is to be sent."""
    without: Callable[[str], T] | None = None
    """What stands for an answer that the server fails to give, from the reason; None where that is an error."""


class HttpClient:
    """A client of one server. `key_variable` names the environment variable with its key, "" for none."""

    def __init__(self, address: Address, policy: RetryPolicy, key_variable: str = "") -> None:
        self.address = address
        self._policy = policy
        self._variable = key_variable
        self._failed = 0  # requests that were given up in a row
        self._last_failure = ""

    def send(self, requests: Sequence[HttpRequest[T]]) -> list[T | ModelError]:
        """The answer to each request, in order, or its error. Raises `RequestError` where nothing can be sent."""
        return _run(self._send_all(requests)) if requests else []

    async def _send_all(self, requests: Sequence[HttpRequest[T]]) -> list[T | ModelError]:
        slots = asyncio.Semaphore(self._policy.concurrency)
        key = self._key()
        async with self._client(key) as client:
            return await asyncio.gather(*(self._send_one(client, slots, request, key) for request in requests))

    async def _send_one(
        self, client: httpx2.AsyncClient, slots: asyncio.Semaphore, request: HttpRequest[T], key: str
    ) -> T | ModelError:
        refused: ModelError | None = None
        async with slots:
            for body in request.bodies:
                answer = await self._retry(client, request, body, key)
                if isinstance(answer, _FailureError):
                    if request.without is not None and answer.status not in _ABOUT_THE_SENDER:
                        return request.without(answer.reason)
                    return self._given_up(answer.reason, answer.remedy)
                try:
                    return request.read(answer)
                except ModelError as error:
                    refused = error
        return refused or self._given_up("no request", _UNWELL)

    async def _retry(
        self, client: httpx2.AsyncClient, request: HttpRequest[Any], body: Json | None, key: str
    ) -> "Json | _FailureError":
        """The JSON answer to a body, after as many tries as it takes, or the last failure."""
        attempt, most = 0, self._policy.retries if request.without is None else min(1, self._policy.retries)
        while True:
            if self._failed >= self._policy.failures:
                value = f"{self._failed} requests failed one after the other, the last: {self._last_failure}"
                return _FailureError(value)
            sent = None if body is None else request.encode(body)
            content = None if sent is None else json.dumps(sent).encode()
            try:
                async with asyncio.timeout(self._policy.timeout):
                    answer = await self._exchange(client, request.path, content, key)
            except TimeoutError:
                reason = f"no whole answer within {self._policy.timeout:g} s"
                failure = _FailureError(reason, retries=1, remedy=self._policy.slow_remedy)
            except httpx2.HTTPError as error:
                failure = _FailureError(_message(error, key), retries=_UNLIMITED)
            except _FailureError as error:
                failure = error
            else:
                self._failed = 0
                return answer
            if sent is not None and failure.status in _ABOUT_THE_FORM and request.learn(sent, failure.reason):
                continue
            if attempt >= min(most, failure.retries):
                if request.without is None:
                    self._failed = self._failed + 1 if failure.counts else 0
                    self._last_failure = failure.reason
                return failure
            await asyncio.sleep(max(failure.wait, pause(attempt, request.key)))
            attempt += 1

    async def _exchange(self, client: httpx2.AsyncClient, path: str, content: bytes | None, key: str) -> Json:
        """One request and its answer. Raises `_FailureError`, `httpx2.HTTPError`."""
        method = "GET" if content is None else "POST"
        headers = {} if content is None else {"Content-Type": "application/json"}
        async with client.stream(method, self.address.url + path, content=content, headers=headers) as response:
            if response.is_redirect:
                where = _clean(response.headers.get("location", "elsewhere"), key)
                remedy = "limner follows no redirect: if you trust that address, name its URL"
                raise _FailureError(f"a redirect to {where}", remedy=remedy)
            if not response.is_success:
                raise await self._status_failure(response, key)
            raw = await _read(response, MAX_ANSWER)
        try:
            text = raw.decode("utf-8")
            answer: object = json.loads(text, parse_constant=_constant, parse_float=_finite)
        except _FailureError:
            raise
        except (ValueError, RecursionError):  # a UnicodeDecodeError is a ValueError
            raise _FailureError("an answer that is no JSON", retries=_UNLIMITED, remedy=_CHECK_URL) from None
        if len(key) >= MIN_KEY and key in text:
            raise _FailureError("an answer that repeats the key", remedy="Do not trust this server")
        if not isinstance(answer, dict):
            raise _FailureError("an answer that is no JSON object", retries=_UNLIMITED, remedy=_CHECK_URL)
        return cast("Json", answer)

    async def _status_failure(self, response: httpx2.Response, key: str) -> "_FailureError":
        """The failure of an error status, with the server's message."""
        status = response.status_code
        try:
            message = _error_message(await _read(response, MAX_ERROR_BODY))
        except _FailureError:
            message = ""
        reason = f"HTTP {status}" + (f", {_clean(message, key)}" if message else "")
        if status not in _RETRIED and status < 500:
            remedy = _REMEDIES.get(status, _REFUSED)
            if status in _ABOUT_THE_SENDER:
                remedy = f"Check the key in the environment variable {self._variable}" if self._variable else _KEY
            counts = status not in _ABOUT_THE_REQUEST
            return _FailureError(reason, remedy=remedy, counts=counts, status=status)
        wait = retry_after(response.headers.get("retry-after", ""))
        if wait > MAX_RETRY_AFTER:
            remedy = "Give the same command again after that"
            return _FailureError(f"{reason}; it asks to wait {wait:.0f} s", remedy=remedy, status=status)
        return _FailureError(reason, retries=_UNLIMITED, wait=wait, status=status)

    def _client(self, key: str) -> httpx2.AsyncClient:
        """A client that sends no more headers than needed. Raises `RequestError` for unusable proxies."""
        headers = {"User-Agent": "limner", "Accept": "application/json", "Accept-Encoding": "identity"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        most = self._policy.concurrency
        try:
            return httpx2.AsyncClient(
                headers=headers,
                cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
                trust_env=not self.address.loopback,  # no proxies: a request to this machine never leaves it
                follow_redirects=False,
                timeout=httpx2.Timeout(None, connect=min(CONNECT_TIMEOUT, self._policy.timeout)),
                limits=httpx2.Limits(max_connections=most, max_keepalive_connections=most),
            )
        except (ImportError, ValueError) as error:  # its message may hold a proxy's password
            raise RequestError(
                "proxy in the environment",
                "must be an http or https proxy",
                value=type(error).__name__,
                remedy="Correct HTTPS_PROXY or ALL_PROXY, or name the host in NO_PROXY",
            ) from None

    def _key(self) -> str:
        """The key, "" for none. Raises `RequestError`, which never shows it."""
        return secret(self._variable, "key_variable")

    def _given_up(self, value: str, remedy: str) -> ModelError:
        return ModelError(f"server {self.address.host}", "must answer", value=value, remedy=remedy)


class _FailureError(Exception):
    """A failed request: its reason, how often it may be retried, and the seconds that the server asked to wait.

    It `counts` against the server, unless it is about this one request. `status` is that of HTTP, 0 without one.
    """

    def __init__(
        self,
        reason: str,
        *,
        retries: int = 0,
        wait: float = 0.0,
        remedy: str = _UNWELL,
        counts: bool = True,
        status: int = 0,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retries = retries
        self.wait = wait
        self.remedy = remedy
        self.counts = counts


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:  # a notebook has a loop of its own in this thread
        return thread.submit(asyncio.run, work).result()


async def _read(response: httpx2.Response, limit: int) -> bytes:
    """A body as it was sent, without decompression. Raises `_FailureError` beyond `limit` bytes."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise _FailureError("a compressed answer, though none was accepted")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            remedy = "Check that this URL is a model server's"
            raise _FailureError(f"an answer longer than {limit // 2**10} KiB", remedy=remedy)
    return bytes(body)


def _constant(name: str) -> float:
    """-Infinity, which servers write as the log-likelihood of impossible tokens; others are refused."""
    if name == "-Infinity":
        return -math.inf
    raise _FailureError(f"an answer with {name}, which is no number in JSON", remedy=_NUMBERS, counts=False)


def _finite(text: str) -> float:
    number = float(text)
    return _constant("a number that overflows") if number == math.inf else number


def _error_message(raw: bytes) -> str:
    """The message in an error body, in the forms that servers use; "" where there is none, as in an HTML page."""
    try:
        content: object = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        return ""
    return _message_in(cast("object", content)) if isinstance(content, dict) else ""


def _message_in(content: object, depth: int = 4) -> str:
    """The texts of a message: of an error, with the parameter that it names, or of a list of FastAPI's."""
    if isinstance(content, list) and depth:
        return "; ".join(filter(None, (_message_in(one, depth - 1) for one in cast("list[object]", content)[:20])))
    if isinstance(content, dict) and depth:
        parts = cast("dict[str, object]", content)
        inner = next((parts[name] for name in ("error", "message", "detail", "msg") if parts.get(name)), "")
        text, place = _message_in(inner, depth - 1), parts.get("param") or parts.get("loc")
        named = ".".join(map(str, cast("list[object]", place))) if isinstance(place, list) else place
        return f"{text} ({named})" if text and isinstance(named, str) and named not in text else text
    return content if isinstance(content, str) else ""


def _message(error: httpx2.HTTPError, key: str) -> str:
    """The kind of a connection failure, and the library's message."""
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    message = _clean(str(error), key)
    return f"{kind}: {message}" if message else kind


def _clean(text: str, key: str) -> str:
    """A server's text as one short line, without the key and without any picture that it repeats."""
    if key:
        text = text.replace(key, "[key]")
    return excerpt(re.sub(r"data:[\w/+.-]*;base64,?[\w+/=]*", "[picture]", text), _SHOWN)
