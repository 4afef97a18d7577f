"""InternLM-XComposer2-4KHD as one network: tiles become visual tokens, and those stand among words.

Source: arXiv 2404.06512. Names and shapes of its tensors are the released checkpoint's. Nothing here knows files,
prompts or pictures: `tokens.py` writes prompts, `load.py` fills the network.
"""

# transformers' types do not say what its classes take and return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingParameterType=false, reportIncompatibleMethodOverride=false, reportIncompatibleVariableOverride=false

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .attention import Kernel
from .language import Context, LanguageModel
from .sizes import Sizes
from .vision import VisionModel, merge_patches

TILES_AT_ONCE = 64  # tiles that go through the vision tower together, so that a batch of regions bounds its memory


class FourKhdConfig(PreTrainedConfig):
    """transformers' configuration of a 4KHD model: `Sizes`, and how it is run."""

    model_type = "internlmxcomposer2"
    keys_to_ignore_at_inference = ("past_key_values",)

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)

    @classmethod
    def of(cls, sizes: Sizes, **settings: Any) -> "FourKhdConfig":
        """The configuration of a model of those sizes."""
        ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
        return cls(**{**ids, "tie_word_embeddings": False, **settings, **sizes.to_json()})

    @property
    def sizes(self) -> Sizes:
        """What it describes."""
        return Sizes.from_json(self.to_dict())


@dataclass(frozen=True, slots=True)
class Mixed:
    """Sequences of words and visual tokens, padded on the left: what the language model reads.

    `hidden` (B, L, width); `image` (B, L), true at visual tokens; `real` (B, L), false at padding.
    """

    hidden: torch.Tensor
    image: torch.Tensor
    real: torch.Tensor


class FourKhd(PreTrainedModel, GenerationMixin):
    """The whole network. `kernel` is how attention is computed. `load.from_pretrained` makes one from files."""

    config_class = FourKhdConfig
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: FourKhdConfig, *, kernel: Kernel = "sdpa") -> None:
        super().__init__(config)
        sizes = config.sizes
        self.sizes = sizes
        self.kernel: Kernel = kernel
        self.plora_glb_GN = nn.Parameter(torch.empty(1, 1, sizes.merged))
        self.plora_sub_GN = nn.Parameter(torch.empty(1, 1, 1, sizes.merged))
        self.model = LanguageModel(sizes)
        self.output = nn.Linear(sizes.language.hidden, sizes.language.vocab, bias=False)
        self.vit = nn.ModuleDict({"vision_tower": nn.ModuleDict({"vision_model": VisionModel(sizes.vision)})})
        self.vision_proj = nn.Sequential(
            nn.Linear(sizes.merged, sizes.projector), nn.GELU(), nn.Linear(sizes.projector, sizes.language.hidden)
        )

    @property
    def tower(self) -> VisionModel:
        """The vision tower."""
        return cast("VisionModel", cast("Any", self.vit)["vision_tower"]["vision_model"])

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: `load.py` fills every tensor, or refuses."""

    def get_input_embeddings(self) -> nn.Module:
        """The words' embeddings."""
        return self.model.tok_embeddings

    def get_output_embeddings(self) -> nn.Module:
        """The map to words."""
        return self.output

    def features(self, tiles: torch.Tensor) -> torch.Tensor:
        """Normalised tiles (n, 3, tile, tile) → (n, positions, hidden) of the vision tower, each tile by itself."""
        weight = self.tower.embeddings.patch_embedding.weight
        parts = [self.tower(part.to(weight.device, weight.dtype), self.kernel) for part in tiles.split(TILES_AT_ONCE)]
        return torch.cat(parts)

    def merge(
        self, features: torch.Tensor, grids: Sequence[tuple[int, int]], *, overall: bool = True
    ) -> list[torch.Tensor]:
        """Features of each picture's global tile, then its tiles, row by row → (N, merged) visual tokens of each.

        `grids` are (rows, cols) of tiles. The global view comes first, then a separator, then all tiles as one map;
        every row of either ends with the same row end. Without `overall` the map stands alone.
        """
        sizes = self.sizes.vision
        patches = features[:, int(sizes.class_token) :].unflatten(1, (sizes.side, sizes.side))
        merged = merge_patches(patches)
        found: list[torch.Tensor] = []
        start = 0
        for rows, cols in grids:
            view, tiles = merged[start], merged[start + 1 : start + 1 + rows * cols]
            start += 1 + rows * cols
            side = view.shape[0]
            whole = tiles.reshape(rows, cols, side, side, -1).transpose(1, 2).reshape(rows * side, cols * side, -1)
            first = [self._rows(view), self.plora_glb_GN[0]] if overall else []
            found.append(torch.cat([*first, self._rows(whole)]))
        return found

    def see(self, tiles: torch.Tensor, grids: Sequence[tuple[int, int]], *, overall: bool = True) -> list[torch.Tensor]:
        """Normalised tiles of several pictures, as `merge` has them → (N, hidden) visual tokens of each.

        A picture of one tile that is its own global view is looked at once.
        """
        seen: list[int] = []  # for each tile the place of the one that is looked at
        kept: list[int] = []
        for rows, cols in grids:
            for i in range(1 + rows * cols):
                place = len(seen)
                if not (i == 1 and rows * cols == 1 and torch.equal(tiles[place], tiles[place - 1])):
                    kept.append(place)
                seen.append(len(kept) - 1)
        features = self.features(tiles if len(kept) == len(seen) else tiles[kept])
        merged = self.merge(features if len(kept) == len(seen) else features[seen], grids, overall=overall)
        return list(self.vision_proj(torch.cat(merged)).split([len(one) for one in merged]))

    def _rows(self, view: torch.Tensor) -> torch.Tensor:
        """A map (H, W, merged), a row end after each row → (H · (W + 1), merged)."""
        ends = self.plora_sub_GN[0].expand(len(view), 1, -1)
        return torch.cat([view, ends], dim=1).flatten(0, 1)

    def mix(self, sequences: Sequence[Sequence[Sequence[int] | torch.Tensor]]) -> Mixed:
        """Sequences of parts, each token ids or the (N, hidden) visual tokens of a picture, padded on the left."""
        table = self.model.tok_embeddings.weight
        rows: list[torch.Tensor] = []
        marks: list[torch.Tensor] = []
        for sequence in sequences:
            parts = [
                part.to(table.device, table.dtype)
                if isinstance(part, torch.Tensor)
                else nn.functional.embedding(torch.tensor(part, dtype=torch.long, device=table.device), table)
                for part in sequence
            ]
            seen = [isinstance(part, torch.Tensor) for part in sequence]
            rows.append(torch.cat(parts))
            marks.append(torch.cat([torch.full((len(p),), s) for p, s in zip(parts, seen, strict=True)]))
        longest = max(len(row) for row in rows)
        hidden = table.new_zeros(len(rows), longest, table.shape[1])
        image = torch.zeros(len(rows), longest, dtype=torch.bool, device=table.device)
        real = torch.zeros_like(image)
        for i, (row, mark) in enumerate(zip(rows, marks, strict=True)):
            hidden[i, longest - len(row) :], image[i, longest - len(row) :] = row, mark.to(table.device)
            real[i, longest - len(row) :] = True
        return Mixed(hidden, image, real)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        im_mask: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Read token ids (B, L), or what `mix` made of them, and say what comes next.

        `attention_mask` is (B, all keys), 0 at padding, or boolean (B, 1, L, all keys), true where a token sees a key.
        `im_mask` (B, L) is true at visual tokens. Logits are float32 (B, L, vocab), of the last `logits_to_keep` tokens
        where that is not 0. `hidden_states` is what they were made of, after the last norm.
        """
        if inputs_embeds is None:
            inputs_embeds = cast("torch.Tensor", self.model.tok_embeddings(input_ids))
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        before = 0 if past_key_values is None else int(past_key_values.get_seq_length())
        length, device = inputs_embeds.shape[1], inputs_embeds.device
        if position_ids is None:
            position_ids = self._positions(attention_mask, before, length, device)
        mask, causal = self._mask(attention_mask, before, length, device)
        image = None
        if im_mask is not None and bool(im_mask.any()):
            image = im_mask[..., None].to(device, inputs_embeds.dtype)
        rotation = self.model.rotation(position_ids.to(device))
        kernel: Kernel = "sdpa" if mask is not None and mask.ndim == 4 and self.kernel != "eager" else self.kernel
        context = Context(rotation, mask, image, past_key_values, kernel, causal)
        hidden = self.model(inputs_embeds, context)
        logits = self.output(hidden[:, -logits_to_keep:] if logits_to_keep else hidden).float()
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values, hidden_states=(hidden,))

    def _positions(
        self, attention_mask: torch.Tensor | None, before: int, length: int, device: torch.device
    ) -> torch.Tensor:
        """Places of the tokens in their sequences, padding not counted."""
        if attention_mask is None or attention_mask.ndim != 2:
            return torch.arange(before, before + length, device=device)[None]
        places = attention_mask.long().cumsum(dim=-1) - 1
        return places[:, -length:].clamp(min=0)

    def _mask(
        self, attention_mask: torch.Tensor | None, before: int, length: int, device: torch.device
    ) -> tuple[torch.Tensor | None, bool]:
        """(mask, causal) as `attend` wants them.

        A token of padding sees itself, so that no row is empty. Nothing is masked where nothing is padded and either
        there is one token only or nothing was before it.
        """
        if attention_mask is not None and attention_mask.ndim == 4:
            return attention_mask.to(device), False
        padded = attention_mask is not None and not bool(attention_mask.all())
        if self.kernel == "flash_attention_2":
            return (cast("torch.Tensor", attention_mask).to(device) if padded else None), True
        if not padded and (length == 1 or before == 0):
            return None, length > 1
        rows = torch.arange(before, before + length, device=device)
        columns = torch.arange(before + length, device=device)
        mask = (columns[None] <= rows[:, None])[None, None]
        if padded:
            keys = cast("torch.Tensor", attention_mask).bool().to(device)
            mask = (mask & keys[:, None, None, :]) | (columns[None] == rows[:, None])[None, None]
        return mask, False

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        *args: Any,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """What transformers prepares, without the mask of visual tokens once they have been read: words follow."""
        prepare = cast("Any", GenerationMixin).prepare_inputs_for_generation
        made = prepare(self, input_ids, *args, inputs_embeds=inputs_embeds, **kwargs)
        if not kwargs.get("is_first_iteration", False):
            made.pop("im_mask", None)
        return made
