"""The index of a run that a server needs: made once, kept in a hidden folder beside the run, never in it."""

import hashlib
import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final

from ...readers.errors import LimnerError
from ...readers.locks import try_lock
from ...reports.html.layers import Layers
from ...reports.html.live_page import PAGE, LivePicture, layers_folder, write_live_page
from ...reports.html.page import assets_digest
from ...reports.writer import Record
from ..progress import EventHandler, Message, Reporting

_PART: Final = ".part-"


@contextmanager
def open_index(
    run: Path, record: Record, pictures: Mapping[str, LivePicture], on_event: EventHandler = lambda _: None
) -> Generator[Path]:
    """The folder with the page and the findings of a run: `.RUN.view/…`, made where it is not there yet.

    An index of an earlier state of the run, or of another version of limner, is deleted. Where nothing can be written
    beside the run, the index is a temporary folder.
    """
    base = index_folder(run)
    folder = base / _key(record)
    if not _is_whole(folder, len(record.images)):
        on_event(Message("Making the index of the findings, once for this run"))
        try:
            base.mkdir(mode=0o700, exist_ok=True)
            _remove_unused(base)
            _make(record, folder, pictures, on_event)
        except OSError:
            with tempfile.TemporaryDirectory(prefix="limner-view-") as temporary:
                folder = Path(temporary) / "index"
                _make(record, folder, pictures, on_event)
                yield folder
            return
    with (folder / PAGE).open("rb") as page:
        with suppress(OSError):  # where the file system has no locks
            try_lock(page, shared=True)
        yield folder


def index_folder(run: Path) -> Path:
    """Where the indices of a run are: hidden, so that no scan of inputs reads its pictures."""
    folder = run.resolve()
    return folder.with_name(f".{folder.name}.view")


def _key(record: Record) -> str:
    parts = (record.run, version("limner"), assets_digest())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _make(record: Record, folder: Path, pictures: Mapping[str, LivePicture], on_event: EventHandler) -> None:
    part = Path(tempfile.mkdtemp(prefix=_PART, dir=folder.parent))
    try:
        write_live_page(record, part, pictures, lambda share: on_event(Reporting("the index", share)))
        part.replace(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        if not _is_whole(folder, len(record.images)):  # another process may have made it meanwhile
            raise


def _is_whole(folder: Path, images: int) -> bool:
    """Whether an index is there, as far as its descriptions tell."""
    if not (folder / PAGE).is_file():
        return False
    try:
        for number in range(images):
            Layers.open(layers_folder(folder, number))
    except (LimnerError, OSError, ValueError, KeyError, TypeError):
        return False
    return True


def _remove_unused(base: Path) -> None:
    """Remove indices of earlier states, and what is left of a damaged one, unless a server has locked its page."""
    for other in base.iterdir():
        if other.name.startswith(_PART):
            continue
        try:
            with (other / PAGE).open("rb") as page:
                used = not try_lock(page)
        except OSError:
            used = False
        if not used:
            shutil.rmtree(other, ignore_errors=True)
