"""CSV tables that a user made, in a spreadsheet say: UTF-8, with commas, semicolons or tabs between the cells."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from .errors import RequestError
from .files import read_file

_DELIMITERS: Final = ",;\t"


@dataclass(frozen=True, slots=True)
class UserTable:
    """A table in memory."""

    columns: tuple[str, ...]
    """Names, without blanks around them."""
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    """The last line of each row, from 1, and its cells, as many as there are columns."""

    def cells(self, columns: Sequence[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
        """(line, the cells of these columns) of each row, without blanks around them; "" for an absent column."""
        at = [self.columns.index(name) if name in self.columns else None for name in columns]
        for line, row in self.rows:
            yield line, tuple("" if place is None else row[place].strip() for place in at)


def read_user_table(path: str, subject: str, *, max_bytes: int) -> UserTable:
    """Read a table with a header. Rows without any text are left out.

    `subject` names it in errors, which quote no cell. Raises `RequestError` where it cannot be read, is not UTF-8, has
    no header, a column's name twice, or a row of another length.
    """
    try:
        text = read_file(path, max_bytes=max_bytes, regular=True).decode("utf-8-sig")
    except OSError as error:
        remedy = "Check its path and permissions"
        raise RequestError(subject, "must be a readable file", value=str(error.strerror), remedy=remedy) from None
    except UnicodeDecodeError:
        remedy = "Save it as CSV UTF-8"
        raise RequestError(subject, "must be CSV in UTF-8", value="another encoding", remedy=remedy) from None
    header = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=header.count), strict=True)
    try:
        columns = tuple(name.strip() for name in next(reader, ()))
        rows = tuple((reader.line_num, tuple(row)) for row in reader if any(cell.strip() for cell in row))
    except csv.Error as error:
        remedy = "Correct its quotes, or save it as CSV again"
        value = f"{error}, line {reader.line_num}"
        raise RequestError(subject, "must be valid CSV", value=value, remedy=remedy) from None
    if not any(columns) or len(set(columns)) < len(columns):
        rule, remedy = "must have a header with a name for each column, each once", "Correct its first line"
        raise RequestError(subject, rule, value=f"{len(columns)} columns", remedy=remedy)
    for line, row in rows:
        if len(row) != len(columns):
            rule, value = "must have a cell for each column in each row", f"{len(row)} of {len(columns)} in line {line}"
            raise RequestError(subject, rule, value=value, remedy="Correct it")
    return UserTable(columns, rows)
