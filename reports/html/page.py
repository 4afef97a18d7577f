"""The shell of an HTML page: one file that shows everything offline, runs only its own scripts and asks nobody.

A page is a template of this folder that extends `page.html`, which has style, header and footer, and uses the macros of
`parts.html` for tables, facts, notes and pictures. Every text is escaped, and has no invisible character, wherever it
comes from. The policy allows the page's own style and scripts, by their sha256, and pictures in the page; a browser
refuses all else.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

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


def render_page(template: str, head: Head, **values: Any) -> str:
    """The HTML of a page. `template` is a file of this folder, `values` what it uses besides `head`."""
    return "".join(page_parts(template, head, (), (), **values))


def page_parts(
    template: str,
    head: Head,
    styles: Sequence[str],
    scripts: Sequence[str],
    *,
    served: bool = False,
    **values: Any,
) -> Iterator[str]:
    """As `render_page`, in parts, so that a large page is never whole in memory.

    `styles` are files of this folder after `page.css`; `scripts` are those that the page, and nothing else, may run. A
    page that is `served` may also ask its own server for data and pictures.
    """
    style, (*code,) = _read("page.css", *styles), map(_read, scripts)
    policy = content_policy(styles, scripts, served=served)
    yield from (
        _environment()
        .get_template(template)
        .generate(head=head, stylesheet=style, scripts=code, policy=policy, served=served, **values)
    )


def content_policy(styles: Sequence[str], scripts: Sequence[str], *, served: bool = False) -> str:
    """The content security policy of a page: see `page_parts`."""
    allowed = f"style-src {_digest(_read('page.css', *styles))}; img-src data:"
    if served:
        allowed += " 'self'; connect-src 'self'"
    if scripts:
        allowed += f"; script-src {' '.join(_digest(_read(name)) for name in scripts)}"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


@cache
def _read(*names: str) -> str:
    """Files of this folder, one after the other, without a script's link to its source map, which no page has."""
    texts = [(_FOLDER / name).read_text(encoding="utf-8") for name in names]
    return "".join(text.partition("\n//# sourceMappingURL=")[0] for text in texts)


def assets_digest() -> str:
    """The sha256 of the files of this folder that pages are made of."""
    paths = sorted(path for path in _FOLDER.glob("*") if path.suffix in {".css", ".html", ".js", ".py"})
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def _digest(text: str) -> str:
    """The sha256 of a text as a source of a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def shorten(text: str, most: int = _LONGEST, where: str = "") -> str:
    """A text of at most `most` characters and a note on how many it has, and where the rest is."""
    if len(text) <= most:
        return text
    return f"{text[:most]} … ({len(text):,} characters{f': all in {where}' if where else ''})"


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_clean,
    )


def _clean(value: object) -> object:
    """What a template shows: markup of its own as it is, anything else as a clean text."""
    return value if hasattr(value, "__html__") else clean_text(str(value))
