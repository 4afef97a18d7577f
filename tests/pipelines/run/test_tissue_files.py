"""Tissue that is given as a file: what a run has written, a picture, or somebody's own outlines."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import limner
import numpy as np
import pytest
from limner.pipelines.run_result import Run
from limner.readers.errors import LimnerError
from PIL import Image


@pytest.fixture
def analyse(tmp_path: Path, make_slide: Callable[..., Path], slide_card: Callable[[Path], Path]) -> Callable[..., Run]:
    slide, card = make_slide(tmp_path / "slide.tif"), slide_card(tmp_path)

    def go(name: str, **settings: Any) -> Run:
        reports = settings.pop("reports", "summary-csv,findings-csv,tissue")
        return limner.run(slide, model=str(card), out=tmp_path / name, reports=reports, names="show", **settings)

    return go


def same(one: Run, other: Run) -> bool:
    found, others = (run.record.images[0].findings() for run in (one, other))
    return len(found) > 5 and list(found) == list(others) and one.record.images[0].areas == other.record.images[0].areas


def test_the_tissue_of_a_run_gives_the_same_run(tmp_path: Path, analyse: Callable[..., Run]) -> None:
    first = analyse("first")
    [path] = [one for one in first.paths if one.name == "tissue-slide.geojson"]
    again = analyse("again", tissue=path)
    assert same(first, again)
    assert same(first, analyse("folder", tissue=tmp_path / "first"))
    [feature] = json.loads(path.read_text())["features"]
    assert feature["properties"]["classification"] == {"name": "Tissue", "color": [0, 158, 115]}
    assert (tmp_path / "again" / path.name).read_text() != path.read_text()  # its method tells of the file
    written = json.loads((tmp_path / "again" / path.name).read_text())["features"][0]
    assert written["geometry"] == feature["geometry"]
    assert written["properties"]["metadata"]["method"].startswith("given as polygons, sha256 ")


def test_the_tissue_is_written_without_the_area_of_interest(tmp_path: Path, analyse: Callable[..., Run]) -> None:
    ring = [[0, 0], [300, 0], [300, 640], [0, 640], [0, 0]]
    (tmp_path / "left.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    whole, part = analyse("whole"), analyse("part", area=tmp_path / "left.geojson")
    one, other = (cast("Any", run.record.images[0]) for run in (whole, part))
    assert one.tissue == other.tissue
    assert other.roi.area < one.tissue.area
    assert one.tissue.equals(Run.open(tmp_path / "part").record.images[0].tissue)


def test_a_picture_of_tissue(tmp_path: Path, analyse: Callable[..., Run]) -> None:
    mask = np.zeros((160, 160), dtype=np.uint8)
    mask[40:100, 30:90] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    ring = [[120, 160], [360, 160], [360, 400], [120, 400], [120, 160]]
    (tmp_path / "mask.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    picture, outline = (
        analyse("picture", tissue=tmp_path / "mask.png"),
        analyse("outline", tissue=tmp_path / "mask.geojson"),
    )
    assert same(picture, outline)
    analysed = {area.status: area.pixels for area in picture.record.images[0].areas}
    assert analysed["analysed"] == 240 * 240


def test_wrong_tissue(tmp_path: Path, analyse: Callable[..., Run], make_slide: Callable[..., Path]) -> None:
    Image.fromarray(np.zeros((160, 100), dtype=np.uint8)).save(tmp_path / "narrow.png")
    Image.fromarray(np.zeros((160, 160), dtype=np.uint8)).save(tmp_path / "nothing.png")
    Image.fromarray(np.full((160, 160), 9, dtype=np.uint8)).save(tmp_path / "values.png")
    (tmp_path / "empty").mkdir()
    for name, told in (
        ("narrow.png", "must have the proportions of the slide, 640 × 640 px (found: 100 × 160 px)"),
        ("nothing.png", "must cover a part of the slide"),
        ("values.png", "must hold 0, and 1 or 255 where it is masked (found: 9)"),
        ("empty", "must hold tissue-slide.geojson"),
        ("none.geojson", "must be auto, off, or a file or folder that exists"),
    ):
        with pytest.raises(LimnerError) as error:
            analyse("out", tissue=tmp_path / name)
        assert told in str(error.value)
    other = make_slide(tmp_path / "other.tif", side=320)
    with pytest.raises(LimnerError, match=r"must be for one slide, being one file \(found: 2 slides\)"):
        limner.run([tmp_path / "slide.tif", other], model="none", out=tmp_path / "two", tissue=tmp_path / "nothing.png")


def test_another_tissue_is_not_resumed(tmp_path: Path, analyse: Callable[..., Run]) -> None:
    for side, name in ((300, "a"), (400, "b")):
        ring = [[0, 0], [side, 0], [side, side], [0, side], [0, 0]]
        (tmp_path / f"{name}.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    analyse("out", tissue=tmp_path / "a.geojson")
    (tmp_path / "b.geojson").replace(tmp_path / "a.geojson")
    with pytest.raises(LimnerError, match=r"tissue of .*: given as polygons, sha256 [0-9a-f]{16} there"):
        analyse("out", tissue=tmp_path / "a.geojson")
