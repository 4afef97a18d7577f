"""The `transformers` annotator: classification, segmentation and detection checkpoints, by their `config.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from ...readers.image import ImageInfo, Mask, Pixels
from ...readers.options import invalid_option
from ..annotator import Answer, Cost, InputSpec, ReadPicture, View
from ..checkpoints import tile_statistics
from ..checkpoints.files import fetch_weights, find_files
from ..checkpoints.memory import weight_bytes
from ..class_maps import ClassScores, class_map_bytes, class_map_to_polygons, fill_invalid
from ..detections import tile_detections
from ..options import CheckpointAnnotator, CheckpointOptions, Names, SegmentationOptions, select_labels
from ..scores import softmax, top_label
from ..views import kept_tiles
from .task_config import TaskConfig, read_task_config

if TYPE_CHECKING:
    from .networks import TransformersNetwork

THRESHOLD = 0.5
THRESHOLDS = {"owlvit": 0.1, "owlv2": 0.1, "grounding-dino": 0.25, "mm-grounding-dino": 0.25}  # transformers' defaults
TEMPLATES = {"owlvit": "a photo of a {}", "owlv2": "a photo of a {}"}  # of their authors; others take bare words
NO_CLASS = "N/A"  # label of outputs without a class in checkpoints for COCO
MOST_TILES = 8  # of an image, on which statistics over a tile are measured
HALO_SHARE = 8  # the halo is a tile / 8: neighbours share a quarter, and most objects are whole in one


class TransformersOptions(CheckpointOptions, SegmentationOptions):
    """Options of `Transformers`."""

    checkpoint: str = Field(
        min_length=1,
        description="A folder or a hub id `OWNER/NAME@COMMIT`.",
        examples=["--model transformers:FOLDER, or transformers:OWNER/NAME@COMMIT"],
    )
    labels: Names = Field(default=(), description="Which of its labels to keep, or what a detector by words looks for.")
    background: Names = Field(
        default=(), description="Classes of a segmentation that give no areas, besides one that is called background."
    )
    threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="The lowest score of a detection; by default what its family is used with.",
    )
    template: str = Field(
        default="",
        description="The prompt around a label to look for, with `{}` for the label.",
        examples=["a photo of {}"],
    )
    halo: int | None = Field(
        default=None,
        ge=0,
        description="Margin of a tile in pixels; by default an eighth of it, none for classification.",
    )

    @field_validator("template")
    @classmethod
    def _has_placeholder(cls, value: str) -> str:
        if value and "{}" not in value:
            msg = "it must have {} where the label goes"
            raise ValueError(msg)
        return value


class Transformers(CheckpointAnnotator[TransformersOptions]):
    """An annotator for checkpoints that transformers saved: `config.json` decides the task."""

    Options = TransformersOptions

    @cached_property
    def _config(self) -> TaskConfig:
        return read_task_config(find_files(self._source, fetch=self._options.fetch))

    @cached_property
    def _network(self) -> "TransformersNetwork":
        return self._load()

    def _load(self) -> "TransformersNetwork":
        from .networks import TransformersNetwork

        labels = self._options.labels if self._config.task == "find" else self._config.labels
        return TransformersNetwork(self._config, labels, template=self._template, threads=self._options.threads)

    @property
    def identity(self) -> Mapping[str, str]:
        """The checkpoint's files, preprocessing and runtime. Raises `ModelError` where the files are not here."""
        config = self._config
        further = {"threshold": f"{self._threshold:g}"} if config.task in {"detect", "find"} else {}
        if config.task == "find":
            further |= {"labels": ", ".join(self._options.labels), "template": self._template}
        if config.task.startswith("segment"):
            further |= {"background": ", ".join(config.labels[i] for i in self._background), **self._options.identity}
        scores = "sigmoid of each label" if config.independent or config.task == "find" else "softmax over the labels"
        return {
            "name": "transformers",
            "annotator": "transformers",
            **config.files.identity(config.family),
            "task": config.task,
            "family": config.family,
            "preprocessing": config.preprocessing,
            "runtime": f"torch {version('torch')}, transformers {version('transformers')}",
            "score": "share of a class in its masks" if config.task == "segment by masks" else scores,
            **further,
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """Those that were asked for, or all that it has, without background and outputs without a class.

        Raises `ModelError`.
        """
        config = self._config
        if config.task == "find":
            return self._options.labels
        without = {NO_CLASS, *(config.labels[i] for i in self._background)}
        return select_labels(self._options.labels, [one for one in config.labels if one not in without], self._source)

    @property
    def gives_probabilities(self) -> bool:
        """See `SupportsProbabilities`: of segmentation."""
        return self._config.task.startswith("segment")

    def input_spec(self, info: ImageInfo) -> InputSpec:
        """Rendered RGB in tiles of the network's size, at any resolution. Raises `ModelError`."""
        del info
        config, halo = self._config, self._options.halo
        if config.task == "classify":
            halo = 0
        elif halo is None:
            halo = config.tile // HALO_SHARE
        if config.tile <= 2 * halo:
            rule = f"must leave a core in a tile of {config.tile} px, which has two halos"
            raise invalid_option("halo", "transformers", rule, value=str(halo), remedy="Lower it")
        blended = self._options.blend and config.task.startswith("segment")
        return InputSpec(config.tile, halo=halo, variant=config.family, overlap=config.tile if blended else 0)

    def check(self, specs: Sequence[InputSpec]) -> None:
        """Find the checkpoint and its weights. Raises `ModelError`, `RequestError`."""
        if self._config.task == "find" and not self._options.labels:
            rule = "must name what to look for"
            raise invalid_option("labels", "transformers", rule, remedy='Add --labels "ship,aircraft"')
        super().check(specs)
        fetch_weights(self._config.files, fetch=self._options.fetch)

    def load(self) -> None:
        """Load the network. Raises `ModelError`."""
        _ = self._network

    def cost(self, specs: Sequence[InputSpec], tiles: tuple[int, int]) -> Cost:
        """See `SupportsCost`."""
        config, averaging = self._config, self._options.averaging
        segments = config.task.startswith("segment")
        maps = class_map_bytes(specs, tiles, classes=len(config.labels), averaging=averaging) if segments else 0.0
        held = weight_bytes(config.files, itemsize=4)
        return Cost(held, "float32", work=tiles[0] * tiles[1], activations=maps)

    def fit_picture(self, spec: InputSpec, read: ReadPicture) -> InputSpec:
        """See `SupportsPictureFit`: the statistics over a tile in a segmentation network, of tiles of the image."""
        if self._options.normalise == "tile" or not self._config.task.startswith("segment"):
            return spec
        from .networks import normalises_tiles

        if not normalises_tiles(self._config):
            return spec
        network = self._load()  # let go before regions are annotated
        pixels, valid = read()
        filled = pixels if valid.all() else fill_invalid(pixels, valid)
        tiles = tile_statistics.cut(filled, spec.tile)
        chosen = [tiles[i * len(tiles) // min(MOST_TILES, len(tiles))] for i in range(min(MOST_TILES, len(tiles)))]
        return replace(spec, fitted=tile_statistics.add(network.measure_statistics(chosen), spec.fitted))

    def answer(self, view: View) -> list[Answer]:
        """The labels, areas or boxes of a view. Raises `ModelError`."""
        config, network = self._config, self._network
        if config.task == "classify":
            return [
                top_label(config.labels, network.classify(view.tiles[i.index]), "tile", i.valid_share, geometry=i.core)
                for i in kept_tiles(view)
            ]
        if config.task in {"detect", "find"}:
            of = f"checkpoint {self._source}"
            return tile_detections(view, network.detect, threshold=self._threshold, of=of)

        network.use_statistics(tile_statistics.read(view.spec.fitted))

        def segment(tile: Pixels, valid: Mask) -> ClassScores:
            return network.segment(tile if valid.all() else fill_invalid(tile, valid))

        return class_map_to_polygons(
            view,
            segment,
            softmax if config.task == "segment" else (lambda shares: shares),
            classes=config.labels,
            background=self._background,
            network=self._source,
            averaging=self._options.averaging,
        )

    @property
    def _threshold(self) -> float:
        stated = self._options.threshold
        return THRESHOLDS.get(self._config.family, THRESHOLD) if stated is None else stated

    @property
    def _template(self) -> str:
        return self._options.template or TEMPLATES.get(self._config.family, "{}")

    @property
    def _background(self) -> tuple[int, ...]:
        """Indices of the classes that give no areas."""
        config, stated = self._config, self._options.background
        if not config.task.startswith("segment"):
            return ()
        names = set(select_labels(stated, config.labels, self._source)) if stated else set[str]()
        return tuple(i for i, one in enumerate(config.labels) if one in names or one.lower().strip("_") == "background")
