"""Scores and generated texts against reading each text from the start; attention kernels; cost."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.model.checkpoints.memory import memory_errors
from limner.model.tiling import TileGrid
from limner.model.vlm.fourkhd import generator, runtime
from limner.model.vlm.fourkhd.annotator import FourKhdAnnotator, FourKhdBackend, prefill_cost
from limner.model.vlm.fourkhd.model_config import Kernel, VisionSizes
from limner.model.vlm.fourkhd.network import FourKhd, Part
from limner.model.vlm.fourkhd.runtime import choose_kernel
from limner.model.vlm.fourkhd.tokenizer import Tokenizer, build_prompt
from limner.model.vlm.question import Question
from limner.readers.errors import ModelError
from transformers.utils import import_utils

TOLERANCE = 1e-4
END = 7


def pictures(network: FourKhd, *lengths: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    return [torch.randn(length, network.sizes.language.hidden, generator=random) * 0.3 for length in lengths]


def from_the_start(network: FourKhd, before: list[Part], text: list[int], option: list[int]) -> float:
    """The log-likelihood of an option and the end after it, by one reading of everything."""
    embedded = network.embed([[*before, [*text, *option]]])
    logits = network(inputs_embeds=embedded.hidden, im_mask=embedded.image_mask).logits[0].log_softmax(dim=-1)
    first = embedded.hidden.shape[1] - len(option) - 1
    return float(sum(logits[first + i, token] for i, token in enumerate([*option, END])))


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_tree_scores_equal_scores_of_whole_sequences(tiny: FourKhd, kernel: Kernel) -> None:
    tiny.kernel = kernel
    first, second = pictures(tiny, 20, 31)
    sequences: list[list[Part]] = [[[1, 5, 6], first, [1, 9]], [[1, 5], second, [1, 9, 8]]]
    suffixes = [[10, 11, 12], [10, 13], [14]]
    options = [[20, 21], [20], [22, 23, 24], [20, 21, 25]]  # some begin as others do, one is the beginning of another
    with torch.inference_mode():
        found = generator.score_options(tiny, sequences, suffixes, options, end=END)
        expected = np.array([[[from_the_start(tiny, s, x, o) for o in options] for x in suffixes] for s in sequences])
        alone = np.concatenate([generator.score_options(tiny, [s], suffixes, options, end=END) for s in sequences])
    assert found.shape == (2, 3, 4)
    assert np.abs(found - expected).max() < TOLERANCE
    assert np.abs(found - alone).max() < TOLERANCE
    assert np.ptp(expected) > 1  # they differ, so that agreement says something


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=4),
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=4),
)
def test_tree_tokens_attend_to_their_path_only(suffixes: list[list[int]], options: list[list[int]]) -> None:
    tree = generator.OptionTree.build(suffixes, options)
    for k, suffix in enumerate(suffixes):
        for n, option in enumerate(options):
            last = tree.option_places[k][n][-1]
            path = np.flatnonzero(tree.attends[last])
            assert [tree.ids[place] for place in path] == [*suffix, *option]
            assert [tree.depth[place] for place in path] == list(range(len(path)))
    assert len(tree.ids) == sum(len(s) + sum(map(len, options)) for s in suffixes)
    assert not np.triu(tree.attends, 1).any()


def test_common_prefix_leaves_a_token() -> None:
    assert generator.common_prefix([[1, 2, 3], [1, 2, 4]]) == 2
    assert generator.common_prefix([[1, 2], [1, 2]]) == 1
    assert generator.common_prefix([[1, 2], [1, 2, 3]]) == 1
    assert generator.common_prefix([[5]]) == 0


def test_a_sequence_longer_than_the_model_is_refused(tiny: FourKhd) -> None:
    generator.check_context(tiny, 4096, writes=True)
    with pytest.raises(ModelError, match=r"4096.*4097.*--hd-num or --set model_options\.max_tokens"):
        generator.check_context(tiny, 4097, writes=True)
    with pytest.raises(ModelError, match=r"Lower --hd-num, or shorten"):  # labels have no limit of tokens
        generator.check_context(tiny, 4097, writes=False)


def test_a_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    options = FourKhdAnnotator.Options(checkpoint=str(folder))
    with pytest.raises(ModelError, match=r"256.*400"):  # the tiny model knows 256 tokens, this tokenizer 400
        FourKhdBackend(options).check(Question.from_options(options, "4khd"))


def test_kernel_fallback_is_logged_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_warned", set())
    cpu = torch.device("cpu")
    for _ in range(2):
        assert choose_kernel("flash_attention_2", device=cpu, dtype=torch.float32) == "sdpa"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "cpu" in caplog.text
    assert "sdpa is used instead" in caplog.text
    assert choose_kernel("eager", device=cpu, dtype=torch.float32) == "eager"


@pytest.mark.parametrize(
    ("dtype", "capability", "installed", "words"),
    [
        (torch.float32, (9, 0), True, "16-bit"),
        (torch.float16, (7, 5), True, "compute capability 8.0"),
        (torch.bfloat16, (9, 0), False, "flash-attn is not installed"),
        (torch.bfloat16, (8, 0), True, ""),
    ],
)
def test_flash_attention_requirements(
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    capability: tuple[int, int],
    installed: bool,
    words: str,
) -> None:
    said: set[str] = set()
    monkeypatch.setattr(runtime, "_warned", said)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a card")
    monkeypatch.setattr(import_utils, "is_flash_attn_2_available", lambda: installed)
    chosen = choose_kernel("flash_attention_2", device=torch.device("cuda"), dtype=dtype)
    assert chosen == ("sdpa" if words else "flash_attention_2")
    assert words in "".join(said)


def test_memory_errors_are_distinguished() -> None:
    for message in ("DefaultCPUAllocator: can't allocate memory: you tried", "not enough memory: you tried to"):
        with pytest.raises(MemoryError), memory_errors():
            raise RuntimeError(message)
    with pytest.raises(RuntimeError, match="shape"), memory_errors():
        raise RuntimeError("a shape is wrong")
    with pytest.raises(MemoryError), memory_errors():
        torch.empty(1 << 50)


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 5), (11, 5), (1, 55), (55, 1)])
def test_visual_tokens_are_those_of_the_grid(shape: tuple[int, int]) -> None:
    cols, rows = shape
    vision = VisionSizes(hidden=1024, layers=24, heads=16, mlp=4096)
    assert vision.image_tokens(rows, cols) == TileGrid.exact(cols, rows).tokens


def test_prefill_cost(tiny: FourKhd) -> None:
    sizes = tiny.sizes
    cost = prefill_cost(sizes, 2, 3, text=22, itemsize=4)
    assert (cost.image_tokens, cost.tokens) == (1045, 1067)
    assert cost.cache_bytes == 2 * sizes.language.layers * 2 * 16 * 1067 * 4
    assert sizes.weight_bytes("", 4) == 4 * sizes.parameters
    more = prefill_cost(sizes, 4, 6, text=22, itemsize=4)
    assert more.vision_flops > 3.4 * cost.vision_flops
    assert more.language_flops > 3.5 * cost.language_flops


def test_flops_equal_torchs_count(tiny: FourKhd) -> None:
    counter = pytest.importorskip("torch.utils.flop_counter")
    tiny.kernel = "eager"  # whose products it sees
    text = 22
    cost = prefill_cost(tiny.sizes, 1, 2, text=text, itemsize=4)
    with torch.inference_mode():
        with counter.FlopCounterMode(display=False) as seeing:
            [picture] = tiny.image_tokens(torch.zeros(3, 3, 336, 336), [(1, 2)])
        embedded = tiny.embed([[[1] * text, picture]])
        with counter.FlopCounterMode(display=False) as reading:
            tiny(inputs_embeds=embedded.hidden, im_mask=embedded.image_mask, logits_to_keep=1)
    assert seeing.get_total_flops() == pytest.approx(cost.vision_flops, rel=0.02)
    full = (
        cost.language_flops + tiny.sizes.language.layers * 2 * cost.tokens**2 * 64
    )  # it counts all pairs, we half of them
    assert reading.get_total_flops() == pytest.approx(full, rel=0.02)


def test_prompts_keep_their_pictures_place(made_4khd: Path) -> None:
    tokenizer = Tokenizer(made_4khd / "tokenizer.model", "made")
    chat, benchmark = build_prompt(tokenizer, "cat?"), build_prompt(tokenizer, "cat?", layout="benchmark")
    assert chat.parts[0][0] == chat.parts[1][0] == tokenizer.bos
    assert benchmark.parts[0] == (tokenizer.bos,)
    assert tokenizer.bos not in benchmark.parts[1]


def test_the_documented_cost_is_the_computed_one() -> None:
    root = Path(__file__).parents[4]
    spec = importlib.util.spec_from_file_location("bench_4khd", root / "tests" / "bench" / "bench_4khd.py")
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    computed = bench.arithmetic().splitlines()[2:]
    told = (root / "docs" / "asking.md").read_text(encoding="utf-8")
    assert len(computed) == 4
    for row in computed:
        assert row in told, row
