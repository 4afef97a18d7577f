"""Which reader opens what: claims, scans of files and folders, and the one way to open an image.

Readers come by entry point. Each claims an input from its first bytes; the strongest claim wins.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from .errors import ReadError, RequestError
from .image import Image, ImageInfo, NumberingReader, Reader
from .options import O, Options, options_of, parse_options, unknown_option
from .overrides import Overrides, PreparedOverrides
from .plugins import installed, load
from .search import ScannedFile, Search, without_parts


def readers() -> Mapping[str, Reader]:
    """All installed readers by name. Raises `RequestError` where a plug-in cannot be imported."""
    return {name: _reader(name) for name in installed("limner.readers")}


def scan(
    inputs: Sequence[str],
    options: Mapping[str, str],
    *,
    reader: str | None = None,
    apart: Callable[[str], str | None] = lambda _: None,
) -> list[ScannedFile]:
    """What the inputs hold, one row for each file, in the order of the inputs and sorted within a folder.

    Folders are walked; what begins with a dot is not looked at. A named file that nobody claims or that cannot be read
    is "failed" with the reason; a file in a folder that nobody claims is "skipped". `apart` says of a folder why it is
    not looked at: "" where nothing is to be said of it either, None where it is to be looked at. Images get their final
    ids: the slug of the file's stem, or of their kind and fingerprint where names are personal (unless the option
    `names` is "show"), with -2, -3, … in sorted order where it is taken. `options` are those of `Overrides` and of any
    of the readers. Raises `RequestError` for an unknown reader or option, and where an option cannot mean anything.
    """
    among, overrides, own = _checked(options, reader)
    stated = PreparedOverrides(overrides)
    search = Search(among, own, overrides, forced=reader, apart=apart)
    rows = [row for item in inputs for row in search.scan(item)]
    settled = [search.settle(row) for row in without_parts(_overridden(rows, among, stated))]
    return _with_ids(_numbered(settled, among), among, hide=overrides.names == "hide")


def check_options(options: Mapping[str, object], reader: str | None = None) -> None:
    """Raise `RequestError` for what `scan` would refuse of options, without looking at any input."""
    PreparedOverrides(_checked(options, reader)[1])


def known_options(reader: str | None = None) -> frozenset[str]:
    """Names of the options that `scan` takes. Raises `RequestError` for an unknown reader."""
    models = (Overrides, *(options_of(one) for one in _among(reader).values()))
    return frozenset(name for model in models for name in model.model_fields)


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


def _among(reader: str | None) -> Mapping[str, Reader]:
    among = readers()
    if reader is None:
        return among
    if reader not in among:
        load("limner.readers", reader)  # raises, and says what is installed
    return {reader: among[reader]}


def _checked(
    options: Mapping[str, object], reader: str | None
) -> tuple[Mapping[str, Reader], Overrides, Mapping[str, Options]]:
    """The readers that may be asked, what the user states, and each reader's own part of the options."""
    among = _among(reader)
    models = {name: options_of(one) for name, one in among.items()}
    known = sorted({name for model in (Overrides, *models.values()) for name in model.model_fields})
    for name in options:
        if name not in known:
            raise unknown_option(name, known, "readers")

    def part(model: type[O], owner: str) -> O:
        return parse_options(model, {k: v for k, v in options.items() if k in model.model_fields}, owner)

    return among, part(Overrides, "readers"), {name: part(model, f"reader {name!r}") for name, model in models.items()}


def _overridden(rows: Sequence[ScannedFile], among: Mapping[str, Reader], stated: PreparedOverrides) -> list[ScannedFile]:
    """The rows with what the user states; an image that it does not suit fails with its files."""
    found: list[ScannedFile] = []
    lost: dict[str, str] = {}
    for row in rows:
        try:
            infos = tuple(stated.apply(info, among[row.reader]) for info in row.infos)
            found.append(replace(row, infos=infos))
        except ReadError as error:
            lost |= {path: str(error) for info in row.infos for path in info.files}
            found.append(replace(row, status="failed", infos=(), reason=str(error)))
    return [
        replace(row, status="failed", reason=lost[row.path])
        if row.status == "read" and not row.infos and row.path in lost
        else row
        for row in found
    ]


def _numbered(rows: Sequence[ScannedFile], among: Mapping[str, Reader]) -> list[ScannedFile]:
    """The rows with the images of readers that number them anew."""
    found = list(rows)
    for name, reader in among.items():
        if isinstance(reader, NumberingReader):
            places = [at for at, row in enumerate(found) if row.reader == name]
            numbered = iter(reader.number([info for at in places for info in found[at].infos]))
            for at in places:
                found[at] = replace(found[at], infos=tuple(next(numbered) for _ in found[at].infos))
    return found


def _with_ids(rows: Sequence[ScannedFile], among: Mapping[str, Reader], *, hide: bool) -> list[ScannedFile]:
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
