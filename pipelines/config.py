"""What a run is asked to do: one frozen set of settings, from a preset, a YAML file and flags, in that precedence.

It knows names and types of settings. It does not know whether an image or a model can meet them: `plan.py` does.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Annotated, Any, Literal, Self, cast

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from ..readers.errors import RequestError, nearest, shown
from ..readers.files import read_whole
from .resolution import Resolution


def _as_tuple(value: object) -> object:
    """A list, or a text with commas, as a tuple; anything else is left for the type to refuse."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(cast("list[object]", value)) if isinstance(value, list) else value


def _as_text(value: object) -> object:
    """A number as a text; anything else is left for the type to refuse."""
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


class Settings(BaseModel):
    """Everything that decides a run. Resolved values go whole into the manifest.

    `inputs` are files, folders or remote paths, as given. `model` is a card's name or path, or an annotator's entry
    point, with its checkpoint after a colon; empty picks one where the images leave no doubt. `ask` is the question
    that a vision-language model answers about each region, `answer` the kind of answer that is wanted, and
    `schema_file` the JSON schema of values to extract. `resolution` is "10m", "0.5um" or "native"; empty is the
    annotator's own. `stretch` is black and white of every channel in native numbers, such as 0,2750, for pictures that
    are to be seen alike; empty is each picture's own, from its overview. `hd_num` is the most tiles of a region,
    `enlarge` fills them even where the picture has fewer pixels, as 4KHD's own transform does, `overlap` what
    neighbouring regions share, in pixels as seen. `area` is a GeoJSON file: longitude and latitude for maps, pixels as
    QuPath exports them for other pictures. `tissue` "auto" leaves out what of a slide holds none. `sensor`, `bands`,
    `crs` and `microns_per_pixel` (one number, or two as x,y) say what the files do not. `names` "hide" keeps paths of
    slides and studies, and what their files say of people, out of all that is written. `reports` names writers; empty
    is all that are installed. `reader_options` and `model_options` are by name, `report_options` by "WRITER.OPTION".
    `fetch` allows the network for weights. The model "none" annotates nothing: the run says what there is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    inputs: Texts = ()
    out: str = ""
    preset: str = "neutral"
    model: str = ""
    labels: Texts = ()
    ask: str = ""
    answer: Literal["", "describe", "classify", "locate", "extract"] = ""
    schema_file: str = ""
    resolution: str = ""
    stretch: Texts = ()
    hd_num: int = 25
    enlarge: bool = False
    overlap: int = Field(0, ge=0)
    area: str = ""
    tissue: Literal["auto", "off"] = "auto"
    skip_empty: bool = True
    reader: str = ""
    sensor: str = ""
    bands: Texts = ()
    crs: str = ""
    microns_per_pixel: Annotated[str, BeforeValidator(_as_text)] = ""
    names: Literal["hide", "show"] = "hide"
    reader_options: dict[str, str] = Field(default_factory=dict)
    model_options: dict[str, str] = Field(default_factory=dict)
    report_options: dict[str, str] = Field(default_factory=dict)
    engine: Literal["inline", "local"] = "inline"
    workers: int = Field(0, ge=0)
    batch: int = Field(1, ge=1, le=1024)
    reports: Texts = ()
    fetch: bool = False

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
    ) -> Self:
        """Preset < file < flags < `changes` ("key=value" or "key.part=value"). Raises `RequestError`."""
        layers: list[tuple[str, Mapping[str, Any]]] = []
        if file:
            layers.append((file, read_settings(file)))
        layers.append(("command line", dict(flags)))
        layers.extend((shown(f"--set {change}"), _parse_change(change)) for change in changes)
        for source, layer in layers:
            _refuse_unknown(layer, source)
        named = [layer["preset"] for _, layer in layers if "preset" in layer]
        preset = str(named[-1]) if named else cls.model_fields["preset"].default
        layers.insert(0, (f"preset {preset}", read_preset(preset)))
        merged: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for source, layer in layers:
            for key, value in layer.items():
                old = merged.get(key)
                mixed = isinstance(old, dict) and isinstance(value, dict)
                merged[key] = {**cast("dict[str, Any]", old), **cast("dict[str, Any]", value)} if mixed else value
                sources[key] = source
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            raise _as_request(error, sources) from None


_MOST = 2**20  # bytes of a file of settings
_DEEPEST = 8  # levels of its lists and maps
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


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key may not be given twice."""


def _mapping_once(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys: set[str] = set()
    for key, _ in node.value:
        name = str(key.value)
        if name in keys:
            raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} is given twice", node.start_mark)
        keys.add(name)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_once)


def read_settings(path: str) -> dict[str, Any]:
    """The settings in a YAML file, not yet checked against each other. Raises `RequestError`."""
    try:
        text = read_whole(path, most=_MOST).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(
            path, "the configuration file must be readable text", value=str(error), remedy="Check the path of --config"
        ) from error
    return _parse_settings(text, path)


def presets() -> list[str]:
    """Names of the presets that ship, sorted."""
    folder = files("limner.pipelines").joinpath("presets")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_preset(name: str) -> dict[str, Any]:
    """A preset's settings. Raises `RequestError` that names the nearest one."""
    known = presets()
    if name not in known:
        raise RequestError(
            f"preset {name!r}",
            "it must be one that ships",
            remedy=f"{nearest(name, known)}Presets: {', '.join(known)}",
        )
    text = files("limner.pipelines").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8")
    return _parse_settings(text, f"preset {name}")


def _parse_settings(text: str, source: str) -> dict[str, Any]:
    try:
        _refuse_finery(text)
        found: object = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader that is stricter still
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none, a number of too many digits
        raise RequestError(
            source, "it must be valid YAML", value=shown(str(error), 200), remedy="Correct the line it names"
        ) from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise RequestError(
            source, "it must be a list of `setting: value` lines", value=type(found).__name__, remedy="See the README"
        )
    settings = {str(key): value for key, value in cast("dict[object, object]", found).items()}
    _refuse_unknown(settings, source)
    return settings


def _refuse_finery(text: str) -> None:
    """Raise `YAMLError` for what settings have no use for and which can be made to do harm: see the message."""
    depth = 0
    events = yaml.parse(text, Loader=yaml.SafeLoader)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    for event in cast("Iterable[Any]", events):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        named = isinstance(event, yaml.NodeEvent) and (event.anchor or getattr(event, "tag", None))
        if named or depth > _DEEPEST:
            problem = f"settings have no anchors, aliases or tags, and at most {_DEEPEST} levels"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def _parse_change(change: str) -> dict[str, Any]:
    """One `--set`: "hd_num=9" or "model_options.threads=2". The value is read as YAML."""
    key, equals, text = change.partition("=")
    name, dot, part = key.strip().partition(".")
    if not equals or not name or (dot and not part):
        raise RequestError(shown(f"--set {change}"), "it must be key=value", remedy="For example --set hd_num=9")
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
                remedy=f"{nearest(key, known)}Settings: {', '.join(known)}",
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
        value=shown(repr(first["input"])),
        remedy="Correct the value",
    )
