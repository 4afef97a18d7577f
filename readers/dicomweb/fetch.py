"""Fetching what an input names from a DICOMweb server into the folder of fetched studies.

Instances that are there are not fetched again. One that fails does not stop the others, and has a row of its own.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, local
from typing import Final

from ..dicom.decoder import Decoder
from ..dicom.faults import FaultError, as_error
from ..errors import ReadError
from ..files import DICOMWEB
from ..plugins import require_extra
from .address import WebInput
from .cache import Instance, StudyCache
from .options import WebOptions
from .server import MAX_INSTANCES, TooManyError, WebServer
from .session import WebError

MAX_INSTANCE_BYTES: Final = 4 * 2**30
FAILURES: Final = 5
"""Instances that fail one after the other, after which no more are asked for."""

CONNECTIONS: Final = 4
_SUBJECT: Final = "an instance of a DICOMweb server"


@dataclass(frozen=True, slots=True)
class Fetched:
    """The files of an input."""

    files: tuple[str, ...]
    """Of the instances that are there, sorted by their UIDs."""
    failed: tuple[tuple[str, ReadError], ...]
    """The URI of each instance that could not be fetched, with the reason."""
    summary: str
    """How much it is: "2 studies with 40 instances on a DICOMweb server"."""


def check_input(uri: str, options: WebOptions) -> None:
    """Raise `RequestError` for an input that is wrong, or cannot be fetched as limner is installed or set up.

    Contacts nothing.
    """
    require_extra("dicom", "a DICOMweb server")
    asked = WebInput.parse(uri, insecure=options.web_insecure)
    WebServer(asked.server, options)


def fetch(uri: str, options: WebOptions) -> Fetched:
    """Fetch what an input names. Raises `RequestError` as `check_input` does, `ReadError` where nothing can be had."""
    check_input(uri, options)
    asked = WebInput.parse(uri, insecure=options.web_insecure)
    cache = StudyCache(options)
    listed, note = _list(asked, options, cache)
    work = _Fetch(asked, options, cache)
    missing = [one for one in listed if not cache.path(asked.server, one).is_file()]
    studies = sorted({one.study for one in listed})
    if missing:
        logging.getLogger("limner").warning(
            "Fetching %s of %s from %s.",
            _count(len(missing), "instance"),
            _count(len(studies), "study"),
            asked.server.host,
        )
    for study in studies:
        own = [one for one in missing if one.study == study]
        if own:
            with cache.locked(asked.server, study):
                work.fetch(own)
    files = tuple(str(path) for one in listed if (path := cache.path(asked.server, one)).is_file())
    failed = tuple((f"{DICOMWEB}{asked.server.url}{one.path}", error) for one, error in sorted(work.failed.items()))
    count = f"{_count(len(studies), 'study')} with {_count(len(listed), 'instance')} on a DICOMweb server"
    return Fetched(files, failed, f"{count}{note}")


def _list(asked: WebInput, options: WebOptions, cache: StudyCache) -> tuple[list[Instance], str]:
    """The instances of an input, and a note where they are those of an earlier list."""
    server = WebServer(asked.server, options)
    note = ""
    try:
        listed = server.list_instances(asked, options.web_studies)
    except TooManyError as error:
        raise ReadError(
            "the query of a DICOMweb server",
            f"must match at most {options.web_studies} studies",
            value=f"{error.count} studies",
            remedy="Narrow it, or allow more: --reader-options web_studies=NUMBER",
        ) from None
    except WebError as error:
        listed = cache.kept_listing(asked) if error.is_absence else []
        if not listed or not all(cache.path(asked.server, one).is_file() for one in listed):
            raise error.as_read_error(asked.server) from None
        note = ", which did not answer now: they are those of its last list, fetched then"
    if not listed:
        raise ReadError(
            f"the {'series' if asked.series else 'study' if asked.study else 'query'} of a DICOMweb server",
            "must have instances" if asked.study else "must match a study with instances",
            value=f"none on {asked.server.host}",
            remedy="Check the UID or the query, and that this account may see them",
        )
    if len(listed) > MAX_INSTANCES:
        rule = f"must have at most {MAX_INSTANCES} instances"
        raise ReadError("the DICOMweb input", rule, value=str(len(listed)), remedy="Name single series")
    if not note:
        cache.keep_listing(asked, listed)
    return listed, note


@dataclass(slots=True)
class _Fetch:
    """Fetching instances over some connections at a time."""

    asked: WebInput
    options: WebOptions
    cache: StudyCache
    failed: dict[Instance, ReadError] = field(default_factory=dict[Instance, ReadError])
    _in_a_row: int = 0
    _lock: Lock = field(default_factory=Lock)
    _own: local = field(default_factory=local)
    _servers: list[WebServer] = field(default_factory=list[WebServer])

    def fetch(self, instances: Sequence[Instance]) -> None:
        """Fetch instances of a study that are not there; one whose fetching fails is in `failed`."""
        with ThreadPoolExecutor(min(CONNECTIONS, len(instances))) as threads:
            waiting = threads.map(self._one, instances)
            try:
                for _ in waiting:
                    pass
            except BaseException:  # Ctrl-C
                threads.shutdown(wait=False, cancel_futures=True)
                for server in self._servers:
                    server.abort()
                raise

    def _one(self, one: Instance) -> None:
        path = self.cache.path(self.asked.server, one)
        if path.is_file():  # another process has fetched it meanwhile
            return
        if self._in_a_row >= FAILURES:
            value = f"{FAILURES} others failed one after the other"
            self._keep(one, ReadError(_SUBJECT, "must be asked for", value=value, remedy=_AGAIN))
            return
        try:
            self._write(one, path)
        except WebError as error:
            self._keep(one, error.as_read_error(self.asked.server))
        except ReadError as error:
            self._keep(one, error)
        except OSError as error:
            value = error.strerror or type(error).__name__
            self._keep(
                one, ReadError(str(self.cache.folder), "must be writable", value=value, remedy="Free disk space")
            )
        else:
            self._in_a_row = 0

    def _write(self, one: Instance, path: Path) -> None:
        room = self.cache.room
        with self.cache.writing(path) as (part, file):
            try:
                self._server().retrieve(one, file, min(MAX_INSTANCE_BYTES, room))
            except WebError as error:
                if room < MAX_INSTANCE_BYTES and error.reason.startswith("an answer longer"):
                    raise self.cache.full() from None
                raise
            file.flush()
            _check(part, one)

    def _keep(self, one: Instance, error: ReadError) -> None:
        with self._lock:
            self.failed[one] = error
            self._in_a_row += 1

    def _server(self) -> WebServer:
        """The server over this thread's connection."""
        if not hasattr(self._own, "server"):
            self._own.server = WebServer(self.asked.server, self.options)
            self._servers.append(self._own.server)
        return self._own.server


_AGAIN: Final = "See the reasons of those, then give the same command again: it fetches what is missing"


def _check(part: Path, one: Instance) -> None:
    """Raise `ReadError` unless a file is the instance that was asked for. It is parsed in the sandboxed process."""
    try:
        found = Decoder().uids(str(part))
    except FaultError as fault:
        raise as_error(_SUBJECT, fault) from None
    wrong = [name for name, a, b in zip(("study", "series", "instance"), one, found, strict=True) if a != b]
    if wrong:
        rule = f"must have the UIDs that were asked for, also of its {wrong[0]}"
        remedy = "Have the server's records repaired; it was not kept"
        raise ReadError(_SUBJECT, rule, value="another UID", remedy=remedy)


def _count(number: int, word: str) -> str:
    """A count with its noun."""
    return f"{number} {word if number == 1 else 'studies' if word == 'study' else f'{word}s'}"
