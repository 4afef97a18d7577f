"""Labels of a probe from reviews of runs: what was accepted, relabelled and drawn, and on request what was rejected."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from shapely.geometry.base import BaseGeometry

from ...model.annotator import UNDECIDED
from ...model.findings_table import spans
from ...model.merged_findings import columnar
from ...model.training.tile_labels import Outline
from ...readers.errors import RequestError
from ...readers.files import read_file
from ...readers.image import ImageInfo
from ...reports.writer import ImageRecord
from ..review.actions import polygon
from ..review.decisions import Decision
from ..review.export import by_image, checked
from ..review.joint import JointReview, find_reviews, read_joint
from ..run.reporting import read_record
from ..run.run_files import as_store_errors
from .outlines import Labels

BLOCK_TILES: Final = 10
"""Side, in tiles, of the squares that are never split over folds where labels come from reviews: neighbouring tiles
that were reviewed one by one look alike."""

_REJECTED: Final = "rejected findings without --rejected"
_OTHER_IMAGE: Final = "reviewed findings on images that are not read"


def review_files(reviews: Sequence[str]) -> list[tuple[Path, list[Path]]]:
    """The run and the files of each `RUN`, or `RUN=REVIEW` with a file or a reviewer. Raises `RequestError`."""
    found: list[tuple[Path, list[Path]]] = []
    for text in reviews:
        run, given, name = (text, "", "") if Path(text).is_dir() else text.rpartition("=")
        found.append((Path(run or text), find_reviews(Path(run or text), [name] if given else [])))
    return found


def add_reviews(
    labels: Labels, reviews: Sequence[tuple[Path, Sequence[Path]]], infos: Sequence[ImageInfo], *, rejected: str = ""
) -> Labels:
    """Labels with those of reviews, whose findings lie on these images.

    reviews: runs with the files of their reviews. Findings on which reviewers disagree are not used.
    infos: the images, which are those of the runs where their content is the same.
    rejected: the class of findings that were rejected; "" to leave them out.

    Raises `RequestError` for reviews without labels on the images, and for those that `read_joint` refuses.
    """
    outlines = {image: [*several] for image, several in labels.outlines.items()}
    left_out, digests, added = Counter(labels.left_out), dict(labels.digests), 0
    for number, (run, files) in enumerate(reviews, 1):
        record = read_record(run)
        joint = read_joint(files, record=record)
        left_out["findings on which reviewers disagree"] += len(joint.unresolved)
        left_out["incomplete last lines of reviews"] += len(joint.notices)
        decided = by_image(joint)
        for image in record.images:
            taken = decided.get(image.info.id, [])
            info = next((one for one in infos if _is_same(one, image.info)), None)
            if info is None:
                left_out[_OTHER_IMAGE] += len(taken)
                continue
            for key, label, geometry in _labels(image, taken, joint, rejected, left_out):
                outlines.setdefault(info.id, []).append(Outline(label, geometry, f"review {number}:{key}"))
                added += 1
        with as_store_errors(run):
            content = b"".join(hashlib.sha256(read_file(file)).digest() for file in files)
        digests[f"review {number}"] = hashlib.sha256(content).hexdigest()
    if not added:
        left = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()) if count)
        remedy = "Accept, relabel or draw findings on these images"
        raise RequestError("--review", "must give labels", value=left or "nothing reviewed", remedy=remedy)
    sorted_outlines = {image: tuple(several) for image, several in sorted(outlines.items())}
    return replace(labels, outlines=sorted_outlines, digests=digests, left_out=left_out)


def _labels(
    image: ImageRecord,
    decided: Sequence[tuple[str, int, Decision]],
    joint: JointReview,
    rejected: str,
    left_out: Counter[str],
) -> Iterator[tuple[str, str, BaseGeometry]]:
    """(key, label, geometry in level-0 pixels) of what is a label, in the order of findings."""
    found: list[tuple[int, str, str]] = []
    for key, number, decision in sorted(decided, key=lambda one: (one[1], one[0])):
        label = rejected if decision.outcome == "rejected" else decision.label
        if not label:
            left_out[_REJECTED] += 1
        elif label == UNDECIDED:
            left_out[f"findings that reviewers left {UNDECIDED}"] += 1
        elif number:
            found.append((number, key, label))
        else:
            yield key, label, polygon(decision.rings)
    source = columnar(image.findings())
    places = np.array([number - 1 for number, _, _ in found], dtype=np.intp)
    for span in spans(source.vertices[places]):
        rows = found[span]
        table = checked(joint, [key for _, key, _ in rows], source.take(places[span]))
        for (_, key, label), geometry in zip(rows, table.geometries.tolist(), strict=True):
            yield key, label, geometry


def _is_same(info: ImageInfo, reviewed: ImageInfo) -> bool:
    """Whether two images have the same content: where that is not known, the same name and size."""
    if info.fingerprint and reviewed.fingerprint:
        return (info.fingerprint, info.part, info.size) == (reviewed.fingerprint, reviewed.part, reviewed.size)
    return (info.id, info.size) == (reviewed.id, reviewed.size)
