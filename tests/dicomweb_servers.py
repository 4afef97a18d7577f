"""DICOMweb servers for tests: Orthanc where it is installed, and one in this process that may misbehave."""

import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

PLUGINS = [
    *Path("/usr/share/orthanc/plugins").glob("libOrthancDicomWeb.so"),
    *Path("/usr/lib/orthanc").glob("libOrthancDicomWeb.so*"),
]
BOUNDARY = "a-boundary"


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Orthanc:
    """A running Orthanc with its DICOMweb plug-in, with a database of its own."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("Orthanc")
        if program is None or not PLUGINS:
            pytest.skip("Orthanc with its DICOMweb plug-in is not installed: apt-get install orthanc orthanc-dicomweb")
        folder.mkdir(parents=True)
        self.port = free_port()
        self.root = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.root}/dicom-web"
        config = {
            "Name": "limner's tests",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "index"),
            "HttpPort": self.port,
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "OverwriteInstances": False,
            "Plugins": [str(PLUGINS[0])],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        path = folder / "orthanc.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        self._log = (folder / "log.txt").open("wb")
        self._process = subprocess.Popen([program, str(path)], stdout=self._log, stderr=self._log, cwd=folder)
        for _ in range(200):
            time.sleep(0.05)
            try:
                self.ask("/system")
            except OSError:
                if self._process.poll() is not None:
                    break
            else:
                return
        self.close()
        pytest.skip(f"Orthanc does not start: {(folder / 'log.txt').read_text(errors='replace')[-300:]}")

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """An answer of its own REST interface."""
        sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.root}{path}", data=sent, method=method)  # noqa: S310 - this machine
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the same
            content = answer.read()
        return json.loads(content) if "json" in answer.headers.get("content-type", "json") else content

    def put(self, path: Path) -> dict[str, Any]:
        """Store a file."""
        return self.ask("/instances", path.read_bytes())

    def clear(self) -> None:
        """Delete all patients."""
        for one in self.ask("/patients"):
            self.ask(f"/patients/{one}", method="DELETE")

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


@dataclass
class Asked:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes = b""


Handler = BaseHTTPRequestHandler


@dataclass
class FakeServer:
    """A DICOMweb server in a thread. Objects are by (study, series, instance); `script` answers first, once each."""

    objects: dict[tuple[str, str, str], bytes] = field(default_factory=dict)
    attributes: dict[str, dict[str, str]] = field(default_factory=dict)
    """By study: values of tags that its rows state."""
    script: list[Callable[[Handler], None]] = field(default_factory=list)
    rules: list[tuple[str, Callable[[Handler], None]]] = field(default_factory=list)
    """(pattern of METHOD PATH, answer) that are used every time."""
    once: dict[str, Callable[[Handler], None]] = field(default_factory=dict)
    """Answers to the first request for a path with this end."""
    asked: list[Asked] = field(default_factory=list)
    login: str = ""
    """The Authorization header that it needs."""
    url: str = ""

    def paths(self, method: str = "GET") -> list[str]:
        """The paths that were asked for."""
        return [one.path for one in self.asked if one.method == method]

    def send(self, handler: Handler, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """Answer with bytes, or with JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        given = {"Content-Type": "application/dicom+json", "Content-Length": str(len(content)), **(headers or {})}
        for name, value in given.items():
            if value:
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    def part(self, content: bytes) -> bytes:
        """A message with one object."""
        head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        return head + content + f"\r\n--{BOUNDARY}--\r\n".encode()

    def send_object(self, handler: Handler, content: bytes) -> None:
        """Answer with an object, as servers do."""
        kind = f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'
        self.send(handler, 200, self.part(content), {"Content-Type": kind})

    def answer(self, handler: Handler) -> None:
        """Answer a request."""
        parts = urlsplit(handler.path)
        length = int(handler.headers.get("content-length") or 0)
        body = handler.rfile.read(length) if length else b""
        headers = {name.lower(): value for name, value in handler.headers.items()}
        asked = Asked(handler.command, parts.path.removeprefix("/dicom-web"), parse_qs(parts.query), headers, body)
        self.asked.append(asked)
        if self.login and asked.headers.get("authorization") != self.login:
            self.send(handler, 401, {}, {"WWW-Authenticate": "Basic"})
            return
        if self.script:
            self.script.pop(0)(handler)
            return
        if end := next((end for end in self.once if asked.path.endswith(end)), ""):
            self.once.pop(end)(handler)
            return
        for pattern, rule in self.rules:
            if re.fullmatch(pattern, f"{asked.method} {asked.path}"):
                rule(handler)
                return
        if asked.method == "POST":
            self.store(handler, body)
        elif found := re.fullmatch(r"/studies/([^/]+)/series/([^/]+)/instances/([^/]+)", asked.path):
            content = self.objects.get((found[1], found[2], found[3]))
            self.send(handler, 404, {}) if content is None else self.send_object(handler, content)
        else:
            self.search(handler, asked)

    def search(self, handler: Handler, asked: Asked) -> None:
        """Answer a search by UIDs and paging only."""
        found = re.fullmatch(r"(?:/studies(?:/([^/]+))?)?(?:/series(?:/([^/]+))?)?(/instances)?", asked.path)
        assert found is not None, asked.path
        study, series, instances = found.groups()
        keys = [key for key in sorted(self.objects) if key[0] == (study or key[0]) and key[1] == (series or key[1])]
        depth = 3 if instances else 2 if "/series" in asked.path else 1
        wanted_sop = asked.query.get("SOPInstanceUID", [""])[0]
        keys = list(dict.fromkeys(key[:depth] for key in keys if wanted_sop in {"", key[2]}))
        start = int(asked.query.get("offset", ["0"])[0])
        keys = keys[start : start + int(asked.query.get("limit", ["1000"])[0])]
        tags = ("0020000D", "0020000E", "00080018")
        rows = [
            {
                **{tag: {"vr": "UI", "Value": [uid]} for tag, uid in zip(tags, key, strict=False)},
                **{tag: {"vr": "LO", "Value": [value]} for tag, value in self.attributes.get(key[0], {}).items()},
            }
            for key in keys
        ]
        self.send(handler, 200, rows)

    def store(self, handler: Handler, body: bytes) -> None:
        """Keep the object in a message."""
        import io

        import pydicom

        content = body.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]
        data = pydicom.dcmread(io.BytesIO(content))
        self.objects[str(data.StudyInstanceUID), str(data.SeriesInstanceUID), str(data.SOPInstanceUID)] = content
        item = {"00081155": {"vr": "UI", "Value": [str(data.SOPInstanceUID)]}}
        self.send(handler, 200, {"00081199": {"vr": "SQ", "Value": [item]}})

    def start(self, certificate: Path | None = None) -> Callable[[], None]:
        """Serve on a free port, with a certificate and its key over TLS; returns what ends it."""
        fake = self

        class Answers(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                try:
                    fake.answer(self)
                except OSError:
                    self.close_connection = True

            do_POST = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        class Silent(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """Clients that give up are a part of the tests."""

        server = Silent(("127.0.0.1", 0), Answers)
        server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "http" if certificate is None else "https"
        self.url = f"{scheme}://127.0.0.1:{server.server_address[1]}/dicom-web"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return stop
