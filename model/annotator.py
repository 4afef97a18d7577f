"""The annotator contract: what an annotator declares, the views that it is given, and the answers that it returns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from shapely.geometry.base import BaseGeometry

from ..readers.image import ImageInfo
from ..readers.regions import Region
from .domain import Domain
from .finding import Kind
from .probabilities import LabelProbabilities
from .tiling import TileGrid, Tiles

UNDECIDED: Final = "undecided"
"""The label where no score is far enough ahead of the next."""

UNDECIDED_COLOUR: Final = "#9aa0a6"
"""A grey, so that it does not look like a finding."""


@dataclass(frozen=True, slots=True)
class VoxelGrid:
    """The voxels of a stack of slices."""

    shape: tuple[int, int, int]
    """(slices, rows, columns)."""
    spacing: tuple[float, float, float]
    """Distances in mm between the centres of neighbouring (slices, rows, columns)."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The input that an annotator needs of an image."""

    tile: int
    """Pixels a side of the network's input."""
    halo: int = 0
    """Pixels at each border of a tile whose answers are dropped."""
    bands: tuple[str, ...] | None = None
    """STAC common names of native bands, delivered as physical values; None for rendered 8-bit RGB."""
    quantity: str = ""
    """The physical quantity of the bands, such as "toa_reflectance"; "" for any."""
    value_range: tuple[float, float] | None = None
    """The physical values of the bands that the network can work with; None for any."""
    resolution: float | None = None
    """The pixel size that the network was made for, in `unit`; None for any."""
    unit: Literal["m", "um"] = "m"
    tolerates: float = 2.0
    """The factor by which the pixel size may differ either way; 1 for not at all."""
    limits: tuple[float, float] | Literal["own"] | None = None
    """Native values of black and white in rendered RGB; "own" for those of each picture; None for either."""
    overall: bool = False
    """Whether views have the global view."""
    enlarge: int = 0
    """Enlarge a region's part of the picture to fill at most so many tiles, on white, as 4KHD's transform does."""
    variant: str = ""
    """The annotator's name for the one of its networks that this is for."""
    fitted: str = ""
    """What was fitted to the image (see `SupportsFit`, `SupportsPictureFit`), in the annotator's own format."""
    overlap: int = 0
    """Analysed pixels that neighbouring regions share at least."""
    volume: VoxelGrid | None = None
    """Of an annotator that gets the whole stack at once (see `volume.volume.SupportsVolumes`): its voxels."""


@dataclass(frozen=True, slots=True, eq=False)
class Masked:
    """What of a region is masked."""

    pixels: npt.NDArray[np.bool_]
    """(H, W) of the region's box in grid pixels."""
    exclude: bool
    """Whether that is not analysed."""


@dataclass(frozen=True, slots=True)
class View:
    """One region as the annotator gets it."""

    region: Region
    spec: InputSpec
    grid: TileGrid
    tiles: Tiles
    """(n, tile, tile, channels): uint8 RGB, or float32 physical values with NaN where they are not valid.

    Each is made when it is asked for, so that one at a time takes the least memory."""
    valid: Tiles
    """(n, tile, tile), booleans, likewise."""
    keep_mask: npt.NDArray[np.bool_]
    """(H, W) on the canvas: where answers are kept, in the region's core, valid, and in the region of interest."""
    global_view: npt.NDArray[Any] | None = None
    """The whole canvas squashed to (tile, tile, channels), float32 in the tiles' own values."""
    seconds: float = 0.0
    """Time that reading took."""
    visible: bool = True
    """Whether its rendering shows anything: see `readers.render.visibility`."""
    masked: Masked | None = None
    """What of the region lies under a mask, such as one of cloud; None without one."""
    probabilities: LabelProbabilities | None = None
    """Where a segmentation model puts the probabilities of the canvas's pixels; None where the run keeps none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One object, area or label that an annotator found in a view."""

    label: str
    geometry: BaseGeometry | None
    """In canvas pixels; None for the whole region."""
    kind: Kind
    score: float | None = None
    text: str = ""
    text_cut: bool = False
    """Whether the text ended at the model's limit of tokens."""
    numbers: Mapping[str, float] = field(default_factory=dict[str, float])
    notes: Mapping[str, str] = field(default_factory=dict[str, str])
    window: tuple[float, float, float, float] | None = None
    """Of a "box": the part (x0, y0, x1, y1) of the canvas that the detector had, None for all: see `merging`."""


class Annotator(Protocol):
    """A model behind the entry point group `limner.annotators`; lives in one worker.

    The entry point is a class whose `Options` are a `limner.readers.options.Options`, and which is called with an
    instance of them; one without is called with none. Constructing it is cheap and touches neither weights nor network.
    The process that plans calls `input_spec` and `check`; each process that annotates constructs its own and calls
    `check`, `load` and then `annotate`. The process that plans loads a network only to fit it to an image.
    """

    @property
    def identity(self) -> Mapping[str, str]:
        """`name`, `version`, and whatever else decides its answers, with the weights' sha256 and licence.

        Goes into the manifest, and its name and version into every report.
        """
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label it can give, in the order in which reports list them; empty for free text."""
        ...

    @property
    def colours(self) -> Mapping[str, str]:
        """The colour (`#rrggbb`) in which reports draw a label; a label without one gets one from a palette."""
        ...

    def input_spec(self, info: ImageInfo) -> InputSpec:
        """The input it needs of this image. Raises `ModelError`, with a remedy, where it cannot work on the image."""
        ...

    def check(self, specs: Sequence[InputSpec]) -> None:
        """Verify that the request can be met, and that all files that the specs need are here and unchanged.

        Reads headers and hashes files; loads no network. Raises `RequestError`, `ModelError`.
        """
        ...

    def load(self) -> None:
        """Load the networks that the checked specs need, once. Called after `check`, before any region.

        Raises `ModelError`, `RequestError`, or `MemoryError` where they do not fit into memory.
        """
        ...

    def annotate(self, views: Sequence[View]) -> Sequence[Sequence[Answer]]:
        """Answers for each view: same order, same length. An answer never depends on the other views of the call."""
        ...


TORCH_BYTES: Final = 0.1 * 2**30
"""Bytes of torch without transformers, for `Cost.libraries`: measured."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What annotating one region takes, estimated before anything is loaded."""

    weights: float
    """Bytes of the weights in memory."""
    dtype: str
    """Their number type."""
    work: float
    """Proportional to the time that the region takes."""
    cache: float = 0.0
    """Bytes of a language model's key-value cache."""
    activations: float = 0.0
    """Bytes of the activations at their peak."""
    loading: float = 0.0
    """Bytes at the peak of loading the weights, where that is more than the rest."""
    tokens: int = 0
    """Length of a language model's sequence; 0 without one."""
    image_tokens: int = 0
    """How many of them stand for the picture; 0 where it is not known."""
    answer_tokens: int = 0
    """How many of them at most are the answer."""
    context: int = 0
    """The most tokens that the language model takes; 0 where it is not known."""
    libraries: float | None = None
    """Bytes of the libraries that it loads; None for torch and transformers."""
    device: str = "cpu"
    """"cpu", or the GPU that holds all of this."""

    @property
    def memory(self) -> float:
        """Bytes at the peak."""
        return max(self.loading, self.weights + self.cache + self.activations)


@runtime_checkable
class SupportsCost(Protocol):
    """An annotator that can estimate the cost of a region without loading a network."""

    def cost(self, specs: Sequence[InputSpec], tiles: tuple[int, int]) -> Cost | None:
        """The cost of a region of (columns, rows) tiles in a process that has loaded what those specs need.

        None where it is not known. Raises `ModelError`, `RequestError`.
        """
        ...


@runtime_checkable
class SupportsFit(Protocol):
    """An annotator that is fitted to the whole image once, before any part of it.

    Where `input_spec` asks for rendered RGB, the planner passes the overview at about the spec's resolution, and keeps
    the spec that `fit` returns.
    """

    def fit(
        self,
        spec: InputSpec,
        overview: npt.NDArray[np.uint8],
        tissue: npt.NDArray[np.bool_],
        valid: npt.NDArray[np.bool_],
    ) -> InputSpec:
        """The spec with `fitted` filled: from (H, W, 3) RGB, and the masks (H, W) of tissue and of valid pixels.

        Returns the spec unchanged where nothing is to be fitted. Raises `ModelError` where the image does not suit.
        """
        ...


ReadPicture = Callable[[], tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]]
"""Reads an image at its analysis resolution, or blocks of it side by side where it is too large.

The pixels (H, W, C) are as in the tiles of a `View`, and the mask (H, W) says where they are valid.
"""


@runtime_checkable
class SupportsPictureFit(Protocol):
    """An annotator that is fitted to the pixels that its network will see, once for an image, after `SupportsFit`."""

    def fit_picture(self, spec: InputSpec, read: ReadPicture) -> InputSpec:
        """The spec with `fitted` filled. Returns the spec unchanged, without reading, where nothing is to be fitted.

        Called after `check`, and only where all files are here. Raises `ModelError`.
        """
        ...


@runtime_checkable
class SupportsDomain(Protocol):
    """An annotator that states which images it was made for; planning refuses others, unless the user insists."""

    @property
    def domain(self) -> Sequence[Domain]:
        """Kinds of images, of which one is enough; empty where it is not known. Raises `ModelError`."""
        ...


@runtime_checkable
class SupportsConcepts(Protocol):
    """An annotator that knows what its labels are in coding schemes, for DICOM objects."""

    @property
    def concepts(self) -> Mapping[str, tuple[str, str, str]]:
        """Label → (code value, coding scheme designator, code meaning); labels without a code are left out."""
        ...


@runtime_checkable
class RemoteAnnotator(Protocol):
    """An annotator that may send views to another program, perhaps on another machine and for money."""

    @property
    def host(self) -> str:
        """The receiver; "" where everything runs in this process. A plan sends nothing."""
        ...
