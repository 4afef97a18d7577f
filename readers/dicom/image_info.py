"""The `ImageInfo` of a stack: channels, placement, planes, facts for the tables, and notes for the user."""

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
from ..render import CHOOSE_WINDOW
from .faults import FaultError
from .geometry import placement_notes, placement_of, spacing
from .metadata import MOSAIC_NOTES, FileMetadata, Window
from .scan import DUPLICATE, FileOutcome
from .series import Slice, Stack
from .sop_classes import burned_in_risk, is_secondary
from .source import split_member
from .voi_lut import PRESET_OF_BODY_PART, PRESETS, Function, LookupTable, VoiLut, grey_levels, parse_window

_T = TypeVar("_T", bound=Hashable)

Tables = Callable[[str, int], LookupTable]
"""(source, frame from 0) → its VOI lookup table. Raises `FaultError` where that cannot be read."""

_UNPLACED_NM = (
    "its frames have no place in the patient: projections have none, and reconstructed slices need one position and"
    " orientation in the detector's sequence, SpacingBetweenSlices and SliceVector"
)
_NO_WINDOW = "as the file has no window"

Chosen = tuple[VoiLut, str]
"""A VOI, and where it is from."""


def image_info(
    stack: Stack, name: str, names: Pseudonyms, *, window: str, outcomes: Sequence[FileOutcome], tables: Tables
) -> ImageInfo:
    """The facts of one stack; `outcomes` are of its study's files. Raises `RequestError` for an unknown window."""
    first = stack.first
    metadata = first.metadata
    frame = names.uid(metadata.frame_of_reference) if metadata.frame_of_reference else ""
    planes = tuple(_plane(one, placement_of(one.metadata, one.own, frame), names) for one in stack.slices)
    files = tuple(sorted({str(split_member(one.file.source)[0]) for one in stack.slices}))
    voi = None if first.file.is_colour else choose_window(stack, window, tables)
    inverted = metadata.photometric == "MONOCHROME1"
    study = names.uid(first.file.study)
    grey = Channel("grey", dtype="float32", quantity=metadata.quantity)
    facts = {
        **_header_facts(stack, names),
        **_geometry_facts(stack),
        **(_window_facts(voi, inverted=inverted) if voi else {}),
        "inverted": "yes" if inverted else "",
        **_study_facts(outcomes),
    }
    return ImageInfo(
        uri=files[0] if names.show else pseudonymous_uri(study, name),
        reader="dicom",
        kind="study",
        size=(metadata.columns, metadata.rows),
        channels=tuple(Channel(c, common=c) for c in ("red", "green", "blue")) if first.file.is_colour else (grey,),
        placement=planes[0].placement,
        id=name,
        part="",
        study=study,
        files=files,
        fingerprint=fingerprint(files),
        notes=tuple(_notes(stack, voi, chosen_by_user=parse_window(window) is not None)),
        planes=planes,
        facts=tuple((key, text) for key, text in facts.items() if text),
    )


def pseudonymous_uri(study: str, name: str) -> str:
    """The URI of an image where paths may not be shown."""
    return f"dicom:{study}/{name}"


def choose_window(stack: Stack, option: str, tables: Tables) -> Chosen | None:
    """The VOI of a whole stack and its source; None where its pixels must decide.

    In order: the option `window`, the file's lookup table, its first window, and for original CT slices the preset for
    their body part, or for soft tissue. Where slices differ, the value of most of them, else of the middle one. Raises
    `RequestError` for an unknown name.
    """
    window = parse_window(option)
    if isinstance(window, tuple):
        return VoiLut(*window), "option window"
    if window is not None:
        return _named_window(stack, window)
    return _stated_table(stack, tables) or _stated_window(stack)


def _named_window(stack: Stack, name: str) -> Chosen | None:
    named = [_voi(one, w) for one in stack.slices for w in one.own.windows if w.name.lower() == name]
    if named:
        return named[0], f"file, window {name}"
    if name in PRESETS:
        return (VoiLut(*PRESETS[name]), f"preset {name}") if stack.first.metadata.quantity == "HU" else None
    rule = "must be centre,width, a preset, or the file's name for one of its windows"
    raise invalid_option("window", "reader 'dicom'", rule, value=name, remedy=f"Presets: {', '.join(PRESETS)}")


def _stated_table(stack: Stack, tables: Tables) -> Chosen | None:
    """The lookup table of most slices, else the middle one's; None without any, or where it is damaged."""
    stated = {one.own.tables[0]: one for one in reversed(stack.slices) if one.own.tables}
    if not stated:
        return None
    chosen = stated[_most_common([one.own.tables[0] for one in stack.slices if one.own.tables])]
    try:
        table = tables(chosen.file.source, chosen.frame - 1)
    except FaultError:
        return None
    return VoiLut(0.0, 0.0, "LUT", table), "file" if len(stated) == 1 else f"file, one of {len(stated)}"


def _stated_window(stack: Stack) -> Chosen | None:
    firsts = [_voi(one, one.own.windows[0]) for one in stack.slices if one.own.windows]
    if firsts:
        different = len(set(firsts))
        return _most_common(firsts), "file, first window" if different == 1 else f"file, one of {different} windows"
    return _default_window(stack.first.metadata) if stack.first.metadata.quantity == "HU" else None


def _default_window(metadata: FileMetadata) -> Chosen:
    """The preset for the body part that a file of HU states, else that for soft tissue."""
    part = metadata.body_part
    preset = PRESET_OF_BODY_PART.get(part, "soft_tissue")
    why = f" for {metadata.body_part_source} {part}" if part else ", whatever its body part,"
    return VoiLut(*PRESETS[preset]), f"preset {preset}{why} {_NO_WINDOW}"


def _most_common(values: Sequence[_T]) -> _T:
    """The value of more than half, else the middle one."""
    value, count = Counter(values).most_common(1)[0]
    return value if 2 * count > len(values) else values[len(values) // 2]


def _voi(one: Slice, window: Window) -> VoiLut:
    functions: Mapping[str, Function] = {"LINEAR_EXACT": "LINEAR_EXACT", "SIGMOID": "SIGMOID"}
    return VoiLut(window.centre, window.width, functions.get(one.own.voi, "LINEAR"))


def _plane(one: Slice, placement: Placement, names: Pseudonyms) -> Plane:
    normal = one.normal
    return Plane(
        placement=placement,
        source=one.file.source,
        frame=one.frame,
        name=names.uid(one.file.sop),
        position_mm=None if normal is None else round(float(normal @ np.asarray(one.own.position)), 6),
        instance=one.metadata.instance,
    )


def _notes(stack: Stack, voi: Chosen | None, *, chosen_by_user: bool) -> list[str]:
    metadata = stack.first.metadata
    table_unused = not chosen_by_user and (voi is None or voi[0].table is None)
    source = voi[1] if voi else ""
    flat = sum(one.own.flat for one in stack.slices)
    windows = {(one.own.tables[:1], one.own.windows[:1], one.own.voi) for one in stack.slices}
    notes = {
        "UIDs that its files lack were made from their content": any(one.file.synthesised for one in stack.slices),
        "its files have no DICOM preamble": any(not one.metadata.header for one in stack.slices),
        "it is raw data for processing: its grey values are not for display": metadata.presentation == "FOR PROCESSING",
        "its real-world value mapping was not applied": metadata.scaled,
        "its VOI lookup table is damaged and was not used": table_unused
        and any(one.own.tables for one in stack.slices),
        "identifying text may be burned into its pixels": burned_in_risk(metadata) in {"yes", "high"},
        "the file states no window: its pixels decide": voi is None and not stack.first.file.is_colour,
        f"it is shown in {source}: {CHOOSE_WINDOW}": source.endswith(_NO_WINDOW),
        "a window of its file has no width above 0 and was not used": not chosen_by_user
        and any(one.own.unusable_window for one in stack.slices),
        "its window is at most 1 wide: all is black or white": voi is not None
        and voi[0].table is None
        and voi[0].function == "LINEAR"
        and voi[0].width <= 1,
        "its VOI lookup table has a single grey": voi is not None
        and voi[0].table is not None
        and len(grey_levels(voi[0], inverted=False)) == 1,
        MOSAIC_NOTES[metadata.mosaic]: bool(MOSAIC_NOTES[metadata.mosaic]),
        f"the rescale slope is 0 in {flat} of {len(stack.slices)} slices: all values of each are the same": flat > 0,
        _UNPLACED_NM: metadata.modality == "NM" and stack.first.normal is None,
        "its slices state different windows; one is used for all, so that slices compare": len(windows) > 1
        and voi is not None,
    }
    found = [*placement_notes(metadata, stack.first.own), *stack.notes()]
    return found + [note for note, holds in notes.items() if holds]


def _header_facts(stack: Stack, names: Pseudonyms) -> dict[str, str]:
    first, metadata = stack.first, stack.first.metadata
    return {
        "series_uid": names.uid(first.file.series),
        "modality": metadata.modality,
        "body_part": metadata.body_part,
        "laterality": metadata.laterality,
        "view": metadata.view,
        "patient_orientation": metadata.patient_orientation,
        "patient_position": metadata.patient_position,
        "rows": str(metadata.rows),
        "columns": str(metadata.columns),
        "n_images": str(len(stack.slices)),
        "uid_synthesised": _yes_no(any(one.file.synthesised for one in stack.slices)),
        "is_localiser": _yes_no("LOCALIZER" in metadata.image_type),
        "is_secondary": _yes_no(is_secondary(metadata)),
        "burned_in_risk": burned_in_risk(metadata),
        "recognisable_features": metadata.recognisable,
        "identity_removed": metadata.identity_removed,
        "transfer_syntax": metadata.transfer_syntax,
        "lossy": metadata.lossy,
        "decoder": metadata.decoder,
        "quantity": "" if first.file.is_colour else metadata.quantity,
        "padding": _yes_no(metadata.padding),
        "flat": "yes" if all(one.own.flat for one in stack.slices) else "",
    }


def _geometry_facts(stack: Stack) -> dict[str, str]:
    source, size = spacing(stack.first.metadata, stack.first.own)
    splits = (*stack.divided_by, *stack.split_by)
    facts = {
        "sort_basis": stack.sort_basis if len(stack.slices) > 1 else "",
        "split_by": ", ".join(one.name for one in splits),
        "split_value": "; ".join(one.value for one in splits),
    }
    facts["spacing_source"] = source
    if size:
        facts |= {"row_mm": repr(size[0]), "col_mm": repr(size[1])}
    if stack.steps:
        facts |= {
            "step_mm_min": f"{min(stack.steps):.6f}",
            "step_mm_median": f"{statistics.median(stack.steps):.6f}",
            "step_mm_max": f"{max(stack.steps):.6f}",
            "tilt_deg": "" if stack.tilt is None else f"{stack.tilt:.4f}",
            "missing_slices": str(stack.missing),
            "irregular_spacing": _yes_no(stack.irregular),
        }
    return facts


def _window_facts(chosen: Chosen, *, inverted: bool) -> dict[str, str]:
    voi, source = chosen
    low, high = reversed(voi.limits()) if inverted else voi.limits()
    text = f"{voi.centre:g}/{voi.width:g}"
    if voi.table is not None:
        text = f"{len(voi.table.entries)} entries from {voi.table.first:g}"
    levels = grey_levels(voi, inverted=inverted)
    return {
        "window_used": f"{text} {voi.function} ({source}){', inverted' if inverted else ''}",
        "window_low": repr(low),
        "window_high": repr(high),
        "window_curve": "steps" if levels else "sigmoid" if voi.function == "SIGMOID" else "",
        "window_steps": " ".join(f"{value!r}:{grey}" for value, grey in levels),
    }


def _study_facts(outcomes: Sequence[FileOutcome]) -> dict[str, str]:
    counts = Counter(outcome.status for outcome in outcomes)
    prefix = "not an image: "
    related = Counter(one.reason.removeprefix(prefix) for one in outcomes if one.reason.startswith(prefix))
    return {
        "duplicates": str(sum(outcome.reason == DUPLICATE for outcome in outcomes)),
        "study_read": str(counts["read"]),
        "study_skipped": str(counts["skipped"]),
        "study_failed": str(counts["failed"]),
        "study_related": "; ".join(f"{count} {name}" for name, count in sorted(related.items())),
    }


def _yes_no(fact: bool) -> str:
    return "yes" if fact else "no"
