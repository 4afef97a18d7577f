"""Findings in chunks: the same result however they are divided, read in batches."""

import numpy as np
import pytest
import shapely
from limner.model import findings_table, merged_findings, sorting
from limner.model.finding import Finding
from limner.model.findings_table import FindingsTable
from limner.model.merging import merge_across_regions, merge_chunks
from limner.model.sorting import connected


def scattered(rng: np.random.Generator, count: int) -> list[Finding]:
    """Pieces that touch others, whole areas, boxes in windows, and tiles, many of them in the same place."""
    made: list[Finding] = []
    for x, y, kind in rng.integers(0, [12, 12, 4], (count, 3)).tolist():
        shape = shapely.box(x, y, x + 1, y + 1)
        label, score = f"label {(x + y) % 2}", float(rng.random())
        if kind == 0:
            made.append(Finding(label, shape, "area", score, cut=True, numbers={"pixels": 1.0}))
        elif kind == 1:
            made.append(Finding(label, shape, "area", score, notes={"why": f"{x}"}))
        elif kind == 2:
            left = float(x // 4 * 4)
            made.append(Finding(label, shape, "box", score, window=(left, 0.0, left + 4, 16.0)))
        else:
            made.append(Finding(label, shape, "tile", score, text="one of two"[: x % 7], plane=y % 2))
    return list({(f.kind, f.label, f.plane, f.geometry.wkb) if f.cut else f.score: f for f in made}.values())


@pytest.mark.parametrize("small", [False, True])
def test_the_result_does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch, small: bool) -> None:
    rng = np.random.default_rng(3)
    found = scattered(rng, 300)
    expected = merge_across_regions(found)
    if small:
        for module, name, value in (
            (findings_table, "BATCH_VERTICES", 40),
            (findings_table, "BATCH", 9),
            (merged_findings, "_CACHED", 9000),
            (sorting, "_RUN", 23),
            (sorting, "_STRIP", 7),
        ):
            monkeypatch.setattr(module, name, value)
    shuffled = [found[place] for place in rng.permutation(len(found))]
    chunks = [FindingsTable.of(shuffled[start : start + 13]) for start in range(0, len(shuffled), 13)]
    merged = merge_chunks([*chunks, FindingsTable.of(())])
    assert list(merged) == expected
    assert (merged[3], merged[-1], list(merged[2:5])) == (expected[3], expected[-1], expected[2:5])
    assert list(merged.take(np.array([7, 0, 7]))) == [expected[7], expected[0], expected[7]]
    assert merged.vertices.tolist() == [shapely.get_num_coordinates(one.geometry) for one in expected]
    assert (merged.numbers, merged.notes, merged.planes, merged.polygonal) == (
        ("pixels", "tiles"),
        ("cut", "why"),
        (0, 1),
        True,
    )


def test_nothing_gives_nothing() -> None:
    assert list(merge_chunks([])) == []
    assert merge_chunks([]).polygonal


def test_boxes_are_connected_as_by_comparing_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "_STRIP", 11)
    rng = np.random.default_rng(5)
    corner, group = rng.integers(0, 60, (200, 2)), rng.integers(0, 3, 200)
    bounds = np.concatenate([corner, corner + rng.integers(1, 9, (200, 2))], axis=1).astype(float)
    sets = np.arange(200)
    for _ in range(200):
        before = sets.copy()
        for i in range(200):
            touch = (bounds[:, :2] <= bounds[i, 2:]).all(axis=1) & (bounds[:, 2:] >= bounds[i, :2]).all(axis=1)
            sets[i] = sets[touch & (group == group[i])].min()
        if (sets == before).all():
            break
    found = connected(bounds, group)
    assert len(np.unique(found)) == len(np.unique(sets)) < 150
    assert len({*zip(found.tolist(), sets.tolist(), strict=True)}) == len(np.unique(sets))


def test_batches_are_bounded_by_rows_and_by_vertices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings_table, "BATCH", 3)
    monkeypatch.setattr(findings_table, "BATCH_VERTICES", 10)
    counts = np.array([5, 5, 5, 20, 0, 1, 1, 1], dtype=np.int32)
    parts = [counts[span].tolist() for span in findings_table.spans(counts)]
    assert parts == [[5, 5], [5], [20], [0, 1, 1], [1]]
    assert list(findings_table.spans(counts[:0])) == []
    assert [span.stop for span in findings_table.spans(counts, rows=8, most=15)] == [3, 4, 8]


def test_chunks_that_were_read_are_kept_up_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    tables = [FindingsTable.of(scattered(np.random.default_rng(seed), 40)).encoded for seed in range(4)]

    class Counted:
        def __init__(self, number: int) -> None:
            self.number = number

        def __len__(self) -> int:
            return len(tables[self.number])

        def read(self) -> FindingsTable:
            reads.append(self.number)
            return tables[self.number]

    starts = np.cumsum([0, *map(len, tables)])
    vertices = np.concatenate([table.vertices for table in tables])
    chunks = [Counted(number) for number in range(4)]
    found = merged_findings.in_order(chunks, vertices, numbers=(), notes=(), planes=(), polygonal=True)
    monkeypatch.setattr(merged_findings, "_CACHED", sum(table.memory for table in tables[:2]))
    for number in (0, 1, 0, 1, 2, 3, 1):
        found.take(starts[number : number + 1])
    assert reads == [0, 1, 2, 3, 1]
    found.forget()
    found.take(starts[1:2])
    assert reads[5:] == [1]
