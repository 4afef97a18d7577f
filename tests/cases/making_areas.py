"""Areas of interest as people have them, in and about the crop that the maps are made of."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import shapely
from rasterio.warp import transform

SQUARE = ((446000, 4166000), (448000, 4166000), (448000, 4168000), (446000, 4168000))  # in the crop, UTM metres
NARROW = ((446500, 4166500), (447500, 4166500), (447500, 4167500), (446500, 4167500))  # in the square


def areas(folder: Path) -> Path:
    """Areas of interest as people have them: in other coordinates and formats, with holes, crossed, cut off."""
    square, narrow = _degrees(SQUARE), _degrees(NARROW)
    polygon = {"type": "Polygon", "coordinates": [square]}
    metres = {"type": "Polygon", "coordinates": [[*SQUARE, SQUARE[0]]]}
    crossed = [square[0], square[2], square[1], square[3], square[0]]
    named = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32618"}}
    kept: dict[str, Any] = {
        "hole": {"type": "Polygon", "coordinates": [square, narrow[::-1]]},
        "heights": {"type": "Polygon", "coordinates": [[[*point, 12.0] for point in square]]},
        "utm": {**_features(metres), "crs": named},
        "utm without its name": _features(metres),
        "latitude first": _features({"type": "Polygon", "coordinates": [[point[::-1] for point in square]]}),
        "crossed": {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [crossed]}},
        "empty": _features(),
        "twice": _features(polygon, None, polygon),
    }
    for name, content in kept.items():
        (folder / f"{name}.geojson").write_text(json.dumps(content))
    fields = {"field_data": [np.array(["a"])], "fields": ["name"], "geometry_type": "Polygon"}
    outline, degrees = (np.array([shapely.to_wkb(shapely.Polygon(ring))], dtype=object) for ring in (SQUARE, square))
    for name, driver in (("gpkg", "GPKG"), ("fgb", "FlatGeobuf"), ("shp", "ESRI Shapefile")):
        pyogrio.raw.write(folder / f"square.{name}", outline, crs="EPSG:32618", driver=driver, **fields)
    pyogrio.raw.write(folder / "square.kml", degrees, crs="EPSG:4326", driver="KML", **fields)
    for suffix in ("shp", "shx", "dbf"):
        shutil.copy(folder / f"square.{suffix}", folder / f"without its crs.{suffix}")
    for layer in ("fields", "woods"):
        more = {"layer": layer, "append": layer == "woods", **fields}
        pyogrio.raw.write(folder / "layers.gpkg", outline, crs="EPSG:32618", driver="GPKG", **more)
    (folder / "cut.gpkg").write_bytes((folder / "square.gpkg").read_bytes()[:5000])
    return folder


def _degrees(ring: Sequence[tuple[float, float]]) -> list[list[float]]:
    """A closed ring of longitude and latitude."""
    lons, lats = transform("EPSG:32618", "EPSG:4326", [x for x, _ in ring], [y for _, y in ring])[:2]
    points = [[lon, lat] for lon, lat in zip(lons, lats, strict=True)]
    return [*points, points[0]]


def _features(*geometries: Any) -> dict[str, Any]:
    features = [{"type": "Feature", "properties": {}, "geometry": geometry} for geometry in geometries]
    return {"type": "FeatureCollection", "features": features}
