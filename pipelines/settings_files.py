"""Settings in YAML: files that users write, and the presets that ship."""

from importlib.resources import files
from typing import Any, cast

from ..readers.errors import RequestError, did_you_mean, excerpt
from ..readers.files import read_file

_MAX_BYTES = 2**20  # of a settings file


def read_settings(path: str) -> dict[str, Any]:
    """Read the settings of a YAML file, not yet validated. Raises `RequestError`."""
    try:
        text = read_file(path, max_bytes=_MAX_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(
            path, "must be readable text", value=str(error), remedy="Check the path of --config"
        ) from error
    return _parse_settings(text, path)


def presets() -> list[str]:
    """Names of the presets that ship, sorted."""
    folder = files("limner.pipelines").joinpath("presets")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_preset(name: str) -> dict[str, Any]:
    """Read the settings of a preset. Raises `RequestError` that suggests the nearest name."""
    known = presets()
    if name not in known:
        remedy = f"{did_you_mean(name, known)}Presets: {', '.join(known)}"
        raise RequestError(f"preset {name!r}", "must be one that ships with limner", remedy=remedy)
    text = files("limner.pipelines").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8")
    return _parse_settings(text, f"preset {name}")


def _parse_settings(text: str, source: str) -> dict[str, Any]:
    if all(not line or line.startswith("#") for line in text.splitlines()):
        return {}
    from .strict_yaml import load

    try:
        found = load(text)
    except ValueError as error:
        problem = excerpt(str(error), 200)
        raise RequestError(source, "must be valid YAML", value=problem, remedy="Correct the line it names") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise RequestError(source, "must consist of `setting: value` lines", value=kind, remedy="See docs/settings.md")
    return {str(key): value for key, value in cast("dict[object, object]", found).items()}
