"""Names of the files of a run folder, and the error of its store: what can be told of a folder without reading it."""

import contextlib
import os
from collections.abc import Generator
from pathlib import Path
from typing import Final

from ...readers.errors import LimnerError

MANIFEST = "manifest.json"
RESULTS = "results.jsonl"
SOURCES = "sources.json"
OVERVIEWS = "overviews"
REVIEWS: Final = ".reviews"
"""What the folder with the reviews of a run has after its name."""


class StoreError(LimnerError):
    """A run folder cannot be written, or holds something damaged. Results so far are not lost."""


def is_run_folder(folder: Path) -> bool:
    """Whether a folder has the files of a run."""
    return os.path.isfile(folder / MANIFEST) and os.path.isfile(folder / RESULTS)  # noqa: PTH113 - False for any error


@contextlib.contextmanager
def as_store_errors(folder: Path) -> Generator[None, None, None]:
    """Raise `StoreError` for the errors of the operating system."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: an impossible file name
        raise as_store_error(folder, error) from error


def as_store_error(path: Path, error: OSError | ValueError) -> StoreError:
    """The `StoreError` for an error of the operating system."""
    return StoreError(
        str(path),
        "must be readable and writable",
        value=(error.strerror if isinstance(error, OSError) else "") or str(error),
        remedy="Free disk space or grant access, then run the same command again: it resumes the run",
    )
