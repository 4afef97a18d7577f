"""Runs whose input is on a DICOMweb server, and `limner send` to servers that behave and that do not."""

import csv
import json
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import limner as package
import pytest
from limner.pipelines.run.dicom_objects import note_objects
from limner.readers import servers
from limner.readers.errors import ReadError

pytestmark = pytest.mark.slow

Server = Any  # of conftest, which tests cannot import
Limner = Any
Handler = Any
NAME = "Doe4711"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pauses of milliseconds, and a cache of its own."""
    monkeypatch.setattr(servers, "BACKOFF", 0.01)
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def query(fake_server: Server, making: ModuleType, tmp_path: Path) -> str:
    """A query that matches one study of three instances."""
    window = {"WindowCenter": 4000, "WindowWidth": 10000}
    for number, data in enumerate(making.slices(3, PatientID=NAME, PatientName=NAME, **window)):
        content = making.save(data, tmp_path / "made" / f"{number}.dcm").read_bytes()
        fake_server.objects[making.uid(1), making.uid(2), making.uid(1001 + number)] = content
    fake_server.attributes[making.uid(1)] = {"00100020": NAME}
    return f"dicomweb:{fake_server.url}?PatientID={NAME}"


@pytest.fixture
def run(query: str, tmp_path: Path, limner: Limner) -> Path:
    """The folder of a run without a model."""
    output = limner("run", query, "--model", "none", "--out", tmp_path / "run", "--reports", "files-csv,studies-csv")
    assert output.code == 0, output.err
    return tmp_path / "run"


@pytest.fixture
def with_objects(run: Path, making: ModuleType) -> Path:
    """The run with three objects among its reports."""
    for number in range(3):
        number += 50  # noqa: PLW2901 - of its UID
        made = making.image(making.ramp(), sop_class=making.SC, number=number, SeriesInstanceUID=making.uid(9))
        path = making.save(made, run / f"sc-study1-{number}.dcm")
        path.chmod(0o600)
        note_objects(run, [path])
    return run


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def receipts(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "sent.jsonl").read_text().splitlines()]


def test_names_are_in_private_files_only(run: Path, making: ModuleType, tmp_path: Path) -> None:
    files = rows(run / "files.csv")
    assert [row["status"] for row in files] == ["read"] * 4
    assert files[0]["reason"] == "1 study with 3 instances on a DICOMweb server"
    for path in run.rglob("*"):
        if path.is_file() and path.name not in {"sources.json", "pseudonym.key"}:
            content = path.read_bytes()
            for name in (NAME, making.uid(1), making.uid(1001), str(tmp_path), "dicomweb:"):
                assert name.encode() not in content, (path, name)


def test_output_to_a_pipe_has_no_names(query: str, limner: Limner, making: ModuleType, fake_server: Server) -> None:
    fake_server.rules.append((f"GET .*/{making.uid(1002)}", lambda h: fake_server.send(h, 404, {})))
    for command in (("info", query), ("plan", query, "--model", "none"), ("info", query, "--json")):
        output = limner(*command)
        assert output.code == 1, output.err
        assert "HTTP 404" in output.out + output.err or command[0] == "plan"
        for name in (NAME, making.ROOT):
            assert name not in output.out + output.err


def test_a_failed_instance_has_a_row(
    query: str, limner: Limner, making: ModuleType, fake_server: Server, tmp_path: Path
) -> None:
    fake_server.rules.append((f"GET .*/{making.uid(1002)}", lambda h: fake_server.send(h, 404, {})))
    output = limner("run", query, "--model", "none", "--out", tmp_path / "run")
    assert output.code == 1, output.err
    statuses = [row["status"] for row in rows(tmp_path / "run" / "files.csv")]
    assert sorted(statuses) == ["failed", "read", "read", "read"]
    assert limner("reveal", tmp_path / "run").code == 0
    names = [row["original"] for row in rows(tmp_path / "run-names.csv")]
    assert query in names
    path = f"/studies/{making.uid(1)}/series/{making.uid(2)}/instances/{making.uid(1002)}"
    assert query.partition("?")[0] + path in names


def test_reveal_asks_no_server(run: Path, limner: Limner, making: ModuleType, fake_server: Server, query: str) -> None:
    asked = len(fake_server.asked)
    assert limner("reveal", run).code == 0
    assert limner("check", "run", run).code == 0
    assert limner("report", run).code == 0
    assert len(fake_server.asked) == asked
    names = [row["original"] for row in rows(run.with_name("run-names.csv"))]
    assert {query, making.uid(1), making.uid(2), making.uid(1001)} <= {*names}


def test_resuming_needs_neither_the_server_nor_the_same_timeout(
    run: Path, limner: Limner, fake_server: Server, query: str
) -> None:
    fake_server.rules.append(("GET .*", lambda h: fake_server.send(h, 503, b"")))
    before = (run / "files.csv").read_bytes()
    options = ("--reader-options", "web_timeout=7", "--reader-options", "web_retries=0")
    output = limner("run", query, "--model", "none", "--out", run, "--reports", "files-csv,studies-csv", *options)
    assert output.code == 0, output.err
    assert (run / "files.csv").read_bytes() == before
    assert "web_" not in (run / "manifest.json").read_text()


def test_a_cache_that_was_emptied(run: Path, limner: Limner, tmp_path: Path, query: str) -> None:
    [first, *_] = sorted((tmp_path / "cache").rglob("*.dcm"))
    first.unlink()
    record = package.Run.open(run).record
    original = record.images[0].original
    assert original is not None
    with pytest.raises(ReadError, match="1 of 3 files are gone from the folder of fetched") as caught:
        original()
    assert "limner info" in str(caught.value)
    assert limner("info", query).code == 0
    assert len(original().planes) == 3


def test_settings_in_a_file_and_python(query: str, tmp_path: Path, limner: Limner) -> None:
    (tmp_path / "settings.yaml").write_text(f"inputs: ['{query}']\nmodel: none\nout: {tmp_path / 'out'}\n")
    assert limner("run", "--config", tmp_path / "settings.yaml").code == 0
    with package.open(query) as image:
        assert image.read(plane=2)[0].shape == (8, 6, 1)
    assert [row.status for row in package.scan(query)] == ["read"] * 4


def test_wrong_inputs_contact_nothing(query: str, limner: Limner, fake_server: Server) -> None:
    for wrong in (
        query.replace("PatientID", "PatintID"),
        f"{query}&limit=1",
        "dicomweb:https://a:b@c.example/studies/1.2",
    ):
        output = limner("info", query, wrong)
        assert output.code == 2, output.err
        assert NAME not in output.err
    assert limner("info", query, "--reader-options", "web_token_variable=NOT_SET").code == 2
    assert limner("info", query, "--reader", "raster").code == 3
    assert fake_server.asked == []


def test_a_missing_extra(query: str, limner: Limner, monkeypatch: pytest.MonkeyPatch, fake_server: Server) -> None:
    monkeypatch.setattr("limner.readers.plugins._installed", lambda name: name != "dicomweb-client")
    output = limner("info", query)
    assert output.code == 2
    assert "no dicomweb-client" in output.err
    assert "pip install" in output.err
    assert fake_server.asked == []


def test_objects_are_sent_once(with_objects: Path, limner: Limner, fake_server: Server) -> None:
    to = ("--to", f"dicomweb:{fake_server.url}")
    asked = len(fake_server.asked)
    dry = limner("send", with_objects, *to, "--dry-run")
    assert dry.code == 0, dry.err
    assert dry.out.count("to send") == 3
    assert len(fake_server.asked) == asked
    assert not (with_objects / "sent.jsonl").exists()
    first = limner("send", with_objects, *to)
    assert first.code == 0, first.err
    assert first.out.count(": stored") == 3
    assert [one["status"] for one in receipts(with_objects)] == ["stored"] * 3
    assert stat.S_IMODE((with_objects / "sent.jsonl").stat().st_mode) == 0o600
    for path in with_objects.glob("sc-*.dcm"):
        assert path.read_bytes() in fake_server.objects.values(), "byte for byte"
    second = limner("send", with_objects, *to)
    assert second.code == 0
    assert second.out.count("sent before") == 3
    (with_objects / "sent.jsonl").unlink()
    third = limner("send", with_objects, *to)
    assert third.out.count("already there") == 3
    assert len(fake_server.paths("POST")) == 3
    assert limner("check", "run", with_objects).code == 0


def refuse(reason: int) -> dict[str, Any]:
    return {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [reason]}}]}}


STORES = {
    "a conflict": (lambda s, h: s.send(h, 409, refuse(0x0122)), "the server does not support its class (0122)", 3),
    "out of resources": (lambda s, h: s.send(h, 202, refuse(0xA700)), "the server is out of resources (A700)", 3),
    "a conflict without words": (
        lambda s, h: s.send(h, 409, b"", {"Content-Type": ""}),
        "409 Conflict, without",
        3,
    ),
    "no word": (lambda s, h: s.send(h, 202, b"<x/>", {"Content-Type": "application/dicom+xml"}), "no word of what", 3),
    "a bad request": (lambda s, h: s.send(h, 400, b"<html>", {"Content-Type": "text/html"}), "HTTP 400 Bad Request", 3),
    "a login": (lambda s, h: s.send(h, 401, b"", {"WWW-Authenticate": "Basic"}), "It needs a login", 3),
    "a redirect": (lambda s, h: s.send(h, 308, b"", {"Location": "https://evil.example/"}), "https://evil.example", 3),
    "503 for ever": (lambda s, h: s.send(h, 503, b""), "HTTP 503 Service Unavailable", 9),
    "deep JSON": (lambda s, h: s.send(h, 200, b"[" * 10**5), "no JSON, or a damaged one", 6),
    "a hang": (lambda _, h: time.sleep(1.2), "no whole answer within 0.4 s", 6),  # noqa: ARG005
}


@pytest.mark.parametrize("case", STORES)
def test_servers_that_do_not_store(with_objects: Path, limner: Limner, fake_server: Server, case: str) -> None:
    answer, why, posts = STORES[case]
    fake_server.rules.append(("POST .*", lambda handler: answer(fake_server, handler)))
    options = ("--reader-options", "web_timeout=0.4", "--reader-options", "web_retries=2")
    output = limner("send", with_objects, "--to", f"dicomweb:{fake_server.url}", *options)
    assert output.code == 1, output.err
    assert output.out.count(": failed. ") == 3
    assert output.out.count(why) == 3
    assert [one["status"] for one in receipts(with_objects)] == ["failed"] * 3
    assert len(fake_server.paths("POST")) == posts
    fake_server.rules.clear()
    again = limner("send", with_objects, "--to", f"dicomweb:{fake_server.url}")
    assert again.code == 0, again.out
    assert again.out.count(": stored") == 3


def test_an_answer_that_is_lost(with_objects: Path, limner: Limner, fake_server: Server) -> None:
    def store_and_die(handler: Handler) -> None:
        fake_server.rules.clear()
        silent = type("Silent", (), {"wfile": None})
        send, fake_server.send = fake_server.send, lambda *_, **__: None
        fake_server.store(silent, fake_server.asked[-1].body)
        fake_server.send = send
        handler.connection.shutdown(socket.SHUT_RDWR)

    fake_server.rules.append(("POST .*", store_and_die))
    output = limner("send", with_objects, "--to", f"dicomweb:{fake_server.url}")
    assert output.code == 0, output.out
    assert output.out.count(": stored") == 3
    assert len(fake_server.paths("POST")) == 3, "what the server has is not sent again"


def test_a_warning_and_a_duplicate(with_objects: Path, limner: Limner, fake_server: Server) -> None:
    item = {"00081196": {"vr": "US", "Value": [0xB000]}}
    fake_server.script.append(lambda h: fake_server.send(h, 200, []))
    fake_server.script.append(lambda h: fake_server.send(h, 202, {"00081199": {"vr": "SQ", "Value": [item]}}))
    fake_server.script.append(lambda h: fake_server.send(h, 404, {}))
    fake_server.script.append(lambda h: fake_server.send(h, 409, refuse(0x0111)))
    output = limner("send", with_objects, "--to", f"dicomweb:{fake_server.url}")
    assert output.code == 0, output.out
    assert "sc-study1-50.dcm: stored. the server changed attributes of it (B000)" in output.out
    assert "sc-study1-51.dcm: already there. the server has an object with this UID (0111)" in output.out
    assert [one["words"] for one in receipts(with_objects)][2] == ""


def test_what_is_not_of_the_run(with_objects: Path, limner: Limner, fake_server: Server, making: ModuleType) -> None:
    to = ("--to", f"dicomweb:{fake_server.url}")
    making.save(making.image(making.ramp(), number=60), with_objects / "sr-other.dcm")
    path = with_objects / "sc-study1-51.dcm"
    kept = path.read_bytes()
    path.write_bytes(kept + b"\0\0")
    output = limner("send", with_objects, *to)
    assert output.code == 1
    assert "sr-other.dcm must be as limner wrote it (found: not written by limner here)" in output.out
    assert "sc-study1-51.dcm must be as limner wrote it (found: altered since)" in output.out
    assert len(fake_server.paths("POST")) == 2
    path.write_bytes(kept)
    (with_objects / "sr-other.dcm").unlink()
    assert limner("send", with_objects, *to).code == 0
    making.save(making.image(making.ramp(), sop_class=making.SC, number=51, Rows=8, PatientID="x"), path)
    note_objects(with_objects, [path])
    changed = limner("send", with_objects, *to)
    assert changed.code == 1
    assert "this server has another content of it, by its receipt" in changed.out
    assert len(fake_server.paths("POST")) == 3


def test_damage_and_wrong_requests(with_objects: Path, limner: Limner, fake_server: Server, tmp_path: Path) -> None:
    to = ("--to", f"dicomweb:{fake_server.url}")
    assert limner("send", tmp_path, *to).code == 2
    assert limner("send", with_objects, "--to", fake_server.url).code == 2
    assert limner("send", with_objects, "--to", f"dicomweb:{fake_server.url}/studies/1.2").code == 2
    assert limner("send", with_objects, *to, "--reader-options", "web_tokn_variable=X").code == 2
    assert limner("send", with_objects, *to, "--reader-options", "web_token_variable=NOT_SET").code == 2
    assert limner("send", with_objects, *to).code == 0
    lines = (with_objects / "sent.jsonl").read_bytes()
    (with_objects / "sent.jsonl").write_bytes(lines[:-10])  # cut off while it was written
    again = limner("send", with_objects, *to)
    assert again.code == 0
    assert again.out.count("sent before") == 2
    assert again.out.count("already there") == 1
    (with_objects / "sent.jsonl").write_bytes(lines.replace(b"stored", b"st0red", 1))
    damaged = limner("send", with_objects, *to)
    assert damaged.code == 1
    assert "must be one receipt, as limner wrote it" in damaged.err
    manifest = (with_objects / "manifest.json").read_bytes()
    (with_objects / "manifest.json").write_bytes(manifest.replace(b'"files"', b'"fi1es"'))
    assert limner("send", with_objects, *to).code == 1
    (with_objects / "manifest.json").write_bytes(manifest)
    for path in with_objects.glob("*.dcm"):
        path.unlink()
    none = limner("send", with_objects, *to)
    assert none.code == 3
    assert "--reports dicom-sr" in none.err


def test_a_send_that_is_killed_goes_on(with_objects: Path, limner: Limner, fake_server: Server) -> None:
    stored: list[str] = []

    def store_one_then_wait(handler: Handler) -> None:
        if stored:
            time.sleep(3)
            return
        stored.append("one")
        fake_server.store(handler, fake_server.asked[-1].body)

    fake_server.rules.append(("POST .*", store_one_then_wait))
    command = [sys.executable, "-m", "limner", "send", str(with_objects), "--to", f"dicomweb:{fake_server.url}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _until(lambda: len(fake_server.paths("POST")) == 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [one["status"] for one in receipts(with_objects)] == ["stored"]
    fake_server.rules.clear()
    output = limner("send", with_objects, "--to", f"dicomweb:{fake_server.url}")
    assert output.code == 0, output.err
    assert (output.out.count("sent before"), output.out.count(": stored")) == (1, 2)
    assert len(fake_server.paths("POST")) == 4


def test_a_fetch_that_is_stopped_ends_at_once_and_goes_on(
    query: str, limner: Limner, fake_server: Server, making: ModuleType, tmp_path: Path
) -> None:
    fake_server.rules.append((f"GET .*/({making.uid(1002)}|{making.uid(1003)})", lambda _: time.sleep(5)))
    process = subprocess.Popen(
        [sys.executable, "-m", "limner", "info", query], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _until(lambda: sum("/instances/" in path for path in fake_server.paths()) == 3)
    _until(lambda: len([*(tmp_path / "cache").rglob("*/[0-9a-f]*.dcm")]) == 1)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    assert process.wait(30) == 130
    assert time.monotonic() - started < 4
    assert not [*(tmp_path / "cache").rglob(".part-*")]
    fake_server.rules.clear()
    asked = len(fake_server.asked)
    assert limner("info", query).code == 0
    assert sum("/instances/" in path for path in fake_server.paths()[asked:]) == 2


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
