"""Settings in text: YAML files and the presets that ship. It knows no setting's name: `config.py` does."""

from importlib.resources import files
from typing import TYPE_CHECKING, Any, cast

import yaml

from ..readers.errors import RequestError, did_you_mean, excerpt
from ..readers.files import read_file

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST = 2**20  # bytes of a file of settings
_DEEPEST = 8  # levels of its lists and maps


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
        text = read_file(path, max_bytes=_MOST).decode("utf-8")
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
            remedy=f"{did_you_mean(name, known)}Presets: {', '.join(known)}",
        )
    text = files("limner.pipelines").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8")
    return _parse_settings(text, f"preset {name}")


def _parse_settings(text: str, source: str) -> dict[str, Any]:
    try:
        _refuse_finery(text)
        found: object = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader that is stricter still
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none, a number of too many digits
        raise RequestError(
            source, "it must be valid YAML", value=excerpt(str(error), 200), remedy="Correct the line it names"
        ) from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise RequestError(
            source, "it must be a list of `setting: value` lines", value=type(found).__name__, remedy="See the README"
        )
    return {str(key): value for key, value in cast("dict[object, object]", found).items()}


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
