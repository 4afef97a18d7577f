"""A loaded 4KHD network that answers prompts about views: texts decoded greedily, and options scored.

Options are scored after one pass over what all prompts share.
"""

# transformers' and torch's types do not state what some of their functions take and return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList

from ....readers.errors import ModelError
from ...annotator import View
from ...checkpoints.memory import memory_errors
from ...scores import require_finite
from ..decoding import Constraint, Decoding, Vocabulary
from ..texts import GeneratedText
from .checkpoint import FourKhdFiles
from .model_config import VisionSizes
from .network import FourKhd, Part
from .runtime import RuntimeOptions, load_network
from .tokenizer import Prompt, Tokenizer

LOGITS_AT_ONCE = 256  # tokens whose logits over the whole vocabulary are held at a time


class Generator:
    """A loaded checkpoint. Raises `ModelError`, `RequestError` where it cannot be loaded with those options.

    Without `overall` the network gets no global view. `threads` is torch's number of threads in the whole process; 0
    leaves it unchanged.
    """

    def __init__(
        self,
        files: FourKhdFiles,
        tokenizer: Tokenizer,
        options: RuntimeOptions,
        *,
        overall: bool = True,
        threads: int = 0,
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._tokenizer = tokenizer
        self._name = f"checkpoint {files.source}"
        self._overall = overall
        with memory_errors():
            self._network = load_network(files, options)

    def generate(
        self, views: Sequence[View], prompts: Sequence[Prompt], *, limit: int, schema: str = ""
    ) -> list[GeneratedText]:
        """A text for each view and its prompt, in one batch. See `VlmBackend.generate`."""
        with memory_errors(), torch.inference_mode():
            images = self._image_tokens(views)
            sequences = [_join(prompt, image) for prompt, image in zip(prompts, images, strict=True)]
            check_context(self._network, max(sum(map(len, sequence)) for sequence in sequences) + limit, writes=True)
            stops, pad = self._tokenizer.stop_tokens, self._tokenizer.eos
            constraints = [Constraint(self._vocabulary, schema) for _ in views] if schema else []
            decoding = Decoding(self._name, stops=stops, constraints=constraints)
            ids = decode_greedily(self._network, sequences, limit=limit, stops=stops, pad=pad, decoding=decoding)
        return decoding.texts(ids, self._tokenizer.decode, limit=limit)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return self._tokenizer.vocabulary()

    def score_options(
        self, views: Sequence[View], prompts: Sequence[Prompt], options: Sequence[str]
    ) -> npt.NDArray[np.float64]:
        """Log-likelihoods (views, prompts, options). Prompts differ in their last part only. See `VlmBackend`."""
        last = [prompt.parts[-1] for prompt in prompts]
        shared = common_prefix(last)
        prefix = Prompt((*prompts[0].parts[:-1], last[0][:shared]))
        suffixes = [part[shared:] for part in last]
        tokens = [self._tokenizer.encode(option) for option in options]
        with memory_errors(), torch.inference_mode():
            images = self._image_tokens(views)
            longest = max(map(len, images)) + len(prefix) + max(map(len, suffixes)) + max(map(len, tokens))
            check_context(self._network, longest, writes=False)
            sequences = [_join(prefix, image) for image in images]
            end = self._tokenizer.turn_end
            return score_options(self._network, sequences, suffixes, tokens, end=end, name=self._name)

    def _image_tokens(self, views: Sequence[View]) -> list[torch.Tensor]:
        """The image tokens of each view, from one batch of all their tiles."""
        tiles = torch.cat([view_tensor(view, self._network.sizes.vision) for view in views])
        grids = [(view.grid.rows, view.grid.cols) for view in views]
        return self._network.image_tokens(tiles, grids, overall=self._overall)


def view_tensor(view: View, sizes: VisionSizes) -> torch.Tensor:
    """A view as input of the vision encoder: global view, then tiles, float32 (1 + n, 3, tile, tile)."""
    if view.global_view is None:
        msg = f"region {view.region.key}: a 4KHD model needs the global view"
        raise ValueError(msg)
    return normalize(np.concatenate([view.global_view[None], np.asarray(view.tiles, dtype=np.float32)]), sizes)


def normalize(tiles: npt.NDArray[np.float32], sizes: VisionSizes) -> torch.Tensor:
    """Tiles (n, tile, tile, 3) of values 0 to 255 → input of the vision encoder, float32 (n, 3, tile, tile)."""
    values = torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(part, dtype=torch.float32)[:, None, None] for part in (sizes.mean, sizes.std))
    return (values - mean) / std


def _join(prompt: Prompt, image: torch.Tensor) -> list[Part]:
    """The prompt's two parts with the image tokens between them, without empty parts."""
    first, last = prompt.parts
    return [part for part in (first, image, last) if len(part)]


@dataclass(frozen=True, slots=True)
class OptionTree:
    """Prompt suffixes and the options after each, laid out in a row to be read in one pass.

    ::

        suffix 0 ─┬─ option 0            suffix 1 ─┬─ option 0
                  └─ option 1                      └─ option 1
    """

    ids: tuple[int, ...]
    depth: tuple[int, ...]
    """For each token, the number of tokens on the path to it."""
    attends: npt.NDArray[np.bool_]
    """(T, T), true where a token attends to another: itself and the path to it."""
    suffix_ends: tuple[int, ...]
    """Index of each suffix's last token."""
    option_places: tuple[tuple[tuple[int, ...], ...], ...]
    """Indices of the tokens of each option after each suffix."""

    @classmethod
    def build(cls, suffixes: Sequence[Sequence[int]], options: Sequence[Sequence[int]]) -> "OptionTree":
        """Lay out each suffix, and after each of them each option."""
        ids: list[int] = []
        paths: list[list[int]] = []  # for each token the indices on the path to it, and its own
        ends: list[int] = []
        places: list[tuple[tuple[int, ...], ...]] = []

        def lay(tokens: Sequence[int], path: list[int]) -> list[int]:
            for token in tokens:
                path = [*path, len(ids)]
                ids.append(token)
                paths.append(path)
            return path

        for suffix in suffixes:
            stem = lay(suffix, [])
            ends.append(stem[-1])
            places.append(tuple(tuple(lay(option, stem)[len(stem) :]) for option in options))
        attends = np.zeros((len(ids), len(ids)), dtype=np.bool_)
        for place, path in enumerate(paths):
            attends[place, path] = True
        return cls(tuple(ids), tuple(len(path) - 1 for path in paths), attends, tuple(ends), tuple(places))


def score_options(
    network: FourKhd,
    sequences: Sequence[Sequence[Part]],
    suffixes: Sequence[Sequence[int]],
    options: Sequence[Sequence[int]],
    *,
    end: int,
    name: str = "checkpoint",
) -> npt.NDArray[np.float64]:
    """Natural log-likelihoods (sequences, suffixes, options) of each option, then `end`, after each suffix.

    The sequences are read once, as a batch, padded on the left; suffixes and options then in one pass over their keys
    and values. Every suffix and option has at least one token. Equal to reading each whole text by itself. Raises
    `ModelError`, by the network's `name`, where its logits are not finite.
    """
    embedded = network.embed(sequences)
    cache = DynamicCache()
    network(inputs_embeds=embedded.hidden, attention_mask=embedded.attention_mask, im_mask=embedded.image_mask,
            past_key_values=cache, use_cache=True, logits_to_keep=1)  # fmt: skip
    tree = OptionTree.build(suffixes, options)
    batch, real = len(sequences), embedded.attention_mask
    attends = torch.from_numpy(tree.attends).to(real.device)
    earlier = real[:, None, :].expand(-1, len(tree.ids), -1)
    mask = torch.cat([earlier, attends[None].expand(batch, -1, -1)], dim=2)[:, None]
    positions = real.sum(dim=1, keepdim=True) + torch.tensor(tree.depth, device=real.device)
    ids = torch.tensor(tree.ids, device=real.device).expand(batch, -1)
    out = network(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1)
    hidden = cast("tuple[torch.Tensor, ...]", out.hidden_states)[0]
    # each log-probability: after which token, of which token, summed for which (suffix, option)
    after: list[int] = []
    of: list[int] = []
    to: list[int] = []
    for k, (stem, branches) in enumerate(zip(tree.suffix_ends, tree.option_places, strict=True)):
        for n, branch in enumerate(branches):
            after += [stem, *branch]
            of += [*(tree.ids[place] for place in branch), end]
            to += [k * len(options) + n] * (len(branch) + 1)
    found = np.zeros((batch, len(suffixes) * len(options)))
    for start in range(0, len(after), LOGITS_AT_ONCE):
        part = slice(start, start + LOGITS_AT_ONCE)
        logits = require_finite(network.output(hidden[:, after[part]]), "logits", of=name)
        tokens = torch.tensor(of[part], device=logits.device)[None, :, None].expand(batch, -1, 1)
        values = logits.float().log_softmax(dim=-1).gather(2, tokens)[..., 0].double().cpu().numpy()
        for row in range(batch):
            np.add.at(found[row], to[part], values[row])
    return found.reshape(batch, len(suffixes), len(options))


def decode_greedily(
    network: FourKhd,
    sequences: Sequence[Sequence[Part]],
    *,
    limit: int,
    stops: Sequence[int],
    pad: int,
    decoding: Decoding,
) -> list[list[int]]:
    """The likeliest tokens after each sequence: `limit` of them, or up to and with the first of `stops`.

    The sequences are read as a batch, padded on the left. `decoding` checks and masks the logits of each step.
    """
    embedded = network.embed(sequences)
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=limit, eos_token_id=list(stops), pad_token_id=pad, use_cache=True
    )
    ids = cast("Any", network).generate(
        inputs_embeds=embedded.hidden,
        attention_mask=embedded.attention_mask.long(),
        im_mask=embedded.image_mask,
        generation_config=settings,
        logits_processor=LogitsProcessorList([decoding]),  # pyright: ignore[reportArgumentType] - any callable will do
    )
    texts: list[list[int]] = []
    for row in ids.tolist():
        end = next((place for place, token in enumerate(row) if token in stops), len(row))
        texts.append(row[: end + 1])
    return texts


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """How many first tokens all sequences share, leaving at least one token of each."""
    shortest = min(map(len, sequences))
    length = 0
    while length < shortest - 1 and len({sequence[length] for sequence in sequences}) == 1:
        length += 1
    return length


def check_context(network: FourKhd, tokens: int, *, writes: bool) -> None:
    """Raise `ModelError` where a sequence, of which the network may write a part, is longer than its context."""
    most = network.sizes.language.positions
    if tokens > most:
        raise ModelError(
            "region with its question and answer",
            f"must fit into the model's {most} tokens",
            value=str(tokens),
            remedy=f"Lower --hd-num{' or --set model_options.max_tokens' if writes else ''}, or shorten the question",
        )
