"""Flags of the commands, made from `Settings`: a setting's name with dashes, its description, its values."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, cast, get_args

import typer
from typer.core import TyperArgument, TyperCommand, TyperOption

from ...readers.errors import RequestError
from ..config import Settings, known_values

READING = ("inputs", "preset", "reader", "sensor", "bands", "crs", "microns_per_pixel", "names", "reader_options")
"""Settings that say how files are read."""

RUNNING = tuple(Settings.model_fields)
"""Settings of a run: all."""

PLANNING = tuple(name for name in RUNNING if name not in {"out", "reports"})
"""Settings of a plan, which writes nothing."""


class _Command(TyperCommand):
    """A command whose help lists the values of its settings, and which finds them only when its help is shown."""

    def get_help(self, ctx: Any) -> str:
        """The help, with values."""
        for option in self.params:
            if option.name in Settings.model_fields and isinstance(option, TyperOption | TyperArgument):
                option.help = _help(option.name, known_values(option.name))
            elif isinstance(option, TyperOption) and "Default" in (option.help or ""):
                option.show_default = False
        return super().get_help(ctx)


def add_command(app: typer.Typer, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a function as a command, listed with all of its first sentence, which typer would cut."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        return app.command(name, cls=_Command, short_help=inspect.cleandoc(function.__doc__ or ""))(function)

    return add


def with_settings(names: Sequence[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command a flag for each of these settings, and for a file of them.

    The command is called with the resolved `Settings` and with its own options, which its other parameters declare.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command).parameters.values())[1:]

        def call(**given: Any) -> None:
            flags = {name: _value(name, given[name]) for name in names if given[name] not in (None, [])}
            further = {parameter.name: given[parameter.name] for parameter in own}
            settings = Settings.resolve(flags, file=given["config"] or "", changes=given["changes"] or ())
            command(settings, **further)

        parameters = [*(_parameter(name) for name in names), *own, *_SOURCES]
        call.__signature__ = inspect.Signature(  # pyright: ignore[reportFunctionMemberAccess]
            [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
        )
        call.__annotations__ = {one.name: one.annotation for one in parameters}
        call.__doc__ = command.__doc__
        return call

    return decorate


def complete(name: str) -> Callable[[str], list[str]]:
    """A function that completes a value of a setting; of a list, the part behind the last comma."""

    def find(incomplete: str) -> list[str]:
        head, comma, tail = incomplete.rpartition(",")
        return [f"{head}{comma}{value}" for value in known_values(name) if value.startswith(tail)]

    return find


def _parameter(name: str) -> inspect.Parameter:
    """A setting as a parameter that typer understands; its help lists no values yet."""
    kind = Settings.model_fields[name].annotation
    if name == "inputs":
        how = typer.Argument(help=_help(name), show_default=False, metavar="INPUTS")
        return _optional(name, list[str], how)
    if kind is bool:
        flag = name.replace("_", "-")
        return _optional(name, bool, typer.Option(f"--{flag}/--no-{flag}", help=_help(name)))
    metavar = "NUMBER" if kind is int else "NAME=VALUE" if _is_mapping(name) else "|".join(_literals(name)) or "TEXT"
    of = int if kind is int else list[str] if _is_list(name) or _is_mapping(name) else str
    how = typer.Option(f"--{name.replace('_', '-')}", help=_help(name), metavar=metavar, autocompletion=complete(name))
    return _optional(name, of, how)


def _optional(name: str, kind: Any, how: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, how])


def _is_list(name: str) -> bool:
    return Settings.model_fields[name].default == ()


def _is_mapping(name: str) -> bool:
    return Settings.model_fields[name].default_factory is dict


def _literals(name: str) -> list[str]:
    return [one for one in get_args(Settings.model_fields[name].annotation) if isinstance(one, str) and one]


def _help(name: str, values: Sequence[str] = ()) -> str:
    """A setting's description with its default, and its values where the metavar does not list them."""
    field = Settings.model_fields[name]
    default = field.default
    said = [field.description or ""]
    if isinstance(default, str | int) and default not in ("", False, 0) and "Default" not in said[0]:
        said.append(f"Default: {str(default).lower() if isinstance(default, bool) else default}.")
    if _is_mapping(name):
        said.append("Repeatable.")
    if values and not _literals(name):
        said.append(f"One of: {', '.join(values)}.")
    return " ".join(said)


def _value(name: str, given: Any) -> Any:
    """A flag's value as `Settings` takes it."""
    if name == "inputs" or not isinstance(given, list):
        return given
    texts = cast("list[str]", given)
    return _pairs(name, texts) if _is_mapping(name) else ",".join(texts)


def _pairs(name: str, texts: Sequence[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            flag = f"--{name.replace('_', '-')}"
            raise RequestError(flag, "it must be NAME=VALUE", value=text, remedy=f"For example {flag} {_EXAMPLE[name]}")
        found[key.strip()] = value.strip()
    return found


_EXAMPLE = {"reader_options": "window=40,400", "model_options": "threads=2", "report_options": "qupath.name=VALUE"}

_SOURCES = (
    _optional(
        "config", str, typer.Option("--config", metavar="FILE", help="YAML file of settings; flags win over it.")
    ),
    _optional(
        "changes", list[str], typer.Option("--set", metavar="KEY=VALUE", help="Any setting, as key=value; repeatable.")
    ),
)
