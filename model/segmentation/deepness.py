"""The `deepness` annotator: ONNX networks for maps, described by the metadata that the Deepness plugin of QGIS reads.

Source of the format: "Adding metadata to ONNX model" in the documentation of PUTvision/qgis-plugin-deepness, and what
its `ModelBase` and `MapProcessorSegmentation` do. Values are JSON (class names also as Python writes a dictionary); the
network sees red, green and blue divided by 255, standardised where the metadata says so; its scores are from 0 to 1.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import Field

from ...readers.errors import ModelError, excerpt
from ...readers.image import ImageInfo, Mask, Pixels
from ...readers.options import invalid_option
from ..annotator import Answer, Cost, InputSpec, View
from ..checkpoints import onnx, weights
from ..checkpoints.memory import file_bytes
from ..checkpoints.onnx import OnnxHeader, read_header
from ..checkpoints.untrusted import MAX_TILE, parse_json, parse_python_literal, read_bytes
from ..class_maps import ClassScores, class_map_to_polygons, fill_invalid
from ..detections import YOLO_LAYOUTS, Detection, decode_yolo, tile_detections
from ..options import Names, NetworkOptions, select_labels
from ..scores import require_probabilities

KINDS = ("Segmentor", "Detector")
CHANNELS = 3
MOST, MOST_CLASSES = 2**16, 255
"""Characters of a piece of metadata, and classes of a network."""
CENTIMETRES = 100.0
SHARE = 8  # a tile's rim where the file states no overlap: neighbours share a quarter
CONFIDENCE, OVERLAP, CERTAIN = 0.5, 0.4, 0.5  # where the file states none: of boxes, their suppression, one class


@dataclass(frozen=True, slots=True)
class DeepnessConfig:
    """What a network's file says of itself: a `kind`, and what it sees and answers.

    `metres` a pixel, or None; `overlap` of neighbouring tiles in percent, or None. A pixel's value 0 to 255 becomes
    (value / 255 - mean) / std. `threshold` is the lowest score that counts, None where the file states none. `single`
    says that its one output is the second class's score, and that what lies below the threshold is the first.
    """

    kind: str
    classes: tuple[str, ...]
    tile: int
    metres: float | None
    overlap: float | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    threshold: float | None
    suppression: float
    det_type: str
    single: bool


class DeepnessOptions(NetworkOptions):
    """Options of `Deepness`."""

    checkpoint: str = Field(min_length=1, description="The ONNX file.", examples=["--model deepness:FILE.onnx"])
    labels: Names = Field(default=(), description="Which of its classes to keep; all by default.")
    threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="The lowest score that counts, instead of the file's `seg_thresh` or `det_conf`.",
    )
    model_type: str = Field(default="", description="Segmentor or Detector, where the file does not state it.")
    det_type: str = Field(default="", description="The kind of YOLO, where the file does not state it.")
    tile: int | None = Field(
        default=None, ge=1, description="Pixels a side of a tile, where the file does not state them."
    )
    halo: int | None = Field(
        default=None, ge=0, description="Margin of a tile in pixels, instead of half the file's `tiles_overlap`."
    )


class Deepness:
    """An annotator for an ONNX file with the metadata of the Deepness plugin: segmentation, and YOLO detection."""

    Options = DeepnessOptions

    def __init__(self, options: DeepnessOptions) -> None:
        self._options = options
        self._path = Path(options.checkpoint)
        self._about: DeepnessConfig | None = None
        self._network: onnx.OnnxNetwork | None = None

    @property
    def identity(self) -> Mapping[str, str]:
        """The file, what it says of itself, and what runs it. Raises `ModelError` where it is not here."""
        about = self._read()
        digest = weights.sha256_of(self._path)
        numbers = f"mean {', '.join(f'{v:g}' for v in about.mean)}; std {', '.join(f'{v:g}' for v in about.std)}"
        detector = {"det_type": about.det_type, "suppression": f"{about.suppression:g}"}
        return {
            "name": "deepness",
            "version": f"file {digest[:12]}",
            "annotator": "deepness",
            "checkpoint": str(self._path),
            "licence": "not known: the model's own",
            "task": about.kind,
            "preprocessing": f"tiles of {about.tile} px, red, green, blue; value / 255; {numbers}",
            "threshold": f"{self._least(about):g}",
            "runtime": onnx.runtime(),
            f"weights_sha256_{about.kind}": digest,
            **(detector if about.kind == "Detector" else {}),
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """Its classes without background, or those of them it was asked for. Raises `ModelError`."""
        about = self._read()
        empty = _background(about)
        return select_labels(
            self._options.labels, [n for i, n in enumerate(about.classes) if i not in empty], str(self._path)
        )

    @property
    def colours(self) -> Mapping[str, str]:
        """None of its own."""
        return {}

    def input_spec(self, info: ImageInfo) -> InputSpec:
        """Rendered RGB in the network's tiles, at its pixel size where it states one. Raises `ModelError`."""
        del info
        about = self._read()
        halo = about.tile // SHARE
        if about.overlap is not None:
            halo = math.ceil(about.tile * about.overlap / 200)
        if self._options.halo is not None:
            halo = self._options.halo
        if about.tile <= 2 * halo:
            rule = f"a tile of {about.tile} px must be wider than its two rims"
            raise invalid_option("halo", "deepness", rule, value=str(halo), remedy="State a smaller one")
        return InputSpec(tile=about.tile, halo=halo, resolution=about.metres, variant=about.kind)

    def check(self, specs: Sequence[InputSpec]) -> None:
        """Read the file's header, and try the network out. Raises `ModelError`."""
        del specs
        _ = self.labels
        onnx.try_out(self._path, layout="NCHW", tile=self._read().tile, channels=CHANNELS)

    def load(self) -> None:
        """See `Annotator`."""
        self._loaded()

    def cost(self, specs: Sequence[InputSpec], tiles: tuple[int, int]) -> Cost:
        """See `Costing`. The file is held beside the network that is made of it."""
        del specs
        held = file_bytes([self._path])
        return Cost(held, "their own type", work=tiles[0] * tiles[1], loading=2 * held)

    def annotate(self, views: Sequence[View]) -> Sequence[Sequence[Answer]]:
        """The areas or boxes of each view. Raises `ModelError`."""
        kept = frozenset(self.labels)
        return [[answer for answer in self._answers(view) if answer.label in kept] for view in views]

    def _answers(self, view: View) -> list[Answer]:
        network, about = self._loaded(), self._read()
        mean, std = (np.asarray(values) for values in (about.mean, about.std))
        least, name = self._least(about), self._path.name

        def excerpt(tile: Pixels) -> ClassScores:
            values: ClassScores = ((tile / 255 - mean) / std).astype(np.float32)
            return values[None]

        if about.kind == "Detector":

            def detect(tile: Pixels, valid: Mask) -> list[Detection]:
                del valid
                output = network.output(excerpt(tile))
                layout = YOLO_LAYOUTS[about.det_type]
                return decode_yolo(
                    output, layout, about.classes, threshold=least, overlap=about.suppression, network=name
                )

            return tile_detections(view, detect, threshold=least, of=f"network {name}")

        def see(tile: Pixels, valid: Mask) -> ClassScores:
            values = network(excerpt(tile if valid.all() else fill_invalid(tile, valid)))[0]
            require_probabilities(values, of=f"network {name}")
            return _two(values, least) if about.single else values

        return class_map_to_polygons(
            view,
            see,
            lambda scores: scores,
            classes=about.classes,
            background=_background(about),
            threshold=0.0 if about.single else least,
            network=name,
        )

    def _least(self, about: DeepnessConfig) -> float:
        stated = self._options.threshold
        if stated is None:
            stated = about.threshold
        if stated is not None:
            return stated
        return CONFIDENCE if about.kind == "Detector" else CERTAIN if about.single else 0.0

    def _read(self) -> DeepnessConfig:
        if self._about is None:
            self._about = read_about(read_header(self._path), self._path.name, self._options)
        return self._about

    def _loaded(self) -> onnx.OnnxNetwork:
        """The network, once it is sure that it is what the file's header says."""
        if self._network is None:
            about = self._read()
            onnx.try_out(self._path, layout="NCHW", tile=about.tile, channels=CHANNELS)
            content = read_bytes(self._path, f"network {self._path.name}", most=onnx.MOST)
            network = onnx.OnnxNetwork(content, name=self._path.name, layout="NCHW", threads=self._options.threads)
            found = OnnxHeader(network.metadata, network.shapes, network.inputs)
            if read_about(found, self._path.name, self._options) != about:
                raise ModelError(
                    f"network {self._path.name}",
                    "its file must state the shape of its output, as onnxruntime finds it",
                    value=str(network.shapes[network.inputs :]),
                    remedy="Export it again with shapes that are stated",
                )
            self._network = network
        return self._network


def read_about(network: OnnxHeader, name: str, options: DeepnessOptions) -> DeepnessConfig:
    """What a network's metadata and shapes say, with what a person says of it. Raises `ModelError`, `RequestError`."""
    data = _Metadata(network.metadata, name)
    kind = (options.model_type or data.text("model_type")).capitalize()
    if kind not in KINDS:
        raise data.wrong(
            "model_type",
            f"it must be {' or '.join(KINDS)}",
            "Name another network; where the file states none: --set model_options.model_type=Segmentor",
        )
    if network.inputs != 1 or len(network.shapes[0]) != 4 or network.shapes[0][1] != CHANNELS:
        raise ModelError(
            f"network {name}",
            "it must have one input (1, 3, tile, tile): red, green and blue",
            value=str(network.shapes[: network.inputs]),
            remedy="For a network of other bands write a model card, which names them",
        )
    mean = data.numbers("standardization_mean", (0.0,) * CHANNELS)
    std = data.numbers("standardization_std", (1.0,) * CHANNELS)
    if len(mean) != CHANNELS or len(std) != CHANNELS or min(std) <= 0:
        raise data.wrong("standardization_std", "it and the mean must have three numbers, std above 0", "Correct it")
    centimetres = data.number("resolution")
    if centimetres is not None and centimetres <= 0:
        raise data.wrong("resolution", "it must be a positive number of centimetres", "Correct it")
    overlap = data.number("tiles_overlap")
    if overlap is not None and not 0 <= overlap < 100:
        raise data.wrong("tiles_overlap", "it must be a percentage below 100", "Correct it")
    det_type = options.det_type or data.text("det_type") or next(iter(YOLO_LAYOUTS))
    if kind == "Detector" and det_type not in YOLO_LAYOUTS:
        raise data.wrong("det_type", f"it must be one of {', '.join(YOLO_LAYOUTS)}", "Name another network")
    names = data.classes()
    outputs = network.shapes[network.inputs]
    single = kind == "Segmentor" and outputs[1:2] == (1,)
    if single and len(names) == 1:
        names = ("background", *names)  # one output is one class against all else
    suppression = data.number("det_iou_thresh")
    return DeepnessConfig(
        kind=kind,
        classes=names,
        tile=_tile(network, data, options),
        metres=None if centimetres is None else centimetres / CENTIMETRES,
        overlap=overlap,
        mean=mean,
        std=std,
        threshold=data.number("seg_thresh" if kind == "Segmentor" else "det_conf"),
        suppression=OVERLAP if suppression is None else suppression,
        det_type=det_type,
        single=single,
    )


@dataclass(frozen=True, slots=True)
class _Metadata:
    """The metadata of a file, key by key."""

    values: Mapping[str, str]
    name: str

    def json(self, key: str) -> Any:
        text = self.values.get(key)
        if text is None:
            return None
        subject = f"metadata {key!r} of network {self.name}"
        if len(text) > MOST:
            raise ModelError(
                subject,
                f"it may have {MOST} characters",
                value=str(len(text)),
                remedy="Check that it is the right file",
            )
        try:
            return parse_json(text, subject)
        except ValueError:
            return parse_python_literal(
                text, subject
            )  # as the plugin does: a dictionary as Python writes it, or a bare word

    def text(self, key: str) -> str:
        found = self.json(key)
        if found is not None and not isinstance(found, str):
            raise self.wrong(key, "it must be text", "Correct it")
        return found or ""

    def number(self, key: str) -> float | None:
        found = self.json(key)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, (int, float)) or not math.isfinite(found):
            raise self.wrong(key, "it must be a number", "Correct it")
        return float(found)

    def numbers(self, key: str, default: tuple[float, ...]) -> tuple[float, ...]:
        found = self.json(key)
        if found is None:
            return default
        several = cast("list[Any]", found) if isinstance(found, list) else [found]
        if not all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in several):
            raise self.wrong(key, "it must be a list of numbers", "Correct it")
        return tuple(map(float, several))

    def classes(self) -> tuple[str, ...]:
        """The names of the classes, from `class_names`, or `names` as older files have it."""
        key = "class_names" if "class_names" in self.values else "names"
        found = self.json(key)
        named = {str(k): str(v) for k, v in cast("dict[Any, Any]", found).items()} if isinstance(found, dict) else {}
        names = tuple(named.get(str(i), "") for i in range(len(named)))
        if not names or not all(names) or len(set(names)) < len(names) or len(names) > MOST_CLASSES:
            rule = f"it must name every class once, from 0 on, {MOST_CLASSES} at most"
            raise self.wrong("class_names", rule, "Complete it")
        return names

    def wrong(self, key: str, rule: str, remedy: str) -> ModelError:
        return ModelError(
            f"metadata {key!r} of network {self.name}",
            rule,
            value=excerpt(self.values.get(key, ""), 80) or "none",
            remedy=remedy,
        )


def _tile(network: OnnxHeader, data: _Metadata, options: DeepnessOptions) -> int:
    """The side of the network's square input: as its shape says, or its metadata where that leaves it open."""
    stated = options.tile or data.number("tile_size") or data.number("tiles_size")
    stated = min(stated, 2 * MAX_TILE) if stated else None
    sides = {side for side in network.shapes[0][2:] if side is not None} or ({int(stated)} if stated else set[int]())
    if len(sides) != 1 or (stated and int(stated) not in sides) or not 1 <= min(sides) <= MAX_TILE:
        raise data.wrong(
            "tile_size",
            f"it must be the side of the network's square input {network.shapes[0]}, {MAX_TILE} pixels at most",
            "State it with --set model_options.tile=512 where the file leaves it open",
        )
    return sides.pop()


def _background(about: DeepnessConfig) -> tuple[int, ...]:
    """The classes of a segmentation that give no areas: one that is called background."""
    if about.kind == "Detector":
        return ()
    return tuple(i for i, label in enumerate(about.classes) if label.lower().strip("_") == "background")


def _two(values: ClassScores, least: float) -> ClassScores:
    """One class's score (H, W, 1) → those of nothing and of it (H, W, 2), of which the one that holds is not 0."""
    sure = values >= least
    return np.concatenate([np.where(sure, 0.0, 1.0 - values), np.where(sure, values, 0.0)], axis=2, dtype=np.float32)
