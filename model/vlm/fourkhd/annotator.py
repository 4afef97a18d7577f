"""The `4khd` annotator: a 4KHD checkpoint is asked about each region. Loads torch only when it must answer."""

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ....readers.errors import ModelError
from ...annotator import Cost, InputSpec, View
from ..annotator import VlmAnnotator
from ..backend import check_room
from ..box_format import BoxFormat
from ..question import Question, QuestionOptions
from ..special_tokens import refuse_marks
from .cost import decoding, held_bytes, prefill, widest
from .files import Files
from .sizes import Sizes
from .tokenizer import LAYOUTS, SYSTEM, Layout, Prompt, Tokenizer, ask, vocabulary

if TYPE_CHECKING:
    from .generator import Generator
    from .runtime import RuntimeOptions

RUNNING = ("dtype", "device", "attention", "quantize")


class FourKhdOptions(QuestionOptions):
    """Options of `4khd`, those of the question among them."""

    checkpoint: str = Field(
        min_length=1,
        description="A folder, a hub id `OWNER/NAME@COMMIT`, or a checkpoint that ships.",
        examples=["--model 4khd:FOLDER, or 4khd:OWNER/NAME@COMMIT"],
    )
    layout: Literal["", "chat", "benchmark", "training"] = Field(
        default="", description="How a prompt is laid out; by default as the checkpoint was aligned, else as a chat."
    )
    system: str = Field(default=SYSTEM, description="The instruction before the question, in a chat.")
    dtype: Literal["", "auto", "float32", "bfloat16", "float16"] = Field(
        default="", description="Type of numbers; by default bfloat16 on a GPU and float32 elsewhere."
    )
    device: str = Field(
        default="",
        description="auto (a GPU where there is one), cpu, cuda:0, or split for layers spread over all GPUs.",
    )
    attention: str = Field(default="", description="The kernel of attention; by default sdpa.")
    quantize: Literal["", "4bit", "8bit"] = Field(
        default="", description="Bits in which the language model's large matrices are held, by bitsandbytes."
    )
    together: int = Field(default=1, ge=1, description="Regions that are read at once.")
    overall: bool = Field(default=True, description="Whether the global view is shown beside the tiles.")
    enlarge: int = Field(
        default=0, ge=0, description="Tiles that small pictures are enlarged to fill; `--enlarge` sets it."
    )


class FourKhdAnnotator(VlmAnnotator):
    """The annotator `4khd`. Raises `RequestError` for options that do not fit together."""

    Options = FourKhdOptions

    def __init__(self, options: FourKhdOptions) -> None:
        super().__init__(Question.of(options, "4khd").check_grammar("4khd"), FourKhdBackend(options))


class FourKhdBackend:
    """See `VlmBackend`. Boxes are in pixels of the region as it is seen, whose size the prompt states."""

    def __init__(self, options: FourKhdOptions) -> None:
        self._options = options
        self._source = options.checkpoint
        self._running = {name: value for name in RUNNING if (value := str(getattr(options, name)))}
        self._held: tuple[Files, Sizes, Tokenizer] | None = None
        self._speaker: Generator | None = None

    @property
    def identity(self) -> Mapping[str, str]:
        """The checkpoint's files, how it runs and how it is asked; its card's licence and `use`, which reports repeat.

        Raises `ModelError` where a file is not here.
        """
        files, sizes, _ = self._found()
        card = files.card
        return {
            "name": "4khd",
            "annotator": "4khd",
            **files.held.identity("4khd"),
            "parameters": str(sizes.parameters),
            **({"licence": card.licence, "use": card.use} if card else {}),
            "runtime": f"torch {version('torch')}, transformers {version('transformers')}",
            "layout": self._layout(),
            "system_sha256": hashlib.sha256(self._options.system.encode()).hexdigest(),
            "together": str(self._options.together),
            **({} if self._options.overall else {"overall": "false"}),
            **self._running,
        }

    def check(self, question: Question) -> None:
        """Whether the files belong together, and machine, vocabulary and context can do with this question.

        Raises `ModelError`, `RequestError`.
        """
        from .runtime import RuntimeOptions

        RuntimeOptions(**self._running).check()  # pyright: ignore[reportArgumentType] - what is wrong with them is found here
        files, sizes, tokenizer = self._found()
        if tokenizer.size > sizes.language.vocab:
            raise ModelError(
                f"checkpoint {files.source}",
                f"its tokenizer must know no more than the network's {sizes.language.vocab} tokens",
                value=str(tokenizer.size),
                remedy="Put the tokenizer that belongs to this checkpoint into the folder",
            )
        self._running_as()
        system = self._options.system if self._options.system != SYSTEM else ""
        refuse_marks({**question.texts, "system": system}, of="4khd", own=tokenizer.mark)
        asked = max(len(self._ask(prompt)) for prompt in question.prompts())
        longest = [len(tokenizer.encode(label)) + 1 for label in question.labels if question.answer == "classify"]
        read = prefill(sizes, 1, 1, text=asked, itemsize=4).tokens
        room = max(longest, default=question.max_tokens)
        check_room(f"question to {self._source}", read + room, sizes.language.positions)
        if question.schema:
            from ..grammar import Constraint

            Constraint(vocabulary(tokenizer), question.schema).mask()

    def input_spec(self) -> InputSpec:
        """Rendered RGB in tiles of the vision tower's size, with the global view. Raises `ModelError`."""
        return InputSpec(
            tile=self._found()[1].vision.image, overall=True, enlarge=self._options.enlarge, variant="4khd"
        )

    def load(self) -> None:
        """See `VlmBackend`."""
        self._awake()

    def box_format(self, view: View) -> BoxFormat:
        """Pixels of the picture that was laid on the canvas."""
        x0, y0, x1, y1 = view.grid.content
        return BoxFormat.of("pixels", (float(x0), float(y0), float(x1), float(y1)), view.grid.source)

    def generate(self, views: Sequence[View], prompts: Sequence[str], *, limit: int, schema: str = "") -> list[str]:
        """See `VlmBackend`."""
        speaker = self._awake()
        asked = [self._ask(prompt) for prompt in prompts]
        texts: list[str] = []
        for part in self._batches(len(views)):
            texts += speaker.generate(views[part], asked[part], limit=limit, schema=schema)
        return texts

    def score_options(
        self, views: Sequence[View], prompts: Sequence[str], options: Sequence[str]
    ) -> npt.NDArray[np.float64]:
        """See `VlmBackend`."""
        speaker = self._awake()
        asked = [self._ask(prompt) for prompt in prompts]
        return np.concatenate(
            [speaker.score_options(views[part], asked, options) for part in self._batches(len(views))]
        )

    def cost(self, tiles: tuple[int, int], question: Question) -> Cost:
        """See `VlmBackend`: from the files' headers, in the type of number and on the device that it runs on."""
        _, sizes, tokenizer = self._found()
        running = self._running_as()
        dtype, device = running.numbers(), running.first()
        itemsize = dtype.itemsize
        prompts = [len(self._ask(prompt)) for prompt in question.prompts()]
        if question.answer == "classify":  # all prompts and options are laid behind one reading of the picture
            options = sum(len(tokenizer.encode(label)) for label in question.labels)
            text, written = sum(prompts) + len(prompts) * options, 0
        else:
            text, written = max(prompts), question.max_tokens
        read = prefill(sizes, tiles[1], tiles[0], text=text, itemsize=itemsize)
        work = len(prompts) if question.answer == "locate" else 1
        cache = read.cache * (read.tokens + written) / read.tokens
        unpacked = widest(sizes) * itemsize if running.quantize else 0
        scores = 4 * sizes.language.heads * read.tokens**2 if running.attention == "eager" else 0
        held = held_bytes(sizes, itemsize, running.quantize)
        name = str(dtype).removeprefix("torch.")
        return Cost(
            weights=held,
            dtype=f"{running.quantize.replace('bit', ' bits')} and {name}" if running.quantize else name,
            work=work * (read.seeing + read.reading + decoding(sizes, written)),
            cache=self._options.together * cache,
            activations=self._options.together * (read.flowing + scores) + unpacked,
            loading=held + unpacked,
            tokens=read.tokens + written,
            device=running.device if running.device == "split" else str(device),
        )

    def _layout(self) -> Layout:
        """As asked, else as the checkpoint says that it was aligned, else the released model's conversation."""
        stated = self._found()[0].config.text("layout")
        aligned: list[Layout] = [layout for layout in LAYOUTS if layout == stated]
        return self._options.layout or (aligned[0] if aligned else "chat")

    def _ask(self, prompt: str) -> Prompt:
        return ask(self._found()[2], prompt, layout=self._layout(), system=self._options.system)

    def _batches(self, count: int) -> list[slice]:
        return [slice(start, start + self._options.together) for start in range(0, count, self._options.together)]

    def _found(self) -> tuple[Files, Sizes, Tokenizer]:
        if self._held is None:
            files = Files.find(self._source, fetch=self._options.fetch)
            self._held = (files, files.sizes(), Tokenizer(files.tokenizer, self._source))
        return self._held

    def _running_as(self) -> "RuntimeOptions":
        """How it runs. Raises `RequestError` where this machine cannot."""
        from .runtime import RuntimeOptions

        running = RuntimeOptions(**self._running)  # pyright: ignore[reportArgumentType] - checked when it was made
        _ = running.numbers(), running.first()
        return running

    def _awake(self) -> "Generator":
        if self._speaker is None:
            from .generator import Generator

            files, _, tokenizer = self._found()
            self._speaker = Generator(
                files, tokenizer, self._running, overall=self._options.overall, threads=self._options.threads
            )
        return self._speaker
