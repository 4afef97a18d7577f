"""The page of a run: what its file holds, and that it holds nothing else."""

import base64
import csv
import hashlib
import json
import re
import stat
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from limner.model.finding import Finding
from limner.reports.columns import FindingsCsv
from limner.reports.contract import check_writer, hostile_record
from limner.reports.html.embedding import encode_outlines, take_outlines
from limner.reports.html.run_page import HtmlOptions, HtmlReport
from limner.reports.palette import Palette
from limner.reports.writer import FileRow, Record

Make = Callable[..., Any]
HOSTILE = "</script><script>document.title = 'x'; console.error('ran')</script>\"'<img src=x onerror=alert(2)>"


def blocks(html: str, name: str) -> list[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """The data blocks of a class, decoded."""
    types = {"Uint8Array": "u1", "Int32Array": "i4", "Uint32Array": "u4", "Float32Array": "f4", "Float64Array": "f8"}
    found: list[tuple[dict[str, Any], dict[str, np.ndarray]]] = []
    for text in re.findall(rf'<script type="text/plain" class="{name}">([^<]*)</script>', html):
        content = zlib.decompress(base64.b64decode(text, validate=True))
        length = int.from_bytes(content[:4], "little")
        header, at, arrays = json.loads(content[4 : 4 + length]), -(-(4 + length) // 8) * 8, dict[str, np.ndarray]()
        for array, kind, count in header.pop("arrays"):
            arrays[array] = np.frombuffer(content, f"<{types[kind]}", count, at)
            at += -(-arrays[array].nbytes // 8) * 8
        assert at == len(content)
        found.append((header, arrays))
    return found


def decoded(encoded: np.ndarray, anchors: np.ndarray) -> list[list[np.ndarray]]:
    """The rings of each finding in level-0 pixels, by the description of the format."""
    values, number, shift = list[int](), 0, 0
    for byte in encoded.tolist():
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            values.append(number)
            number = shift = 0
    rest, found = iter(values), list[list[np.ndarray]]()
    for anchor in anchors:
        rings: list[np.ndarray] = []
        for _ in range(next(rest)):
            steps = np.array([next(rest) for _ in range(2 * next(rest))]).reshape(-1, 2)
            rings.append((anchor + np.cumsum(np.where(steps % 2, -(steps + 1) // 2, steps // 2), axis=0)) / 8)
        found.append(rings)
    assert next(rest, None) is None
    return found


def written(record: Record, folder: Path, **options: int) -> str:
    """The page of a run."""
    (path,) = HtmlReport(HtmlOptions(**options)).write(record, folder)
    assert path.name == "report.html"
    return path.read_text(encoding="utf-8")


def test_the_writer_holds_the_contract(tmp_path: Path) -> None:
    check_writer(HtmlReport(), None, tmp_path)


def test_outlines_come_back_as_they_were() -> None:
    random = np.random.default_rng(4)
    hole: Any = shapely.box(10, 10, 40, 40).difference(shapely.box(20, 20, 30, 30))
    far = shapely.box(2**23 - 9, 2**23 - 9.125, 2**23, 2**23)
    shapes: list[Any] = [hole, shapely.MultiPolygon([shapely.box(0, 0, 1, 1), hole]), shapely.Polygon(), far]
    shapes += [shapely.Polygon(random.integers(-500, 5000, (7, 2)) / 8) for _ in range(50)]
    shapes += [shapely.LineString([(0, 0), (4, 5)])]
    encoded, lengths, anchors = encode_outlines(np.array(shapes, dtype=object), 1.0)
    assert len(encoded) == lengths.sum()
    for shape, rings in zip(shapes, decoded(encoded, anchors), strict=True):
        parts = [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon"] or [shape.envelope]
        expected = [] if shape.is_empty else [np.array(ring.coords)[:-1] for ring in shapely.get_rings(parts).tolist()]
        assert [ring.tolist() for ring in rings] == [ring.tolist() for ring in expected]
    rows = np.array([3, 0, 2, 1])
    some = decoded(take_outlines(encoded, lengths, rows), anchors[rows])
    every = decoded(encoded, anchors)
    assert [[ring.tolist() for ring in one] for one in some] == [[ring.tolist() for ring in every[row]] for row in rows]


def test_only_rich_outlines_are_simplified_and_only_where_the_picture_is_coarser() -> None:
    circle, box = shapely.Point(500, 500).buffer(400, quad_segs=200), shapely.box(0, 0, 3, 3)
    shapes = np.array([circle, box], dtype=object)
    exact, coarse = (encode_outlines(shapes, coarseness) for coarseness in (1.0, 8.0))
    assert coarse[1][0] < exact[1][0] / 5
    assert coarse[1][1] == exact[1][1]
    (ring,), _ = decoded(coarse[0], coarse[2])
    assert shapely.hausdorff_distance(shapely.Polygon(ring).exterior, circle.exterior) < 8 / 4 + 0.1


def test_a_page_has_the_values_of_findings_csv(tmp_path: Path, image: Make, record: Make, placement: Make) -> None:
    utm = placement(32618, 10, 0, 5e5, 0, -10, 4e6)
    random = np.random.default_rng(2)
    corners = random.uniform(0, 700, (40, 2))
    findings = [
        Finding(("water", "land")[k % 2], shapely.box(x, y, x + 9 + k, y + 7), "area", None if k == 5 else k / 40)
        for k, (x, y) in enumerate(corners.tolist())
    ]
    findings[3] = replace(findings[3], text="Blue 1 < 2", numbers={"depth": 2.5}, notes={"by": "x"})
    run = record(image("a", utm, findings))
    header, arrays = blocks(written(run, tmp_path), "found")[0]
    FindingsCsv().write(run, tmp_path)
    rows = list(csv.DictReader((tmp_path / "findings.csv").open(encoding="utf-8", newline="")))
    assert [header["labels"][code]["label"] for code in arrays["label"]] == [row["label"] for row in rows]
    assert header["labels"][0]["label"] == "land", "labels are in the order of the model"
    shown = {column["name"]: (column, arrays[f"column{at}"]) for at, column in enumerate(header["columns"])}
    assert list(shown) == ["score", "area_m2", "lon", "lat", "text", "number.depth", "note.by"]
    for name, (column, values) in shown.items():
        cells = [row[name] for row in rows]
        if column["type"] == "text":
            assert [column["texts"][code] for code in values] == cells
        elif column["decimals"] is None:
            assert [float(cell or "nan") for cell in cells] == pytest.approx(values.tolist(), rel=1e-7, nan_ok=True)
        else:
            exact = [
                "" if value == -(2**31) else f"{value / 10 ** column['decimals']:.{column['decimals']}f}"
                for value in values.tolist()
            ]
            assert exact == cells


def test_what_does_not_fit_is_left_out_and_told(tmp_path: Path, image: Make, record: Make, placement: Make) -> None:
    place = placement(32618, 10, 0, 5e5, 0, -10, 4e6)

    def some(count: int) -> list[Finding]:
        return [
            Finding("land", shapely.box(k, 0, k + 1, 1 + k % 3), "box", (k * 7 % count) / count) for k in range(count)
        ]

    run = record(image("a", place, some(30)), image("b", place, some(8)), image("c", place, some(100)))
    html = written(run, tmp_path, findings=60)
    kept = blocks(html, "found")
    assert [(header["listed"], header["count"]) for header, _ in kept] == [(20, 30), (8, 8), (32, 100)]
    best = sorted(range(30), key=lambda k: -(k * 7 % 30))[:20]
    assert kept[0][1]["number"].tolist() == sorted(k + 1 for k in best)
    assert "This page holds 60 of 138 findings" in html
    assert "All are in findings.csv" in html
    assert "This page holds" not in written(run, tmp_path, findings=138)
    few = written(run, tmp_path, images=2)
    assert "The first 2 of 3 images are shown" in few
    assert len(blocks(few, "place")) == 2
    assert "138 findings in 3 images" in few


def test_memory_does_not_grow_with_the_findings(image: Make, record: Make, placement: Make) -> None:
    from limner.reports.html.listed import ListedFindings, Room
    from limner.reports.measures import FindingsBatch

    run = record(image("a", placement(32618, 10, 0, 5e5, 0, -10, 4e6)))
    listed = ListedFindings(run, run.images[0], Room(100, 1 << 20, 1000))
    for first in range(0, 5000, 50):
        batch = [
            Finding("land", shapely.box(k, 0, k + 1, 1), "box", (k * 13 % 997) / 997) for k in range(first, first + 50)
        ]
        listed.add(FindingsBatch(run, run.images[0], batch, first + 1))
        assert sum(len(part.number) for part in listed._parts) <= 250  # noqa: SLF001 - what it holds
    listed.block({}, Palette({}))
    assert (listed.count, listed.listed) == (5000, 100)


def test_outlines_have_a_limit_of_bytes_too(image: Make, record: Make, placement: Make) -> None:
    from limner.reports.html.listed import ListedFindings, Room
    from limner.reports.measures import FindingsBatch

    run = record(image("a", placement(32618, 10, 0, 5e5, 0, -10, 4e6)))
    batch = [Finding("land", shapely.Point(500, 500).buffer(100 + k, quad_segs=50), "area", k / 50) for k in range(50)]
    listed = ListedFindings(run, run.images[0], Room(100, 5000, 1000))
    listed.add(FindingsBatch(run, run.images[0], batch, 1))
    listed.block({}, Palette({}))
    assert 0 < listed.outline_bytes <= 5000
    assert 0 < listed.listed < 50


def test_hostile_texts_are_data(tmp_path: Path, image: Make, record: Make, placement: Make) -> None:
    place = placement(32618, 10, 0, 5e5, 0, -10, 4e6)
    long = "".join(chr(0x4E00 + k % 500) for k in range(10_000))
    labels = (HOSTILE, "\u202eabc\u0000", "مرحبا 😀", long)
    findings = [Finding(label, shapely.box(0, 0, 9, 9), "area", 0.5, HOSTILE + label) for label in labels]
    shown = image("a", place, findings, warnings=(HOSTILE,), failures=(("a/x0", HOSTILE),))
    files = [FileRow(HOSTILE, "failed", reason=HOSTILE)]
    shown = replace(shown, name=HOSTILE)
    html = written(record(shown, labels=labels, files=files, model={"name": HOSTILE, "version": "1"}), tmp_path)
    assert html.count("<script>") == 5, "ours alone"
    assert "<img src=x" not in html
    assert "\u202e" not in html
    ((header, _),) = blocks(html, "found")
    assert "10,000 characters" in json.dumps(header)
    assert "\u202e" not in json.dumps(header, ensure_ascii=False)


def test_the_policy_allows_what_is_in_the_page_and_nothing_else(
    tmp_path: Path, image: Make, record: Make, placement: Make
) -> None:
    html = written(record(image("a", placement(32618, 10, 0, 5e5, 0, -10, 4e6))), tmp_path)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    policy = policy.replace("&#39;", "'")
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "http" not in policy
    for tag in ("style", "script"):
        contents = re.findall(rf"<{tag}(?: data-openseadragon-mobile-css)?>(.*?)</{tag}>", html, re.DOTALL)
        sums = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in contents]
        assert re.findall(r"'sha256-([^']+)'", policy.partition(f"{tag}-src")[2].partition(";")[0]) == sums
    markup = html.partition("<script>")[0]
    assert not re.search(r'\s(?:style|on\w+)="', markup)
    assert not re.search(r'(?:src|href)="(?!data:|#)', markup)


def test_a_page_of_personal_images_is_readable_by_its_owner_only(
    tmp_path: Path, image: Make, record: Make, placement: Make
) -> None:
    shown = image("a", placement(32618, 10, 0, 5e5, 0, -10, 4e6))
    modes: dict[bool, int] = {}
    for personal in (True, False):
        (folder := tmp_path / str(personal)).mkdir()
        written(record(replace(shown, info=replace(shown.info, personal=personal))), folder)
        modes[personal] = stat.S_IMODE((folder / "report.html").stat().st_mode)
    assert modes[True] == 0o600
    assert modes[False] & 0o044


def test_pictures_share_the_room_that_is_given(tmp_path: Path, image: Make, record: Make, placement: Make) -> None:
    from limner.reports.writer import Overview

    noise = np.random.default_rng(1).integers(0, 255, (1000, 1200, 3), np.uint8)
    sure = np.ones(noise.shape[:2], np.bool_)
    place = placement(32618, 10, 0, 5e5, 0, -10, 4e6)
    noisy = [image(f"i{k}", place, overview=lambda: Overview(noise, sure, sure, (1.0, 1.0))) for k in range(4)]
    html = written(record(*noisy), tmp_path, pictures_mib=1)
    sizes = [
        len(base64.b64decode(one))
        for one in re.findall(r"data:image/\w+;base64,([^\"]+)", html.partition("<script>")[0])
    ]
    assert len(sizes) == 4
    assert all(size <= (1 << 20) // 4 for size in sizes)


def test_images_without_pixels_and_stacks_have_their_notes(
    tmp_path: Path, stack: Make, study: Make, page: Make
) -> None:
    findings = [Finding("nodule", shapely.box(20, 30, 30, 40), "box", 0.5, plane=k) for k in range(5)]
    gone = stack(findings, slice_pictures=lambda planes, _: iter([None] * len(planes)))
    hidden = stack(findings, name="study1-ct2", facts={"burned_in_risk": "yes"})
    html = written(study(gone, hidden, stack(findings, name="study1-ct3")), tmp_path, slices=9)
    text = page(html).text
    assert "No picture: the image is gone" in text
    assert "identifying text is burned into its pixels" in text
    assert "3 of 5 slices with findings are shown" in text
    places = [header for header, _ in blocks(html, "place")]
    assert [one["planes"] for one in places] == [[1, 2, 3], [1, 2, 3], [1, 2, 3]] or all(
        len(one["planes"]) == 3 for one in places
    )
    assert places[2]["sides"][0] == ["R", "L", "A", "P"]
    assert html.count('class="slice"') == 2, "the third has a picture for each of its three slices, the first in an img"


def test_no_finding_of_a_part_is_not_none_of_all(tmp_path: Path, image: Make, record: Make, placement: Make) -> None:
    place = placement(32618, 10, 0, 5e5, 0, -10, 4e6)
    assert "No finding was made." in written(record(image("a", place)), tmp_path)
    partial = image("a", place, failures=(("a/x0", "no memory"),))
    assert "No finding was made in what was analysed, which is not all." in written(record(partial), tmp_path)


def test_the_hostile_run_of_the_contract_names_no_patient(tmp_path: Path) -> None:
    assert "JANE-DOE" not in written(hostile_record(), tmp_path)


def test_the_viewer_is_the_one_that_is_pinned(root: Path) -> None:
    folder = root / "reports/html/vendor"
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    version = re.match(r"//! openseadragon (\S+)", (folder / "openseadragon.min.js").read_text(encoding="utf-8"))
    assert version
    assert f"openseadragon@{version[1]}" in (root / "Makefile").read_text(encoding="utf-8")


def test_words_have_parts_that_are_read_from_the_image_where_its_picture_is_coarse(
    tmp_path: Path, image: Make, record: Make, placement: Make
) -> None:
    from limner.readers.geometry import Box
    from limner.reports.writer import Overview

    asked: list[tuple[list[tuple[int, Box]], int]] = []

    def parts(wanted: list[tuple[int, Box]], longest: int) -> Any:
        asked.append((wanted, longest))
        sure = np.ones((30, 48), np.bool_)
        yield from (Overview(np.full((30, 48, 3), k, np.uint8), sure, sure, (9.0, 9.0)) for k in range(len(wanted) - 1))
        yield None

    near = [shapely.box(1000 * k, 0, 1000 * k + 480, 300) for k in range(4)]
    shapes = [near[0], shapely.box(0, 0, 9000, 9000), near[1], near[1], near[2], near[3]]
    findings = [Finding("land", shape, "region", 0.5, text=f"it is {k}") for k, shape in enumerate(shapes)]
    findings.append(Finding("land", shapely.box(0, 500, 480, 800), "region", 0.5))
    place = placement(32618, 10, 0, 5e5, 0, -10, 4e6)
    made = image("a", place, findings, size=(40960, 20480), part_pictures=parts)
    html = written(record(made), tmp_path, thumbnails=3)
    boxes = [Box(*shape.bounds) for shape in near]
    assert asked == [([(0, box) for box in boxes[:3]], 480)], "with words, once each, and not what the picture shows"
    assert re.findall(r'class="part" data-rows="([^"]*)">data:image/png', html) == ["0", "2 3"], "the third is damaged"
    assert 'class="part"' not in written(record(made), tmp_path, thumbnails=0)
    (small,) = [image("a", place, findings, size=(1000, 800), part_pictures=parts)]
    assert 'class="part"' not in written(record(small), tmp_path)
    personal = replace(made, info=replace(made.info, facts=(("burned_in_risk", "yes"),)))
    assert 'class="part"' not in written(record(personal), tmp_path)
