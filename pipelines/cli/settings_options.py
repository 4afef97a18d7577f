"""Command-line options generated from `Settings`."""

import inspect
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Annotated, Any, cast, get_args

import typer
from typer.core import TyperArgument, TyperCommand, TyperOption

from ...readers.errors import RequestError
from ..config import Settings
from ..object_settings import OBJECTS
from ..setting_values import descriptions, known_values

READING = (
    *("inputs", "preset", "reader", "sensor", "bands", "crs", "microns_per_pixel"),
    *("metres_per_pixel", "scene", "icc", "names", "crosswalk", "reader_options"),
)
"""Settings of reading images."""

REPORTING = (*OBJECTS, "report_options")
"""Settings of reports that are written again."""

RUNNING = tuple(Settings.model_fields)
"""Settings of a run."""

PLANNING = tuple(name for name in RUNNING if name not in {"out", "reports"})
"""Settings of a plan, which writes nothing."""


class _Command(TyperCommand):
    """A command whose settings are described, with their values, only when its help is shown or a word completed."""

    def get_help(self, ctx: Any) -> str:
        """The help, with values."""
        self._describe()
        return super().get_help(ctx)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Completions, which shells show with the help."""
        self._describe()
        return super().shell_complete(ctx, incomplete)

    def _describe(self) -> None:
        for option in self.params:
            if option.name in Settings.model_fields and isinstance(option, TyperOption | TyperArgument):
                option.help = f"{_help(option.name)}{_values_text(option.name, known_values(option.name))}"
            elif isinstance(option, TyperOption) and "Default" in (option.help or ""):
                option.show_default = False


def add_command(app: typer.Typer, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command, listed with its whole first sentence, which typer would truncate."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        return app.command(name, cls=_Command, short_help=inspect.cleandoc(function.__doc__ or ""))(function)

    return add


def with_settings(names: Sequence[str]) -> Callable[[Callable[..., None]], "_WithSettings"]:
    """Add an option for each of these settings, `--config` and `--set` to a command.

    The command is called with the resolved `Settings` and with its own options.
    """
    return lambda command: _WithSettings(command, names)


class _WithSettings:
    """A command with options for settings, which are made when typer looks at its signature: not for all commands."""

    def __init__(self, command: Callable[..., None], names: Sequence[str]) -> None:
        self._command, self._names = command, names
        self.__doc__ = command.__doc__

    def __call__(self, **given: Any) -> None:
        flags = {name: _value(name, given[name]) for name in self._names if given[name] not in (None, [])}
        settings = Settings.resolve(flags, file=given["config"] or "", changes=given["changes"] or ())
        self._command(settings, **{parameter.name: given[parameter.name] for parameter in self._own()})

    def _own(self) -> list[inspect.Parameter]:
        return list(inspect.signature(self._command).parameters.values())[1:]

    @cached_property
    def __signature__(self) -> inspect.Signature:
        parameters = [*map(_parameter, self._names), *self._own(), *_SOURCES]
        return inspect.Signature([one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters])

    @property
    def __annotations__(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return {name: one.annotation for name, one in self.__signature__.parameters.items()}


def complete(name: str) -> Callable[[str], list[str]]:
    """A shell completion of a setting's values; in a list, of the part after the last comma."""

    def find(incomplete: str) -> list[str]:
        head, comma, tail = incomplete.rpartition(",")
        return [f"{head}{comma}{value}" for value in known_values(name) if value.startswith(tail)]

    return find


def _parameter(name: str) -> inspect.Parameter:
    """A setting as a parameter for typer, which is not described yet."""
    kind, flag = Settings.model_fields[name].annotation, f"--{name.replace('_', '-')}"
    if name == "inputs":
        return _optional(name, list[str], typer.Argument(show_default=False, metavar="INPUTS"))
    if kind is bool:
        return _optional(name, bool, typer.Option(f"{flag}/--no-{flag[2:]}"))
    number = int if kind is int else float if kind is float else None
    metavar = "NUMBER" if number else "NAME=VALUE" if _is_mapping(name) else "|".join(_literals(name)) or "TEXT"
    repeatable = _is_mapping(name) or Settings.model_fields[name].default == ()
    option = typer.Option(flag, metavar=metavar, autocompletion=complete(name))
    return _optional(name, number or (list[str] if repeatable else str), option)


def _optional(name: str, kind: Any, option: Any) -> inspect.Parameter:
    annotation = Annotated[kind | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _is_mapping(name: str) -> bool:
    return Settings.model_fields[name].default_factory is dict


def _literals(name: str) -> list[str]:
    return [one for one in get_args(Settings.model_fields[name].annotation) if isinstance(one, str) and one]


def _values_text(name: str, values: Sequence[str]) -> str:
    """A setting's values where the metavar does not list them."""
    return f" One of: {', '.join(values)}." if values and not _literals(name) else ""


def _help(name: str) -> str:
    """A setting's description with its default."""
    default = Settings.model_fields[name].default
    parts = [descriptions()[name]]
    if isinstance(default, str | int | float) and default not in ("", False, 0) and "Default" not in parts[0]:
        parts.append(f"Default: {str(default).lower() if isinstance(default, bool) else default}.")
    if _is_mapping(name):
        parts.append("Repeatable.")
    return " ".join(parts)


def _value(name: str, given: Any) -> Any:
    """The value of an option as `Settings` takes it."""
    if name == "inputs" or not isinstance(given, list):
        return given
    texts = cast("list[str]", given)
    if not _is_mapping(name):
        return ",".join(texts)
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            flag = f"--{name.replace('_', '-')}"
            raise RequestError(flag, "must be NAME=VALUE", value=text, remedy=f"For example {flag} {_EXAMPLE[name]}")
        pairs[key.strip()] = value.strip()
    return pairs


_EXAMPLE = {"reader_options": "window=40,400", "model_options": "threads=2", "report_options": "qupath.name=VALUE"}

_SOURCES = (
    _optional(
        "config", str, typer.Option("--config", metavar="FILE", help="YAML file of settings; flags override it.")
    ),
    _optional("changes", list[str], typer.Option("--set", metavar="KEY=VALUE", help="Set any setting; repeatable.")),
)
