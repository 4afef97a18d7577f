"""Writes the pages of the reference that come from the code: commands, model cards, scorecards, functions."""

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer.main
from limner.model.checkpoints.cards import ModelCard, VolumeCard, find_any_card, shipped_cards
from limner.model.vlm.fourkhd.checkpoint import SHIPPED, FourKhdFiles
from limner.pipelines.cli.listings import model_text
from limner.pipelines.cli.main import app
from limner.pipelines.config import Settings

API: dict[str, Sequence[str]] = {
    "limner.pipelines.api": ("open", "scan", "plan", "run", "watch", "annotate", "OpenedImage", "PlannedRun"),
    "limner.pipelines.run_result": ("Run",),
    "limner.pipelines.run.watching": ("Watched",),
    "limner.readers.image": ("ImageInfo", "Channel", "Image", "Reader", "BaseImage"),
    "limner.readers.geometry": ("Box", "Placement"),
    "limner.readers.errors": ("LimnerError", "RequestError", "ReadError", "ModelError"),
    "limner.model.annotator": ("Annotator", "InputSpec", "Answer"),
    "limner.model.views": ("View",),
    "limner.model.finding": ("Finding", "Coverage", "Result"),
    "limner.reports.writer": ("Writer", "Record", "ImageRecord", "FileRow"),
}
"""Module → the names that a user or a plug-in may rely on."""


def write_pages(folder: Path) -> None:
    """Write all pages into a folder, those alone that have changed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("commands", commands_page()),
        ("cards", cards_page()),
        ("scorecards", scorecards_page()),
        ("python", python_page()),
    ):
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def commands_page() -> str:
    """Every command with its arguments and options."""
    intro = (
        "Written from the code. Options that are settings are listed by name: [settings](../../settings.md) has them."
    )
    parts = ["# Commands", intro]
    for name, command in _commands("limner", typer.main.get_command(app)):
        parts += [f"## `{name}`", inspect.cleandoc(command.help or "")]
        usage = [f"[{p.metavar}]" if not p.required else str(p.metavar or p.name.upper()) for p in _arguments(command)]
        parts.append("```text\n" + " ".join([name, *usage, "[OPTIONS]"]) + "\n```")
        own = [p for p in command.params if not getattr(p, "hidden", False) and p.name not in Settings.model_fields]
        rows = [(", ".join(f"`{flag}`" for flag in _flags(p)), _cell(getattr(p, "help", "") or "")) for p in own]
        settings = [f"`{p.opts[0]}`" for p in command.params if p.name in Settings.model_fields and _is_option(p)]
        if rows:
            parts.append(_table(("option", "what it does"), rows))
        if settings:
            parts.append(f"Settings: {', '.join(settings)}.")
    return "\n\n".join(parts) + "\n"


def cards_page() -> str:
    """Every model that ships, as `limner models show` prints it."""
    parts = ["# Model cards", "Written from the cards, as `limner models show NAME` prints them."]
    for name in _models():
        parts += [f"## `{name}`", f"```text\n{model_text(name)}\n```"]
    return "\n\n".join(parts) + "\n"


def scorecards_page() -> str:
    """What is known of how good each model is, and where it is wrong."""
    intro = (
        "What each model was made for, what was measured of it, and where it is known to be wrong, from its card. "
        "How the figures were measured, with the scripts that repeat them: [measured figures](../../figures.md). "
        "To score a model on your own labels: [training](../../training.md) for probes, "
        "`--reference` for [volumes](../../reports.md#reference-csv)."
    )
    parts = ["# Scorecards", intro]
    for name in _models():
        parts += [f"## `{name}`", _table(("of the model", "what is known"), list(_score_rows(name)))]
    return "\n\n".join(parts) + "\n"


def python_page() -> str:
    """The public functions, classes and contracts."""
    intro = (
        "From the docstrings. `limner` itself has `open`, `scan`, `plan`, `run`, `watch`, `annotate` and `Run`. "
        "The other names are what plug-ins implement and get: [plug-ins](../../plugins.md)."
    )
    parts = ["# Python", intro]
    for module, names in API.items():
        parts.append(f"## `{module}`")
        for name in names:
            kind = (
                "autofunction"
                if inspect.isfunction(getattr(__import__(module, fromlist=[name]), name))
                else "autoclass"
            )
            options = "" if kind == "autofunction" else "\n   :members:"
            parts.append(f"```{{eval-rst}}\n.. {kind}:: {module}.{name}{options}\n```")
    return "\n\n".join(parts) + "\n"


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its full name."""
    if not getattr(command, "commands", None):
        yield name, command
        return
    for own, inner in sorted(command.commands.items()):
        if not inner.hidden:
            yield from _commands(f"{name} {own}", inner)


def _models() -> list[str]:
    return [*shipped_cards(), *(f"4khd:{name}" for name in SHIPPED)]


def _score_rows(name: str) -> Iterator[tuple[str, str]]:
    card: Any = FourKhdFiles.find(name.removeprefix("4khd:")).card if name.startswith("4khd:") else find_any_card(name)
    yield from (("made for", _cell(str(part))) for part in card.domain)
    yield from (("not for", _cell(text)) for text in card.not_for)
    if isinstance(card, ModelCard):
        for one in card.tiling:
            shares = f"{one.changed_percent:g} % of labelled pixels change with the grid of tiles"
            yield f"seams, {_cell(one.image)}", f"{shares}; {'targets met' if one.met else 'targets not met'}"
    elif isinstance(card, VolumeCard):
        yield from (("measured", _cell(f"{one.what}: {one.value:g} {one.unit}".rstrip())) for one in card.measured)
    elif name.startswith("4khd:"):
        for one in card.measured:
            range_ = f"{one.value:g} ({one.low:g} to {one.high:g}, n = {one.count})"
            yield "measured", _cell(f"{one.what}: {range_}")
    yield from (("known error", _cell(text)) for text in card.known_mistakes)


def _arguments(command: Any) -> list[Any]:
    return [one for one in command.params if one.param_type_name == "argument"]


def _is_option(parameter: Any) -> bool:
    return parameter.param_type_name == "option"


def _flags(parameter: Any) -> list[str]:
    if not _is_option(parameter):
        return [parameter.metavar or parameter.name.upper()]
    return [*parameter.opts, *parameter.secondary_opts]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _table(head: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows)]
    return "\n".join(lines)
