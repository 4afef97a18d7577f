"""The `deepness` annotator: ONNX networks for maps with the metadata of the Deepness plugin of QGIS.

Format: "Adding metadata to ONNX model" in the documentation of PUTvision/qgis-plugin-deepness, and its `ModelBase` and
`MapProcessorSegmentation`. Values are JSON (class names also a Python dictionary). Networks take red, green and blue
divided by 255, standardised where the metadata has a mean and std, and return scores from 0 to 1.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import Field

from ...readers.errors import ModelError, excerpt
from ...readers.image import ImageInfo, Mask, Pixels
from ...readers.options import invalid_option
from ..annotator import Answer, Cost, InputSpec, ReadPicture, View
from ..checkpoints import onnx, tile_statistics, weights
from ..checkpoints.inputs import apply_tables
from ..checkpoints.memory import file_bytes
from ..checkpoints.onnx import OnnxHeader, OnnxNetwork
from ..checkpoints.untrusted import MAX_TILE, parse_json, parse_python_literal, read_bytes
from ..class_maps import ClassScores, class_map_bytes, class_map_to_polygons, fill_invalid
from ..detections import YOLO_LAYOUTS, Detection, decode_yolo, tile_detections
from ..options import CheckpointAnnotator, CheckpointOptions, Names, SegmentationOptions, select_labels
from ..scores import require_probabilities

TYPES = ("Segmentor", "Detector")
CHANNELS = 3
MAX_TEXT, MAX_CLASSES = 2**16, 255
"""Characters of a piece of metadata, and classes of a network."""
HALO_SHARE = 8  # the halo is a tile / 8 where the file states no overlap: neighbours share a quarter
CONFIDENCE, OVERLAP, CERTAIN = 0.5, 0.4, 0.5  # default thresholds: of boxes, their suppression, one class


class DeepnessOptions(CheckpointOptions, SegmentationOptions):
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


@dataclass(frozen=True, slots=True)
class DeepnessConfig:
    """A network's metadata, completed by the options."""

    model_type: str
    classes: tuple[str, ...]
    tile: int
    metres_per_pixel: float | None
    overlap: float | None
    """Of neighbouring tiles, in percent."""
    mean: tuple[float, ...]
    """A pixel's value 0 to 255 becomes (value / 255 - mean) / std, by channel."""
    std: tuple[float, ...]
    threshold: float
    """The lowest score that counts."""
    suppression: float
    """The greatest intersection over union of two boxes."""
    det_type: str
    single: bool
    """Whether the one output is the second class's score; what lies below the threshold is the first."""

    @property
    def background(self) -> tuple[int, ...]:
        """Indices of the classes of a segmentation that give no areas: one that is called background."""
        if self.model_type == "Detector":
            return ()
        return tuple(i for i, label in enumerate(self.classes) if label.lower().strip("_") == "background")

    @classmethod
    def read(cls, header: OnnxHeader, name: str, options: DeepnessOptions) -> "DeepnessConfig":
        """From a file's header and the options. Raises `ModelError`, `RequestError`."""
        data = _Metadata(header.metadata, name)
        model_type = (options.model_type or data.text("model_type")).capitalize()
        if model_type not in TYPES:
            remedy = "Name another network; where the file states none: --set model_options.model_type=Segmentor"
            raise data.wrong("model_type", f"must be {' or '.join(TYPES)}", remedy)
        if header.inputs != 1 or len(header.shapes[0]) != 4 or header.shapes[0][1] != CHANNELS:
            rule = "must have one input (1, 3, tile, tile): red, green and blue"
            value, remedy = str(header.shapes[: header.inputs]), "For other bands write a model card, which names them"
            raise ModelError(f"network {name}", rule, value=value, remedy=remedy)
        mean = data.numbers("standardization_mean", (0.0,) * CHANNELS)
        std = data.numbers("standardization_std", (1.0,) * CHANNELS)
        if len(mean) != CHANNELS or len(std) != CHANNELS or min(std) <= 0:
            raise data.wrong("standardization_std", "must have three numbers above 0, and three in the mean")
        centimetres, overlap = data.number("resolution"), data.number("tiles_overlap")
        if centimetres is not None and centimetres <= 0:
            raise data.wrong("resolution", "must be a positive number of centimetres")
        if overlap is not None and not 0 <= overlap < 100:
            raise data.wrong("tiles_overlap", "must be a percentage below 100")
        det_type = options.det_type or data.text("det_type") or next(iter(YOLO_LAYOUTS))
        if model_type == "Detector" and det_type not in YOLO_LAYOUTS:
            raise data.wrong("det_type", f"must be one of {', '.join(YOLO_LAYOUTS)}", "Name another network")
        classes = data.classes()
        single = model_type == "Segmentor" and header.shapes[header.inputs][1:2] == (1,)
        if single and len(classes) == 1:
            classes = ("background", *classes)  # one output is one class against all else
        threshold = data.number("seg_thresh" if model_type == "Segmentor" else "det_conf")
        if threshold is None:
            threshold = CONFIDENCE if model_type == "Detector" else CERTAIN if single else 0.0
        suppression = data.number("det_iou_thresh")
        return cls(
            model_type=model_type,
            classes=classes,
            tile=_tile(header, data, options),
            metres_per_pixel=None if centimetres is None else centimetres / 100.0,
            overlap=overlap,
            mean=mean,
            std=std,
            threshold=threshold if options.threshold is None else options.threshold,
            suppression=OVERLAP if suppression is None else suppression,
            det_type=det_type,
            single=single,
        )


class Deepness(CheckpointAnnotator[DeepnessOptions]):
    """An annotator for an ONNX file with the metadata of the Deepness plugin: segmentation, and YOLO detection."""

    Options = DeepnessOptions

    def __init__(self, options: DeepnessOptions) -> None:
        super().__init__(options)
        self._path = Path(options.checkpoint)
        self._fitted, self._tile_bytes = "", 0.0
        self._networks: dict[str, OnnxNetwork] = {}

    @cached_property
    def _config(self) -> DeepnessConfig:
        return DeepnessConfig.read(onnx.read_header(self._path), self._path.name, self._options)

    def _network(self, fitted: str) -> OnnxNetwork:
        """The network as fitted to an image, once onnxruntime finds in it what the file's header states.

        That for the image before is let go.
        """
        if fitted not in self._networks:
            self.check(())
            self._networks.clear()
            content = tile_statistics.freeze(self._content, tile_statistics.read(fitted), self._path.name)
            network = OnnxNetwork(content, name=self._path.name, layout="NCHW", threads=self._options.threads)
            if DeepnessConfig.read(network.header, self._path.name, self._options) != self._config:
                rule = "must state the shape of its output, as onnxruntime finds it"
                value = str(network.header.shapes[network.header.inputs :])
                remedy = "Export it again with its shapes stated"
                raise ModelError(f"network {self._path.name}", rule, value=value, remedy=remedy)
            self._networks[fitted] = network
        return self._networks[fitted]

    @property
    def _content(self) -> bytes:
        return read_bytes(self._path, f"network {self._path.name}", most=onnx.MAX_BYTES)

    @property
    def identity(self) -> Mapping[str, str]:
        """The file, its metadata, and the runtime. Raises `ModelError` where it is not here."""
        config = self._config
        digest = weights.sha256_of(self._path)
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (config.mean, config.std))
        detector = {"det_type": config.det_type, "suppression": f"{config.suppression:g}"}
        return {
            "name": "deepness",
            "version": f"file {digest[:12]}",
            "annotator": "deepness",
            "checkpoint": str(self._path),
            "licence": "not known: the model's own",
            "task": config.model_type,
            "preprocessing": f"tiles of {config.tile} px, red, green, blue; value / 255; mean {mean}; std {std}",
            "threshold": f"{config.threshold:g}",
            "runtime": onnx.runtime(),
            f"weights_sha256_{config.model_type}": digest,
            **(self._options.identity if config.model_type == "Segmentor" else {}),
            **(detector if config.model_type == "Detector" else {}),
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """Its classes without background, or those of them that were asked for. Raises `ModelError`."""
        config = self._config
        labels = [label for i, label in enumerate(config.classes) if i not in config.background]
        return select_labels(self._options.labels, labels, str(self._path))

    @property
    def gives_probabilities(self) -> bool:
        """See `SupportsProbabilities`: of segmentation."""
        return self._config.model_type == "Segmentor"

    def input_spec(self, info: ImageInfo) -> InputSpec:
        """Rendered RGB in the network's tiles, at its pixel size where it states one. Raises `ModelError`."""
        del info
        config, halo = self._config, self._options.halo
        if halo is None:
            halo = config.tile // HALO_SHARE
            if config.overlap is not None:
                halo = math.ceil(config.tile * config.overlap / 200)
        if config.tile <= 2 * halo:
            rule = f"must leave a core in a tile of {config.tile} px, which has two halos"
            raise invalid_option("halo", "deepness", rule, value=str(halo), remedy="State a smaller one")
        return InputSpec(
            config.tile,
            halo=halo,
            resolution=config.metres_per_pixel,
            variant=config.model_type,
            overlap=config.tile if self._options.blend and config.model_type == "Segmentor" else 0,
        )

    def check(self, specs: Sequence[InputSpec]) -> None:
        """Read the file's header, and try the network in a sandbox. Raises `ModelError`."""
        super().check(specs)
        self._fitted = specs[0].fitted if specs else self._fitted
        self._tile_bytes = onnx.try_in_sandbox(self._path, layout="NCHW", tile=self._config.tile, channels=CHANNELS)

    def load(self) -> None:
        """Load the network for the first image that was checked. Raises `ModelError`."""
        if not self._networks:
            self._network(self._fitted)

    def fit_picture(self, spec: InputSpec, read: ReadPicture) -> InputSpec:
        """See `SupportsPictureFit`: the statistics over a tile in a segmentation network, measured on the image."""
        name, content = self._path.name, self._content
        tiled = self._options.normalise == "tile" or self._config.model_type != "Segmentor"
        if tiled or not tile_statistics.find(content, name):
            return spec
        pixels, valid = read()
        canvas = self._input(pixels if valid.all() else fill_invalid(pixels, valid))
        statistics = tile_statistics.measure(content, canvas, tile=spec.tile, layout="NCHW", name=name)
        return replace(spec, fitted=tile_statistics.add(statistics, spec.fitted))

    @cached_property
    def _inputs(self) -> ClassScores:
        """The network's inputs (3, 256) for all numbers of a channel."""
        mean, std = (np.asarray(values)[:, None] for values in (self._config.mean, self._config.std))
        values: ClassScores = ((np.arange(256) / 255 - mean) / std).astype(np.float32)
        return values

    def _input(self, pixels: Pixels) -> ClassScores:
        """The network's input (H, W, 3), in memory channel by channel, of RGB (H, W, 3)."""
        return apply_tables(pixels, self._inputs).transpose(1, 2, 0)

    def cost(self, specs: Sequence[InputSpec], tiles: tuple[int, int]) -> Cost:
        """See `SupportsCost`. The network keeps the memory of a tile."""
        config, averaging = self._config, self._options.averaging
        segments = config.model_type == "Segmentor"
        maps = class_map_bytes(specs, tiles, classes=len(config.classes), averaging=averaging) if segments else 0.0
        return onnx.cost(file_bytes([self._path]), maps + self._tile_bytes, tiles)

    def answer(self, view: View) -> list[Answer]:
        """The areas or boxes of a view. Raises `ModelError`."""
        network, config, name = self._network(view.spec.fitted), self._config, self._path.name

        def detect(tile: Pixels, _valid: Mask) -> list[Detection]:
            layout, overlap = YOLO_LAYOUTS[config.det_type], config.suppression
            output = network.output(self._input(tile)[None])
            return decode_yolo(
                output, layout, config.classes, threshold=config.threshold, overlap=overlap, network=name
            )

        def segment(tile: Pixels, valid: Mask) -> ClassScores:
            values = network.segment(self._input(tile if valid.all() else fill_invalid(tile, valid))[None])[0]
            require_probabilities(values, of=f"network {name}")
            return np.concatenate([1 - values, values], axis=2, dtype=np.float32) if config.single else values

        def over_threshold(scores: ClassScores) -> ClassScores:
            """The scores that reach the threshold; of one class and what is not of it, that of the one that holds."""
            reached = (
                (scores[..., 1:] >= config.threshold) == (False, True) if config.single else scores >= config.threshold
            )
            return np.where(reached, scores, np.float32(0))

        if config.model_type == "Detector":
            return tile_detections(view, detect, threshold=config.threshold, of=f"network {name}")
        return class_map_to_polygons(
            view,
            segment,
            decide=over_threshold,
            classes=config.classes,
            background=config.background,
            network=name,
            averaging=self._options.averaging,
        )


@dataclass(frozen=True, slots=True)
class _Metadata:
    """The metadata of a file, key by key; all methods raise `ModelError`."""

    values: Mapping[str, str]
    name: str

    def json(self, key: str) -> Any:
        text = self.values.get(key)
        if text is None:
            return None
        if len(text) > MAX_TEXT:
            raise self.wrong(key, f"must have at most {MAX_TEXT} characters", "Check that it is the right file")
        subject = f"metadata {key!r} of network {self.name}"
        try:
            return parse_json(text, subject)
        except ValueError:
            return parse_python_literal(text, subject)  # as the plugin does: a Python dictionary, or a bare word

    def text(self, key: str) -> str:
        found = self.json(key)
        if found is not None and not isinstance(found, str):
            raise self.wrong(key, "must be text")
        return found or ""

    def number(self, key: str) -> float | None:
        found = self.numbers(key, ())
        if isinstance(self.json(key), list) or not all(map(math.isfinite, found)):
            raise self.wrong(key, "must be a number")
        return found[0] if found else None

    def numbers(self, key: str, default: tuple[float, ...]) -> tuple[float, ...]:
        found = self.json(key)
        if found is None:
            return default
        several = cast("list[Any]", found) if isinstance(found, list) else [found]
        if not all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in several):
            raise self.wrong(key, "must be a number or a list of numbers")
        return tuple(map(float, several))

    def classes(self) -> tuple[str, ...]:
        """The names of the classes, from `class_names`, or `names` in older files."""
        found = self.json("class_names" if "class_names" in self.values else "names")
        named = {str(k): str(v) for k, v in cast("dict[Any, Any]", found).items()} if isinstance(found, dict) else {}
        names = tuple(named.get(str(i), "") for i in range(len(named)))
        if not names or not all(names) or len(set(names)) < len(names) or len(names) > MAX_CLASSES:
            rule = f"must name every class once, from 0 on, and at most {MAX_CLASSES}"
            raise self.wrong("class_names", rule, "Complete it")
        return names

    def wrong(self, key: str, rule: str, remedy: str = "Correct it") -> ModelError:
        value = excerpt(self.values.get(key, ""), 80) or "none"
        return ModelError(f"metadata {key!r} of network {self.name}", rule, value=value, remedy=remedy)


def _tile(header: OnnxHeader, data: _Metadata, options: DeepnessOptions) -> int:
    """The side of the network's square input: from its shape, or from its metadata where that leaves it open."""
    stated = options.tile or data.number("tile_size") or data.number("tiles_size")
    stated = min(stated, 2 * MAX_TILE) if stated else None
    sides = {side for side in header.shapes[0][2:] if side is not None} or ({int(stated)} if stated else set[int]())
    if len(sides) != 1 or (stated and int(stated) not in sides) or not 1 <= min(sides) <= MAX_TILE:
        rule = f"must be the side of the network's square input {header.shapes[0]}, at most {MAX_TILE} pixels"
        remedy = "State it with --set model_options.tile=512 where the file leaves it open"
        raise data.wrong("tile_size", rule, remedy)
    return sides.pop()
