"""Cores of tissue microarrays: cores.csv with a row for each place of the grid, and a map of the cores of a slide."""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely
from PIL import Image, ImageDraw

from ..readers.image import Kind
from ..readers.slide.tma import Core, CoreGrid
from .columns import IMAGE, MODEL, NAME
from .csv_safety import clean_text
from .measures import FindingsBatch, all_labels, areas_m2, batches
from .overview.png import save_png
from .overview.text import draw_text
from .table import Column, Dtype, with_unique_names, write_csv
from .writer import ImageRecord, Record, image_file, write_per_image

Numbers = npt.NDArray[np.float64]

_MM2 = 1e6  # per m²
PRESENT, MISSING = (24, 96, 200), (200, 40, 40)
"""Colours of cores."""


@dataclass(slots=True)
class CoreSums:
    """Findings and areas of one label by place of the grid."""

    count: npt.NDArray[np.int64]
    m2: dict[bool, Numbers]
    """Areas of whole regions (True), and of findings that are smaller."""


@dataclass
class CoreTable:
    """The cores of one slide with its findings."""

    record: Record
    image: ImageRecord
    grid: CoreGrid
    sums: dict[str, CoreSums] = field(default_factory=dict[str, CoreSums])

    def __len__(self) -> int:
        return len(self.grid.cores)

    @property
    def kind(self) -> Kind:
        """The kind of the image."""
        return self.image.info.kind

    @property
    def missing(self) -> npt.NDArray[np.bool_]:
        """(N,) which cores are missing, and were not analysed."""
        return np.array([core.missing for core in self.grid.cores])

    def of_cores(self, value: Callable[[Core], object]) -> list[object]:
        """A value of each core."""
        return [value(core) for core in self.grid.cores]

    def tissue_mm2(self) -> Numbers:
        """(N,) area of tissue on the overview; NaN without a pixel size."""
        return np.array([core.tissue_px for core in self.grid.cores]) * self.pixel_m2 * _MM2

    @cached_property
    def pixel_m2(self) -> float:
        """Area of a level-0 pixel; NaN without a pixel size."""
        return float(areas_m2(np.array([shapely.box(0, 0, 1, 1)], dtype=object), self.image.info)[0])

    def diameter_um(self) -> float:
        """Diameter of a usual core; NaN without a pixel size."""
        return self.grid.diameter * math.sqrt(self.pixel_m2) * 1e6

    def findings(self) -> list[int | None]:
        """Findings whose point lies in each place; None of a missing core."""
        total = sum((one.count for one in self.sums.values()), np.zeros(len(self), dtype=np.int64))
        return self._present(total)

    def count(self, label: str) -> list[int | None]:
        """Findings of a label, likewise."""
        found = self.sums.get(label)
        return self._present(np.zeros(len(self), dtype=np.int64) if found is None else found.count)

    def mm2(self, label: str) -> Numbers:
        """(N,) area of a label within each place; NaN of a missing core."""
        whole = all(not one.m2[False].any() for one in self.sums.values())  # regions count where nothing is smaller
        found = self.sums.get(label)
        area = np.zeros(len(self)) if found is None else found.m2[whole] * _MM2
        return np.where(self.missing | math.isnan(self.pixel_m2), math.nan, area)

    def share(self, label: str) -> Numbers:
        """(N,) area of a label over that of the core's tissue."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.mm2(label) / self.tissue_mm2()

    def _present(self, counts: npt.NDArray[np.int64]) -> list[int | None]:
        assessed = self.record.assessed
        pairs = zip(counts.tolist(), self.missing.tolist(), strict=True)
        return [None if gone or not assessed else number for number, gone in pairs]

    def add(self, batch: FindingsBatch) -> None:
        """Add findings, each divided among the places that it meets."""
        if not len(batch):
            return
        valid = batch.table.numbers.get("valid", np.full(len(batch), np.nan))
        valid = np.where(np.isnan(valid), 1.0, valid)
        points = self.grid.places(batch.point)
        rows, places, m2 = self._divided(batch)
        whole = batch.table.kind == "region"
        for label in sorted(set(batch.table.label.tolist())):
            here = batch.table.label == label
            nothing = {True: np.zeros(len(self)), False: np.zeros(len(self))}
            sums = self.sums.setdefault(label, CoreSums(np.zeros(len(self), dtype=np.int64), nothing))
            np.add.at(sums.count, points[here & (points >= 0)], 1)
            for is_region in (True, False):
                chosen = (here & (whole == is_region))[rows]
                np.add.at(sums.m2[is_region], places[chosen], (m2 * valid[rows])[chosen])

    def _divided(self, batch: FindingsBatch) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Numbers]:
        """Rows of findings, the places that they meet, and their area in m² within each."""
        low, high = batch.bounds[:, :2], batch.bounds[:, 2:]
        corners = np.stack([low, high, np.stack([low[:, 0], high[:, 1]], 1), np.stack([high[:, 0], low[:, 1]], 1)])
        at = self.grid.places(corners.reshape(-1, 2)).reshape(4, -1)
        inside = (at == at[0]).all(axis=0) & (at[0] >= 0)  # a place is convex, so all of the finding is in it
        alone, others = np.flatnonzero(inside), np.flatnonzero(~inside)
        cells = np.array([shapely.Polygon(self.grid.cell(core)) for core in self.grid.cores], dtype=object)
        first, second = shapely.STRtree(cells).query(batch.geometries[others], predicate="intersects")
        parts = shapely.intersection(batch.geometries[others[first]], cells[second])
        area = np.concatenate([batch.area_m2[alone], areas_m2(parts, self.image.info)])
        rows = np.concatenate([alone, others[first]]).astype(np.intp)
        return rows, np.concatenate([at[0][alone], second]).astype(np.intp), np.nan_to_num(area)


CORES: tuple[Column[CoreTable], ...] = (
    IMAGE,
    NAME,
    Column(
        "core", "category", "row and column: A-1 is the first of the top row", lambda t: t.of_cores(lambda c: c.name)
    ),
    Column("row", "Int64", "from 1, the top", lambda t: t.of_cores(lambda c: c.row)),
    Column("column", "Int64", "from 1, the left", lambda t: t.of_cores(lambda c: c.column)),
    Column(
        "status",
        "category",
        "present; missing with less than a tenth of a usual core's tissue, and not analysed",
        lambda t: t.of_cores(lambda c: "missing" if c.missing else "present"),
    ),
    Column("x_px", "float64", "its middle in level-0 pixels", lambda t: t.of_cores(lambda c: c.x), "px", 3),
    Column("y_px", "float64", "the same", lambda t: t.of_cores(lambda c: c.y), "px", 3),
    Column("diameter_um", "float64", "of a usual core of the slide", lambda t: t.diameter_um(), "µm", 1),
    Column("tissue_mm2", "float64", "area of its tissue, by the overview", lambda t: t.tissue_mm2(), "mm²"),
    Column("pieces", "Int64", "pieces of its tissue", lambda t: t.of_cores(lambda c: c.pieces)),
    Column("findings", "Int64", "findings whose point lies in its place", lambda t: t.findings()),
)
"""Columns of cores.csv. After them come `core_label_columns` for each label, then `MODEL`."""


def core_label_columns(label: str) -> list[Column[CoreTable]]:
    """The columns of one label in cores.csv."""

    def column(
        name: str, dtype: Dtype, description: str, value: Callable[[CoreTable], object], unit: str = ""
    ) -> Column[CoreTable]:
        decimals = 6 if name == "share" else None
        return Column(f"{name}.{clean_text(label)}", dtype, description, value, unit, decimals)

    return [
        column("count", "Int64", "findings whose point lies in its place", lambda t: t.count(label)),
        column("area_mm2", "float64", "their area within its place", lambda t: t.mm2(label), "mm²"),
        column("share", "float64", "their part of its tissue by the overview", lambda t: t.share(label)),
    ]


@dataclass(frozen=True, slots=True)
class Cores:
    """cores.csv: a row for each core of the tissue microarrays that `--tma` found, and a map of them for each slide.

    A finding's area is divided among the places of the grid that it meets, and counted where its point lies. The map,
    cores-<image id>.png, shows the overview with every core and its name, missing ones in red.
    """

    name: str = "cores"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write the table and a picture per slide; nothing where no cores were looked for."""
        grids = [(image, CoreGrid.of(image.info)) for image in record.images]
        tables = [CoreTable(record, image, grid) for image, grid in grids if grid is not None]
        if not tables:
            return []
        for table in tables:
            for batch in batches(record, [table.image]):
                table.add(batch)
        labels = all_labels(record, sorted({label for table in tables for label in table.sums}))
        own = with_unique_names([column for label in labels for column in core_label_columns(label)])
        path = write_csv(folder / "cores.csv", [*CORES, *own, *MODEL], tables)
        maps = {table.image.info.id: table.grid for table in tables}
        images = [table.image for table in tables]
        return [path, *write_per_image(images, lambda image: _write_map(record, image, maps[image.info.id], folder))]

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images without cores, where others have some."""
        without = [image for image in record.images if CoreGrid.of(image.info) is None]
        if len(without) == len(record.images):
            return {}
        return {image.info.id: "no cores were looked for: it is no slide" for image in without}


def _write_map(record: Record, image: ImageRecord, grid: CoreGrid, folder: Path) -> Sequence[Path]:
    """The overview with circles around the cores and their names; nothing where the image cannot be read any more."""
    overview = image.overview()
    if overview is None:
        return []
    picture = Image.fromarray(overview.pixels)
    pen = ImageDraw.Draw(picture)
    radius = [grid.radius / side for side in overview.scale]
    size = max(10, round(0.35 * min(radius)))
    for core in grid.cores:
        x, y = core.x / overview.scale[0], core.y / overview.scale[1]
        colour = MISSING if core.missing else PRESENT
        pen.ellipse(
            (x - radius[0], y - radius[1], x + radius[0], y + radius[1]), outline=colour, width=max(1, size // 8)
        )
        draw_text(pen, (x, y - radius[1] - size), core.name, colour, size, "ma")
    path = image_file(folder, "cores-", image.info.id, ".png")
    save_png(picture, path, record)
    return [path]
