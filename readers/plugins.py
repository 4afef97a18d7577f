"""Plug-ins by entry point; our own readers, annotators and writers come through the same door."""

import re
import shlex
from collections.abc import Mapping
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, requires, version
from typing import Literal

from .errors import RequestError

Group = Literal["limner.readers", "limner.annotators", "limner.writers"]


def installed(group: Group) -> Mapping[str, EntryPoint]:
    """Name → entry point, sorted by name; nothing is imported. Two packages that claim one name are an error."""
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=group), key=lambda p: (p.name, p.value)):
        if point.name in found and found[point.name].value != point.value:
            raise RequestError(
                f"plug-in {point.name!r} of {group}",
                "a name may belong to one package only",
                value=f"{found[point.name].value} and {point.value}",
                remedy="Uninstall one of the two packages",
            )
        found[point.name] = point
    return found


def load(group: Group, name: str) -> object:
    """The object behind a name. Raises `RequestError` that lists what is installed."""
    points = installed(group)
    if name not in points:
        raise RequestError(
            f"{group.removeprefix('limner.').removesuffix('s')} {name!r}",
            "it must be installed",
            remedy=f"Installed: {', '.join(points) or 'none'}. `limner plugins` shows where each comes from",
        )
    return points[name].load()


_OF_EXTRA = re.compile(r"""^(?P<needed>[^;]+?)\s*;\s*extra\s*==\s*["'](?P<extra>[\w-]+)["']\s*$""")
_NAME = re.compile(r"^[\w.-]+")


def requirements(extra: str) -> tuple[str, ...]:
    """The requirements of an extra, as the installed distribution's metadata states them. Raises `KeyError`.

    limner itself is on no package index, where somebody else could register its name: so the requirements are named,
    and never limner.
    """
    lines = (_OF_EXTRA.match(line) for line in requires("limner") or ())
    found = tuple(line["needed"] for line in lines if line is not None and line["extra"] == extra)
    if not found:
        raise KeyError(extra)
    return found


def install_hint(extra: str) -> str:
    """The command that installs an extra's requirements: "pip install 'scikit-learn>=1.7' …"."""
    return f"pip install {' '.join(map(shlex.quote, requirements(extra)))}"


def require_extra(extra: str, subject: str, *, otherwise: str = "") -> None:
    """Raise `RequestError` about `subject` where a package of an extra is not installed. Imports none of them.

    `otherwise` is a second way out, a clause.
    """
    names = [match[0] for one in requirements(extra) if (match := _NAME.match(one))]
    absent = [name for name in names if not _installed(name)]
    if absent:
        raise missing_packages(extra, subject, absent, otherwise=otherwise)


def missing_packages(extra: str, subject: str, names: list[str], *, otherwise: str = "") -> RequestError:
    """The error that says that packages of an extra are missing, and how to install them."""
    remedy = f"Install what is missing: {install_hint(extra)}"
    return RequestError(
        subject,
        "the packages that it needs must be installed",
        value=f"no {', '.join(names)}",
        remedy=f"{remedy}; {otherwise}" if otherwise else remedy,
    )


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
