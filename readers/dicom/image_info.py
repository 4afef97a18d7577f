"""The `ImageInfo` of a stack: channels, placement, planes, facts for the tables, and notes for the user."""

import statistics
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..files import fingerprint
from ..geometry import Placement
from ..image import Channel, ImageInfo, Plane
from ..pseudonyms import Pseudonyms
from ..render import CHOOSE_WINDOW
from .geometry import placement_notes, placement_of, spacing
from .metadata import MOSAIC_NOTES, SUV, SUV_NOTES
from .scan import DUPLICATE, FileOutcome
from .series import Slice, Stack
from .sop_classes import burned_in_risk, is_secondary
from .source import split_member
from .voi_lut import grey_levels
from .windows import NO_WINDOW, ShownWindows, Tables, choose_windows

_UNPLACED_NM = (
    "its frames have no place in the patient: projections have none, and reconstructed slices need one position and"
    " orientation in the detector's sequence, SpacingBetweenSlices and SliceVector"
)


def image_info(
    stack: Stack,
    name: str,
    names: Pseudonyms,
    *,
    window: str,
    suv: bool = False,
    outcomes: Sequence[FileOutcome],
    tables: Tables,
) -> ImageInfo:
    """The facts of one stack; `outcomes` are of its study's files. Raises `RequestError` for an unknown window.

    `suv` is for PET whose values become SUV.
    """
    first = stack.first
    metadata = first.metadata
    frame = names.uid(metadata.frame_of_reference) if metadata.frame_of_reference else ""
    planes = tuple(
        _plane(one, placement_of(one.metadata, one.own, frame), names, stack.values(one)) for one in stack.slices
    )
    files = tuple(sorted({str(split_member(one.file.source)[0]) for one in stack.slices}))
    shown = ShownWindows() if first.file.is_colour else choose_windows(stack, window, tables, suv=suv)
    inverted = metadata.photometric == "MONOCHROME1"
    study = names.uid(first.file.study, "study")
    grey = Channel("grey", dtype="float32", quantity=SUV if suv else metadata.quantity)
    facts = {
        **_header_facts(stack, names),
        **({"quantity": SUV} if suv else {}),
        **_geometry_facts(stack),
        **shown.facts(inverted=inverted),
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
        options=(("values", "suv"),) if suv else (),
        notes=(*_notes(stack, shown, window), *(_suv_notes(stack) if suv else ())),
        planes=planes,
        facts=tuple((key, text) for key, text in facts.items() if text),
    )


def pseudonymous_uri(study: str, name: str) -> str:
    """The URI of an image where paths may not be shown."""
    return f"dicom:{study}/{name}"


def _plane(one: Slice, placement: Placement, names: Pseudonyms, values: tuple[tuple[str, float], ...]) -> Plane:
    normal = one.normal
    return Plane(
        placement=placement,
        source=one.file.source,
        frame=one.frame,
        name=names.uid(one.file.sop, "instance"),
        position_mm=None if normal is None else round(float(normal @ np.asarray(one.own.position)), 6),
        instance=one.metadata.instance,
        values=values,
    )


def _notes(stack: Stack, shown: ShownWindows, option: str) -> list[str]:
    metadata, voi = stack.first.metadata, shown.first
    table_unused = not shown.by_option and (voi is None or voi.table is None)
    source = shown.sources[0] if shown.sources else ""
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
        f"the window {shown.unused} is for Hounsfield units and was not used": bool(shown.unused),
        f"it has colours, which the window {option} cannot show": stack.first.file.is_colour and bool(option.strip()),
        f"it is shown in {source}: {CHOOSE_WINDOW}": source.endswith(NO_WINDOW),
        "a window of its file has no width above 0 and was not used": not shown.by_option
        and any(one.own.unusable_window for one in stack.slices),
        "its window is at most 1 wide: all is black or white": voi is not None
        and voi.table is None
        and voi.function == "LINEAR"
        and voi.width <= 1,
        "its VOI lookup table has a single grey": voi is not None
        and voi.table is not None
        and len(grey_levels(voi, inverted=False)) == 1,
        MOSAIC_NOTES[metadata.mosaic]: bool(MOSAIC_NOTES[metadata.mosaic]),
        f"the rescale slope is 0 in {flat} of {len(stack.slices)} slices: all values of each are the same": flat > 0,
        _UNPLACED_NM: metadata.modality == "NM" and stack.first.normal is None,
        "its slices state different windows; one is used for all, so that slices compare": len(windows) > 1
        and voi is not None,
    }
    found = [*placement_notes(metadata, stack.first.own), *stack.notes()]
    return found + [note for note, holds in notes.items() if holds]


def _suv_notes(stack: Stack) -> list[str]:
    used = sorted({note for one in stack.slices for note in one.metadata.suv_notes})
    return ["its values are SUV by body weight, in g/ml", *(f"for SUV {SUV_NOTES[note]}" for note in used)]


def _header_facts(stack: Stack, names: Pseudonyms) -> dict[str, str]:
    first, metadata = stack.first, stack.first.metadata
    return {
        "series_uid": names.uid(first.file.series, "series"),
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
