"""Lists the names behind the pseudonyms of a run.

Paths are in the run's private `sources.json`. Identifiers of studies are kept nowhere: they are read from the inputs
again, and matched under the run's key.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ...readers.errors import RequestError
from ...readers.files import DICOMWEB, is_fetched, is_remote, write_atomic
from ...readers.image import ImageInfo
from ...readers.kinds import KEY_VARIABLE
from ...readers.pseudonyms import KEY_FILE, NameOptions, Pseudonyms
from ...readers.registry import scan
from ...reports.csv_safety import csv_cell
from .manifest import load_manifest
from .redaction import read_sources
from .run_files import MANIFEST, SOURCES, as_store_errors
from .run_folder import encode_json

_CROSSWALK = re.compile(r"crosswalk-[0-9a-f]{16}")
GONE = "its files are no longer where the run read them"


@dataclass(frozen=True, slots=True)
class RevealedName:
    """A pseudonym with its original: a row of the table."""

    kind: Literal["file", "study", "series", "instance"]
    """What it names; a folder or a part of a file is listed as a file."""
    pseudonym: str
    original: str
    """The absolute path or the UID; "" where it is missing."""
    image: str = ""
    """Ids of the run's images that it belongs to, separated by commas."""
    missing: str = ""
    """Why there is no original."""


def reveal(folder: Path, key_file: str = "", crosswalk: str = "") -> list[RevealedName]:
    """The names of a run, also of one that was refused: files first, then studies, series and instances.

    `key_file` is needed where the run's key is neither in its folder nor in the environment, `crosswalk` where that of
    the run has been moved. Raises `RequestError` where the folder holds no pseudonyms, or the key or the crosswalk is
    another one, `StoreError` where it is damaged.
    """
    sources = read_sources(folder)
    manifest = load_manifest(folder) if (folder / MANIFEST).exists() or not sources else {}
    infos = [ImageInfo.from_json(image["info"]) for image in manifest.get("images", [])]
    infos = [info for info in infos if info.personal]
    if manifest.get("config", {}).get("names") == "show" or not (sources or infos):
        remedy = "Its names are shown in its own files, such as files.csv"
        raise RequestError(str(folder), "must be a run whose names are pseudonyms", remedy=remedy)
    pseudonyms = _key(folder, manifest, sources, key_file, crosswalk)
    images = _images(manifest, infos)
    missing = "" if sources else f"{SOURCES} is gone"
    names = {**dict.fromkeys(images, ""), **sources}
    files = [
        RevealedName("file", key, path, images.get(key, ""), "" if path else missing) for key, path in names.items()
    ]
    return sorted(files, key=lambda row: (row.original, row.pseudonym)) + list(
        _identifiers(infos, _read_again(manifest, sources, pseudonyms) if infos else {})
    )


def check_private(path: Path) -> None:
    """Raise `RequestError` where a file exists or would lie in a run folder, which is passed on with its reports."""
    check_outside_runs(path, "--out")
    if path.is_symlink() or path.exists():
        raise RequestError(str(path), "must be a new file", remedy="Remove it, or give another --out")


def check_outside_runs(path: Path, flag: str) -> None:
    """Raise `RequestError`, which names the flag, where a file would lie in a run folder."""
    for above in path.resolve().parents:
        if any((above / name).exists() for name in (MANIFEST, SOURCES)):
            rule, remedy = "must lie outside of run folders, since reports are passed on", f"Give another {flag}"
            raise RequestError(str(path), rule, value=f"a file in {above}", remedy=remedy)


def write_revealed(rows: list[RevealedName], path: Path) -> None:
    """Write the table as CSV, readable by its owner only.

    Raises `RequestError` as `check_private` does, and `StoreError` where it cannot be written.
    """
    check_private(path)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(RevealedName))
    writer.writerows(map(csv_cell, astuple(row)) for row in rows)
    with as_store_errors(path):
        write_atomic(path, encode_json(text.getvalue()), private=True)


def _key(
    folder: Path, manifest: Mapping[str, Any], sources: Mapping[str, str], key_file: str, crosswalk: str
) -> Pseudonyms:
    """The run's key and crosswalk. Raises `RequestError` where one is missing, or gives other pseudonyms."""
    stated = manifest.get("config", {}).get("reader_options", {}).get("key_file", "")
    candidates = [key_file] if key_file else [str(folder / KEY_FILE), sources.get(stated, "")]
    found = next((path for path in candidates if path and (key_file or Path(path).is_file())), "")
    used = manifest.get("config", {}).get("crosswalk", "") or next(filter(_CROSSWALK.fullmatch, sources), "")
    own = crosswalk or sources.get(used, "")
    if used and not (own and (crosswalk or Path(own).is_file())):
        raise RequestError(f"the crosswalk of {folder}", "must be given", remedy="Give --crosswalk FILE as for the run")
    pseudonyms = Pseudonyms.of(NameOptions(key_file=found, crosswalk=own if used else ""))
    rule, remedy = "must be given", f"Give --key-file FILE or set {KEY_VARIABLE} as for the run"
    if pseudonyms.temporary:
        raise RequestError(f"the key of {folder}", rule, remedy=remedy)
    if used and pseudonyms.crosswalk_id != used:
        remedy = "Give --crosswalk FILE and the key as for the run"
        raise RequestError(f"the crosswalk of {folder}", "must be that of the run", value="another one", remedy=remedy)
    if sources and not any(key in {pseudonyms.path(path), pseudonyms.name(path)} for key, path in sources.items()):
        raise RequestError(f"the key of {folder}", "must be that of the run", value="another one", remedy=remedy)
    return pseudonyms


def _images(manifest: Mapping[str, Any], infos: list[ImageInfo]) -> dict[str, str]:
    """The ids of images by pseudonym of a file, for every file of a run."""
    found = {row["path"]: row["image"] for row in manifest.get("files", [])}
    ids: dict[str, dict[str, None]] = {}
    for info in infos:
        for path in (info.uri, *info.files, *(plane.source for plane in info.planes)):
            if path and not path.startswith("dicom:"):
                ids.setdefault(path, {})[info.id] = None
    return found | {path: ", ".join(several) for path, several in ids.items()}


def _read_again(manifest: Mapping[str, Any], sources: Mapping[str, str], pseudonyms: Pseudonyms) -> dict[str, str]:
    """UIDs of the run's studies by pseudonym, from its inputs as far as they are there."""
    inputs = [sources.get(path, "") for path in manifest["config"]["inputs"]]
    present = [path for path in inputs if path and (is_remote(path) or Path(path).exists())]
    present = [path for path in present if not path.startswith(DICOMWEB)]  # no server is asked again
    present += sorted({str(Path(path).parent) for path in sources.values() if is_fetched(path) and Path(path).exists()})
    infos = [info for row in scan(present, {"names": "show"}) for info in row.infos if info.kind == "study"]
    uids = {(kind, uid) for info in infos for (kind, _), uid in _uids(info).items()}
    return {pseudonyms.uid(uid, kind): uid for kind, uid in uids}


def _uids(info: ImageInfo) -> dict[tuple[str, int], str]:
    """The identifiers of a study's image, by kind and number."""
    instances = {("instance", number): plane.name for number, plane in enumerate(info.planes)}
    found = {("study", 0): info.study, ("series", 0): dict(info.facts).get("series_uid", ""), **instances}
    return {key: uid for key, uid in found.items() if uid}


def _identifiers(infos: list[ImageInfo], originals: Mapping[str, str]) -> Iterator[RevealedName]:
    """Rows for studies, then series, then instances."""
    for kind in ("study", "series", "instance"):
        ids: dict[str, dict[str, None]] = {}
        for info in (info for info in infos if info.kind == "study"):
            for (what, _), pseudonym in _uids(info).items():
                if what == kind:
                    ids.setdefault(pseudonym, {})[info.id] = None
        for pseudonym, images in ids.items():
            original = originals.get(pseudonym, "")
            yield RevealedName(kind, pseudonym, original, ", ".join(images), "" if original else GONE)
