"""csmask and a probe against land cover that others drew, by area, on polygons that the probe has not seen.

    python tests/bench/truth_areas.py [DATA]

DATA is the folder with `sentinel2_slovenia_lulc` (five dates of 1 km², two of them cloudy, and official land use as
polygons); by default shared/data/geo beside the checkout. The outlines of the Virginia sample are in notebooks/samples.

- Clouds: what csmask finds on each date, as shares of the analysed area. Of the dates it is known whether all is cloud.
- Land cover by csmask: areas of its classes inside the outlines of the Virginia sample.
- Land cover by a probe: the ground is cut into blocks, in two sets like a chessboard. A probe is trained on outlines in
  one set and judged in the other, and once more with the sets exchanged. Outlines are cut at blocks, and what is nearer
  to another block than the side of a tile is left out, so that no tile has pixels of both.
"""
# geopandas leaves much of what it returns untyped:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "notebooks" / "samples"
L1C = ("--sensor", "sentinel-2-l1c")
BANDS = "colour:blue,green,red,nir,swir16,swir22"


def limner(*words: object) -> None:
    """Run a command of limner; its output is shown where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "limner", *map(str, words)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)


def layers(out: Path) -> dict[str, gpd.GeoDataFrame]:
    """The findings of a run by image."""
    path = out / "findings.gpkg"
    names = [name for name in gpd.list_layers(path)["name"] if name not in {"about", "layer_styles"}]
    return {name: gpd.read_file(path, layer=name) for name in names}


def overlap(truth: gpd.GeoDataFrame, found: gpd.GeoDataFrame) -> pd.DataFrame:
    """Hectares of each true label (rows) that have each label that was found; the rest is `none`."""
    pieces = gpd.overlay(truth[["truth", "geometry"]], found[["label", "geometry"]], how="intersection")
    table = pieces.assign(area=pieces.area / 1e4).pivot_table("area", "truth", "label", "sum", fill_value=0.0)
    whole = truth.assign(area=truth.area / 1e4).groupby("truth")["area"].sum()
    table = table.reindex(whole.index, fill_value=0.0)
    return table.assign(none=(whole - table.sum(axis=1)).clip(lower=0.0))


def show(title: str, table: pd.DataFrame, decimals: int = 1) -> None:
    """Print a table of Markdown."""
    lines = [f"\n{title}\n", f"| {table.index.name or ''} | {' | '.join(map(str, table.columns))} |"]
    lines.append("|" + " --- |" * (1 + len(table.columns)))
    lines += [
        f"| {name} | {' | '.join(f'{value:.{decimals}f}' for value in row)} |"
        for name, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def scores(table: pd.DataFrame) -> str:
    """Overall accuracy by area, that of always naming the most frequent label, and the mean of the labels' IoU."""
    labels, whole = list(table.index), table.to_numpy().sum()
    both = {label: table.loc[label, label] if label in table else 0.0 for label in labels}
    named = {label: table[label].sum() if label in table else 0.0 for label in labels}
    own = table.sum(axis=1)
    iou = {label: both[label] / (own[label] + named[label] - both[label]) for label in labels}
    parts = ", ".join(f"{label} {value:.2f}" for label, value in iou.items())
    right, most = sum(both.values()) / whole, own.max() / whole
    return f"\nRight: {right:.1%} of {whole:.1f} ha; the most frequent label everywhere: {most:.1%}. IoU: {parts}.\n"


def blocks(truth: gpd.GeoDataFrame, side: float, margin: float) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """Outlines cut by the two colours of a chessboard of `side` metres, without what is within `margin` of others."""
    west, south, east, north = truth.total_bounds
    sets: tuple[list[shapely.Geometry], list[shapely.Geometry]] = ([], [])
    for column in range(int(np.ceil((east - west) / side))):
        for row in range(int(np.ceil((north - south) / side))):
            x, y = west + column * side, south + row * side
            sets[(column + row) % 2].append(shapely.box(x + margin, y + margin, x + side - margin, y + side - margin))
    cut = [truth.clip(shapely.MultiPolygon(some)) for some in sets]
    cut = [one[one.geom_type.isin(["Polygon", "MultiPolygon"])].explode(ignore_index=True) for one in cut]
    return cut[0], cut[1]


def probe(
    folder: Path, train: Sequence[Path], judge: Sequence[Path], truth: gpd.GeoDataFrame, tile: int, side: float
) -> dict[str, pd.DataFrame]:
    """Areas of true and found labels of each judged image, where no part of the ground was trained on."""
    halves = blocks(truth, side, margin=tile * 10.0)
    tables: dict[str, pd.DataFrame] = {}
    for place, (taught, held) in enumerate([halves, halves[::-1]]):
        labels, model, out = folder / f"labels{place}.gpkg", folder / f"probe{place}", folder / f"run{place}"
        taught.rename(columns={"truth": "label"})[["label", "geometry"]].to_file(labels)
        given = ("--labels", labels, "--tile", tile, "--encoder", BANDS, "--folds", 3, "--block", "outline")
        limner("train", "probe", *train, *L1C, "--resolution", "10m", *given, "--out", model)
        limner("run", *judge, *L1C, "--model", f"probe:{model}", "--out", out, "--reports", "geopackage")
        for name, found in layers(out).items():
            table = overlap(held, found)
            tables[name] = table if name not in tables else tables[name].add(table, fill_value=0.0)
    return tables


def slovenia(data: Path, folder: Path) -> None:
    """Clouds by csmask, and land use by a probe."""
    place = data / "sentinel2_slovenia_lulc"
    scenes = sorted(place.glob("S2_L1C_*.tif"))
    limner("run", *scenes, *L1C, "--model", "csmask", "--out", folder / "clouds", "--reports", "summary-csv", "--fetch")
    summary = pd.read_csv(folder / "clouds" / "summary.csv").set_index("image")
    shares = summary.filter(regex="^share").mul(100).rename(columns=lambda name: name.rpartition(".")[2])
    shares.index.name = "csmask, % of the area"
    show("Slovenia: 2015-07-31 and 2015-08-20 are all cloud, the others without", shares)
    with_bounds = gpd.read_file(place / "LULC.gpkg").rename(columns={"LULC_NAME": "truth"})
    image = shapely.box(465181.05, 5079244.63, 466180.0, 5080254.63)
    truth = with_bounds.clip(image)
    truth = truth[truth["truth"].isin(["forest", "grassland"])]  # others have too few places
    clear = [scene for scene in scenes if any(day in scene.name for day in ("07-11", "08-30"))]
    judged = [scene for scene in scenes if scene not in clear]
    for name, table in probe(folder, clear, judged, truth, tile=2, side=250.0).items():
        show(f"Slovenia, a probe on {name}: ha of land use (rows) by label", table, 2)
        sys.stdout.write(scores(table))


def virginia(folder: Path) -> None:
    """Land cover by csmask and by a probe on the sample scene."""
    truth = gpd.read_file(SAMPLES / "virginia-labels.geojson").to_crs(32618).rename(columns={"label": "truth"})
    limner(
        "run",
        SAMPLES / "virginia",
        *L1C,
        "--model",
        "csmask",
        "--out",
        folder / "cover",
        "--reports",
        "geopackage",
        "--fetch",
    )
    [found] = layers(folder / "cover").values()
    show("Virginia, csmask: ha of outlines (rows) by its classes", overlap(truth, found))
    [table] = probe(folder, [SAMPLES / "virginia"], [SAMPLES / "virginia"], truth, tile=8, side=1000.0).values()
    show("Virginia, a probe: ha of outlines (rows) by label", table)
    sys.stdout.write(scores(table))


def main() -> None:
    """Print all tables."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "shared" / "data" / "geo"
    with tempfile.TemporaryDirectory() as folder:
        virginia(Path(folder))
    if not (data / "sentinel2_slovenia_lulc").is_dir():
        sys.stdout.write(f"{data} has no sentinel2_slovenia_lulc: the tables of Slovenia are left out\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        slovenia(data, Path(folder))


if __name__ == "__main__":
    main()
