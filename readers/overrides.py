"""What the user states about files, applied to the facts that any reader returned: bands, sensor, CRS, pixel size."""

import re
from dataclasses import replace
from typing import Final

from pydantic import Field, field_validator

from .errors import ReadError
from .fingerprint import is_remote
from .geometry import Placement
from .image import UNDECLARED, Channel, ImageInfo
from .options import options_of
from .pseudonyms import NameOptions
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
from .slide.spacing import NOTE, Spacing, SpacingTable, differ, place

NODATA: Final = "default_nodata"
"""The option of readers that need to know the no-data value of files that state none."""


class Overrides(NameOptions):
    """What the user states about the inputs, whichever reader opens them."""

    sensor: str = Field(
        default="",
        description="What took the images, such as sentinel-2-l1c; `--sensor` sets it.",
        examples=["sentinel-2-l1c"],
    )
    bands: tuple[str, ...] = Field(
        default=(),
        description="Names of the channels in order; `--bands` sets it.",
        examples=["--bands blue,green,red,nir"],
    )
    crs: str = Field(
        default="",
        description="The coordinate system of files that name none; `--crs` sets it.",
        examples=["--crs EPSG:32618"],
    )
    microns_per_pixel: tuple[float, ...] = Field(
        default=(),
        max_length=2,
        description="The pixel size of slides, one number or two as x,y; `--microns-per-pixel` sets it.",
        examples=["--microns-per-pixel 0.5"],
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
            msg = "each channel has a name of its own"
            raise ValueError(msg)
        return value

    @field_validator("microns_per_pixel")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(number > 0 for number in value):
            msg = "micrometres a pixel are a positive number"
            raise ValueError(msg)
        return value


class Stated:
    """Overrides that are ready to be applied. Raises `RequestError` where a CRS or a table cannot be understood."""

    def __init__(self, overrides: Overrides) -> None:
        self._said = overrides
        self._crs = _crs(overrides.crs)
        self._table = SpacingTable.read(overrides.spacing_csv) if overrides.spacing_csv else None

    def apply(self, info: ImageInfo, reader: object) -> ImageInfo:
        """The facts that `reader` returned with what the user states, and notes on what was decided.

        Raises `ReadError` where the two do not fit each other, or a product's metadata cannot be understood.
        """
        info = _described(info, reader, self._sensor(info), self._said.bands)
        return self._sized(_placed(info, self._crs))

    def _sensor(self, info: ImageInfo) -> Sensor | None:
        """What took a map: as stated, or else as the product's name says."""
        name = self._said.sensor or info.sensor
        return find_sensor(name) if name and info.kind == "map" else None

    def _sized(self, info: ImageInfo) -> ImageInfo:
        """With the pixel size that is stated of a slide: its row in the table goes before the number for all slides."""
        numbers = self._said.microns_per_pixel
        stated = None if self._table is None else self._table.find(info.uri)
        if stated is None and numbers:
            stated = Spacing(numbers[0], numbers[-1], "--microns-per-pixel")
        if stated is None:
            return info
        if info.kind != "slide":
            return _noted(info, *(["--microns-per-pixel was not used: it is for slides."] if numbers else []))
        (x, _, _), (_, y, _) = info.placement.matrix[:2]
        found = Spacing(x, y, info.placement.source) if info.placement.unit == "um" else None
        notes = [note for note in info.notes if not note.startswith(NOTE)]
        if found is not None and differ(stated, found):
            notes.append(f"{NOTE} {stated} is used as stated; the file says {found}.")
        if stated.doubt:
            notes.append(f"{NOTE} {stated} is used as stated, although {stated.doubt}.")
        return replace(info, placement=place(stated), notes=tuple(notes))


def _described(info: ImageInfo, reader: object, sensor: Sensor | None, bands: tuple[str, ...]) -> ImageInfo:
    """With the names of bands, and of a map with what its sensor says of their numbers."""
    channels = _named(info, sensor, bands) if bands else list(info.channels)
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
    undeclared = UNDECLARED in info.facts and "nodata" not in options and NODATA in options_of(reader).model_fields
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
    return _noted(described, *notes)


def _named(info: ImageInfo, sensor: Sensor | None, bands: tuple[str, ...]) -> list[Channel]:
    """Channels with the names that the user gives them, in order."""
    if len(bands) != len(info.channels):
        raise ReadError(
            f"{info.uri} with --bands",
            f"it must name each of the {len(info.channels)} channels once",
            value=",".join(bands),
            remedy=f"The file's channels are {', '.join(channel.name for channel in info.channels)}",
        )
    return [
        replace(
            channel,
            name=name if sensor is None else sensor.find_band(name),
            common=name.lower() if name.lower() in COMMON_NAMES else None,
        )
        for channel, name in zip(info.channels, bands, strict=True)
    ]


def _placed(info: ImageInfo, stated: Crs | None) -> ImageInfo:
    """With a place on Earth where the file lacks nothing but the coordinate system that is stated, else in pixels."""
    own = info.placement
    if own.unit != "crs" or own.crs is not None:
        differs = own.crs is not None and stated is not None and _differ(own.crs, stated.wkt)
        return _noted(info, *(["--crs was not used: the file names its own coordinate system."] if differs else []))
    if stated is not None:
        placed = replace(own, unit=stated.unit, crs=stated.wkt)
        return _noted(replace(info, placement=placed), *gcp_notes(placed))
    what = "a geotransform" if own.warp is None else "control points"
    note = (
        f"The file has {what} but names no coordinate system, so that its unit is unknown and positions are given in "
        f"pixels; {CRS_ADVICE}."
    )
    pixels = Placement.pixels(f"none ({what.removeprefix('a ')} without a CRS)")
    return _noted(replace(info, placement=pixels), note)


def _crs(text: str) -> Crs | None:
    if not text:
        return None
    from .crs import stated_crs

    return stated_crs(text)


def _differ(one: str, other: str) -> bool:
    from .crs import parse_crs

    return one != other and bool(parse_crs(one) != parse_crs(other))


def _noted(info: ImageInfo, *notes: str) -> ImageInfo:
    return replace(info, notes=tuple(dict.fromkeys((*info.notes, *notes))))
