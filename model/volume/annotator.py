"""The `volume` annotator: labels the voxels of a stack as a whole, with a model card or a folder of a known format."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ...readers.errors import RequestError
from ...readers.image import ImageInfo
from ..annotator import Answer, Cost, InputSpec, SupportsConcepts, View, VoxelGrid
from ..domain import Domain
from .models import VolumeOptions, find_model
from .volume import LabelMap, Volume, volume_grid

if TYPE_CHECKING:
    from .volume import VolumeModel


class VolumeSegmenter:
    """An annotator with a `VolumeModel`. Raises `ModelError` for an invalid card or folder."""

    Options = VolumeOptions

    def __init__(self, options: VolumeOptions) -> None:
        self._model: VolumeModel = find_model(options)

    @property
    def identity(self) -> Mapping[str, str]:
        """That of its model."""
        return {"annotator": "volume", **self._model.identity}

    @property
    def labels(self) -> tuple[str, ...]:
        """The structures that it labels, in the order of their numbers in label maps, from 1."""
        return self._model.labels

    @property
    def colours(self) -> Mapping[str, str]:
        """Those of its model."""
        return self._model.colours

    @property
    def concepts(self) -> Mapping[str, tuple[str, str, str]]:
        """Those of its model, where that has a card."""
        return self._model.concepts if isinstance(self._model, SupportsConcepts) else {}

    @property
    def domain(self) -> Sequence[Domain]:
        """That of its model."""
        return self._model.domain

    @property
    def gives_probabilities(self) -> bool:
        """See `SupportsProbabilities`."""
        return self._model.gives_probabilities

    def input_spec(self, info: ImageInfo) -> InputSpec:
        """A region is a whole slice. Raises `ModelError` where the stack is no volume or does not suit the model."""
        grid = volume_grid(info)
        self._model.suits(info)
        return InputSpec(tile=max(info.size), volume=grid)

    def check(self, specs: Sequence[InputSpec]) -> None:
        """See `Annotator`."""
        del specs
        self._model.check()

    def load(self) -> None:
        """See `Annotator`."""
        self._model.load()

    def segment(self, volume: Volume) -> Iterator[LabelMap]:
        """See `SupportsVolumes`."""
        return self._model.segment(volume)

    def annotate(self, views: Sequence[View]) -> Sequence[Sequence[Answer]]:
        """Not for single views. Raises `RequestError`."""
        del views
        remedy = "Leave out what shifts or cuts tiles, or choose a model that works slice by slice"
        raise RequestError(f"model {self._model.identity['name']}", "must get whole stacks of slices", remedy=remedy)

    def cost(self, specs: Sequence[InputSpec], tiles: tuple[int, int]) -> Cost | None:
        """See `SupportsCost`: that of the stack that takes the most memory."""
        del tiles
        grids = {spec.volume for spec in specs if spec.volume is not None}
        costs = [self._model.cost(grid.shape, grid.spacing) for grid in sorted(grids, key=_voxels)]
        return max((cost for cost in costs if cost is not None), key=lambda cost: cost.memory, default=None)


def _voxels(grid: VoxelGrid) -> tuple[int, ...]:
    return grid.shape
