"""Sends the DICOM objects of a run to a DICOMweb server: each once, with a receipt, and on where it stopped."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from ...readers.dicomweb.address import parse_server
from ...readers.dicomweb.options import WebOptions
from ...readers.errors import LimnerError, ReadError
from ...readers.plugins import require_extra
from ...readers.servers import Address
from .dicom_objects import file_sha256, find_objects, noted_objects
from .manifest import load_manifest
from .receipts import Receipt, Receipts, read_receipts

FAILURES: Final = 3
"""Objects for which the server does not answer, one after the other, after which no more are sent."""

_REWRITE: Final = "Write it again: `limner report` with the run and --reports dicom-sr, or the report that it is of"


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of an object."""

    file: str
    status: Literal["to send", "sent before", "stored", "already there", "failed"]
    words: str = ""
    """The server's warning, or why it failed."""


@dataclass(frozen=True, slots=True)
class _Object:
    """An object, by its UIDs and bytes."""

    path: Path
    study: str
    series: str
    sop: str
    sha256: str


def send(folder: Path, to: str, options: WebOptions, *, dry_run: bool = False) -> Iterator[Sent]:
    """Send the objects of a run that its server has not got yet; yields what became of each, in the order of names.

    Raises `RequestError` for a wrong folder, server or login, `StoreError` for a damaged run, `ReadError` without an
    object. With `dry_run` nothing is contacted or written.
    """
    load_manifest(folder)
    server = parse_server(to, insecure=options.web_insecure)
    require_extra("dicom", "limner send")
    found = find_objects(folder)
    if not found:
        remedy = "Write them first: `limner report` with the run and --reports dicom-sr"
        raise ReadError(str(folder), "must have DICOM objects to send", value="none", remedy=remedy)
    outcomes = _plan(folder, found, server)
    if dry_run:
        yield from (one if isinstance(one, Sent) else Sent(one.path.name, "to send") for one in outcomes)
        return
    sender = _Sender(server, options)
    with Receipts.open(folder) as receipts:
        for one in outcomes:
            yield one if isinstance(one, Sent) else sender.send(one, receipts)


def _plan(folder: Path, paths: list[Path], server: Address) -> list["Sent | _Object"]:
    """What is to be sent, and what is not, with the reason."""
    from ...readers.dicom.decoder import Decoder
    from ...readers.dicom.faults import FaultError, as_error

    noted = noted_objects(folder)
    had = [one for one in read_receipts(folder) if one.server == server.url and one.status != "failed"]
    found: list[Sent | _Object] = []
    for path in paths:
        try:
            digest = file_sha256(path)
            study, series, sop = Decoder().uids(str(path))
        except OSError as error:
            found.append(_failed(path, _unreadable(path, error)))
            continue
        except FaultError as fault:
            found.append(_failed(path, as_error(path.name, fault)))
            continue
        if noted.get(path.name) != digest:
            value = "altered since" if path.name in noted else "not written by limner here"
            error = ReadError(path.name, "must be as limner wrote it", value=value, remedy=_REWRITE)
            found.append(_failed(path, error))
        elif any(one.sop_instance_uid == sop and one.object_sha256 == digest for one in had):
            found.append(Sent(path.name, "sent before"))
        elif any(one.sop_instance_uid == sop for one in had):
            rule, value = "must not change under its UID", "this server has another content of it, by its receipt"
            remedy = "Delete it on the server and its line in sent.jsonl, or write the run anew"
            found.append(_failed(path, ReadError(path.name, rule, value=value, remedy=remedy)))
        else:
            found.append(_Object(path, study, series, sop, digest))
    return found


def _failed(path: Path, error: LimnerError) -> Sent:
    return Sent(path.name, "failed", str(error))


def _unreadable(path: Path, error: OSError) -> ReadError:
    value = error.strerror or type(error).__name__
    return ReadError(path.name, "must be readable", value=value, remedy="Check its permissions")


class _Sender:
    """Sends objects to one server. Raises `RequestError` for an unusable login."""

    def __init__(self, address: Address, options: WebOptions) -> None:
        from ...readers.dicomweb.server import WebServer

        self._address = address
        self._retries = options.web_retries
        self._server = WebServer(address, options)
        self._in_a_row = 0

    def send(self, one: _Object, receipts: Receipts) -> Sent:
        """Send an object, unless the server has it, and keep the receipt."""
        from ...readers.dicomweb.session import WebError

        if self._in_a_row >= FAILURES:
            value = f"{FAILURES} others failed one after the other"
            remedy = "See the reasons of those, then give the same command again"
            return _failed(one.path, ReadError(one.path.name, "must be sent", value=value, remedy=remedy))
        try:
            sent = self._store(one)
            self._in_a_row = 0
        except WebError as error:
            self._in_a_row += 1
            sent = _failed(one.path, error.as_read_error(self._address))
        except OSError as error:
            sent = _failed(one.path, _unreadable(one.path, error))
        when = datetime.now(UTC).isoformat(timespec="seconds")
        receipts.append(Receipt(one.path.name, one.sop, one.sha256, self._address.url, sent.status, sent.words, when))
        return sent

    def _store(self, one: _Object) -> Sent:
        """Store an object that the server lacks; where the answer is lost or says nothing, ask whether it has it."""
        from ...readers.dicomweb.cache import Instance
        from ...readers.dicomweb.session import WebError
        from ...readers.servers import pause

        name, instance = one.path.name, Instance(one.study, one.series, one.sop)
        if self._server.has(instance):
            return Sent(name, "already there")
        for attempt in range(self._retries + 1):
            try:
                stored = self._server.store(one.path)
            except WebError as error:
                if attempt >= min(self._retries, error.retries):
                    raise
                time.sleep(max(error.wait, pause(attempt, one.sop)))
                if self._server.has(instance):
                    return Sent(name, "stored")
                continue
            if stored.status == "unknown":
                if self._server.has(instance):
                    return Sent(name, "stored", stored.words)
                value, remedy = "no word of what became of it", "See the server's own log"
                return _failed(one.path, ReadError(name, "must be stored by the server", value=value, remedy=remedy))
            if stored.status == "failed":
                remedy = "See the server's own log, and which classes of objects it takes"
                error = ReadError(name, "must be stored by the server", value=stored.words, remedy=remedy)
                return _failed(one.path, error)
            return Sent(name, stored.status, stored.words)
        raise AssertionError(name)
