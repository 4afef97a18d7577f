"""The `wsinfer` annotator: patch classification of slides with the checkpoints of the WSInfer model zoo.

Format: `config.json` after the schema of SBU-BMI/wsinfer-zoo (model-config.schema.json, version 1.0), beside
`torchscript_model.pt`. Patches are preprocessed as in WSInfer (Kaczmarzyk et al. 2024, npj Precision Oncology 8:9);
several logits are a softmax, one is a sigmoid. A TorchScript file is a program: loading it runs it. It is loaded only
from the folder that the user names, from the bytes whose sha256 goes into the manifest.
"""

# torch's types of numpy arrays are not complete:
# pyright: reportUnknownMemberType=false

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ...readers.errors import ModelError, excerpt
from ...readers.image import ImageInfo
from ..annotator import TORCH_BYTES, Answer, Cost, InputSpec, View
from ..checkpoints import weights
from ..checkpoints.files import HUB_ID, CheckpointFiles, as_numbers, find_files
from ..checkpoints.inputs import apply_tables
from ..checkpoints.memory import file_bytes, memory_errors
from ..checkpoints.untrusted import MAX_TILE, UntrustedDict, check_archive, read_bytes, wrap_errors
from ..options import CheckpointAnnotator, CheckpointOptions, Names, select_labels
from ..scores import Scores, require_distinct, top_label
from ..tiling import resize_bilinear
from ..views import kept_tiles

CONFIG, SCRIPT = "config.json", "torchscript_model.pt"
VERSION = "1.0"
COLOURS = ("red", "green", "blue")
PIPELINES = ("ToTensor", "Resize, ToTensor", "ToTensor, Normalize", "Resize, ToTensor, Normalize")
MAX_BYTES = 2**32


@dataclass(frozen=True, slots=True)
class WSInferConfig:
    """The content of `config.json`."""

    architecture: str
    classes: tuple[str, ...]
    patch_size: int
    """Pixels a side of a patch of the slide."""
    microns_per_pixel: float
    input_size: int
    """Pixels a side of the network's input, to which patches are resized."""
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def read(cls, settings: UntrustedDict) -> "WSInferConfig":
        """Raises `ModelError` that names the key with a wrong value."""
        names = tuple(map(str, settings.list("class_names")))
        side = settings.integer("patch_size_pixels", 0, most=MAX_TILE)
        microns = settings.number("spacing_um_px", 0.0, above=0)
        steps = {step.text("name"): step.part("arguments") for step in settings.parts("transform")}
        size = as_numbers(steps["Resize"].get("size")) if "Resize" in steps else (side,)
        mean, std = ((0.0,) * 3, (1.0,) * 3)
        if "Normalize" in steps:
            mean, std = (as_numbers(steps["Normalize"].get(key)) for key in ("mean", "std"))
        order = ", ".join(step.text("name") for step in settings.parts("transform"))
        rules = (
            ("spec_version", settings.get("spec_version") == VERSION, f"{VERSION}, the only known version"),
            ("class_names", 0 < len(set(names)) == len(names), "a list of distinct names"),
            ("num_classes", settings.get("num_classes") == len(names), f"{len(names)}, the number of class_names"),
            ("patch_size_pixels", side > 0, "a whole number from 1"),
            ("spacing_um_px", microns > 0, "a positive number"),
            ("transform", order in PIPELINES, " or ".join(PIPELINES)),
            (
                "transform",
                len(set(size)) == 1 and type(size[0]) is int and 1 <= size[0] <= MAX_TILE,
                f"steps of which Resize has one whole number from 1 to {MAX_TILE} as its size",
            ),
            (
                "transform",
                len(mean) == len(std) == len(COLOURS) and min(std) > 0,
                "steps of which Normalize has a mean and a std above 0 for red, green and blue",
            ),
        )
        for key, holds, rule in rules:
            if not holds:
                raise settings.wrong(key, rule)
        return cls(settings.text("architecture"), names, side, microns, int(size[0]), mean, std)


class WSInferOptions(CheckpointOptions):
    """Options of `WSInfer`."""

    checkpoint: str = Field(
        min_length=1,
        description="A folder with `config.json` and `torchscript_model.pt`, or a hub id `OWNER/NAME@COMMIT`.",
        examples=["--model wsinfer:FOLDER, or wsinfer:OWNER/NAME@COMMIT"],
    )
    labels: Names = Field(default=(), description="Which of its classes to keep; all by default.")


class WSInfer(CheckpointAnnotator[WSInferOptions]):
    """An annotator for a folder of the WSInfer model zoo."""

    Options = WSInferOptions

    @cached_property
    def _files(self) -> CheckpointFiles:
        return find_files(self._source, fetch=self._options.fetch, small=(CONFIG, SCRIPT))

    @cached_property
    def _config(self) -> WSInferConfig:
        return WSInferConfig.read(self._files.read(CONFIG))

    @cached_property
    def _network(self) -> "TorchScript":
        return TorchScript(self._files.folder / SCRIPT, len(self._config.classes), threads=self._options.threads)

    @property
    def identity(self) -> Mapping[str, str]:
        """Both files, the preprocessing, and the runtime. Raises `ModelError` where a file is not here."""
        config = self._config
        digest = weights.sha256_of(self._files.folder / SCRIPT)
        hub = HUB_ID.fullmatch(self._source)
        patch = f"patches of {config.patch_size} px of {config.microns_per_pixel:g} um, shown at {config.input_size} px"
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (config.mean, config.std))
        return {
            "name": "wsinfer",
            "version": f"script {digest[:12]}",
            "annotator": "wsinfer",
            "checkpoint": self._source,
            "revision": hub["revision"] if hub else "",
            "licence": "not known: the model's own",
            "architecture": config.architecture,
            "preprocessing": f"{patch}; mean {mean}; std {std}",
            "score": "sigmoid" if len(config.classes) == 1 else "softmax over the classes",
            "runtime": f"torch {version('torch')}",
            f"weights_sha256_{SCRIPT}": digest,
            f"sha256_{CONFIG}": weights.sha256_of(self._files.folder / CONFIG),
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """Its classes, or those of them that were asked for. Raises `ModelError`."""
        return select_labels(self._options.labels, self._config.classes, self._source)

    def input_spec(self, info: ImageInfo) -> InputSpec:
        """Rendered RGB of 8 bits in the model's patches, at its pixel size. Raises `ModelError`."""
        dtypes = {channel.common: channel.dtype for channel in info.channels}
        if any(dtypes.get(colour) != "uint8" for colour in COLOURS):
            raise ModelError(
                f"{info.id or info.uri} with model {self._source}",
                "must have red, green and blue of 8 bits, as stained tissue is scanned",
                value=", ".join(f"{c.name} ({c.common or 'colour unknown'}, {c.dtype})" for c in info.channels[:5]),
                remedy="Choose another model, or name the channels with --bands where they are these",
            )
        return InputSpec(self._config.patch_size, resolution=self._config.microns_per_pixel, unit="um", variant=SCRIPT)

    def check(self, specs: Sequence[InputSpec]) -> None:
        """Find and hash both files. Raises `ModelError`."""
        super().check(specs)
        _ = self.identity

    def load(self) -> None:
        """Load the script, which is a program. Raises `ModelError`."""
        _ = self._network

    def cost(self, specs: Sequence[InputSpec], tiles: tuple[int, int]) -> Cost:
        """See `SupportsCost`. While it is loaded, the script's file is in memory beside the network."""
        del specs
        held = file_bytes([self._files.folder / SCRIPT])
        return Cost(held, "their own type", work=tiles[0] * tiles[1], loading=2 * held, libraries=TORCH_BYTES)

    def answer(self, view: View) -> list[Answer]:
        """The label of each patch with a kept pixel. Raises `ModelError`."""
        config = self._config
        answers: list[Answer] = []
        for kept in kept_tiles(view):
            tile = view.tiles[kept.index]
            if config.input_size != config.patch_size:
                tile = resize_bilinear(np.ascontiguousarray(tile), config.input_size, config.input_size)
            scores = self._network(tile, mean=config.mean, std=config.std)
            answers.append(top_label(config.classes, scores, "tile", kept.valid_share, geometry=kept.core))
        return answers


class TorchScript:
    """A TorchScript network that returns (1, `classes`) logits for a tile (1, 3, side, side).

    `threads` 0 leaves torch's number of threads as it is. Raises `ModelError` where torch cannot load it.
    """

    def __init__(self, path: Path, classes: int, *, threads: int = 0) -> None:
        import torch

        if threads:
            torch.set_num_threads(threads)
        self._classes = classes
        self._subject = f"network {path.name}"
        content = read_bytes(path, self._subject, most=MAX_BYTES)
        remedy = "Check that the file is whole"
        with wrap_errors(self._subject, "must load as TorchScript", remedy=remedy), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the format's successor is another format
            check_archive(io.BytesIO(content))
            self._script: Any = cast("Any", torch.jit).load(io.BytesIO(content), map_location="cpu")
            self._script.eval()

    def __call__(self, tile: npt.NDArray[np.uint8], *, mean: Sequence[float], std: Sequence[float]) -> Scores:
        """A tile (side, side, 3), as (value / 255 - mean) / std by channel → a score for each class.

        Runs without the optimisations that would change the script's sums after a few calls. Raises `ModelError` for
        another number of scores, or one that is not finite.
        """
        import torch

        shares = torch.arange(256, dtype=torch.float32) / 255
        inputs = (shares - torch.tensor(mean)[:, None]) / torch.tensor(std)[:, None]
        batch = torch.from_numpy(apply_tables(np.asarray(tile), inputs.numpy()))[None]
        rule = f"must take tiles of {tuple(batch.shape[1:])} and return numbers"
        remedy = f"Correct patch_size_pixels or Resize in {CONFIG}"
        with (
            wrap_errors(self._subject, rule, remedy=remedy, running=True),
            memory_errors(),
            torch.inference_mode(),
            cast("Any", torch.jit).optimized_execution(False),
        ):
            logits = cast("torch.Tensor", self._script(batch.to(torch.float32))).reshape(-1).to(torch.float64)
        if len(logits) != self._classes:
            rule = f"must return {self._classes} numbers a tile, one for each class of {CONFIG}"
            remedy = "Correct num_classes and class_names"
            raise ModelError(self._subject, rule, value=excerpt(str(len(logits))), remedy=remedy)
        require_distinct(logits, of=self._subject)
        return (torch.sigmoid(logits) if self._classes == 1 else torch.softmax(logits, dim=0)).numpy()
