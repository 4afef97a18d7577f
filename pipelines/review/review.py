"""One reviewer's review of a run, open for writing: each action becomes an event in its log, and is synced to disk."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2s
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from ...model.findings_table import FindingsTable
from ...model.merged_findings import columnar
from ...readers.errors import RequestError, did_you_mean, excerpt
from ...readers.files import open_regular
from ...reports.writer import ImageRecord, Record
from ..run.reporting import read_record
from ..run.reveal import check_outside_runs
from ..run.run_files import REVIEWS, StoreError, as_store_errors
from ..run.run_folder import append_synced, cut_incomplete_line, lock
from .actions import Action, check_reviewer, is_outline, parse_action, polygon, split_key
from .decisions import Decision, Decisions, Event
from .log import MAX_LINE_BYTES, SUFFIX, Header, event_line, header_line, read_review_file


@dataclass(frozen=True, slots=True)
class Change:
    """What an action, undo or redo changed."""

    events: tuple[Event, ...]
    """The events that were appended."""
    decisions: Mapping[str, Decision]
    """The decisions that changed, by finding; without an outcome where there is none any more."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "events": [event.to_json() for event in self.events],
            "decisions": {key: decision.to_json() for key, decision in self.decisions.items()},
        }


class Review:
    """One reviewer's review of a run. Use as a context manager; one thread at a time.

    The log is locked while it is open: from the first event on, where there is no file yet.
    """

    def __init__(self, record: Record, path: Path, reviewer: str) -> None:
        self.reviewer = reviewer
        self.path = path
        """Of the log."""
        self.notices: list[str] = []
        """Sentences on what a reader of the review must know."""
        self._record = record
        self._images = {image.info.id: image for image in record.images}
        self._decisions = Decisions()
        self._file: BinaryIO | None = None
        self._new = True  # without a header

    @classmethod
    def open(cls, run: Path, reviewer: str, folder: Path | None = None, *, record: Record | None = None) -> Self:
        """Open the review of a run by a reviewer, which needs no file yet.

        folder: of the logs; by default RUN.reviews beside the run's folder RUN.
        record: the run, where it was read already.

        Raises `RequestError` for a name that no file can have, a folder inside of a run, a review of another run and
        one that another process has open; `StoreError` for a damaged log or one of a newer version.
        """
        reviewer = check_reviewer(reviewer)
        folder = reviews_folder(run) if folder is None else folder
        check_outside_runs(folder / reviewer, "--reviews")
        made = cls(read_record(run) if record is None else record, folder / f"{reviewer}{SUFFIX}", reviewer)
        if os.path.lexists(made.path):
            made._begin()
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def act(self, action: Mapping[str, Any]) -> Change:
        """Check an action, append it to the log, and return what it changed.

        Raises `RequestError` for an action that cannot be taken, and `StoreError` where it cannot be written; then
        nothing has changed.
        """
        parsed = parse_action(action, self._record.labels)
        if parsed.verb == "draw":
            self._check_outline(parsed)
        labels, checks = self._labels_and_checks(parsed.findings)
        self._begin()
        if problem := self._decisions.problem(parsed):
            remedy = "Look at the review again"
            raise RequestError(f"action {parsed.verb}", "must suit its findings", value=excerpt(problem), remedy=remedy)
        return self._append(Event(self._next, _now(), self.reviewer, parsed, 0, labels, checks))

    def undo(self) -> Change | None:
        """Undo this reviewer's latest event that is not undone, also an earlier session's; None without one."""
        self._begin(create=False)
        if not self._decisions.done:
            return None
        return self._append(Event(self._next, _now(), self.reviewer, "undo", self._decisions.done[-1].number))

    def redo(self) -> Change | None:
        """Do again what was undone last, where no action followed; None without one."""
        self._begin(create=False)
        if not self._decisions.undone:
            return None
        return self._append(Event(self._next, _now(), self.reviewer, "redo", self._decisions.undone[-1].number))

    def decisions(self) -> Mapping[str, Decision]:
        """The decisions and comments by finding: IMAGE/NUMBER, or the id of a drawn one."""
        return dict(self._decisions.items())

    def history(self, limit: int = 100) -> Sequence[Event]:
        """The latest events, newest first."""
        return self._decisions.events[: -limit - 1 : -1]

    @property
    def can_undo(self) -> bool:
        """Whether there is an event to undo."""
        return bool(self._decisions.done)

    @property
    def can_redo(self) -> bool:
        """Whether there is an event to do again."""
        return bool(self._decisions.undone)

    @property
    def _next(self) -> int:
        return len(self._decisions.events) + 1

    def _begin(self, *, create: bool = True) -> None:
        """Open, lock and read the log, unless that is done; make it only if it is to be created."""
        if self._file is not None or not (create or os.path.lexists(self.path)):
            return
        with as_store_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = open_regular(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, "ab")
        try:
            if any(image.info.personal for image in self._record.images):
                with as_store_errors(self.path):
                    self.path.chmod(0o600)
            try:
                lock(file, self.path)
            except RequestError as error:
                remedy = "Close the other one, or give another --reviewer"
                raise RequestError(str(self.path), "must not be open twice", remedy=remedy) from error
            self._load()
        except BaseException:
            file.close()
            raise
        self._file = file

    def _load(self) -> None:
        found = read_review_file(self.path)
        self._new = found.header is None
        if found.header is not None:
            check_run(found.path, found.header, self._record)
            if found.header.reviewers != (self.reviewer,) or found.header.merged:
                value = f"a review by {', '.join(found.header.reviewers)}"
                remedy = "Review under another name, or in another folder of reviews"
                raise RequestError(str(self.path), f"must be {self.reviewer}'s own review", value=value, remedy=remedy)
        self._decisions = folded(found.path, found.events)
        if found.incomplete:
            self.notices.append(found.notice)
            with as_store_errors(self.path):
                cut_incomplete_line(self.path, longest=MAX_LINE_BYTES)

    def _append(self, event: Event) -> Change:
        assert self._file is not None  # noqa: S101 - `_begin` opened it
        if not os.fstat(self._file.fileno()).st_nlink:
            remedy = "Open the review again, and decide again what was decided before"
            raise StoreError(str(self.path), "must not be deleted while it is open", remedy=remedy)
        line = event_line(event)
        if self._new:
            line = header_line(Header(self._record.run, (self.reviewer,))) + line
        append_synced(self._file, line, self.path)
        self._new = False
        keys = self._decisions.apply(event)
        nothing = Decision(None, "", event.by, event.at)
        return Change((event,), {key: self._decisions.get(key) or nothing for key in keys})

    def _check_outline(self, action: Action) -> None:
        """Raise `RequestError` for an outline that is not on an image of the run."""
        info = _known_image(self._images, action.image).info
        if action.plane >= len(info.planes):
            value, remedy = str(action.plane), f"Give 0 to {len(info.planes) - 1}"
            raise RequestError("plane", f"must be one of {info.id}'s", value=value, remedy=remedy)
        x0, y0, x1, y1 = polygon(action.rings).bounds
        if x0 < 0 or y0 < 0 or x1 > info.size[0] or y1 > info.size[1]:
            value = f"{x0:.6g}, {y0:.6g} to {x1:.6g}, {y1:.6g}"
            rule = f"must lie inside of its image, {info.size[0]} × {info.size[1]} pixels"
            raise RequestError("an outline", rule, value=value, remedy="Draw it inside of the image")

    def _labels_and_checks(self, keys: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The model's labels of findings, and their checks. Raises `RequestError` for unknown ones."""
        places: dict[str, list[tuple[int, int]]] = {}
        for at, key in enumerate(keys):
            if not is_outline(key):
                image, number = split_key(key)
                places.setdefault(image, []).append((number - 1, at))
        labels, checks = [""] * len(keys), [""] * len(keys)
        for name, rows in places.items():
            findings = columnar(_known_image(self._images, name).findings())
            if (last := max(rows)[0]) >= len(findings):
                subject, value = f"finding {name}/{last + 1}", f"{len(findings)} findings"
                raise RequestError(subject, "must be one of the run", value=value, remedy="Look at the run again")
            table = findings.take(np.array([row for row, _ in rows]))
            for (_, at), label, check in zip(rows, table.label.tolist(), finding_checks(table), strict=True):
                labels[at], checks[at] = label, check
        return tuple(labels), tuple(checks)


def reviews_folder(run: Path) -> Path:
    """Where the reviews of a run lie by default: RUN.reviews beside it."""
    folder = run.resolve()
    return folder.with_name(f"{folder.name}{REVIEWS}")


def check_run(path: Path, header: Header, record: Record) -> None:
    """Raise `RequestError` for a review of another run, or of this one before it went on."""
    if header.run != record.run:
        value = "that of another run, or of this one before it went on"
        remedy = "Give the run that was reviewed, or another --reviews folder"
        raise RequestError(str(path), "must be a review of this run", value=value, remedy=remedy)


def folded(path: Path, events: Sequence[Event]) -> Decisions:
    """The decisions of one reviewer's events. Raises `StoreError` where one cannot follow the others."""
    decisions = Decisions()
    for event in events:
        try:
            decisions.apply(event)
        except ValueError as error:
            remedy = "Restore it from a backup, or delete that event's line and those after it"
            raise StoreError(str(path), "must hold events in order", value=str(error), remedy=remedy) from error
    return decisions


def finding_checks(table: FindingsTable) -> list[str]:
    """Eight hexadecimal digits for each finding, from its label, plane and bounding box to a hundredth of a pixel."""
    bounds = (np.round(table.bounds, 2) + 0.0).tolist()
    rows = zip(table.label.tolist(), table.plane.tolist(), bounds, strict=True)
    return [blake2s(repr(row).encode("utf-8", "surrogatepass"), digest_size=4).hexdigest() for row in rows]


def _known_image(images: Mapping[str, ImageRecord], name: str) -> ImageRecord:
    if name not in images:
        remedy = f"{did_you_mean(name, images)}Images: {', '.join([*images][:20])}"
        raise RequestError(f"image {excerpt(name)!r}", "must be one of the run", remedy=remedy)
    return images[name]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
