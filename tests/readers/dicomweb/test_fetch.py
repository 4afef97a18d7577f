"""Fetching studies from servers that behave, and from servers that do not: one sentence each, and nothing is lost."""

import gzip
import logging
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from limner.readers import servers
from limner.readers.dicomweb import fetch as fetching
from limner.readers.dicomweb import session
from limner.readers.dicomweb.fetch import Fetched, fetch
from limner.readers.dicomweb.options import WebOptions
from limner.readers.errors import ReadError, RequestError

pytestmark = pytest.mark.slow

Server = Any  # of conftest, which tests cannot import
Handler = Any


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pauses of milliseconds, and a cache of its own."""
    monkeypatch.setattr(servers, "BACKOFF", 0.01)
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def study(fake_server: Server, making: ModuleType, tmp_path: Path) -> str:
    """The input of a study of five instances on a server."""
    for number, data in enumerate(making.slices(5)):
        content = making.save(data, tmp_path / "made" / f"{number}.dcm").read_bytes()
        fake_server.objects[making.uid(1), making.uid(2), making.uid(1001 + number)] = content
    return f"dicomweb:{fake_server.url}/studies/{making.uid(1)}"


def get(uri: str, **options: Any) -> Fetched:
    return fetch(uri, WebOptions(**{"web_timeout": 2.0, "web_retries": 2, **options}))


def refusal(uri: str, **options: Any) -> str:
    with pytest.raises(ReadError) as caught:
        get(uri, **options)
    return str(caught.value)


def cached(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("*.dcm"))


def test_a_study_is_fetched_once_and_is_private(fake_server: Server, study: str, tmp_path: Path) -> None:
    found = get(study)
    assert [Path(path).read_bytes() for path in found.files] == [
        fake_server.objects[key] for key in sorted(fake_server.objects)
    ]
    assert found.failed == ()
    assert found.summary == "1 study with 5 instances on a DICOMweb server"
    for path in (tmp_path / "cache" / "dicomweb").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600) or path.name == ".lock"
    asked = len(fake_server.asked)
    assert get(study) == found
    again = fake_server.paths()[asked:]
    assert again
    assert all(path.endswith("/instances") for path in again), "only the list is asked for again"
    assert not [*(tmp_path / "cache").rglob(".part-*")]


def test_names_of_files_are_hashes(study: str, tmp_path: Path, making: ModuleType) -> None:
    get(study)
    texts = [str(path.relative_to(tmp_path)) for path in (tmp_path / "cache").rglob("*")]
    assert len(cached(tmp_path)) == 5
    assert not any(making.ROOT[:12] in text for text in texts)


def test_a_series_and_a_query(fake_server: Server, study: str, making: ModuleType) -> None:
    base = study.partition("/studies")[0]
    fake_server.attributes[making.uid(1)] = {"00100020": "DOE", "00080060": "CT", "00080020": "20240305"}
    assert len(get(f"{study}/series/{making.uid(2)}").files) == 5
    assert len(get(f"{base}?PatientID=DOE&StudyDate=20240101-20241231").files) == 5
    assert len(get(f"{base}?PatientID=D*&Modality=CT").files) == 5
    searches = [one.query for one in fake_server.asked if one.path == "/studies"]
    assert searches[-1]["PatientID"] == ["D*"]
    assert searches[-1]["ModalitiesInStudy"] == ["CT"]


def test_a_server_that_ignores_the_query(fake_server: Server, study: str, making: ModuleType) -> None:
    base = study.partition("/studies")[0]
    fake_server.attributes[making.uid(1)] = {"00100020": "ROE", "00080060": "MR", "00080020": "20200305"}
    for query in ("PatientID=DOE", "StudyDate=20240101-", "Modality=CT", "StudyInstanceUID=1.2.3"):
        why = refusal(f"{base}?{query}")
        assert "a result that does not match the" in why
        assert "DOE" not in why
        assert "ROE" not in why
    assert not any("/instances/" in path for path in fake_server.paths())


def test_no_study_and_too_many(fake_server: Server, study: str) -> None:
    base = study.partition("/studies")[0]
    for uid in ("1.2.3", "1.2.03"):  # the second breaks a rule of DICOM that archives break too
        assert "must have instances" in refusal(f"{base}/studies/{uid}")
    for number in range(4):
        fake_server.objects[f"1.9.{number}", "1.8", "1.7"] = b""
    why = refusal(f"{base}?PatientID=DOE", web_studies=3)
    assert "must match at most 3 studies (found: 5 studies)" in why
    fake_server.objects.clear()
    assert "must match a study with instances" in refusal(f"{base}?PatientID=DOE")


def test_pages_are_asked_for_until_nothing_is_new(
    fake_server: Server, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limner.readers.dicomweb.server.PAGE", 2)
    assert len(get(study).files) == 5
    offsets = [one.query["offset"] for one in fake_server.asked if one.path.endswith("/instances")]
    assert offsets == [["0"], ["2"], ["4"], ["5"]]


def test_lists_without_end(fake_server: Server, study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(10**9))

    def one_more(handler: Handler) -> None:
        uids = {"0020000E": "1.2", "00080018": f"1.3.{next(numbers)}"}
        row = {tag: {"Value": [uid]} for tag, uid in uids.items()} | {"00104000": {"Value": ["x" * 10**5]}}
        fake_server.send(handler, 200, [row])

    fake_server.rules.append(("GET .*/instances", one_more))
    monkeypatch.setattr("limner.readers.dicomweb.server.MAX_PAGES", 20)
    assert "more than 20 pages of results" in refusal(study)
    monkeypatch.setattr("limner.readers.dicomweb.server.MAX_INSTANCES", 7)
    assert "more than 7 results" in refusal(study)
    assert next(numbers) == 28


def test_what_failed_is_fetched_the_next_time(
    fake_server: Server, study: str, making: ModuleType, tmp_path: Path
) -> None:
    lost = (making.uid(1), making.uid(2), making.uid(1003))
    kept = fake_server.objects[lost]
    fake_server.rules.append((rf"GET .*/instances/{lost[2]}", lambda h: fake_server.send(h, 404, {})))
    found = get(study)
    assert len(found.files) == 4
    [(uri, error)] = found.failed
    assert uri == f"dicomweb:{fake_server.url}/studies/{lost[0]}/series/{lost[1]}/instances/{lost[2]}"
    assert "HTTP 404 Not Found" in str(error)
    assert making.ROOT not in str(error)
    fake_server.rules.clear()
    asked = len(fake_server.asked)
    assert len(get(study).files) == 5
    assert sum("/instances/" in path for path in fake_server.paths()[asked:]) == 1
    assert kept in [path.read_bytes() for path in cached(tmp_path)]


def test_a_server_that_is_gone_leaves_what_was_listed(fake_server: Server, study: str) -> None:
    found = get(study)
    fake_server.rules.append(("GET .*", lambda h: fake_server.send(h, 503, b"")))
    again = get(study)
    assert again.files == found.files
    assert again.summary.endswith("did not answer now: they are those of its last list, fetched then")
    Path(found.files[0]).unlink()
    assert "HTTP 503 Service Unavailable" in refusal(study)
    fake_server.rules[0] = ("GET .*", lambda h: fake_server.send(h, 403, b""))
    assert "HTTP 403" in refusal(study), "a refusal is no absence"


def truncated(server: Server, content: bytes) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        body = server.part(content)
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/related; boundary=a-boundary")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])
        handler.connection.shutdown(socket.SHUT_RDWR)

    return answer


def endless(kind: str, block: bytes) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Connection", "close")
        handler.end_headers()
        while True:
            handler.wfile.write(block)

    return answer


def dripping(kind: str) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)

    return answer


def drip_headers(handler: Handler) -> None:
    for _ in range(200):
        handler.wfile.write(b"H")
        handler.wfile.flush()
        time.sleep(0.05)


def hang(_: Handler) -> None:
    time.sleep(1.5)


TOKEN: dict[str, Any] = {"web_token_variable": "PACS_TOKEN"}
MULTIPART = 'multipart/related; type="application/dicom"; boundary=a-boundary'
LISTS = {
    "an HTML page": (
        lambda s, h: s.send(h, 200, b"<html>Log in</html>", {"Content-Type": "text/html"}),
        "an HTML page",
    ),
    "a redirect": (
        lambda s, h: s.send(h, 302, b"", {"Location": "https://evil.example/x?PatientID=1"}),
        "https://evil.example",
    ),
    "a login": (lambda s, h: s.send(h, 401, b"", {"WWW-Authenticate": "Basic"}), "It needs a login"),
    "truncated JSON": (lambda s, h: s.send(h, 200, b'[{"0020000D": {"Val'), "no JSON, or a damaged one"),
    "deep JSON": (lambda s, h: s.send(h, 200, b"[" * 100000), "no JSON, or a damaged one"),
    "JSON of another kind": (lambda s, h: s.send(h, 200, b'{"a": 1}'), "without a valid UID"),
    "a number": (lambda s, h: s.send(h, 200, b"7"), "no list of DICOM data sets"),
    "a UID with a path": (
        lambda s, h: s.send(h, 200, [{"0020000E": {"Value": ["1.2"]}, "00080018": {"Value": ["../../etc/passwd"]}}]),
        "without a valid UID",
    ),
    "another study": (
        lambda s, h: s.send(
            h, 200, [{"0020000D": {"Value": ["9.9"]}, "0020000E": {"Value": ["1"]}, "00080018": {"Value": ["2"]}}]
        ),
        "instances of another study or series",
    ),
    "a gzip bomb": (
        lambda s, h: s.send(h, 200, gzip.compress(bytes(10**7)), {"Content-Encoding": "gzip"}),
        "a compressed answer",
    ),
    "an endless list": (lambda _, h: endless("application/json", b" " * 2**20)(h), "an answer longer than 8 MiB"),
    "a dripping list": (lambda _, h: dripping("application/json")(h), "no whole answer within"),
    "dripping headers": (lambda _, h: drip_headers(h), "no whole answer within"),
    "a hang": (lambda _, h: hang(h), "no whole answer within"),
    "no HTTP": (
        lambda _, h: h.wfile.write(b"220 smtp ready\r\n") and h.connection.shutdown(socket.SHUT_RDWR),
        "broke off",
    ),
    "503 for ever": (lambda s, h: s.send(h, 503, b""), "HTTP 503 Service Unavailable"),
    "a long wait": (lambda s, h: s.send(h, 429, b"", {"Retry-After": "3600"}), "it asks to wait 3600 s"),
}


@pytest.mark.parametrize("case", LISTS)
def test_bad_lists(fake_server: Server, study: str, case: str, tmp_path: Path, making: ModuleType) -> None:
    answer, why = LISTS[case]
    fake_server.rules.append(("GET .*", lambda handler: answer(fake_server, handler)))
    started = time.monotonic()
    said = refusal(study, web_timeout=0.5, web_retries=1)
    assert time.monotonic() - started < 10
    assert why in said
    assert said.startswith(f"DICOMweb server {fake_server.url.split('/')[2]} must answer as DICOMweb (found: ")
    assert making.ROOT not in said
    assert cached(tmp_path) == []
    assert {path.split("?")[0] for path in fake_server.paths()} == {f"/studies/{making.uid(1)}/instances"}


OBJECTS = {
    "an HTML page": (lambda s, h, _: s.send(h, 200, b"<html>", {"Content-Type": "text/html"}), "an HTML page"),
    "half an object": (lambda s, h, c: truncated(s, c)(h), "a connection that broke off"),
    "malformed parts": (lambda s, h, _: s.send(h, 200, b"x" * 10**6, {"Content-Type": MULTIPART}), "not well formed"),
    "no boundary": (lambda s, h, _: s.send(h, 200, b"x", {"Content-Type": "multipart/related"}), "without a boundary"),
    "an endless object": (
        lambda _s, h, _c: endless("application/dicom", b"\0" * 2**20)(h),
        "an answer longer than 2 MiB",
    ),
    "no DICOM": (lambda s, h, _: s.send_object(h, b"hello"), "must be a DICOM file"),
    "a redirect": (lambda s, h, _: s.send(h, 307, b"", {"Location": "/elsewhere"}), "a redirect to another path"),
    "a dripping object": (lambda _s, h, _c: dripping("application/dicom")(h), "no whole answer within"),
}


@pytest.mark.parametrize("case", OBJECTS)
def test_bad_objects(
    fake_server: Server, study: str, case: str, tmp_path: Path, making: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "MAX_INSTANCE_BYTES", 2 * 2**20)
    answer, why = OBJECTS[case]
    content = next(iter(fake_server.objects.values()))
    path = f"GET .*/instances/{making.uid(1002)}"
    fake_server.rules.append((path, lambda handler: answer(fake_server, handler, content)))
    found = get(study, web_timeout=0.5, web_retries=1)
    [(_, error)] = found.failed
    assert why in str(error)
    assert making.ROOT not in str(error)
    assert len(found.files) == len(cached(tmp_path)) == 4
    assert not [*(tmp_path / "cache").rglob(".part-*")]


@pytest.mark.parametrize("changed", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_an_object_with_another_uid(
    fake_server: Server, study: str, making: ModuleType, tmp_path: Path, changed: str
) -> None:
    other = making.save(making.slices(2, **{changed: making.uid(99)})[1], tmp_path / "other.dcm").read_bytes()
    fake_server.objects[making.uid(1), making.uid(2), making.uid(1002)] = other
    [(_, error)] = get(study).failed
    assert "must have the UIDs that were asked for" in str(error)
    assert other not in [path.read_bytes() for path in cached(tmp_path)]


def test_failures_that_pass_are_tried_again(fake_server: Server, study: str, making: ModuleType) -> None:
    content = fake_server.objects[making.uid(1), making.uid(2), making.uid(1001)]
    fake_server.script.extend(
        [
            lambda h: fake_server.send(h, 503, b""),
            lambda h: fake_server.send(h, 429, b"", {"Retry-After": "0"}),
        ]
    )
    assert len(get(study).files) == 5
    for path in get(study).files:
        Path(path).unlink()
    fake_server.once = {
        making.uid(1001): truncated(fake_server, content),
        making.uid(1002): lambda h: h.connection.shutdown(socket.SHUT_RDWR),
        making.uid(1003): lambda h: fake_server.send(h, 503, b""),
    }
    found = get(study)
    assert found.failed == ()
    assert len(found.files) == 5
    assert fake_server.once == {}


def test_a_login(fake_server: Server, study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_server.login = "Bearer s3cret-token"
    monkeypatch.setenv("PACS_TOKEN", "wrong-token")
    assert "name environment variables" in refusal(study)
    said = refusal(study, **TOKEN)
    assert "HTTP 401" in said
    assert "Check what is in PACS_TOKEN" in said
    assert "wrong-token" not in said
    monkeypatch.setenv("PACS_TOKEN", "s3cret-token")
    assert len(get(study, **TOKEN).files) == 5
    monkeypatch.delenv("PACS_TOKEN")
    with pytest.raises(RequestError, match="environment variable PACS_TOKEN must hold the key"):
        get(study, **TOKEN)


def test_netrc_and_cookies_are_not_used(
    fake_server: Server, study: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login doe password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    fake_server.script.append(lambda h: fake_server.send(h, 503, b"", {"Set-Cookie": "a=b"}))
    get(study)
    for one in fake_server.asked:
        assert one.headers.keys() <= {"host", "user-agent", "accept", "accept-encoding", "connection"}
        assert one.headers["accept-encoding"] == "identity"
        assert one.headers["host"] == fake_server.url.split("/")[2]


def test_a_server_that_fails_is_given_up(fake_server: Server, study: str, making: ModuleType) -> None:
    for number in range(30):
        fake_server.objects[making.uid(1), making.uid(2), making.uid(2000 + number)] = b""
    fake_server.rules.append(("GET .*/instances/.*", lambda h: fake_server.send(h, 500, b"")))
    found = get(study, web_retries=0)
    assert len(found.failed) == 35
    assert sum("5 others failed one after the other" in str(error) for _, error in found.failed) >= 20
    assert sum("/instances/" in path for path in fake_server.paths()) <= 5 + fetching.CONNECTIONS


def test_the_cache_is_limited(fake_server: Server, study: str, tmp_path: Path) -> None:
    size = len(next(iter(fake_server.objects.values())))
    found = get(study, web_cache_gb=3.5 * size / 1e9)
    assert len(cached(tmp_path)) == len(found.files) == 3
    assert len(found.failed) == 2
    assert all("must not hold more than" in str(error) for _, error in found.failed)
    assert "web_cache_gb=NUMBER" in str(found.failed[0][1])


def test_a_cache_that_others_can_read_is_refused(study: str, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(RequestError, match="must be a folder of your own"):
        get(study, web_cache=str(tmp_path / "open"))
    (tmp_path / "link").symlink_to(tmp_path / "open")
    with pytest.raises(RequestError, match="must be a folder of your own"):
        get(study, web_cache=str(tmp_path / "link"))


def test_data_name_no_address(fake_server: Server, study: str) -> None:
    keys = sorted(fake_server.objects)
    rows = [
        {
            "0020000D": {"Value": [key[0]]},
            "0020000E": {"Value": [key[1]]},
            "00080018": {"Value": [key[2]]},
            "00081190": {"vr": "UR", "Value": ["http://169.254.169.254/latest"]},
            "7FE00010": {"vr": "OW", "BulkDataURI": "http://169.254.169.254/latest"},
        }
        for key in keys
    ]
    fake_server.rules.append(("GET .*/instances", lambda h: fake_server.send(h, 200, rows)))
    assert len(get(study).files) == 5
    assert all(path.startswith("/studies/") for path in fake_server.paths())


def test_nothing_personal_is_logged(fake_server: Server, study: str, caplog: pytest.LogCaptureFixture) -> None:
    fake_server.rules.append(("GET .*/instances", _with_warning(fake_server)))
    with caplog.at_level(logging.WARNING):
        get(study)
    assert [record.getMessage() for record in caplog.records] == [
        f"Fetching 5 instances of 1 study from {fake_server.url.split('/')[2]}."
    ]


def _with_warning(server: Server) -> Callable[[Handler], None]:
    """An answer whose Warning header quotes a patient; the list follows at once, so that it is whole."""

    def answer(handler: Handler) -> None:
        keys = sorted(server.objects)
        rows = [{"0020000E": {"Value": [key[1]]}, "00080018": {"Value": [key[2]]}} for key in keys]
        server.send(handler, 200, rows, {"Warning": "299 pacs Doe^Jane has more"})

    return answer


def test_an_address_elsewhere_is_never_opened(fake_server: Server) -> None:
    from limner.readers.dicomweb.address import WebInput

    asked = WebInput.parse(f"dicomweb:{fake_server.url}/studies/1.2", insecure=False)
    own = session.WebSession(asked.server, WebOptions())
    for url in ("http://169.254.169.254/", fake_server.url + ".evil.example/x", fake_server.url.replace("127", "128")):
        with pytest.raises(session.WebError, match="an address on another server"):
            own.get(url)
    assert fake_server.asked == []


def test_certificates_are_verified(dicomweb_servers: ModuleType, tmp_path: Path, making: ModuleType) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("certificates for tests are made with openssl")
    made, ca = tmp_path / "server.pem", tmp_path / "ca.pem"
    names = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    request = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*request, "-keyout", made, "-out", ca], check=True, capture_output=True)
    made.write_bytes(made.read_bytes() + ca.read_bytes())
    server = dicomweb_servers.FakeServer()
    content = making.save(making.slices(1)[0], tmp_path / "made.dcm").read_bytes()
    server.objects[making.uid(1), making.uid(2), making.uid(1001)] = content
    stop = server.start(made)
    try:
        uri = f"dicomweb:{server.url}/studies/{making.uid(1)}"
        why = refusal(uri)
        assert "a certificate that cannot be verified" in why
        assert "web_ca_file=FILE" in why
        assert server.asked == []
        assert len(get(uri, web_ca_file=str(ca)).files) == 1
    finally:
        stop()
    with pytest.raises(RequestError, match="option web_ca_file must be a readable PEM file"):
        get(uri, web_ca_file=str(tmp_path / "none.pem"))


def test_servers_that_are_not_there(tmp_path: Path, dicomweb_servers: ModuleType) -> None:
    port = dicomweb_servers.free_port()
    assert "a refused connection" in refusal(f"dicomweb:http://127.0.0.1:{port}/studies/1.2")
    assert "a refused connection" in refusal(f"dicomweb:http://[::1]:{port}/studies/1.2")
    assert "a host name that is not known" in refusal("dicomweb:https://pacs.invalid/studies/1.2")
    assert cached(tmp_path) == []
