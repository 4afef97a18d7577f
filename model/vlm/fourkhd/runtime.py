"""Running a 4KHD network: type of number, device, attention kernel and quantization, and loading it from files.

Imports torch; the network itself is imported where it is made.
"""

# torch's types do not state what some of its functions return:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

import torch
from torch import nn

from ....readers.errors import RequestError
from ....readers.plugins import missing_packages, require_extra
from .checkpoint import DTYPES, FourKhdFiles
from .model_config import Kernel, Sizes

if TYPE_CHECKING:
    from .network import FourKhd

ON_FIRST_DEVICE = ("plora_glb_GN", "plora_sub_GN", "vit", "vision_proj", "model.tok_embeddings")
"""Modules on one device: pictures become image tokens there, and join the text."""

_HEADROOM = 0.9  # of a device's free memory: the rest is for activations
_AMPERE = (8, 0)
_warned: set[str] = set()


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """How a network runs."""

    dtype: str = "auto"
    """A type of number in `DTYPES`, or auto: bfloat16 on a GPU and float32 elsewhere."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda, cuda:1, …, or split, which spreads the layers over all GPUs."""
    attention: str = "sdpa"
    """A kernel of attention: see `choose_kernel`."""
    quantize: str = ""
    """"4bit" or "8bit" for the language model's linear maps, by bitsandbytes; "" for none."""

    def image_device(self) -> torch.device:
        """The device that encodes pictures: the only one, or the first of several. Raises `RequestError`."""
        name = self.device
        if name in {"auto", "split"}:
            name = "cuda:0" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(name)
        except RuntimeError as error:
            rule = "must be auto, split, cpu or a GPU such as cuda:0"
            raise RequestError("option 'device'", rule, value=name, remedy="Correct it") from error
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise RequestError(
                "option 'device'",
                "must name a GPU of this machine",
                value=f"{name}, but {torch.cuda.device_count()} can be used",
                remedy="Name another device, or cpu",
            )
        return device

    def torch_dtype(self) -> torch.dtype:
        """The type of the network's numbers. Raises `RequestError` for an unknown one."""
        name = self.dtype
        if name == "auto":
            name = "bfloat16" if self.image_device().type == "cuda" else "float32"
        if name not in DTYPES:
            rule = f"must be auto, {', '.join(DTYPES)}"
            raise RequestError("option 'dtype'", rule, value=name, remedy="Correct it")
        return getattr(torch, name)

    def kernel(self) -> Kernel:
        """The attention kernel. Raises `RequestError` for an unknown one."""
        return choose_kernel(self.attention, device=self.image_device(), dtype=self.torch_dtype())

    def check(self) -> None:
        """Raise `RequestError` where this machine cannot run a network in this way. Loads nothing."""
        self.kernel()
        if self.quantize:
            require_extra("quantize", "option 'quantize'", otherwise="or leave the option out")


def choose_kernel(asked: str, *, device: torch.device, dtype: torch.dtype) -> Kernel:
    """The kernel that is asked for, or "sdpa" with a warning, given once, where flash attention cannot run.

    Results of all kernels agree within the precision of `dtype`. Raises `RequestError` for an unknown one.
    """
    if asked not in get_args(Kernel):
        rule = f"must be {', '.join(get_args(Kernel))}"
        raise RequestError("option 'attention'", rule, value=asked, remedy="Correct it")
    reason = _no_flash_attention(device, dtype) if asked == "flash_attention_2" else ""
    if not reason:
        return cast("Kernel", asked)
    if reason not in _warned:
        _warned.add(reason)
        logging.getLogger("limner").warning("flash_attention_2 cannot run: %s. sdpa is used instead.", reason)
    return "sdpa"


def _no_flash_attention(device: torch.device, dtype: torch.dtype) -> str:
    if device.type != "cuda":
        return f"it needs an NVIDIA or AMD GPU, and the model is on {device.type}"
    if dtype not in {torch.float16, torch.bfloat16}:
        return f"it needs 16-bit numbers, and the model has {str(dtype).removeprefix('torch.')}"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < _AMPERE:
        return f"it needs compute capability 8.0, and {torch.cuda.get_device_name(device)} has less"
    from transformers.utils.import_utils import is_flash_attn_2_available

    if not is_flash_attn_2_available():
        return "the package flash-attn is not installed, or not for this version of CUDA"
    return ""


def from_pretrained(source: str, options: RuntimeOptions | None = None, *, fetch: bool = False) -> "FourKhd":
    """The network of a folder or a hub id `OWNER/NAME@COMMIT`. Raises `ModelError`, `RequestError`."""
    return load_network(FourKhdFiles.find(source, fetch=fetch), options or RuntimeOptions())


def empty_network(sizes: Sizes) -> "FourKhd":
    """A network of those sizes on the meta device: names and shapes, no memory."""
    from .network import FourKhd, FourKhdConfig

    with torch.device("meta"):
        return FourKhd(FourKhdConfig.from_sizes(sizes))


def load_network(files: FourKhdFiles, options: RuntimeOptions, *, prefix: str = "") -> "FourKhd":
    """Load a checkpoint, holding no more than the network and one file at any time.

    Only tensors whose names begin with `prefix` are read; the others stay on the meta device.
    """
    sizes, unused = files.checked()
    if unused:
        text = "%s: %d tensors are not used: %s"
        logging.getLogger("limner").info(text, files.source, len(unused), ", ".join(unused))
    dtype, device = options.torch_dtype(), options.image_device()
    network = empty_network(sizes)
    network.kernel = options.kernel()
    devices = {"": str(device)}
    if options.device == "split":
        free = [float(torch.cuda.mem_get_info(i)[0]) for i in range(torch.cuda.device_count())]
        devices = split_layers(sizes, free, dtype.itemsize)
    for tensors in files.tensors():
        for name in [name for name in tensors if name not in unused and name.startswith(prefix)]:
            where = device_of(name, devices)
            _set_tensor(network, name, tensors.pop(name), device=where, dtype=dtype, quantize=options.quantize)
    absent = [name for name, tensor in network.named_parameters() if tensor.is_meta and name.startswith(prefix)]
    if absent:
        msg = f"tensors that the files list were not loaded: {absent[:3]}"
        raise RuntimeError(msg)
    return network.eval().requires_grad_(requires_grad=False)


def _set_tensor(
    network: nn.Module, name: str, tensor: torch.Tensor, *, device: str, dtype: torch.dtype, quantize: str
) -> None:
    """Set one tensor of a network: a copy of that type, on that device."""
    from .language import PloraLinear

    parent, _, last = name.rpartition(".")
    module = network.get_submodule(parent)
    if quantize and isinstance(module, PloraLinear) and last == "weight":
        module.quantized = _quantized(tensor.to(dtype), device, quantize)
        module.register_parameter("weight", None)
        return
    held = tensor.to(device=device, dtype=dtype, copy=True)
    module.register_parameter(last, nn.Parameter(held, requires_grad=False))


def split_layers(sizes: Sizes, free: Sequence[float], itemsize: int) -> dict[str, str]:
    """The GPU of each module, from bytes `free` on each: module → device; the longest matching name counts.

    Layers fill the GPUs in order, so that activations cross from one to the next once. `ON_FIRST_DEVICE` is on the
    first, the final norm and the output on the last that is used. Raises `RequestError` where the model does not fit.
    """
    room = [part * _HEADROOM for part in free]
    layer = sizes.weight_bytes("model.layers.0.", itemsize)
    devices: dict[str, str] = dict.fromkeys(ON_FIRST_DEVICE, "cuda:0")
    if room:
        room[0] -= sum(sizes.weight_bytes(part, itemsize) for part in ON_FIRST_DEVICE)
    last = sizes.weight_bytes("output", itemsize) + sizes.weight_bytes("model.norm", itemsize)
    device = 0
    for i in range(sizes.language.layers):
        needed = layer + (last if i == sizes.language.layers - 1 else 0.0)
        while device < len(room) and room[device] < needed:
            device += 1
        if device == len(room):
            raise RequestError(
                f"a model of {sizes.weight_bytes('', itemsize) / 2**30:.1f} GiB",
                "must fit into the GPUs",
                value=", ".join(f"{part / 2**30:.1f} GiB free" for part in free) or "no GPU",
                remedy="Use more or larger GPUs, or --set model_options.quantize=4bit, or model_options.device=cpu",
            )
        room[device] -= needed
        devices[f"model.layers.{i}"] = f"cuda:{device}"
    return devices | {"model.norm": f"cuda:{device}", "output": f"cuda:{device}"}


def device_of(name: str, devices: Mapping[str, str]) -> str:
    """The device of a tensor: that of the longest prefix of its dotted name."""
    parts = name.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), -1, -1))
    return next(devices[prefix] for prefix in prefixes if prefix in devices)


def _quantized(weight: torch.Tensor, device: str, quantize: str) -> nn.Module:
    """A linear map without bias in 4 (NF4) or 8 bits (LLM.int8), arXiv 2305.14314 and 2208.07339."""
    try:
        import bitsandbytes
    except ImportError as error:
        raise missing_packages(
            "quantize", "option 'quantize'", ["bitsandbytes"], otherwise="or leave the option out"
        ) from error
    layers: Any = bitsandbytes.nn
    out, into = weight.shape
    if quantize == "4bit":
        inner = layers.Linear4bit(into, out, bias=False, quant_type="nf4", compute_dtype=weight.dtype)
        inner.weight = layers.Params4bit(weight.contiguous(), requires_grad=False, quant_type="nf4")
    else:
        inner = layers.Linear8bitLt(into, out, bias=False, has_fp16_weights=False)
        inner.weight = layers.Int8Params(weight.contiguous(), requires_grad=False, has_fp16_weights=False)
    return inner.to(device)
