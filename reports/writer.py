"""What a report writer is given, and what it is."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from shapely.geometry.base import BaseGeometry

from ..model.finding import Finding
from ..readers.errors import LimnerError
from ..readers.geometry import Box
from ..readers.image import ImageInfo, Mask, Pixels
from ..readers.overview import Montage

DISCLAIMER = "Research use only. Not for clinical, safety-critical or legal decisions."

_LONGEST = 120  # characters of an id in a file's name: encrypting file systems take 143 with what is around it

FileStatus = Literal["read", "skipped", "failed"]
AnalysisStatus = Literal["complete", "partial", "not assessed"]
AreaStatus = Literal["analysed", "no data", "skipped", "unreadable"]


@dataclass(frozen=True, slots=True)
class FileRow:
    """What became of one input file: every one has a row. `image` is the id of the image it became part of."""

    path: str
    status: FileStatus
    image: str = ""
    reader: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Area:
    """A part of an image's area by what became of it; an image's areas sum to the image.

    `pixels` in level-0 pixels, `m2` on the ellipsoid or None where the placement is unknown. `regions` counts them.
    """

    status: AreaStatus
    reason: str
    pixels: float
    m2: float | None
    regions: int


@dataclass(frozen=True, slots=True)
class UnanalysedRegion:
    """A region that was not analysed: its core `box` in level-0 pixels of a plane, why, and with which outcome."""

    box: Box
    status: Literal["skipped", "unreadable"]
    reason: str
    plane: int = 0


@dataclass(frozen=True, slots=True)
class Overview:
    """The whole picture at a glance: (H, W, 3) uint8 RGB; `scale` is level-0 pixels a pixel (x, y).

    Of a stack it is a `montage`, None for one picture. `valid` (H, W) is false where the file says that there is
    nothing, `readable` (H, W) false where it cannot be read.
    """

    pixels: Pixels
    valid: Mask
    readable: Mask
    scale: tuple[float, float]
    montage: Montage | None = None


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a run: facts, areas, how it was seen, and a way to its findings.

    `findings()` gives them joined across seams and in a fixed order: a finding's number in every report is its place in
    it, from 1. It reads from the run folder anew each time, so that only one image's findings are in memory.
    `overview()` likewise. `areas` sum to the image; `failures` are the (region, error) pairs of what failed.
    `seen` is how the image was looked at: effective resolution, tile, regions and the like, in words.
    `scale` is level-0 pixels (x, y) a pixel as seen, so that 1 is the picture's own resolution. `unanalysed` are the
    regions that were not analysed, `roi` the area of interest in level-0 pixels, None for all of it. `name` is
    that of the image's file or folder where it may be told, else empty: reports then say its id.
    """

    info: ImageInfo
    findings: Callable[[], Sequence[Finding]]
    overview: Callable[[], Overview | None]
    areas: tuple[Area, ...]
    failures: tuple[tuple[str, str], ...] = ()
    analysis: Mapping[str, str] = field(default_factory=dict[str, str])
    scale: tuple[float, float] = (1.0, 1.0)
    unanalysed: tuple[UnanalysedRegion, ...] = ()
    roi: BaseGeometry | None = None
    name: str = ""

    @property
    def complete(self) -> bool:
        """Whether everything that was planned was also analysed."""
        return not self.failures and not any(area.status == "unreadable" for area in self.areas)


@dataclass(frozen=True, slots=True)
class Record:
    """A run as the writers see it. `model` is the annotator's identity, `labels` its labels in report order.

    `colours` gives labels their `#rrggbb`; a label without one gets one from a palette that colour-blind people can
    tell apart. Images and files are reported in the order given here. `assessed` is false where there was no model, so
    that nothing was looked for: then that there are no findings says nothing.
    """

    images: tuple[ImageRecord, ...]
    files: tuple[FileRow, ...]
    model: Mapping[str, str]
    labels: tuple[str, ...]
    version: str
    preset: str = ""
    colours: Mapping[str, str] = field(default_factory=dict[str, str])
    assessed: bool = True

    def status_of(self, images: Sequence[ImageRecord]) -> AnalysisStatus:
        """Whether all that was planned of these images was analysed; "not assessed" where nothing was looked for."""
        if not self.assessed:
            return "not assessed"
        return "complete" if all(image.complete for image in images) else "partial"

    def count(self, number: int) -> int | None:
        """A number of findings: None where nothing was looked for, which is not 0."""
        return number if self.assessed else None

    @property
    def use(self) -> str:
        """What the results may be used for: the disclaimer, and what the model says of itself, if it does."""
        return f"{DISCLAIMER} {self.model.get('use', '')}".strip()


class Writer(Protocol):
    """One kind of report behind the entry point group `limner.writers`; the entry point is a callable `() -> Writer`.

    `name` is what `--reports` calls it. Same record, same bytes: no clocks, no random names. Files are written to a
    temporary name and renamed (`readers.files.replacing`), so that a report that exists is complete.
    """

    name: str

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write into `folder`; returns the files it made, in order. Images it cannot express are named in `omitted`."""
        ...

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Image id → why this kind of report cannot hold it (a map of a picture without coordinates, say)."""
        ...


class PartlyWrittenError(LimnerError):
    """Some images have no file: `paths` were made all the same, `omitted` maps the ids of the others to the reason."""

    def __init__(self, paths: Sequence[Path], omitted: Mapping[str, str]) -> None:
        super().__init__(
            "files of images",
            "each must be written",
            value=f"{len(omitted)} of {len(omitted) + len(paths)} could not be",
            remedy="Mend what is said of them, then: limner report",
        )
        self.paths = tuple(paths)
        self.omitted = omitted


def image_file(folder: Path, prefix: str, image: str, suffix: str) -> Path:
    """The path of an image's file in `folder`: its id between prefix and suffix, where that is a name for a file.

    An id that is too long for one, or holds what is no letter, digit, dot, dash or underscore, is shortened and marked
    with a part of its sha256, the same in every run.
    """
    name = image
    if len(image) > _LONGEST or not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", image):
        mark = hashlib.sha256(image.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        name = f"{re.sub(r'[^A-Za-z0-9_-]+', '-', image)[: _LONGEST - 13]}-{mark}"
    return folder / f"{prefix}{name}{suffix}"


def write_per_image(images: Sequence[ImageRecord], write: Callable[[ImageRecord], Path]) -> list[Path]:
    """Write a file an image. Raises `PartlyWrittenError` after the last where some could not be written."""
    paths: list[Path] = []
    omitted: dict[str, str] = {}
    for image in images:
        try:
            paths.append(write(image))
        except LimnerError as error:
            omitted[image.info.id] = str(error)
        except OSError as error:
            omitted[image.info.id] = f"its file must be writable (found: {error.strerror or error})"
    if omitted:
        raise PartlyWrittenError(paths, omitted)
    return paths
