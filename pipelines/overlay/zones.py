"""Adds up the findings of a run by zone, and writes the table into a new folder."""

from collections.abc import Callable
from pathlib import Path

from ...readers.annotations import Frame, check_pixels, in_pixels
from ...readers.errors import RequestError, did_you_mean
from ...readers.zones import read_zones
from ...reports.overlay.zone_files import write_zones
from ...reports.overlay.zones import ZoneTable, zone_table
from ...reports.writer import ImageRecord, Record
from .folders import new_folder

_STUDY = "it is a study: zones are polygons on maps and slides"
_PIXELS = "it has no place on the Earth, so its zones are in pixels: name it with --image"


def run_zones(
    record: Record,
    path: str,
    *,
    layer: str = "",
    column: str = "",
    image: str = "",
    on_share: Callable[[float], None] = lambda _: None,
) -> tuple[ZoneTable, list[str]]:
    """The zones of a file with the findings in them, and what must be said of both.

    path: as for `readers.annotations.read_polygons`; `layer` names one of its layers.
    column: of the zones' ids.
    image: the id of the one image to use, which must be named for zones in pixels on one of several.

    Raises `RequestError` for zones that cannot be read or lie on no image, an unknown image and a run without maps and
    slides, and `LimnerError` where an image that was analysed in part cannot be read again.
    """
    images, frame, omitted = _choose_images(record, image)
    zones = read_zones(f"{path}|layername={layer}" if layer else path, frame, column=column)
    doubt = check_pixels(zones.source.tolist(), images[0].info, zones.subject) if frame == "pixels" else ""
    table = zone_table(record, images, zones, on_share)
    table.omitted.update(omitted)
    said = [*filter(None, [doubt]), *table.statements, *(f"{one} is left out: {why}." for one, why in omitted.items())]
    said += [f"{one.info.id}: {warning}" for one in images for warning in one.warnings]
    return table, said


def _choose_images(record: Record, image: str) -> tuple[list[ImageRecord], Frame, dict[str, str]]:
    """The images that zones are laid on, the frame of the zones, and why other images have none."""
    known = [one.info.id for one in record.images]
    if image and image not in known:
        remedy = f"{did_you_mean(image, known)}Images: {', '.join(known[:20])}"
        raise RequestError(f"image {image!r}", "must be one of the run", remedy=remedy)
    chosen = [one for one in record.images if image in {"", one.info.id}]
    omitted = {one.info.id: _STUDY for one in chosen if one.info.kind == "study"}
    pixels = [one for one in chosen if one.info.kind != "study" and in_pixels(one.info)]
    maps = [one for one in chosen if one.info.kind != "study" and not in_pixels(one.info)]
    if maps:
        return maps, "lonlat", omitted | {one.info.id: _PIXELS for one in pixels}
    if len(pixels) == 1:
        return pixels, "pixels", omitted
    if pixels:
        value = f"{len(pixels)} images"
        remedy = f"Name one with --image, such as --image {pixels[0].info.id}"
        raise RequestError("zones in pixels", "must belong to one image", value=value, remedy=remedy)
    value = "studies only" if omitted else "no images"
    remedy = "Use structures.csv or slices.csv for studies"
    raise RequestError("the run", "must have a map or a slide to lay zones on", value=value, remedy=remedy)


def write_zone_files(table: ZoneTable, out: Path) -> list[Path]:
    """Write the table into the new folder `out`. Raises as `new_folder`."""
    with new_folder(out) as part:
        written = write_zones(table, part)
    return [out / path.name for path in written]
