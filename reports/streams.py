"""Reports that are written together, in one pass over the findings of a run."""

from collections.abc import Callable, Container, Generator, Iterable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar, cast, runtime_checkable

from .measures import FindingsBatch, batches
from .writer import ImageFiles, ImageRecord, Record, Writer

T = TypeVar("T")
Stream = Generator[None, FindingsBatch | None, Sequence[Path]]
"""Writes a report of the batches that it is sent, image by image, then None; returns the files.

A batch whose `first` is 1 is the first of its image; an image without findings has one that is empty.
"""


@runtime_checkable
class StreamingWriter(Writer, Protocol):
    """A writer that also takes findings in batches, which it shares with other writers."""

    def stream(self, record: Record, folder: Path) -> Stream:
        """As `write`, of batches."""
        ...


def send(stream: Generator[None, FindingsBatch | None, T], batch: FindingsBatch | None) -> T | None:
    """Send a batch, or None at the end; returns what the stream gives once it has ended."""
    try:
        stream.send(batch)
    except StopIteration as ended:
        return ended.value
    return None


def send_all(stream: Generator[None, FindingsBatch | None, T], every: Iterable[FindingsBatch]) -> T:
    """What a stream gives once it has got all batches, and None."""
    with closing(stream):
        next(stream)
        for batch in every:
            send(stream, batch)
        return cast("T", send(stream, None))


def write_stream(stream: Stream, record: Record) -> Sequence[Path]:
    """Write one report of all findings."""
    return send_all(stream, batches(record))


def stream_per_image(start: Callable[[ImageRecord], Stream], omitted: Container[str] = ()) -> Stream:
    """A stream that consists of one for each image that is not omitted, of which some may fail: see `ImageFiles`."""
    files, stream, image = ImageFiles(), None, None
    try:
        while True:
            batch = yield
            if stream is not None and image is not None and (batch is None or batch.first == 1):
                files.attempt(image, partial(send, stream, None))
                stream = None
            if batch is None:
                return files.finish()
            image = batch.image
            if batch.first == 1 and image.info.id not in omitted:
                stream = start(image)
                stream = stream if files.attempt(image, partial(next, stream)) else None
            if stream is not None and not files.attempt(image, partial(send, stream, batch)):
                stream = None
    finally:
        if stream is not None:
            stream.close()
