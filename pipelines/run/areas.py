"""The areas of an image by what became of them: analysed, no data, skipped or unreadable, each with its reason."""

import math
from collections.abc import Sequence
from typing import Final

from ...readers.areas import box_areas_m2
from ...reports.patient_geometry import pixel_area_m2
from ...reports.writer import NOT_RUN, Area, AreaStatus
from .masks import UNDER, PlannedMask
from .overview_stats import EMPTY
from .plan import NO_MODEL, NOT_CHOSEN, ImagePlan
from .run_folder import Entry
from .windows import NOT_VISIBLE

FAILED: Final = "failed: the reasons are listed with the regions"

_AREA_STATUSES: tuple[AreaStatus, ...] = ("analysed", "no data", "skipped", "unreadable")  # in the order of reports
_AreaKey = tuple[AreaStatus, str]  # status and reason
_Share = tuple[float, float | None, int]  # pixels, m², regions


def image_areas(plan: ImagePlan, found: Sequence[Entry | None]) -> tuple[Area, ...]:
    """The image's area by status and reason. The parts sum to the whole, since cores partition the image.

    In square metres where those of every part are known: an image that reaches beyond the Earth has none.
    """
    cores = [region.core for region in plan.regions]
    m2 = box_areas_m2([(core.x0, core.y0, core.x1, core.y1) for core in cores], plan.info.placement)
    pixel = pixel_area_m2(plan.info)
    parts: dict[_AreaKey, list[_Share]] = {("analysed", ""): []}
    for i, (core, entry) in enumerate(zip(cores, found, strict=True)):
        pixels = plan.area_px(plan.regions[i])
        whole = (pixels, None if m2 is None else float(m2[i]) * pixels / (core.width * core.height))
        for key, share in _area_parts(entry, whole, plan.outside_reason, plan.mask):
            parts.setdefault(key, []).append(share)
    if plan.left_out:
        one = plan.info.box
        each = box_areas_m2([(one.x0, one.y0, one.x1, one.y1)], plan.info.placement)
        shares = [(one.width * one.height, None if each is None else float(each[0]), 1)] * len(plan.left_out)
        parts.setdefault(("skipped", NOT_CHOSEN), []).extend(shares)
    square_metres = [share[1] for shares in parts.values() for share in shares if share[0]]
    in_metres = m2 is not None and not any(one is None or math.isnan(one) for one in square_metres)
    areas: list[Area] = []
    for status, reason in sorted(parts, key=lambda key: (_AREA_STATUSES.index(key[0]), key[1])):
        shares = parts[status, reason]
        pixels = math.fsum(share[0] for share in shares)
        metres = math.fsum(share[1] or 0.0 for share in shares)
        known = metres if in_metres else None if pixel is None else pixels * pixel
        areas.append(Area(status, reason, pixels, known, sum(share[2] for share in shares)))
    return tuple(areas)


def nothing_analysed(areas: Sequence[Area]) -> tuple[str, ...]:
    """A warning where all regions were run or skipped, and not one pixel was analysed."""
    analysed = any(area.status == "analysed" and area.pixels for area in areas)
    if analysed or any(area.status == "unreadable" or area.reason in {NOT_RUN, NO_MODEL} for area in areas):
        return ()
    reasons = dict.fromkeys(area.reason for area in areas if area.pixels)
    return (f"Nothing was analysed: {', '.join(reasons)}.",)


def _area_parts(
    entry: Entry | None, whole: tuple[float, float | None], outside_reason: str, mask: PlannedMask | None
) -> list[tuple[_AreaKey, _Share]]:
    """How the core of one region is divided. The region itself is counted once."""
    if entry is None:
        return [(("skipped", NOT_RUN), (*whole, 1))]
    if entry.status == "failed":
        return [(("unreadable", FAILED), (*whole, 1))]
    cover, empty = entry.coverage, entry.error == EMPTY
    if cover is None:
        return [(("no data", EMPTY) if empty else ("skipped", entry.error), (*whole, 1))]
    unseen = entry.error == NOT_VISIBLE
    skipped = entry.status == "skipped" and not unseen
    valid: _AreaKey = ("unreadable", NOT_VISIBLE) if unseen else ("analysed", "")
    parts: list[tuple[_AreaKey, _Share]] = [
        (valid, (cover.valid_px, cover.valid_m2, int(not skipped))),
        (("no data", EMPTY), (cover.invalid_px, cover.invalid_m2, int(skipped and empty))),
    ]
    masked = mask is not None and skipped and entry.error == mask.reason
    outside = (cover.outside_px, cover.outside_m2, int(skipped and not empty and not masked))
    parts.append((("skipped", outside_reason), outside))
    if mask is not None:
        key: _AreaKey = ("skipped", mask.reason) if mask.excludes else (valid[0], valid[1] or UNDER.format(mask.reason))
        parts.append((key, (cover.masked_px, cover.masked_m2, int(masked))))
    return [(key, share) for key, share in parts if share[0] > 0 or share[2]]
