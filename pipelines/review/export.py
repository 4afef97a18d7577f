"""The findings of a run after its review, as a record that every report writer takes, and its export."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from ...model.finding import Finding
from ...model.findings_table import Chunk, FindingsTable, Index, objects, spans
from ...model.merged_findings import MergedFindings, columnar, in_order
from ...readers.errors import RequestError
from ...reports.columns import REVIEWED
from ...reports.writer import ImageRecord, Record
from ..overlay.folders import new_folder, write_layers, write_statements
from ..run.reporting import load_writers
from ..run.run_files import StoreError
from .actions import is_outline, polygon, split_key
from .decisions import Decision
from .joint import JointReview
from .review import finding_checks

EXPORTS: Final[Mapping[str, str]] = {"qupath": "qupath", "qgis": "geopackage", "csv": "findings-csv"}
"""Program → the report writer that it is written with."""

_NUMBER: Final = f"{REVIEWED}run_finding"
_NOTES: Final = tuple(f"{REVIEWED}{name}" for name in ("review", "review_label", "reviewer", "reviewed_at"))
_COMMENT: Final = f"{REVIEWED}review_comment"
_LABEL: Final = f"{REVIEWED}model_label"
_UNTOUCHED: Final = ("not reviewed", None, None, None)


def reviewed_record(record: Record, joint: JointReview, *, rejected: bool = False) -> Record:
    """The run with the decisions of a review: labels as reviewers gave them, then what they drew.

    `rejected` keeps findings that were rejected, which are marked. Findings are read when a writer asks for them, and
    writing raises `StoreError` where one is not the one that was reviewed.
    """
    given = {one.label for one in joint.decisions.values() if one.outcome in {"relabelled", "drawn"}}
    decided = by_image(joint)
    images = tuple(
        _reviewed_image(image, joint, decided.get(image.info.id, ()), rejected=rejected) for image in record.images
    )
    return replace(record, images=images, labels=(*record.labels, *sorted(given - {*record.labels})))


def export_review(record: Record, joint: JointReview, out: Path, kinds: Sequence[str], *, rejected: bool) -> list[Path]:
    """Write a run after its review into the new folder `out`: for each kind of `EXPORTS` its files, and about.json.

    Raises `RequestError` for a folder that exists or a kind that suits no image, and `StoreError` where it cannot be
    written.
    """
    reviewed = reviewed_record(record, joint, rejected=rejected)
    for kind in kinds:
        [writer] = load_writers([EXPORTS[kind]])
        omitted = writer.omitted(reviewed)
        if reviewed.images and len(omitted) == len(reviewed.images):
            remedy = f"Give another of {', '.join(EXPORTS)}"
            raise RequestError(f"--to {kind}", "must suit an image", value=next(iter(omitted.values())), remedy=remedy)
    with new_folder(out) as part:
        paths = write_layers(reviewed, part, "reviewed", [EXPORTS[kind] for kind in kinds])
        counts = Counter(one.outcome for one in joint.decisions.values() if one.outcome)
        more = {
            "reviewers": list(joint.reviewers),
            "preferred": list(joint.prefer),
            "decisions": dict(sorted(counts.items())),
            "conflicts": len(joint.unresolved),
            "rejected": "kept and marked" if rejected else "left out",
        }
        paths.append(write_statements(part, record.use, (), more))
    return [out / path.name for path in paths]


def by_image(joint: JointReview) -> dict[str, list[tuple[str, int, Decision]]]:
    """(key, number, decision) of the findings with a decision that holds, by image; the number of a drawn one is 0."""
    found: dict[str, list[tuple[str, int, Decision]]] = {}
    for key, decision in joint.decisions.items():
        if decision.outcome:
            image, number = (decision.image, 0) if is_outline(key) else split_key(key)
            found.setdefault(image, []).append((key, number, decision))
    return found


def checked(joint: JointReview, keys: Sequence[str], table: FindingsTable) -> FindingsTable:
    """A table of findings. Raises `StoreError` where one is not the one that was reviewed."""
    for key, label, check in zip(keys, table.label.tolist(), finding_checks(table), strict=True):
        if joint.findings.get(key, (label, check)) != (label, check):
            rule, remedy = "must be the one that was reviewed", "Use the version of limner with which it was reviewed"
            raise StoreError(f"finding {key}", rule, value=f"{label}, elsewhere or of another label", remedy=remedy)
    return table


def _reviewed_image(
    image: ImageRecord, joint: JointReview, decided: Sequence[tuple[str, int, Decision]], *, rejected: bool
) -> ImageRecord:
    name = image.info.id

    @cache
    def findings() -> MergedFindings:
        source = columnar(image.findings())
        kept = np.ones(len(source), dtype=np.bool_)
        numbers = [number for _, number, one in decided if one.outcome == "rejected"]
        kept[[number - 1 for number in numbers if number <= len(source)]] = rejected
        places = np.flatnonzero(kept)
        outline_rows = FindingsTable.of(_outline(one) for _, _, one in decided if one.outcome == "drawn")
        vertices = source.vertices[places]
        chunks: list[Chunk] = [_ReviewedChunk(name, source, places[span], joint) for span in spans(vertices)]
        planes = source.planes if isinstance(source, MergedFindings) else source.plane.tolist()
        return in_order(
            [*chunks, outline_rows],
            np.concatenate([vertices, outline_rows.vertices]),
            numbers={*source.numbers, _NUMBER},
            notes={*source.notes, *_NOTES, _COMMENT, _LABEL},
            planes={*planes, *outline_rows.plane.tolist()},
            polygonal=source.polygonal,
        )

    return replace(image, findings=findings)


@dataclass(frozen=True, slots=True)
class _ReviewedChunk:
    """Findings of the run at some places, with the decisions on them."""

    image: str
    source: FindingsTable | MergedFindings
    places: Index
    joint: JointReview

    def __len__(self) -> int:
        return len(self.places)

    def read(self) -> FindingsTable:
        """The findings. Raises `StoreError` where one is not the one that was reviewed."""
        keys = [f"{self.image}/{place + 1}" for place in self.places.tolist()]
        table = checked(self.joint, keys, self.source.take(self.places))
        unresolved = self.joint.unresolved
        labels = table.label.tolist()
        notes: list[tuple[str | None, ...]] = []
        comments: list[str | None] = []
        for row, key in enumerate(keys):
            decision, conflict = self.joint.decisions.get(key), unresolved.get(key)
            comments.append(decision.comment or None if decision else None)
            if conflict is not None:
                last = max(one.at for one in conflict.decisions.values())
                notes.append(("conflict", None, ", ".join(conflict.decisions), last))
            elif decision is None or decision.outcome is None:
                notes.append(_UNTOUCHED)
            else:
                labels[row] = decision.label
                given = None if decision.outcome == "rejected" else decision.label
                notes.append((decision.outcome, given, decision.by, decision.at))
        columns = {name: objects(values) for name, values in zip(_NOTES, zip(*notes, strict=True), strict=True)}
        columns |= {_COMMENT: objects(comments), _LABEL: table.label}
        numbers = {**table.numbers, _NUMBER: self.places + 1.0}
        return replace(table, label=objects(labels), notes={**table.notes, **columns}, numbers=numbers)


def _outline(decision: Decision) -> Finding:
    """A drawn outline as a finding."""
    notes = dict(zip(_NOTES, ("drawn", decision.label, decision.by, decision.at), strict=True))
    notes |= {_COMMENT: decision.comment} if decision.comment else {}
    return Finding(decision.label, polygon(decision.rings), "area", notes=notes, plane=decision.plane)
