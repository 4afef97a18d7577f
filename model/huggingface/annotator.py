"""The `transformers` annotator: a folder of classification, segmentation or detection, by what its settings say."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from ...readers.image import ImageInfo, Mask, Pixels
from ...readers.options import invalid_option
from ..annotator import Answer, Cost, InputSpec, View
from ..checkpoints.files import CheckpointFiles, fetch_weights, find_files
from ..checkpoints.memory import weight_bytes
from ..class_maps import ClassScores, class_map_to_polygons, fill_invalid
from ..detections import tile_detections
from ..options import Names, NetworkOptions, select_labels
from ..scores import softmax, top_label
from ..views import kept_tiles
from .task_config import TaskConfig, read_task_config

if TYPE_CHECKING:
    from .networks import TransformersNetwork

THRESHOLD = 0.5
FOUND = {"owlvit": 0.1, "owlv2": 0.1, "grounding-dino": 0.25, "mm-grounding-dino": 0.25}  # transformers' own defaults
TEMPLATES = {"owlvit": "a photo of a {}", "owlv2": "a photo of a {}"}  # as its authors asked; others take bare words
NOTHING = "N/A"  # what COCO's checkpoints call the numbers that no class has
SHARE = 8  # a tile's rim is this part of it: neighbours share a quarter, and most things are whole in one


class TransformersOptions(NetworkOptions):
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
    def _has_a_place(cls, value: str) -> str:
        if value and "{}" not in value:
            msg = "it must have {} where the label goes"
            raise ValueError(msg)
        return value


class Transformers:
    """An annotator for folders that transformers saved: its `config.json` says what the network does."""

    Options = TransformersOptions

    def __init__(self, options: TransformersOptions) -> None:
        self._options = options
        self._source = options.checkpoint
        self._recipe: TaskConfig | None = None
        self._network: TransformersNetwork | None = None

    @property
    def identity(self) -> Mapping[str, str]:
        """The checkpoint's files, what it sees, and what runs it. Raises `ModelError` where the files are not here."""
        recipe = self._read()
        further = {"threshold": f"{self._least(recipe):g}"} if recipe.task in {"detect", "find"} else {}
        if recipe.task == "find":
            further |= {"labels": ", ".join(self._options.labels), "template": self._prompt(recipe)}
        if recipe.task.startswith("segment"):
            further |= {"background": ", ".join(recipe.labels[i] for i in self._empty(recipe))}
        scores = "sigmoid of each label" if recipe.independent or recipe.task == "find" else "softmax over the labels"
        return {
            "name": "transformers",
            "annotator": "transformers",
            **recipe.files.identity(recipe.family),
            "task": recipe.task,
            "family": recipe.family,
            "preprocessing": recipe.preprocessing,
            "runtime": f"torch {version('torch')}, transformers {version('transformers')}",
            "score": "share of a class in its masks" if recipe.task == "segment by masks" else scores,
            **further,
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """Those it was asked for, or all it has, without background and outputs that stand for nothing.

        Raises `ModelError`.
        """
        recipe = self._read()
        if recipe.task == "find":
            return self._options.labels
        empty = {NOTHING, *(recipe.labels[i] for i in self._empty(recipe))}
        return select_labels(
            self._options.labels, [label for label in recipe.labels if label not in empty], recipe.files.source
        )

    @property
    def colours(self) -> Mapping[str, str]:
        """None of its own."""
        return {}

    def input_spec(self, info: ImageInfo) -> InputSpec:
        """Rendered RGB in tiles of the network's size, at any resolution. Raises `ModelError`."""
        del info
        recipe = self._read()
        stated = self._options.halo
        halo = 0 if recipe.task == "classify" else recipe.tile // SHARE if stated is None else stated
        if recipe.tile <= 2 * halo:
            rule = f"a tile of {recipe.tile} px must be wider than its two rims"
            raise invalid_option("halo", "transformers", rule, value=str(halo), remedy="Lower it")
        return InputSpec(tile=recipe.tile, halo=halo, variant=recipe.family)

    def check(self, specs: Sequence[InputSpec]) -> None:
        """Find the checkpoint and its weights. Raises `ModelError`, `RequestError`."""
        del specs
        recipe = self._read()
        if recipe.task == "find" and not self._options.labels:
            rule = "what to look for must be named"
            raise invalid_option("labels", "transformers", rule, remedy='Add --labels "ship,aircraft"')
        _ = self.labels
        fetch_weights(recipe.files, fetch=self._options.fetch)

    def load(self) -> None:
        """See `Annotator`."""
        self._loaded()

    def cost(self, specs: Sequence[InputSpec], tiles: tuple[int, int]) -> Cost:
        """See `Costing`."""
        del specs
        return Cost(weight_bytes(self._read().files, itemsize=4), "float32", work=tiles[0] * tiles[1])

    def annotate(self, views: Sequence[View]) -> Sequence[Sequence[Answer]]:
        """What the network says of each view. Raises `ModelError`."""
        network, kept = self._loaded(), frozenset(self.labels)
        return [[answer for answer in self._answers(view, network) if answer.label in kept] for view in views]

    def _answers(self, view: View, network: "TransformersNetwork") -> list[Answer]:
        recipe = self._read()
        if recipe.task == "classify":
            return [
                top_label(
                    recipe.labels, network.classify(view.tiles[one.index]), "tile", one.valid_share, geometry=one.core
                )
                for one in kept_tiles(view)
            ]
        if recipe.task in {"detect", "find"}:
            return tile_detections(view, network.detect, threshold=self._least(recipe), of=f"checkpoint {self._source}")

        def see(tile: Pixels, valid: Mask) -> ClassScores:
            return network.segment(tile if valid.all() else fill_invalid(tile, valid), valid)

        return class_map_to_polygons(
            view,
            see,
            softmax if recipe.task == "segment" else (lambda shares: shares),
            classes=recipe.labels,
            background=self._empty(recipe),
            network=recipe.files.source,
        )

    def _least(self, recipe: TaskConfig) -> float:
        return FOUND.get(recipe.family, THRESHOLD) if self._options.threshold is None else self._options.threshold

    def _prompt(self, recipe: TaskConfig) -> str:
        return self._options.template or TEMPLATES.get(recipe.family, "{}")

    def _empty(self, recipe: TaskConfig) -> tuple[int, ...]:
        """The classes that give no areas."""
        if not recipe.task.startswith("segment"):
            return ()
        named = (
            select_labels(self._options.background, recipe.labels, recipe.files.source)
            if self._options.background
            else ()
        )
        called = {label for label in recipe.labels if label.lower().strip("_") == "background"}
        return tuple(i for i, label in enumerate(recipe.labels) if label in (named or called))

    def _read(self) -> TaskConfig:
        if self._recipe is None:
            files: CheckpointFiles = find_files(self._source, fetch=self._options.fetch)
            self._recipe = read_task_config(files)
        return self._recipe

    def _loaded(self) -> "TransformersNetwork":
        if self._network is None:
            from .networks import TransformersNetwork

            recipe = self._read()
            labels = self._options.labels if recipe.task == "find" else recipe.labels
            self._network = TransformersNetwork(
                recipe, labels, template=self._prompt(recipe), threads=self._options.threads
            )
        return self._network
