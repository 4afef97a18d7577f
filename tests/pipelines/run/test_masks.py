"""Masks of cloud and the like: what is masked is not analysed, or flagged, and accounted for exactly."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import limner
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from limner.pipelines.run.run_folder import check_folder
from limner.pipelines.run_result import Run
from limner.readers.areas import areas_m2
from limner.readers.errors import LimnerError
from rasterio.features import shapes

WIDTH, HEIGHT, METRES = 150, 110, 10.0
PLACE = rasterio.Affine(METRES, 0.0, 500000.0, 0.0, -METRES, 5200000.0)


def cloud(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Blobs that no tile's or region's border knows of."""
    y, x = np.mgrid[0:height, 0:width]
    return ((x - 95) ** 2 + (y - 60) ** 2 < 30**2) | ((x + 2 * y) % 61 < 7)


def save(path: Path, values: np.ndarray, crs: str | None = "EPSG:32633", transform: Any = PLACE, **more: Any) -> Path:
    placed = {} if crs is None else {"crs": crs, "transform": transform}
    size = {"width": values.shape[-1], "height": values.shape[-2], "count": 1 if values.ndim == 2 else len(values)}
    with rasterio.open(path, "w", driver="GTiff", dtype=values.dtype.name, **size, **placed, **more) as raster:
        raster.write(values if values.ndim == 3 else values[None])
    return path


def sizes(run: Run) -> dict[tuple[str, str], float]:
    return {(area.status, area.reason): area.pixels for area in run.record.images[0].areas}


def outcomes(run: Run) -> dict[str, tuple[str, str]]:
    """The status of each file by its name, and why."""
    return {Path(file.path).name: (file.status, file.reason) for file in run.record.files}


def outlines(run: Run) -> dict[str, Any]:
    found: dict[str, list[shapely.Geometry]] = {}
    for one in run.record.images[0].findings():
        found.setdefault(one.label, []).append(one.geometry)
    return {label: shapely.union_all(every) for label, every in found.items()}


@pytest.fixture
def analyse(scene: Path, card: Path, tmp_path: Path) -> Callable[..., Run]:
    def go(name: str = "out", inputs: Path = scene, **settings: Any) -> Run:
        reports = settings.pop("reports", "summary-csv")
        return limner.run(inputs, model=str(card), out=tmp_path / name, reports=reports, **settings)

    return go


def test_areas_under_a_mask_equal_those_of_clipped_outlines(tmp_path: Path, analyse: Callable[..., Run]) -> None:
    masked = cloud()
    whole = analyse("whole")
    run = analyse("masked", mask=save(tmp_path / "cloud.tif", masked.astype(np.uint8) * 255), hd_num=2)
    clear = shapely.union_all([shapely.geometry.shape(one) for one, _ in shapes(np.uint8(~masked), mask=~masked)])
    before, after = outlines(whole), outlines(run)
    assert set(after) == set(before) == {"bright", "ridge"}
    for label, found in after.items():
        clipped = before[label].intersection(clear)
        assert found.area == clipped.area > 100
        assert found.symmetric_difference(clipped).area == 0
    valid = ~((np.indices(masked.shape)[1] < 40) & (np.indices(masked.shape)[0] < 40))
    expected = {
        ("analysed", ""): (valid & ~masked).sum(),
        ("no data", "no valid pixels"): (~valid).sum(),
        ("skipped", "mask"): (valid & masked).sum(),
    }
    assert sizes(run) == expected


def test_a_mask_of_another_grid_and_crs_is_sampled_at_each_centre(tmp_path: Path, analyse: Callable[..., Run]) -> None:
    """Against PROJ and an index, pixel by pixel."""
    there = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:3857", always_xy=True)
    x0, y0, x1, y1 = there.transform_bounds(500000 - 60, 5200000 - 1160, 500000 + 1560, 5200000 + 60)
    step = 23.7
    shape = (int((y1 - y0) / step) + 1, int((x1 - x0) / step) + 1)
    coarse = np.random.default_rng(4).random(shape) < 0.3
    path = save(tmp_path / "far.tif", coarse.astype(np.uint8), "EPSG:3857", rasterio.Affine(step, 0, x0, 0, -step, y1))
    run = analyse(mask=path, reports="class-map")
    y, x = np.indices((HEIGHT, WIDTH))
    far_x, far_y = there.transform(500000 + (x + 0.5) * METRES, 5200000 - (y + 0.5) * METRES)
    masked = coarse[((y1 - far_y) // step).astype(int), ((far_x - x0) // step).astype(int)]
    with rasterio.open(tmp_path / "out" / "classes-scene.tif") as raster:
        analysed = raster.read(1) != 255
    valid = ~((x < 40) & (y < 40))
    assert (analysed == (valid & ~masked)).all()
    assert sizes(run)["skipped", "mask"] == (valid & masked).sum()


def test_a_mask_of_polygons_gives_the_same_as_its_raster(tmp_path: Path, analyse: Callable[..., Run]) -> None:
    masked = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    masked[30:77, 60:131] = 1
    raster = analyse("raster", mask=save(tmp_path / "cloud.tif", masked))
    back = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    corners = [(60, 30), (131, 30), (131, 77), (60, 77), (60, 30)]
    ring = [back.transform(500000 + x * METRES, 5200000 - y * METRES) for x, y in corners]
    (tmp_path / "cloud.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    drawn = analyse("drawn", mask=tmp_path / "cloud.geojson")
    assert sizes(drawn) == sizes(raster)
    assert [one.geometry for one in drawn.record.images[0].findings()] == [
        one.geometry for one in raster.record.images[0].findings()
    ]


def test_what_is_flagged_is_analysed_and_counted(tmp_path: Path, analyse: Callable[..., Run]) -> None:
    masked = cloud()
    path = save(tmp_path / "cloud.tif", masked.astype(np.uint8))
    whole, run = analyse("whole"), analyse("flag", mask=path, mask_action="flag", hd_num=1)
    plain, found = (one.record.images[0].findings() for one in (whole, run))
    assert [one.geometry for one in plain] == [one.geometry for one in found]
    under = shapely.union_all([shapely.geometry.shape(one) for one, _ in shapes(np.uint8(masked), mask=masked)])
    for one in found:
        assert one.numbers["masked_pixels"] == one.geometry.intersection(under).area
    assert sum(one.numbers["masked_pixels"] for one in found) > 100
    valid = sizes(whole)["analysed", ""]
    assert sizes(run)["analysed", ""] + sizes(run)["analysed", "under the mask"] == valid
    assert float(cast("Any", run.summary)["analysed_px"][0]) == valid


def test_holes_that_a_mask_leaves_are_not_filled(tmp_path: Path, analyse: Callable[..., Run]) -> None:
    masked = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    masked[22:110:11, 5:150:9] = 1
    path = save(tmp_path / "dots.tif", masked)
    run = analyse("filled", mask=path, fill_holes="all")
    dots = shapely.union_all([shapely.geometry.shape(one) for one, _ in shapes(masked, mask=masked > 0)])
    found = outlines(run)
    assert all(one.intersection(dots).area == 0 for one in found.values())
    assert sum(len(part.interiors) for one in found.values() for part in shapely.get_parts(one)) > 5
    flagged = outlines(analyse("flagged", mask=path, mask_action="flag", fill_holes="all"))
    assert sum(one.intersection(dots).area for one in flagged.values()) > 20


def test_tiles_state_the_share_that_is_masked(scene: Path, per_tile: str, tmp_path: Path) -> None:
    masked = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    masked[:, 72:] = 1
    path = save(tmp_path / "half.tif", masked)
    run = limner.run(scene, model=per_tile, out=tmp_path / "out", mask=path, mask_action="flag", reports="summary-csv")
    shares = {one.geometry.bounds[0]: one.numbers["masked"] for one in run.record.images[0].findings()}
    assert (shares[48.0], shares[64.0], shares[80.0]) == (0.0, 0.5, 1.0)


def test_a_masked_run_needs_its_mask_no_more(
    limner: Callable[..., Any], tmp_path: Path, analyse: Callable[..., Run]
) -> None:
    path = save(tmp_path / "cloud.tif", cloud().astype(np.uint8))
    analyse(mask=path, reports="summary-csv,class-map,overview-png")
    out = tmp_path / "out"
    before = {one.name: one.read_bytes() for one in out.iterdir() if one.suffix in {".csv", ".tif", ".png"}}
    path.unlink()
    assert limner("report", out).code == 0
    assert {name: (out / name).read_bytes() for name in before} == before


def test_another_mask_is_not_resumed(tmp_path: Path, analyse: Callable[..., Run]) -> None:
    path = save(tmp_path / "cloud.tif", cloud().astype(np.uint8))
    analyse(mask=path)
    save(path, (~cloud()).astype(np.uint8))
    with pytest.raises(
        LimnerError, match=r"must not hold another run \(found: mask of .*scene.tif: [0-9a-f]{59}.* now"
    ):
        analyse(mask=path)
    with pytest.raises(LimnerError, match="mask_action: exclude there, flag now"):
        analyse(mask=path, mask_action="flag")


def test_the_scene_classification_of_a_band_or_a_file_beside_it(
    tmp_path: Path, card: Path, make_scene: Callable[..., Path]
) -> None:
    classes = np.full((55, 75), 4, dtype=np.uint8)
    classes[10:30, 20:60] = 9
    classes[40:, :] = 3
    classes[:5, 70:] = 11
    twice = np.kron(classes, np.ones((2, 2), dtype=np.uint8))
    place = rasterio.Affine(20, 0, 500000, 0, -20, 5200000)
    folder = tmp_path / "beside"
    folder.mkdir()
    scene = make_scene(folder / "T33_a.tif")
    save(folder / "T33_a_SCL_20m.tif", classes, transform=place)
    beside = limner.run(scene, model=str(card), out=tmp_path / "1", mask="SCL", reports="summary-csv")
    with rasterio.open(scene) as raster:
        both = np.stack([raster.read(1), twice.astype(np.uint16)])
    save(tmp_path / "both.tif", both, nodata=0)
    with rasterio.open(tmp_path / "both.tif", "r+") as raster:
        raster.descriptions = ("red", "SCL")
    inside = limner.run(tmp_path / "both.tif", model=str(card), out=tmp_path / "2", mask="SCL", reports="summary-csv")
    masked = np.isin(twice, (3, 9))
    valid = both[0] > 0
    assert sizes(beside)["skipped", "cloud mask"] == (masked & valid).sum()
    assert sizes(inside)["skipped", "cloud mask"] == sizes(beside)["skipped", "cloud mask"]
    snow = limner.run(scene, model=str(card), out=tmp_path / "3", mask="SCL", mask_values="11", reports="summary-csv")
    assert sizes(snow)["skipped", "cloud mask"] == ((twice == 11) & valid).sum()


def test_the_quality_band_of_landsat(tmp_path: Path, scene: Path, card: Path) -> None:
    clear, cloudy, shadow, fill = 21824, 22280, 23888, 1
    quality = np.full((HEIGHT, WIDTH), clear, dtype=np.uint16)
    quality[50:60] = cloudy
    quality[70:75] = shadow
    quality[100:] = fill
    save(tmp_path / "scene_QA_PIXEL.tif", quality)
    run = limner.run(scene, model=str(card), out=tmp_path / "out", mask="QA_PIXEL", reports="summary-csv")
    assert sizes(run)["skipped", "cloud mask"] == 25 * WIDTH
    folder = limner.run(tmp_path, model=str(card), out=tmp_path / "2", mask="QA_PIXEL", reports="files-csv")
    assert folder.exit_code == 0
    told = outcomes(folder)
    assert told["scene.tif"] == ("read", "")
    assert told["scene_QA_PIXEL.tif"] == ("skipped", f"the QA_PIXEL of {scene}")
    save(tmp_path / "scene_QA_PIXEL.tif", np.full((HEIGHT, WIDTH), 2720, dtype=np.uint16))
    with pytest.raises(LimnerError, match="must hold the bits of Landsat Collection 2"):
        limner.run(scene, model=str(card), out=tmp_path / "other", mask="QA_PIXEL")


@pytest.mark.usefixtures("scene")
def test_a_mask_in_the_input_folder_is_no_image(tmp_path: Path, card: Path) -> None:
    mask = save(tmp_path / "mask.tif", np.zeros((HEIGHT, WIDTH), dtype=np.uint8))
    run = limner.run(tmp_path, model=str(card), out=tmp_path / "out", mask=str(mask), reports="files-csv")
    told = outcomes(run)
    assert told["scene.tif"] == ("read", "")
    assert told["mask.tif"] == ("skipped", "the mask, as --mask says")


def test_what_lies_outside_of_a_mask_is_masked_and_told(tmp_path: Path, analyse: Callable[..., Run]) -> None:
    run = analyse(mask=save(tmp_path / "part.tif", np.zeros((HEIGHT, 100), dtype=np.uint8)))
    assert sizes(run)["skipped", "mask"] == 50 * HEIGHT
    [warning] = run.record.images[0].warnings
    assert warning.startswith("33.")
    assert warning.endswith(" % of the image lies outside of the mask, and counts as masked.")


@pytest.mark.parametrize(
    ("values", "more", "settings", "told"),
    [
        (np.zeros((10, 20), np.uint8), {"crs": None}, {}, "have the image's 150 × 110 px"),
        (np.full((HEIGHT, WIDTH), 7, np.uint8), {}, {}, "must hold 0, and 1 or 255 where it is masked (found: 7)"),
        (np.zeros((HEIGHT, WIDTH), np.float32), {}, {}, "must hold whole numbers (found: float32)"),
        (np.zeros((3, HEIGHT, WIDTH), np.uint8), {}, {}, "must have one band"),
        (np.zeros((9, 9), np.uint8), {"crs": "EPSG:32611"}, {}, "must overlap the image"),
        (np.zeros((9, 9), np.uint8), {}, {"mask_values": "1,two"}, "must be whole numbers (found: 1,two)"),
        (np.zeros((9, 9), np.uint8), {}, {"mask": "SCL"}, "must have the scene classification of Sentinel-2"),
        (np.zeros((9, 9), np.uint8), {}, {"mask": "none.tif"}, "must be a readable file"),
        (np.zeros((9, 9), np.uint8), {}, {"mask": "https://localhost/a.tif"}, "must be a file on this machine"),
        (np.zeros((9, 9), np.uint8), {}, {"mask": "", "mask_action": "flag"}, "must come with a mask"),
    ],
)
def test_wrong_masks(
    tmp_path: Path,
    analyse: Callable[..., Run],
    values: np.ndarray,
    more: dict[str, Any],
    settings: dict[str, Any],
    told: str,
) -> None:
    path = save(tmp_path / "wrong.tif", values, **more)
    with pytest.raises(LimnerError) as error:
        analyse(**{"mask": path, **settings})
    assert told in str(error.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_hostile_masks_are_refused(tmp_path: Path, analyse: Callable[..., Run]) -> None:
    """A VRT that names a file elsewhere, a bomb, a truncated file, and no file of an image."""
    secret = save(tmp_path / "secret.tif", np.zeros((HEIGHT, WIDTH), np.uint8))
    folder = tmp_path / "masks"
    folder.mkdir()
    source = f'<SimpleSource><SourceFilename relativeToVRT="0">{secret}</SourceFilename></SimpleSource>'
    band = f'<VRTRasterBand dataType="Byte" band="1">{source}</VRTRasterBand>'
    (folder / "mask.vrt").write_text(f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}">{band}</VRTDataset>')
    (folder / "cut.tif").write_bytes(secret.read_bytes()[:200])
    (folder / "text.tif").write_text("no raster")
    (folder / "deep.json").write_text("[" * 100_000)
    for path in sorted(folder.iterdir()):
        with pytest.raises(LimnerError):
            analyse(mask=path)
        assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_mask_of_a_slide(tmp_path: Path, make_slide: Callable[..., Path], slide_card: Callable[[Path], Path]) -> None:
    """In pixels as QuPath draws it, and as a reduced picture; neither states a CRS."""
    slide, card = make_slide(tmp_path / "slide.tif"), slide_card(tmp_path)
    ring = [(100, 100), (400, 100), (400, 480), (100, 480), (100, 100)]
    (tmp_path / "pen.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    reduced = np.zeros((160, 160), dtype=np.uint8)
    reduced[25:120, 25:100] = 255
    save(tmp_path / "pen.png.tif", reduced, None)
    runs = [
        limner.run(
            slide, model=str(card), out=tmp_path / out, mask=tmp_path / name, tissue="off", reports="summary-csv"
        )
        for out, name in (("a", "pen.geojson"), ("b", "pen.png.tif"))
    ]
    assert sizes(runs[0]) == sizes(runs[1])
    assert sizes(runs[0])["skipped", "mask"] == 300 * 380
    config = json.loads((tmp_path / "a" / "manifest.json").read_text())["config"]
    assert "pen.geojson" not in json.dumps(config)


@pytest.mark.network
@pytest.mark.slow
def test_the_cloud_model_runs_first(csmask: Path, virginia: Path, tmp_path: Path) -> None:
    """Its own folder holds its classes, at its own resolution; the mask is what it found there."""
    del csmask
    settings: dict[str, Any] = {
        "sensor": "sentinel-2-l1c",
        "reports": "class-map",
        "mask": "csmask-cloud",
        "out": tmp_path / "out",
    }
    settings |= {"model": "csmask", "resolution": "20m"}
    try:
        run = limner.run(virginia, **settings)
    except LimnerError as error:
        pytest.skip(str(error)) if "must be on this machine" in str(error) else pytest.fail(str(error))
    [name] = [path.name for path in (tmp_path / "out" / "cloud-mask").glob("classes-*.tif")]
    with rasterio.open(tmp_path / "out" / "cloud-mask" / name) as raster:
        clouds, coarse = raster.read(1), raster.transform
    with rasterio.open(tmp_path / "out" / name) as raster:
        classes, fine = raster.read(1), raster.transform
    y, x = np.indices(classes.shape)
    world = fine @ (x + 0.5, y + 0.5)
    column, row = (np.floor(np.round(one, 6)).astype(int) for one in ~coarse @ world)
    inside = (column < clouds.shape[1]) & (row < clouds.shape[0])
    masked = clouds[np.minimum(row, clouds.shape[0] - 1), np.minimum(column, clouds.shape[1] - 1)] > 0
    assert (classes[masked & inside] == 255).all()
    assert sizes(limner.run(virginia, **settings)) == sizes(run)


@pytest.mark.network
@pytest.mark.slow
def test_the_cloud_of_a_real_scene(csmask: Path, shared_data: Path, tmp_path: Path) -> None:
    """Masked with its brighter part, a cloudy scene has the areas of its outlines without that part, to the bit."""
    del csmask
    path = shared_data / "geo" / "sentinel2_slovenia_lulc" / "S2_L1C_2015-07-31.tif"
    if not path.exists():
        pytest.skip("needs the scenes of Slovenia")
    with rasterio.open(path) as raster:
        blue = raster.read(raster.descriptions.index("B02") + 1)
        cloudy = blue > np.percentile(blue, 55)
        mask = save(tmp_path / "cloud.tif", cloudy.astype(np.uint8), raster.crs, raster.transform)
    settings: dict[str, Any] = {
        "sensor": "sentinel-2-l1c",
        "model": "csmask",
        "resolution": "20m",
        "reports": "summary-csv",
    }
    whole = limner.run(path, out=tmp_path / "whole", **settings)
    run = limner.run(path, out=tmp_path / "masked", mask=mask, **settings)
    height, width = cloudy.shape
    rows, columns = range(0, height, 2), range(0, width, 2)
    clear = shapely.union_all(
        [
            shapely.box(x, y, min(x + 2, width), min(y + 2, height))
            for y in rows
            for x in columns
            if not cloudy[min(y + 1, height - 1), min(x + 1, width - 1)]  # the centre's right and lower pixel
        ]
    )
    before, after = outlines(whole), outlines(run)
    assert set(after) == {"cloud", "land"}
    placement = run.record.images[0].info.placement
    for label, found in after.items():
        clipped = before[label].intersection(clear)
        assert found.symmetric_difference(clipped).area == 0
        assert areas_m2([found], placement) == areas_m2([clipped], placement)


def test_a_folder_in_which_only_the_cloud_model_has_run_is_taken_up(tmp_path: Path) -> None:
    (tmp_path / "out" / "cloud-mask").mkdir(parents=True)
    check_folder(tmp_path / "out")
    (tmp_path / "out" / "something else").mkdir()
    with pytest.raises(LimnerError, match="must be a new folder"):
        check_folder(tmp_path / "out")
