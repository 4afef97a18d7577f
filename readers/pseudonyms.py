"""Pseudonyms: names that stand for people's identifiers, the same for the same key and of no use without it.

HMAC-SHA256 under a secret key. Who has the key can test a guess, nobody can go back. A key comes from a file or from
the environment; a run that was given neither makes its own at random and keeps it in its folder, readable by its owner
only, so that the run can be resumed with the same names and nobody can link two runs.
"""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, Self

from pydantic import Field

from .errors import LimnerError, RequestError
from .files import read_file
from .options import Options

KEY_VARIABLE = "LIMNER_PSEUDONYM_KEY"
KEY_FILE = "pseudonym.key"
_LONGEST = 2**20  # bytes
_SHORTEST = 16  # bytes: 128 bits, where guessing ends
_VARIETY = 6  # different bytes: a key is not a repeated letter
_BARE = 4  # characters of a bare name: shorter ones are words
_SUFFIXES = {".dcm", ".dicom", ".ima", ".img", ".tif", ".tiff", ".zip"}

_PROCESS_KEY = secrets.token_bytes(32)


class NameOptions(Options):
    """Options that say whether names of people are told."""

    names: Literal["hide", "show"] = Field(
        default="hide",
        description="Whether people's names are replaced by pseudonyms; `--set names=show` sets it.",
    )
    key_file: str = Field(default="", description="The file of a secret key for pseudonyms, of at least 16 bytes.")


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Pseudonyms under one key. With `show` names stay as they are: the person asked for that in so many words."""

    key: bytes = field(repr=False)
    show: bool = False

    @classmethod
    def of(cls, options: NameOptions) -> Self:
        """As the options `names` and `key_file` say.

        Without a key file the environment's `LIMNER_PSEUDONYM_KEY` counts, and without that a random key that lasts as
        long as this process. Raises `RequestError` for a weak or unreadable key.
        """
        wish, path = options.names, options.key_file
        if path:
            try:
                key = read_file(path, most=_LONGEST, regular=True).strip()
            except OSError as error:
                raise RequestError(
                    "option key_file", "it must be readable", value=str(error.strerror), remedy="Check path and rights"
                ) from None
            return cls(check_key(key, "option key_file"), wish == "show")
        stated = os.environ.get(KEY_VARIABLE, "").encode()
        return cls(check_key(stated, KEY_VARIABLE) if stated else _PROCESS_KEY, wish == "show")

    def uid(self, uid: str) -> str:
        """A DICOM UID's pseudonym: `2.25.` and a 128-bit number (PS3.5 B.2; the UUID is of version 8, RFC 9562)."""
        if self.show:
            return uid
        number = int.from_bytes(self._digest("uid", uid)[:16], "big")
        number = number & ~(0xF << 76) | (8 << 76)
        number = number & ~(0x3 << 62) | (2 << 62)
        return f"2.25.{number}"

    def path(self, path: str) -> str:
        """A path's pseudonym: `file-` and 16 hexadecimal digits; the suffix stays where it is a format's."""
        if self.show:
            return path
        suffix = PurePosixPath(path).suffix.lower()
        return f"file-{self._digest('path', path).hex()[:16]}{suffix if suffix in _SUFFIXES else ''}"

    def _digest(self, kind: str, text: str) -> bytes:
        return hmac.digest(self.key, f"{kind}\0{text}".encode("utf-8", "surrogateescape"), hashlib.sha256)


def check_key(key: bytes, subject: str) -> bytes:
    """The key, where it is one. Raises `RequestError` where it could be guessed; the key is not repeated in it."""
    if len(key) < _SHORTEST or len(set(key)) < _VARIETY:
        raise RequestError(
            subject,
            f"a key has at least {_SHORTEST} bytes, not all alike",
            value=f"{len(key)} bytes, {len(set(key))} different",
            remedy="Make one with: python -c 'import secrets; print(secrets.token_hex(32))'",
        )
    return key


def path_variants(path: str) -> list[str]:
    """A path as it may be met in a text: as given, absolute, resolved, quoted by Python, its bare name, its stem.

    A bare name without a suffix, a short one, and what is in small letters only may be any word and are left out; so is
    a path as given that is "." or such a word.
    """
    word = len(path) < _BARE or re.fullmatch(r"[a-z.]+", path)
    whole = [*([] if word else [path]), os.path.abspath(path), _resolved(path)]  # noqa: PTH100 - a name may be no valid path
    name, stem = PurePosixPath(path).name, PurePosixPath(path).stem
    bare = [name] if PurePosixPath(path).suffix and len(name) >= _BARE else []  # a folder's may be any word
    if bare and stem:
        whole += [one[: -len(name)] + stem for one in whole if one.endswith(name) and one != name]
        bare += [stem] if len(stem) >= _BARE and not re.fullmatch(r"[a-z]+", stem) else []
    return list(dict.fromkeys([form for one in (*whole, *bare) for form in (one, repr(one)[1:-1])]))


def _resolved(path: str) -> str:
    """Where a path leads; itself where no file can have such a name, as a member of an archive may."""
    try:
        return os.path.realpath(path)
    except ValueError:
        return path


def longest_first(told: Mapping[str, str]) -> dict[str, str]:
    """What is told instead of names, in the order in which they are to be replaced: a path before its own end."""
    return dict(sorted(told.items(), key=lambda item: (-len(item[0]), item[0])))


def redact_text(text: str, told: Mapping[str, str]) -> str:
    """A text in which each name in `told`, where it stands for itself, is replaced, in their order."""
    for form, alias in told.items():
        if form in text:
            text = re.sub(rf"(?<![\w.-]){re.escape(form)}(?![\w-])", lambda _, alias=alias: alias, text)
    return text


def redact_error(error: LimnerError, told: Mapping[str, str]) -> LimnerError:
    """An error whose words tell no name in `told`."""
    parts = [redact_text(part, told) for part in (error.subject, error.rule, error.value, error.remedy)]
    return type(error)(parts[0], parts[1], value=parts[2], remedy=parts[3])


def run_key_file(folder: Path) -> Path:
    """The path of a run's own key, for the option `key_file`; made at random where there is none yet.

    Readable by its owner only. It makes the run's pseudonyms repeatable; delete it to make them irreversible for good.
    """
    path = folder / KEY_FILE
    temporary = folder / f".part-{KEY_FILE}-{os.getpid()}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(32).encode() + b"\n")
        try:
            os.link(temporary, path)  # never over a key that another process has made meanwhile
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return path
