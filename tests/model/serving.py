"""A server of OpenAI's form on this machine, for tests."""

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """A request that reached a server: `headers` by their names in small letters, `body` as JSON or None."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


class ModelServer:
    """A server of OpenAI's form on this machine. It serves the model "seer" and remembers what it was `asked`.

    `say` makes a text of a request's body. `script` holds what happens to the next requests for an answer instead:
    each entry is called with the handler. `release` is set when it closes.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.script: deque[Callable[[Any], None]] = deque()
        self.say: Callable[[Any], str] = lambda _: "Nothing much."
        self.models = [{"id": "seer", "object": "model", "created": 1, "owned_by": "nobody", "root": "/m/seer"}]
        self.release = threading.Event()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    @property
    def questions(self) -> list[Any]:
        """The bodies of what it was asked to answer, in the order in which they came."""
        return [one.body for one in self.asked if one.method == "POST"]

    def reply(self, text: str | None, **changes: Any) -> dict[str, Any]:
        """The body of an answer; `changes` are of its first choice, but for `model`."""
        model = changes.pop("model", "seer")
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop", "message": message, **changes}
        return {"id": "x", "object": "chat.completion", "model": model, "choices": [choice]}

    def send(self, handler: Any, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
        """Answer with JSON, or with bytes as they are."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(raw), **(headers or {})}.items():
            handler.send_header(name, str(value))
        handler.end_headers()
        handler.wfile.write(raw)

    def close(self) -> None:
        """Stop at once, whoever waits."""
        self.release.set()
        self.http.shutdown()
        self.http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.asked.append(Asked("GET", self.path, self._lower(), None))
                server.send(self, 200, {"object": "list", "data": server.models})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append(Asked("POST", self.path, self._lower(), body))
                if server.script:
                    server.script.popleft()(self)
                else:
                    server.send(self, 200, server.reply(server.say(body)))

            def _lower(self) -> dict[str, str]:
                return {name.lower(): value for name, value in self.headers.items()}

            def log_message(self, *_: object) -> None: ...

        return Handler
