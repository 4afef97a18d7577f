"""Replaces paths of slides and studies, which are often case numbers or patient names, by pseudonyms in all output.

The pseudonym of a path is the same wherever it appears in a run. The run folder holds the key, and `sources.json` with
the path behind each pseudonym, also of inputs that failed, so that a user finds them and reports can read images again.
Both are readable by their owner only, and must not be passed on with a run. An interactive terminal shows the paths.
"""

import contextlib
import json
import os
import shlex
import tempfile
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from ...readers.crosswalk import read_crosswalk
from ...readers.errors import LimnerError
from ...readers.files import absolute, parse_json, read_file, write_atomic
from ...readers.image import ImageInfo
from ...readers.kinds import KEY_VARIABLE
from ...readers.pseudonyms import (
    KEY_FILE,
    NameOptions,
    Pseudonyms,
    longest_first,
    path_variants,
    redact_error,
    redact_text,
    restore_text,
    run_key_file,
)
from ...readers.registry import neutral_options
from ...readers.scanned_files import ScannedFile
from ..cli.terminal import filter_output, print_message, visible
from ..config import Settings, is_path
from .run_files import MANIFEST, SOURCES, StoreError
from .scanning import reader_options, scan_inputs

if TYPE_CHECKING:
    from ...model.finding import Result
    from .plan import Plan

TEMPORARY = (
    "Names of slides and studies are replaced by pseudonyms of this command only. To have the same ones every time, "
    f"give --reader-options key_file=FILE or set {KEY_VARIABLE}; --names show shows the names."
)
_UNMATCHED = 20  # lines of a crosswalk that are named
_PATH_OPTIONS = ("key_file", "spacing_csv")  # reader options that are paths


@dataclass(frozen=True, slots=True)
class Redactor:
    """Replaces paths by pseudonyms. Without `pseudonyms` it changes nothing."""

    pseudonyms: Pseudonyms | None = None
    replacements: Mapping[str, str] = field(default_factory=dict[str, str])
    """Pseudonyms by every form in which a path may occur in text."""
    originals: Mapping[str, str] = field(default_factory=dict[str, str])
    """The absolute path, or the name of a part of a file, behind each pseudonym."""

    @classmethod
    def of(
        cls, settings: Settings, scanned: Sequence[ScannedFile], options: Mapping[str, str], further: Sequence[str] = ()
    ) -> Self:
        """The redactor of a run. `options` are the readers', with the key; `further` paths are redacted as well.

        Raises `RequestError` for an invalid key.
        """
        if settings.names == "show" or not any(row.personal for row in scanned):
            return cls()
        given = {"key_file": options.get("key_file", ""), "crosswalk": settings.crosswalk}
        pseudonyms = Pseudonyms.of(NameOptions(names="hide", **given))
        paths = [*settings.inputs, settings.schema_file]
        polygons = (settings.area, *(one for one in (settings.mask, settings.tissue) if is_path(one)))
        if any(polygons):
            from ...readers.vectors import vector_files

            paths += [path for one in polygons for path in (one, *vector_files(one))]
        paths += [path for text in settings.reference for path in (text, text.partition("=")[2])]
        paths += [settings.reader_options.get(option, "") for option in _PATH_OPTIONS]
        paths += further
        for row in scanned:
            paths += [row.path, *(path for info in row.infos for path in _paths(info))]
        found = {path: pseudonyms.path(path) for path in filter(None, paths)}
        if settings.crosswalk:
            found[settings.crosswalk] = pseudonyms.crosswalk_id
        originals = {pseudonym: absolute(path) for path, pseudonym in found.items()}
        redactor = cls(pseudonyms, _replacements(found), originals)
        parts = sorted({info.part for row in scanned for info in row.infos})
        named = {redactor._part(part): part for part in parts if redactor._part(part) != part}
        return replace(redactor, originals=originals | named)

    @classmethod
    def of_sources(cls, sources: Mapping[str, str]) -> Self:
        """The redactor of the texts of a run, from the paths by pseudonym in its `sources.json`."""
        return cls(None, _replacements({path: pseudonym for pseudonym, path in sources.items()}), sources)

    def path(self, path: str) -> str:
        """The pseudonym of a path."""
        return path if self.pseudonyms is None or not path else self.pseudonyms.path(path)

    def text(self, text: str) -> str:
        """A text with all known paths and file names replaced."""
        return redact_text(text, self.replacements)

    def error(self, error: LimnerError) -> LimnerError:
        """An error with all known paths replaced."""
        return redact_error(error, self.replacements)

    def results(self, results: "Iterable[Result]") -> "list[Result]":
        """Results with redacted errors."""
        return [replace(result, error=self.text(result.error)) for result in results]

    def settings(self, settings: Settings) -> Settings:
        """Settings with the paths of inputs and their companions redacted, without options that change nothing."""
        neutral = neutral_options() if settings.reader_options else ()
        options = [item for item in settings.reader_options.items() if item[0] not in neutral]
        changes = {
            "inputs": tuple(self.path(path) for path in settings.inputs),
            "area": self.path(settings.area),
            "crosswalk": "" if self.pseudonyms is None else self.pseudonyms.crosswalk_id,
            "schema_file": self.path(settings.schema_file),
            **{
                name: self.path(value) if is_path(value) else value
                for name, value in (("mask", settings.mask), ("tissue", settings.tissue))
            },
            "reader_options": {key: self.path(value) if key in _PATH_OPTIONS else value for key, value in options},
            "names": "show" if settings.names == "show" else "hide",  # as in all that is written
        }
        return settings.model_copy(update=changes)

    def info(self, info: ImageInfo) -> ImageInfo:
        """An image's metadata without paths; the inverse is `restore_paths`."""
        if self.pseudonyms is None:
            return info
        return replace(
            info,
            uri=self.path(info.uri) if _has_path(info) else info.uri,
            files=tuple(self.path(path) for path in info.files),
            planes=tuple(replace(plane, source=self.path(plane.source)) for plane in info.planes),
            notes=tuple(self.text(note) for note in info.notes),
            part=self._part(info.part),
            study=self.text(info.study),
            facts=tuple((key, self.text(value)) for key, value in info.facts),
            placement=replace(info.placement, source=self.text(info.placement.source)),
        )

    def scanned(self, row: ScannedFile) -> ScannedFile:
        """The row of an input file without paths."""
        infos = tuple(self.info(info) for info in row.infos)
        return replace(row, path=self.path(row.path), infos=infos, reason=self.text(row.reason))

    def plan(self, plan: "Plan") -> "Plan":
        """A plan without paths."""
        if self.pseudonyms is None:
            return plan
        images = tuple(replace(image, info=self.info(image.info)) for image in plan.images)
        files = (replace(row, path=self.path(row.path), reason=self.text(row.reason)) for row in plan.files)
        return replace(plan, images=images, files=tuple(files))

    def restored(self, text: str) -> str:
        """A text with the paths behind its pseudonyms, as a terminal may show it."""
        return restore_text(text, lambda name: visible(self.originals.get(name, name)))

    def _part(self, part: str) -> str:
        """The name of an image within its file; a pseudonym as a whole where it contains a path."""
        return part if self.pseudonyms is None or self.text(part) == part else self.pseudonyms.name(part)


def scan_with_redaction(
    settings: Settings, key: str = "", further: Sequence[str] = ()
) -> tuple[list[ScannedFile], Redactor]:
    """Scan the inputs; the rows hold real paths. From here on the command line's output is redacted as well.

    `key` is the path of a key file for pseudonyms, `further` paths are redacted too. Raises `RequestError`.
    """
    options = reader_options(settings, key)
    if settings.crosswalk:
        read_crosswalk(settings.crosswalk)  # before anything is scanned, also where nothing is personal
    scanned = scan_inputs(settings, options)
    redactor = Redactor.of(settings, scanned, options, further)
    redact_output(redactor, settings.names)
    return scanned, redactor


def unmatched_entries(settings: Settings, scanned: Sequence[ScannedFile], redactor: Redactor) -> str:
    """A sentence on the entries of the crosswalk that match nothing in the inputs, by line; "" where all do."""
    if not settings.crosswalk:
        return ""
    lines = read_crosswalk(settings.crosswalk).lines
    infos = [info for row in scanned for info in row.infos]
    used = {*redactor.originals, *(info.study for info in infos), *(dict(one.facts).get("series_uid") for one in infos)}
    used |= {plane.name for info in infos for plane in info.planes}
    unused = [line for pseudonym, line in lines.items() if pseudonym not in used]
    if not unused:
        return ""
    shown = ", ".join(map(str, unused[:_UNMATCHED])) + (", …" if len(unused) > _UNMATCHED else "")
    entries = "entry" if len(lines) == 1 else "entries"
    return f"{len(unused)} of {len(lines)} {entries} of the crosswalk match nothing in the inputs: lines {shown}."


def redact_output(redactor: Redactor, names: str) -> None:
    """Redact what the command line prints from now on; on an interactive terminal show names if `names` is "auto"."""
    if redactor.pseudonyms is not None:
        shown = redactor.restored if names == "auto" else redactor.text
        hidden = filter_output(terminal=shown, elsewhere=redactor.text)
        if hidden and redactor.pseudonyms.temporary:
            print_message(TEMPORARY)


def restore_paths(info: ImageInfo, sources: Mapping[str, str]) -> ImageInfo:
    """An image's metadata with real paths, where they are known."""
    return replace(
        info,
        uri=sources.get(info.uri, info.uri),
        part=sources.get(info.part, info.part),
        files=tuple(sources.get(path, path) for path in info.files),
        planes=tuple(replace(plane, source=sources.get(plane.source, plane.source)) for plane in info.planes),
    )


@contextlib.contextmanager
def key_for(folder: Path, settings: Settings) -> Generator[str]:
    """The path of a run's key while its inputs are scanned: an existing or a new one; "" where the user gave one.

    A new key is temporary until `write_sources` copies it into the folder: a run that cannot begin leaves nothing.
    """
    given = settings.reader_options.get("key_file")
    if not given and (folder / KEY_FILE).exists():
        yield str(folder / KEY_FILE)
    elif given or os.environ.get(KEY_VARIABLE):
        yield ""
    else:
        with tempfile.TemporaryDirectory(prefix="limner-") as temporary:
            yield str(run_key_file(Path(temporary)))


def write_sources(folder: Path, key: str, sources: Mapping[str, str]) -> None:
    """Write a new key into a run folder and add to its sources, both readable by their owner only."""
    if key and not (folder / KEY_FILE).exists():
        write_atomic(folder / KEY_FILE, Path(key).read_bytes(), private=True)
    known: dict[str, str] = {}
    with contextlib.suppress(StoreError):  # damaged: written anew
        known = read_sources(folder)
    text = json.dumps({**known, **sources}, indent=1, ensure_ascii=True) + "\n"
    write_atomic(folder / SOURCES, text.encode(), private=True)


def keep_refused(folder: Path, key: str, redactor: Redactor) -> str:
    """Write the names of a run that cannot begin, unless the folder holds another run or cannot be written.

    Returns `where_names_are`, "" where nothing was written.
    """
    from .run_folder import RunFolder

    if redactor.pseudonyms is not None and not os.path.lexists(folder / MANIFEST):
        with contextlib.suppress(LimnerError, OSError), RunFolder.open(folder):
            write_sources(folder, key, redactor.originals)
            return where_names_are(folder, key)
    return ""


def where_names_are(folder: Path, key: str) -> str:
    """A sentence on where the names behind the pseudonyms of a run are kept, and its key unless the user has it."""
    names = (
        f"Names are kept in {folder / SOURCES} only, for you alone; `limner reveal {shlex.quote(str(folder))}` lists"
    )
    keep = f"give --reader-options key_file=FILE or set {KEY_VARIABLE}"
    own = f" Their key is {folder / KEY_FILE}; to have the same pseudonyms in several runs, {keep}." if key else ""
    return f"{names} them.{own}"


def read_sources(folder: Path) -> dict[str, str]:
    """The path behind each pseudonym in a run folder; {} where there are none. Raises `StoreError` where damaged."""
    try:
        found: object = parse_json(read_file(folder / SOURCES, regular=True))
        sources: dict[str, Any] = cast("dict[str, Any]", found) if isinstance(found, dict) else {"": None}
        if not all(isinstance(path, str) for path in sources.values()):
            msg = "no JSON object of texts"
            raise ValueError(msg)  # noqa: TRY301 - handled like other damage
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise StoreError(
            str(folder / SOURCES),
            "must be as limner wrote it",
            value=str(error),
            remedy="Run the same command again, which writes it anew, or delete it: only pictures need it",
        ) from error
    return sources


def _replacements(found: Mapping[str, str]) -> dict[str, str]:
    """Pseudonyms by every form of their paths, from those by path."""
    aliases: dict[str, str] = {}
    for path, pseudonym in found.items():
        for form in path_variants(path):
            aliases.setdefault(form, pseudonym)
    return longest_first(aliases)


def _paths(info: ImageInfo) -> list[str]:
    """Every path in an image's metadata."""
    own = [info.uri] if _has_path(info) else []
    return [*own, *info.files, *filter(None, (plane.source for plane in info.planes))]


def _has_path(info: ImageInfo) -> bool:
    """Whether an image's uri is a path; readers that assemble an image from many files may give a name instead."""
    return info.kind != "study" or info.uri in info.files
