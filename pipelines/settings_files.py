"""Settings in YAML: files that users write, and the presets that ship."""

from importlib.resources import files
from typing import TYPE_CHECKING, Any, cast

import yaml

from ..readers.errors import RequestError, did_you_mean, excerpt
from ..readers.files import read_file

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_BYTES = 2**20  # of a settings file
_MAX_DEPTH = 8  # nested lists and maps in a settings file


class _StrictLoader(yaml.SafeLoader):
    """A YAML loader that refuses duplicate keys."""


def _construct_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys: set[str] = set()
    for key, _ in node.value:
        name = str(key.value)
        if name in keys:
            raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} is given twice", node.start_mark)
        keys.add(name)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def read_settings(path: str) -> dict[str, Any]:
    """Read the settings of a YAML file, not yet validated. Raises `RequestError`."""
    try:
        text = read_file(path, max_bytes=_MAX_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(
            path, "must be readable text", value=str(error), remedy="Check the path of --config"
        ) from error
    return _parse_settings(text, path)


def presets() -> list[str]:
    """Names of the presets that ship, sorted."""
    folder = files("limner.pipelines").joinpath("presets")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_preset(name: str) -> dict[str, Any]:
    """Read the settings of a preset. Raises `RequestError` that suggests the nearest name."""
    known = presets()
    if name not in known:
        remedy = f"{did_you_mean(name, known)}Presets: {', '.join(known)}"
        raise RequestError(f"preset {name!r}", "must be one that ships with limner", remedy=remedy)
    text = files("limner.pipelines").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8")
    return _parse_settings(text, f"preset {name}")


def _parse_settings(text: str, source: str) -> dict[str, Any]:
    try:
        _check_yaml(text)
        found: object = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a stricter SafeLoader
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an invalid date, a number of too many digits
        problem = excerpt(str(error), 200)
        raise RequestError(source, "must be valid YAML", value=problem, remedy="Correct the line it names") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise RequestError(source, "must consist of `setting: value` lines", value=kind, remedy="See docs/settings.md")
    return {str(key): value for key, value in cast("dict[object, object]", found).items()}


def _check_yaml(text: str) -> None:
    """Raise `YAMLError` for anchors, aliases, tags and deep nesting: settings need none, and attacks use them."""
    depth = 0
    events = yaml.parse(text, Loader=yaml.SafeLoader)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    for event in cast("Iterable[Any]", events):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        named = isinstance(event, yaml.NodeEvent) and (event.anchor or getattr(event, "tag", None))
        if named or depth > _MAX_DEPTH:
            problem = f"settings must have no anchors, aliases or tags, and at most {_MAX_DEPTH} levels"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
