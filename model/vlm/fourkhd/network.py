"""InternLM-XComposer2-4KHD as one network: tiles become image tokens, which stand among text tokens.

Source: arXiv 2404.06512. Tensors have the names and shapes of the released checkpoint. Files, prompts and pictures are
handled in `runtime.py`, `tokenizer.py` and `generator.py`.
"""

# transformers' types do not state what its classes take and return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingParameterType=false, reportIncompatibleMethodOverride=false, reportIncompatibleVariableOverride=false

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .language import Context, LanguageModel
from .model_config import Kernel, Sizes
from .vision import VisionModel, merge_patches

Part = Sequence[int] | torch.Tensor
"""A part of a sequence: token ids, or the image tokens (N, hidden) of a picture."""

TILES_AT_ONCE = 64  # in the vision encoder, so that a batch of regions bounds its memory


class FourKhdConfig(PreTrainedConfig):
    """transformers' configuration of a 4KHD model."""

    model_type = "internlmxcomposer2"
    keys_to_ignore_at_inference = ("past_key_values",)

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)

    @classmethod
    def from_sizes(cls, sizes: Sizes) -> "FourKhdConfig":
        """The configuration of a model of those sizes."""
        return cls(bos_token_id=1, eos_token_id=2, pad_token_id=2, tie_word_embeddings=False, **sizes.to_json())

    @property
    def sizes(self) -> Sizes:
        """The sizes that it describes."""
        return Sizes.from_json(self.to_dict())


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """Sequences of text and image tokens, padded on the left, as input of the language model."""

    hidden: torch.Tensor
    """(B, L, width)"""
    image_mask: torch.Tensor
    """(B, L), true at image tokens."""
    attention_mask: torch.Tensor
    """(B, L), false at padding."""


class FourKhd(PreTrainedModel, GenerationMixin):
    """The whole network; `runtime.load_network` makes one from files."""

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
    def vision_model(self) -> VisionModel:
        """The vision encoder."""
        return cast("VisionModel", cast("Any", self.vit)["vision_tower"]["vision_model"])

    def _init_weights(self, module: nn.Module) -> None:
        """Leave the weights alone: `runtime.load_network` sets every tensor, or refuses."""

    def get_input_embeddings(self) -> nn.Module:
        """The token embeddings."""
        return self.model.tok_embeddings

    def get_output_embeddings(self) -> nn.Module:
        """The linear map to logits."""
        return self.output

    def vision_features(self, tiles: torch.Tensor) -> torch.Tensor:
        """Normalized tiles (n, 3, tile, tile) → (n, positions, hidden) of the vision encoder."""
        encoder = self.vision_model
        weight = encoder.embeddings.patch_embedding.weight
        parts = [encoder(part.to(weight.device, weight.dtype), self.kernel) for part in tiles.split(TILES_AT_ONCE)]
        return torch.cat(parts)

    def arrange(
        self, features: torch.Tensor, grids: Sequence[tuple[int, int]], *, overall: bool = True
    ) -> list[torch.Tensor]:
        """Features of each picture's global view and its tiles, row by row → (N, merged) image tokens of each.

        `grids` are (rows, cols) of tiles. Without `overall` only the local view remains. For 1 × 2 tiles::

            global view          local view: one map over all tiles
            g g g E              a a a b b b E
            g g g E  separator   a a a b b b E        E: row end
            g g g E              a a a b b b E
        """
        sizes = self.sizes.vision
        side = sizes.patches_per_side
        merged = merge_patches(features[:, int(sizes.class_token) :].unflatten(1, (side, side)))
        found: list[torch.Tensor] = []
        start = 0
        for rows, cols in grids:
            view, tiles = merged[start], merged[start + 1 : start + 1 + rows * cols]
            start += 1 + rows * cols
            side = view.shape[0]
            local = tiles.reshape(rows, cols, side, side, -1).transpose(1, 2).reshape(rows * side, cols * side, -1)
            first = [self._with_row_ends(view), self.plora_glb_GN[0]] if overall else []
            found.append(torch.cat([*first, self._with_row_ends(local)]))
        return found

    def image_tokens(
        self, tiles: torch.Tensor, grids: Sequence[tuple[int, int]], *, overall: bool = True
    ) -> list[torch.Tensor]:
        """Normalized tiles of several pictures, in the order of `arrange` → (N, hidden) image tokens of each.

        The tile of a picture with one tile is encoded once where it equals its own global view.
        """
        encoded: list[int] = []  # for each tile its place among `kept`
        kept: list[int] = []
        for rows, cols in grids:
            for i in range(1 + rows * cols):
                place = len(encoded)
                if not (i == 1 and rows * cols == 1 and torch.equal(tiles[place], tiles[place - 1])):
                    kept.append(place)
                encoded.append(len(kept) - 1)
        features = self.vision_features(tiles if len(kept) == len(encoded) else tiles[kept])
        merged = self.arrange(features if len(kept) == len(encoded) else features[encoded], grids, overall=overall)
        return list(self.vision_proj(torch.cat(merged)).split([len(one) for one in merged]))

    def _with_row_ends(self, view: torch.Tensor) -> torch.Tensor:
        """A map (H, W, merged) with a row end after each row → (H · (W + 1), merged)."""
        ends = self.plora_sub_GN[0].expand(len(view), 1, -1)
        return torch.cat([view, ends], dim=1).flatten(0, 1)

    def embed(self, sequences: Sequence[Sequence[Part]]) -> EmbeddedBatch:
        """Embed sequences of text and image tokens, padded on the left."""
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
            rows.append(torch.cat(parts))
            marks.append(torch.cat([torch.full((len(p),), isinstance(p, torch.Tensor)) for p in sequence]))
        longest = max(len(row) for row in rows)
        hidden = table.new_zeros(len(rows), longest, table.shape[1])
        image_mask = torch.zeros(len(rows), longest, dtype=torch.bool, device=table.device)
        attention_mask = torch.zeros_like(image_mask)
        for i, (row, mark) in enumerate(zip(rows, marks, strict=True)):
            begin = longest - len(row)
            hidden[i, begin:], image_mask[i, begin:], attention_mask[i, begin:] = row, mark.to(table.device), True
        return EmbeddedBatch(hidden, image_mask, attention_mask)

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
        """Next-token logits of token ids (B, L), or of what `embed` returned.

        `attention_mask` is (B, all keys), 0 at padding, or boolean (B, 1, L, all keys), true where a token attends to a
        key. `im_mask` (B, L) is true at image tokens. Logits are float32 (B, L, vocab), or only of the last
        `logits_to_keep` tokens. `hidden_states` are after the final norm.
        """
        if inputs_embeds is None:
            inputs_embeds = cast("torch.Tensor", self.model.tok_embeddings(input_ids))
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        before = 0 if past_key_values is None else int(past_key_values.get_seq_length())
        length, device = inputs_embeds.shape[1], inputs_embeds.device
        if position_ids is None:
            position_ids = _positions(attention_mask, before, length, device)
        mask, causal = self._mask(attention_mask, before, length, device)
        image_mask = None
        if im_mask is not None and bool(im_mask.any()):
            image_mask = im_mask[..., None].to(device, inputs_embeds.dtype)
        rotation = self.model.rotation(position_ids.to(device))
        kernel: Kernel = "sdpa" if mask is not None and mask.ndim == 4 and self.kernel != "eager" else self.kernel
        hidden = self.model(inputs_embeds, Context(rotation, mask, image_mask, past_key_values, kernel, causal))
        logits = self.output(hidden[:, -logits_to_keep:] if logits_to_keep else hidden).float()
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values, hidden_states=(hidden,))

    def _mask(
        self, attention_mask: torch.Tensor | None, before: int, length: int, device: torch.device
    ) -> tuple[torch.Tensor | None, bool]:
        """(mask, causal) for `attend`.

        A padding token attends to itself, so that no row is empty. There is no mask where nothing is padded and either
        there is one token only or no token came before.
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
        self, input_ids: torch.Tensor, *args: Any, inputs_embeds: torch.Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Prepare inputs as transformers does, with the mask of image tokens for the prompt only."""
        prepare = GenerationMixin.prepare_inputs_for_generation
        prepared = prepare(self, input_ids, *args, inputs_embeds=inputs_embeds, **kwargs)
        if not kwargs.get("is_first_iteration", False):
            prepared.pop("im_mask", None)
        return prepared


def _positions(attention_mask: torch.Tensor | None, before: int, length: int, device: torch.device) -> torch.Tensor:
    """Positions of the tokens in their sequences, not counting padding."""
    if attention_mask is None or attention_mask.ndim != 2:
        return torch.arange(before, before + length, device=device)[None]
    return (attention_mask.long().cumsum(dim=-1) - 1)[:, -length:].clamp(min=0)
