"""A run, and servers that show it."""

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from limner.pipelines.config import Settings
from limner.pipelines.run.execute import run as run_settings
from limner.pipelines.view.server import HOST, ViewServer
from limner.pipelines.view.session import Reviewer, open_view


@pytest.fixture(scope="session")
def made_run(tmp_path_factory: pytest.TempPathFactory, make_scene: Callable[..., Path], make_card: Any) -> Path:
    """A run of a scene of 700 × 520 px with some thousand findings of two labels; `scene.tif` lies beside it."""
    folder = tmp_path_factory.mktemp("viewed")
    scene, card = make_scene(folder / "scene.tif", width=700, height=520), make_card(folder)
    asked = {"inputs": [str(scene)], "model": str(card), "out": str(folder / "run"), "reports": ["html"]}
    run_settings(Settings.resolve(asked), lambda _: None)
    return folder / "run"


@dataclass(frozen=True)
class Client:
    """Asks a server as no browser would."""

    server: ViewServer
    reviews: Path | None

    def ask(self, path: str = "", method: str = "GET", body: bytes | None = None, **headers: str) -> Any:
        """The response to a request of a path below the token, with its content as `.content`."""
        return self.ask_raw(f"/{self.server.token}/{path}", method, body, **headers)

    def ask_raw(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Any:
        """As `ask`, of a whole path. Underscores in names of headers stand for dashes; "" leaves a header out."""
        connection = http.client.HTTPConnection(HOST, self.server.server_port, timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method, path, skip_host="Host" in named, skip_accept_encoding=True)
        for name, value in named.items():
            connection.putheader(name, value)
        if body is not None and "Content-Length" not in named and "Transfer-Encoding" not in named:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        if body is not None:
            connection.send(body)
        response: Any = connection.getresponse()
        response.content = response.read()
        connection.close()
        return response

    def data(self, path: str) -> Any:
        """The JSON at a path."""
        response = self.ask(path)
        assert response.status == 200, (path, response.status)
        return json.loads(response.content)

    def act(self, **action: Any) -> Any:
        """The response to an action of the reviewer."""
        origin = f"http://{HOST}:{self.server.server_port}"
        body = json.dumps(action).encode()
        return self.ask("review", "POST", body, Origin=origin, Content_Type="application/json")


def served(stack: ExitStack, run: Path, reviews: Path | None) -> Client:
    """Serve a run until the stack is closed, as anna's review in a folder; read-only without one."""
    server = stack.enter_context(open_view(run, reviewer=reviews and Reviewer("anna", reviews)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    stack.callback(thread.join)
    stack.callback(server.shutdown)
    return Client(server, reviews)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Serves a run, as anna's review in a folder of the test unless it is read-only."""
    with ExitStack() as stack:
        yield lambda run, read_only=False: served(stack, run, None if read_only else tmp_path / "reviews")


@pytest.fixture(scope="session")
def client(made_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server of the run, in whose review nothing is decided."""
    with ExitStack() as stack:
        yield served(stack, made_run, tmp_path_factory.mktemp("none") / "reviews")
