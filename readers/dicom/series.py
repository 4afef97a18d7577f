"""Grouping of files into studies, series and stacks: the slices of a series with one geometry, in order.

Everything is sorted by the files' metadata first, so that the order of the files does not matter.
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
from .metadata import SPLIT_ATTRIBUTES, FileMetadata, FrameMetadata
from .sop_classes import is_stackable

_SAME_DIRECTION: Final = 1e-3  # difference of direction cosines
_SAME_SPACING: Final = 1e-3  # mm
_SAME_POSITION: Final = 0.01  # mm
_TILT: Final = 1.0  # degrees: less arises from rounded numbers


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image file with its UIDs, stated or synthesised."""

    source: str
    metadata: FileMetadata
    sop: str = ""
    study: str = ""
    series: str = ""
    synthesised: bool = False
    """Whether a UID was missing and made from content."""

    @property
    def is_colour(self) -> bool:
        """Whether its pixels are RGB."""
        return self.metadata.samples > 1 or self.metadata.photometric == "PALETTE COLOR"


@dataclass(frozen=True, slots=True)
class Slice:
    """One frame of a file."""

    file: ImageFile
    frame: int
    """From 1, as in DICOM."""

    @property
    def metadata(self) -> FileMetadata:
        """The metadata of its file."""
        return self.file.metadata

    @property
    def own(self) -> FrameMetadata:
        """The metadata of its frame."""
        return self.file.metadata.frames[self.frame - 1]

    @property
    def normal(self) -> Direction | None:
        """The unit normal of its plane; None without a position or orientation."""
        return None if self.own.position is None else normal(self.own.orientation)

    @property
    def order(self) -> tuple[bool, int, str, int]:
        """The sort key without positions: instance number, then UID and frame."""
        instance = self.metadata.instance
        return instance is None, instance or 0, self.file.sop, self.frame


@dataclass(frozen=True, slots=True)
class Stack:
    """Slices of one geometry, in order."""

    slices: tuple[Slice, ...]
    sort_basis: str
    split_by: str = ""
    """The attributes by which slices at the same positions were split into stacks."""
    steps: tuple[float, ...] = ()
    """mm between neighbouring slices."""
    tilt: float | None = None
    """Degrees between the stack's direction and the slices' normal."""
    missing: int = 0
    """Slices missing at the stack's own step."""
    irregular: bool = False

    @property
    def first(self) -> Slice:
        """The first slice."""
        return self.slices[0]

    def notes(self) -> list[str]:
        """Notes on order and distances for the user."""
        found: list[str] = []
        if self.missing:
            found.append(f"{self.missing} slices are missing between the first and the last")
        if self.irregular:
            found.append(f"slices are unevenly spaced: {min(self.steps):.4g} to {max(self.steps):.4g} mm apart")
        if self.tilt is not None and self.tilt > _TILT:
            found.append(f"the stack is sheared by {self.tilt:.2f}°, as by a tilted gantry")
        if self.split_by:
            found.append(f"slices share positions with other stacks of the series, split by {self.split_by}")
        if len(self.slices) > 1 and self.sort_basis not in {"position along the normal", "frame number"}:
            found.append(f"slices have no position: ordered by {self.sort_basis}")
        return found


@dataclass
class GroupedFiles:
    """The stacks of an input in a fixed order, and the files that were left out."""

    stacks: list[Stack] = field(default_factory=list["Stack"])
    duplicates: dict[str, str] = field(default_factory=dict[str, str])
    """Source → the identical file that was kept."""
    conflicts: dict[str, str] = field(default_factory=dict[str, str])
    """Source → the file with the same SOP Instance UID and other bytes that was kept."""


def group_into_stacks(files: Iterable[ImageFile], digest: Callable[[str], str]) -> GroupedFiles:
    """Group and sort files.

    `digest` computes the sha256 of a source, and is called only where UIDs are missing or repeated.
    """
    found = GroupedFiles()
    kept = _without_repeats(_with_uids(sorted(files, key=lambda f: f.source), digest), digest, found)
    groups: defaultdict[tuple[object, ...], list[Slice]] = defaultdict(list)
    for file in kept:
        for frame in range(1, len(file.metadata.frames) + 1):
            one = Slice(file, frame)
            groups[(*_signature(file), *_placement_key(one))].append(one)
    for _, slices in sorted(groups.items(), key=lambda item: repr(item[0])):
        for same_grid in _split_by_grid(sorted(slices, key=lambda s: s.order)):
            found.stacks.extend(_stacks(same_grid))
    found.stacks.sort(key=lambda stack: (stack.first.file.study, stack.first.file.series, *stack.first.order))
    return found


def _folder(source: str) -> str:
    return source.replace("\\", "/").rpartition("/")[0]


def _with_uids(files: Sequence[ImageFile], digest: Callable[[str], str]) -> list[ImageFile]:
    """Files with three UIDs each. Missing ones are made from content; files of different folders share no study."""

    def study_key(file: ImageFile) -> tuple[str, ...]:
        return _folder(file.source), file.metadata.identity

    def series_key(file: ImageFile) -> tuple[str, ...]:
        return file.study, _folder(file.source), file.metadata.frame_of_reference, file.metadata.modality

    found = [
        replace(f, sop=f.metadata.sop or f"content:{digest(f.source)}", synthesised=not f.metadata.sop) for f in files
    ]
    studies = _uids(found, "study", [f.metadata.study for f in found], study_key)
    found = [replace(f, study=uid) for f, uid in zip(found, studies, strict=True)]
    series = _uids(found, "series", [f.metadata.series for f in found], series_key)
    return [
        replace(f, series=uid, synthesised=not (f.metadata.sop and f.metadata.study and f.metadata.series))
        for f, uid in zip(found, series, strict=True)
    ]


def _uids(
    files: Sequence[ImageFile], level: str, stated: Sequence[str], key: Callable[[ImageFile], tuple[str, ...]]
) -> list[str]:
    """The stated UIDs; for files without one a name made from the content of the files with the same key."""
    members: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for file, uid in zip(files, stated, strict=True):
        if not uid:
            members[key(file)].append(file.sop)
    made = {k: f"{level}:{hashlib.sha256(chr(10).join(sorted(v)).encode()).hexdigest()}" for k, v in members.items()}
    return [uid or made[key(file)] for file, uid in zip(files, stated, strict=True)]


def _without_repeats(files: Sequence[ImageFile], digest: Callable[[str], str], found: GroupedFiles) -> list[ImageFile]:
    """One file per SOP Instance UID; the others become `found`'s duplicates or, with other bytes, conflicts."""
    by_sop: defaultdict[str, list[ImageFile]] = defaultdict(list)
    for file in files:
        by_sop[file.sop].append(file)
    kept: list[ImageFile] = []
    for same in by_sop.values():
        ranked = sorted((digest(file.source) if len(same) > 1 else "", file.source, file) for file in same)
        kept.append(ranked[0][2])
        for sha, source, _ in ranked[1:]:
            (found.duplicates if sha == ranked[0][0] else found.conflicts)[source] = ranked[0][1]
    return sorted(kept, key=lambda f: (f.study, f.series, f.sop))


def _signature(file: ImageFile) -> tuple[object, ...]:
    """What all slices of a stack have in common, exactly."""
    m = file.metadata
    tone = "colour" if file.is_colour else m.photometric
    return file.study, file.series, m.sop_class, m.modality, m.rows, m.columns, tone, m.quantity, m.frame_of_reference


def _placement_key(one: Slice) -> tuple[object, ...]:
    """What separates slices without a position: a clip is a stack, a single picture an image of its own."""
    if one.normal is not None:
        return ("placed",)
    if len(one.metadata.frames) > 1:
        return "clip", one.file.sop
    return ("slices",) if is_stackable(one.metadata) else ("single", one.file.sop)


def _split_by_grid(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Slices split by orientation and pixel size, within tolerances."""
    parts: list[list[Slice]] = []
    for one in slices:
        part = next((part for part in parts if _same_grid(part[0], one)), None)
        if part is None:
            parts.append([one])
        else:
            part.append(one)
    return parts


def _same_grid(a: Slice, b: Slice) -> bool:
    for x, y, tolerance in (
        (a.own.orientation, b.own.orientation, _SAME_DIRECTION),
        (spacing(a.metadata, a.own)[1], spacing(b.metadata, b.own)[1], _SAME_SPACING),
    ):
        if x is None or y is None:
            if x is not y:
                return False
        elif float(np.abs(np.subtract(x, y)).max()) > tolerance:
            return False
    return True


def _stacks(slices: list[Slice]) -> list[Stack]:
    first, direction = slices[0], slices[0].normal
    if direction is None:
        basis = "frame number" if len(first.metadata.frames) > 1 else "instance number"
        if basis == "instance number" and any(one.metadata.instance is None for one in slices):
            basis = "instance number, then UID"
        return [Stack(tuple(slices), basis)]
    along = {one: float(direction @ np.asarray(one.own.position)) for one in slices}
    return [_measured(part, along, direction, why) for why, part in _split_repeats(slices, along)]


def _measured(slices: Sequence[Slice], along: Mapping[Slice, float], direction: Direction, split_by: str) -> Stack:
    """A stack sorted by position along the normal, with its steps, gaps and tilt."""
    ordered = tuple(sorted(slices, key=lambda one: (along[one], one.order)))
    steps = tuple(along[b] - along[a] for a, b in pairwise(ordered))
    missing, irregular, tilt = 0, False, None
    if steps:
        step = float(np.median(steps))
        for distance in steps:
            if abs(distance - step) > max(0.01 * step, _SAME_POSITION):
                count = round(distance / step) if step > 0 else 0
                if count > 1 and abs(distance - count * step) <= max(0.01 * distance, _SAME_POSITION):
                    missing += count - 1
                else:
                    irregular = True
        shift = np.asarray(ordered[-1].own.position, dtype=np.float64) - np.asarray(ordered[0].own.position)
        tilt = math.degrees(math.atan2(float(np.linalg.norm(np.cross(direction, shift))), float(direction @ shift)))
    return Stack(ordered, "position along the normal", split_by, steps, tilt, missing, irregular)


def _split_repeats(
    slices: Sequence[Slice], along: Mapping[Slice, float], start: int = 0
) -> list[tuple[str, Sequence[Slice]]]:
    """(attributes, slices): split until no two of a part are at one position, by the first attribute that does it.

    An attribute with a value of its own for every slice (a time, say) does not count. Where no attribute splits them,
    slices at the same position are split by their order.
    """
    positions = _position_numbers(slices, along)
    most = max(Counter(positions.values()).values())
    if most == 1:
        return [("", slices)]
    for at in range(start, len(SPLIT_ATTRIBUTES)):
        parts: dict[str, list[Slice]] = {}
        for one in slices:
            parts.setdefault(one.own.splits[at] if one.own.splits else "", []).append(one)
        if 1 < len(parts) <= most and all(
            max(Counter(positions[one] for one in part).values()) < most for part in parts.values()
        ):
            name = SPLIT_ATTRIBUTES[at]
            return [
                (f"{name}, {why}" if why else name, rest)
                for part in parts.values()
                for why, rest in _split_repeats(part, along, at + 1)
            ]
    turns: defaultdict[int, list[Slice]] = defaultdict(list)
    count: Counter[int] = Counter()
    for one in sorted(slices, key=lambda s: s.order):
        turns[count[positions[one]]].append(one)
        count[positions[one]] += 1
    return [("instance number", part) for _, part in sorted(turns.items())]


def _position_numbers(slices: Sequence[Slice], along: Mapping[Slice, float]) -> dict[Slice, int]:
    """A number for the position of each slice along the normal."""
    found: dict[Slice, int] = {}
    number, last = -1, -math.inf
    for one in sorted(slices, key=lambda s: along[s]):
        if along[one] - last > _SAME_POSITION:
            number += 1
            last = along[one]
        found[one] = number
    return found
