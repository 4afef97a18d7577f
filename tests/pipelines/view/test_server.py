"""The server answers its own page on this machine, and nobody else."""

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from limner.pipelines.run.manifest import load_manifest
from limner.pipelines.run.plan import ImagePlan
from limner.pipelines.view.index import index_folder
from limner.pipelines.view.server import MOST_BYTES
from limner.readers.render import render
from PIL import Image

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import
JSON = {"Content_Type": "application/json"}


def origin(client: Any) -> dict[str, str]:
    return {"Origin": f"http://127.0.0.1:{client.server.server_port}"}


def test_the_page_comes_with_strict_headers(client: Any) -> None:
    response = client.ask()
    assert response.status == 200
    policy = response.getheader("Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert response.getheader("Cache-Control") == "no-store"
    assert response.getheader("Referrer-Policy") == "no-referrer"
    assert response.getheader("X-Content-Type-Options") == "nosniff"
    assert not [name for name, _ in response.getheaders() if name.lower().startswith("access-control")]
    assert client.server.server_address[0] == "127.0.0.1"
    assert len(client.server.token) >= 32


@pytest.mark.parametrize("path", ["/", "", "/x/", "/image/0", "/{token}x/", "/{short}/", "/X{token}/image/0"])
def test_without_the_token_there_is_nothing(client: Any, path: str) -> None:
    token = client.server.token
    response = client.ask_raw(path.format(token=token, short=token[:-1]) or "*")
    assert (response.status, response.content) == (404, b"")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}", ""])
def test_another_host_is_refused(client: Any, host: str) -> None:
    response = client.ask(Host=host.format(port=client.server.server_port))
    assert (response.status, response.content) == (421, b"")


@pytest.mark.parametrize(
    "path",
    [
        "../manifest.json",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/etc/passwd",
        "tile/0/0/0/../../../../etc/passwd",
        "tile/../0/0/0/0/0",
        "image/0/..%2f..%2fmanifest.json",
        "image/%2fetc%2fpasswd",
        "page.html",
        "image-0/layers.json",
        "overview/0.png",
        "tile/0/0/0/0/0/0/",
    ],
)
def test_no_path_leads_to_a_file(client: Any, path: str) -> None:
    response = client.ask(path)
    assert (response.status, response.content) in {(400, b""), (404, b"")}


@pytest.mark.parametrize(
    "path",
    [
        *("image/1", "image/-1", "image/0x0", "image/²", "image/99999999999999999999", "overview/7"),
        *("tile/0/1/0/0/0/0", "tile/0/0/1/0/0/0", "tile/0/0/0/9/0/0", "tile/0/0/0/0/5/0", "tile/0/0/0/0/0/-1"),
        *(
            "image/0/view",
            "image/0/view?box=1,2,3",
            "image/0/view?box=0,0,1,1&step=0",
            "image/0/view?box=0,0,nan,1&step=1",
        ),
        *("image/0/view?box=5,5,1,1&step=1", "image/0/view?box=0,0,1e300,1&step=1", "image/0/rows?order=99"),
        *("image/0/rows?start=x", "image/0/rows?hide=1,x", "image/0/at?at=1,2", "image/0/rows?search=" + "x" * 501),
        *("part/0/0/0?box=9,9,9,9", "part/0/0/0?box=inf,0,1,1", "image/0/rows?" + "&".join(["a=1"] * 40)),
    ],
)
def test_nonsense_is_a_bad_request(client: Any, path: str) -> None:
    response = client.ask(path.encode("ascii", "ignore").decode() if "²" not in path else "image/%C2%B2")
    assert (response.status, response.content) == (400, b"")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD", "CONNECT", "NONSENSE"])
def test_other_methods_are_not_there(client: Any, method: str) -> None:
    response = client.ask("review", method)
    assert (response.status, response.content) == (501, b"")
    assert not [name for name, _ in response.getheaders() if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({**JSON, "Origin": "http://evil.example"}, 403),
        ({**JSON, "Origin": "null"}, 403),
        (JSON, 403),
        ({**JSON, "Origin": "OWN", "Sec_Fetch_Site": "cross-site"}, 403),
        ({"Origin": "OWN"}, 415),
        ({"Origin": "OWN", "Content_Type": "text/plain"}, 415),
        ({**JSON, "Origin": "OWN", "Transfer_Encoding": "chunked"}, 411),
        ({**JSON, "Origin": "OWN", "Content_Length": "-5"}, 411),
        ({**JSON, "Origin": "OWN", "Content_Length": str(MOST_BYTES + 1)}, 413),
        ({**JSON, "Origin": "OWN", "Host": "evil.example"}, 421),
    ],
)
def test_changes_come_from_the_page_itself(client: Any, headers: dict[str, str], status: int) -> None:
    given = {name: origin(client)["Origin"] if value == "OWN" else value for name, value in headers.items()}
    response = client.ask("review", "POST", json.dumps({"action": "accept", "findings": ["scene/1"]}).encode(), **given)
    assert response.status == status
    assert client.reviews is not None
    assert not client.reviews.exists()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        *((b"", 400), (b"{", 400), (b"[]", 400), (b'"accept"', 400), (b"[" * 100_000, 400), (b"\xff", 400)),
        *((b'{"a": 1, "a": 2}', 400), (b'{"action": 1}', 409), (b'{"action": "accept", "findings": ["scene/0"]}', 409)),
    ],
)
def test_a_body_that_is_no_action_changes_nothing(client: Any, body: bytes, status: int) -> None:
    response = client.ask("review", "POST", body, **JSON, **origin(client))
    assert response.status == status
    assert client.data("review")["history"] == []


def test_a_cross_site_page_gets_nothing(client: Any) -> None:
    assert client.ask("image/0", Sec_Fetch_Site="cross-site").status == 403
    assert client.ask("image/0", Sec_Fetch_Site="same-origin").status == 200


def test_what_is_no_http_ends_the_connection_only(client: Any) -> None:
    for junk in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 70_000 + b"\r\n"):
        with socket.create_connection(("127.0.0.1", client.server.server_port), timeout=10) as raw:
            raw.sendall(junk)
            raw.shutdown(socket.SHUT_WR)
            assert client.server.token.encode() not in raw.recv(1 << 16)
    assert client.ask().status == 200


@pytest.mark.parametrize("at", [(1, 0, 0), (1, 1, 0), (0, 0, 0)])
def test_a_tile_has_the_pixels_of_the_image(client: Any, made_run: Path, at: tuple[int, int, int]) -> None:
    response = client.ask("tile/0/0/0/{}/{}/{}".format(*at))
    tile = np.asarray(Image.open(io.BytesIO(response.content))).astype(float)
    plan = ImagePlan.from_json(load_manifest(made_run)["images"][0])
    assert plan.stretch is not None
    with rasterio.open(made_run.parent / "scene.tif") as scene:
        native = scene.read(1)
    shown = render(native[..., None], native > 0, plan.stretch)[..., 0].astype(float)
    step = 1 << (1 - at[0])
    whole = shown[: 520 // step * step, : 700 // step * step].reshape(520 // step, step, 700 // step, step).mean((1, 3))
    part = whole[at[2] * 512 : (at[2] + 1) * 512, at[1] * 512 : (at[1] + 1) * 512]
    assert tile.shape[:2] == part.shape
    valid = np.s_[60:, 60:]  # no data in the corner of the scene is a checkerboard
    assert np.abs(tile[..., 0] - part)[valid].mean() < 2.5
    assert np.corrcoef(tile[..., 0][valid].ravel(), part[valid].ravel())[0, 1] > 0.99


def test_a_scene_that_is_gone_is_shown_as_it_was_kept(
    made_run: Path, serve: Callable[..., Any], tmp_path: Path
) -> None:
    copied = tmp_path / "viewed"
    shutil.copytree(made_run.parent, copied)
    manifest = json.loads((copied / "run" / "manifest.json").read_text())
    scene = Path(manifest["images"][0]["info"]["uri"])
    first = serve(copied / "run")
    assert first.data("image/0")["status"] == ""
    before = first.ask("tile/0/0/0/0/0/0").content
    hidden = scene.with_suffix(".moved")
    scene.rename(hidden)
    try:
        later = serve(copied / "run", read_only=True)
        assert "gone, or has changed since the run" in later.data("image/0")["status"]
        assert str(scene) not in later.data("image/0")["status"]
        assert later.ask("tile/0/0/0/0/0/0").content == before, "of the kept overview"
        assert later.data("image/0/rows")["total"] > 100
    finally:
        hidden.rename(scene)


def test_decisions_are_kept_and_undone(made_run: Path, serve: Callable[..., Any]) -> None:
    client = serve(made_run)
    total = client.data("image/0/rows")["total"]
    assert client.act(action="accept", findings=["scene/1", "scene/2"]).status == 200
    assert client.act(action="relabel", findings=["scene/3"], label="lake <b>").status == 200
    assert client.act(action="reject", findings=["scene/2"]).status == 200
    rows = client.data("image/0/rows?count=4")["rows"]
    assert [(row["decision"] or {}).get("outcome") for row in rows] == ["accepted", "rejected", "relabelled", None]
    assert rows[2]["decision"]["label"] == "lake <b>"
    assert rows[0]["decision"]["by"] == "anna"
    assert client.data("image/0/rows?outcomes=0")["total"] == total - 3
    assert client.data("image/0/rows?outcomes=2")["rows"][0]["row"] == 1
    state = client.data("review")
    assert (state["reviewed"], state["count"], state["can_undo"]) == (3, total, True)
    undone = json.loads(client.act(action="undo").content)
    assert undone["reviewed"] == 3
    assert client.data("image/0/rows?count=2")["rows"][1]["decision"]["outcome"] == "accepted"
    ring = [[10, 10], [60, 10], [60, 60]]
    drawn = json.loads(client.act(action="draw", image="scene", plane=0, label="hut", rings=[ring]).content)
    assert [one["label"] for one in drawn["drawn"].values()] == ["hut"]
    assert client.act(action="draw", image="scene", plane=0, label="x", rings=[[[0, 0], [9, 9]]]).status == 409


def test_a_later_server_knows_what_was_decided(made_run: Path, serve: Callable[..., Any], tmp_path: Path) -> None:
    from limner.pipelines.view.session import Reviewer, open_view

    with open_view(made_run, reviewer=Reviewer("anna", tmp_path / "reviews")) as server:
        server.api.post(["review"], b'{"action": "accept", "findings": ["scene/5"]}')
    client = serve(made_run)
    assert client.data("image/0/step?row=4")["decision"]["outcome"] == "accepted"
    assert client.data("review")["reviewed"] == 1
    assert json.loads(client.act(action="undo").content)["reviewed"] == 0


def test_read_only_decides_nothing(made_run: Path, serve: Callable[..., Any]) -> None:
    client = serve(made_run, read_only=True)
    assert client.data("review") == {}
    assert client.act(action="accept", findings=["scene/1"]).status == 404


def test_the_run_is_not_changed_and_its_index_is_made_once(
    made_run: Path, serve: Callable[..., Any], limner: Limner
) -> None:
    before = {path: path.stat().st_mtime_ns for path in made_run.rglob("*")}
    serve(made_run)
    index = {path: path.stat().st_mtime_ns for path in index_folder(made_run).rglob("*.bin")}
    serve(made_run, read_only=True)
    assert {path: path.stat().st_mtime_ns for path in made_run.rglob("*")} == before
    assert {path: path.stat().st_mtime_ns for path in index_folder(made_run).rglob("*.bin")} == index
    assert index_folder(made_run).stat().st_mode & 0o077 == 0
    assert limner("check", "run", made_run).code == 0


def start(run: Path, *words: object) -> subprocess.Popen[str]:
    """Start the command in a process group of its own."""
    command = [sys.executable, "-m", "limner.pipelines.cli.main", "view", str(run), "--no-browser", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_with_a_sentence(
    made_run: Path, tmp_path: Path, number: signal.Signals, left_of_group: Callable[[int], list[int]]
) -> None:
    running = start(made_run, "--reviews", tmp_path / "reviews", "--reviewer", "bo")
    assert running.stdout is not None
    address = running.stdout.readline().strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", address)
    os.kill(running.pid, number)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 128 + number
    assert "The server has ended" in said
    assert "give the same command" in said
    assert "Traceback" not in said
    assert not left_of_group(running.pid)


def test_a_port_in_use_and_bad_names_are_refused(made_run: Path, limner: Limner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        output = limner("view", made_run, "--port", port, "--no-browser", "--read-only")
    assert output.code == 2
    assert "--port must be a free port" in output.err
    output = limner("view", made_run, "--reviewer", "../anna", "--no-browser")
    assert output.code == 2
    assert "the reviewer must be a name" in output.err
