"""The shell of an HTML page: one file that shows everything offline, runs nothing and asks nobody.

A page is a template of this folder that extends `page.html`, which has style, header and footer, and uses the macros of
`parts.html` for tables, facts, notes and pictures. Every text is escaped, and has no invisible character, wherever it
comes from. The policy allows the page's own style, by its sha256, and pictures in the page; a browser refuses all else.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..csv_safety import clean_text

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER: Final = Path(__file__).parent
_LONGEST: Final = 2000  # characters of a text on a page

Pairs = Sequence[tuple[str, str]]
"""Names and values."""


@dataclass(frozen=True, slots=True)
class Head:
    """What every page states of itself."""

    title: str
    use: str
    """What the results may be used for: on every page that is printed."""
    version: str
    """The version of limner."""


def render_page(template: str, head: Head, **values: object) -> str:
    """The HTML of a page. `template` is a file of this folder, `values` what it uses besides `head`."""
    return _environment().get_template(template).render(head=head, **values)


def shorten(text: str, most: int = _LONGEST, where: str = "") -> str:
    """A text of at most `most` characters and a note on how many it has, and where the rest is."""
    if len(text) <= most:
        return text
    return f"{text[:most]} … ({len(text):,} characters{f': all in {where}' if where else ''})"


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    made = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_clean,
    )
    allowed = f"style-src 'sha256-{digest}'; img-src data:"
    policy = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    made.globals.update(stylesheet=style, policy=policy)  # pyright: ignore[reportUnknownMemberType]
    return made


def _clean(value: object) -> object:
    """What a template shows: markup of its own as it is, anything else as a clean text."""
    return value if hasattr(value, "__html__") else clean_text(str(value))
