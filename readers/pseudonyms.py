"""Pseudonyms of personal identifiers: the same for the same key, and irreversible without it.

HMAC-SHA256 under a secret key: its owner can test a guess, nobody can invert it. The key comes from a file or from the
environment. A run without one makes a random key and keeps it in its folder, readable by its owner only, so that it can
be resumed with the same names while two runs cannot be linked. Other commands without one use a random key of their
process. A project's own pseudonyms come first: see `crosswalk`.
"""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Final, Literal, Self
from urllib.parse import parse_qsl

from pydantic import Field

from .crosswalk import Crosswalk, read_crosswalk
from .errors import LimnerError, RequestError
from .files import absolute, read_file, resolved
from .kinds import KEY_VARIABLE
from .options import Options

KEY_FILE: Final = "pseudonym.key"
_MAX_KEY_BYTES: Final = 2**20
_MIN_KEY_BYTES: Final = 16  # 128 bits cannot be guessed
_MIN_DISTINCT_BYTES: Final = 6  # a key is not a repeated letter
_MIN_NAME: Final = 4  # characters of a file name: shorter ones are words
_PSEUDONYM: Final = re.compile(r"file-[0-9a-f]{16}(?:\.[a-z]+)?(?![\w-])")  # as `Pseudonyms.path` writes it
_UIDS: Final = re.compile(r"(?<=/)[0-9.]{12,64}(?=/|$)")
_HARMLESS: Final = re.compile(
    r"(?:(?:scene|series|image|region|position|scan|section|tissue|core|roi|slide|well)[ _:#-]*)+[0-9]{0,4}",
    re.IGNORECASE,
)
_SUFFIXES: Final = {".dcm", ".dicom", ".ima", ".img", ".tif", ".tiff", ".zip"}

_PROCESS_KEY = secrets.token_bytes(32)


class NameOptions(Options):
    """Options that control whether personal names are shown."""

    names: Literal["hide", "show"] = Field(
        default="hide",
        description="Whether people's names are replaced by pseudonyms; `--names show` sets it.",
    )
    key_file: str = Field(default="", description="The file of a secret key for pseudonyms, of at least 16 bytes.")
    crosswalk: str = Field(default="", description="The file of pseudonyms of your own; `--crosswalk` sets it.")


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Pseudonyms under one key."""

    key: bytes = field(repr=False)
    show: bool = False
    """Whether names stay as they are, because the user asked for it."""
    crosswalk: Crosswalk = field(default_factory=Crosswalk)
    """Pseudonyms that are used instead of those under the key."""

    @classmethod
    def of(cls, options: NameOptions) -> Self:
        """Use the key file, else the environment's `LIMNER_PSEUDONYM_KEY`, else a random key of this process.

        Raises `RequestError` for a weak or unreadable key, and for an invalid crosswalk.
        """
        show = options.names == "show"
        own = read_crosswalk(options.crosswalk) if options.crosswalk else Crosswalk()
        if options.key_file:
            try:
                key = read_file(options.key_file, max_bytes=_MAX_KEY_BYTES, regular=True).strip()
            except OSError as error:
                rule, remedy = "must name a readable file", "Check its path and permissions"
                raise RequestError("option key_file", rule, value=str(error.strerror), remedy=remedy) from None
            return cls(check_key(key, "the key in option key_file"), show, own)
        stated = os.environ.get(KEY_VARIABLE, "").encode()
        return cls(check_key(stated, f"the key in {KEY_VARIABLE}") if stated else _PROCESS_KEY, show, own)

    def uid(self, uid: str, kind: str = "") -> str:
        """Replace a DICOM UID: `2.25.` and a 128-bit number (PS3.5 B.2; the UUID is of version 8, RFC 9562).

        `kind` is study, series or instance where the crosswalk may have it.
        """
        if self.show:
            return uid
        if own := self.crosswalk.uid(uid, kind):
            return own
        number = int.from_bytes(_digest(self.key, "uid", uid)[:16], "big")
        number = number & ~(0xF << 76) | (8 << 76)
        number = number & ~(0x3 << 62) | (2 << 62)
        return f"2.25.{number}"

    @property
    def temporary(self) -> bool:
        """Whether the key is lost when this process ends, and the pseudonyms with it."""
        return self.key == _PROCESS_KEY

    @property
    def crosswalk_id(self) -> str:
        """A name of the crosswalk's content, which tells nothing of it without the key; "" without a crosswalk."""
        content = self.crosswalk.content
        return f"crosswalk-{_digest(self.key, 'crosswalk', content).hex()[:16]}" if content else ""

    def path(self, path: str) -> str:
        """Replace a path: `file-` and 16 hexadecimal digits, with the suffix if it is that of a known format.

        A path relative to the working directory has the pseudonym of the absolute one.
        """
        return path if self.show else self.name(absolute(path))

    def name(self, text: str) -> str:
        """Replace a text that holds a name, as `path` does, but whatever the working directory is."""
        return text if self.show else self.crosswalk.path(text) or _name(self.key, text)


def _digest(key: bytes, kind: str, text: str) -> bytes:
    return hmac.digest(key, f"{kind}\0{text}".encode("utf-8", "surrogateescape"), hashlib.sha256)


@lru_cache(maxsize=4096)  # the files of a study are named in its images, its plan and its rows
def _name(key: bytes, text: str) -> str:
    suffix = PurePosixPath(text).suffix.lower()
    return f"file-{_digest(key, 'path', text).hex()[:16]}{suffix if suffix in _SUFFIXES else ''}"


def is_pseudonym(path: str) -> bool:
    """Whether a path is of the form that `Pseudonyms.path` gives."""
    return bool(_PSEUDONYM.fullmatch(path))


def check_key(key: bytes, subject: str) -> bytes:
    """Return a key. Raises `RequestError`, which does not contain the key, where it could be guessed."""
    if len(key) < _MIN_KEY_BYTES or len(set(key)) < _MIN_DISTINCT_BYTES:
        rule = f"must have at least {_MIN_KEY_BYTES} bytes, {_MIN_DISTINCT_BYTES} of them different"
        remedy = "Make one with: python -c 'import secrets; print(secrets.token_hex(32))'"
        raise RequestError(subject, rule, value=f"{len(key)} bytes, {len(set(key))} different", remedy=remedy)
    return key


def path_variants(path: str) -> list[str]:
    """The forms of a path in texts: as given, absolute, resolved, quoted by Python, name and stem only.

    Of a URL also the values of its query and the UIDs in it. Left out is what may be any word: a name without a suffix
    or shorter than 4 characters, a stem or a path as given that is lower-case letters only.
    """
    word = len(path) < _MIN_NAME or re.fullmatch(r"[a-z.]+", path)
    whole = [*([] if word else [path]), os.path.abspath(path), resolved(path)]
    name, stem = PurePosixPath(path).name, PurePosixPath(path).stem
    alone = [name] if PurePosixPath(path).suffix and len(name) >= _MIN_NAME else []
    if alone and stem:
        whole += [one[: -len(name)] + stem for one in whole if one.endswith(name) and one != name]
        alone += [stem] if len(stem) >= _MIN_NAME and not re.fullmatch(r"[a-z]+", stem) else []
    if "://" in path:
        values = [value for _, value in parse_qsl(path.partition("?")[2])]
        alone += [text for text in (*values, *_UIDS.findall(path)) if len(text) >= _MIN_NAME]
    return list(dict.fromkeys([form for one in (*whole, *alone) for form in (one, repr(one)[1:-1])]))


def harmless_name(text: str) -> str:
    """A name that programs give to parts of a file, such as "Scene #1"; "" where it may be any other.

    >>> harmless_name("ScanRegion0"), harmless_name("Doe John #1")
    ('ScanRegion0', '')
    """
    return text.strip() if _HARMLESS.fullmatch(text.strip()) else ""


def longest_first(aliases: Mapping[str, str]) -> dict[str, str]:
    """Sort names for `redact_text`, so that a path is replaced before its own end."""
    return dict(sorted(aliases.items(), key=lambda item: (-len(item[0]), item[0])))


def redact_text(text: str, aliases: Mapping[str, str]) -> str:
    """Replace each name in `aliases`, in their order, where it stands alone in a text."""
    for form, alias in aliases.items():
        if form in text:
            text = re.sub(rf"(?<![\w.-]){re.escape(form)}(?![\w-])", lambda _, alias=alias: alias, text)
    return text


def restore_text(text: str, original: Callable[[str], str]) -> str:
    """Replace every pseudonym of a path by what a function returns for it: the inverse of `redact_text`."""
    return _PSEUDONYM.sub(lambda found: original(found[0]), text)


def redact_error(error: LimnerError, aliases: Mapping[str, str]) -> LimnerError:
    """Replace names in the parts of an error."""
    subject, rule, value, remedy = (redact_text(part, aliases) for part in error.parts)
    return type(error)(subject, rule, value=value, remedy=remedy)


def run_key_file(folder: Path) -> Path:
    """The path of a run's own key, made at random if there is none, readable by its owner only.

    The run's pseudonyms can be repeated as long as it exists.
    """
    path = folder / KEY_FILE
    temporary = folder / f".part-{KEY_FILE}-{os.getpid()}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(32).encode() + b"\n")
        try:
            os.link(temporary, path)  # never over a key that another process has just made
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return path
