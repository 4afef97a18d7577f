"""User overrides of image metadata, whichever reader scanned it: bands, sensor, CRS and pixel size."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, field_validator

from .errors import ReadError, RequestError
from .files import is_remote, split_variable
from .geometry import Placement
from .image import VALIDITY_UNKNOWN, Channel, ImageInfo
from .options import options_of
from .orientation import orientation_notes
from .pseudonyms import NameOptions, harmless_name
from .raster.bands import (
    COMMON_NAMES,
    Radiometry,
    Sensor,
    canonical_band,
    describe_channels,
    find_product_metadata,
    find_sensor,
    is_sentinel2,
    match_band,
    read_radiometry,
)
from .raster.metadata import CRS_ADVICE, NO_GEOREFERENCE, Crs, gcp_notes
from .raster.radiometry import BASELINE_UNKNOWN, SCALE_SOURCE, VALUES, SensorChoice, choose_sensor, values_text
from .slide.spacing import NOTE_PREFIX, Spacing, SpacingTable, stored_spacing

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
    scale: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="The factor from a map's numbers to physical values, instead of the sensor's, the product's or the "
        "file's own; the offset is then 0 unless it is stated too.",
        examples=["scale=0.0001"],
    )
    offset: float | None = Field(
        default=None,
        description="The offset of a map's physical values, added after scaling, instead of the sensor's, the "
        "product's or the file's own.",
        examples=["offset=-0.1"],
    )
    crs: str = Field(
        default="",
        description="The coordinate reference system of files that have none; `--crs` sets it.",
        examples=["--crs EPSG:32618"],
    )
    microns_per_pixel: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(),
        max_length=2,
        description="The pixel size of slides and pictures in µm, one number or two; `--microns-per-pixel` sets it.",
        examples=["--microns-per-pixel 0.5"],
    )
    metres_per_pixel: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(),
        max_length=2,
        description="The pixel size of maps without a georeference, one number or two; `--metres-per-pixel` sets it.",
        examples=["--metres-per-pixel 0.1"],
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

    @property
    def converts(self) -> bool:
        """Whether the user states how numbers become physical values."""
        return self.scale is not None or self.offset is not None


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
        if overrides.microns_per_pixel and overrides.metres_per_pixel:
            rule, remedy = "must not be given with --microns-per-pixel", "Give the one for slides or the one for maps"
            raise RequestError("--metres-per-pixel", rule, remedy=remedy)

    def apply(self, info: ImageInfo, reader: object) -> ImageInfo:
        """Apply the overrides and the sensor to the metadata that `reader` returned, with notes on what was decided.

        Raises `ReadError` where they do not fit the image, or a product's metadata is invalid.
        """
        info = self._with_pixel_size(info)
        info = _with_numbers(_with_sensor(info, reader, self._overrides), self._overrides)
        info = _with_crs(info, self._crs)
        return _with_notes(info, *orientation_notes(info))

    def makes_personal(self, path: str) -> bool:
        """Whether a file at `path` without a georeference is a slide, since its pixel size is stated in µm."""
        return bool(self._overrides.microns_per_pixel) or (
            self._table is not None and self._table.find(path) is not None
        )

    def _with_pixel_size(self, info: ImageInfo) -> ImageInfo:
        """Apply the pixel size that the user states; a slide's row in the table wins over --microns-per-pixel.

        A picture without a georeference becomes a slide by a size in µm, and a map in local metres by one in m.
        """
        microns, metres = self._overrides.microns_per_pixel, self._overrides.metres_per_pixel
        stated = None if self._table is None else self._table.find(info.uri)
        if stated is None and microns:
            stated = Spacing(microns[0], microns[-1], "--microns-per-pixel")
        own = info.placement
        flat = info.kind == "map" and own.crs is None and (own.unit == "px" or (own.unit == "crs" and not self._crs))
        if metres and flat:
            return _with_metres(info, metres[0], metres[-1])
        if info.kind == "slide" or (stated is not None and flat):
            unused = ["--metres-per-pixel was not used: it is for maps."] if metres else []
            return _with_notes(info if stated is None else _with_spacing(info, stated), *unused)
        georeferenced = "the image has a georeference" if info.kind == "map" else "it is for slides and maps"
        flags = (("--microns-per-pixel", microns), ("--metres-per-pixel", metres))
        return _with_notes(info, *(f"{flag} was not used: {georeferenced}." for flag, numbers in flags if numbers))


def _with_spacing(info: ImageInfo, stated: Spacing) -> ImageInfo:
    """Apply the pixel size of a slide, and note where the file states another."""
    (x, _, _), (_, y, _) = info.placement.matrix[:2]
    found = Spacing(x, y, info.placement.source) if info.placement.unit == "um" else stored_spacing(info.facts)
    notes = [note for note in info.notes if not note.startswith((NOTE_PREFIX, NO_GEOREFERENCE))]
    if found is not None and stated.differs_from(found):
        notes.append(f"{NOTE_PREFIX} {stated} is used as given; the file has {found}.")
    if stated.implausible:
        notes.append(f"{NOTE_PREFIX} {stated} is used as given, although {stated.implausible}.")
    return replace(info, placement=stated.placement(), notes=tuple(notes), kind="slide", sensor="")


def _with_metres(info: ImageInfo, x: float, y: float) -> ImageInfo:
    """Place a map without a georeference in metres from its upper left corner."""
    placed = Placement(((x, 0.0, 0.0), (0.0, y, 0.0)), "m", source="--metres-per-pixel")
    notes = [note for note in info.notes if not note.startswith((NOTE_PREFIX, NO_GEOREFERENCE))]
    notes.append("Positions are in metres from the upper left corner, x to the right and y down, on no map.")
    return replace(info, placement=placed, notes=tuple(notes))


def _with_sensor(info: ImageInfo, reader: object, overrides: Overrides) -> ImageInfo:
    """Name the channels, and apply the radiometry of a map's sensor. Raises `ReadError`."""
    bands = overrides.bands
    if info.kind != "map":
        channels = _with_band_names(info, None, bands) if bands else info.channels
        return replace(info, channels=tuple(channels))
    stated = find_sensor(overrides.sensor) if overrides.sensor else None
    choice, measured, metadata = _choose_sensor(info, stated)
    sensor = None if choice is None else choice.sensor
    channels = _with_band_names(info, sensor, bands) if bands else list(info.channels)
    token = match_band(re.split(r"[/\\]", info.uri)[-1])
    if sensor and token and not bands and [channel.name for channel in channels] == ["1"]:
        channels = [replace(channels[0], name=canonical_band(token[0], sentinel=is_sentinel2(sensor, [])))]
    tagged = any((channel.scale, channel.offset) != (1.0, 0.0) for channel in channels)
    if not overrides.converts:
        _check_tags(info.uri, channels)
    by = "" if choice is None else choice.source
    described, notes = describe_channels(channels, sensor, measured, by)
    if overrides.converts:  # the user's numbers replace those of which notes would tell
        _, notes = describe_channels([replace(one, scale=1.0, offset=0.0) for one in channels], sensor, measured, by)
    source = "" if {one.quantity for one in described} == {"number"} else by
    if tagged:
        source = f"from {dict(info.facts).get(SCALE_SOURCE, 'the tags of the file')}"
    options = dict(info.options)
    undeclared = (
        VALIDITY_UNKNOWN in info.facts and "nodata" not in options and NODATA in options_of(reader).model_fields
    )
    if sensor is not None and sensor.nodata is not None and undeclared:
        options[NODATA] = f"{sensor.nodata:g}"
        notes.append(f"Nodata value {sensor.nodata:g} by the product specification of {sensor.name}.")
    files = dict.fromkeys((*info.files, *([] if metadata is None else [str(metadata)])))
    mapped = replace(
        info,
        channels=described,
        sensor="" if sensor is None else sensor.name,
        files=tuple(files),
        options=tuple(sorted(options.items())),
        facts=(*info.facts, *(() if choice is None else choice.facts), (VALUES, values_text(described, source))),
    )
    return _with_notes(mapped, *notes, *(() if choice is None or tagged or overrides.converts else choice.notes))


def _check_tags(path: str, channels: Sequence[Channel]) -> None:
    for one in channels:
        if not (math.isfinite(one.scale) and math.isfinite(one.offset) and one.scale):
            rule, found = "must have a scale and offset that are finite, and no scale of 0", f"{one.scale:g}"
            remedy = "State them with --set reader_options.scale=NUMBER and --set reader_options.offset=NUMBER"
            raise ReadError(path, rule, value=f"{one.name}: scale {found}, offset {one.offset:g}", remedy=remedy)


def _choose_sensor(
    info: ImageInfo, stated: Sensor | None
) -> tuple[SensorChoice | None, Mapping[str, Radiometry], Path | None]:
    """The sensor of a map, and the radiometry in its product's metadata with their file. Raises `ReadError`."""
    named = find_sensor(info.sensor) if info.sensor else None
    beside, _ = split_variable((info.files or (info.uri,))[0])
    measured: Mapping[str, Radiometry] = {}
    metadata: Path | None = None
    if (sensor := stated or named) is not None and not is_remote(beside):
        measured, metadata = read_radiometry(beside, sensor), find_product_metadata(beside, sensor)
    return choose_sensor(info, beside, stated, measured, metadata.name if metadata else ""), measured, metadata


def _with_numbers(info: ImageInfo, overrides: Overrides) -> ImageInfo:
    """Apply the scale and offset that the user states, with a note on what they replace."""
    scale, offset = overrides.scale, overrides.offset
    if not overrides.converts:
        return info
    if info.kind != "map":
        return _with_notes(info, "The stated scale and offset were not used: they are for maps.")
    before = dict(info.facts).get(VALUES, "")
    channels = tuple(replace(one, scale=scale or one.scale, offset=offset or 0.0) for one in info.channels)
    text = values_text(channels, "as stated by the options scale and offset")
    facts = tuple((key, text if key == VALUES else value) for key, value in info.facts if key != BASELINE_UNKNOWN[0])
    notes = [f"{text}, instead of {before}."] if channels != info.channels else []
    return _with_notes(replace(info, channels=channels, facts=facts), *notes)


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
        unused = "the file has a CRS" if own.crs is not None else "the image has no geotransform"
        differs = stated is not None and (own.crs is None or _is_other_crs(own.crs, stated.wkt))
        return _with_notes(info, *([f"--crs was not used: {unused}."] if differs else []))
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
