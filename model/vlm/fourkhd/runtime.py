"""How a 4KHD network runs: numbers, device, attention, quantisation. Imports torch, and nothing else that is slow."""

import logging
from dataclasses import dataclass
from typing import Literal

import torch

from ....readers.errors import RequestError
from ....readers.plugins import require_extra

Quantization = Literal["", "4bit", "8bit"]
Kernel = Literal["sdpa", "flash_attention_2", "eager"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
KERNELS = ("sdpa", "flash_attention_2", "eager")
_AMPERE = (8, 0)
_said: set[str] = set()


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """How a network runs. `dtype` "auto" is bfloat16 on a GPU and float32 elsewhere.

    `device` is "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", …, or "split": the layers are spread over
    all GPUs, and vision, separators and the words' embeddings stay together on the first. `attention` is a kernel;
    `quantize` holds the language model's large maps in 4 or 8 bits, by bitsandbytes.
    """

    dtype: str = "auto"
    device: str = "auto"
    attention: str = "sdpa"
    quantize: Quantization = ""

    def first(self) -> torch.device:
        """The device that pictures go to. Raises `RequestError` where it is not here."""
        name = self.device
        if name in {"auto", "split"}:
            name = "cuda:0" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise RequestError(
                "option 'device'", "it is auto, split, cpu or a GPU such as cuda:0", value=name, remedy="Correct it"
            ) from error
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise RequestError(
                "option 'device'",
                "the GPU must be here",
                value=f"{name}; {torch.cuda.device_count()} can be used",
                remedy="Name another device, or cpu",
            )
        return device

    def numbers(self) -> torch.dtype:
        """The type of the network's numbers. Raises `RequestError` for an unknown one."""
        name = self.dtype
        if name == "auto":
            name = "bfloat16" if self.first().type == "cuda" else "float32"
        if name not in DTYPES:
            raise RequestError("option 'dtype'", f"it is auto, {', '.join(DTYPES)}", value=name, remedy="Correct it")
        return DTYPES[name]

    def kernel(self) -> Kernel:
        """The attention kernel that these options ask for. Raises `RequestError` for an unknown one."""
        return choose_kernel(self.attention, device=self.first(), dtype=self.numbers())

    def check(self) -> None:
        """Raise `RequestError` where this machine cannot run a network in this way. Loads nothing."""
        self.kernel()
        if self.quantize:
            require_extra("quantize", "option 'quantize'", otherwise="or leave the option out")


def choose_kernel(asked: str, *, device: torch.device, dtype: torch.dtype) -> Kernel:
    """The kernel that is asked for, or "sdpa", with one line on standard error that says why, once.

    Results of all three agree within the precision of `dtype`. Raises `RequestError` for an unknown one.
    """
    if asked not in KERNELS:
        raise RequestError("option 'attention'", f"it is {', '.join(KERNELS)}", value=asked, remedy="Correct it")
    if asked != "flash_attention_2":
        return "sdpa" if asked == "sdpa" else "eager"
    reason = _cannot_flash(device, dtype)
    if not reason:
        return "flash_attention_2"
    if reason not in _said:
        _said.add(reason)
        logging.getLogger("limner").warning("flash_attention_2 cannot run: %s. sdpa is used instead.", reason)
    return "sdpa"


def _cannot_flash(device: torch.device, dtype: torch.dtype) -> str:
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
