"""Values of attributes as plain Python values: one that is absent or malformed is empty, and never an error."""
# pydicom's values have the type of their tag, which is known only when it is read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import hashlib
import math
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

_UID = re.compile(r"^[0-9]+(\.[0-9]+)*$")


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


@cache
def _tag(name: str) -> BaseTag:
    return Tag(name)


def _value(dataset: Dataset, name: str) -> Any:
    """As `dataset.get(name)`, which takes longer for the many attributes that a file lacks."""
    tag = _tag(name)
    return dataset[tag].value if tag in dataset else None


def items(dataset: Dataset, name: str) -> list[Dataset]:
    """The items of a sequence."""
    try:
        return list(_value(dataset, name) or [])
    except (TypeError, ValueError, NotImplementedError):
        return []


def values(dataset: Dataset, name: str) -> list[Any]:
    """All values."""
    try:
        value = _value(dataset, name)
    except (TypeError, ValueError, NotImplementedError, OverflowError):
        return []
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]


def numbers(dataset: Dataset, name: str) -> list[float]:
    """All values as numbers; [] where one of them is not finite."""
    try:
        found = [float(value) for value in values(dataset, name)]
    except (TypeError, ValueError, OverflowError):
        return []
    return found if all(map(math.isfinite, found)) else []


def vector(dataset: Dataset, name: str, count: int) -> list[float] | None:
    """Exactly `count` numbers, else None."""
    found = numbers(dataset, name)
    return found if len(found) == count else None


def number(dataset: Dataset, name: str) -> float | None:
    """The first number; None without one."""
    found = numbers(dataset, name)
    return found[0] if found else None


def integer(dataset: Dataset, name: str) -> int | None:
    """The first number as an integer; None without one."""
    found = number(dataset, name)
    return None if found is None else int(found)


def positive_pair(dataset: Dataset, name: str) -> tuple[float, float] | None:
    """Two numbers above 0, else None."""
    found = vector(dataset, name, 2)
    return (found[0], found[1]) if found and min(found) > 0 else None


def texts(dataset: Dataset, name: str) -> list[str]:
    """All values in upper case, without blanks around them."""
    return [str(value).strip().upper() for value in values(dataset, name)]


def code(dataset: Dataset, name: str, known: frozenset[str]) -> str:
    """The first value where it is one of `known`, else ""."""
    found = texts(dataset, name)[:1]
    return found[0] if found and found[0] in known else ""


def uid(dataset: Dataset, name: str) -> str:
    """A UID; "" without a valid one."""
    text = str(dataset.get(name) or "").strip("\0 ")
    return text if is_uid(text) else ""


def is_uid(text: str) -> bool:
    """Whether a text has the form of a UID."""
    return len(text) <= 64 and _UID.match(text) is not None


def digest(dataset: Dataset, *names: str) -> str:
    """The values of attributes as a digest; "" where there are none."""
    found = [[str(value) for value in values(dataset, name)] for name in names]
    return hashlib.sha256(repr(found).encode("utf-8", "replace")).hexdigest()[:16] if any(found) else ""
