"""Run transformers' networks on a tile: classification, segmentation, detection, and detection by words.

Outputs are those of the checkpoint's own post-processing (transformers 5, `post_process_…` of its image processors), in
pixels of the tile. Methods: DETR, arXiv 2005.12872 (softmax with a "no object" class); Deformable DETR, arXiv
2010.04159 (a sigmoid for each class); MaskFormer, arXiv 2107.06278 (classes of masks, summed); OWL-ViT, arXiv
2205.06230; Grounding DINO, arXiv 2303.05499.
"""

# transformers' types do not say what its classes return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import transformers

from ...readers.errors import ModelError, RequestError
from ...readers.image import Mask, Pixels
from ..checkpoints.loading import (
    build_without_weights,
    check_config_size,
    inference_errors,
    load_model,
    load_tokenizer,
    loading_errors,
    to_tensor,
)
from ..class_maps import ClassScores
from ..detections import Detection
from ..scores import Scores, require_distinct, require_finite
from .task_config import Task, TaskConfig
from .tile_statistics import TileStatistics, find_layers
from .timm_resnet import NAMES, timm_resnet

CLASSES: Final[dict[Task, str]] = {
    "classify": "AutoModelForImageClassification",
    "segment": "AutoModelForSemanticSegmentation",
    "detect": "AutoModelForObjectDetection",
    "find": "AutoModelForZeroShotObjectDetection",
}
BY_MASKS = {
    "mask2former": "Mask2FormerForUniversalSegmentation",
    "maskformer": "MaskFormerForInstanceSegmentation",
    "oneformer": "OneFormerForUniversalSegmentation",
}
TASK_PROMPT = "the task is semantic"  # of OneFormer, for semantic segmentation


class TransformersNetwork:
    """A loaded checkpoint, on the CPU in float32. It runs one tile at a time, so that answers depend on nothing else.

    `labels` are the names of its outputs, or the words to look for with the `template` around each. `threads` 0 leaves
    torch's number of threads as it is; it is the whole process's number. Raises `ModelError` where the checkpoint
    cannot be loaded or returns another number of classes than it names.
    """

    def __init__(self, config: TaskConfig, labels: Sequence[str], *, template: str = "{}", threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._config = config
        self._labels = tuple(labels)
        self._source = config.files.source
        self._subject = f"checkpoint {self._source}"
        self._model = _load(_kind(config), config)
        self._statistics = TileStatistics(self._model) if config.task.startswith("segment") else None
        self._given: dict[str, npt.NDArray[Any]] = {}
        self._text_inputs: dict[str, Any] = {}
        self._spans: list[list[int]] = []
        with inference_errors(self._source):
            if config.task == "find":
                self._tokenize_labels([template.replace("{}", label) for label in self._labels])
            elif config.family == "oneformer":
                self._text_inputs = {"task_inputs": self._tokenize_task()}

    def use_statistics(self, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Use these statistics for all tiles; {} for those of each tile."""
        self._given = dict(values)

    def measure_statistics(self, tiles: Sequence[Pixels]) -> dict[str, npt.NDArray[Any]]:
        """The statistics of some tiles (tile, tile, 3) together. Raises `ModelError`.

        Runs on one thread, since the order of a sum, and so its last bit, depends on their number.
        """
        if self._statistics is None:
            return {}
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with inference_errors(self._source), torch.inference_mode():
                self._statistics.use({})
                batch = torch.cat([self._pixel_values(tile) for tile in tiles])
                texts = {name: value.expand(len(tiles), -1) for name, value in self._text_inputs.items()}
                self._model(pixel_values=batch, **texts)
                return self._statistics.to_arrays()
        finally:
            torch.set_num_threads(threads)

    def classify(self, tile: Pixels) -> Scores:
        """A tile (tile, tile, 3) → a score for each label. Raises `ModelError`."""
        with inference_errors(self._source), torch.inference_mode():
            logits = self._model(pixel_values=self._pixel_values(tile)).logits[0]
            self._check_classes(logits.shape[-1])
            require_distinct(logits, of=self._subject)
            scores = torch.sigmoid(logits) if self._config.independent else torch.softmax(logits, dim=-1)
        found: Scores = scores.numpy().astype(np.float64)
        return found

    def segment(self, tile: Pixels) -> ClassScores:
        """A tile → values (tile, tile, classes): logits, or for masks each class's share of the sum. `ModelError`."""
        side = self._config.tile
        if self._statistics is not None:
            self._statistics.use(self._given)
        with inference_errors(self._source), torch.inference_mode():
            output = self._model(pixel_values=self._pixel_values(tile), **self._text_inputs)
            if self._config.task == "segment":
                self._check_classes(output.logits.shape[1])
                return _upsample(output.logits, side)[0].permute(1, 2, 0).numpy()
            logits = require_finite(output.class_queries_logits[0], "classes", of=self._subject)
            classes = logits.softmax(dim=-1)[:, :-1]
            self._check_classes(classes.shape[-1])
            require_finite(output.masks_queries_logits, "masks", of=self._subject)
            masks = torch.sigmoid(_upsample(output.masks_queries_logits, side)[0])
            summed = torch.einsum("qc,qhw->hwc", classes, masks)
            shares: ClassScores = (summed / summed.sum(dim=-1, keepdim=True).clamp(min=1e-12)).numpy()
        return shares

    def detect(self, tile: Pixels, _valid: Mask) -> list[Detection]:
        """A tile → its boxes, with the labels and scores that the checkpoint's processor keeps. Raises `ModelError`."""
        with inference_errors(self._source), torch.inference_mode():
            output = self._model(pixel_values=self._pixel_values(tile), **self._text_inputs)
            boxes = require_finite(output.pred_boxes[0], "boxes", of=self._subject)
            logits = output.logits[0]
            if self._spans:  # the network sets tokens outside the words' own to -inf
                logits = logits[:, [token for span in self._spans for token in span]]
            require_finite(logits, "scores", of=self._subject)
            if self._config.task == "detect":
                scores = torch.sigmoid(logits) if self._config.independent else torch.softmax(logits, dim=-1)[:, :-1]
                self._check_classes(scores.shape[-1])
            elif self._spans:
                by_label = torch.sigmoid(logits).split([len(span) for span in self._spans], dim=-1)
                scores = torch.stack([one.amax(dim=-1) for one in by_label], dim=-1)
            else:
                scores = torch.sigmoid(logits)
        confidence, centres = scores.numpy(), boxes.numpy() * self._config.tile
        half = centres[:, 2:] / 2
        corners = np.concatenate([centres[:, :2] - half, centres[:, :2] + half], axis=1)
        if self._config.independent:  # the best pairs of box and label
            order = np.argsort(-confidence, axis=None, kind="stable")[: self._config.most or len(confidence)]
            rows, labels = np.unravel_index(order, confidence.shape)
        else:  # the best label of each box
            rows, labels = np.arange(len(confidence)), confidence.argmax(axis=1)
        return [
            Detection(self._labels[label], float(confidence[row, label]), tuple(corners[row].tolist()))
            for row, label in zip(rows.tolist(), labels.tolist(), strict=True)
        ]

    def _pixel_values(self, tile: Pixels) -> torch.Tensor:
        return to_tensor((tile[..., ::-1] if self._config.flipped else tile)[None], self._config)

    def _tokenize_labels(self, prompts: Sequence[str]) -> None:
        """Tokenize the words to look for: each by itself, or all as one sentence with a span of tokens for each."""
        tokenizer = load_tokenizer(self._config.files)
        settings = self._model.config.text_config
        limit = int(getattr(self._model.config, "max_text_len", 0) or settings.max_position_embeddings)
        if self._config.family in {"owlvit", "owlv2"}:
            longest = max(len(tokenizer(prompt)["input_ids"]) for prompt in prompts)
            tokens = tokenizer(list(prompts), padding="max_length", max_length=limit, return_tensors="pt")
            self._text_inputs = {key: tokens[key] for key in ("input_ids", "attention_mask")}
        else:
            sentence = " ".join(f"{prompt.lower().strip(' .')}." for prompt in prompts)
            tokens = tokenizer(sentence, return_offsets_mapping=True, return_tensors="pt")
            offsets = tokens.pop("offset_mapping")[0].tolist()
            ends = np.cumsum([len(prompt.strip(" .")) + 2 for prompt in prompts]) - 2
            starts = [0, *(int(end) + 2 for end in ends[:-1])]
            self._spans = [
                [i for i, (a, b) in enumerate(offsets) if start <= a < b <= end]
                for start, end in zip(starts, ends.tolist(), strict=True)
            ]
            longest = tokens["input_ids"].shape[1]
            self._text_inputs = dict(tokens)
        if longest > limit or not all(self._spans):
            rule = f"must be words that fit into the {limit} tokens of {self._subject}"
            raise RequestError("labels", rule, value=f"{longest} tokens", remedy="Name fewer or shorter labels")
        self._check_tokens(self._text_inputs["input_ids"], settings.vocab_size)

    def _tokenize_task(self) -> torch.Tensor:
        """The task of a network with several, as a row of tokens, with 0 where they end."""
        settings = self._model.config
        tokens = load_tokenizer(self._config.files)(
            TASK_PROMPT, padding="max_length", max_length=settings.task_seq_len, truncation=True, return_tensors="pt"
        )
        self._check_tokens(tokens["input_ids"], settings.text_encoder_vocab_size)
        return tokens["input_ids"] * tokens["attention_mask"]

    def _check_tokens(self, tokens: torch.Tensor, known: int) -> None:
        most = int(tokens.max())
        if most >= known:
            rule = f"must have a tokenizer with no more than the network's {known} tokens"
            remedy = "Put the tokenizer files that belong to this checkpoint into the folder"
            raise ModelError(self._subject, rule, value=str(most), remedy=remedy)

    def _check_classes(self, returned: int) -> None:
        if returned != len(self._labels):
            rule = f"must return the {len(self._labels)} classes that its config.json names"
            raise ModelError(self._subject, rule, value=str(returned), remedy="Correct id2label in config.json")


def normalises_tiles(config: TaskConfig) -> bool:
    """Whether a network takes statistics over a tile: see `TileStatistics`. Loads no weights. Raises `ModelError`."""
    settings = config.files.read("config.json")
    resnet = timm_resnet(settings)
    with loading_errors(config.files.source):
        described = transformers.AutoConfig.for_model(**(settings if resnet is None else resnet.settings))
        check_config_size(_kind(config), described, settings, config.files)
        return bool(find_layers(build_without_weights(_kind(config), described)))


def _kind(config: TaskConfig) -> Any:
    """The class of transformers for a checkpoint."""
    by_masks = config.task == "segment by masks"
    return getattr(transformers, BY_MASKS[config.family] if by_masks else CLASSES[config.task])


def _load(kind: Any, config: TaskConfig) -> Any:
    """Load a network, with transformers' own ResNet in place of one of timm's."""
    settings = config.files.read("config.json")
    resnet = timm_resnet(settings)
    if resnet is None:  # a OneFormer that is set to training asks for texts too
        return load_model(
            kind, config.files, settings={**settings, "is_training": False} if settings.get("is_training") else None
        )
    model = load_model(kind, config.files, settings=resnet.settings, names=NAMES)
    if resnet.dilated:
        _dilate(next(part for part in model.modules() if isinstance(part, transformers.ResNetBackbone)))
    return model


def _dilate(backbone: Any) -> None:
    """Replace the stride of the last stage by dilation, from its second 3 × 3 convolution on."""
    layers = [layer for layer in backbone.encoder.stages[-1].modules() if isinstance(layer, torch.nn.Conv2d)]
    for layer in layers:
        layer.stride = (1, 1)
    for layer in [layer for layer in layers if max(layer.kernel_size) > 1][1:]:
        layer.dilation = layer.padding = (2, 2)


def _upsample(values: torch.Tensor, side: int) -> torch.Tensor:
    """(1, n, h, w) → (1, n, side, side), bilinearly, corners not aligned."""
    return torch.nn.functional.interpolate(values, size=(side, side), mode="bilinear", align_corners=False)
