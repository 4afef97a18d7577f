"""What files are called in public: paths of slides and studies are often case numbers or names of people.

A run that reads any of those tells no path, unless asked to: each is told as a pseudonym, the same wherever it is told.
The key to them lies in the run's folder, and beside it `sources.json`, which says which path each stands for, so that a
report can look at an image again. Both are readable by their owner only, and never to be given away with a run.
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
from ...reports.writer import FileRow
from ..config import Settings
from .plan import Plan, reading_options, scan_inputs
from .run_folder import SOURCES, StoreError

_PATHS = ("key_file", "spacing_csv")  # reader options that are paths


@dataclass(frozen=True, slots=True)
class Redactor:
    """How paths are told. `told` maps a path, in each form in which it may be met, to what is told instead.

    Without `pseudonyms` everything is told as it is.
    """

    pseudonyms: Pseudonyms | None = None
    told: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(
        cls,
        settings: Settings,
        scanned: Sequence[ScannedFile],
        options: Mapping[str, str],
        further: Sequence[str] = (),
    ) -> Self:
        """The names of a run. `options` are the reader's, with the key in them; `further` are paths that lie beside.

        Raises `RequestError` for a bad key.
        """
        if settings.names == "show" or not any(row.personal for row in scanned):
            return cls()
        pseudonyms = Pseudonyms.of(NameOptions(names="hide", key_file=options.get("key_file", "")))
        beside = [settings.area, settings.schema_file, *(settings.reader_options.get(option, "") for option in _PATHS)]
        paths = [*settings.inputs, *filter(None, beside), *further, *(path for row in scanned for path in _paths(row))]
        told: dict[str, str] = {}
        for path in dict.fromkeys(paths):
            for form in path_variants(path):
                told.setdefault(form, pseudonyms.path(path))
        return cls(pseudonyms, longest_first(told))

    def path(self, path: str) -> str:
        """What is told instead of a path."""
        return path if self.pseudonyms is None or not path else self.pseudonyms.path(path)

    def text(self, text: str) -> str:
        """A text, with every path in it that is known, and every known file's bare name, told as its pseudonym."""
        return redact_text(text, self.told)

    def error(self, error: LimnerError) -> LimnerError:
        """An error whose words tell no path."""
        return redact_error(error, self.told)

    def results(self, results: Iterable[Result]) -> list[Result]:
        """Results whose reasons tell no path."""
        return [replace(result, error=self.text(result.error)) for result in results]

    def settings(self, settings: Settings) -> Settings:
        """Settings without paths of inputs and of what belongs to them."""
        options = {key: self.path(value) if key in _PATHS else value for key, value in settings.reader_options.items()}
        inputs = tuple(self.path(path) for path in settings.inputs)
        told = {"inputs": inputs, "area": self.path(settings.area), "schema_file": self.path(settings.schema_file)}
        return settings.model_copy(update={**told, "reader_options": options})

    def info(self, info: ImageInfo) -> ImageInfo:
        """An image's facts without paths: `reveal` is the inverse."""
        if self.pseudonyms is None:
            return info
        return replace(
            info,
            uri=self.path(info.uri) if _is_path(info) else info.uri,
            files=tuple(self.path(path) for path in info.files),
            planes=tuple(replace(plane, source=self.path(plane.source)) for plane in info.planes),
            notes=tuple(self.text(note) for note in info.notes),
            part=self._part(info.part),
            study=self.text(info.study),
            facts=tuple((key, self.text(value)) for key, value in info.facts),
            placement=replace(info.placement, source=self.text(info.placement.source)),
        )

    def scanned(self, row: ScannedFile) -> ScannedFile:
        """What became of an input file, told without paths."""
        infos = tuple(self.info(info) for info in row.infos)
        return replace(row, path=self.path(row.path), infos=infos, reason=self.text(row.reason))

    def plan(self, plan: Plan) -> Plan:
        """A plan without paths."""
        if self.pseudonyms is None:
            return plan
        images = tuple(replace(image, info=self.info(image.info)) for image in plan.images)
        return Plan(images, tuple(self._row(row) for row in plan.files))

    def sources(self, plan: Plan) -> dict[str, str]:
        """Which path each pseudonym of a plan's images stands for."""
        if self.pseudonyms is None:
            return {}
        paths = {path for image in plan.images for path in _all(image.info)}
        parts = {image.info.part for image in plan.images}
        kept = {self._part(part): part for part in sorted(parts) if self._part(part) != part}
        return kept | {self.path(path): path for path in sorted(paths)}

    def _part(self, part: str) -> str:
        """The name of an image within its file, as a whole a pseudonym where a path is in it."""
        return part if self.text(part) == part else self.path(part)

    def _row(self, row: FileRow) -> FileRow:
        return replace(row, path=self.path(row.path), reason=self.text(row.reason))


def scan_with_redaction(settings: Settings) -> tuple[list[ScannedFile], Redactor]:
    """What the inputs are, with their paths, and how these are told. Raises `RequestError`."""
    options = reading_options(settings)
    scanned = scan_inputs(settings, options)
    return scanned, Redactor.of(settings, scanned, options)


def reveal(info: ImageInfo, sources: Mapping[str, str]) -> ImageInfo:
    """An image's facts with the paths by which it is opened, where they are known."""
    return replace(
        info,
        uri=sources.get(info.uri, info.uri),
        part=sources.get(info.part, info.part),
        files=tuple(sources.get(path, path) for path in info.files),
        planes=tuple(replace(plane, source=sources.get(plane.source, plane.source)) for plane in info.planes),
    )


@contextlib.contextmanager
def key_for(folder: Path, settings: Settings) -> Generator[str]:
    """The path of a run's key while its inputs are looked at: its own, or a new one; "" where the person gave one.

    A new one lies elsewhere until `keep` takes it into the folder: a run that cannot begin leaves nothing behind.
    """
    if settings.reader_options.get("key_file"):
        yield ""
    elif (folder / KEY_FILE).exists():
        yield str(folder / KEY_FILE)
    elif os.environ.get(KEY_VARIABLE):
        yield ""
    else:
        with tempfile.TemporaryDirectory(prefix="limner-") as temporary:
            yield str(run_key_file(Path(temporary)))


def keep(folder: Path, key: str, sources: Mapping[str, str]) -> None:
    """Put the key, where it is new, and the sources into a run's folder, readable by their owner only."""
    if key and not (folder / KEY_FILE).exists():
        write_atomic(folder / KEY_FILE, Path(key).read_bytes(), private=True)
    text = json.dumps(dict(sources), indent=1, ensure_ascii=True) + "\n"
    write_atomic(folder / SOURCES, text.encode(), private=True)


def read_sources(folder: Path) -> dict[str, str]:
    """Which path each pseudonym in a run's folder stands for; nothing where the run tells paths or has lost them.

    Raises `StoreError` where it cannot be told, since the file is damaged.
    """
    try:
        found: object = parse_json(read_file(folder / SOURCES, regular=True))
        if not isinstance(found, dict) or not all(
            isinstance(one, str) for one in cast("dict[str, Any]", found).values()
        ):
            msg = "no object of texts"
            raise ValueError(msg)  # noqa: TRY301 - a text that is no such file
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StoreError(
            str(folder / SOURCES),
            "it must be as it was written",
            value=str(error),
            remedy="Give the command of the run again, which writes it anew, or delete it: only pictures need it",
        ) from error
    return cast("dict[str, str]", found)


def _paths(row: ScannedFile) -> list[str]:
    return [row.path, *(path for info in row.infos for path in _all(info))]


def _all(info: ImageInfo) -> list[str]:
    """Every path in an image's facts."""
    own = [info.uri] if _is_path(info) else []
    return [*own, *info.files, *filter(None, (plane.source for plane in info.planes))]


def _is_path(info: ImageInfo) -> bool:
    """Whether an image's uri is a path: a reader that puts images together from many files may tell a name instead."""
    return info.kind != "study" or info.uri in info.files
