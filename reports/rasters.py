"""Rasters on the grid of an analysis: cloud-optimised GeoTIFFs for maps, pyramidal OME-TIFFs for slides.

Layers may lie in files that are mapped into memory: they are written a row of blocks at a time.
"""
# rasterio and tifffile leave some of their arguments untyped:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..readers.geometry import Placement
from ..readers.regions import Grid
from ..readers.scratch import scratch_array
from .csv_safety import clean_text

Layers = npt.NDArray[np.uint8]
"""(layers, H, W) on the analysis grid, north-up."""

Layer = npt.NDArray[np.uint8]
"""(H, W)."""

TILE: Final = 512
_SMALLEST: Final = 256  # px: a level that is smaller has no further one


@dataclass(frozen=True, slots=True)
class Raster:
    """Layers on the analysis grid of an image."""

    grid: Grid
    placement: Placement
    """Of the image's level-0 pixels."""
    layers: Layers
    about: Mapping[str, Any]
    """Texts and tables for the file's metadata."""
    names: Sequence[str] = ()
    """Of the layers, where there may be several."""
    scale: float = 1.0
    """What a step of the values stands for."""


def write_cog(
    path: Path,
    raster: Raster,
    *,
    nodata: int,
    resampling: str,
    colours: Mapping[int, tuple[int, ...]] | None = None,
) -> None:
    """Write a cloud-optimised GeoTIFF (GDAL's COG driver), whose reduced levels are made by GDAL's `resampling`.

    colours: a table for a single band.
    """
    import rasterio
    from rasterio.shutil import copy

    grid, placement, layers = raster.grid, raster.placement, raster.layers
    width, height = grid.shape
    plain = path.with_name(f"{path.name}.plain")
    layout: dict[str, Any] = {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "interleave": "band"}
    shape = {"dtype": "uint8", "count": len(layers), "width": width, "height": height}
    layout |= {**shape, "nodata": nodata, "bigtiff": "if_safer", "photometric": "minisblack"}  # else 3 bands are RGB
    placed: dict[str, Any] = (
        {"crs": placement.crs, "transform": _transform(grid, placement)} if placement.has_unit else {}
    )
    try:
        with rasterio.open(plain, "w", driver="GTiff", **{**layout, **placed}) as file:
            if colours is not None:
                file.write_colormap(1, {value: (*colour, 255) for value, colour in colours.items()})
            file.update_tags(**{key.upper(): text_of(value) for key, value in raster.about.items()})
            if raster.scale != 1.0:
                file.scales = (raster.scale,) * len(layers)
            for number, name in enumerate(raster.names, 1):
                file.set_band_description(number, text_of(name))
            for number, layer in enumerate(layers, 1):
                for top in range(0, height, TILE):
                    rows = np.ascontiguousarray(layer[top : top + TILE])
                    file.write(rows, number, window=((top, top + len(rows)), (0, width)))
        options = {"compress": "DEFLATE", "blocksize": TILE, "overview_resampling": resampling, "bigtiff": "IF_SAFER"}
        copy(plain, path, driver="COG", **options)
    finally:
        plain.unlink(missing_ok=True)


def _transform(grid: Grid, placement: Placement) -> Any:
    """From grid pixels to the world, for any turn by right angles."""
    from rasterio import Affine

    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]) * grid.upright_scale
    origin, x, y = placement.to_world(grid.orientation.to_level0(corners, grid.size))[:, :2]
    return Affine(x[0] - origin[0], y[0] - origin[0], origin[0], x[1] - origin[1], y[1] - origin[1], origin[1])


def text_of(value: object) -> str:
    """A value as a line of ASCII."""
    return clean_text(value if isinstance(value, str) else json.dumps(value, sort_keys=True))


def write_ome_tiff(path: Path, raster: Raster, name: str, reduce: Callable[[Layer], Layer]) -> None:
    """Write a pyramidal OME-TIFF of this image name, whose levels are in SubIFDs; `reduce` halves a layer (H, W)."""
    import tifffile

    (x, *_), (_, y, _) = raster.placement.matrix[:2]
    (across, down), layers, names = raster.grid.scale, raster.layers, raster.names
    metadata = {
        "axes": "CYX" if names else "YX",
        "Name": name,
        "Description": text_of(raster.about),
        "PhysicalSizeX": x * across,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": y * down,
        "PhysicalSizeYUnit": "µm",
        "UUID": str(uuid.UUID(_digest(layers)[:32])),  # else a random one
        **({"Channel": {"Name": [text_of(one) for one in names]}} if names else {}),
    }
    options: dict[str, Any] = {"tile": (TILE, TILE), "compression": "zlib", "photometric": "minisblack"}
    levels = [layers]
    while max(levels[-1].shape[1:]) > 2 * _SMALLEST:
        levels.append(_halved(levels[-1], reduce, path.parent))
    with tifffile.TiffWriter(path, ome=True, bigtiff=True) as file:
        for number, level in enumerate(levels):
            data = level if names else level[0]
            if number == 0:
                first = {"metadata": metadata, "software": "limner", "subifds": len(levels) - 1}
                file.write(data, datetime=False, **first, **options)
            else:
                file.write(data, subfiletype=1, metadata=None, software=False, **options)


def _halved(layers: Layers, reduce: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]], folder: Path) -> Layers:
    count, height, width = layers.shape
    halved = scratch_array((count, -(-height // 2), -(-width // 2)), folder)
    for layer, half in zip(layers, halved, strict=True):
        for top in range(0, height, 2 * TILE):
            half[top // 2 : top // 2 + TILE] = reduce(layer[top : top + 2 * TILE])
    return halved


def _digest(layers: Layers) -> str:
    found = hashlib.sha256()
    for layer in layers:
        found.update(np.ascontiguousarray(layer).data)
    return found.hexdigest()
