"""Differences between the older and the newer side that are meant, each with its reason. All others are errors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column that is another on the newer side. `tables` is a pattern such as "*/findings.csv" or "slide*/*".

    `old` and `new` are its names; without `old` it is new, without `new` it is gone. The older cell is multiplied by
    `factor` or goes through `change` before it is compared. With `free` its cells are not compared at all.
    """

    because: str
    tables: str
    old: str = ""
    new: str = ""
    factor: float = 1.0
    change: Callable[[str], str] | None = None
    free: bool = False


@dataclass(frozen=True)
class Table:
    """A table that is called otherwise, gone (without `new`) or new (without `old`): patterns of run and file.

    With both, `new` is what `re.sub(old, new, name)` makes of the older name.
    """

    because: str
    old: str = ""
    new: str = ""


@dataclass(frozen=True)
class Lines:
    """Printed lines that differ: those of the older side that match `old`, and of the newer one that match `new`.

    Either may be a regular expression for the whole line; empty: there are none.
    """

    because: str
    texts: str
    old: str = ""
    new: str = ""


COLUMNS: Sequence[Column] = ()
TABLES: Sequence[Table] = ()
LINES: Sequence[Lines] = (
    Lines(
        "what a run takes is measured anew each time",
        "plan-*.txt",
        r".*\b(time|memory)\b.*",
        r".*\b(time|memory)\b.*",
    ),
)
