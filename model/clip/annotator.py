"""The `zero-shot` annotator: which of the labels that a person names fits each tile, and each region, best."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from ...readers.image import ImageInfo
from ...readers.options import invalid_option
from ..annotator import Answer, Cost, InputSpec, View
from ..checkpoints.files import fetch_weights
from ..checkpoints.memory import weight_bytes
from ..options import Names, NetworkOptions
from ..scores import top_label
from ..views import kept_tiles, valid_share
from ..vlm.special_tokens import refuse_marks
from .checkpoint import ClipCheckpoint, find_checkpoint
from .fusion import Fusion, FusionText, unit
from .openclip_files import find_openclip
from .openclip_state_dict import find_bare

if TYPE_CHECKING:
    from .network import ClipNetwork

OPENCLIP_LOADING = 2.5  # times its weights: as read, under transformers' names, and in the network


class ZeroShotOptions(NetworkOptions):
    """Options of `ZeroShot`."""

    checkpoint: str = Field(
        min_length=1,
        description="A folder in the format of transformers or OpenCLIP, a hub id `OWNER/NAME@COMMIT`, or a file of "
        "OpenCLIP's weights alone.",
        examples=["--model zero-shot:FOLDER, or zero-shot:OWNER/NAME@COMMIT"],
    )
    architecture: str = Field(default="", description="OpenCLIP's name of the model, for a file of weights alone.")
    tokenizer: str = Field(
        default="",
        description="For OpenCLIP: a folder with a tokenizer's files, or OpenCLIP's file of merges, where neither lies "
        "beside the weights.",
    )
    labels: Names = Field(
        min_length=2,
        description="What to choose from.",
        examples=['--labels "forest,water,built-up land"'],
    )
    templates: tuple[str, ...] = Field(
        default=("a photo of {}.",),
        min_length=1,
        description="Prompts with `{}` for the label, whose similarities are averaged.",
        json_schema_extra={"separator": ";"},
        examples=["a photo of {}."],
    )
    aggregate: Literal["both", "tile", "region"] = Field(
        default="both", description="Whether tiles or regions are answered."
    )
    fusion: FusionText = "off"

    @field_validator("templates")
    @classmethod
    def _have_places(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all("{}" in template for template in value):
            msg = "each must have {} where the label goes"
            raise ValueError(msg)
        return value


class ZeroShot:
    """An annotator without training: an image-text checkpoint compares each tile with words.

    Raises `RequestError` where words hold the marks of a chat.
    """

    Options = ZeroShotOptions

    def __init__(self, options: ZeroShotOptions) -> None:
        self._options = options
        self._source, self._labels = options.checkpoint, options.labels
        refuse_marks({"labels": ",".join(self._labels), "templates": ";".join(options.templates)}, of="zero-shot")
        self._fusion = Fusion.parse(options.fusion)
        self._found: ClipCheckpoint | None = None
        self._network: ClipNetwork | None = None

    @property
    def identity(self) -> Mapping[str, str]:
        """The checkpoint's files, the words, and what runs them. Raises `ModelError` where the files are not here."""
        checkpoint = self._checkpoint()
        return {
            "name": "zero-shot",
            "annotator": "zero-shot",
            **checkpoint.files.identity(checkpoint.family),
            **({"architecture": self._options.architecture} if self._options.architecture else {}),
            "runtime": f"torch {version('torch')}, transformers {version('transformers')}",
            "score": "softmax over the labels" if checkpoint.family == "clip" else "sigmoid of each label",
            "aggregate": self._options.aggregate,
            **({} if self._fusion is None else {"fusion": self._fusion.words()}),
            "labels": ", ".join(self._labels),
            "templates": "; ".join(self._options.templates),
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that were asked for, in their order."""
        return self._labels

    @property
    def colours(self) -> Mapping[str, str]:
        """None of its own."""
        return {}

    def input_spec(self, info: ImageInfo) -> InputSpec:
        """Rendered RGB in tiles of the checkpoint's size, at any resolution. Raises `ModelError`."""
        del info  # any picture that can be rendered will do
        checkpoint = self._checkpoint()
        return InputSpec(
            tile=checkpoint.tile,
            overall=self._options.aggregate != "tile" or self._fusion is not None,
            variant=checkpoint.family,
        )

    def check(self, specs: Sequence[InputSpec]) -> None:
        """Find the checkpoint and its weights. Raises `ModelError`, `RequestError`."""
        del specs
        fetch_weights(self._checkpoint().files, fetch=self._options.fetch)

    def load(self) -> None:
        """See `Annotator`. What is wrong with the words is said here: the network's own settings bound them."""
        self._loaded()

    def cost(self, specs: Sequence[InputSpec], tiles: tuple[int, int]) -> Cost:
        """See `Costing`."""
        checkpoint = self._checkpoint()
        weights = weight_bytes(checkpoint.files, itemsize=4)
        looks = tiles[0] * tiles[1] + any(spec.overall for spec in specs)
        loading = weights * (1.0 if checkpoint.open_clip is None else OPENCLIP_LOADING)
        return Cost(weights=weights, numbers="float32", work=looks, loading=loading)

    def annotate(self, views: Sequence[View]) -> Sequence[Sequence[Answer]]:
        """One answer for each tile with a wanted pixel, and one for the region. Raises `ModelError`."""
        network = self._loaded()
        return [self._answers(view, network) for view in views]

    def _answers(self, view: View, network: "ClipNetwork") -> list[Answer]:
        """A tile's geometry is its share of the region's core; its `valid` the part of it that is wanted.

        The region's probabilities are half the mean of its tiles' and half the global view's.
        """
        kept = kept_tiles(view)
        looks = np.array([network.encode_image(view.tiles[one.index]) for one in kept])
        if self._fusion is not None and kept:
            looks = unit(
                self._fusion(looks.astype(np.float64), network.encode_image(_overall(view)).astype(np.float64))
            )
        chances = [network.compare(one) for one in looks.astype(np.float32)]
        answers: list[Answer] = []
        if self._options.aggregate != "region":
            answers += [
                top_label(self._labels, one, "tile", tile.valid_share, geometry=tile.core)
                for one, tile in zip(chances, kept, strict=True)
            ]
        if self._options.aggregate != "tile" and chances:
            together = (np.mean(chances, axis=0) + network(_overall(view))) / 2
            made_of = f"half the mean of {len(chances)} tiles, half the global view"
            answers.append(top_label(self._labels, together, "region", valid_share(view), made_of=made_of))
        return answers

    def _checkpoint(self) -> ClipCheckpoint:
        if self._found is None:
            self._found = self._find()
        return self._found

    def _find(self) -> ClipCheckpoint:
        if Path(self._source).is_file():
            return find_bare(self._source, self._options.architecture, tokenizer=self._options.tokenizer)
        if self._options.architecture:
            raise invalid_option(
                "architecture",
                "zero-shot",
                "it is for a file of weights alone, since a folder states its own",
                value=self._options.architecture,
                remedy="Leave it out, or name the file of weights",
            )
        found = find_openclip(self._source, fetch=self._options.fetch, tokenizer=self._options.tokenizer)
        if found is None and self._options.tokenizer:
            raise invalid_option(
                "tokenizer",
                "zero-shot",
                "it is for checkpoints of OpenCLIP, since one in transformers' format has its own",
                value=self._options.tokenizer,
                remedy="Leave it out",
            )
        return found or find_checkpoint(self._source, fetch=self._options.fetch)

    def _loaded(self) -> "ClipNetwork":
        if self._network is None:
            from .network import ClipNetwork

            templates, threads = self._options.templates, self._options.threads
            self._network = ClipNetwork(self._checkpoint(), self._labels, templates, threads=threads)
        return self._network


def _overall(view: View) -> npt.NDArray[np.float32]:
    if view.global_view is None:
        msg = f"region {view.region.key}: its global view is needed, and its spec did not ask for it"
        raise ValueError(msg)
    return view.global_view
