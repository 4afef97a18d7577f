"""How a 4KHD network runs: numbers, device, attention, quantisation. Imports torch, and nothing else that is slow."""

from dataclasses import dataclass
from typing import Literal

import torch

from ...readers.errors import RequestError

Quantization = Literal["", "4bit", "8bit"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Running:
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
