"""The contract of report writers: the record of a run that they get, and what they return."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from shapely.geometry.base import BaseGeometry

from ..model.annotator import InputSpec
from ..model.finding import Finding
from ..model.probabilities import Steps
from ..readers.errors import LimnerError
from ..readers.geometry import Box
from ..readers.image import ImageInfo, Mask, Pixels
from ..readers.orientation import UPRIGHT, Orientation
from ..readers.overview import Montage
from ..readers.regions import Grid, Region

DISCLAIMER = "Research use only. Not for clinical, safety-critical or legal decisions."

NOT_RUN = "not run yet"
"""The reason of areas whose regions an interrupted run has not reached."""

_MOST_FORCED = 3  # images outside the model's domain that are named
_LONGEST = 120  # characters of an id in a file name: encrypted file systems allow 143 with prefix and suffix

FileStatus = Literal["read", "skipped", "failed"]
AnalysisStatus = Literal["complete", "partial", "doubtful", "not assessed"]
AreaStatus = Literal["analysed", "no data", "skipped", "unreadable"]


@dataclass(frozen=True, slots=True)
class FileRow:
    """One input file and its outcome: every input file has a row."""

    path: str
    status: FileStatus
    image: str = ""
    """The id of the image that it became part of."""
    reader: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Area:
    """The part of an image's area with one status and reason; an image's areas sum to the image."""

    status: AreaStatus
    reason: str
    pixels: float
    """Level-0 pixels."""
    m2: float | None
    """On the ellipsoid for maps; None where the pixel size is unknown."""
    regions: int
    """Number of regions."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one setting of objects changed of the areas of a label, against those that the model's classes have."""

    label: str
    what: str
    """As a phrase: "smaller than 50 µm²"."""
    findings: int
    """By how many there are more."""
    pixels: float
    """By how many level-0 pixels they are larger."""
    m2: float
    """The same; NaN where the pixel size is unknown."""


@dataclass(frozen=True, slots=True)
class UnanalysedRegion:
    """A region that was not analysed."""

    box: Box
    """Its core in level-0 pixels of its plane."""
    status: Literal["skipped", "unreadable"]
    reason: str
    plane: int = 0


@dataclass(frozen=True, slots=True)
class Overview:
    """The whole image, reduced."""

    pixels: Pixels
    """(H, W, 3) uint8 RGB."""
    valid: Mask
    """(H, W): false on nodata."""
    readable: Mask
    """(H, W): false where the file cannot be read."""
    scale: tuple[float, float]
    """Level-0 pixels per pixel (x, y)."""
    montage: Montage | None = None
    """How the planes of a stack are laid out; None for one picture."""
    orientation: Orientation = UPRIGHT
    """How the image was turned to be this picture of a map, which is north-up; `scale` is along the picture's axes."""


@dataclass(frozen=True, slots=True, eq=False)
class TileFeatures:
    """The features of some tiles of an image, by a frozen encoder."""

    boxes: npt.NDArray[np.float64]
    """(n, 4): x0, y0, x1, y1 in level-0 pixels; a tile at the border may reach beyond the image."""
    features: npt.NDArray[np.float32]
    """(n, dimensions)."""
    valid: npt.NDArray[np.float32]
    """(n,) the share of each tile that is valid, in the region of interest and not masked."""
    plane: int = 0


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a run, with access to its findings."""

    info: ImageInfo
    findings: Callable[[], Sequence[Finding]]
    """The findings, merged across regions and in a fixed order: a finding's number in every report is its place here,
    from 1. Read from the run folder at each call, so that only one image's findings are in memory."""
    overview: Callable[[], Overview | None]
    """The overview, read at each call; None where the image cannot be read any more."""
    areas: tuple[Area, ...]
    failures: tuple[tuple[str, str], ...] = ()
    """(region, error) of each region that failed."""
    analysis: Mapping[str, str] = field(default_factory=dict[str, str])
    """How the image was analysed, as names and values: regions, tiles, bands and the like."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Level-0 pixels (x, y) per pixel in the analysis: 1 is the image's own resolution."""
    unanalysed: tuple[UnanalysedRegion, ...] = ()
    roi: BaseGeometry | None = None
    """The region of interest in level-0 pixels; None for the whole image."""
    tissue: BaseGeometry | None = None
    """The tissue of a slide in level-0 pixels, detected or given; None where it was not looked for."""
    name: str = ""
    """The name of the image's file or folder, after as many of its folders as tell it apart from others of the run. A
    pseudonym where it may identify a patient, or "": reports then show the id."""
    warnings: tuple[str, ...] = ()
    """Sentences on why the results must not be believed unseen: hardly any tissue, a doubtful field and the like."""

    changes: Callable[[], Sequence[Change]] = tuple
    """What settings of objects changed of the findings, by label: without it they would have the areas of classes."""

    label_maps: Callable[[], Iterator[npt.NDArray[np.uint8]]] | None = None
    """Of a stack that was annotated as a volume: the label map (rows, columns) of each slice in order, 0 where there is
    no label, else the number of one of the record's `labels` from 1. Read at each call; None for other images."""

    analysed: Callable[[], Iterator[tuple[Region, Mask | None]]] | None = None
    """The regions of a map or slide that were analysed, with where their cores (H, W) in grid pixels were: None for all
    of it. A mask is read from the image again, at each call. Raises `LimnerError` where that cannot be read."""

    outlines: Callable[[], Iterator[npt.NDArray[np.object_]]] | None = None
    """The analysed polygons in level-0 pixels, some at a time, where they are known and `analysed` is not."""

    masked: Callable[[], Iterator[tuple[Region, Mask]]] | None = None
    """The regions of which something lies under the run's mask, such as one of cloud, with what of their cores (H, W)
    in grid pixels; None for a run without one. Read from the run folder at each call."""

    mask_excludes: bool = True
    """Whether that was left out, and not analysed all the same."""
    grid: Grid | None = None
    """The analysis grid; None where it is not known."""

    probabilities: Callable[[], Iterator[tuple[Region, Steps]]] | None = None
    """The regions that were analysed, of a stack by slices, with the probabilities (labels, H, W) of the record's
    `labels` in their cores, in steps: see `model.probabilities`. Read at each call; None where the run kept none."""

    original: Callable[[], ImageInfo] | None = None
    """The metadata with the real paths of the image's files, for reports that read them again. Raises `LimnerError`
    where they are gone or have changed since the run."""

    slice_pictures: Callable[[Sequence[int], int], Iterator[Overview | None]] | None = None
    """Pictures of single planes in the window of the analysis: (planes, most px on the long side) → one for each plane,
    whole, with the image's own pixels, made square in the patient. Read at each call; None for each where the image
    cannot be read any more."""

    part_pictures: Callable[[Sequence[tuple[int, Box]], int], Iterator[Overview | None]] | None = None
    """Pictures of parts of planes in the same way: ((plane, box in level-0 pixels), …, most px on the long side) → one
    for each part, reduced and never enlarged."""

    spec: InputSpec | None = None
    """What the annotator needed of the image; None where that is not known."""

    forced: str = ""
    """What of the image is outside the model's domain, as a phrase, where the user insisted; "" where nothing is."""

    tile: int = 0
    """Side of a tile in pixels of the analysis."""

    features: Callable[[], Iterator[TileFeatures]] | None = None
    """The features of its tiles, region by region, where the run's annotator gives some. Read at each call."""

    feature_shape: tuple[int, int] = (0, 0)
    """How many tiles have features, and of how many dimensions."""

    @property
    def complete(self) -> bool:
        """Whether everything that was planned was also analysed."""
        left = any(area.status == "unreadable" or area.reason == NOT_RUN for area in self.areas)
        return not self.failures and not left


@dataclass(frozen=True, slots=True)
class Record:
    """A run as writers get it; images and files are reported in the order given here."""

    images: tuple[ImageRecord, ...]
    files: tuple[FileRow, ...]
    model: Mapping[str, str]
    """The annotator's identity."""
    labels: tuple[str, ...]
    """The annotator's labels in report order."""
    version: str
    preset: str = ""
    colours: Mapping[str, str] = field(default_factory=dict[str, str])
    """Label → `#rrggbb`; other labels get a colour from `palette`."""
    assessed: bool = True
    """False without a model: then having no findings means nothing."""
    started: str = ""
    """When the run began, in UTC as ISO 8601, for formats that must state a time; "" where that is not known."""
    run: str = ""
    """A digest of the run's manifest and of what became of each region, for identifiers of what is made from it."""
    concepts: Mapping[str, tuple[str, str, str]] = field(default_factory=dict[str, tuple[str, str, str]])
    """Label → (code value, coding scheme designator, code meaning), as the model's card states it."""

    def status_of(self, images: Sequence[ImageRecord]) -> AnalysisStatus:
        """Whether all that was planned of these images was analysed; "not assessed" without a model."""
        if not self.assessed:
            return "not assessed"
        if not all(image.complete for image in images):
            return "partial"
        return "doubtful" if any(image.warnings for image in images) else "complete"

    def count(self, number: int) -> int | None:
        """A number of findings: None without a model, which is not 0."""
        return number if self.assessed else None

    @property
    def use(self) -> str:
        """What the results may be used for: the disclaimer, the model's own restrictions, and a forced domain."""
        forced = [f"{image.info.id}: {image.forced}" for image in self.images if image.forced]
        domain = ""
        if forced:
            more = f"; and {len(forced) - _MOST_FORCED} more" if len(forced) > _MOST_FORCED else ""
            named = "; ".join(forced[:_MOST_FORCED])
            domain = f"Outside the domain of the model, forced with --force-domain: {named}{more}."
        return " ".join(filter(None, (DISCLAIMER, self.model.get("use", ""), domain)))


class Writer(Protocol):
    """One kind of report, behind the entry point group `limner.writers`; the entry point is a callable `() -> Writer`.

    Same record, same bytes: no clocks, no random names. Files are written to a temporary name and renamed
    (`readers.files.atomic_path`), so that a report that exists is complete.

    A writer whose optional attribute `on_request` is true is used only where `--reports` names it: for reports that
    identify a patient, say. One whose optional attribute `needs_probabilities` is true is refused before a run that
    keeps none, and one whose optional attribute `last` is true writes after all others, and may list their files.
    """

    @property
    def name(self) -> str:
        """Its name for `--reports`."""
        ...

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write into `folder`; returns the files it made, in order. `omitted` lists images that have none."""
        ...

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Image id → why this kind of report cannot hold it (a map of an image without coordinates, say)."""
        ...


class PartlyWrittenError(LimnerError):
    """Some images have no file: `paths` were written all the same, `omitted` maps the ids of the others to reasons."""

    def __init__(self, paths: Sequence[Path], omitted: Mapping[str, str]) -> None:
        super().__init__(
            "files of images",
            "must all be written",
            value=f"{len(omitted)} of {len(omitted) + len(paths)} could not be",
            remedy="Correct the causes listed with the images, then run: limner report",
        )
        self.paths = tuple(paths)
        self.omitted = omitted


def image_file(folder: Path, prefix: str, image: str, suffix: str) -> Path:
    """The path of an image's file in `folder`: its id between prefix and suffix.

    An id that is too long, or has characters other than letters, digits, dots, dashes and underscores, is shortened and
    gets a part of its sha256, the same in every run.
    """
    name = image
    if len(image) > _LONGEST or not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", image):
        digest = hashlib.sha256(image.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        name = f"{re.sub(r'[^A-Za-z0-9_-]+', '-', image)[: _LONGEST - 13]}-{digest}"
    return folder / f"{prefix}{name}{suffix}"


class ImageFiles:
    """The files of images, some of which may fail."""

    def __init__(self) -> None:
        self._paths: list[Path] = []
        self._omitted: dict[str, str] = {}

    def attempt(self, image: ImageRecord, write: Callable[[], Path | Sequence[Path] | None]) -> bool:
        """Let an image's files be written, or a part of them, and tell whether that succeeded."""
        try:
            written = write()
        except LimnerError as error:
            self._omitted[image.info.id] = str(error)
        except OSError as error:
            self._omitted[image.info.id] = f"the file must be writable (found: {error.strerror or error})"
        else:
            self._paths += [written] if isinstance(written, Path) else written or ()
            return True
        return False

    def finish(self) -> list[Path]:
        """All files that were written. Raises `PartlyWrittenError` where some could not be."""
        if self._omitted:
            raise PartlyWrittenError(self._paths, self._omitted)
        return self._paths


def write_per_image(images: Sequence[ImageRecord], write: Callable[[ImageRecord], Path | Sequence[Path]]) -> list[Path]:
    """Write a file or several per image. Raises `PartlyWrittenError` after the last where some could not be written."""
    files = ImageFiles()
    for image in images:
        files.attempt(image, partial(write, image))
    return files.finish()
