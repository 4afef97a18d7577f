"""Verifies a run folder: what is damaged, what has changed since, and which of its files hold names or show labels."""

import contextlib
import json
import mmap
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

from ...readers.errors import LimnerError
from ...readers.files import fingerprint, is_remote
from ...readers.formats import Format, recognise
from ...readers.image import ImageInfo
from ...readers.pseudonyms import KEY_FILE, NameOptions, Pseudonyms, path_variants
from ...readers.registry import readers
from ...reports.dicom.objects import report_of
from ...reports.html.embedding import block_contents
from ..cli.terminal import plural
from .cloud_mask import FOLDER as CLOUDS
from .dicom_objects import OBJECTS
from .kept_overviews import KeptOverviews, damaged_overviews
from .manifest import load_manifest
from .parts import PARTS
from .plan import ImagePlan
from .receipts import SENT
from .redaction import Redactor, read_sources, redact_output, restore_paths
from .reporting import load_writers, read_record, write_reports
from .run_files import MANIFEST, OVERVIEWS, RESULTS, SOURCES
from .run_folder import has_checksum, read_chunks, read_entries, read_findings, read_manifest

_OWN: Final = {MANIFEST, RESULTS, SOURCES, KEY_FILE, OBJECTS, SENT}  # and the parts
_HEAD: Final = 4096
_WORD: Final = re.compile(rb"[\w\x80-\xff]+")
_PSEUDONYM: Final = re.compile(r"file-[0-9a-f]{16}(\.[a-z]+)?|dicom:.*")

Status = Literal["right", "note", "fault"]


@dataclass(frozen=True, slots=True)
class Verified:
    """The outcome of one check."""

    status: Status
    check: str
    """manifest, version, results, inputs, overviews, reports, names, labels or private files."""
    text: str


def verify(folder: Path) -> list[Verified]:
    """Every check of a run folder. Writes nothing in it. Raises `RequestError` where it is none.

    Where the manifest is damaged, nothing else can be verified. From here on the command line's output is redacted.
    """
    try:
        manifest = read_manifest(folder)
    except LimnerError as error:
        if not (folder / MANIFEST).exists():
            raise
        return [Verified("fault", "manifest", str(error))]
    fault = ""
    try:
        load_manifest(folder)
    except LimnerError as error:
        fault = str(error)
    found = [
        Verified("right", "manifest", "is whole, by its sha256")
        if has_checksum(folder)
        else Verified("note", "manifest", "has no sha256, as in earlier versions: a change of it is not noticed")
    ]
    sources, problem = _sources(folder)
    try:
        found.append(_version(manifest))
        images = [ImageInfo.from_json(image["info"]) for image in manifest["images"]]
        unsafe = _ClearNames.of(manifest, images, sources)
    except (AttributeError, KeyError, TypeError, ValueError):
        if not fault:
            raise
        return [Verified("fault", "manifest", fault)]
    found += problem
    redact_output(unsafe.redactor(folder), "auto")
    if fault:
        found.append(Verified("fault", "manifest", fault))
    else:
        results, inputs = list(_results(folder, manifest)), list(_inputs(images, sources))
        found += results + inputs
        found += _overviews(folder)
        if any(one.status == "right" for one in results):  # else no report can be written again
            found += _reports(folder, manifest, intact=all(one.status == "right" for one in inputs))
    return [*found, *unsafe.verified(folder), *_private_files(folder, images, manifest)]


def _sources(folder: Path) -> tuple[Mapping[str, str], list[Verified]]:
    """The paths behind pseudonyms, and what is wrong with their file."""
    try:
        return read_sources(folder), []
    except LimnerError as error:
        return {}, [Verified("fault", "private files", str(error))]


def _version(manifest: Mapping[str, Any]) -> Verified:
    made, here = manifest["versions"]["limner"], version("limner")
    text = f"made by limner {made}"
    return (
        Verified("right", "version", text) if made == here else Verified("note", "version", f"{text}; this is {here}")
    )


def _results(folder: Path, manifest: Mapping[str, Any]) -> Iterator[Verified]:
    """Whether every line is whole, and every region has a result."""
    try:
        entries = read_entries(folder)
        lines = list(entries.values())
        for start in range(0, len(lines), 256):
            read_findings(folder, lines[start : start + 256])
    except LimnerError as error:
        yield Verified("fault", "results", str(error))
        return
    planned = {region.key for image in manifest["images"] for region in ImagePlan.from_json(image).regions}
    failed = sum(entry.status == "failed" for entry in entries.values())
    outcomes: tuple[tuple[int, Status, str], ...] = (
        (len(entries.keys() - planned), "fault", "results of regions that are not in the plan"),
        (len(planned - entries.keys()), "note", "regions without a result: the run was interrupted and can be resumed"),
        (failed, "note", "regions failed: the same command tries them again"),
    )
    for count, status, text in outcomes:
        if count:
            yield Verified(status, "results", f"{count} {text}")
    yield Verified("right", "results", f"{len(entries)} of {len(planned)} regions, every line with its sha256")


def _inputs(images: Sequence[ImageInfo], sources: Mapping[str, str]) -> Iterator[Verified]:
    """Whether the images are still those that were analysed."""
    for info in images:
        files = restore_paths(info, sources).files
        if not info.fingerprint or any(map(is_remote, files)):
            yield Verified("note", "inputs", f"{info.id} has no fingerprint, since it is remote or in memory")
            continue
        try:
            same = fingerprint(files) == info.fingerprint
        except LimnerError:
            yield Verified("note", "inputs", f"{info.id} is gone: its files are no longer where the run read them")
            continue
        text = "is unchanged" if same else "has changed since the run"
        text = f"{info.id} {text}, by the sha256 of its size, first and last MiB"
        yield Verified("right" if same else "fault", "inputs", text)


def _overviews(folder: Path) -> Iterator[Verified]:
    """Whether the overviews that are kept are whole; reports are written again without them."""
    found = damaged_overviews(folder)
    for name in (name for name, damaged in found.items() if damaged):
        yield Verified("note", "overviews", f"{OVERVIEWS}/{name} is damaged: it is read from the image again")
    if whole := len(found) - sum(found.values()):
        yield Verified("right", "overviews", f"{plural(whole, 'kept overview')}, each by its sha256")


def _reports(folder: Path, manifest: Mapping[str, Any], *, intact: bool) -> Iterator[Verified]:
    """Whether the reports are those that this version writes from the results, byte for byte."""
    config = manifest["config"]
    names, options = config["reports"], config.get("report_options")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    files = {name for name in files - _OWN if not name.startswith((f"{PARTS}/", f"{OVERVIEWS}/", f"{CLOUDS}/"))}
    files = {name for name in files if not Path(name).name.startswith(".part-")}
    with tempfile.TemporaryDirectory(prefix="limner-") as temporary:
        again = Path(temporary)
        asked = _write_again(folder, again, names, options)
        if not files <= asked:
            _write_again(folder, again, [], options)
            for report in sorted(set(map(report_of, files - asked)) - {""}):
                _write_again(folder, again, [report], options)
        for name in sorted(files | asked):
            if name not in files:
                yield Verified("note", "reports", f"{name} is missing: `limner report` writes it")
            elif not (again / name).is_file():
                why = "" if intact else ", perhaps since an input is gone or has changed"
                yield Verified("note", "reports", f"{name} is no report that this version writes of this run{why}")
            elif (again / name).read_bytes() == (folder / name).read_bytes():
                yield Verified("right", "reports", f"{name} is the same when it is written again")
            else:
                yield Verified("fault" if intact else "note", "reports", f"{name} differs when it is written again")


def _write_again(folder: Path, again: Path, names: Sequence[str], options: Mapping[str, str] | None) -> set[str]:
    """Write reports elsewhere; returns their names."""
    for _ in write_reports(read_record(folder, overviews=KeptOverviews()), again, load_writers(names, options)):
        pass
    return {path.relative_to(again).as_posix() for path in again.rglob("*") if path.is_file()}


@dataclass(frozen=True, slots=True)
class _ClearNames:
    """Names of slides and studies that a run holds as they are, though it should not."""

    paths: tuple[str, ...]
    """Personal paths that the manifest holds."""
    labels: Mapping[str, str]
    """Ids of images whose pictures may show a label → why."""
    hidden: Mapping[str, str]
    """Paths by pseudonym that no shared file should hold."""
    ids: tuple[str, ...]
    """Ids of images that were made from a name."""

    @classmethod
    def of(cls, manifest: Mapping[str, Any], images: Sequence[ImageInfo], sources: Mapping[str, str]) -> "_ClearNames":
        """Compare a run with what today's formats say of its files."""
        if manifest["config"].get("names") == "show":
            return cls((), {}, {}, ())
        known, labels, own = readers(), dict[str, str](), bool(manifest["config"].get("crosswalk"))
        paths: dict[str, None] = {}
        ids: list[str] = []
        for info in images:
            clear = [path for path in (info.uri, *info.files) if not _is_hidden(path, own=own)]
            found = _format_of(sources.get(info.uri, info.uri))
            if clear and (info.personal or (found is not None and found.personal)):
                paths |= dict.fromkeys(clear)
                ids.append(info.id)
            if found is not None and found.strict and not found.read_by(info.reader, known.get(info.reader)):
                labels[info.id] = f"it was read by {info.reader}, which does not read {found.name}"
        for row in manifest["files"]:
            found = None if _is_hidden(row["path"], own=own) else _format_of(row["path"])
            if found is not None and found.personal:
                paths[row["path"]] = None
        return cls(tuple(paths), labels, {key: path for key, path in sources.items() if key != path}, tuple(ids))

    def redactor(self, folder: Path) -> Redactor:
        """Replaces the names in messages, those of reports too."""
        key = folder / KEY_FILE
        pseudonyms = Pseudonyms.of(NameOptions(key_file=str(key) if key.is_file() else ""))
        files = [path.name for path in folder.iterdir() if any(image in path.name for image in self.ids)]
        texts = {pseudonyms.name(text): text for text in (*files, *self.ids)}
        found = Redactor.of_sources({**self.hidden, **{pseudonyms.path(path): path for path in self.paths}, **texts})
        return Redactor(pseudonyms, found.replacements, found.originals) if found.originals else Redactor()

    def verified(self, folder: Path) -> Iterator[Verified]:
        """Every file with a name or a label, else that there is none."""
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in {SOURCES, KEY_FILE})
        for image, why in self.labels.items():
            for path in (path for path in files if image in path.name):
                text = f"{path.name} may show the label of {image} with a name on it, since {why}: delete it"
                yield Verified("fault", "labels", text)
        for path in (path for path in files if report_of(path.name)):
            text = f"{path.name} identifies the patient, as was asked for with --reports {report_of(path.name)}"
            yield Verified("note", "names", f"{text}: do not pass it on with the other reports")
        files = [path for path in files if not report_of(path.name)]
        variants = _search_terms([*self.paths, *self.hidden.values()])
        pixels = folder / OVERVIEWS  # whose bytes are not searched
        clear = [path for path in files if any(image in path.name for image in self.ids)]
        clear += [path for path in files if path not in clear and path.parent != pixels and _mentions(path, variants)]
        clear += [folder / PARTS] if _found(_stored_texts(folder), variants) else []
        for path in clear:
            yield Verified("fault", "names", f"{path.name} holds the name of a slide or study: do not pass it on")
        if not clear and (self.hidden or self.paths):
            yield Verified("right", "names", f"none of {len(self.hidden)} names is in any file but {SOURCES}")


def _is_hidden(path: str, *, own: bool) -> bool:
    """Whether a path is a pseudonym; with a crosswalk of the user's `own`, any name without a folder is one."""
    return bool(_PSEUDONYM.fullmatch(path)) or (own and "/" not in path)


def _format_of(path: str) -> Format | None:
    """The format of a file by its first bytes, by its name alone where it is gone."""
    try:
        with Path(path).open("rb") as file:
            return recognise(path, file.read(_HEAD))
    except (OSError, ValueError):
        return recognise(path, b"")


def _search_terms(paths: Sequence[str]) -> dict[bytes, bytes]:
    """What to search for, with its longest word: names and stems of files, but no mere numbers."""
    texts = {text for path in paths for text in path_variants(path) if not re.fullmatch(r"[\d.,:-]*|.*/.*", text)}
    terms: dict[bytes, bytes] = {}
    for text in texts:
        for term in (text.encode("utf-8", "surrogateescape"), json.dumps(text)[1:-1].encode()):
            terms[term] = max(_WORD.findall(term), key=len, default=b"")
    return terms


def _mentions(path: Path, terms: Mapping[bytes, bytes]) -> bool:
    """Whether a file holds one of the terms, where it stands alone."""
    if not terms or not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        blocks = block_contents(content[:]) if path.suffix == ".html" else ()
        return _found(content, terms) or any(_found(block, terms) for block in blocks)


def _found(content: bytes | mmap.mmap, terms: Mapping[bytes, bytes]) -> bool:
    """Whether a text holds one of the terms, where it stands alone."""
    words = {found[0] for found in _WORD.finditer(content)}
    near = (term for term, word in terms.items() if word in words)
    return any(re.search(rb"(?<![\w.-])" + re.escape(term) + rb"(?![\w-])", content) for term in near)


def _stored_texts(folder: Path) -> bytes:
    """The texts of all findings, a line each: in the parts nothing stands between them."""
    texts: set[str] = set()
    with contextlib.suppress(LimnerError):  # told by `_results`
        for chunk in read_chunks(folder, read_entries(folder).values()):
            table = chunk.read()
            for column in (table.label, table.text, *table.notes.values()):
                texts.update(text for text in column if text)
            texts.update((*table.numbers, *table.notes))
    return "\n".join(sorted(texts)).encode("utf-8", "surrogatepass")


def _private_files(folder: Path, images: Sequence[ImageInfo], manifest: Mapping[str, Any]) -> Iterator[Verified]:
    """Whether the crosswalk and the key are there, for their owner only."""
    objects = sorted(path.name for path in folder.iterdir() if report_of(path.name))
    for name in (SOURCES, KEY_FILE, OBJECTS, SENT, *objects):
        path = folder / name
        if not path.exists():
            continue
        if path.stat().st_mode & 0o077:
            yield Verified("fault", "private files", f"{name} can be read by others: chmod 600 {name}")
        else:
            yield Verified("right", "private files", f"{name} can be read by its owner only")
    hidden = manifest["config"].get("names") != "show" and any(info.personal for info in images)
    if hidden and not (folder / SOURCES).exists():
        yield Verified("note", "private files", f"{SOURCES} is gone: names and pictures cannot be had again")
