"""The joined findings of images, and the objects that are made of them."""

import tempfile
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
from shapely.errors import ShapelyError

from ...model.findings_table import Chunk, FindingsTable, Objects, objects
from ...model.merged_findings import MergedFindings
from ...model.merging import merge_chunks
from ...readers.errors import excerpt
from ...readers.image import ImageInfo
from ...reports.csv_safety import clean_text
from ...reports.writer import Change
from ..object_settings import ObjectSettings
from .analysed import MaskedCores
from .parts import PartWriter, StoredChunk
from .plan import ImagePlan
from .refining import Refiner
from .run_files import StoreError
from .run_folder import Entry

_KEPT: Final = 1_000_000  # findings whose order is kept, 12 bytes each
_IN_MEMORY: Final = 50_000  # findings of an image, made by joining or as objects, that are kept in memory


@dataclass(slots=True)
class _Objects:
    """What was made of an image's findings."""

    findings: MergedFindings
    changes: tuple[Change, ...]


@dataclass(slots=True)
class FindingsCache:
    """The findings of images, of which those that were asked for last are kept."""

    source: str
    """Named in errors."""
    chunks: Callable[[Sequence[Entry]], Sequence[Chunk]]
    settings: ObjectSettings = field(default_factory=ObjectSettings)
    merged: OrderedDict[str, _Objects] = field(default_factory=OrderedDict[str, _Objects])
    """By image; what they hold of the parts is forgotten when another one is asked for."""

    def get(
        self,
        plan: ImagePlan,
        entries: Sequence[Entry],
        original: Callable[[], ImageInfo],
        masked: MaskedCores | None = None,
    ) -> tuple[MergedFindings, tuple[Change, ...]]:
        """The findings of an image, and what the settings of objects changed of them. Raises `StoreError`.

        `original` gives the image's metadata with real paths, `masked` what a mask excludes.
        """
        name = plan.info.id
        if next(reversed(self.merged), None) != name:
            for other in self.merged.values():
                other.findings.forget()
        if name not in self.merged:
            while self.merged and sum(len(one.findings) for one in self.merged.values()) > _KEPT:
                self.merged.popitem(last=False)
            try:
                chunks = [_Placed(chunk, plan.info) for chunk in self.chunks(entries)]
                with _keeping() as keep:
                    found = merge_chunks(chunks, plan.info, plan.area, keep)
                with _keeping() as keep:
                    self.merged[name] = _Objects(*Refiner(plan, self.settings, keep, original, masked)(found))
            except (ShapelyError, ValueError) as error:
                raise StoreError(
                    self.source,
                    f"must hold valid geometries on {name}",
                    value=excerpt(str(error)),
                    remedy="Restore it from a backup, or run again into another folder",
                ) from error
        self.merged.move_to_end(name)
        return self.merged[name].findings, self.merged[name].changes


@contextmanager
def _keeping() -> Generator[Callable[[FindingsTable], Chunk]]:
    """Keeps findings until they are read again: the first ones in memory, more in a temporary folder."""
    with ExitStack() as stack:
        count, places = 0, list[tuple[PartWriter, "tempfile.TemporaryDirectory[str]"]]()

        def keep(table: FindingsTable) -> Chunk:
            nonlocal count
            count += len(table)
            if count <= _IN_MEMORY or not len(table):
                return table.encoded
            if not places:
                made = tempfile.TemporaryDirectory(prefix="limner-objects-")
                places.append((stack.enter_context(PartWriter(Path(made.name))), made))
            writer, folder = places[0]
            return _Kept(StoredChunk(Path(folder.name), writer.write_findings(table), [(0, len(table))]), folder)

        yield keep


@dataclass(frozen=True, slots=True)
class _Kept:
    """A chunk in a temporary folder."""

    chunk: StoredChunk
    folder: "tempfile.TemporaryDirectory[str]"
    """It is deleted when no chunk needs it any more."""

    def __len__(self) -> int:
        return len(self.chunk)

    def read(self) -> FindingsTable:
        """The findings."""
        return self.chunk.read()


@dataclass(slots=True)
class _Placed:
    """A chunk of an image's findings, whose places are checked when it is first read, without invisible characters."""

    chunk: Chunk
    info: ImageInfo
    checked: bool = False

    def __len__(self) -> int:
        return len(self.chunk)

    def read(self) -> FindingsTable:
        """The findings. Raises `ValueError` for one on no plane of its image, or further outside than any can be."""
        table = self.chunk.read()
        if not self.checked:
            width, height = self.info.size
            bounds = table.bounds
            low, high = [-width, -height] * 2, [2 * width, 2 * height] * 2
            outside = ((bounds < low) | (bounds > high)).any(axis=1)
            elsewhere = (table.plane < 0) | (table.plane >= len(self.info.planes))
            for place in np.flatnonzero(outside | elsewhere)[:1].tolist():
                msg = f"{table.label[place]} at {bounds[place].tolist()} on plane {table.plane[place]}"
                raise ValueError(msg)
            self.checked = True
        return _cleaned(table)


def _cleaned(table: FindingsTable) -> FindingsTable:
    """The findings with their labels and texts as reports show them."""
    label, text = _clean_column(table.label), _clean_column(table.text)
    notes = {name: _clean_column(values) for name, values in table.notes.items()}
    same = label is table.label and text is table.text and all(notes[name] is table.notes[name] for name in notes)
    return table if same else replace(table, label=label, text=text, notes=notes)


def _clean_column(values: Objects) -> Objects:
    """Texts, or None, without invisible characters: the same array where none has any."""
    clean = {one: clean_text(one) for one in set(values.tolist()) if one}
    if all(one == text for one, text in clean.items()):
        return values
    return objects(clean.get(one, one) for one in values.tolist())
