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

from .geometry import Direction, mean_shift_px, normal, plane_name, spacing
from .metadata import SPLIT_ATTRIBUTES, FileMetadata, FrameMetadata
from .sop_classes import is_stackable

_SAME_ORIENTATION: Final = 0.5  # pixels, by which those of two pictures in one place differ on average
_SAME_ANGLE: Final = 0.5  # degrees: in small pictures, pixels move little
_NOTED_ANGLE: Final = 0.06  # degrees, from which different orientations in a stack are noted: less is rounding
_SAME_SPACING: Final = 1e-3  # mm
_SAME_POSITION: Final = 0.01  # mm
_TILT: Final = 1.0  # degrees: less arises from rounded numbers
_TIMES: Final = ("trigger time", "frame reference time", "acquisition time", "content time")
"""Attributes that may have a value of its own for every slice, and order the slices at each position."""
_CLOCKS: Final = ("acquisition time", "content time")
_NAMES: Final = tuple(SPLIT_ATTRIBUTES)


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


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """One frame of a file, or one slice of a mosaic."""

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
class Split:
    """An attribute by which a series was split."""

    name: str
    value: str = ""
    """Its value in this part, with its unit; "" where it cannot be shown."""


def _splits_text(splits: Sequence[Split]) -> str:
    return ", ".join(f"{one.name} (here: {one.value})" if one.value else one.name for one in splits)


@dataclass(frozen=True, slots=True)
class Stack:
    """Slices of one geometry, in order."""

    slices: tuple[Slice, ...]
    sort_basis: str
    divided_by: tuple["Split", ...] = ()
    """What tells the part of its series with this geometry from the others."""
    split_by: tuple["Split", ...] = ()
    """What tells it from other stacks at the same positions."""
    part: tuple[object, ...] = ()
    """The sort key of the part of its series with this geometry."""
    rank: int = 0
    """Its place among the stacks of that part: in the order of the values that tell them apart."""
    steps: tuple[float, ...] = ()
    """mm between neighbouring slices."""
    tilt: float | None = None
    """Degrees between the stack's direction and the slices' normal."""
    angle: float = 0.0
    """The most degrees between the orientation of a slice and that of the first."""
    missing: int = 0
    """Slices missing at the stack's own step."""
    irregular: bool = False
    starts: Mapping[str, float] = field(default_factory=dict[str, float])
    """The earliest times by the clock in its series, from which those of its slices are told."""

    @property
    def first(self) -> Slice:
        """The first slice."""
        return self.slices[0]

    @property
    def order(self) -> tuple[object, ...]:
        """The sort key among the stacks of an input."""
        return self.first.file.study, self.first.file.series, *self.part, self.rank, *self.first.order

    def values(self, one: Slice) -> tuple[tuple[str, float], ...]:
        """The numbers among a slice's `SPLIT_ATTRIBUTES`; times by the clock are from the earliest of the series."""
        numbers = (
            (name, value) for name, value in zip(_NAMES, one.own.splits, strict=False) if isinstance(value, float)
        )
        return tuple((name, round(value - self.starts.get(name, 0.0), 6)) for name, value in numbers)

    def notes(self) -> list[str]:
        """Notes on order and distances for the user."""
        found: list[str] = []
        if self.missing:
            found.append(f"{self.missing} slices are missing between the first and the last")
        if self.irregular:
            found.append(f"slices are unevenly spaced: {min(self.steps):.4g} to {max(self.steps):.4g} mm apart")
        if self.tilt is not None and self.tilt > _TILT:
            found.append(f"the stack is sheared by {self.tilt:.2f}°, as by a tilted gantry")
        if self.angle > _NOTED_ANGLE:
            found.append(f"orientations of slices differ by up to {self.angle:.2g}°: each is placed by its own")
        if self.divided_by:
            found.append(f"the series was split by {_splits_text(self.divided_by)}")
        if self.split_by:
            found.append(
                f"slices share positions with other stacks of the series, split by {_splits_text(self.split_by)}"
            )
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
    parts: defaultdict[tuple[str, str], list[list[Slice]]] = defaultdict(list)
    for _, slices in sorted(groups.items(), key=lambda item: repr(item[0])):
        for same_grid in _split_by_grid(sorted(slices, key=lambda s: s.order)):
            parts[same_grid[0].file.study, same_grid[0].file.series].append(same_grid)
    for of_series in parts.values():
        starts = _clock_starts(one for part in of_series for one in part)
        firsts = [part[0] for part in of_series if _placement_key(part[0])[0] != "single"]
        for part in of_series:
            divided_by = _divided_by(part[0], firsts) if part[0] in firsts else ()
            found.stacks += [
                replace(stack, divided_by=divided_by, part=part[0].order, rank=rank, starts=starts)
                for rank, stack in enumerate(_stacks(part))
            ]
    found.stacks.sort(key=lambda stack: stack.order)
    return found


def _clock_starts(slices: Iterable[Slice]) -> dict[str, float]:
    """The earliest value of each attribute by the clock."""
    found: dict[str, float] = {}
    for one in slices:
        for name in _CLOCKS:
            if isinstance(time := _split_value(one, _NAMES.index(name)), float):
                found[name] = min(time, found.get(name, math.inf))
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
    return _same_orientation(a, b) and _same_spacing(a, b)


def _same_orientation(a: Slice, b: Slice) -> bool:
    """Whether pixels of two slices in one place would lie, on average, less than half a pixel apart."""
    if a.own.orientation is None or b.own.orientation is None:
        return a.own.orientation is b.own.orientation
    size = a.metadata.columns, a.metadata.rows
    shift = mean_shift_px(a.own.orientation, b.own.orientation, size, spacing(a.metadata, a.own)[1])
    return shift < _SAME_ORIENTATION and _angle(a, b) < _SAME_ANGLE


def _angle(a: Slice, b: Slice) -> float:
    """Degrees between the rows or the columns of two slices, whichever is more."""
    if a.own.orientation is None or b.own.orientation is None:
        return 0.0
    apart = (np.linalg.norm(np.subtract(x, y)) for x, y in zip(a.own.orientation, b.own.orientation, strict=True))
    return math.degrees(2 * math.asin(min(1.0, float(max(apart)) / 2)))


def _same_spacing(a: Slice, b: Slice) -> bool:
    x, y = (spacing(one.metadata, one.own)[1] for one in (a, b))
    if x is None or y is None:
        return x is y
    return float(np.abs(np.subtract(x, y)).max()) <= _SAME_SPACING


def _divided_by(one: Slice, firsts: Sequence[Slice]) -> tuple[Split, ...]:
    """What tells a part of a series from the others, each given by its first slice."""
    size = spacing(one.metadata, one.own)[1]
    m = one.metadata
    exact: dict[str, tuple[Callable[[Slice], object], str]] = {
        "kind of object": (lambda s: s.metadata.sop_class, ""),
        "modality": (lambda s: s.metadata.modality, m.modality),
        "size": (lambda s: (s.metadata.columns, s.metadata.rows), f"{m.columns} × {m.rows} px"),
        "colours": (lambda s: "colour" if s.file.is_colour else s.metadata.photometric, m.photometric.lower()),
        "unit of values": (lambda s: s.metadata.quantity, m.quantity),
        "frame of reference": (lambda s: s.metadata.frame_of_reference, ""),
        "placement": (lambda s: s.normal is None, "in pixels" if one.normal is None else "in the patient"),
        "file": (lambda s: _placement_key(s) if s.normal is None else "", ""),
    }
    found = [Split(name, text) for name, (key, text) in exact.items() if len({key(first) for first in firsts}) > 1]
    if not all(_same_orientation(firsts[0], first) for first in firsts):
        found.append(Split("orientation", plane_name(one.own.orientation)))
    if not all(_same_spacing(firsts[0], first) for first in firsts):
        found.append(Split("pixel size", f"{size[1]:.5g} × {size[0]:.5g} mm" if size else "unknown"))
    return tuple(found)


def _stacks(slices: list[Slice]) -> list[Stack]:
    first, direction = slices[0], slices[0].normal
    if direction is None:
        basis = "frame number" if len(first.metadata.frames) > 1 else "instance number"
        if basis == "instance number" and any(one.metadata.instance is None for one in slices):
            basis = "instance number, then UID"
        return [Stack(tuple(slices), basis)]
    along = {one: float(direction @ np.asarray(one.own.position)) for one in slices}
    return [_measured(part, along, direction, splits) for splits, part in _split_repeats(slices, along, slices)]


def _measured(
    slices: Sequence[Slice], along: Mapping[Slice, float], direction: Direction, split_by: tuple[Split, ...]
) -> Stack:
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
    return Stack(
        ordered,
        "position along the normal",
        split_by=split_by,
        steps=steps,
        tilt=tilt,
        angle=max(_angle(ordered[0], one) for one in ordered),
        missing=missing,
        irregular=irregular,
    )


_Parts = list[tuple[tuple[Split, ...], Sequence[Slice]]]


def _split_repeats(
    slices: Sequence[Slice], along: Mapping[Slice, float], whole: Sequence[Slice], start: int = 0
) -> _Parts:
    """Slices split until no two of a part are at one position, by the first attribute that does it, in its order.

    An attribute with a value of its own for every slice (a time, say) does not count. Where no attribute splits them,
    slices at the same position are split by their order in time, else by their instance numbers. Times by the clock are
    shown as differences from the earliest of `whole`.
    """
    positions = _position_numbers(slices, along)
    most = max(Counter(positions.values()).values())
    if most == 1:
        return [((), slices)]
    for at in range(start, len(_NAMES)):
        parts: dict[float | str, list[Slice]] = {}
        for one in slices:
            parts.setdefault(_split_value(one, at), []).append(one)
        if 1 < len(parts) <= most and all(
            max(Counter(positions[one] for one in part).values()) < most for part in parts.values()
        ):
            ordered = sorted(parts.items(), key=lambda item: _split_order(*item))
            return [
                ((Split(_NAMES[at], _split_text(value, at, whole)), *rest), inner)
                for value, part in ordered
                for rest, inner in _split_repeats(part, along, whole, at + 1)
            ]
    return _split_by_turn(slices, positions, whole)


def _split_by_turn(slices: Sequence[Slice], positions: Mapping[Slice, int], whole: Sequence[Slice]) -> _Parts:
    """The first slices at each position, the second ones, and so on: by the first time that orders them."""
    keys: list[tuple[str, Callable[[Slice], float]]] = []
    for name in _TIMES:
        at = _NAMES.index(name)
        times = {one: _split_value(one, at) for one in slices}
        numbers = {one: time for one, time in times.items() if isinstance(time, float)}
        if len({(positions[one], time) for one, time in numbers.items()}) == len(slices):
            keys.append((name, numbers.__getitem__))
    ranks = {one: float(rank) for rank, one in enumerate(sorted(slices, key=lambda s: s.order))}
    name, key = [*keys, ("instance number", ranks.__getitem__)][0]
    turns: defaultdict[int, list[Slice]] = defaultdict(list)
    count: Counter[int] = Counter()
    for one in sorted(slices, key=key):
        turns[count[positions[one]]].append(one)
        count[positions[one]] += 1
    return [
        (
            (Split(name, f"from {_split_text(key(part[0]), _NAMES.index(name), whole)}" if keys else str(turn + 1)),),
            part,
        )
        for turn, part in sorted(turns.items())
    ]


def _split_value(one: Slice, at: int) -> float | str:
    return one.own.splits[at] if one.own.splits else ""


def _split_order(value: float | str, part: Sequence[Slice]) -> tuple[object, ...]:
    """Numbers in their order; other values, which are digests, after them in the order of slices."""
    return (0, value) if isinstance(value, float) else (1, *min(one.order for one in part))


def _split_text(value: float | str, at: int, whole: Sequence[Slice]) -> str:
    """A value with its unit; "" for a digest."""
    if isinstance(value, str):
        return "" if value else "none"
    if _NAMES[at] in _CLOCKS:
        value -= min(time for one in whole if isinstance(time := _split_value(one, at), float))
    return f"{round(value, 3):.12g} {SPLIT_ATTRIBUTES[_NAMES[at]]}".strip()


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
