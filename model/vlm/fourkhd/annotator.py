"""The `4khd` annotator, and what a region costs a 4KHD model. Imports torch only to run the network."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from ...annotator import Cost, InputSpec, View
from ...domain import Domain
from ..annotator import OptionScores, VlmAnnotator, check_context
from ..box_format import BoxFormat
from ..question import Question, QuestionOptions, refuse_special_tokens
from ..texts import GeneratedText
from .checkpoint import FourKhdFiles
from .model_config import LINEARS, Sizes
from .tokenizer import LAYOUTS, SYSTEM, Prompt, PromptLayout, Tokenizer, build_prompt

if TYPE_CHECKING:
    from .generator import Generator
    from .runtime import RuntimeOptions

_RUNTIME = ("dtype", "device", "attention", "quantize")


class FourKhdOptions(QuestionOptions):
    """Options of `4khd`, including those of the question."""

    checkpoint: str = Field(
        min_length=1,
        description="A folder, a hub id `OWNER/NAME@COMMIT`, or a checkpoint that ships with limner.",
        examples=["--model 4khd:FOLDER, or 4khd:OWNER/NAME@COMMIT"],
    )
    layout: Literal["", "chat", "benchmark", "training"] = Field(
        default="", description="Layout of the prompt; by default the one that the checkpoint states, else chat."
    )
    system: str = Field(default=SYSTEM, description="The system prompt of a chat.")
    dtype: Literal["", "auto", "float32", "bfloat16", "float16"] = Field(
        default="", description="Type of number; by default bfloat16 on a GPU and float32 elsewhere."
    )
    device: str = Field(
        default="",
        description="auto (a GPU where there is one), cpu, cuda:0, or split for layers spread over all GPUs.",
    )
    attention: str = Field(default="", description="The attention kernel; by default sdpa.")
    quantize: Literal["", "4bit", "8bit"] = Field(
        default="", description="Bits of the language model's linear maps, by bitsandbytes."
    )
    batch_size: int = Field(default=1, ge=1, description="Regions in a batch.")
    overall: bool = Field(default=True, description="Whether the global view is shown beside the tiles.")
    enlarge: int = Field(
        default=0, ge=0, description="Tiles that small pictures are enlarged to fill; `--enlarge` sets it."
    )


class FourKhdAnnotator(VlmAnnotator):
    """The annotator `4khd`. Raises `RequestError` for options that contradict each other."""

    Options = FourKhdOptions

    def __init__(self, options: FourKhdOptions) -> None:
        super().__init__(Question.from_options(options, "4khd").check_grammar("4khd"), FourKhdBackend(options))


class FourKhdBackend:
    """A 4KHD checkpoint; see `VlmBackend`. Boxes are in pixels of the region as read, whose size the prompt states."""

    def __init__(self, options: FourKhdOptions) -> None:
        self._options = options
        self._source = options.checkpoint
        self._runtime = {name: value for name in _RUNTIME if (value := str(getattr(options, name)))}

    @property
    def identity(self) -> Mapping[str, str]:
        """The checkpoint's files, how it runs and is prompted, and its card's licence and `use`, which reports repeat.

        Raises `ModelError` where a file is absent.
        """
        card = self._files.card
        return {
            "name": "4khd",
            "annotator": "4khd",
            **self._files.held.identity("4khd"),
            "parameters": str(self._sizes.parameters),
            **({"licence": card.licence, "use": card.use} if card else {}),
            "runtime": f"torch {version('torch')}, transformers {version('transformers')}",
            "layout": self._layout(),
            "system_sha256": hashlib.sha256(self._options.system.encode()).hexdigest(),
            "batch_size": str(self._options.batch_size),
            **({} if self._options.overall else {"overall": "false"}),
            **self._runtime,
        }

    @property
    def domain(self) -> Sequence[Domain]:
        """The domain of the checkpoint's card; empty without one. Raises `ModelError`."""
        card = self._files.card
        return card.domain if card else ()

    def check(self, question: Question) -> None:
        """Verify the files, and that machine, vocabulary and context suffice. Raises `ModelError`, `RequestError`."""
        self._runtime_options().check()
        tokenizer, language = self._tokenizer, self._sizes.language
        tokenizer.check_vocabulary(language.vocab)
        system = self._options.system if self._options.system != SYSTEM else ""
        refuse_special_tokens({**question.texts, "system": system}, of="4khd", find=tokenizer.special_token)
        longest = max(len(self._prompt(prompt)) for prompt in question.prompts())
        answers = [len(tokenizer.encode(label)) + 1 for label in question.labels if question.answer == "classify"]
        smallest = prefill_cost(self._sizes, 1, 1, text=longest, itemsize=4).tokens
        tokens = smallest + max(answers, default=question.max_tokens)
        written = 0 if answers else question.max_tokens
        check_context(f"question to {self._source}", tokens, language.positions, written=written)
        if question.schema:
            tokenizer.vocabulary().check_schema(question.schema)

    def input_spec(self) -> InputSpec:
        """Rendered RGB in tiles of the vision encoder's size, with the global view. Raises `ModelError`."""
        tile = self._sizes.vision.image
        return InputSpec(tile=tile, overall=True, enlarge=self._options.enlarge, variant="4khd")

    def load(self) -> None:
        """See `VlmBackend`."""
        _ = self._generator

    def box_format(self, view: View) -> BoxFormat:
        """Pixels of the region's picture within the canvas."""
        x0, y0, x1, y1 = view.grid.content
        return BoxFormat.of("pixels", (float(x0), float(y0), float(x1), float(y1)), view.grid.source)

    def generate(
        self,
        views: Sequence[View],
        prompts: Sequence[str],
        *,
        limit: int,
        schema: str = "",
        formats: Sequence[BoxFormat] = (),
    ) -> list[GeneratedText]:
        """See `VlmBackend`: boxes under their schema."""
        del formats
        built = [self._prompt(prompt) for prompt in prompts]
        texts: list[GeneratedText] = []
        for batch in self._batches(len(views)):
            texts += self._generator.generate(views[batch], built[batch], limit=limit, schema=schema)
        return texts

    def score_options(self, views: Sequence[View], prompts: Sequence[str], options: Sequence[str]) -> OptionScores:
        """See `VlmBackend`."""
        built = [self._prompt(prompt) for prompt in prompts]
        batches = self._batches(len(views))
        scores = [self._generator.score_options(views[batch], built, options) for batch in batches]
        return OptionScores(np.concatenate(scores))

    def cost(self, tiles: tuple[int, int], question: Question) -> Cost:
        """See `VlmBackend`: from the files' headers, for the type of number and the device that it runs on."""
        sizes, options = self._sizes, self._runtime_options()
        dtype, device = options.torch_dtype(), options.image_device()
        prompts = [len(self._prompt(prompt)) for prompt in question.prompts()]
        if question.answer == "classify":  # all prompts and options follow one pass over the picture
            labels = sum(len(self._tokenizer.encode(label)) for label in question.labels)
            text, written = sum(prompts) + len(prompts) * labels, 0
        else:
            text, written = max(prompts), question.max_tokens
        read = prefill_cost(sizes, tiles[1], tiles[0], text=text, itemsize=dtype.itemsize)
        flops = read.vision_flops + read.language_flops + decoding_flops(sizes, written)
        dequantized = sizes.language.largest_linear * dtype.itemsize if options.quantize else 0
        scores = 4 * sizes.language.heads * read.tokens**2 if options.attention == "eager" else 0
        weights = sizes.quantized_bytes(dtype.itemsize, options.quantize)
        bits = f"{options.quantize.replace('bit', ' bits')} and " if options.quantize else ""
        return Cost(
            weights=weights,
            dtype=bits + str(dtype).removeprefix("torch."),
            work=flops * (len(prompts) if question.answer == "locate" else 1),
            cache=self._options.batch_size * read.cache_bytes * (read.tokens + written) / read.tokens,
            activations=self._options.batch_size * (read.activation_bytes + scores) + dequantized,
            loading=weights + dequantized,
            tokens=read.tokens + written,
            image_tokens=read.image_tokens,
            answer_tokens=written,
            context=sizes.language.positions,
            device=options.device if options.device == "split" else str(device),
        )

    def _layout(self) -> PromptLayout:
        """The layout that the user names, else the checkpoint, else "chat"."""
        stated = self._files.config.text("layout")
        aligned: list[PromptLayout] = [layout for layout in LAYOUTS if layout == stated]
        return self._options.layout or (aligned[0] if aligned else "chat")

    def _prompt(self, question: str) -> Prompt:
        return build_prompt(self._tokenizer, question, layout=self._layout(), system=self._options.system)

    def _batches(self, count: int) -> list[slice]:
        size = self._options.batch_size
        return [slice(start, start + size) for start in range(0, count, size)]

    @cached_property
    def _files(self) -> FourKhdFiles:
        return FourKhdFiles.find(self._source, fetch=self._options.fetch)

    @cached_property
    def _sizes(self) -> Sizes:
        return self._files.sizes()

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer(self._files.tokenizer, self._source)

    def _runtime_options(self) -> "RuntimeOptions":
        from .runtime import RuntimeOptions

        return RuntimeOptions(**self._runtime)

    @cached_property
    def _generator(self) -> "Generator":
        from .generator import Generator

        overall, threads = self._options.overall, self._options.threads
        return Generator(self._files, self._tokenizer, self._runtime_options(), overall=overall, threads=threads)


@dataclass(frozen=True, slots=True)
class PrefillCost:
    """The cost of reading one region and its prompt. A multiply-add counts as two operations."""

    tokens: int
    image_tokens: int
    vision_flops: float
    """Of the vision encoder and the projector."""
    language_flops: float
    cache_bytes: float
    """Of the keys and values."""
    activation_bytes: float
    """At the peak."""


def prefill_cost(
    sizes: Sizes, rows: int, cols: int, *, text: int, itemsize: int, tiles_at_once: int = 64
) -> PrefillCost:
    """The cost of rows × cols tiles with `text` tokens of prompt, in numbers of `itemsize` bytes.

    Attention counts as computed in blocks, without its scores in memory. `docs/figures.md` compares this with
    measurements.
    """
    vision, language = sizes.vision, sizes.language
    image_tokens = vision.image_tokens(rows, cols)
    tokens = image_tokens + text
    tiles = rows * cols + 1
    patches = 2 * vision.patches_per_side**2 * vision.hidden * 3 * vision.patch**2
    layer = 2 * vision.positions * (4 * vision.hidden**2 + 2 * vision.hidden * vision.mlp)
    layer += 4 * vision.positions**2 * vision.hidden
    projector = image_tokens * 2 * (sizes.merged * sizes.projector + sizes.projector * language.hidden)
    vision_flops = tiles * (patches + vision.layers * layer) + projector
    linear = sum(math.prod(language.linear(name)) for name in sizes.plora)
    low_rank = sum(plora.rank * sum(language.linear(name)) for name, plora in sizes.plora.items())
    attention = 2 * tokens**2 * language.heads * language.head_dim  # half of all pairs, twice: scores and values
    language_flops = language.layers * (2 * tokens * linear + 2 * tokens * low_rank + attention)
    language_flops += 2 * language.hidden * language.vocab  # the last token only
    cache = 2 * language.layers * language.kv_heads * language.head_dim * tokens * itemsize
    # the widest moment of a layer, in widths: parts of the feed-forward, and what is held beside them
    encoding = min(tiles, tiles_at_once) * vision.positions * (4 * vision.mlp + 6 * vision.hidden) * itemsize
    reading = tokens * (5 * language.mlp + 6 * language.hidden) * itemsize
    features = tiles * vision.positions * vision.hidden * itemsize + image_tokens * sizes.merged * itemsize
    activations = float(features + max(encoding, reading))
    return PrefillCost(tokens, image_tokens, float(vision_flops), float(language_flops), float(cache), activations)


def decoding_flops(sizes: Sizes, tokens: int) -> float:
    """Operations of decoding that many tokens one by one, without attention to what was read."""
    linear = sum(math.prod(sizes.language.linear(name)) for name in LINEARS)
    return 2.0 * tokens * (sizes.language.layers * linear + sizes.language.hidden * sizes.language.vocab)
