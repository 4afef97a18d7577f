"""What identifies a file's bytes without reading all of them."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from .errors import ReadError
from .image import ImageInfo

MIB = 2**20


def is_remote(uri: str) -> bool:
    """Whether a name is read through a network or a GDAL virtual file system, not as a path on this machine."""
    return uri.startswith("/vsi") or "://" in uri


def require_local(uri: str) -> None:
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


def has_changed(info: ImageInfo) -> bool:
    """Whether an image's files hold other bytes than when it was scanned; False where they are remote, or it has none.

    Raises `ReadError` where they are gone.
    """
    present = [name for name in info.files if os.path.isfile(name)]  # noqa: PTH113 - False for any error
    return bool(info.fingerprint and info.files) and fingerprint(present or info.files) != info.fingerprint
