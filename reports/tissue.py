"""The tissue mask of a run's slides as an annotation that QuPath opens, and that `--tissue` takes again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import shapely

from ..readers.annotations import TITLES
from ..readers.files import write_atomic
from .csv_safety import clean_text
from .writer import ImageRecord, Record, image_file, write_per_image

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

PREFIX: Final = "tissue-"
SUFFIX: Final = ".geojson"
_NAME: Final = "Tissue"
_COLOUR: Final = [0, 158, 115]


@dataclass(frozen=True, slots=True)
class Tissue:
    """tissue-<image id>.geojson for each slide whose tissue was detected or given: one locked annotation, "Tissue".

    Coordinates are pixels from the corner of the scanned area, as QuPath counts them, with all their digits, so that a
    run with `--tissue` and this file analyses the same pixels.
    """

    name: str = "tissue"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write a file per slide into `folder`."""
        omitted = self.omitted(record)

        def write_one(image: ImageRecord) -> Path:
            path = image_file(folder, PREFIX, image.info.id, SUFFIX)
            write_atomic(path, f"{json.dumps(_collection(record, image), ensure_ascii=False)}\n".encode())
            return path

        return write_per_image([image for image in record.images if image.info.id not in omitted], write_one)

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Maps, studies, and slides that were analysed with their glass."""
        reasons = {
            image.info.id: "it is no slide" if image.info.kind != "slide" else "its tissue was not detected or given"
            for image in record.images
            if image.tissue is None
        }
        empty = (one.info.id for one in record.images if one.tissue is not None and one.tissue.is_empty)
        return reasons | dict.fromkeys(empty, "no tissue was found")


def _collection(record: Record, image: ImageRecord) -> dict[str, Any]:
    about = {
        "title": TITLES["pixels"],
        "use": clean_text(record.use),
        "image": clean_text(image.info.id),
        "origin": list(image.info.origin),
        "version": record.version,
    }
    properties = {
        "objectType": "annotation",
        "name": _NAME,
        "color": _COLOUR,
        "classification": {"name": _NAME, "color": _COLOUR},
        "isLocked": True,
        "metadata": {"method": clean_text(image.analysis.get(_NAME, ""))},
    }
    feature = {"type": "Feature", "geometry": _geometry(image), "properties": properties}
    return {"type": "FeatureCollection", "limner": about, "features": [feature]}


def _geometry(image: ImageRecord) -> dict[str, Any]:
    """Polygons in a fixed order; a MultiPolygon has two or more, since QuPath's readers trip over one of one."""
    tissue: BaseGeometry = shapely.Polygon() if image.tissue is None else image.tissue
    moved = shapely.transform(shapely.normalize(tissue), lambda xy: xy - np.asarray(image.info.origin, np.float64))
    parts = shapely.get_parts(moved).tolist()
    return shapely.geometry.mapping(parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts))
