"""The table of a stack's findings on the page of a study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ...model.merged_findings import columnar
from ...readers.image import ImageInfo, Kind
from ..columns import FINDINGS, findings_columns
from ..measures import FindingsBatch
from ..palette import Palette
from ..patient_geometry import box_sizes_mm, centres_lps_mm
from ..table import Column
from ..writer import ImageRecord, Record
from .key_images import FindingsIndex
from .page import shorten
from .tables import PageTable, Shown, page_table

_MOST_OWN: Final = 12  # columns of a model's own


def holds_in_patient(info: ImageInfo) -> bool:
    """Whether the pixel size of an image holds in the patient."""
    return dict(info.facts).get("spacing_source") in {"pixel_spacing", "pixel_spacing_calibrated"}


@dataclass(frozen=True)
class ListedFindings:
    """Findings of a stack that a page lists: a row each."""

    batch: FindingsBatch
    """Their values; numbers and identifiers are those below."""
    numbers: Sequence[int]
    """The number of each within the image, from 1."""
    uids: Sequence[str]
    palette: Palette
    figures: Mapping[int, str]
    """The id of the picture of a plane."""

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def kind(self) -> Kind:
        """Always a study."""
        return "study"

    @property
    def sizes(self) -> list[str]:
        """Width and height: in mm where these hold in the patient, else in pixels."""
        info, bounds = self.batch.image.info, self.batch.bounds
        if holds_in_patient(info):
            return [f"{w:.1f} × {h:.1f} mm" for w, h in box_sizes_mm(info, bounds).tolist()]
        return [f"{w:.0f} × {h:.0f} px" for w, h in (bounds[:, 2:] - bounds[:, :2]).tolist()]

    @property
    def places(self) -> list[str]:
        """The point on each in the patient (LPS); "" where not known."""
        places = np.round(centres_lps_mm(self.batch.planes, self.batch.point), 1) + 0.0
        return ["" if np.isnan(xyz).any() else "{:.1f}, {:.1f}, {:.1f}".format(*xyz) for xyz in places]

    @property
    def links(self) -> list[str]:
        """The id of the picture of each, "" where its slice is not shown."""
        return [self.figures.get(plane, "") for plane in self.batch.table.plane.tolist()]

    @property
    def colours(self) -> list[str]:
        """The colour of each."""
        return [self.palette[label] for label in self.batch.table.label.tolist()]


def _of_listed(column: Column[FindingsBatch]) -> Column[ListedFindings]:
    """A column of findings, for those that a page lists."""

    def values(rows: ListedFindings) -> object:
        return column.values(rows.batch)

    decimals = column.decimals if isinstance(column.decimals, int) else None
    return Column(column.name, column.dtype, column.description, values, column.unit, decimals, column.kinds)


_FINDING: Final = {column.name: _of_listed(column) for column in FINDINGS}
_COLUMNS: Final[tuple[Shown[ListedFindings], ...]] = (
    Shown(Column("finding", "int64", "", lambda rows: rows.numbers), "no.", "number"),
    Shown(_FINDING["label"], "label", "label", lambda rows: rows.colours),
    Shown(_FINDING["score"], "score", "number"),
    Shown(Column("size", "string", "", lambda rows: rows.sizes), "size, width × height", "number"),
    Shown(_FINDING["slice"], "slice", "number", links=lambda rows: rows.links),
    Shown(Column("place", "string", "", lambda rows: rows.places, "mm"), "place (LPS)", "number"),
    Shown(_FINDING["laterality_geometry"], "side"),
    Shown(_FINDING["text"], "the model's words", "words"),
)
_UID: Final[Shown[ListedFindings]] = Shown(
    Column("finding_uid", "string", "", lambda rows: rows.uids), "finding_uid", "id"
)


def findings_table(
    record: Record,
    image: ImageRecord,
    index: FindingsIndex,
    *,
    name: str,
    most: int,
    palette: Palette,
    figures: Mapping[int, str],
) -> PageTable:
    """The findings on the pictures and those that come first, in the order of their numbers.

    `figures` are the ids of the pictures of planes. Of a volume only outlines on the pictures are listed.
    """
    volume, ranked = image.label_maps is not None, index.ranked()
    pictured = np.isin(index.columns[1][ranked], list(figures))
    rows = np.sort((ranked[pictured] if volume else np.concatenate([ranked[pictured], ranked[~pictured]]))[:most])
    table = columnar(image.findings()).take(rows)
    uids = index.uids(rows.tolist())
    found = ListedFindings(FindingsBatch(record, image, table), (rows + 1).tolist(), uids, palette, figures)
    own = [one for one in findings_columns(record, table) if one.name.startswith(("number.", "note."))]
    note = ""
    if left := len(index) - len(rows):
        which = "those on the pictures first, then those with the highest score, or the largest"
        which = "the outlines on the pictures" if volume else which
        note = f"{len(rows):,} of {len(index):,} are listed: {which}. {left:,} more are in findings.csv."
    columns = [*_COLUMNS, *map(_own_column, own[:_MOST_OWN]), _UID]
    return page_table(name, f"Findings in {image.info.id}", columns, [found], note=note, rest="findings.csv")


def _own_column(column: Column[FindingsBatch]) -> Shown[ListedFindings]:
    """A column of the model's own: number.NAME or note.NAME."""
    kind, _, name = column.name.partition(".")
    return Shown(_of_listed(column), shorten(name, 80), "number" if kind == "number" else "words")
