"""The findings of an image in files: what lies in view, and the rows of a table, are those of a plain loop."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from limner.model.finding import Finding
from limner.reports.html.layers import MOST_OUTLINES, Filter, Layers, LayersWriter, View
from limner.reports.measures import batches
from limner.reports.palette import Palette

Make = Callable[..., Any]
EVERY = Filter()


def unpacked(content: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and arrays of a data block."""
    length = int.from_bytes(content[:4], "little")
    header = json.loads(content[4 : 4 + length])
    kinds = {"Uint8Array": "u1", "Int32Array": "<i4", "Uint32Array": "<u4", "Float32Array": "<f4"}
    arrays, at = {}, 8 * -(-(4 + length) // 8)
    for name, kind, count in header["arrays"]:
        dtype = np.dtype(kinds[kind])
        arrays[name] = np.frombuffer(content, dtype, count, at)
        at += 8 * -(-(count * dtype.itemsize) // 8)
    return header, arrays


def outlines(arrays: dict[str, np.ndarray]) -> list[list[np.ndarray]]:
    """The rings of each finding in level-0 pixels."""
    stream = iter(arrays["outlines"].tolist())

    def number() -> int:
        value = shift = 0
        while (byte := next(stream)) > 127:
            value += (byte & 127) << shift
            shift += 7
        return value + (byte << shift)

    def step() -> int:
        value = number()
        return -(value + 1) // 2 if value % 2 else value // 2

    found = []
    for anchor in arrays["anchors"].reshape(-1, 2):
        rings = []
        for _ in range(number()):
            count = number()
            steps = np.array([step() for _ in range(2 * count)]).reshape(-1, 2)
            rings.append((anchor + np.cumsum(steps, axis=0)) / 8)
        found.append(rings)
    return found


def some(count: int, seed: int = 0) -> list[Finding]:
    """Boxes and stars of many sizes on 1000 × 800 px."""
    random = np.random.default_rng(seed)
    found = []
    for k in range(count):
        x, y, size = random.uniform(0, 900), random.uniform(0, 700), random.choice([1, 3, 12, 60])
        shape = shapely.box(x, y, x + size, y + size)
        if k % 5 == 0:
            shape = shapely.Point(x + 40, y + 40).buffer(min(size, 40), quad_segs=40)
        score = None if k % 7 == 0 else round(float(random.random()), 3)
        found.append(Finding(f"label {k % 3}", shape, "area", score, "A lake" if k % 11 == 0 else ""))
    return found


@pytest.fixture
def layers(tmp_path: Path, image: Make, record: Make, placement: Make) -> Callable[[list[Finding]], Layers]:
    """Writes findings and opens them again."""

    def make(findings: list[Finding]) -> Layers:
        run = record(image("a", placement(32618, 10, 0, 5e5, 0, -10, 4e6), findings))
        with LayersWriter(run, run.images[0], tmp_path / "layers") as writer:
            for batch in batches(run):
                writer.add(batch)
            writer.finish(Palette.of(run.labels, run.colours))
        return Layers.open(tmp_path / "layers")

    return make


def nothing(found: Layers) -> np.ndarray:
    return np.zeros(found.count, np.uint8)


def test_what_is_in_view_is_what_a_loop_over_all_finds(layers: Callable[..., Layers]) -> None:
    findings = some(3000)
    found = layers(findings)
    shown = found.visible(EVERY)
    for box in ((0, 0, 1000, 800), (100, 100, 140, 120), (-50, -50, 0.5, 900), (2000, 0, 3000, 10)):
        view = shapely.box(*box)
        expected = [k for k, one in enumerate(findings) if shapely.box(*one.geometry.bounds).intersects(view)]
        assert sorted(found.rows_in(View(box, 1.0), shown).tolist()) == expected


@pytest.mark.parametrize("step", [0.25, 2.0, 40.0])
def test_large_findings_are_outlines_and_the_others_dots(layers: Callable[..., Layers], step: float) -> None:
    findings = some(500)
    found = layers(findings)
    view = View((0, 0, 1000, 800), step)
    header, arrays = unpacked(found.in_view(view, found.visible(EVERY), -1, nothing(found)))
    sizes = [max(b[2] - b[0], b[3] - b[1]) for b in (one.geometry.bounds for one in findings)]
    large = {k for k, size in enumerate(sizes) if size >= 4 * step}
    assert header["count"] == 500
    assert set(arrays["row"].tolist()) == large
    dots = arrays["dots"].reshape(-1, 2)
    small = sorted(set(range(500)) - large)
    centres = np.array([[b[0] + b[2], b[1] + b[3]] for b in (findings[k].geometry.bounds for k in small)]) / 2
    for centre in centres:
        assert np.abs(dots - centre).max(axis=1).min() <= step * 1.001, "within its cell of two screen pixels"
    for dot, label in zip(dots, arrays["dot_label"], strict=True):
        inside = [
            found.label[k] for k, near in zip(small, np.abs(centres - dot).max(axis=1), strict=True) if near <= step
        ]
        assert inside.count(label) == max(map(inside.count, inside)), "the label that most of them have"
    for row, rings in zip(arrays["row"].tolist(), outlines(arrays), strict=True):
        shape = shapely.Polygon(rings[0], rings[1:])
        difference = shapely.symmetric_difference(shape.buffer(0), findings[row].geometry).area
        assert difference <= findings[row].geometry.length * max(0.2, step * 0.6), row


def test_a_large_outline_is_clipped_to_the_view(layers: Callable[..., Layers]) -> None:
    circle = shapely.Point(500, 400).buffer(300, quad_segs=400)
    found = layers([Finding("lake", circle, "area", 0.5)])
    box = (700.0, 300.0, 760.0, 360.0)
    _, arrays = unpacked(found.in_view(View(box, 0.1), found.visible(EVERY), -1, nothing(found)))
    (rings,) = outlines(arrays)
    assert len(rings[0]) < 60 < shapely.get_num_coordinates(circle)
    seen = shapely.box(*box) & shapely.Polygon(rings[0]).buffer(0)
    assert seen.symmetric_difference(shapely.box(*box) & circle).area < 1


def test_of_too_many_outlines_the_largest_are_sent(layers: Callable[..., Layers]) -> None:
    count = MOST_OUTLINES + 300
    boxes = [shapely.box(k % 150, k // 150, k % 150 + 5 + k / count, k // 150 + 1) for k in range(count)]
    found = layers([Finding("box", one, "box", 0.5) for one in boxes])
    _, arrays = unpacked(found.in_view(View((0, 0, 500, 500), 1.0), found.visible(EVERY), 5, nothing(found)))
    assert MOST_OUTLINES - 2 <= len(arrays["row"]) <= MOST_OUTLINES + 1
    assert 5 in arrays["row"], "the finding that was asked for is never a dot"
    assert set(arrays["row"].tolist()) - {5} >= set(range(400, count))
    assert len(arrays["dots"]) > 0


def test_filters_and_orders_are_those_of_a_loop(layers: Callable[..., Layers]) -> None:
    findings = some(2000)
    found = layers(findings)
    hidden = [one["label"] for one in found.labels].index("label 1")
    shown = found.visible(Filter(frozenset({hidden}), 0.25, 0.75))
    expected = [one.label != "label 1" and one.score is not None and 0.25 <= one.score <= 0.75 for one in findings]
    assert shown.tolist() == expected
    assert found.visible(Filter(search="lake")).tolist() == [k % 11 == 0 for k in range(2000)]
    assert np.flatnonzero(found.visible(Filter(search="17"))).tolist() == [16], "a number"
    score = [one["name"] for one in found.columns].index("score")
    every = found.visible(EVERY)
    up = [findings[k].score for k in found.sorted_rows(every, score, down=False).tolist()]
    known = [one for one in up if one is not None]
    assert known == sorted(known)
    assert up[len(known) :] == [None] * (2000 - len(known)), "what has no score comes last"
    down = [findings[k].score for k in found.sorted_rows(every, score, down=True).tolist()]
    assert [one for one in down if one is not None] == known[::-1]
    assert down[-1] is None
    text = [one["name"] for one in found.columns].index("text")
    ordered = found.sorted_rows(every, text, down=False)
    assert [findings[k].text for k in ordered.tolist()][:200] == ["A lake"] * 182 + [""] * 18


def test_rows_of_the_table_have_the_values_of_findings_csv(layers: Callable[..., Layers]) -> None:
    findings = some(50)
    found = layers(findings)
    rows = found.table(np.array([0, 7, 33]))
    names = [one["name"] for one in found.columns]
    for row, k in zip(rows, (0, 7, 33), strict=True):
        assert row["bounds"] == pytest.approx(findings[k].geometry.bounds, rel=1e-5)
        assert row["cells"][names.index("score")] == findings[k].score
        assert row["cells"][names.index("text")] == findings[k].text
    assert found.label_counts() == [17, 17, 16]


def test_an_image_without_findings(layers: Callable[..., Layers]) -> None:
    found = layers([])
    header, _ = unpacked(found.in_view(View((0, 0, 9, 9), 1.0), found.visible(EVERY), -1, nothing(found)))
    assert (found.count, header["count"], found.columns) == (0, 0, [])
    assert found.sorted_rows(found.visible(EVERY), -1, down=False).tolist() == []


def test_hostile_texts_come_back_as_they_are(layers: Callable[..., Layers]) -> None:
    texts = ["</script><script>", "\ud800 surrogate", "مرحبا", "x" * 10_000, ""]
    found = layers([Finding(f"{t}!", shapely.box(0, 0, 9, 9), "area", 0.5, t) for t in texts])
    at = [one["name"] for one in found.columns].index("text")
    shown = {row["cells"][at] for row in found.table(np.arange(5))}
    assert {"</script><script>", "مرحبا", "\ufffd surrogate", ""} < shown
    assert any(text.startswith("x" * 2000) and "10,000 characters" in text for text in shown)
