"""The HTTP client: every request ends in an answer or an error, and no other host is contacted."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest
from limner.model.vlm.http_client import HttpClient, HttpRequest, RetryPolicy, endpoint_address
from limner.readers import servers
from limner.readers.errors import ModelError, RequestError

pytestmark = pytest.mark.slow

Server = Any  # of conftest, which tests cannot import
Handler = Any  # of its requests
Json = Any
Bad = Callable[[Handler], None] | bytes
KEY = "sk-7f3a9c51e2"
FAST = RetryPolicy(timeout=5.0, retries=3)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of milliseconds."""
    monkeypatch.setattr(servers, "BACKOFF", 0.01)


def text_of(answer: Json) -> str:
    return answer["choices"][0]["message"]["content"]


def ask(number: int = 0, read: Callable[[Any], Any] = text_of, bodies: int = 1) -> HttpRequest[Any]:
    return HttpRequest(
        "/chat/completions", tuple({"number": number, "body": i} for i in range(bodies)), read, str(number)
    )


def one(server: Server, policy: RetryPolicy = FAST, key_variable: str = "") -> Json:
    address = endpoint_address(server.url, insecure=False)
    [answer] = HttpClient(address, policy, key_variable).send([ask()])
    return answer


def why(answer: object) -> str:
    assert isinstance(answer, ModelError), answer
    return str(answer)


def test_request_and_its_headers(model_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # where nobody listens: not for this machine
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    assert one(model_server) == "Nothing much."
    [asked] = model_server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers.keys() == {
        *("host", "user-agent", "accept", "accept-encoding", "connection", "content-type", "content-length")
    }
    assert asked.headers["user-agent"] == "limner"


def test_transient_failures_are_retried(model_server: Server) -> None:
    s = model_server
    s.script.extend(
        [
            lambda h: s.send(h, 500, b"oops"),
            lambda h: s.send(h, 429, {"error": {"message": "slow down"}}, {"Retry-After": "0"}),
            lambda h: h.connection.shutdown(socket.SHUT_RDWR),
        ]
    )
    assert one(s) == "Nothing much."
    assert len(s.asked) == 4


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504])
def test_retries_are_limited(model_server: Server, status: int) -> None:
    s = model_server
    s.script.extend([lambda h: s.send(h, status, {"error": "busy"})] * 9)
    assert f"HTTP {status}, busy" in why(one(s))
    assert len(s.asked) == 4


@pytest.mark.parametrize(
    ("status", "word"),
    [(400, "hd-num"), (401, "key_variable"), (403, "key_variable"), (404, "/v1"), (413, "hd-num")],
)
def test_permanent_failures_are_not_retried(model_server: Server, status: int, word: str) -> None:
    s = model_server
    s.script.append(lambda h: s.send(h, status, {"error": {"message": "no\x1b[31m way", "code": 1}}))
    said = why(one(s))
    assert f"HTTP {status}, no [31m way" in said
    assert word in said
    assert len(s.asked) == 1


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_obeyed(model_server: Server, form: str) -> None:
    s = model_server
    wait = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)  # whole seconds, cut off
    s.script.append(lambda h: s.send(h, 429, {}, {"Retry-After": wait}))
    start = time.monotonic()
    assert one(s) == "Nothing much."
    assert 0.9 < time.monotonic() - start < 15


def test_retry_after_is_limited(model_server: Server) -> None:
    s = model_server
    s.script.append(lambda h: s.send(h, 503, {}, {"Retry-After": "3600"}))
    assert "asks to wait 3600 s" in why(one(s))
    s.script.append(lambda h: s.send(h, 503, {}, {"Retry-After": "soon"}))
    assert one(s) == "Nothing much."


def drip(handler: Handler, server: Server) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while not server.release.wait(0.02):
        handler.wfile.write(b" ")


def drip_headers(handler: Handler, server: Server) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    while not server.release.wait(0.02):
        handler.wfile.write(b"x")


@pytest.mark.parametrize("slow", [lambda _, s: s.release.wait(9), drip, drip_headers])
def test_timeout_covers_the_whole_answer_and_is_retried_once(model_server: Server, slow: Callable[..., None]) -> None:
    s = model_server
    s.script.extend([lambda h: slow(h, s)] * 9)
    start = time.monotonic()
    said = why(one(s, RetryPolicy(timeout=0.3, retries=5)))
    assert "no whole answer within 0.3 s" in said
    assert "timeout=" in said
    assert time.monotonic() - start < 8
    assert len(s.asked) == 2


def cut_off(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.close_connection = True


@pytest.mark.parametrize(
    "bad",
    [
        cut_off,
        b'{"choices": [{"mess',
        b"<html><title>Welcome to the airport's network</title></html>",
        b"",
        b"[1, 2]",
        b'"text"',
        b'{"choices": "\xff\xfe"}',
        b"[" * 100_000,
        b'{"n": ' + b"9" * 5000 + b"}",
    ],
)
def test_invalid_json_is_retried_then_refused(model_server: Server, bad: Bad) -> None:
    s = model_server
    spoil = bad if callable(bad) else lambda h: s.send(h, 200, bad)
    s.script.append(spoil)
    assert one(s) == "Nothing much."  # the next one is
    s.script.extend([spoil] * 9)
    said = why(one(s))
    assert "airport" not in said
    assert len(s.asked) == 6


@pytest.mark.parametrize("declared", [True, False])
def test_endless_answer_is_cut_off(model_server: Server, declared: bool) -> None:
    s, sent = model_server, []

    def flood(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header(*(("Content-Length", str(100 * 2**20)) if declared else ("Connection", "close")))
        handler.end_headers()
        try:
            for _ in range(100):
                handler.wfile.write(b" " * 2**20)
                sent.append(1)
        except OSError:
            handler.close_connection = True

    s.script.append(flood)
    assert "longer than 8192 KiB" in why(one(s))
    assert len(s.asked) == 1
    time.sleep(0.2)
    assert len(sent) < 50


def test_compressed_answer_is_refused(model_server: Server) -> None:
    s = model_server
    s.script.append(lambda h: s.send(h, 200, b"\x1f\x8b", {"Content-Encoding": "gzip"}))
    assert "compressed" in why(one(s))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(model_server: Server, status: int) -> None:
    other = type(model_server)()
    s = model_server
    s.script.append(lambda h: s.send(h, status, b"", {"Location": other.url + "/chat/completions"}))
    said = why(one(s))
    assert "a redirect to" in said
    assert other.url in said
    assert other.asked == []
    assert len(s.asked) == 1
    other.close()


def test_no_cookie_is_kept(model_server: Server) -> None:
    s = model_server
    s.script.append(lambda h: s.send(h, 500, b"", {"Set-Cookie": "who=you; Path=/"}))
    assert one(s) == "Nothing much."
    assert all("cookie" not in asked.headers for asked in s.asked)


def test_answers_are_in_order_however_they_come(model_server: Server) -> None:
    s = model_server

    def say(body: Json) -> str:
        time.sleep(1 if body["number"] == 0 else 0.02 * (7 - body["number"]))
        finished.append(body["number"])
        return str(body["number"])

    finished: list[int] = []
    s.say = say
    link = HttpClient(endpoint_address(s.url, insecure=False), RetryPolicy(concurrency=4))
    assert link.send([ask(i) for i in range(8)]) == [str(i) for i in range(8)]
    assert finished != sorted(finished)
    assert link.send([]) == []


def test_concurrency_is_limited(model_server: Server) -> None:
    s, now, most = model_server, [], []

    def say(_: object) -> str:
        now.append(1)
        most.append(len(now))
        time.sleep(0.2)
        now.pop()
        return ""

    s.say = say
    HttpClient(endpoint_address(s.url, insecure=False), RetryPolicy(concurrency=3)).send([ask(i) for i in range(12)])
    assert max(most) == 3


def test_queued_requests_do_not_time_out(model_server: Server) -> None:
    model_server.say = lambda _: time.sleep(0.7) or "late"
    link = HttpClient(
        endpoint_address(model_server.url, insecure=False), RetryPolicy(timeout=3, retries=0, concurrency=1)
    )
    assert link.send([ask(i) for i in range(5)]) == ["late"] * 5


def test_one_failure_leaves_the_other_answers(model_server: Server) -> None:
    s = model_server
    s.say = lambda body: "good" if body["number"] != 1 else 1 / 0  # the handler dies, and its connection
    answers = HttpClient(endpoint_address(s.url, insecure=False), FAST).send([ask(i) for i in range(3)])
    assert [answers[0], answers[2]] == ["good", "good"]
    assert "disconnected" in why(answers[1])


def test_client_gives_up_on_a_failing_server(model_server: Server) -> None:
    s = model_server
    link = HttpClient(endpoint_address(s.url, insecure=False), RetryPolicy(retries=1, failures=3))
    s.script.extend([lambda h: s.send(h, 500, b"")] * 99)
    for _ in range(3):
        assert "HTTP 500" in why(link.send([ask()])[0])
    assert len(s.asked) == 6
    said = why(link.send([ask()])[0])
    assert "3 requests failed one after the other, the last: HTTP 500" in said
    assert len(s.asked) == 6


def test_an_answer_resets_the_failure_count(model_server: Server) -> None:
    s = model_server
    link = HttpClient(endpoint_address(s.url, insecure=False), RetryPolicy(retries=0, failures=2))
    for status in (500, 200, 500, 400, 500):
        if status != 200:
            s.script.append(lambda h, status=status: s.send(h, status, b"{}"))
        link.send([ask()])
    assert link.send([ask()]) == ["Nothing much."]


def test_connection_refused(model_server: Server) -> None:
    address = endpoint_address(model_server.url, insecure=False)
    model_server.close()
    [answer] = HttpClient(address, FAST).send([ask()])
    assert "connect error" in why(answer)


def test_refused_answer_sends_the_next_body(model_server: Server) -> None:
    def read(answer: Json) -> str:
        if text_of(answer) == "bad":
            raise ModelError("answer", "it must be good", value="bad", remedy="HttpRequest again")
        return text_of(answer)

    s = model_server
    s.say = lambda body: "good" if body["body"] == 1 else "bad"
    link = HttpClient(endpoint_address(s.url, insecure=False), FAST)
    assert link.send([ask(0, read, bodies=2)]) == ["good"]
    assert [body["body"] for body in s.questions] == [0, 1]
    assert "it must be good" in why(link.send([ask(0, read, bodies=1)])[0])


def test_pauses_grow_and_are_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "BACKOFF", 1.0)
    pauses = [servers.pause(attempt, "key") for attempt in range(12)]
    assert pauses == [servers.pause(attempt, "key") for attempt in range(12)]
    assert all(0.5 * 2**i <= pause <= 2**i for i, pause in enumerate(pauses[:5]))
    assert max(pauses) <= servers.MAX_PAUSE
    assert len({servers.pause(0, str(i)) for i in range(50)}) > 20


def test_key_is_sent_only_to_the_server(
    model_server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")
    s = model_server
    with caplog.at_level(logging.DEBUG):
        assert one(s, key_variable="MY_KEY") == "Nothing much."
    assert s.asked[0].headers["authorization"] == f"Bearer {KEY}"
    s.script.append(lambda h: s.send(h, 401, {"error": {"message": f"{KEY} is not data:image/png;base64,iVBOR/+="}}))
    said = why(one(s, key_variable="MY_KEY"))
    assert "[key] is not [picture]" in said
    s.script.append(lambda h: s.send(h, 302, b"", {"Location": f"https://example.org/?key={KEY}"}))
    said += why(one(s, key_variable="MY_KEY"))
    s.script.append(lambda h: s.send(h, 200, s.reply(f"The header said {KEY}.")))
    told = why(one(s, key_variable="MY_KEY"))
    assert "repeats the key" in told
    link = HttpClient(endpoint_address(s.url, insecure=False), FAST, "MY_KEY")
    link.send([ask()])
    everything = said + told + repr(link) + repr(vars(link)) + caplog.text
    assert KEY not in everything
    assert "authorization" not in s.asked[0].body


def test_placeholder_key_may_appear_in_an_answer(model_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "EMPTY")
    model_server.say = lambda _: "EMPTY fields."
    assert one(model_server, key_variable="MY_KEY") == "EMPTY fields."


@pytest.mark.parametrize("value", ["", "  ", "two words", "schlüssel", "a\x00b"])
def test_invalid_key_is_refused(model_server: Server, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setattr(servers.os, "environ", {"MY_KEY": value})
    with pytest.raises(RequestError, match="environment variable MY_KEY") as caught:
        one(model_server, key_variable="MY_KEY")
    assert not value.strip() or value not in str(caught.value)
    assert model_server.asked == []


def test_a_proxy_of_the_environment_serves_other_hosts(model_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", model_server.url.removesuffix("/v1"))
    link = HttpClient(endpoint_address("http://models.invalid/v1", insecure=True), FAST)
    assert link.send([ask()]) == ["Nothing much."]
    assert model_server.asked[0].path == "http://models.invalid/v1/chat/completions"
    monkeypatch.setenv("http_proxy", "gopher://me:secret@127.0.0.1")
    with pytest.raises(RequestError, match="proxy") as caught:
        link.send([ask()])
    assert "secret" not in str(caught.value)


def test_send_inside_a_running_event_loop(model_server: Server) -> None:
    async def notebook() -> Json:
        return one(model_server)

    assert asyncio.run(notebook()) == "Nothing much."
