"""What identifies a file's bytes without reading all of them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from .errors import ReadError

MIB = 2**20


def is_remote(uri: str) -> bool:
    """Whether a name is read through a network or a GDAL virtual file system, not as a path on this machine."""
    return uri.startswith("/vsi") or "://" in uri


def local_only(uri: str) -> None:
    """Raise `ReadError` for a slide that does not lie on this machine."""
    if is_remote(uri):
        raise ReadError(
            uri,
            "a slide is read from a file of this machine",
            remedy="Copy it here, with the files that belong beside it",
        )


def fingerprint(files: Sequence[str]) -> str:
    """The sha256, in hexadecimal, over each file's size, first MiB and last MiB, in the order given.

    Scenes are gigabytes, and a rewritten file changes its size, its header or its last block in all but contrived
    cases. "" where any file is remote. Raises `ReadError` where a file cannot be read.
    """
    if any(is_remote(name) for name in files):
        return ""
    digest = hashlib.sha256()
    for name in files:
        try:
            with Path(name).open("rb") as file:
                size = file.seek(0, 2)
                file.seek(0)
                digest.update(size.to_bytes(8, "little") + file.read(MIB))
                file.seek(max(0, size - MIB))
                digest.update(file.read(MIB))
        except OSError as error:
            raise ReadError(name, "it must be readable", value=str(error), remedy="Check the path and rights") from None
    return digest.hexdigest()
