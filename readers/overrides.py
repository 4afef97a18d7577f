"""User overrides of image metadata, whichever reader scanned it: bands, sensor, CRS and pixel size."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Final

from pydantic import Field, field_validator

from .errors import ReadError
from .files import is_remote
from .geometry import Placement
from .image import VALIDITY_UNKNOWN, Channel, ImageInfo
from .options import options_of
from .orientation import orientation_notes
from .pseudonyms import NameOptions, harmless_name
from .raster.bands import (
    COMMON_NAMES,
    Sensor,
    canonical_band,
    describe_channels,
    find_product_metadata,
    find_sensor,
    is_sentinel2,
    match_band,
    read_radiometry,
)
from .raster.metadata import CRS_ADVICE, Crs, gcp_notes
from .slide.spacing import NOTE_PREFIX, Spacing, SpacingTable

NODATA: Final = "default_nodata"
"""The option of readers for the nodata value of files that declare none."""


class Overrides(NameOptions):
    """Options that override the metadata of the inputs."""

    sensor: str = Field(
        default="",
        description="The sensor of the images, such as sentinel-2-l1c; `--sensor` sets it.",
        examples=["sentinel-2-l1c"],
    )
    bands: tuple[str, ...] = Field(
        default=(),
        description="Names of the channels in order; `--bands` sets it.",
        examples=["--bands blue,green,red,nir"],
    )
    crs: str = Field(
        default="",
        description="The coordinate reference system of files that have none; `--crs` sets it.",
        examples=["--crs EPSG:32618"],
    )
    microns_per_pixel: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(),
        max_length=2,
        description="The pixel size of slides, one number or two as x,y; `--microns-per-pixel` sets it.",
        examples=["--microns-per-pixel 0.5"],
    )
    scene: tuple[str, ...] = Field(
        default=(),
        description="The images to read of a file that holds several, by number or name; `--scene` sets it.",
        examples=["--scene 2"],
    )
    spacing_csv: str = Field(
        default="",
        description="A table of slides' pixel sizes, with the columns `path` or `name`, `mpp_x` and `mpp_y`.",
    )

    @field_validator("sensor")
    @classmethod
    def _is_known(cls, value: str) -> str:
        return find_sensor(value).name if value else ""

    @field_validator("bands")
    @classmethod
    def _differ(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            msg = "must be different names"
            raise ValueError(msg)
        return value


def choose_scenes(path: str, infos: Sequence[ImageInfo], scenes: Sequence[str]) -> tuple[ImageInfo, ...]:
    """The images of the file at `path` that `--scene` names, in the file's order; all where it names none.

    An image is named by its number, counted from 1, by its name in the file, or by `ImageInfo.part`. Raises `ReadError`
    for a scene that the file does not have.
    """
    names = [{str(at), info.part, _scene_name(info)} for at, info in enumerate(infos, start=1)]
    for scene in scenes:
        if not any(scene in own for own in names):
            known = (f"{at}{f' ({name})' if name else ''}" for at, name in enumerate(map(_scene_name, infos), start=1))
            rule, value = f"must be one of {path}: {', '.join(known)}", harmless_name(scene)
            raise ReadError("--scene", rule, value=value, remedy="Give its number, or leave --scene out to read all")
    return tuple(info for info, own in zip(infos, names, strict=True) if not scenes or own & set(scenes))


def _scene_name(info: ImageInfo) -> str:
    return dict(info.facts).get("scene_name", "")


class PreparedOverrides:
    """Overrides with their CRS and spacing table parsed. Raises `RequestError` where these are invalid."""

    def __init__(self, overrides: Overrides) -> None:
        self._overrides = overrides
        self._crs = _parse_crs(overrides.crs)
        self._table = SpacingTable.read(overrides.spacing_csv) if overrides.spacing_csv else None

    def apply(self, info: ImageInfo, reader: object) -> ImageInfo:
        """Apply the overrides and the sensor to the metadata that `reader` returned, with notes on what was decided.

        Raises `ReadError` where they do not fit the image, or a product's metadata is invalid.
        """
        name = self._overrides.sensor or info.sensor
        sensor = find_sensor(name) if name and info.kind == "map" else None
        info = _with_sensor(info, reader, sensor, self._overrides.bands)
        info = self._with_spacing(_with_crs(info, self._crs))
        return _with_notes(info, *orientation_notes(info.placement))

    def _with_spacing(self, info: ImageInfo) -> ImageInfo:
        """Apply a slide's pixel size: its row in the table wins over --microns-per-pixel."""
        numbers = self._overrides.microns_per_pixel
        stated = None if self._table is None else self._table.find(info.uri)
        if stated is None and numbers:
            stated = Spacing(numbers[0], numbers[-1], "--microns-per-pixel")
        if stated is None:
            return info
        if info.kind != "slide":
            return _with_notes(info, *(["--microns-per-pixel was not used: it is for slides."] if numbers else []))
        (x, _, _), (_, y, _) = info.placement.matrix[:2]
        found = Spacing(x, y, info.placement.source) if info.placement.unit == "um" else None
        notes = [note for note in info.notes if not note.startswith(NOTE_PREFIX)]
        if found is not None and stated.differs_from(found):
            notes.append(f"{NOTE_PREFIX} {stated} is used as given; the file has {found}.")
        if stated.implausible:
            notes.append(f"{NOTE_PREFIX} {stated} is used as given, although {stated.implausible}.")
        return replace(info, placement=stated.placement(), notes=tuple(notes))


def _with_sensor(info: ImageInfo, reader: object, sensor: Sensor | None, bands: tuple[str, ...]) -> ImageInfo:
    """Name the channels, and apply the radiometry of a map's sensor."""
    channels = _with_band_names(info, sensor, bands) if bands else list(info.channels)
    if info.kind != "map":
        return replace(info, channels=tuple(channels))
    token = match_band(re.split(r"[/\\]", info.uri)[-1])
    if sensor and token and not bands and [channel.name for channel in channels] == ["1"]:
        channels = [replace(channels[0], name=canonical_band(token[0], sentinel=is_sentinel2(sensor, [])))]
    measured, metadata = None, None
    if sensor is not None and not is_remote(info.uri):
        beside = (info.files or (info.uri,))[0]
        measured, metadata = read_radiometry(beside, sensor), find_product_metadata(beside, sensor)
    described, notes = describe_channels(channels, sensor, measured)
    options = dict(info.options)
    undeclared = (
        VALIDITY_UNKNOWN in info.facts and "nodata" not in options and NODATA in options_of(reader).model_fields
    )
    if sensor is not None and sensor.nodata is not None and undeclared:
        options[NODATA] = f"{sensor.nodata:g}"
        notes.append(f"Nodata value {sensor.nodata:g} by the product specification of {sensor.name}.")
    files = dict.fromkeys((*info.files, *([] if metadata is None else [str(metadata)])))
    described = replace(
        info,
        channels=described,
        sensor="" if sensor is None else sensor.name,
        files=tuple(files),
        options=tuple(sorted(options.items())),
    )
    return _with_notes(described, *notes)


def _with_band_names(info: ImageInfo, sensor: Sensor | None, bands: tuple[str, ...]) -> list[Channel]:
    """The channels with the names in --bands."""
    if len(bands) != len(info.channels):
        rule = f"must name each of the {len(info.channels)} channels of {info.uri} once"
        remedy = f"Name its channels, {', '.join(channel.name for channel in info.channels)}, in this order"
        raise ReadError("--bands", rule, value=",".join(bands), remedy=remedy)
    return [
        replace(
            channel,
            name=name if sensor is None else sensor.find_band(name),
            common=name.lower() if name.lower() in COMMON_NAMES else None,
        )
        for channel, name in zip(info.channels, bands, strict=True)
    ]


def _with_crs(info: ImageInfo, stated: Crs | None) -> ImageInfo:
    """Apply a CRS to a file that has a geotransform or control points but no CRS; without one work in pixels."""
    own = info.placement
    if own.unit != "crs" or own.crs is not None:
        differs = own.crs is not None and stated is not None and _is_other_crs(own.crs, stated.wkt)
        return _with_notes(info, *(["--crs was not used: the file has a CRS."] if differs else []))
    if stated is not None:
        placed = replace(own, unit=stated.unit, crs=stated.wkt)
        return _with_notes(replace(info, placement=placed), *gcp_notes(placed))
    what = "a geotransform" if own.warp is None else "control points"
    note = f"The file has {what} but no CRS, so its unit is unknown and positions are in pixels; {CRS_ADVICE}."
    return _with_notes(
        replace(info, placement=Placement.pixels(f"none ({what.removeprefix('a ')} without a CRS)")), note
    )


def _parse_crs(text: str) -> Crs | None:
    from .geodesy import stated_crs

    return stated_crs(text) if text else None


def _is_other_crs(one: str, other: str) -> bool:
    from .geodesy import parse_crs

    return one != other and bool(parse_crs(one) != parse_crs(other))


def _with_notes(info: ImageInfo, *notes: str) -> ImageInfo:
    return replace(info, notes=tuple(dict.fromkeys((*info.notes, *notes))))
