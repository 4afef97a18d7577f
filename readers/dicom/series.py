"""Files into stacks: studies, series, and within a series the slices that are one geometry, in order.

The order of the files does not matter: everything is sorted by what the files say before it is looked at.
"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

import numpy as np

from .geometry import Direction, normal, spacing
from .metadata import SPLITS, FileMetadata, FrameMetadata
from .sop_classes import is_stackable

_TURN: Final = 1e-3  # direction cosines that differ by less are one direction
_SIZE: Final = 1e-3  # mm: spacings that differ by less are one
_PLACE: Final = 0.01  # mm: slices nearer than this are at one place
_TILT: Final = 1.0  # degrees: less arises from rounded numbers


@dataclass(frozen=True, slots=True)
class File:
    """One image file: where it lies, its facts, and the UIDs that it goes by, stated or made from its content."""

    source: str
    facts: FileMetadata
    sop: str = ""
    study: str = ""
    series: str = ""
    made: bool = False


@dataclass(frozen=True, slots=True)
class Slice:
    """One frame of a file; `frame` counts from 1, as DICOM does."""

    file: File
    frame: int

    @property
    def facts(self) -> FileMetadata:
        """Its file's facts."""
        return self.file.facts

    @property
    def own(self) -> FrameMetadata:
        """Its own facts."""
        return self.file.facts.frames[self.frame - 1]

    @property
    def order(self) -> tuple[bool, int, str, int]:
        """The order in which slices were made, as far as the files tell: instance number, then UID and frame."""
        instance = self.facts.instance
        return instance is None, instance or 0, self.file.sop, self.frame


@dataclass(frozen=True, slots=True)
class Stack:
    """Slices of one geometry, in order. `steps` are mm between neighbours; `tilt` degrees between stack and normal."""

    slices: tuple[Slice, ...]
    sort_basis: str
    split_by: str = ""
    steps: tuple[float, ...] = ()
    tilt: float | None = None
    missing: int = 0
    irregular: bool = False

    @property
    def first(self) -> Slice:
        """The first slice."""
        return self.slices[0]

    @property
    def step(self) -> float | None:
        """The median step in mm."""
        return float(np.median(self.steps)) if self.steps else None

    def notes(self) -> list[str]:
        """What a person should read before trusting the order and the distances."""
        found: list[str] = []
        if self.missing:
            found.append(f"{self.missing} slices are missing between the first and the last")
        if self.irregular:
            found.append(f"slices lie unevenly: {min(self.steps):.4g} to {max(self.steps):.4g} mm apart")
        if self.tilt is not None and self.tilt > _TILT:
            found.append(f"the stack is sheared by {self.tilt:.2f}°, as a tilted gantry does")
        if self.split_by:
            found.append(f"slices share places with other stacks of the series; told apart by {self.split_by}")
        if len(self.slices) > 1 and self.sort_basis not in {"position along the normal", "frame number"}:
            found.append(f"slices have no position: ordered by {self.sort_basis}")
        return found


@dataclass
class Series:
    """What became of the image files of an input: stacks in a fixed order, and files that were left out, with why."""

    stacks: list[Stack] = field(default_factory=list["Stack"])
    duplicates: dict[str, str] = field(default_factory=dict[str, str])
    conflicts: dict[str, str] = field(default_factory=dict[str, str])


def build(files: Iterable[File], digest: Callable[[str], str]) -> Series:
    """Group and sort. `digest` gives the sha256 of a source's bytes, asked only where UIDs are missing or repeated."""
    found = Series()
    kept = _without_repeats(_named(sorted(files, key=lambda f: f.source), digest), digest, found)
    groups: defaultdict[tuple[object, ...], list[Slice]] = defaultdict(list)
    for file in kept:
        for frame in range(1, len(file.facts.frames) + 1):
            one = Slice(file, frame)
            groups[(*_signature(file), *_positionless(one))].append(one)
    for _, slices in sorted(groups.items(), key=lambda item: repr(item[0])):
        for alike in _alike(sorted(slices, key=lambda s: s.order)):
            found.stacks.extend(_stacks(alike))
    found.stacks.sort(key=lambda stack: (stack.first.file.study, stack.first.file.series, *stack.first.order))
    return found


def folder(source: str) -> str:
    """The folder that a source lies in, as text."""
    return source.replace("\\", "/").rpartition("/")[0]


def _named(files: Sequence[File], digest: Callable[[str], str]) -> list[File]:
    """Every file with three UIDs. Missing ones are made from content; only what shares a folder can share a study."""
    named = [replace(f, sop=f.facts.sop or f"content:{digest(f.source)}", made=not f.facts.sop) for f in files]
    studies = _made(named, "study", lambda f: f.facts.study, lambda f: (folder(f.source), f.facts.identity))
    named = [replace(f, study=uid, made=f.made or not f.facts.study) for f, uid in zip(named, studies, strict=True)]
    kind: Callable[[File], tuple[str, ...]] = lambda f: (  # noqa: E731 - used once, on the next line
        f.study,
        folder(f.source),
        f.facts.frame_of_reference,
        f.facts.modality,
    )
    series = _made(named, "series", lambda f: f.facts.series, kind)
    return [replace(f, series=uid, made=f.made or not f.facts.series) for f, uid in zip(named, series, strict=True)]


def _made(
    files: Sequence[File], level: str, stated: Callable[[File], str], alike: Callable[[File], tuple[str, ...]]
) -> list[str]:
    """The stated UIDs, or for files without one a name made from the content of those that are alike."""
    members: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for file in files:
        if not stated(file):
            members[alike(file)].append(file.sop)
    names = {
        key: f"{level}:{hashlib.sha256(chr(10).join(sorted(sops)).encode()).hexdigest()}"
        for key, sops in members.items()
    }
    return [stated(file) or names[alike(file)] for file in files]


def _without_repeats(files: Sequence[File], digest: Callable[[str], str], found: Series) -> list[File]:
    """One file for each SOP Instance UID; the others go to `found`'s duplicates or, with other bytes, conflicts."""
    by_sop: defaultdict[str, list[File]] = defaultdict(list)
    for file in files:
        by_sop[file.sop].append(file)
    kept: list[File] = []
    for same in by_sop.values():
        if len(same) == 1:
            kept.append(same[0])
            continue
        ranked = sorted((digest(file.source), file.source, file) for file in same)
        kept.append(ranked[0][2])
        for sha, source, _ in ranked[1:]:
            if sha == ranked[0][0]:
                found.duplicates[source] = ranked[0][1]
            else:
                found.conflicts[source] = ranked[0][1]
    return sorted(kept, key=lambda f: (f.study, f.series, f.sop))


def _signature(file: File) -> tuple[object, ...]:
    """What is the same for all slices of a stack, exactly."""
    f = file.facts
    colour = f.samples > 1 or f.photometric == "PALETTE COLOR"
    tone = "colour" if colour else f.photometric
    return file.study, file.series, f.sop_class, f.modality, f.rows, f.columns, tone, f.quantity, f.frame_of_reference


def _positionless(one: Slice) -> tuple[object, ...]:
    """What further separates slices that have no position: a clip is a stack, a lone picture its own image."""
    if one.own.position is not None and one.own.orientation is not None and normal(one.own.orientation) is not None:
        return ("placed",)
    if len(one.facts.frames) > 1:
        return "clip", one.file.sop
    return ("slices",) if is_stackable(one.facts) else ("lone", one.file.sop)


def _alike(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Slices parted by direction and pixel size, within tolerances."""
    parts: list[list[Slice]] = []
    for one in slices:
        for part in parts:
            if _same_grid(part[0], one):
                part.append(one)
                break
        else:
            parts.append([one])
    return parts


def _same_grid(a: Slice, b: Slice) -> bool:
    for mine, theirs, tolerance in (
        (a.own.orientation, b.own.orientation, _TURN),
        (spacing(a.facts, a.own)[1], spacing(b.facts, b.own)[1], _SIZE),
    ):
        if (mine is None) != (theirs is None):
            return False
        if mine is not None and float(np.abs(np.subtract(mine, theirs)).max()) > tolerance:  # type: ignore[arg-type] - both are not None
            return False
    return True


def _stacks(slices: list[Slice]) -> list[Stack]:
    first = slices[0]
    direction = None if first.own.orientation is None else normal(first.own.orientation)
    if first.own.position is None or direction is None:
        basis = "frame number" if len(first.facts.frames) > 1 else "instance number"
        if basis == "instance number" and any(one.facts.instance is None for one in slices):
            basis = "instance number, then UID"
        return [Stack(tuple(slices), basis)]
    along = {one: float(direction @ np.asarray(one.own.position)) for one in slices}
    return [_measured(part, along, direction, why) for why, part in _parted(slices, along)]


def _measured(slices: Sequence[Slice], along: Mapping[Slice, float], direction: Direction, why: str) -> Stack:
    ordered = tuple(sorted(slices, key=lambda one: (along[one], one.order)))
    steps = tuple(along[b] - along[a] for a, b in pairwise(ordered))
    missing, irregular, tilt = 0, False, None
    if steps:
        step = float(np.median(steps))
        for distance in steps:
            off = abs(distance - step)
            if off > max(0.01 * step, _PLACE):
                whole = round(distance / step) if step > 0 else 0
                if whole > 1 and abs(distance - whole * step) <= max(0.01 * distance, _PLACE):
                    missing += whole - 1
                else:
                    irregular = True
        way = np.asarray(ordered[-1].own.position, dtype=np.float64) - np.asarray(ordered[0].own.position)
        tilt = math.degrees(math.atan2(float(np.linalg.norm(np.cross(direction, way))), float(direction @ way)))
    return Stack(ordered, "position along the normal", why, steps, tilt, missing, irregular)


def _parted(slices: Sequence[Slice], along: Mapping[Slice, float], start: int = 0) -> list[tuple[str, Sequence[Slice]]]:
    """Slices parted until no two of a part are at one place: by the first of `SPLITS` that tells them apart.

    An attribute that every slice has its own value of (a time, say) tells nothing apart. Where none does, the order in
    which slices were made counts.
    """
    places = _places(slices, along)
    most = max(Counter(places.values()).values())
    if most == 1:
        return [("", slices)]
    for at in range(start, len(SPLITS)):
        parts: dict[str, list[Slice]] = {}
        for one in slices:
            parts.setdefault(one.own.splits[at] if one.own.splits else "", []).append(one)
        if not 1 < len(parts) <= most:
            continue
        if all(max(Counter(places[one] for one in part).values()) < most for part in parts.values()):
            found: list[tuple[str, Sequence[Slice]]] = []
            for part in parts.values():
                for why, rest in _parted(part, along, at + 1):
                    found.append((f"{SPLITS[at]}, {why}" if why else SPLITS[at], rest))
            return found
    turns: defaultdict[int, list[Slice]] = defaultdict(list)
    seen: Counter[int] = Counter()
    for one in sorted(slices, key=lambda s: s.order):
        turns[seen[places[one]]].append(one)
        seen[places[one]] += 1
    return [("instance number", part) for _, part in sorted(turns.items())]


def _places(slices: Sequence[Slice], along: Mapping[Slice, float]) -> dict[Slice, int]:
    """A number for each slice's place along the normal."""
    found: dict[Slice, int] = {}
    number, last = -1, -math.inf
    for one in sorted(slices, key=lambda s: along[s]):
        if along[one] - last > _PLACE:
            number += 1
            last = along[one]
        found[one] = number
    return found
