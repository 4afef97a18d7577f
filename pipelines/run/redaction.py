"""Replaces paths of slides and studies, which are often case numbers or patient names, by pseudonyms in all output.

The pseudonym of a path is the same wherever it appears in a run. The run folder holds the key, and `sources.json` with
the path behind each pseudonym, so that reports can read images again. Both are readable by their owner only, and must
not be passed on with a run.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, cast

from ...model.finding import Result
from ...readers.errors import LimnerError
from ...readers.files import parse_json, read_file, write_atomic
from ...readers.image import ImageInfo
from ...readers.pseudonyms import (
    KEY_FILE,
    KEY_VARIABLE,
    NameOptions,
    Pseudonyms,
    longest_first,
    path_variants,
    redact_error,
    redact_text,
    run_key_file,
)
from ...readers.registry import ScannedFile
from ...readers.vectors import vector_files
from ..config import Settings
from .plan import Plan, reader_options, scan_inputs
from .run_folder import SOURCES, StoreError

_PATH_OPTIONS = ("key_file", "spacing_csv")  # reader options that are paths


@dataclass(frozen=True, slots=True)
class Redactor:
    """Replaces paths by pseudonyms. Without `pseudonyms` it changes nothing."""

    pseudonyms: Pseudonyms | None = None
    replacements: Mapping[str, str] = field(default_factory=dict[str, str])
    """Pseudonyms by every form in which a path may occur in text."""

    @classmethod
    def of(
        cls, settings: Settings, scanned: Sequence[ScannedFile], options: Mapping[str, str], further: Sequence[str] = ()
    ) -> Self:
        """The redactor of a run. `options` are the readers', with the key; `further` paths are redacted as well.

        Raises `RequestError` for an invalid key.
        """
        if settings.names == "show" or not any(row.personal for row in scanned):
            return cls()
        pseudonyms = Pseudonyms.of(NameOptions(names="hide", key_file=options.get("key_file", "")))
        paths = [*settings.inputs, settings.area, *vector_files(settings.area), settings.schema_file]
        paths += [settings.reader_options.get(option, "") for option in _PATH_OPTIONS]
        paths += further
        for row in scanned:
            paths += [row.path, *(path for info in row.infos for path in _paths(info))]
        replacements: dict[str, str] = {}
        for path in dict.fromkeys(filter(None, paths)):
            for form in path_variants(path):
                replacements.setdefault(form, pseudonyms.path(path))
        return cls(pseudonyms, longest_first(replacements))

    def path(self, path: str) -> str:
        """The pseudonym of a path."""
        return path if self.pseudonyms is None or not path else self.pseudonyms.path(path)

    def text(self, text: str) -> str:
        """A text with all known paths and file names replaced."""
        return redact_text(text, self.replacements)

    def error(self, error: LimnerError) -> LimnerError:
        """An error with all known paths replaced."""
        return redact_error(error, self.replacements)

    def results(self, results: Iterable[Result]) -> list[Result]:
        """Results with redacted errors."""
        return [replace(result, error=self.text(result.error)) for result in results]

    def settings(self, settings: Settings) -> Settings:
        """Settings with the paths of inputs and their companions redacted."""
        options = settings.reader_options.items()
        changes = {
            "inputs": tuple(self.path(path) for path in settings.inputs),
            "area": self.path(settings.area),
            "schema_file": self.path(settings.schema_file),
            "reader_options": {key: self.path(value) if key in _PATH_OPTIONS else value for key, value in options},
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

    def plan(self, plan: Plan) -> Plan:
        """A plan without paths."""
        if self.pseudonyms is None:
            return plan
        images = tuple(replace(image, info=self.info(image.info)) for image in plan.images)
        files = (replace(row, path=self.path(row.path), reason=self.text(row.reason)) for row in plan.files)
        return Plan(images, tuple(files))

    def sources(self, plan: Plan) -> dict[str, str]:
        """The path behind each pseudonym of the images of a plan."""
        if self.pseudonyms is None:
            return {}
        parts = sorted({image.info.part for image in plan.images})
        paths = sorted({path for image in plan.images for path in _paths(image.info)})
        kept = {self._part(part): part for part in parts if self._part(part) != part}
        return kept | {self.path(path): path for path in paths}

    def _part(self, part: str) -> str:
        """The name of an image within its file; a pseudonym as a whole where it contains a path."""
        return part if self.text(part) == part else self.path(part)


def scan_with_redaction(settings: Settings) -> tuple[list[ScannedFile], Redactor]:
    """Scan the inputs; the rows hold real paths. Raises `RequestError`."""
    options = reader_options(settings)
    scanned = scan_inputs(settings, options)
    return scanned, Redactor.of(settings, scanned, options)


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
    """Write a new key and the sources into a run folder, readable by their owner only."""
    if key and not (folder / KEY_FILE).exists():
        write_atomic(folder / KEY_FILE, Path(key).read_bytes(), private=True)
    text = json.dumps(dict(sources), indent=1, ensure_ascii=True) + "\n"
    write_atomic(folder / SOURCES, text.encode(), private=True)


def read_sources(folder: Path) -> dict[str, str]:
    """The path behind each pseudonym in a run folder; {} where there are none. Raises `StoreError` where damaged."""
    try:
        found: object = parse_json(read_file(folder / SOURCES, regular=True))
        sources: dict[str, Any] = cast("dict[str, Any]", found) if isinstance(found, dict) else {"": None}
        if not all(isinstance(path, str) for path in sources.values()):
            msg = "no JSON object of texts"
            raise ValueError(msg)  # noqa: TRY301 - handled like other damage
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StoreError(
            str(folder / SOURCES),
            "must be as limner wrote it",
            value=str(error),
            remedy="Run the same command again, which writes it anew, or delete it: only pictures need it",
        ) from error
    return sources


def _paths(info: ImageInfo) -> list[str]:
    """Every path in an image's metadata."""
    own = [info.uri] if _has_path(info) else []
    return [*own, *info.files, *filter(None, (plane.source for plane in info.planes))]


def _has_path(info: ImageInfo) -> bool:
    """Whether an image's uri is a path; readers that assemble an image from many files may give a name instead."""
    return info.kind != "study" or info.uri in info.files
