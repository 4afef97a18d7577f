"""Alignment of a 4KHD model: train what connects images and text, as its authors did (arXiv 2404.06512).

The language model is frozen, and so is the vision encoder unless asked; projector, separators and Partial LoRA learn.
Each step depends only on the settings, the data and the step's number, so that an interrupted training can be resumed
with bit-identical results on the same machine.
"""

# torch's and safetensors' types do not say what some of their functions return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import json
import math
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ...readers.errors import ModelError, RequestError
from ...readers.files import atomic_path
from ..checkpoints.untrusted import read_json, wrap_errors
from ..vlm.fourkhd.generator import normalize
from ..vlm.fourkhd.language import PloraLinear
from ..vlm.fourkhd.model_config import VISION
from ..vlm.fourkhd.network import FourKhd
from ..vlm.fourkhd.tokenizer import IMAGE, PromptLayout, Tokenizer
from .dataset import IGNORED, Sample, answer_offset, augment, conversation, image_tiles, load_image, training_targets

BRIDGE: Final = re.compile(r"plora_(?:glb|sub)_GN|vision_proj\..*|.*\.Plora_[AB]\.weight")
"""Tensors that alignment always trains: separators, projector, Partial LoRA."""

_LANGUAGE: Final = re.compile(r"(?:model|output)\..*")
_LAYER: Final = re.compile(re.escape(VISION) + r"encoder\.layers\.(\d+)\..*")
_MOMENTS: Final = ("step", "exp_avg", "exp_avg_sq")
_TRAINED, _OPTIMIZER, _STATE = "trained.safetensors", "optimizer.pt", "state.json"


@dataclass(frozen=True, slots=True)
class AlignmentConfig:
    """Settings of an alignment; defaults are those of the released model where they are known."""

    encoder: bool = False
    """Train the vision encoder too."""
    language: bool = False
    """Train the language model too."""
    layout: PromptLayout = "training"
    peak: float = 2e-4
    """Highest learning rate."""
    warmup: float = 0.01
    """Share of the steps with a linear warm-up."""
    epochs: int = 2
    steps: int = 0
    """Number of steps instead of `epochs`, where it is not 0."""
    batch: int = 1
    accumulate: int = 1
    """Batches of a step."""
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    layer_decay: float = 0.9
    """Factor between the learning rates of a layer of the vision encoder and the next one up."""
    language_scale: float = 1.0
    """Factor on the language model's learning rate."""
    dropout: float = 0.05
    """Of Partial LoRA."""
    clip: float = 1.0
    """Maximum norm of the gradient."""
    limit: int = 0
    """Tokens at which conversations are truncated; 0 for the model's own limit."""
    bf16: bool = False
    """Autocast to bfloat16."""
    recompute: bool = False
    """Gradient checkpointing: recompute activations in the backward pass."""
    seed: int = 0

    def total_steps(self, samples: int) -> int:
        """The number of steps for so many samples."""
        return self.steps or self.epochs * math.ceil(samples / (self.batch * self.accumulate))

    def check(self) -> None:
        """Raise `RequestError` for a setting out of its range."""
        for name, value, low, high in (
            ("batch", self.batch, 1, math.inf),
            ("accumulate", self.accumulate, 1, math.inf),
            ("epochs", self.epochs, 1, math.inf),
            ("steps", self.steps, 0, math.inf),
            ("warmup", self.warmup, 0.0, 1.0),
            ("layer-decay", self.layer_decay, 0.0, 1.0),
            ("max-length", self.limit, 0, math.inf),
        ):
            if not low <= value <= high:
                rule = f"must be {low} or more" if high == math.inf else f"must be from {low:g} to {high:g}"
                raise RequestError(f"--{name}", rule, value=str(value), remedy=f"Give another --{name}")
        if not 0.0 < self.peak < math.inf:
            raise RequestError("--rate", "must be greater than 0", value=str(self.peak), remedy="Give --rate 2e-4, say")


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step, a line of `losses.csv`."""

    step: int
    """From 1."""
    loss: float
    """Mean over the target tokens."""
    tokens: int
    """Number of target tokens."""
    rate: float
    norm: float
    """Of the gradient, before clipping."""


@dataclass(frozen=True, slots=True)
class ParamGroup:
    """How a tensor learns."""

    scale: float
    """Factor on the schedule's learning rate."""
    decayed: bool
    """Whether weight decay applies."""


def param_groups(
    names: Iterable[tuple[str, int]],
    *,
    encoder: bool,
    language: bool,
    layers: int,
    layer_decay: float,
    language_scale: float,
) -> dict[str, ParamGroup]:
    """The group of each tensor that is trained, from (name, dimensions) of all, in their order.

    With `encoder`, layer-wise learning rates (arXiv 2106.08254) of the vision encoder's `layers`: each is `layer_decay`
    times that of the next one up, the last `layer_decay` times the projector's. With `language`, the language model at
    `language_scale`. Weight decay is for matrices only, not for norms, biases, embeddings and separators.
    """
    found: dict[str, ParamGroup] = {}
    for name, dimensions in names:
        decayed = dimensions == 2 and "embedding" not in name
        if BRIDGE.fullmatch(name):
            found[name] = ParamGroup(1.0, decayed)
        elif name.startswith(VISION) and encoder:
            layer = _LAYER.fullmatch(name)
            below = layers - (int(layer[1]) if layer else -1)
            found[name] = ParamGroup(layer_decay**below, decayed)
        elif _LANGUAGE.fullmatch(name) and language:
            found[name] = ParamGroup(language_scale, decayed)
    return found


def learning_rate(step: int, *, steps: int, warmup: float, peak: float) -> float:
    """The learning rate of a step, counted from 0: linear warm-up over the share `warmup`, then cosine decay to 0."""
    up = math.ceil(steps * warmup)
    if step < up:
        return peak * (step + 1) / (up + 1)
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - up) / max(1, steps - up)))


@dataclass(frozen=True, slots=True)
class TrainingState:
    """What is saved to resume a training.

    On disk it is a folder `step-00000120` with `trained.safetensors` (float32), `optimizer.pt` (plain tensors, loaded
    with `weights_only`) and `state.json`. It is written under another name and renamed: an existing folder is complete.
    """

    step: int
    """Steps that are done."""
    trained: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, torch.Tensor]
    """By "tensor/moment"."""
    settings: Mapping[str, str]
    """Everything that decides the steps."""


def save_state(folder: Path, state: TrainingState) -> None:
    """Write a state into `folder`, then remove the earlier ones."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state.trained.items()}
    content = {"step": state.step, "asked": dict(state.settings)}
    whole = folder / f"step-{state.step:08d}"
    with atomic_path(whole) as part:
        part.mkdir()
        save_file(tensors, part / _TRAINED)
        torch.save({key: tensor.detach().cpu() for key, tensor in state.optimizer.items()}, part / _OPTIMIZER)
        (part / _STATE).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for older in saved_states(folder):
        if older != whole:
            shutil.rmtree(older)


def saved_states(folder: Path) -> list[Path]:
    """The complete states in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / _STATE).is_file())


def load_state(folder: Path) -> TrainingState | None:
    """The newest state in a folder, None where there is none. Raises `ModelError` where it is damaged."""
    found = saved_states(folder)
    if not found:
        return None
    subject = str(found[-1])
    with wrap_errors(subject, "must be an intact training state", remedy="Remove that folder to train from the start"):
        state = read_json(found[-1] / _STATE, subject)
        trained = load_file(found[-1] / _TRAINED)
        optimizer: Any = torch.load(found[-1] / _OPTIMIZER, map_location="cpu", weights_only=True)
        return TrainingState(int(state["step"]), trained, optimizer, dict(state["asked"]))


@dataclass(frozen=True, slots=True)
class _Example:
    """A sample ready for the network."""

    tiles: torch.Tensor
    grid: tuple[int, int]
    before: tuple[int, ...]
    """Token ids before the image."""
    after: tuple[int, ...]
    """Token ids after the image."""
    targets: tuple[int, ...]
    """Of the tokens after the image."""

    @property
    def target_count(self) -> int:
        return sum(target != IGNORED for target in self.targets)


class Aligner:
    """A training in progress; `threads` 0 keeps torch's own number, which is the whole process's."""

    def __init__(
        self,
        network: FourKhd,
        tokenizer: Tokenizer,
        samples: Sequence[Sample],
        config: AlignmentConfig,
        *,
        threads: int = 0,
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._network, self._tokenizer = network, tokenizer
        self._samples, self._config = samples, config
        self._offset = answer_offset(tokenizer)
        self.steps = config.total_steps(len(samples))
        self.step = 0
        group_of = param_groups(
            [(name, tensor.ndim) for name, tensor in network.named_parameters()],
            encoder=config.encoder,
            language=config.language,
            layers=network.sizes.vision.layers,
            layer_decay=config.layer_decay,
            language_scale=config.language_scale,
        )
        self._trained: dict[str, torch.nn.Parameter] = {}
        for name, tensor in network.named_parameters():
            tensor.requires_grad_(name in group_of)
            if name in group_of:
                tensor.data = tensor.data.float()  # small steps vanish in 16 bits
                self._trained[name] = tensor
        groups: list[dict[str, Any]] = [
            {
                "params": [self._trained[name] for name in group_of if group_of[name] == group],
                "scale": group.scale,
                "weight_decay": config.weight_decay if group.decayed else 0.0,
            }
            for group in dict.fromkeys(group_of.values())
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=config.peak, betas=config.betas)
        for module in network.modules():
            if isinstance(module, PloraLinear):
                module.dropout = config.dropout
        network.model.recompute = network.vision_model.recompute = config.recompute

    @property
    def trained(self) -> Mapping[str, torch.Tensor]:
        """The tensors that are trained, by name, in their present state."""
        return {name: tensor.detach() for name, tensor in self._trained.items()}

    def state(self, settings: Mapping[str, str]) -> TrainingState:
        """The state from which `resume` continues."""
        moments: dict[str, torch.Tensor] = {}
        for name, tensor in self._trained.items():
            held = self._optimizer.state.get(tensor, {})
            moments |= {f"{name}/{kind}": cast("torch.Tensor", held[kind]) for kind in _MOMENTS if kind in held}
        return TrainingState(self.step, self.trained, moments, settings)

    def resume(self, state: TrainingState) -> None:
        """Continue from a saved state. Raises `ModelError` where that is of other tensors."""
        if set(state.trained) != set(self._trained):
            raise ModelError(
                "saved training state",
                "must hold the tensors that are trained now",
                value=f"{len(state.trained)} tensors, not {len(self._trained)}",
                remedy="Train into another folder",
            )
        for name, tensor in self._trained.items():
            tensor.data.copy_(state.trained[name])
            held = {kind: state.optimizer.get(f"{name}/{kind}") for kind in _MOMENTS}
            self._optimizer.state[tensor] = {
                kind: value.to("cpu" if kind == "step" else tensor.device, copy=True)
                for kind, value in held.items()
                if value is not None
            }
        self.step = state.step

    def run(self, on_step: Callable[[StepRecord], None]) -> None:
        """Take all remaining steps, and report each.

        Raises `ModelError` before a step with a loss or gradient that is not finite, which leaves the tensors as they
        were; `RequestError`, `ReadError` for a sample that cannot be used.
        """
        self._network.train()
        try:
            while self.step < self.steps:
                on_step(self._take_step())
        finally:
            self._network.eval()

    def _take_step(self) -> StepRecord:
        config = self._config
        order = list(self._order())
        torch.manual_seed(int(np.random.SeedSequence([config.seed, self.step]).generate_state(1)[0]))
        examples = [self._example(index, turn) for index, turn in order]
        tokens = sum(example.target_count for example in examples)
        total = 0.0
        self._optimizer.zero_grad(set_to_none=True)
        for start in range(0, len(examples), config.batch):
            loss = self._loss(examples[start : start + config.batch]) / tokens
            total += float(loss.detach())
            if not math.isfinite(total):
                break
            loss.backward()
        norm = 0.0
        if math.isfinite(total):
            norm = float(torch.nn.utils.clip_grad_norm_(self._trained.values(), config.clip))
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise ModelError(
                f"step {self.step + 1}",
                "must have a finite loss and gradient",
                value=f"loss {total}, gradient {norm}",
                remedy="Lower --rate, or train without --bf16; the last checkpoint is kept",
            )
        rate = learning_rate(self.step, steps=self.steps, warmup=config.warmup, peak=config.peak)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self._optimizer.step()
        self.step += 1
        return StepRecord(self.step, total, tokens, rate, norm)

    def _order(self) -> Iterator[tuple[int, int]]:
        """(sample, running number) of the samples of this step; each epoch is a permutation of its own."""
        count, size = len(self._samples), self._config.batch * self._config.accumulate
        order: dict[int, np.ndarray[Any, Any]] = {}
        for turn in range(self.step * size, (self.step + 1) * size):
            epoch, index = divmod(turn, count)
            if epoch not in order:
                order[epoch] = np.random.default_rng([self._config.seed, 1, epoch]).permutation(count)
            yield int(order[epoch][index]), turn

    def _example(self, index: int, turn: int) -> _Example:
        sample = self._samples[index]
        sizes = self._network.sizes
        picture = augment(load_image(sample), sample.vary, np.random.default_rng([self._config.seed, 2, turn]))
        grid, tiles = image_tiles(picture, sample, tile=sizes.vision.image)
        if IMAGE in sample.question:
            raise sample.error(f"must not have {IMAGE} in its question: the layout places the image")
        before, after = conversation(self._tokenizer, sample.question, sample.answer, self._config.layout)
        visual = sizes.vision.image_tokens(*grid)
        most = self._config.limit or sizes.language.positions
        after = after[: max(0, most - visual - len(before))]
        ids = [*before, *([IGNORED] * visual), *after]
        every = training_targets(ids, end=self._tokenizer.turn_end, eos=self._tokenizer.eos, offset=self._offset)
        targets = tuple(every[len(before) + visual :])
        if all(target == IGNORED for target in targets):
            raise sample.error(
                f"must fit into {most} tokens with its image, question and answer",
                value=f"{len(before) + visual} before the question",
                remedy="Lower its hd_num, or shorten the question",
            )
        return _Example(normalize(tiles, sizes.vision), grid, before, after, targets)

    def _loss(self, examples: Sequence[_Example]) -> torch.Tensor:
        """The sum of the cross-entropy of all target tokens of a batch."""
        network = self._network
        device = network.model.tok_embeddings.weight.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self._config.bf16):
            features = network.image_tokens(torch.cat([one.tiles for one in examples]), [one.grid for one in examples])
            parts = [[one.before, visual, one.after] for one, visual in zip(examples, features, strict=True)]
            batch = network.embed([[part for part in sequence if len(part)] for sequence in parts])
            made = network(
                inputs_embeds=batch.hidden,
                attention_mask=batch.attention_mask,
                im_mask=batch.image_mask,
                logits_to_keep=1,
            )
            hidden = cast("tuple[torch.Tensor, ...]", made.hidden_states)[0]
            length = hidden.shape[1]
            targets = torch.full(hidden.shape[:2], IGNORED)
            for row, example in zip(targets, examples, strict=True):
                row[length - len(example.targets) :] = torch.tensor(example.targets)
            targets = targets[:, 1:].to(hidden.device)
            learnt = targets != IGNORED  # logits are large: compute only those that are needed
            logits = network.output(hidden[:, :-1][learnt])
        return torch.nn.functional.cross_entropy(logits.float(), targets[learnt], reduction="sum")
