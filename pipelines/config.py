"""What a run is asked to do: one frozen set of settings, from a preset, a YAML file and flags, in that precedence.

It knows names and types of settings. It does not know whether an image or a model can meet them: `plan.py` does.
"""

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, cast, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from ..readers.errors import RequestError, did_you_mean, excerpt
from ..readers.plugins import Group, installed
from .run.resolution import Resolution
from .settings_file import presets, read_preset, read_settings


def _as_tuple(value: object) -> object:
    """A list, or a text with commas, as a tuple of texts; anything else is left for the type to refuse."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, os.PathLike):
        return (os.fspath(cast("os.PathLike[str]", value)),)
    return tuple(map(_as_text, cast("Sequence[object]", value))) if isinstance(value, list | tuple) else value


def _as_text(value: object) -> object:
    """A number, a path or numbers in a row as a text; anything else is left for the type to refuse."""
    if isinstance(value, os.PathLike):
        return os.fspath(cast("os.PathLike[str]", value))
    if isinstance(value, list | tuple):
        return ",".join(str(_as_text(one)) for one in cast("Sequence[object]", value))
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _as_texts(value: object) -> object:
    """A mapping whose values are texts: True is "true". Anything else is left for the type to refuse."""
    if not isinstance(value, Mapping):
        return value
    given = cast("Mapping[object, object]", value)
    return {key: str(one).lower() if isinstance(one, bool) else _as_text(one) for key, one in given.items()}


Text = Annotated[str, BeforeValidator(_as_text)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Options = Annotated[dict[str, str], BeforeValidator(_as_texts)]


class Settings(BaseModel):
    """Everything that decides a run: the flags of the commands, the keys of a YAML file, the keywords of `limner.run`.

    The three have the same names; the descriptions here are their documentation. Resolved values go into the manifest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    inputs: Texts = Field(default=(), description="Files, folders or remote paths (/vsi…, s3://, https://) of images.")
    out: Text = Field(
        default="",
        description="Folder for the results. A run that was cut off goes on when it is given the same folder.",
    )
    preset: str = Field(
        default="neutral", description="Settings that ship for a kind of image; all others win over it."
    )
    model: Text = Field(
        default="",
        description="Model card by name or path, or annotator with its checkpoint, such as probe:FOLDER. "
        "Default: csmask, where every image has the bands that it needs. "
        "none annotates nothing: the run reports what there is.",
    )
    labels: Texts = Field(
        default=(), description="Labels to report, or to choose from where the model takes words. Default: all."
    )
    ask: str = Field(default="", description="Question to a vision-language model about each region.")
    answer: Literal["", "describe", "classify", "locate", "extract"] = Field(
        default="",
        description="Kind of answer: describe is a text, classify one of the labels, locate boxes of the labels, "
        "extract the values of schema_file.",
    )
    schema_file: Text = Field(default="", description="JSON schema file of the values to extract.")
    resolution: str = Field(
        default="",
        description="Pixel size at which regions are analysed: 10m, 0.5um or native. Default: the model's own.",
    )
    stretch: Texts = Field(
        default=(),
        description="Native numbers that become black and white in pictures of more than 8 bits, such as 0,2750. "
        "Default: percentiles of each image.",
    )
    hd_num: int = Field(
        default=25, description="Most tiles of a region, 1 to 65; larger images are cut into more regions."
    )
    enlarge: bool = Field(
        default=False, description="Enlarge small pictures to fill hd_num tiles, as 4KHD's own transform always does."
    )
    overlap: int = Field(
        default=0, ge=0, description="Pixels, at the analysed resolution, that neighbouring regions share."
    )
    area: Text = Field(
        default="",
        description="GeoJSON file of the area of interest: longitude and latitude for maps, pixels as QuPath exports "
        "them for slides and studies.",
    )
    tissue: Literal["auto", "off"] = Field(
        default="auto", description="auto leaves out what of a slide holds no tissue."
    )
    skip_empty: bool = Field(default=True, description="Leave out regions in which the overview shows no valid pixel.")
    reader: str = Field(
        default="", description="Reader that opens the inputs. Default: the one that knows their format best."
    )
    sensor: str = Field(
        default="", description="Sensor and processing level of the images, where their files do not say it."
    )
    bands: Texts = Field(
        default=(), description="Names of the file's channels, in its order, such as blue,green,red,nir."
    )
    crs: str = Field(
        default="", description="Coordinate reference system, such as EPSG:32618, of files that have none."
    )
    microns_per_pixel: Text = Field(
        default="", description="Pixel size of slides that do not state it: one number, or two as x,y."
    )
    names: Literal["hide", "show"] = Field(
        default="hide",
        description="hide replaces names and paths of slides and studies by pseudonyms in all output.",
    )
    reader_options: Options = Field(
        default_factory=dict, description="Options of the readers, such as window=40,400; `limner plugins` lists them."
    )
    model_options: Options = Field(
        default_factory=dict, description="Options of the model; `limner models show NAME` lists them."
    )
    report_options: Options = Field(
        default_factory=dict, description="Options of the writers, as WRITER.OPTION=VALUE; `limner plugins` lists them."
    )
    engine: Literal["inline", "local"] = Field(
        default="inline", description="inline works in this process, local in several processes of this machine."
    )
    workers: int = Field(default=0, ge=0, description="Processes of the engine local. Default: one for each core.")
    batch: int = Field(default=1, ge=1, le=1024, description="Regions that are annotated together.")
    reports: Texts = Field(default=(), description="Kinds of reports to write. Default: all.")
    fetch: bool = Field(default=False, description="Allow the network for the model's weights.")

    @field_validator("*")
    @classmethod
    def _texts_are_text(cls, value: object, about: ValidationInfo) -> object:
        texts = cast("Mapping[str, str]", value).values() if isinstance(value, dict) else value
        whole = "" if isinstance(texts, int) else "".join(cast("Iterable[str]", texts))
        if "\0" in whole or (about.field_name not in PATHS and re.search("[\ud800-\udfff]", whole)):
            msg = "it must be text: neither NUL nor bytes that are not UTF-8"
            raise ValueError(msg)
        return cast("object", value)

    @field_validator("resolution")
    @classmethod
    def _resolution_has_a_unit(cls, value: str) -> str:
        Resolution.parse(value)
        return value

    @field_validator("stretch")
    @classmethod
    def _stretch_is_two_numbers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value:
            _limits(value)
        return value

    @field_validator("hd_num")
    @classmethod
    def _tiles_of_a_region(cls, value: int) -> int:
        if value not in HD_NUM:
            raise RequestError(
                "hd-num",
                f"a region has at least {HD_NUM[0]} tile, and at most the {HD_NUM[-1]} that 4KHD was measured with",
                value=str(value),
                remedy="Give --hd-num 9, 16, 25 or 55; larger pictures are cut into more regions",
            )
        return value

    def reading(self) -> dict[str, str]:
        """The reader's options: what the person says of the files where the files do not say it themselves."""
        said = {"sensor": self.sensor, "bands": ",".join(self.bands), "crs": self.crs}
        said["microns_per_pixel"] = self.microns_per_pixel
        return {**self.reader_options, **{key: value for key, value in said.items() if value}}

    def limits(self) -> tuple[float, float] | None:
        """Black and white, in native numbers; None where each picture has its own."""
        return _limits(self.stretch) if self.stretch else None

    def deciding(self) -> dict[str, Any]:
        """The settings that can change a result, as plain values: what two halves of one run must agree on."""
        return self.model_dump(mode="json", exclude=set(NEUTRAL))

    @classmethod
    def resolve(
        cls,
        flags: Mapping[str, Any],
        *,
        file: str = "",
        changes: Sequence[str] = (),
        source: str = "the command line",
    ) -> Self:
        """Preset < file < flags < `changes` ("key=value" or "key.part=value"). Raises `RequestError`.

        `source` says where the flags come from.
        """
        layers: list[tuple[str, Mapping[str, Any]]] = []
        if file:
            layers.append((file, read_settings(file)))
        layers.append((source, dict(flags)))
        layers.extend((excerpt(f"--set {change}"), _parse_change(change)) for change in changes)
        for where, layer in layers:
            _refuse_unknown(layer, where)
        named = [layer["preset"] for _, layer in layers if "preset" in layer]
        preset = str(named[-1]) if named else cls.model_fields["preset"].default
        layers.insert(0, (f"preset {preset}", read_preset(preset)))
        merged: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for where, layer in layers:
            for key, value in layer.items():
                old = merged.get(key)
                mixed = isinstance(old, dict) and isinstance(value, dict)
                merged[key] = {**cast("dict[str, Any]", old), **cast("dict[str, Any]", value)} if mixed else value
                sources[key] = where
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            raise _as_request(error, sources) from None


_DIGITS = 18  # of a whole number
HD_NUM = range(1, 66)
"""How many tiles a region may have; 65 is the most that 4KHD was ever measured with."""

# Settings that name files, whose names may be any bytes.
PATHS = ("inputs", "out", "area", "schema_file", "model", "reader_options", "model_options")

# Settings that cannot change a result: a run may go on with others.
NEUTRAL = ("out", "engine", "workers", "batch", "reports", "report_options", "fetch")


def _limits(stretch: Sequence[str]) -> tuple[float, float]:
    """Black and white of a stretch as given. Raises `RequestError`."""
    try:
        low, high = (float(number) for number in stretch)
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high)) or low == high:
        raise RequestError(
            "stretch",
            "it is two different numbers, of what is black and of what is white",
            value=",".join(stretch),
            remedy="For example --stretch 0,2750, in the numbers that the files hold",
        )
    return low, high


def _parse_change(change: str) -> dict[str, Any]:
    """One `--set`: "hd_num=9" or "model_options.threads=2". The value is read as YAML."""
    key, equals, text = change.partition("=")
    name, dot, part = key.strip().partition(".")
    if not equals or not name or (dot and not part):
        raise RequestError(excerpt(f"--set {change}"), "it must be key=value", remedy="For example --set hd_num=9")
    if dot:
        return {name: {part: text.strip()}}
    field = Settings.model_fields.get(name)
    written = field is not None and isinstance(field.default, str | tuple)
    return {name: text.strip() if written else _scalar(text.strip())}


def _scalar(text: str) -> int | bool | str:
    """A flag's value as YAML would read it: a whole number, true or false, or else the text for its type to refuse."""
    if text.isdecimal() and len(text) <= _DIGITS:
        return int(text)
    return {"true": True, "false": False}.get(text, text)


def _refuse_unknown(settings: Mapping[str, Any], source: str) -> None:
    known = list(Settings.model_fields)
    for key in settings:
        if key not in known:
            raise RequestError(
                f"setting {key!r} in {source}",
                "there is no such setting",
                remedy=f"{did_you_mean(key, known)}Settings: {', '.join(known)}",
            )


def _as_request(error: ValidationError, sources: Mapping[str, str]) -> RequestError:
    """The first of pydantic's complaints as one of ours."""
    first = error.errors()[0]
    key = str(first["loc"][0]) if first["loc"] else ""
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, RequestError):
        return cause
    path = ".".join(str(part) for part in first["loc"])
    return RequestError(
        f"setting {path!r} in {sources.get(key, 'the settings')}",
        first["msg"][0].lower() + first["msg"][1:],
        value=excerpt(repr(first["input"])),
        remedy="Correct the value",
    )


def flag_of(name: str) -> str:
    """How the command line spells a setting, in code: `--hd-num`; inputs have no flag."""
    if name == "inputs":
        return "`INPUTS...`"
    flag = name.replace("_", "-")
    return f"`--{flag}`, `--no-{flag}`" if Settings.model_fields[name].annotation is bool else f"`--{flag}`"


def known_values(name: str) -> list[str]:
    """The values that a setting may have, where these can be listed: for help, completion and documents."""
    annotation = Settings.model_fields[name].annotation
    if get_origin(annotation) is Literal:
        return [value for value in get_args(annotation) if value]
    if name == "sensor":
        from ..readers.raster.bands import SENSORS

        return list(SENSORS)
    if name == "model":
        from ..model.checkpoints.cards import shipped_cards

        others = sorted(set(installed("limner.annotators")) - {"segment"})
        return [*shipped_cards(), *(f"{one}:" for one in others), "none"]
    if name == "preset":
        return presets()
    groups: dict[str, Group] = {"reader": "limner.readers", "reports": "limner.writers"}
    return [one for one in installed(groups[name]) if one != "array"] if name in groups else []  # array reads no file
