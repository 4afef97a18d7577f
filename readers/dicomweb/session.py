"""Exchanges with one DICOMweb server, however it behaves.

Only the named server is contacted: no redirect is followed, no cookie is kept, and `.netrc` is not read. An answer is
limited in time and size and never decompressed. A failure that may pass is tried again with growing pauses. No URL, UID
or message of the server is in an error: they may identify a patient.
"""

import http.client
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from socket import SHUT_RDWR, gaierror, socket
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies

from ..errors import ReadError, RequestError, excerpt
from ..files import parse_json
from ..servers import MAX_RETRY_AFTER, Address, pause, retry_after
from .options import WebOptions, authorization

T = TypeVar("T")

CONNECT_SECONDS: Final = 10.0
MIN_RATE: Final = 16 * 2**10
"""Bytes per second on average, after the time-out, below which an exchange is given up."""

MAX_JSON: Final = 8 * 2**20
"""Bytes of an answer in JSON: a page of 500 instances has about 1 MiB."""

CHUNK: Final = 2**18
JSON_TYPES: Final = ("application/dicom+json", "application/json")
_RETRIED: Final = (408, 425, 429)  # and all from 500
_UNWELL: Final = "See the server's own log, then give the same command again: it goes on where it stopped"
_BROKEN: Final = "Check that the URL is a DICOMweb server's; if it is, tell those who run it"
_CHECK_URL: Final = "Check the URL, which often ends in /dicom-web"


class WebError(Exception):
    """A failed exchange.

    `retries` are how often it may be tried again, after `wait` seconds at least; `status` is that of HTTP, 0 without
    one.
    """

    def __init__(self, reason: str, *, remedy: str = "", retries: int = 0, wait: float = 0.0, status: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy or (_UNWELL if retries else _BROKEN)
        self.retries = retries
        self.wait = wait
        self.status = status

    @property
    def is_absence(self) -> bool:
        """Whether the server could not be reached or is out of order, rather than refusing."""
        return self.retries > 0

    def as_read_error(self, server: Address) -> ReadError:
        """The error for the user."""
        return ReadError(
            f"DICOMweb server {server.host}", "must answer as DICOMweb", value=self.reason, remedy=self.remedy
        )


MANY: Final = 10**6
"""Retries without a limit of their own."""


class WebSession(requests.Session):
    """A session with one server, for one thread. Raises `RequestError` for unusable credentials or certificates."""

    def __init__(self, server: Address, options: WebOptions) -> None:
        super().__init__()
        self.server = server
        self._options = options
        self._sockets: list[socket] = []
        self._aborted = threading.Event()
        self.trust_env = False  # no .netrc
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.headers.clear()
        self.headers.update({"User-Agent": "limner", "Accept-Encoding": "identity"})
        if value := authorization(options):
            self.headers["Authorization"] = value
        self.verify = _checked_authority(options.web_ca_file) or True
        if not server.loopback:  # a request to this machine never leaves it
            self.proxies.update(get_environ_proxies(server.url))
        self.mount("https://", _Adapter(self._sockets))
        self.mount("http://", _Adapter(self._sockets))

    def request(self, method: Any, url: Any, *_: Any, headers: Any = None, **__: Any) -> requests.Response:  # pyright: ignore[reportIncompatibleMethodOverride] - of all that requests can do
        """A search of dicomweb-client, whose answer is JSON: read, limited and checked here. Raises `WebError`."""
        given = cast("Mapping[str, str]", headers or {})
        own = {key: value for key, value in given.items() if key.lower() != "host"}  # its own lacks the port
        path, mark, query = str(url).partition("?")
        query = query.replace("+", "%20")  # a plus is a space in forms only, and servers differ
        return self.exchange(str(method), f"{path}{mark}{query}", _read_json, headers=own)

    def abort(self) -> None:
        """End the exchange of another thread, and begin no other."""
        self._aborted.set()
        _shut(self._sockets)

    def exchange(
        self,
        method: str,
        url: str,
        read: "Callable[[Answer], T]",
        *,
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Any] | None = None,
        size: int = 0,
        store: bool = False,
    ) -> T:
        """Send a request, and again where that may help, until `read` accepts an answer. Raises `WebError`.

        body: makes the body of a try, of `size` bytes.
        store: whether an object is stored: it is sent once, and `read` also gets the answer of a conflict.
        """
        most = 0 if store else self._options.web_retries
        attempt = 0
        while True:
            try:
                return self._try(method, url, read, headers or {}, body, size, conflict=store)
            except WebError as error:
                if attempt >= min(most, error.retries) or self._aborted.wait(max(error.wait, pause(attempt, url))):
                    raise
            attempt += 1

    def _try(
        self,
        method: str,
        url: str,
        read: "Callable[[Answer], T]",
        headers: Mapping[str, str],
        body: Callable[[], Any] | None,
        size: int,
        *,
        conflict: bool,
    ) -> T:
        """One request and its answer."""
        if self._aborted.is_set():
            raise WebError("nothing, since it was not asked any more")
        if not url.startswith((f"{self.server.url}/", f"{self.server.url}?")):
            raise WebError("an address on another server")
        seconds = self._options.web_timeout
        with _Watchdog(seconds + size / MIN_RATE, self._sockets) as watchdog:
            try:
                response = super().request(
                    method,
                    url,
                    headers=dict(headers),
                    data=None if body is None else body(),
                    stream=True,
                    allow_redirects=False,
                    timeout=(min(CONNECT_SECONDS, seconds), seconds),
                )
                with response:
                    if not (conflict and response.status_code == HTTPStatus.CONFLICT):
                        self._check_status(response)
                    return read(Answer(response, watchdog))
            except (requests.RequestException, http.client.HTTPException, OSError) as error:
                causes = _causes(error)
                if watchdog.expired or any(isinstance(one, requests.Timeout | TimeoutError) for one in causes):
                    reason = f"no whole answer within {seconds:g} s"
                    remedy = "Allow more: --reader-options web_timeout=SECONDS"
                    raise WebError(reason, remedy=remedy, retries=1) from None
                raise _connection_error(causes) from None
            except ValueError as error:  # of requests, for a header or an address that it refuses
                raise WebError(f"a request that cannot be sent ({type(error).__name__})", remedy=_CHECK_URL) from None

    def _check_status(self, response: requests.Response) -> None:
        """Raise `WebError` for a redirect and an error status."""
        status = response.status_code
        if 200 <= status < 300:
            return
        if 300 <= status < 400:
            remedy = "limner follows no redirect: if you trust that address, name its URL"
            where = _host_of(response.headers.get("location", ""))
            raise WebError(f"a redirect to {where}", remedy=remedy, status=status)
        reason = f"HTTP {status} {http.client.responses.get(status, '')}".strip()
        if status in _RETRIED or status >= 500:
            wait = retry_after(response.headers.get("retry-after", ""))
            if wait > MAX_RETRY_AFTER:
                remedy = "Give the same command again after that"
                raise WebError(f"{reason}; it asks to wait {wait:.0f} s", remedy=remedy, status=status)
            raise WebError(reason, retries=MANY, wait=wait, status=status)
        remedy = self._credentials_remedy() if status in {401, 403, 407} else _CHECK_URL
        raise WebError(reason, remedy=remedy, status=status)

    def _credentials_remedy(self) -> str:
        options = self._options
        named = filter(None, (options.web_token_variable, options.web_user_variable, options.web_password_variable))
        if variables := " and ".join(named):
            return f"Check what is in {variables}, and what that account may do"
        return (
            "It needs a login: name environment variables with web_user_variable and web_password_variable,"
            " or web_token_variable"
        )


class Answer:
    """An answer whose body is not read yet."""

    def __init__(self, response: requests.Response, watchdog: "_Watchdog") -> None:
        self.response = response
        self._watchdog = watchdog

    @property
    def status(self) -> int:
        """The status of HTTP."""
        return self.response.status_code

    @property
    def media_type(self) -> str:
        """The type in Content-Type, in lower case and without parameters."""
        return self.response.headers.get("content-type", "").partition(";")[0].strip().lower()

    def chunks(self, limit: int) -> Iterator[bytes]:
        """The body as it is sent, piece by piece. Raises `WebError` beyond `limit` bytes and for a compressed one."""
        encoding = self.response.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in {"", "identity"}:
            raise WebError("a compressed answer, though none was accepted")
        total = 0
        for chunk in self.response.iter_content(CHUNK):
            total += len(chunk)
            if total > limit:
                raise WebError(f"an answer longer than {limit // 2**20} MiB")
            self._watchdog.extend(len(chunk) / MIN_RATE)
            yield chunk
        if self._watchdog.expired:  # its end is that of the connection
            raise TimeoutError

    def wrong_type(self, expected: str) -> WebError:
        """The error about an answer of another type."""
        kind = self.media_type or "no type"
        kind = kind if len(kind) < 60 and kind.isascii() and kind.isprintable() else "another type"
        what = "an HTML page, perhaps of a login," if "html" in kind else f"an answer of {kind}"
        return WebError(f"{what} instead of {expected}", remedy=_CHECK_URL)


def _read_json(answer: Answer) -> requests.Response:
    """The response with its body, which is JSON or empty. Raises `WebError`."""
    body = b"".join(answer.chunks(MAX_JSON))
    if body.strip():
        read_json(answer, body)
    response = answer.response
    response.headers.pop("Warning", None)  # dicomweb-client would log it, and it may quote a patient
    response._content = body  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - as requests itself keeps it
    response._content_consumed = True  # noqa: SLF001 # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    return response


def read_json(answer: Answer, body: bytes) -> Any:
    """The JSON in a body. Raises `WebError` for another type, damage, and nesting without end."""
    if answer.media_type not in JSON_TYPES:
        raise answer.wrong_type("DICOM JSON")
    try:
        return parse_json(body)
    except ValueError:
        raise WebError("an answer that is no JSON, or a damaged one", remedy=_BROKEN, retries=1) from None


def _host_of(location: str) -> str:
    """The scheme and host of a redirect, without the path, which may hold a UID."""
    try:
        parts = urlsplit(location)
        return excerpt(f"{parts.scheme}://{parts.hostname}", 60) if parts.hostname else "another path"
    except ValueError:
        return "no address"


def _causes(error: BaseException) -> list[BaseException]:
    """An error and what caused it, as the libraries below tell it."""
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        inner = [one for one in (getattr(cause, "reason", None), *cause.args) if isinstance(one, BaseException)]
        cause = next(iter(inner), None) or cause.__cause__ or cause.__context__
    return found


def _connection_error(causes: Sequence[BaseException]) -> WebError:
    """A failed connection in words."""
    kinds: tuple[tuple[type[BaseException], str, str, int], ...] = (
        (
            ssl.SSLError,
            "a certificate that cannot be verified",
            "If its authority is your own, name the file of its certificate: --reader-options web_ca_file=FILE",
            0,
        ),
        (
            requests.exceptions.ProxyError,
            "a proxy that failed",
            "Check HTTPS_PROXY, or set NO_PROXY",
            MANY,
        ),
        (gaierror, "a host name that is not known", "Check the URL and the network", MANY),
        (ConnectionRefusedError, "a refused connection", "Check the URL, and that the server runs", MANY),
    )
    for kind, reason, remedy, retries in kinds:
        if any(isinstance(one, kind) for one in causes):
            return WebError(reason, remedy=remedy, retries=retries)
    return WebError("a connection that broke off", retries=MANY)


def _checked_authority(path: str) -> str:
    """The path of a file of certificates, "" for the usual authorities. Raises `RequestError`."""
    if path:
        try:
            ssl.create_default_context(cafile=path)
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            rule, remedy = "must be a readable PEM file of certificates", "Check its path and content"
            raise RequestError("option web_ca_file", rule, value=type(error).__name__, remedy=remedy) from None
    return path


class _Adapter(HTTPAdapter):
    """Connections that tell their sockets, so that an exchange can be ended at its deadline."""

    def __init__(self, sockets: list[socket]) -> None:
        self._sockets = sockets
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *arguments: Any, **given: Any) -> None:
        """As in the base class."""
        super().init_poolmanager(*arguments, **given)
        _watch(self.poolmanager, self._sockets)

    def proxy_manager_for(self, *arguments: Any, **given: Any) -> Any:
        """As in the base class."""
        manager = super().proxy_manager_for(*arguments, **given)
        _watch(manager, self._sockets)
        return manager


def _watch(manager: Any, sockets: list[socket]) -> None:
    """Let the connections of a pool manager put their socket into a list, also while TLS is negotiated."""

    def watched(pool: Any) -> Any:
        base = pool.ConnectionCls

        def connect(self: Any) -> None:
            base.connect(self)
            sockets[:] = [self.sock]

        def new_conn(self: Any) -> socket:
            sockets[:] = [base._new_conn(self)]  # noqa: SLF001 - the only place where the socket is made
            return sockets[0]

        connection = type(base.__name__, (base,), {"connect": connect, "_new_conn": new_conn})
        return type(pool.__name__, (pool,), {"ConnectionCls": connection})

    manager.pool_classes_by_scheme = {scheme: watched(pool) for scheme, pool in manager.pool_classes_by_scheme.items()}


def _shut(sockets: Sequence[socket]) -> None:
    """End the connections of sockets that another thread reads."""
    for one in list(sockets):
        with suppress(OSError):
            socket.shutdown(one, SHUT_RDWR)  # also of TLS, which must not wait for the other side


class _Watchdog:
    """Ends an exchange at its deadline by shutting its socket, however slowly bytes arrive."""

    def __init__(self, seconds: float, sockets: list[socket]) -> None:
        self.expired = False
        self._deadline = time.monotonic() + seconds
        self._sockets = sockets
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._wait, daemon=True)

    def extend(self, seconds: float) -> None:
        """Move the deadline."""
        self._deadline += seconds

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _wait(self) -> None:
        while not self._done.wait(max(0.0, self._deadline - time.monotonic())):
            if time.monotonic() >= self._deadline:
                self.expired = True
                _shut(self._sockets)
                if self._done.wait(1.0):
                    return
