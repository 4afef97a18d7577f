"""Read the configuration of a transformers checkpoint: its task, its preprocessing and its labels. No torch.

Sources: `architectures`, `id2label` and `num_channels` of transformers' `config.json`, and the settings of its image
processors (transformers 5, `preprocessor_config.json` or `processor_config.json`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from ...readers.errors import ModelError, excerpt
from ..checkpoints.files import CHANNELS, CheckpointFiles, check_tokenizer, normalisation
from ..checkpoints.untrusted import MAX_TILE, UntrustedDict

Task = Literal["classify", "segment", "segment by masks", "detect", "find"]

PER_BOX = 0  # as many pairs of box and label as there are boxes
DETECTORS: Mapping[str, int | None] = {
    "conditional_detr": 100,
    "d_fine": PER_BOX,
    "dab-detr": 100,
    "deformable_detr": 100,
    "deimv2": PER_BOX,
    "detr": None,
    "lw_detr": 100,
    "rf_detr": PER_BOX,
    "rt_detr": PER_BOX,
    "rt_detr_v2": PER_BOX,
    "table-transformer": None,
    "yolos": None,
}
"""`model_type` of each known detector → how many of the best pairs of box and label its processor keeps, where labels
are independent (a sigmoid each); None where they are not (a softmax, and one label a box).
"""
FINDERS = ("grounding-dino", "mm-grounding-dino", "owlv2", "owlvit")  # detectors by words
MASK_FAMILIES = ("mask2former", "maskformer", "oneformer")
STEPS = frozenset(
    f"do_{step}"
    for step in (
        "resize",
        "center_crop",
        "rescale",
        "normalize",
        "pad",
        "convert_rgb",
        "convert_annotations",
        "reduce_labels",
        "flip_channel_order",
    )
)
"""Steps of image processors that are applied here, or do nothing to a tile of the network's size."""
DEFAULTS: Mapping[str, Mapping[str, bool]] = {
    **{family: {"do_normalize": False} for family in ("d_fine", "deimv2", "rt_detr", "rt_detr_v2")},
    **{family: {"do_normalize": False, "do_flip_channel_order": True} for family in ("mobilevit", "mobilevitv2")},
}
"""`model_type` → defaults of its image processor that differ from those of the others."""
MAX_LABELS = 100_000
MAX_CLASSES = 255  # of a class map of 8 bits
PATCH = 16  # a YOLOS takes pictures of whole multiples of it


@dataclass(frozen=True, slots=True)
class TaskConfig:
    """The preprocessing of a tile and the meaning of a network's outputs."""

    files: CheckpointFiles
    task: Task
    family: str
    """The `model_type`."""
    tile: int
    """Pixels a side."""
    rescale: float
    """Values 0 to 255 become (value · rescale - mean) / std, by channel."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flipped: bool
    """Whether the order is blue, green and red."""
    labels: tuple[str, ...]
    """In the order of the outputs; () for detectors by words."""
    independent: bool
    """Whether scores are a sigmoid for each class instead of a softmax."""
    most: int = PER_BOX
    """How many of the best pairs of box and label count; 0 for as many as there are boxes."""

    @property
    def preprocessing(self) -> str:
        """The preprocessing in words, for the manifest."""
        mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (self.mean, self.std))
        order = "blue, green, red" if self.flipped else "red, green, blue"
        return f"tiles of {self.tile} px, {order}; value × {self.rescale:.6g}; mean {mean}; std {std}"


def read_task_config(files: CheckpointFiles) -> TaskConfig:
    """Read a checkpoint's configuration. Raises `ModelError` where its task or its preprocessing is not supported."""
    subject = f"checkpoint {files.source}"
    config = files.read("config.json")
    family = config.text("model_type")
    task = _task(config, family, subject)
    if task == "find" or family == "oneformer":
        check_tokenizer(files)
    _check_channels(config, subject)
    stated = files.preprocessing()
    settings = UntrustedDict({**DEFAULTS.get(family, {}), **stated}, stated.where)
    unknown = [key for key, value in settings.items() if key.startswith("do_") and value and key not in STEPS]
    unknown += [key for key in ("include_top", "rescale_offset") if settings.get(key)]
    if unknown:
        rule, value = "must have an image processor with known steps only", excerpt(", ".join(sorted(unknown)))
        raise ModelError(subject, rule, value=value, remedy="Name another checkpoint")
    labels = () if task == "find" else _labels(config, subject)
    if task.startswith("segment") and len(labels) > MAX_CLASSES:
        rule, value = f"must have at most {MAX_CLASSES} classes", str(len(labels))
        raise ModelError(subject, rule, value=value, remedy="Name another checkpoint")
    rescale, mean, std = normalisation(settings, files.source)
    multi_label = config.get("problem_type") == "multi_label_classification"
    return TaskConfig(
        files=files,
        task=task,
        family=family,
        tile=_tile(settings, config, subject),
        rescale=rescale,
        mean=mean,
        std=std,
        flipped=settings.flag("do_flip_channel_order", default=False),
        labels=labels,
        independent=DETECTORS[family] is not None if task == "detect" else multi_label,
        most=DETECTORS.get(family) or PER_BOX,
    )


def _task(config: UntrustedDict, family: str, subject: str) -> Task:
    architecture = str((config.list("architectures") or [""])[0])
    if "ForImageClassification" in architecture:
        return "classify"
    if architecture.endswith("ForSemanticSegmentation"):
        return "segment"
    if family in MASK_FAMILIES and "Segmentation" in architecture:
        return "segment by masks"
    if architecture.endswith("ForObjectDetection") and family in DETECTORS:
        return "detect"
    if architecture.endswith("ForObjectDetection") and family in FINDERS:
        return "find"
    raise ModelError(
        subject,
        "must have a known architecture for image classification, semantic segmentation or object detection",
        value=excerpt(f"{architecture or 'none is stated'} of type {family or 'not stated'}"),
        remedy=f"Known detectors: {', '.join((*sorted(DETECTORS), *FINDERS))}; for segmentation by masks "
        f"{', '.join(MASK_FAMILIES)}; image-text models go with --model zero-shot",
    )


def _check_channels(config: UntrustedDict, subject: str) -> None:
    parts = [config, *(config.part(key) for key in ("vision_config", "backbone_config", "backbone_kwargs"))]
    stated = [part[key] for part in parts for key in ("num_channels", "in_chans") if key in part]
    other = next((number for number in stated if number != CHANNELS), CHANNELS)
    if other != CHANNELS:
        rule, value = "must take pictures of three channels: red, green and blue", excerpt(f"num_channels {other}")
        remedy = "For a network of other bands, export it to ONNX and write a model card, which names them"
        raise ModelError(subject, rule, value=value, remedy=remedy)


def _labels(config: UntrustedDict, subject: str) -> tuple[str, ...]:
    """Names of the outputs, in their order."""
    stated = config.part("id2label")
    names = {int(key): stated.text(key) for key in stated if key.isdecimal() and len(key) < 10}
    count = config.integer("num_labels", len(names), least=0, most=MAX_LABELS)
    last = min(max([count - 1, *names]), MAX_LABELS)
    unnamed = sorted(set(range(last + 1)) - set(names))
    if not names or unnamed or count != len(names):
        value = f"{len(names)} names"
        value += f", none for {', '.join(map(str, unnamed[:5]))}" if names and unnamed else ""
        value += f", num_labels {count}" if count != len(names) else ""
        remedy = "Complete id2label: classes are never guessed; an output that stands for nothing is called N/A"
        rule = "must name every class in id2label of its config.json, from 0 on"
        raise ModelError(subject, rule, value=value, remedy=remedy)
    return tuple(names[i] for i in range(len(names)))


def _tile(settings: UntrustedDict, config: UntrustedDict, subject: str) -> int:
    """The side of a square picture that its processor would leave as it is, a whole multiple of its padding."""
    sizes: set[int] = set()
    if settings.get("do_center_crop") and settings.get("crop_size"):
        sizes = _sides(settings["crop_size"])
    elif settings.get("do_resize", True) and settings.get("size"):
        sizes = _sides(settings["size"], settings.integer("max_size", 0, least=0) or None)
    elif config.get("image_size"):
        sizes = _sides(config["image_size"])
    if len(sizes) != 1 or not 1 <= min(sizes) <= MAX_TILE:
        rule = f"must have an image processor for square pictures of a stated size, at most {MAX_TILE} pixels"
        value = excerpt(", ".join(map(str, sorted(sizes)))) or "no size"
        remedy = "Name another checkpoint, or correct the size in preprocessor_config.json"
        raise ModelError(subject, rule, value=value, remedy=remedy)
    side, multiple = sizes.pop(), settings.integer("ensure_multiple_of", 1, most=MAX_TILE)
    side = side // PATCH * PATCH if config.get("model_type") == "yolos" else round(side / multiple) * multiple
    divisor = settings.integer("size_divisor", 0, least=0, most=MAX_TILE)
    step = divisor or settings.integer("size_divisibility", 0, least=0, most=MAX_TILE) or 1
    side = math.ceil(side / step) * step
    if side < 1:
        raise settings.wrong("size", f"a picture of {PATCH} pixels or more")
    return side


def _sides(size: Any, most: int | None = None) -> set[int]:
    """The side or sides that a square picture is resized to, where its longer edge may have `most` pixels."""
    if isinstance(size, dict):
        named = {key: side for key, side in cast("dict[str, Any]", size).items() if type(side) is int}
        if "shortest_edge" not in named:
            return set(named.values())
        size, most = named["shortest_edge"], named.get("longest_edge", most)
    sides = cast("list[Any]", size) if isinstance(size, list) else [size]
    return {min(side, most or side) for side in sides if type(side) is int}
