"""Maps that are not stored north-up: models and pictures see them north-up, and findings lie on the same ground."""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import shapely
from limner.model.annotator import InputSpec
from limner.pipelines.run.plan import ImagePlan
from limner.pipelines.run.reporting import read_record
from limner.pipelines.run_result import Run
from limner.readers.areas import area_m2
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo
from limner.readers.orientation import UPRIGHT, Orientation
from limner.readers.regions import Grid
from shapely.geometry.base import BaseGeometry

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import
Found = list[tuple[str, float, float | None, BaseGeometry]]
"""(label, area in m², score, place on the ground), sorted."""

EIGHT = [Orientation(t, x, y) for t in (False, True) for x in (False, True) for y in (False, True)]
LEANING = ((0, -1, 1), (-2, 4, -1), (0, -1, 0))  # whole numbers: sums are exact in any order
WIDTH, HEIGHT = 303, 151  # neither a whole number of tiles nor of analysed pixels
METRES = (10.0, 5.0)
PART = [(500_200, 5_199_950), (502_900, 5_199_900), (502_600, 5_199_300), (500_900, 5_199_320), (500_200, 5_199_950)]


def stored(upright: npt.NDArray[Any], turn: Orientation) -> npt.NDArray[Any]:
    """What a file holds so that its turn gives the upright picture."""
    mirrored = upright[:: -1 if turn.mirror_y else 1, :: -1 if turn.mirror_x else 1]
    return np.ascontiguousarray(mirrored.swapaxes(0, 1) if turn.transposed else mirrored)


def write(path: Path, turn: Orientation) -> Path:
    """The same ground as every other turn of it: blobs that lean, a hole without data, and a geotransform that fits."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    ground = (1000 + 300 * np.sin(x / 7.0 + y / 19.0) * np.cos(y / 5.0) + x).astype(np.uint16) // 4 * 4
    ground[(x < 40) & (y < 30)] = 0
    pixels = stored(ground, turn)
    size = pixels.shape[1], pixels.shape[0]
    place = rasterio.Affine(METRES[0], 0, 500_000, 0, -METRES[1], 5_200_000)
    origin, right, down = (
        place @ turn.to_upright(np.array([[x, y]], float), size)[0] for x, y in ((0, 0), (1, 0), (0, 1))
    )
    fitting = rasterio.Affine(
        right[0] - origin[0], down[0] - origin[0], origin[0], right[1] - origin[1], down[1] - origin[1], origin[1]
    )
    profile: dict[str, Any] = {"driver": "GTiff", "count": 1, "dtype": "uint16", "nodata": 0, "crs": "EPSG:32633"}
    with rasterio.open(path, "w", width=size[0], height=size[1], transform=fitting, **profile) as raster:
        raster.set_band_description(1, "red")
        raster.write(pixels, 1)
    return path


def found(run: Path) -> Found:
    (image,) = read_record(run).images
    rows: Found = []
    for finding in image.findings():
        area = area_m2(finding.geometry, image.info.placement)
        place = shapely.normalize(shapely.transform(finding.geometry, image.info.placement.to_world))
        rows.append((finding.label, area or 0.0, finding.score, place))
    return sorted(rows, key=lambda row: (row[0], row[3].bounds, row[1]))


@pytest.fixture
def card(tmp_path: Path, make_card: Callable[..., Path]) -> Path:
    """A network that notices any turn of what it sees."""
    return make_card(tmp_path, ridge=LEANING, resolution={"value": 20, "unit": "m"})


def annotate(limner: Limner, scene: Path, out: Path, card: Path, *words: object) -> Found:
    """At 20 m, which is 2 × 4 pixels; regions of up to four tiles."""
    output = limner("run", scene, "--out", out, "--model", card, "--hd-num", 4, "--engine", "inline", *words)
    assert output.code == 0, output.err
    return found(out)


def assert_same(one: Found, other: Found) -> None:
    assert [row[0] for row in one] == [row[0] for row in other]
    for (_, area, score, place), (_, area_, score_, place_) in zip(one, other, strict=True):
        assert area == pytest.approx(area_, rel=1e-9)
        assert score == pytest.approx(score_, abs=1e-4)
        assert shapely.equals_exact(place, place_, tolerance=1e-6, normalize=True)


@pytest.fixture
def area(tmp_path: Path) -> Path:
    """An area of interest with borders along no axis."""
    path = tmp_path / "area.geojson"
    polygon = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [PART]}}
    crs = {"type": "name", "properties": {"name": "EPSG:32633"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [polygon]}), encoding="utf-8")
    return path


@pytest.mark.parametrize("part", [False, True])
def test_eight_orientations_of_a_map_have_the_same_findings_on_the_ground(
    tmp_path: Path, card: Path, area: Path, limner: Limner, *, part: bool
) -> None:
    """Through files, regions, halos, seams and merging."""
    words = ("--reports", "files-csv", *(("--area", area) if part else ()))
    expected: Found = []
    for number, turn in enumerate(EIGHT):
        here = annotate(limner, write(tmp_path / f"{number}.tif", turn), tmp_path / str(number), card, *words)
        expected = expected or here
        assert len(here) > 10
        assert len({label for label, *_ in here}) == 2
        assert_same(here, expected)


def test_only_what_is_turned_is_told_and_recorded(tmp_path: Path, card: Path, limner: Limner) -> None:
    written: list[str] = []
    for number, turn in enumerate((UPRIGHT, Orientation(mirror_y=True))):
        out = tmp_path / f"out-{number}"
        annotate(limner, write(tmp_path / f"{number}.tif", turn), out, card, "--reports", "files-csv")
        written.append((out / "manifest.json").read_text(encoding="utf-8"))
    assert "orientation" not in written[0]
    assert "north-up" not in written[0]
    assert '"mirror_y": true' in written[1]
    assert "x east and y north" in written[1]


def test_a_plan_of_a_turned_map_survives_the_manifest() -> None:
    turn = Orientation(transposed=True, mirror_x=True)
    info = ImageInfo("m", "array", (30, 20), (Channel("1"),), Placement.pixels(), id="m")
    plan = ImagePlan(info, InputSpec(tile=8), Grid("m", (30, 20), (1.0, 1.0), 1, turn), 4, 0)
    again = ImagePlan.from_json(plan.to_json())
    assert again.grid == plan.grid
    assert [region.box for region in again.regions] == [region.box for region in plan.regions]


def test_the_picture_is_north_up_with_its_findings(tmp_path: Path, card: Path, area: Path, limner: Limner) -> None:
    """The same for each orientation, with scale bar and north arrow; the panel beside it has the file's own size."""
    pictures: list[npt.NDArray[np.uint8]] = []
    for number, turn in enumerate((UPRIGHT, Orientation(mirror_y=True), Orientation(transposed=True, mirror_x=True))):
        out = tmp_path / f"out-{number}"
        scene = write(tmp_path / f"{number}.tif", turn)
        annotate(limner, scene, out, card, "--area", area, "--reports", "files-csv")
        pictures.append(np.asarray(Run.open(out).show())[36 : 36 + HEIGHT * 4 + 80, 36 : 36 + WIDTH * 4])
    for other in pictures[1:]:
        differ = np.abs(pictures[0].astype(int) - other).max(axis=2) > 40
        assert differ.mean() < 0.004  # where outlines are rounded to whole pixels
