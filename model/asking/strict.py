"""Strict JSON: what Python's reader lets through and JSON does not define, or no column can hold, is refused."""

import json
import math
from typing import Any, Never


def parse_json(text: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """The value of a JSON text.

    Raises `ValueError` for what is no JSON, NaN and Infinity among it, for a number that is too large for a column
    (1e999), and for a name that is given twice or cannot be seen; `RecursionError` where it is nested too deeply. An
    error never quotes a value.
    """
    return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite, parse_int=_within)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        msg = "a name is given twice"
        raise ValueError(msg)
    if not all(name.isprintable() for name in content):  # they become names of columns
        msg = "a name holds what cannot be seen"
        raise ValueError(msg)
    return content


def _no_number(name: str) -> Never:
    msg = f"{name} is no number of JSON's"
    raise ValueError(msg)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        msg = "a number is too large"
        raise ValueError(msg)
    return number


def _within(text: str) -> int:
    _finite(text)
    return int(text)
