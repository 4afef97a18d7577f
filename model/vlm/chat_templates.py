"""A stranger's chat templates, tried out in the limited process: a template is a program, and may have no end."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

from ...readers.errors import ModelError
from ...readers.sandbox import SandboxError, run_sandboxed
from ..checkpoints.untrusted import wrap_errors

SECONDS: Final = 10.0
MEGABYTES: Final = 2048
"""Processor time and address space in which a template must write a short talk."""

_SETTINGS: Final = ("chat_template.json", "processor_config.json", "tokenizer_config.json")
_TALK: Final = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What does it show?"}]}]

_TRIED: set[tuple[object, ...]] = set()


def try_templates(folder: Path, source: str) -> None:
    """Let a folder's chat templates write a short talk, apart from this process; remembered by size and time.

    What is wrong with them otherwise is told where they are used. Raises `ModelError` where one needs more than
    `SECONDS` or `MEGABYTES`.
    """
    with wrap_errors(
        f"checkpoint {source}", "its folder must be readable", remedy="Check the path and its permissions"
    ):
        files = [path for path in sorted(folder.glob("*")) if path.suffix == ".jinja" or path.name in _SETTINGS]
        key = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    if not files or key in _TRIED:
        return
    try:
        run_sandboxed(f"{__name__}:write_talks", [str(path) for path in files], seconds=SECONDS, megabytes=MEGABYTES)
    except SandboxError as error:
        raise ModelError(
            f"checkpoint {source}",
            f"its chat template must write a short talk within {SECONDS:g} s and {MEGABYTES} MiB",
            value=f"{error.code} {error.value}".strip(),
            remedy="Do not use this checkpoint, or get it again from where it comes from",
        ) from error
    _TRIED.add(key)


def write_talks(files: list[str]) -> None:
    """What `try_templates` does in the limited process."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    made = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])
    for path in map(Path, files):
        try:
            for template in _templates(path):
                made.from_string(template).render(messages=_TALK, add_generation_prompt=True)
        except (MemoryError, RecursionError):
            raise
        except Exception:  # noqa: BLE001, S112 - told where it is used
            continue


def _templates(path: Path) -> Iterator[str]:
    """The chat templates in a file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jinja":
        yield text
        return
    found: Any = json.loads(text).get("chat_template")
    several = cast("list[Any]", found) if isinstance(found, list) else [found]
    for one in several:
        template: Any = cast("dict[str, Any]", one).get("template") if isinstance(one, dict) else one
        if isinstance(template, str):
            yield template
