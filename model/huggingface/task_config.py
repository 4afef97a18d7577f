"""What the settings of a transformers folder say of its network: its task, what it sees, what it answers. No torch.

Sources: the `architectures`, `id2label` and `num_channels` of transformers' `config.json`, and the settings of its
image processors (transformers 5, `preprocessor_config.json` or `processor_config.json`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from ...readers.errors import ModelError, excerpt
from ..checkpoints.files import CheckpointFiles, check_tokenizer, normalisation
from ..checkpoints.untrusted import MAX_TILE, UntrustedDict

Task = Literal["classify", "segment", "segment by masks", "detect", "find"]

EVERY = 0  # as many pairs of box and label as there are boxes
DETECTORS: Mapping[str, int | None] = {
    "conditional_detr": 100,
    "d_fine": EVERY,
    "dab-detr": 100,
    "deformable_detr": 100,
    "deimv2": EVERY,
    "detr": None,
    "lw_detr": 100,
    "rf_detr": EVERY,
    "rt_detr": EVERY,
    "rt_detr_v2": EVERY,
    "table-transformer": None,
    "yolos": None,
}
"""`model_type` of each detector that is known → of how many pairs of box and label its processor takes the best, where
labels are independent (a sigmoid each); None where they are not (a softmax, and one label a box).
"""

FINDERS = ("grounding-dino", "mm-grounding-dino", "owlv2", "owlvit")
MASKS = ("mask2former", "maskformer", "oneformer")
STEPS = frozenset(
    {
        "do_resize",
        "do_center_crop",
        "do_rescale",
        "do_normalize",
        "do_pad",
        "do_convert_rgb",
        "do_convert_annotations",
        "do_reduce_labels",
        "do_flip_channel_order",
    }
)
"""Steps of image processors that are followed here, or do nothing to a tile that has the size the network sees."""
UNSTATED: Mapping[str, Mapping[str, bool]] = {
    **{family: {"do_normalize": False} for family in ("d_fine", "deimv2", "rt_detr", "rt_detr_v2")},
    **{family: {"do_normalize": False, "do_flip_channel_order": True} for family in ("mobilevit", "mobilevitv2")},
}
"""`model_type` → what its image processor does where its file does not say, and others would do otherwise."""

CHANNELS = 3
MOST_NAMES = 100_000
"""Classes of a network."""
PATCH = 16  # a YOLOS is shown pictures of whole multiples of it
MOST_CLASSES = 255  # of a class map of 8 bits


@dataclass(frozen=True, slots=True)
class TaskConfig:
    """How a network is shown a tile and what its answers mean.

    A tile of `tile` pixels, red, green and blue (blue, green and red where `flipped`), values 0 to 255, becomes (value
    · `rescale` - `mean`) / `std`, by channel. `labels` are in the order of its outputs, () where labels are asked for.
    `independent` says that scores are a sigmoid for each class, else a softmax; of a detector's the best `most` count,
    0 for as many as it has boxes.
    """

    files: CheckpointFiles
    task: Task
    family: str
    tile: int
    rescale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flipped: bool
    labels: tuple[str, ...]
    independent: bool
    most: int = EVERY

    @property
    def preprocessing(self) -> str:
        """In words, for the record."""
        numbers = "; ".join(
            f"{name} {', '.join(f'{v:.6g}' for v in values)}"
            for name, values in (("mean", self.mean), ("std", self.std))
        )
        order = "blue, green, red" if self.flipped else "red, green, blue"
        return f"tiles of {self.tile} px, {order}; value × {self.rescale:.6g}; {numbers}"


def read_task_config(files: CheckpointFiles) -> TaskConfig:
    """What a folder's settings say. Raises `ModelError` where its task is not known, or its picture cannot be made."""
    config = files.read("config.json")
    family = config.text("model_type")
    task = _task(config, family, files.source)
    if task == "find" or family == "oneformer":
        check_tokenizer(files)
    _check_channels(config, files.source)
    stated = files.preprocessing()
    settings = UntrustedDict({**UNSTATED.get(family, {}), **stated}, stated.where)
    unknown = [key for key, value in settings.items() if key.startswith("do_") and value and key not in STEPS]
    unknown += [key for key in ("include_top", "rescale_offset") if settings.get(key)]
    if unknown:
        raise ModelError(
            f"checkpoint {files.source}",
            "its image processor may do only what is known here to a picture",
            value=excerpt(", ".join(sorted(unknown))),
            remedy="Name another checkpoint: what this one would see is not known",
        )
    labels = () if task == "find" else _labels(config, files.source)
    if task.startswith("segment") and len(labels) > MOST_CLASSES:
        raise ModelError(
            f"checkpoint {files.source}",
            f"a class map has at most {MOST_CLASSES} classes",
            value=str(len(labels)),
            remedy="Name another checkpoint",
        )
    rescale, mean, std = normalisation(settings, files.source)
    return TaskConfig(
        files=files,
        task=task,
        family=family,
        tile=_tile(settings, config, files.source),
        rescale=rescale,
        mean=mean,
        std=std,
        flipped=settings.flag("do_flip_channel_order", default=False),
        labels=labels,
        independent=DETECTORS[family] is not None
        if task == "detect"
        else config.get("problem_type") == "multi_label_classification",
        most=DETECTORS.get(family) or EVERY,
    )


def _task(config: UntrustedDict, family: str, source: str) -> Task:
    architecture = str((config.list("architectures") or [""])[0])
    if "ForImageClassification" in architecture:
        return "classify"
    if architecture.endswith("ForSemanticSegmentation"):
        return "segment"
    if family in MASKS and "Segmentation" in architecture:
        return "segment by masks"
    if architecture.endswith("ForObjectDetection") and family in DETECTORS:
        return "detect"
    if architecture.endswith("ForObjectDetection") and family in FINDERS:
        return "find"
    raise ModelError(
        f"checkpoint {source}",
        "its architecture must classify pictures, segment them by class, or detect objects, in a way that is known",
        value=excerpt(f"{architecture or 'none is stated'} of type {family or 'not stated'}"),
        remedy=f"Detectors that are known: {', '.join((*sorted(DETECTORS), *FINDERS))}; for segmentation by masks "
        f"{', '.join(MASKS)}; image-text models go with --model zero-shot",
    )


def _check_channels(config: UntrustedDict, source: str) -> None:
    parts = [config, *(config.part(key) for key in ("vision_config", "backbone_config", "backbone_kwargs"))]
    said = [part[key] for part in parts for key in ("num_channels", "in_chans") if key in part]
    stated = next((number for number in said if number != CHANNELS), CHANNELS)
    if stated != CHANNELS:
        raise ModelError(
            f"checkpoint {source}",
            "it must see pictures of three channels: red, green and blue",
            value=excerpt(f"num_channels {stated}"),
            remedy="For a network of other bands, export it to ONNX and write a model card, which names them",
        )


def _labels(config: UntrustedDict, source: str) -> tuple[str, ...]:
    """Names of the outputs, in their order."""
    stated = config.part("id2label")
    names = {int(key): stated.text(key) for key in stated if key.isdecimal() and len(key) < 10}
    count = config.integer("num_labels", len(names), least=0, most=MOST_NAMES)
    last = min(max([count - 1, *names]), MOST_NAMES)
    unnamed = sorted(set(range(last + 1)) - set(names))
    if not names or unnamed or count != len(names):
        without = f", none for {', '.join(map(str, unnamed[:5]))}" if names and unnamed else ""
        stated = f", num_labels {count}" if count != len(names) else ""
        raise ModelError(
            f"checkpoint {source}",
            "its config.json must name every class in id2label, from 0 on",
            value=f"{len(names)} names{without}{stated}",
            remedy="Complete id2label: classes are never guessed; an output that stands for nothing is called N/A",
        )
    return tuple(names[i] for i in range(len(names)))


def _tile(settings: UntrustedDict, config: UntrustedDict, source: str) -> int:
    """The side of a square picture that its processor would leave as it is; whole multiples of its padding."""
    sizes: set[int] = set()
    if settings.get("do_center_crop") and settings.get("crop_size"):
        sizes = _sides(settings["crop_size"])
    elif settings.get("do_resize", True) and settings.get("size"):
        sizes = _sides(settings["size"], settings.integer("max_size", 0, least=0) or None)
    elif config.get("image_size"):
        sizes = _sides(config["image_size"])
    if len(sizes) != 1 or not 1 <= min(sizes) <= MAX_TILE:
        raise ModelError(
            f"checkpoint {source}",
            f"its image processor must say how large a square picture the network sees, {MAX_TILE} pixels at most",
            value=excerpt(", ".join(map(str, sorted(sizes)))) or "no size",
            remedy="Name another checkpoint, or correct the size in preprocessor_config.json",
        )
    side, whole = sizes.pop(), settings.integer("ensure_multiple_of", 1, most=MAX_TILE)
    side = side // PATCH * PATCH if config.get("model_type") == "yolos" else round(side / whole) * whole
    divisor = settings.integer("size_divisor", 0, least=0, most=MAX_TILE)
    step = divisor or settings.integer("size_divisibility", 0, least=0, most=MAX_TILE) or 1
    side = math.ceil(side / step) * step
    if side < 1:
        raise settings.wrong("size", f"a picture of {PATCH} pixels or more")
    return side


def _sides(size: Any, most: int | None = None) -> set[int]:
    """The side or sides of the picture that a square one becomes, where its longer edge may have `most` pixels."""
    if isinstance(size, dict):
        named = {key: side for key, side in cast("dict[str, Any]", size).items() if type(side) is int}
        if "shortest_edge" not in named:
            return set(named.values())
        size, most = named["shortest_edge"], named.get("longest_edge", most)
    sides = cast("list[Any]", size) if isinstance(size, list) else [size]
    return {min(side, most or side) for side in sides if type(side) is int}
