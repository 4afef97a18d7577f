"""Placement of rasters: the table of `tests/bench/georeference_table.py`, and files without a full georeference."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from limner.readers.contract import scan_with
from limner.readers.errors import ReadError, RequestError
from limner.readers.raster.geotiff import RasterReader
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC

WriteRaster = Callable[..., str]
Places = Callable[..., np.ndarray[Any, Any]]
LIMIT = 1e-6


@pytest.fixture(scope="module")
def bench(root: Path) -> ModuleType:
    path = root / "tests" / "bench" / "georeference_table.py"
    spec = importlib.util.spec_from_file_location("georeference_table", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_placements_are_exact_to_a_millionth_of_a_pixel(bench: ModuleType, tmp_path: Path) -> None:
    rows = bench.table(tmp_path)
    assert len(rows) == 13
    assert {name: errors for name, *errors in rows if max(errors) >= LIMIT} == {}


@pytest.mark.slow
def test_real_files_are_exact_to_a_millionth_of_a_pixel(bench: ModuleType, tmp_path: Path, shared_data: Path) -> None:
    rows = bench.table(tmp_path, shared_data / "geo")
    assert {name for name, *_ in rows} >= set(bench.REAL)
    assert {name: errors for name, *errors in rows if max(errors) >= LIMIT} == {}


def test_table_detects_half_a_pixel(bench: ModuleType, tmp_path: Path) -> None:
    name, path, affine = next(iter(bench.cases(tmp_path, None)))
    off, _ = bench.measure(path, affine @ Affine.translation(0.5, 0.5))
    assert name == "north-up, UTM"
    assert off == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("crs", "unit"),
    [("EPSG:32618", "m"), ("EPSG:4326", "deg"), ("EPSG:2225", "crs"), ("EPSG:4807", "crs"), ("EPSG:3857", "m")],
)
def test_unit_of_the_crs(write_raster: WriteRaster, places: Places, crs: str, unit: str) -> None:
    transform = Affine(0.01, 0, 2.0, 0, -0.01, 48.0)
    (info,) = scan_with(RasterReader(), write_raster("a.tif", places(9, 7), crs=crs, transform=transform), {})
    assert info.placement.unit == unit
    assert CRS.from_wkt(info.placement.crs) == CRS.from_user_input(crs)
    assert info.placement.source == "geotransform"


def test_residual_of_control_points(bench: ModuleType, tmp_path: Path) -> None:
    points = bench.control_points(49, 5.0)
    path = bench.write(tmp_path / "a.tif", gcps=(points, CRS.from_epsg(4326)))
    (info,) = scan_with(RasterReader(), str(path), {})
    warp = info.placement.warp
    assert warp is not None
    assert len(warp.terms) == 6
    pixel = np.array([(p.col, p.row) for p in points])
    residual = info.placement.to_pixel([(p.x, p.y) for p in points]) - pixel
    assert warp.residual_px == pytest.approx(np.sqrt((residual**2).sum(axis=1).mean()), rel=1e-3)
    assert any("49 control points" in note and f"{warp.residual_px:.3g} px" in note for note in info.notes)
    affine = np.asarray(info.placement.matrix)
    assert np.abs(pixel @ affine[:, :2].T + affine[:, 2] - info.placement.to_world(pixel)).max() < 0.02


def test_control_points_across_the_antimeridian_are_unwrapped(bench: ModuleType, tmp_path: Path) -> None:
    points = [
        GroundControlPoint(row=row, col=col, x=(179.9 + col * 1e-3 + 180) % 360 - 180, y=50 - row * 1e-3)
        for row in (0, 157)
        for col in (0, 211)
    ]
    path = bench.write(tmp_path / "a.tif", gcps=(points, CRS.from_epsg(4326)))
    (info,) = scan_with(RasterReader(), str(path), {})
    assert info.placement.to_world([(100, 0)])[0] == pytest.approx((180.0, 50.0))
    assert any("antimeridian" in note for note in info.notes)


def test_control_points_on_a_line_are_refused(bench: ModuleType, tmp_path: Path) -> None:
    points = [GroundControlPoint(row=at, col=at, x=10 + at * 1e-3, y=50 - at * 1e-3) for at in (0, 20, 40, 60)]
    path = bench.write(tmp_path / "a.tif", gcps=(points, CRS.from_epsg(4326)))
    with pytest.raises(ReadError, match="control points"):
        scan_with(RasterReader(), str(path), {})


def test_missing_crs_is_not_guessed(write_raster: WriteRaster, places: Places) -> None:
    path = write_raster("a.tif", places(9, 7), crs=None)
    (info,) = scan_with(RasterReader(), path, {})
    assert (info.placement.unit, info.placement.crs) == ("px", None)
    assert info.placement.to_world([(3, 4)]).tolist() == [[3, 4]]
    assert any("--crs EPSG" in note for note in info.notes)
    (stated,) = scan_with(RasterReader(), path, {"crs": "EPSG:32618"})
    assert stated.placement.unit == "m"
    assert stated.placement.to_world([(0, 0)]).tolist() == [[3e5, 4e6]]


def test_crs_of_the_file_wins_over_the_option(write_raster: WriteRaster, places: Places) -> None:
    path = write_raster("a.tif", places(9, 7))
    (info,) = scan_with(RasterReader(), path, {"crs": "EPSG:4326"})
    assert CRS.from_wkt(info.placement.crs).to_epsg() == 32618
    assert any("not used" in note for note in info.notes)
    (same,) = scan_with(RasterReader(), path, {"crs": "EPSG:32618"})
    assert same.notes == ()


@pytest.mark.slow
def test_invalid_crs_option(write_raster: WriteRaster, places: Places) -> None:
    with pytest.raises(RequestError, match="EPSG:32618"):
        scan_with(RasterReader(), write_raster("a.tif", places(9, 7), crs=None), {"crs": "north of here"})


def test_missing_georeference_is_noted(write_raster: WriteRaster, places: Places) -> None:
    (info,) = scan_with(
        RasterReader(), write_raster("a.tif", places(9, 7), crs=None, transform=None), {"crs": "EPSG:32618"}
    )
    assert not info.placement.has_unit
    assert any("has no georeference" in note for note in info.notes)


def test_rpc_alone_is_no_placement(write_raster: WriteRaster, places: Places) -> None:
    path = write_raster("a.tif", places(9, 7), crs=None, transform=None)
    ones = [1.0] + [0.0] * 19
    with rasterio.open(path, "r+") as file:
        file.rpcs = RPC(0.0, 1.0, 50.0, 1.0, ones, ones, 0.0, 1.0, 8.0, 1.0, ones, ones, 0.0, 1.0)  # pyright: ignore[reportCallIssue] - rasterio states no types
    (info,) = scan_with(RasterReader(), path, {})
    assert not info.placement.has_unit
    assert any("RPC" in note for note in info.notes)


def test_world_file(write_raster: WriteRaster, places: Places) -> None:
    path = write_raster("a.png", places(9, 7, 1, "uint8"), driver="PNG", crs=None, transform=None)
    Path(path).with_suffix(".pgw").write_text("2.0\n0\n0\n-3.0\n1001.0\n1998.5\n", encoding="ascii")
    (info,) = scan_with(RasterReader(), path, {"crs": "EPSG:32618"})
    assert info.placement.to_world([(0, 0), (0.5, 0.5)]).tolist() == [[1000, 2000], [1001, 1998.5]]
    assert "a.pgw" in {Path(name).name for name in info.files}


def test_degenerate_geotransform_is_refused(write_raster: WriteRaster, places: Places) -> None:
    path = write_raster("a.tif", places(9, 7), transform=Affine(10, 10, 3e5, 10, 10, 4e6))
    with pytest.raises(ReadError, match="two directions"):
        scan_with(RasterReader(), path, {})
