"""What zones, comparing and merging cost: processor seconds and peak memory, from runs of made findings.

The runs are those of `reports_table.py`: outlines of some 20 vertices, one for each 32 × 32 px. The second run has the
labels in another order, and for merging its scene lies half a scene to the east. Zones are turned squares, side
by side. Beside them: geopandas' overlay of the same outlines, with a sum of areas. Every row is a process.

    python tests/bench/zones_table.py [--findings 100000] [--zones 10000] [--folder DIR] [--only zones] [--repeat 1]
"""

import argparse
import math
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import reports_table
import shapely

STEPS = ("zones", "zones of one tenth", "peer", "compare", "merge")
TURN = 0.3  # radians


def make(folder: Path, count: int) -> None:
    """Three runs, and the outlines of the first."""
    for name, labels, shift in (("a", 1, 0.0), ("b", -1, 0.0), ("c", -1, 0.5)):
        (folder / name).mkdir(parents=True)
        write = reports_table.write_scene

        def write_east(path: Path, side: int, shift: float = shift, write: object = write) -> None:
            write(path, side)  # type: ignore[operator]
            with rasterio.open(path, "r+") as raster:
                raster.transform = raster.transform @ rasterio.Affine.translation(round(shift * side), 0)

        reports_table.LABELS = reports_table.LABELS[::labels]
        reports_table.write_scene = write_east
        reports_table.make(folder / name, count, slide=False)
        reports_table.write_scene = write
        reports_table.LABELS = reports_table.LABELS[::labels]


def write_zones(folder: Path, count: int) -> Path:
    """Turned squares over the scene of the first run, as a GeoPackage in its CRS."""
    path = folder / f"zones-{count}.gpkg"
    if path.exists():
        return path
    with rasterio.open(folder / "a" / "scene.tif") as raster:
        x0, y0, x1, y1 = raster.bounds
        crs = raster.crs
    across = math.ceil(math.sqrt(count))
    side = (x1 - x0) / across
    cell = np.arange(count)
    corners = np.stack([cell % across, cell // across], axis=1)[:, None] + [(0, 0), (1, 0), (1, 1), (0, 1)]
    turned = (corners - across / 2) * side @ [[math.cos(TURN), math.sin(TURN)], [-math.sin(TURN), math.cos(TURN)]]
    shapes = shapely.polygons(np.add(turned, [(x0 + x1) / 2, (y0 + y1) / 2]))
    frame = gpd.GeoDataFrame({"field": [f"field {number}" for number in cell]}, geometry=shapes, crs=crs)
    frame.to_file(path, layer="fields", driver="GPKG")
    return path


def peer(folder: Path, count: int) -> None:
    """Areas by zone and label as one adds them up with geopandas, in the plane of the CRS."""
    with (folder / "a" / "outlines.pickle").open("rb") as file:
        shapes, labels, _ = pickle.load(file)  # noqa: S301 - our own
    with rasterio.open(folder / "a" / "scene.tif") as raster:
        transform, crs = raster.transform, raster.crs
    matrix = np.array([[transform.a, transform.d], [transform.b, transform.e]])
    world = shapely.transform(shapely.from_wkb(shapes), lambda xy: xy @ matrix + [transform.c, transform.f])
    frame = gpd.GeoDataFrame({"label": labels}, geometry=world, crs=crs)
    found = gpd.overlay(frame, gpd.read_file(write_zones(folder, count)), how="intersection")
    found["area"] = found.area
    found.pivot_table(index="field", columns="label", values="area", aggfunc="sum").to_csv(folder / "peer.csv")


def step(folder: Path, name: str, zones: int) -> None:
    """One row's work."""
    import limner

    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    if name.startswith("zones"):
        path = write_zones(folder, zones if name == "zones" else zones // 10)
        limner.Run.open(folder / "a" / "run").zones(path, id="field", out=out)
    elif name == "peer":
        peer(folder, zones)
    elif name == "compare":
        limner.compare(folder / "a" / "run", folder / "b" / "run", out=out)
    else:
        limner.merge([folder / "a" / "run", folder / "c" / "run"], out=out)


def measured(words: Sequence[str]) -> tuple[float, float, float]:
    """(processor seconds, wall seconds, peak MiB) of this script with some words."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, __file__, *words])
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {process.returncode}")
    return used.ru_utime + used.ru_stime, time.perf_counter() - start, used.ru_maxrss / 1024


def main() -> None:
    """Make the runs, measure, and print a table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--findings", type=int, default=100_000)
    parser.add_argument("--zones", type=int, default=10_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--step", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        if asked.step == "make":
            make(asked.folder, asked.findings)
        else:
            step(asked.folder, asked.step, asked.zones)
        return
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="limner-zones-"))
    try:
        words = ["--folder", str(folder), "--findings", str(asked.findings), "--zones", str(asked.zones)]
        if not (folder / "c" / "run" / "manifest.json").exists():
            seconds, _, peak = measured([*words, "--step", "make"])
            sys.stdout.write(f"made {asked.findings} findings three times in {seconds:.1f} s, {peak:.0f} MiB\n")
        write_zones(folder, asked.zones)
        write_zones(folder, asked.zones // 10)
        sys.stdout.write("| step | processor s | wall s | peak MiB |\n| --- | --- | --- | --- |\n")
        for name in (asked.only or STEPS) * asked.repeat:
            seconds, wall, peak = measured([*words, "--step", name])
            sys.stdout.write(f"| {name} | {seconds:.1f} | {wall:.1f} | {peak:.0f} |\n")
            sys.stdout.flush()
    finally:
        if asked.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
