"""Networks in transformers' format: classification, segmentation, detection, and detection by words.

Imports torch and transformers. What comes out is what the checkpoint's own post-processing would give (transformers 5,
`post_process_…` of its image processors), in the pixels of the tile. Sources of the methods: DETR, arXiv 2005.12872
(softmax with a class for nothing); Deformable DETR, arXiv 2010.04159 (a sigmoid for each class); MaskFormer, arXiv
2107.06278 (classes of masks, summed); OWL-ViT, arXiv 2205.06230; Grounding DINO, arXiv 2303.05499.
"""

# transformers' types do not say what its classes return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import transformers

from ...readers.errors import ModelError, RequestError
from ...readers.image import Mask, Pixels
from ..checkpoints.files import CheckpointFiles
from ..checkpoints.loading import inference_errors, load_model, load_tokenizer, to_tensor
from ..class_maps import ClassScores
from ..detections import Detection
from ..scores import Scores, require_distinct, require_finite
from .task_config import Task, TaskConfig
from .timm_resnet import NAMES, timm_resnet

KINDS: Final[dict[Task, str]] = {
    "classify": "AutoModelForImageClassification",
    "segment": "AutoModelForSemanticSegmentation",
    "detect": "AutoModelForObjectDetection",
    "find": "AutoModelForZeroShotObjectDetection",
}
BY_FAMILY = {
    "mask2former": "Mask2FormerForUniversalSegmentation",
    "maskformer": "MaskFormerForInstanceSegmentation",
    "oneformer": "OneFormerForUniversalSegmentation",
}
ASKED = "the task is semantic"  # what a OneFormer was trained to be told when classes are wanted


class TransformersNetwork:
    """A checkpoint, ready to answer. One tile at a time: an answer depends on nothing but its tile.

    `labels` are the names of its outputs, or the words to look for with the `template` around each. Runs on the
    processor in float32. `threads` 0 leaves torch's number of threads as it is; it is the whole process's number.
    Raises `ModelError` where the checkpoint cannot be loaded or answers with another number of classes than it names.
    """

    def __init__(self, recipe: TaskConfig, labels: Sequence[str], *, template: str = "{}", threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._recipe = recipe
        self._labels = tuple(labels)
        self._name = f"checkpoint {recipe.files.source}"
        kind = BY_FAMILY.get(recipe.family) if recipe.task == "segment by masks" else KINDS[recipe.task]
        self._model = _loaded(getattr(transformers, str(kind)), recipe.files)
        self._source = recipe.files.source
        self._words: dict[str, Any] = {}
        self._spans: list[list[int]] = []
        with inference_errors(self._source):
            self._prepare(template)

    def _prepare(self, template: str) -> None:
        """Read the words that it is told with every tile."""
        if self._recipe.task == "find":
            self._read([template.replace("{}", label) for label in self._labels])
        elif self._recipe.family == "oneformer":
            self._words = {"task_inputs": self._task()}

    def classify(self, tile: Pixels) -> Scores:
        """A tile (tile, tile, 3) → a score for each label. Raises `ModelError`."""
        with inference_errors(self._source), torch.inference_mode():
            logits = self._model(pixel_values=self._shown(tile)).logits[0]
            self._check_count(logits.shape[-1], len(self._labels))
            require_distinct(logits, of=self._name)
            chances = torch.sigmoid(logits) if self._recipe.independent else torch.softmax(logits, dim=-1)
        found: Scores = chances.numpy().astype(np.float64)
        return found

    def segment(self, tile: Pixels, valid: Mask) -> ClassScores:
        """A tile → values (tile, tile, classes): logits, or of masks each class's share of what they sum to."""
        del valid
        side = self._recipe.tile
        with inference_errors(self._source), torch.inference_mode():
            answer = self._model(pixel_values=self._shown(tile), **self._words)
            if self._recipe.task == "segment":
                self._check_count(answer.logits.shape[1], len(self._labels))
                return _enlarged(answer.logits, side)[0].permute(1, 2, 0).numpy()
            require_finite(answer.masks_queries_logits, "masks", of=self._name)
            classes = require_finite(answer.class_queries_logits[0], "classes", of=self._name).softmax(dim=-1)[:, :-1]
            self._check_count(classes.shape[-1], len(self._labels))
            masks = torch.sigmoid(_enlarged(answer.masks_queries_logits, side)[0])
            summed = torch.einsum("qc,qhw->hwc", classes, masks)
            shares: ClassScores = (summed / summed.sum(dim=-1, keepdim=True).clamp(min=1e-12)).numpy()
        return shares

    def detect(self, tile: Pixels, valid: Mask) -> list[Detection]:
        """A tile → its boxes, each label that the network sees in one with its score. Raises `ModelError`."""
        del valid
        with inference_errors(self._source), torch.inference_mode():
            answer = self._model(pixel_values=self._shown(tile), **self._words)
            logits, boxes = answer.logits[0], require_finite(answer.pred_boxes[0], "boxes", of=self._name)
            if self._spans:  # beyond the words' own tokens, a network of words bars all others with -inf
                logits = logits[:, [token for span in self._spans for token in span]]
            require_finite(logits, "scores", of=self._name)
            if self._recipe.task == "detect":
                scores = torch.sigmoid(logits) if self._recipe.independent else torch.softmax(logits, dim=-1)[:, :-1]
                self._check_count(scores.shape[-1], len(self._labels))
            elif self._spans:
                by_word = torch.sigmoid(logits).split([len(span) for span in self._spans], dim=-1)
                scores = torch.stack([one.amax(dim=-1) for one in by_word], dim=-1)
            else:
                scores = torch.sigmoid(logits)
        sure, place = scores.numpy(), boxes.numpy() * self._recipe.tile
        corners = np.concatenate([place[:, :2] - place[:, 2:] / 2, place[:, :2] + place[:, 2:] / 2], axis=1)
        return self._independent(sure, corners) if self._recipe.independent else self._best(sure, corners)

    def _best(self, scores: npt.NDArray[Any], corners: npt.NDArray[Any]) -> list[Detection]:
        """The best label of each box."""
        which = scores.argmax(axis=1)
        return [
            Detection(self._labels[label], float(row[label]), tuple(box))
            for row, label, box in zip(scores, which.tolist(), corners.tolist(), strict=True)
        ]

    def _independent(self, scores: npt.NDArray[Any], corners: npt.NDArray[Any]) -> list[Detection]:
        """The best pairs of box and label."""
        order = np.argsort(-scores, axis=None, kind="stable")[: self._recipe.most or len(scores)]
        return [
            Detection(self._labels[label], float(scores[row, label]), tuple(corners[row].tolist()))
            for row, label in zip(*(i.tolist() for i in np.unravel_index(order, scores.shape)), strict=True)
        ]

    def _shown(self, tile: Pixels) -> torch.Tensor:
        return to_tensor((tile[..., ::-1] if self._recipe.flipped else tile)[None], self._recipe)

    def _read(self, prompts: Sequence[str]) -> None:
        """Read the words to look for: each by itself, or all in one sentence of which each is a span of tokens."""
        tokenizer = load_tokenizer(self._recipe.files)
        settings = self._model.config.text_config
        limit = int(getattr(self._model.config, "max_text_len", 0) or settings.max_position_embeddings)
        if self._recipe.family in {"owlvit", "owlv2"}:
            longest = max(len(tokenizer(prompt)["input_ids"]) for prompt in prompts)
            given = tokenizer(list(prompts), padding="max_length", max_length=limit, return_tensors="pt")
            self._words = {key: given[key] for key in ("input_ids", "attention_mask")}
        else:
            sentence = " ".join(f"{prompt.lower().strip(' .')}." for prompt in prompts)
            given = tokenizer(sentence, return_offsets_mapping=True, return_tensors="pt")
            places = given.pop("offset_mapping")[0].tolist()
            ends = np.cumsum([len(prompt.strip(" .")) + 2 for prompt in prompts]) - 2
            starts = [0, *(int(end) + 2 for end in ends[:-1])]
            self._spans = [
                [i for i, (a, b) in enumerate(places) if start <= a < b <= end]
                for start, end in zip(starts, ends.tolist(), strict=True)
            ]
            longest = given["input_ids"].shape[1]
            self._words = dict(given)
        if longest > limit or not all(self._spans):
            raise RequestError(
                "labels",
                f"they must be words that fit into the {limit} tokens of checkpoint {self._recipe.files.source}",
                value=f"{longest} tokens",
                remedy="Name fewer or shorter labels",
            )
        self._check_tokens(self._words["input_ids"], settings.vocab_size)

    def _task(self) -> torch.Tensor:
        """What a network of several tasks is told, as a row of tokens, with 0 where they end."""
        settings = self._model.config
        given = load_tokenizer(self._recipe.files)(
            ASKED, padding="max_length", max_length=settings.task_seq_len, truncation=True, return_tensors="pt"
        )
        self._check_tokens(given["input_ids"], settings.text_encoder_vocab_size)
        return given["input_ids"] * given["attention_mask"]

    def _check_tokens(self, tokens: torch.Tensor, known: int) -> None:
        most = int(tokens.max())
        if most >= known:
            raise ModelError(
                f"checkpoint {self._recipe.files.source}",
                f"its tokenizer must know no more than the network's {known} tokens",
                value=str(most),
                remedy="Put the tokenizer files that belong to this checkpoint into the folder",
            )

    def _check_count(self, answered: int, named: int) -> None:
        if answered != named:
            raise ModelError(
                f"checkpoint {self._recipe.files.source}",
                f"it must answer for the {named} classes that its config.json names",
                value=str(answered),
                remedy="Correct id2label in config.json",
            )


def _loaded(kind: Any, files: CheckpointFiles) -> Any:
    """A network, with transformers' own ResNet in place of one of timm's."""
    config = files.read("config.json")
    resnet = timm_resnet(config)
    if resnet is None:  # a OneFormer that would be trained further asks for texts too
        return load_model(kind, files, settings={**config, "is_training": False} if config.get("is_training") else None)
    model = load_model(kind, files, settings=resnet.settings, names=NAMES)
    if resnet.widened:
        _widen(next(part for part in model.modules() if isinstance(part, transformers.ResNetBackbone)))
    return model


def _widen(backbone: Any) -> None:
    """Have the last stage keep its size, and look twice as far apart once it would have halved it."""
    stage = backbone.encoder.stages[-1]
    found = [layer for layer in stage.modules() if isinstance(layer, torch.nn.Conv2d)]
    for layer in found:
        layer.stride = (1, 1)
    for layer in [layer for layer in found if max(layer.kernel_size) > 1][1:]:
        layer.dilation = layer.padding = (2, 2)


def _enlarged(values: torch.Tensor, side: int) -> torch.Tensor:
    """(1, n, h, w) → (1, n, side, side), bilinearly, corners not aligned."""
    return torch.nn.functional.interpolate(values, size=(side, side), mode="bilinear", align_corners=False)
