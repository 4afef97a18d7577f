"""JSON that becomes a table: every name in it can be a column's."""

from typing import Any, cast

from ...readers import files


def parse_json(text: str) -> Any:
    """The value of a JSON text, by the rules of `readers.files.parse_json`.

    Raises `ValueError` where it is none, or holds a name that cannot be seen.
    """
    found = files.parse_json(text)
    waiting = [found]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            members = cast("dict[str, Any]", value)
            if not all(name.isprintable() for name in members):
                msg = "a name holds what cannot be seen"
                raise ValueError(msg)
            waiting.extend(members.values())
        elif isinstance(value, list):
            waiting.extend(cast("list[Any]", value))
    return found
