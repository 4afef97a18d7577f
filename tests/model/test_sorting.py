"""Sorting of records that need not fit in memory, and those that touch."""

import numpy as np
import pytest
from limner.model import findings_table, sorting
from limner.model.sorting import DOWNWARD, ORDER, RECORD, Records, SortedRecords, connected, neighbours


def made(seed: int, count: int) -> Records:
    """Records of small boxes, many of them alike."""
    rng = np.random.default_rng(seed)
    records = np.zeros(count, dtype=RECORD)
    for name in ("x0", "y0"):
        records[name] = rng.integers(0, 40, count)
    records["x1"], records["y1"] = records["x0"] + rng.integers(1, 4, count), records["y0"] + rng.integers(1, 4, count)
    for name, most in (("label", 3), ("plane", 2), ("kind", 2), ("vertices", 9)):
        records[name] = rng.integers(0, most, count)
    records["row"] = np.arange(count)
    return records


def added(records: Records, keys: tuple[str, ...], parts: int) -> SortedRecords:
    found = SortedRecords(keys)
    for part in np.array_split(records, parts):
        found.add(part)
    return found


@pytest.mark.parametrize("run", [7, 50, 10_000])
def test_runs_that_are_merged_are_sorted_as_all_at_once(monkeypatch: pytest.MonkeyPatch, run: int) -> None:
    monkeypatch.setattr(sorting, "_RUN", run)
    records = made(1, 700)
    with added(records, ORDER, 90) as found:
        parts = list(found)
    assert (len(parts) == 1) == (run > 700)
    assert max(map(len, parts)) <= max(run, 90)
    everything = np.concatenate(parts)
    expected = np.sort(records, order=ORDER)
    for key in ORDER:
        np.testing.assert_array_equal(everything[key], expected[key])
    assert sorted(everything["row"].tolist()) == list(range(700))


def test_nothing_is_sorted_to_nothing() -> None:
    with added(made(1, 0), ORDER, 2) as found:
        assert list(found) == []
        assert len(found) == 0
    with added(made(1, 0), DOWNWARD, 1) as found:
        assert list(neighbours(found)) == []


@pytest.mark.parametrize("run", [5, 60, 10_000])
def test_neighbours_are_together_and_the_others_apart(monkeypatch: pytest.MonkeyPatch, run: int) -> None:
    monkeypatch.setattr(sorting, "_RUN", run)
    monkeypatch.setattr(findings_table, "BATCH_VERTICES", 1)  # each set is a part, so that they can be compared
    records = made(2, 500)
    records = records[records["vertices"] > 0]
    records["vertices"] = 1
    bounds = np.stack([records[side] for side in ("x0", "y0", "x1", "y1")], axis=1)
    sets = connected(bounds, records["label"].astype(np.int64) << 32 | records["plane"])
    rows = records["row"]
    expected = {frozenset(rows[sets == one].tolist()) for one in np.unique(sets).tolist()}
    assert len(expected) > 60
    with added(records, DOWNWARD, 30) as found:
        parts = [frozenset(part["row"].tolist()) for part in neighbours(found)]
    assert len(parts) == len(set(parts))
    assert set(parts) == expected


def test_neighbours_far_above_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "_RUN", 10)
    monkeypatch.setattr(findings_table, "BATCH", 10)
    lengths: list[int] = []
    of_boxes = sorting.connected
    monkeypatch.setattr(
        sorting,
        "connected",
        lambda bounds, *more, **known: lengths.append(len(bounds)) or of_boxes(bounds, *more, **known),
    )
    records = made(3, 400)
    records["y0"] = np.arange(400)
    records["y1"] = records["y0"] + 2
    records["x0"], records["x1"], records["label"], records["plane"] = 0, 1, 0, 0
    with added(records, DOWNWARD, 80) as found:
        [whole] = neighbours(found)
    assert len(whole) == 400  # one chain
    assert max(lengths) < 20  # of which only those that the next may touch were compared with it
