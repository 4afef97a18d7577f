"""FlatGeobuf: a file per map with a spatial index, for web maps and for GIS programs that read a part over HTTP.

pyarrow and pyogrio are imported only when a file is written.
"""
# pyarrow states no types, and shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..readers.files import atomic_path
from .arrow import arrow_batch, arrow_schema
from .columns import findings_columns
from .measures import batches
from .wkb import batch_to_wkb
from .writer import ImageRecord, Record, image_file, write_per_image


@dataclass(frozen=True, slots=True)
class FlatGeobuf:
    """findings-<image id>.fgb for each map: the columns of findings.csv and the outlines in the image's own CRS.

    Coordinates are those of the GeoPackage. The layer's description states the use. Images without a CRS are left out.
    """

    name: str = "flatgeobuf"
    on_request: bool = True

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write a file per map into `folder`."""
        omitted = self.omitted(record)
        chosen = [image for image in record.images if image.info.id not in omitted]
        return write_per_image(chosen, lambda image: _write(record, image, folder))

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images without a CRS, and those without findings, which the format cannot hold."""
        found: dict[str, str] = {}
        for image in record.images:
            if not image.info.placement.crs:
                found[image.info.id] = "it has no CRS, so a GIS cannot place it"
            elif not len(image.findings()):
                found[image.info.id] = "it has no findings"
        return found


def _write(record: Record, image: ImageRecord, folder: Path) -> Path:
    import pyarrow as pa
    from pyogrio.raw import write_arrow

    columns = findings_columns(record)
    schema = arrow_schema(columns)

    def rows() -> Iterator[Any]:
        for batch in batches(replace(record, images=(image,))):
            yield arrow_batch(columns, batch, batch_to_wkb(batch), schema)

    path = image_file(folder, "findings-", image.info.id, ".fgb")
    with atomic_path(path) as part:
        write_arrow(
            pa.RecordBatchReader.from_batches(schema, rows()),
            part,
            layer="findings",
            driver="FlatGeobuf",
            geometry_name="geometry",
            geometry_type="Unknown",
            crs=image.info.placement.crs,
            layer_options={"DESCRIPTION": record.use, "TEMPORARY_DIR": str(folder)},
        )
    return path
