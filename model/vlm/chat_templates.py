"""Trial of a checkpoint's chat templates in the sandboxed process: a template is a program, and may never end."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

from ...readers.errors import ModelError
from ...readers.sandbox import SandboxError, run_sandboxed
from ..checkpoints.untrusted import wrap_errors

SECONDS: Final = 10.0
MEGABYTES: Final = 2048
"""CPU time and address space in which a template must render a short conversation."""

_SETTINGS: Final = ("chat_template.json", "processor_config.json", "tokenizer_config.json")
_CONVERSATION: Final = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What does it show?"}]}
]

_CHECKED: set[tuple[object, ...]] = set()


def check_templates(folder: Path, source: str) -> None:
    """Render a short conversation by a folder's chat templates in the sandbox; remembered by size and time.

    Other errors of a template appear where it is used. Raises `ModelError` where one needs more than `SECONDS` or
    `MEGABYTES`.
    """
    with wrap_errors(
        f"checkpoint {source}", "must have a readable folder", remedy="Check the path and its permissions"
    ):
        files = [path for path in sorted(folder.glob("*")) if path.suffix == ".jinja" or path.name in _SETTINGS]
        key = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    if not files or key in _CHECKED:
        return
    try:
        run_sandboxed(
            f"{__name__}:render_templates", [str(path) for path in files], seconds=SECONDS, megabytes=MEGABYTES
        )
    except SandboxError as error:
        raise ModelError(
            f"chat template of checkpoint {source}",
            f"must render a short conversation within {SECONDS:g} s and {MEGABYTES} MiB",
            value=f"{error.code} {error.value}".strip(),
            remedy="Do not use this checkpoint, or get it again from its source",
        ) from error
    _CHECKED.add(key)


def render_templates(files: list[str]) -> None:
    """Render the conversation by all templates in the files. Runs in the sandboxed process."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])
    for path in map(Path, files):
        try:
            for template in _templates(path):
                environment.from_string(template).render(messages=_CONVERSATION, add_generation_prompt=True)
        except (MemoryError, RecursionError):
            raise
        except Exception:  # noqa: BLE001, S112 - reported where the template is used
            continue


def _templates(path: Path) -> Iterator[str]:
    """The chat templates in a file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jinja":
        yield text
        return
    content: Any = json.loads(text).get("chat_template")
    for one in cast("list[Any]", content) if isinstance(content, list) else [content]:
        template: Any = cast("dict[str, Any]", one).get("template") if isinstance(one, dict) else one
        if isinstance(template, str):
            yield template
