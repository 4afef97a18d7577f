"""The `zero-shot` annotator: classify tiles and regions by their similarity to labels, with a CLIP or SigLIP model."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from ...readers.image import ImageInfo
from ..annotator import Answer, Cost, InputSpec, View
from ..checkpoints.files import fetch_weights
from ..checkpoints.memory import weight_bytes
from ..options import CheckpointAnnotator, CheckpointOptions, Names
from ..scores import top_label
from ..views import kept_tiles, valid_share
from ..vlm.question import refuse_special_tokens
from .checkpoint import ClipCheckpoint, find_checkpoint, find_image_text
from .fusion import Fusion, FusionText, normalise

if TYPE_CHECKING:
    from .network import ClipNetwork

OPENCLIP_LOADING = 2.5
"""Peak memory while loading OpenCLIP's weights, as a multiple of their size: as read, renamed, and in the network."""


class ZeroShotOptions(CheckpointOptions):
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
        description="Labels to choose from.",
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
        default="both", description="Whether tiles, regions or both are classified."
    )
    fusion: FusionText = "off"

    @field_validator("templates")
    @classmethod
    def _have_placeholders(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all("{}" in template for template in value):
            msg = "each must have {} where the label goes"
            raise ValueError(msg)
        return value


class ZeroShot(CheckpointAnnotator[ZeroShotOptions]):
    """Classifies tiles and regions without training.

    Raises `RequestError` where labels or templates contain the special tokens of a chat.
    """

    Options = ZeroShotOptions

    def __init__(self, options: ZeroShotOptions) -> None:
        super().__init__(options)
        self._labels = options.labels
        refuse_special_tokens(
            {"labels": ",".join(self._labels), "templates": ";".join(options.templates)}, of="zero-shot"
        )
        self._fusion = Fusion.parse(options.fusion)
        self._found: ClipCheckpoint | None = None
        self._loaded: ClipNetwork | None = None

    @property
    def identity(self) -> Mapping[str, str]:
        """The checkpoint's files, labels, prompts and library versions. Raises `ModelError` where files are missing."""
        checkpoint = self._checkpoint()
        return {
            "name": "zero-shot",
            "annotator": "zero-shot",
            **checkpoint.files.identity(checkpoint.family),
            **({"architecture": self._options.architecture} if self._options.architecture else {}),
            "runtime": f"torch {version('torch')}, transformers {version('transformers')}",
            "score": "softmax over the labels" if checkpoint.family == "clip" else "sigmoid of each label",
            "aggregate": self._options.aggregate,
            **({} if self._fusion is None else {"fusion": str(self._fusion)}),
            "labels": ", ".join(self._labels),
            "templates": "; ".join(self._options.templates),
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the options, in their order."""
        return self._labels

    def input_spec(self, info: ImageInfo) -> InputSpec:
        """Rendered RGB in tiles of the checkpoint's size, at any resolution. Raises `ModelError`."""
        del info  # any image that can be rendered
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
        """See `Annotator`; also checks the prompts, whose length the network limits."""
        self._network()

    def cost(self, specs: Sequence[InputSpec], tiles: tuple[int, int]) -> Cost:
        """See `SupportsCost`."""
        checkpoint = self._checkpoint()
        weights = weight_bytes(checkpoint.files, itemsize=4)
        images = tiles[0] * tiles[1] + any(spec.overall for spec in specs)
        loading = weights * (1.0 if checkpoint.open_clip is None else OPENCLIP_LOADING)
        return Cost(weights=weights, dtype="float32", work=images, loading=loading)

    def answer(self, view: View) -> list[Answer]:
        """One answer for each tile that is kept, and one for the region. Raises `ModelError`.

        The region's probabilities are half the mean of its tiles' and half those of the global view.
        """
        network, kept = self._network(), kept_tiles(view)
        if not kept:
            return []
        features = np.array([network.encode_image(view.tiles[one.index]) for one in kept])
        if self._fusion is not None:
            overall = network.encode_image(global_view_of(view)).astype(np.float64)
            features = normalise(self._fusion(features.astype(np.float64), overall))
        probabilities = [network.compare(one) for one in features.astype(np.float32)]
        answers: list[Answer] = []
        if self._options.aggregate != "region":
            answers += [
                top_label(self._labels, one, "tile", tile.valid_share, geometry=tile.core)
                for one, tile in zip(probabilities, kept, strict=True)
            ]
        if self._options.aggregate != "tile":
            region = (np.mean(probabilities, axis=0) + network(global_view_of(view))) / 2
            made_of = f"half the mean of {len(kept)} tiles, half the global view"
            answers.append(top_label(self._labels, region, "region", valid_share(view), made_of=made_of))
        return answers

    def _checkpoint(self) -> ClipCheckpoint:
        if self._found is None:
            source, fetch = self._options.checkpoint, self._options.fetch
            architecture, tokenizer = self._options.architecture, self._options.tokenizer
            found = find_image_text(source, fetch=fetch, architecture=architecture, tokenizer=tokenizer)
            self._found = found or find_checkpoint(source, fetch=fetch)  # which refuses other types
        return self._found

    def _network(self) -> "ClipNetwork":
        if self._loaded is None:
            from .network import ClipNetwork

            templates, threads = self._options.templates, self._options.threads
            self._loaded = ClipNetwork(self._checkpoint(), self._labels, templates, threads=threads)
        return self._loaded


def global_view_of(view: View) -> npt.NDArray[np.float32]:
    """A view's global view, which its spec must have asked for."""
    if view.global_view is None:
        msg = f"region {view.region.key}: its spec must ask for the global view"
        raise ValueError(msg)
    return view.global_view
