"""STAC: the run as a collection with an item for each map, so that catalogues find its results by place and time.

Names and rules are those of STAC 1.1 and of the extensions in `EXTENSIONS`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
from pydantic import Field
from shapely.geometry.base import BaseGeometry

from ..readers.errors import ReadError
from ..readers.files import atomic_path
from ..readers.geodesy import parse_crs
from ..readers.geometry import crs_name
from ..readers.options import Options, invalid_option
from ..readers.raster.acquisition import Interval, acquired, common_interval, moment_text, parse_interval
from .class_map import image_labels
from .csv_safety import clean_text
from .geojson import omission
from .palette import Palette
from .rfc7946 import bounding_box, footprint, part_boxes
from .stac_assets import image_assets, shared_assets
from .stac_model import model_item, slug
from .writer import ImageRecord, Record, image_file

VERSION: Final = "1.1.0"
EXTENSIONS: Final = {
    "classification": "2.0.0",
    "file": "2.1.0",
    "mlm": "1.6.0",
    "processing": "1.1.0",
    "projection": "2.0.0",
}
"""Extension → the version that is written."""
COLLECTION: Final = "collection.json"
MODEL: Final = "model.json"

_ITEM: Final = "application/geo+json"
_PREFIXES: Final = {"projection": "proj"}
_UNKNOWN_TIME: Final = (
    "it is not known when it was acquired, which an item must state: run again into this folder with "
    "--set report_options.stac.datetime=MOMENT, a moment by RFC 3339, a day, or the first and the last with a slash "
    "between them"
)


class StacOptions(Options):
    """Options of the catalogue."""

    datetime: str = Field(
        default="",
        description="When images were acquired that do not state it: a moment by RFC 3339 (2015-08-20T10:07:28Z), "
        "a day (2015-08-20), or the first and the last with a slash between them.",
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where and when an image was acquired."""

    outline: BaseGeometry
    """In WGS84 degrees, cut at the antimeridian."""
    interval: Interval


class Stac:
    """collection.json, item-<image id>.json for each map, and model.json: the run as STAC 1.1.

    Assets are the reports in the folder, with size and sha256; those of all images together are the collection's, and
    also the item's where there is one image. An item is derived from model.json, which describes the model (mlm). Times
    are those of acquisition: a map without one has no item.
    """

    name = "stac"
    on_request = True
    last = True
    Options = StacOptions

    def __init__(self, options: StacOptions | None = None) -> None:
        stated = (options or StacOptions()).datetime
        self._stated = parse_interval(stated)
        if stated and self._stated is None:
            rule = (
                "must be a moment by RFC 3339 with its zone, a day, or two of them in order with a slash between them"
            )
            raise invalid_option("datetime", "writer 'stac'", rule, value=stated, remedy="Write 2015-08-20T10:07:28Z")

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write an item per map into `folder`, the model and the collection; nothing where no map has an item."""
        placed = [(image, place) for image in record.images if isinstance(place := self._place(image), _Place)]
        if not placed:
            return []
        images = [image for image, _ in placed]
        model = model_item(
            record, images, _classes(record, [label for image in images for label in _labels(record, image)])
        )
        shared = shared_assets(folder)
        paths: list[Path] = []
        for image, place in placed:
            item = _item(record, image, place, folder, with_model=model is not None)
            if len(record.images) == 1:
                item["assets"] |= shared
            paths.append(_write(image_file(folder, "item-", image.info.id, ".json"), item))
        content = _collection(record, [place for _, place in placed], paths, shared)
        if model is not None:
            paths.append(_write(folder / MODEL, model))
            content["links"].append({"rel": "related", "href": f"./{MODEL}", "type": _ITEM, "title": "The model"})
        return [*paths, _write(folder / COLLECTION, content)]

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images without a place on Earth or a time of acquisition."""
        found = {image.info.id: self._place(image) for image in record.images}
        return {name: place for name, place in found.items() if isinstance(place, str)}

    def _place(self, image: ImageRecord) -> _Place | str:
        """Where and when an image was acquired, or why that is not known."""
        if reason := omission(image):
            return reason
        interval = acquired(image.info) or self._stated
        if interval is None:
            return _UNKNOWN_TIME
        try:
            outline = footprint(image.info)
        except ReadError as error:
            return str(error)
        return "its corners are not on the Earth" if outline is None else _Place(outline, interval)


def _write(path: Path, content: dict[str, Any]) -> Path:
    """Write an object of STAC with its version and the extensions whose fields it has."""
    text = json.dumps(content)
    used = [name for name in EXTENSIONS if f'"{_PREFIXES.get(name, name)}:' in text]
    urls = [f"https://stac-extensions.github.io/{name}/v{EXTENSIONS[name]}/schema.json" for name in used]
    whole = {"type": content["type"], "stac_version": VERSION, "stac_extensions": urls, **content}
    with atomic_path(path) as part:
        part.write_text(json.dumps(whole, ensure_ascii=False, allow_nan=False, indent=1) + "\n", encoding="utf-8")
    return path


def _item(record: Record, image: ImageRecord, place: _Place, folder: Path, *, with_model: bool) -> dict[str, Any]:
    classes = _classes(record, _labels(record, image))
    link = {"rel": "derived_from", "href": f"./{MODEL}", "type": _ITEM, "title": "The model"}
    collection = {"href": f"./{COLLECTION}", "type": "application/json"}
    return {
        "type": "Feature",
        "id": clean_text(image.info.id),
        "collection": _collection_id(record),
        "geometry": json.loads(shapely.to_geojson(place.outline)),
        "bbox": bounding_box(part_boxes(np.array([place.outline], dtype=object))),
        "properties": {
            **_times(place.interval),
            **_created(record),
            "title": clean_text(image.name or image.info.id),
            "description": clean_text(record.use),
            "processing:level": "L4",
            "processing:lineage": _lineage(record, image),
            "processing:software": {"limner": record.version},
            **_grid(image),
            **({"classification:classes": classes} if classes else {}),
        },
        "links": [{"rel": rel, **collection} for rel in ("root", "parent", "collection")] + [link] * with_model,
        "assets": image_assets(folder, image, classes),
    }


def _labels(record: Record, image: ImageRecord) -> list[str]:
    """The labels of an image: none where they are a model's own texts, not classes."""
    return image_labels(record, image) if record.labels else []


def _classes(record: Record, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Classes by number, which is that in class maps, with the colours of all reports."""
    palette = Palette.of(record.labels, record.colours)
    distinct = list(dict.fromkeys(labels))
    names = [slug(label, "class") for label in distinct]
    return [
        {
            "value": value,
            "name": name if names.count(name) == 1 else f"{name}-{value}",
            "title": clean_text(label),
            "description": clean_text(label),
            "color_hint": palette[label].removeprefix("#").upper(),
        }
        for value, (label, name) in enumerate(zip(distinct, names, strict=True), 1)
    ]


def _times(interval: Interval) -> dict[str, Any]:
    """The moment of acquisition; where there are two, no moment is chosen between them."""
    first, last = map(moment_text, interval)
    return {"datetime": first} if first == last else {"datetime": None, "start_datetime": first, "end_datetime": last}


def _created(record: Record) -> dict[str, str]:
    """When the run began, where that is known."""
    try:
        began = datetime.fromisoformat(record.started)
        return {"created": moment_text(began.astimezone(UTC))} if began.tzinfo else {}
    except (ValueError, OverflowError):
        return {}


def _lineage(record: Record, image: ImageRecord) -> str:
    model = " ".join(filter(None, (record.model.get("name"), record.model.get("version")))) or "no model"
    rows = [f"model: {model}", *(f"{key.lower()}: {value}" for key, value in image.analysis.items())]
    return clean_text("; ".join(rows))


def _grid(image: ImageRecord) -> dict[str, Any]:
    """The CRS of an image, and the grid of its level-0 pixels where that is affine."""
    placement, (width, height) = image.info.placement, image.info.size
    code = crs_name(placement.crs)
    known = re.fullmatch(r"[A-Z]+:\w+", code)
    stated = {"proj:code": code} if known else {"proj:code": None, "proj:wkt2": parse_crs(placement.crs or "").to_wkt()}
    affine = [value for row in placement.matrix[:2] for value in row]
    return stated if placement.warp else {**stated, "proj:shape": [height, width], "proj:transform": affine}


def _collection_id(record: Record) -> str:
    return f"limner-{record.run[:16]}" if record.run else "limner-run"


def _collection(
    record: Record, places: Sequence[_Place], items: Sequence[Path], shared: Mapping[str, Any]
) -> dict[str, Any]:
    boxes = part_boxes(np.array([place.outline for place in places], dtype=object))
    first, last = common_interval([place.interval for place in places])
    return {
        "type": "Collection",
        "id": _collection_id(record),
        "title": f"Results of {clean_text(record.model.get('name') or 'limner')}",
        "description": clean_text(record.use),
        "license": "other",
        "extent": {
            "spatial": {"bbox": [bounding_box(boxes)]},
            "temporal": {"interval": [[moment_text(first), moment_text(last)]]},
        },
        "links": [
            {"rel": "root", "href": f"./{COLLECTION}", "type": "application/json"},
            *({"rel": "item", "href": f"./{path.name}", "type": _ITEM} for path in items),
        ],
        "assets": dict(shared),
    }
