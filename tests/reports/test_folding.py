"""A long sheet folds into strips: every pixel and every finding goes where its slice goes, and nothing is lost."""

from dataclasses import replace

import numpy as np
import pytest
import shapely
from limner.model.finding import Finding
from limner.readers.geometry import Box, Placement
from limner.readers.image import Cell, Channel, ImageInfo
from limner.reports.folding import Fold
from limner.reports.writer import ImageRecord, Overview, Patch

SIDE, COLUMNS = 10, 2


def sheet(count: int) -> ImageInfo:
    rows = -(-count // COLUMNS)
    cells = tuple(
        Cell(Box(x, y, x + SIDE, y + SIDE), f"s{k}", 1, "f", None, Placement.pixels())
        for k in range(count)
        for y, x in [(k // COLUMNS * SIDE * 1.0, k % COLUMNS * SIDE * 1.0)]
    )
    return ImageInfo("u", "dicom", (COLUMNS * SIDE, rows * SIDE), (Channel("grey"),), Placement.pixels(), cells=cells)


@pytest.mark.parametrize("count", [2, 5, 8, 23, 60, 61])
def test_every_slice_and_its_finding_move_together(count: int) -> None:
    info = sheet(count)
    width, height = info.size
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    for k, cell in enumerate(info.cells):
        pixels[int(cell.box.y0) : int(cell.box.y1), int(cell.box.x0) : int(cell.box.x1)] = k + 1
    valid = pixels[..., 0] > 0
    boxes = [shapely.box(*(cell.box.x0 + 1, cell.box.y0 + 1, cell.box.x1 - 1, cell.box.y1 - 1)) for cell in info.cells]
    findings = [Finding(f"{k + 1}", box, "box") for k, box in enumerate(boxes)]
    patches = tuple(Patch(cell.box, "skipped", "why") for cell in info.cells)
    whole = Overview(pixels, valid, np.ones_like(valid), (1.0, 1.0))
    image = ImageRecord(info, lambda: findings, lambda: whole, (), patches=patches, interest=shapely.union_all(boxes))
    folded = Fold.of(info).record(image)
    seen = folded.overview()
    assert seen is not None
    assert seen.valid.sum() == valid.sum()
    assert seen.pixels.shape[:2] == folded.info.size[::-1]
    assert max(folded.info.size) <= 3 * min(folded.info.size) or count < 8
    assert [f.label for f in folded.findings()] == [f.label for f in findings]
    for finding in folded.findings():
        x0, y0, x1, y1 = map(int, finding.geometry.bounds)
        assert (seen.pixels[y0:y1, x0:x1] == int(finding.label)).all()
    assert folded.interest is not None
    assert folded.interest.area == pytest.approx(64 * count)
    assert {p.box for p in folded.patches} >= {
        Box(*f.geometry.buffer(1, join_style="mitre").bounds) for f in folded.findings()
    }


def test_what_lies_on_two_strips_is_shown_on_both() -> None:
    info = sheet(60)
    fold = Fold.of(info)
    assert fold.count > 1
    across = shapely.box(2, fold.height - 5, 6, fold.height + 5)
    image = ImageRecord(info, lambda: [Finding("a", across, "area")], lambda: None, ())
    pieces = [f.geometry.bounds for f in fold.record(image).findings()]
    assert pieces == [(2, fold.height - 5, 6, fold.height), (2 + fold.width, 0, 6 + fold.width, 5)]


def test_other_pictures_stay_as_they_are() -> None:
    info = replace(sheet(2), cells=(), size=(10, 5000))
    image = ImageRecord(info, list, lambda: None, ())
    assert Fold.of(info).record(image) is image
