"""Synthetic records of runs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from limner.model.finding import Finding
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo
from limner.reports.writer import Area, FileRow, ImageRecord, Overview, Record
from rasterio.crs import CRS

MODEL = {"name": "toy", "version": "1", "sha256": "0" * 64}

MakeImage = Callable[..., ImageRecord]
MakeRecord = Callable[..., Record]
MakePlacement = Callable[..., Placement]


@pytest.fixture(scope="session")
def placement() -> MakePlacement:
    """A map placement from an EPSG code (or WKT) and the six numbers of an affine matrix, row by row."""

    def make(crs: int | str, *matrix: float) -> Placement:
        parsed = CRS.from_epsg(crs) if isinstance(crs, int) else CRS.from_string(crs)
        a, b, c, d, e, f = matrix
        return Placement(
            ((a, b, c), (d, e, f)), "deg" if parsed.is_geographic else "m", parsed.to_wkt(), source="geotransform"
        )

    return make


@pytest.fixture(scope="session")
def image() -> MakeImage:
    """An image's record: analysed as a whole, with a plain picture, unless stated otherwise."""

    def make(
        name: str,
        placement: Placement,
        findings: Sequence[Finding] = (),
        *,
        size: tuple[int, int] = (1000, 800),
        m2: float | None = None,
        **more: Any,
    ) -> ImageRecord:
        pixels = np.full((80, 100, 3), 120, dtype=np.uint8)
        observed = np.ones((80, 100), dtype=np.bool_)
        facts: dict[str, Any] = {
            "info": ImageInfo(f"/data/{name}.tif", "raster", size, (Channel("b1"),), placement, id=name),
            "findings": lambda: findings,
            "overview": lambda: Overview(pixels, observed, observed, (size[0] / 100, size[1] / 80)),
            "areas": (Area("analysed", "", float(size[0] * size[1]), m2, 4),),
        }
        return ImageRecord(**(facts | more))

    return make


@pytest.fixture(scope="session")
def record() -> MakeRecord:
    """A run's record of some images."""

    def make(
        *images: ImageRecord,
        labels: Sequence[str] = ("land", "water"),
        files: Sequence[FileRow] = (),
        model: Mapping[str, str] = MODEL,
        colours: Mapping[str, str] | None = None,
    ) -> Record:
        return Record(images, tuple(files), model, tuple(labels), "0.1.0", colours=colours or {})

    return make


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder for reports."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder
