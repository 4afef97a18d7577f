"""A stack in the words of the reading seam: channels, placement, planes, facts for the tables, and notes."""

import statistics
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from ..files import fingerprint
from ..geometry import Placement
from ..image import Channel, ImageInfo, Plane
from ..options import invalid_option
from ..pseudonyms import Pseudonyms
from .faults import FaultError
from .geometry import normal, place, place_notes, spacing
from .metadata import Window
from .scan import FileOutcome
from .series import Slice, Stack
from .sop_classes import burned_in_risk, is_secondary
from .source import split
from .voi_lut import PRESETS, Function, Table, Voi, parse_window, steps

FACTS: Mapping[str, str] = {
    "series_uid": "the series, as a pseudonym",
    "modality": "as the file codes it",
    "body_part": "as the file codes it, where that is a usual code",
    "laterality": "R, L, U (unpaired) or B (both), as the file codes it",
    "view": "view position of a projection",
    "patient_orientation": "towards which side rows and columns run, of a projection",
    "patient_position": "how the patient lay",
    "rows": "pixels of a slice, down",
    "columns": "pixels of a slice, across",
    "n_images": "slices or frames in the stack",
    "sort_basis": "what the order of slices rests on",
    "split_by": "what tells the stack from others at the same places",
    "spacing_source": "where the pixel size comes from",
    "row_mm": "mm between rows",
    "col_mm": "mm between columns",
    "step_mm_min": "mm between neighbouring slices, least",
    "step_mm_median": "the median",
    "step_mm_max": "the most",
    "tilt_deg": "degrees between the stack's direction and the slices' normal",
    "missing_slices": "slices missing at the stack's own step",
    "irregular_spacing": "whether steps differ otherwise: yes or no",
    "duplicates": "files of the study left out as duplicates",
    "uid_synthesised": "whether UIDs were missing and made from content: yes or no",
    "is_localiser": "yes or no",
    "is_secondary": "a capture of a screen or film: yes or no",
    "burned_in_risk": "of identifying text in the pixels: yes (stated), none (stated), low or high",
    "recognisable_features": "YES or NO as the file says",
    "identity_removed": "YES or NO as the file says",
    "transfer_syntax": "UID",
    "lossy": "01 where pixels were once compressed with loss, 00 where not, as the file says",
    "decoder": "codecs for this transfer syntax, in the order in which they are tried",
    "quantity": "what grey values are: HU, …, or number",
    "padding": "whether the file marks padding: yes or no",
    "window_used": "centre/width, or a table's entries, and function and source of the window for rendering",
    "window_low": "the value that becomes black",
    "window_high": "the value that becomes white",
    "window_curve": "sigmoid or steps, where values in between are not in proportion",
    "window_steps": "of steps: value:grey, each grey from its value up to the next",
    "inverted": "yes where the file shows low values as white (MONOCHROME1)",
    "study_read": "files of the study that were read",
    "study_skipped": "files of the study that were left out",
    "study_failed": "files of the study that failed",
    "study_related": "objects of the study that are no images",
}
"""What is known of a stack besides the seam's own facts, and what it means; absent where it is not known."""


_Stated = TypeVar("_Stated", bound=Hashable)

Tables = Callable[[str, int], Table]
"""(source, frame from 0) → its VOI lookup table. Raises `FaultError` where that cannot be read."""


def describe(
    stack: Stack, name: str, names: Pseudonyms, *, window: str, fates: Sequence[FileOutcome], tables: Tables
) -> ImageInfo:
    """The facts of one stack. `fates` are those of its study's files. Raises `RequestError` for an unknown window."""
    first = stack.first
    facts = first.facts
    source, size = spacing(facts, first.own)
    frame = names.uid(facts.frame_of_reference) if facts.frame_of_reference else ""
    planes = tuple(_plane(one, place(one.facts, one.own, frame), names) for one in stack.slices)
    files = tuple(sorted({str(split(one.file.source)[0]) for one in stack.slices}))
    seen = None if _is_colour(first) else choose_window(stack, window, tables)
    inverted = facts.photometric == "MONOCHROME1"
    study = names.uid(first.file.study)
    return ImageInfo(
        uri=files[0] if names.show else told_uri(study, name),
        reader="dicom",
        kind="study",
        size=(facts.columns, facts.rows),
        channels=_channels(first),
        placement=planes[0].placement,
        id=name,
        part="",
        study=study,
        files=files,
        fingerprint=fingerprint(files),
        notes=tuple(_notes(stack, seen, wished=parse_window(window) is not None)),
        planes=planes,
        facts=tuple(
            (key, text)
            for key, text in {
                **_plain_facts(stack, names),
                **_geometry_facts(stack, source, size),
                **(_window_facts(seen, inverted=inverted) if seen else {}),
                "inverted": "yes" if inverted else "",
                **_study_facts(fates),
            }.items()
            if text
        ),
    )


def told_uri(study: str, name: str) -> str:
    """What stands for an image's path where paths are not told."""
    return f"dicom:{study}/{name}"


def choose_window(stack: Stack, wish: str, tables: Tables) -> tuple[Voi, str] | None:
    """The window through which a whole stack is seen, with its source in words; None where its pixels must decide.

    A person's wish counts before a file's lookup table, that before its first window, and for CT's own slices without
    any the abdomen's. Of slices that differ, what most of them say counts, else the middle one. Raises `RequestError`
    for a wish that names nothing.
    """
    wanted = parse_window(wish)
    if isinstance(wanted, tuple):
        return Voi(*wanted), "option window"
    if wanted is not None:
        return _named_window(stack, wanted)
    return _stated_table(stack, tables) or _stated_window(stack)


def _named_window(stack: Stack, wanted: str) -> tuple[Voi, str] | None:
    named = [_voi(one, w) for one in stack.slices for w in one.own.windows if w.name.lower() == wanted]
    if named:
        return named[0], f"file, window {wanted}"
    if wanted in PRESETS:
        return (Voi(*PRESETS[wanted]), f"preset {wanted}") if stack.first.facts.quantity == "HU" else None
    rule = "it is centre,width, a preset, or a name that the file gives one of its windows"
    raise invalid_option("window", "reader 'dicom'", rule, value=wanted, remedy=f"Presets: {', '.join(PRESETS)}")


def _stated_table(stack: Stack, tables: Tables) -> tuple[Voi, str] | None:
    """The lookup table that most slices state, else the middle one's; None without any, or where it is damaged."""
    stated = [one for one in stack.slices if one.own.tables]
    if not stated:
        return None
    chosen = _usual([one.own.tables[0] for one in stated])
    first = next(one for one in stated if one.own.tables[0] == chosen)
    different = len({one.own.tables[0] for one in stated})
    try:
        table = tables(first.file.source, first.frame - 1)
    except FaultError:
        return None
    return Voi(0.0, 0.0, "LUT", table), "file" if different == 1 else f"file, one of {different}"


def _stated_window(stack: Stack) -> tuple[Voi, str] | None:
    firsts = [_voi(one, one.own.windows[0]) for one in stack.slices if one.own.windows]
    if firsts:
        different = len(set(firsts))
        return _usual(firsts), "file, first window" if different == 1 else f"file, one of {different} windows"
    if stack.first.facts.quantity == "HU":
        return Voi(*PRESETS["abdomen"]), "preset abdomen, for want of a window in the file"
    return None


def _usual(stated: Sequence[_Stated]) -> _Stated:
    """What most say, else what the middle one says."""
    chosen, count = Counter(stated).most_common(1)[0]
    return chosen if 2 * count > len(stated) else stated[len(stated) // 2]


def _voi(one: Slice, window: Window) -> Voi:
    functions: Mapping[str, Function] = {"LINEAR_EXACT": "LINEAR_EXACT", "SIGMOID": "SIGMOID"}
    return Voi(window.centre, window.width, functions.get(one.own.voi, "LINEAR"))


def _is_colour(one: Slice) -> bool:
    return one.facts.samples > 1 or one.facts.photometric == "PALETTE COLOR"


def _channels(one: Slice) -> tuple[Channel, ...]:
    if _is_colour(one):
        return tuple(Channel(colour, common=colour) for colour in ("red", "green", "blue"))
    return (Channel("grey", dtype="float32", quantity=one.facts.quantity),)


def _plane(one: Slice, placement: Placement, names: Pseudonyms) -> Plane:
    position = None
    if one.own.position is not None and one.own.orientation is not None:
        direction = normal(one.own.orientation)
        position = None if direction is None else round(float(direction @ np.asarray(one.own.position)), 6)
    return Plane(
        placement=placement,
        source=one.file.source,
        frame=one.frame,
        name=names.uid(one.file.sop),
        position_mm=position,
        instance=one.facts.instance,
    )


def _notes(stack: Stack, seen: tuple[Voi, str] | None, *, wished: bool) -> list[str]:
    first = stack.first
    facts = first.facts
    found = [*place_notes(facts, first.own), *stack.notes()]
    if any(one.file.made for one in stack.slices):
        found.append("UIDs that its files lack were made from their content")
    if any(not one.facts.header for one in stack.slices):
        found.append("its files have no DICOM preamble")
    if facts.presentation == "FOR PROCESSING":
        found.append("it is raw data for processing, not for looking at: its grey values mean nothing yet")
    if facts.scaled:
        found.append("a real-world value mapping is in the file and was not applied")
    unused = not wished and (seen is None or seen[0].table is None)
    if unused and any(one.own.tables for one in stack.slices):
        found.append("the lookup table by which the file renders it is damaged and was not used")
    if burned_in_risk(facts) in {"yes", "high"}:
        found.append("identifying text may be drawn in its pixels")
    if seen is None and not _is_colour(first):
        found.append("the file states no window: its pixels decide")
    windows = {(one.own.tables[:1], one.own.windows[:1], one.own.voi) for one in stack.slices}
    if len(windows) > 1 and seen is not None:
        found.append("its slices state different windows; one is used for all, so that slices compare")
    return found


def _plain_facts(stack: Stack, names: Pseudonyms) -> dict[str, str]:
    facts = stack.first.facts
    return {
        "series_uid": names.uid(stack.first.file.series),
        "modality": facts.modality,
        "body_part": facts.body_part,
        "laterality": facts.laterality,
        "view": facts.view,
        "patient_orientation": facts.patient_orientation,
        "patient_position": facts.patient_position,
        "rows": str(facts.rows),
        "columns": str(facts.columns),
        "n_images": str(len(stack.slices)),
        "uid_synthesised": _yes(any(one.file.made for one in stack.slices)),
        "is_localiser": _yes("LOCALIZER" in facts.image_type),
        "is_secondary": _yes(is_secondary(facts)),
        "burned_in_risk": burned_in_risk(facts),
        "recognisable_features": facts.recognisable,
        "identity_removed": facts.identity_removed,
        "transfer_syntax": facts.transfer_syntax,
        "lossy": facts.lossy,
        "decoder": facts.decoder,
        "quantity": "" if _is_colour(stack.first) else facts.quantity,
        "padding": _yes(facts.padding),
    }


def _geometry_facts(stack: Stack, source: str, size: tuple[float, float] | None) -> dict[str, str]:
    steps = stack.steps
    return {
        "sort_basis": stack.sort_basis if len(stack.slices) > 1 else "",
        "split_by": stack.split_by,
        "spacing_source": source,
        "row_mm": repr(size[0]) if size else "",
        "col_mm": repr(size[1]) if size else "",
        "step_mm_min": f"{min(steps):.6f}" if steps else "",
        "step_mm_median": f"{statistics.median(steps):.6f}" if steps else "",
        "step_mm_max": f"{max(steps):.6f}" if steps else "",
        "tilt_deg": "" if stack.tilt is None else f"{stack.tilt:.4f}",
        "missing_slices": str(stack.missing) if steps else "",
        "irregular_spacing": _yes(stack.irregular) if steps else "",
    }


def _window_facts(seen: tuple[Voi, str], *, inverted: bool) -> dict[str, str]:
    voi, source = seen
    low, high = voi.ends()
    if inverted:
        low, high = high, low
    what = f"{voi.centre:g}/{voi.width:g}"
    if voi.table is not None:
        what = f"{len(voi.table.entries)} entries from {voi.table.first:g}"
    stepped = steps(voi, inverted=inverted)
    return {
        "window_used": f"{what} {voi.function} ({source}){', inverted' if inverted else ''}",
        "window_low": repr(low),
        "window_high": repr(high),
        "window_curve": "steps" if stepped else "sigmoid" if voi.function == "SIGMOID" else "",
        "window_steps": " ".join(f"{number!r}:{grey}" for number, grey in stepped),
    }


def _study_facts(fates: Sequence[FileOutcome]) -> dict[str, str]:
    counts = Counter(fate.status for fate in fates)
    related = Counter(
        fate.reason.removeprefix("not an image: ") for fate in fates if fate.reason.startswith("not an image: ")
    )
    duplicates = sum(fate.reason.startswith("a duplicate") for fate in fates)
    return {
        "duplicates": str(duplicates),
        "study_read": str(counts["read"]),
        "study_skipped": str(counts["skipped"]),
        "study_failed": str(counts["failed"]),
        "study_related": "; ".join(f"{count} {what}" for what, count in sorted(related.items())),
    }


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"
