"""A project's own pseudonyms: a table of originals and the names to use for them instead of the keyed ones.

    kind,original,pseudonym
    study,1.2.840.113619.2.55.3.1,P001
    file,/data/slides/S21-1234.svs,case-17

`kind` is file, study, series or instance, as in the table of `limner reveal`, and may be left out: an original that has
the form of a UID is one. Further columns are ignored. The table names patients: no error quotes a cell of it.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Final

from .errors import RequestError
from .files import absolute
from .user_tables import read_user_table

KINDS: Final = ("file", "study", "series", "instance")
_UIDS: Final = KINDS[1:]
_MAX_BYTES: Final = 2**26
_LEAST: Final = 4  # characters of an original's part that a pseudonym must not contain: shorter ones are words
_UID: Final = re.compile(r"\d+(\.\d+)+")
_SAFE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_SAFE_RULE: Final = "pseudonyms of 1 to 64 letters, digits, dots, dashes and underscores, between letters or digits"
_SHOWN: Final = 5  # lines that an error names


@dataclass(frozen=True, slots=True)
class Crosswalk:
    """The pseudonyms that a user chose."""

    entries: Mapping[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str], repr=False)
    """(kind, original) → pseudonym; the kind of any UID is "uid" where the table does not state it."""
    lines: Mapping[str, int] = field(default_factory=dict[str, int], repr=False)
    """The line of each pseudonym."""

    @property
    def content(self) -> str:
        """All entries as one text, the same in whatever order, file and format they were."""
        return "\n".join("\t".join((*key, pseudonym)) for key, pseudonym in sorted(self.entries.items()))

    def path(self, path: str) -> str | None:
        """The pseudonym of an absolute path; None where it has none here."""
        return self.entries.get(("file", path))

    def uid(self, uid: str, kind: str) -> str | None:
        """The pseudonym of a UID of a study, series or instance; None where it has none here."""
        return self.entries.get((kind, uid)) or self.entries.get(("uid", uid))


def read_crosswalk(path: str) -> Crosswalk:
    """The crosswalk in a file. Raises `RequestError` where it is invalid, with the lines in question."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return _read(path, (0, 0))  # which tells why
    return _read(path, (found.st_mtime_ns, found.st_size))


@lru_cache(maxsize=4)  # readers and redaction ask for the same one
def _read(path: str, version: tuple[int, int]) -> Crosswalk:
    del version
    subject = "the crosswalk"
    table = read_user_table(path, subject, max_bytes=_MAX_BYTES)
    if not {"original", "pseudonym"} <= set(table.columns):
        rule, remedy = "must have the columns original and pseudonym", "Correct its header; kind may be a third"
        raise RequestError(subject, rule, value=f"{len(table.columns)} other columns", remedy=remedy)
    lines: list[int] = []
    keys: list[tuple[str, str]] = []
    chosen: list[str] = []
    unknown: list[int] = []
    for line, (kind, original, pseudonym) in table.cells(("kind", "original", "pseudonym")):
        lines.append(line)
        keys.append(_key(kind, original))
        chosen.append(pseudonym)
        unknown += [line] if kind not in {"", *KINDS} else []
    if not keys:
        raise RequestError(subject, "must have an entry", remedy="Write one below its header, or leave it out")
    parts = [_parts(original) for _, original in keys]
    every = set[str]().union(*parts)
    folded = [pseudonym.casefold() for pseudonym in chosen]
    originals, names = Counter(original for _, original in keys), Counter(folded)
    telling = [name in every or any(part in name for part in own) for name, own in zip(folded, parts, strict=True)]
    _refuse(unknown, f"the kinds {', '.join(KINDS)} only")
    for rule, faults in (
        ("an original in each row", [not original for _, original in keys]),
        (_SAFE_RULE, [not _SAFE.fullmatch(pseudonym) for pseudonym in chosen]),
        ("each original once", [originals[original] > 1 for _, original in keys]),
        ("a pseudonym of its own for each original", [names[name] > 1 for name in folded]),
        ("pseudonyms that do not contain an original or its file name", telling),
    ):
        _refuse([line for line, fault in zip(lines, faults, strict=True) if fault], rule)
    return Crosswalk(dict(zip(keys, chosen, strict=True)), dict(zip(chosen, lines, strict=True)))


def _key(kind: str, original: str) -> tuple[str, str]:
    kind = kind or ("uid" if _UID.fullmatch(original) else "file")
    return (kind, absolute(original)) if kind == "file" and original else (kind, original)


def _parts(original: str) -> set[str]:
    """What of an original a pseudonym must not contain: all of it, a file's name, its stem."""
    path = PurePosixPath(original)
    found = {original, path.name, path.stem} if "/" in original else {original}
    return {part.casefold() for part in found if len(part) >= _LEAST}


def _refuse(lines: list[int], rule: str) -> None:
    if lines:
        shown = ", ".join(map(str, lines[:_SHOWN]))
        more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        value = f"line {shown}" if len(lines) == 1 else f"lines {shown}{more}"
        raise RequestError("the crosswalk", f"must have {rule}", value=value, remedy="Correct these lines")
