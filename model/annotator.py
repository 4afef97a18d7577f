"""What an annotator is: it says what it wants to see, is shown views, and answers each of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from shapely.geometry.base import BaseGeometry

from ..readers.image import ImageInfo
from ..readers.regions import Region
from .finding import Kind
from .tiling import TileGrid

UNDECIDED: Final = "undecided"
"""The label where none is far enough ahead of the next."""

UNDECIDED_COLOUR: Final = "#9aa0a6"
"""A grey, so that it does not look like a finding."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What an annotator wants to see of an image.

    `bands` None means rendered 8-bit RGB; else STAC common names of native bands, delivered as physical values in
    `quantity`. `resolution` is the pixel size it was made for, in `unit`, and `tolerates` the factor by which it may
    differ either way (1 = not at all); None means any. `limits` are what is black and what is white in rendered
    pictures, in native numbers, "own" what each picture's own are; None means either. `tile` pixels is its input;
    `halo` the rim of a tile whose answers are not kept. `overall` asks for the global view. Where `enlarge` is not 0,
    the region's part of the picture is enlarged to fill as many tiles as it can of that number, on white, as 4KHD's own
    transform does. `variant` is the annotator's own mark of which of its networks this is for. `fitted` is what it
    learnt from the image's overview (see `Fitting`), in words of its own.
    """

    tile: int
    halo: int = 0
    bands: tuple[str, ...] | None = None
    quantity: str = ""
    resolution: float | None = None
    unit: Literal["m", "um"] = "m"
    tolerates: float = 2.0
    limits: tuple[float, float] | Literal["own"] | None = None
    overall: bool = False
    enlarge: int = 0
    variant: str = ""
    fitted: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """One region as the annotator sees it.

    `tiles` is (n, tile, tile, channels): uint8 RGB, or float32 physical values where native bands were asked for, NaN
    where nothing is valid. `valid` is (n, tile, tile). `wanted` (H, W) on the canvas is true where an answer is kept:
    in the region's core, valid, and inside the area of interest. `overall` is the whole canvas squashed to
    (tile, tile, channels), float32 in the tiles' own values, or None. `seconds` is what reading it took.
    """

    region: Region
    spec: InputSpec
    grid: TileGrid
    tiles: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_]
    keep_mask: npt.NDArray[np.bool_]
    overall: npt.NDArray[Any] | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One thing an annotator says of a view. `geometry` is in canvas pixels, None for the whole region.

    `seen` is what of the canvas the annotator looked at when it found a "box", (x0, y0, x1, y1) in canvas pixels: the
    tile, or None for all of it. Boxes that several looks found are made one by it (see `detections`).
    """

    label: str
    geometry: BaseGeometry | None
    kind: Kind
    score: float | None = None
    text: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict[str, float])
    notes: Mapping[str, str] = field(default_factory=dict[str, str])
    seen: tuple[float, float, float, float] | None = None


class Annotator(Protocol):
    """A model behind the entry point group `limner.annotators`; lives in one worker.

    The entry point is a class whose `Options` are a `limner.readers.options.Options`, and which is called with an
    instance of them; one without is called with none. Making one is cheap and touches neither weights nor network. The
    process that plans calls `spec` and `check`; each process that annotates makes one of its own and calls `check`,
    `load` and then `annotate`, so that the process that plans loads no network.
    """

    @property
    def identity(self) -> Mapping[str, str]:
        """`name`, `version`, and whatever else decides its answers, the weights' sha256 and licence among it.

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
        """What it wants to see of this image. Raises `ModelError` where it cannot work on it, with what would do."""
        ...

    def check(self, specs: Sequence[InputSpec]) -> None:
        """Verify that it can do what is asked, and that all files that those specs need are here and unchanged.

        Reads headers and hashes files (see `hashes`); loads no network. Raises `RequestError`, `ModelError`.
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


@dataclass(frozen=True, slots=True)
class Cost:
    """What annotating one region takes, known before anything is loaded.

    Bytes of the `weights` as they are held, of the keys and values that a language model keeps (`cache`), and of the
    `activations` at their peak; `loading` is the most that is held while the weights are read, where that is more.
    `numbers` says what type the weights have. `device` is "cpu", or the GPU that holds all of this. `tokens` is the
    length of a language model's sequence, 0 without one. `work` is proportional to the time that the region takes.
    """

    weights: float
    numbers: str
    work: float
    cache: float = 0.0
    activations: float = 0.0
    loading: float = 0.0
    tokens: int = 0
    device: str = "cpu"

    @property
    def memory(self) -> float:
        """Bytes at the peak."""
        return max(self.loading, self.weights + self.cache + self.activations)


@runtime_checkable
class Costing(Protocol):
    """An annotator that knows what a region costs without loading a network."""

    def cost(self, specs: Sequence[InputSpec], tiles: tuple[int, int]) -> Cost | None:
        """The cost of a region of (columns, rows) tiles in a process that has loaded what those specs need.

        None where it is not known. Raises `ModelError`, `RequestError`.
        """
        ...


@runtime_checkable
class Fitting(Protocol):
    """An annotator that must see the whole image once before any part of it.

    Where `spec` asks for rendered RGB, the planner shows it the overview at about the spec's resolution, and keeps
    the spec that it returns.
    """

    def fit(
        self,
        spec: InputSpec,
        overview: npt.NDArray[np.uint8],
        tissue: npt.NDArray[np.bool_],
        valid: npt.NDArray[np.bool_],
    ) -> InputSpec:
        """The spec with `fitted` filled: from (H, W, 3) RGB, where there is tissue, and what is valid (H, W).

        Returns the spec as it was where it needs nothing. Raises `ModelError` where the image does not suit.
        """
        ...


@runtime_checkable
class Remote(Protocol):
    """An annotator that may show views to another program, perhaps of somebody else's and for money."""

    @property
    def host(self) -> str:
        """Whose; "" where it works by itself. A plan asks it nothing."""
        ...
