"""How far a run is, read from its folder alone: while it works, after it has ended, and after it was killed."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from ...readers.files import open_regular
from ...readers.locks import is_locked, lock_holder
from ...readers.pseudonyms import KEY_FILE
from ..cli.terminal import plural, table
from ..progress import EventHandler, Message, RegionDone, Started
from .dicom_objects import OBJECTS
from .manifest import load_manifest
from .parts import PARTS
from .plan import ImagePlan
from .processes import held_bytes
from .receipts import SENT
from .run_files import MANIFEST, OVERVIEWS, RESULTS, SOURCES, as_store_errors
from .run_folder import MAX_LINE_BYTES, Entry, no_run, other_contents, parse_entry

State = Literal["planning", "loading", "annotating", "reporting", "ended", "stopped"]

NOT_WATCHED: Final = "No longer watched. The run is not touched by that."

_WORDS: Final[dict[State, str]] = {
    "planning": "no region is begun: the inputs are being scanned and planned, or that was stopped",
    "loading": "the model is being loaded",
    "annotating": "regions are being annotated",
    "reporting": "all regions are done, and the reports are being written",
    "ended": "ended",
    "stopped": "stopped or killed before it ended; the same command resumes it",
}
_OWN: Final = {MANIFEST, RESULTS, SOURCES, KEY_FILE, OBJECTS, SENT, PARTS, OVERVIEWS}
_BLOCK: Final = 2**20
_SHOWN: Final = 5  # failures of a run that are shown when it is first looked at


@dataclass(frozen=True, slots=True)
class Watched:
    """How far a run is."""

    folder: Path
    state: State
    images: int = 0
    total: int = 0
    """Regions of all images."""
    done: int = 0
    """Regions with a result, failures and those skipped included."""
    failed: tuple[str, ...] = ()
    """The regions whose last result is a failure."""
    findings: int = 0
    """Before those that a border of regions cut are joined."""
    reports: tuple[str, ...] = ()
    """Names of the files that were written after the last result."""
    sure: bool = True
    """Whether the file system tells that the run works or has ended; else the state is what its files suggest."""

    @property
    def exit_code(self) -> int:
        """0 while it works and where it ended without failures, else 1."""
        return int(self.state == "stopped" or (self.state == "ended" and bool(self.failed)))

    def __repr__(self) -> str:
        """The state, and the counts."""
        state = _WORDS[self.state]
        if self.state == "ended":
            again = f": {plural(len(self.failed), 'region')} failed, which the same command tries again"
            state += again if self.failed else ", complete"
        state += "" if self.sure else " (by its files: this file system has no locks, which would tell)"
        rows = [("run", str(self.folder)), ("state", state)]
        if self.total:
            left = f", {len(self.failed)} of them failed" if self.failed else ""
            rows += [("images", str(self.images)), ("regions", f"{self.done} of {self.total} done{left}")]
            rows += [("findings", f"{self.findings}, before those cut by a border are joined")]
        if self.reports:
            rows.append(("reports", plural(len(self.reports), "file")))
        return table(rows)


class Watcher:
    """Reads how far a run is, again and again, and only the results that are new. Writes nothing.

    Raises `RequestError` where there is neither a run folder nor, with `wait`, a place where a run can make one.
    """

    def __init__(self, folder: Path, *, wait: bool = False) -> None:
        self._folder = folder
        begun = folder.is_dir() and any(folder.iterdir())
        if other_contents(folder) or not (begun or (wait and folder.absolute().parent.is_dir())):
            raise no_run(folder)
        self._manifest: dict[str, Any] = {}
        self._images = self._total = self._position = self._lines = self._findings = 0
        self._regions: dict[str, int] = {}  # → findings
        self._failed: dict[str, str] = {}

    def held_bytes(self) -> float:
        """Bytes of memory that the processes of the run hold; 0 where that is not known, as from another machine."""
        process = lock_holder(self._folder / RESULTS)
        return 0.0 if process is None else held_bytes(process)

    def read(self) -> Watched:
        """How far the run is now. Raises `StoreError` where a file is damaged."""
        return self._read(lambda _: None)

    def follow(self, on_event: EventHandler, *, every: float) -> Watched:
        """Tell events until the run ends, reading it `every` so many seconds. Raises `StoreError`."""
        started = False
        shown: State | None = None

        def on_entry(entry: Entry) -> None:
            if started:
                on_event(RegionDone(entry.region, entry.status, entry.findings, entry.error))

        while True:
            now = self._read(on_entry)
            if now.total and not started:
                on_event(Started(now.images, now.total, now.done, str(self._folder), now.failed))
                for region in now.failed[:_SHOWN]:
                    on_event(Message(f"{region} failed. {self._failed[region]}"))
                started = True
            if now.state in {"ended", "stopped"}:
                return now
            if now.state not in {shown, "annotating"}:
                words = _WORDS[now.state] if self._folder.exists() else f"waiting for a run to make {self._folder}"
                on_event(Message(f"{words[0].upper()}{words[1:]}"))
            shown = now.state
            time.sleep(every)

    def _read(self, on_entry: Callable[[Entry], None]) -> Watched:
        results = self._folder / RESULTS
        if not results.exists():
            if other_contents(self._folder):
                raise no_run(self._folder)
            return Watched(self._folder, "planning")
        with as_store_errors(self._folder):
            file = open_regular(results)
        with file:
            working = is_locked(file)  # first: what is then read is all that an ended run has written
            self._read_manifest()
            self._read_results(file, on_entry)
        if not self._manifest:
            return Watched(self._folder, "planning" if working is False else "loading", sure=working is not None)
        counts = (self._images, self._total, len(self._regions), tuple(self._failed), self._findings)
        reports, unfinished = self._reports(results)
        state: State = "annotating" if len(self._regions) < self._total else "reporting"
        if working is not True and state == "reporting" and reports and not unfinished:
            state = "ended"
        elif working is False:
            state = "stopped"
        return Watched(self._folder, state, *counts, reports=reports, sure=working is not None)

    def _read_manifest(self) -> None:
        if self._manifest or not (self._folder / MANIFEST).exists():
            return
        self._manifest = load_manifest(self._folder)
        images = [ImagePlan.from_json(image) for image in self._manifest["images"]]
        self._images, self._total = len(images), sum(len(image.regions) for image in images)

    def _read_results(self, file: BinaryIO, on_entry: Callable[[Entry], None]) -> None:
        """Read the lines that are new and complete."""
        with as_store_errors(self._folder):
            file.seek(self._position)
            rest = b""
            while block := file.read(_BLOCK):
                *lines, rest = (rest + block).split(b"\n")
                for line in lines:
                    self._lines += 1
                    self._position += len(line) + 1
                    entry = parse_entry(line + b"\n", f"{self._folder / RESULTS}, line {self._lines}")
                    self._findings += entry.findings - self._regions.get(entry.region, 0)
                    self._regions[entry.region] = entry.findings
                    self._failed.pop(entry.region, None)
                    if entry.status == "failed":
                        self._failed[entry.region] = entry.error
                    on_entry(entry)
                if len(rest) > MAX_LINE_BYTES:
                    parse_entry(rest, f"{self._folder / RESULTS}, line {self._lines + 1}")

    def _reports(self, results: Path) -> tuple[tuple[str, ...], bool]:
        """The files that were written after the last result, and whether one of them is not complete."""
        with as_store_errors(self._folder):
            last = results.stat().st_mtime_ns
            new = [one for one in os.scandir(self._folder) if one.name not in _OWN and one.stat().st_mtime_ns >= last]
        unfinished = any(one.name.startswith(".part-") for one in new)
        return tuple(sorted(one.name for one in new if not one.name.startswith("."))), unfinished
