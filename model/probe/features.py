"""The `encoder` annotator: the features of a frozen encoder for each tile of a region, and no findings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ...readers.errors import RequestError
from ...readers.image import ImageInfo
from ..annotator import Answer, Cost, InputSpec, View
from ..options import CheckpointOptions
from ..views import kept_tiles
from .encoders import Encoder, encode, find_encoder

TILE: Final = 256
"""Side of a tile in pixels where the encoder takes any."""
SMALLEST: Final = 8


@dataclass(frozen=True, slots=True)
class ViewFeatures:
    """The features of the tiles of a view of which something is kept, in the order of the tiles."""

    tiles: npt.NDArray[np.int32]
    """(n,) which tiles of the view they are, row by row."""
    features: npt.NDArray[np.float32]
    """(n, dimensions)."""
    valid: npt.NDArray[np.float32]
    """(n,) the share of each tile's core that is valid, in the region of interest and not masked."""


@runtime_checkable
class SupportsFeatures(Protocol):
    """An annotator that gives features of tiles, which a run keeps beside the findings."""

    def features(self, view: View) -> ViewFeatures:
        """The features of a view's tiles. Raises `ModelError`."""
        ...


class EncoderOptions(CheckpointOptions):
    """Options of `EncoderFeatures`."""

    checkpoint: str = Field(
        min_length=1,
        description="An encoder as `--encoder` of `limner features` names it.",
        examples=["--model encoder:FOLDER"],
    )
    tile: int = Field(
        default=0, ge=0, le=4096, description=f"Pixels of a tile where the encoder takes any; 0 is {TILE}."
    )


class EncoderFeatures:
    """A frozen encoder. Its answers are empty: reports write its features."""

    Options = EncoderOptions
    labels: tuple[str, ...] = ()
    colours: Mapping[str, str] = {}

    def __init__(self, options: EncoderOptions) -> None:
        self._options = options
        self._found: Encoder | None = None

    @property
    def encoder(self) -> Encoder:
        """The encoder. Raises `ModelError`, `RequestError`."""
        if self._found is None:
            options = self._options
            self._found = find_encoder(options.checkpoint, fetch=options.fetch, threads=options.threads)
        return self._found

    @property
    def identity(self) -> Mapping[str, str]:
        """The encoder with the sha256 of each of its files. Raises `ModelError`."""
        own = self.encoder.identity
        digests = [value for key, value in sorted(own.items()) if key.startswith("sha256_")]
        return {
            "name": "encoder",
            "version": version("limner"),
            "annotator": "encoder",
            "encoder": self._options.checkpoint,
            **({"sha256": " ".join(digests)} if digests else {}),
            **{f"encoder_{key}": value for key, value in own.items()},
        }

    def input_spec(self, info: ImageInfo) -> InputSpec:
        """The encoder's tiles at the image's own resolution. Raises `RequestError` for a tile that is not its own."""
        del info
        asked, own = self._options.tile, self.encoder.tile
        if (own and asked not in {0, own}) or 0 < asked < SMALLEST:
            rule = f"must be {own}, the encoder's own size" if own else f"must be {SMALLEST} pixels or more"
            remedy = "Leave --tile out, and choose with --resolution how much a tile shows"
            raise RequestError("--tile", rule, value=str(asked), remedy=remedy)
        return InputSpec(tile=own or asked or TILE, bands=self.encoder.bands, variant="encoder")

    def check(self, specs: Sequence[InputSpec]) -> None:
        """Find the encoder's files and hash them. Raises `ModelError`, `RequestError`."""
        del specs
        _ = self.identity

    def load(self) -> None:
        """See `Annotator`."""
        self.encoder.prepare()

    def cost(self, specs: Sequence[InputSpec], tiles: tuple[int, int]) -> Cost:
        """See `SupportsCost`."""
        del specs
        return Cost(self.encoder.weight_bytes(), "float32", work=tiles[0] * tiles[1])

    def annotate(self, views: Sequence[View]) -> Sequence[Sequence[Answer]]:
        """No answers."""
        return [[] for _ in views]

    def features(self, view: View) -> ViewFeatures:
        """See `SupportsFeatures`."""
        kept = kept_tiles(view)
        where = f"region {view.region.key}"
        rows = [encode(self.encoder, view.tiles[one.index], view.valid[one.index], where) for one in kept]
        return ViewFeatures(
            np.array([one.index for one in kept], dtype=np.int32),
            np.stack(rows).astype(np.float32, copy=False) if rows else np.empty((0, 0), dtype=np.float32),
            np.array([one.valid_share for one in kept], dtype=np.float32),
        )
