"""The `4khd` annotator: a 4KHD checkpoint is asked about each region. Loads torch only when it must answer."""

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...readers.errors import ModelError, RequestError
from ..annotator import Cost, Sight, View
from ..asking.asker import Asker
from ..asking.marks import refuse_marks
from ..asking.question import OPTIONS as QUESTION_OPTIONS
from ..asking.question import Question
from ..asking.respondent import check_room
from ..asking.ruler import Ruler
from .cost import decoding, held_bytes, prefill, widest
from .files import Files
from .sizes import Sizes
from .tokens import LAYOUTS, SYSTEM, Layout, Prompt, Tokenizer, ask, vocabulary

if TYPE_CHECKING:
    from .running import Running
    from .speaker import Speaker

RUNNING = ("dtype", "device", "attention", "quantize")
OPTIONS = ("checkpoint", "layout", "system", *RUNNING, "together", "overall", "enlarge", "fetch", "threads")


def annotator(options: Mapping[str, str]) -> Asker:
    """The annotator `4khd`. Raises `RequestError` for options that cannot be.

    `checkpoint` is a folder or a hub id `OWNER/NAME@COMMIT`; `layout` is of `tokens.LAYOUTS`; `system` replaces the
    model's own instruction; `dtype`, `device`, `attention` and `quantize` are `load.Running`'s; `together` regions are
    read at once; `overall` "false" leaves out the global view; `enlarge` not 0 fills that many tiles. The others are
    the question's.
    """
    known = (*OPTIONS, *QUESTION_OPTIONS)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise _wrong(unknown[0], "it must be known", "", f"Known: {', '.join(known)}")
    question = Question.parse(options, of="4khd")
    if question.schema:
        from ..asking.grammar import check_schema  # noqa: PLC0415 - only where it is needed

        check_schema(question.schema, thing="option 'schema' of 4khd")
    return Asker(question, FourKhdRespondent(options))


class FourKhdRespondent:
    """See `Respondent`. Boxes are in pixels of the region as it is seen, whose size the prompt states."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self._source = options.get("checkpoint", "")
        if not self._source:
            raise _wrong("checkpoint", "it must be named", "", "Write --model 4khd:FOLDER, or 4khd:OWNER/NAME@COMMIT")
        layout = options.get("layout", "")
        self._asked_layout: Layout | None = next((one for one in LAYOUTS if one == layout), None)
        if layout and self._asked_layout is None:
            raise _wrong("layout", f"it is {', '.join(LAYOUTS)}", layout, "Correct it")
        self._system = options.get("system", SYSTEM)
        self._running = {key: options[key] for key in RUNNING if options.get(key)}
        if self._running.get("quantize", "4bit") not in {"4bit", "8bit"}:
            raise _wrong("quantize", "it is 4bit or 8bit", self._running["quantize"], "Correct it")
        self._together = _whole("together", options.get("together", "1"), least=1)
        self._enlarge = _whole("enlarge", options.get("enlarge", "0"), least=0)
        self._threads = _whole("threads", options.get("threads", "0"), least=0)
        self._fetch = _true("fetch", options.get("fetch", "false"))
        self._overall = _true("overall", options.get("overall", "true"))
        self._held: tuple[Files, Sizes, Tokenizer] | None = None
        self._speaker: Speaker | None = None

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
            "system_sha256": hashlib.sha256(self._system.encode()).hexdigest(),
            "together": str(self._together),
            **({} if self._overall else {"overall": "false"}),
            **self._running,
        }

    def check(self, question: Question) -> None:
        """Whether the files belong together, and machine, vocabulary and context can do with this question.

        Raises `ModelError`, `RequestError`.
        """
        from .load import check_running  # noqa: PLC0415 - loads torch

        check_running(self._running)
        files, sizes, tokenizer = self._found()
        if tokenizer.size > sizes.language.vocab:
            raise ModelError(
                f"checkpoint {files.source}",
                f"its tokenizer must know no more than the network's {sizes.language.vocab} tokens",
                value=str(tokenizer.size),
                remedy="Put the tokenizer that belongs to this checkpoint into the folder",
            )
        self._running_as()
        refuse_marks({**question.texts, "system": self._system if self._system != SYSTEM else ""}, of="4khd",
                     own=tokenizer.mark)  # fmt: skip
        asked = max(len(self._ask(prompt)) for prompt in question.prompts())
        longest = [len(tokenizer.encode(label)) + 1 for label in question.labels if question.answer == "classify"]
        read = prefill(sizes, 1, 1, text=asked, itemsize=4).tokens
        room = max(longest, default=question.max_tokens)
        check_room(f"question to {self._source}", read + room, sizes.language.positions)
        if question.schema:
            from ..asking.grammar import Constraint  # noqa: PLC0415 - only where it is needed

            Constraint(vocabulary(tokenizer), question.schema).mask()

    def sight(self) -> Sight:
        """Rendered RGB in tiles of the vision tower's size, with the global view. Raises `ModelError`."""
        return Sight(tile=self._found()[1].vision.image, overall=True, enlarge=self._enlarge, variant="4khd")

    def load(self) -> None:
        """See `Respondent`."""
        self._awake()

    def ruler(self, view: View) -> Ruler:
        """Pixels of the picture that was laid on the canvas."""
        x0, y0, x1, y1 = view.grid.content
        return Ruler.of("pixels", (float(x0), float(y0), float(x1), float(y1)), view.grid.source)

    def tell(self, views: Sequence[View], prompts: Sequence[str], *, limit: int, schema: str = "") -> list[str]:
        """See `Respondent`."""
        speaker = self._awake()
        asked = [self._ask(prompt) for prompt in prompts]
        texts: list[str] = []
        for part in self._batches(len(views)):
            texts += speaker.tell(views[part], asked[part], limit=limit, schema=schema)
        return texts

    def weigh(self, views: Sequence[View], prompts: Sequence[str], options: Sequence[str]) -> npt.NDArray[np.float64]:
        """See `Respondent`."""
        speaker = self._awake()
        asked = [self._ask(prompt) for prompt in prompts]
        return np.concatenate([speaker.weigh(views[part], asked, options) for part in self._batches(len(views))])

    def cost(self, tiles: tuple[int, int], question: Question) -> Cost:
        """See `Respondent`: from the files' headers, in the type of number and on the device that it runs on."""
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
            numbers=f"{running.quantize.replace('bit', ' bits')} and {name}" if running.quantize else name,
            work=work * (read.seeing + read.reading + decoding(sizes, written)),
            cache=self._together * cache,
            activations=self._together * (read.flowing + scores) + unpacked,
            loading=held + unpacked,
            tokens=read.tokens + written,
            device=running.device if running.device == "split" else str(device),
        )

    def _layout(self) -> Layout:
        """As asked, else as the checkpoint says that it was aligned, else the released model's conversation."""
        stated = self._found()[0].config.text("layout")
        aligned: list[Layout] = [layout for layout in LAYOUTS if layout == stated]
        return self._asked_layout or (aligned[0] if aligned else "chat")

    def _ask(self, prompt: str) -> Prompt:
        return ask(self._found()[2], prompt, layout=self._layout(), system=self._system)

    def _batches(self, count: int) -> list[slice]:
        return [slice(start, start + self._together) for start in range(0, count, self._together)]

    def _found(self) -> tuple[Files, Sizes, Tokenizer]:
        if self._held is None:
            files = Files.find(self._source, fetch=self._fetch)
            self._held = (files, files.sizes(), Tokenizer(files.tokenizer, self._source))
        return self._held

    def _running_as(self) -> "Running":
        """How it runs. Raises `RequestError` where this machine cannot."""
        from .running import Running  # noqa: PLC0415 - loads torch

        running = Running(**self._running)  # pyright: ignore[reportArgumentType] - checked when it was made
        _ = running.numbers(), running.first()
        return running

    def _awake(self) -> "Speaker":
        if self._speaker is None:
            from .speaker import Speaker  # noqa: PLC0415 - loads torch

            files, _, tokenizer = self._found()
            self._speaker = Speaker(files, tokenizer, self._running, overall=self._overall, threads=self._threads)
        return self._speaker


def _true(name: str, value: str) -> bool:
    if value not in {"true", "false"}:
        raise _wrong(name, "it is true or false", value, "Correct it")
    return value == "true"


def _whole(name: str, value: str, *, least: int) -> int:
    if not value.isdecimal() or int(value) < least:
        raise _wrong(name, f"it is a whole number from {least}", value, "Correct it")
    return int(value)


def _wrong(name: str, rule: str, value: str, remedy: str) -> RequestError:
    return RequestError(f"option {name!r} of 4khd", rule, value=value, remedy=remedy)
