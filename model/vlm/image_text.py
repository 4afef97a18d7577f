"""An image-text-to-text network of transformers: generates texts about pictures, and scores options.

It takes the pictures of one prompt at a time, so that an answer depends on nothing else and needs no padding. Weights
come as safetensors, or pickled through torch's weights-only reader.
"""

# transformers' types do not state what its classes return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import copy
import inspect
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForImageTextToText, GenerationConfig, LogitsProcessorList

from ...readers.errors import ModelError, RequestError
from ..checkpoints.loading import check_config_size, silence_transformers
from ..checkpoints.memory import memory_errors
from ..checkpoints.untrusted import error_text, wrap_errors
from ..scores import require_finite
from .annotator import Picture
from .decoding import Constraint, Decoding, Vocabulary
from .processor import Processor, loading
from .texts import GeneratedText

TOKEN_INPUTS = ("attention_mask", "input_ids", "mm_token_type_ids", "moe_mm_token_type_ids", "token_type_ids")
"""Inputs with a value for each token; all others are of pictures."""
TOLERANCE, HALF_TOLERANCE = 1e-3, 0.3  # of likelihoods by way of the cache, in float32 and in half precision


def resolve_device(device: str) -> str:
    """The device that "auto" stands for, "cuda" or "cpu"; any other unchanged. Raises `RequestError` for an absent one.

    A name is torch's, such as "cuda:1".
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise RequestError(
            f"device {device}",
            "must be usable by torch",
            value=error_text(error),
            remedy="Name another device of this machine, such as --set model_options.device=cpu",
        ) from error
    return device


class ImageTextModel:
    """A loaded checkpoint. Raises `ModelError` where it cannot be loaded completely.

    `dtype` is float32, bfloat16, float16, or "auto" for the checkpoint's own. `threads` is torch's number of threads in
    the whole process; 0 leaves it unchanged.
    """

    def __init__(self, processor: Processor, *, device: str, dtype: str, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._processor = processor
        self._source = processor.files.source
        self._name = f"checkpoint {self._source}"
        self._device = torch.device(device)
        with _network_errors(self._name):
            self._model: Any = _load(processor, dtype).to(self._device).eval()
        if self._model.config.is_encoder_decoder:
            raise ModelError(
                self._name,
                "must be a decoder-only model, whose answer continues the question",
                value="an encoder and a decoder",
                remedy="Name another checkpoint",
            )
        settings = self._model.config.get_text_config()
        self._context = int(getattr(settings, "max_position_embeddings", 0) or 0)
        self._vocab = int(self._model.get_input_embeddings().weight.shape[0])
        takes = inspect.signature(self._model.forward).parameters
        self._last_logits = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
        pad = processor.tokenizer.pad_token_id
        self._model.generation_config = GenerationConfig(  # replaces the checkpoint's, which may sample
            do_sample=False,
            num_beams=1,
            eos_token_id=list(processor.stop_tokens),
            pad_token_id=processor.stop_tokens[0] if pad is None else pad,
        )

    def generate(self, pictures: Sequence[Picture], prompt: str, *, limit: int, schema: str = "") -> GeneratedText:
        """The answer to a prompt about pictures: the likeliest token at each step, at most `limit` of them.

        With a JSON `schema` the likeliest that obeys it, without a thought before it. Raises `MemoryError`, and
        `ModelError`, also where the prompt is too long or `limit` cuts such an answer off.
        """
        inputs = self._read(pictures, prompt, room=limit, thinks=not schema)
        begin = inputs["input_ids"].shape[1]
        constraints = [Constraint(self._vocabulary, schema)] if schema else []
        decoding = Decoding(self._name, stops=self._processor.stop_tokens, begin=begin, constraints=constraints)
        processors = LogitsProcessorList([decoding])  # pyright: ignore[reportArgumentType] - any callable will do
        with _network_errors(self._name), torch.inference_mode(), silence_transformers():
            ids = self._model.generate(**inputs, max_new_tokens=limit, logits_processor=processors, use_cache=True)
        opened = self._processor.opened_thought

        def decode(tokens: list[int]) -> str:
            return opened + self._processor.decode(tokens)

        [text] = decoding.texts(ids[:, begin:].tolist(), decode, limit=limit)
        return text

    def score_options(
        self, pictures: Sequence[Picture], prompts: Sequence[str], options: Sequence[str]
    ) -> npt.NDArray[Any]:
        """Natural log-likelihoods (prompts, options) of an option, and then the end, as the answer to each prompt.

        What the prompts share, pictures included, is read once; so is each prompt for all its options. Raises as
        `generate` does.
        """
        tails = [[self._answer_tokens(prompt, option, len(pictures)) for option in options] for prompt in prompts]
        room = 1 + max(len(tail) for row in tails for tail in row)
        inputs = [self._read(pictures, prompt, room=room, writes=False) for prompt in prompts]
        with _network_errors(self._name), torch.inference_mode():
            if self._cache_works:
                rows = self._score_with_cache(inputs, tails)
            else:
                rows = [[self._score_whole(one, tail) for tail in row] for one, row in zip(inputs, tails, strict=True)]
        return require_finite(np.array(rows, dtype=np.float64), "log-likelihoods", of=self._name)

    def _score_with_cache(
        self, inputs: Sequence[dict[str, Any]], tails: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[float]]:
        shared = self._shared_length(inputs)
        base = self._prefill(inputs[0], shared)[0] if shared else None
        rows: list[list[float]] = []
        for one, row in zip(inputs, tails, strict=True):
            if base is None:
                cache, last = self._prefill(one, one["input_ids"].shape[1])
            else:
                cache = copy.deepcopy(base)
                last = self._continue(cache, one["input_ids"][0, shared:].tolist())[-1]
            rows.append([self._score(last, self._continue(copy.deepcopy(cache), tail), tail) for tail in row])
        return rows

    @cached_property
    @torch.inference_mode()
    def _cache_works(self) -> bool:
        """Whether continuing from the cache by several tokens equals reading the whole, tried once on a noise picture.

        The state of some networks cannot be continued by several tokens.
        """
        picture = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
        one = self._read([picture], "What is it?", room=3)
        tail = [int(token) for token in one["input_ids"][0, -2:]]
        try:
            shared = self._shared_length([one])
            cache = self._prefill(one, shared or one["input_ids"].shape[1])[0]
            rest = one["input_ids"][0, shared:].tolist() if shared else tail[:1]
            rows = self._continue(copy.deepcopy(cache), [*rest, *tail])[-1 - len(tail) :]
        except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
            return False  # families report it in all these ways; whole sequences are slower, and as right
        difference = (self._whole(one, tail) - rows).abs().max()
        return bool(difference < (TOLERANCE if self._model.dtype == torch.float32 else HALF_TOLERANCE))

    def _shared_length(self, inputs: Sequence[dict[str, Any]]) -> int:
        """How many first tokens all inputs share, with all pictures and without the last token; 0 for none."""
        ids = [one["input_ids"][0].tolist() for one in inputs]
        same = min(len(row) for row in ids) - 1
        same = next((i for i in range(same) if len({row[i] for row in ids}) > 1), same)
        names = ("image_token_id", "image_token_index")
        mark = next((one for name in names if isinstance(one := getattr(self._model.config, name, None), int)), None)
        places = [i for i, token in enumerate(ids[0]) if token == mark]
        return same if places and places[-1] < same else 0

    def _log_softmax(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (1, tokens, vocabulary) → log-probabilities (tokens, vocabulary). Raises `ModelError`."""
        return require_finite(logits[0], "logits", of=self._name).float().log_softmax(dim=-1)

    def _prefill(self, inputs: dict[str, Any], length: int) -> tuple[Any, torch.Tensor]:
        """(cache, log-probabilities of the next token) after the first `length` tokens and the pictures."""
        part = {name: value[:, :length] if name in TOKEN_INPUTS else value for name, value in inputs.items()}
        out = self._model(**part, **self._last_logits, use_cache=True)
        return out.past_key_values, self._log_softmax(out.logits)[-1]

    def _continue(self, cache: Any, tokens: Sequence[int]) -> torch.Tensor:
        """Log-probabilities (tokens, vocabulary) after each of the tokens that follow; the cache grows by them."""
        ids = torch.tensor([list(tokens)], device=self._device)
        return self._log_softmax(self._model(input_ids=ids, past_key_values=cache, use_cache=True).logits)

    def _whole(self, inputs: dict[str, Any], tail: Sequence[int]) -> torch.Tensor:
        """Log-probabilities (1 + tail, vocabulary) before the tail and after each of its tokens, from one pass."""
        more = torch.tensor([list(tail)], device=self._device)
        whole = dict(inputs)
        for name in TOKEN_INPUTS:
            if name in inputs:
                added = more if name == "input_ids" else torch.full_like(more, int(name == "attention_mask"))
                whole[name] = torch.cat([inputs[name], added.to(inputs[name].dtype)], dim=1)
        keep = dict.fromkeys(self._last_logits, len(tail) + 1)
        return self._log_softmax(self._model(**whole, **keep).logits)[-1 - len(tail) :]

    def _score_whole(self, inputs: dict[str, Any], tail: Sequence[int]) -> float:
        rows = self._whole(inputs, tail)
        return self._score(rows[0], rows[1:], tail)

    def _score(self, last: torch.Tensor, after: torch.Tensor, tail: Sequence[int]) -> float:
        """The log-likelihood of `tail` and then any token that ends an answer, from log-probabilities at each step."""
        steps = torch.cat([last[None], after])
        words = steps[:-1].gather(1, torch.tensor(list(tail), device=steps.device)[:, None]).sum()
        return float(words + steps[-1][list(self._processor.stop_tokens)].logsumexp(0))

    def _answer_tokens(self, prompt: str, option: str, pictures: int) -> list[int]:
        tokens = self._processor.answer_tokens(prompt, option, pictures=pictures)
        self._check_tokens(tokens)
        return tokens

    def _read(
        self, pictures: Sequence[Picture], prompt: str, *, room: int, thinks: bool = False, writes: bool = True
    ) -> dict[str, Any]:
        inputs = self._processor.read(pictures, prompt, thinks=thinks)
        tokens = inputs["input_ids"].shape[1]
        if self._context and tokens + room > self._context:
            raise ModelError(
                f"question to {self._source}",
                f"must fit, with its answer, into the model's {self._context} tokens",
                value=f"{tokens} and {room} for the answer",
                remedy=f"Lower --hd-num{' or --set model_options.max_tokens' if writes else ''}, or ask for less",
            )
        self._check_tokens([int(token) for token in inputs["input_ids"].unique()])
        return {
            name: value.to(self._device, self._model.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }

    def _check_tokens(self, tokens: Sequence[int]) -> None:
        if max(tokens, default=0) >= self._vocab:
            raise ModelError(
                f"tokenizer of {self._name}",
                f"must have at most the network's {self._vocab} tokens",
                value=str(max(tokens)),
                remedy="Put the tokenizer files that belong to this checkpoint into the folder",
            )

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return self._processor.vocabulary()


def _load(processor: Processor, dtype: str) -> Any:
    """The network with every weight, from files on this machine."""
    files = processor.files
    with silence_transformers(), loading(files):
        check_config_size(AutoModelForImageTextToText, processor.config, files.read("config.json"), files)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            files.folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=not files.pickled(),
            dtype=dtype,
            output_loading_info=True,
        )
    model, report = loaded
    absent = sorted({*report["missing_keys"], *(str(key) for key in report.get("mismatched_keys", ()))})
    if absent:
        raise ModelError(
            f"checkpoint {files.source}",
            "must hold every weight: absent ones would be random",
            value=f"no {', '.join(absent[:3])}",
            remedy="Complete the folder, or name another checkpoint",
        )
    return model


@contextmanager
def _network_errors(subject: str) -> Generator[None]:
    """Raise `MemoryError` where memory does not suffice, and `ModelError` for any other exception of a network."""
    rule = "must run on this picture in transformers"
    remedy = "Check that its files belong together, or try another --hd-num"
    with wrap_errors(subject, rule, remedy=remedy, running=True), memory_errors():
        yield
