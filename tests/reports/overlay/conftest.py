"""Records whose analysed area is known."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import shapely
from limner.model.finding import Finding
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo
from limner.reports.writer import Area, ImageRecord, Record
from pyproj import Transformer
from rasterio.crs import CRS


@pytest.fixture(scope="session")
def area() -> Callable[..., Finding]:
    """An area with a label: of a box (x0, y0, x1, y1) or a polygon."""

    def make(label: str, shape: Any, score: float | None = 0.5, **more: Any) -> Finding:
        return Finding(label, shapely.box(*shape) if isinstance(shape, tuple) else shape, "area", score, **more)

    return make


@pytest.fixture(scope="session")
def in_zone_34() -> Callable[[float, float], tuple[float, float]]:
    """A place in UTM zone 33 in zone 34."""
    return Transformer.from_crs(32633, 32634, always_xy=True).transform


@pytest.fixture(scope="session")
def run() -> Callable[..., Record]:
    """A run of one map of 10 m, analysed where `analysed` says: a list of boxes, all by default."""

    def make(
        findings: Sequence[Finding] = (),
        *,
        name: str = "scene",
        size: tuple[int, int] = (100, 80),
        corner: tuple[float, float] = (500_000.0, 5_200_000.0),
        epsg: int | None = 32633,
        analysed: Sequence[tuple[float, float, float, float]] | None = None,
        labels: Sequence[str] = ("land", "water"),
        model: str = "toy",
        **more: Any,
    ) -> Record:
        if epsg is None:
            placement = Placement(((0.5, 0.0, 0.0), (0.0, 0.5, 0.0)), "um")
        else:
            matrix = ((10.0, 0.0, corner[0]), (0.0, -10.0, corner[1]))
            placement = Placement(matrix, "m", CRS.from_epsg(epsg).to_wkt(), source="geotransform")
        boxes = [shapely.box(*box) for box in ([(0, 0, *size)] if analysed is None else analysed)]
        outlines = np.array([*boxes, None], dtype=object)[:-1]
        image = ImageRecord(
            info=ImageInfo(f"/data/{name}.tif", "raster", size, (Channel("b1"),), placement, id=name),
            findings=lambda: tuple(findings),
            overview=lambda: None,
            areas=(Area("analysed", "", float(shapely.area(outlines).sum()), None, 1),),
            outlines=lambda: iter([outlines]),
            **more,
        )
        identity = {"name": model, "version": "1", "sha256": model}
        return Record((image,), (), identity, tuple(labels), "0.1.0", run=name)

    return make
