"""Where a server is: a URL, and whether what is sent there can be read on the way."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import SplitResult, urlsplit

from ...readers.errors import RequestError


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is: `url` without a slash at its end, `host` with the port, and whether it is this machine."""

    url: str
    host: str
    loopback: bool

    @classmethod
    def parse(cls, text: str, *, insecure: bool) -> Self:
        """The address in a URL. Raises `RequestError`, which never shows credentials.

        Plain http to another machine is refused unless `insecure`: pictures would travel for all to see.
        """
        parts = _split(text)
        hostname = parts.hostname or ""
        host = f"[{hostname}]" if ":" in hostname else hostname
        host += f":{parts.port}" if parts.port is not None else ""
        loopback = hostname == "localhost" or _is_loopback(hostname)
        if parts.scheme == "http" and not loopback and not insecure:
            raise RequestError(
                f"endpoint {host}",
                "pictures, which may be of patients, and the key would travel unencrypted to another machine",
                value="http",
                remedy="Give an https URL, or say that the way there is safe: --set model_options.insecure=true",
            )
        return cls(f"{parts.scheme}://{host}{parts.path.rstrip('/')}", host, loopback)


def _split(text: str) -> SplitResult:
    """A URL's parts. Raises `RequestError`."""
    remedy = "For example --model endpoint:http://127.0.0.1:8000/v1"
    try:
        parts = urlsplit(text)
        wrong = parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0
    except ValueError:
        raise RequestError("endpoint's URL", "it must be a URL", remedy=remedy) from None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise RequestError(
            "endpoint's URL",
            "it may hold no name, password, query or fragment, since it is written into the manifest",
            remedy="Put the key into an environment variable, and name that: --set model_options.key_variable=NAME",
        )
    if wrong or not text.isascii() or not text.isprintable() or " " in text or not _is_host(parts.hostname or ""):
        raise RequestError("endpoint's URL", "it must begin with http:// or https:// and name a host", remedy=remedy)
    if parts.path.rstrip("/").endswith("/chat/completions"):
        raise RequestError("endpoint's URL", "it ends before /chat/completions", remedy=remedy)
    return parts


def _is_loopback(hostname: str) -> bool:
    return _is_address(hostname) and ipaddress.ip_address(hostname).is_loopback


def _is_host(name: str) -> bool:
    """Whether a name can be a host's: an address, or labels of at most 63 letters, digits, - and _."""
    if ":" in name:
        return _is_address(name) and "%" not in name  # no zones
    return len(name) < 254 and re.fullmatch(r"(?!-)[\w-]{1,63}(\.[\w-]{1,63})*\.?", name, re.ASCII) is not None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
