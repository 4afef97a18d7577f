"""Settings of a run, merged from a preset, a YAML file and flags or keywords, in rising order of precedence.

Only the names and types of settings are checked here. `run/plan.py` checks that images and models can meet them.
"""

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ..readers.errors import RequestError, did_you_mean, excerpt
from .object_settings import OBJECTS, ObjectSettings
from .resolution import Resolution
from .settings_files import read_preset, read_settings
from .slice_choice import SliceChoice

HD_NUM = range(1, 66)
"""Allowed numbers of tiles in a region. 65 is the largest with which 4KHD was evaluated."""

PATHS = (
    *("inputs", "out", "area", "tissue", "mask", "schema_file"),
    *("model", "reader_options", "model_options", "reference", "crosswalk"),
)
"""Settings that may name files, whose names may contain any bytes."""

CLOUD_MODEL = "csmask-cloud"
"""The mask that is a model of its own."""

QUALITY_BANDS = ("SCL", "QA_PIXEL")
"""Masks that are bands of the images' own products."""

NEUTRAL = (
    *("out", "engine", "address", "workers", "gpus_per_worker", "batch", "memory"),
    *("reports", "report_options", "reference", "fetch"),
    *OBJECTS,
)
"""Settings that cannot change a result: a run may be resumed with other values of them."""

_MAX_DIGITS = 18  # of an integer


def _as_text(value: object) -> object:
    """Convert a number, a path or a list of numbers to text; leave anything else for pydantic to refuse."""
    if isinstance(value, os.PathLike):
        return os.fspath(cast("os.PathLike[str]", value))
    if isinstance(value, list | tuple):
        return ",".join(str(_as_text(item)) for item in cast("Sequence[object]", value))
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _as_tuple(value: object) -> object:
    """Convert a list, a path or comma-separated text to a tuple of texts; leave anything else for pydantic."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, os.PathLike):
        return (_as_text(cast("object", value)),)
    return tuple(map(_as_text, cast("Sequence[object]", value))) if isinstance(value, list | tuple) else value


def _as_texts(value: object) -> object:
    """Convert the values of a mapping to text, True to "true"; leave anything else for pydantic to refuse."""
    if not isinstance(value, Mapping):
        return value
    items = cast("Mapping[object, object]", value).items()
    return {key: str(item).lower() if isinstance(item, bool) else _as_text(item) for key, item in items}


Text = Annotated[str, BeforeValidator(_as_text)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Options = Annotated[dict[str, str], BeforeValidator(_as_texts)]


class Settings(BaseModel):
    """All settings of a run: the flags of the commands, the keys of a YAML file and the keywords of `limner.run`.

    All three use the same names, and the docstrings of the attributes are their documentation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    inputs: Texts = ()
    """Images: files, folders or remote paths (/vsi…, s3://, https://)."""
    out: Text = ""
    """Output folder. An interrupted run resumes when it is given the same folder again."""
    preset: str = "neutral"
    """Settings that ship for one kind of image. All other settings override them."""
    model: Text = ""
    """Model card by name or path, or annotator with its checkpoint, such as probe:FOLDER. Default: csmask, if every
    image has the bands it needs. With none, nothing is annotated and the run only describes the images.
    """
    labels: Texts = ()
    """Labels to report; for models that take label texts, the candidates. Default: all."""
    ask: str = ""
    """Question that a vision-language model is asked about each region."""
    answer: Literal["", "describe", "classify", "locate", "extract"] = ""
    """Type of answer: describe (free text), classify (one of the labels), locate (boxes of the labels) or extract
    (values that follow schema_file).
    """
    force_domain: bool = False
    """Run the model on images that it was not made for, by its card. Every report then tells so."""
    schema_file: Text = ""
    """JSON schema file of the values to extract."""
    probabilities: bool = False
    """Keep the model's probability of each label at each analysed pixel, in steps of 1/250, for the report
    probabilities and for fractional segmentations with report_options dicom-seg.type=fractional. Takes disk space.
    """
    resolution: str = ""
    """Pixel size at which images are analysed: 10m, 0.5um or native. Default: the model's own."""
    stretch: Texts = ()
    """Pixel values rendered as black and white, for images of more than 8 bits, such as 0,2750. Default: percentiles of
    each image.
    """
    hd_num: int = 25
    """Maximum number of tiles in a region, 1 to 65. Larger images are split into more regions."""
    whole: bool = False
    """Show each image, or each slice of a stack, whole: reduced until it fits into hd_num tiles. Its pixel size may be
    unknown.
    """
    enlarge: bool = False
    """Enlarge small images until they fill hd_num tiles, as 4KHD's own transform does."""
    overlap: int = Field(0, ge=0)
    """Overlap of neighbouring regions, in pixels at the analysis resolution."""
    area: Text = ""
    """File of the region of interest: GeoJSON, GeoPackage, FlatGeobuf, Shapefile or KML, in its own CRS for maps, in
    pixels as exported by QuPath for slides, studies and images without a georeference. FILE|layername=NAME names a
    layer.
    """
    tissue: Text = "auto"
    """auto detects the tissue on slides and skips the rest; off analyses the whole slide. A file of a tissue mask,
    polygons in pixels as QuPath exports them or a picture that is 0 beside the tissue, is used instead; a folder, such
    as an earlier run, has one for each slide (tissue-ID.geojson).
    """
    mask: Text = ""
    """What lies under cloud or must not be analysed for another reason: csmask-cloud (the model of that name is run
    first), SCL or QA_PIXEL (the quality band of a Sentinel-2 or a Landsat product), or a file of polygons or a raster.
    """
    mask_action: Literal["exclude", "flag"] = "exclude"
    """exclude leaves out what is masked, and counts its area by its reason; flag analyses it, and states for each
    finding how much of it is masked.
    """
    mask_values: Texts = ()
    """Values of the mask's raster that are masked, such as 3,8,9. Default: those that stand for cloud and shadow; in a
    file every value but 0.
    """
    stack: Literal["slices", "montage"] = "slices"
    """How a stack is shown to a model of pictures: slice by slice, or as montages of as many slices as a region has
    tiles, each in a tile, with its number and the side of the patient.
    """
    slices: Texts = ()
    """Slices of each stack to analyse: numbers and ranges (1,5,10-40), every:N for the first and each Nth after it, or
    at:-12.5mm for those nearest to a position along the normal. Default: all.
    """
    skip_empty: bool = True
    """Skip regions in which the overview has no valid pixel."""
    reader: str = ""
    """Reader that opens the inputs. Default: the one that supports their format best."""
    sensor: str = ""
    """Sensor and processing level of images whose files do not state them."""
    bands: Texts = ()
    """Names of the channels, in the order of the file, such as blue,green,red,nir."""
    crs: str = ""
    """Coordinate reference system of files that have none, such as EPSG:32618."""
    microns_per_pixel: Text = ""
    """Pixel size in µm of slides that do not state it, and of pictures, which are slides then: one number, or x,y."""
    metres_per_pixel: Text = ""
    """Pixel size in metres of maps and pictures without a georeference: one number, or two as x,y."""
    scene: Texts = ()
    """Images to analyse of a file that holds several, by number or name. Default: all, each as an image of its own."""
    tma: bool = False
    """Find the cores of tissue microarrays on slides, analyse nothing else, and write cores.csv with a row for each."""
    icc: Literal["ignore", "apply"] = "ignore"
    """apply converts 8-bit colours of slides to sRGB by the ICC profile of their file; ignore reads them as they are
    stored, as nearly all models saw them in training.
    """
    names: Literal["auto", "hide", "show"] = "auto"
    """auto replaces the names and paths of slides and studies by pseudonyms, except on an interactive terminal; hide
    there too; show nowhere, so that names are in everything that is written.
    """
    crosswalk: Text = ""
    """CSV file of pseudonyms of your own for paths and UIDs of slides and studies, with the columns original and
    pseudonym, and kind where needed. Others are replaced as ever.
    """
    reader_options: Options = Field(default_factory=dict)
    """Options of the readers, such as window=40,400; `limner plugins` lists them."""
    model_options: Options = Field(default_factory=dict)
    """Options of the model; `limner models show NAME` lists them."""
    report_options: Options = Field(default_factory=dict)
    """Options of the writers, as WRITER.OPTION=VALUE; `limner plugins` lists them."""
    engine: Literal["inline", "local", "ray"] = "inline"
    """inline runs in this process, local in several processes on this machine, ray in processes on the nodes of a Ray
    cluster.
    """
    address: str = ""
    """Ray cluster of the ray engine: HOST:PORT, or auto for the one that this machine belongs to. Default: a Ray
    that is started on this machine and ends with the run.
    """
    workers: int = Field(0, ge=0)
    """Number of processes of the local and the ray engine. Default: one per core, or as many as the GPUs allow with
    gpus_per_worker.
    """
    gpus_per_worker: float = Field(0.0, ge=0)
    """GPUs of each process of the ray engine: whole ones, or a part of one such as 0.5. Default: none."""
    batch: int = Field(1, ge=1, le=1024)
    """Number of regions annotated per batch."""
    memory: Text = ""
    """Most memory that a run may take, or with the engine ray each of its workers, such as 2GB: workers, batches,
    caches and reading ahead are made to fit. Default: no limit.
    """
    reports: Texts = ()
    """Kinds of reports to write. Default: all but those on request, of which docs/reports.md tells. To name a dicom-…
    report is to ask for objects that identify the patient: they hold the name, and the originals' UIDs and dates.
    """
    reference: Texts = ()
    """Reference masks of stacks that are annotated as volumes: NIfTI label maps on the stacks' own voxels, as FILE or
    IMAGE=FILE. Dice and surface distances go to reference.csv.
    """
    min_area: Text = ""
    """Least area of areas of a class map that are reported: 500m2 or 0.05ha on maps, 50um2 on slides, 20mm2 in studies,
    or 5px of the analysis. Smaller ones are left out once areas are joined across regions; areas.csv accounts for them.
    """
    fill_holes: Text = ""
    """Fill holes of areas up to this area, in the same units, or all. A hole that holds another area stays."""
    smooth: bool = False
    """Cut the corners of pixels from outlines, so that steps become lines. Borders stay shared."""
    simplify: Text = ""
    """Leave out vertices of outlines whose triangle with their neighbours is smaller than the square of this: 5m on
    maps, 2um on slides, 1mm in studies or 1px. Borders stay shared.
    """
    instances: Texts = ()
    """Labels whose areas are split into objects where they are narrow, each with its perimeter, circularity and mean
    intensities; all for every label.
    """
    neck: float = Field(0.75, gt=0, le=1)
    """Width of a neck between two instances, as a share of the smaller one's: only narrower ones part them."""
    tissue_edge: Text = "12um"
    """Depth up to which an area that only lines the edge of the tissue of a slide is no object; off keeps it."""
    fetch: bool = False
    """Allow downloading the model's weights."""

    @field_validator("*")
    @classmethod
    def _check_text(cls, value: object, about: ValidationInfo) -> object:
        texts = cast("Mapping[str, str]", value).values() if isinstance(value, dict) else value
        joined = "" if isinstance(texts, int | float) else "".join(cast("Iterable[str]", texts))
        if "\0" in joined or (about.field_name not in PATHS and re.search("[\ud800-\udfff]", joined)):
            msg = "must be valid UTF-8 without NUL characters"
            raise ValueError(msg)
        return cast("object", value)

    @field_validator("resolution")
    @classmethod
    def _check_resolution(cls, value: str) -> str:
        Resolution.parse(value)
        return value

    @field_validator("memory")
    @classmethod
    def _check_memory(cls, value: str) -> str:
        if value:
            parse_bytes(value)
        return value

    @model_validator(mode="after")
    def _check_objects(self) -> Self:
        ObjectSettings.of(self.model_dump(include=set(OBJECTS)))
        return self

    @field_validator("stretch")
    @classmethod
    def _check_stretch(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value:
            _parse_stretch(value)
        return value

    @field_validator("mask_values")
    @classmethod
    def _check_mask_values(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(re.fullmatch(r"-?\d{1,9}", one) for one in value):
            remedy = "For example --mask-values 3,8,9"
            raise RequestError("mask_values", "must be whole numbers", value=",".join(value), remedy=remedy)
        return value

    @model_validator(mode="after")
    def _check_mask(self) -> Self:
        if self.mask_values and self.mask in {"", CLOUD_MODEL}:
            remedy = "Give --mask FILE, SCL or QA_PIXEL, or leave --mask-values out"
            raise RequestError("mask_values", "must come with the raster of a mask", value=self.mask, remedy=remedy)
        if self.mask_action == "flag" and not self.mask:
            remedy = "Give --mask, or leave --mask-action out"
            raise RequestError("mask_action", "must come with a mask", value="flag", remedy=remedy)
        return self

    @field_validator("slices", mode="before")
    @classmethod
    def _check_no_slices(cls, value: object) -> object:
        if isinstance(value, str) and not value.strip(" ,"):
            remedy = "Name slices, such as --slices 10-40, or leave it out for all"
            raise RequestError("slices", "must choose at least one slice", value=repr(value), remedy=remedy)
        return value

    @field_validator("slices")
    @classmethod
    def _check_slices(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        SliceChoice.parse(value)
        return value

    @model_validator(mode="after")
    def _check_crosswalk(self) -> Self:
        if self.crosswalk and self.names == "show":
            rule, remedy = "must not be given where names are shown", "Leave out --crosswalk or --names show"
            raise RequestError("crosswalk", rule, remedy=remedy)
        return self

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if self.whole and self.resolution:
            rule, remedy = "must not be given together with a resolution", "Leave out --whole or --resolution"
            raise RequestError("whole", rule, value=f"resolution {self.resolution}", remedy=remedy)
        if self.stack == "montage" and (self.whole or self.resolution):
            rule, value = (
                "must not be a montage, which has a scale of its own,",
                "whole" if self.whole else "resolution",
            )
            raise RequestError("stack", f"{rule} with {value}", value="montage", remedy=f"Leave {value} out")
        return self

    @field_validator("hd_num")
    @classmethod
    def _check_hd_num(cls, value: int) -> int:
        if value not in HD_NUM:
            raise RequestError(
                "hd_num",
                f"must be from {HD_NUM[0]} to {HD_NUM[-1]} tiles",
                value=str(value),
                remedy="Give --hd-num 9, 16, 25 or 55; larger images are split into more regions",
            )
        return value

    @field_validator("gpus_per_worker")
    @classmethod
    def _check_gpus(cls, value: float) -> float:
        if not math.isfinite(value) or (value > 1 and not value.is_integer()):
            remedy = "For example --gpus-per-worker 1, or 0.5 for two processes on each GPU"
            rule = "must be a whole number of GPUs, or a part of one"
            raise RequestError("gpus_per_worker", rule, value=f"{value:g}", remedy=remedy)
        return value

    def stated_options(self) -> dict[str, str]:
        """Reader options, together with the facts that the user states about the files."""
        stated = {"sensor": self.sensor, "bands": ",".join(self.bands), "crs": self.crs}
        stated |= {"microns_per_pixel": self.microns_per_pixel, "metres_per_pixel": self.metres_per_pixel}
        stated |= {"scene": ",".join(self.scene), "icc": "" if self.icc == "ignore" else self.icc}
        return {**self.reader_options, **{key: value for key, value in stated.items() if value}}

    def slice_choice(self) -> SliceChoice | None:
        """The slices to analyse; None for all."""
        return SliceChoice.parse(self.slices) if self.slices else None

    def stretch_limits(self) -> tuple[float, float] | None:
        """Pixel values of black and white; None where each image is stretched by its own percentiles."""
        return _parse_stretch(self.stretch) if self.stretch else None

    @classmethod
    def resolve(
        cls,
        flags: Mapping[str, Any],
        *,
        file: str = "",
        changes: Sequence[str] = (),
        source: str = "the command line",
    ) -> Self:
        """Merge the preset, the file, the flags and the `--set` changes. Raises `RequestError`.

        `source` names the origin of the flags in messages.
        """
        layers: list[tuple[str, Mapping[str, Any]]] = [(file, read_settings(file))] if file else []
        layers.append((source, dict(flags)))
        layers += [(excerpt(f"--set {change}"), _parse_change(change)) for change in changes]
        for where, layer in layers:
            for key in (key for key in layer if key not in cls.model_fields):
                raise RequestError(
                    f"setting {key!r} in {where}",
                    "must exist",
                    remedy=f"{did_you_mean(key, cls.model_fields)}Settings: {', '.join(cls.model_fields)}",
                )
        named = [layer["preset"] for _, layer in layers if "preset" in layer]
        preset = str(named[-1]) if named else cls.model_fields["preset"].default
        merged: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for where, layer in [(f"preset {preset}", read_preset(preset)), *layers]:
            for key, value in layer.items():
                both = isinstance(merged.get(key), dict) and isinstance(value, dict)
                merged[key] = {**merged[key], **value} if both else value
                sources[key] = where
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            raise _as_request_error(error, sources) from None


def parse_bytes(text: str) -> float:
    """Read an amount of memory. Raises `RequestError`.

    >>> parse_bytes("2GB"), parse_bytes("1.5 GiB")
    (2000000000.0, 1610612736.0)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([MGT])(i?)B\s*", text)
    if not found or float(found[1]) == 0:
        remedy = "For example --memory 2GB or --memory 1.5GiB"
        raise RequestError("memory", "must be a positive number with the unit MB, GB or TB", value=text, remedy=remedy)
    return float(found[1]) * (1024 if found[3] else 1000) ** (2 + "MGT".index(found[2]))


def _parse_stretch(stretch: Sequence[str]) -> tuple[float, float]:
    """Read the pixel values of black and white. Raises `RequestError`."""
    try:
        low, high = (float(number) for number in stretch)
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high)) or low == high:
        raise RequestError(
            "stretch",
            "must be two different numbers: the pixel values of black and of white",
            value=",".join(stretch),
            remedy="For example --stretch 0,2750",
        )
    return low, high


def _parse_change(change: str) -> dict[str, Any]:
    """Parse one `--set`: "hd_num=9" or "model_options.threads=2"."""
    key, equals, text = change.partition("=")
    name, dot, part = key.strip().partition(".")
    text = text.strip()
    if not equals or not name or (dot and not part):
        raise RequestError(excerpt(f"--set {change}"), "must be key=value", remedy="For example --set hd_num=9")
    if dot:
        return {name: {part: text}}
    field = Settings.model_fields.get(name)
    if field is not None and isinstance(field.default, str | tuple):
        return {name: text}
    if text.isdecimal() and len(text) <= _MAX_DIGITS:
        return {name: int(text)}
    return {name: {"true": True, "false": False}.get(text, text)}


def _as_request_error(error: ValidationError, sources: Mapping[str, str]) -> RequestError:
    """The first of pydantic's errors as a `RequestError`."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ").replace("Input should be ", "must be ")
    return RequestError(
        f"setting {path!r} in {sources.get(path.partition('.')[0], 'the settings')}",
        message if message.startswith("must ") else f"must be valid: {message[0].lower()}{message[1:]}",
        value=excerpt(repr(first["input"])),
        remedy="Correct the value",
    )


def is_path(value: str) -> bool:
    """Whether the value of `mask` or `tissue` is a path, and none of the words that they know."""
    return value not in {"", "auto", "off", CLOUD_MODEL, *QUALITY_BANDS}
