"""Which reader opens what: claims, scans of files and folders, and the one way to open an image.

Readers come by entry point. Each claims an input from its first bytes; the strongest claim wins.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from .errors import RequestError, nearest
from .image import Image, ImageInfo, NumberingReader, Reader
from .plugins import installed, load
from .search import Scanned, Search, without_parts


def readers() -> Mapping[str, Reader]:
    """All installed readers by name. Raises `RequestError` where a plug-in cannot be imported."""
    return {name: _reader(name) for name in installed("limner.readers")}


def scan(
    inputs: Sequence[str],
    options: Mapping[str, str],
    *,
    reader: str | None = None,
    apart: Callable[[str], str | None] = lambda _: None,
) -> list[Scanned]:
    """What the inputs hold, one row for each file, in the order of the inputs and sorted within a folder.

    Folders are walked; what begins with a dot is not looked at. A named file that nobody claims or that cannot be read
    is "failed" with the reason; a file in a folder that nobody claims is "skipped". `apart` says of a folder why it is
    not looked at: "" where nothing is to be said of it either, None where it is to be looked at. Images get their final
    ids: the slug of the file's stem, or of their kind and fingerprint where names are personal (unless the option
    `names` is "show"), with -2, -3, … in sorted order where it is taken. Raises `RequestError` for an unknown reader or
    option, and where an option cannot mean anything.
    """
    among = readers()
    if reader is not None:
        if reader not in among:
            load("limner.readers", reader)  # raises, and says what is installed
        among = {reader: among[reader]}
    _check(options, among)
    search = Search(among, options, forced=reader, apart=apart)
    rows = [row for item in inputs for row in search.look(item)]
    settled = [search.settle(row) for row in without_parts(rows)]
    return _with_ids(_numbered(settled, among), among, hide=options.get("names", "hide") == "hide")


def open_image(info: ImageInfo, channels: Sequence[str] | None = None) -> Image:
    """Open an image with the reader that scanned it. Raises `ReadError`, or `RequestError` where that is gone."""
    return _reader(info.reader).open(info, channels)


def _reader(name: str) -> Reader:
    try:
        return cast("type[Reader]", load("limner.readers", name))()
    except ImportError as error:
        raise RequestError(
            f"reader {name!r}",
            "it must be importable",
            value=str(error),
            remedy="Repair or uninstall the package that brings it; `limner plugins` shows which",
        ) from error


def _check(options: Mapping[str, str], among: Mapping[str, Reader]) -> None:
    """Refuse an option that no reader knows, unless a reader does not say which it knows."""
    if (names := options.get("names", "hide")) not in {"hide", "show"}:
        raise RequestError("reader option names", "it is hide or show", value=names, remedy="Correct it")
    known = {"names"}
    for reader in among.values():
        own = getattr(reader, "options", None)
        if own is None:
            return
        known |= set(own)
    for name in options:
        if name not in known:
            raise RequestError(
                f"reader option {name}",
                f"it is one of {', '.join(sorted(known))}",
                value=name,
                remedy=f"{nearest(name, known)}Correct it, or leave it out",
            )


def _numbered(rows: Sequence[Scanned], among: Mapping[str, Reader]) -> list[Scanned]:
    """The rows with the images of readers that number them anew."""
    found = list(rows)
    for name, reader in among.items():
        if isinstance(reader, NumberingReader):
            places = [at for at, row in enumerate(found) if row.reader == name]
            numbered = iter(reader.number([info for at in places for info in found[at].infos]))
            for at in places:
                found[at] = replace(found[at], infos=tuple(next(numbered) for _ in found[at].infos))
    return found


def _with_ids(rows: Sequence[Scanned], among: Mapping[str, Reader], *, hide: bool) -> list[Scanned]:
    """The rows with final ids. Of images with personal names only readers that number them give them an id."""
    every = sorted(
        ((at, k, info) for at, row in enumerate(rows) for k, info in enumerate(row.infos)),
        key=lambda item: (item[2].uri, item[2].part, item[0], item[1]),
    )
    taken: set[str] = set()
    counts: Counter[str] = Counter()
    names: dict[tuple[int, int], str] = {}
    for at, k, info in every:
        slug = _slug(info.id or Path(re.split(r"[?#]", info.uri)[0]).stem)
        if hide and info.personal and not isinstance(among[rows[at].reader], NumberingReader):
            slug = _slug(f"{'image' if info.kind == 'map' else info.kind}-{info.fingerprint[:8]}")
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
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-._") or "image"
