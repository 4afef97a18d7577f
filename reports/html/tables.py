"""Tables of a page, made from the columns that the other reports have."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal

from ..table import B, Column
from .page import shorten

Style = Literal["", "number", "text", "words", "label", "id"]
"""How cells are shown: "text" may be long, "words" are a model's own, "label" has a swatch; an "id" is small."""

MOST_WORDS: Final = 600
"""Characters of a model's text in a cell."""


@dataclass(frozen=True, slots=True)
class Shown(Generic[B]):
    """A column as a page shows it."""

    column: Column[B]
    heading: str
    style: Style = ""
    colours: Callable[[B], Sequence[str]] | None = None
    """Of a "label", `#rrggbb` for each row."""
    links: Callable[[B], Sequence[str]] | None = None
    """The id of the part of the page that each row's cell leads to, "" for none."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell."""

    text: str
    colour: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class PageTable:
    """A table as `parts.html` takes it; the first cell of a row names it."""

    id: str
    caption: str
    headings: Sequence[tuple[str, Style]]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    """What to read before it: how many rows were left out, say."""


def page_table(
    name: str, caption: str, columns: Sequence[Shown[Any]], batches: Iterable[Any], *, note: str = "", rest: str = ""
) -> PageTable:
    """A table of all rows of the batches. Long texts are cut, and `rest` names the file that has them whole.

    A column that is empty in every row is left out.
    """
    filled = [[_cells(one, batch, rest) for one in columns] for batch in batches]
    kept = [at for at in range(len(columns)) if at == 0 or any(cell.text for cells in filled for cell in cells[at])]
    return PageTable(
        name,
        caption,
        [(_heading(columns[at]), columns[at].style) for at in kept],
        [row for cells in filled for row in zip(*(cells[at] for at in kept), strict=True)],
        note,
    )


def _heading(shown: Shown[Any]) -> str:
    unit = shown.column.unit
    return f"{shown.heading}, {unit}" if unit else shown.heading


def _cells(shown: Shown[Any], batch: Any, rest: str) -> list[Cell]:
    texts = shown.column.texts(batch)
    colours = [""] * len(texts) if shown.colours is None else shown.colours(batch)
    links = [""] * len(texts) if shown.links is None else shown.links(batch)
    return [Cell(shorten(text, MOST_WORDS, rest), *more) for text, *more in zip(texts, colours, links, strict=True)]
