"""What clients of servers share: addresses, secrets in the environment, and pauses between tries."""

import hashlib
import ipaddress
import os
import re
import time
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

from .errors import RequestError

BACKOFF: Final = 1.0
"""Seconds of the first pause; each further one is twice as long."""

MAX_PAUSE: Final = 30.0
"""Seconds of the longest pause."""

MAX_RETRY_AFTER: Final = 120.0
"""Seconds that a server may ask to wait; more is a failure."""

_LOGIN: Final = re.compile(r"://[^/]*@")


@dataclass(frozen=True, slots=True)
class AddressTerms:
    """The words of errors about addresses of one kind of server."""

    server: str
    """What it is: "endpoint"."""
    example: str
    """A remedy with a correct address."""
    remedy: str
    """A remedy that says where a password or key belongs."""
    content: str
    """What would travel unencrypted over http."""
    insecure: str
    """A remedy for a network that is safe."""


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a server."""

    url: str
    """Without a slash at its end."""
    host: str
    """With the port."""
    loopback: bool
    """Whether it is this machine."""

    @classmethod
    def parse(cls, text: str, terms: AddressTerms, *, insecure: bool) -> Self:
        """The address in a URL. Raises `RequestError`, which never shows credentials.

        Plain http to another machine is refused unless `insecure`.
        """
        subject = f"{terms.server}'s URL"
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise RequestError(subject, "must be a URL", remedy=terms.example) from None
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            rule = "must not hold a name, password, query or fragment, since it is written into the manifest"
            raise RequestError(subject, rule, remedy=terms.remedy)
        name = parts.hostname or ""
        valid = parts.scheme in {"http", "https"} and port != 0 and _is_host(name)
        if not valid or not text.isascii() or not text.isprintable() or " " in text:
            raise RequestError(subject, "must begin with http:// or https:// and name a host", remedy=terms.example)
        host = (f"[{name}]" if ":" in name else name) + (f":{port}" if port is not None else "")
        address = _ip_address(name)
        loopback = name == "localhost" or (address is not None and address.is_loopback)
        if parts.scheme == "http" and not loopback and not insecure:
            rule = f"must use https: {terms.content} would travel unencrypted"
            raise RequestError(f"{terms.server} {host}", rule, value="http", remedy=terms.insecure)
        return cls(f"{parts.scheme}://{host}{parts.path.rstrip('/')}", host, loopback)


def check_input_url(item: str) -> None:
    """Raise `RequestError` for a URL with a name, password or query, since inputs are written into the manifest."""
    url, query, _ = item.partition("?")
    if not url.startswith(("http://", "https://", "/vsi")) or not (query or _LOGIN.search(url)):
        return
    rule = "must not hold a name, password or query, which may be a signature and would be written into the manifest"
    remedy = (
        "Leave it out where the file is public; or write a STAC item whose asset has the signed URL, and give that with"
        " --set reader_options.remote_assets=true"
    )
    raise RequestError(f"the input {_LOGIN.sub('://', url)}", rule, remedy=remedy)


def secret(variable: str, option: str, *, spaces: bool = False) -> str:
    """The secret in an environment variable, "" where none is named. Raises `RequestError`, which never shows it.

    `option` is the option that names the variable. A secret is of printable ASCII characters, without `spaces` unless
    they are allowed.
    """
    if not variable:
        return ""
    value = os.environ.get(variable, "").strip()
    if not value or not value.isascii() or not value.isprintable() or (" " in value and not spaces):
        raise RequestError(
            f"environment variable {variable}",
            "must hold the key, in printable ASCII characters",
            value="" if value else "nothing",
            remedy=f"Set it where limner runs, or leave out {option} where the server needs no key",
        )
    return value


def pause(attempt: int, key: str) -> float:
    """Seconds before the next try: twice as long each time, spread evenly by the request's key, not at random."""
    spread = hashlib.sha256(f"{attempt} {key}".encode()).digest()[0] / 255
    return min(MAX_PAUSE, BACKOFF * 2.0 ** min(attempt, 10)) * (0.5 + 0.5 * spread)


def retry_after(text: str) -> float:
    """Seconds in a Retry-After header, which holds seconds or a date (RFC 9110, section 10.2.3); else 0."""
    from email.utils import parsedate_to_datetime

    text = text.strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _is_host(name: str) -> bool:
    """Whether a name can be a host: an IP address, or labels of at most 63 letters, digits, - and _."""
    if ":" in name:
        return "%" not in name and _ip_address(name) is not None  # no zones
    return len(name) < 254 and re.fullmatch(r"(?!-)[\w-]{1,63}(\.[\w-]{1,63})*\.?", name, re.ASCII) is not None


def _ip_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
