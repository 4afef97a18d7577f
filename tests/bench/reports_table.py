"""What reports cost: processor seconds and peak memory of processes that write them from a run of made findings.

A run folder is made of outlines of some 20 vertices, as they are traced from a class map, over a georeferenced scene of
32 × 32 px for each; those at region borders are cut. Beside them: a loop of geopandas that reads the same outlines as
WKB, measures them, and writes CSV, GeoJSON and GeoPackage. Every row is a process of its own.

With --slide, the scene is a DICOM slide, and the reports are those of slides. With --boxes, the findings are boxes of a
detector in tiles that overlap, so that all of them are compared. The row "joining" only reads and joins them.

    python tests/bench/reports_table.py [--findings 100000] [--folder DIR] [--only findings-csv] [--repeat 1] [--slide]
        [--boxes]
"""

import argparse
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from rasterio.enums import Resampling

LABELS = ("bare", "built", "crop", "forest", "water")
CELL = 32  # px: the scene has one finding for each cell of this side
TILES = 16  # of a region
VERTICES = 20
_WITH_PEER = 1_000_000  # findings up to which the peer gets them too
ROWS = ["peer", "joining", "findings-csv", "geoparquet", "geopackage", "geojson", "overview-png", "all"]
OVERLAP = 64  # px: how far the tiles of boxes reach beyond the cores of regions
SLIDE_ROWS = ["findings-csv", "qupath-gz", "dicom-ann", "dicom-seg"]


def write_scene(path: Path, side: int) -> None:
    """A scene of zeros, of which no block is stored."""
    profile: dict[str, Any] = {"driver": "GTiff", "width": side, "height": side, "count": 1, "dtype": "uint8"}
    where = {"crs": "EPSG:32618", "transform": rasterio.Affine(10, 0, 3e5, 0, -10, 43e5)}
    with rasterio.open(path, "w", **profile, **where, tiled=True, sparse_ok=True, bigtiff="yes") as raster:
        raster.build_overviews([2, 4, 8, 16], Resampling.nearest)


def write_slide(path: Path, side: int) -> None:
    """A DICOM slide of 0.25 µm/px, of which one tile is stored."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    def item(**elements: object) -> Dataset:
        made = Dataset()
        for name, value in elements.items():
            setattr(made, name, value)
        return made

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID("1.2.840.10008.5.1.4.1.1.77.1.6"), UID("1.2.6")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    place = item(ColumnPositionInTotalImagePixelMatrix=1, RowPositionInTotalImagePixelMatrix=1)
    for axis in "XYZ":
        setattr(place, f"{axis}OffsetInSlideCoordinateSystem", 0)
    slide = item(
        SOPClassUID=meta.MediaStorageSOPClassUID,
        SOPInstanceUID=meta.MediaStorageSOPInstanceUID,
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID="1.2.4",
        FrameOfReferenceUID="1.2.5",
        ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        Modality="SM",
        DimensionOrganizationType="TILED_SPARSE",
        NumberOfFrames=1,
        TotalPixelMatrixRows=side,
        TotalPixelMatrixColumns=side,
        TotalPixelMatrixFocalPlanes=1,
        TotalPixelMatrixOriginSequence=[item(XOffsetInSlideCoordinateSystem=0, YOffsetInSlideCoordinateSystem=0)],
        ImageOrientationSlide=[0, -1, 0, -1, 0, 0],
        ImagedVolumeWidth=side * 0.00025,
        ImagedVolumeHeight=side * 0.00025,
        SharedFunctionalGroupsSequence=[item(PixelMeasuresSequence=[item(PixelSpacing=[0.00025, 0.00025])])],
        PerFrameFunctionalGroupsSequence=[item(PlanePositionSlideSequence=[place])],
        Rows=512,
        Columns=512,
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        PixelData=bytes(512 * 512 * 3),
    )
    slide.file_meta = meta
    slide.save_as(path, enforce_file_format=True)


def outlines(row: int, across: int) -> npt.NDArray[np.object_]:
    """Star-shaped polygons with vertices at whole pixels, one in each cell of a row: the same each time."""
    random = np.random.default_rng([0, row])
    corner = np.stack([np.arange(across), np.full(across, row)], axis=1) * CELL
    centre = corner + random.integers(12, 20, (across, 2))
    angles = np.sort(random.random((across, VERTICES)), axis=1) * 2 * np.pi
    angles = (np.arange(VERTICES) * 2 * np.pi / VERTICES) + angles * 0.2 / VERTICES
    radius = random.uniform(5, 14, (across, VERTICES))
    spokes = np.stack([np.cos(angles), np.sin(angles)], axis=2) * radius[:, :, None]
    rings = np.round(centre[:, None] + spokes)
    shapes: Any = shapely.polygons(np.concatenate([rings, rings[:, :1]], axis=1))
    odd = ~shapely.is_valid(shapes)
    shapes[odd] = shapely.convex_hull(shapes[odd])
    return shapes


def make(folder: Path, count: int, *, slide: bool, boxes: bool) -> None:
    """A run folder with so many findings, of a scene or a slide, and the same outlines as a pickle of WKB.

    Of more than a million there is no pickle, so that memory does not grow with them.
    """
    from limner.model.finding import Coverage, Finding, Result
    from limner.pipelines.config import Settings
    from limner.pipelines.run.execute import prepare
    from limner.pipelines.run.manifest import make_manifest
    from limner.pipelines.run.redaction import write_sources
    from limner.pipelines.run.run_folder import RunFolder

    across = int(np.ceil(np.sqrt(count)))
    scene = folder / ("slide.dcm" if slide else "scene.tif")
    (write_slide if slide else write_scene)(scene, CELL * across)
    random = np.random.default_rng(1)
    labels, scores = random.integers(0, len(LABELS), count), random.random(count).round(4)
    if count <= _WITH_PEER:
        shapes = np.concatenate([outlines(row, across) for row in range(across)])[:count]
        with (folder / "outlines.pickle").open("wb") as file:
            pickle.dump((shapely.to_wkb(shapes), [LABELS[code] for code in labels], scores), file)
    asked = {"inputs": [str(scene)], "out": str(folder / "run"), "hd_num": TILES, "model": "none"}
    settings = Settings.resolve({**asked, "tissue": "off"} if slide else asked)
    prepared = prepare(settings)
    facts: dict[str, Any] = {"identity": {"name": "made", "version": "1", "sha256": "0" * 64}, "colours": {}}
    manifest = make_manifest(settings, prepared.plan, None, redactor=prepared.redactor, labels=LABELS, **facts)
    manifest["annotator"]["name"] = "made"
    manifest["started"] = "2026-01-01T00:00:00+00:00"
    (image,) = prepared.plan.images
    margin = OVERLAP if boxes else 0
    with RunFolder.open(folder / "run") as store:
        store.write_manifest(manifest)
        write_sources(folder / "run", "", prepared.redactor.originals)
        for (top, bottom), regions in groupby(image.regions, lambda region: (region.core.y0, region.core.y1)):
            first = max(0, (int(top) - margin) // CELL - 1)
            rows = range(first, min(across, (int(bottom) + margin) // CELL + 2))
            shapes = np.concatenate([outlines(row, across) for row in rows])[: count - first * across]
            tree = shapely.STRtree(shapes)
            for region in regions:
                core = region.core
                window = core.x0 - margin, core.y0 - margin, core.x1 + margin, core.y1 + margin
                box = shapely.box(*window)
                near = np.sort(tree.query(box, predicate="intersects"))
                inside = shapely.contains_properly(box, shapes[near])
                found: list[Finding] = []
                for place, whole in zip(near.tolist(), inside.tolist(), strict=True):
                    shape: Any = shapes[place] if whole else shapes[place] & box
                    parts = [one for one in shapely.get_parts(shape) if one.geom_type == "Polygon" and one.area > 0]
                    number = first * across + place
                    if boxes:
                        score = float(scores[number])
                        found.append(
                            Finding(LABELS[labels[number]], shapely.box(*shape.bounds), "box", score, window=window)
                        )
                        continue
                    one = Finding(LABELS[labels[number]], shape, "area", float(scores[number]), cut=not whole)
                    found += [replace(one, geometry=part, numbers={"pixels": part.area}) for part in parts]
                pixels = float(core.width * core.height)
                cover = Coverage(pixels, 0.0, 100.0 * pixels, 0.0, 0.0, 0.0)
                store.append([Result(region.key, region.grid.image, "done", tuple(found), cover, seconds=0.1)])


def write(folder: Path, names: Sequence[str]) -> None:
    """Write reports of the run."""
    from limner.pipelines.run.reporting import load_writers, read_record, write_reports

    out = folder / "out"
    for written in write_reports(read_record(folder / "run"), folder / "run", load_writers(names)):
        if written.error:
            raise SystemExit(written.error)
        for path in written.paths:
            shutil.move(path, out / path.name)


def join(folder: Path) -> None:
    """Read and join the findings of the run."""
    from limner.pipelines.run.reporting import read_record

    for image in read_record(folder / "run").images:
        image.findings()


def peer(folder: Path) -> None:
    """CSV, GeoJSON and GeoPackage of the same outlines, as one writes it with geopandas."""
    import geopandas as gpd

    with (folder / "outlines.pickle").open("rb") as file:
        shapes, labels, scores = pickle.load(file)  # noqa: S301 - our own
    with rasterio.open(folder / "scene.tif") as raster:
        transform, crs = raster.transform, raster.crs
    pixels = shapely.from_wkb(shapes)
    matrix = np.array([[transform.a, transform.d], [transform.b, transform.e]])
    world = shapely.transform(pixels, lambda xy: xy @ matrix + [transform.c, transform.f])
    frame = gpd.GeoDataFrame({"label": labels, "score": scores}, geometry=world, crs=crs)
    frame["area_m2"] = frame.area
    frame[["x0", "y0", "x1", "y1"]] = frame.bounds
    centre = frame.centroid
    frame["x"], frame["y"] = centre.x, centre.y
    degrees = centre.to_crs(4326)
    frame["lon"], frame["lat"] = degrees.x, degrees.y
    frame.drop(columns="geometry").to_csv(folder / "out" / "peer.csv", index=False)
    frame.to_crs(4326).to_file(folder / "out" / "peer.geojson", driver="GeoJSON")
    frame.to_file(folder / "out" / "peer.gpkg", driver="GPKG")


def measured(words: Sequence[str], script: str = __file__) -> tuple[float, float, float]:
    """(processor seconds, wall seconds, peak MiB) of a script with some words."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, script, *words])
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {process.returncode}")
    return used.ru_utime + used.ru_stime, time.perf_counter() - start, used.ru_maxrss / 1024


def main() -> None:
    """Make the run, measure, and print a table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--findings", type=int, default=100_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--slide", action="store_true")
    parser.add_argument("--boxes", action="store_true")
    parser.add_argument("--step", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        steps = {
            "make": lambda: make(asked.folder, asked.findings, slide=asked.slide, boxes=asked.boxes),
            "peer": lambda: peer(asked.folder),
            "joining": lambda: join(asked.folder),
        }
        steps.get(asked.step, lambda: write(asked.folder, [] if asked.step == "all" else asked.step.split(",")))()
        return
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="limner-reports-"))
    try:
        (folder / "out").mkdir(parents=True, exist_ok=True)
        words = ["--folder", str(folder), "--findings", str(asked.findings), *(["--slide"] if asked.slide else [])]
        words += ["--boxes"] if asked.boxes else []
        if not (folder / "run" / "manifest.json").exists():
            seconds, _, peak = measured([*words, "--step", "make"])
            sys.stdout.write(f"made {asked.findings} findings in {seconds:.1f} s, {peak:.0f} MiB\n")
        sys.stdout.write("| reports | processor s | wall s | peak MiB |\n| --- | --- | --- | --- |\n")
        for name in (asked.only or (SLIDE_ROWS if asked.slide else ROWS)) * asked.repeat:
            seconds, wall, peak = measured([*words, "--step", name])
            sys.stdout.write(f"| {name} | {seconds:.1f} | {wall:.1f} | {peak:.0f} |\n")
            sys.stdout.flush()
    finally:
        if asked.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
