"""How a 4KHD network is asked: texts told greedily, and options weighed after one reading of what they share."""

# transformers' and torch's types do not say what some of their functions take and return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList

from ....readers.errors import ModelError
from ...scores import require_finite
from .network import FourKhd

Part = Sequence[int] | torch.Tensor  # token ids, or the visual tokens of a picture
LOGITS_AT_ONCE = 256  # tokens whose logits over the whole vocabulary are held together


@dataclass(frozen=True, slots=True)
class Tree:
    """Texts that go on from one beginning, laid in a row and read in one pass.

    `ids` are the tokens; `sees` (T, T) is true where a token sees another: itself and what leads to it; `depth` is how
    many lead to it. `ends[k]` is the place of prompt k's last token, `places[k][n]` are those of its option n.
    """

    ids: tuple[int, ...]
    depth: tuple[int, ...]
    sees: npt.NDArray[np.bool_]
    ends: tuple[int, ...]
    places: tuple[tuple[tuple[int, ...], ...], ...]

    @classmethod
    def of(cls, suffixes: Sequence[Sequence[int]], options: Sequence[Sequence[int]]) -> "Tree":
        """Each suffix, and after each of them each option, which do not see one another."""
        ids: list[int] = []
        paths: list[list[int]] = []  # for each token the places of what leads to it, and its own
        ends: list[int] = []
        places: list[tuple[tuple[int, ...], ...]] = []

        def lay(tokens: Sequence[int], before: list[int]) -> list[int]:
            path = list(before)
            for token in tokens:
                path = [*path, len(ids)]
                ids.append(token)
                paths.append(path)
            return path

        for suffix in suffixes:
            stem = lay(suffix, [])
            ends.append(stem[-1])
            places.append(tuple(tuple(lay(option, stem)[len(stem) :]) for option in options))
        sees = np.zeros((len(ids), len(ids)), dtype=np.bool_)
        for place, path in enumerate(paths):
            sees[place, path] = True
        return cls(tuple(ids), tuple(len(path) - 1 for path in paths), sees, tuple(ends), tuple(places))


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

    The sequences are read once, together, padded on the left; suffixes and options then in one pass over their keys and
    values. Every suffix and option has at least one token. Equal to reading each whole text by itself. Raises
    `ModelError`, by the network's `name`, where its logits are not finite.
    """
    mixed = network.mix(sequences)
    cache = DynamicCache()
    network(inputs_embeds=mixed.hidden, attention_mask=mixed.real, im_mask=mixed.image, past_key_values=cache,
            use_cache=True, logits_to_keep=1)  # fmt: skip
    tree = Tree.of(suffixes, options)
    batch, device = len(sequences), mixed.real.device
    sees = torch.from_numpy(tree.sees).to(device)
    mask = torch.cat([mixed.real[:, None, :].expand(-1, len(tree.ids), -1), sees[None].expand(batch, -1, -1)], dim=2)[
        :, None
    ]
    depth = torch.tensor(tree.depth, device=device)
    places = mixed.real.sum(dim=1, keepdim=True) + depth
    ids = torch.tensor(tree.ids, device=device).expand(batch, -1)
    seen = network(input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, logits_to_keep=1)
    hidden = cast("tuple[torch.Tensor, ...]", seen.hidden_states)[0]
    # where each wanted log-probability is read: after which token, of which token, for which (suffix, option)
    after: list[int] = []
    of: list[int] = []
    to: list[int] = []
    for k, (stem, branches) in enumerate(zip(tree.ends, tree.places, strict=True)):
        for n, branch in enumerate(branches):
            after += [stem, *branch]
            of += [*(tree.ids[place] for place in branch), end]
            to += [k * len(options) + n] * (len(branch) + 1)
    found = np.zeros((batch, len(suffixes) * len(options)))
    for start in range(0, len(after), LOGITS_AT_ONCE):
        part = slice(start, start + LOGITS_AT_ONCE)
        logits = require_finite(network.output(hidden[:, after[part]]), "logits", of=name)
        logits = logits.float().log_softmax(dim=-1)
        wanted = torch.tensor(of[part], device=logits.device)[None, :, None].expand(batch, -1, 1)
        values = logits.gather(2, wanted)[..., 0].double().cpu().numpy()
        for row in range(batch):
            np.add.at(found[row], to[part], values[row])
    return found.reshape(batch, len(suffixes), len(options))


def generate(
    network: FourKhd,
    sequences: Sequence[Sequence[Part]],
    *,
    limit: int,
    stops: Sequence[int],
    pad: int,
    decoding: LogitsProcessor,
) -> list[list[int]]:
    """The tokens that follow each sequence, greedily: `limit` of them, or up to one of `stops`, the last.

    Sequences are read together, padded on the left. `decoding` sees and changes logits before each choice.
    """
    mixed = network.mix(sequences)
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=limit, eos_token_id=list(stops), pad_token_id=pad, use_cache=True
    )
    generate = cast("Any", network).generate
    made = generate(
        inputs_embeds=mixed.hidden,
        attention_mask=mixed.real.long(),
        im_mask=mixed.image,
        generation_config=settings,
        logits_processor=LogitsProcessorList([decoding]),
    )
    texts: list[list[int]] = []
    for row in made.tolist():
        end = next((place for place, token in enumerate(row) if token in stops), len(row))
        texts.append(row[: end + 1])
    return texts


def common(sequences: Sequence[Sequence[int]]) -> int:
    """How many tokens all of them begin with, so that at least one is left of each."""
    shortest = min(map(len, sequences))
    length = 0
    while length < shortest - 1 and len({sequence[length] for sequence in sequences}) == 1:
        length += 1
    return length


def check_length(network: FourKhd, tokens: int) -> None:
    """Raise `ModelError` where a sequence is longer than the network was made for."""
    most = network.sizes.language.positions
    if tokens > most:
        raise ModelError(
            "region",
            f"its tokens, and those of the question and the answer, must fit into the model's {most}",
            value=str(tokens),
            remedy="Lower --hd-num or max_tokens, or shorten the question",
        )
