"""Descriptions of runs: findings by label and area by outcome, as rows and as text for the terminal."""

import math

from ..readers.image import Kind
from ..reports.measures import LabelArea, area_share, label_areas, total_area
from ..reports.overview.scale_bar import format_area, format_volume
from ..reports.writer import ImageRecord, Record
from .cli.terminal import indent, plural, table, visible

NO_MODEL_CHOSEN = "No model is chosen, so nothing is annotated. Choose one with --model; `limner models` lists them."


def findings_rows(record: Record, image: ImageRecord) -> list[tuple[str, str, str, str]]:
    """The findings on an image by label: count, area and share of the analysed area, with a header."""
    kind = image.info.kind
    return [
        ("found", "count", "size", "share of analysed area"),
        *((of.label, str(of.findings), _size(of, kind), _percent(of.share)) for of in label_areas(record, image)),
    ]


def area_rows(image: ImageRecord) -> list[tuple[str, str, str, str, str]]:
    """An image's area by outcome, with a header."""
    whole = total_area(image.areas)
    rows = [("area", "regions", "size", "share", "")]
    for area in image.areas:
        size = _area(area.pixels, area.m2, image.info.kind)
        rows.append(
            (area.status, str(area.regions), size, _percent(area_share(total_area([area]), whole)), area.reason)
        )
    return rows


def change_rows(image: ImageRecord) -> list[tuple[str, str, str, str]]:
    """What settings of objects changed of an image's findings, by label, with a header; [] where nothing."""
    changes, kind = image.changes(), image.info.kind
    rows = [(one.label, f"{one.findings:+d}", _signed_area(one.pixels, one.m2, kind), one.what) for one in changes]
    return [("changed", "count", "size", ""), *rows] if rows else []


def _signed_area(pixels: float, m2: float, kind: Kind) -> str:
    size = _area(abs(pixels), None if math.isnan(m2) else abs(m2), kind)
    return f"{'−' if pixels < 0 else '+'}{size}" if pixels else ""


def record_text(record: Record) -> str:
    """The images of a run: findings by label and area by outcome."""
    parts: list[str] = []
    for image in record.images:
        parts.append(visible(f"{image.info.id}  {image.info.uri}"))
        parts += [indent(table(findings_rows(record, image), right=(1, 2, 3))), ""] if record.assessed else []
        if changes := change_rows(image):
            parts += [indent(table(changes, right=(1, 2))), ""]
        parts += [indent(table(area_rows(image), right=(1, 2, 3)))]
        parts += [*(visible(f"  warning: {warning}") for warning in image.warnings), ""]
    if not record.assessed:
        parts += [NO_MODEL_CHOSEN, ""]
    failed = sum(len(image.failures) for image in record.images)
    if failed:
        parts.append(f"{plural(failed, 'region')} failed. Run the same command again to retry.")
    return "\n".join(parts)


def _area(pixels: float, m2: float | None, kind: Kind) -> str:
    return format_area(math.nan if m2 is None else m2, pixels, kind, exact=True)


def _size(of: LabelArea, kind: Kind) -> str:
    return _area(of.pixels, of.m2, kind) if math.isnan(of.ml) else format_volume(of.ml)


def _percent(part: float) -> str:
    return "–" if math.isnan(part) else f"{100 * part:.2f} %"
