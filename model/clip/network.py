"""An image-text network of the CLIP or SigLIP type. Imports torch and transformers.

Sources of the methods: CLIP, arXiv 2103.00020 (softmax over the labels; features of several prompts averaged); SigLIP,
arXiv 2303.15343 (a sigmoid for each label).
"""

# transformers' types do not say what its classes return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import CLIPModel, SiglipModel

from ...readers.errors import ModelError, RequestError
from ..checkpoints.loading import inference_errors, load_model, to_tensor
from ..scores import require_distinct, require_finite
from .checkpoint import ClipCheckpoint
from .openclip_load import clean, load_clip_tokenizer, load_openclip


class ClipImageEncoder:
    """The image encoder of a checkpoint, in float32 on the CPU.

    `threads` 0 keeps torch's number of threads, which is the whole process's. Raises `ModelError` where the checkpoint
    cannot be loaded.
    """

    def __init__(self, checkpoint: ClipCheckpoint, *, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._checkpoint = checkpoint
        kind: Any = CLIPModel if checkpoint.family == "clip" else SiglipModel
        self.model: Any = (
            load_model(kind, checkpoint.files)
            if checkpoint.open_clip is None
            else load_openclip(kind, checkpoint.files, checkpoint.open_clip)
        )

    def __call__(self, picture: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """The features (dimensions,), of length 1, of an image (tile, tile, 3) of values 0 to 255."""
        with inference_errors(self._checkpoint.source), torch.inference_mode():
            pixels = to_tensor(picture[None], self._checkpoint)
            features = _unit(self.model.get_image_features(pixel_values=pixels).pooler_output)[0]
            require_finite(features, "features", of=f"checkpoint {self._checkpoint.source}")
            found: npt.NDArray[np.float32] = features.numpy()
        return found


class ClipNetwork:
    """A checkpoint with the features of the labels that images are compared with.

    A label's features are the mean of those of its prompts: each template with the label in place of `{}`. Raises
    `ModelError` where the checkpoint cannot be loaded, `RequestError` for a prompt that is too long for it.
    """

    def __init__(
        self, checkpoint: ClipCheckpoint, labels: Sequence[str], templates: Sequence[str], *, threads: int = 0
    ) -> None:
        self._checkpoint = checkpoint
        self._tokenizer: Any = load_clip_tokenizer(checkpoint)
        self.encode_image = ClipImageEncoder(checkpoint, threads=threads)
        self._model: Any = self.encode_image.model
        with inference_errors(checkpoint.source), torch.inference_mode():
            prompts = [[template.replace("{}", label) for template in templates] for label in labels]
            rows = [_unit(torch.stack([self._encode_text(prompt) for prompt in row])).mean(dim=0) for row in prompts]
            texts = _unit(torch.stack(rows))
            self._texts = require_finite(texts, "features of the labels", of=f"checkpoint {checkpoint.source}")

    def __call__(self, picture: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """The probability of each label for an image (tile, tile, 3) of values 0 to 255. Raises `ModelError`.

        Images are not batched: a result then depends on nothing but its image, and a batch is no faster on a CPU.
        """
        return self.compare(self.encode_image(picture))

    def compare(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """The probability of each label for features (dimensions,) of length 1. Raises `ModelError`."""
        siglip = self._checkpoint.family == "siglip"
        with inference_errors(self._checkpoint.source), torch.inference_mode():
            logits = torch.from_numpy(features[None]) @ self._texts.T * self._model.logit_scale.exp()
            logits = logits + self._model.logit_bias if siglip else logits
            require_distinct(logits, of=f"checkpoint {self._checkpoint.source}")
            probabilities = torch.sigmoid(logits) if siglip else torch.softmax(logits, dim=1)
        found: npt.NDArray[np.float64] = probabilities[0].numpy().astype(np.float64)
        return found

    def _encode_text(self, prompt: str) -> torch.Tensor:
        """The features (dimensions,) of a prompt."""
        settings, known = self._model.config.text_config, self._checkpoint.open_clip
        limit = int(settings.max_position_embeddings)
        text = clean(prompt, lower=known.lower) if known is not None else prompt
        tokens = self._tokenizer(text)["input_ids"] or [0]
        if len(tokens) > limit:
            raise RequestError(
                f"prompt {prompt!r}",
                f"must fit into the {limit} tokens of checkpoint {self._checkpoint.source}",
                value=f"{len(tokens)} tokens",
                remedy="Shorten the label or the template",
            )
        ends = [settings.bos_token_id, settings.eos_token_id]
        rule, value = "", ""
        if max(tokens) >= settings.vocab_size:
            rule, value = f"must have no more than the network's {settings.vocab_size} tokens", str(max(tokens))
        elif known is not None and [tokens[0], tokens[-1]] != ends:
            rule = f"must begin and end a text with the tokens {ends[0]} and {ends[1]}"
            value = f"{tokens[0]} and {tokens[-1]}"
        if rule:
            raise ModelError(
                f"tokenizer of checkpoint {self._checkpoint.source}",
                rule,
                value=value,
                remedy="Put the tokenizer files that belong to this checkpoint into the folder",
            )
        padding: dict[str, Any] = {}
        if self._checkpoint.family == "siglip":  # trained on texts padded to the full length
            padding = {"padding": "max_length", "max_length": limit}
        encoded = self._tokenizer([text], return_tensors="pt", **padding)
        inputs = {key: encoded[key] for key in ("input_ids", "attention_mask") if key in encoded}
        return self._model.get_text_features(**inputs).pooler_output[0]


def _unit(features: torch.Tensor) -> torch.Tensor:
    return features / features.norm(dim=-1, keepdim=True)
