"""What a 4KHD model costs: by arithmetic for the released size, and measured on this machine: run this file.

On a processor a small model of the same make is measured, in float32; on a GPU the released size with random weights,
in bfloat16 (`--size` decides otherwise). Rates are set against the machine's own for a large product of matrices,
measured in the same run, so that they mean something on a machine that others use too.
"""

import argparse
import gc
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from limner.model.tiling import TILE, TileGrid, cut_tiles, place_on_canvas, squash_to_tile
from limner.model.vlm.fourkhd import generator
from limner.model.vlm.fourkhd.annotator import prefill_cost
from limner.model.vlm.fourkhd.model_config import CLIP_MEAN, CLIP_STD, LINEARS, LanguageSizes, Plora, Sizes, VisionSizes
from limner.model.vlm.fourkhd.network import FourKhd, FourKhdConfig
from limner.readers.regions import tiles_per_region
from PIL import Image

RELEASED = Sizes(
    VisionSizes(hidden=1024, layers=24, heads=16, mlp=4096),
    LanguageSizes(vocab=92544, hidden=4096, layers=32, heads=32, kv_heads=8, mlp=14336),
    projector=4096,
    plora={name: Plora(8, 16.0) if name == "wqkv" else Plora(256, 256.0) for name in LINEARS},
)
SMALL = Sizes(
    VisionSizes(hidden=256, layers=6, heads=4, mlp=1024),
    LanguageSizes(vocab=8000, hidden=512, layers=8, heads=8, kv_heads=2, mlp=1792),
    projector=512,
    plora={name: Plora(8, 16.0) if name == "wqkv" else Plora(32, 32.0) for name in LINEARS},
)
HD_NUM = (9, 16, 25, 55)
TEXT = 160  # tokens of a question with the model's instruction
LABELS, LABEL = 20, 2  # short labels: how many, and tokens each
ORDERS = 4


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table, the first its heading."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def timed(do: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    """Median seconds, after one time that does not count."""
    do()
    spent: list[float] = []
    for _ in range(repeats):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        do()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


def grid_of(hd_num: int) -> tuple[int, int]:
    """(columns, rows) of a full region."""
    return tiles_per_region(100, 100, hd_num)


def arithmetic() -> str:
    """The released size, by hd_num: what the planner says before anything runs."""
    rows: list[tuple[str, ...]] = [
        ("hd_num", "full region", "visual tokens", "keys and values", "bfloat16", "8bit", "4bit", "prefill")
    ]
    largest = 2 * RELEASED.language.largest_linear
    held = {bits: RELEASED.quantized_bytes(2, bits) + (largest if bits else 0) for bits in ("", "8bit", "4bit")}
    for hd_num in HD_NUM:
        cols, tall = grid_of(hd_num)
        cost = prefill_cost(RELEASED, tall, cols, text=TEXT, itemsize=2)
        rows.append((
            str(hd_num),
            f"{cols * TILE} × {tall * TILE}",
            str(cost.image_tokens),
            f"{cost.cache_bytes / 2**20:.0f} MiB",
            *(f"{(weights + cost.cache_bytes + cost.activation_bytes) / 2**30:.1f} GiB" for weights in held.values()),
            f"{(cost.vision_flops + cost.language_flops) / 1e12:.1f} TFLOP",
        ))  # fmt: skip
    return table(rows)


def tiling() -> str:
    """Our transform against Pillow's and torch's own functions in a row, on a picture that must be resized."""
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (1500, 2000, 3), dtype=np.uint8)
    grid = TileGrid.fit(2000, 1500, hd_num=25)
    mean, std = (torch.tensor(part)[:, None, None] for part in (CLIP_MEAN, CLIP_STD))

    def ours() -> torch.Tensor:
        canvas = place_on_canvas(picture, grid)
        shown = np.concatenate(
            [squash_to_tile(canvas.astype(np.float32))[None], cut_tiles(canvas, grid).astype(np.float32)]
        )
        return (torch.from_numpy(shown).permute(0, 3, 1, 2) / 255 - mean) / std

    def theirs() -> torch.Tensor:
        x0, y0, x1, y1 = grid.content
        canvas = Image.new("RGB", grid.size, (255, 255, 255))
        canvas.paste(Image.fromarray(picture).resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR), (x0, y0))
        whole = (torch.from_numpy(np.asarray(canvas).copy()).permute(2, 0, 1) / 255 - mean) / std
        small = torch.nn.functional.interpolate(whole[None], (TILE, TILE), mode="bicubic")
        tiles = whole.unfold(1, TILE, TILE).unfold(2, TILE, TILE).permute(1, 2, 0, 3, 4).flatten(0, 1)
        return torch.cat([small, tiles])

    assert float((ours() - theirs()).abs().max()) < 1e-4
    cpu = torch.device("cpu")
    pairs = [(timed(ours, cpu, 1), timed(theirs, cpu, 1)) for _ in range(7)]
    mine, plain = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    return table([
        ("2000 × 1500 px, hd_num 25", "limner", "Pillow and torch", "limner / the other"),
        ("transform, tiles, global view, normalised", f"{mine * 1e3:.0f} ms", f"{plain * 1e3:.0f} ms", f"{ratio:.2f}"),
    ])  # fmt: skip


def awake(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> FourKhd:
    """A network with random weights."""
    with torch.device("meta"):
        network = FourKhd(FourKhdConfig.from_sizes(sizes))
    network = network.type(dtype).to_empty(device=device)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            torch.nn.init.normal_(weight, std=0.02) if weight.ndim > 1 else weight.fill_(float("norm" in name))
    return network.eval().requires_grad_(requires_grad=False)


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Operations a second of one large product, the best that this machine shows."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = min(timed(lambda: a @ b, device, 1) for _ in range(5))
    return 2 * side**3 / best


def measured(sizes: Sizes, device: torch.device, dtype: torch.dtype, most: int) -> str:
    """Vision, prefill and decoding by hd_num, against the machine's own rate."""
    network = awake(sizes, device, dtype)
    heading = ("hd_num", "tokens", "matrix rate", "tiles a second", "of the rate", "prefill, tokens a second")
    rows: list[Sequence[str]] = [(*heading, "of the rate", "decode, tokens a second")]
    for hd_num in (n for n in HD_NUM if n <= most):
        cols, tall = grid_of(hd_num)
        cost = prefill_cost(sizes, tall, cols, text=TEXT, itemsize=dtype.itemsize)
        tiles = torch.randn(cols * tall + 1, 3, TILE, TILE, device=device, dtype=dtype)
        rate = matrix_rate(device, dtype, 8192 if device.type == "cuda" else 1536)  # at every row: others use it too
        with torch.inference_mode():
            seeing = timed(lambda tiles=tiles, grid=(tall, cols): network.image_tokens(tiles, [grid]), device)
            [picture] = network.image_tokens(tiles, [(tall, cols)])
            embedded = network.embed([[[1] * (TEXT // 2), picture, [1] * (TEXT // 2)]])
            read = {"inputs_embeds": embedded.hidden, "im_mask": embedded.image_mask, "logits_to_keep": 1}
            reading = timed(lambda read=read: network(**read), device)
            kept = network(**read, use_cache=True).past_key_values
            word = torch.tensor([[5]], device=device)

            def decode(kept: object = kept, word: torch.Tensor = word) -> None:
                for _ in range(16):
                    network(input_ids=word, past_key_values=kept)

            decoding = timed(decode, device) / 16
        done = ((cost.vision_flops, seeing), (cost.language_flops, reading))
        shares = [f"{operations / spent / rate:.0%}" for operations, spent in done]
        rates = [f"{len(tiles) / seeing:.1f}", f"{cost.tokens / reading:.0f}", f"{1 / decoding:.1f}"]
        row = (str(hd_num), str(cost.tokens), f"{rate / 1e12:.3g} TFLOP/s")
        rows.append([*row, rates[0], shares[0], rates[1], shares[1], rates[2]])
    return table(rows)


def weighing(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> str:
    """Twenty short labels after one prefill, in four orders and in one, against a prefill, and against no sharing."""
    network = awake(sizes, device, dtype)
    cols, tall = grid_of(9)
    random = np.random.default_rng(1)
    vocab = sizes.language.vocab
    options = [[*random.integers(3, vocab, LABEL).tolist()] for _ in range(LABELS)]
    suffixes = [[*random.integers(3, vocab, LABELS * (LABEL + 1) + 15).tolist()] for _ in range(ORDERS)]
    with torch.inference_mode():
        tokens = sizes.vision.image_tokens(tall, cols)
        picture = torch.randn(tokens, sizes.language.hidden, device=device, dtype=dtype)
        beginning: list[Sequence[int] | torch.Tensor] = [[1] * (TEXT // 2), picture]

        def read(text: Sequence[int]) -> None:
            embedded = network.embed([[*beginning, text]])
            network(inputs_embeds=embedded.hidden, im_mask=embedded.image_mask, logits_to_keep=1)

        def apart() -> None:
            for option in options:
                read([*suffixes[0], *option])

        once = timed(lambda: read(suffixes[0]), device)
        ways = {
            "one prefill, nothing weighed": once,
            f"{LABELS} labels, 1 order, shared": timed(
                lambda: generator.score_options(network, [beginning], suffixes[:1], options, end=2), device
            ),
            f"{LABELS} labels, {ORDERS} orders, shared": timed(
                lambda: generator.score_options(network, [beginning], suffixes, options, end=2), device
            ),
            f"{LABELS} labels, 1 order, each from the start": timed(apart, device, 1),
        }
    rows = [("hd_num 9", "seconds", "prefills")]
    return table([*rows, *((name, f"{spent:.3f}", f"{spent / once:.2f}") for name, spent in ways.items())])


MEMORY = "--memory-of"


def memory_of(hd_num: int) -> None:
    """Print the most bytes that this process held while it read one region, over what it held before."""
    sizes, device = SMALL, torch.device("cpu")
    network = awake(sizes, device, torch.float32)
    cols, tall = grid_of(hd_num)
    with torch.inference_mode():
        network.image_tokens(torch.randn(2, 3, TILE, TILE), [(1, 1)])
        gc.collect()
        before = held()
        [picture] = network.image_tokens(torch.randn(cols * tall + 1, 3, TILE, TILE), [(tall, cols)])
        embedded = network.embed([[[1] * TEXT, picture]])
        network(inputs_embeds=embedded.hidden, im_mask=embedded.image_mask, logits_to_keep=1, use_cache=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)  # noqa: T201 - what the parent reads


def held() -> int:
    """Bytes that this process holds now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def memory() -> str:
    """Memory by hd_num, as planned and as measured, each in a process of its own; the small model, on a processor."""
    rows = [("hd_num", "planned over the weights", "measured over the weights", "measured / planned")]
    for hd_num in HD_NUM:
        cols, tall = grid_of(hd_num)
        cost = prefill_cost(SMALL, tall, cols, text=TEXT, itemsize=4)
        planned = cost.cache_bytes + cost.activation_bytes
        command = [sys.executable, __file__, MEMORY, str(hd_num)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        observed = float(done.stdout)
        row = (str(hd_num), f"{planned / 2**20:.0f} MiB", f"{observed / 2**20:.0f} MiB", f"{observed / planned:.2f}")
        rows.append(row)
    return table(rows)


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["small", "7b"], help="default: 7b on a GPU, small elsewhere")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--most", type=int, default=55, help="the largest hd_num to measure")
    parser.add_argument(MEMORY, type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory_of:
        memory_of(given.memory_of)
        return
    device = torch.device(given.device)
    released = given.size == "7b" or (given.size is None and device.type == "cuda")
    sizes, dtype = (RELEASED if released else SMALL), torch.bfloat16 if device.type == "cuda" else torch.float32
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "processor"
    for title, text in (
        ("The released size, by arithmetic, bfloat16", arithmetic),
        ("Transform", tiling),
        ("Memory", memory),
        (f"Speed: {sizes.parameters / 1e6:.0f} million parameters, {dtype}, {name}",
         lambda: measured(sizes, device, dtype, given.most)),
        ("Weighing labels", lambda: weighing(sizes, device, dtype)),
    ):  # fmt: skip
        print(f"## {title}\n\n{text()}\n", flush=True)  # noqa: T201 - a script that talks to a person


if __name__ == "__main__":
    main()
