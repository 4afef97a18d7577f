"""What the pages of a run state of it: head, facts, tables of areas, what was not assessed, method."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ...readers.image import ImageInfo
from ...readers.orientation import Orientation
from ..measures import LabelTotals
from ..palette import Palette
from ..patient_geometry import edges
from ..summary import ImageSummary
from ..writer import ImageRecord, Record
from .coordinates import placing
from .embedding import data_block
from .facts import STATUS, method_facts, model_name, no_finding, warnings_of
from .findings import holds_in_patient
from .left_out import coverage_table, failure_table, file_table, slice_table
from .page import Head, Pairs
from .pictures import PagePicture
from .run_tables import images_table, labels_table
from .thumbnails import Part

STYLES: Final = ("run.css",)
SCRIPTS: Final = ("vendor/openseadragon.min.js", "run_data.js", "run_viewer.js", "run_page.js")
"""Of every page of a run; after them comes the script that starts it."""
IDENTIFYING: Final = "It is not shown: the file states that identifying text is burned into its pixels."


@dataclass(frozen=True, slots=True)
class Shown:
    """An image as the template takes it."""

    number: int
    name: str
    about: str
    facts: Pairs
    note: str
    picture: PagePicture | None
    """The first."""
    pictures: Sequence[PagePicture]
    """The others, of a stack."""
    hidden: str
    """Why there is no picture."""
    place: str
    """A data block: where its pictures lie."""
    findings: str
    """A data block."""
    parts: Iterable[Part] = ()
    """Parts that a model's words are about."""


def run_head(record: Record) -> Head:
    """The head of a page: named after the image where there is one only."""
    first, count = record.images[0] if record.images else None, len(record.images)
    title = first.name or first.info.id if first is not None and count == 1 else f"{count:,} images"
    return Head(title, record.use, record.version)


def run_values(
    record: Record, totals: Sequence[tuple[ImageRecord, LabelTotals]], palette: Palette, *, shown: int
) -> dict[str, Any]:
    """What the template run.html takes of a run, of which the first `shown` images are on the page."""
    rows = [ImageSummary.of_areas(record, image, found.areas(record, image)) for image, found in totals]
    count = sum(area.findings for row in rows for area in row.labels.values())
    status = record.status_of(record.images)
    facts = [
        ("Images", f"{len(record.images):,}"),
        ("Findings", f"{count:,}" if record.assessed else "not assessed"),
        ("Model", model_name(record)),
        ("Licence of the model", record.model.get("licence", "") if record.assessed else ""),
        ("Regions that failed", f"{sum(len(one.failures) for one in record.images):,}"),
        ("Files", f"{len(record.files):,}"),
    ]
    return {
        "status": status,
        "status_text": STATUS[status],
        "outcome": _outcome(rows, count) if record.assessed else "",
        "facts": [(name, value) for name, value in facts if value],
        "warnings": warnings_of(record.images),
        "count": shown,
        "has_stacks": any(len(one.info.planes) > 1 for one in record.images),
        "kinds": sorted({one.info.kind for one in record.images}),
        "labels": labels_table(record, rows, palette),
        "table": images_table(record, rows, shown=shown),
        "coverage": [
            coverage_table(record, record.images, "image"),
            slice_table(record.images),
            failure_table(record.images),
            file_table(record),
        ],
        "method": method_facts(record),
        "assessed": record.assessed,
    }


def image_facts(record: Record, image: ImageRecord) -> Pairs:
    """How an image was analysed."""
    info = image.info
    rows = [("Image", info.id), ("Size", "{:,} × {:,} px".format(*info.size)), ("Reader", info.reader)]
    rows += [("Status", record.status_of([image]))]
    rows += list(image.analysis.items()) if record.assessed else []
    rows += [("Notes", " ".join(info.notes))] if info.notes else []
    return rows


def is_identifying(info: ImageInfo) -> bool:
    """Whether the pixels of an image must not be shown, since its file states that they identify the patient."""
    return dict(info.facts).get("burned_in_risk") == "yes"


def place_block(
    image: ImageRecord, planes: Sequence[int], turned: Orientation, size: tuple[int, int], start: int, **more: object
) -> str:
    """A data block: how a picture of `size` (width, height) of some planes lies, and at which of these it begins."""
    info = image.info
    place, arrays = placing(image, turned, size)
    if info.kind == "study" and not holds_in_patient(info):
        arrays.pop("lengths", None)
    sides = [edges(info, plane) for plane in planes] if info.kind == "study" else []
    place |= {
        "name": image.name or info.id,
        "id": info.id,
        "planes": [plane + 1 for plane in planes],
        "plane_count": len(info.planes),
        "sides": [None if side is None else [side.left, side.right, side.top, side.bottom] for side in sides],
        "window": _window(image),
        "start": start,
        "unscaled": "lengths" not in arrays,
    }
    return data_block(place | more, arrays)


def _window(image: ImageRecord) -> str:
    """How the values of an image became black and white, in a sentence."""
    if window := image.analysis.get("Window"):
        return f"Window {window}."
    stretch = image.analysis.get("Stretch", "")
    return f"Black to white: {stretch}." if stretch else ""


def _outcome(rows: Sequence[ImageSummary], count: int) -> str:
    """What was found, in a sentence."""
    if not count:
        return no_finding(complete=all(row.image.complete for row in rows))
    labels: dict[str, int] = {}
    for row in rows:
        for of in row.labels.values():
            labels[of.label] = labels.get(of.label, 0) + of.findings
    order = sorted((label for label in labels if labels[label]), key=lambda label: -labels[label])
    named = ", ".join(f"{labels[label]:,} {label[:80] or '(no label)'}" for label in order[:6])
    more = f" and {len(order) - 6} more labels" if len(order) > 6 else ""
    where = f" in {len(rows):,} images" if len(rows) > 1 else ""
    return f"{count:,} {'finding' if count == 1 else 'findings'}{where}: {named}{more}."
