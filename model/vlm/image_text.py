"""An image-text-to-text network of transformers: what it says of pictures, and how likely it finds an answer.

Knows no views. One picture or one set of pictures at a time: an answer then depends on nothing else, and needs no
padding. Weights come as safetensors, or pickled through torch's weights-only reader.
"""

# transformers' types do not say what its classes return:
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
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig, LogitsProcessorList

from ...readers.errors import ModelError, RequestError
from ..checkpoints.files import CheckpointFiles
from ..checkpoints.loading import check_config_size, silence_transformers
from ..checkpoints.memory import memory_errors
from ..checkpoints.untrusted import error_text, wrap_errors
from ..scores import require_finite
from .decoding import Decoding
from .grammar import Constraint, Vocabulary
from .processor import Picture, Processor, loading

ALONG = ("attention_mask", "input_ids", "mm_token_type_ids", "moe_mm_token_type_ids", "token_type_ids")
"""What the network gets for each token; everything else is pictures."""
EXACT, ROUGH = 1e-3, 0.3  # how far a likelihood by way of the cache may be off, in float32 and in half precision


def resolve_device(device: str) -> str:
    """The device that "auto" means here, "cuda" or "cpu"; any other as it was. Raises `RequestError` for one not here.

    A name is torch's, such as "cuda:1".
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise RequestError(
            f"device {device}",
            "torch must be able to use it",
            value=error_text(error),
            remedy="Name cpu, cuda or another device of this machine with model_options.device",
        ) from error
    return device


class ImageText:
    """A checkpoint with its weights in memory.

    `dtype` is float32, bfloat16, float16, or "auto" for the checkpoint's own. `threads` 0 leaves torch's number of
    threads as it is; it is the whole process's number. Raises `ModelError` where it cannot be loaded whole.
    """

    def __init__(self, processor: Processor, *, device: str, dtype: str, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._processor = processor
        self._source = processor.files.source
        self._name = f"checkpoint {self._source}"
        self._device = torch.device(device)
        with _bounded(self._source):
            self._model: Any = _load(processor.files, dtype).to(self._device).eval()
        if self._model.config.is_encoder_decoder:
            raise ModelError(
                f"checkpoint {self._source}",
                "its answer must go on where its question ends",
                value="it has a decoder apart",
                remedy="Name a checkpoint that chats",
            )
        settings = self._model.config.get_text_config()
        self._context = int(getattr(settings, "max_position_embeddings", 0) or 0)
        self._rows = int(self._model.get_input_embeddings().weight.shape[0])
        self._keeps = "logits_to_keep" in inspect.signature(self._model.forward).parameters
        pad = processor.tokenizer.pad_token_id
        self._model.generation_config = GenerationConfig(  # in the place of the checkpoint's: nothing is left to chance
            do_sample=False,
            num_beams=1,
            eos_token_id=list(processor.ends),
            pad_token_id=processor.ends[0] if pad is None else pad,
        )

    def generate(self, pictures: Sequence[Picture], prompt: str, *, limit: int, schema: str = "") -> str:
        """The answer to a prompt about pictures: at each step the likeliest token, at most `limit` of them.

        With a JSON `schema` the likeliest of those that keep to it. Raises `ModelError`, also where `limit` cuts such
        an answer off or the prompt is too long, and `MemoryError`.
        """
        inputs = self._read(pictures, prompt, room=limit)
        begin = inputs["input_ids"].shape[1]
        constraints = [Constraint(self._vocabulary, schema)] if schema else []
        decoding = Decoding(self._name, stops=self._processor.ends, begin=begin, constraints=constraints)
        with _bounded(self._source), torch.inference_mode(), silence_transformers():
            written = self._model.generate(
                **inputs, max_new_tokens=limit, logits_processor=LogitsProcessorList([decoding]), use_cache=True
            )
        [text] = decoding.texts(written[:, begin:].tolist(), self._decode, limit=limit)
        return text

    def score_options(
        self, pictures: Sequence[Picture], prompts: Sequence[str], options: Sequence[str]
    ) -> npt.NDArray[Any]:
        """Natural log-likelihoods (prompts, options) of an option, and then the end, being the answer to each prompt.

        What prompts have in common is read once, pictures among it; so is each prompt for all its options. Raises as
        `generate` does.
        """
        tails = [[self._tail(prompt, option, len(pictures)) for option in options] for prompt in prompts]
        room = 1 + max(len(tail) for row in tails for tail in row)
        read = [self._read(pictures, prompt, room=room) for prompt in prompts]
        with _bounded(self._source), torch.inference_mode():
            if not self._continues:
                rows = [[self._whole(one, tail) for tail in row] for one, row in zip(read, tails, strict=True)]
            else:
                rows = self._shared(read, tails)
        return require_finite(np.array(rows, dtype=np.float64), "log-likelihoods", of=self._name)

    def _shared(self, read: Sequence[dict[str, Any]], tails: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
        """Likelihoods by way of the cache: (prompts, options)."""
        common = self._common(read)
        base = self._prefill(read[0], common)[0] if common else None
        rows: list[list[float]] = []
        for one, row in zip(read, tails, strict=True):
            if base is None:
                cache, last = self._prefill(one, one["input_ids"].shape[1])
            else:
                cache = copy.deepcopy(base)
                last = self._go_on(cache, one["input_ids"][0, common:].tolist())[-1]
            rows.append([self._score(last, self._go_on(copy.deepcopy(cache), tail), tail) for tail in row])
        return rows

    @cached_property
    @torch.inference_mode()
    def _continues(self) -> bool:
        """Whether what the network says after a part that was read before is what it says of the whole.

        Tried out once, on a picture of noise: there are networks whose state cannot be continued by several tokens.
        """
        picture = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
        one = self._read([picture], "What is it?", room=3)
        tail = [int(token) for token in one["input_ids"][0, -2:]]
        try:
            common = self._common([one])
            cache = self._prefill(one, common or one["input_ids"].shape[1])[0]
            rest = one["input_ids"][0, common:].tolist() if common else tail[:1]
            rows = self._go_on(copy.deepcopy(cache), [*rest, *tail])[-1 - len(tail) :]
        except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
            return False  # families say so in all these ways; whole sequences are slower, and as right
        apart = (self._logits(one, tail)[-1 - len(tail) :] - rows).abs().max()
        return bool(apart < (EXACT if self._model.dtype == torch.float32 else ROUGH))

    def _common(self, read: Sequence[dict[str, Any]]) -> int:
        """How many first tokens all inputs share, their pictures' among them and one less than all; 0 for none."""
        ids = [one["input_ids"][0].tolist() for one in read]
        same = min(len(row) for row in ids) - 1
        same = next((i for i in range(same) if len({row[i] for row in ids}) > 1), same)
        config = self._model.config
        names = ("image_token_id", "image_token_index")
        mark = next((found for name in names if isinstance(found := getattr(config, name, None), int)), None)
        places = [i for i, token in enumerate(ids[0]) if token == mark]
        return same if places and places[-1] < same else 0

    def _log(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (1, tokens, vocabulary) → log-probabilities (tokens, vocabulary). Raises `ModelError`."""
        return require_finite(logits[0], "logits", of=self._name).float().log_softmax(dim=-1)

    def _decode(self, tokens: list[int]) -> str:
        return str(self._processor.tokenizer.decode(tokens, skip_special_tokens=True))

    def _prefill(self, inputs: dict[str, Any], length: int) -> tuple[Any, torch.Tensor]:
        """(cache, log-probabilities of the token after) of the first `length` tokens and the pictures."""
        part = {name: value[:, :length] if name in ALONG else value for name, value in inputs.items()}
        further = {"logits_to_keep": 1} if self._keeps else {}
        out = self._model(**part, **further, use_cache=True)
        return out.past_key_values, self._log(out.logits)[-1]

    def _go_on(self, cache: Any, tokens: Sequence[int]) -> torch.Tensor:
        """Log-probabilities (tokens, vocabulary) after each of the tokens that follow; the cache grows by them."""
        ids = torch.tensor([list(tokens)], device=self._device)
        return self._log(self._model(input_ids=ids, past_key_values=cache, use_cache=True).logits)

    def _logits(self, inputs: dict[str, Any], tail: Sequence[int]) -> torch.Tensor:
        """Log-probabilities (tokens, vocabulary) of a whole sequence in one pass: inputs and the tokens that follow."""
        more = torch.tensor([list(tail)], device=self._device)
        whole = {**inputs, "input_ids": torch.cat([inputs["input_ids"], more], dim=1)}
        for name in ALONG:
            if name in inputs and name != "input_ids":
                filled = torch.full_like(more, int(name == "attention_mask")).to(inputs[name].dtype)
                whole[name] = torch.cat([inputs[name], filled], dim=1)
        further = {"logits_to_keep": len(tail) + 1} if self._keeps else {}
        return self._log(self._model(**whole, **further).logits)

    def _whole(self, inputs: dict[str, Any], tail: Sequence[int]) -> float:
        rows = self._logits(inputs, tail)[-1 - len(tail) :]
        return self._score(rows[0], rows[1:], tail)

    def _score(self, last: torch.Tensor, after: torch.Tensor, tail: Sequence[int]) -> float:
        """The log-likelihood of `tail` and then any token that ends an answer, from what is likely at each step."""
        steps = torch.cat([last[None], after])
        words = steps[:-1].gather(1, torch.tensor(list(tail), device=steps.device)[:, None]).sum()
        return float(words + steps[-1][list(self._processor.ends)].logsumexp(0))

    def _tail(self, prompt: str, option: str, pictures: int) -> list[int]:
        tail = self._processor.tail(prompt, option, pictures=pictures)
        self._check_rows(tail)
        return tail

    def _read(self, pictures: Sequence[Picture], prompt: str, *, room: int) -> dict[str, Any]:
        inputs = self._processor.read(pictures, prompt)
        tokens = inputs["input_ids"].shape[1]
        if self._context and tokens + room > self._context:
            raise ModelError(
                f"question to {self._source}",
                f"with its answer it must fit into the {self._context} tokens that the model reads",
                value=f"{tokens} and {room} for the answer",
                remedy="Lower --hd-num, or model_options.max_tokens, or ask for less",
            )
        self._check_rows([int(token) for token in inputs["input_ids"].unique()])
        return {
            name: value.to(self._device, self._model.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }

    def _check_rows(self, tokens: Sequence[int]) -> None:
        if max(tokens, default=0) >= self._rows:
            raise ModelError(
                f"checkpoint {self._source}",
                f"its tokenizer must know no more than the network's {self._rows} tokens",
                value=str(max(tokens)),
                remedy="Put the tokenizer files that belong to this checkpoint into the folder",
            )

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary.of_fast(self._processor.tokenizer, ends=self._processor.ends)


def _load(files: CheckpointFiles, dtype: str) -> Any:
    """The network, from files on this machine, every weight of it."""
    with silence_transformers(), loading(files):
        config = AutoConfig.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)
        check_config_size(AutoModelForImageTextToText, config, files.read("config.json"), files)
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
            "its files must hold every weight: what is absent would be random",
            value=f"no {', '.join(absent[:3])}",
            remedy="Complete the folder, or name another checkpoint",
        )
    return model


@contextmanager
def _bounded(source: str) -> Generator[None]:
    """Where memory does not suffice, say so as Python does; whatever else a network raises is its region's error."""
    rule = "transformers must be able to run it on this picture"
    remedy = "Check that its files belong together, or try another --hd-num"
    with wrap_errors(f"checkpoint {source}", rule, remedy=remedy, running=True), memory_errors():
        yield
