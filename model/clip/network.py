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
from .openclip_load import load_openclip, load_words
from .openclip_tokenizer import clean


class ClipNetwork:
    """A checkpoint that knows what to look for.

    A label's features are the mean of those of its prompts: each template with the label for its `{}`. Runs on the
    processor in float32. `threads` 0 leaves torch's number of threads as it is; it is the whole process's number.
    Raises `ModelError` where the checkpoint cannot be loaded, `RequestError` for a prompt that is too long for it.
    """

    def __init__(
        self, checkpoint: ClipCheckpoint, labels: Sequence[str], templates: Sequence[str], *, threads: int = 0
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._checkpoint = checkpoint
        self._model: Any
        self._tokenizer: Any
        self._tokenizer = load_words(checkpoint)
        self._model = _load(checkpoint)
        with inference_errors(checkpoint.source), torch.inference_mode():
            rows = [[self._read(template.replace("{}", label)) for template in templates] for label in labels]
            texts = _unit(torch.stack([_unit(torch.stack(row)).mean(dim=0) for row in rows]))
            self._texts = require_finite(texts, "features of the labels", of=f"checkpoint {checkpoint.source}")

    def __call__(self, picture: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """One picture (tile, tile, 3) of values 0 to 255 → a probability for each label. Raises `ModelError`.

        One at a time: an answer then depends on nothing but its picture, and on a processor a batch is no quicker.
        """
        return self.compare(self.encode_image(picture))

    def encode_image(self, picture: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """One picture (tile, tile, 3) of values 0 to 255 → its features (dimensions,), of length 1."""
        return _look(self._model, picture, self._checkpoint)

    def compare(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Features (dimensions,) of length 1 → a probability for each label. Raises `ModelError`."""
        with inference_errors(self._checkpoint.source), torch.inference_mode():
            logits = torch.from_numpy(features[None]) @ self._texts.T * self._model.logit_scale.exp()
            apart = self._checkpoint.family == "siglip"
            logits = require_distinct(
                logits + self._model.logit_bias if apart else logits, of=f"checkpoint {self._checkpoint.source}"
            )
            chances = torch.sigmoid(logits) if apart else torch.softmax(logits, dim=1)
        found: npt.NDArray[np.float64] = chances[0].numpy().astype(np.float64)
        return found

    def _read(self, prompt: str) -> torch.Tensor:
        """The features (dimensions,) of a prompt, read alone."""
        settings = self._model.config.text_config
        limit = int(settings.max_position_embeddings)
        known = self._checkpoint.open_clip
        text = clean(prompt, lower=known.lower) if known is not None else prompt
        tokens = self._tokenizer(text)["input_ids"] or [0]
        if len(tokens) > limit:
            raise RequestError(
                f"prompt {prompt!r}",
                f"it must fit into the {limit} tokens that checkpoint {self._checkpoint.source} reads",
                value=f"{len(tokens)} tokens",
                remedy="Shorten the label or the template",
            )
        if max(tokens) >= settings.vocab_size:
            raise ModelError(
                f"checkpoint {self._checkpoint.source}",
                f"its tokenizer must know no more than the network's {settings.vocab_size} tokens",
                value=str(max(tokens)),
                remedy="Put the tokenizer files that belong to this checkpoint into the folder",
            )
        marks = [settings.bos_token_id, settings.eos_token_id]
        if known is not None and [tokens[0], tokens[-1]] != marks:
            raise ModelError(
                f"checkpoint {self._checkpoint.source}",
                f"its tokenizer must begin and end a text with the tokens {marks[0]} and {marks[1]}, the last two",
                value=f"{tokens[0]} and {tokens[-1]}",
                remedy="Put the tokenizer files that belong to this checkpoint into the folder",
            )
        padding: dict[str, Any] = {}
        if self._checkpoint.family == "siglip":  # was trained on texts filled up to their full length
            padding = {"padding": "max_length", "max_length": limit}
        given = self._tokenizer([text], return_tensors="pt", **padding)
        inputs = {key: given[key] for key in ("input_ids", "attention_mask") if key in given}
        return self._model.get_text_features(**inputs).pooler_output[0]


class ClipImageEncoder:
    """The image part of a checkpoint: what it sees, without words. Raises `ModelError` where it cannot be loaded."""

    def __init__(self, checkpoint: ClipCheckpoint, *, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._checkpoint = checkpoint
        self._model: Any = _load(checkpoint)

    def __call__(self, picture: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """See `ClipNetwork.look`."""
        return _look(self._model, picture, self._checkpoint)


def _load(checkpoint: ClipCheckpoint) -> Any:
    kind: Any = CLIPModel if checkpoint.family == "clip" else SiglipModel
    if checkpoint.open_clip is not None:
        return load_openclip(kind, checkpoint.files, checkpoint.open_clip)
    return load_model(kind, checkpoint.files)


def _look(model: Any, picture: npt.NDArray[Any], checkpoint: ClipCheckpoint) -> npt.NDArray[np.float32]:
    with inference_errors(checkpoint.source), torch.inference_mode():
        seen = model.get_image_features(pixel_values=to_tensor(picture[None], checkpoint)).pooler_output
        features = require_finite(_unit(seen)[0], "features", of=f"checkpoint {checkpoint.source}")
        found: npt.NDArray[np.float32] = features.numpy()
    return found


def _unit(features: torch.Tensor) -> torch.Tensor:
    return features / features.norm(dim=-1, keepdim=True)
