"""GeoPackage: a layer an image, in the image's own CRS, for GIS programs. The only file that knows pyogrio."""
# pyogrio and shapely leave some of their arguments untyped:
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio
import shapely
from pyogrio import raw
from pyogrio.errors import DataLayerError, DataSourceError

from ..model.finding import Finding
from ..readers import geodesy
from ..readers.errors import RequestError
from ..readers.files import replacing
from ..readers.geometry import Placement
from .cells import plain
from .measures import Shapes, all_labels, crs_name, further_columns, measure, shapes
from .palette import Palette, rgb
from .writer import DISCLAIMER, ImageRecord, Record

Column = npt.NDArray[Any]

_MOMENT = (
    "2000-01-01T00:00:00.000Z"  # the clock of `last_change`, stopped so that the same findings give the same bytes
)
_POLYGONAL = {3, 6}  # shapely's type numbers of Polygon and MultiPolygon
_ABOUT = "about"
_STYLES = "layer_styles"


@dataclass(frozen=True, slots=True)
class GeoPackage:
    """findings.gpkg: a layer an image with the columns of findings.csv, coordinates in the image's source CRS.

    Affine pictures keep their exact vertices; where a picture was placed by control points, edges get vertices first,
    so that they stay true. Pictures without a CRS are left out: a map would set them down somewhere. A table `about`
    states use, model and what was left out, and `layer_styles` gives QGIS the labels' colours.
    """

    name: str = "geopackage"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write findings.gpkg into `folder`."""
        path = folder / "findings.gpkg"
        numbers, notes = further_columns(record)
        mapped = [image for image in record.images if image.info.placement.crs]
        names = _unique([image.info.id for image in mapped], taken=(_ABOUT, _STYLES))
        palette = Palette.of(record.labels, record.colours)
        styles: dict[str, str] = {}
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": _MOMENT})
        try:
            with replacing(path) as part:
                _table(part, _ABOUT, _about(record, self.omitted(record)), append=False)
                for image, layer in zip(mapped, names, strict=True):
                    findings = image.findings()
                    _layer(part, layer, image, findings, _columns(image, findings, numbers, notes))
                    labels = all_labels(record, [finding.label for finding in findings])
                    styles[layer] = _style(labels, palette)
                if styles:
                    _table(part, _STYLES, _style_columns(styles), append=True)
        except (DataSourceError, DataLayerError) as error:
            raise RequestError(
                str(path),
                "GDAL must be able to write it",
                value=str(error),
                remedy="See that the disk has room and the folder may be written to, then make the report again",
            ) from error
        finally:
            pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
        return [path]

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images without a CRS."""
        return {
            image.info.id: "it has no CRS, so it has no place in a GIS"
            for image in record.images
            if not image.info.placement.crs
        }


def _layer(
    path: Path, layer: str, image: ImageRecord, findings: Sequence[Finding], columns: Mapping[str, Column]
) -> None:
    placed = _to_world(shapes(findings), image.info.placement)
    polygonal = set(shapely.get_type_id(placed).tolist()) <= _POLYGONAL
    raw.write(
        path,
        shapely.to_wkb(placed),
        list(columns.values()),
        list(columns),
        layer=layer,
        driver="GPKG",
        geometry_type="MultiPolygon" if polygonal else "Unknown",
        promote_to_multi=polygonal,
        crs=image.info.placement.crs,
        append=True,
        layer_options={"DESCRIPTION": DISCLAIMER, "GEOMETRY_NAME": "geom"},
    )


def _table(path: Path, name: str, columns: Mapping[str, Column], *, append: bool) -> None:
    raw.write(path, None, list(columns.values()), list(columns), layer=name, driver="GPKG", append=append)


def _to_world(geometries: Shapes, placement: Placement) -> Shapes:
    if placement.warp is not None and geodesy.on_earth(placement):
        geometries = geodesy.densify_all(geometries, placement)
    pixel = float(np.linalg.norm(np.asarray(placement.matrix)[:, :2], axis=0).min())
    decimals = 8 - math.floor(math.log10(pixel))  # 1e-8 px: what lies below it is the arithmetic's own, and may vary
    return shapely.orient_polygons(
        shapely.transform(geometries, lambda xy: np.round(placement.to_world(xy), decimals) + 0.0)
    )


def _columns(
    image: ImageRecord, findings: Sequence[Finding], numbers: Sequence[str], notes: Sequence[str]
) -> Mapping[str, Column]:
    """The columns of findings.csv that a layer does not say already: numbers as numbers, as exact as there."""
    measures = measure(findings, image.info.placement)
    columns: dict[str, Column] = {
        "finding": np.arange(1, len(findings) + 1, dtype=np.int64),
        "label": _texts([finding.label for finding in findings]),
        "kind": _texts([finding.kind for finding in findings]),
        "score": np.array([math.nan if f.score is None else f.score for f in findings], dtype=np.float64),
        "area_m2": np.array([float(f"{area:.9g}") for area in measures.area_m2], dtype=np.float64),
        "area_px": measures.area_px.round(2),
        **dict(zip(("x0_px", "y0_px", "x1_px", "y1_px"), measures.bounds.T.round(3), strict=True)),
        **dict(zip(("x_px", "y_px"), measures.point.T.round(3), strict=True)),
        **dict(zip(("lon", "lat"), measures.lonlat.T.round(7), strict=True)),
        "text": _texts([finding.text for finding in findings]),
    }
    own = _unique([f"number.{key}" for key in numbers] + [f"note.{key}" for key in notes], taken=columns, keep=".")
    for name, key in zip(own, numbers, strict=False):
        columns[name] = np.array([f.numbers.get(key, math.nan) for f in findings], dtype=np.float64)
    for name, key in zip(own[len(numbers) :], notes, strict=True):
        columns[name] = _texts([f.notes.get(key, "") for f in findings])
    return {name: np.ascontiguousarray(column) for name, column in columns.items()}


def _about(record: Record, omitted: Mapping[str, str]) -> Mapping[str, Column]:
    rows = [
        ("use", record.use),
        ("limner", record.version),
        *((f"model {key}", value) for key, value in sorted(record.model.items())),
        *((f"left out: {image}", why) for image, why in omitted.items()),
        *((f"CRS of {image.info.id}", crs_name(image.info.placement.crs)) for image in record.images),
    ]
    return {"name": _texts([name for name, _ in rows]), "value": _texts([value for _, value in rows])}


def _style_columns(styles: Mapping[str, str]) -> Mapping[str, Column]:
    """The table in which QGIS looks for a layer's style."""
    rows = len(styles)
    return {
        "f_table_catalog": _texts([""] * rows),
        "f_table_schema": _texts([""] * rows),
        "f_table_name": _texts(list(styles)),
        "f_geometry_column": _texts(["geom"] * rows),
        "styleName": _texts(["limner"] * rows),
        "styleQML": np.array(list(styles.values()), dtype=object),
        "styleSLD": _texts([""] * rows),
        "useAsDefault": np.ones(rows, dtype=np.bool_),
        "description": _texts(["Colours of the labels"] * rows),
        "owner": _texts([""] * rows),
        "ui": _texts([""] * rows),
        "update_time": np.array([_MOMENT.removesuffix("Z")] * rows, dtype="datetime64[ms]"),
    }


def _style(labels: Sequence[str], palette: Palette) -> str:
    """A QGIS layer style: a fill a label."""
    categories = "".join(
        f'<category render="true" symbol="{place}" value="{html.escape(plain(label))}"'
        f' label="{html.escape(plain(label))}"/>'
        for place, label in enumerate(labels)
    )
    symbols = "".join(_symbol(place, rgb(palette[label])) for place, label in enumerate(labels))
    return (
        '<!DOCTYPE qgis PUBLIC "http://mrcc.com/qgis.dtd" "SYSTEM"><qgis version="3.22" styleCategories="Symbology">'
        '<renderer-v2 type="categorizedSymbol" attr="label" forceraster="0" symbollevels="0" enableorderby="0">'
        f"<categories>{categories}</categories><symbols>{symbols}</symbols></renderer-v2></qgis>"
    )


def _symbol(place: int, colour: tuple[int, int, int]) -> str:
    red, green, blue = colour
    settings = {
        "color": f"{red},{green},{blue},102",
        "outline_color": f"{red},{green},{blue},255",
        "outline_style": "solid",
        "outline_width": "0.4",
        "outline_width_unit": "MM",
        "style": "solid",
    }
    properties = "".join(f'<prop k="{key}" v="{value}"/>' for key, value in settings.items())
    return (
        f'<symbol type="fill" name="{place}" alpha="1" clip_to_extent="1" force_rhr="0">'
        f'<layer class="SimpleFill" enabled="1" locked="0" pass="0">{properties}</layer></symbol>'
    )


def _unique(names: Sequence[str], *, taken: Sequence[str] | Mapping[str, Column], keep: str = "") -> list[str]:
    """Names of letters, digits, _ and -, that differ from each other and from `taken` also without their case."""
    used = {name.casefold() for name in taken}
    result: list[str] = []
    for name in names:
        base = re.sub(rf"[^\w\-{re.escape(keep)}]", "_", plain(name)) or "image"
        if base.casefold().startswith(("gpkg", "rtree_", "sqlite")):
            base = f"image_{base}"
        candidate, count = base, 1
        while candidate.casefold() in used:
            count += 1
            candidate = f"{base}_{count}"
        used.add(candidate.casefold())
        result.append(candidate)
    return result


def _texts(values: Sequence[str]) -> Column:
    return np.array([plain(value) for value in values], dtype=object)
