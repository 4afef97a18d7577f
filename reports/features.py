"""Features of tiles by a frozen encoder: HDF5 as CLAM and TRIDENT read it, and Parquet."""
# h5py and pyarrow state no types, and shapely leaves its functions' **kwargs untyped:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
import shapely

from ..readers.errors import ReadError
from ..readers.files import atomic_path
from ..readers.geodesy import parse_crs
from ..readers.plugins import require_extra
from .arrow import binary_array, plain_array
from .csv_safety import clean_text
from .rfc7946 import to_crs
from .writer import ImageRecord, Record, TileFeatures, image_file, write_per_image

FOLDER: Final = "features"
"""The folder of these files in a run folder, for programs that read every file of a folder."""

_MICRONS: Final = 10.0
"""µm/px of an objective of 1 ×, by which scanners name magnifications."""
_CHUNK: Final = 1 << 20  # bytes of features that HDF5 stores together


@dataclass(frozen=True, slots=True)
class FeaturesH5:
    """features/<name>.h5 for each image with features: the datasets `coords` and `features`, with attributes.

    `coords` (tiles, 2) are the level-0 pixels x, y of a tile's upper left corner, rounded; `features` (tiles,
    dimensions) are float32. `boxes` (tiles, 4) are the exact corners of the tile, `valid` the share of each tile that
    is valid, in the region of interest and not masked, and `plane` the slice of a stack, from 0.
    """

    name: str = "features-h5"
    on_request: bool = True

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write a file per image into the folder `features`."""
        require_extra("features", "the report features-h5", otherwise="or name features-parquet instead")
        return _write_each(record, folder, ".h5", _write_h5)

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images without features."""
        return _omitted(record)


@dataclass(frozen=True, slots=True)
class FeaturesParquet:
    """features/<name>.parquet for each image with features: a row per tile, GeoParquet 1.1 for maps.

    Columns: x0, y0, x1, y1 in level-0 pixels, valid, plane, features (a list of float32 of fixed length), and for maps
    the tile's outline as WKB in the CRS of the map.
    """

    name: str = "features-parquet"
    on_request: bool = True

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write a file per image into the folder `features`."""
        return _write_each(record, folder, ".parquet", _write_parquet)

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images without features."""
        return _omitted(record)


_Write = Callable[[Path, Record, ImageRecord], None]


def _write_each(record: Record, folder: Path, suffix: str, write: _Write) -> list[Path]:
    omitted, names = _omitted(record), _file_names(record)

    def write_one(image: ImageRecord) -> Path:
        path = image_file(folder / FOLDER, "", names[image.info.id], suffix)
        path.parent.mkdir(exist_ok=True)
        with atomic_path(path) as part:
            write(part, record, image)
        return path

    return write_per_image([image for image in record.images if image.info.id not in omitted], write_one)


def _omitted(record: Record) -> dict[str, str]:
    return {
        image.info.id: "its run gave no features: use limner features"
        for image in record.images
        if image.features is None or not image.feature_shape[0]
    }


def _file_names(record: Record) -> dict[str, str]:
    """The stem of each image's file, by which slides are matched to labels; its id where two have the same."""
    stems = {image.info.id: PurePosixPath(image.name or image.info.id).stem for image in record.images}
    counts = Counter(stems.values())
    return {name: stem if counts[stem] == 1 else name for name, stem in stems.items()}


def _every(image: ImageRecord) -> Iterator[TileFeatures]:
    """The features of an image, region by region. Raises `ReadError` where regions differ in dimensions."""
    dimensions = image.feature_shape[1]
    for batch in image.features() if image.features is not None else ():
        if batch.features.shape != (len(batch.boxes), dimensions):
            rule, value = f"must have {dimensions} features for each tile", str(batch.features.shape)
            raise ReadError(image.info.id, rule, value=value, remedy="Run it again into another folder")
        yield batch


def about(record: Record, image: ImageRecord) -> dict[str, str | int | float]:
    """What decides the features, as attributes: the encoder, the tiles, their size and the magnification."""
    (across, _), info = image.scale, image.info
    facts: dict[str, str | int | float] = {
        "name": clean_text(_file_names(record)[info.id]),
        "patch_size": image.tile,
        "patch_size_level0": round(image.tile * across),
        "overlap": 0,
        "level0_width": info.size[0],
        "level0_height": info.size[1],
        **({"patch_level": 0} if image.scale == (1.0, 1.0) else {}),
    }
    microns = info.placement.matrix[0][0] if info.placement.unit == "um" else 0.0
    objective = dict(info.facts).get("objective", "")
    power = float(objective) if objective.replace(".", "", 1).isdecimal() else _MICRONS / microns if microns else 0.0
    if power:
        facts |= {"level0_magnification": power, "target_magnification": power / across}
    if microns:
        facts |= {"microns_per_pixel_level0": microns, "microns_per_pixel": microns * across}
    facts |= {"image": clean_text(info.id), "use": clean_text(record.use), "limner": record.version}
    return facts | {"encoder": clean_text(json.dumps(dict(record.model), sort_keys=True))}


def _write_h5(path: Path, record: Record, image: ImageRecord) -> None:
    import h5py

    count, dimensions = image.feature_shape
    rows = min(count, max(1, _CHUNK // (4 * dimensions)))
    with h5py.File(path, "w", libver="earliest", track_order=True) as file:
        datasets = {
            "features": file.create_dataset("features", (count, dimensions), "<f4", chunks=(rows, dimensions)),
            "coords": file.create_dataset("coords", (count, 2), "<i8"),
            "boxes": file.create_dataset("boxes", (count, 4), "<f8"),
            "valid": file.create_dataset("valid", (count,), "<f4"),
            "plane": file.create_dataset("plane", (count,), "<i4"),
        }
        start = 0
        for batch in _every(image):
            here = slice(start, start := start + len(batch.boxes))
            datasets["features"][here] = batch.features
            datasets["coords"][here] = np.rint(batch.boxes[:, :2]).astype(np.int64)
            datasets["boxes"][here], datasets["valid"][here] = batch.boxes, batch.valid
            datasets["plane"][here] = batch.plane
        for key, value in about(record, image).items():
            for place in (file, datasets["coords"], *([datasets["features"]] if key in {"name", "encoder"} else [])):
                place.attrs[key] = value
        datasets["coords"].attrs["savetodir"] = ""  # a place in a file system is no property of a slide


def _write_parquet(path: Path, record: Record, image: ImageRecord) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    dimensions = image.feature_shape[1]
    placement = image.info.placement
    sides = [pa.field(name, pa.float64()) for name in ("x0", "y0", "x1", "y1")]
    own = [pa.field("valid", pa.float32()), pa.field("plane", pa.int32())]
    fields = [*sides, *own, pa.field("features", pa.list_(pa.float32(), dimensions))]
    metadata = {"limner": json.dumps(about(record, image), ensure_ascii=False, sort_keys=True)}
    placed = placement.crs is not None
    if placed:
        fields.append(pa.field("geometry", pa.binary()))
        crs = parse_crs(placement.crs or "").to_json_dict()
        geometry = {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": crs}
        geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
        metadata["geo"] = json.dumps(geo)
    schema = pa.schema(fields, metadata=metadata)
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        for batch in _every(image):
            columns = [plain_array(side) for side in batch.boxes.T]
            columns += [plain_array(batch.valid), plain_array(np.full(len(batch.boxes), batch.plane, dtype=np.int32))]
            flat = plain_array(np.ascontiguousarray(batch.features).ravel())
            columns.append(pa.FixedSizeListArray.from_arrays(flat, dimensions))
            if placed:
                outlines = np.asarray(shapely.box(*batch.boxes.T), dtype=object)
                columns.append(binary_array(shapely.to_wkb(to_crs(outlines, placement), byte_order=1).tolist()))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
