"""Addresses of servers: valid URLs, and refusal of unencrypted ones."""

import json

import pytest
from limner.model.vlm.http_client import endpoint_address
from limner.readers.errors import RequestError
from limner.readers.servers import Address


@pytest.mark.parametrize(
    ("text", "url", "host", "loopback"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1", "127.0.0.1:8000", True),
        ("http://localhost/v1/", "http://localhost/v1", "localhost", True),
        ("http://[::1]:80", "http://[::1]:80", "[::1]:80", True),
        ("https://API.example.org/v1", "https://api.example.org/v1", "api.example.org", False),
    ],
)
def test_addresses(text: str, url: str, host: str, loopback: bool) -> None:
    assert endpoint_address(text, insecure=False) == Address(url, host, loopback)


@pytest.mark.parametrize(
    "text",
    [
        *("", "127.0.0.1:8000", "ftp://example.org", "https://", "https://[::1", "https://a:99999", "https://a:0/v1"),
        *("https://a b/v1", "https://a/\nv1", "file:///etc/passwd", "https://a/v1/chat/completions/"),
        *("https://a..b/v1", "https://-a/v1", "https://[aaa]/v1", "https://ex%41mple/v1", f"https://{'a' * 64}/v1"),
        *("https://b\u00fccher.example/v1", "https://[::1%25eth0]/v1"),
        *("https://me:secret@a/v1", "https://secret@a/v1", "https://a/v1?key=secret", "https://a/v1#secret"),
    ],
)
def test_invalid_addresses_are_refused(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        endpoint_address(text, insecure=True)
    assert "secret" not in json.dumps(caught.value.args)


@pytest.mark.parametrize(
    "host", ["example.org", "192.168.1.7:8000", "10.0.0.1", "localhost.example.org", "[2001:db8::1]"]
)
def test_plain_http_is_refused(host: str) -> None:
    with pytest.raises(RequestError, match="insecure=true"):
        endpoint_address(f"http://{host}/v1", insecure=False)
    assert endpoint_address(f"http://{host}/v1", insecure=True).host == host
