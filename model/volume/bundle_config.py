"""Read the configuration of a MONAI bundle as data: `metadata.json` and `inference.json`.

Format: "MONAI Bundle Specification" of Project-MONAI. `@NAME` refers to another part. `$EXPRESSION` is a program and is
never run; only a literal after `$` and a reference are understood. Transforms and networks are known by name.
"""

import ast
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

from ...readers.errors import ModelError, excerpt
from ..checkpoints.untrusted import CHECK_FILE, UntrustedDict, read_json

TARGET: Final = "_target_"
_MAX_REFERENCES: Final = 20
_SETTINGS: Final = {TARGET, "_disabled_", "_requires_", "_desc_", "_mode_"}


class BundleConfig:
    """A bundle's configuration, with its references resolved where they are asked for."""

    def __init__(self, folder: Path, source: str) -> None:
        """Read the files of a bundle's folder. Raises `ModelError`."""
        self.subject = f"bundle {source}"
        self.metadata = read_json(folder / "configs" / "metadata.json", self.subject)
        self._content = read_json(folder / "configs" / "inference.json", self.subject)

    @property
    def where(self) -> str:
        """The file, for errors."""
        return self._content.where

    def value(self, value: Any, place: str, depth: int = 0) -> Any:
        """A value with its references replaced by what they refer to. Raises `ModelError` for an expression."""
        if depth > _MAX_REFERENCES:
            raise self.refused(place, "must not refer to itself", "a circle of references")
        if isinstance(value, str) and value.startswith(("$", "@")):
            return self._resolved(value, place, depth)
        if isinstance(value, list):
            return [self.value(one, place, depth + 1) for one in cast("list[Any]", value)]
        if isinstance(value, dict):
            given = cast("dict[str, Any]", value)
            return {key: self.value(one, f"{place}.{key}", depth + 1) for key, one in given.items()}
        return value

    def _resolved(self, text: str, place: str, depth: int) -> Any:
        name = text.removeprefix("$").strip()
        if name.startswith("@") and all(part.isidentifier() or part.isdecimal() for part in _steps(name)):
            found: Any = dict(self._content)
            for step in _steps(name):
                parts = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
                if isinstance(found, list):
                    parts = {str(number): one for number, one in enumerate(cast("list[Any]", found))}
                if step not in parts:
                    raise self.refused(place, "must refer to a part of the file", text)
                found = parts[step]
            return self.value(found, place, depth + 1)
        try:
            return ast.literal_eval(name)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            rule = "must be a literal or a reference: expressions of a bundle are programs, which are not run"
            raise self.refused(place, rule, text) from None

    def part(self, name: str) -> tuple[str, UntrustedDict]:
        """The target's name and the unresolved arguments of a part. Raises `ModelError` where there is none."""
        found: Any = self._content.get(name)
        if isinstance(found, str) and found.startswith("@"):
            found = self._content.get(found[1:])
        part = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
        if not isinstance(part.get(TARGET), str):
            raise self.refused(name, f"must be a part with a {TARGET}", excerpt(str(cast("object", found))))
        return self.target(part, name)

    def target(self, part: Mapping[str, Any], place: str) -> tuple[str, UntrustedDict]:
        """The last part of a target's name, and the arguments."""
        name = str(part.get(TARGET, "")).rpartition(".")[2]
        arguments = {key: one for key, one in part.items() if key not in _SETTINGS}
        return name, UntrustedDict(arguments, f"{place} ({excerpt(name)}) of {self.where}")

    def transforms(self, name: str) -> list[tuple[str, UntrustedDict]]:
        """The transforms of a `Compose`, those that are disabled left out. Raises `ModelError`."""
        target, arguments = self.part(name)
        if target != "Compose":
            raise self.refused(name, "must be a Compose of transforms", target)
        found: list[tuple[str, UntrustedDict]] = []
        listed = arguments.get("transforms")
        if isinstance(listed, str) and listed.startswith("@"):
            listed = self._content.get(listed[1:])
        for number, one in enumerate(cast("list[Any]", listed) if isinstance(listed, list) else []):
            place = f"{name}.{number}"
            if not isinstance(one, dict):
                raise self.refused(place, "must be a transform", excerpt(str(one)))
            part = cast("dict[str, Any]", one)
            if self.value(part.get("_disabled_", False), f"{place}._disabled_") is not True:
                found.append(self.target(part, place))
        return found

    def arguments(
        self, given: UntrustedDict, known: Mapping[str, Callable[[Any], bool]], ignored: str
    ) -> dict[str, Any]:
        """The arguments of a part, resolved: those that are known and fit, without the ignored ones.

        known: name → whether a value is one that limner carries out. ignored: names, separated by spaces. Raises
        `ModelError` for another argument or value.
        """
        found: dict[str, Any] = {}
        for key, one in given.items():
            if key in ignored.split():
                continue
            if key not in known:
                rule = f"must have arguments that are known here: {', '.join([*known, *ignored.split()])}"
                raise ModelError(given.where, rule, value=excerpt(key), remedy="Name another bundle")
            found[key] = self.value(one, f"{key} of {given.where}")
            if found[key] is not None and not known[key](found[key]):
                value, remedy = excerpt(f"{key}: {found[key]}"), "Name another bundle"
                raise ModelError(given.where, "must have a value that is carried out here", value=value, remedy=remedy)
        return found

    def refused(self, place: str, rule: str, value: str) -> ModelError:
        """An error about a part."""
        return ModelError(f"{place} of {self.where}", rule, value=excerpt(value), remedy=CHECK_FILE)


def _steps(name: str) -> list[str]:
    return name.removeprefix("@").replace("#", "::").split("::")
