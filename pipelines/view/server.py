"""The server of `limner view`: on this machine only, for who knows its address, and for no page but its own.

Every request must name this host (which keeps out pages of others whose name is made to lead here), and begin its path
with a random token; one that changes something must come from the page itself. No request names a file.
"""

import hmac
import secrets
import select
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from ...readers.errors import RequestError
from ...reports.html.live_page import live_policy
from .api import Api, Reply

HOST: Final = "127.0.0.1"
MOST_BYTES: Final = 4 << 20
"""Longest body of a request."""

_MOST_CONNECTIONS: Final = 48
_IDLE_SECONDS: Final = 30.0
_HEADERS: Final = {
    "Cache-Control": "no-store",  # pictures may be of a patient: none stays in a browser's cache
    "Content-Security-Policy": f"{live_policy()}; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class ViewServer(ThreadingHTTPServer):
    """Serves one run. Raises `RequestError` where the port is taken."""

    daemon_threads = True
    allow_reuse_address = True  # only connections that are closing hold a port that this process had
    request_queue_size = 64

    def __init__(self, api: Api, port: int) -> None:
        self.api = api
        self.token = secrets.token_urlsafe(24)
        self._connections = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            rule, remedy = "must be a free port of this machine", "Give another --port, or 0 for any that is free"
            raise RequestError("--port", rule, value=f"{port}: {error.strerror}", remedy=remedy) from error
        self.names = frozenset(f"{name}:{self.server_port}" for name in (HOST, "localhost"))
        """What a request may call this host."""

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own; where there are too many, not at all."""
        if self._connections.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room for another connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: what a browser breaks off is no error, and a traceback may hold names."""


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    server_version = "limner"
    sys_version = ""
    timeout = _IDLE_SECONDS
    server: ViewServer  # pyright: ignore[reportIncompatibleVariableOverride] - no other makes one

    def do_GET(self) -> None:
        """Answer with a page, a picture or data."""
        path, query = self._path()
        self._send(self._refused() or self._answered(lambda: self.server.api.get(path, query, self._is_open)))

    def do_POST(self) -> None:
        """Take a decision of the reviewer."""
        reply = self._refused() or self._refused_change()
        if reply is None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            reply = self._answered(lambda: self.server.api.post(self._path()[0], body))
        self._send(reply)

    def _answered(self, answer: Callable[[], Reply]) -> Reply:
        """The answer; where it fails, as with a damaged index, nothing of why."""
        try:
            return answer()
        except Exception:  # noqa: BLE001 - a message may hold names
            return Reply(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _path(self) -> tuple[list[str], str]:
        """The parts of the path after the token, and the query."""
        path, _, query = self.path.partition("?")
        return path.split("/")[2:], query

    def _refused(self) -> Reply | None:
        """Why a request is not answered; None where it is."""
        if self.headers.get("Host", "") not in self.server.names:
            return Reply(HTTPStatus.MISDIRECTED_REQUEST)
        given = self.path.split("/")[1] if self.path.startswith("/") else ""
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self.server.token.encode()):
            return Reply(HTTPStatus.NOT_FOUND)
        if self.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            return Reply(HTTPStatus.FORBIDDEN)
        return None

    def _refused_change(self) -> Reply | None:
        """Why a request that would change something is not answered; None where it is."""
        if self.headers.get("Origin", "") not in {f"http://{name}" for name in self.server.names}:
            return Reply(HTTPStatus.FORBIDDEN)
        if self.headers.get("Content-Type", "") != "application/json":
            return Reply(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdecimal()):
            return Reply(HTTPStatus.LENGTH_REQUIRED)
        return Reply(HTTPStatus.REQUEST_ENTITY_TOO_LARGE) if int(length) > MOST_BYTES else None

    def _is_open(self) -> bool:
        """Whether the browser still waits for the answer."""
        try:
            ready, _, _ = select.select([self.connection], [], [], 0)
            return not ready or bool(self.connection.recv(1, socket.MSG_PEEK))
        except (OSError, ValueError):
            return False

    def _send(self, reply: Reply) -> None:
        if reply.status >= HTTPStatus.BAD_REQUEST:
            self.close_connection = True  # a body that was not read must not be taken for the next request
        self.send_response(reply.status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Content-Length", str(len(reply.content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(reply.content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what http.server refuses, without the text of the request."""
        del message, explain
        self.close_connection = True
        self._send(Reply(HTTPStatus(code)))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - a name of http.server
        """Log nothing: an address has the token."""
