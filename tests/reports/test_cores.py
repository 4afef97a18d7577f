"""cores.csv: findings and areas by core of a tissue microarray."""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import shapely.geometry
from limner.model.finding import Finding
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo
from limner.readers.slide.tma import FACT, Core, CoreGrid, core_name
from limner.reports.columns import FindingsCsv
from limner.reports.cores import Cores
from limner.reports.qupath import QuPath
from PIL import Image

TURN = math.radians(8)
ACROSS = (100 * math.cos(TURN), 100 * math.sin(TURN))
DOWN = (-100 * math.sin(TURN), 100 * math.cos(TURN))
CORNER = (150.0, 120.0)


def grid() -> CoreGrid:
    """2 × 3 cores of 60 px, of which B-2 is missing."""
    cores: list[Core] = []
    for row in range(2):
        for column in range(3):
            x, y = (CORNER[axis] + column * ACROSS[axis] + row * DOWN[axis] for axis in (0, 1))
            gone = (row, column) == (1, 1)
            tissue = 0.0 if gone else 2827.0
            cores.append(Core(core_name(row, column), row + 1, column + 1, x, y, tissue, int(not gone), gone))
    return CoreGrid(2, 3, CORNER, ACROSS, DOWN, 60.0, 0, tuple(cores))


@pytest.fixture
def slide(image: Callable[..., Any]) -> Callable[..., Any]:
    """A slide of 0.5 µm/px with the grid and some findings."""

    def make(*findings: Finding, cores: bool = True) -> Any:
        placement = Placement(((0.5, 0.0, 0.0), (0.0, 0.5, 0.0)), "um", source="made")
        facts = ((FACT, grid().to_text()),) if cores else ()
        info = ImageInfo(
            "/a.svs", "slide", (1000, 800), (Channel("red"),), placement, id="s", kind="slide", facts=facts
        )
        return replace(image("s", placement, findings), info=info)

    return make


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_areas_are_divided_among_the_cores_that_they_meet(slide: Any, record: Any, out: Path) -> None:
    random = np.random.default_rng(5)
    shapes = [shapely.Point(*at).buffer(radius) for *at, radius in random.uniform((60, 60, 2), (420, 300, 70), (60, 3))]
    findings = [Finding("tumour" if n % 3 else "stroma", shape, "area", 0.5) for n, shape in enumerate(shapes)]
    written = Cores().write(record(slide(*findings), labels=("tumour", "stroma", "none")), out)
    assert [path.name for path in written] == ["cores.csv", "cores-s.png"]
    found = rows(written[0])
    assert [row["core"] for row in found] == ["A-1", "A-2", "A-3", "B-1", "B-2", "B-3"]
    for row, core in zip(found, grid().cores, strict=True):
        if core.missing:
            assert (row["status"], row["findings"], row["area_mm2.tumour"]) == ("missing", "", "")
            continue
        cell = shapely.Polygon(grid().cell(core))
        for label in ("tumour", "stroma"):
            own = [one for one in findings if one.label == label]
            area = math.fsum(one.geometry.intersection(cell).area for one in own) * 0.25e-6
            assert float(row[f"area_mm2.{label}"]) == pytest.approx(area, rel=1e-6)
            assert float(row[f"share.{label}"]) == pytest.approx(area / (2827 * 0.25e-6), rel=1e-4, abs=1e-6)
            assert int(row[f"count.{label}"]) == sum(one.geometry.centroid.within(cell) for one in own)
        assert row["count.none"] == "0"
        assert float(row["tissue_mm2"]) == pytest.approx(2827 * 0.25e-6)
        assert row["diameter_um"] == "30.0"


def test_the_map_shows_every_core(slide: Any, record: Any, out: Path) -> None:
    _, picture = Cores().write(record(slide(), labels=("tumour",)), out)
    pixels = np.asarray(Image.open(picture))
    assert pixels.shape == (80, 100, 3)
    assert (pixels != 120).any()
    red, blue = ((pixels == colour).all(axis=2) for colour in ((200, 40, 40), (24, 96, 200)))
    assert red.any()
    assert blue.sum() > 2 * red.sum()
    assert picture.read_bytes() == Cores().write(record(slide(), labels=("tumour",)), out)[1].read_bytes()


def test_findings_name_their_core_in_all_reports(slide: Any, record: Any, out: Path) -> None:
    inside, between, beside = (
        shapely.Point(250, 134).buffer(9),
        shapely.Point(205, 128).buffer(3),
        shapely.box(1, 1, 3, 3),
    )
    run = record(slide(*(Finding("tumour", one, "area", 0.5) for one in (inside, between, beside))), labels=("tumour",))
    [table] = FindingsCsv().write(run, out)
    assert [row["core"] for row in rows(table)] == ["A-2", "A-2", ""]
    features = json.loads(QuPath().write(run, out)[0].read_text())["features"]
    cores, found = features[:6], features[6:]
    assert [one["properties"]["metadata"].get("core") for one in found] == ["A-2", "A-2", None]
    assert {one["properties"]["objectType"] for one in found} == {"detection"}
    for one, core in zip(cores, grid().cores, strict=True):
        properties, shape = one["properties"], shapely.geometry.shape(one["geometry"])
        assert (properties["objectType"], properties["name"], properties["isLocked"]) == ("annotation", core.name, True)
        assert properties["metadata"]["status"] == ("missing" if core.missing else "present")
        assert shape.is_valid
        assert shape.centroid.coords[0] == pytest.approx((core.x, core.y), abs=0.01)
        assert shape.area == pytest.approx(math.pi * grid().radius ** 2, rel=0.01)
    assert len({one["id"] for one in features}) == 9
    plain = record(slide(Finding("tumour", inside, "area", 0.5), cores=False), labels=("tumour",))
    assert "core" not in rows(FindingsCsv().write(plain, out)[0])[0]


def test_cores_lie_as_qupath_counts(slide: Any, record: Any, out: Path) -> None:
    image = slide()
    moved = replace(image, info=replace(image.info, origin=(20, 10)))
    features = json.loads(QuPath().write(record(moved), out)[0].read_text())["features"]
    shape = shapely.geometry.shape(features[0]["geometry"])
    assert shape.centroid.coords[0] == pytest.approx((CORNER[0] - 20, CORNER[1] - 10), abs=0.01)


def test_without_cores_nothing_is_written(slide: Any, record: Any, out: Path) -> None:
    plain = record(slide(cores=False))
    assert Cores().write(plain, out) == []
    assert Cores().omitted(plain) == {}
    assert list(out.iterdir()) == []
