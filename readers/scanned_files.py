"""The rows of a scan: one for each file, without links and parts of other images, and with the ids of images."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from .errors import ReadError
from .files import absolute, find_linked, split_variable, without_accents
from .image import ImageInfo, NumberingReader, Reader
from .overrides import PreparedOverrides

COUNTED_ONCE: Final = "counted once"
"""The end of the reason of a file that is given twice, or is the same file as another one."""


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """The result of scanning one file (or a folder that cannot be scanned)."""

    path: str
    status: Literal["read", "skipped", "failed"]
    infos: tuple[ImageInfo, ...] = ()
    """Its images. An image of several files is listed with its first file only."""
    reader: str = ""
    reason: str = ""
    """Why it was skipped or failed."""
    personal: bool = False
    """Whether the file name may be the name of a person, also where the file could not be read."""


def with_overrides(
    rows: Sequence[ScannedFile], candidates: Mapping[str, Reader], overrides: PreparedOverrides
) -> list[ScannedFile]:
    """Apply the overrides; an image that they do not fit fails, and its other files are skipped."""
    found: list[ScannedFile] = []
    owner: dict[str, str] = {}
    for row in rows:
        try:
            infos = tuple(overrides.apply(info, candidates[row.reader]) for info in row.infos)
            found.append(replace(row, infos=infos))
        except ReadError as error:
            owner |= {path: row.path for info in row.infos for path in info.files}
            found.append(replace(row, status="failed", infos=(), reason=str(error)))
    return [
        replace(row, status="skipped", reason=part_of(owner[row.path]))
        if row.status == "read" and not row.infos and row.path in owner
        else row
        for row in found
    ]


def part_of(path: str) -> str:
    """Why a file is skipped whose image failed."""
    return f"a part of the image of {path}, which failed"


def without_links(rows: Sequence[ScannedFile]) -> list[ScannedFile]:
    """Skip a file that is the same as another one, by a link, with its images unless they hold other files too."""
    counted = [at for at, row in enumerate(rows) if row.status != "skipped"]
    found = list(rows)
    for at, reason in find_linked([(rows[at].path, [info.files for info in rows[at].infos]) for at in counted]).items():
        row = rows[counted[at]]
        found[counted[at]] = ScannedFile(row.path, "skipped", (), row.reader, f"{reason}: {COUNTED_ONCE}")
    return found


def without_parts(rows: Sequence[ScannedFile]) -> list[ScannedFile]:
    """Skip files that are only a part of another image: masks and overviews beside it, sources of a mosaic."""
    owner = {
        absolute(path): row.path
        for row in rows
        for info in row.infos
        for path in info.files
        if absolute(path) != absolute(split_variable(row.path)[0])
    }
    kept: list[ScannedFile] = []
    for row in rows:
        whole = owner.get(absolute(row.path))
        unread = row.status == "skipped" and not row.reader
        if whole is not None and (unread or any(info.uri == row.path for info in row.infos)):
            row = ScannedFile(row.path, "skipped", (), row.reader, f"a part of {whole}")  # noqa: PLW2901 - replaced whole
        kept.append(row)
    return kept


def numbered(rows: Sequence[ScannedFile], candidates: Mapping[str, Reader]) -> list[ScannedFile]:
    """Let readers that number their images do so over all rows."""
    found = list(rows)
    for name in sorted({row.reader for row in rows} & set(candidates)):
        reader = candidates[name]
        if isinstance(reader, NumberingReader):
            places = [at for at, row in enumerate(found) if row.reader == name]
            numbered = iter(reader.number([info for at in places for info in found[at].infos]))
            for at in places:
                found[at] = replace(found[at], infos=tuple(next(numbered) for _ in found[at].infos))
    return found


def with_ids(rows: Sequence[ScannedFile], candidates: Mapping[str, Reader], *, hide: bool) -> list[ScannedFile]:
    """Give each image its final id. With personal names only readers that number their images may name them."""
    every = sorted(
        ((at, k, info) for at, row in enumerate(rows) for k, info in enumerate(row.infos)),
        key=lambda item: (item[2].uri, item[2].part, item[0], item[1]),
    )
    taken: set[str] = set()
    counts: Counter[str] = Counter()
    names: dict[tuple[int, int], str] = {}
    for at, k, info in every:
        slug = _slug(info.id or Path(re.split(r"[?#]", info.uri)[0]).stem)
        if hide and info.personal and not isinstance(candidates[rows[at].reader], NumberingReader):
            slug = _slug(f"{'image' if info.kind == 'map' else info.kind}-{info.fingerprint[:8]}")
        if "scene" in dict(info.facts):
            slug += f"-{_slug(info.part)}"
        name = slug
        while name in taken:
            counts[slug] += 1
            name = f"{slug}-{counts[slug] + 1}"
        taken.add(name)
        names[at, k] = name
    return [
        replace(row, infos=tuple(replace(info, id=names[at, k]) for k, info in enumerate(row.infos)))
        for at, row in enumerate(rows)
    ]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._]+", "-", without_accents(text).lower()).strip("-._") or "image"
