"""YAML without what attacks use: duplicate keys, anchors, aliases, tags and deep nesting."""

from typing import TYPE_CHECKING, Any, cast

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_DEPTH = 8  # nested lists and maps


def load(text: str) -> object:
    """Parse a document. Raises `ValueError`, also for an invalid date or a number of too many digits."""
    try:
        _check_yaml(text)
        return cast("object", yaml.load(text, Loader=_StrictLoader))  # noqa: S506 - a stricter SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


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


def _check_yaml(text: str) -> None:
    """Raise `YAMLError` for anchors, aliases, tags and deep nesting."""
    depth = 0
    events = yaml.parse(text, Loader=yaml.SafeLoader)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    for event in cast("Iterable[Any]", events):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        named = isinstance(event, yaml.NodeEvent) and (event.anchor or getattr(event, "tag", None))
        if named or depth > _MAX_DEPTH:
            problem = f"it must have no anchors, aliases or tags, and at most {_MAX_DEPTH} levels"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
