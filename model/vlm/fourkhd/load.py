"""A network from a checkpoint's files: built without memory, filled a file at a time, each part where it belongs."""

# torch's types do not say what some of its functions return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ....readers.errors import RequestError
from ....readers.plugins import missing_packages
from .cost import weight_bytes
from .files import Files, compare
from .language import PloraLinear
from .network import FourKhd, FourKhdConfig
from .runtime import Quantization, RuntimeOptions
from .sizes import Sizes

TOGETHER = ("plora_glb_GN", "plora_sub_GN", "vit", "vision_proj", "model.tok_embeddings")
"""Parts that lie on one device: pictures become visual tokens there, and meet the words."""

_HEADROOM = 0.9  # of a device's free memory: the rest is for what flows through


def from_pretrained(source: str, running: RuntimeOptions | None = None, *, fetch: bool = False) -> FourKhd:
    """The network of a folder or a hub id `OWNER/NAME@COMMIT`, ready to answer. Raises `ModelError`, `RequestError`.

    Sizes are read off the tensors, so that the released config.json, which does not state them, is enough.
    """
    return fill(Files.find(source, fetch=fetch), running or RuntimeOptions())


def build(sizes: Sizes) -> FourKhd:
    """A network of those sizes on the meta device: names and shapes, no memory."""
    with torch.device("meta"):
        return FourKhd(FourKhdConfig.of(sizes))


def fill(files: Files, running: RuntimeOptions, *, only: str = "") -> FourKhd:
    """The network of a checkpoint's files. At no time more is held than the network and one file.

    Where `only` is not "", tensors whose names do not begin with it are not read, and have shapes but no values.
    """
    shapes = files.shapes()
    sizes = Sizes.of(shapes, files.config, files.source)
    extra = compare(shapes, sizes, files.source)
    if extra:
        logging.getLogger("limner").info("%s: %d tensors are not used: %s", files.source, len(extra), ", ".join(extra))
    dtype, first = running.numbers(), running.first()
    network = build(sizes)
    network.kernel = running.kernel()
    places = split(sizes, _free_memory(), dtype.itemsize) if running.device == "split" else {"": str(first)}
    for _, tensors in files.tensors():
        for name in [name for name in tensors if name not in extra and name.startswith(only)]:
            put(network, name, tensors.pop(name), device=place_of(name, places), dtype=dtype, quantize=running.quantize)
    absent = [name for name, tensor in network.named_parameters() if tensor.is_meta and name.startswith(only)]
    if absent:
        msg = f"tensors that the files list were not filled: {absent[:3]}"
        raise RuntimeError(msg)
    return network.eval().requires_grad_(requires_grad=False)


def put(
    network: nn.Module,
    name: str,
    tensor: torch.Tensor,
    *,
    device: str,
    dtype: torch.dtype,
    quantize: Quantization = "",
) -> None:
    """Give a network one of its tensors: a copy of its own, of that type, on that device."""
    room, _, last = name.rpartition(".")
    module = network.get_submodule(room)
    if quantize and isinstance(module, PloraLinear) and last == "weight":
        module.inner = _quantized(tensor.to(dtype), device, quantize)
        module.register_parameter("weight", None)
        return
    held = tensor.to(device=device, dtype=dtype, copy=True)
    module.register_parameter(last, nn.Parameter(held, requires_grad=False))


def split(sizes: Sizes, free: Sequence[float], itemsize: int) -> dict[str, str]:
    """Which GPU holds which part, from bytes `free` on each: module → device, the longest matching name counts.

    Layers fill the GPUs in order, so that what flows crosses from one to the next once; `TOGETHER` is on the first,
    the last norm and the map to words on the last that is used. Raises `RequestError` where it does not fit.
    """
    room = [part * _HEADROOM for part in free]
    layer = weight_bytes(sizes, "model.layers.0.", itemsize)
    places: dict[str, str] = dict.fromkeys(TOGETHER, "cuda:0")
    if room:
        room[0] -= sum(weight_bytes(sizes, part, itemsize) for part in TOGETHER)
    last = weight_bytes(sizes, "output", itemsize) + weight_bytes(sizes, "model.norm", itemsize)
    device = 0
    for i in range(sizes.language.layers):
        needed = layer + (last if i == sizes.language.layers - 1 else 0.0)
        while device < len(room) and room[device] < needed:
            device += 1
        if device == len(room):
            total = weight_bytes(sizes, "", itemsize)
            raise RequestError(
                "option 'device'",
                f"the model's {total / 2**30:.1f} GiB must fit into the GPUs",
                value=", ".join(f"{part / 2**30:.1f} GiB free" for part in free) or "no GPU",
                remedy="Use more or larger GPUs, quantize=4bit, or device=cpu",
            )
        room[device] -= needed
        places[f"model.layers.{i}"] = f"cuda:{device}"
    return places | {"model.norm": f"cuda:{device}", "output": f"cuda:{device}"}


def place_of(name: str, places: Mapping[str, str]) -> str:
    """The device of a tensor: that of the longest prefix of its name, by whole words."""
    parts = name.split(".")
    for length in range(len(parts), -1, -1):
        prefix = ".".join(parts[:length])
        if prefix in places:
            return places[prefix]
    msg = f"no device for {name}"
    raise KeyError(msg)


def _quantized(weight: torch.Tensor, device: str, how: Quantization) -> nn.Module:
    """A linear map without bias in 4 (NF4) or 8 bits (LLM.int8), arXiv 2305.14314 and 2208.07339."""
    try:
        import bitsandbytes
    except ImportError as error:
        raise missing_packages(
            "quantize", "option 'quantize'", ["bitsandbytes"], otherwise="or leave the option out"
        ) from error
    layers: Any = bitsandbytes.nn
    out, into = weight.shape
    if how == "4bit":
        inner = layers.Linear4bit(into, out, bias=False, quant_type="nf4", compute_dtype=weight.dtype)
        inner.weight = layers.Params4bit(weight.contiguous(), requires_grad=False, quant_type="nf4")
    else:
        inner = layers.Linear8bitLt(into, out, bias=False, has_fp16_weights=False)
        inner.weight = layers.Int8Params(weight.contiguous(), requires_grad=False, has_fp16_weights=False)
    return inner.to(device)


def _free_memory() -> list[float]:
    return [float(torch.cuda.mem_get_info(i)[0]) for i in range(torch.cuda.device_count())]
