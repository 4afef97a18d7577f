"""What a region costs a 4KHD model, by arithmetic: tokens, memory, operations. Loads no torch.

`docs/figures.md` sets these against measurements.
"""

import math
from dataclasses import dataclass

from .sizes import LINEARS, Sizes, VisionSizes

_BLOCK, _BLOCKS = 64, 256  # of NF4: numbers that share a scale of 8 bits, and such scales that share one of 32 bits


@dataclass(frozen=True, slots=True)
class Prefill:
    """Reading one region and a prompt.

    `tokens` of the sequence, of which `visual` come from the picture; multiply-adds counted as two `operations` of the
    vision tower and projector (`seeing`) and of the language model (`reading`); bytes of the keys and values it leaves
    behind (`cache`), and of what flows at the peak (`flowing`).
    """

    tokens: int
    visual: int
    seeing: float
    reading: float
    cache: float
    flowing: float


def visual_tokens(vision: VisionSizes, rows: int, cols: int) -> int:
    """Visual tokens of a grid: global view, separator and tiles, with row ends."""
    side = vision.side // 2
    return side * (side + 1) + 1 + rows * side * (cols * side + 1)


def prefill(sizes: Sizes, rows: int, cols: int, *, text: int, itemsize: int, at_once: int = 64) -> Prefill:
    """The cost of one region of rows × cols tiles with `text` tokens of prompt, in numbers of `itemsize` bytes.

    Attention is counted as computed in blocks, without its scores in memory. `at_once` tiles are seen together.
    """
    vision, language = sizes.vision, sizes.language
    visual = visual_tokens(vision, rows, cols)
    tokens = visual + text
    tiles = rows * cols + 1
    patch = 2 * vision.side**2 * vision.hidden * 3 * vision.patch**2
    layer = 2 * vision.positions * (4 * vision.hidden**2 + 2 * vision.hidden * vision.mlp)
    layer += 4 * vision.positions**2 * vision.hidden
    merged = visual * 2 * (sizes.merged * sizes.projector + sizes.projector * language.hidden)
    seeing = tiles * (patch + vision.layers * layer) + merged
    linear = sum(math.prod(language.linear(name)) for name in sizes.plora)
    low = sum(plora.rank * sum(language.linear(name)) for name, plora in sizes.plora.items())
    attention = 2 * tokens**2 * language.heads * language.head  # half of all pairs, twice: scores and values
    reading = language.layers * (2 * tokens * linear + 2 * tokens * low + attention)
    reading += 2 * language.hidden * language.vocab  # the last token only
    cache = 2 * language.layers * language.kv_heads * language.head * tokens * itemsize
    # a layer's widest moment, in widths: the map's parts with what is added to them, and what stands beside
    seen = min(tiles, at_once) * vision.positions * (4 * vision.mlp + 6 * vision.hidden) * itemsize
    read = tokens * (5 * language.mlp + 6 * language.hidden) * itemsize
    features = tiles * vision.positions * vision.hidden * itemsize + visual * sizes.merged * itemsize
    return Prefill(tokens, visual, float(seeing), float(reading), float(cache), float(features + max(seen, read)))


def weight_bytes(sizes: Sizes, part: str, itemsize: int) -> float:
    """Bytes of the tensors whose names begin with `part`; "" for all."""
    return float(sum(math.prod(shape) for name, shape in sizes.tensors().items() if name.startswith(part)) * itemsize)


def held_bytes(sizes: Sizes, itemsize: int, quantize: str) -> float:
    """Bytes of all weights where the language model's large maps are held in fewer bits, see `RuntimeOptions.quantize`.

    Embeddings, the map to words, Partial LoRA, norms and vision keep `itemsize` bytes a number. The 4 bits are NF4 with
    scales that are quantised too (QLoRA, arXiv 2305.14314), the 8 have a float32 scale a row (LLM.int8, 2208.07339).
    """
    if not quantize:
        return weight_bytes(sizes, "", itemsize)
    total = 0.0
    for name, shape in sizes.tensors().items():
        count = math.prod(shape)
        if name.startswith("model.layers.") and name.split(".")[-2] in LINEARS:
            scales = count / _BLOCK * (1 + 4 / _BLOCKS)
            total += count / 2 + scales if quantize == "4bit" else count + 4 * shape[0]
        else:
            total += count * itemsize
    return total


def widest(sizes: Sizes) -> int:
    """Numbers in the largest map of a layer, which is held whole while it is quantised, or read out of fewer bits."""
    return max(math.prod(sizes.language.linear(name)) for name in LINEARS)


def decoding(sizes: Sizes, tokens: int) -> float:
    """Operations of writing that many tokens one by one, but for looking back at what was read."""
    linear = sum(math.prod(sizes.language.linear(name)) for name in LINEARS)
    return 2.0 * tokens * (sizes.language.layers * linear + sizes.language.hidden * sizes.language.vocab)
