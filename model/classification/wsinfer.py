"""The `wsinfer` annotator: patch classification of slides, as the WSInfer model zoo stores it.

Source of the format: the schema of `config.json` in SBU-BMI/wsinfer-zoo (model-config.schema.json, version 1.0), beside
`torchscript_model.pt`; what is done to a patch, and that several logits are a softmax and one is a sigmoid, as WSInfer
does (Kaczmarzyk et al. 2024, npj Precision Oncology 8:9).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from ...readers.errors import ModelError, excerpt
from ...readers.image import ImageInfo
from ..annotator import Answer, Cost, InputSpec, View
from ..checkpoints import weights
from ..checkpoints.footprint import file_bytes
from ..checkpoints.transformers_files import HUB_ID, Files, find_files, numbers
from ..checkpoints.untrusted import WIDEST, Settings
from ..options import NetworkOptions, Redactor, among
from ..tiling import resize
from ..top_label import top_label
from ..views import kept_tiles

if TYPE_CHECKING:
    from .torchscript import Script

SETTINGS, SCRIPT = "config.json", "torchscript_model.pt"
VERSION = "1.0"
COLOURS = ("red", "green", "blue")
ORDERS = (("ToTensor",), ("Resize", "ToTensor"), ("ToTensor", "Normalize"), ("Resize", "ToTensor", "Normalize"))


@dataclass(frozen=True, slots=True)
class Patch:
    """What a model says of itself: patches of `side` pixels of `microns`, seen at `shown` pixels, by its `classes`."""

    architecture: str
    classes: tuple[str, ...]
    side: int
    microns: float
    shown: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def read(cls, settings: Settings, source: str) -> "Patch":
        """From the content of `config.json`. Raises `ModelError` that names the key that breaks the format."""
        names = tuple(map(str, settings.list("class_names")))
        side = settings.whole("patch_size_pixels", 0, least=1, most=WIDEST)
        microns = settings.number("spacing_um_px", 0.0, above=0)
        rules = {
            "spec_version": (settings.get("spec_version") == VERSION, f"it must be {VERSION}, the only one known"),
            "class_names": (0 < len(set(names)) == len(names), "it must be a list of names that differ"),
            "num_classes": (settings.get("num_classes") == len(names), f"class_names has {len(names)}"),
            "patch_size_pixels": (side > 0, "it must be a whole number from 1 on"),
            "spacing_um_px": (microns > 0, "it must be a positive number"),
            "transform": (_order(settings) in ORDERS, f"it must be {' or '.join(', '.join(one) for one in ORDERS)}"),
        }
        for key, (kept, rule) in rules.items():
            if not kept:
                raise _wrong(settings, key, rule, source)
        steps = {step.text("name"): step.part("arguments") for step in settings.parts("transform")}
        size = steps["Resize"].get("size") if "Resize" in steps else side
        sides = numbers(size)
        shown = sides[0] if sides else 0
        if len(set(sides)) != 1 or not isinstance(shown, int) or not 1 <= shown <= WIDEST:
            rule = f"the size of Resize must be one whole number from 1 to {WIDEST}"
            raise _wrong(settings, "transform", rule, source)
        mean, std = ((0.0,) * 3, (1.0,) * 3)
        if "Normalize" in steps:
            mean, std = (numbers(steps["Normalize"].get(key)) for key in ("mean", "std"))
        if not len(mean) == len(std) == len(COLOURS) or min(std) <= 0:
            rule = "Normalize must have a mean and a std above 0 for red, green and blue"
            raise _wrong(settings, "transform", rule, source)
        return cls(settings.text("architecture"), names, side, microns, shown, mean, std)


class WSInferOptions(NetworkOptions):
    """Options of `WSInfer`."""

    checkpoint: str = Field(
        min_length=1,
        description="A folder with `config.json` and `torchscript_model.pt`, or a hub id `OWNER/NAME@COMMIT`.",
        examples=["--model wsinfer:FOLDER, or wsinfer:OWNER/NAME@COMMIT"],
    )
    labels: Redactor = Field(default=(), description="Which of its classes to keep; all by default.")


class WSInfer:
    """An annotator for a folder of the WSInfer model zoo. The script is a program, which runs when it is loaded."""

    Options = WSInferOptions

    def __init__(self, options: WSInferOptions) -> None:
        self._options = options
        self._source = options.checkpoint
        self._found: tuple[Files, Patch] | None = None
        self._script: Script | None = None

    @property
    def identity(self) -> Mapping[str, str]:
        """Both files, what the model sees, and what runs it. Raises `ModelError` where a file is not here."""
        files, patch = self._read()
        digest = weights.sha256_of(files.folder / SCRIPT)
        hub = HUB_ID.fullmatch(self._source)
        seen = f"patches of {patch.side} px of {patch.microns:g} um, shown at {patch.shown} px"
        numbers = f"mean {', '.join(f'{v:g}' for v in patch.mean)}; std {', '.join(f'{v:g}' for v in patch.std)}"
        return {
            "name": "wsinfer",
            "version": f"script {digest[:12]}",
            "annotator": "wsinfer",
            "checkpoint": self._source,
            "revision": hub["revision"] if hub else "",
            "licence": "not known: the model's own",
            "architecture": patch.architecture,
            "preprocessing": f"{seen}; {numbers}",
            "score": "sigmoid" if len(patch.classes) == 1 else "softmax over the classes",
            "runtime": f"torch {version('torch')}",
            f"weights_sha256_{SCRIPT}": digest,
            f"sha256_{SETTINGS}": weights.sha256_of(files.folder / SETTINGS),
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """Its classes, or those it was asked for. Raises `ModelError`."""
        return among(self._options.labels, self._read()[1].classes, self._source)

    @property
    def colours(self) -> Mapping[str, str]:
        """None of its own."""
        return {}

    def input_spec(self, info: ImageInfo) -> InputSpec:
        """Rendered RGB of 8 bits in the model's patches, at its pixel size. Raises `ModelError`."""
        _, patch = self._read()
        have = {channel.common: channel.dtype for channel in info.channels}
        if any(have.get(colour) != "uint8" for colour in COLOURS):
            raise ModelError(
                f"{info.id or info.uri} with model {self._source}",
                "it judges stained tissue by red, green and blue of 8 bits",
                value=", ".join(f"{c.name} ({c.common or 'colour unknown'}, {c.dtype})" for c in info.channels[:5]),
                remedy="Choose another model, or name the channels with --bands where they are these",
            )
        return InputSpec(tile=patch.side, resolution=patch.microns, unit="um", variant=SCRIPT)

    def check(self, specs: Sequence[InputSpec]) -> None:
        """Find both files. Raises `ModelError`."""
        del specs
        _ = self.labels, self.identity  # what is wrong with either file

    def load(self) -> None:
        """See `Annotator`."""
        self._loaded()

    def cost(self, specs: Sequence[InputSpec], tiles: tuple[int, int]) -> Cost:
        """See `Costing`. The script's file is held beside the network that is made of it."""
        del specs
        held = file_bytes([self._read()[0].folder / SCRIPT])
        return Cost(held, "their own type", work=tiles[0] * tiles[1], loading=2 * held)

    def annotate(self, views: Sequence[View]) -> Sequence[Sequence[Answer]]:
        """A verdict on each patch with a wanted pixel. Raises `ModelError`."""
        script, kept = self._loaded(), frozenset(self.labels)
        return [[answer for answer in self._answers(view, script) if answer.label in kept] for view in views]

    def _answers(self, view: View, script: "Script") -> list[Answer]:
        _, patch = self._read()
        answers: list[Answer] = []
        for one in kept_tiles(view):
            tile = view.tiles[one.place]
            shown = tile if patch.shown == patch.side else resize(np.ascontiguousarray(tile), patch.shown, patch.shown)
            chances = script(shown, mean=patch.mean, std=patch.std)
            answers.append(top_label(patch.classes, chances, "tile", one.valid, geometry=one.share))
        return answers

    def _read(self) -> tuple[Files, Patch]:
        if self._found is None:
            files = find_files(self._source, fetch=self._options.fetch, small=(SETTINGS, SCRIPT))
            self._found = files, Patch.read(files.read(SETTINGS), self._source)
        return self._found

    def _loaded(self) -> "Script":
        if self._script is None:
            from .torchscript import Script

            files, patch = self._read()
            self._script = Script(files.folder / SCRIPT, len(patch.classes), threads=self._options.threads)
        return self._script


def _order(settings: Settings) -> tuple[str, ...]:
    return tuple(step.text("name") for step in settings.parts("transform"))


def _wrong(settings: Settings, key: str, rule: str, source: str) -> ModelError:
    return ModelError(
        f"{SETTINGS} of {source}",
        f"{key}: {rule}",
        value=excerpt(str(settings.get(key)), 80),
        remedy="Correct the file",
    )
