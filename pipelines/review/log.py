"""The file of a review: JSON lines, of which the first states the format, the run and the reviewer.

Each further line is an event with a checksum. Lines are appended and synced to disk one action at a time, so that a
killed process leaves at most one incomplete line, which is ignored.
"""

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, cast

from ...readers.errors import LimnerError, RequestError, excerpt
from ...readers.files import open_regular, parse_json
from ..run.run_files import StoreError, as_store_errors
from ..run.run_folder import add_checksum, remove_checksum
from .actions import Action, check_reviewer, parse_action
from .decisions import Event

FORMAT: Final = 1
SUFFIX: Final = ".jsonl"
MAX_LINE_BYTES: Final = 2**26
"""A line names up to 100,000 findings with the ids of their images."""

_FORMAT_KEY: Final = "limner_review"
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")
_CHECK: Final = re.compile(r"[0-9a-f]{8}|")
_REMEDY: Final = "Restore it from a backup, or delete that line and those after it"


@dataclass(frozen=True, slots=True)
class Header:
    """The first line."""

    run: str
    """What identifies the run and its findings: a digest of its manifest and of what became of each region."""
    reviewers: tuple[str, ...]
    """One; of a merged file all, sorted."""
    merged: bool = False
    prefer: tuple[str, ...] = ()
    """Of a merged file: whose decision holds where others differ, first one first."""
    limner: str = ""
    """The version that made the file."""


@dataclass(frozen=True, slots=True)
class ReviewFile:
    """What a review's file holds."""

    path: Path
    header: Header | None
    """None for a file without a complete line."""
    events: tuple[Event, ...]
    incomplete: bool
    """Whether its last line is not complete, and was ignored."""

    @property
    def notice(self) -> str:
        """A sentence on that."""
        return f"{self.path}: its last line was not complete, as when a process is killed, and is left out."


def header_line(header: Header) -> bytes:
    """A header as a line."""
    names: dict[str, Any] = {"reviewer": header.reviewers[0]}
    if header.merged:
        names = {"reviewers": header.reviewers, "prefer": header.prefer}
    return _line({_FORMAT_KEY: FORMAT, "run": header.run, **names, "limner": version("limner")})


def event_line(event: Event) -> bytes:
    """An event as a line."""
    record: dict[str, Any] = {"event": event.number, "at": event.at, "by": event.by}
    if isinstance(event.action, Action):
        record |= event.action.to_json()
        if event.labels:
            record |= {"labels": event.labels, "checks": event.checks}
    else:
        record |= {"action": event.action, "target": event.target}
    return _line(record)


def read_review_file(path: Path) -> ReviewFile:
    """Read a review. Raises `RequestError` for a file that is no review, `StoreError` for a damaged or newer one."""
    header: Header | None = None
    events: list[Event] = []
    number, incomplete = 0, False
    with as_store_errors(path), io.BufferedReader(cast("io.RawIOBase", open_regular(path)), 2**20) as lines:
        while line := lines.readline(MAX_LINE_BYTES):
            number += 1
            where = f"{path}, line {number}"
            if not line.endswith(b"\n"):
                if len(line) == MAX_LINE_BYTES:
                    raise StoreError(where, "must be a line of a review", value="a longer one", remedy=_REMEDY)
                incomplete = True
            elif header is None:
                header = _parse_header(line, path)
            else:
                events.append(_parse_event(line, where, header))
    return ReviewFile(path, header, tuple(events), incomplete)


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return add_checksum(text.encode("utf-8", "backslashreplace"))


def _parse_header(line: bytes, path: Path) -> Header:
    remedy = "Give the file of a review, REVIEWER.jsonl in the folder RUN.reviews"
    no_review = RequestError(str(path), "must be a review that limner wrote", remedy=remedy)
    try:
        record: Any = parse_json(line)
        found = record[_FORMAT_KEY]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise no_review from error
    if type(found) is not int or found < 1:
        raise no_review
    if found > FORMAT:
        raise StoreError(
            str(path),
            f"must have the format {FORMAT}, which this version of limner ({version('limner')}) reads",
            value=f"format {found} of a newer version of limner ({excerpt(str(record.get('limner')), 20)})",
            remedy="Use the version that made it",
        )
    try:
        remove_checksum(line)
        merged = "reviewers" in record
        names = record["reviewers"] if merged else [record["reviewer"]]
        prefer = record.get("prefer", [])
        texts = [record["run"], record["limner"], *names, *prefer]
        if not names or not all(isinstance(text, str) for text in texts):
            msg = "a value has the wrong type"
            raise TypeError(msg)  # noqa: TRY301 - handled like the other errors
        reviewers = tuple(map(check_reviewer, names))
        return Header(record["run"], reviewers, merged, tuple(prefer), record["limner"])
    except (ValueError, KeyError, TypeError, LimnerError) as error:
        raise _damaged(f"{path}, line 1", error) from error


def _parse_event(line: bytes, where: str, header: Header) -> Event:
    try:
        record: dict[str, Any] = parse_json(remove_checksum(line))
        number, at, by = record.pop("event"), record.pop("at"), record.pop("by")
        labels, checks, target = record.pop("labels", []), record.pop("checks", []), record.pop("target", 0)
        if (
            type(number) is not int
            or type(target) is not int
            or not _TIME.fullmatch(at)
            or by not in header.reviewers
            or not all(isinstance(label, str) for label in labels)
            or not all(_CHECK.fullmatch(check) for check in checks)
        ):
            msg = "a value of another type"
            raise TypeError(msg)  # noqa: TRY301 - handled like the other errors
        if (verb := record.get("action")) in {"undo", "redo"}:
            return Event(number, at, by, verb, target)
        action = parse_action(record, {str(record.get("label"))})  # it may be one of the run's own
        if not len(labels) == len(checks) == len(action.findings):
            msg = "labels and checks for other findings"
            raise ValueError(msg)  # noqa: TRY301 - the same
        return Event(number, at, by, action, 0, tuple(labels), tuple(checks))
    except (ValueError, KeyError, TypeError, AttributeError, LimnerError) as error:
        raise _damaged(where, error) from error


def _damaged(where: str, error: Exception) -> StoreError:
    value = excerpt(f"{type(error).__name__}: {error}", 200)
    return StoreError(where, "must be one event of a review, as limner wrote it", value=value, remedy=_REMEDY)
