"""Plug-ins by entry point, built-in ones included, and the packages of limner's extras."""

import re
import shlex
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, requires, version
from typing import Any, Literal

from .errors import RequestError, did_you_mean

Group = Literal["limner.readers", "limner.annotators", "limner.writers"]

_OF_EXTRA = re.compile(r"""^(?P<needed>[^;]+?)\s*;\s*extra\s*==\s*["'](?P<extra>[\w-]+)["']\s*$""")
_NAME = re.compile(r"^[\w.-]+")


def installed(group: Group) -> Mapping[str, EntryPoint]:
    """Entry points by name, sorted, without importing them. Raises `RequestError` where two packages share a name."""
    return _installed_on(group, tuple(sys.path), entry_points)


@lru_cache
def _listed_on(_path: tuple[str, ...], points: Callable[[], Any]) -> Any:
    """All entry points on a search path, which are read once: that takes longer than reading a small map."""
    return points()


@lru_cache
def _installed_on(group: Group, path: tuple[str, ...], points: Callable[[], Any]) -> Mapping[str, EntryPoint]:
    """`installed` on a search path."""
    found: dict[str, EntryPoint] = {}
    for point in sorted(_listed_on(path, points).select(group=group), key=lambda p: (p.name, p.value)):
        if point.name in found and found[point.name].value != point.value:
            raise RequestError(
                f"the plug-in {point.name!r} of {group}",
                "must belong to a single package",
                value=f"{found[point.name].value} and {point.value}",
                remedy="Uninstall one of the two packages",
            )
        found[point.name] = point
    return found


def load(group: Group, name: str) -> object:
    """Import the plug-in of that name. Raises `RequestError` that lists what is installed."""
    points = installed(group)
    if name not in points:
        kind = group.removeprefix("limner.").removesuffix("s")
        rule = f"must be one of {', '.join(points) or 'none'}"
        remedy = f"{did_you_mean(name, points)}Run `limner plugins` to see where each comes from"
        raise RequestError(f"the {kind}", rule, value=name, remedy=remedy)
    return points[name].load()


def requirements(extra: str) -> tuple[str, ...]:
    """The requirements of an extra in the metadata of the installed distribution. Raises `KeyError`.

    limner is on no package index, where anyone could register its name: so the requirements are named, never limner.
    """
    lines = (_OF_EXTRA.match(line) for line in requires("limner") or ())
    found = tuple(line["needed"] for line in lines if line is not None and line["extra"] == extra)
    if not found:
        raise KeyError(extra)
    return found


def install_hint(extra: str) -> str:
    """The command that installs the requirements of an extra: "pip install 'scikit-learn>=1.7' …"."""
    return f"pip install {' '.join(map(shlex.quote, requirements(extra)))}"


def require_extra(extra: str, subject: str, *, otherwise: str = "") -> None:
    """Raise `RequestError` about `subject` unless all packages of an extra are installed; imports none of them.

    otherwise: another remedy, as a clause.
    """
    names = [match[0] for one in requirements(extra) if (match := _NAME.match(one))]
    absent = [name for name in names if not _installed(name)]
    if absent:
        raise missing_packages(extra, subject, absent, otherwise=otherwise)


def missing_packages(extra: str, subject: str, names: list[str], *, otherwise: str = "") -> RequestError:
    """The error that packages of an extra are missing, with the command that installs them."""
    remedy = f"Install what is missing: {install_hint(extra)}" + (f"; {otherwise}" if otherwise else "")
    return RequestError(subject, "must have its packages installed", value=f"no {', '.join(names)}", remedy=remedy)


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
