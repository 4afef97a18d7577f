"""Generates pipelines/keywords.py and docs/settings.md from `Settings`.

Run it after a change of `Settings`: python tests/meta/settings_text.py
"""

import textwrap
from pathlib import Path
from typing import get_args

from limner.pipelines.config import Settings
from limner.pipelines.setting_values import descriptions, flag_of, known_values

ROOT = Path(__file__).resolve().parents[2]

PYTHON = {
    **dict.fromkeys(("microns_per_pixel", "metres_per_pixel"), "float | tuple[float, float] | str"),
    "reference": "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]",
    "stretch": "str | tuple[float, float]",
    "reader_options": "Mapping[str, str | float | Sequence[str | float]]",
    "model_options": "Mapping[str, str | float | Sequence[str | float]]",
    "report_options": "Mapping[str, str | float | Sequence[str | float]]",
}
"""How a program may give a setting, where its type in `Settings` does not say it."""

KEYWORDS = '''"""The keywords of `limner.run` and its like: written from `Settings` by tests/meta/settings_text.py."""

import os
from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict


class Keywords(TypedDict, total=False):
    """Every setting but the inputs. What is not given, or None, has its default."""

    config: str | os.PathLike[str] | None
    """YAML file of settings; keywords win over it."""
'''

TABLE = """# Settings

Flags of the commands, keys of a YAML file (`--config settings.yaml`, `config=`) and keywords of `limner.run`,
`limner.plan`, `limner.scan`, `limner.open` and `limner.annotate` are one list. A key and a keyword is the setting's
name; a flag is the name with dashes: `hd_num=9`, `hd_num: 9`, `--hd-num 9`. Precedence: preset < file < flags or
keywords. Lists may be given with commas. Written from `Settings` by tests/meta/settings_text.py.

| setting | flag | default | what it does |
| --- | --- | --- | --- |
"""


def python_type(name: str) -> str:
    """How a program may give a setting."""
    field = Settings.model_fields[name]
    if values := [one for one in get_args(field.annotation) if isinstance(one, str)]:
        return "Literal[{}]".format(", ".join(f'"{one}"' for one in values))
    if field.annotation in (bool, int, float):
        return field.annotation.__name__
    if field.default == ():
        return "str | Sequence[str]"
    return "str | os.PathLike[str]" if field.metadata else "str"


def keywords() -> str:
    """The file pipelines/keywords.py."""
    lines = [KEYWORDS]
    for name, text in descriptions().items():
        if name != "inputs":
            wrapped = "\n    ".join(textwrap.wrap(f'"""{text}', 116, break_on_hyphens=False))
            wrapped += '\n    """' if "\n" in wrapped else '"""'
            lines.append(f"    {name}: {PYTHON.get(name) or python_type(name)} | None\n    {wrapped}\n")
    return "".join(lines)


def table() -> str:
    """The file docs/settings.md."""
    rows = [TABLE]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        result = str(default).lower() if isinstance(default, bool) else str(default)
        result = "" if default in ("", (), {}) or name in {"workers", "gpus_per_worker"} else f"`{result}`"
        values = ", ".join(f"`{value}`" for value in known_values(name))
        text = f"{descriptions()[name]}{f' One of: {values}.' if values else ''}".replace("|", "\\|")
        rows.append(f"| `{name}` | {flag_of(name)} | {result} | {text} |\n")
    return "".join(rows)


FILES = {"pipelines/keywords.py": keywords, "docs/settings.md": table}

if __name__ == "__main__":
    for path, text in FILES.items():
        (ROOT / path).write_text(text(), encoding="utf-8")
