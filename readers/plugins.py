"""Plug-ins by entry point; our own readers, annotators and writers come through the same door."""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
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
