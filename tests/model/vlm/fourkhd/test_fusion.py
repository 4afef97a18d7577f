"""Tiles influence each other by the global view and the language model, not in the vision encoder."""

import torch
from limner.model.vlm.fourkhd.network import FourKhd

GRID = (1, 2)
SIDE = 12  # visual tokens along a tile
ROW = 2 * SIDE + 1  # of the local map: two tiles side by side, and the row's end
OVERALL = SIDE * (SIDE + 1) + 1  # the global view with its row ends, and the separator
BEFORE, AFTER = [1, 5], [1, 9, 8]


def tiles(seed: int) -> torch.Tensor:
    """A global view and two tiles: their contents do not matter here."""
    return torch.randn(3, 3, 336, 336, generator=torch.Generator().manual_seed(seed))


def changed(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return (first - second).abs().amax(dim=-1) > 1e-6


def of_tile(column: int) -> torch.Tensor:
    """Which visual tokens, the global view's first, are those of one of the two tiles."""
    token = torch.arange(OVERALL + SIDE * ROW)
    inside = (token - OVERALL) % ROW // SIDE == column
    return (token >= OVERALL) & inside & ((token - OVERALL) % ROW < 2 * SIDE)


def read(network: FourKhd, shown: torch.Tensor, *, overall: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """(hidden states of the visual tokens, logits after the whole prompt)."""
    with torch.inference_mode():
        [picture] = network.image_tokens(shown, [GRID], overall=overall)
        embedded = network.embed([[BEFORE, picture, AFTER]])
        said = network(inputs_embeds=embedded.hidden, im_mask=embedded.image_mask)
    assert said.hidden_states is not None
    return said.hidden_states[0][0, len(BEFORE) : len(BEFORE) + len(picture)], said.logits[0, -1]


def test_vision_encoder_encodes_each_tile_alone(tiny: FourKhd) -> None:
    before = tiles(1)
    after = before.clone()
    after[1] = tiles(2)[1]
    with torch.inference_mode():
        first, second = (tiny.image_tokens(shown, [GRID])[0] for shown in (before, after))
    assert torch.equal(changed(first, second), of_tile(0))


def test_tiles_influence_later_tiles_by_causal_attention(tiny: FourKhd) -> None:
    """The left tile changes: the right one's tokens know of it from the first row on, and so does the answer."""
    before = tiles(1)
    after = before.clone()
    after[1] = tiles(2)[1]
    (first, said), (second, then) = read(tiny, before), read(tiny, after)
    told = changed(first, second)
    assert not told[:OVERALL].any()  # what was read before knows nothing
    assert told[of_tile(1)].all()
    assert changed(said[None], then[None]).all()


def test_later_tiles_influence_earlier_ones_by_the_global_view_only(tiny: FourKhd) -> None:
    """The last row of the right tile changes: without the global view no token before it learns of that."""
    before = tiles(1)
    after = before.clone()
    after[2, :, -28:] = tiles(2)[2, :, -28:]
    (first, _), (second, _) = read(tiny, before), read(tiny, after)
    earlier = torch.arange(len(first)) < OVERALL + SIDE  # the global view, and the left tile's first row
    assert not changed(first, second)[earlier].any()
    squashed = after.clone()
    squashed[0] = tiles(3)[0]  # as the global view would show it
    third, _ = read(tiny, squashed)
    assert changed(first, third)[of_tile(0) & earlier].all()


def test_local_view_without_global_view(tiny: FourKhd) -> None:
    shown = tiles(1)
    with torch.inference_mode():
        [whole], [alone] = (tiny.image_tokens(shown, [GRID], overall=overall) for overall in (True, False))
    assert len(alone) == SIDE * ROW
    assert torch.equal(whole[OVERALL:], alone)
    other = shown.clone()
    other[0] = tiles(4)[0]
    (_, said), (_, then) = (read(tiny, one, overall=False) for one in (shown, other))
    assert torch.equal(said, then)
    (_, said), (_, then) = (read(tiny, one) for one in (shown, other))
    assert changed(said[None], then[None]).all()
