"""The network against the reference's arrays: float32 on a CPU, at most 1e-4 apart, greedy ids equal."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from limner.model.annotator import InputSpec, View
from limner.model.tiling import TileGrid, cut_tiles, place_on_canvas, squash_to_tile
from limner.model.vlm.decoding import Decoding
from limner.model.vlm.fourkhd import generator
from limner.model.vlm.fourkhd.generator import view_tensor
from limner.model.vlm.fourkhd.model_config import Kernel, LanguageSizes, Plora, Sizes, VisionSizes
from limner.model.vlm.fourkhd.network import FourKhd
from limner.model.vlm.fourkhd.runtime import empty_network
from PIL import Image

HD_NUM = {"A": 6, "B": 4, "C": 1}
CASES = sorted(HD_NUM)
LAYOUTS = ("chat", "eval")
TOLERANCE = 1e-4

Vectors = dict[str, Any]


def shown(golden: Path, network: FourKhd, name: str) -> tuple[torch.Tensor, tuple[int, int]]:
    """A source picture through our own transform: normalised tiles, and its grid's (rows, cols)."""
    source = np.asarray(Image.open(golden / f"{name}_source_rgb.png").convert("RGB"))
    grid = TileGrid.fit(source.shape[1], source.shape[0], hd_num=HD_NUM[name])
    canvas = place_on_canvas(source, grid)
    everything = np.ones(canvas.shape[:2], dtype=bool)
    view = View(None, InputSpec(336), grid, cut_tiles(canvas, grid), cut_tiles(everything, grid), everything,  # type: ignore[arg-type]
                squash_to_tile(canvas.astype(np.float32)))  # fmt: skip
    return view_tensor(view, network.sizes.vision), (grid.rows, grid.cols)


def sequence(vectors: Vectors, layout: str, picture: torch.Tensor) -> list[Sequence[int] | torch.Tensor]:
    """What stands before and after the picture."""
    if layout == "chat":
        return [vectors["part0_ids"].tolist(), picture, vectors["part1_ids"].tolist()]
    return [[1], picture, vectors["eval_text_ids"].tolist()]


def apart(found: torch.Tensor, expected: npt.NDArray[Any]) -> float:
    assert tuple(found.shape) == expected.shape
    return float(np.abs(found.numpy() - expected).max())


@pytest.mark.parametrize("name", CASES)
def test_image_tokens_equal_the_reference(golden: Path, tiny: FourKhd, vectors: Vectors, name: str) -> None:
    tiles, grid = shown(golden, tiny, name)
    with torch.inference_mode():
        features = tiny.vision_features(tiles)
        [merged] = tiny.arrange(features, [grid])
        [embedded] = tiny.image_tokens(tiles, [grid])
    assert apart(features[0], vectors[f"{name}_vit_tile0"]) < TOLERANCE
    assert apart(features[-1], vectors[f"{name}_vit_tile_last"]) < TOLERANCE
    assert apart(merged[::3] if name == "A" else merged, vectors[f"{name}_merged"]) < TOLERANCE
    assert apart(embedded, vectors[f"{name}_image_embeds"]) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CASES)
def test_logits_equal_the_reference(
    golden: Path, tiny: FourKhd, vectors: Vectors, name: str, layout: str, kernel: Kernel
) -> None:
    tiny.kernel = kernel
    tiles, grid = shown(golden, tiny, name)
    with torch.inference_mode():
        embedded = tiny.embed([sequence(vectors, layout, tiny.image_tokens(tiles, [grid])[0])])
        assert (embedded.image_mask[0].numpy() == vectors[f"{name}_{layout}_im_mask"]).all()
        said = tiny(inputs_embeds=embedded.hidden, im_mask=embedded.image_mask)
        places = vectors[f"{name}_{layout}_positions"]
        assert apart(said.logits[0, places], vectors[f"{name}_{layout}_logits"]) < TOLERANCE
        if layout == "chat":
            assert apart(said.hidden_states[0][0, places], vectors[f"{name}_chat_last_hidden"]) < TOLERANCE
        without = tiny(inputs_embeds=embedded.hidden).logits[0, places]
    assert apart(without, vectors[f"{name}_{layout}_logits"]) > 1  # Partial LoRA is there, and counts


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_greedy_ids_equal_the_reference_alone_and_in_a_batch(
    golden: Path, tiny: FourKhd, vectors: Vectors, layout: str
) -> None:
    seen = [shown(golden, tiny, name) for name in CASES]
    expected = [vectors[f"{name}_{layout}_greedy8"].tolist()[1:] for name in CASES]  # the first is a placeholder
    with torch.inference_mode():
        pictures = tiny.image_tokens(torch.cat([tiles for tiles, _ in seen]), [grid for _, grid in seen])
        sequences = [sequence(vectors, layout, picture) for picture in pictures]
        for one, ids in zip(sequences, expected, strict=True):
            assert generator.decode_greedily(
                tiny, [one], limit=8, stops=[999], pad=2, decoding=Decoding("tiny", stops=[999])
            ) == [ids]
        assert (
            generator.decode_greedily(
                tiny, sequences, limit=8, stops=[999], pad=2, decoding=Decoding("tiny", stops=[999])
            )
            == expected
        )


@pytest.mark.slow
def test_a_batch_of_different_shapes_equals_one_by_one(golden: Path, tiny: FourKhd, vectors: Vectors) -> None:
    seen = [shown(golden, tiny, name) for name in CASES]
    with torch.inference_mode():
        alone = [tiny.image_tokens(tiles, [grid])[0] for tiles, grid in seen]
        together = tiny.image_tokens(torch.cat([tiles for tiles, _ in seen]), [grid for _, grid in seen])
        for one, other in zip(alone, together, strict=True):
            assert float((one - other).abs().max()) < TOLERANCE
        embedded = tiny.embed([sequence(vectors, "chat", picture) for picture in together])
        said = tiny(inputs_embeds=embedded.hidden, attention_mask=embedded.attention_mask, im_mask=embedded.image_mask)
        for row, picture in enumerate(alone):
            one = tiny.embed([sequence(vectors, "chat", picture)])
            expected = tiny(inputs_embeds=one.hidden, im_mask=one.image_mask).logits[0]
            assert float((said.logits[row, -len(expected) :] - expected).abs().max()) < TOLERANCE


def test_text_alone_and_two_pictures(golden: Path, tiny: FourKhd, vectors: Vectors) -> None:
    ids = torch.from_numpy(vectors["text_only_ids"])[None]
    with torch.inference_mode():
        assert apart(tiny(input_ids=ids).logits[0], vectors["text_only_logits"]) < TOLERANCE
        (c, c_grid), (b, b_grid) = (shown(golden, tiny, name) for name in ("C", "B"))
        first, second = tiny.image_tokens(torch.cat([c, b]), [c_grid, b_grid])
        texts = [vectors[f"{part}_ids"].tolist() for part in ("part0", "two_images_middle", "part1")]
        embedded = tiny.embed([[texts[0], first, texts[1], second, texts[2]]])
        said = tiny(inputs_embeds=embedded.hidden, im_mask=embedded.image_mask)
    assert apart(said.logits[0, vectors["two_images_positions"]], vectors["two_images_logits"]) < TOLERANCE


def test_cached_decoding_equals_the_whole_sequence(tiny: FourKhd) -> None:
    ids = torch.arange(3, 43)[None]
    with torch.inference_mode():
        whole = tiny(input_ids=ids).logits
        said = tiny(input_ids=ids[:, :25], use_cache=True)
        rest = tiny(input_ids=ids[:, 25:33], past_key_values=said.past_key_values)
        last = tiny(input_ids=ids[:, 33:34], past_key_values=rest.past_key_values)
    assert float((rest.logits - whole[:, 25:33]).abs().max()) < TOLERANCE
    assert float((last.logits - whole[:, 33:34]).abs().max()) < TOLERANCE


def test_bfloat16_error_is_like_the_reference(golden: Path, tiny: FourKhd, vectors: Vectors) -> None:
    tiles, grid = shown(golden, tiny, "A")
    with torch.inference_mode():
        exact = torch.from_numpy(vectors["A_image_embeds"])
        rough = tiny.bfloat16().image_tokens(tiles, [grid])[0].float()
    assert float((rough - exact).norm() / exact.norm()) < 0.012  # the reference: 0.0081


def released() -> Sizes:
    """The released 7B model's sizes."""
    ranks = {"wqkv": Plora(8, 16.0), **{name: Plora(256, 256.0) for name in ("wo", "w1", "w2", "w3")}}
    return Sizes(
        VisionSizes(hidden=1024, layers=24, heads=16, mlp=4096),
        LanguageSizes(vocab=92544, hidden=4096, layers=32, heads=32, kv_heads=8, mlp=14336),
        projector=4096,
        plora=ranks,
    )


@pytest.mark.slow
def test_the_full_size_has_exactly_the_released_names_and_shapes(golden: Path) -> None:
    keys = json.loads((golden / "expected_checkpoint_keys.json").read_text(encoding="utf-8"))["keys"]
    expected = {name: tuple(shape) for name, shape in keys.items()}
    assert len(expected) == 942
    network = empty_network(released())
    assert {name: tuple(weight.shape) for name, weight in network.state_dict().items()} == expected
    assert all(weight.is_meta for weight in network.parameters())
    assert released().tensors() == expected
    assert released().parameters == 8_597_499_904


def test_ranks_and_scales_come_from_the_tensors(golden: Path) -> None:
    keys = json.loads((golden / "expected_checkpoint_keys.json").read_text(encoding="utf-8"))["keys"]
    shapes = {name: tuple(shape) for name, shape in keys.items()}
    config = {"num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 32768}
    found = Sizes.from_checkpoint(shapes, config, "released")
    assert found == released()
    assert {name: plora.scale for name, plora in found.plora.items()} == {
        "wqkv": 2.0, "wo": 1.0, "w1": 1.0, "w2": 1.0, "w3": 1.0
    }  # fmt: skip
    assert Sizes.from_json(json.loads(json.dumps(found.to_json()))) == found
