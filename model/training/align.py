"""Alignment: a 4KHD model learns to say what pictures show, as its authors taught theirs (arXiv 2404.06512).

The language model is frozen, and so is the vision encoder unless asked; projector, separators and Partial LoRA learn.
What happens in a step follows from the settings, the data and the step's number alone, so that a training that is cut
off goes on as if it had not been, to the last bit on the same machine.
"""

# torch's types do not say what some of its functions return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from ...readers.errors import ModelError, RequestError
from ..vlm.fourkhd.generator import normalize
from ..vlm.fourkhd.language import PloraLinear
from ..vlm.fourkhd.network import FourKhd
from ..vlm.fourkhd.tokenizer import IMAGE, PromptLayout, Tokenizer
from .augmentation import varied
from .dataset import Sample, load_picture, show
from .param_groups import param_groups, rate
from .state import Standing
from .targets import IGNORED, conversation, opening, targets

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class Alignment:
    """How a model is aligned. Defaults are those of the released model's own, where they are known.

    `encoder` and `language` train those parts too. A step sees `batch` samples `accumulate` times; there are `epochs`
    over the data, or `steps` where that is not 0. `layer_decay` is by how much each layer of the encoder learns slower
    than the one above. `dropout` is Partial LoRA's. `clip` bounds the gradient's norm. `bf16` computes in bfloat16
    what may be; `recompute` keeps no activations. `limit` cuts conversations at so many tokens, 0 for the model's own.
    """

    encoder: bool = False
    language: bool = False
    layout: PromptLayout = "training"
    peak: float = 2e-4
    warmup: float = 0.01
    epochs: int = 2
    steps: int = 0
    batch: int = 1
    accumulate: int = 1
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    layer_decay: float = 0.9
    language_scale: float = 1.0
    dropout: float = 0.05
    clip: float = 1.0
    limit: int = 0
    bf16: bool = False
    recompute: bool = False
    seed: int = 0

    def length(self, samples: int) -> int:
        """How many steps there are in all."""
        return self.steps or self.epochs * math.ceil(samples / (self.batch * self.accumulate))


@dataclass(frozen=True, slots=True)
class Row:
    """A step, from 1: the mean loss of its `tokens` targets, the rate it learnt at, and the gradient's norm."""

    step: int
    loss: float
    tokens: int
    rate: float
    norm: float


@dataclass(frozen=True, slots=True)
class _Lesson:
    """A sample made ready: its tiles and grid, its ids around the picture, and the targets of those after it."""

    tiles: torch.Tensor
    grid: tuple[int, int]
    before: tuple[int, ...]
    after: tuple[int, ...]
    targets: tuple[int, ...]

    @property
    def learnt(self) -> int:
        return sum(target != IGNORED for target in self.targets)


class Aligner:
    """A training in progress. Raises `RequestError` where nothing would be trained."""

    def __init__(self, network: FourKhd, tokenizer: Tokenizer, samples: Sequence[Sample], settings: Alignment) -> None:
        self._network, self._tokenizer = network, tokenizer
        self._samples, self._settings = samples, settings
        self._opening = opening(tokenizer)
        self.steps = settings.length(len(samples))
        self.step = 0
        sizes = network.sizes
        pace = param_groups(
            [(name, tensor.ndim) for name, tensor in network.named_parameters()],
            encoder=settings.encoder,
            language=settings.language,
            layers=sizes.vision.layers,
            layer_decay=settings.layer_decay,
            language_scale=settings.language_scale,
        )
        self._trained: dict[str, torch.nn.Parameter] = {}
        for name, tensor in network.named_parameters():
            tensor.requires_grad_(name in pace)
            if name in pace:
                tensor.data = tensor.data.float()  # small steps vanish in 16 bits
                self._trained[name] = tensor
        groups: list[dict[str, Any]] = [
            {
                "params": [self._trained[name] for name in pace if pace[name] == kind],
                "scale": kind.scale,
                "weight_decay": settings.weight_decay if kind.decayed else 0.0,
            }
            for kind in dict.fromkeys(pace.values())
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=settings.peak, betas=settings.betas)
        for module in network.modules():
            if isinstance(module, PloraLinear):
                module.dropout = settings.dropout
        network.model.recompute = network.vision_model.recompute = settings.recompute

    @property
    def trained(self) -> Mapping[str, torch.Tensor]:
        """The tensors that learn, by name, as they are now."""
        return {name: tensor.detach() for name, tensor in self._trained.items()}

    def standing(self, asked: Mapping[str, str]) -> Standing:
        """What it takes to go on from here."""
        moments: dict[str, torch.Tensor] = {}
        for name, tensor in self._trained.items():
            held = self._optimizer.state.get(tensor, {})
            moments |= {f"{name}/{kind}": cast("torch.Tensor", held[kind]) for kind in _MOMENTS if kind in held}
        return Standing(self.step, self.trained, moments, asked)

    def resume(self, standing: Standing) -> None:
        """Go on from where another stood. Raises `ModelError` where that trained other tensors."""
        if set(standing.trained) != set(self._trained):
            raise ModelError(
                "checkpoint of the training",
                "it must hold the tensors that are trained now",
                value=f"{len(standing.trained)} tensors, not {len(self._trained)}",
                remedy="Train into another folder",
            )
        for name, tensor in self._trained.items():
            tensor.data.copy_(standing.trained[name])
            held = {kind: standing.optimizer.get(f"{name}/{kind}") for kind in _MOMENTS}
            self._optimizer.state[tensor] = {
                kind: value.to("cpu" if kind == "step" else tensor.device, copy=True)
                for kind, value in held.items()
                if value is not None
            }
        self.step = standing.step

    def run(self, after: Callable[[Row], None]) -> None:
        """Take all steps that are left, and tell each.

        Raises `ModelError` before a step whose loss or gradient is no finite number, with the tensors as the step
        before left them; `RequestError`, `ReadError` for a sample that cannot be used.
        """
        self._network.train()
        try:
            while self.step < self.steps:
                after(self._advance())
        finally:
            self._network.eval()

    def _advance(self) -> Row:
        settings = self._settings
        places = list(self._places())
        torch.manual_seed(int(np.random.SeedSequence([settings.seed, self.step]).generate_state(1)[0]))
        lessons = [self._lesson(place) for place in places]
        tokens = sum(lesson.learnt for lesson in lessons)
        total = 0.0
        self._optimizer.zero_grad(set_to_none=True)
        for start in range(0, len(lessons), settings.batch):
            loss = self._loss(lessons[start : start + settings.batch]) / tokens
            total += float(loss.detach())
            if not math.isfinite(total):
                break
            loss.backward()
        norm = 0.0
        if math.isfinite(total):
            norm = float(torch.nn.utils.clip_grad_norm_(self._trained.values(), settings.clip))
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise ModelError(
                f"step {self.step + 1}",
                "the loss and its gradient must be finite numbers",
                value=f"loss {total}, gradient {norm}",
                remedy="Lower --rate, or train without --bf16; the last checkpoint is kept",
            )
        now = rate(self.step, steps=self.steps, warmup=settings.warmup, peak=settings.peak)
        for group in self._optimizer.param_groups:
            group["lr"] = now * group["scale"]
        self._optimizer.step()
        self.step += 1
        return Row(self.step, total, tokens, now, norm)

    def _places(self) -> Iterator[tuple[int, int]]:
        """(sample, turn) of the samples of this step: each epoch is an order of its own, one after another."""
        count, size = len(self._samples), self._settings.batch * self._settings.accumulate
        order: dict[int, np.ndarray[Any, Any]] = {}
        for turn in range(self.step * size, (self.step + 1) * size):
            epoch, place = divmod(turn, count)
            if epoch not in order:
                order[epoch] = np.random.default_rng([self._settings.seed, 1, epoch]).permutation(count)
            yield int(order[epoch][place]), turn

    def _lesson(self, place: tuple[int, int]) -> _Lesson:
        index, turn = place
        sample = self._samples[index]
        sizes = self._network.sizes
        picture = varied(load_picture(sample), sample.vary, np.random.default_rng([self._settings.seed, 2, turn]))
        grid, tiles = show(picture, sample, tile=sizes.vision.image)
        if IMAGE in sample.question:
            raise sample.error(f"its question must not hold {IMAGE}: the picture's place is the layout's")
        before, after = conversation(self._tokenizer, sample.question, sample.answer, self._settings.layout)
        visual = sizes.vision.image_tokens(*grid)
        most = self._settings.limit or sizes.language.positions
        after = after[: max(0, most - visual - len(before))]
        ids = [*before, *([IGNORED] * visual), *after]
        learnt = targets(ids, end=self._tokenizer.turn_end, eos=self._tokenizer.eos, opening=self._opening)
        wanted = tuple(learnt[len(before) + visual :])
        if all(target == IGNORED for target in wanted):
            raise sample.error(
                f"its picture, question and answer must fit into {most} tokens",
                value=f"{len(before) + visual} before the question",
                remedy="Lower its hd_num, or shorten the question",
            )
        return _Lesson(normalize(tiles, sizes.vision), grid, before, after, wanted)

    def _loss(self, lessons: Sequence[_Lesson]) -> torch.Tensor:
        """The sum of the losses of all targets of those lessons, read together."""
        network = self._network
        device = network.model.tok_embeddings.weight.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self._settings.bf16):
            seen = network.image_tokens(
                torch.cat([lesson.tiles for lesson in lessons]), [lesson.grid for lesson in lessons]
            )
            parts = [[lesson.before, one, lesson.after] for lesson, one in zip(lessons, seen, strict=True)]
            embedded = network.embed([[part for part in sequence if len(part)] for sequence in parts])
            made = network(
                inputs_embeds=embedded.hidden,
                attention_mask=embedded.attention_mask,
                im_mask=embedded.image_mask,
                logits_to_keep=1,
            )
            hidden = cast("tuple[torch.Tensor, ...]", made.hidden_states)[0]
            length = hidden.shape[1]
            wanted = torch.full(hidden.shape[:2], IGNORED)
            for row, lesson in zip(wanted, lessons, strict=True):
                row[length - len(lesson.targets) :] = torch.tensor(lesson.targets)
            wanted = wanted[:, 1:].to(hidden.device)
            learnt = wanted != IGNORED  # only these need logits, which are wide
            logits = network.output(hidden[:, :-1][learnt])
        return torch.nn.functional.cross_entropy(logits.float(), wanted[learnt], reduction="sum")


def check(settings: Alignment) -> None:
    """Raise `RequestError` for settings that cannot be."""
    for name, value, low, high in (
        ("batch", settings.batch, 1, math.inf),
        ("accumulate", settings.accumulate, 1, math.inf),
        ("epochs", settings.epochs, 1, math.inf),
        ("steps", settings.steps, 0, math.inf),
        ("warmup", settings.warmup, 0.0, 1.0),
        ("layer-decay", settings.layer_decay, 0.0, 1.0),
        ("limit", settings.limit, 0, math.inf),
    ):
        if not low <= value <= high:
            raise RequestError(f"--{name}", f"it is from {low} to {high}", value=str(value), remedy="Correct it")
    if not 0.0 < settings.peak < math.inf:
        raise RequestError("--rate", "it is greater than 0", value=str(settings.peak), remedy="Give 2e-4, say")


def compute_with(threads: int) -> None:
    """Compute with so many threads, 0 for torch's own number: the whole process does."""
    if threads:
        torch.set_num_threads(threads)
