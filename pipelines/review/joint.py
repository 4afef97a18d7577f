"""Reviews of one run joined: decisions that agree, conflicts, and how well reviewers agree.

Nothing is lost: a merged file holds every event of every reviewer, and decisions are joined anew when it is read.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Final

import shapely

from ...readers.errors import RequestError, did_you_mean
from ...readers.files import write_atomic
from ...reports.table import Column, Rows, write_csv
from ...reports.writer import Record
from ..run.run_files import StoreError, as_store_errors
from .actions import Action, is_outline, polygon, split_key
from .decisions import Decision, Decisions, Event
from .log import SUFFIX, Header, ReviewFile, event_line, header_line, read_review_file
from .review import check_run, folded, reviews_folder

SAME_PLACE: Final = 0.5
"""Intersection over union from which on two reviewers have drawn one thing twice."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A finding of which reviewers decide differently, or an outline that two have drawn."""

    key: str
    """The finding; of outlines drawn twice the ids of both, with a space between."""
    label: str
    """The model's; "" for outlines."""
    decisions: Mapping[str, Decision]
    """By reviewer."""
    resolved: str = ""
    """The reviewer whose decision holds; "" where none does."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two reviewers agree, over the findings of the run that both have judged."""

    reviewers: tuple[str, str]
    judged: int
    agreed: int
    kappa: float
    """Cohen's kappa (1960) over the label of each finding, or that it is rejected; NaN where it is not defined."""

    @property
    def share(self) -> float:
        """The share that is agreed; NaN of none."""
        return self.agreed / self.judged if self.judged else math.nan


@dataclass(frozen=True, slots=True)
class JointReview:
    """Reviews of one run, joined."""

    run: str
    reviewers: tuple[str, ...]
    prefer: tuple[str, ...]
    events: Mapping[str, Sequence[Event]]
    """All, by reviewer."""
    decisions: Mapping[str, Decision]
    """Those that agree, that only one has taken, and that are resolved; comments without a decision too."""
    conflicts: tuple[Conflict, ...]
    agreements: tuple[Agreement, ...]
    """Of each two reviewers."""
    findings: Mapping[str, tuple[str, str]]
    """The model's label and the check of each finding of the run that an event names."""
    notices: tuple[str, ...] = ()
    """Sentences on the files that a reader must know."""

    @property
    def unresolved(self) -> Mapping[str, Conflict]:
        """The conflicts of findings in which no decision holds."""
        return {one.key: one for one in self.conflicts if one.key in self.findings and not one.resolved}


def find_reviews(run: Path, named: Sequence[str] = (), folder: Path | None = None) -> list[Path]:
    """The files of a run's reviews: each named as a file or by its reviewer, else all in its folder, sorted.

    Raises `RequestError` where there is none.
    """
    place = reviews_folder(run) if folder is None else folder
    known = sorted(place.glob(f"*{SUFFIX}"))
    if not named:
        if not known:
            remedy = "Review the run with `limner view`, or name a file with --review"
            raise RequestError(str(run), f"must have reviews in {place}", value="none", remedy=remedy)
        return known
    found: list[Path] = []
    for name in named:
        file = Path(name) if name.endswith(SUFFIX) else place / f"{name}{SUFFIX}"
        if not file.is_file():
            names = [one.stem for one in known]
            remedy = f"{did_you_mean(name, names)}Reviewers: {', '.join(names)}"
            raise RequestError(f"review {name}", "must be a file, or a reviewer of the run", remedy=remedy)
        found.append(file)
    return found


def read_joint(paths: Sequence[Path], *, prefer: Sequence[str] = (), record: Record | None = None) -> JointReview:
    """Read reviews and join them; `prefer` names reviewers whose decision holds in conflicts, the first one first.

    A merged file brings its own preference, where none is given. Raises `RequestError` for reviews of different runs,
    or of another than `record`, and for an unknown reviewer; `StoreError` for damaged ones.
    """
    files = [file for path in paths if (file := read_review_file(path)).header is not None]
    if not files:
        names = ", ".join(map(str, paths))
        raise RequestError(names, "must hold reviews", value="no complete line", remedy="Review the run first")
    headers = [file.header for file in files if file.header is not None]
    for file, header in zip(files, headers, strict=True):
        if record is not None:
            check_run(file.path, header, record)
        if header.run != headers[0].run:
            value = f"another one than {files[0].path}"
            raise RequestError(str(file.path), "must be of the same run", value=value, remedy="Leave it out")
    chosen = tuple(prefer) or next((one.prefer for one in headers if one.prefer), ())
    events = _by_reviewer(files)
    for name in chosen:
        if name not in events:
            remedy = f"{did_you_mean(name, events)}Reviewers: {', '.join(events)}"
            raise RequestError(f"--prefer {name}", "must name a reviewer", remedy=remedy)
    notices = tuple(file.notice for file in files if file.incomplete)
    return replace(join(headers[0].run, events, chosen, files[0].path), notices=notices)


def join(
    run: str, events: Mapping[str, Sequence[Event]], prefer: tuple[str, ...] = (), source: Path = Path()
) -> JointReview:
    """Join the events of reviewers. Raises `StoreError`, which names `source`, where they do not follow each other."""
    each = {name: folded(source, several) for name, several in events.items()}
    findings = _findings(events, source)
    decisions: dict[str, Decision] = {}
    conflicts: list[Conflict] = []
    for key in dict.fromkeys(key for one in each.values() for key, _ in one.items()):
        known = {name: found for name, one in each.items() if (found := one.get(key)) is not None}
        taken = {name: found for name, found in known.items() if found.outcome}
        answers = {(found.outcome, found.label) for found in taken.values()}
        resolved = next((name for name in prefer if name in taken), "") if len(answers) > 1 else ""
        if len(answers) > 1:
            conflicts.append(Conflict(key, findings[key][0], taken, resolved))
            taken = {resolved: taken[resolved]} if resolved else {}
        made = _joined(taken or known, known)
        if not taken:
            made = replace(made, outcome=None)
        if made.outcome or made.comment:
            decisions[key] = made
    twice = list(_outlined_twice(decisions, prefer))
    for conflict in twice:
        if conflict.resolved:
            for name, key in zip(conflict.decisions, conflict.key.split(" "), strict=True):
                if name != conflict.resolved:
                    del decisions[key]
    agreements = tuple(_agreement(a, b, each, findings) for a, b in combinations(sorted(each), 2))
    ordered = sorted(conflicts, key=lambda one: split_key(one.key))
    return JointReview(run, tuple(each), prefer, events, decisions, (*ordered, *twice), agreements, findings)


def write_merged(joint: JointReview, path: Path, *, private: bool) -> Path:
    """Write all events of a joint review as one file. Raises `StoreError`."""
    header = Header(joint.run, joint.reviewers, merged=True, prefer=joint.prefer)
    lines = [header_line(header), *(event_line(event) for several in joint.events.values() for event in several)]
    with as_store_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, b"".join(lines), private=private)
    return path


def conflict_columns(reviewers: Sequence[str]) -> list[Column[Rows[Conflict]]]:
    """The columns of a table of conflicts."""

    def of_reviewer(name: str, part: str) -> Column[Rows[Conflict]]:
        def values(batch: Rows[Conflict]) -> object:
            return [getattr(row.decisions.get(name), part, None) for row in batch.rows]

        what = {"outcome": "what this reviewer decided", "label": "its label by that", "at": "when (UTC)"}
        return Column(f"{part}.{name}", "string", what[part], values)

    return [
        Column("image", "string", "the image's id", lambda b: [_place(row)[0] for row in b.rows]),
        Column("finding", "string", "its number, or the ids of outlines", lambda b: [_place(row)[1] for row in b.rows]),
        Column("label", "string", "the model's label", lambda b: [row.label or None for row in b.rows]),
        *(of_reviewer(name, part) for name in reviewers for part in ("outcome", "label", "at")),
        Column("holds", "string", "whose decision holds", lambda b: [row.resolved or None for row in b.rows]),
    ]


def write_conflicts(joint: JointReview, path: Path) -> Path:
    """Write the conflicts as CSV. Raises `StoreError`."""
    with as_store_errors(path):
        return write_csv(path, conflict_columns(joint.reviewers), [Rows(joint.conflicts)])


def is_private(paths: Sequence[Path]) -> bool:
    """Whether only its owner can read one of these files."""
    return os.name == "posix" and any(not path.stat().st_mode & 0o077 for path in paths)


def _place(conflict: Conflict) -> tuple[str, str]:
    image, number = split_key(conflict.key)
    if number:
        return image, str(number)
    return next(iter(conflict.decisions.values())).image, conflict.key


def _by_reviewer(files: Sequence[ReviewFile]) -> dict[str, tuple[Event, ...]]:
    """The events of each reviewer, sorted by name; of logs of one reviewer, of which one goes on, the longest."""
    found: dict[str, tuple[Event, ...]] = {}
    for file in files:
        for name in file.header.reviewers if file.header else ():
            own = tuple(event for event in file.events if event.by == name)
            short, long = sorted((found.get(name, ()), own), key=len)
            if long[: len(short)] != short:
                rule = f"must go on where the other review of {name} ends, or be the same"
                remedy = "Leave one of them out, or let them review under different names"
                raise RequestError(str(file.path), rule, remedy=remedy)
            found[name] = long
    return dict(sorted(found.items()))


def _findings(events: Mapping[str, Sequence[Event]], source: Path) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for event in (event for several in events.values() for event in several):
        keys = event.action.findings if isinstance(event.action, Action) else ()
        for key, label, check in zip(keys, event.labels, event.checks, strict=True):
            if not is_outline(key) and found.setdefault(key, (label, check)) != (label, check):
                rule, remedy = "must be reviews of the same findings", "Review the run as it is now"
                raise StoreError(str(source), rule, value=f"{key} differs", remedy=remedy)
    return found


def _joined(taken: Mapping[str, Decision], known: Mapping[str, Decision]) -> Decision:
    """A decision on which reviewers agree, with all comments."""
    last = max(taken.values(), key=lambda one: one.at)
    comments = {name: one.comment for name, one in known.items() if one.comment}
    several = len(known) > 1
    comment = "; ".join(f"{name}: {text}" if several else text for name, text in comments.items())
    return replace(last, by=", ".join(taken), comment=comment)


def _outlined_twice(decisions: Mapping[str, Decision], prefer: Sequence[str]) -> Iterator[Conflict]:
    """Outlines of different reviewers in one place."""
    outlines = [(key, one) for key, one in decisions.items() if one.outcome == "drawn"]
    if len(outlines) < 2:
        return
    shapes = [polygon(one.rings) for _, one in outlines]
    pairs: list[list[int]] = shapely.STRtree(shapes).query(shapes, predicate="intersects").T.tolist()
    for a, b in sorted(pair for pair in pairs if pair[0] < pair[1]):
        (key, one), (other_key, other) = outlines[a], outlines[b]
        if one.by == other.by or (one.image, one.plane) != (other.image, other.plane):
            continue
        if shapes[a].intersection(shapes[b]).area >= SAME_PLACE * shapes[a].union(shapes[b]).area:
            both = {one.by: one, other.by: other}
            resolved = next((name for name in prefer if name in both), "")
            yield Conflict(f"{key} {other_key}", "", both, resolved)


def _agreement(
    first: str, second: str, each: Mapping[str, Decisions], findings: Mapping[str, tuple[str, str]]
) -> Agreement:
    pairs: Counter[tuple[str, str]] = Counter()
    for key in findings:
        a, b = each[first].get(key), each[second].get(key)
        if a is not None and b is not None and a.outcome and b.outcome:
            pairs[_category(a), _category(b)] += 1
    judged = sum(pairs.values())
    agreed = sum(count for (a, b), count in pairs.items() if a == b)
    one, other = Counter[str](), Counter[str]()
    for (a, b), count in pairs.items():
        one[a] += count
        other[b] += count
    chance = sum(one[name] * other[name] for name in one) / judged**2 if judged else 1.0
    kappa = (agreed / judged - chance) / (1 - chance) if chance < 1 else math.nan
    return Agreement((first, second), judged, agreed, kappa)


def _category(decision: Decision) -> str:
    """What a finding is by a decision: a label, or "" where it is rejected."""
    return "" if decision.outcome == "rejected" else decision.label
