"""Descriptions, flags and possible values of settings, for help, completion and documents."""

import ast
import inspect
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Literal, cast, get_args, get_origin

from ..readers.plugins import Group, installed
from .config import Settings
from .settings_files import presets


@cache
def descriptions() -> Mapping[str, str]:
    """What each setting does, on one line: its docstring, which is read from the source where it is shown."""
    (settings,) = ast.parse(inspect.getsource(Settings)).body
    return {
        cast("ast.Name", one.target).id: " ".join(ast.literal_eval(after.value).split())
        for one, after in pairwise(cast("ast.ClassDef", settings).body)
        if isinstance(one, ast.AnnAssign) and isinstance(after, ast.Expr)
    }


def flag_of(name: str) -> str:
    """A setting's flag as Markdown code, such as `--hd-num`; inputs have none."""
    if name == "inputs":
        return "`INPUTS...`"
    flag = name.replace("_", "-")
    return f"`--{flag}`, `--no-{flag}`" if Settings.model_fields[name].annotation is bool else f"`--{flag}`"


def known_values(name: str) -> list[str]:
    """The possible values of a setting, [] where they cannot be listed: for help, completion and documents."""
    annotation = Settings.model_fields[name].annotation
    if get_origin(annotation) is Literal:
        return [value for value in get_args(annotation) if value]
    if name == "sensor":
        from ..readers.raster.bands import SENSORS

        return list(SENSORS)
    if name == "model":
        from ..model.checkpoints.cards import shipped_cards

        others = sorted(set(installed("limner.annotators")) - {"segment"})
        return [*shipped_cards(), *(f"{annotator}:" for annotator in others), "none"]
    if name == "preset":
        return presets()
    groups: dict[str, Group] = {"reader": "limner.readers", "reports": "limner.writers"}
    return [entry for entry in installed(groups[name]) if entry != "array"] if name in groups else []
